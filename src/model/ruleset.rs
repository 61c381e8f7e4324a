//! The rules of packet filters as the kernel dumps them: the netlink messages themselves, byte for byte.
//!
//! The dump is carried in a snapshot, replayed into a copy of the network, and interpreted by [`crate::plan`]. `text` is a
//! rendering for people; nothing is computed from it.

use serde::{Deserialize, Serialize};

/// All packet filters of one network namespace that can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruleset {
    /// Generation of the nf_tables ruleset (`NFTA_GEN_ID`); 0 where there is no nf_tables.
    pub generation: u32,
    /// Whether the generation was the same before and after the dump.
    pub consistent: bool,
    /// The nf_tables objects: tables, objects, flow tables, chains, sets, elements, rules, each kind in the order of the dump.
    pub nftables: Vec<NftObject>,
    /// The tables of legacy iptables.
    pub legacy: Vec<LegacyTable>,
    /// The sets of ipset.
    pub ipset: Vec<IpSet>,
    /// The base chains in the order in which the kernel runs them; null where the kernel does not report the order.
    pub order: Option<Vec<HookEntry>>,
}

impl Ruleset {
    /// Whether there is nothing that could decide about a packet. A ruleset that changed while it was read may hold more than was
    /// read of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.consistent && self.nftables.is_empty() && self.legacy.is_empty() && self.ipset.is_empty()
    }
}

/// One message of an nf_tables dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NftObject {
    /// What the message describes.
    pub kind: NftKind,
    /// Its family.
    pub family: NftFamily,
    /// Name of its table.
    pub table: String,
    /// Name of its chain, for rules; null else.
    pub chain: Option<String>,
    /// Its own name, or that of the set of an element list; null for rules and tables.
    pub name: Option<String>,
    /// Its handle; null where the message has none.
    pub handle: Option<u64>,
    /// The rule for people; null where it was not rendered.
    pub text: Option<String>,
    /// The netlink attributes after `struct nfgenmsg`, byte for byte.
    #[serde(with = "base64_bytes")]
    pub attributes: Vec<u8>,
}

/// Kind of an nf_tables object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NftKind {
    /// A table.
    Table,
    /// A chain.
    Chain,
    /// A set or map.
    Set,
    /// A list of elements of one set.
    Element,
    /// A rule.
    Rule,
    /// A stateful object: counter, quota, limit, helper and others.
    Object,
    /// A flow table.
    Flowtable,
}

/// Family of an nf_tables table, a hook or a legacy table (`NFPROTO_*` of `linux/netfilter.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NftFamily {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
    /// ARP.
    Arp,
    /// Frames through a bridge.
    Bridge,
    /// One device, at its ingress or egress.
    Netdev,
}

impl NftFamily {
    /// Every family.
    pub const ALL: [NftFamily; 6] = [
        NftFamily::Ip,
        NftFamily::Ip6,
        NftFamily::Inet,
        NftFamily::Arp,
        NftFamily::Bridge,
        NftFamily::Netdev,
    ];

    /// Its number, `nfgen_family` of `struct nfgenmsg`.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            NftFamily::Inet => 1,
            NftFamily::Ip => 2,
            NftFamily::Arp => 3,
            NftFamily::Netdev => 5,
            NftFamily::Bridge => 7,
            NftFamily::Ip6 => 10,
        }
    }

    /// The family with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<NftFamily> {
        NftFamily::ALL.into_iter().find(|family| family.number() == number)
    }

    /// Its name as `nft` writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            NftFamily::Ip => "ip",
            NftFamily::Ip6 => "ip6",
            NftFamily::Inet => "inet",
            NftFamily::Arp => "arp",
            NftFamily::Bridge => "bridge",
            NftFamily::Netdev => "netdev",
        }
    }
}

/// One table of legacy iptables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyTable {
    /// `ip` or `ip6`.
    pub family: NftFamily,
    /// Its name, such as `filter`.
    pub table: String,
    /// Bits of the hooks that the table has (`valid_hooks` of `struct ipt_getinfo`).
    pub valid_hooks: u32,
    /// Offset of the first entry of each hook; empty where it was not read.
    pub hook_entry: Vec<u32>,
    /// Offset of the policy of each hook; empty where it was not read.
    pub underflow: Vec<u32>,
    /// Number of entries.
    pub entries: u32,
    /// The entries, byte for byte.
    #[serde(with = "base64_bytes")]
    pub blob: Vec<u8>,
}

/// One set of ipset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpSet {
    /// Its name.
    pub name: String,
    /// Its type, such as `hash:ip`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its index, by which rules refer to it.
    pub index: u16,
    /// The attributes of its header, byte for byte.
    #[serde(with = "base64_bytes")]
    pub create: Vec<u8>,
    /// The attributes of each element, byte for byte.
    #[serde(with = "base64_lists")]
    pub elements: Vec<Vec<u8>>,
}

/// One base chain in the order of a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookEntry {
    /// Family of the hook: the kernel has one list for each of `ip`, `ip6`, `arp`, `bridge` and each device.
    pub family: NftFamily,
    /// Number of the hook.
    pub hook: u32,
    /// Its priority.
    pub priority: i32,
    /// Name of the table.
    pub table: String,
    /// Name of the chain.
    pub chain: String,
}

/// Bytes as base64 (RFC 4648, section 4).
mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map_err(D::Error::custom)
    }
}

/// Lists of bytes as lists of base64.
mod base64_lists {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(lists: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(lists.iter().map(|bytes| STANDARD.encode(bytes)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| STANDARD.decode(text).map_err(D::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn a_ruleset_is_json_with_bytes_as_base64() {
        let rule = NftObject {
            kind: NftKind::Rule,
            family: NftFamily::Ip,
            table: "nat".into(),
            chain: Some("DOCKER".into()),
            name: None,
            handle: Some(9),
            text: Some("accept".into()),
            attributes: vec![0, 1, 254, 255],
        };
        let set = IpSet {
            name: "s".into(),
            kind: "hash:ip".into(),
            index: 1,
            create: vec![7],
            elements: vec![vec![8]],
        };
        let legacy = LegacyTable {
            family: NftFamily::Ip6,
            table: "filter".into(),
            valid_hooks: 14,
            hook_entry: vec![0],
            underflow: Vec::new(),
            entries: 4,
            blob: vec![1],
        };
        let ruleset = Ruleset {
            generation: 17,
            consistent: true,
            nftables: vec![rule],
            legacy: vec![legacy],
            ipset: vec![set],
            order: None,
        };
        let json = serde_json::to_string(&ruleset).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"generation":17,"consistent":true,"nftables":[{"kind":"rule","family":"ip","table":"nat","chain":"DOCKER","#,
                r#""name":null,"handle":9,"text":"accept","attributes":"AAH+/w=="}],"legacy":[{"family":"ip6","table":"filter","#,
                r#""valid_hooks":14,"hook_entry":[0],"underflow":[],"entries":4,"blob":"AQ=="}],"#,
                r#""ipset":[{"name":"s","type":"hash:ip","index":1,"create":"Bw==","elements":["CA=="]}],"order":null}"#
            )
        );
        assert_eq!(serde_json::from_str::<Ruleset>(&json).unwrap(), ruleset);
        assert!(serde_json::from_str::<Ruleset>(&json.replace("AAH+/w==", "AAH")).is_err());
    }

    #[test]
    fn families_have_the_numbers_of_the_kernel() {
        for family in NftFamily::ALL {
            assert_eq!(NftFamily::from_number(family.number()), Some(family));
        }
        assert_eq!(NftFamily::from_number(0), None);
    }
}
