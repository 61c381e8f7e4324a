//! `bindscope schema`: the JSON Schema of user files, and their reference for people.

use std::path::PathBuf;

use super::{Context, Exit, Failure};
use crate::profile::{FileKind, reference, schema};

/// Arguments of `bindscope schema`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bindscope schema profile                    JSON Schema, for editors\n  bindscope schema policy -f markdown         every key, for people\n  \
    bindscope schema lab -o lab.schema.json     to a file"
)]
pub struct Args {
    /// The kind of file
    #[arg(value_enum, value_name = "KIND")]
    kind: Kind,
    /// Output format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "json", help_heading = "Output")]
    format: Format,
    /// Short for --format json
    #[arg(long, conflicts_with = "format", help_heading = "Output")]
    json: bool,
    /// Write to FILE instead of standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
}

/// The user files.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum Kind {
    /// Listeners and expectations
    Profile,
    /// Rules for what may listen
    Policy,
    /// The network of a lab
    Lab,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// JSON Schema 2020-12
    Json,
    /// A reference page with every key
    Markdown,
    /// The same as a manual page of section 5
    Man,
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
    let text = match args.format {
        Format::Json => format!("{:#}\n", schema::schema(kind)),
        Format::Markdown => reference::reference(kind),
        Format::Man => reference::manual(kind),
    };
    context.emit(text.as_bytes(), args.output.as_deref())?;
    Ok(Exit::Success)
}
