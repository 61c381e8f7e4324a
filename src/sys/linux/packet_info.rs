//! The ingress interface of connections and datagrams, from the kernel.
//!
//! ip(7) says that IP_PKTINFO is for datagram sockets, and `recvmsg` indeed never carries it on TCP. But `getsockopt` does
//! answer on an accepted connection: IP_PKTOPTIONS (`net/ipv4/ip_sockglue.c`) and IPV6_2292PKTOPTIONS
//! (`net/ipv6/ipv6_sockglue.c`) give the control messages of the packet that made the connection. The interface index in
//! them is recorded whether or not anybody asked; the options IP_PKTINFO and IPV6_RECVPKTINFO only unlock the answer.
//! A new connection inherits them from its listener, so setting them there costs nothing per connection.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, getsockopt, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::Socket;

use crate::model::{Family, IfName, Protocol};
use crate::sys::{self, ReceivedDatagram, TransportState};

/// Space for the requested control messages: two packet infos, a TTL and the overflow counter, with alignment.
const CONTROL_LEN: usize = 256;

/// Length of a `cmsghdr` on this system, in bytes.
const HEADER: usize = size_of::<libc::cmsghdr>();

/// Makes the kernel record the ingress interface. Must be called on a listener before `listen(2)`, or on a UDP socket
/// before `bind(2)`. On UDP it also requests the count of datagrams lost to a full queue (SO_RXQ_OVFL).
///
/// # Errors
/// Those of `setsockopt(2)`; EOPNOTSUPP on an MPTCP socket.
pub fn request(socket: &Socket, domain: Family, protocol: Protocol) -> io::Result<()> {
    // On AF_INET6 set both: an IPv4 connection to a dual-stack socket uses the IPv4 option.
    setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    if domain == Family::Ipv6 {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    if protocol == Protocol::Udp {
        setsockopt(socket, sockopt::RxqOvfl, &1)?;
    }
    Ok(())
}

/// The index of the interface on which an accepted TCP connection arrived. Must be called directly after `accept`: on
/// native IPv6 later data overwrites the value.
///
/// `native_ipv6` says whether the connection itself is IPv6 (not IPv4-mapped). The wrong one of the two options returns
/// index 0 and an invalid address.
///
/// Returns `None` if the kernel does not report it (MPTCP).
///
/// # Errors
/// Those of `getsockopt(2)`; ENOTCONN and EINVAL if the peer has already disconnected.
pub fn ingress_of_connection(socket: &Socket, native_ipv6: bool) -> io::Result<Option<u32>> {
    Ok(origin_of_connection(socket, native_ipv6)?.map(|(index, _)| index))
}

/// Like [`ingress_of_connection`], with the local address of the connection if the kernel returns it in the same reply.
/// Over IPv4 `ipi_addr` is the address of `getsockname(2)` (`do_ip_getsockopt()` of `net/ipv4/ip_sockglue.c`). Over
/// IPv6 the reply has another address, so it is not returned.
///
/// # Errors
/// Those of [`ingress_of_connection`].
pub fn origin_of_connection(
    socket: &Socket,
    native_ipv6: bool,
) -> io::Result<Option<(u32, Option<Ipv4Addr>)>> {
    match packet_options(socket, native_ipv6) {
        Ok(Some(origin)) => Ok(Some(origin)),
        // The listener's option was set after this connection arrived (an inherited socket): query the connection
        // itself.
        Ok(None) => {
            let asked = if native_ipv6 {
                setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)
            } else {
                setsockopt(socket, sockopt::Ipv4PacketInfo, &true)
            };
            match asked {
                Ok(()) => packet_options(socket, native_ipv6),
                Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOPROTOOPT) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOPROTOOPT)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Like [`ingress_of_connection`], for a connection of another program, whose options are restored afterwards: before the
/// calling thread handles a signal, and also after a panic. Without `may_set` no option is set; if one is needed, the result is
/// [`ErrorKind::PermissionDenied`](io::ErrorKind::PermissionDenied). On native IPv6 the kernel reports the interface of the
/// latest data, not of the handshake.
///
/// # Errors
/// Those of `getsockopt(2)`.
pub fn ingress_of_foreign_connection(
    socket: &Socket,
    native_ipv6: bool,
    may_set: bool,
) -> io::Result<Option<u32>> {
    let was_on = if native_ipv6 {
        getsockopt(socket, sockopt::Ipv6RecvPacketInfo)
    } else {
        getsockopt(socket, sockopt::Ipv4PacketInfo)
    };
    match was_on {
        Ok(true) => ingress_of_connection(socket, native_ipv6),
        Ok(false) if !may_set => Err(io::ErrorKind::PermissionDenied.into()),
        Ok(false) => sys::without_signals(|| {
            let option = BorrowedOption { socket, native_ipv6 };
            let answer = ingress_of_connection(socket, native_ipv6);
            drop(option);
            answer
        }),
        Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOPROTOOPT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The option that unlocks the answer, on a socket of another program that has it off: off again when this goes.
struct BorrowedOption<'a> {
    socket: &'a Socket,
    native_ipv6: bool,
}

impl Drop for BorrowedOption<'_> {
    fn drop(&mut self) {
        // It fails only where setting it has failed before.
        let _ = if self.native_ipv6 {
            setsockopt(self.socket, sockopt::Ipv6RecvPacketInfo, &false)
        } else {
            setsockopt(self.socket, sockopt::Ipv4PacketInfo, &false)
        };
    }
}

/// The interface index in the packet options of a connection, if the kernel returns one, and over IPv4 the local
/// address.
#[expect(unsafe_code, reason = "no crate wraps IP_PKTOPTIONS: its value has no fixed length")]
fn packet_options(socket: &Socket, native_ipv6: bool) -> io::Result<Option<(u32, Option<Ipv4Addr>)>> {
    /// `IP_PKTOPTIONS` of `linux/in.h`.
    const IP_PKTOPTIONS: libc::c_int = 9;
    /// `IPV6_2292PKTOPTIONS` of `linux/in6.h`.
    const IPV6_2292PKTOPTIONS: libc::c_int = 6;
    let (level, option) = if native_ipv6 {
        (libc::IPPROTO_IPV6, IPV6_2292PKTOPTIONS)
    } else {
        (libc::IPPROTO_IP, IP_PKTOPTIONS)
    };
    let mut buffer = [0u8; CONTROL_LEN];
    let mut length = CONTROL_LEN as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `buffer` and the number written to `length`; both outlive the
    // call, and any byte is a valid u8.
    let answer = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, buffer.as_mut_ptr().cast(), &raw mut length)
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    let written = usize::try_from(length).unwrap_or(0).min(CONTROL_LEN);
    Ok(origin_in(&buffer[..written], native_ipv6))
}

/// Finds the interface index, and over IPv4 the address, in a buffer of control messages as described in `cmsg(3)`.
/// Index 0 means no interface.
fn origin_in(control: &[u8], native_ipv6: bool) -> Option<(u32, Option<Ipv4Addr>)> {
    /// Offset of `ipi_addr` in `struct in_pktinfo`.
    const ADDRESS: usize = 8;
    // IPV6_PKTINFO is 50; `struct in6_pktinfo` has the index after the address, `struct in_pktinfo` first.
    let (level, kind, offset) = if native_ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, 16)
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO, 0)
    };
    let mut rest = control;
    while rest.len() >= HEADER {
        let word = |at: usize| rest.get(at..at + 4)?.try_into().ok().map(i32::from_ne_bytes);
        let length = usize::from_ne_bytes(rest.get(..size_of::<usize>())?.try_into().ok()?);
        if length < HEADER || length > rest.len() {
            return None;
        }
        if word(HEADER - 8) == Some(level) && word(HEADER - 4) == Some(kind) {
            let index = u32::try_from(word(HEADER + offset)?).ok()?;
            let address = rest.get(HEADER + ADDRESS..HEADER + ADDRESS + 4).filter(|_| !native_ipv6);
            let address = address.and_then(|octets| <[u8; 4]>::try_from(octets).ok()).map(Ipv4Addr::from);
            return (index != 0).then_some((index, address));
        }
        let aligned = length.next_multiple_of(size_of::<usize>());
        rest = rest.get(aligned..).unwrap_or_default();
    }
    None
}

/// The name of the interface with this index in the network namespace of `socket`, which may differ from the calling
/// thread's. `None` if it no longer exists.
#[must_use]
#[expect(
    unsafe_code,
    reason = "SIOCGIFNAME has no safe wrapper; if_indextoname(3) looks in the thread's namespace"
)]
pub fn interface_name(socket: &Socket, index: u32) -> Option<IfName> {
    // SAFETY: an all-zero ifreq is valid, it holds only integers and unions of such.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_ifindex = i32::try_from(index).ok()?;
    // SAFETY: SIOCGIFNAME reads the index and writes the name within the ifreq, which outlives the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFNAME, &raw mut request) } != 0 {
        return None;
    }
    let name: Vec<u8> =
        request.ifr_name.iter().map(|&c| c.cast_unsigned()).take_while(|&byte| byte != 0).collect();
    Some(IfName::from_bytes(&name))
}

/// Receives one datagram with its source address, destination address and ingress interface.
///
/// # Errors
/// Those of `recvmsg(2)`; EAGAIN if none is available.
pub fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<ReceivedDatagram> {
    let mut control = [0u8; CONTROL_LEN];
    let mut parts = [io::IoSliceMut::new(buffer)];
    // With MSG_TRUNC in the flags the kernel returns the full length.
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT,
    )?;
    let peer = message.address.as_ref().and_then(socket_addr).ok_or(io::ErrorKind::InvalidData)?;
    let truncated = message.flags.contains(MsgFlags::MSG_TRUNC);
    let length = message.bytes;
    let mut local: Option<IpAddr> = None;
    let mut reply_from = None;
    let mut index = 0;
    let mut lost = None;
    for item in message.cmsgs()? {
        match item {
            // For an IPv4 datagram a dual-stack socket returns both, with equal values.
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                local = Some(IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(info.ipi_addr.s_addr))));
                reply_from = Some(IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(info.ipi_spec_dst.s_addr))));
                index = u32::try_from(info.ipi_ifindex).unwrap_or(0);
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let address = IpAddr::V6(info.ipi6_addr.s6_addr.into()).to_canonical();
                local.get_or_insert(address);
                if !address.is_multicast() {
                    reply_from.get_or_insert(address);
                }
                index = info.ipi6_ifindex;
            }
            ControlMessageOwned::RxqOvfl(count) => lost = Some(count),
            _ => {}
        }
    }
    Ok(ReceivedDatagram {
        length,
        truncated,
        peer,
        local,
        reply_from,
        ingress: (index != 0).then_some(index),
        lost_in_queue: lost,
    })
}

/// Sends one datagram to `peer`, from the local address `from` if one is given. A client does not accept a reply from
/// another address than the one it sent to.
///
/// # Errors
/// Those of `sendmsg(2)`.
pub fn send(socket: &Socket, bytes: &[u8], peer: SocketAddr, from: Option<IpAddr>) -> io::Result<usize> {
    let parts = [io::IoSlice::new(bytes)];
    let address = SockaddrStorage::from(peer);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let scope = match peer {
        SocketAddr::V6(v6) => v6.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    let v4;
    let v6;
    let control = match from {
        Some(IpAddr::V4(from)) => {
            v4 = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: from.to_bits().to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            Some(ControlMessage::Ipv4PacketInfo(&v4))
        }
        Some(IpAddr::V6(from)) => {
            v6 = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: from.octets() },
                ipi6_ifindex: scope,
            };
            Some(ControlMessage::Ipv6PacketInfo(&v6))
        }
        None => None,
    };
    Ok(sendmsg(socket.as_raw_fd(), &parts, control.as_slice(), flags, Some(&address))?)
}

fn socket_addr(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    storage.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()))
}

/// Number of connections waiting on a listener, and the limit, from TCP_INFO. On a listening socket `tcpi_unacked` is
/// the length of the queue and `tcpi_sacked` its limit (`tcp_get_info()` of `net/ipv4/tcp.c`).
///
/// # Errors
/// Those of `getsockopt(2)`.
#[expect(unsafe_code, reason = "TCP_INFO has no safe wrapper among our crates")]
pub fn listen_queue(socket: &Socket) -> io::Result<TransportState> {
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
    Ok(TransportState { queued: info.tcpi_unacked, limit: info.tcpi_sacked })
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

    /// One control message as the kernel lays it out on a 64-bit little-endian or big-endian machine.
    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut out = (HEADER + data.len()).to_ne_bytes().to_vec();
        out.extend(level.to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(data);
        out.resize(out.len().next_multiple_of(size_of::<usize>()), 0);
        out
    }

    #[test]
    fn the_index_is_found_behind_other_messages() {
        let ttl = message(libc::IPPROTO_IP, libc::IP_TTL, &64i32.to_ne_bytes());
        let mut info = 7i32.to_ne_bytes().to_vec();
        info.extend([192, 0, 2, 9, 192, 0, 2, 1]);
        let control = [ttl, message(libc::IPPROTO_IP, libc::IP_PKTINFO, &info)].concat();
        assert_eq!(origin_in(&control, false), Some((7, Some([192, 0, 2, 1].into()))));
        assert_eq!(origin_in(&control, true), None, "the IPv4 message is not an answer for IPv6");
    }

    #[test]
    fn broken_control_messages_are_no_answer() {
        let mut info = [0u8; 16].to_vec();
        info.extend(9i32.to_ne_bytes());
        let whole = message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        assert_eq!(origin_in(&whole, true), Some((9, None)));
        for cut in 0..HEADER + 20 {
            assert_eq!(origin_in(&whole[..cut], true), None, "cut to {cut}");
        }
        let mut endless = whole.clone();
        endless[..size_of::<usize>()].fill(0);
        assert_eq!(origin_in(&endless, true), None);
        endless[..size_of::<usize>()].fill(0xff);
        assert_eq!(origin_in(&endless, true), None);
        let zero = message(libc::IPPROTO_IP, libc::IP_PKTINFO, &[0; 12]);
        assert_eq!(origin_in(&zero, false), None, "index 0 names no interface");
    }

    #[test]
    fn a_loopback_connection_arrived_on_lo() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(address) else { continue };
            // Without the option on the listener, the connection itself must be queried.
            let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let server = Socket::from(listener.accept().unwrap().0);
            let index = ingress_of_connection(&server, address.starts_with('[')).unwrap().unwrap();
            assert_eq!(interface_name(&server, index), Some(IfName::from("lo")));
            let own = server.local_addr().unwrap().as_socket_ipv4().map(|own| *own.ip());
            assert_eq!(origin_of_connection(&server, own.is_none()).unwrap(), Some((index, own)));
        }
    }
}
