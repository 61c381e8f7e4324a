//! What this user can see of the machine: no socket of another program on this system.

use crate::sys::Visibility;

/// No test was made.
#[must_use]
pub fn visibility() -> Visibility {
    Visibility {
        ipv6_sockets: socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None)
            .map(|_| ())
            .err(),
        ..Visibility::default()
    }
}
