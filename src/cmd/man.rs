//! `bindscope man`: the manual pages of the program, of its commands and of its files.

use std::path::PathBuf;

use roff::{Roff, bold, roman};

use super::completions::command;
use super::{Context, Exit, Failure};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::profile::{FileKind, reference};

/// Arguments of `bindscope man`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bindscope man                              the page of the program\n  bindscope man lab run                      \
    the page of a command\n  bindscope man --directory ~/.local/share/man    every page"
)]
pub struct Args {
    /// The page of this command instead of the program's
    #[arg(value_name = "COMMAND", conflicts_with = "directory")]
    command: Vec<String>,
    /// Write the pages of all commands to DIR/man1, and those of all kinds of files to DIR/man5
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Writes one page (roff), or all of them.
///
/// # Errors
/// An unknown command (exit 2); output that cannot be written (exit 5).
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let program = command();
    if let Some(directory) = &args.directory {
        let mut pages = vec![("bindscope".to_owned(), &program)];
        pages_below("bindscope", &program, &mut pages);
        for (name, command) in pages {
            let file = directory.join("man1").join(format!("{name}.1"));
            context.install(&page(&name, command)?, &file)?;
        }
        for (name, kind) in
            [("profile", FileKind::Profile), ("policy", FileKind::Policy), ("lab", FileKind::Lab)]
        {
            let file = directory.join("man5").join(format!("bindscope-{name}.5"));
            context.install(reference::manual(kind).as_bytes(), &file)?;
        }
        return Ok(Exit::Success);
    }
    let mut shown = &program;
    let mut name = "bindscope".to_owned();
    for word in args.command.iter().flat_map(|word| word.split('-')) {
        let names = || shown.get_subcommands().map(clap::Command::get_name).collect::<Vec<_>>();
        shown = shown.find_subcommand(word).ok_or_else(|| {
            let problem = Diagnostic::error(Code::UNKNOWN_NAME, format!("{name} has no command {word}"));
            let help = if names().is_empty() {
                format!("`bindscope man` with the words before {word} prints the page")
            } else {
                format!("the commands are {}", names().join(", "))
            };
            Failure::usage(vec![problem.help(help)])
        })?;
        name = format!("{name}-{word}");
    }
    context.emit(&page(&name, shown)?, None)?;
    Ok(Exit::Success)
}

/// The commands of a command, and theirs, with the names of their pages. `help` has none of its own.
fn pages_below<'a>(name: &str, command: &'a clap::Command, pages: &mut Vec<(String, &'a clap::Command)>) {
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        let name = format!("{name}-{}", below.get_name());
        pages.push((name.clone(), below));
        pages_below(&name, below, pages);
    }
}

/// A page of section 1.
fn page(name: &str, command: &clap::Command) -> Result<Vec<u8>, Failure> {
    let source = format!("bindscope {}", env!("CARGO_PKG_VERSION"));
    // A page describes every option, as `--help` does.
    let whole = command.clone().display_name(name).mut_args(|argument| argument.hide_short_help(false));
    let man = clap_mangen::Man::new(whole).title(name).source(source);
    let mut page = Vec::new();
    let write = |page: &mut Vec<u8>| {
        man.render_title(page)?;
        man.render_name_section(page)?;
        man.render_synopsis_section(page)?;
        man.render_description_section(page)?;
        if command.get_arguments().any(|argument| !argument.is_hide_set()) {
            man.render_options_section(page)?;
        }
        if command.has_subcommands() {
            man.render_subcommands_section(page)?;
        }
        end(name, command).to_writer(page)
    };
    write(&mut page).map_err(|error| {
        Failure::new(Exit::Internal, Diagnostic::error(Code::INTERNAL, format!("manual page: {error}")))
    })?;
    Ok(page)
}

/// First commands of a new user, for the page of the program.
const EXAMPLES: &str =
    "  bindscope                          interfaces, what listens here, and who can reach it
  bindscope why localhost:3000       what answers there, and why not
  bindscope listen 0.0.0.0:8080      the interface of every connection; Ctrl-C ends
  bindscope plan 0.0.0.0:8080        who could reach this port; opens no socket
  bindscope audit                    every listener with its exposure and owner
  bindscope lab run tutorial         a test from other hosts, in a temporary network";

/// What `bindscope explain exit-codes` says, in short.
const EXITS: [(Exit, &str); 9] = [
    (Exit::Success, "Everything was done, and every check passed."),
    (
        Exit::Finding,
        "An expectation failed, a policy was violated, predicted and observed differ, or two reports differ.",
    ),
    (Exit::Usage, "Wrong usage or an invalid file."),
    (Exit::Undecided, "Evidence is missing, or nothing was checked."),
    (Exit::Environment, "No listener could be bound, or a lab could not be built."),
    (Exit::Output, "Output could not be written."),
    (Exit::Internal, "An internal error."),
    (Exit::Interrupted, "A second SIGINT."),
    (Exit::Terminated, "A second SIGTERM."),
];

/// The sections after the commands.
fn end(name: &str, command: &clap::Command) -> Roff {
    let mut page = Roff::new();
    let program = name == "bindscope";
    let own = command.get_after_help().filter(|_| !program).map(ToString::to_string);
    let examples = if program { Some(EXAMPLES) } else { own.as_deref() };
    page.control("SH", ["EXIT STATUS"]);
    for (exit, meaning) in EXITS {
        page.control("TP", []).text([bold(exit.number().to_string())]).text([roman(meaning)]);
    }
    page.control("SH", ["FILES"]);
    for (file, meaning) in [
        ("./bindscope.toml", "The profile of commands that are given none."),
        ("/etc/bindscope/policy.toml", "The policy of the packaged service bindscope-audit."),
    ] {
        page.control("TP", []).text([bold(file)]).text([roman(meaning)]);
    }
    if let Some(examples) = examples {
        page.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in examples.lines().filter(|line| *line != "Examples:") {
            page.text([roman(line)]);
        }
        page.control("fi", []);
    }
    page.control("SH", ["SEE ALSO"]);
    let parent = name.rsplit_once('-').map(|(parent, _)| parent);
    if let Some(parent) = parent {
        page.text([bold(parent), roman("(1),")]);
    }
    page.text([bold("bindscope-profile"), roman("(5),")]);
    page.text([bold("bindscope-policy"), roman("(5),")]);
    page.text([bold("ss"), roman("(8),")]);
    page.text([bold("ip"), roman("(8)")]);
    page
}
