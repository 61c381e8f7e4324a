//! As JUnit XML.

use super::level;
use crate::audit::{Check, Report, Verdict, identity};
use crate::diag::Severity;
use crate::render::junit::{Case, Outcome, Suite, document};

/// One test case for each check of the policy; without a policy, one for each socket. Names are identities of listeners, which are
/// the same in every run.
#[must_use]
pub fn junit(report: &Report) -> String {
    let name = report.policy.as_deref().unwrap_or("bindscope audit");
    let messages = report.incomplete_because.iter().map(|because| format!("not complete: {because}"));
    document(&Suite { name, cases: cases(report), messages: messages.collect() })
}

fn cases(report: &Report) -> Vec<Case<'_>> {
    let names = identity::names(&report.sockets);
    if report.policy.is_some() {
        let case = |check: &Check| {
            let place = check.location.as_ref().map_or_else(String::new, |place| {
                let (line, column) = place.line_column();
                format!(" ({}:{line}:{column})", place.file)
            });
            let text = format!("{}{place}", check.because);
            let outcome = match check.verdict {
                Verdict::Pass => Outcome::Pass,
                Verdict::Fail => Outcome::Failure("policy".to_owned(), text),
                Verdict::Undecided => Outcome::Error("undecided".to_owned(), text),
            };
            let name = match check.socket.and_then(|place| names.get(place)) {
                Some(name) => format!("{name} may be there"),
                None => check.name.clone(),
            };
            Case { class: "bindscope.policy", name, outcome }
        };
        return report.checks.iter().map(case).collect();
    }
    let mut cases: Vec<Case<'_>> = Vec::new();
    // Readers do not count it as passed.
    if report.unseen() {
        let because = report.incomplete_because.join("; ");
        let outcome = Outcome::Error("undecided".to_owned(), because);
        cases.push(Case { class: "bindscope.audit", name: "what listens here is known".to_owned(), outcome });
    }
    let findings = report.counting_by_socket();
    for (place, name) in names.into_iter().enumerate() {
        let worst = findings.of(place).find(|finding| finding.severity == Severity::Error);
        let outcome = worst.map_or(Outcome::Pass, |finding| {
            let text = format!("{}: {}", level(finding.severity), finding.message);
            Outcome::Failure(finding.code.to_string(), text)
        });
        cases.push(Case { class: "bindscope.socket", name, outcome });
    }
    cases
}
