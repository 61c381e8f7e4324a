//! The single system calls behind [`of`](crate::of) and [`recv_with_ingress`](crate::recv_with_ingress), for programs that count
//! system calls or cache names.
//!
//! On systems other than Linux [`recorded`] returns `None`, and the functions that need the kernel's help return
//! [`Unsupported`](io::ErrorKind::Unsupported).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::InterfaceName;
use crate::sys::{self, AsSocket};

/// What the kernel recorded for an accepted TCP connection.
///
/// ```
/// # use std::net::{TcpListener, TcpStream};
/// # let listener = TcpListener::bind("127.0.0.1:0")?;
/// # let _client = TcpStream::connect(listener.local_addr()?)?;
/// # let (stream, _peer) = listener.accept()?;
/// let recorded = ingress_interface::kernel::recorded(&stream, false)?.expect("Linux records it");
/// assert_eq!(recorded.local, Some([127, 0, 0, 1].into()));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recorded {
    /// Index of the interface, never 0.
    pub index: u32,
    /// The local address of an IPv4 connection, as `getsockname(2)` returns it. `None` on IPv6, where the answer of the kernel can
    /// contain another address.
    pub local: Option<Ipv4Addr>,
}

/// One datagram as `recvmsg(2)` returns it, without its bytes and without the name of the interface.
///
/// ```
/// # use std::net::UdpSocket;
/// # let socket = UdpSocket::bind("127.0.0.1:0")?;
/// # ingress_interface::record(&socket)?;
/// # UdpSocket::bind("127.0.0.1:0")?.send_to(b"hello", socket.local_addr()?)?;
/// let received = ingress_interface::kernel::try_receive(&socket, &mut [0; 100])?;
/// assert_eq!((received.length, received.truncated, received.index), (5, false, Some(1)));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Length of the datagram in bytes, which can exceed that of the buffer.
    pub length: usize,
    /// Whether the buffer was too small.
    pub truncated: bool,
    /// The sender.
    pub peer: SocketAddr,
    /// Destination address, which can be a multicast or broadcast address.
    pub destination: Option<IpAddr>,
    /// The local address that an answer must come from.
    pub reply_from: Option<IpAddr>,
    /// Index of the interface on which the datagram arrived.
    pub index: Option<u32>,
    /// Number of datagrams that the socket dropped since it was opened, modulo 2³², because its queue was full. Present if the
    /// program set `SO_RXQ_OVFL` on the socket and the number is not 0.
    pub dropped: Option<u32>,
    /// When the kernel received the datagram, by the wall clock. Present if the program set `SO_TIMESTAMPNS` on the socket.
    pub received_at: Option<std::time::SystemTime>,
}

/// As [`record`](crate::record), with the address family of the socket given by the caller: one system call for IPv4, two for IPv6.
///
/// # Errors
/// As `setsockopt(2)`; `EOPNOTSUPP` on an MPTCP socket; [`Unsupported`](io::ErrorKind::Unsupported) on systems other than Linux.
///
/// ```
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// ingress_interface::kernel::record(&listener, false)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn record(socket: &impl AsSocket, ipv6: bool) -> io::Result<()> {
    // An IPv4 connection to a dual-stack socket needs the IPv4 option.
    sys::set_report(socket, false, true)?;
    if ipv6 { sys::set_report(socket, true, true) } else { Ok(()) }
}

/// What the kernel recorded for an accepted TCP connection: one system call if [`record`] was called on the listener before the
/// connection, else three. `None` if the kernel recorded nothing (MPTCP, a connection that this host opened).
///
/// `native_ipv6` must be true exactly if the addresses of the connection are IPv6 and not v4-mapped. The kernel answers the wrong
/// question with index 0 and an invented address.
///
/// # Errors
/// As `getsockopt(2)` and `setsockopt(2)`.
///
/// ```
/// # use std::net::{TcpListener, TcpStream};
/// # let listener = TcpListener::bind("127.0.0.1:0")?;
/// # let _client = TcpStream::connect(listener.local_addr()?)?;
/// let (stream, peer) = listener.accept()?;
/// let native_ipv6 = peer.ip().to_canonical().is_ipv6();
/// let recorded = ingress_interface::kernel::recorded(&stream, native_ipv6)?;
/// assert_eq!(recorded.map(|recorded| recorded.index), Some(1));
/// # Ok::<(), std::io::Error>(())
/// ```
#[inline]
pub fn recorded(stream: &impl AsSocket, native_ipv6: bool) -> io::Result<Option<Recorded>> {
    let answer = match sys::packet_options(stream, native_ipv6) {
        // The option was set after the connection was completed, or never: set it on the connection.
        Ok(None) => {
            sys::set_report(stream, native_ipv6, true).and_then(|()| sys::packet_options(stream, native_ipv6))
        }
        answer => answer,
    };
    absent_if_not_supported(answer)
}

/// Whether the option is set that permits reading what the kernel recorded. `None` if the socket does not have the option.
///
/// # Errors
/// As `getsockopt(2)`.
///
/// ```
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// assert_eq!(ingress_interface::kernel::reports(&listener, false)?, Some(false));
/// ingress_interface::kernel::record(&listener, false)?;
/// assert_eq!(ingress_interface::kernel::reports(&listener, false)?, Some(true));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn reports(socket: &impl AsSocket, ipv6: bool) -> io::Result<Option<bool>> {
    absent_if_not_supported(sys::report(socket, ipv6).map(Some))
}

/// As [`recorded`], and leaves the socket options as they were: for a connection of another program, taken with
/// `pidfd_getfd(2)`. On IPv6 the kernel reports the interface of the latest data.
///
/// # Errors
/// As `getsockopt(2)` and `setsockopt(2)`.
///
/// ```
/// # use std::net::{TcpListener, TcpStream};
/// # let listener = TcpListener::bind("127.0.0.1:0")?;
/// # let _client = TcpStream::connect(listener.local_addr()?)?;
/// # let (stream, _peer) = listener.accept()?;
/// let recorded = ingress_interface::kernel::recorded_unchanged(&stream, false)?;
/// assert_eq!(recorded.map(|recorded| recorded.index), Some(1));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn recorded_unchanged(stream: &impl AsSocket, native_ipv6: bool) -> io::Result<Option<Recorded>> {
    let was_set = reports(stream, native_ipv6)?;
    let answer = recorded(stream, native_ipv6);
    if was_set == Some(false) {
        sys::set_report(stream, native_ipv6, false)?;
    }
    answer
}

/// Name of the interface with this index in the network namespace of the socket. `None` if there is no such interface.
///
/// `if_indextoname(3)` looks in the namespace of the calling thread instead.
///
/// ```
/// let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
/// assert_eq!(ingress_interface::kernel::interface_name(&socket, 1).unwrap(), "lo");
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub fn interface_name(socket: &impl AsSocket, index: u32) -> Option<InterfaceName> {
    sys::interface_name(socket, index)
}

/// Receives one datagram in one system call, which never waits.
///
/// # Errors
/// As `recvmsg(2)`; [`WouldBlock`](io::ErrorKind::WouldBlock) if no datagram waits;
/// [`Unsupported`](io::ErrorKind::Unsupported) on systems other than Linux.
///
/// ```
/// let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
/// let nothing = ingress_interface::kernel::try_receive(&socket, &mut [0; 100]);
/// assert_eq!(nothing.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn try_receive(socket: &impl AsSocket, buffer: &mut [u8]) -> io::Result<Received> {
    sys::receive(socket, buffer, false)
}

/// As [`send_from`](crate::send_from), and never waits.
///
/// # Errors
/// As `sendmsg(2)`; [`WouldBlock`](io::ErrorKind::WouldBlock) if there is no room;
/// [`Unsupported`](io::ErrorKind::Unsupported) on systems other than Linux.
///
/// ```
/// # use std::net::UdpSocket;
/// # let (server, client) = (UdpSocket::bind("0.0.0.0:0")?, UdpSocket::bind("127.0.0.1:0")?);
/// let from = Some([127, 0, 0, 5].into());
/// ingress_interface::kernel::try_send_from(&server, b"pong", client.local_addr()?, from)?;
/// assert_eq!(client.recv_from(&mut [0; 100])?.1.ip().to_string(), "127.0.0.5");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn try_send_from(
    socket: &impl AsSocket,
    bytes: &[u8],
    peer: SocketAddr,
    from: Option<IpAddr>,
) -> io::Result<usize> {
    sys::send(socket, bytes, peer, from, false)
}

fn absent_if_not_supported<T>(answer: io::Result<Option<T>>) -> io::Result<Option<T>> {
    match answer {
        Err(error) if sys::is_not_supported(&error) => Ok(None),
        answer => answer,
    }
}
