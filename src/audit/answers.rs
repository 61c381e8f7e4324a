//! Clients whose packets arrive at a listening socket and that get no answer.

use super::Finding;
use crate::code::Code;
use crate::diag::Severity;
use crate::model::{Exposure, ListeningSocket, Protocol, Snapshot};
use crate::plan::local_table::LocalAddresses;
use crate::plan::reach;

/// Clients whose packets arrive and that get no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostAnswers {
    /// Who, from which addresses and ports, and the rule or route that decides it.
    pub message: String,
    /// Where to read more.
    pub help: String,
}

/// A finding for each group of clients that get no answer.
pub(super) fn report(
    host: &Snapshot,
    sockets: &[ListeningSocket],
    local: &LocalAddresses,
    findings: &mut Vec<Finding>,
) {
    findings.extend(
        lost(host, sockets.iter(), local)
            .into_iter()
            .map(|one| Finding::new(Code::ANSWERS_LOST, Severity::Note, None, one.message).help(one.help)),
    );
}

/// Clients that get no answer from those of the sockets that speak TCP and are reached from outside.
#[must_use]
pub fn lost<'a>(
    host: &Snapshot,
    sockets: impl Iterator<Item = &'a ListeningSocket>,
    local: &LocalAddresses,
) -> Vec<LostAnswers> {
    let outside = sockets.filter(|socket| {
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
        return Vec::new();
    }
    let unanswered = reach::unanswered(host, local, &services);
    let unanswered = unanswered.iter().map(|one| {
        let addresses: Vec<String> = one.to.iter().take(4).map(ToString::to_string).collect();
        let more = one.to.len().saturating_sub(addresses.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let mut ports: Vec<u16> = one.services.iter().map(|service| service.port).collect();
        ports.dedup();
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        let ports = if ports.is_empty() { String::new() } else { format!(" port {}", ports.join(", ")) };
        LostAnswers {
            message: format!(
                "clients of {} get no answer from {}{more}{ports}: {}: {}",
                one.source,
                addresses.join(", "),
                one.why.title(),
                one.answer
            ),
            help: format!("`bindscope explain {}`", one.why),
        }
    });
    let barred = reach::barred(host, local, &services);
    let barred = barred.iter().map(|one| LostAnswers {
        message: one.to_string(),
        help: "`ip rule` and `ip route show table all` list the rules and routes".to_owned(),
    });
    unanswered.chain(barred).collect()
}
