//! Sockets of clients and servers, by evidence: ports that the kernel may have chosen, and UDP sockets of clients.

use std::collections::BTreeSet;

use serde::Serialize;

use super::Site;
use crate::model::{Family, ListeningSocket, Protocol, SocketState};

/// A socket that a report leaves out, with the reason.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Skipped {
    /// The socket.
    #[serde(flatten)]
    pub socket: ListeningSocket,
    /// Why it is left out.
    pub because: &'static str,
}

/// The evidence for a client socket.
const CLIENT: &str = "the UDP socket of a client: the kernel may have chosen its port, it serves one family, and a process owns it";

/// Whether one socket serves both families.
fn both_families(socket: &ListeningSocket) -> bool {
    let view = &socket.view;
    view.address.is_ipv6() && view.address.is_unspecified() && view.v6only != Some(true)
}

/// Sets [`ListeningSocket::port_chosen`]. The kernel may have chosen a port if four conditions hold: the port is in the
/// namespace's range of such ports and is not reserved, no socket of the other family has the same number, and the
/// socket does not belong to the kernel itself.
pub fn mark(site: &mut Site) {
    let Some(ports) = &site.client_ports else { return };
    let key = |socket: &ListeningSocket, family| (socket.view.protocol, socket.view.port, family);
    let family = |socket: &ListeningSocket| Family::of(socket.view.address.to_canonical());
    let taken: BTreeSet<(Protocol, u16, Family)> = site
        .sockets
        .iter()
        .filter(|socket| ports.contains(socket.view.port))
        .map(|socket| key(socket, family(socket)))
        .collect();
    for socket in &mut site.sockets {
        let other = match family(socket) {
            Family::Ipv4 => Family::Ipv6,
            Family::Ipv6 => Family::Ipv4,
        };
        socket.port_chosen = Some(
            ports.contains(socket.view.port)
                && !taken.contains(&key(socket, other))
                && socket.kernel.is_none()
                && !socket.held_by_kernel(),
        );
    }
}

/// Whether there is evidence that the socket is a client's.
#[must_use]
pub fn is_client(socket: &ListeningSocket) -> bool {
    socket.view.protocol == Protocol::Udp
        && socket.state == SocketState::Unconnected
        && socket.port_chosen == Some(true)
        && !both_families(socket)
        && !socket.view.address.is_multicast()
        && !socket.known_owners().is_empty()
}

/// Removes the sockets of clients from a site.
pub fn take(site: &mut Site) -> Vec<Skipped> {
    let (clients, rest) = std::mem::take(&mut site.sockets).into_iter().partition(is_client);
    site.sockets = rest;
    let clients: Vec<ListeningSocket> = clients;
    clients.into_iter().map(|socket| Skipped { socket, because: CLIENT }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::socket;
    use crate::model::{ClientPorts, KernelHolder};

    fn skipped(sockets: &[ListeningSocket], reserved: &str) -> Vec<String> {
        let client_ports = ClientPorts::parse("32768 60999", reserved);
        let mut site = Site { sockets: sockets.to_vec(), client_ports, ..Site::default() };
        mark(&mut site);
        take(&mut site).iter().map(|one| one.socket.view.to_string()).collect()
    }

    #[test]
    fn a_client_is_one_by_evidence_only() {
        let left_out =
            |texts: &[&str]| skipped(&texts.iter().map(|text| socket(text)).collect::<Vec<_>>(), "");
        assert_eq!(left_out(&["udp 0.0.0.0:40000"]).len(), 1);
        assert_eq!(left_out(&["udp [::]:40000 v6only"]).len(), 1);
        assert_eq!(left_out(&["udp 10.0.0.5:40000"]).len(), 1);
        for kept in [
            &["udp 0.0.0.0:5353"][..],
            &["tcp 0.0.0.0:40000"],
            &["udp [::]:40000 dual"],
            &["udp [::]:40000 ?"],
            &["udp 0.0.0.0:40000", "udp [::]:40000 v6only"],
            &["udp 10.0.0.5:40000", "udp [2001:db8::5]:40000"],
            &["udp 224.0.0.251:40000"],
        ] {
            assert_eq!(left_out(kept), Vec::<String>::new(), "{kept:?}");
        }
        // The same number in TCP is a different port.
        assert_eq!(left_out(&["udp 0.0.0.0:40000", "tcp [::]:40000 v6only"]).len(), 1);
    }

    #[test]
    fn reserved_ports_and_sockets_of_the_kernel_are_no_clients() {
        let one = socket("udp 0.0.0.0:40000");
        assert_eq!(skipped(std::slice::from_ref(&one), "39999-40001"), Vec::<String>::new());
        assert_eq!(skipped(std::slice::from_ref(&one), "39999,40001").len(), 1);
        let unknown = ListeningSocket { owners: None, ..one.clone() };
        assert_eq!(skipped(&[unknown], ""), Vec::<String>::new(), "its owner is unknown");
        let kernel = ListeningSocket { owners: Some([].into()), ..one.clone() };
        assert_eq!(skipped(&[kernel], ""), Vec::<String>::new());
        let wireguard = Some(KernelHolder { kind: "wireguard".to_owned(), name: None });
        assert_eq!(
            skipped(&[ListeningSocket { kernel: wireguard, ..one.clone() }], ""),
            Vec::<String>::new()
        );
        let mut site = Site { sockets: vec![one], ..Site::default() };
        mark(&mut site);
        assert!(take(&mut site).is_empty(), "without the range nothing is known");
    }
}
