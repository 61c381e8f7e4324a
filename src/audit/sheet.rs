//! What a page shows of an audit: part of its report, or read back from the document.

use std::borrow::Cow;

use serde::Deserialize;

use super::{Audit, Report};
use crate::code::Code;
use crate::diag::Severity;
use crate::model::{HostReport, ListeningSocket, Verdict};

/// The part of an audit that a page shows.
#[derive(Debug, Clone, Deserialize)]
pub struct Sheet<'a> {
    /// Time, RFC 3339 UTC.
    #[serde(default)]
    pub time: Cow<'a, str>,
    /// Name of the policy.
    #[serde(default)]
    pub policy: Option<Cow<'a, str>>,
    /// The sockets.
    pub sockets: Cow<'a, [ListeningSocket]>,
    /// The namespaces whose interfaces could not be read, by inode.
    #[serde(default)]
    pub namespaces: Vec<SheetNamespace>,
    /// The findings.
    #[serde(default)]
    pub findings: Vec<SheetFinding<'a>>,
    /// The policy checks.
    #[serde(default)]
    pub checks: Vec<SheetCheck<'a>>,
    /// Why it is not known what packet filters leave of the exposure.
    #[serde(default)]
    pub exposure_filtered_because: Option<Cow<'a, str>>,
}

/// A namespace.
#[derive(Debug, Clone, Deserialize)]
pub struct SheetNamespace {
    /// Inode; null if it cannot be read.
    pub inode: Option<u64>,
    /// Name; null for the namespace of the program.
    pub name: Option<String>,
    /// Whether its interfaces could be read.
    pub exposure_known: bool,
}

/// A finding.
#[derive(Debug, Clone, Deserialize)]
pub struct SheetFinding<'a> {
    /// Code.
    pub code: Code,
    /// Severity.
    pub severity: Severity,
    /// Index of the socket; null for a finding about the host or the policy.
    pub socket: Option<usize>,
    /// Message. Unescaped.
    pub message: Cow<'a, str>,
    /// Suggested fix.
    #[serde(default)]
    pub help: Option<Cow<'a, str>>,
    /// Reason of the waiver.
    #[serde(default)]
    pub waived: Option<Cow<'a, str>>,
    /// Whether the baseline has it.
    #[serde(default)]
    pub known: bool,
}

impl SheetFinding<'_> {
    /// Whether it counts: neither waived nor in the baseline.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.waived.is_none() && !self.known
    }
}

/// A policy check.
#[derive(Debug, Clone, Deserialize)]
pub struct SheetCheck<'a> {
    /// Description. Unescaped.
    pub name: Cow<'a, str>,
    /// Verdict.
    pub verdict: Verdict,
    /// Reason. Unescaped.
    pub because: Cow<'a, str>,
}

impl<'a> From<&'a Report> for HostReport<Sheet<'a>> {
    fn from(report: &'a Report) -> HostReport<Sheet<'a>> {
        HostReport {
            complete: report.complete,
            incomplete_because: report.incomplete_because.clone(),
            host: report.host.clone(),
            body: Sheet::from(&report.body),
        }
    }
}

impl<'a> From<&'a Audit> for Sheet<'a> {
    fn from(report: &'a Audit) -> Sheet<'a> {
        let text = |text: &'a Option<String>| text.as_deref().map(Cow::Borrowed);
        Sheet {
            time: Cow::Borrowed(&report.time),
            policy: text(&report.policy),
            sockets: Cow::Borrowed(&report.sockets),
            namespaces: report
                .namespaces
                .iter()
                .map(|one| SheetNamespace {
                    inode: one.inode,
                    name: one.name.clone(),
                    exposure_known: one.exposure_known,
                })
                .collect(),
            findings: report
                .findings
                .iter()
                .map(|finding| SheetFinding {
                    code: finding.code,
                    severity: finding.severity,
                    socket: finding.socket,
                    message: Cow::Borrowed(&finding.message),
                    help: finding.help.as_deref().map(Cow::Borrowed),
                    waived: text(&finding.waived),
                    known: finding.known,
                })
                .collect(),
            checks: report
                .checks
                .iter()
                .map(|check| SheetCheck {
                    name: Cow::Borrowed(&check.name),
                    verdict: check.verdict,
                    because: Cow::Borrowed(&check.because),
                })
                .collect(),
            exposure_filtered_because: text(&report.exposure_filtered_because),
        }
    }
}

impl Sheet<'_> {
    /// Whether the exposure of a socket is known: the interfaces of its namespace could be read.
    #[must_use]
    pub fn exposure_known(&self, socket: &ListeningSocket) -> bool {
        let namespace = self.namespaces.iter().find(|namespace| namespace.inode == socket.netns);
        namespace.is_none_or(|namespace| namespace.exposure_known)
    }
}
