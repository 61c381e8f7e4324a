//! bindscope answers a question about every server, with evidence from the kernel: *if I bind this address, which
//! clients can reach me, over which interface, and in which address family?*
//!
//! # Data flow
//!
//! Data flows in one direction through the modules. Each stage passes plain values to the next:
//!
//! ```text
//! TOML -profile-> Profile -plan-> SocketSpec -serve-> Bound -serve-> Arrival -attribute->
//!      Arrival with its ingress interface -record-> Event -render-> bytes
//! ```
//!
//! | module | purpose | restriction |
//! |---|---|---|
//! | [`model`] | domain types: addresses, interfaces, sockets, arrivals, outcomes | no effects |
//! | [`escape`] | the escaper for external text | |
//! | [`code`] | the table of every code | |
//! | [`diag`] | problems with code, position and fix, and their rendering | does not choose exit codes |
//! | [`profile`] | TOML text to a checked `Profile`; every problem with its position | does not read this machine |
//! | [`plan`] | profile and host snapshot to sockets; predicts binds and reachability | opens no socket |
//! | [`sys`] | all operating system calls; the only place for `unsafe` and `cfg(target_os)` | makes no decisions |
//! | [`serve`] | opens sockets and runs the event loop: connections, datagrams, replies, limits | does not format output |
//! | [`attribute`] | the ingress interface of an arrival, and its evidence | no system calls |
//! | [`probe`] | real connections: which socket answered, over which interface | makes no predictions |
//! | [`lab`] | a network of namespaces with real connections | does not touch the machine's network |
//! | [`reply`] | from the bytes of a client to the reply | no effects |
//! | [`record`] | events, and sinks that never block the event loop | |
//! | [`audit`] | from inventories and snapshots to findings, and the verdict of a policy | no system calls |
//! | [`report`] | documents: one envelope for every report, and its reader | |
//! | [`render`] | events and reports as text, tables, CSV, HTML | opens no files, reads no clock |
//! | [`why`] | from facts about a target to one cause and its fix | no system calls |
//! | [`explain`] | a built-in page for every code and topic | |
//! | [`cmd`] | one file per command: the only place for clock, terminal, files and exit codes | |
//!
//! `tests/architecture.rs` checks the direction of the imports and the places of `unsafe` and `cfg(target_os)`.

pub mod attribute;
pub mod audit;
pub mod cmd;
pub mod code;
pub mod diag;
pub mod escape;
pub mod explain;
pub mod lab;
pub mod model;
pub mod plan;
pub mod probe;
pub mod profile;
pub mod record;
pub mod render;
pub mod reply;
pub mod report;
pub mod serve;
pub mod sys;
pub mod why;
