//! What this user can see of the machine: on this system, no socket of another program.

use crate::sys::Visibility;

/// Nothing was tried.
#[must_use]
pub fn visibility() -> Visibility {
    Visibility {
        ipv6_sockets: socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None)
            .map(|_| ())
            .err(),
        ..Visibility::default()
    }
}
