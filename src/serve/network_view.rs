//! Names of interfaces and owners of addresses, kept until the network changes.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::attribute::{AddressBook, KernelIngress};
use crate::model::changes::changes_but;
use crate::model::{Change, IfName, Snapshot};
use crate::sys::{self, Monitor, Notices, Poller, packet_info};

use super::interface_names::{InterfaceNames, NameThen, Period};

/// How long after a change of a name more are expected.
const RESTLESS: Duration = Duration::from_secs(30);

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
    /// It is newer than what the sockets were opened by.
    read_again: bool,
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
        let snapshot = snapshot.filter(|_| holds).or_else(|| look().ok());
        (monitor, snapshot.map(|snapshot| Seen { read_again: !holds, ..Seen::new(snapshot) }))
    }

    /// The name of this host.
    pub(super) fn host_name(&self) -> Option<&str> {
        self.snapshot.host.name.as_deref()
    }

    fn new(snapshot: Snapshot) -> Seen {
        let book = Arc::new(AddressBook::new(&snapshot));
        Seen { book, snapshot: Arc::new(snapshot), read_again: false }
    }
}

/// This host, with the groups that its interfaces have joined: they decide who reaches a multicast socket.
fn look() -> Result<Snapshot, sys::Error> {
    Ok(Snapshot { groups: sys::groups(), ..sys::snapshot()? })
}

/// What one look at the monitor found of names, for those who know more of the order of things.
#[derive(Debug, Clone, Copy)]
pub(super) struct NameChange {
    /// All names changed after this moment.
    pub(super) after: Instant,
    /// Only one name changed, and nothing else did before it.
    pub(super) only_and_first: bool,
}

/// What the loop knows of the host around it.
pub(super) struct NetworkView {
    monitor: Option<Monitor>,
    seen: Option<Seen>,
    stale: bool,
    refreshed: Instant,
    rest: Duration,
    /// Why the last read failed, until a caller has requested it.
    failure: Option<String>,
    names: InterfaceNames,
    /// Before this moment all changes of names are known.
    checked: Instant,
    /// When the last change of a name was noticed.
    changed: Option<Instant>,
    /// How often changes of names were noticed.
    epoch: u64,
    /// What the last look found.
    last_change: Option<NameChange>,
    /// Notifications were lost, and the names were not compared yet.
    lost: bool,
    /// Indexes of interfaces that were deleted since the network was read.
    deleted: BTreeSet<u32>,
    notices: Vec<(u32, Option<IfName>)>,
    /// Asks for names in the namespace of this process.
    control: Option<Socket>,
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
        let now = Instant::now();
        let mut fresh = NetworkView {
            monitor,
            seen: seen.map(|seen| Seen {
                snapshot: Arc::clone(&seen.snapshot),
                book: Arc::clone(&seen.book),
                read_again: seen.read_again,
            }),
            stale: seen.is_none(),
            refreshed: now,
            rest: Duration::ZERO,
            failure: None,
            names: InterfaceNames::default(),
            checked: now,
            changed: None,
            epoch: 0,
            last_change: None,
            lost: false,
            deleted: BTreeSet::new(),
            notices: Vec::new(),
            control: None,
            latest: None,
            wakes,
            cookie: OnceCell::new(),
        };
        if fresh.stale {
            fresh.refresh();
        }
        fresh.learn_all();
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

    /// Receives the notifications, and returns the changes since the network was last read. Names are known at once; addresses are read
    /// again, but while they change all the time, reading takes at most a fifth of the time. `ready` is whether the poller reports the
    /// monitor as ready, or may have left it out; the monitor itself is not asked then. `None` when nothing was read.
    pub(super) fn refresh_if_changed(&mut self, ready: bool) -> Option<Vec<Change>> {
        self.last_change = None;
        if ready || !self.wakes {
            self.note_changes();
        }
        if self.stale && self.refreshed.elapsed() >= self.rest {
            return self.refresh();
        }
        let seen = self.seen.as_mut()?;
        std::mem::take(&mut seen.read_again).then(Vec::new)
    }

    /// Takes note of what changed up to this moment.
    pub(super) fn note_changes_until(&mut self, moment: Instant) {
        if self.checked <= moment {
            self.note_changes();
        }
    }

    /// Takes note of what changed so far: from here on, the names of whatever arrived before are known. One system call.
    pub(super) fn note_changes(&mut self) {
        let Some(monitor) = &mut self.monitor else {
            (self.stale, self.latest) = (true, None);
            return;
        };
        let begun = Instant::now();
        self.notices.clear();
        let notices = monitor.take(&mut self.notices);
        if notices != Notices::None {
            self.stale = true;
            self.lost |= notices == Notices::Lost;
            let period = Period { after: self.checked, by: Instant::now() };
            self.apply(period);
        }
        if self.lost {
            self.compare_names();
        }
        self.checked = begun;
    }

    fn apply(&mut self, period: Period) {
        let (mut count, mut first) = (0, false);
        for (number, (index, name)) in std::mem::take(&mut self.notices).into_iter().enumerate() {
            if name.is_none() {
                self.deleted.insert(index);
            }
            if self.names.change(index, name, period) {
                count += 1;
                first |= number == 0;
            }
        }
        if count > 0 {
            self.names_changed(period.by);
            let only_and_first = count == 1 && first && !self.lost;
            self.last_change = Some(NameChange { after: period.after, only_and_first });
        }
    }

    fn names_changed(&mut self, by: Instant) {
        self.epoch += 1;
        self.changed = Some(by);
        self.latest = None;
    }

    /// After notifications were lost: asks for every name that is known.
    fn compare_names(&mut self) {
        self.latest = None;
        if self.control.is_none() {
            self.control = Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)
                .or_else(|_| Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None))
                .ok();
        }
        // Without a descriptor it is tried again the next time; names are asked for one by one until then.
        let Some(control) = &self.control else { return };
        let mut changed = false;
        for index in self.names.indexes().collect::<Vec<_>>() {
            let name = packet_info::interface_name(control, index);
            let period = Period { after: self.checked, by: Instant::now() };
            changed |= self.names.change(index, name, period);
        }
        self.lost = false;
        if changed {
            self.names_changed(Instant::now());
            self.last_change = Some(NameChange { after: self.checked, only_and_first: false });
        }
    }

    /// Why the last look at the network did not succeed; each failure is reported once.
    pub(super) fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    /// When to look again for changes that were heard of and not yet read.
    pub(super) fn look_again(&self) -> Option<Instant> {
        self.stale.then(|| self.refreshed + self.rest)
    }

    fn refresh(&mut self) -> Option<Vec<Change>> {
        let begun = Instant::now();
        let mut changed = None;
        match look() {
            Ok(snapshot) => {
                self.stale = false;
                let deleted = std::mem::take(&mut self.deleted);
                let before = self.seen.as_ref().map(|before| &before.snapshot);
                changed =
                    Some(before.map_or_else(Vec::new, |before| changes_but(before, &snapshot, &deleted)));
                self.seen = Some(Seen::new(snapshot));
                self.learn_all();
            }
            // What is known stays in use until it can be read again.
            Err(error) => self.failure = Some(error.to_string()),
        }
        self.refreshed = Instant::now();
        self.rest = rest_after(begun.elapsed(), !self.stale);
        changed
    }

    /// Learns the names in the picture that are not known yet. Without a monitor no name is kept.
    fn learn_all(&mut self) {
        let Some(seen) = self.seen.as_ref().filter(|_| self.monitor.is_some()) else { return };
        for interface in &seen.snapshot.interfaces {
            self.names.learn(interface.index, &interface.name);
        }
    }

    /// Owners of addresses; none for a socket of another namespace.
    pub(super) fn book(&self, same_netns: bool) -> Option<&AddressBook> {
        self.seen.as_ref().filter(|_| same_netns).map(|seen| &*seen.book)
    }

    /// The network as it was last read.
    pub(super) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.seen.as_ref().map(|seen| Arc::clone(&seen.snapshot))
    }

    /// How often changes of names were noticed: where that grows, what waits in a queue may have arrived before.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a name changed not long ago: then more may.
    pub(super) fn is_restless(&self, now: Instant) -> bool {
        self.changed.is_some_and(|changed| now.saturating_duration_since(changed) < RESTLESS)
    }

    /// When the last change of a name was noticed: the names of all that arrived later are those of now.
    pub(super) fn changed(&self) -> Option<Instant> {
        self.changed
    }

    /// The change that [`NetworkView::refresh_if_changed`] has just found, if it is one of names.
    pub(super) fn last_change(&self) -> Option<NameChange> {
        self.last_change
    }

    /// Looks up the name of an interface in the namespace of `socket`, for [`NetworkView::ingress`]: that of now, or that at the time
    /// of an arrival which may be older than the last change.
    pub(super) fn learn(&mut self, socket: &Socket, index: u32, same_netns: bool, arrival: Option<Period>) {
        let known = same_netns && self.monitor.is_some() && !self.lost;
        if let Some(period) = arrival.filter(|_| known) {
            let (name, sure) = match self.names.during(index, period) {
                NameThen::Is(name) => (Some(name.clone()), true),
                NameThen::Unsure(name) => (name.cloned(), false),
                NameThen::Unknown => (None, self.names.now(index).is_none()),
            };
            // Another arrival may be of another time.
            self.latest = Some(Latest { index, keeps: false, name, sure });
            return;
        }
        if known && self.latest.as_ref().is_some_and(|latest| latest.keeps && latest.index == index) {
            return;
        }
        let name = match self.names.now(index).filter(|_| known) {
            Some(name) => Some(name.clone()),
            None => packet_info::interface_name(socket, index),
        };
        if let Some(name) = name.as_ref().filter(|_| known) {
            self.names.learn(index, name);
        }
        // What is gone, or lives elsewhere, is asked for anew the next time.
        self.latest = Some(Latest { index, keeps: known && name.is_some(), name, sure: true });
    }

    /// The interface with the name that was just learnt, and whether it is sure that this was its name.
    pub(super) fn ingress(&self, index: u32) -> (KernelIngress<'_>, bool) {
        let latest = self.latest.as_ref().filter(|latest| latest.index == index);
        let name = latest.and_then(|latest| latest.name.as_ref());
        (KernelIngress { index, name }, latest.is_none_or(|latest| latest.sure))
    }
}

struct Latest {
    index: u32,
    /// It holds for further arrivals: an interface of this process's namespace whose name is known.
    keeps: bool,
    name: Option<IfName>,
    sure: bool,
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
