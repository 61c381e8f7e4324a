//! The readiness loop of one thread, level-triggered, over all sockets.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::attribute::{Raw, attribute_into};
use crate::model::socket::Reply;
use crate::model::{Arrival, Errno, Evidence, Protocol};
use crate::reply::{OwnNames, READ_LIMIT};
use crate::serve::bind::Bound;
use crate::sys::{self, Poller, Readiness, Signals, options, packet_info};

use super::backoff::Next;
use super::connection::{Connections, Fresh, Outcome, Place};
use super::interface_names::Period;
use super::network_view::NetworkView;
use super::reply_limit::ReplyLimit;
use super::served_sockets::{Served, Table};
use super::wall_clock::WallClock;
use super::worker_group::WorkerGroup;
use super::{End, Observer};

/// How many connections or datagrams one socket may deliver before the others have their turn.
const TURN: u32 = 64;

/// After one connection was found alone in its queue, so many more are taken without a look at the queue: where they come one
/// by one, that look costs a system call each.
const UNASKED: u32 = 15;

/// How many connections are accepted before they are attributed. In between it is asked once whether a name has changed.
const AT_ONCE: u32 = 16;

/// The same while names change: the sooner a change is noticed, the fewer arrivals may be older.
const AT_ONCE_WHEN_RESTLESS: u32 = 2;

/// Up to so many sockets, all queues are looked at when a name has changed; of more, each when it has its turn.
const MARKED: usize = 1024;

/// A round of the loop that takes so long keeps arrivals waiting.
const SLOW_ROUND: Duration = Duration::from_millis(10);

/// In a wait of this length the poller has gone to sleep, and has forgotten what it listed before.
const LONG_WAIT: Duration = Duration::from_millis(20);

/// What waited so long is told with the time at which it arrived, else with that at which it was accepted.
const TOLD_AGE: Duration = Duration::from_millis(10);

/// Longer than anything waits in a queue.
pub(super) const LONG_AGO: Duration = Duration::from_secs(24 * 60 * 60);

/// How long to wait at the most where a signal cannot end the wait.
const SHORT_WAIT: Duration = Duration::from_millis(200);

/// The keys of the poller. Sockets have even keys from [`FIRST_SOCKET`], connections odd ones.
const SIGNALS: u64 = 0;
pub(super) const MONITOR: u64 = 1;
const FIRST_SOCKET: u64 = 2;

/// The loop of one thread with all it owns.
pub(super) struct Worker {
    pub(super) poller: Poller,
    pub(super) served: Table,
    pub(super) crew: Arc<WorkerGroup>,
    /// Tells of changes of the network, receives datagrams, and ends the run; the other threads only take connections.
    leads: bool,
    /// Whether a change of the network ends the run, so that the sockets can be fitted to it.
    stops_on_change: bool,
    pub(super) paused: Vec<usize>,
    /// Whether the wait ended with more than one thing to do.
    busy: bool,
    /// Whether what is ready may have waited for a while: the last round took long, or the process was stopped.
    late: bool,
    /// Whether the last wait ended before anything of the network had changed, as the only poller knows.
    quiet: bool,
    /// The keys that were ready in the last round.
    previous: Vec<u64>,
    /// Of sockets that became ready in the same round in which names changed: which was first.
    pub(super) order: HashMap<usize, Order>,
    pub(super) clock: WallClock,
    /// What was accepted and is not attributed yet.
    fresh: Vec<(socket2::Socket, SocketAddr)>,
    pub(super) connections: Connections,
    pub(super) neighbourhood: NetworkView,
    pub(super) unaccepted: Vec<String>,
    pub(super) buffer: Vec<u8>,
    /// Which datagrams are answered.
    pub(super) replies: ReplyLimit,
    /// The arrival of before, whose memory is used again.
    pub(super) arrival: Arrival,
}

/// Which was first, where one round finds both a socket ready and the name of an interface changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The first arrival came before the change.
    FirstBefore(Instant),
    /// All arrivals came after the change.
    AllAfter,
}

/// What ends the loop from outside.
pub(super) struct Limits<'a> {
    pub(super) signals: &'a Signals,
    /// Whether a signal ends the poller's wait.
    pub(super) wakes: bool,
    pub(super) deadline: Option<Instant>,
}

impl Worker {
    /// Watches nothing yet.
    pub(super) fn new(
        poller: Poller,
        crew: Arc<WorkerGroup>,
        leads: bool,
        neighbourhood: NetworkView,
        names: Arc<OwnNames>,
    ) -> Worker {
        Worker {
            poller,
            served: Table::default(),
            crew,
            leads,
            stops_on_change: false,
            paused: Vec::new(),
            busy: false,
            late: false,
            quiet: false,
            previous: Vec::new(),
            order: HashMap::new(),
            clock: WallClock::new(Instant::now(), SystemTime::now()),
            fresh: Vec::new(),
            connections: Connections::new(names),
            neighbourhood,
            unaccepted: Vec::new(),
            buffer: vec![0; READ_LIMIT],
            replies: ReplyLimit::default(),
            arrival: Arrival::nowhere(),
        }
    }

    /// Serves one more socket, of which `open` connections are open on all threads.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub(super) fn add(&mut self, bound: Arc<Bound>, inherited: bool, open: Arc<AtomicU32>) -> io::Result<()> {
        let same_netns = !inherited || self.neighbourhood.is_home_of(&bound.socket);
        // What an inherited socket lost before is not ours to count.
        let lost_in_queue = match bound.spec.protocol {
            Protocol::Udp if inherited => packet_info::dropped_datagrams(&bound.socket).unwrap_or(0),
            _ => 0,
        };
        let number = self.served.insert(Served::new(bound, inherited, same_netns, open, lost_in_queue));
        self.watch(number)
    }

    fn watch(&self, number: usize) -> io::Result<()> {
        let Some(served) = self.served.get(number) else { return Ok(()) };
        self.crew.watch(&self.poller, &served.bound.socket, socket_key(number))
    }

    /// Whether a change of the network ends the run with [`End::Changed`].
    pub(super) fn stop_on_change(&mut self, stops: bool) {
        self.stops_on_change = stops;
    }

    /// Serves until something of the `limits`, the observer, the count or another thread ends it.
    ///
    /// # Errors
    /// When the poller fails; single sockets and connections are counted, not fatal.
    pub(super) fn serve(
        &mut self,
        observer: &mut impl Observer,
        limits: Option<&Limits<'_>>,
    ) -> io::Result<End> {
        let end = self.serve_on(observer, limits);
        observer.pauses();
        end
    }

    fn serve_on(&mut self, observer: &mut impl Observer, limits: Option<&Limits<'_>>) -> io::Result<End> {
        let deadline = limits.and_then(|limits| limits.deadline);
        let mut ready: Vec<Readiness> = Vec::new();
        let (mut was_full, mut woke) = (false, Instant::now());
        loop {
            let now = Instant::now();
            self.clock.look(now, SystemTime::now());
            let slow = now.duration_since(woke) >= SLOW_ROUND;
            self.previous.clear();
            self.previous.extend(ready.iter().map(|event| event.key));
            let ControlFlow::Continue(asks_again) = observer.idle(now) else { return Ok(End::Observer) };
            if self.crew.counted_all() {
                return Ok(End::Count);
            }
            if limits.is_some_and(|limits| limits.signals.take_reopen()) && observer.hung_up().is_break() {
                return Ok(End::Signal);
            }
            if limits.is_some_and(|limits| limits.signals.asked()) {
                return Ok(End::Signal);
            }
            if self.crew.stopped() {
                return Ok(End::Stopped);
            }
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Ok(End::Deadline);
            }
            // Sockets that follow the network may come later.
            if !self.stops_on_change && self.served.iter().all(|served| served.given_up) {
                return Ok(End::NothingLeft);
            }
            let mut until = deadline;
            let candidates = [
                asks_again,
                self.connections.next_deadline(),
                self.next_resumption(),
                self.neighbourhood.look_again(),
                limits.filter(|limits| !limits.wakes).map(|_| now + SHORT_WAIT),
            ];
            for candidate in candidates.into_iter().flatten() {
                until = Some(until.map_or(candidate, |until| until.min(candidate)));
            }
            let full = self.poller.wait_until(&mut ready, until, now)?;
            woke = Instant::now();
            if woke.duration_since(now) >= LONG_WAIT {
                self.previous.clear();
            }
            // A wait that a stop of the process has interrupted ends with nothing.
            self.late = slow || ready.is_empty() && until.is_none_or(|until| woke < until);
            // A change of the network that happened before an arrival must be known when its interface is named.
            let told = full || ready.iter().any(|event| event.key == MONITOR);
            let epoch = self.neighbourhood.epoch();
            let read = self.neighbourhood.refresh_if_changed(told);
            self.order.clear();
            if self.neighbourhood.epoch() != epoch {
                self.mark_suspects();
                if !full && !was_full {
                    self.note_order(&ready);
                }
            }
            was_full = full;
            self.quiet = !told && self.crew.is_one();
            if let Some(failure) = self.neighbourhood.take_failure() {
                observer.error(&failure, 1);
            }
            let changes = read.as_deref().unwrap_or_default();
            if self.leads && read.is_some() {
                self.tell_changes(changes, observer);
            }
            self.busy = ready.len() > 1;
            for event in &ready {
                if self.handle(*event, observer).is_break() {
                    return Ok(End::Count);
                }
            }
            let now = Instant::now();
            self.resume(now)?;
            self.expire(now, observer);
            if self.stops_on_change && !changes.is_empty() {
                return Ok(End::Changed);
            }
        }
    }

    fn handle(&mut self, event: Readiness, observer: &mut impl Observer) -> ControlFlow<()> {
        match event.key {
            SIGNALS | MONITOR => ControlFlow::Continue(()),
            key if key % 2 == 0 => {
                let number = socket_number(key).unwrap_or(usize::MAX);
                match self.served.get(number).map(|served| served.bound.spec.protocol) {
                    Some(Protocol::Tcp) => self.accept_some(number, TURN, observer),
                    Some(Protocol::Udp) => self.receive_some(number, TURN, observer),
                    None => ControlFlow::Continue(()),
                }
            }
            key => {
                let outcome =
                    self.connections.ready(connection_id(key), event, &self.poller, &mut self.buffer);
                self.settle(outcome, observer);
                ControlFlow::Continue(())
            }
        }
    }

    /// Takes note of how many connections wait in each queue: those may have arrived before the change of a name that was just noticed.
    /// Whatever comes later has not.
    fn mark_suspects(&mut self) {
        if self.served.len() > MARKED {
            return;
        }
        let epoch = self.neighbourhood.epoch();
        for served in self.served.iter_mut().filter(|served| served.bound.spec.protocol == Protocol::Tcp) {
            if let Ok(queue) = packet_info::listen_queue(&served.bound.socket) {
                (served.suspects, served.epoch) = (queue.queued, epoch);
            }
        }
    }

    /// Takes note of which sockets became ready before, and which after, the change that was just noticed. The poller lists what is
    /// ready in the order in which it became so (`ep_poll_callback()` of `fs/eventpoll.c`), except what it listed the last time, which
    /// it looks at again first.
    fn note_order(&mut self, ready: &[Readiness]) {
        let Some(change) = self.neighbourhood.last_change() else { return };
        let Some(monitor) = ready.iter().position(|event| event.key == MONITOR) else { return };
        if self.previous.contains(&MONITOR) {
            return;
        }
        for (place, event) in ready.iter().enumerate() {
            let number = socket_number(event.key).filter(|_| !self.previous.contains(&event.key));
            let Some((number, served)) = number.and_then(|number| Some((number, self.served.get(number)?)))
            else {
                continue;
            };
            // Where several pollers watch a socket, it may be listed for a connection that another thread has taken.
            if !self.crew.is_one() && served.bound.spec.protocol == Protocol::Tcp {
                continue;
            }
            if place < monitor {
                self.order.insert(number, Order::FirstBefore(change.after));
            } else if change.only_and_first {
                self.order.insert(number, Order::AllAfter);
            }
        }
    }

    /// Accepts as many connections as wait, at most `most`. An accept that finds nothing costs more than asking for the
    /// queue's length, so that is asked first where the system tells.
    pub(super) fn accept_some(
        &mut self,
        number: usize,
        most: u32,
        observer: &mut impl Observer,
    ) -> ControlFlow<()> {
        let epoch = self.neighbourhood.epoch();
        let order = if self.order.is_empty() { None } else { self.order.remove(&number) };
        let Some(served) = self.served.get_mut(number) else { return ControlFlow::Continue(()) };
        if served.given_up || served.resumes.is_some() {
            return ControlFlow::Continue(());
        }
        let settled = served.epoch == epoch || order == Some(Order::AllAfter);
        let waiting = if served.unasked > 0 && most == TURN && settled {
            served.unasked -= 1;
            1
        } else {
            let queue = packet_info::listen_queue(&served.bound.socket);
            // At the end the queue was made short on purpose.
            if let Ok(queue) = queue.as_ref()
                && queue.is_pressed()
                && most == TURN
            {
                observer.queue_filled(&served.bound.spec.listener, queue.queued, queue.limit);
            }
            if !settled {
                // These may have arrived before the name of their interface changed; whatever comes later has not.
                served.suspects = queue.as_ref().map_or(u32::MAX, |queue| queue.queued);
            }
            let waiting = queue.map_or(1, |queue| queue.queued.max(1));
            served.unasked = if waiting == 1 { UNASKED } else { 0 };
            waiting
        };
        if order == Some(Order::AllAfter) {
            served.suspects = 0;
        }
        served.epoch = epoch;
        let alone = waiting == 1 && !self.busy;
        let mut first_before = match order {
            Some(Order::FirstBefore(change)) => Some(change),
            _ => None,
        };
        let behind = self.late || waiting > most;
        let mut left = waiting.min(most);
        let mut is_first = true;
        while left > 0 {
            left = self.accept_turn(number, left, observer);
            // Now every change is noticed that came before the last of these.
            self.neighbourhood.note_changes();
            if self.neighbourhood.epoch() != epoch {
                left = 0;
                // The socket was ready in a round in which nothing had changed yet.
                if is_first && self.quiet && !self.previous.contains(&socket_key(number)) {
                    first_before = self.neighbourhood.last_change().map(|change| change.after);
                }
                self.mark_suspects();
            }
            let taken = self.take_fresh(number, epoch, first_before.take(), alone, behind, observer);
            if taken.is_break() {
                return ControlFlow::Break(());
            }
            is_first = false;
        }
        ControlFlow::Continue(())
    }

    /// Accepts some connections of `left`; several threads do so by turns, and each accepts some while the others look at theirs.
    /// Returns how many are left.
    fn accept_turn(&mut self, number: usize, left: u32, observer: &mut impl Observer) -> u32 {
        if self.crew.is_one() {
            let restless = self.neighbourhood.is_restless(self.clock.last());
            let some = left.min(if restless { AT_ONCE_WHEN_RESTLESS } else { AT_ONCE });
            return if self.accept_up_to(number, some, observer) { left - some } else { 0 };
        }
        let crew = Arc::clone(&self.crew);
        let _turn = crew.turn();
        let some = left.min(WorkerGroup::AT_A_TIME);
        if self.accept_up_to(number, some, observer) { left - some } else { 0 }
    }

    /// Returns whether it is worth while to go on.
    fn accept_up_to(&mut self, number: usize, most: u32, observer: &mut impl Observer) -> bool {
        for _ in 0..most {
            match self.accept(number, observer) {
                ControlFlow::Continue(accepted) => self.fresh.extend(accepted),
                ControlFlow::Break(()) => return false,
            }
        }
        true
    }

    /// Attributes what was accepted, and begins to answer it. `epoch` is that of before it was accepted; where the first one came before
    /// the last change, `first_before` is the moment after which that change happened.
    fn take_fresh(
        &mut self,
        number: usize,
        epoch: u64,
        mut first_before: Option<Instant>,
        alone: bool,
        behind: bool,
        observer: &mut impl Observer,
    ) -> ControlFlow<()> {
        let changed = self.neighbourhood.epoch() != epoch;
        let mut fresh = std::mem::take(&mut self.fresh);
        // They are told in the order of the queue: none of these is older than the first.
        let age = |socket| packet_info::age_of_connection(socket).filter(|(least, _)| *least >= TOLD_AGE);
        let waited = fresh.first().filter(|_| behind).and_then(|(socket, _)| age(socket));
        let at = waited.and_then(|(least, _)| SystemTime::now().checked_sub(least));
        let mut flow = ControlFlow::Continue(());
        for (socket, peer) in fresh.drain(..) {
            let Some(served) = self.served.get_mut(number) else { break };
            // After a change, the suspects are those that are still in the queue.
            let suspect = changed || served.suspects > 0;
            served.suspects = served.suspects.saturating_sub(u32::from(!changed));
            let mut arrival = suspect.then(|| period_of(&socket));
            if let Some(change) = first_before.take() {
                let arrival = arrival.get_or_insert_with(|| period_of(&socket));
                arrival.by = arrival.by.min(change.checked_sub(Duration::from_nanos(1)).unwrap_or(change));
            }
            self.take(number, (socket, peer), (arrival, at), alone, observer);
            if self.crew.commit() {
                flow = ControlFlow::Break(());
                break;
            }
        }
        fresh.clear();
        self.fresh = fresh;
        flow
    }

    /// Accepts one connection; none when that one failed. `Break` when it is not worth while to go on.
    #[inline(always)]
    fn accept(
        &mut self,
        number: usize,
        observer: &mut impl Observer,
    ) -> ControlFlow<(), Option<(socket2::Socket, SocketAddr)>> {
        let Some(served) = self.served.get_mut(number) else { return ControlFlow::Break(()) };
        if !self.crew.try_reserve() {
            return ControlFlow::Break(());
        }
        let error = match options::accept(&served.bound.socket) {
            Ok((socket, peer)) => {
                served.backoff.succeeded();
                if let Some(peer) = peer.as_socket() {
                    return ControlFlow::Continue(Some((socket, peer)));
                }
                observer.error("accept: a peer of no known family", 1);
                self.crew.release();
                return ControlFlow::Continue(None);
            }
            Err(error) => error,
        };
        self.crew.release();
        if self.failed(number, "accept", &error, observer) {
            ControlFlow::Continue(None)
        } else {
            ControlFlow::Break(())
        }
    }

    /// Attributes and reports one accepted connection, and begins to answer it. It arrived at a moment within the period, where that
    /// matters; `at` is the time to tell, if not now. `alone` is whether nothing else is to be done, as far as is known.
    fn take(
        &mut self,
        number: usize,
        (socket, peer): (socket2::Socket, SocketAddr),
        (arrived, at): (Option<Period>, Option<SystemTime>),
        alone: bool,
        observer: &mut impl Observer,
    ) {
        let Some(served) = self.served.get_mut(number) else { return };
        let spec = &served.bound.spec;
        let native_ipv6 = matches!(peer, SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none());
        let origin = packet_info::origin_of_connection(&socket, native_ipv6).unwrap_or_else(|error| {
            observer.error(&format!("ingress interface: {}", sys::errno_of(&error)), 1);
            None
        });
        // A socket bound to one address has no other, unless TPROXY steers foreign ones to it (IP_TRANSPARENT; not known of an
        // inherited socket): only those and wildcards need to ask, and over IPv4 the kernel has told already.
        let bound_to = bound_address(&served.bound);
        let unsure = spec.transparent || served.inherited;
        let local = if unsure || bound_to.ip().to_canonical().is_unspecified() {
            match origin.and_then(|(_, local)| local) {
                Some(local) if !unsure => SocketAddr::new(local.into(), bound_to.port()),
                _ => socket.local_addr().ok().and_then(|local| local.as_socket()).unwrap_or(bound_to),
            }
        } else {
            bound_to
        };
        if let Some((index, _)) = origin {
            self.neighbourhood.learn(&socket, index, served.same_netns, arrived);
        }
        let (kernel, sure) = origin.map(|(index, _)| self.neighbourhood.ingress(index)).unzip();
        let book = self.neighbourhood.book(served.same_netns);
        let raw = Raw { listener: &spec.listener, protocol: Protocol::Tcp, peer, local, kernel };
        attribute_into(&mut self.arrival, &raw, book);
        if sure == Some(false) {
            self.arrival.ingress.evidence = Evidence::Unknown;
        }
        let one_more = |open: u32| (open < spec.max_connections).then_some(open + 1);
        let room = match spec.reply {
            // It is closed at once, so it takes no place.
            Reply::None => served.open.load(Ordering::Relaxed) < spec.max_connections,
            _ => served.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok(),
        };
        if !room {
            observer.over_limit(&self.arrival, at);
            return;
        }
        observer.arrived(&self.arrival, None, at);
        if spec.reply == Reply::None {
            return;
        }
        if alone {
            // The first bytes of a connection may be waited for. Output without a reader is reported before the next
            // wait.
            let _ = observer.idle(Instant::now());
        }
        let idle = spec.idle_timeout;
        let (arrival, described) = (&self.arrival, spec.reply == Reply::Describe);
        let place = Place(Arc::clone(&served.open));
        let fresh = Fresh { socket, place, arrival, described, alone, idle };
        let outcome = self.connections.open(fresh, &self.poller, &mut self.buffer);
        self.settle(outcome, observer);
    }

    /// Counts an error of a socket and does what it calls for. Returns whether to go on at once.
    pub(super) fn failed(
        &mut self,
        number: usize,
        call: &str,
        error: &io::Error,
        observer: &mut impl Observer,
    ) -> bool {
        let Some(served) = self.served.get_mut(number) else { return false };
        let errno = sys::errno_of(error);
        if error.kind() == io::ErrorKind::WouldBlock {
            // The kernel looks for a descriptor first and at the queue then: both are as they should be.
            served.backoff.succeeded();
            return false;
        }
        if errno == Errno::EINTR {
            return true;
        }
        observer.error(&format!("{call} {errno}"), 1);
        match served.backoff.failed(errno) {
            Next::Wait => false,
            Next::Continue => true,
            Next::Pause(pause) => {
                served.resumes = Some(Instant::now() + pause);
                // It is not there any more when it failed in a pause, at the end.
                let _ = self.poller.remove(&served.bound.socket);
                self.paused.push(number);
                false
            }
            Next::GiveUp => {
                served.given_up = true;
                let _ = self.poller.remove(&served.bound.socket);
                false
            }
        }
    }

    fn next_resumption(&self) -> Option<Instant> {
        self.paused.iter().filter_map(|&number| self.served.get(number)?.resumes).min()
    }

    /// Watches those listeners again whose pause is over.
    fn resume(&mut self, now: Instant) -> io::Result<()> {
        let mut still = Vec::new();
        for number in std::mem::take(&mut self.paused) {
            let Some(served) = self.served.get_mut(number) else { continue };
            if served.resumes.is_some_and(|resumes| resumes > now) {
                still.push(number);
                continue;
            }
            served.resumes = None;
            self.watch(number)?;
        }
        self.paused = still;
        Ok(())
    }

    /// Ends the connections whose time is over.
    pub(super) fn expire(&mut self, now: Instant, observer: &mut impl Observer) {
        while let Some(outcome) = self.connections.expire(now, &self.poller) {
            self.settle(outcome, observer);
        }
    }

    pub(super) fn settle(&mut self, outcome: Outcome, observer: &mut impl Observer) {
        if let Outcome::Closed { error, moved } = outcome {
            if let Some(error) = error {
                observer.error(error, 1);
            }
            if let Some(moved) = moved {
                observer.path_changed(*moved);
            }
        }
    }
}

/// When a connection that was just accepted has arrived.
fn period_of(socket: &socket2::Socket) -> Period {
    let now = Instant::now();
    let (least, most) = packet_info::age_of_connection(socket).unwrap_or((Duration::ZERO, Duration::MAX));
    // What is not known may be as old as anything that is known.
    let after = now.checked_sub(most).or_else(|| now.checked_sub(LONG_AGO)).unwrap_or(now);
    Period { after, by: now.checked_sub(least).unwrap_or(now) }
}

/// The address a socket is bound to, as its arrivals would name it.
pub(super) fn bound_address(bound: &Bound) -> SocketAddr {
    let mut address = SocketAddr::new(bound.view.address, bound.view.port);
    if let (SocketAddr::V6(v6), Some(scope_id)) = (&mut address, bound.view.scope_id) {
        v6.set_scope_id(scope_id);
    }
    address
}

fn socket_key(number: usize) -> u64 {
    FIRST_SOCKET + 2 * number as u64
}

/// The socket of a key; `None` for other keys.
pub(super) fn socket_number(key: u64) -> Option<usize> {
    (key >= FIRST_SOCKET && key.is_multiple_of(2))
        .then(|| usize::try_from((key - FIRST_SOCKET) / 2).unwrap_or(usize::MAX))
}

/// Connection keys are odd, from 3.
pub(super) fn connection_key(id: u64) -> u64 {
    3 + 2 * id
}

pub(super) fn connection_id(key: u64) -> u64 {
    (key.saturating_sub(3)) / 2
}

/// Whether an error means "not now".
pub(super) fn would_block(error: &io::Error) -> bool {
    matches!(sys::errno_of(error), Errno::EAGAIN | Errno::EINTR) || error.kind() == io::ErrorKind::WouldBlock
}
