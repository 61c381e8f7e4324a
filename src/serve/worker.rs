//! The readiness loop of one thread, level-triggered, over all sockets.

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::attribute::{Raw, attribute_into};
use crate::model::socket::Reply;
use crate::model::{Arrival, Errno, Protocol};
use crate::reply::{OwnNames, READ_LIMIT};
use crate::serve::bind::Bound;
use crate::sys::{self, Poller, Readiness, Signals, options, packet_info};

use super::backoff::Next;
use super::connection::{Connections, Fresh, Outcome, Place};
use super::network_view::NetworkView;
use super::reply_limit::ReplyLimit;
use super::served_sockets::{Served, Table};
use super::worker_group::WorkerGroup;
use super::{End, Observer};

/// How many connections or datagrams one socket may deliver before the others have their turn.
const TURN: u32 = 64;

/// After one connection was found alone in its queue, so many more are taken without a look at the queue: where they come one
/// by one, that look costs a system call each.
const UNASKED: u32 = 15;

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
    pub(super) connections: Connections,
    pub(super) neighbourhood: NetworkView,
    pub(super) unaccepted: Vec<String>,
    pub(super) buffer: Vec<u8>,
    /// Which datagrams are answered.
    pub(super) replies: ReplyLimit,
    /// The arrival of before, whose memory is used again.
    pub(super) arrival: Arrival,
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

    /// Lets a change of the network end the run with [`End::Changed`].
    pub(super) fn stop_on_change(&mut self) {
        self.stops_on_change = true;
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
        let mut ready = Vec::new();
        loop {
            let now = Instant::now();
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
            // A change of the network that happened before an arrival must be known when its interface is named.
            let told = full || ready.iter().any(|event| event.key == MONITOR);
            let changes = self.neighbourhood.refresh_if_changed(told);
            if let Some(failure) = self.neighbourhood.take_failure() {
                observer.error(&failure, 1);
            }
            if self.leads {
                self.tell_changes(&changes, observer);
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

    /// Accepts as many connections as wait, at most `most`. An accept that finds nothing costs more than asking for the
    /// queue's length, so that is asked first where the system tells.
    pub(super) fn accept_some(
        &mut self,
        number: usize,
        most: u32,
        observer: &mut impl Observer,
    ) -> ControlFlow<()> {
        let Some(served) = self.served.get_mut(number) else { return ControlFlow::Continue(()) };
        if served.given_up || served.resumes.is_some() {
            return ControlFlow::Continue(());
        }
        let waiting = if served.unasked > 0 && most == TURN {
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
            let waiting = queue.map_or(1, |queue| queue.queued.max(1));
            served.unasked = if waiting == 1 { UNASKED } else { 0 };
            waiting
        };
        let alone = waiting == 1 && !self.busy;
        let most = waiting.min(most);
        if !self.crew.is_one() {
            return self.accept_by_turns(number, most, alone, observer);
        }
        for _ in 0..most {
            let ControlFlow::Continue(accepted) = self.accept(number, observer) else { break };
            let Some((socket, peer)) = accepted else { continue };
            self.take(number, socket, peer, alone, observer);
            if self.crew.commit() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// The same where other threads accept, too: each accepts some while the others look at theirs.
    fn accept_by_turns(
        &mut self,
        number: usize,
        most: u32,
        alone: bool,
        observer: &mut impl Observer,
    ) -> ControlFlow<()> {
        let crew = Arc::clone(&self.crew);
        let (mut left, mut fresh) = (most, Vec::new());
        while left > 0 {
            let turn = crew.turn();
            let some = left.min(WorkerGroup::AT_A_TIME);
            left -= some;
            for _ in 0..some {
                match self.accept(number, observer) {
                    ControlFlow::Continue(accepted) => fresh.extend(accepted),
                    ControlFlow::Break(()) => {
                        left = 0;
                        break;
                    }
                }
            }
            drop(turn);
            for (socket, peer) in fresh.drain(..) {
                self.take(number, socket, peer, alone, observer);
                if crew.commit() {
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
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

    /// Attributes and reports one accepted connection, and begins to answer it. `alone` is whether nothing else
    /// is to be done, as far as is known.
    fn take(
        &mut self,
        number: usize,
        socket: socket2::Socket,
        peer: SocketAddr,
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
            self.neighbourhood.learn(&socket, index, served.same_netns);
        }
        let kernel = origin.map(|(index, _)| self.neighbourhood.ingress(index));
        let book = self.neighbourhood.book(served.same_netns);
        let raw = Raw { listener: &spec.listener, protocol: Protocol::Tcp, peer, local, kernel };
        attribute_into(&mut self.arrival, &raw, book);
        let one_more = |open: u32| (open < spec.max_connections).then_some(open + 1);
        let room = match spec.reply {
            // It is closed at once, so it takes no place.
            Reply::None => served.open.load(Ordering::Relaxed) < spec.max_connections,
            _ => served.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok(),
        };
        if !room {
            observer.over_limit(&self.arrival);
            return;
        }
        observer.arrived(&self.arrival, None);
        if spec.reply == Reply::None {
            return;
        }
        if alone {
            // Its first words may be waited for. What it is told when nobody reads any more is told again before the next wait.
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
