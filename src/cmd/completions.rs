//! `bindscope completions`: scripts for shells.

use super::{Cli, Context, Exit, Failure};

/// Arguments of `bindscope completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell for which to write the script
    shell: clap_complete::Shell,
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

/// The command line with names and global options set for every command.
pub(super) fn command() -> clap::Command {
    let mut command = <Cli as clap::CommandFactory>::command();
    command.build();
    command
}
