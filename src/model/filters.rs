//! Packet filters of a host: their tables, and their rules where they were read.

use serde::{Deserialize, Serialize};

use super::ruleset::Ruleset;

/// The tables of packet filters in a network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketFilters {
    /// Such as `nftables inet filter` or `iptables nat`, sorted. A table may be empty.
    pub tables: Vec<String>,
    /// Why there may be more; null when all were seen.
    pub unknown_because: Option<String>,
    /// The rules themselves; null where they were not read.
    #[serde(default)]
    pub ruleset: Option<Ruleset>,
}

impl PacketFilters {
    /// Whether the rules were read, and did not change meanwhile.
    #[must_use]
    pub fn has_known_rules(&self) -> bool {
        self.ruleset.as_ref().is_some_and(|ruleset| ruleset.consistent)
    }

    /// The same without the rules.
    #[must_use]
    pub fn without_rules(&self) -> PacketFilters {
        PacketFilters { ruleset: None, ..self.clone() }
    }
}

/// The packet filters that were seen in one namespace, in one phrase; `None` when there are none for certain.
#[must_use]
pub fn seen(filters: &PacketFilters) -> Option<String> {
    let what = "packet filters and address translation";
    match (&filters.unknown_because, &filters.tables[..]) {
        (None, []) => None,
        (Some(why), []) => Some(format!("{what} (not readable: {})", crate::escape::printable(why))),
        (_, tables) => Some(format!("{what} ({})", crate::escape::printable(&tables.join(", ")))),
    }
}

/// The note of a report about packet filters. `None`: not examined, for example for another host. If the rules were read, the
/// results include what they do.
#[must_use]
pub fn note(filters: Option<&PacketFilters>) -> String {
    let limit = "packet filters, address translation and programs attached to the kernel (nft, iptables, BPF) are not looked at";
    let Some(filters) = filters else { return limit.to_owned() };
    let tables = filters.tables.join(", ");
    let beyond = "programs attached to the kernel (BPF, XDP) and filters beyond this host are not looked at";
    match (&filters.unknown_because, filters.tables.is_empty()) {
        (None, true) if filters.has_known_rules() => {
            format!("there is no table of a packet filter here; {beyond}")
        }
        (None, false) if filters.has_known_rules() => {
            format!("the results include packet filters and address translation ({tables}); {beyond}")
        }
        (None, true) => format!("{limit}; there is no table of a packet filter here"),
        (Some(why), true) => format!("{limit}; whether there are any cannot be seen: {why}"),
        (None, false) => format!("{limit}, and there are some here: {tables}"),
        (Some(why), false) => {
            format!("{limit}, and there are some here: {tables}; others cannot be seen: {why}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_tells_none_from_not_seen() {
        let filters = |tables: &[&str], unknown_because: Option<&str>| PacketFilters {
            tables: tables.iter().map(|table| (*table).to_owned()).collect(),
            unknown_because: unknown_because.map(str::to_owned),
            ruleset: None,
        };
        assert!(note(Some(&filters(&[], None))).ends_with("no table of a packet filter here"));
        assert!(note(Some(&filters(&["iptables nat"], None))).ends_with("some here: iptables nat"));
        assert!(note(Some(&filters(&[], Some("no right")))).ends_with("cannot be seen: no right"));
        assert!(note(None).ends_with("are not looked at"));
        let ruleset = Some(Ruleset { consistent: true, ..Ruleset::default() });
        let read = PacketFilters { ruleset, ..filters(&["iptables nat"], None) };
        assert!(note(Some(&read)).starts_with("the results include packet filters"));
    }
}
