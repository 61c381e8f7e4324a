//! Socket options on systems without those of Linux: unsupported options are refused, never ignored.

use std::io::{self, Read as _};
use std::time::Duration;

use socket2::Socket;

use crate::model::{Errno, IfName};
use crate::sys::{Connecting, errno_of};

fn unsupported(option: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("{option} is not available on this system"))
}

/// A non-blocking socket.
///
/// # Errors
/// Those of `socket(2)`.
pub fn non_blocking(domain: socket2::Domain, kind: socket2::Type) -> io::Result<Socket> {
    let socket = Socket::new(domain, kind, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// SO_REUSEADDR and SO_REUSEPORT of a socket after they were set to these values.
#[must_use]
pub fn reuse_as_set(socket: &Socket, _address: bool, _port: bool) -> (Option<bool>, Option<bool>) {
    (socket.reuse_address().ok(), reuse_port(socket).ok())
}

/// Not supported: SO_BINDTODEVICE exists only on Linux.
///
/// # Errors
/// Always: `Unsupported`.
pub fn bind_to_device(_socket: &Socket, _device: &IfName) -> io::Result<()> {
    Err(unsupported("binding to a device"))
}

/// No socket has a device here.
#[must_use]
pub fn bound_device_index(_socket: &Socket) -> Option<u32> {
    None
}

/// No socket has a device here.
///
/// # Errors
/// None.
pub fn bound_device(_socket: &Socket) -> io::Result<Option<IfName>> {
    Ok(None)
}

/// SO_REUSEADDR, except on Windows, where it would let other programs take over the port and servers do not need it.
///
/// # Errors
/// Those of `setsockopt`.
pub fn set_reuse_address(socket: &Socket) -> io::Result<()> {
    if cfg!(windows) { Ok(()) } else { socket.set_reuse_address(true) }
}

/// SO_REUSEPORT.
///
/// # Errors
/// `Unsupported` on Windows; else as `setsockopt(2)`.
pub fn set_reuse_port(socket: &Socket) -> io::Result<()> {
    #[cfg(unix)]
    return socket.set_reuse_port(true);
    #[cfg(not(unix))]
    {
        let _ = socket;
        Err(unsupported("SO_REUSEPORT"))
    }
}

/// The value of SO_REUSEPORT.
///
/// # Errors
/// `Unsupported` on Windows; otherwise those of `getsockopt(2)`.
pub fn reuse_port(socket: &Socket) -> io::Result<bool> {
    #[cfg(unix)]
    return socket.reuse_port();
    #[cfg(not(unix))]
    {
        let _ = socket;
        Err(unsupported("SO_REUSEPORT"))
    }
}

/// Not supported: IP_FREEBIND exists only on Linux.
///
/// # Errors
/// Always: `Unsupported`.
pub fn set_freebind(_socket: &Socket) -> io::Result<()> {
    Err(unsupported("binding an address that is not here"))
}

/// Not supported: IP_TRANSPARENT exists only on Linux.
///
/// # Errors
/// Always: `Unsupported`.
pub fn set_transparent(_socket: &Socket) -> io::Result<()> {
    Err(unsupported("transparent binding"))
}

/// Not queried here: the program serves only its own sockets, and they listen.
///
/// # Errors
/// None.
pub fn is_listener(_socket: &Socket) -> io::Result<bool> {
    Ok(true)
}

/// Limits new connections to a listener as far as possible: a queue length of one.
///
/// # Errors
/// Those of `listen(2)`.
pub fn refuse_new_connections(listener: &Socket) -> io::Result<()> {
    listener.listen(0)
}

/// Not offered by this system.
pub fn wait_for_packets_in_process() -> bool {
    false
}

/// Accepts one connection and makes it non-blocking.
///
/// # Errors
/// As `accept`.
pub fn accept(listener: &Socket) -> io::Result<(Socket, socket2::SockAddr)> {
    let (socket, peer) = listener.accept()?;
    socket.set_nonblocking(true)?;
    Ok((socket, peer))
}

/// Receives available data; the socket is non-blocking.
///
/// # Errors
/// Those of `recv`.
pub fn recv_now(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    let mut reader: &Socket = socket;
    reader.read(buffer)
}

/// Receives available data: a non-blocking socket does not wait.
///
/// # Errors
/// Those of `recv`.
pub fn recv_soon(socket: &Socket, buffer: &mut [u8], _patience: Duration) -> io::Result<usize> {
    recv_now(socket, buffer)
}

/// Sends as much as fits; the socket is non-blocking.
///
/// # Errors
/// Those of `send`.
pub fn send_now(socket: &Socket, bytes: &[u8], _more: bool) -> io::Result<usize> {
    socket.send(bytes)
}

/// Whether a refused socket can connect to another address.
pub const REFUSED_SOCKETS_CONNECT_AGAIN: bool = false;

/// The answer of a non-blocking `connect` that continues: `WSAEWOULDBLOCK` on Windows ("connect function (winsock2.h)").
/// On Unix EAGAIN is an error: no local port is free.
const CONTINUES: Errno = if cfg!(windows) { Errno::EAGAIN } else { Errno::EINPROGRESS };

/// Connects a non-blocking socket.
///
/// # Errors
/// As `connect(2)`.
pub fn connect_now(socket: &Socket, to: &socket2::SockAddr) -> io::Result<Connecting> {
    match socket.connect(to) {
        Err(error) if errno_of(&error) == CONTINUES => Ok(Connecting::Pending),
        result => result.map(|()| Connecting::Done),
    }
}

/// As [`connect_now`], and the client's end where the socket still has one.
pub fn connect_and_name(
    socket: &Socket,
    to: &socket2::SockAddr,
) -> (io::Result<Connecting>, Option<std::net::SocketAddr>) {
    let result = connect_now(socket, to);
    (result, socket.local_addr().ok().and_then(|name| name.as_socket()))
}
