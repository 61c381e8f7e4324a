//! The error queue of a socket: Linux alone has one.

use socket2::Socket;

use crate::model::{Answer, Errno};

/// Nothing can be asked for here.
pub fn report_icmp(_socket: &Socket, _ipv6: bool) {}

/// No ICMP error is reported here.
#[must_use]
pub fn take_icmp(_socket: &Socket) -> Option<(Errno, Answer)> {
    None
}
