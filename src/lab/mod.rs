//! Hosts out of thin air: a network of namespaces in this process, the listeners bound in one of them, and real connections from
//! every one.
//!
//! [`ops`] turns a topology into ordered operations (pure), [`build`] performs them, [`path`] says how a packet of a node gets to
//! the host (pure), [`run`] binds, connects and compares, [`capture_check`] compares the
//! packets with what the kernel reports (pure), and [`filter_trace`] finds the rule that decided about each connection (pure).

pub mod build;
pub mod builtin;
pub mod capture_check;
mod commands;
pub mod filter_trace;
pub mod ops;
pub mod path;
pub mod rehearse;
pub mod run;
pub mod twin;
