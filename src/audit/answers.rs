//! Clients whose packets arrive at a listening socket and that get no answer.

use super::Finding;
use crate::code::Code;
use crate::diag::Severity;
use crate::model::{Exposure, ListeningSocket, Protocol, Snapshot};
use crate::plan::local_table::LocalAddresses;
use crate::plan::reach;

/// Clients that get no answer from TCP sockets that are reached from outside.
pub(super) fn lost(
    host: &Snapshot,
    sockets: &[ListeningSocket],
    local: &LocalAddresses,
    findings: &mut Vec<Finding>,
) {
    let outside = sockets.iter().filter(|socket| {
        let exposure = socket.view.exposure;
        socket.view.protocol == Protocol::Tcp && exposure.ipv4.max(exposure.ipv6) >= Exposure::Link
    });
    let services: Vec<reach::Service> = outside
        .map(|socket| reach::Service {
            protocol: socket.view.protocol,
            port: socket.view.port,
            user: socket.uid,
            mark: socket.mark,
        })
        .collect();
    if services.is_empty() {
        return;
    }
    for one in reach::unanswered(host, local, &services) {
        let addresses: Vec<String> = one.to.iter().take(4).map(ToString::to_string).collect();
        let more = one.to.len().saturating_sub(addresses.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let mut ports: Vec<u16> = one.services.iter().map(|service| service.port).collect();
        ports.dedup();
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        let ports = if ports.is_empty() { String::new() } else { format!(" port {}", ports.join(", ")) };
        let message = format!(
            "clients of {} get no answer from {}{more}{ports}: {}: {}",
            one.source,
            addresses.join(", "),
            one.why.title(),
            one.answer
        );
        let help = format!("`bindscope explain {}`", one.why);
        findings.push(Finding::new(Code::ANSWERS_LOST, Severity::Note, None, message).help(help));
    }
    for one in reach::barred(host, local, &services) {
        let finding = Finding::new(Code::ANSWERS_LOST, Severity::Note, None, one.to_string());
        findings.push(finding.help("`ip rule` and `ip route show table all` list the rules and routes"));
    }
}
