//! `bindscope schema`: the JSON Schema of user files.

use std::path::PathBuf;

use super::{Context, Exit, Failure};
use crate::profile::{FileKind, schema};

/// Arguments of `bindscope schema`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kind of file
    #[arg(value_enum, value_name = "KIND")]
    kind: Kind,
    /// Write to FILE instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// Listeners and expectations
    Profile,
    /// Rules for what may listen
    Policy,
    /// The network of a lab
    Lab,
}

/// Entry point of `bindscope schema`.
///
/// # Errors
/// Exit code 5 if it cannot be written.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let kind = match args.kind {
        Kind::Profile => FileKind::Profile,
        Kind::Policy => FileKind::Policy,
        Kind::Lab => FileKind::Lab,
    };
    context.emit(format!("{:#}\n", schema::schema(kind)).as_bytes(), args.output.as_deref())?;
    Ok(Exit::Success)
}
