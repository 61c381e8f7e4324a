//! What this user can see of the machine: on this system, no socket of another program.

use crate::sys::Sight;

/// Nothing was tried.
#[must_use]
pub fn sight() -> Sight {
    Sight {
        ipv6_sockets: socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None)
            .map(|_| ())
            .err(),
        ..Sight::default()
    }
}
