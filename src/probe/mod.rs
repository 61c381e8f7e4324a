//! Connects for real and tells what came of it: which socket answered, over which interface, or how it failed.
//!
//! [`opened`] are the sockets, [`connect`] makes the connections, [`classify`] the meaning of errors. [`kernel`] replays [`tables`] of binds whose outcome is known.

pub mod classify;
pub mod connect;
mod engine;
pub mod kernel;
pub mod opened;
mod spare;
pub mod tables;
