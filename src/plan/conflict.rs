//! Port conflicts of `bind(2)` and `listen(2)`.
//!
//! The rule: two sockets of one port conflict when their addresses overlap and their devices overlap. Exceptions: both
//! have SO_REUSEADDR (for TCP only while the older socket does not listen), or both have SO_REUSEPORT and the same
//! owner.
//!
//! With SO_REUSEPORT and three or more sockets, the outcome depends on the order of binds. TCP accepts a socket without
//! comparison if it resembles the last accepted SO_REUSEPORT socket. UDP stops comparing at the first SO_REUSEPORT
//! companion. Both are stable kernel bugs, and this module models them. Sources: `inet_csk_get_port()`,
//! `inet_bind_conflict()`, `sk_reuseport_match()` and `inet_csk_update_fastreuse()` of
//! `net/ipv4/inet_connection_sock.c`; `udp_lib_lport_inuse()` and `udp_lib_get_port()` of `net/ipv4/udp.c`.

use super::socket_table::{Bucket, Entry, Id, Local, Tables, all, same};
use crate::model::Protocol;

/// Result of bind or listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No conflict.
    Free,
    /// EADDRINUSE, because of these sockets.
    InUse(Vec<Id>),
    /// Depends on unknown properties of these sockets.
    Unknown(Vec<Id>),
}

/// With more sockets in one slot of the UDP port table, bind uses the (address, port) table instead.
const UDP_SLOT_LIMIT: usize = 10;

impl Tables {
    /// The result of `bind(2)` for `new`.
    #[must_use]
    pub fn bind_verdict(&self, new: &Entry) -> Verdict {
        if let Some(system) = self.elsewhere {
            return self.verdict_elsewhere(system, new);
        }
        match new.protocol {
            Protocol::Tcp => self.tcp_verdict(new, None),
            Protocol::Udp => self.udp_verdict(new),
        }
    }

    /// The result of `listen(2)` for a bound TCP socket: the same comparison again, but SO_REUSEADDR has no effect
    /// against sockets that already listen. Other systems compare in `bind(2)` alone.
    #[must_use]
    pub fn listen_verdict(&self, id: Id) -> Verdict {
        if self.elsewhere.is_some() {
            return Verdict::Free;
        }
        self.tcp_verdict(&self.entries[id], Some(id))
    }

    /// Marks a TCP socket as listening after [`Tables::listen_verdict`] found no conflict.
    pub fn listen(&mut self, id: Id) {
        let entry = self.entries[id];
        let key = self.bucket_key(&entry);
        if let Some(bucket) = self.buckets.get_mut(&key) {
            bucket.remember(&entry);
        }
        self.set_listening(id);
    }

    fn tcp_verdict(&self, new: &Entry, me: Option<Id>) -> Verdict {
        let Some(bucket) = self.buckets.get(&self.bucket_key(new)) else {
            return Verdict::Free;
        };
        let shortcut = bucket.shortcut(new);
        if shortcut == Some(true) {
            return Verdict::Free;
        }
        let (mut sure, mut perhaps) = (Vec::new(), Vec::new());
        for id in bucket.near(new.local).filter(|&id| Some(id) != me) {
            match self.collides(new, id) {
                Some(true) => sure.push(id),
                None => perhaps.push(id),
                Some(false) => {}
            }
        }
        match (sure.is_empty(), perhaps.is_empty(), shortcut) {
            (true, true, _) => Verdict::Free,
            (false, _, Some(false)) => Verdict::InUse(sure),
            _ => {
                sure.append(&mut perhaps);
                Verdict::Unknown(sure)
            }
        }
    }

    /// Whether `new` and one older socket conflict, without other sockets.
    fn collides(&self, new: &Entry, id: Id) -> Option<bool> {
        let old = &self.entries[id];
        let alone = match (self.meets(new, id), self.share_address(new, id), share_port(new, old)) {
            (Some(false), ..) => return Some(false),
            (_, Some(true), _) | (_, _, Some(true)) => Some(false),
            (meets, Some(false), Some(false)) => meets,
            _ => None,
        };
        all([alone, old.certain.then_some(true)])
    }

    /// Whether one packet can match both sockets.
    fn meets(&self, new: &Entry, id: Id) -> Option<bool> {
        let old = &self.entries[id];
        let devices = new.device == 0 || old.device == 0 || new.device == old.device;
        let seen = self.overlooked(new, old).map(|overlooked| !overlooked);
        let addresses = match overlap(new, old) {
            Some(false) => meets_connected(new, old),
            other => other,
        };
        all([Some(devices), addresses, seen])
    }

    /// Whether the kernel overlooks the conflict of these two
    /// ([`KnownDifference::MappedWildcardOverlooked`](crate::model::kernel_release::KnownDifference)). All IPv4
    /// wildcards of a port share one bucket with the family of the first one, and an IPv4-mapped address is not
    /// compared with an AF_INET6 bucket (`inet_bind2_bucket_match_addr_any()` of `net/ipv4/inet_hashtables.c`).
    fn overlooked(&self, new: &Entry, old: &Entry) -> Option<bool> {
        let ipv4 = |local| matches!(local, Local::V4(_));
        let possible = new.protocol == Protocol::Tcp
            && (new.inet6 && ipv4(new.local) && !new.local.is_any())
            && (ipv4(old.local) && old.local.is_any());
        if !possible || self.mapped_wildcard_overlooked == Some(false) {
            return Some(false);
        }
        let bucket = self.buckets.get(&self.bucket_key(new))?;
        let wildcards =
            bucket.wildcards.iter().map(|&id| &self.entries[id]).filter(|entry| ipv4(entry.local));
        let mut family = None;
        for entry in wildcards {
            match family {
                None if entry.certain && entry.ordered => {
                    family = Some(entry.inet6);
                    break;
                }
                None => family = Some(entry.inet6),
                Some(inet6) if inet6 == entry.inet6 => {}
                Some(_) => return None,
            }
        }
        all([self.mapped_wildcard_overlooked, family])
    }

    /// Whether SO_REUSEADDR on both permits the pair.
    fn share_address(&self, new: &Entry, id: Id) -> Option<bool> {
        let old = &self.entries[id];
        let usable = old.protocol == Protocol::Udp || !self.listening[id];
        all([Some(usable), new.reuse_address, old.reuse_address])
    }

    fn udp_verdict(&self, new: &Entry) -> Verdict {
        let Some(bucket) = self.buckets.get(&self.bucket_key(new)) else {
            return Verdict::Free;
        };
        let found = if bucket.all.len() > UDP_SLOT_LIMIT && !new.local.is_any() {
            // Two slots of the (address, port) table, each with its own order. (Kernels before the fix
            // `udp: Fix wildcard bind conflict check when using hash2` also used it for wildcards, and overlooked the
            // other sockets.)
            let own = self.first_companion(new, self.chain(Protocol::Udp, new.port, new.local));
            let wildcards = Local::V4(std::net::Ipv4Addr::UNSPECIFIED);
            let other = self.first_companion(new, self.chain(Protocol::Udp, new.port, wildcards));
            all([own, other])
        } else {
            let mut near: Vec<Id> = bucket.near(new.local).collect();
            near.sort_unstable_by_key(|&id| self.position(id));
            self.first_companion(new, near.into_iter())
        };
        let colliding = |wanted: fn(Option<bool>) -> bool| {
            bucket.near(new.local).filter(|&id| wanted(self.collides(new, id))).collect()
        };
        match found {
            Some(true) => Verdict::Free,
            Some(false) => Verdict::InUse(colliding(|collides| collides == Some(true))),
            None => Verdict::Unknown(colliding(|collides| collides != Some(false))),
        }
    }

    /// UDP checks only the first conflicting socket, in the given order. True if that socket is a SO_REUSEPORT
    /// companion, or if there is none.
    fn first_companion(&self, new: &Entry, order: impl Iterator<Item = Id>) -> Option<bool> {
        // Results of sockets that may or may not be the first.
        let mut answers = Vec::new();
        let mut decided = false;
        for id in order {
            let old = &self.entries[id];
            let not_excused = self.share_address(new, id).map(|shared| !shared);
            let in_the_way = all([self.meets(new, id), not_excused, old.certain.then_some(true)]);
            if in_the_way == Some(false) {
                continue;
            }
            answers.push(share_port(new, old));
            decided |= in_the_way == Some(true);
            if in_the_way == Some(true) && old.ordered {
                break;
            }
        }
        if !decided {
            answers.push(Some(true));
        }
        let first = *answers.first()?;
        if answers.iter().all(|&answer| answer == first) { first } else { None }
    }
}

impl Bucket {
    /// Whether `new` resembles the last accepted SO_REUSEPORT socket (`sk_reuseport_match()`). Devices are not
    /// compared, which is the kernel bug.
    fn shortcut(&self, new: &Entry) -> Option<bool> {
        if new.reuse_port == Some(false) || self.all.is_empty() {
            return Some(false);
        }
        if self.fast_unknown.iter().any(|&uid| same(uid, new.uid) != Some(false)) {
            return None;
        }
        let Some(fast) = &self.fast else { return Some(false) };
        let covers = match (fast.local, new.local) {
            (Local::V4(x), Local::V4(y)) => Some(x == y || x.is_unspecified()),
            (Local::V6(x), Local::V6(y)) => Some(x == y || x.is_unspecified()),
            (Local::V6(x), Local::V4(_)) if x.is_unspecified() => fast.v6only.map(|v6only| !v6only),
            // Only an AF_INET socket compares 0.0.0.0 with the IPv4 side of `::`.
            (Local::V4(x), Local::V6(y)) if !fast.inet6 && x.is_unspecified() && y.is_unspecified() => {
                new.v6only.map(|v6only| !v6only)
            }
            _ => Some(false),
        };
        all([covers, same(fast.uid, new.uid)])
    }

    /// Updates the SO_REUSEPORT state of the bucket (`inet_csk_update_fastreuse()`).
    pub(super) fn remember(&mut self, entry: &Entry) {
        if !entry.is_known() && (entry.reuse_port != Some(false) || !entry.certain) {
            self.fast_unknown.push(entry.uid);
        }
        if entry.reuse_port != Some(true) {
            self.fast = None;
        } else if self.shortcut(entry) != Some(true) {
            self.fast = Some(*entry);
        }
    }
}

/// Whether two addresses overlap (`inet_rcv_saddr_equal()` with wildcards).
pub(super) fn overlap(a: &Entry, b: &Entry) -> Option<bool> {
    let dual = |v6only: Option<bool>| v6only.map(|v6only| !v6only);
    match (a.local, b.local) {
        (Local::V4(x), Local::V4(y)) => Some(x == y || x.is_unspecified() || y.is_unspecified()),
        (Local::V6(x), Local::V6(y)) => Some(x == y || x.is_unspecified() || y.is_unspecified()),
        (Local::V6(x), Local::V4(_)) => all([Some(x.is_unspecified()), dual(a.v6only)]),
        (Local::V4(_), Local::V6(y)) => all([Some(y.is_unspecified()), dual(b.v6only)]),
    }
}

/// Whether a new socket meets an old one that was bound to `::`, dual-stack, and connected later. Its address is a specific one, and
/// yet it is not an IPv6-only socket. To an AF_INET socket it has another IPv4 address (LOOPBACK4_IPV6), which conflicts with the
/// wildcard alone.
fn meets_connected(new: &Entry, old: &Entry) -> Option<bool> {
    match (new.local, old.local) {
        (Local::V4(x), Local::V6(y)) if !y.is_unspecified() && !new.inet6 && x.is_unspecified() => {
            old.v6only.map(|v6only| !v6only)
        }
        _ => Some(false),
    }
}

/// Whether SO_REUSEPORT of one owner on both permits the pair.
fn share_port(new: &Entry, old: &Entry) -> Option<bool> {
    all([new.reuse_port, old.reuse_port, same(new.uid, old.uid)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(protocol: Protocol, address: &str) -> Entry {
        Entry {
            protocol,
            port: 80,
            inet6: address.contains(':'),
            local: Local::of(address.parse().unwrap()),
            v6only: Some(false),
            device: 0,
            vrf: 0,
            reuse_address: Some(false),
            reuse_port: Some(false),
            uid: Some(1),
            mark: Some(0),
            certain: true,
            ordered: true,
        }
    }

    /// A socket of another program with unknown options.
    fn stranger(protocol: Protocol, address: &str) -> Tables {
        let mut tables = Tables::default();
        let unknown =
            Entry { reuse_address: None, reuse_port: None, ordered: false, ..entry(protocol, address) };
        tables.insert(unknown, protocol == Protocol::Tcp);
        tables
    }

    #[test]
    fn a_strangers_flags_matter_only_where_ours_could_be_excused() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let tables = stranger(protocol, "0.0.0.0");
            let plain = entry(protocol, "127.0.0.1");
            assert_eq!(tables.bind_verdict(&plain), Verdict::InUse(vec![0]));
            let port = Entry { reuse_port: Some(true), ..plain };
            assert_eq!(tables.bind_verdict(&port), Verdict::Unknown(vec![0]));
            // Another user can never share the port.
            assert_eq!(tables.bind_verdict(&Entry { uid: Some(2), ..port }), Verdict::InUse(vec![0]));
            let elsewhere = Entry { v6only: Some(true), ..entry(protocol, "::1") };
            assert_eq!(tables.bind_verdict(&elsewhere), Verdict::Free);
        }
        // Most servers set SO_REUSEADDR, which has no effect against a listening socket.
        let address = Entry { reuse_address: Some(true), ..entry(Protocol::Tcp, "127.0.0.1") };
        assert_eq!(stranger(Protocol::Tcp, "0.0.0.0").bind_verdict(&address), Verdict::InUse(vec![0]));
        let address = Entry { protocol: Protocol::Udp, ..address };
        assert_eq!(stranger(Protocol::Udp, "0.0.0.0").bind_verdict(&address), Verdict::Unknown(vec![0]));
    }

    #[test]
    fn a_socket_that_may_not_be_there_makes_others_uncertain() {
        let mut tables = Tables::default();
        tables.insert(Entry { certain: false, ..entry(Protocol::Tcp, "0.0.0.0") }, true);
        assert_eq!(tables.bind_verdict(&entry(Protocol::Tcp, "0.0.0.0")), Verdict::Unknown(vec![0]));
        let mut tables = Tables::default();
        tables.insert(Entry { v6only: None, ..entry(Protocol::Tcp, "::") }, true);
        assert_eq!(tables.bind_verdict(&entry(Protocol::Tcp, "0.0.0.0")), Verdict::Unknown(vec![0]));
        assert_eq!(tables.bind_verdict(&entry(Protocol::Tcp, "::1")), Verdict::InUse(vec![0]));
    }
}
