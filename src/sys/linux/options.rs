//! Socket options that other systems lack.

use std::io;
use std::num::NonZeroU32;
use std::time::Duration;

use socket2::Socket;

use crate::model::{Errno, IfName};
use crate::sys::{Connecting, errno_of};

/// A non-blocking socket.
///
/// # Errors
/// Those of `socket(2)`.
pub fn non_blocking(domain: socket2::Domain, kind: socket2::Type) -> io::Result<Socket> {
    Socket::new(domain, kind.nonblocking(), None)
}

/// SO_REUSEADDR and SO_REUSEPORT of a socket after they were set to these values. A successful call has set them, and a
/// new socket has neither (`sk_setsockopt()` and `sk_prot_alloc()` of `net/core/sock.c`), so there is no query.
#[must_use]
pub fn reuse_as_set(_socket: &Socket, address: bool, port: bool) -> (Option<bool>, Option<bool>) {
    (Some(address), Some(port))
}

/// SO_BINDTODEVICE (socket(7)): accept only packets that arrive on this device. Without CAP_NET_RAW this works while
/// the socket has no device (Linux 5.7).
///
/// # Errors
/// ENODEV if there is no such device, EPERM if the socket already has another one.
pub fn bind_to_device(socket: &Socket, device: &IfName) -> io::Result<()> {
    socket.bind_device(Some(device.as_bytes()))
}

/// The device of a socket; a socket bound to a link-local address has one too.
///
/// # Errors
/// ENODEV if the device no longer exists.
pub fn bound_device(socket: &Socket) -> io::Result<Option<IfName>> {
    let name = socket.device()?;
    Ok(name.as_deref().map(IfName::from_bytes).filter(|name| !name.as_bytes().is_empty()))
}

/// The index of the device a socket is bound to, also when that is gone (SO_BINDTOIFINDEX, Linux 5.1).
#[must_use]
pub fn bound_device_index(socket: &Socket) -> Option<u32> {
    socket.device_index_v4().or_else(|_| socket.device_index_v6()).ok().flatten().map(u32::from)
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

/// The value of SO_REUSEPORT.
///
/// # Errors
/// Those of `getsockopt(2)`.
pub fn reuse_port(socket: &Socket) -> io::Result<bool> {
    socket.reuse_port()
}

/// IP_FREEBIND (ip(7)): allows binding an address that the host does not have. The option of level IPPROTO_IP also
/// works on AF_INET6 sockets: the kernel has one flag for both.
///
/// # Errors
/// Those of `setsockopt(2)`.
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

/// Stops new connections to a listener and keeps the waiting ones; handshakes that have begun are completed. A second call changes
/// nothing.
///
/// The listener is bound to an interface index that no interface has: the kernel finds no listener for a SYN any more and
/// refuses it, while the last packet of a handshake finds its request socket, which keeps the interface of its SYN
/// (`compute_score()` of `net/ipv4/inet_hashtables.c`, `inet_request_bound_dev_if()`). The kernel does not check that the
/// interface exists (`sock_bindtoindex_locked()` of `net/core/sock.c`). Without CAP_NET_RAW this fails where the listener has a device
/// already; then a filter drops each SYN without ACK (SO_ATTACH_FILTER of socket(7)), which some kernels forbid without
/// capabilities.
///
/// # Errors
/// Those of `setsockopt(2)`. New connections go on.
pub fn refuse_new_connections(listener: &Socket) -> io::Result<()> {
    /// Interface indices are numbered from 1 upwards; this is the highest that `SO_BINDTOIFINDEX` takes.
    const NO_INTERFACE: Option<NonZeroU32> = NonZeroU32::new(i32::MAX as u32);
    /// Where the flags are in a TCP header (RFC 9293, 3.1); the filter of a TCP socket sees a packet from there on.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    let refuses = bound_device_index(listener) == NO_INTERFACE.map(u32::from);
    if refuses || listener.bind_device_by_index_v4(NO_INTERFACE).is_ok() {
        return Ok(());
    }
    let step = |code: u32, skipped: u8, value: u32| socket2::SockFilter::new(code as u16, 0, skipped, value);
    listener.attach_filter(&[
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, FLAGS),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, SYN | ACK),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, SYN),
        step(libc::BPF_RET | libc::BPF_K, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
    ])
}

/// Waits until the kernel has processed every packet that it was processing at the time of the call: a SYN that passed before
/// [`refuse_new_connections`] has a handshake afterwards that [`crate::sys::handshakes`] sees. The kernel processes packets within
/// read-side critical sections of RCU, and `MEMBARRIER_CMD_GLOBAL` of membarrier(2) waits for their end (`synchronize_rcu()`
/// of `kernel/sched/membarrier.c`). Returns false where the kernel does not offer the wait.
#[expect(unsafe_code, reason = "membarrier(2) has no safe wrapper among our crates")]
pub fn wait_for_packets_in_process() -> bool {
    let (command, flags, cpu): (libc::c_int, libc::c_uint, libc::c_int) = (libc::MEMBARRIER_CMD_GLOBAL, 0, 0);
    // SAFETY: the call takes three numbers and no pointer.
    unsafe { libc::syscall(libc::SYS_membarrier, command, flags, cpu) == 0 }
}

/// Accepts one connection. Reads and writes use [`recv_now`] and [`send_now`], so the socket stays in blocking mode.
///
/// # Errors
/// Those of `accept4(2)`.
pub fn accept(listener: &Socket) -> io::Result<(Socket, socket2::SockAddr)> {
    listener.accept()
}

/// Receives available data; EAGAIN if there is none.
///
/// # Errors
/// Those of `recv(2)`.
pub fn recv_now(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    use std::os::fd::AsRawFd;
    Ok(nix::sys::socket::recv(socket.as_raw_fd(), buffer, nix::sys::socket::MsgFlags::MSG_DONTWAIT)?)
}

/// Receives data that arrives within `patience`, which the kernel rounds up to its ticks plus one
/// (`schedule_timeout()`); EAGAIN if there is none. Such a wait costs less than a poller wait with a timeout, which
/// needs a timer of the machine.
///
/// # Errors
/// Those of `recv(2)`; EINTR if a signal arrives first.
pub fn recv_soon(socket: &Socket, buffer: &mut [u8], patience: Duration) -> io::Result<usize> {
    use std::os::fd::AsRawFd;
    if socket.set_read_timeout(Some(patience)).is_err() {
        return recv_now(socket, buffer);
    }
    Ok(nix::sys::socket::recv(socket.as_raw_fd(), buffer, nix::sys::socket::MsgFlags::empty())?)
}

/// Sends as much as fits. With `more`, the kernel holds a partial segment back until the following close, so that the
/// reply and the FIN leave together (MSG_MORE, tcp(7)).
///
/// # Errors
/// Those of `send(2)`; EAGAIN if nothing fits.
pub fn send_now(socket: &Socket, bytes: &[u8], more: bool) -> io::Result<usize> {
    let more = if more { libc::MSG_MORE } else { 0 };
    socket.send_with_flags(bytes, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | more)
}

/// Whether a refused socket can connect to another address. The second connect(2) of [`connect_now`] collects the error
/// and leaves the socket unconnected (`__inet_stream_connect()` of `net/ipv4/af_inet.c`).
pub const REFUSED_SOCKETS_CONNECT_AGAIN: bool = true;

/// Connects a non-blocking socket. The second call returns the result immediately if it is available, which is always
/// the case for a connection from this host to itself.
///
/// # Errors
/// Those of `connect(2)`.
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

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

    use super::*;

    /// A waiting client is accepted after new ones were refused, also where a call before has refused them.
    #[test]
    fn a_listener_refuses_new_clients_and_keeps_the_waiting_ones() {
        let loopback =
            [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
        for address in loopback {
            let Ok(listener) = TcpListener::bind(address) else {
                assert!(address.is_ipv6(), "{address} cannot be bound");
                continue;
            };
            let address = listener.local_addr().unwrap();
            let waiting = TcpStream::connect(address).unwrap();
            let listener = Socket::from(listener);
            for _ in 0..2 {
                refuse_new_connections(&listener).unwrap();
                assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            }
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(peer.as_socket(), waiting.local_addr().ok());
        }
    }
}
