//! Findings about the host and its listeners together.

use super::{is_mapped_wildcard, takes};
use crate::audit::{Finding, plain};
use crate::code::Code;
use crate::diag::Severity;
use crate::model::{Family, ListeningSocket, Snapshot};
use crate::plan::local_table::any_ip_routes;

/// Local routes that make addresses ours without any interface having them.
pub(super) fn any_ip(host: &Snapshot, sockets: &[ListeningSocket], findings: &mut Vec<Finding>) {
    for (network, _) in any_ip_routes(host) {
        let family = if network.addr().is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
        let wildcards = sockets
            .iter()
            .filter(|socket| {
                takes(socket, family)
                    && (socket.view.address.is_unspecified() || is_mapped_wildcard(socket.view.address))
            })
            .count();
        if wildcards > 0 {
            findings.push(
                Finding::new(
                    Code::ANY_IP,
                    Severity::Note,
                    None,
                    format!("a local route makes {network} this host's own: {wildcards} wildcard listeners answer there, and no interface shows it"),
                )
                .help("see `ip route show table local`"),
            );
        }
    }
}

/// IPv4 labels that name another interface.
pub(super) fn labels(host: &Snapshot, findings: &mut Vec<Finding>) {
    for (interface, address) in host.addresses() {
        let Some(label) = address.label.as_ref().filter(|label| **label != interface.name) else { continue };
        if host.interface_named(label).is_some() {
            findings.push(
                Finding::new(
                    Code::LABEL_MASKS_INTERFACE,
                    Severity::Warning,
                    None,
                    format!(
                        "{} is on {} and labelled {}, which is another interface: programs that go by the label are wrong",
                        address.address,
                        plain(&interface.name),
                        plain(label)
                    ),
                )
                .help("give the address another label (ip address add ... label)"),
            );
        }
    }
}
