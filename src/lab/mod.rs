//! Hosts out of thin air: a network of namespaces in this process, the listeners bound in one of them, and real connections from
//! every one.
//!
//! [`ops`] turns a topology into ordered operations (pure), [`build`] performs them, [`way`] says how a packet of a node gets to
//! the host (pure), [`run`] binds, connects and compares, and [`witness`] holds the packets against what the kernel reports (pure).

pub mod build;
pub mod builtin;
pub mod ops;
pub mod rehearse;
pub mod run;
pub mod twin;
pub mod way;
pub mod witness;
mod words;
