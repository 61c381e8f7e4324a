//! Workflow commands of GitHub Actions, which annotate the lines of the policy.

use super::subject;
use crate::audit::Report;
use crate::diag::Severity;
use crate::escape::{escape, printable};
use crate::render::workflow::{data, property};

/// One command for each finding (<https://docs.github.com/actions/reference/workflow-commands>).
#[must_use]
pub fn github(report: &Report) -> String {
    let mut out = String::new();
    for finding in report.findings.iter().filter(|finding| finding.counts()) {
        let command = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "notice",
        };
        let mut properties = Vec::new();
        if let Some(place) = &finding.location {
            let (line, column) = place.line_column();
            properties.push(format!("file={}", property(&escape(&place.file))));
            properties.push(format!("line={line}"));
            properties.push(format!("col={column}"));
        }
        properties.push(format!("title={}", property(&format!("{} {}", finding.code, finding.code.title()))));
        let subject = subject(report, finding);
        let message = printable(&finding.message);
        let text = if subject.is_empty() { message } else { format!("{subject}: {message}") };
        out.push_str(&format!("::{command} {}::{}\n", properties.join(","), data(&text)));
    }
    for because in &report.incomplete_because {
        out.push_str(&format!("::warning title=not complete::{}\n", data(&printable(because))));
    }
    out
}
