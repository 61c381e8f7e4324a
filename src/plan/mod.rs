//! From a profile and a host's snapshot to sockets, and what will come of them: which binds succeed, who reaches what. Pure.
//!
//! [`expand`] makes the sockets. [`available`] and [`conflict`] are the rules of bind, [`winner`] those of delivery, on the kernel's own [`tables`]; [`predict`]
//! applies the first to the sockets of a profile in their order, [`reach`] the second to every destination and source, or to those
//! that a person has named ([`destinations`]).

pub mod available;
pub mod compare;
pub mod conflict;
pub mod cover;
pub mod destinations;
pub mod expand;
pub mod expect;
pub mod exposure;
pub mod failure;
pub mod local;
pub mod predict;
pub mod reach;
pub mod report;
pub mod tables;
pub mod winner;
mod words;
