//! Reuse of sockets that were refused, so that a port scan does not create one per port.
//!
//! Each socket also keeps a port, and towards one destination its address. Choosing them again takes the kernel a fifth
//! of the time of a refusal: the port search, one route lookup for the source and another with it, and moving the
//! socket between the lists of its port and address (`tcp_v4_connect()` of `net/ipv4/tcp_ipv4.c`,
//! `inet_bhash2_update_saddr()`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, SockAddr, Socket, Type};

/// Number of refusals after which a socket keeps its port.
const REFUSALS: u32 = 16;

/// A socket without an answer so far.
pub(super) struct Spare {
    pub(super) socket: Socket,
    refusals: u32,
    kept: Option<Kept>,
}

/// The address and port that a socket was bound to.
struct Kept {
    port: u16,
    /// The only destination that the address is used for.
    only: Option<IpAddr>,
}

impl Kept {
    fn is_for(&self, to: SocketAddr) -> bool {
        self.only.is_none_or(|only| only == to.ip())
    }
}

impl Spare {
    pub(super) fn new(socket: Socket) -> Spare {
        Spare { socket, refusals: 0, kept: None }
    }

    pub(super) fn keeps_port(&self) -> bool {
        self.kept.is_some()
    }
}

/// One socket of AF_INET, and one of AF_INET6.
#[derive(Default)]
pub(super) struct Spares([Option<Spare>; 2]);

impl Spares {
    /// The socket that can connect there. A port cannot connect to itself.
    pub(super) fn take(&mut self, to: SocketAddr) -> Option<Spare> {
        let fits = |kept: &Kept| kept.is_for(to) && kept.port != to.port();
        self.0[side(to)].take_if(|spare| spare.kept.as_ref().is_none_or(fits))
    }

    /// Returns a socket that was refused by `to`. `long` says that many more attempts follow.
    pub(super) fn put(&mut self, mut spare: Spare, to: SocketAddr, long: impl FnOnce() -> bool) {
        let place = &mut self.0[side(to)];
        if place.as_ref().and_then(|other| other.kept.as_ref()).is_some_and(|kept| kept.is_for(to)) {
            return;
        }
        spare.refusals += 1;
        if spare.refusals == REFUSALS {
            // Without a port the socket is used as before.
            spare.kept = keep(&spare.socket, to, long()).ok();
        }
        *place = Some(spare);
    }
}

fn side(to: SocketAddr) -> usize {
    usize::from(to.is_ipv6())
}

/// Binds a socket to a free port. If it is used for `to` `only`, also binds the address from which the kernel connects
/// there.
fn keep(socket: &Socket, to: SocketAddr, only: bool) -> io::Result<Kept> {
    let any =
        if to.is_ipv6() { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let address = if only { source_towards(to)? } else { any };
    let bound = |socket: &Socket, own: SocketAddr| -> io::Result<u16> {
        if own.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&SockAddr::from(own))?;
        Ok(socket.local_addr()?.as_socket().map_or(0, |own| own.port()))
    };
    // Another socket searches for the port, because a port chosen by the kernel is not kept.
    let other = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    let free = bound(&other, SocketAddr::new(address, 0))?;
    drop(other);
    let port = bound(socket, SocketAddr::new(address, free))?;
    Ok(Kept { port, only: only.then_some(to.ip()) })
}

/// The address that the kernel chooses for a connection to `to`; a datagram socket reports it without sending a packet.
fn source_towards(to: SocketAddr) -> io::Result<IpAddr> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None)?;
    socket.connect(&SockAddr::from(to))?;
    let own = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(own.ip())
}
