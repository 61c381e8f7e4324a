//! The kernel's tables of bound sockets, as values. bind(2), listen(2) and packet lookups use them.
//!
//! Names follow the kernel: a *bucket* contains all sockets of one port (`inet_bind_bucket`). A *chain* contains the
//! sockets of one port and address in lookup order (`inet_listen_hashbucket`, the secondary UDP hash).
//!
//! Options of other programs' sockets may be unknown, so rules have three values: `Some(true)`, `Some(false)`, or
//! `None` for "depends on unknown facts".

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::conflict_elsewhere::Elsewhere;
use crate::model::kernel_release::KnownDifference;
use crate::model::{Protocol, Snapshot};

/// Index of a socket in [`Tables`], in order of insertion.
pub type Id = usize;

/// A bound address as the kernel compares it: an IPv4-mapped address is its IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Local {
    /// An IPv4 address, including `0.0.0.0`, of an AF_INET socket or an IPv4-mapped AF_INET6 socket.
    V4(Ipv4Addr),
    /// An IPv6 address, including `::`.
    V6(Ipv6Addr),
}

impl Local {
    /// The kernel's form of `address`.
    #[must_use]
    pub fn of(address: IpAddr) -> Local {
        match address.to_canonical() {
            IpAddr::V4(v4) => Local::V4(v4),
            IpAddr::V6(v6) => Local::V6(v6),
        }
    }

    /// `0.0.0.0` or `::`.
    #[must_use]
    pub fn is_any(self) -> bool {
        match self {
            Local::V4(v4) => v4.is_unspecified(),
            Local::V6(v6) => v6.is_unspecified(),
        }
    }

    /// Key of its chain: both wildcards have the same hash (`ipv6_portaddr_hash()` of `include/net/ipv6.h`).
    fn chain(self) -> Local {
        if self.is_any() { Local::V4(Ipv4Addr::UNSPECIFIED) } else { self }
    }
}

/// A socket as the kernel compares it with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port, never 0.
    pub port: u16,
    /// An AF_INET6 socket.
    pub inet6: bool,
    /// The address.
    pub local: Local,
    /// `sk_ipv6only`: true with a specific IPv6 address that was bound, false with an IPv4 address. `None` if unknown.
    pub v6only: Option<bool>,
    /// Index of the device that it is bound to; 0 if none.
    pub device: u32,
    /// The VRF of that device; 0 if none. TCP buckets of different VRFs are independent.
    pub vrf: u32,
    /// SO_REUSEADDR; `None` if unknown.
    pub reuse_address: Option<bool>,
    /// SO_REUSEPORT; `None` if unknown.
    pub reuse_port: Option<bool>,
    /// Effective user that created it; `None` if unknown.
    pub uid: Option<u32>,
    /// Firewall mark of its packets; `None` if unknown.
    pub mark: Option<u32>,
    /// Whether it exists: false for a socket whose bind could not be predicted.
    pub certain: bool,
    /// Whether its position among the others is known: false for existing sockets.
    pub ordered: bool,
}

impl Entry {
    /// New sockets are added at the head of the kernel's lists, except AF_INET6 sockets with SO_REUSEPORT, which are
    /// added at the tail (`sk_add_node_rcu()` of `include/net/sock.h`, `__inet_hash()` of `net/ipv4/inet_hashtables.c`,
    /// `udp_lib_get_port()` of `net/ipv4/udp.c`).
    fn goes_last(&self) -> bool {
        self.inet6 && self.reuse_port == Some(true)
    }

    /// Whether every property is known that can affect other sockets.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.certain && self.ordered && self.reuse_port.is_some() && self.v6only.is_some()
    }
}

/// The sockets of one port.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// In order of insertion; wildcards only.
    pub(super) wildcards: Vec<Id>,
    /// By specific address, in order of insertion.
    pub(super) specific: HashMap<Local, Vec<Id>>,
    /// All of them, in order of insertion.
    pub(super) all: Vec<Id>,
    /// The last SO_REUSEPORT socket that passed the full comparison. A socket that resembles it is accepted without
    /// comparison (`tb->fastreuseport` and related fields in `net/ipv4/inet_connection_sock.c`). TCP only.
    pub(super) fast: Option<Entry>,
    /// Owners of sockets with unknown properties here: for a socket of one of them `fast` may be wrong.
    pub(super) fast_unknown: Vec<Option<u32>>,
}

impl Bucket {
    /// Every socket here whose address can overlap with `local`, in order of insertion within each group.
    pub(super) fn near(&self, local: Local) -> impl DoubleEndedIterator<Item = Id> + '_ {
        let (first, second): (&[Id], &[Id]) = if local.is_any() {
            (&self.all, &[])
        } else {
            (self.specific.get(&local).map_or(&[], Vec::as_slice), &self.wildcards)
        };
        first.iter().chain(second).copied()
    }
}

/// All sockets of one host.
#[derive(Debug)]
pub struct Tables {
    pub(super) entries: Vec<Entry>,
    pub(super) listening: Vec<bool>,
    pub(super) buckets: HashMap<(Protocol, u16, u32), Bucket>,
    pub(super) chains: HashMap<(Protocol, u16, Local), VecDeque<Id>>,
    /// `net.ipv4.tcp_l3mdev_accept`: sockets without a device serve VRFs as well.
    pub tcp_l3mdev_accept: bool,
    /// `net.ipv4.udp_l3mdev_accept`.
    pub udp_l3mdev_accept: bool,
    /// Whether the kernel has
    /// [`KnownDifference::MappedWildcardOverlooked`](crate::model::kernel_release::KnownDifference); `None` if unknown.
    pub mapped_wildcard_overlooked: Option<bool>,
    /// The rules of another system than Linux.
    pub elsewhere: Option<Elsewhere>,
}

impl Default for Tables {
    /// Empty tables of a host whose kernel follows the rules.
    fn default() -> Tables {
        Tables {
            entries: Vec::new(),
            listening: Vec::new(),
            buckets: HashMap::new(),
            chains: HashMap::new(),
            tcp_l3mdev_accept: false,
            udp_l3mdev_accept: false,
            mapped_wildcard_overlooked: Some(false),
            elsewhere: None,
        }
    }
}

impl Tables {
    /// Empty tables of this host, with its settings and kernel.
    #[must_use]
    pub fn of(host: &Snapshot) -> Tables {
        let flag = |name: &str| host.setting(name).unwrap_or(0) != 0;
        let known = host.host.release.is_some();
        let overlooked = KnownDifference::MappedWildcardOverlooked.applies_to(&host.host);
        Tables {
            tcp_l3mdev_accept: flag("net.ipv4.tcp_l3mdev_accept"),
            udp_l3mdev_accept: flag("net.ipv4.udp_l3mdev_accept"),
            // A snapshot without a release is treated as following the rules.
            mapped_wildcard_overlooked: if known { overlooked } else { Some(false) },
            elsewhere: Elsewhere::of(&host.host),
            ..Tables::default()
        }
    }

    /// The socket with this id.
    #[must_use]
    pub fn entry(&self, id: Id) -> &Entry {
        &self.entries[id]
    }

    /// Sockets that packets can reach on this port at this address or a wildcard.
    pub fn near(&self, protocol: Protocol, port: u16, local: Local) -> impl Iterator<Item = Id> + '_ {
        let wildcards = Local::V4(Ipv4Addr::UNSPECIFIED);
        let own = (!local.is_any()).then(|| self.chain(protocol, port, local));
        own.into_iter().flatten().chain(self.chain(protocol, port, wildcards))
    }

    /// The key of the bucket that `entry` belongs to.
    pub(super) fn bucket_key(&self, entry: &Entry) -> (Protocol, u16, u32) {
        // With tcp_l3mdev_accept one socket may serve every VRF, so all share one bucket (`inet_sk_bound_l3mdev()`).
        // UDP has one table for all VRFs.
        let vrf = if entry.protocol == Protocol::Udp || self.tcp_l3mdev_accept { 0 } else { entry.vrf };
        (entry.protocol, entry.port, vrf)
    }

    /// Adds a socket without checks: an existing one, or one whose bind succeeded.
    pub fn insert(&mut self, entry: Entry, listening: bool) -> Id {
        self.add(entry, entry.protocol == Protocol::Udp, listening)
    }

    /// Adds a socket of another program. One that does not serve holds its port and receives nothing from other senders.
    pub fn insert_foreign(&mut self, entry: Entry, serves: bool) -> Id {
        let udp = entry.protocol == Protocol::Udp;
        self.add(entry, udp && serves, !udp && serves)
    }

    fn add(&mut self, entry: Entry, linked: bool, listening: bool) -> Id {
        let id = self.entries.len();
        self.entries.push(entry);
        self.listening.push(false);
        let key = self.bucket_key(&entry);
        let bucket = self.buckets.entry(key).or_default();
        bucket.all.push(id);
        if entry.local.is_any() {
            bucket.wildcards.push(id);
        } else {
            bucket.specific.entry(entry.local).or_default().push(id);
        }
        if entry.protocol == Protocol::Tcp {
            bucket.remember(&entry);
        }
        if linked {
            self.link(id);
        }
        if listening {
            self.set_listening(id);
        }
        id
    }

    /// Marks a TCP socket as listening: from now on packets reach it.
    pub(super) fn set_listening(&mut self, id: Id) {
        if !std::mem::replace(&mut self.listening[id], true) && self.entries[id].protocol == Protocol::Tcp {
            self.link(id);
        }
    }

    /// Adds a socket to its chain.
    fn link(&mut self, id: Id) {
        let entry = self.entries[id];
        let chain = self.chains.entry((entry.protocol, entry.port, entry.local.chain())).or_default();
        if entry.goes_last() {
            chain.push_back(id);
        } else {
            chain.push_front(id);
        }
    }

    /// A number that grows along the kernel's lists, in the order in which a walk visits UDP sockets.
    pub(super) fn position(&self, id: Id) -> i64 {
        let id_number = i64::try_from(id).unwrap_or(i64::MAX);
        if self.entries[id].goes_last() { id_number } else { -1 - id_number }
    }

    /// The sockets of one port and address in lookup order.
    pub(super) fn chain(
        &self,
        protocol: Protocol,
        port: u16,
        local: Local,
    ) -> impl Iterator<Item = Id> + Clone + '_ {
        self.chains.get(&(protocol, port, local.chain())).into_iter().flatten().copied()
    }
}

/// Kleene's *and*: false takes precedence over unknown, and unknown over true.
pub(super) fn all(parts: impl IntoIterator<Item = Option<bool>>) -> Option<bool> {
    let mut result = Some(true);
    for part in parts {
        match part {
            Some(false) => return Some(false),
            None => result = None,
            Some(true) => {}
        }
    }
    result
}

/// Whether two values are equal; unknown if one of them is.
pub(super) fn same<T: PartialEq>(a: Option<T>, b: Option<T>) -> Option<bool> {
    Some(a? == b?)
}
