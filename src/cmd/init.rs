//! `bindscope init`: writes a commented profile as a starting point.

use std::path::PathBuf;

use super::{Context, Exit, Failure};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::escape::escape;
use crate::sys::Readers;

/// Arguments of `bindscope init`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File to write; - for standard output
    #[arg(value_name = "FILE", default_value = "bindscope.toml")]
    file: PathBuf,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
}

/// The profile that is written.
pub const STARTER: &str = include_str!("starter.toml");

/// Entry point of `bindscope init`.
///
/// # Errors
/// Exit code 2 if the file exists, exit code 5 if it cannot be written.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    if args.file.as_os_str() == "-" {
        context.emit(STARTER.as_bytes(), None)?;
        return Ok(Exit::Success);
    }
    let shown = escape(&args.file.display().to_string());
    if args.force {
        context.emit(STARTER.as_bytes(), Some(&args.file))?;
    } else {
        context.create(STARTER.as_bytes(), &args.file, Readers::Umask).map_err(|failure| {
            failure.unwrap_or_else(|| {
                let problem = Diagnostic::error(Code::FILE_EXISTS, format!("{shown} exists already"));
                let help = "choose another name, or write over it with --force";
                Failure::new(Exit::Usage, problem.help(help))
            })
        })?;
    }
    context.emit(format!("{0}: written; next: bindscope listen {0}\n", shown).as_bytes(), None)?;
    Ok(Exit::Success)
}
