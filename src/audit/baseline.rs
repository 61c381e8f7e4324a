//! Comparison with an earlier report: only new findings and sockets count.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::identity::{Identity, Role};
use super::{Finding, Report};
use crate::code::Code;
use crate::diag::Severity;
use crate::model::{ListeningSocket, Protocol};

/// Content of a baseline.
#[derive(Debug, Clone, Default)]
pub struct Baseline {
    sockets: BTreeMap<Key, Vec<Facts>>,
    /// Findings about sockets, with their policy rule. Messages may contain pids and are not compared.
    findings: BTreeMap<(Code, Key), Vec<Found>>,
    /// Findings about the host, with their messages.
    of_host: BTreeSet<(Code, Option<String>, String)>,
}

/// The rule of a finding, and the data of its socket.
type Found = (Option<String>, Facts);

/// The part of a socket's [`Identity`] that every source reports. Includes whether the socket is in the reader's
/// network namespace, because 0.0.0.0 in a container is not the host's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    current: bool,
    protocol: Protocol,
    role: Role,
    uid: Option<u32>,
}

/// Properties that some sources do not report and that then distinguish nothing: `/proc/net` has neither V6ONLY nor
/// devices, and an unprivileged user cannot read programs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    v6only: Option<bool>,
    device: Option<Option<String>>,
    program: Option<String>,
    port: u16,
    /// Port of the [`Identity`].
    fixed_port: Option<u16>,
}

/// Whether nothing distinguishes them: an unknown property equals every value.
fn same<T: PartialEq>(one: &Option<T>, other: &Option<T>) -> bool {
    one.is_none() || other.is_none() || one == other
}

impl Facts {
    fn of(socket: &ListeningSocket) -> Facts {
        let identity = Identity::of(socket);
        Facts {
            v6only: socket.view.v6only,
            device: socket.device_known.then(|| socket.view.device.as_ref().map(super::plain)),
            program: identity.program,
            port: socket.view.port,
            fixed_port: identity.port,
        }
    }

    fn agree(&self, other: &Facts) -> bool {
        same(&self.v6only, &other.v6only)
            && same(&self.device, &other.device)
            && same(&self.program, &other.program)
            && (self.port == other.port || self.fixed_port.is_none() && other.fixed_port.is_none())
    }
}

/// The relevant parts of an earlier report: the body of its document.
#[derive(Debug, Deserialize)]
pub struct Earlier {
    #[serde(default)]
    namespaces: Vec<EarlierNamespace>,
    sockets: Vec<ListeningSocket>,
    findings: Vec<EarlierFinding>,
}

#[derive(Debug, Deserialize)]
struct EarlierNamespace {
    inode: Option<u64>,
    current: bool,
}

#[derive(Debug, Deserialize)]
struct EarlierFinding {
    code: Code,
    socket: Option<usize>,
    rule: Option<String>,
    message: String,
}

impl Baseline {
    /// The baseline of an earlier report.
    #[must_use]
    pub fn new(earlier: Earlier) -> Baseline {
        let own = |socket: &ListeningSocket| {
            earlier.namespaces.iter().find(|one| one.inode == socket.netns).is_none_or(|one| one.current)
        };
        let mut baseline = Baseline::default();
        for socket in &earlier.sockets {
            baseline.sockets.entry(key(socket, own(socket))).or_default().push(Facts::of(socket));
        }
        for finding in earlier.findings {
            match finding.socket.and_then(|place| earlier.sockets.get(place)) {
                Some(socket) => {
                    let of = (finding.code, key(socket, own(socket)));
                    baseline.findings.entry(of).or_default().push((finding.rule, Facts::of(socket)));
                }
                None => {
                    baseline.of_host.insert((finding.code, finding.rule, finding.message));
                }
            }
        }
        baseline
    }

    /// Marks known findings, and finds new sockets. `name` is the name of the baseline.
    pub fn apply(&self, name: &str, report: &mut Report) {
        report.body.baseline = Some(name.to_owned());
        let own = |report: &Report, socket: &ListeningSocket| {
            report.namespaces.iter().find(|one| one.inode == socket.netns).is_none_or(|one| one.current)
        };
        let keys: Vec<(Key, Facts)> = report
            .sockets
            .iter()
            .map(|socket| (key(socket, own(report, socket)), Facts::of(socket)))
            .collect();
        let knows = |list: Option<&Vec<Facts>>, facts: &Facts| {
            list.is_some_and(|list| list.iter().any(|known| known.agree(facts)))
        };
        for finding in &mut report.body.findings {
            let (code, rule) = (finding.code, finding.rule.clone());
            finding.known = match finding.socket.and_then(|place| keys.get(place)) {
                // One of the two reports may have been made without a policy; rules are then not compared.
                Some((key, facts)) => self
                    .findings
                    .get(&(code, key.clone()))
                    .is_some_and(|list| list.iter().any(|(known, of)| same(known, &rule) && of.agree(facts))),
                None => self.of_host.contains(&(code, rule, finding.message.to_string())),
            };
        }
        for (place, ((key, facts), socket)) in keys.iter().zip(&report.body.sockets).enumerate() {
            if !knows(self.sockets.get(key), facts) {
                report.body.findings.push(
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

fn key(socket: &ListeningSocket, own: bool) -> Key {
    Key { current: own, protocol: socket.view.protocol, role: Role::of(socket), uid: socket.uid }
}
