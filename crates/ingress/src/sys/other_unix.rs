//! Unix systems that do not report the interface of a TCP connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use super::unix;
use crate::InterfaceName;
use crate::kernel::{Received, Recorded};

pub(crate) fn set_report(_socket: &impl AsFd, _ipv6: bool, _on: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn report(_socket: &impl AsFd, _ipv6: bool) -> io::Result<bool> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn is_not_supported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

pub(crate) fn packet_options(_socket: &impl AsFd, _native_ipv6: bool) -> io::Result<Option<Recorded>> {
    Ok(None)
}

/// if_indextoname(3).
pub(crate) fn interface_name(_socket: &impl AsFd, index: u32) -> Option<InterfaceName> {
    unix::name_of(index)
}

pub(crate) fn owner(_socket: &impl AsFd, address: IpAddr) -> Option<u32> {
    unix::only_owner(address)
}

pub(crate) fn receive(_socket: &impl AsFd, _buffer: &mut [u8], _wait: bool) -> io::Result<Received> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn send(
    _socket: &impl AsFd,
    _bytes: &[u8],
    _peer: SocketAddr,
    _from: Option<IpAddr>,
    _wait: bool,
) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use crate::Evidence;

    #[test]
    fn a_connection_is_inferred_from_its_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(crate::record(&listener).unwrap_err().kind(), std::io::ErrorKind::Unsupported);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let ingress = crate::of(&listener.accept().unwrap().0).unwrap().unwrap();
        assert_eq!(ingress.evidence, Evidence::Address);
        assert!(ingress.name.unwrap().to_string().starts_with("lo"), "{ingress}");
    }

    #[test]
    fn datagrams_are_not_supported() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let received = crate::recv_with_ingress(&socket, &mut [0; 10]);
        assert_eq!(received.unwrap_err().kind(), std::io::ErrorKind::Unsupported);
    }
}
