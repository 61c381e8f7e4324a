//! An earlier report, of which everything is known and only what is new counts.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{Finding, Report};
use crate::code::Code;
use crate::diag::Severity;
use crate::model::ListeningSocket;

/// What a baseline holds.
#[derive(Debug, Clone, Default)]
pub struct Baseline {
    sockets: BTreeSet<String>,
    findings: BTreeSet<String>,
}

/// The parts of an earlier report that matter.
#[derive(Deserialize)]
struct Earlier {
    schema: String,
    sockets: Vec<ListeningSocket>,
    findings: Vec<EarlierFinding>,
}

#[derive(Deserialize)]
struct EarlierFinding {
    code: Code,
    socket: Option<usize>,
    rule: Option<String>,
    message: String,
}

impl Baseline {
    /// Reads the JSON document of an earlier `bindscope audit`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Baseline, String> {
        let earlier: Earlier = serde_json::from_str(text)
            .map_err(|error| format!("it is no report of `bindscope audit --format json`: {error}"))?;
        if earlier.schema != "bindscope.audit/1" {
            return Err(format!(
                "its schema is {:?}, and this version reads \"bindscope.audit/1\"",
                earlier.schema
            ));
        }
        let sockets = earlier.sockets.iter().map(socket_key).collect();
        let findings = earlier
            .findings
            .iter()
            .map(|finding| {
                let socket = finding.socket.and_then(|place| earlier.sockets.get(place));
                finding_key(finding.code, finding.rule.as_deref(), socket, &finding.message)
            })
            .collect();
        Ok(Baseline { sockets, findings })
    }

    /// Marks what is known, and finds the sockets that are not.
    pub fn apply(&self, report: &mut Report) {
        for finding in &mut report.findings {
            let socket = finding.socket.and_then(|place| report.sockets.get(place));
            let key = finding_key(finding.code, finding.rule.as_deref(), socket, &finding.message);
            finding.known = self.findings.contains(&key);
        }
        for (place, socket) in report.sockets.iter().enumerate() {
            if !self.sockets.contains(&socket_key(socket)) {
                report.findings.push(
                    Finding::new(
                        Code::NOT_IN_BASELINE,
                        Severity::Error,
                        Some(place),
                        format!("{} is not in the baseline", socket.view),
                    )
                    .help("stop the program, or make a new baseline with `bindscope audit --format json -o FILE`"),
                );
            }
        }
        report.settle();
    }
}

/// What makes a socket the same one in another run: no pid, no inode.
fn socket_key(socket: &ListeningSocket) -> String {
    let view = &socket.view;
    let exes: BTreeSet<&str> =
        socket.owners.iter().flatten().filter_map(|owner| owner.exe.as_deref()).collect();
    let device = view.device.as_ref().map(super::plain);
    format!(
        "{} {} {} {:?} {device:?} {exes:?} {:?}",
        view.protocol, view.address, view.port, view.v6only, socket.uid
    )
}

/// What makes a finding the same one: a message may hold pids, so only a finding about the host is known by it.
fn finding_key(code: Code, rule: Option<&str>, socket: Option<&ListeningSocket>, message: &str) -> String {
    match socket {
        Some(socket) => format!("{code} {rule:?} {}", socket_key(socket)),
        None => format!("{code} {rule:?} {message}"),
    }
}
