//! bindscope answers, with evidence from the kernel, the question every server operator gets wrong:
//! *if I bind this address, who can reach me, over which interface, in which family?*
//!
//! # The way of the data
//!
//! Data flows one way through the modules, and each stage hands plain values to the next:
//!
//! ```text
//! TOML -profile-> Profile -plan-> SocketSpec -serve-> Bound -serve-> Arrival -attribute->
//!      Arrival with its ingress interface -record-> Event -render-> bytes
//! ```
//!
//! | module | what it does | what it must not do |
//! |---|---|---|
//! | [`model`] | the words of the field as values: addresses, interfaces, sockets, arrivals, outcomes | any effect |
//! | [`escape`] | the one escaper for text from outside | |
//! | [`code`] | the table of every code the program can print | |
//! | [`diag`] | a problem with its code, place and way out, and how it is shown | decide an exit code |
//! | [`profile`] | TOML text to a checked `Profile`, every problem with its place | look at this machine |
//! | [`plan`] | profile and host snapshot to sockets; what each bind will do and who reaches what | open a socket |
//! | [`sys`] | everything the operating system does for us; the only home of `unsafe` and `cfg(target_os)` | decide |
//! | [`serve`] | opens sockets in order, options first; the readiness loop: connections, datagrams, replies, limits | format output |
//! | [`attribute`] | which interface an arrival came in on, and how that is known | ask the system |
//! | [`probe`] | connects for real: which socket answered, over which interface | foretell |
//! | [`lab`] | a network of namespaces with real connections between them | touch the machine's own network |
//! | [`reply`] | what a client is answered: its bytes in, the answer out | any effect |
//! | [`record`] | events as they are written, and sinks that never block the loop | |
//! | [`audit`] | inventories and snapshots to findings, and a policy's verdict on them | ask the system |
//! | [`report`] | documents: one envelope for every report, and its reader | |
//! | [`render`] | events and reports as text, tables, CSV, HTML | open files, read the clock |
//! | [`explain`] | a page for every code and topic, compiled in | |
//! | [`cmd`] | one file per command: the only place with clock, terminal, files and exit codes | |
//!
//! `tests/architecture.rs` enforces the direction of the imports and the places of `unsafe` and `cfg(target_os)`.

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
