//! From a profile and a host's snapshot to sockets, and what will come of them: which binds succeed, who reaches what. Pure.
//!
//! [`expand`] makes the sockets. [`bind_check`] and [`conflict`] are the rules of bind, [`lookup`] those of delivery, on the kernel's own [`socket_table`]; [`predict`]
//! applies the first to the sockets of a profile in their order, [`reach`] the second to every destination and source, or to those
//! that a person has named ([`destinations`]).

pub mod bind_check;
pub mod bind_error;
pub mod bind_forms;
pub mod clients;
pub mod conflict;
pub mod conflict_elsewhere;
pub mod destinations;
pub mod expand;
pub mod exposure;
pub mod fib;
pub mod filter;
pub mod local_table;
pub mod lookup;
pub mod predict;
pub mod reach;
pub mod socket_table;
