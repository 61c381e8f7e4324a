//! The error queue of a socket (ip(7), `IP_RECVERR`): the ICMP errors that a client received, with type, code and sender.
//!
//! With this option an ICMP error ends a connection attempt at once. Without it an error over IPv6 waits for the next SYN, one
//! second later, if the socket was in use when the error arrived (`tcp_v6_err()` of `net/ipv6/tcp_ipv6.c`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use socket2::Socket;

use crate::model::{Answer, AnswerKind, Errno};

/// `SO_EE_ORIGIN_ICMP` and `SO_EE_ORIGIN_ICMP6` of `linux/errqueue.h`.
const ICMP: u8 = 2;
const ICMPV6: u8 = 3;

/// Lets a client's socket report ICMP errors. Where the option cannot be set the socket reports what it always does.
pub fn report_icmp(socket: &Socket, ipv6: bool) {
    let _ = setsockopt(socket, sockopt::Ipv4RecvErr, &true);
    if ipv6 {
        let _ = setsockopt(socket, sockopt::Ipv6RecvErr, &true);
    }
}

/// Takes the errors out of a socket's queue, and returns the last one that came by ICMP.
#[must_use]
pub fn take_icmp(socket: &Socket) -> Option<(Errno, Answer)> {
    let mut last = None;
    // A queue holds what the receive buffer has room for; a peer may fill it meanwhile.
    for _ in 0..64 {
        let mut space = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let Ok(message) = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut [], Some(&mut space), flags)
        else {
            break;
        };
        let Ok(controls) = message.cmsgs() else { continue };
        last = controls.filter_map(|control| answer(&control)).last().or(last);
    }
    last
}

fn answer(control: &ControlMessageOwned) -> Option<(Errno, Answer)> {
    let (error, from): (_, Option<IpAddr>) = match control {
        ControlMessageOwned::Ipv4RecvErr(error, from) => {
            let address = |from: &libc::sockaddr_in| Ipv4Addr::from(from.sin_addr.s_addr.to_ne_bytes());
            (error, from.as_ref().map(|from| address(from).into()))
        }
        ControlMessageOwned::Ipv6RecvErr(error, from) => {
            let address = |from: &libc::sockaddr_in6| Ipv6Addr::from(from.sin6_addr.s6_addr);
            (error, from.as_ref().map(|from| address(from).into()))
        }
        _ => return None,
    };
    let kind = match error.ee_origin {
        ICMP => AnswerKind::Icmp,
        ICMPV6 => AnswerKind::Icmpv6,
        _ => return None,
    };
    let from = from.map(|from| from.to_canonical()).filter(|from| !from.is_unspecified());
    let answer = Answer { kind, icmp_type: Some(error.ee_type), code: Some(error.ee_code), from };
    let errno = i32::try_from(error.ee_errno).ok()?;
    Some((crate::sys::errno_of(&std::io::Error::from_raw_os_error(errno)), answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Type};

    /// No socket listens on the port of a closed socket: the reply is ICMP port unreachable from the host itself.
    #[test]
    fn a_refused_datagram_has_its_icmp_error() {
        for (domain, address, kind, code) in [
            (Domain::IPV4, "127.0.0.1:0", AnswerKind::Icmp, (3, 3)),
            (Domain::IPV6, "[::1]:0", AnswerKind::Icmpv6, (1, 4)),
        ] {
            let address: std::net::SocketAddr = address.parse().unwrap();
            let closed = Socket::new(domain, Type::DGRAM, None).unwrap();
            if closed.bind(&address.into()).is_err() {
                eprintln!("not tested: there is no {address} here");
                continue;
            }
            let to = closed.local_addr().unwrap();
            drop(closed);
            let client = Socket::new(domain, Type::DGRAM, None).unwrap();
            report_icmp(&client, domain == Domain::IPV6);
            client.connect(&to).unwrap();
            assert_eq!(take_icmp(&client), None);
            client.send(b"x").unwrap();
            let (errno, answer) = take_icmp(&client).unwrap();
            assert_eq!(errno, Errno::ECONNREFUSED);
            assert_eq!((answer.kind, answer.icmp_type.zip(answer.code)), (kind, Some(code)));
            assert_eq!(answer.from, Some(address.ip()));
            assert_eq!(take_icmp(&client), None);
        }
    }
}
