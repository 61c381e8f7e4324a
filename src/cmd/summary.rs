//! `bindscope` without a command.

use super::{Context, Exit, Failure};

/// Runs it.
///
/// # Errors
/// What could not be done.
pub fn run(_context: &Context) -> Result<Exit, Failure> {
    Ok(Exit::Success)
}
