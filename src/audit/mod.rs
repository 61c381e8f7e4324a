//! What already listens, who can reach it, and whether a policy allows that. Pure: inventories and snapshots go in, a report
//! comes out.
//!
//! [`rules`] says what is remarkable about a socket, [`judge`] whether a policy holds; [`baseline`] and [`change`] tell two
//! reports apart. How far a socket is exposed is [`crate::plan::exposure`]'s to say.

pub mod baseline;
pub mod change;
pub mod clients;
pub mod draft;
pub mod extent;
pub mod identity;
pub mod judge;
pub mod rehearsed;
pub mod rules;
pub mod select;
pub mod served;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use serde::Serialize;

pub use clients::Skipped;

use crate::code::Code;
use crate::diag::{Place, Severity};
use crate::model::filters::PacketFilters;
use crate::model::rehearsal::Rehearsal;
use crate::model::{ClientPorts, Exposure, Host, Lifetime, ListeningSocket, NotExamined, Snapshot};

/// One network namespace as it was found.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// What names it.
    pub namespace: Namespace,
    /// Its interfaces and addresses.
    pub host: Snapshot,
    /// Its sockets, in the order of the report.
    pub sockets: Vec<ListeningSocket>,
    /// The ports that its kernel chooses from; `None` when they could not be read.
    pub client_ports: Option<ClientPorts>,
    /// What was seen and is not judged.
    pub not_examined: NotExamined,
    /// How long its addresses are valid; those that are valid for ever are absent.
    pub lifetimes: BTreeMap<IpAddr, Lifetime>,
}

/// What names a network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Namespace {
    /// Inode of the namespace; null when it cannot be read.
    pub inode: Option<u64>,
    /// Its name under `/run/netns`, or else a process in it as `pid 12 (nginx)`. Unescaped.
    pub name: Option<String>,
    /// Whether it is the namespace that this program runs in.
    pub current: bool,
    /// Whether all its sockets are in the report; false also where `/proc/net` alone could be read.
    pub complete: bool,
    /// Whether its interfaces could be read, without which nothing is known of who reaches its sockets.
    pub exposure_known: bool,
}

/// Something remarkable.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Its code.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// Position of the socket in the report; null for a finding about the host or the policy.
    pub socket: Option<usize>,
    /// What was found, in one sentence. Unescaped.
    pub message: Cow<'static, str>,
    /// The way out; null when there is nothing to do.
    pub help: Option<Cow<'static, str>>,
    /// The policy's rule that it is about, as `allow ssh`.
    pub rule: Option<String>,
    /// The place in the policy that decided.
    #[serde(serialize_with = "location")]
    pub location: Option<Box<Place>>,
    /// Whether the evidence that would decide is missing.
    pub undecided: bool,
    /// Why the policy waives it; null when it does not.
    pub waived: Option<String>,
    /// Whether the baseline had it.
    pub known: bool,
}

impl Finding {
    /// A finding about the socket at this position.
    #[must_use]
    pub fn new(
        code: Code,
        severity: Severity,
        socket: Option<usize>,
        message: impl Into<Cow<'static, str>>,
    ) -> Finding {
        Finding {
            code,
            severity,
            socket,
            message: message.into(),
            help: None,
            rule: None,
            location: None,
            undecided: false,
            waived: None,
            known: false,
        }
    }

    /// The same, with a way out.
    #[must_use]
    pub fn help(mut self, help: impl Into<Cow<'static, str>>) -> Finding {
        self.help = Some(help.into());
        self
    }

    /// Whether it counts: neither waived nor in the baseline.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.waived.is_none() && !self.known
    }
}

/// A place as JSON has it: file, line and column from 1.
fn location<S: serde::Serializer>(location: &Option<Box<Place>>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Spot<'a> {
        file: &'a str,
        line: usize,
        column: usize,
    }
    location
        .as_ref()
        .map(|place| {
            let (line, column) = place.line_column();
            Spot { file: &place.file, line, column }
        })
        .serialize(serializer)
}

/// What a policy's rule came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// The evidence does not suffice.
    Undecided,
}

/// One thing that a policy asked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What was asked, as `tcp 0.0.0.0:22 may listen` or `allow http: required`. Unescaped.
    pub name: String,
    /// Position of the socket in the report; null for a rule that asks for one.
    pub socket: Option<usize>,
    /// What it came to.
    pub verdict: Verdict,
    /// Why. Unescaped.
    pub because: String,
    /// The place in the policy that decided.
    #[serde(serialize_with = "location")]
    pub location: Option<Box<Place>>,
}

/// The document of `bindscope audit`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `bindscope.audit/1`.
    pub schema: &'static str,
    /// Version of the program.
    pub version: &'static str,
    /// When it was made, RFC 3339 UTC.
    pub time: String,
    /// False when anything could not be read.
    pub complete: bool,
    /// One sentence for each thing that could not be read.
    pub incomplete_because: Vec<String>,
    /// Where it was made.
    pub host: Host,
    /// The namespaces that were looked at, this one first.
    pub namespaces: Vec<Namespace>,
    /// Name of the policy, or null without one. Unescaped.
    pub policy: Option<String>,
    /// The file of the policy, or null without one. Unescaped.
    pub policy_file: Option<String>,
    /// Name of the earlier report, of which everything is known, or null without one. Unescaped.
    pub baseline: Option<String>,
    /// Whether every socket is in the list, however little may be known of some.
    pub all_sockets: bool,
    /// The sockets, sorted by namespace and port.
    pub sockets: Vec<ListeningSocket>,
    /// Sockets that the policy leaves out, each with the reason.
    pub skipped: Vec<Skipped>,
    /// What was seen and is not judged.
    pub not_examined: NotExamined,
    /// The tables of packet filters in each namespace where they were looked for.
    pub filters: Vec<PacketFilters>,
    /// What is remarkable, by socket.
    pub findings: Vec<Finding>,
    /// What the policy asked.
    pub checks: Vec<Check>,
    /// What came of sockets like these in a copy of the network; null when that was not tried.
    pub rehearsal: Option<Rehearsal>,
    /// Counts.
    pub summary: Summary,
}

/// Counts of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Sockets.
    pub sockets: usize,
    /// Sockets by their widest exposure.
    pub by_exposure: ByExposure,
    /// Sockets whose owners are unknown.
    pub owners_unknown: usize,
    /// Findings that count, by severity.
    pub errors: usize,
    /// Findings that count, by severity.
    pub warnings: usize,
    /// Findings that count, by severity.
    pub notes: usize,
    /// Findings that a waiver covers.
    pub waived: usize,
    /// Findings that the baseline has.
    pub known: usize,
    /// Checks of the policy.
    pub checked: usize,
    /// Checks that failed.
    pub failed: usize,
    /// Checks without enough evidence.
    pub undecided: usize,
    /// Sockets that the policy leaves out.
    pub skipped: usize,
    /// Sockets that the selection leaves out.
    pub not_selected: usize,
}

/// Sockets by their widest exposure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ByExposure {
    /// Reachable by anybody.
    pub global: usize,
    /// From private networks.
    pub private: usize,
    /// From a link.
    pub link: usize,
    /// From this host.
    pub loopback: usize,
    /// By nobody.
    pub none: usize,
    /// Not known, since the interfaces of the socket's namespace could not be read.
    pub unknown: usize,
}

impl Summary {
    /// Counts a report's parts.
    #[must_use]
    pub fn of(report: &Report) -> Summary {
        let Report { sockets, findings, checks, .. } = report;
        let mut by_exposure = ByExposure::default();
        let mut owners_unknown = 0;
        for socket in sockets {
            let count = match socket.view.exposure.widest() {
                _ if !report.exposure_known(socket) => &mut by_exposure.unknown,
                Exposure::Global => &mut by_exposure.global,
                Exposure::Private => &mut by_exposure.private,
                Exposure::Link => &mut by_exposure.link,
                Exposure::Loopback => &mut by_exposure.loopback,
                Exposure::None => &mut by_exposure.none,
            };
            *count += 1;
            owners_unknown += usize::from(socket.owners.is_none());
        }
        let severe = |severity| {
            findings.iter().filter(|finding| finding.counts() && finding.severity == severity).count()
        };
        let checked = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
        Summary {
            sockets: sockets.len(),
            by_exposure,
            owners_unknown,
            errors: severe(Severity::Error),
            warnings: severe(Severity::Warning),
            notes: severe(Severity::Note),
            waived: findings.iter().filter(|finding| finding.waived.is_some()).count(),
            known: findings.iter().filter(|finding| finding.known).count(),
            checked: checks.len(),
            failed: checked(Verdict::Fail),
            undecided: checked(Verdict::Undecided),
            skipped: report.skipped.len(),
            not_selected: report.summary.not_selected,
        }
    }
}

/// The name itself where it is UTF-8: messages are escaped when they are shown, once.
fn plain(name: &crate::model::IfName) -> String {
    name.as_str().map_or_else(|| name.to_string(), str::to_owned)
}

/// Puts what was found in each namespace into one report, this program's own namespace first; the sites are left without their
/// sockets. `time` is RFC 3339 UTC, `because` what could not be read in addition to what the sites say. The sockets of clients
/// are left out with `leave_out_clients`.
#[must_use]
pub fn report(sites: &mut [Site], because: Vec<String>, time: String, leave_out_clients: bool) -> Report {
    let mut report = Report {
        schema: "bindscope.audit/1",
        version: env!("CARGO_PKG_VERSION"),
        time,
        complete: false,
        incomplete_because: because,
        host: sites.first().map(|site| site.host.host.clone()).unwrap_or_default(),
        namespaces: Vec::new(),
        policy: None,
        policy_file: None,
        baseline: None,
        all_sockets: true,
        sockets: Vec::new(),
        skipped: Vec::new(),
        not_examined: NotExamined::default(),
        filters: Vec::new(),
        findings: Vec::new(),
        checks: Vec::new(),
        rehearsal: None,
        summary: Summary::default(),
    };
    for site in sites {
        clients::mark(site);
        if leave_out_clients {
            report.skipped.extend(clients::take(site));
        }
        report.not_examined.merge(std::mem::take(&mut site.not_examined));
        let mut found = rules::observe(site, report.sockets.len());
        // Nothing can be said of where sockets are reached when no interface could be seen.
        site.namespace.exposure_known = !site.host.interfaces.is_empty();
        if !site.namespace.exposure_known && !site.sockets.is_empty() {
            let name = site
                .namespace
                .inode
                .map_or_else(String::new, |inode| format!(" of network namespace {inode}"));
            report.incomplete_because.push(format!(
                "the interfaces{name} could not be read, so who reaches its sockets is unknown"
            ));
            found.clear();
        }
        add(&mut report.findings, found);
        add(&mut report.sockets, std::mem::take(&mut site.sockets));
        report.filters.extend(site.host.packet_filters.iter().map(PacketFilters::without_rules));
        report.incomplete_because.extend_from_slice(&site.host.incomplete_because);
        report.namespaces.push(site.namespace.clone());
    }
    report.settle();
    report
}

/// Adds a list to another one, and copies nothing when it is the first.
fn add<T>(to: &mut Vec<T>, mut list: Vec<T>) {
    if to.is_empty() {
        *to = list;
    } else {
        to.append(&mut list);
    }
}

impl Report {
    /// The findings that count, by the position of their socket: one look for all sockets.
    #[must_use]
    pub fn counting_by_socket(&self) -> BySocket<'_> {
        // They are sorted by socket.
        let mut starts = Vec::with_capacity(self.sockets.len() + 1);
        let mut next = 0;
        for socket in 0..=self.sockets.len() {
            starts.push(next);
            next += self.findings[next..].iter().take_while(|one| one.socket == Some(socket)).count();
        }
        BySocket { findings: &self.findings, starts }
    }

    /// Whether no socket was found, and that is no proof that there is none.
    #[must_use]
    pub fn unseen(&self) -> bool {
        self.sockets.is_empty() && !self.all_sockets
    }

    /// Whether anything is known of who reaches the socket: not where the interfaces of its namespace could not be read, and
    /// then its exposure means nothing.
    #[must_use]
    pub fn exposure_known(&self, socket: &ListeningSocket) -> bool {
        let namespace = self.namespaces.iter().find(|namespace| namespace.inode == socket.netns);
        namespace.is_none_or(|namespace| namespace.exposure_known)
    }

    /// Sorts and counts, after findings were added or changed.
    pub fn settle(&mut self) {
        self.settle_checks();
        self.findings.sort_by(|a, b| {
            let key = |finding: &Finding| {
                (finding.socket.is_none(), finding.socket, finding.severity, finding.code)
            };
            key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message))
        });
        self.complete = self.incomplete_because.is_empty();
        self.summary = Summary::of(self);
    }

    /// A check holds whose finding is waived or in the baseline, for that reason.
    fn settle_checks(&mut self) {
        let mut excused: HashMap<Result<usize, &str>, String> = HashMap::new();
        for finding in &self.findings {
            let of_policy = (Code::NOT_ALLOWED..=Code::POLICY_UNDECIDED).contains(&finding.code)
                || finding.code == Code::REQUIRED_UNREACHABLE;
            let about = finding.socket.map_or_else(|| Err(finding.rule.as_deref().unwrap_or_default()), Ok);
            let reason = match (&finding.waived, finding.known) {
                (Some(reason), _) => format!("waived: {reason}"),
                (None, true) => format!("in the baseline: {}", finding.message),
                (None, false) => continue,
            };
            if of_policy {
                excused.insert(about, reason);
            }
        }
        for check in self.checks.iter_mut().filter(|check| check.verdict != Verdict::Pass) {
            let rule = check.name.strip_suffix(" is there").unwrap_or_default();
            if let Some(reason) = excused.get(&check.socket.ok_or(rule)) {
                check.verdict = Verdict::Pass;
                check.because.clone_from(reason);
            }
        }
    }
}

/// The findings of a report that count, by socket.
#[derive(Debug)]
pub struct BySocket<'a> {
    findings: &'a [Finding],
    /// Where the findings of each socket begin, and where the last one's end.
    starts: Vec<usize>,
}

impl<'a> BySocket<'a> {
    /// Whether there is any about the socket at this position of the report.
    #[must_use]
    pub fn any(&self, socket: usize) -> bool {
        self.of(socket).next().is_some()
    }

    /// Those about the socket at this position of the report.
    pub fn of(&self, socket: usize) -> impl Iterator<Item = &'a Finding> {
        let range = self.starts.get(socket).zip(self.starts.get(socket + 1));
        let about = range.and_then(|(from, to)| self.findings.get(*from..*to)).unwrap_or_default();
        about.iter().filter(|finding| finding.counts())
    }
}

#[cfg(test)]
pub(crate) mod tests;
