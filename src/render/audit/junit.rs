//! As JUnit XML, in the subset that Jenkins, GitLab and GitHub reporters read.

use std::fmt::Write as _;

use super::{address, level, owners};
use crate::audit::{Report, Verdict};
use crate::diag::Severity;
use crate::escape::{html_entities, printable};

/// One test case for each check of the policy; without a policy, one for each socket.
#[must_use]
pub fn junit(report: &Report) -> String {
    let cases = cases(report);
    let count = |kind: &str| {
        cases.iter().filter(|case| case.outcome.as_ref().is_some_and(|(k, ..)| *k == kind)).count()
    };
    let (failures, errors) = (count("failure"), count("error"));
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        out,
        "<testsuites name=\"bindscope audit\" tests=\"{0}\" failures=\"{failures}\" errors=\"{errors}\">\n  \
         <testsuite name=\"{1}\" tests=\"{0}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"0\">",
        cases.len(),
        xml(report.policy.as_deref().unwrap_or("bindscope audit"))
    );
    for case in &cases {
        let _ = write!(out, "    <testcase classname=\"{}\" name=\"{}\"", xml(case.class), xml(&case.name));
        match &case.outcome {
            None => out.push_str("/>\n"),
            Some((kind, code, text)) => {
                let _ = writeln!(
                    out,
                    ">\n      <{kind} type=\"{}\" message=\"{1}\">{1}</{kind}>\n    </testcase>",
                    xml(code),
                    xml(text)
                );
            }
        }
    }
    if !report.incomplete_because.is_empty() {
        let lines: Vec<String> = report.incomplete_because.iter().map(|because| xml(because)).collect();
        let _ = writeln!(out, "    <system-err>not complete: {}</system-err>", lines.join("\n"));
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

struct Case<'a> {
    class: &'a str,
    name: String,
    /// Element, type and text.
    outcome: Option<(&'static str, String, String)>,
}

fn cases(report: &Report) -> Vec<Case<'_>> {
    if report.policy.is_some() {
        let case = |check: &crate::audit::Check| {
            let place = check.location.as_ref().map_or_else(String::new, |place| {
                let (line, column) = place.line_column();
                format!(" ({}:{line}:{column})", place.file)
            });
            let text = format!("{}{place}", check.because);
            let outcome = match check.verdict {
                Verdict::Pass => None,
                Verdict::Fail => Some(("failure", "policy".to_owned(), text)),
                // Undecided is no pass: readers count it as an error.
                Verdict::Undecided => Some(("error", "undecided".to_owned(), text)),
            };
            Case { class: "bindscope.policy", name: check.name.clone(), outcome }
        };
        return report.checks.iter().map(case).collect();
    }
    let mut cases: Vec<Case<'_>> = Vec::new();
    // Readers take no case for a pass.
    if report.unseen() {
        let because = report.incomplete_because.join("; ");
        let outcome = Some(("error", "undecided".to_owned(), because));
        cases.push(Case { class: "bindscope.audit", name: "what listens here is known".to_owned(), outcome });
    }
    for (place, socket) in report.sockets.iter().enumerate() {
        let worst = report
            .findings
            .iter()
            .filter(|finding| {
                finding.socket == Some(place) && finding.counts() && finding.severity == Severity::Error
            })
            .map(|finding| {
                (
                    "failure",
                    finding.code.to_string(),
                    format!("{}: {}", level(finding.severity), finding.message),
                )
            })
            .next();
        cases.push(Case {
            class: "bindscope.socket",
            name: format!("{} {} {}", socket.view.protocol, address(socket), owners(socket)),
            outcome: worst,
        });
    }
    cases
}

/// Text for XML 1.0: made safe for a person, then for XML; the two noncharacters that XML forbids are made visible.
fn xml(text: &str) -> String {
    html_entities(&printable(text)).replace('\u{fffe}', "\\u{fffe}").replace('\u{ffff}', "\\u{ffff}")
}
