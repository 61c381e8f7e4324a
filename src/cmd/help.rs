//! Short help (`-h`) fits a screen: what is seldom needed is left to `--help`.

use std::ffi::OsString;

use clap::{CommandFactory as _, FromArgMatches as _};

use super::Cli;

/// Options that `-h` leaves out.
const SELDOM: &[&str] = &[
    "all-namespaces",
    "all-protocols",
    "baseline",
    "bind",
    "color",
    "deadline",
    "emit-profile",
    "host",
    "host-id",
    "inherited",
    "keep-privileges",
    "max-results",
    "max-runs",
    "no-config",
    "no-owners",
    "parallel",
    "quiet",
    "rehearse",
    "ruleset",
    "set",
    "socket-options",
    "sources",
    "steps",
    "strict",
    "threads",
    "trust",
    "vary",
    "without-ipv6",
    "write-policy",
];

/// Reads the command line.
///
/// # Errors
/// Wrong usage, and what `--help` and `--version` print.
pub(super) fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let mut matches = brief(Cli::command()).try_get_matches_from(arguments)?;
    Cli::from_arg_matches_mut(&mut matches)
}

/// The command and all below it, with the options that `-h` shows.
pub(super) fn brief(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| {
        let seldom = arg.get_long().is_some_and(|long| SELDOM.contains(&long));
        if seldom { arg.hide_short_help(true) } else { arg }
    });
    command.mut_subcommands(brief)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut command = brief(Cli::command());
        command.build();
        let mut found = Vec::new();
        lines(&command, "bindscope", &mut found);
        let long: Vec<&(String, usize)> = found.iter().filter(|(_, lines)| *lines > 40).collect();
        assert!(found.len() > 15 && long.is_empty(), "{long:?}");
    }

    #[test]
    fn options_that_are_left_out_exist() {
        let mut command = brief(Cli::command());
        command.build();
        fn has(command: &clap::Command, name: &str) -> bool {
            command.get_arguments().any(|arg| arg.get_long() == Some(name))
                || command.get_subcommands().any(|below| has(below, name))
        }
        let gone: Vec<&&str> = SELDOM.iter().filter(|name| !has(&command, name)).collect();
        assert!(gone.is_empty(), "{gone:?}");
    }
}
