//! State at the start of the process: unknown on this system.

/// Assumed to be open.
#[must_use]
pub fn began_without_output() -> bool {
    false
}
