//! What a packet met on its way through the hooks, for people: every hook, every rule that matched, every translation.

use super::facts::Place;
use super::hooks::Hook;
use super::packet::End;
use crate::model::FilteredPacket as Role;

/// Events that are kept at most.
pub const MOST: usize = 4096;

/// One event of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The packet.
    pub role: Role,
    /// The hook.
    pub hook: Hook,
    /// What happened.
    pub what: What,
}

/// What happened to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It came to the hook, with these interfaces.
    Enters {
        /// The interface it arrived on.
        input: Option<String>,
        /// The interface it leaves by.
        output: Option<String>,
    },
    /// A rule matched, or the policy of a chain decided.
    Meets(Place),
    /// The destination was translated.
    Destination {
        /// Before.
        from: End,
        /// After.
        to: End,
    },
    /// The source was translated.
    Source {
        /// Before.
        from: End,
        /// After.
        to: End,
    },
}
