//! The connection engine: many attempts with a limited number in flight, each with its own timeout.
//!
//! How the engine identifies the socket that answered: on TCP our listener sends the nonce of the run and the number of
//! the accepted connection. Nothing is ever sent to a foreign server, and the banner of a foreign server does not
//! contain the nonce. On UDP the client sends the nonce and its own number, and the socket of ours that receives it is
//! the answer.
//!
//! The client resets connections to listeners of this program, so that no TIME_WAIT remains on their ports. It closes those to
//! foreign servers in order: some servers treat a reset as an error.

use std::cmp::Reverse;
use std::collections::hash_map::RandomState;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{SockAddr, Socket};

use super::attempt::{Attempt, Attempts, Limits, Observation};
use super::classify::{may_pass, outcome_of};
use super::socket_reuse::{Spare, Spares};
use crate::model::addr::is_mapped;
use crate::model::{Answer, Errno, Family, Outcome, Protocol};
use crate::serve::bind::Bound;
use crate::sys::{self, Connecting, Interest, Poller, options, packet_info};

/// Number of bytes of a nonce, and of a greeting (nonce and number).
const NONCE: usize = 16;
const GREETING: usize = NONCE + 8;

/// How often a datagram is sent before silence counts as a timeout.
const DATAGRAMS: u32 = 3;

/// How often an attempt is repeated whose socket connected to itself.
const TRIALS: u32 = 3;

/// With more attempts in flight, answered ones are handled before new ones start; otherwise they would wait too long.
const CROWD: usize = 256;

/// Number of attempts that finish immediately before the ones in flight are handled.
const QUICK: usize = 256;

/// Minimum number of remaining attempts at an address that justifies a socket reserved for it.
const LONG: usize = 64;

/// A number that is unique to this run.
fn nonce() -> [u8; NONCE] {
    let mut bytes = [0; NONCE];
    for half in bytes.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().build_hasher().finish().to_be_bytes());
    }
    bytes
}

fn key(index: usize) -> u64 {
    u64::try_from(index).unwrap_or(u64::MAX)
}

/// A connection that one of our listeners accepted.
struct Accepted {
    socket: Option<Socket>,
    taker: usize,
    ingress: Option<u32>,
    local: Option<SocketAddr>,
    peer: Option<SocketAddr>,
}

struct Client {
    socket: Socket,
    started: Instant,
    until: Instant,
    /// Time to connect, once connected.
    connected: Option<Duration>,
    greeting: Vec<u8>,
    datagrams: u32,
    /// The client's end, where it is asked for.
    end: Option<SocketAddr>,
    /// An ICMP error that leaves the outcome open.
    answer: Option<Answer>,
}

/// Why an attempt was over before it began.
struct Refused {
    errno: Errno,
    answer: Option<Answer>,
    end: Option<SocketAddr>,
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Refused {
        Refused { errno, answer: None, end: None }
    }
}

/// Attempts in flight, and what they need.
pub(super) struct Engine<'a> {
    listeners: &'a [&'a Bound],
    attempts: Attempts<'a>,
    /// Whether an attempt may reuse the socket of another attempt of its family.
    plain: &'a dyn Fn(usize, &Attempt) -> bool,
    nonce: [u8; NONCE],
    poller: Poller,
    accepted: Vec<Accepted>,
    clients: HashMap<usize, Client>,
    /// When to check a client again; entries of finished clients stay until they are due.
    wakes: BinaryHeap<Reverse<(Instant, usize)>>,
    spares: Spares,
    seen: &'a mut dyn FnMut(usize, Observation),
    done: usize,
    /// Whether one of our connections could not be accepted for lack of a descriptor. Silence then does not indicate
    /// another program.
    unaccepted: bool,
    /// Whether the clients' ends are asked for.
    ends: bool,
}

/// Result of starting an attempt.
enum Begun {
    UnderWay,
    Over,
    /// The system has no free descriptor at the moment.
    NotNow,
}

impl<'a> Engine<'a> {
    pub(super) fn new(
        listeners: &'a [&'a Bound],
        attempts: Attempts<'a>,
        plain: &'a dyn Fn(usize, &Attempt) -> bool,
        seen: &'a mut dyn FnMut(usize, Observation),
    ) -> io::Result<Engine<'a>> {
        Ok(Engine {
            listeners,
            attempts,
            plain,
            nonce: nonce(),
            poller: Poller::new()?,
            accepted: Vec::new(),
            clients: HashMap::new(),
            wakes: BinaryHeap::new(),
            spares: Spares::default(),
            seen,
            done: 0,
            unaccepted: false,
            ends: false,
        })
    }

    fn attempt(&self, index: usize) -> Attempt {
        (self.attempts.of)(index)
    }

    pub(super) fn run(
        mut self,
        limits: Limits,
        open: &mut dyn FnMut(usize) -> io::Result<Socket>,
        progress: &mut dyn FnMut(usize),
    ) -> io::Result<()> {
        self.ends = limits.ends;
        for (index, bound) in self.listeners.iter().enumerate() {
            self.poller.add(&bound.socket, key(index), Interest::Read)?;
        }
        let result = self.all(limits, open, progress);
        for bound in self.listeners {
            self.poller.remove(&bound.socket)?;
        }
        result
    }

    fn all(
        &mut self,
        limits: Limits,
        open: &mut dyn FnMut(usize) -> io::Result<Socket>,
        progress: &mut dyn FnMut(usize),
    ) -> io::Result<()> {
        let mut next = 0;
        let mut ready = Vec::new();
        // A full accept queue drops a SYN, and the next one follows a second later. This would look like a firewall.
        let queues = self.listeners.iter().filter_map(|bound| bound.backlog);
        let queue = queues.min().and_then(|queue| usize::try_from(queue).ok()).unwrap_or(usize::MAX);
        let burst = queue.saturating_add(1).min(CROWD);
        loop {
            let (mut begun, mut over, mut room) = (0, 0, true);
            let crowd = !ready.is_empty() && self.clients.len() >= CROWD;
            while !crowd && room && next < self.attempts.count && begun < burst && over < QUICK {
                let now = Instant::now();
                room = self.clients.len() < limits.in_flight && now < limits.deadline;
                if room {
                    match self.start(next, now, open) {
                        Begun::UnderWay => begun += 1,
                        Begun::Over => over += 1,
                        Begun::NotNow => {
                            room = false;
                            continue;
                        }
                    }
                    next += 1;
                }
            }
            progress(self.done);
            let now = Instant::now();
            let more = room && next < self.attempts.count;
            if self.clients.is_empty() {
                if more {
                    continue;
                }
                if next == self.attempts.count || now >= limits.deadline {
                    return Ok(());
                }
            }
            let wake = self.wakes.peek().map_or(now, |Reverse((wake, _))| *wake);
            let wait = wake.saturating_duration_since(now).min(Duration::from_millis(100));
            self.poller.wait(&mut ready, Some(if more { Duration::ZERO } else { wait }))?;
            for event in &ready {
                let index = usize::try_from(event.key).unwrap_or(usize::MAX);
                match self.listeners.get(index) {
                    Some(bound) if bound.spec.protocol == Protocol::Tcp => self.accept(index),
                    Some(_) => self.receive(index),
                    None => self.advance(index - self.listeners.len()),
                }
            }
            self.expire(limits.deadline);
        }
    }

    /// Starts an attempt.
    fn start(
        &mut self,
        index: usize,
        started: Instant,
        open: &mut dyn FnMut(usize) -> io::Result<Socket>,
    ) -> Begun {
        let attempt = self.attempt(index);
        let begun = self.connect(index, &attempt, open).and_then(|(socket, connected, end)| {
            let interest = if connected { Interest::Read } else { Interest::Write };
            let added = self.poller.add(&socket, key(self.listeners.len() + index), interest);
            added.map_err(|error| sys::errno_of(&error))?;
            let until = started + attempt.patience;
            let connected = connected.then(|| started.elapsed());
            let (greeting, datagrams, answer) = (Vec::new(), 0, None);
            Ok(Client { socket, started, until, connected, greeting, datagrams, end, answer })
        });
        match begun {
            Ok(client) => {
                let itself = attempt.protocol == Protocol::Udp && meets_itself(&client.socket);
                self.clients.insert(index, client);
                if itself {
                    self.fail(index, Errno::ECONNREFUSED.into(), started);
                    return Begun::Over;
                }
                if attempt.protocol == Protocol::Udp {
                    self.send(index);
                }
                self.wakes.extend(self.wake(index).map(|wake| Reverse((wake, index))));
                Begun::UnderWay
            }
            Err(refused) if is_starved(refused.errno) && !self.clients.is_empty() => Begun::NotNow,
            Err(refused) if is_starved(refused.errno) => {
                self.unaccepted = true;
                self.end(index);
                Begun::Over
            }
            Err(refused) => {
                self.fail(index, refused, started);
                Begun::Over
            }
        }
    }

    /// A client's socket that connects, whether it is already connected, and its address and port. A socket that connects to itself tries
    /// again: a port chosen by the kernel says nothing about the destination port.
    fn connect(
        &mut self,
        index: usize,
        attempt: &Attempt,
        open: &mut dyn FnMut(usize) -> io::Result<Socket>,
    ) -> Result<(Socket, bool, Option<SocketAddr>), Refused> {
        let to = SockAddr::from(attempt.to);
        let plain = (self.plain)(index, attempt);
        for _ in 0..TRIALS {
            let spare = if plain { self.spares.take(attempt.to) } else { None };
            let spare = match spare {
                Some(spare) => spare,
                None => Spare::new(opened(index, open).map_err(|error| sys::errno_of(&error))?),
            };
            let (result, end) = if self.ends {
                options::connect_and_name(&spare.socket, &to)
            } else {
                (options::connect_now(&spare.socket, &to), None)
            };
            let errno = match result {
                Ok(Connecting::Pending) => return Ok((spare.socket, false, end)),
                Ok(Connecting::Done) if attempt.protocol == Protocol::Tcp && meets_itself(&spare.socket) => {
                    let _ = spare.socket.set_linger(Some(Duration::ZERO));
                    continue;
                }
                Ok(Connecting::Done) => return Ok((spare.socket, true, end)),
                Err(error) => sys::errno_of(&error),
            };
            if errno != Errno::ECONNREFUSED && spare.keeps_port() {
                // Its port is in use towards this destination, or its address was removed. This says nothing about the
                // destination.
                continue;
            }
            let answer = sys::take_icmp(&spare.socket).map(|(_, answer)| answer);
            if plain && options::REFUSED_SOCKETS_CONNECT_AGAIN {
                let Attempts { count, of } = self.attempts;
                let long = || index + LONG < count && of(index + LONG).to.ip() == attempt.to.ip();
                self.spares.put(spare, attempt.to, long);
            }
            return Err(Refused { errno, answer, end });
        }
        Err(Errno::ECONNREFUSED.into())
    }

    /// When an attempt must be checked again.
    fn wake(&self, index: usize) -> Option<Instant> {
        let client = self.clients.get(&index)?;
        let again = client.started + self.attempt(index).patience / DATAGRAMS * client.datagrams;
        let resend = self.attempt(index).protocol == Protocol::Udp && client.datagrams < DATAGRAMS;
        Some(if resend { again.min(client.until) } else { client.until })
    }

    fn send(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(&index) else { return };
        client.datagrams += 1;
        let mut message = self.nonce.to_vec();
        message.extend_from_slice(&key(index).to_be_bytes());
        if let Err(error) = client.socket.send(&message) {
            let errno = sys::errno_of(&error);
            if errno != Errno::EAGAIN && errno != Errno::ENOBUFS {
                self.failed(index, errno);
            }
        }
    }

    /// Accepts every waiting connection of a listener, and sends the greeting.
    fn accept(&mut self, taker: usize) {
        let listener = &self.listeners[taker].socket;
        loop {
            let (mut socket, peer) = match options::accept(listener) {
                Ok(taken) => taken,
                Err(error) => {
                    self.unaccepted |= is_starved(sys::errno_of(&error));
                    return;
                }
            };
            let peer = peer.as_socket();
            let local = socket.local_addr().ok().and_then(|address| address.as_socket());
            let native6 = local.is_some_and(|local| !local.ip().to_canonical().is_ipv4());
            let ingress = packet_info::ingress_of_connection(&socket, native6).ok().flatten();
            let mut greeting = self.nonce.to_vec();
            greeting.extend_from_slice(&key(self.accepted.len()).to_be_bytes());
            let _ = socket.write_all(&greeting);
            self.accepted.push(Accepted { socket: Some(socket), taker, ingress, local, peer });
        }
    }

    /// Receives every waiting datagram of one of our UDP sockets.
    fn receive(&mut self, taker: usize) {
        let mut buffer = [0; GREETING + 1];
        while let Ok(datagram) = packet_info::receive(&self.listeners[taker].socket, &mut buffer) {
            let Some(number) = self.number(buffer.get(..datagram.length).unwrap_or_default()) else {
                continue;
            };
            if let Some(client) = self.clients.get(&number) {
                let inet6 = self.listeners[taker].spec.domain() == Family::Ipv6;
                let observation = Observation {
                    outcome: Outcome::Accepted,
                    taker: Some(taker),
                    ingress: datagram.index,
                    local: datagram
                        .destination
                        .map(|ip| SocketAddr::new(ip.to_canonical(), self.attempt(number).to.port())),
                    peer: Some(canonical(datagram.peer)),
                    v4_mapped: inet6 && datagram.peer.ip().to_canonical().is_ipv4(),
                    errno: None,
                    answer: None,
                    client: None,
                    took: client.started.elapsed(),
                };
                self.finish(number, observation);
            }
        }
    }

    /// The number in a greeting of this run.
    fn number(&self, bytes: &[u8]) -> Option<usize> {
        let (nonce, number) = bytes.split_at_checked(NONCE)?;
        let number = u64::from_be_bytes(number.try_into().ok()?);
        (nonce == self.nonce).then(|| usize::try_from(number).ok())?
    }

    /// Continues an attempt whose socket is ready.
    fn advance(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(&index) else { return };
        let started = client.started;
        match client.socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return self.failed(index, sys::errno_of(&error)),
        }
        if (self.attempts.of)(index).protocol == Protocol::Udp {
            return self.failed(index, Errno::EAGAIN);
        }
        if client.connected.is_none() {
            if client.socket.peer_addr().is_err() {
                // The error is in the queue already, and at the socket only with the next SYN.
                return self.failed(index, Errno::EAGAIN);
            }
            client.connected = Some(started.elapsed());
            if meets_itself(&client.socket) {
                let _ = client.socket.set_linger(Some(Duration::ZERO));
                return self.fail(index, Errno::ECONNREFUSED.into(), started);
            }
            let socket_key = key(self.listeners.len() + index);
            if let Err(error) = self.poller.change(&client.socket, socket_key, Interest::Read) {
                return self.fail(index, sys::errno_of(&error).into(), started);
            }
        }
        let mut buffer = [0; GREETING + 1];
        match client.socket.read(&mut buffer) {
            Ok(0) => self.stranger(index),
            Ok(length) => {
                client.greeting.extend_from_slice(&buffer[..length]);
                if client.greeting.len() >= GREETING {
                    self.greeted(index);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // A server that resets immediately is still a server.
            Err(_) => self.stranger(index),
        }
    }

    fn greeted(&mut self, index: usize) {
        let number = self.clients.get(&index).and_then(|client| self.number(&client.greeting));
        let Some(accepted) = number.and_then(|number| self.accepted.get_mut(number)) else {
            return self.stranger(index);
        };
        let observation = Observation {
            outcome: Outcome::Accepted,
            taker: Some(accepted.taker),
            ingress: accepted.ingress,
            local: accepted.local.map(canonical),
            peer: accepted.peer.map(canonical),
            v4_mapped: accepted.local.is_some_and(|local| is_mapped(local.ip())),
            errno: None,
            answer: None,
            client: None,
            took: self.clients.get(&index).and_then(|client| client.connected).unwrap_or_default(),
        };
        let socket = accepted.socket.take();
        // No TIME_WAIT remains on the port of a listener of this program.
        // A reply, so that the client also sends packets with data. The peer is now known to be our listener.
        if let Some(client) = self.clients.get(&index) {
            let _ = client.socket.set_linger(Some(Duration::ZERO));
            let _ = client.socket.send(&self.nonce);
        }
        self.finish(index, observation);
        // Closed after the client has reset the connection.
        drop(socket);
    }

    /// A foreign socket accepted the connection.
    fn stranger(&mut self, index: usize) {
        let Some(client) = self.clients.get(&index) else { return };
        let took = client.connected.unwrap_or_else(|| client.started.elapsed());
        discard_waiting(&client.socket);
        self.finish(index, Observation { took, ..Observation::of(Outcome::Accepted) });
    }

    /// Ends an attempt whose socket has this error; EAGAIN if the error can only be in the socket's error queue. An ordinary
    /// UDP socket does not receive temporary errors (`udp_err()`, `icmp_err_convert`), so such an error does not end the attempt
    /// and is reported as its answer.
    fn failed(&mut self, index: usize, errno: Errno) {
        let Some(client) = self.clients.get_mut(&index) else { return };
        let icmp = sys::take_icmp(&client.socket);
        let answer = icmp.map(|(_, answer)| answer).or(client.answer);
        let errno = if errno == Errno::EAGAIN { icmp.map(|(errno, _)| errno) } else { Some(errno) };
        let udp = (self.attempts.of)(index).protocol == Protocol::Udp;
        match errno {
            Some(errno) if !(udp && answer.is_some_and(may_pass)) => {
                let (started, end) = (client.started, client.end);
                self.fail(index, Refused { errno, answer, end }, started);
            }
            _ => client.answer = answer,
        }
    }

    fn fail(&mut self, index: usize, refused: Refused, started: Instant) {
        let Refused { errno, answer, end } = refused;
        let tcp = self.attempt(index).protocol == Protocol::Tcp;
        // A reset in reply to the SYN is ECONNREFUSED (`tcp_reset()` of `net/ipv4/tcp_input.c`). This reset came from a
        // server that had accepted.
        if errno == Errno::ECONNRESET && tcp {
            return self.finish(
                index,
                Observation { took: started.elapsed(), ..Observation::of(Outcome::Accepted) },
            );
        }
        let outcome = match answer {
            // What ICMPv6 calls prohibited is EACCES, as is a local refusal.
            Some(_) if errno == Errno::EACCES => Outcome::Unreachable,
            _ => outcome_of(errno),
        };
        let reset = (tcp && errno == Errno::ECONNREFUSED).then_some(Answer::RESET);
        let observation = Observation {
            errno: Some(errno),
            answer: answer.or(reset),
            client: end,
            took: started.elapsed(),
            ..Observation::of(outcome)
        };
        self.finish(index, observation);
    }

    /// Ends attempts that have timed out, and repeats datagrams.
    fn expire(&mut self, deadline: Instant) {
        let now = Instant::now();
        let over = now >= deadline;
        while let Some(&Reverse((wake, index))) = self.wakes.peek() {
            if wake > now && !over {
                return;
            }
            self.wakes.pop();
            let Some(client) = self.clients.get(&index) else { continue };
            if now < client.until && !over {
                self.send(index);
                self.wakes.extend(self.wake(index).map(|wake| Reverse((wake, index))));
                continue;
            }
            if now < client.until || self.unaccepted && client.connected.is_some() {
                // Cut off by the deadline, or no connection could be accepted for lack of descriptors.
                self.end(index);
            } else if client.connected.is_some() && self.attempt(index).protocol == Protocol::Tcp {
                // Connected, but no listener of ours has sent a greeting.
                self.stranger(index);
            } else if (self.plain)(index, &self.attempt(index)) && source_is_gone(&client.socket) {
                // Answers to the source address reach no socket: their absence says nothing about the destination.
                self.end(index);
            } else {
                let (took, answer) = (client.started.elapsed(), client.answer);
                self.finish(index, Observation { took, answer, ..Observation::of(Outcome::Timeout) });
            }
        }
    }

    /// Ends an attempt. Unless [`Engine::finish`] sets its result, it was not observed.
    fn end(&mut self, index: usize) {
        // A port scan usually has no such entry.
        if !self.clients.is_empty()
            && let Some(client) = self.clients.remove(&index)
        {
            let _ = self.poller.remove(&client.socket);
        }
        self.done += 1;
    }

    fn finish(&mut self, index: usize, mut observation: Observation) {
        let end = self.clients.get(&index).and_then(|client| client.end);
        observation.client = observation.client.or(end);
        self.end(index);
        (self.seen)(index, observation);
    }
}

/// A non-blocking client socket.
fn opened(index: usize, open: &mut dyn FnMut(usize) -> io::Result<Socket>) -> io::Result<Socket> {
    let socket = open(index)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Takes what a foreign server has sent. The kernel resets a connection that is closed with unread data (`tcp_close()` of
/// `net/ipv4/tcp.c`).
fn discard_waiting(socket: &Socket) {
    /// More than a banner; a server that sends without end is not read without end.
    const MOST: usize = 16;
    let mut buffer = [0; 4096];
    for _ in 0..MOST {
        if !matches!(options::recv_now(socket, &mut buffer), Ok(1..)) {
            return;
        }
    }
}

/// Whether the error means that there are no descriptors left.
fn is_starved(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE)
}

/// Whether the source address of a client in the namespace of this thread was removed after the socket took it.
fn source_is_gone(client: &Socket) -> bool {
    let Some(mut source) = client.local_addr().ok().and_then(|address| address.as_socket()) else {
        return false;
    };
    source.set_port(0);
    std::net::UdpSocket::bind(source).is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// Whether a client is connected to itself because the kernel chose its destination port as its own (RFC 9293, 3.5:
/// simultaneous open). The peer address is read back because `0.0.0.0` and `::` become the loopback address.
fn meets_itself(socket: &Socket) -> bool {
    match (socket.local_addr(), socket.peer_addr()) {
        (Ok(own), Ok(peer)) => own.as_socket().is_some_and(|own| Some(own) == peer.as_socket()),
        _ => false,
    }
}

/// An IPv4-mapped address as its IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(IpAddr::V4(v4), address.port()),
        IpAddr::V6(_) => address,
    }
}
