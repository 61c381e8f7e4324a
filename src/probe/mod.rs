//! Makes real connections and reports the results: which socket answered, the ingress interface, or the failure.
//!
//! [`listeners`] opens the sockets, [`run`] makes the connections, [`classify`] interprets errors. [`kernel_check`]
//! replays the binds of [`known_results`].

pub mod attempt;
pub mod classify;
mod engine;
pub mod kernel_check;
pub mod known_results;
pub mod listeners;
pub mod run;
mod socket_reuse;
