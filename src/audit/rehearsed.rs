//! Differences between tests in a copy and the plan, or the exposure of sockets.

use super::{Finding, Report};
use crate::code::Code;
use crate::diag::Severity;
use crate::model::rehearsal::Rehearsal;
use crate::model::{Exposure, Protocol};

/// Adds the test results to the report, with a finding for each socket whose reach differs from its exposure.
pub fn add(report: &mut Report, rehearsal: Rehearsal) {
    for one in &rehearsal.sockets {
        let (Some(seen), Some(socket)) = (one.observed, report.sockets.get(one.socket)) else { continue };
        let (said, udp) = (socket.view.exposure, socket.view.protocol == Protocol::Udp);
        if let Some((first, more)) = one.differs.split_first() {
            let more = match more.len() {
                0 => String::new(),
                count => format!("; and {count} more"),
            };
            let message = format!("in a copy of this host's network: {first}{more}");
            let finding = Finding::new(Code::REHEARSAL_DIFFERS, Severity::Warning, Some(one.socket), message);
            report.findings.push(finding.help("`bindscope lab run --twin -v` shows all results, and why"));
        }
        // The test sends no broadcasts, which are the only way to reach a UDP wildcard without an IPv4 address.
        let sent_to_all =
            udp && said.ipv4 == Exposure::Link && seen.ipv4 < said.ipv4 && seen.ipv6 == said.ipv6;
        if seen == said || sent_to_all {
            continue;
        }
        let wider = seen.ipv4 > said.ipv4 || seen.ipv6 > said.ipv6;
        let severity = if wider { Severity::Warning } else { Severity::Note };
        let message = format!(
            "in a copy of this host's network it is reached over IPv4 as {} and over IPv6 as {}; its exposure says {} and {}",
            seen.ipv4, seen.ipv6, said.ipv4, said.ipv6
        );
        let finding = Finding::new(Code::REHEARSAL_DIFFERS, severity, Some(one.socket), message);
        report.body.findings.push(finding.help("`bindscope lab run --twin` shows who reaches what, and why"));
    }
    report
        .incomplete_because
        .extend(rehearsal.incomplete_because.iter().map(|because| format!("rehearsal: {because}")));
    report.body.rehearsal = Some(rehearsal);
    report.settle();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::{host, report_of, socket};
    use crate::model::FamilyExposure;
    use crate::model::rehearsal::Rehearsed;

    fn found(seen: Option<FamilyExposure>) -> Vec<Severity> {
        let mut report = report_of(vec![socket("tcp 10.0.0.5:80")], host());
        let before = report.findings.len();
        let one = Rehearsed {
            socket: 0,
            bound: seen.is_some(),
            errno: None,
            observed: seen,
            reached_from: Vec::new(),
            differs: Vec::new(),
            because: None,
        };
        let because = vec!["one thing".to_owned()];
        let (connections, sources, sockets) = (1, Vec::new(), vec![one]);
        let rehearsal =
            Rehearsal { complete: false, incomplete_because: because, connections, sources, sockets };
        add(&mut report, rehearsal);
        assert!(!report.complete);
        assert!(report.findings.len() <= before + 1);
        let mine = report.findings.iter().filter(|finding| finding.code == Code::REHEARSAL_DIFFERS);
        mine.map(|finding| finding.severity).collect()
    }

    #[test]
    fn every_result_that_differs_from_the_plan_is_reported() {
        let mut report = report_of(vec![socket("tcp 10.0.0.5:80")], host());
        let seen = report.sockets[0].view.exposure;
        let one = Rehearsed {
            socket: 0,
            bound: true,
            errno: None,
            observed: Some(seen),
            reached_from: Vec::new(),
            differs: vec![
                "link:eth0 to 10.0.0.5: accepted is predicted, and timeout was observed".to_owned(),
            ],
            because: None,
        };
        let rehearsal = Rehearsal {
            complete: true,
            incomplete_because: Vec::new(),
            connections: 1,
            sources: Vec::new(),
            sockets: vec![one],
        };
        add(&mut report, rehearsal);
        let mine = report.findings.iter().filter(|finding| finding.code == Code::REHEARSAL_DIFFERS);
        assert_eq!(mine.count(), 1, "the class of the exposure is the same, and an answer is not");
    }

    #[test]
    fn only_what_was_seen_and_differs_is_found() {
        let seen = |ipv4| Some(FamilyExposure { ipv4, ipv6: Exposure::None });
        assert_eq!(found(None), []);
        assert_eq!(found(seen(Exposure::Private)), []);
        assert_eq!(found(seen(Exposure::Global)), [Severity::Warning]);
        assert_eq!(found(seen(Exposure::Loopback)), [Severity::Note]);
    }
}
