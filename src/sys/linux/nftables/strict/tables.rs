//! The attributes, expressions and extensions that may be replayed.

use super::Shape::{self, Announced, Drop, Expression, Flags, Nest, Object, Opaque, Plain};

/// `NFT_TABLE_F_DORMANT`: the flags owner and persist would tie the copy to this program's socket.
pub(super) const TABLE: &[(u16, Shape)] =
    &[(1, Plain), (2, Flags(1)), (3, Drop), (4, Drop), (5, Drop), (6, Plain), (7, Drop)];
const DEVICES: &[(u16, Shape)] = &[(1, Plain), (2, Plain)];
const HOOK: &[(u16, Shape)] = &[(1, Plain), (2, Plain), (3, Plain), (4, Nest(DEVICES))];
/// `NFT_CHAIN_BASE`: a binding chain is copied as a chain of its own, and hardware is not asked.
pub(super) const CHAIN: &[(u16, Shape)] = &[
    (1, Plain),
    (2, Drop),
    (3, Plain),
    (4, Nest(HOOK)),
    (5, Plain),
    (6, Drop),
    (7, Plain),
    (8, Drop),
    (9, Drop),
    (10, Flags(1)),
    (11, Drop),
    (12, Plain),
];
pub(super) const RULE: &[(u16, Shape)] = &[
    (1, Plain),
    (2, Plain),
    (3, Drop),
    (4, Shape::Rule),
    (5, Drop),
    (6, Drop),
    (7, Plain),
    (8, Drop),
    (9, Drop),
    (10, Drop),
    (11, Drop),
];
const FIELDS: &[(u16, Shape)] = &[(1, Nest(&[(1, Plain)]))];
const DESCRIPTION: &[(u16, Shape)] = &[(1, Announced), (2, Nest(FIELDS))];
pub(super) const LIST: &[(u16, Shape)] = &[(1, Expression)];
pub(super) const SET: &[(u16, Shape)] = &[
    (1, Plain),
    (2, Plain),
    (3, Plain),
    (4, Plain),
    (5, Plain),
    (6, Plain),
    (7, Plain),
    (8, Plain),
    (9, Nest(DESCRIPTION)),
    (10, Drop),
    (11, Plain),
    (12, Plain),
    (13, Plain),
    (14, Drop),
    (15, Plain),
    (16, Drop),
    (17, Expression),
    (18, Nest(LIST)),
    (19, Drop),
    (20, Drop),
];
const VERDICT: &[(u16, Shape)] = &[(1, Plain), (2, Plain)];
pub(super) const DATA: &[(u16, Shape)] = &[(1, Plain), (2, Nest(VERDICT))];
/// An element's remaining time is dropped: it must not end while the lab is used.
const ELEMENT: &[(u16, Shape)] = &[
    (1, Nest(DATA)),
    (2, Nest(DATA)),
    (3, Plain),
    (4, Plain),
    (5, Drop),
    (6, Plain),
    (7, Expression),
    (8, Drop),
    (9, Plain),
    (10, Nest(DATA)),
    (11, Nest(LIST)),
];
pub(super) const ELEMENTS: &[(u16, Shape)] =
    &[(1, Plain), (2, Plain), (3, Nest(&[(1, Nest(ELEMENT))])), (4, Drop)];
pub(super) const OBJECT: &[(u16, Shape)] =
    &[(1, Plain), (2, Plain), (3, Plain), (4, Object), (5, Drop), (6, Drop), (7, Drop), (8, Plain)];

/// The data of stateful objects by their type (`NFT_OBJECT_*`); tunnels and security marks are not copied.
pub(super) fn object_data(kind: u32) -> Option<&'static [(u16, Shape)]> {
    Some(match kind {
        // counter
        1 => &[(1, Drop), (2, Drop), (3, Drop)],
        // quota
        2 => &[(1, Plain), (2, Plain), (3, Drop), (4, Plain)],
        // ct helper
        3 => &[(1, Plain), (2, Plain), (3, Plain)],
        // limit
        4 => &[(1, Plain), (2, Plain), (3, Plain), (4, Plain), (5, Plain), (6, Drop)],
        // connlimit
        5 => &[(1, Plain), (2, Plain)],
        // ct timeout
        7 => &[(1, Plain), (2, Plain), (3, Opaque)],
        // ct expectation
        9 => &[(1, Plain), (2, Plain), (3, Plain), (4, Plain), (5, Plain)],
        // synproxy
        10 => &[(1, Plain), (2, Plain), (3, Plain)],
        _ => return None,
    })
}

/// An expression: how many attributes it has, which of them are data, and which are dropped.
type Known = (&'static str, u16, &'static [u16], &'static [u16]);

/// `enum nft_*_attributes` of `linux/netfilter/nf_tables.h`.
pub(super) const EXPRESSIONS: &[Known] = &[
    ("bitwise", 8, &[4, 5, 7], &[]),
    ("byteorder", 5, &[], &[]),
    ("cmp", 3, &[3], &[]),
    ("connlimit", 2, &[], &[]),
    ("counter", 3, &[], &[1, 2, 3]),
    ("ct", 4, &[], &[]),
    ("dup", 2, &[], &[]),
    ("dynset", 10, &[], &[8]),
    ("exthdr", 7, &[], &[]),
    ("fib", 3, &[], &[]),
    ("fwd", 3, &[], &[]),
    ("hash", 9, &[], &[9]),
    ("immediate", 2, &[2], &[]),
    ("inner", 5, &[], &[]),
    ("last", 3, &[], &[1, 2, 3]),
    ("limit", 6, &[], &[6]),
    ("log", 6, &[], &[]),
    ("lookup", 5, &[], &[4]),
    ("masq", 3, &[], &[]),
    ("match", 3, &[], &[]),
    ("meta", 3, &[], &[]),
    ("nat", 7, &[], &[]),
    ("notrack", 0, &[], &[]),
    ("numgen", 6, &[], &[6]),
    ("objref", 5, &[], &[5]),
    ("osf", 3, &[], &[]),
    ("payload", 8, &[], &[]),
    ("queue", 4, &[], &[]),
    ("quota", 4, &[], &[3]),
    ("range", 4, &[3, 4], &[]),
    ("redir", 3, &[], &[]),
    ("reject", 2, &[], &[]),
    ("rt", 2, &[], &[]),
    ("socket", 3, &[], &[]),
    ("synproxy", 3, &[], &[]),
    ("target", 3, &[], &[]),
    ("tproxy", 3, &[], &[]),
    ("xfrm", 4, &[], &[]),
];

/// Matches of xt (iptables-extensions(8)). Not here: `bpf`, `ipvs` and others that lead outside of the packet filter.
pub const MATCHES: &[&str] = &[
    "addrtype",
    "ah",
    "cgroup",
    "cluster",
    "comment",
    "connbytes",
    "connlabel",
    "connlimit",
    "connmark",
    "conntrack",
    "cpu",
    "dccp",
    "devgroup",
    "dscp",
    "dst",
    "ecn",
    "esp",
    "eui64",
    "frag",
    "hashlimit",
    "hbh",
    "helper",
    "hl",
    "icmp",
    "icmp6",
    "iprange",
    "ipv6header",
    "length",
    "limit",
    "mac",
    "mark",
    "mh",
    "multiport",
    "osf",
    "owner",
    "physdev",
    "pkttype",
    "policy",
    "quota",
    "realm",
    "recent",
    "rpfilter",
    "rt",
    "sctp",
    "set",
    "socket",
    "srh",
    "state",
    "statistic",
    "string",
    "tcp",
    "tcpmss",
    "time",
    "tos",
    "ttl",
    "u32",
    "udp",
    "udplite",
];
/// Targets of xt. Not here: those that make devices, timers or marks of security outside of the packet filter.
pub const TARGETS: &[&str] = &[
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CONNMARK",
    "CT",
    "DNAT",
    "DNPT",
    "DSCP",
    "ECN",
    "HL",
    "HMARK",
    "LOG",
    "MARK",
    "MASQUERADE",
    "NETMAP",
    "NFLOG",
    "NFQUEUE",
    "NOTRACK",
    "REDIRECT",
    "REJECT",
    "SET",
    "SNAT",
    "SNPT",
    "SYNPROXY",
    "TCPMSS",
    "TCPOPTSTRIP",
    "TEE",
    "TOS",
    "TPROXY",
    "TRACE",
    "TTL",
];
