//! Linux.
#![expect(unsafe_code, reason = "system calls")]

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use super::control::{self, CONTROL_LEN};
use super::unix;
use crate::InterfaceName;
use crate::kernel::{Received, Recorded};

/// Level and name of the option that makes the kernel report packet information.
const fn report_option(ipv6: bool) -> (libc::c_int, libc::c_int) {
    if ipv6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) } else { (libc::IPPROTO_IP, libc::IP_PKTINFO) }
}

/// Sets IP_PKTINFO or IPV6_RECVPKTINFO.
pub(crate) fn set_report(socket: &impl AsFd, ipv6: bool, on: bool) -> io::Result<()> {
    let (level, name) = report_option(ipv6);
    let value = libc::c_int::from(on);
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads `length` bytes of `value`, which outlives the call.
    let answer = unsafe { libc::setsockopt(descriptor, level, name, (&raw const value).cast(), length) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads IP_PKTINFO or IPV6_RECVPKTINFO.
pub(crate) fn report(socket: &impl AsFd, ipv6: bool) -> io::Result<bool> {
    let (level, name) = report_option(ipv6);
    Ok(unix::option(socket, level, name)? != 0)
}

/// Whether an error says that this kind of socket does not have the option.
pub(crate) fn is_not_supported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOPROTOOPT))
}

/// Reads IP_PKTOPTIONS (`do_ip_getsockopt()` of `net/ipv4/ip_sockglue.c`) or IPV6_2292PKTOPTIONS (`do_ipv6_getsockopt()` of
/// `net/ipv6/ipv6_sockglue.c`).
#[inline]
pub(crate) fn packet_options(socket: &impl AsFd, native_ipv6: bool) -> io::Result<Option<Recorded>> {
    /// `IP_PKTOPTIONS` of `linux/in.h`.
    const IP_PKTOPTIONS: libc::c_int = 9;
    /// `IPV6_2292PKTOPTIONS` of `linux/in6.h`.
    const IPV6_2292PKTOPTIONS: libc::c_int = 6;
    let (level, name) = if native_ipv6 {
        (libc::IPPROTO_IPV6, IPV6_2292PKTOPTIONS)
    } else {
        (libc::IPPROTO_IP, IP_PKTOPTIONS)
    };
    let mut buffer = [0u8; CONTROL_LEN];
    let mut length = CONTROL_LEN as libc::socklen_t;
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes to `buffer` and the number written to `length`; both outlive the
    // call, and any byte is a valid u8.
    let answer =
        unsafe { libc::getsockopt(descriptor, level, name, buffer.as_mut_ptr().cast(), &raw mut length) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    let written = usize::try_from(length).unwrap_or(0).min(CONTROL_LEN);
    Ok(control::packet_options(&buffer[..written], native_ipv6))
}

/// SIOCGIFNAME, which looks in the network namespace of the socket.
pub(crate) fn interface_name(socket: &impl AsFd, index: u32) -> Option<InterfaceName> {
    // SAFETY: an ifreq of zeros is valid: it holds only integers and unions of integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_ifindex = i32::try_from(index).ok()?;
    // The request of ioctl is an unsigned long in glibc and an int in musl.
    let get_name = libc::SIOCGIFNAME as libc::Ioctl;
    // SAFETY: SIOCGIFNAME reads the index and writes the name within the ifreq, which outlives the call.
    if unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), get_name, &raw mut request) } != 0 {
        return None;
    }
    // c_char is signed on x86 and unsigned on ARM.
    InterfaceName::from_bytes(&request.ifr_name.map(|character| character.to_ne_bytes()[0]))
}

/// The only interface that has this address. `None` also for a socket of another network namespace than the thread's, since
/// getifaddrs(3) lists the addresses of the thread's.
pub(crate) fn owner(socket: &impl AsFd, address: IpAddr) -> Option<u32> {
    let own = std::net::UdpSocket::bind("0.0.0.0:0").or_else(|_| std::net::UdpSocket::bind("[::]:0")).ok()?;
    let here = namespace_cookie(&own)?;
    (namespace_cookie(socket)? == here).then(|| unix::only_owner(address))?
}

/// SO_NETNS_COOKIE (Linux 5.14).
fn namespace_cookie(socket: &impl AsFd) -> Option<u64> {
    /// `SO_NETNS_COOKIE` of `asm-generic/socket.h`.
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    let descriptor = socket.as_fd().as_raw_fd();
    let (level, value) = (libc::SOL_SOCKET, (&raw mut cookie).cast());
    // SAFETY: the kernel writes at most `length` bytes, eight, to `cookie`; both outlive the call.
    let answer = unsafe { libc::getsockopt(descriptor, level, SO_NETNS_COOKIE, value, &raw mut length) };
    (answer == 0).then_some(cookie)
}

/// recvmsg(2) with control messages; with `wait` in the mode of the socket.
pub(crate) fn receive(socket: &impl AsFd, buffer: &mut [u8], wait: bool) -> io::Result<Received> {
    let mut peer = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut control = [0u8; CONTROL_LEN];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a msghdr of zeros is valid: it holds only integers and pointers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = peer.as_mut_ptr().cast();
    message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_LEN as _;
    // MSG_TRUNC makes the kernel return the length of the datagram.
    let flags = libc::MSG_TRUNC | if wait { 0 } else { libc::MSG_DONTWAIT };
    // SAFETY: name, buffers and control buffer of `message` are as long as it says and outlive the call.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: all bytes were zero before the call, so the storage is initialised whatever the kernel wrote.
    let peer = unix::socket_addr(unsafe { peer.assume_init_ref() }).ok_or(io::ErrorKind::InvalidData)?;
    let written = (message.msg_controllen as usize).min(CONTROL_LEN);
    let truncated = message.msg_flags & libc::MSG_TRUNC != 0;
    let mut received = Received {
        length,
        truncated,
        peer,
        destination: None,
        reply_from: None,
        index: None,
        dropped: None,
        received_at: None,
    };
    control::add_to(&mut received, &control[..written]);
    Ok(received)
}

/// sendmsg(2), with packet information that names the source address.
pub(crate) fn send(
    socket: &impl AsFd,
    bytes: &[u8],
    peer: SocketAddr,
    from: Option<IpAddr>,
    wait: bool,
) -> io::Result<usize> {
    // SAFETY: a sockaddr_storage of zeros is valid: it holds only integers.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let (name_length, scope_id) = match peer {
        SocketAddr::V4(v4) => {
            let address = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: v4.ip().to_bits().to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: a sockaddr_storage is large enough and aligned for every kind of address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(address) };
            (size_of::<libc::sockaddr_in>(), 0)
        }
        SocketAddr::V6(v6) => {
            let address = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: a sockaddr_storage is large enough and aligned for every kind of address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(address) };
            (size_of::<libc::sockaddr_in6>(), v6.scope_id())
        }
    };
    let mut control = from.map(|from| control::packet_info(from, scope_id));
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: a msghdr of zeros is valid: it holds only integers and pointers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut storage).cast();
    message.msg_namelen = name_length as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(control) = &mut control {
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = control.len() as _;
    }
    let flags = libc::MSG_NOSIGNAL | if wait { 0 } else { libc::MSG_DONTWAIT };
    // SAFETY: name, buffer and control buffer of `message` are as long as it says and outlive the call, which only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
