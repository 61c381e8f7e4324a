//! The ingress interface on systems without a system call for it: unknown, never guessed.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ingress_interface::kernel::Received;
use socket2::{SockAddr, Socket};

use crate::model::{Family, IfName, Protocol};
use crate::sys::TransportState;

/// Nothing to request on this system.
///
/// # Errors
/// None.
pub fn request(_socket: &Socket, _domain: Family, _protocol: Protocol) -> io::Result<()> {
    Ok(())
}

/// Not known on this system.
///
/// # Errors
/// None.
pub fn ingress_of_connection(_socket: &Socket, _native_ipv6: bool) -> io::Result<Option<u32>> {
    Ok(None)
}

/// Not known on this system.
///
/// # Errors
/// None.
pub fn origin_of_connection(
    _socket: &Socket,
    _native_ipv6: bool,
) -> io::Result<Option<(u32, Option<Ipv4Addr>)>> {
    Ok(None)
}

/// Not looked up on this system.
#[must_use]
pub fn interface_name(_socket: &Socket, _index: u32) -> Option<IfName> {
    None
}

/// Receives one datagram. Destination address and interface are not known here.
///
/// # Errors
/// As `recvfrom(2)`; EAGAIN when none waits.
pub fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<Received> {
    let mut room = vec![MaybeUninit::uninit(); buffer.len()];
    let (length, peer) = socket.recv_from(&mut room)?;
    let peer = peer.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    for (to, from) in buffer.iter_mut().zip(&room[..length]) {
        // SAFETY: `recv_from` returned `length`, so that many bytes of `room` are initialised.
        #[expect(unsafe_code, reason = "socket2 hands out uninitialised buffers")]
        let byte = unsafe { from.assume_init() };
        *to = byte;
    }
    Ok(Received {
        length,
        truncated: false,
        peer,
        destination: None,
        reply_from: None,
        index: None,
        dropped: None,
        received_at: None,
    })
}

/// Sends one datagram; the system chooses the source address.
///
/// # Errors
/// As `sendto(2)`.
pub fn send(socket: &Socket, bytes: &[u8], peer: SocketAddr, _from: Option<IpAddr>) -> io::Result<usize> {
    socket.send_to(bytes, &SockAddr::from(peer))
}

/// Not known on this system.
///
/// # Errors
/// Always: `Unsupported`.
pub fn listen_queue(_socket: &Socket) -> io::Result<TransportState> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Not known on this system.
#[must_use]
pub fn age_of_connection(_socket: &Socket) -> Option<(Duration, Duration)> {
    None
}

/// Not known on this system.
#[must_use]
pub fn dropped_datagrams(_socket: &Socket) -> Option<u32> {
    None
}

/// Not known on this system.
#[must_use]
pub fn namespace_cookie(_socket: &Socket) -> Option<u64> {
    None
}
