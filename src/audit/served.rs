//! Established connections and their listeners.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::model::{Arrival, Family, IfName, ListeningSocket, Owners, Protocol, SocketState, SocketView};

/// The body of the document of `bindscope connections`.
#[derive(Debug, Clone, Serialize)]
pub struct Connections {
    /// Time, RFC 3339 UTC.
    pub time: String,
    /// The connections, by local and peer address.
    pub connections: Vec<Connection>,
    /// Number of connections per ingress interface; `unknown` if the kernel did not report it.
    pub by_ingress: BTreeMap<IfName, usize>,
}

/// One connection.
#[derive(Debug, Clone, Serialize)]
pub struct Connection {
    /// The listener of its port and address; null if it no longer listens.
    pub socket: Option<SocketView>,
    /// Client and ingress interface. Its `listener` is the socket's address and port.
    #[serde(flatten)]
    pub arrival: Arrival,
    /// Why the kernel did not report the interface; null if it did.
    pub ingress_unknown_because: Option<String>,
    /// Inode; null while it waits for accept.
    pub inode: Option<u64>,
    /// Owners; null if they could not be read.
    pub owners: Option<Owners>,
}

/// The listener through which a connection to `local` was accepted: a specific address wins over a wildcard, and an
/// IPv4 socket over a dual-stack one. `device` is the device of the connection, inherited from its listener or from its
/// zone.
#[must_use]
pub fn listener_of(
    local: IpAddr,
    port: u16,
    device: Option<u32>,
    listeners: &[ListeningSocket],
) -> Option<&ListeningSocket> {
    let local = local.to_canonical();
    let family = Family::of(local);
    let fits = |socket: &&ListeningSocket| {
        let view = &socket.view;
        let bound = view.address.to_canonical();
        let address = bound == local
            || view.address.is_unspecified()
                && (Family::of(bound) == family || family == Family::Ipv4 && view.v6only != Some(true))
            || bound.is_unspecified() && Family::of(bound) == family;
        let on_device = socket.device_index.is_none() || socket.device_index == device;
        socket.state == SocketState::Listen
            && view.protocol == Protocol::Tcp
            && view.port == port
            && address
            && on_device
    };
    listeners.iter().filter(fits).max_by_key(|socket| {
        let view = &socket.view;
        let exact = view.address.to_canonical() == local;
        (exact, socket.device_index.is_some(), view.family == family)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::socket;

    #[test]
    fn the_listener_that_the_kernel_would_ask_is_named() {
        let listeners: Vec<ListeningSocket> = [
            "tcp 0.0.0.0:80",
            "tcp [::]:80 v6only",
            "tcp 127.0.0.1:80",
            "tcp [::]:81 dual",
            "tcp [::]:82 v6only",
            "tcp 0.0.0.0:83 device 2",
            "udp 0.0.0.0:84",
            "tcp [::ffff:0.0.0.0]:85",
        ]
        .map(socket)
        .into();
        for (local, port, device, expected) in [
            ("127.0.0.1", 80, None, Some(2)),
            ("10.0.0.5", 80, None, Some(0)),
            ("::1", 80, None, Some(1)),
            ("::ffff:10.0.0.5", 81, None, Some(3)),
            ("::1", 81, None, Some(3)),
            ("10.0.0.5", 82, None, None),
            ("10.0.0.5", 83, Some(2), Some(5)),
            ("10.0.0.5", 83, None, None),
            ("10.0.0.5", 84, None, None),
            ("::ffff:10.0.0.5", 85, None, Some(7)),
            ("::1", 85, None, None),
        ] {
            let found = listener_of(local.parse().unwrap(), port, device, &listeners);
            let expected = expected.map(|place: usize| &listeners[place]);
            assert_eq!(found, expected, "{local} {port} {device:?}");
        }
    }
}
