//! Windows, where the parts of this crate that have a portable answer have none either: `libc` does not cover sockets there.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::AsSocket;
use crate::InterfaceName;
use crate::kernel::{Received, Recorded};

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn local_addr(_socket: &impl AsSocket) -> io::Result<SocketAddr> {
    unsupported()
}

pub(crate) fn peer_addr(_socket: &impl AsSocket) -> io::Result<SocketAddr> {
    unsupported()
}

pub(crate) fn is_stream(_socket: &impl AsSocket) -> io::Result<bool> {
    unsupported()
}

pub(crate) fn set_report(_socket: &impl AsSocket, _ipv6: bool, _on: bool) -> io::Result<()> {
    unsupported()
}

pub(crate) fn report(_socket: &impl AsSocket, _ipv6: bool) -> io::Result<bool> {
    unsupported()
}

pub(crate) fn is_not_supported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

pub(crate) fn packet_options(_socket: &impl AsSocket, _native_ipv6: bool) -> io::Result<Option<Recorded>> {
    Ok(None)
}

pub(crate) fn interface_name(_socket: &impl AsSocket, _index: u32) -> Option<InterfaceName> {
    None
}

pub(crate) fn owner(_socket: &impl AsSocket, _address: IpAddr) -> Option<u32> {
    None
}

pub(crate) fn receive(_socket: &impl AsSocket, _buffer: &mut [u8], _wait: bool) -> io::Result<Received> {
    unsupported()
}

pub(crate) fn send(
    _socket: &impl AsSocket,
    _bytes: &[u8],
    _peer: SocketAddr,
    _from: Option<IpAddr>,
    _wait: bool,
) -> io::Result<usize> {
    unsupported()
}
