//! Events, their serialization, and sinks that never block the accept loop.

pub mod event;
pub mod history;
pub mod ndjson;
pub mod sink;
pub mod tally;
pub mod time;
