//! The readiness loop of one thread, level-triggered, over all sockets.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant, SystemTime};

use super::error::ServeError;
use super::token::Token;
use crate::model::{Arrival, Errno, Protocol};
use crate::reply::{OwnNames, READ_LIMIT};
use crate::serve::bind::Bound;
use crate::sys::{self, Poller, Readiness, Signals, packet_info};

use super::backoff::Next;
use super::connection::{Connections, Outcome};
use super::network_view::NetworkView;
use super::reply_limit::ReplyLimit;
use super::served_sockets::{Served, Table};
use super::wall_clock::WallClock;
use super::worker_group::WorkerGroup;
use super::{End, Observer};

/// How many connections or datagrams one socket may deliver before the others have their turn.
pub(super) const TURN: u32 = 64;

/// Up to so many sockets, all queues are looked at when a name has changed; of more, each when it has its turn.
const MARKED: usize = 1024;

/// A round of the loop that takes so long keeps arrivals waiting.
const SLOW_ROUND: Duration = Duration::from_millis(10);

/// In a wait of this length the poller has gone to sleep, and has forgotten what it listed before.
const LONG_WAIT: Duration = Duration::from_millis(20);

/// Longer than anything waits in a queue.
pub(super) const LONG_AGO: Duration = Duration::from_secs(24 * 60 * 60);

/// How long to wait at the most where a signal cannot end the wait.
const SHORT_WAIT: Duration = Duration::from_millis(200);

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
    pub(super) busy: bool,
    /// Whether what is ready may have waited for a while: the last round took long, or the process was stopped.
    pub(super) late: bool,
    /// Whether the last wait ended before anything of the network had changed, as the only poller knows.
    pub(super) quiet: bool,
    /// The keys that were ready in the last round.
    pub(super) previous: Vec<u64>,
    /// Of sockets that became ready in the same round in which names changed: which was first.
    pub(super) order: HashMap<usize, Order>,
    pub(super) clock: WallClock,
    /// What was accepted and is not attributed yet.
    pub(super) fresh: Vec<(socket2::Socket, SocketAddr)>,
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
        self.crew.watch(&self.poller, &served.bound.socket, Token::Socket(number).key())
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
            let ready_or_full = full || ready.iter().any(|event| event.key == Token::Monitor.key());
            let epoch = self.neighbourhood.epoch();
            let read = self.neighbourhood.refresh_if_changed(ready_or_full);
            self.order.clear();
            if self.neighbourhood.epoch() != epoch {
                self.mark_suspects();
                if !full && !was_full {
                    self.note_order(&ready);
                }
            }
            was_full = full;
            self.quiet = !ready_or_full && self.crew.is_one();
            if let Some(failure) = self.neighbourhood.take_failure() {
                observer.error(&ServeError::Network(failure), 1);
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
        match Token::of(event.key) {
            Token::Signals | Token::Monitor => ControlFlow::Continue(()),
            Token::Socket(number) => match self.served.get(number).map(|served| served.bound.spec.protocol) {
                Some(Protocol::Tcp) => self.accept_some(number, TURN, observer),
                Some(Protocol::Udp) => self.receive_some(number, TURN, observer),
                None => ControlFlow::Continue(()),
            },
            Token::Connection(id) => {
                let outcome = self.connections.ready(id, event, &self.poller, &mut self.buffer);
                self.settle(outcome, observer);
                ControlFlow::Continue(())
            }
        }
    }

    /// Takes note of how many connections wait in each queue: those may have arrived before the change of a name that was just noticed.
    /// Whatever comes later has not.
    pub(super) fn mark_suspects(&mut self) {
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
        let Some(monitor) = ready.iter().position(|event| event.key == Token::Monitor.key()) else { return };
        if self.previous.contains(&Token::Monitor.key()) {
            return;
        }
        for (place, event) in ready.iter().enumerate() {
            let Token::Socket(number) = Token::of(event.key) else { continue };
            let known = !self.previous.contains(&event.key);
            let Some(served) = self.served.get(number).filter(|_| known) else {
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

    /// Counts an error of a socket and does what it calls for. Returns whether to go on at once.
    pub(super) fn failed(
        &mut self,
        number: usize,
        call: fn(Errno) -> ServeError,
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
        observer.error(&call(errno), 1);
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
                observer.error(&ServeError::Connection(error), 1);
            }
            if let Some(moved) = moved {
                observer.path_changed(*moved);
            }
        }
    }
}

/// The address a socket is bound to, as its arrivals would name it.
pub(super) fn bound_address(bound: &Bound) -> SocketAddr {
    let mut address = SocketAddr::new(bound.view.address, bound.view.port);
    if let (SocketAddr::V6(v6), Some(scope_id)) = (&mut address, bound.view.scope_id) {
        v6.set_scope_id(scope_id);
    }
    address
}
