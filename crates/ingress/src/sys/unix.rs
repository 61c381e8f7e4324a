//! What all Unix systems have: addresses of sockets, and addresses of interfaces by getifaddrs(3).
#![expect(unsafe_code, reason = "system calls")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

type AddressCall =
    unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

/// getsockname(2).
pub(crate) fn local_addr(socket: &impl AsFd) -> io::Result<SocketAddr> {
    address_of(socket, libc::getsockname)
}

/// getpeername(2).
pub(crate) fn peer_addr(socket: &impl AsFd) -> io::Result<SocketAddr> {
    address_of(socket, libc::getpeername)
}

fn address_of(socket: &impl AsFd, call: AddressCall) -> io::Result<SocketAddr> {
    // SAFETY: a sockaddr_storage of zeros is valid: it holds only integers.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `storage` and the address length to `length`; both outlive the call.
    let answer = unsafe { call(socket.as_fd().as_raw_fd(), (&raw mut storage).cast(), &raw mut length) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    socket_addr(&storage)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a socket of IPv4 or IPv6"))
}

/// The address in a `sockaddr_storage` that the kernel has filled in.
pub(super) fn socket_addr(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that a sockaddr_in is stored; the storage is large enough and aligned for it.
            let v4 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(address, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that a sockaddr_in6 is stored; the storage is large enough and aligned for it.
            let v6 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let (address, port) = (v6.sin6_addr.s6_addr.into(), u16::from_be(v6.sin6_port));
            Some(SocketAddrV6::new(address, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Whether this is a stream socket (SO_TYPE).
pub(crate) fn is_stream(socket: &impl AsFd) -> io::Result<bool> {
    Ok(option(socket, libc::SOL_SOCKET, libc::SO_TYPE)? == libc::SOCK_STREAM)
}

/// An integer option of a socket.
pub(super) fn option(socket: &impl AsFd, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes to `value` and the number written to `length`; both outlive the call.
    let answer =
        unsafe { libc::getsockopt(descriptor, level, name, (&raw mut value).cast(), &raw mut length) };
    if answer == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// The only interface that has this address, in the network namespace of the calling thread.
pub(super) fn only_owner(address: IpAddr) -> Option<u32> {
    // One route makes all of 127.0.0.0/8 local to the interface that has 127.0.0.1.
    let loopback = matches!(address, IpAddr::V4(v4) if v4.is_loopback());
    let address = if loopback { Ipv4Addr::LOCALHOST.into() } else { address };
    let mut first = std::ptr::null_mut();
    // SAFETY: getifaddrs writes a list to `first`, or fails.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return None;
    }
    let mut owner = None;
    let mut several = false;
    let mut entry = first;
    // SAFETY: `entry` is null or an entry of the list, which is freed after the loop.
    while let Some(one) = unsafe { entry.as_ref() } {
        entry = one.ifa_next;
        // SAFETY: `ifa_addr` is null or points to an address as long as its family says, and `ifa_name` is a C string.
        let index = unsafe {
            if ip_of(one.ifa_addr) == Some(address) { libc::if_nametoindex(one.ifa_name) } else { 0 }
        };
        if index != 0 {
            several |= owner.is_some_and(|owner| owner != index);
            owner = Some(index);
        }
    }
    // SAFETY: `first` came from getifaddrs and is not used afterwards.
    unsafe { libc::freeifaddrs(first) };
    owner.filter(|_| !several)
}

/// if_indextoname(3).
#[cfg(any(bindscope_portable, not(target_os = "linux")))]
pub(super) fn name_of(index: u32) -> Option<crate::InterfaceName> {
    let mut name = [0u8; libc::IF_NAMESIZE];
    // SAFETY: the function writes at most IF_NAMESIZE bytes, a C string, to `name`, which outlives the call.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    if found.is_null() { None } else { crate::InterfaceName::from_bytes(&name) }
}

/// # Safety
/// `address` is null or points to an address as long as its family says.
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: by the contract of this function.
    match libc::c_int::from(unsafe { address.as_ref() }?.sa_family) {
        libc::AF_INET => {
            // SAFETY: the family says that a sockaddr_in is there; it is read without regard to alignment.
            let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that a sockaddr_in6 is there; it is read without regard to alignment.
            let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(IpAddr::V6(v6.sin6_addr.s6_addr.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_addresses_belong_to_one_interface() {
        let owner = only_owner([127, 0, 0, 1].into()).unwrap();
        assert_eq!(only_owner([127, 9, 9, 9].into()), Some(owner));
        assert_eq!(only_owner([192, 0, 2, 77].into()), None);
        assert_eq!(only_owner([0, 0, 0, 0].into()), None);
    }

    #[test]
    fn sockets_of_other_families_are_refused() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(local_addr(&one).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(crate::of(&one).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_socket_that_is_not_a_connection_has_no_ingress() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(crate::of(&listener).unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        datagrams.connect(datagrams.local_addr().unwrap()).unwrap();
        assert_eq!(crate::of(&datagrams).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
