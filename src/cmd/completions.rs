//! `bindscope completions` and `bindscope man`: files that a package installs with the program.

use super::{Cli, Context, Exit, Failure};
use crate::code::Code;
use crate::diag::Diagnostic;

/// Arguments of `bindscope completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell for which to write the script
    shell: clap_complete::Shell,
}

/// Arguments of `bindscope man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The page of this command instead of the program's
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

/// Writes a completion script.
///
/// # Errors
/// Output that cannot be written (exit 5).
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    // clap_complete panics when its writer fails; a vector does not.
    clap_complete::generate(args.shell, &mut command(), "bindscope", &mut script);
    context.emit(&script, None)?;
    Ok(Exit::Success)
}

/// Writes a manual page (roff, section 1).
///
/// # Errors
/// An unknown command (exit 2); output that cannot be written (exit 5).
pub fn man(args: &ManArgs, context: &Context) -> Result<Exit, Failure> {
    let program = command();
    let shown = match &args.command {
        None => program,
        Some(name) => {
            let found = program.get_subcommands().find(|command| command.get_name() == name).cloned();
            found.ok_or_else(|| unknown(name, &program))?.display_name(format!("bindscope-{name}"))
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(shown).render(&mut page).map_err(|error| {
        Failure::new(Exit::Internal, Diagnostic::error(Code::INTERNAL, format!("manual page: {error}")))
    })?;
    context.emit(&page, None)?;
    Ok(Exit::Success)
}

/// The command line with names and global options set for every command.
fn command() -> clap::Command {
    let mut command = <Cli as clap::CommandFactory>::command();
    command.build();
    command
}

fn unknown(name: &str, program: &clap::Command) -> Failure {
    let names: Vec<&str> = program.get_subcommands().map(clap::Command::get_name).collect();
    let problem = Diagnostic::error(Code::UNKNOWN_NAME, format!("there is no command {name}"));
    Failure::usage(vec![problem.help(format!("the commands are {}", names.join(", ")))])
}
