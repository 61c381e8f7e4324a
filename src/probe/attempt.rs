//! Connections to make, and what came of each.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::engine::Engine;
use crate::model::{Errno, Outcome, Protocol};
use crate::serve::bind::Bound;

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

/// The connections of a run, made up one at a time: a sweep has many.
#[derive(Clone, Copy)]
pub struct Attempts<'a> {
    /// How many.
    pub count: usize,
    /// The one with an index below that.
    pub of: &'a dyn Fn(usize) -> Attempt,
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
    let attempts = Attempts { count: attempts.len(), of: &|index| attempts[index] };
    Engine::new(listeners, attempts, &|_, _| false, &mut tell)?.run(limits, open, progress)?;
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
    attempts: Attempts<'_>,
    limits: Limits,
    source: &dyn Fn(usize) -> Option<(IpAddr, u32)>,
    seen: &mut dyn FnMut(usize, Observation),
    progress: &mut dyn FnMut(usize),
) -> io::Result<()> {
    let plain = |index: usize, attempt: &Attempt| {
        // A zone stays with the socket.
        let zone = matches!(attempt.to, SocketAddr::V6(v6) if v6.scope_id() != 0);
        attempt.protocol == Protocol::Tcp && !zone && !is_mapped(attempt.to.ip()) && source(index).is_none()
    };
    let mut open = |index: usize| client(&(attempts.of)(index), source(index));
    Engine::new(listeners, attempts, &plain, seen)?.run(limits, &mut open, progress)
}

/// Why so many connections were not made, as a sentence.
#[must_use]
pub fn why_unseen(count: usize) -> String {
    let noun = if count == 1 { "connection was" } else { "connections were" };
    format!("{count} {noun} not made: the deadline came first, or there were too few descriptors (ulimit -n)")
}

/// Whether it is an IPv4 address in the form of an IPv6 one.
pub(super) fn is_mapped(address: IpAddr) -> bool {
    address.is_ipv6() && address.to_canonical().is_ipv4()
}
