//! Packet filters: not looked for on this system.

use crate::model::filters::PacketFilters;

/// None are seen, and that is said.
#[must_use]
pub fn packet_filters() -> PacketFilters {
    let unseen = Some("this program looks for them on Linux only".to_owned());
    PacketFilters { tables: Vec::new(), unseen, ruleset: None }
}
