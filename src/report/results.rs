//! The types of the documents of `plan`, `probe` and `lab run`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::model::{
    AddrClass, Answer, Document, Errno, FilterDecision, HostReport, IfName, LinkKind, Outcome, PacketsSeen,
    Phase, Protocol, SocketView, Source, Translated, Verdict,
};
use crate::plan::predict::BindOutcome;
use crate::plan::reach::NamedAnswer;
use crate::record::time::Time;

/// The document of `plan`, `probe` or `lab run`.
pub type Report = Document<HostReport<Reachability>>;

/// Sockets, and which source reaches them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reachability {
    /// The time at which the report was made; null for a prediction of the library, which reads no clock.
    #[serde(default)]
    pub time: Option<Time>,
    /// Name of the profile.
    pub profile: String,
    /// The host's interfaces with their addresses, sorted by index.
    #[serde(default)]
    pub interfaces: Vec<InterfaceReport>,
    /// The sources of the results, in their order.
    #[serde(default)]
    pub sources: Vec<SourceReport>,
    /// The requested destinations.
    #[serde(default)]
    pub requested: Questions,
    /// In bind order.
    pub sockets: Vec<SocketReport>,
    /// Sorted by source, destination, protocol and port.
    pub cells: Vec<CellReport>,
    /// In the order of the profile.
    pub expectations: Vec<ExpectationReport>,
    /// Events of a lab, in order; empty elsewhere.
    #[serde(default)]
    pub events: Vec<EventReport>,
    /// Further notes, one sentence each.
    pub notes: Vec<String>,
    /// Counts.
    pub summary: Summary,
}

/// Destinations that were tested in addition to, or instead of, every address of the host. A comparison can then
/// distinguish a missing address from one that was not tested.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Questions {
    /// Only these; null for every address.
    pub only: Option<Vec<String>>,
    /// Destinations that only the host's own clients can use: `0.0.0.0`, `127.0.0.2`, IPv4-mapped addresses.
    pub more: Vec<String>,
}

/// An event in a lab's network, and the results that it changed. The results of the report are those before the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventReport {
    /// The event, as commands.
    pub commands: Vec<String>,
    /// Number of results after the event.
    pub cells: usize,
    /// How many of them differed from the prediction, or from the captured ingress interface.
    pub disagree: usize,
    /// The results that changed, in order.
    pub changed: Vec<ChangedCell>,
}

/// A result before and after an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedCell {
    /// Before; null if the destination was not an address of the host.
    pub before: Option<CellReport>,
    /// After; null if the destination is no longer an address of the host.
    pub after: Option<CellReport>,
}

/// A socket and the outcome of its bind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketReport {
    /// The requested socket; in a probe, the actual one.
    pub socket: SocketView,
    /// Outcome of the bind.
    pub bind: BindReport,
    /// Reasons for the exposure, one sentence each.
    pub exposure_because: Vec<String>,
}

/// The outcome of a bind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindReport {
    /// Predicted.
    pub predicted: PredictedBind,
    /// Observed; null in a plan.
    pub observed: Option<ObservedBind>,
}

/// A predicted bind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PredictedBind {
    /// `ok`, `error` or `uncertain`.
    pub outcome: BindOutcome,
    /// The system call that fails.
    pub phase: Option<Phase>,
    /// Its errno.
    pub errno: Option<Errno>,
    /// Conflicting listeners, then sockets of other programs.
    pub conflicts_with: Vec<String>,
    /// Code of the rule.
    pub code: Option<Code>,
    /// Explanation.
    pub message: Option<String>,
    /// The smallest change that would help.
    pub hint: Option<String>,
}

/// An observed bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedBind {
    /// `ok` or `error`.
    pub outcome: BindOutcome,
    /// The system call that failed.
    pub phase: Option<Phase>,
    /// Its errno.
    pub errno: Option<Errno>,
}

/// One result: source and destination, with prediction and observation. Results share equal parts, because a port scan
/// has many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellReport {
    /// The source.
    pub source: Source,
    /// The address that the client has bound, with its zone if link-local; null if the kernel chooses.
    #[serde(default)]
    pub source_address: Option<String>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The destination address, with its zone if link-local.
    pub destination: Arc<str>,
    /// The interface that has the destination address; null if none has it (AnyIP, multicast).
    #[serde(default)]
    pub address_owner: Option<IfName>,
    /// The port.
    pub port: u16,
    /// Prediction.
    pub predicted: Arc<PredictedCell>,
    /// Observation; null if not tested.
    pub observed: Option<Arc<ObservedCell>>,
    /// Whether both agree; null if not tested or not predicted.
    pub agrees: Option<bool>,
}

impl CellReport {
    /// Whether a listener of the profile accepted and the predicted ingress interface was not observed.
    pub(super) fn lacks_ingress(&self) -> bool {
        let observed = self.observed.as_ref();
        self.predicted.ingress.is_some()
            && observed.is_some_and(|seen| seen.listener.is_some() && seen.ingress.is_none())
    }
}

/// A predicted result.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PredictedCell {
    /// Outcome; null if it depends on unknown facts.
    pub outcome: Option<Outcome>,
    /// The listener that accepts it; null if none does, if several may, or if another program's socket does.
    pub listener: Option<String>,
    /// The possible sockets if there is more than one: listeners that share a port, or sockets of other programs.
    pub candidates: Vec<String>,
    /// The ingress interface that the kernel will report.
    pub ingress: Option<IfName>,
    /// Whether the client is this host itself; null unless accepted.
    pub peer_is_local: Option<bool>,
    /// Code of the rule.
    pub why: Code,
    /// Where the answer goes and by which policy rule, when that decided; null otherwise.
    #[serde(default)]
    pub return_path: Option<NamedAnswer>,
    /// What the packet filters decide; null where no rule is asked, they were not read, or it is not known.
    #[serde(default)]
    pub filter: Option<FilterDecision>,
    /// Where address translation sends the connection; null where it does not.
    #[serde(default)]
    pub translated: Option<Translated>,
    /// What the client receives in place of a connection, from a rule; null where it receives nothing from one.
    #[serde(default)]
    pub answer: Option<Answer>,
    /// Why the result is not known; null where it is.
    #[serde(default)]
    pub unknown_because: Option<String>,
}

/// An observed result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedCell {
    /// Outcome.
    pub outcome: Outcome,
    /// The listener that accepted it; null if none did or another program's socket did.
    pub listener: Option<String>,
    /// The ingress interface that the kernel reported.
    pub ingress: Option<IfName>,
    /// The destination address.
    pub local: Option<IpAddr>,
    /// The client.
    pub peer: Option<IpAddr>,
    /// Whether IPv4 arrived at an AF_INET6 socket.
    pub v4_mapped: bool,
    /// The errno.
    pub errno: Option<Errno>,
    /// Time from the start until the connection was established, the datagram was received, or the attempt failed; in
    /// microseconds.
    pub connect_us: u64,
    /// The captured packets; null without a capture, or if nothing was accepted.
    #[serde(default)]
    pub packets: Option<PacketsSeen>,
    /// What the client received in place of a connection; null where it received nothing, or was accepted.
    #[serde(default)]
    pub answer: Option<Answer>,
    /// What the packet filters of a copy decided; null where they were not traced, or nothing was decided.
    #[serde(default)]
    pub filter: Option<FilterDecision>,
    /// Where address translation sent the connection; null where it did not, or was not traced.
    #[serde(default)]
    pub translated: Option<Translated>,
}

/// An observation, as passed to the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Outcome.
    pub outcome: Outcome,
    /// Index of the socket that accepted it.
    pub taker: Option<usize>,
    /// The ingress interface that the kernel reported.
    pub ingress: Option<IfName>,
    /// The destination address.
    pub local: Option<SocketAddr>,
    /// The client.
    pub peer: Option<SocketAddr>,
    /// Whether IPv4 arrived at an AF_INET6 socket.
    pub v4_mapped: bool,
    /// The errno.
    pub errno: Option<Errno>,
    /// What the client received in place of a connection.
    pub answer: Option<Answer>,
    /// The client's end, where it was asked for.
    pub client: Option<SocketAddr>,
    /// Time from the start until the connection was established, the datagram was received, or the attempt failed; in
    /// microseconds.
    pub connect_us: u64,
}

/// Counts of a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of results.
    pub cells: usize,
    /// Number of results in which prediction and observation agree.
    pub agree: usize,
    /// Number of results in which they do not.
    pub disagree: usize,
    /// Number of results with outcome `accepted`: observed, or else predicted.
    pub accepted: usize,
    /// Number of results whose outcome could not be predicted.
    pub unknown: usize,
    /// Number of results that a listener of the profile accepted and whose ingress interface was predicted, but not observed.
    #[serde(default)]
    pub ingress_not_observed: usize,
    /// Number of accepted results whose captured packets confirm the reported ingress interface; null without a
    /// capture.
    #[serde(default)]
    pub confirmed: Option<usize>,
    /// Number of accepted results whose packets arrived on another interface; null without a capture.
    #[serde(default)]
    pub contradicted: Option<usize>,
}

/// An interface: some of the fields that it has in `bindscope.interfaces/1`, with the same names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// The kernel's interface index.
    pub index: u32,
    /// Its name.
    pub name: IfName,
    /// Administratively up.
    pub up: bool,
    /// A loopback interface.
    pub loopback: bool,
    /// Kind; null if the system does not report it.
    pub kind: Option<LinkKind>,
    /// Index of the bridge, VRF or bond it is enslaved to.
    pub master: Option<u32>,
    /// Its addresses, sorted.
    pub addresses: Vec<AddressReport>,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressReport {
    /// The address.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// Its class.
    pub class: AddrClass,
}

/// A source of connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceReport {
    /// The source, as in the results.
    pub source: Source,
    /// What it is, in words. Escaped.
    pub description: String,
    /// The host's interfaces on which its packets arrive, sorted; for the host itself its loopback interfaces. Empty if they are not
    /// known.
    pub interfaces: Vec<IfName>,
}

/// Result of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectationReport {
    /// Patterns of the listeners, separated by commas.
    pub listener: String,
    /// Key in the profile.
    pub rule: String,
    /// Verdict.
    pub verdict: Verdict,
    /// Reason.
    pub because: String,
    /// The sockets that the rule is about: their indexes in `sockets`.
    #[serde(default)]
    pub sockets: Vec<usize>,
    /// The results that a failed rule forbids, or in which a required connection is missing: their indexes in `cells`.
    #[serde(default)]
    pub cells: Vec<usize>,
}
