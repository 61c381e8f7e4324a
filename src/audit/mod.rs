//! Audit of listening sockets: who can reach them, and whether a policy allows it. Pure: from inventories and snapshots
//! to a report.
//!
//! [`rules`] produces the findings about a socket, and [`judge`] evaluates a policy. [`baseline`] and [`change`]
//! compare two reports. [`crate::plan::exposure`] computes exposures.

pub mod answers;
pub mod baseline;
pub mod change;
pub mod clients;
pub mod draft;
pub mod extent;
pub mod filtered;
pub mod identity;
pub mod judge;
pub mod published;
pub mod rehearsed;
pub mod rules;
pub mod select;
pub mod served;
pub mod sheet;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use serde::Serialize;

pub use clients::Skipped;
pub use published::Published;

pub use crate::model::Verdict;

use crate::code::Code;
use crate::diag::{Place, Severity};
use crate::model::filters::PacketFilters;
use crate::model::rehearsal::Rehearsal;
use crate::model::{ClientPorts, Exposure, HostReport, Lifetime, ListeningSocket, NotExamined, Snapshot};

/// The data of one network namespace.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// Its name.
    pub namespace: Namespace,
    /// Its interfaces and addresses.
    pub host: Snapshot,
    /// Its sockets, in report order.
    pub sockets: Vec<ListeningSocket>,
    /// The ports that its kernel chooses from; `None` if they could not be read.
    pub client_ports: Option<ClientPorts>,
    /// What was found but is not evaluated.
    pub not_examined: NotExamined,
    /// Remaining lifetimes of its addresses; addresses without a limit are absent.
    pub lifetimes: BTreeMap<IpAddr, Lifetime>,
}

/// Name of a network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Namespace {
    /// Inode; null if it cannot be read.
    pub inode: Option<u64>,
    /// Name below `/run/netns`, or a process in it as `pid 12 (nginx)`. Unescaped.
    pub name: Option<String>,
    /// Whether this program runs in it.
    pub current: bool,
    /// Whether all its sockets are in the report; false also if only `/proc/net` could be read.
    pub complete: bool,
    /// Whether its interfaces could be read. Otherwise the reachability of its sockets is unknown.
    pub exposure_known: bool,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Code.
    pub code: Code,
    /// Severity.
    pub severity: Severity,
    /// Index of the socket in the report; null for a finding about the host or the policy.
    pub socket: Option<usize>,
    /// Index of the published port in the report; null for a finding about anything else.
    pub published: Option<usize>,
    /// Message, one sentence. Unescaped.
    pub message: Cow<'static, str>,
    /// Suggested fix; null if nothing needs to be done.
    pub help: Option<Cow<'static, str>>,
    /// The rule of the policy, as `allow ssh`.
    pub rule: Option<String>,
    /// The deciding position in the policy.
    #[serde(serialize_with = "location")]
    pub location: Option<Box<Place>>,
    /// Whether the deciding evidence is missing.
    pub undecided: bool,
    /// Reason of the waiver; null without one.
    pub waived: Option<String>,
    /// Whether the baseline has it.
    pub known: bool,
}

impl Finding {
    /// A finding about the socket with this index.
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
            published: None,
            message: message.into(),
            help: None,
            rule: None,
            location: None,
            undecided: false,
            waived: None,
            known: false,
        }
    }

    /// Says which published port it is about.
    #[must_use]
    pub fn about_published(mut self, place: usize) -> Finding {
        self.published = Some(place);
        self
    }

    /// Adds a suggested fix.
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

/// A position in JSON: file, line and column from 1.
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

/// One policy check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// Description, as `tcp 0.0.0.0:22 may listen` or `allow http: required`. Unescaped.
    pub name: String,
    /// Index of the socket in the report; null for a requirement.
    pub socket: Option<usize>,
    /// The rule that a requirement belongs to.
    #[serde(skip)]
    pub required_by: Option<String>,
    /// Verdict.
    pub verdict: Verdict,
    /// Reason. Unescaped.
    pub because: String,
    /// The deciding position in the policy.
    #[serde(serialize_with = "location")]
    pub location: Option<Box<Place>>,
}

/// An audit of the host's listening sockets.
pub type Report = HostReport<Audit>;

/// The body of the document of `bindscope audit`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Audit {
    /// Time, RFC 3339 UTC.
    pub time: String,
    /// The examined namespaces, this one first.
    pub namespaces: Vec<Namespace>,
    /// Name of the policy; null without one. Unescaped.
    pub policy: Option<String>,
    /// File of the policy; null without one. Unescaped.
    pub policy_file: Option<String>,
    /// Name of the baseline; null without one. Unescaped.
    pub baseline: Option<String>,
    /// Whether every socket is in the list, even if some facts are unknown.
    pub all_sockets: bool,
    /// The sockets, sorted by namespace and port.
    pub sockets: Vec<ListeningSocket>,
    /// Sockets that the policy leaves out, each with the reason.
    pub skipped: Vec<Skipped>,
    /// What was found but is not evaluated.
    pub not_examined: NotExamined,
    /// Ports that rules of address translation publish.
    pub published: Vec<Published>,
    /// Why it is not known what packet filters leave of the exposure; null when it is known, or there are none.
    pub exposure_filtered_because: Option<String>,
    /// The tables of packet filters in each namespace where they were looked for.
    pub filters: Vec<PacketFilters>,
    /// Findings, by socket.
    pub findings: Vec<Finding>,
    /// Policy checks.
    pub checks: Vec<Check>,
    /// Results of similar sockets in a copy of the network; null if not tested.
    pub rehearsal: Option<Rehearsal>,
    /// Counts.
    pub summary: Summary,
}

/// Counts of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Number of sockets.
    pub sockets: usize,
    /// Number of sockets by their widest exposure.
    pub by_exposure: ByExposure,
    /// Number of sockets with unknown owners.
    pub owners_unknown: usize,
    /// Number of sockets that packet filters keep some clients away from.
    pub filtered: usize,
    /// Number of published ports.
    pub published: usize,
    /// Findings that count, by severity.
    pub errors: usize,
    /// Findings that count, by severity.
    pub warnings: usize,
    /// Findings that count, by severity.
    pub notes: usize,
    /// Number of findings that a waiver covers.
    pub waived: usize,
    /// Number of findings that the baseline has.
    pub known: usize,
    /// Number of policy checks.
    pub checked: usize,
    /// Number of failed checks.
    pub failed: usize,
    /// Number of checks without enough evidence.
    pub undecided: usize,
    /// Number of sockets that the policy leaves out.
    pub skipped: usize,
    /// Number of sockets that the selection leaves out.
    pub not_selected: usize,
}

/// Number of sockets by their widest exposure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ByExposure {
    /// Reachable from anywhere.
    pub global: usize,
    /// From private networks.
    pub private: usize,
    /// From a link.
    pub link: usize,
    /// From this host.
    pub loopback: usize,
    /// Not reachable.
    pub none: usize,
    /// Unknown, because the interfaces of the socket's namespace could not be read.
    pub unknown: usize,
}

impl Summary {
    /// Counts the parts of a report.
    #[must_use]
    pub fn of(report: &Audit) -> Summary {
        let Audit { sockets, findings, checks, .. } = report;
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
            filtered: sockets
                .iter()
                .filter(|socket| {
                    socket.exposure_filtered.as_ref().is_some_and(|left| !left.narrowed.is_empty())
                })
                .count(),
            published: report.published.len(),
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

/// The unescaped name if it is UTF-8: messages are escaped once, when they are displayed.
fn plain(name: &crate::model::IfName) -> String {
    name.as_str().map_or_else(|| name.to_string(), str::to_owned)
}

/// Combines the data of all namespaces into one report, this program's namespace first; takes the sockets out of the
/// sites. `time` is RFC 3339 UTC, and `because` lists what could not be read in addition to the sites' reasons. With
/// `leave_out_clients`, sockets of clients are left out.
#[must_use]
pub fn report(sites: &mut [Site], because: Vec<String>, time: String, leave_out_clients: bool) -> Report {
    let host = sites.first().map(|site| site.host.host.clone()).unwrap_or_default();
    let mut report = HostReport::new(host, because, Audit { time, all_sockets: true, ..Audit::default() });
    let body = &mut report.body;
    for site in sites {
        clients::mark(site);
        if leave_out_clients {
            body.skipped.extend(clients::take(site));
        }
        body.not_examined.merge(std::mem::take(&mut site.not_examined));
        let mut found = rules::observe(site, body.sockets.len());
        // Without a readable interface the reachability of sockets is unknown.
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
        let published = published::of(site, body.published.len(), &mut found);
        let because = filtered::evaluate(site, body.sockets.len(), &mut found);
        if body.exposure_filtered_because.is_none() {
            body.exposure_filtered_because = because;
        }
        body.published.extend(published);
        add(&mut body.findings, found);
        add(&mut body.sockets, std::mem::take(&mut site.sockets));
        body.filters.extend(site.host.packet_filters.iter().map(PacketFilters::without_rules));
        report.incomplete_because.extend_from_slice(&site.host.incomplete_because);
        body.namespaces.push(site.namespace.clone());
    }
    report.settle();
    report
}

/// Appends a list to another; does not copy if the other is empty.
fn add<T>(to: &mut Vec<T>, mut list: Vec<T>) {
    if to.is_empty() {
        *to = list;
    } else {
        to.append(&mut list);
    }
}

impl Audit {
    /// The findings that count, by the index of their socket, built once for all sockets.
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

    /// Whether no socket was found, which does not prove that there is none.
    #[must_use]
    pub fn unseen(&self) -> bool {
        self.sockets.is_empty() && !self.all_sockets
    }

    /// Whether the reachability of the socket is known. It is not if the interfaces of its namespace could not be read;
    /// its exposure is then meaningless.
    #[must_use]
    pub fn exposure_known(&self, socket: &ListeningSocket) -> bool {
        let namespace = self.namespaces.iter().find(|namespace| namespace.inode == socket.netns);
        namespace.is_none_or(|namespace| namespace.exposure_known)
    }

    /// Sorts and counts after findings were added or changed.
    fn settle(&mut self) {
        self.settle_checks();
        self.findings.sort_by(|a, b| {
            let key = |finding: &Finding| {
                (finding.socket.is_none(), finding.socket, finding.severity, finding.code)
            };
            key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message))
        });
        self.summary = Summary::of(self);
    }

    /// A check passes if its finding is waived or in the baseline, with that reason.
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
            let rule = check.required_by.as_deref().unwrap_or_default();
            if let Some(reason) = excused.get(&check.socket.ok_or(rule)) {
                check.verdict = Verdict::Pass;
                check.because.clone_from(reason);
            }
        }
    }
}

impl Report {
    /// Sorts, counts, and decides about completeness after the report was changed.
    pub fn settle(&mut self) {
        self.body.settle();
        self.complete = self.incomplete_because.is_empty();
    }
}

/// The findings of a report that count, by socket.
#[derive(Debug)]
pub struct BySocket<'a> {
    findings: &'a [Finding],
    /// Start of the findings of each socket, and the end of the last one.
    starts: Vec<usize>,
}

impl<'a> BySocket<'a> {
    /// Whether there is a finding about the socket with this index.
    #[must_use]
    pub fn any(&self, socket: usize) -> bool {
        self.of(socket).next().is_some()
    }

    /// The findings about the socket with this index.
    pub fn of(&self, socket: usize) -> impl Iterator<Item = &'a Finding> {
        let range = self.starts.get(socket).zip(self.starts.get(socket + 1));
        let about = range.and_then(|(from, to)| self.findings.get(*from..*to)).unwrap_or_default();
        about.iter().filter(|finding| finding.counts())
    }
}

#[cfg(test)]
pub(crate) mod tests;
