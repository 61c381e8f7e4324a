//! Names of interfaces and owners of addresses, kept until the network changes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::attribute::{AddressBook, KernelIngress};
use crate::model::changes::changes;
use crate::model::{Change, IfName, Snapshot};
use crate::sys::{self, Monitor, Poller, packet_info};

/// What the loop knows of the host around it.
pub(super) struct Neighbourhood {
    monitor: Option<Monitor>,
    book: Option<AddressBook>,
    snapshot: Option<Snapshot>,
    stale: bool,
    refreshed: Instant,
    cost: Duration,
    names: HashMap<u32, IfName>,
    cookie: Option<u64>,
}

impl Neighbourhood {
    /// Looks around, and begins to listen for changes. Where that is refused, every name is asked for anew.
    pub(super) fn new(poller: &Poller, key: u64) -> Neighbourhood {
        let monitor = Monitor::new().ok().filter(|monitor| monitor.watch(poller, key).is_ok());
        let cookie = Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)
            .or_else(|_| Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None))
            .ok()
            .and_then(|socket| packet_info::namespace_cookie(&socket));
        let mut fresh = Neighbourhood {
            monitor,
            book: None,
            snapshot: None,
            stale: true,
            refreshed: Instant::now(),
            cost: Duration::ZERO,
            names: HashMap::new(),
            cookie,
        };
        fresh.refresh();
        fresh
    }

    /// Whether this socket lives in the network namespace that the book speaks of. Not known counts as no.
    pub(super) fn is_home_of(&self, socket: &Socket) -> bool {
        self.cookie.is_some() && packet_info::namespace_cookie(socket) == self.cookie
    }

    /// Hears whether anything changed, and returns what. Names are forgotten at once; addresses are read again, but while they
    /// change all the time, reading takes at most a fifth of the time.
    pub(super) fn refresh_if_changed(&mut self) -> Vec<Change> {
        if self.monitor.as_mut().is_none_or(Monitor::changed) {
            self.names.clear();
            self.stale = true;
        }
        if self.stale && self.refreshed.elapsed() >= self.cost * 4 { self.refresh() } else { Vec::new() }
    }

    /// When to look again for changes that were heard of and not yet read.
    pub(super) fn look_again(&self) -> Option<Instant> {
        self.stale.then(|| self.refreshed + self.cost * 4)
    }

    fn refresh(&mut self) -> Vec<Change> {
        let begun = Instant::now();
        let mut changed = Vec::new();
        if let Ok(snapshot) = sys::snapshot() {
            self.book = Some(AddressBook::new(&snapshot));
            self.stale = false;
            if let Some(before) = &self.snapshot {
                changed = changes(before, &snapshot);
            }
            self.snapshot = Some(snapshot);
        }
        self.refreshed = Instant::now();
        self.cost = begun.elapsed();
        changed
    }

    /// Owners of addresses; none for a socket of another namespace.
    pub(super) fn book(&self, at_home: bool) -> Option<&AddressBook> {
        self.book.as_ref().filter(|_| at_home)
    }

    /// The name of an interface in the namespace of `socket`.
    pub(super) fn ingress(&mut self, socket: &Socket, index: u32, at_home: bool) -> KernelIngress {
        if !at_home {
            return KernelIngress { index, name: packet_info::interface_name(socket, index) };
        }
        if let Some(name) = self.names.get(&index) {
            return KernelIngress { index, name: Some(name.clone()) };
        }
        let name = packet_info::interface_name(socket, index);
        if let Some(name) = &name {
            self.names.insert(index, name.clone());
        }
        KernelIngress { index, name }
    }
}
