//! Dropping privileges: not supported on this system.

use crate::model::confinement::{Confinement, Needs};

/// Drops nothing, and reports that.
#[must_use]
pub fn confine(_needs: &Needs) -> Confinement {
    Confinement {
        weaker_because: vec!["privileges are not dropped on this system".to_owned()],
        ..Confinement::default()
    }
}

/// The same for all threads.
#[must_use]
pub fn with_other_threads(confinement: Confinement) -> Confinement {
    confinement
}
