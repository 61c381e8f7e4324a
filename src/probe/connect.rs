//! The engine: many connections at once, a bounded number in flight, each with its own patience.
//!
//! How one knows which socket answered: on TCP our listener is the one that speaks. It sends the run's nonce and the number of the
//! accepted connection, so nothing is ever sent to a server that is not ours, and a stranger's banner proves itself strange. On
//! UDP the client sends the nonce and its own number, and our socket that receives it is the answer.
//!
//! The client closes with a reset, so that no TIME_WAIT is left on the ports of listeners.

use std::cmp::Reverse;
use std::collections::hash_map::RandomState;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::classify::outcome_of;
use crate::bind::Bound;
use crate::model::{Errno, Family, Outcome, Protocol};
use crate::sys::{self, Connecting, Interest, Poller, options, packet_info};

/// Bytes of a nonce, and of a greeting: the nonce and a number.
const NONCE: usize = 16;
const GREETING: usize = NONCE + 8;

/// How often a datagram is sent before silence counts.
const DATAGRAMS: u32 = 3;

/// How often an attempt whose socket met itself is made again.
const TRIALS: u32 = 3;

/// After how many refusals a socket gets a port for good: choosing one takes the kernel a fifth of the time of a refusal.
const REFUSALS: u32 = 16;

/// With more than so many under way, those that are answered go before new ones: they would wait too long for their turn.
const CROWD: usize = 256;

/// How many attempts that are over at once are made before those under way are looked after.
const QUICK: usize = 256;

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
    /// From the start of the attempt until the connection was there, the datagram was received, or neither came of it. What a server
    /// says or waits for afterwards is not of it.
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
    let mut seen = vec![None; attempts.len()];
    let mut tell = |index: usize, observation| seen[index] = Some(observation);
    Engine::new(listeners, attempts, &|_| false, &mut tell)?.run(limits, open, progress)?;
    Ok(seen)
}

/// As [`run`], with clients in the namespace of this thread. `source` is what the client of an attempt binds first, with its zone;
/// those that bind nothing share a socket as long as they are refused, which saves making one for each port of a sweep. `seen` is
/// told of each attempt that was made, by its index.
///
/// # Errors
/// As [`run`].
pub fn run_from_here(
    listeners: &[Bound],
    attempts: &[Attempt],
    limits: Limits,
    source: &dyn Fn(usize) -> Option<(IpAddr, u32)>,
    seen: &mut dyn FnMut(usize, Observation),
    progress: &mut dyn FnMut(usize),
) -> io::Result<()> {
    let plain = |index: usize| {
        let attempt = attempts[index];
        // A zone stays with the socket.
        let zone = matches!(attempt.to, SocketAddr::V6(v6) if v6.scope_id() != 0);
        attempt.protocol == Protocol::Tcp && !zone && !is_mapped(attempt.to.ip()) && source(index).is_none()
    };
    let mut open = |index: usize| client(&attempts[index], source(index));
    Engine::new(listeners, attempts, &plain, seen)?.run(limits, &mut open, progress)
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
    /// How long it took to connect, once it is.
    connected: Option<Duration>,
    greeting: Vec<u8>,
    datagrams: u32,
}

struct Engine<'a> {
    listeners: &'a [Bound],
    attempts: &'a [Attempt],
    /// Whether an attempt may use the socket of another one of its family.
    plain: &'a dyn Fn(usize) -> bool,
    nonce: [u8; NONCE],
    poller: Poller,
    accepted: Vec<Accepted>,
    clients: HashMap<usize, Client>,
    /// When to look at a client again; entries of those that are gone stay until they are due.
    wakes: BinaryHeap<Reverse<(Instant, usize)>>,
    /// A socket that was refused and can connect again: of AF_INET, and of AF_INET6.
    spare: [Option<Spare>; 2],
    seen: &'a mut dyn FnMut(usize, Observation),
    done: usize,
    /// Whether a descriptor was missing to take a connection of ours: then silence is no sign of another program.
    starved: bool,
}

/// A socket that nobody has answered yet.
struct Spare {
    socket: Socket,
    refusals: u32,
    /// The port that it keeps.
    port: Option<u16>,
}

impl Spare {
    /// After one more refusal. A port is looked for with another socket, since one that the kernel chooses is not kept.
    fn refused(mut self, ipv6: bool) -> Spare {
        self.refusals += 1;
        if self.refusals == REFUSALS {
            let any =
                if ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
            let bind = |socket: &Socket, port: u16| -> io::Result<u16> {
                if ipv6 {
                    socket.set_only_v6(true)?;
                }
                socket.bind(&SockAddr::from(SocketAddr::new(any, port)))?;
                Ok(socket.local_addr()?.as_socket().map_or(0, |own| own.port()))
            };
            let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
            let free = Socket::new(domain, Type::STREAM, None).and_then(|other| bind(&other, 0));
            // Without one it goes on as before.
            self.port = free.and_then(|port| bind(&self.socket, port)).ok();
        }
        self
    }
}

/// What became of beginning an attempt.
enum Begun {
    UnderWay,
    Over,
    /// The system has no descriptor left for it now.
    NotNow,
}

impl<'a> Engine<'a> {
    fn new(
        listeners: &'a [Bound],
        attempts: &'a [Attempt],
        plain: &'a dyn Fn(usize) -> bool,
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
            spare: [None, None],
            seen,
            done: 0,
            starved: false,
        })
    }

    fn run(
        mut self,
        limits: Limits,
        open: &mut dyn FnMut(usize) -> io::Result<Socket>,
        progress: &mut dyn FnMut(usize),
    ) -> io::Result<()> {
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
        // A full accept queue drops a SYN, and the next one comes a second later: what would look like a firewall.
        let queues = self.listeners.iter().filter_map(|bound| bound.backlog);
        let queue = queues.min().and_then(|queue| usize::try_from(queue).ok()).unwrap_or(usize::MAX);
        let burst = queue.saturating_add(1).min(CROWD);
        loop {
            let (mut begun, mut over, mut room) = (0, 0, true);
            let crowd = !ready.is_empty() && self.clients.len() >= CROWD;
            while !crowd && room && next < self.attempts.len() && begun < burst && over < QUICK {
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
            let more = room && next < self.attempts.len();
            if self.clients.is_empty() {
                if more {
                    continue;
                }
                if next == self.attempts.len() || now >= limits.deadline {
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

    /// Begins an attempt.
    fn start(
        &mut self,
        index: usize,
        started: Instant,
        open: &mut dyn FnMut(usize) -> io::Result<Socket>,
    ) -> Begun {
        let attempt = self.attempts[index];
        let begun = self.connect(index, &attempt, open).and_then(|(socket, connected)| {
            let interest = if connected { Interest::Read } else { Interest::Write };
            let added = self.poller.add(&socket, key(self.listeners.len() + index), interest);
            added.map_err(|error| sys::errno_of(&error))?;
            let until = started + attempt.patience;
            let connected = connected.then(|| started.elapsed());
            Ok(Client { socket, started, until, connected, greeting: Vec::new(), datagrams: 0 })
        });
        match begun {
            Ok(client) => {
                let itself = attempt.protocol == Protocol::Udp && meets_itself(&client.socket);
                self.clients.insert(index, client);
                if itself {
                    self.fail(index, Errno::ECONNREFUSED, started);
                    return Begun::Over;
                }
                if attempt.protocol == Protocol::Udp {
                    self.send(index);
                }
                self.wakes.extend(self.wake(index).map(|wake| Reverse((wake, index))));
                Begun::UnderWay
            }
            Err(errno) if is_starved(errno) && !self.clients.is_empty() => Begun::NotNow,
            Err(errno) if is_starved(errno) => {
                self.starved = true;
                self.end(index);
                Begun::Over
            }
            Err(errno) => {
                self.fail(index, errno, started);
                Begun::Over
            }
        }
    }

    /// A client's socket that connects, and whether it is connected already. One that meets itself tries again: a port that the
    /// kernel chose says nothing of the one that was asked for.
    fn connect(
        &mut self,
        index: usize,
        attempt: &Attempt,
        open: &mut dyn FnMut(usize) -> io::Result<Socket>,
    ) -> Result<(Socket, bool), Errno> {
        let to = SockAddr::from(attempt.to);
        let side = usize::from(attempt.to.is_ipv6());
        let plain = (self.plain)(index);
        for _ in 0..TRIALS {
            let spare = self.spare[side].take_if(|spare| plain && spare.port != Some(attempt.to.port()));
            let spare = match spare {
                Some(spare) => spare,
                None => {
                    let socket = opened(index, attempt, open).map_err(|error| sys::errno_of(&error))?;
                    Spare { socket, refusals: 0, port: None }
                }
            };
            let errno = match options::connect_now(&spare.socket, &to) {
                Ok(Connecting::Pending) => return Ok((spare.socket, false)),
                Ok(Connecting::Done) if attempt.protocol == Protocol::Tcp && meets_itself(&spare.socket) => {
                    continue;
                }
                Ok(Connecting::Done) => return Ok((spare.socket, true)),
                Err(error) => sys::errno_of(&error),
            };
            if errno == Errno::EADDRNOTAVAIL && spare.port.is_some() {
                // Its port is in use towards this destination.
                continue;
            }
            if plain && options::REFUSED_SOCKETS_CONNECT_AGAIN && self.spare[side].is_none() {
                self.spare[side] = Some(spare.refused(side == 1));
            }
            return Err(errno);
        }
        Err(Errno::ECONNREFUSED)
    }

    /// When an attempt wants to be looked at again.
    fn wake(&self, index: usize) -> Option<Instant> {
        let client = self.clients.get(&index)?;
        let again = client.started + self.attempts[index].patience / DATAGRAMS * client.datagrams;
        let resend = self.attempts[index].protocol == Protocol::Udp && client.datagrams < DATAGRAMS;
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
                let started = client.started;
                self.fail(index, errno, started);
            }
        }
    }

    /// Takes every connection that waits at a listener, and greets it.
    fn accept(&mut self, taker: usize) {
        let listener = &self.listeners[taker].socket;
        loop {
            let (mut socket, peer) = match options::accept(listener) {
                Ok(taken) => taken,
                Err(error) => {
                    self.starved |= is_starved(sys::errno_of(&error));
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

    /// Takes every datagram that waits at a UDP socket of ours.
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
        let Some(client) = self.clients.get_mut(&index) else { return };
        let started = client.started;
        match client.socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return self.fail(index, sys::errno_of(&error), started),
        }
        if self.attempts[index].protocol == Protocol::Udp {
            return;
        }
        if client.connected.is_none() {
            if client.socket.peer_addr().is_err() {
                return;
            }
            client.connected = Some(started.elapsed());
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
            took: self.clients.get(&index).and_then(|client| client.connected).unwrap_or_default(),
        };
        let socket = accepted.socket.take();
        // A word in return, so that packets with data go this way too. Now it is known that it goes to none but us.
        if let Some(client) = self.clients.get(&index) {
            let _ = client.socket.send(&self.nonce);
        }
        self.finish(index, observation);
        // Closed after the client has reset the connection.
        drop(socket);
    }

    /// Somebody accepted, but not one of ours.
    fn stranger(&mut self, index: usize) {
        let Some(client) = self.clients.get(&index) else { return };
        let took = client.connected.unwrap_or_else(|| client.started.elapsed());
        self.finish(index, Observation { took, ..nothing(Outcome::Accepted) });
    }

    fn fail(&mut self, index: usize, errno: Errno, started: Instant) {
        // A reset in answer to the SYN is ECONNREFUSED (`tcp_reset()` of `net/ipv4/tcp_input.c`): this one came from who had accepted.
        if errno == Errno::ECONNRESET && self.attempts[index].protocol == Protocol::Tcp {
            return self.finish(index, Observation { took: started.elapsed(), ..nothing(Outcome::Accepted) });
        }
        let observation =
            Observation { errno: Some(errno), took: started.elapsed(), ..nothing(outcome_of(errno)) };
        self.finish(index, observation);
    }

    /// Ends what has waited long enough, and sends datagrams again.
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
            if now < client.until || self.starved && client.connected.is_some() {
                // Cut short by the end of all, or nobody could be taken for want of descriptors.
                self.end(index);
            } else if client.connected.is_some() && self.attempts[index].protocol == Protocol::Tcp {
                // Connected, and nobody of ours has spoken.
                self.stranger(index);
            } else {
                let took = client.started.elapsed();
                self.finish(index, Observation { took, ..nothing(Outcome::Timeout) });
            }
        }
    }

    /// Ends an attempt. Unless [`Engine::finish`] tells it, what came of it was not seen.
    fn end(&mut self, index: usize) {
        if let Some(client) = self.clients.remove(&index) {
            let _ = self.poller.remove(&client.socket);
        }
        self.done += 1;
    }

    fn finish(&mut self, index: usize, observation: Observation) {
        self.end(index);
        (self.seen)(index, observation);
    }
}

/// A client's socket that does not block, and resets its connection when it is closed.
fn opened(
    index: usize,
    attempt: &Attempt,
    open: &mut dyn FnMut(usize) -> io::Result<Socket>,
) -> io::Result<Socket> {
    let socket = open(index)?;
    socket.set_nonblocking(true)?;
    if attempt.protocol == Protocol::Tcp {
        socket.set_linger(Some(Duration::ZERO))?;
    }
    Ok(socket)
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

/// Why so many connections were not made, as a sentence.
#[must_use]
pub fn why_unseen(count: usize) -> String {
    let noun = if count == 1 { "connection was" } else { "connections were" };
    format!("{count} {noun} not made: the deadline came first, or there were too few descriptors (ulimit -n)")
}

/// Whether what is missing is a descriptor.
fn is_starved(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE)
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
