//! `bindscope init`: writes a commented profile to begin with.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use super::{Context, Exit, Failure};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::escape::escape;

/// Arguments of `bindscope init`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to write it; - for standard output
    #[arg(value_name = "FILE", default_value = "bindscope.toml")]
    file: PathBuf,
    /// Write over a file that exists
    #[arg(long)]
    force: bool,
}

/// The profile that is written.
pub const STARTER: &str = include_str!("starter.toml");

/// Runs it.
///
/// # Errors
/// Exit 2 when the file exists, exit 5 when it cannot be written.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    if args.file.as_os_str() == "-" {
        context.emit(STARTER.as_bytes(), None)?;
        return Ok(Exit::Success);
    }
    let shown = args.file.display().to_string();
    if args.force {
        context.emit(STARTER.as_bytes(), Some(&args.file))?;
    } else {
        File::create_new(&args.file).and_then(|mut file| file.write_all(STARTER.as_bytes())).map_err(
            |error| {
                if error.kind() == ErrorKind::AlreadyExists {
                    let problem = Diagnostic::error(Code::FILE_EXISTS, format!("{shown} exists already"));
                    Failure::new(
                        Exit::Usage,
                        problem.help("choose another name, or write over it with --force"),
                    )
                } else {
                    let problem =
                        Diagnostic::error(Code::OUTPUT_FAILED, format!("cannot write {shown}: {error}"));
                    Failure::new(Exit::Output, problem.help("choose another file"))
                }
            },
        )?;
    }
    context.emit(format!("{0}: written; next: bindscope listen {0}\n", escape(&shown)).as_bytes(), None)?;
    Ok(Exit::Success)
}
