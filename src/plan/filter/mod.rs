//! What packet filters do with a connection: an interpreter of the bytecode of nf_tables.
//!
//! [`decode::Filters`] is a ruleset that was read from the messages of a dump. [`flow::follow`] sends the packets of one connection
//! through its hooks: the SYN, the answer, the ACK, and neighbour discovery before them. Bytes of a packet may be unknown; where a
//! rule compares such bytes, both possibilities are followed, and the result is uncertain when they end differently. What the
//! interpreter does not know is uncertain by construction.

mod attribute;
mod beyond;
mod bits;
mod decode;
mod discovery;
mod expression;
mod facts;
mod flow;
mod hooks;
mod legacy;
mod machine;
mod matches;
mod meta;
pub mod packet;
mod path;
mod ports;
pub mod published;
mod sets;
pub mod sources;
mod text;
pub mod trail;
mod xt;

#[cfg(test)]
mod tests;

pub use decode::{DecodeError, Filters};
pub use facts::{Delivery, Facts, Incoming, address_type};
pub use flow::{
    Fate, Neighbour, Origin, Prediction, Question, Reply, Translation, follow, follow_with_trail,
};
pub use hooks::Hook;

/// Hardware type of the loopback interface (`ARPHRD_LOOPBACK`).
pub const LOOPBACK: u16 = 772;
/// Hardware type of Ethernet and of what behaves like it (`ARPHRD_ETHER`).
pub const ETHERNET: u16 = 1;
