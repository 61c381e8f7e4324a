//! Judges the ports that address translation publishes.

use super::Judge;
use crate::audit::{Audit, Check, Finding, Published, Verdict};
use crate::code::Code;
use crate::diag::Severity;
use crate::profile::policy::{Allow, Match, Waive};

impl Judge<'_> {
    /// Whether the policy allows the ports that address translation publishes: a rule names one by protocol and port, and allows
    /// its exposure.
    pub(super) fn published(&self, report: &mut Audit) {
        for (place, one) in report.published.iter().enumerate() {
            let allows = |rule: &&Allow| {
                let matches = &rule.matches;
                let anything =
                    Match { protocol: None, ports: Vec::new(), ..matches.clone() } == Match::default();
                let covers =
                    |(first, last): (u16, u16)| matches.ports_in(&(first..=last)) == (first..=last).count();
                anything
                    && rule.expires.is_none_or(|last| last >= self.today)
                    && matches.protocol.is_none_or(|protocol| one.protocol == Some(protocol))
                    && (matches.ports.is_empty() || one.ports.is_some_and(covers))
                    && one.exposure.widest() <= rule.exposure
                    && !rule.filtered
            };
            let rule = self.policy.allow.iter().find(allows);
            let (verdict, because, at) = match rule {
                Some(rule) => {
                    (Verdict::Pass, format!("allowed by \"{}\"", rule.id), self.place(&rule.places, "id"))
                }
                None if !self.policy.deny_by_default => {
                    let because = "the policy allows what it does not name".to_owned();
                    (Verdict::Pass, because, self.place(&self.policy.places, "default"))
                }
                None => {
                    let because =
                        format!("no rule of the policy allows the published port {}", one.summary());
                    (Verdict::Fail, because, self.place(&self.policy.places, "default"))
                }
            };
            if verdict == Verdict::Fail {
                let mut finding = Finding::new(Code::NOT_ALLOWED, Severity::Error, None, because.clone())
                    .help(
                        "remove the rule that publishes it, or add an [[allow]] with its port and a reason",
                    );
                finding.location = Some(at.clone());
                finding.published = Some(place);
                report.findings.push(finding);
            } else if rule.is_some() {
                let about = |finding: &&mut Finding| finding.published == Some(place);
                report
                    .findings
                    .iter_mut()
                    .filter(about)
                    .for_each(|finding| finding.severity = Severity::Note);
            }
            report.checks.push(Check {
                name: format!("{} may be published", one.summary()),
                socket: None,
                required_by: None,
                verdict,
                because,
                location: Some(at),
            });
        }
    }

    /// Whether a waiver is about a published port: it has a port and a protocol in common with it, and names nothing that only a
    /// socket has.
    pub(super) fn waives_published(waiver: &Waive, one: &Published) -> bool {
        let matches = &waiver.matches;
        let of_sockets = Match { protocol: None, ports: Vec::new(), ..matches.clone() } != Match::default();
        let (first, last) = one.ports.unwrap_or((0, u16::MAX));
        let ports = matches.ports.is_empty() || matches.ports_in(&(first..=last)) > 0;
        let same = |protocol| one.protocol.is_none_or(|own| own == protocol);
        !of_sockets && ports && matches.protocol.is_none_or(same)
    }
}
