//! Events as they are written, and sinks that never block the loop.

pub mod coverage;
pub mod document;
pub mod event;
pub mod json;
pub mod line;
pub mod sink;
pub mod tally;
pub mod time;
