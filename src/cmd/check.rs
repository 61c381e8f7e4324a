//! `bindscope check`.

use super::{Context, Exit, Failure};

/// Arguments of `bindscope check`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs it.
///
/// # Errors
/// What could not be done.
pub fn run(_args: &Args, _context: &Context) -> Result<Exit, Failure> {
    Ok(Exit::Success)
}
