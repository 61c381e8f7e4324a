//! Connection attempts and their results.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::model::addr::{is_mapped, socket_addr};
use crate::model::{Answer, Errno, Outcome, Protocol};
use crate::sys;

/// One connection attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Destination; its variant decides the family of the client's socket.
    pub to: SocketAddr,
    /// Timeout.
    pub patience: Duration,
}

/// The attempts of a run, produced one at a time because a port scan has many.
#[derive(Clone, Copy)]
pub struct Attempts<'a> {
    /// Number of attempts.
    pub count: usize,
    /// The attempt with an index below that number.
    pub of: &'a dyn Fn(usize) -> Attempt,
}

/// Result of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Outcome.
    pub outcome: Outcome,
    /// Index of our socket that accepted it; `None` if another program's socket did, or none.
    pub taker: Option<usize>,
    /// Index of the ingress interface, as reported by the kernel.
    pub ingress: Option<u32>,
    /// The destination address, as our socket reports it.
    pub local: Option<SocketAddr>,
    /// The client's address and port, as our socket reports them.
    pub peer: Option<SocketAddr>,
    /// Whether IPv4 arrived at an AF_INET6 socket.
    pub v4_mapped: bool,
    /// The errno.
    pub errno: Option<Errno>,
    /// What the client received in place of a connection.
    pub answer: Option<Answer>,
    /// The client's address and port, where [`Limits::ends`] asks for them.
    pub client: Option<SocketAddr>,
    /// Time from the start of the attempt until the connection was established, the datagram was received, or the
    /// attempt failed. Excludes what the server sends or waits for afterwards.
    pub took: Duration,
}

impl Observation {
    /// An observation of which nothing but the outcome is known.
    pub(super) fn of(outcome: Outcome) -> Observation {
        Observation {
            outcome,
            taker: None,
            ingress: None,
            local: None,
            peer: None,
            v4_mapped: false,
            errno: None,
            answer: None,
            client: None,
            took: Duration::ZERO,
        }
    }
}

/// Limits of a run.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of connections in flight.
    pub in_flight: usize,
    /// End of the run; later attempts are not made.
    pub deadline: Instant,
    /// Whether the client's end of each attempt is observed, by which a trace finds its packets.
    pub ends: bool,
}

/// The client's socket of an attempt; bound to `source` if one is given, with the zone of a link-local address.
///
/// # Errors
/// Those of socket(2) and bind(2).
pub fn client(attempt: &Attempt, source: Option<(IpAddr, u32)>) -> io::Result<Socket> {
    let kind = if attempt.protocol == Protocol::Tcp { Type::STREAM } else { Type::DGRAM };
    let socket = Socket::new(Domain::for_address(attempt.to), kind, None)?;
    sys::report_icmp(&socket, attempt.to.is_ipv6());
    // A client that connects to IPv4 through this socket needs v6only off, whatever `bindv6only` sets.
    if is_mapped(attempt.to.ip()) {
        socket.set_only_v6(false)?;
    }
    if let Some((address, zone)) = source {
        let address = match (address, attempt.to) {
            (IpAddr::V4(v4), SocketAddr::V6(_)) => v4.to_ipv6_mapped().into(),
            _ => address,
        };
        socket.bind(&SockAddr::from(socket_addr(address, 0, zone)))?;
    }
    Ok(socket)
}

/// Why this number of connections was not made, as a sentence.
#[must_use]
pub fn why_unseen(count: usize) -> String {
    let noun = if count == 1 { "connection was" } else { "connections were" };
    format!("{count} {noun} not made: the deadline came first, or there were too few descriptors (ulimit -n)")
}
