//! The engine: many connections at once, a bounded number in flight, each with its own patience.
//!
//! How one knows which socket answered: on TCP our listener is the one that speaks. It sends the run's nonce and the number of the
//! accepted connection, so nothing is ever sent to a server that is not ours, and a stranger's banner proves itself strange. On
//! UDP the client sends the nonce and its own number, and our socket that receives it is the answer.
//!
//! The client closes with a reset, so that no TIME_WAIT is left on the ports of listeners.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::classify::outcome_of;
use crate::bind::Bound;
use crate::model::{Errno, Family, Outcome, Protocol};
use crate::sys::{self, Interest, Poller, options, packet_info};

/// Bytes of a nonce, and of a greeting: the nonce and a number.
const NONCE: usize = 16;
const GREETING: usize = NONCE + 8;

/// How often a datagram is sent before silence counts.
const DATAGRAMS: u32 = 3;

/// One connection to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where to; its variant decides the family of the client's socket.
    pub to: SocketAddr,
    /// How long silence is waited for.
    pub patience: Duration,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// What came of it.
    pub outcome: Outcome,
    /// Index of our socket that took it; `None` when a stranger did, or nobody.
    pub taker: Option<usize>,
    /// Index of the interface it came in on, as the kernel reports it.
    pub ingress: Option<u32>,
    /// The address it was sent to, as our socket has it.
    pub local: Option<SocketAddr>,
    /// Who connected, as our socket has it.
    pub peer: Option<SocketAddr>,
    /// Whether IPv4 came to an AF_INET6 socket.
    pub v4_mapped: bool,
    /// The error.
    pub errno: Option<Errno>,
    /// From the start of the attempt to its outcome.
    pub took: Duration,
}

/// What bounds a run.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many connections are under way at once.
    pub in_flight: usize,
    /// When everything ends; what has not been tried by then is not observed.
    pub deadline: Instant,
}

/// The client's socket for an attempt; bound to `source`, where one is given, with the zone of a link-local one.
///
/// # Errors
/// As socket(2) and bind(2).
pub fn client(attempt: &Attempt, source: Option<(IpAddr, u32)>) -> io::Result<Socket> {
    let kind = if attempt.protocol == Protocol::Tcp { Type::STREAM } else { Type::DGRAM };
    let socket = Socket::new(Domain::for_address(attempt.to), kind, None)?;
    // Whatever `bindv6only` makes of new sockets: a client that wants IPv4 this way asks for it.
    if is_mapped(attempt.to.ip()) {
        socket.set_only_v6(false)?;
    }
    if let Some((address, zone)) = source {
        let address = match (address, attempt.to) {
            (IpAddr::V4(v4), SocketAddr::V6(_)) => v4.to_ipv6_mapped().into(),
            _ => address,
        };
        socket.bind(&SockAddr::from(match address {
            IpAddr::V6(v6) => SocketAddr::V6(SocketAddrV6::new(v6, 0, 0, zone)),
            IpAddr::V4(_) => SocketAddr::new(address, 0),
        }))?;
    }
    Ok(socket)
}

/// Makes the attempts against `listeners`, in this process. `open` makes the client's socket for the attempt with this index, which
/// lets a caller choose namespace and source address. `progress` is told how many are done.
///
/// An attempt that was not made before the deadline is `None`.
///
/// # Errors
/// When the system refuses to be waited on.
pub fn run(
    listeners: &[Bound],
    attempts: &[Attempt],
    limits: Limits,
    open: &mut dyn FnMut(usize) -> io::Result<Socket>,
    progress: &mut dyn FnMut(usize),
) -> io::Result<Vec<Option<Observation>>> {
    let mut engine = Engine {
        listeners,
        attempts,
        nonce: nonce(),
        poller: Poller::new()?,
        accepted: Vec::new(),
        clients: (0..attempts.len()).map(|_| None).collect(),
        seen: vec![None; attempts.len()],
        under_way: Vec::new(),
        done: 0,
    };
    for (index, bound) in listeners.iter().enumerate() {
        engine.poller.add(&bound.socket, key(index), Interest::Read)?;
    }
    let result = engine.run(limits, open, progress);
    for bound in listeners {
        engine.poller.remove(&bound.socket)?;
    }
    result.map(|()| engine.seen)
}

/// A number for this run that nobody else has.
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

/// A connection that a listener of ours accepted.
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
    connected: bool,
    greeting: Vec<u8>,
    datagrams: u32,
}

struct Engine<'a> {
    listeners: &'a [Bound],
    attempts: &'a [Attempt],
    nonce: [u8; NONCE],
    poller: Poller,
    accepted: Vec<Accepted>,
    clients: Vec<Option<Client>>,
    seen: Vec<Option<Observation>>,
    under_way: Vec<usize>,
    done: usize,
}

impl Engine<'_> {
    fn run(
        &mut self,
        limits: Limits,
        open: &mut dyn FnMut(usize) -> io::Result<Socket>,
        progress: &mut dyn FnMut(usize),
    ) -> io::Result<()> {
        let mut next = 0;
        let mut ready = Vec::new();
        // A full accept queue drops a SYN, and the next one comes a second later: what would look like a firewall.
        let queues = self.listeners.iter().filter_map(|bound| bound.backlog);
        let queue = queues.min().and_then(|queue| usize::try_from(queue).ok()).unwrap_or(usize::MAX);
        let burst = queue.saturating_add(1);
        loop {
            let mut begun = 0;
            while next < self.attempts.len()
                && begun < burst
                && self.under_way.len() < limits.in_flight
                && Instant::now() < limits.deadline
            {
                if !self.start(next, open) {
                    break;
                }
                next += 1;
                begun += 1;
            }
            progress(self.done);
            let now = Instant::now();
            if self.under_way.is_empty() && (next == self.attempts.len() || now >= limits.deadline) {
                return Ok(());
            }
            let wake = self.under_way.iter().filter_map(|&index| self.wake(index)).min();
            let wait = wake.unwrap_or(now).saturating_duration_since(now).min(Duration::from_millis(100));
            let more =
                begun == burst && next < self.attempts.len() && self.under_way.len() < limits.in_flight;
            let wait = if more { Duration::ZERO } else { wait };
            self.poller.wait(&mut ready, Some(wait))?;
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

    /// Begins an attempt; false when the system has no descriptor left for it now.
    fn start(&mut self, index: usize, open: &mut dyn FnMut(usize) -> io::Result<Socket>) -> bool {
        let attempt = self.attempts[index];
        let started = Instant::now();
        let begun = open(index).and_then(|socket| {
            socket.set_nonblocking(true)?;
            if attempt.protocol == Protocol::Tcp {
                socket.set_linger(Some(Duration::ZERO))?;
            }
            let connected = match socket.connect(&SockAddr::from(attempt.to)) {
                Ok(()) => true,
                Err(error) if sys::errno_of(&error) == Errno::EINPROGRESS => false,
                Err(error) => return Err(error),
            };
            let interest = if connected { Interest::Read } else { Interest::Write };
            self.poller.add(&socket, key(self.listeners.len() + index), interest)?;
            let until = started + attempt.patience;
            Ok(Client { socket, started, until, connected, greeting: Vec::new(), datagrams: 0 })
        });
        match begun {
            Ok(client) => {
                self.clients[index] = Some(client);
                self.under_way.push(index);
                if attempt.protocol == Protocol::Udp {
                    if self.clients[index].as_ref().is_some_and(|client| meets_itself(&client.socket)) {
                        self.fail(index, Errno::ECONNREFUSED, started);
                    } else {
                        self.send(index);
                    }
                }
                true
            }
            Err(error)
                if matches!(sys::errno_of(&error), Errno::EMFILE | Errno::ENFILE)
                    && !self.under_way.is_empty() =>
            {
                false
            }
            Err(error) => {
                self.fail(index, sys::errno_of(&error), started);
                true
            }
        }
    }

    /// When an attempt wants to be looked at again.
    fn wake(&self, index: usize) -> Option<Instant> {
        let client = self.clients[index].as_ref()?;
        let again = client.started + self.attempts[index].patience / DATAGRAMS * client.datagrams;
        let resend = self.attempts[index].protocol == Protocol::Udp && client.datagrams < DATAGRAMS;
        Some(if resend { again.min(client.until) } else { client.until })
    }

    fn send(&mut self, index: usize) {
        let Some(client) = &mut self.clients[index] else { return };
        client.datagrams += 1;
        let mut message = self.nonce.to_vec();
        message.extend_from_slice(&key(index).to_be_bytes());
        if let Err(error) = client.socket.send(&message) {
            let errno = sys::errno_of(&error);
            if errno != Errno::EAGAIN && errno != Errno::ENOBUFS {
                let started = client.started;
                self.fail(index, errno, started);
            }
        }
    }

    /// Takes every connection that waits at a listener, and greets it.
    fn accept(&mut self, taker: usize) {
        let listener = &self.listeners[taker].socket;
        while let Ok((mut socket, peer)) = options::accept(listener) {
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

    /// Takes every datagram that waits at a UDP socket of ours.
    fn receive(&mut self, taker: usize) {
        let mut buffer = [0; GREETING + 1];
        while let Ok(datagram) = packet_info::receive(&self.listeners[taker].socket, &mut buffer) {
            let Some(number) = self.number(buffer.get(..datagram.length).unwrap_or_default()) else {
                continue;
            };
            if let Some(client) = self.clients.get(number).and_then(Option::as_ref) {
                let inet6 = self.listeners[taker].spec.domain() == Family::Ipv6;
                let observation = Observation {
                    outcome: Outcome::Accepted,
                    taker: Some(taker),
                    ingress: datagram.ingress,
                    local: datagram
                        .local
                        .map(|ip| SocketAddr::new(ip.to_canonical(), self.attempts[number].to.port())),
                    peer: Some(canonical(datagram.peer)),
                    v4_mapped: inet6 && datagram.peer.ip().to_canonical().is_ipv4(),
                    errno: None,
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

    /// Goes on with an attempt whose socket is ready.
    fn advance(&mut self, index: usize) {
        let Some(client) = &mut self.clients[index] else { return };
        let started = client.started;
        match client.socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return self.fail(index, sys::errno_of(&error), started),
        }
        if self.attempts[index].protocol == Protocol::Udp {
            return;
        }
        if !client.connected {
            if client.socket.peer_addr().is_err() {
                return;
            }
            client.connected = true;
            if meets_itself(&client.socket) {
                return self.fail(index, Errno::ECONNREFUSED, started);
            }
            let socket_key = key(self.listeners.len() + index);
            if let Err(error) = self.poller.change(&client.socket, socket_key, Interest::Read) {
                return self.fail(index, sys::errno_of(&error), started);
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
            // A server that resets at once is a server.
            Err(_) => self.stranger(index),
        }
    }

    fn greeted(&mut self, index: usize) {
        let number = self.clients[index].as_ref().and_then(|client| self.number(&client.greeting));
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
            took: Duration::ZERO,
        };
        let socket = accepted.socket.take();
        // A word in return, so that packets with data go this way too. Now it is known that it goes to none but us.
        if let Some(client) = &self.clients[index] {
            let _ = client.socket.send(&self.nonce);
        }
        let took = self.clients[index].as_ref().map_or(Duration::ZERO, |client| client.started.elapsed());
        self.finish(index, Observation { took, ..observation });
        // Closed after the client has reset the connection.
        drop(socket);
    }

    /// Somebody accepted, but not one of ours.
    fn stranger(&mut self, index: usize) {
        let Some(client) = &self.clients[index] else { return };
        let observation = Observation {
            outcome: Outcome::Accepted,
            took: client.started.elapsed(),
            ..nothing(Outcome::Accepted)
        };
        self.finish(index, observation);
    }

    fn fail(&mut self, index: usize, errno: Errno, started: Instant) {
        let observation =
            Observation { errno: Some(errno), took: started.elapsed(), ..nothing(outcome_of(errno)) };
        self.finish(index, observation);
    }

    /// Ends what has waited long enough, and sends datagrams again.
    fn expire(&mut self, deadline: Instant) {
        let now = Instant::now();
        for index in self.under_way.clone() {
            let Some(client) = &self.clients[index] else { continue };
            if now < client.until && now < deadline {
                if self.wake(index).is_some_and(|wake| wake <= now) {
                    self.send(index);
                }
                continue;
            }
            if client.connected && self.attempts[index].protocol == Protocol::Tcp {
                // Connected, and nobody of ours has spoken.
                self.stranger(index);
            } else {
                let took = client.started.elapsed();
                self.finish(index, Observation { took, ..nothing(Outcome::Timeout) });
            }
        }
    }

    fn finish(&mut self, index: usize, observation: Observation) {
        if let Some(client) = self.clients[index].take() {
            let _ = self.poller.remove(&client.socket);
        }
        self.under_way.retain(|&other| other != index);
        self.seen[index] = Some(observation);
        self.done += 1;
    }
}

fn nothing(outcome: Outcome) -> Observation {
    Observation {
        outcome,
        taker: None,
        ingress: None,
        local: None,
        peer: None,
        v4_mapped: false,
        errno: None,
        took: Duration::ZERO,
    }
}

/// Whether a client whose port the kernel chose equal to its target is connected to itself (RFC 9293, 3.5: simultaneous open).
/// The peer is asked for, because `0.0.0.0` and `::` become the loopback address on the way.
fn meets_itself(socket: &Socket) -> bool {
    match (socket.local_addr(), socket.peer_addr()) {
        (Ok(own), Ok(peer)) => own.as_socket().is_some_and(|own| Some(own) == peer.as_socket()),
        _ => false,
    }
}

fn is_mapped(address: IpAddr) -> bool {
    address.is_ipv6() && address.to_canonical().is_ipv4()
}

/// With a v4-mapped address as the IPv4 one.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(IpAddr::V4(v4), address.port()),
        IpAddr::V6(_) => address,
    }
}
