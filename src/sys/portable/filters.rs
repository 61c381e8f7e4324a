//! Packet filters: not looked for on this system.

use crate::model::filters::PacketFilters;
use crate::model::ruleset::Ruleset;
use crate::sys::filter_types::Replayed;

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
