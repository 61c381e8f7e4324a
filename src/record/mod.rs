//! Events as they are written, and sinks that never block the loop.

pub mod event;
pub mod ndjson;
pub mod sink;
pub mod tally;
pub mod time;
