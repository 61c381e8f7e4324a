//! Footnotes: each kind of finding once, however many rows refer to it.

use std::collections::BTreeMap;

use super::layout::{Style, write_finding};
use super::{address, owners};
use crate::audit::{BySocket, Finding, Report};
use crate::code::Code;
use crate::diag::Severity;
use crate::escape::printable;
use crate::model::ListeningSocket;

/// The footnotes of a report.
pub(super) struct Footnotes<'a> {
    /// In the order of their numbers: a finding that represents its kind, and its text.
    notes: Vec<(&'a Finding, String)>,
    /// The numbers of each socket, by its index.
    of: BTreeMap<usize, Vec<usize>>,
    /// The numbers of each published port, by its index.
    published: BTreeMap<usize, Vec<usize>>,
}

/// Key of a footnote: code, severity, and the text if it differs.
type Kind<'a> = (Code, Severity, bool, Option<&'a str>);

impl<'a> Footnotes<'a> {
    /// Numbers the findings about the sockets at `places`, in that order. Findings of one code with different texts
    /// share a footnote with their common text. Errors, undecided findings, and with `verbose` all findings keep their
    /// own text.
    pub(super) fn of(
        report: &'a Report,
        findings: &BySocket<'a>,
        places: impl Iterator<Item = usize> + Clone,
        verbose: bool,
    ) -> Footnotes<'a> {
        let mut texts: BTreeMap<(Code, Severity, bool), Vec<&str>> = BTreeMap::new();
        let key = |finding: &Finding| (finding.code, finding.severity, finding.undecided);
        for finding in places.clone().flat_map(|place| findings.of(place)) {
            let texts = texts.entry(key(finding)).or_default();
            if texts.len() < 2 && !texts.contains(&finding.message.as_ref()) {
                texts.push(&finding.message);
            }
        }
        let kind = |finding: &'a Finding| -> Kind<'a> {
            let (code, severity, undecided) = key(finding);
            let several = texts.get(&(code, severity, undecided)).is_some_and(|texts| texts.len() > 1);
            let own = verbose
                || severity == Severity::Error
                || undecided
                || !several
                // Whom a filter lets in is what the reader wants to know.
                || code == Code::FILTER_NARROWS;
            (code, severity, undecided, own.then_some(finding.message.as_ref()))
        };
        let mut numbers: BTreeMap<Kind<'a>, usize> = BTreeMap::new();
        let mut notes = Vec::new();
        let mut of: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for place in places {
            for finding in findings.of(place) {
                let kind = kind(finding);
                let number = *numbers.entry(kind).or_insert_with(|| {
                    notes.push((finding, text(report, finding, kind.3)));
                    notes.len()
                });
                let list = of.entry(place).or_default();
                if !list.contains(&number) {
                    list.push(number);
                }
            }
        }
        let mut published: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let about = |finding: &&Finding| finding.counts() && report.baseline.is_none();
        for finding in report.findings.iter().filter(about) {
            if let Some(place) = finding.published {
                notes.push((finding, printable(&finding.message)));
                published.entry(place).or_default().push(notes.len());
            }
        }
        Footnotes { notes, of, published }
    }

    /// The numbers of the published port with this index.
    pub(super) fn of_published(&self, place: usize) -> String {
        let numbers = self.published.get(&place).into_iter().flatten();
        numbers.map(usize::to_string).collect::<Vec<_>>().join(" ")
    }

    /// The numbers of the socket with this index: `1 3`.
    pub(super) fn numbers(&self, place: usize) -> String {
        let mut numbers = self.of.get(&place).cloned().unwrap_or_default();
        numbers.sort_unstable();
        numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(" ")
    }

    /// Writes every footnote with its number.
    pub(super) fn write(&self, out: &mut String, style: Style) {
        if !self.notes.is_empty() && !out.is_empty() {
            out.push('\n');
        }
        let digits = self.notes.len().to_string().len();
        for (number, (finding, text)) in self.notes.iter().enumerate() {
            let first = format!("{:<digits$}  ", number + 1);
            let further = " ".repeat(digits + 2);
            write_finding(out, finding, text, &first, &further, style);
        }
    }
}

fn text(report: &Report, finding: &Finding, own: Option<&str>) -> String {
    match own {
        Some(message) => printable(message),
        None => {
            let title = finding.code.title();
            let example = finding.socket.and_then(|place| report.sockets.get(place));
            let example = example.map_or_else(String::new, |socket| {
                format!("; {} {}: {}", socket.view.protocol, address(socket), printable(&finding.message))
            });
            // First the common text; the rest of one of them only if it is short.
            if example.len() < 80 {
                format!("{title}{example}")
            } else {
                format!("{title} (-v has the details)")
            }
        }
    }
}

/// A socket in one line: protocol, address and owners. Escaped.
pub(super) fn subject_of(socket: &ListeningSocket) -> String {
    format!("{} {}, {}", socket.view.protocol, address(socket), owners(socket))
}
