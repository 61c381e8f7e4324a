//! Names of interfaces and owners of addresses, kept until the network changes.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::attribute::{AddressBook, KernelIngress};
use crate::model::changes::changes;
use crate::model::{Change, IfName, Snapshot};
use crate::sys::{self, Monitor, Poller, packet_info};

/// How long to rest at least after the network could not be read.
const FAILED_REST: Duration = Duration::from_millis(500);

/// The host's network as it was read, and what tells whether it has changed since.
pub struct InitialNetwork {
    /// To be made before `snapshot` is taken, so that no change is missed; without it the network is read again.
    pub monitor: Option<Monitor>,
    /// What was read.
    pub snapshot: Snapshot,
}

/// What several threads know alike.
pub(super) struct Seen {
    snapshot: Arc<Snapshot>,
    book: Arc<AddressBook>,
}

impl Seen {
    /// Reads the network unless what was read before still holds; with the monitor for the first thread.
    pub(super) fn now(before: Option<InitialNetwork>) -> (Option<Monitor>, Option<Seen>) {
        let (mut monitor, snapshot) = match before {
            Some(InitialNetwork { monitor, snapshot }) => (monitor, Some(snapshot)),
            None => (None, None),
        };
        let holds = snapshot.is_some() && monitor.as_mut().is_some_and(|monitor| !monitor.changed());
        let monitor = monitor.or_else(|| Monitor::new().ok());
        let snapshot = snapshot.filter(|_| holds).or_else(|| sys::snapshot().ok());
        (monitor, snapshot.map(Seen::new))
    }

    /// The name of this host.
    pub(super) fn host_name(&self) -> Option<&str> {
        self.snapshot.host.name.as_deref()
    }

    fn new(snapshot: Snapshot) -> Seen {
        Seen { book: Arc::new(AddressBook::new(&snapshot)), snapshot: Arc::new(snapshot) }
    }
}

/// What the loop knows of the host around it.
pub(super) struct NetworkView {
    monitor: Option<Monitor>,
    seen: Option<Seen>,
    stale: bool,
    refreshed: Instant,
    rest: Duration,
    /// Why the last look did not succeed, until somebody has asked.
    failure: Option<String>,
    names: BTreeMap<u32, IfName>,
    /// The interface that was last asked for, in the namespace of the socket that it was asked for.
    latest: Option<Latest>,
    /// Whether the poller tells when the monitor has something to say.
    wakes: bool,
    /// The namespace of this process, once it was asked for.
    cookie: OnceCell<Option<u64>>,
}

impl NetworkView {
    /// Begins to hear of changes; looks around if nothing was `seen` yet. Where listening for changes was refused, every name is
    /// asked for anew.
    pub(super) fn new(
        poller: &Poller,
        key: u64,
        monitor: Option<Monitor>,
        seen: Option<&Seen>,
    ) -> NetworkView {
        let watched = monitor.and_then(|monitor| Some((monitor.watch(poller, key).ok()?, monitor)));
        let (wakes, monitor) = watched.map_or((false, None), |(wakes, monitor)| (wakes, Some(monitor)));
        let mut fresh = NetworkView {
            monitor,
            seen: seen
                .map(|seen| Seen { snapshot: Arc::clone(&seen.snapshot), book: Arc::clone(&seen.book) }),
            stale: seen.is_none(),
            refreshed: Instant::now(),
            rest: Duration::ZERO,
            failure: None,
            names: BTreeMap::new(),
            latest: None,
            wakes,
            cookie: OnceCell::new(),
        };
        if fresh.stale {
            fresh.refresh();
        }
        fresh
    }

    /// Whether this socket lives in the network namespace that the book speaks of. Not known counts as no.
    pub(super) fn is_home_of(&self, socket: &Socket) -> bool {
        let cookie = *self.cookie.get_or_init(|| {
            Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)
                .or_else(|_| Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None))
                .ok()
                .and_then(|socket| packet_info::namespace_cookie(&socket))
        });
        cookie.is_some() && packet_info::namespace_cookie(socket) == cookie
    }

    /// Hears whether anything changed, and returns what. Names are forgotten at once; addresses are read again, but while they
    /// change all the time, reading takes at most a fifth of the time. `told` is whether the poller names the monitor as ready,
    /// or may have left it out: where it tells of it, nothing else need be asked.
    pub(super) fn refresh_if_changed(&mut self, told: bool) -> Vec<Change> {
        if (told || !self.wakes) && self.monitor.as_mut().is_none_or(Monitor::changed) {
            self.names.clear();
            self.latest = None;
            self.stale = true;
        }
        if self.stale && self.refreshed.elapsed() >= self.rest { self.refresh() } else { Vec::new() }
    }

    /// Why the last look at the network did not succeed; each failure is told once.
    pub(super) fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    /// When to look again for changes that were heard of and not yet read.
    pub(super) fn look_again(&self) -> Option<Instant> {
        self.stale.then(|| self.refreshed + self.rest)
    }

    fn refresh(&mut self) -> Vec<Change> {
        let begun = Instant::now();
        let mut changed = Vec::new();
        match sys::snapshot() {
            Ok(snapshot) => {
                self.stale = false;
                if let Some(before) = &self.seen {
                    changed = changes(&before.snapshot, &snapshot);
                }
                self.seen = Some(Seen::new(snapshot));
            }
            // What is known stays in use until it can be read again.
            Err(error) => self.failure = Some(format!("the network cannot be read: {error}")),
        }
        self.refreshed = Instant::now();
        self.rest = rest_after(begun.elapsed(), !self.stale);
        changed
    }

    /// Owners of addresses; none for a socket of another namespace.
    pub(super) fn book(&self, same_netns: bool) -> Option<&AddressBook> {
        self.seen.as_ref().filter(|_| same_netns).map(|seen| &*seen.book)
    }

    /// Looks up the name of an interface in the namespace of `socket`, for [`NetworkView::ingress`].
    pub(super) fn learn(&mut self, socket: &Socket, index: u32, same_netns: bool) {
        if same_netns && self.latest.as_ref().is_some_and(|latest| latest.same_netns && latest.index == index)
        {
            return;
        }
        let name = match self.names.get(&index).filter(|_| same_netns) {
            Some(name) => Some(name.clone()),
            None => packet_info::interface_name(socket, index),
        };
        if let Some(name) = name.as_ref().filter(|_| same_netns) {
            self.names.entry(index).or_insert_with(|| name.clone());
        }
        // What is gone, or lives elsewhere, is asked for anew the next time.
        self.latest = Some(Latest { index, same_netns: same_netns && name.is_some(), name });
    }

    /// The interface with the name that was just learnt.
    pub(super) fn ingress(&self, index: u32) -> KernelIngress<'_> {
        let latest = self.latest.as_ref().filter(|latest| latest.index == index);
        KernelIngress { index, name: latest.and_then(|latest| latest.name.as_ref()) }
    }
}

struct Latest {
    index: u32,
    /// It is an interface of this process's namespace, and its name is known.
    same_netns: bool,
    name: Option<IfName>,
}

/// How long to leave the network alone after reading it took `cost`: so long that reading takes a fifth of the time at the
/// most. What failed (no descriptor is left) fails fast, and would be tried again at once.
fn rest_after(cost: Duration, was_read: bool) -> Duration {
    let rest = cost.saturating_mul(4);
    if was_read { rest } else { rest.max(FAILED_REST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_fast_is_not_tried_again_at_once() {
        let (short, long) = (Duration::from_micros(20), Duration::from_secs(3));
        assert_eq!(rest_after(short, true), short * 4);
        assert_eq!(rest_after(short, false), FAILED_REST);
        assert_eq!(rest_after(long, false), long * 4);
    }
}
