//! Packet filters: not looked for on this system.

use crate::model::filters::PacketFilters;
use crate::model::ruleset::Ruleset;
use crate::sys::filter_types::{Replayed, TraceEvent};

/// The tables of packet filters: unknown.
#[must_use]
pub fn packet_filters() -> PacketFilters {
    let unknown_because = Some("this program looks for them on Linux only".to_owned());
    PacketFilters { tables: Vec::new(), unknown_because, ruleset: None }
}

/// The tables of packet filters with their rules: unknown.
#[must_use]
pub fn packet_filters_with_rules() -> PacketFilters {
    packet_filters()
}

/// Nothing is replayed.
#[must_use]
pub fn replay_rules(_ruleset: &Ruleset) -> Replayed {
    Replayed { missing: vec!["packet filters are copied on Linux only".to_owned()], ..Replayed::default() }
}

/// A trace, which cannot be had here.
pub enum Trace {}

impl Trace {
    /// Nothing is traced here.
    ///
    /// # Errors
    /// Always: `Unsupported`.
    pub fn here(_udp_ports: &[u16]) -> std::io::Result<Trace> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn drain(&mut self, _each: &mut dyn FnMut(TraceEvent)) -> std::io::Result<bool> {
        match *self {}
    }
}
