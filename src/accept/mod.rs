//! The readiness loop: one thread, level-triggered, over all sockets. It takes connections and datagrams, asks the kernel
//! where they came in, and answers them; an [`Observer`] hears of everything.

mod backoff;
mod changes;
mod connection;
mod neighbourhood;
mod table;
mod timers;

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::attribute::{Raw, attribute_into};
use crate::bind::Bound;
use crate::model::socket::Reply;
use crate::model::{Arrival, Change, Errno, PathChange, Protocol, SocketSpec, SocketView};
use crate::reply::{READ_LIMIT, line};
use crate::sys::{self, Interest, Poller, Readiness, Signals, options, packet_info};

use backoff::{Backoff, Next};
use connection::{Connections, Fresh, Outcome};
use neighbourhood::Neighbourhood;
use table::{Served, Table};

/// How many connections or datagrams one socket may deliver before the others have their turn.
const TURN: u32 = 64;

/// After one connection was found alone in its queue, so many more are taken without a look at the queue: where they come one
/// by one, that look costs a system call each.
const UNASKED: u32 = 15;

/// How long open connections may go on after the end was asked for.
const FAREWELL: Duration = Duration::from_millis(500);

/// How many datagrams of a socket are taken at the end: more than a queue holds, yet a flood does not keep the program alive.
const LAST_DATAGRAMS: u32 = 16_384;

/// How often the queue of a listener is looked at, at the end.
const LAST_ROUNDS: u32 = 64;

/// How long to wait at the most where a signal cannot end the wait.
const SHORT_WAIT: Duration = Duration::from_millis(200);

/// The keys of the poller. Sockets have even keys from [`FIRST_SOCKET`], connections odd ones.
const SIGNALS: u64 = 0;
const MONITOR: u64 = 1;
const FIRST_SOCKET: u64 = 2;

/// Hears of everything the loop does, in the order in which it happens.
pub trait Observer {
    /// A connection, or a datagram with its length in bytes and whether only its beginning was read. `Break` ends the loop.
    fn arrived(&mut self, arrival: &Arrival, datagram: Option<(usize, bool)>) -> ControlFlow<()>;
    /// A connection was closed at once: its listener has `max_connections` open ones.
    fn over_limit(&mut self, listener: &str);
    /// The accept queue of a listener is full or nearly so: `length` connections wait, and `limit` may.
    fn queue_filled(&mut self, _listener: &str, _length: u32, _limit: u32) {}
    /// `count` errors of a kind, such as `accept EMFILE`.
    fn error(&mut self, kind: &str, count: u64);
    /// The host's network changed. `lost` are the sockets that nobody can reach any more for it, `found` those that can be
    /// reached again, as listener and socket.
    fn network_changed(&mut self, change: &Change, lost: &[&SocketView], found: &[&SocketView]);
    /// A connection ended whose later packets came in elsewhere than its handshake.
    fn path_changed(&mut self, _change: PathChange) {}
    /// The loop is about to wait. `Break` ends it.
    fn idle(&mut self) -> ControlFlow<()>;
}

/// A socket to serve.
pub struct Endpoint {
    /// The open socket with what was asked of it.
    pub bound: Bound,
    /// Whether another program handed it over. It may live in another network namespace.
    pub inherited: bool,
}

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A signal asked for it.
    Signal,
    /// The time was up.
    Deadline,
    /// The observer asked for it.
    Observer,
    /// The network changed, and [`Acceptor::stop_on_change`] was asked for. The run may go on.
    Changed,
    /// No socket is left that works.
    NothingLeft,
}

/// The loop with all it owns.
pub struct Acceptor {
    poller: Poller,
    served: Table,
    /// Whether a change of the network ends the run, so that the sockets can be fitted to it.
    stops_on_change: bool,
    paused: Vec<usize>,
    connections: Connections,
    neighbourhood: Neighbourhood,
    starved: Vec<String>,
    buffer: Vec<u8>,
    /// The arrival of before, whose memory is used again.
    arrival: Arrival,
}

impl Acceptor {
    /// Takes over the sockets.
    ///
    /// # Errors
    /// When no poller can be made or a socket cannot be watched.
    pub fn new(endpoints: Vec<Endpoint>) -> io::Result<Acceptor> {
        let poller = Poller::new()?;
        let neighbourhood = Neighbourhood::new(&poller, MONITOR);
        let mut acceptor = Acceptor {
            poller,
            served: Table::default(),
            stops_on_change: false,
            paused: Vec::new(),
            connections: Connections::default(),
            neighbourhood,
            starved: Vec::new(),
            buffer: vec![0; READ_LIMIT],
            arrival: Arrival::nowhere(),
        };
        for endpoint in endpoints {
            acceptor.add(endpoint)?;
        }
        Ok(acceptor)
    }

    /// Serves one more socket.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn add(&mut self, endpoint: Endpoint) -> io::Result<()> {
        self.poller.add(&endpoint.bound.socket, socket_key(self.served.0.len()), Interest::Read)?;
        let at_home = !endpoint.inherited || self.neighbourhood.is_home_of(&endpoint.bound.socket);
        // What an inherited socket lost before is not ours to count.
        let lost_in_queue = match endpoint.bound.spec.protocol {
            Protocol::Udp if endpoint.inherited => {
                packet_info::dropped_datagrams(&endpoint.bound.socket).unwrap_or(0)
            }
            _ => 0,
        };
        self.served.0.push(Some(Served {
            endpoint,
            at_home,
            backoff: Backoff::default(),
            resumes: None,
            given_up: false,
            open: 0,
            unasked: 0,
            lost_in_queue,
        }));
        Ok(())
    }

    /// Closes the sockets that `goes` names, after taking what waits in their queues; connections of theirs go on.
    ///
    /// # Errors
    /// When the poller fails.
    pub fn retire(
        &mut self,
        goes: impl Fn(&SocketSpec) -> bool,
        observer: &mut impl Observer,
    ) -> io::Result<Vec<SocketView>> {
        let mut gone = Vec::new();
        for number in 0..self.served.0.len() {
            if !self.served.get(number).is_some_and(|served| goes(&served.endpoint.bound.spec)) {
                continue;
            }
            let _ = self.take_waiting(number, observer)?;
            if let Some(served) = self.served.take(number) {
                let _ = self.poller.remove(&served.endpoint.bound.socket);
                gone.push(served.endpoint.bound.view);
            }
        }
        Ok(gone)
    }

    /// Lets a change of the network end the run with [`End::Changed`].
    pub fn stop_on_change(&mut self) {
        self.stops_on_change = true;
    }

    /// Serves until a signal, the deadline or the observer ends it.
    ///
    /// # Errors
    /// When the poller fails; single sockets and connections are counted, not fatal.
    pub fn run(
        &mut self,
        observer: &mut impl Observer,
        signals: &Signals,
        deadline: Option<Instant>,
    ) -> io::Result<End> {
        let wakes = signals.watch(&self.poller, SIGNALS)?;
        let end = self.serve(observer, signals, deadline, wakes);
        signals.unwatch(&self.poller);
        end
    }

    fn serve(
        &mut self,
        observer: &mut impl Observer,
        signals: &Signals,
        deadline: Option<Instant>,
        wakes: bool,
    ) -> io::Result<End> {
        let mut ready = Vec::new();
        loop {
            if observer.idle().is_break() {
                return Ok(End::Observer);
            }
            let now = Instant::now();
            if signals.asked() {
                return Ok(End::Signal);
            }
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Ok(End::Deadline);
            }
            // Sockets that follow the network may come later.
            if !self.stops_on_change && self.served.0.iter().flatten().all(|served| served.given_up) {
                return Ok(End::NothingLeft);
            }
            let mut until = deadline;
            let candidates =
                [self.connections.next_deadline(), self.next_resumption(), self.neighbourhood.look_again()];
            for candidate in candidates.into_iter().flatten() {
                until = Some(until.map_or(candidate, |until| until.min(candidate)));
            }
            let mut timeout = until.map(|until| until.saturating_duration_since(now));
            if !wakes {
                timeout = Some(timeout.map_or(SHORT_WAIT, |timeout| timeout.min(SHORT_WAIT)));
            }
            self.poller.wait(&mut ready, timeout)?;
            // A change of the network that happened before an arrival must be known when its interface is named.
            let told = ready.len() >= Poller::BATCH || ready.iter().any(|event| event.key == MONITOR);
            let changes = self.neighbourhood.refresh_if_changed(told);
            if let Some(failure) = self.neighbourhood.take_failure() {
                observer.error(&failure, 1);
            }
            self.tell_changes(&changes, observer);
            for event in &ready {
                if self.handle(*event, observer)?.is_break() {
                    return Ok(End::Observer);
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

    fn handle(&mut self, event: Readiness, observer: &mut impl Observer) -> io::Result<ControlFlow<()>> {
        match event.key {
            SIGNALS | MONITOR => Ok(ControlFlow::Continue(())),
            key if key % 2 == 0 => {
                let number = usize::try_from((key - FIRST_SOCKET) / 2).unwrap_or(usize::MAX);
                match self.served.get(number).map(|served| served.endpoint.bound.spec.protocol) {
                    Some(Protocol::Tcp) => self.accept_some(number, TURN, observer),
                    Some(Protocol::Udp) => self.receive_some(number, TURN, observer),
                    None => Ok(ControlFlow::Continue(())),
                }
            }
            key => {
                let outcome =
                    self.connections.ready(connection_id(key), event, &self.poller, &mut self.buffer);
                self.settle(outcome, observer);
                Ok(ControlFlow::Continue(()))
            }
        }
    }

    /// Accepts as many connections as wait, at most `most`. An accept that finds nothing costs more than asking for the
    /// queue's length, so that is asked first where the system tells.
    fn accept_some(
        &mut self,
        number: usize,
        most: u32,
        observer: &mut impl Observer,
    ) -> io::Result<ControlFlow<()>> {
        let Some(served) = self.served.get_mut(number) else { return Ok(ControlFlow::Continue(())) };
        if served.given_up || served.resumes.is_some() {
            return Ok(ControlFlow::Continue(()));
        }
        let waiting = if served.unasked > 0 && most == TURN {
            served.unasked -= 1;
            1
        } else {
            let queue = packet_info::listen_queue(&served.endpoint.bound.socket);
            // At the end the queue was made short on purpose.
            if let Ok(queue) = queue.as_ref()
                && queue.is_pressed()
                && most == TURN
            {
                observer.queue_filled(&served.endpoint.bound.spec.listener, queue.queued, queue.limit);
            }
            let waiting = queue.map_or(1, |queue| queue.queued.max(1));
            served.unasked = if waiting == 1 { UNASKED } else { 0 };
            waiting
        };
        for _ in 0..waiting.min(most) {
            let Some(served) = self.served.get_mut(number) else { break };
            match options::accept(&served.endpoint.bound.socket) {
                Ok((socket, peer)) => {
                    served.backoff.succeeded();
                    let Some(peer) = peer.as_socket() else {
                        observer.error("accept: a peer of no known family", 1);
                        continue;
                    };
                    if self.take(number, socket, peer, waiting == 1, observer).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Err(error) => {
                    if !self.failed(number, "accept", &error, observer)? {
                        break;
                    }
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Attributes and reports one accepted connection, and begins to answer it. `alone` is whether nobody waits behind it.
    fn take(
        &mut self,
        number: usize,
        socket: socket2::Socket,
        peer: SocketAddr,
        alone: bool,
        observer: &mut impl Observer,
    ) -> ControlFlow<()> {
        let Some(served) = self.served.get_mut(number) else { return ControlFlow::Continue(()) };
        let spec = &served.endpoint.bound.spec;
        let native_ipv6 = matches!(peer, SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none());
        let origin = packet_info::origin_of_connection(&socket, native_ipv6).unwrap_or_else(|error| {
            observer.error(&format!("ingress interface: {}", sys::errno_of(&error)), 1);
            None
        });
        // A socket bound to one address has no other, unless TPROXY steers foreign ones to it (IP_TRANSPARENT; not known of an
        // inherited socket): only those and wildcards need to ask, and over IPv4 the kernel has told already.
        let bound_to = bound_address(&served.endpoint.bound);
        let unsure = spec.transparent || served.endpoint.inherited;
        let local = if unsure || bound_to.ip().to_canonical().is_unspecified() {
            match origin.and_then(|(_, local)| local) {
                Some(local) if !unsure => SocketAddr::new(local.into(), bound_to.port()),
                _ => socket.local_addr().ok().and_then(|local| local.as_socket()).unwrap_or(bound_to),
            }
        } else {
            bound_to
        };
        if let Some((index, _)) = origin {
            self.neighbourhood.learn(&socket, index, served.at_home);
        }
        let kernel = origin.map(|(index, _)| self.neighbourhood.ingress(index, served.at_home));
        let book = self.neighbourhood.book(served.at_home);
        let raw = Raw { listener: &spec.listener, protocol: Protocol::Tcp, peer, local, kernel };
        attribute_into(&mut self.arrival, &raw, book);
        let flow = observer.arrived(&self.arrival, None);
        if served.open >= spec.max_connections {
            observer.over_limit(&spec.listener);
            return flow;
        }
        if spec.reply == Reply::None {
            return flow;
        }
        served.open += 1;
        let idle = spec.idle_timeout;
        let (arrival, described) = (&self.arrival, spec.reply == Reply::Describe);
        let fresh = Fresh { socket, listener: number, arrival, described, alone, idle };
        let outcome = self.connections.open(fresh, &self.poller, &mut self.buffer);
        self.settle(outcome, observer);
        flow
    }

    /// Receives as many datagrams as wait, at most `most`.
    fn receive_some(
        &mut self,
        number: usize,
        most: u32,
        observer: &mut impl Observer,
    ) -> io::Result<ControlFlow<()>> {
        for _ in 0..most {
            let Some(served) = self.served.get_mut(number) else { break };
            let bound = &served.endpoint.bound;
            let datagram = match packet_info::receive(&bound.socket, &mut self.buffer) {
                Ok(datagram) => datagram,
                Err(error) => {
                    if self.failed(number, "receive", &error, observer)? {
                        continue;
                    }
                    break;
                }
            };
            if let Some(lost) = datagram.lost_in_queue {
                served.count_lost(lost, observer);
            }
            let bound = &served.endpoint.bound;
            let bound_to = bound_address(bound);
            let mut local =
                datagram.local.map_or(bound_to, |address| SocketAddr::new(address, bound_to.port()));
            if let (SocketAddr::V6(local), Some(index)) = (&mut local, datagram.ingress)
                && (local.ip().is_unicast_link_local() || is_link_multicast(*local.ip()))
            {
                local.set_scope_id(index);
            }
            if let Some(index) = datagram.ingress {
                self.neighbourhood.learn(&bound.socket, index, served.at_home);
            }
            let kernel = datagram.ingress.map(|index| self.neighbourhood.ingress(index, served.at_home));
            let book = self.neighbourhood.book(served.at_home);
            let spec = &bound.spec;
            let raw =
                Raw { listener: &spec.listener, protocol: Protocol::Udp, peer: datagram.peer, local, kernel };
            attribute_into(&mut self.arrival, &raw, book);
            let arrival = &self.arrival;
            let length = datagram.length.min(self.buffer.len());
            let answer = match spec.reply {
                Reply::None => None,
                Reply::Echo => self.buffer.get(..length).map(<[u8]>::to_vec),
                Reply::Describe => Some(line(arrival)),
            };
            let to_ourselves =
                arrival.peer_is_local == Some(true) && self.is_our_udp_port(datagram.peer.port());
            // Two sockets of ours that answer each other would never stop.
            if let Some(answer) = answer.filter(|_| !to_ourselves)
                && let Some(served) = self.served.get(number)
                && let Err(error) = packet_info::send(
                    &served.endpoint.bound.socket,
                    &answer,
                    datagram.peer,
                    datagram.reply_from,
                )
            {
                observer.error(&format!("answer a datagram: {}", sys::errno_of(&error)), 1);
            }
            if observer.arrived(&self.arrival, Some((datagram.length, datagram.truncated))).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn is_our_udp_port(&self, port: u16) -> bool {
        self.served.0.iter().flatten().any(|served| {
            served.endpoint.bound.spec.protocol == Protocol::Udp && served.endpoint.bound.view.port == port
        })
    }

    /// Counts an error of a socket and does what it calls for. Returns whether to go on at once.
    fn failed(
        &mut self,
        number: usize,
        call: &str,
        error: &io::Error,
        observer: &mut impl Observer,
    ) -> io::Result<bool> {
        let Some(served) = self.served.get_mut(number) else { return Ok(false) };
        let errno = sys::errno_of(error);
        if error.kind() == io::ErrorKind::WouldBlock {
            // The kernel looks for a descriptor first and at the queue then: both are as they should be.
            served.backoff.succeeded();
            return Ok(false);
        }
        if errno == Errno::EINTR {
            return Ok(true);
        }
        observer.error(&format!("{call} {errno}"), 1);
        match served.backoff.failed(errno) {
            Next::Wait => Ok(false),
            Next::Continue => Ok(true),
            Next::Pause(pause) => {
                served.resumes = Some(Instant::now() + pause);
                self.poller.change(&served.endpoint.bound.socket, socket_key(number), Interest::Nothing)?;
                self.paused.push(number);
                Ok(false)
            }
            Next::GiveUp => {
                served.given_up = true;
                self.poller.remove(&served.endpoint.bound.socket)?;
                Ok(false)
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
            self.poller.change(&served.endpoint.bound.socket, socket_key(number), Interest::Read)?;
        }
        self.paused = still;
        Ok(())
    }

    /// Ends the connections whose time is over.
    fn expire(&mut self, now: Instant, observer: &mut impl Observer) {
        while let Some(outcome) = self.connections.expire(now, &self.poller) {
            self.settle(outcome, observer);
        }
    }

    fn settle(&mut self, outcome: Outcome, observer: &mut impl Observer) {
        if let Outcome::Closed { listener, error, moved } = outcome {
            if let Some(served) = self.served.get_mut(listener) {
                served.open = served.open.saturating_sub(1);
            }
            if let Some(error) = error {
                observer.error(error, 1);
            }
            if let Some(moved) = moved {
                observer.path_changed(*moved);
            }
        }
    }

    /// Takes what waits in the queue of a socket.
    fn take_waiting(&mut self, number: usize, observer: &mut impl Observer) -> io::Result<ControlFlow<()>> {
        // One more attempt for a listener in a pause: whoever waits there would not be counted otherwise.
        if let Some(served) = self.served.get_mut(number) {
            served.resumes = None;
        }
        match self.served.get(number).map(|served| served.endpoint.bound.spec.protocol) {
            Some(Protocol::Tcp) => self.accept_last(number, observer),
            Some(Protocol::Udp) => {
                let flow = self.receive_some(number, LAST_DATAGRAMS, observer)?;
                // A datagram tells what was lost before it; nothing tells what was lost after the last one.
                if let Some(served) = self.served.get_mut(number)
                    && let Some(lost) = packet_info::dropped_datagrams(&served.endpoint.bound.socket)
                {
                    served.count_lost(lost, observer);
                }
                Ok(flow)
            }
            None => Ok(ControlFlow::Continue(())),
        }
    }

    /// Accepts what waits on a listener that is about to be closed. Newcomers are kept out meanwhile, or else whoever comes
    /// between the last look and the close would be connected and not counted; a shared socket is not ours to change.
    fn accept_last(&mut self, number: usize, observer: &mut impl Observer) -> io::Result<ControlFlow<()>> {
        for round in 0..LAST_ROUNDS {
            let Some(served) = self.served.get_mut(number).filter(|served| !served.given_up) else { break };
            let socket = &served.endpoint.bound.socket;
            if round == 0 && !served.endpoint.inherited {
                let _ = socket.listen(0);
            }
            match packet_info::listen_queue(socket) {
                Ok(queue) if queue.queued == 0 => {
                    served.backoff.succeeded();
                    break;
                }
                _ if served.resumes.is_some() => break,
                Err(_) if round > 0 => break,
                _ => {}
            }
            if self.accept_some(number, u32::MAX, observer)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Ends in an orderly way: takes the connections that the kernel has accepted already (unless `take_waiting` is false:
    /// enough were counted), closes the listeners, and lets open connections finish for half a second.
    ///
    /// # Errors
    /// When the poller fails.
    pub fn close(&mut self, observer: &mut impl Observer, take_waiting: bool) -> io::Result<()> {
        for number in (0..self.served.0.len()).filter(|_| take_waiting) {
            let taken = self.take_waiting(number, observer)?;
            if taken.is_break() {
                break;
            }
        }
        for served in self.served.0.drain(..).flatten() {
            if !served.given_up {
                let _ = self.poller.remove(&served.endpoint.bound.socket);
            }
            if take_waiting && (served.given_up || served.backoff.is_failing()) {
                self.starved.push(served.endpoint.bound.spec.listener);
            }
        }
        let deadline = Instant::now() + FAREWELL;
        let mut ready = Vec::new();
        while !self.connections.is_empty() {
            let now = Instant::now();
            if now >= deadline {
                break;
            }
            let until = self.connections.next_deadline().map_or(deadline, |next| next.min(deadline));
            self.poller.wait(&mut ready, Some(until.saturating_duration_since(now)))?;
            for event in ready.iter().filter(|event| event.key % 2 == 1 && event.key != MONITOR) {
                let outcome =
                    self.connections.ready(connection_id(event.key), *event, &self.poller, &mut self.buffer);
                self.settle(outcome, observer);
            }
            self.expire(Instant::now(), observer);
            if ready.iter().any(|event| event.key == MONITOR) {
                let _ = self.neighbourhood.refresh_if_changed(true);
            }
        }
        for outcome in self.connections.close_all(&self.poller) {
            self.settle(outcome, observer);
        }
        Ok(())
    }
}

impl Acceptor {
    /// After [`Acceptor::close`]: listeners that could not take what waited, to the end. Whoever waited there is not counted.
    #[must_use]
    pub fn starved(&self) -> &[String] {
        &self.starved
    }
}

/// The address a socket is bound to, as its arrivals would name it.
fn bound_address(bound: &Bound) -> SocketAddr {
    let mut address = SocketAddr::new(bound.view.address, bound.view.port);
    if let (SocketAddr::V6(v6), Some(scope_id)) = (&mut address, bound.view.scope_id) {
        v6.set_scope_id(scope_id);
    }
    address
}

/// ff01::/16 and ff02::/16: groups that mean another one on each link (RFC 4291, 2.7).
fn is_link_multicast(address: std::net::Ipv6Addr) -> bool {
    matches!(address.segments()[0] & 0xff0f, 0xff01 | 0xff02)
}

fn socket_key(number: usize) -> u64 {
    FIRST_SOCKET + 2 * number as u64
}

/// Connection keys are odd, from 3.
fn connection_key(id: u64) -> u64 {
    3 + 2 * id
}

fn connection_id(key: u64) -> u64 {
    (key.saturating_sub(3)) / 2
}

/// Whether an error means "not now".
fn would_block(error: &io::Error) -> bool {
    matches!(sys::errno_of(error), Errno::EAGAIN | Errno::EINTR) || error.kind() == io::ErrorKind::WouldBlock
}
