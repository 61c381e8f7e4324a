//! Giving up rights: what a portable program can do about them, which is nothing.

use crate::model::confinement::{Confinement, Needs};

/// Gives up nothing, and says so.
#[must_use]
pub fn confine(_needs: &Needs) -> Confinement {
    Confinement {
        weaker_because: vec!["rights are not given up on this system".to_owned()],
        ..Confinement::default()
    }
}

/// The same for all threads.
#[must_use]
pub fn with_other_threads(confinement: Confinement) -> Confinement {
    confinement
}
