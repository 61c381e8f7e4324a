//! `-f/--format` and `--json`, the same in every command.

use clap::ValueEnum;

/// Formats of a command, including JSON and a default.
pub trait Formats: ValueEnum + Copy + Send + Sync + 'static {
    /// The format for people at a terminal.
    const DEFAULT: Self;
    /// The format of `--json`.
    const JSON: Self;
}

/// `-f/--format` and `--json`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct FormatArgs<F: Formats> {
    /// Output format [default: human]
    #[arg(short, long, value_enum, value_name = "FORMAT", help_heading = "Output")]
    format: Option<F>,
    /// Short for the JSON form of --format
    #[arg(long, conflicts_with = "format", help_heading = "Output")]
    json: bool,
}

impl<F: Formats> FormatArgs<F> {
    /// The selected format.
    #[must_use]
    pub fn get(&self) -> F {
        if self.json { F::JSON } else { self.format.unwrap_or(F::DEFAULT) }
    }
}
