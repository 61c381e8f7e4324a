//! Connects for real and tells what came of it: which socket answered, over which interface, or how it failed.
//!
//! [`listeners`] are the sockets, [`attempt`] makes the connections, [`classify`] the meaning of errors. [`kernel_check`] replays [`known_results`] of binds whose outcome is known.

pub mod attempt;
pub mod classify;
mod engine;
pub mod kernel_check;
pub mod known_results;
pub mod listeners;
mod socket_reuse;
