//! Socket options that other systems lack.

use std::io;
use std::time::Duration;

use socket2::Socket;

use crate::model::{Errno, IfName};
use crate::sys::{Connecting, errno_of};

/// A socket that does not block.
///
/// # Errors
/// As `socket(2)`.
pub fn non_blocking(domain: socket2::Domain, kind: socket2::Type) -> io::Result<Socket> {
    Socket::new(domain, kind.nonblocking(), None)
}

/// SO_REUSEADDR and SO_REUSEPORT of a socket for which they were set to this. A call that succeeds has set them, and a new socket
/// has neither (`sk_setsockopt()` and `sk_prot_alloc()` of `net/core/sock.c`), so nothing is asked.
#[must_use]
pub fn reuse_as_set(_socket: &Socket, address: bool, port: bool) -> (Option<bool>, Option<bool>) {
    (Some(address), Some(port))
}

/// SO_BINDTODEVICE (socket(7)): only packets that arrive on this device. Without CAP_NET_RAW it works as long as the
/// socket has no device yet (Linux 5.7).
///
/// # Errors
/// ENODEV when there is no such device, EPERM when the socket has another one already.
pub fn bind_to_device(socket: &Socket, device: &IfName) -> io::Result<()> {
    socket.bind_device(Some(device.as_bytes()))
}

/// The device a socket is bound to; a socket bound to a link-local address has one too.
///
/// # Errors
/// ENODEV when the device is gone.
pub fn bound_device(socket: &Socket) -> io::Result<Option<IfName>> {
    let name = socket.device()?;
    Ok(name.as_deref().map(IfName::from_bytes).filter(|name| !name.as_bytes().is_empty()))
}

/// SO_REUSEADDR (socket(7)).
///
/// # Errors
/// As `setsockopt(2)`.
pub fn set_reuse_address(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)
}

/// SO_REUSEPORT (socket(7)): several sockets of one user share the port.
///
/// # Errors
/// As `setsockopt(2)`.
pub fn set_reuse_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

/// SO_REUSEPORT as it is set.
///
/// # Errors
/// As `getsockopt(2)`.
pub fn reuse_port(socket: &Socket) -> io::Result<bool> {
    socket.reuse_port()
}

/// IP_FREEBIND (ip(7)): an address that is not here, or not yet, can be bound. The option of level IPPROTO_IP serves
/// AF_INET6 sockets too: the kernel keeps one flag for both.
///
/// # Errors
/// As `setsockopt(2)`.
pub fn set_freebind(socket: &Socket) -> io::Result<()> {
    socket.set_freebind_v4(true)
}

/// IP_TRANSPARENT (ip(7)); like [`set_freebind`] for both families.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN or CAP_NET_RAW.
pub fn set_transparent(socket: &Socket) -> io::Result<()> {
    socket.set_ip_transparent_v4(true)
}

/// Whether a stream socket listens (SO_ACCEPTCONN).
///
/// # Errors
/// As `getsockopt(2)`.
pub fn is_listener(socket: &Socket) -> io::Result<bool> {
    socket.is_listener()
}

/// Keeps newcomers out of a listener, and whoever waits in its queue in it: a filter that drops every packet (SO_ATTACH_FILTER of
/// socket(7)), the last ACK of a handshake too. Where it cannot be set, a queue for one, which leaves a place.
///
/// # Errors
/// As `setsockopt(2)` and `listen(2)`.
pub fn drop_new_connections(listener: &Socket) -> io::Result<()> {
    let nothing = socket2::SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
    listener.attach_filter(&[nothing]).or_else(|_| listener.listen(0))
}

/// Accepts one connection. Reads and writes on it pass [`recv_now`] and [`send_now`], so it is left as it is.
///
/// # Errors
/// As `accept4(2)`.
pub fn accept(listener: &Socket) -> io::Result<(Socket, socket2::SockAddr)> {
    listener.accept()
}

/// Receives what is there; EAGAIN when nothing is.
///
/// # Errors
/// As `recv(2)`.
pub fn recv_now(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    use std::os::fd::AsRawFd;
    Ok(nix::sys::socket::recv(socket.as_raw_fd(), buffer, nix::sys::socket::MsgFlags::MSG_DONTWAIT)?)
}

/// Receives what comes within `patience`, which the kernel rounds up to ticks of its own, and one more (`schedule_timeout()`); EAGAIN
/// when nothing does. Such a wait costs less than one at the poller with a time limit, which needs a timer of the machine's.
///
/// # Errors
/// As `recv(2)`; EINTR when a signal comes first.
pub fn recv_soon(socket: &Socket, buffer: &mut [u8], patience: Duration) -> io::Result<usize> {
    use std::os::fd::AsRawFd;
    if socket.set_read_timeout(Some(patience)).is_err() {
        return recv_now(socket, buffer);
    }
    Ok(nix::sys::socket::recv(socket.as_raw_fd(), buffer, nix::sys::socket::MsgFlags::empty())?)
}

/// Sends what there is room for. With `more`, the kernel holds a partial segment back until the close that follows, so
/// that answer and FIN leave together (MSG_MORE, tcp(7)).
///
/// # Errors
/// As `send(2)`; EAGAIN when there is no room.
pub fn send_now(socket: &Socket, bytes: &[u8], more: bool) -> io::Result<usize> {
    let more = if more { libc::MSG_MORE } else { 0 };
    socket.send_with_flags(bytes, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | more)
}

/// Whether a socket whose connection was refused can connect to another address. The second connect(2) of [`connect_now`] takes
/// the error and leaves the socket unconnected (`__inet_stream_connect()` of `net/ipv4/af_inet.c`).
pub const REFUSED_SOCKETS_CONNECT_AGAIN: bool = true;

/// Connects a non-blocking socket. Asked a second time, the kernel tells at once what came of it where the answer is there
/// already, as it always is from this host to itself.
///
/// # Errors
/// As `connect(2)`.
pub fn connect_now(socket: &Socket, to: &socket2::SockAddr) -> io::Result<Connecting> {
    match socket.connect(to) {
        Err(error) if errno_of(&error) == Errno::EINPROGRESS => {}
        result => return result.map(|()| Connecting::Done),
    }
    match socket.connect(to) {
        Err(error) if errno_of(&error) == Errno::EALREADY => Ok(Connecting::Pending),
        result => result.map(|()| Connecting::Done),
    }
}

/// As [`connect_now`], and the client's end, which a refused socket no longer has.
///
/// # Errors
/// As `connect(2)`.
pub fn connect_and_name(
    socket: &Socket,
    to: &socket2::SockAddr,
) -> (io::Result<Connecting>, Option<std::net::SocketAddr>) {
    let name = || socket.local_addr().ok().and_then(|name| name.as_socket());
    match socket.connect(to) {
        Err(error) if errno_of(&error) == Errno::EINPROGRESS => {}
        result => return (result.map(|()| Connecting::Done), name()),
    }
    let name = name();
    match socket.connect(to) {
        Err(error) if errno_of(&error) == Errno::EALREADY => (Ok(Connecting::Pending), name),
        result => (result.map(|()| Connecting::Done), name),
    }
}
