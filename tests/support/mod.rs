//! What the integration tests share: a harness for tests that need network namespaces, and a runner of the program.
#![allow(dead_code, reason = "each test crate uses a part")]

pub mod netns;
pub mod program;
pub mod random;
pub mod snapshot;
