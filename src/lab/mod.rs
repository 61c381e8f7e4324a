//! Rootless network labs: namespaces in this process, listeners in one of them, and real connections from all.
//!
//! [`ops`] turns a topology into ordered operations (pure), and [`build`] performs them. [`path`] computes how a packet
//! of a node arrives at the host (pure). [`run`] binds, connects and compares. [`capture_check`] compares the packets
//! with the kernel's reports (pure), and [`filter_trace`] finds the rule that decided about each connection (pure).

pub mod build;
pub mod builtin;
pub mod capture_check;
mod commands;
pub mod filter_trace;
pub mod ops;
pub mod path;
pub mod rehearse;
pub mod ruleset;
pub mod run;
pub mod twin;
