//! How the process was started: not told here.

/// Taken to be open.
#[must_use]
pub fn began_without_output() -> bool {
    false
}
