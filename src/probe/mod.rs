//! Connects for real and tells what came of it: which socket answered, over which interface, or how it failed.
//!
//! [`connect`] is the engine, [`classify`] the meaning of errors.

pub mod classify;
pub mod connect;
