//! The ingress interface of connections and datagrams, from the crate `ingress-interface`; queues and counters of sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use ingress_interface::kernel::{self, Received};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::Socket;

use crate::model::{Family, IfName, Protocol};
use crate::sys::{self, TransportState};

/// Makes the kernel report the ingress interface. Called on a listener before `listen(2)`, or on a UDP socket before
/// `bind(2)`. On a UDP socket the kernel then also reports the number of datagrams that a full queue dropped (SO_RXQ_OVFL) and the
/// time of arrival (SO_TIMESTAMPNS).
///
/// # Errors
/// As `setsockopt(2)`; EOPNOTSUPP on an MPTCP socket.
pub fn request(socket: &Socket, domain: Family, protocol: Protocol) -> io::Result<()> {
    kernel::record(socket, domain == Family::Ipv6)?;
    if protocol == Protocol::Udp {
        setsockopt(socket, sockopt::RxqOvfl, &1)?;
        setsockopt(socket, sockopt::ReceiveTimestampns, &true)?;
    }
    Ok(())
}

/// The index of the interface on which an accepted TCP connection arrived ([`kernel::recorded`]). Called directly after
/// `accept`: on native IPv6 later data overwrites the value. `None` where the kernel did not record the interface (MPTCP).
///
/// # Errors
/// As `getsockopt(2)`; ENOTCONN and EINVAL when the peer is gone already.
pub fn ingress_of_connection(socket: &Socket, native_ipv6: bool) -> io::Result<Option<u32>> {
    Ok(kernel::recorded(socket, native_ipv6)?.map(|recorded| recorded.index))
}

/// As [`ingress_of_connection`], with the local address of an IPv4 connection, which is in the same answer.
///
/// # Errors
/// As [`ingress_of_connection`].
#[inline]
pub fn origin_of_connection(
    socket: &Socket,
    native_ipv6: bool,
) -> io::Result<Option<(u32, Option<Ipv4Addr>)>> {
    Ok(kernel::recorded(socket, native_ipv6)?.map(|recorded| (recorded.index, recorded.local)))
}

/// As [`ingress_of_connection`], for a connection of another program, whose socket options stay as they were. The option that
/// permits the answer is set and reset if `may_set` allows it, and no signal ends this process in between. On native IPv6 the
/// kernel reports the interface of the latest data, not of the handshake.
///
/// # Errors
/// Those of `getsockopt(2)`; `PermissionDenied` when the option had to be set and `may_set` is false.
pub fn ingress_of_foreign_connection(
    socket: &Socket,
    native_ipv6: bool,
    may_set: bool,
) -> io::Result<Option<u32>> {
    let recorded = match kernel::reports(socket, native_ipv6)? {
        Some(false) if !may_set => return Err(io::ErrorKind::PermissionDenied.into()),
        Some(false) => sys::without_signals(|| kernel::recorded_unchanged(socket, native_ipv6)),
        Some(true) | None => kernel::recorded(socket, native_ipv6),
    };
    Ok(recorded?.map(|recorded| recorded.index))
}

/// The name of the interface with this index in the network namespace of `socket`, which can be another one than that of the
/// calling thread. `None` if there is no such interface.
#[must_use]
pub fn interface_name(socket: &Socket, index: u32) -> Option<IfName> {
    kernel::interface_name(socket, index).map(|name| IfName::from_bytes(name.as_bytes()))
}

/// Receives one datagram with its sender, its destination and the interface on which it arrived.
///
/// # Errors
/// As `recvmsg(2)`; EAGAIN when none waits.
pub fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<Received> {
    kernel::try_receive(socket, buffer)
}

/// Sends one datagram to `peer`, from the local address `from` if one is given: a client ignores an answer that comes from
/// another address than the one it sent to.
///
/// # Errors
/// As `sendmsg(2)`.
pub fn send(socket: &Socket, bytes: &[u8], peer: SocketAddr, from: Option<IpAddr>) -> io::Result<usize> {
    kernel::try_send_from(socket, bytes, peer, from)
}

/// Number of connections waiting on a listener, and the limit, from TCP_INFO. On a listening socket `tcpi_unacked` is
/// the length of the queue and `tcpi_sacked` its limit (`tcp_get_info()` of `net/ipv4/tcp.c`).
///
/// # Errors
/// Those of `getsockopt(2)`.
pub fn listen_queue(socket: &Socket) -> io::Result<TransportState> {
    let info = tcp_info(socket)?;
    Ok(TransportState { queued: info.tcpi_unacked, limit: info.tcpi_sacked })
}

/// Age of a connection to which nothing was sent yet: at least, and at most. TCP_INFO has it in ticks of the kernel (`lsndtime` is set
/// in `tcp_create_openreq_child()` of `net/ipv4/tcp_minisocks.c`). `None` when the kernel does not report it.
#[must_use]
pub fn age_of_connection(socket: &Socket) -> Option<(Duration, Duration)> {
    /// The coarse clock advances with the ticks. Linux has at least 100 per second.
    const LONGEST: Duration = Duration::from_millis(10);
    let clock = nix::time::ClockId::CLOCK_MONOTONIC_COARSE;
    let tick = nix::time::clock_getres(clock).map_or(LONGEST, Duration::from).min(LONGEST);
    let age = Duration::from_millis(tcp_info(socket).ok()?.tcpi_last_data_sent.into());
    // The kernel also rounds to milliseconds.
    let error = tick + Duration::from_millis(1);
    Some((age.saturating_sub(error), age + error))
}

#[expect(unsafe_code, reason = "TCP_INFO has no safe wrapper among our crates")]
fn tcp_info(socket: &Socket) -> io::Result<libc::tcp_info> {
    // SAFETY: an all-zero tcp_info is valid, it holds only integers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `info` and the number written to `length`; both outlive the call.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info)
}

/// Number of datagrams that a socket has dropped since it was opened, usually because its receive queue was full.
/// SO_MEMINFO has the same count as SO_RXQ_OVFL, but does not need a further datagram. `None` before Linux 4.12.
#[must_use]
#[expect(unsafe_code, reason = "SO_MEMINFO has no safe wrapper among our crates")]
pub fn dropped_datagrams(socket: &Socket) -> Option<u32> {
    /// `SO_MEMINFO` of `asm-generic/socket.h`.
    const SO_MEMINFO: libc::c_int = 55;
    /// `SK_MEMINFO_DROPS` of `linux/sock_diag.h`, the last of nine.
    const DROPS: usize = 8;
    let mut values = [0u32; DROPS + 1];
    let mut length = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `values` and the number written to `length`; both outlive the call.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (answer == 0 && length as usize == size_of_val(&values)).then_some(values[DROPS])
}

/// The cookie of the network namespace a socket belongs to (SO_NETNS_COOKIE, Linux 5.14); `None` on older kernels.
#[must_use]
#[expect(unsafe_code, reason = "SO_NETNS_COOKIE has no safe wrapper among our crates")]
pub fn namespace_cookie(socket: &Socket) -> Option<u64> {
    /// `SO_NETNS_COOKIE` of `asm-generic/socket.h`.
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, eight, to `cookie`; both outlive the call.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (answer == 0).then_some(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_connection_arrived_on_lo() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(address) else { continue };
            // Without the option on the listener: the connection itself must be asked.
            let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let server = Socket::from(listener.accept().unwrap().0);
            let index = ingress_of_connection(&server, address.starts_with('[')).unwrap().unwrap();
            assert_eq!(interface_name(&server, index), Some(IfName::from("lo")));
            let own = server.local_addr().unwrap().as_socket_ipv4().map(|own| *own.ip());
            assert_eq!(origin_of_connection(&server, own.is_none()).unwrap(), Some((index, own)));
        }
    }
}
