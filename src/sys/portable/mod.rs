//! The portable side of [`super`]. No logic here.

pub mod snapshot;
