//! The network interface on which an accepted TCP connection, or a datagram, arrived.
//!
//! ```
//! use std::net::{TcpListener, TcpStream};
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let _client = TcpStream::connect(listener.local_addr()?)?;
//! let (stream, _peer) = listener.accept()?;
//! let ingress = ingress_interface::of(&stream)?.expect("Linux records the interface");
//! assert_eq!(ingress.to_string(), "lo (kernel)");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! The local address of a connection does not answer the question. Linux uses the weak host model (RFC 1122, section 3.3.4.2): a
//! packet to an address of `eth0` is accepted on `eth1` too. A server that is bound to an internal address can therefore receive
//! connections from the internet, and `getsockname` shows the internal address for them.
//!
//! # How the interface is known
//!
//! [`Ingress::evidence`] says how. Base a decision about access on [`Evidence::is_observed`] only.
//!
//! | Evidence | Source | Systems |
//! |---|---|---|
//! | [`Evidence::Kernel`] | `getsockopt` with `IP_PKTOPTIONS` or `IPV6_2292PKTOPTIONS`; `IP_PKTINFO` of a datagram | Linux |
//! | [`Evidence::ScopeId`] | the scope id of a link-local address | Unix |
//! | [`Evidence::Address`] | the only interface that has the local address: an inference, wrong for weak-host arrivals | Unix |
//!
//! ip(7) documents `IP_PKTINFO` for datagrams only, and `recvmsg` never returns it for TCP. `getsockopt` does: the kernel records the
//! interface in the accepted socket whether or not an option is set, and the option permits reading it.
//!
//! # What the kernel records
//!
//! - IPv4: the interface of the packet that completed the handshake (the final ACK). The value never changes.
//! - IPv6: the interface of the SYN if [`record`] was called on the listener before the connection, else that of the final ACK.
//!   Later data overwrites the value, so call [`of`] directly after `accept`.
//! - A connection from this host to one of its own addresses: the interface that has the address, although the packets cross `lo`.
//!   Compare the peer address with the addresses of the host to find these connections.
//! - A bridge: the bridge, not its port. A VRF: the VRF device over IPv4, its member interface over IPv6.
//! - An MPTCP connection: nothing. [`of`] then infers the interface from the address.
#![deny(missing_docs)]

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

mod decision;
pub mod kernel;
mod name;
mod sys;

pub use decision::strongest_evidence;
pub use name::InterfaceName;
pub use sys::AsSocket;

/// How the interface of a connection or datagram is known, from strong to weak.
///
/// ```
/// use ingress_interface::Evidence;
/// assert!(Evidence::Kernel.is_observed());
/// assert!(!Evidence::Address.is_observed(), "an inference from the local address");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// The kernel recorded the interface for this connection or datagram.
    Kernel,
    /// The peer or local address is link-local, and its scope id is the interface.
    ScopeId,
    /// One interface of this host has the local address. The packets may have arrived on another interface.
    Address,
}

impl Evidence {
    /// Whether the interface is a fact about the packets, not an inference from the local address.
    ///
    /// ```
    /// assert!(ingress_interface::Evidence::ScopeId.is_observed());
    /// ```
    #[must_use]
    pub const fn is_observed(self) -> bool {
        !matches!(self, Evidence::Address)
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Evidence::Kernel => "kernel",
            Evidence::ScopeId => "scope id",
            Evidence::Address => "address",
        })
    }
}

/// The interface on which a connection or datagram arrived.
///
/// ```
/// # use std::net::{TcpListener, TcpStream};
/// # let listener = TcpListener::bind("127.0.0.1:0")?;
/// # let _client = TcpStream::connect(listener.local_addr()?)?;
/// # let (stream, _peer) = listener.accept()?;
/// let ingress = ingress_interface::of(&stream)?.expect("Linux records the interface");
/// assert_eq!(ingress.index, 1, "lo is the first interface of every network namespace");
/// assert!(ingress.name.is_some_and(|name| name == "lo"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Ingress {
    /// Index of the interface in the network namespace of the socket.
    pub index: u32,
    /// Name of the interface, read after the arrival. `None` if the interface was removed in the meantime.
    pub name: Option<InterfaceName>,
    /// How the interface is known.
    pub evidence: Evidence,
}

impl fmt::Display for Ingress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => write!(f, "{name} ({})", self.evidence),
            None => write!(f, "interface {} ({})", self.index, self.evidence),
        }
    }
}

/// Lets the kernel report the ingress interface. Call this function on a listener before `listen`, or on a datagram socket before
/// `bind`.
///
/// Datagrams need this call: the interface of datagrams that arrive before the call is lost. For connections the call is optional.
/// It saves one system call per connection, and gives the interface of the SYN on IPv6.
///
/// A standard library listener is in the listen state when `TcpListener::bind` returns. Calling this function then is correct, also
/// for connections that are completed already: [`of`] sets the option on the accepted socket if it is missing.
///
/// # Errors
/// [`Unsupported`](io::ErrorKind::Unsupported) if the system or the protocol (MPTCP) does not record the interface. [`of`] works for
/// such connections, with weaker evidence. Otherwise as `setsockopt(2)`.
///
/// ```
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// match ingress_interface::record(&listener) {
///     Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {}
///     result => result?,
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn record(socket: &impl AsSocket) -> io::Result<()> {
    let ipv6 = sys::local_addr(socket)?.is_ipv6();
    kernel::record(socket, ipv6).map_err(|error| {
        if sys::is_not_supported(&error) {
            io::Error::new(io::ErrorKind::Unsupported, format!("record the ingress interface: {error}"))
        } else {
            error
        }
    })
}

/// The interface on which an accepted TCP connection arrived. Call this function directly after `accept`.
///
/// Any socket type that has a descriptor works: `TcpStream` of the standard library, tokio or async-io, `socket2::Socket`, an
/// `OwnedFd`. The calling thread may be in another network namespace than the socket.
///
/// `None` means that the interface is unknown: the kernel did not record it, no address is link-local, and the local address belongs
/// to no interface, to several, or to another network namespace.
///
/// # Errors
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if the socket is not a TCP socket; `ENOTCONN` if it is not connected;
/// [`Unsupported`](io::ErrorKind::Unsupported) on Windows; otherwise as `getsockopt(2)`.
///
/// ```
/// use std::net::{TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// ingress_interface::record(&listener)?;
/// let _client = TcpStream::connect(listener.local_addr()?)?;
/// let (stream, _peer) = listener.accept()?;
/// match ingress_interface::of(&stream)? {
///     Some(ingress) if ingress.evidence.is_observed() => println!("arrived on {ingress}"),
///     Some(ingress) => println!("probably arrived on {ingress}"),
///     None => println!("the interface is unknown"),
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn of(stream: &impl AsSocket) -> io::Result<Option<Ingress>> {
    let local = sys::local_addr(stream)?;
    let native_ipv6 = matches!(local, SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none());
    if let Some(recorded) = kernel::recorded(stream, native_ipv6)? {
        return Ok(Some(ingress(stream, recorded.index, Evidence::Kernel)));
    }
    if !sys::is_stream(stream)? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a TCP socket; recv_with_ingress gives the interface of a datagram",
        ));
    }
    Ok(infer(stream, None, Some(local), sys::peer_addr(stream)?))
}

/// One received datagram, without its bytes.
///
/// ```
/// use std::net::UdpSocket;
///
/// let socket = UdpSocket::bind("0.0.0.0:0")?;
/// ingress_interface::record(&socket)?;
/// UdpSocket::bind("127.0.0.1:0")?.send_to(b"hello", ("127.0.0.1", socket.local_addr()?.port()))?;
/// let mut buffer = [0; 3];
/// let datagram = ingress_interface::recv_with_ingress(&socket, &mut buffer)?;
/// assert_eq!((datagram.length, datagram.is_truncated(&buffer)), (5, true));
/// assert_eq!(datagram.destination, Some([127, 0, 0, 1].into()));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Datagram {
    /// Length of the datagram in bytes, which can exceed that of the buffer.
    pub length: usize,
    /// The sender. On an IPv6 socket an IPv4 sender is v4-mapped.
    pub peer: SocketAddr,
    /// Destination address of the datagram, which can be a multicast or broadcast address. An IPv4 address is never v4-mapped.
    /// `None` if [`record`] was not called before the datagram arrived.
    pub destination: Option<IpAddr>,
    /// The local address that an answer must come from ([`send_from`]).
    pub reply_from: Option<IpAddr>,
    /// The interface on which the datagram arrived.
    pub ingress: Option<Ingress>,
}

impl Datagram {
    /// Whether the datagram is longer than the buffer it was received in.
    ///
    /// ```
    /// # use std::net::UdpSocket;
    /// # let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// # UdpSocket::bind("127.0.0.1:0")?.send_to(b"hello", socket.local_addr()?)?;
    /// let mut buffer = [0; 100];
    /// let datagram = ingress_interface::recv_with_ingress(&socket, &mut buffer)?;
    /// assert!(!datagram.is_truncated(&buffer));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn is_truncated(&self, buffer: &[u8]) -> bool {
        self.length > buffer.len()
    }
}

/// Receives one datagram, with its destination address and the interface on which it arrived. Waits for a datagram if the socket is
/// in blocking mode. Call [`record`] before `bind`, or at least before the first datagram arrives.
///
/// # Errors
/// As `recvmsg(2)`; [`WouldBlock`](io::ErrorKind::WouldBlock) if no datagram waits and the socket is in non-blocking mode;
/// [`Unsupported`](io::ErrorKind::Unsupported) on systems other than Linux.
///
/// ```
/// use std::net::UdpSocket;
///
/// let socket = UdpSocket::bind("0.0.0.0:0")?;
/// ingress_interface::record(&socket)?;
/// UdpSocket::bind("127.0.0.1:0")?.send_to(b"hello", ("127.0.0.1", socket.local_addr()?.port()))?;
/// let mut buffer = [0; 2048];
/// let datagram = ingress_interface::recv_with_ingress(&socket, &mut buffer)?;
/// assert_eq!(datagram.ingress.expect("recorded").to_string(), "lo (kernel)");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn recv_with_ingress(socket: &impl AsSocket, buffer: &mut [u8]) -> io::Result<Datagram> {
    let received = sys::receive(socket, buffer, true)?;
    let destination = received.destination.map(|address| SocketAddr::new(address, 0));
    Ok(Datagram {
        length: received.length,
        peer: received.peer,
        destination: received.destination,
        reply_from: received.reply_from,
        ingress: infer(socket, received.index, destination, received.peer),
    })
}

/// Sends one datagram to `peer`, from the local address `from` if one is given. A client ignores an answer that comes from another
/// address than the one it sent to; a socket bound to a wildcard address must therefore choose the source of its answers.
///
/// # Errors
/// As `sendmsg(2)`; [`Unsupported`](io::ErrorKind::Unsupported) on systems other than Linux.
///
/// ```
/// use std::net::UdpSocket;
///
/// let (server, client) = (UdpSocket::bind("0.0.0.0:0")?, UdpSocket::bind("127.0.0.1:0")?);
/// ingress_interface::record(&server)?;
/// client.send_to(b"ping", ("127.0.0.9", server.local_addr()?.port()))?;
/// let datagram = ingress_interface::recv_with_ingress(&server, &mut [0; 2048])?;
/// ingress_interface::send_from(&server, b"pong", datagram.peer, datagram.reply_from)?;
/// let (_length, from) = client.recv_from(&mut [0; 2048])?;
/// assert_eq!(from.ip().to_string(), "127.0.0.9", "and not 127.0.0.1");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn send_from(
    socket: &impl AsSocket,
    bytes: &[u8],
    peer: SocketAddr,
    from: Option<IpAddr>,
) -> io::Result<usize> {
    sys::send(socket, bytes, peer, from, true)
}

fn infer(
    socket: &impl AsSocket,
    kernel: Option<u32>,
    local: Option<SocketAddr>,
    peer: SocketAddr,
) -> Option<Ingress> {
    let owner = |address| sys::owner(socket, address);
    let (index, evidence) = strongest_evidence(kernel, local, peer, owner)?;
    Some(ingress(socket, index, evidence))
}

fn ingress(socket: &impl AsSocket, index: u32, evidence: Evidence) -> Ingress {
    Ingress { index, name: sys::interface_name(socket, index), evidence }
}
