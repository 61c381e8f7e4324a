//! The current network of the host, as far as a system without rtnetlink reports it.

use crate::model::{Host, Snapshot};
use crate::sys::host_id::host_id;
use crate::sys::{Error, getifaddrs};

/// Interfaces and addresses of this host. Routes, rules, settings, address states and interfaces without addresses stay unknown,
/// so that [`Snapshot::complete`] is always false.
///
/// # Errors
/// When the list of interfaces cannot be read.
pub fn snapshot() -> Result<Snapshot, Error> {
    let interfaces =
        getifaddrs::interfaces().map_err(|error| Error::call("list", "the network interfaces", error))?;
    let name = getifaddrs::host_name();
    Ok(Snapshot {
        host: Host {
            id: host_id(name.as_deref()),
            name,
            system: std::env::consts::OS.to_owned(),
            release: None,
            build: None,
            netns: None,
        },
        complete: false,
        incomplete_because: vec![
            "interfaces without addresses are not listed on this system".to_owned(),
            "states of addresses (tentative, deprecated) are not known on this system".to_owned(),
            "routes, rules and settings are not read on this system".to_owned(),
        ],
        interfaces,
        ipv6_available: ipv6_available(),
        ..Snapshot::default()
    })
}

/// The same as [`snapshot`]: there is no more data.
///
/// # Errors
/// Those of [`snapshot`].
pub fn addresses() -> Result<Snapshot, Error> {
    snapshot()
}

/// Whether an AF_INET6 socket can be created.
fn ipv6_available() -> bool {
    match socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None) {
        Ok(_) => true,
        Err(error) => crate::sys::errno_of(&error) != crate::model::Errno::EAFNOSUPPORT,
    }
}
