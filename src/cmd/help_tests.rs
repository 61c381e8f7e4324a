//! The short help (`-h`) of every command fits a screen: options that are seldom needed have `hide_short_help` and are shown by
//! `--help`.

use clap::CommandFactory as _;

use super::Cli;

/// The lines of the short help of a command and of those below it, at 80 columns.
fn lines(command: &clap::Command, path: &str, found: &mut Vec<(String, usize)>) {
    let mut own = command.clone().term_width(80);
    found.push((path.to_owned(), own.render_help().to_string().lines().count()));
    for below in command.get_subcommands() {
        lines(below, &format!("{path} {}", below.get_name()), found);
    }
}

#[test]
fn short_help_fits_a_screen() {
    let mut command = Cli::command();
    command.build();
    let mut found = Vec::new();
    lines(&command, "bindscope", &mut found);
    let long: Vec<&(String, usize)> = found.iter().filter(|(_, lines)| *lines > 40).collect();
    assert!(found.len() > 15 && long.is_empty(), "{long:?}");
}
