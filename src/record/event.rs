//! Events of `listen`. Their serde form is the NDJSON of schema `bindscope.listen/1`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::time::Time;
use crate::model::confinement::Confinement;
use crate::model::{Arrival, Change, Errno, FamilyExposure, Host, IfName, PathChange, Phase, SocketView};

/// Schema of the event stream, part of its first event.
pub const SCHEMA: &str = "bindscope.listen/1";

/// One line of the stream. A stream without a final `summary` is incomplete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first event.
    Started(Started),
    /// A socket is open.
    Bound(BoundSocket),
    /// A socket could not be opened.
    BindFailed(FailedSocket),
    /// A requested feature is missing and was skipped, or another note.
    Notice(Notice),
    /// Every socket is open or has failed; arrivals are accepted from here on.
    Listening(Listening),
    /// A connection.
    Accepted(Accepted),
    /// A datagram.
    Datagram(Datagram),
    /// A connection has ended whose later packets arrived on another interface than its handshake.
    PathChanged(ChangedPath),
    /// The host's network changed.
    Network(Network),
    /// More hosts can reach a socket than was reported before. If other hosts can, a `notice` with the code `BS2021` follows.
    Exposure(ChangedExposure),
    /// A socket of a listener that follows the network was closed, because its address was removed. Sockets that are
    /// opened later are reported as `bound`.
    Closed(ClosedSocket),
    /// An accept queue is full or almost full; at most once a second for each listener.
    Queue(FilledQueue),
    /// Arrivals that are counted in the summary but have no line.
    Dropped(Dropped),
    /// The last event.
    Summary(Summary),
}

/// See [`Event::Started`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// [`SCHEMA`].
    pub schema: String,
    /// The program's version.
    pub version: String,
    /// Time of the event.
    pub time: Time,
    /// The host.
    pub host: Host,
    /// The profile's name.
    pub profile: String,
}

/// See [`Event::Bound`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoundSocket {
    /// The socket as reported by the kernel.
    pub socket: SocketView,
    /// Its accept queue; null on UDP.
    pub backlog: Option<Backlog>,
    /// The errno with which the kernel refused to record the ingress interface; null if it records it.
    pub packet_info_errno: Option<Errno>,
    /// Whether another program passed the socket (`LISTEN_FDS`).
    pub inherited: bool,
}

/// Limit of an accept queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlog {
    /// The requested limit; null for an inherited socket.
    pub requested: Option<u32>,
    /// The limit in effect after the system's cap (`net.core.somaxconn`); null if the system does not report it.
    pub effective: Option<u32>,
}

/// See [`Event::BindFailed`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailedSocket {
    /// The requested socket.
    pub socket: SocketView,
    /// The system call that failed.
    pub phase: Phase,
    /// Its errno.
    pub errno: Errno,
    /// Code of the explanation.
    pub code: crate::code::Code,
    /// Message for people.
    pub message: String,
    /// Suggested fix; null if none is known.
    pub hint: Option<String>,
}

/// See [`Event::Notice`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Code of the explanation.
    pub code: crate::code::Code,
    /// The listener; null if the notice is not about a listener.
    pub listener: Option<String>,
    /// Message for people.
    pub message: String,
}

/// See [`Event::Listening`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// Number of open sockets.
    pub sockets: usize,
    /// Number of sockets that could not be opened.
    pub failed: usize,
    /// Number of sockets that are waited for while the others are served. They are reported as `bound` or `bind_failed` later.
    #[serde(default)]
    pub waiting: usize,
    /// The privileges that the process dropped; null if it was started with `--keep-privileges`.
    #[serde(default)]
    pub confinement: Option<Confinement>,
}

/// See [`Event::Accepted`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// Time of the accept.
    pub time: Time,
    /// Details of the arrival.
    #[serde(flatten)]
    pub arrival: Arrival,
    /// Whether it was closed immediately, because `max_connections` of its listener were open.
    #[serde(default)]
    pub over_limit: bool,
}

/// See [`Event::Datagram`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Datagram {
    /// Time of the receive.
    pub time: Time,
    /// Details of the arrival.
    #[serde(flatten)]
    pub arrival: Arrival,
    /// Length in bytes.
    pub bytes: usize,
    /// Whether only the beginning was read.
    pub truncated: bool,
}

/// A borrowed [`Event::Accepted`] or [`Event::Datagram`] for writing.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ArrivalEvent<'a> {
    /// See [`Accepted`].
    Accepted {
        /// Time of the accept.
        time: Time,
        /// Details of the arrival.
        #[serde(flatten)]
        arrival: &'a Arrival,
        /// Whether it was closed immediately, because its listener had its maximum of connections.
        over_limit: bool,
    },
    /// See [`Datagram`].
    Datagram {
        /// Time of the receive.
        time: Time,
        /// Details of the arrival.
        #[serde(flatten)]
        arrival: &'a Arrival,
        /// Length in bytes.
        bytes: usize,
        /// Whether only the beginning was read.
        truncated: bool,
    },
}

/// See [`Event::PathChanged`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedPath {
    /// Time of the observation: the end of the connection.
    pub time: Time,
    /// The change.
    #[serde(flatten)]
    pub change: PathChange,
}

/// See [`Event::Network`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Time of the observation.
    pub time: Time,
    /// The change.
    #[serde(flatten)]
    pub change: Change,
    /// Sockets that stay open but can no longer be reached (`BS2025`).
    pub lost: Vec<SocketView>,
    /// Sockets that can be reached again.
    pub found: Vec<SocketView>,
}

/// See [`Event::Exposure`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedExposure {
    /// Time at which it was noticed.
    pub time: Time,
    /// The socket, with its exposure now.
    pub socket: SocketView,
    /// The widest exposure that was reported before.
    pub before: FamilyExposure,
}

/// See [`Event::Queue`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilledQueue {
    /// Time of the observation.
    pub time: Time,
    /// The listener.
    pub listener: String,
    /// The maximum number of waiting connections since the last such event.
    pub length: u32,
    /// Limit of the queue; the kernel accepts one more.
    pub limit: u32,
    /// How often a connection found a full queue since the start, over all listeners of this network namespace; null if
    /// unknown. Clients retry, so one client can be counted several times.
    pub overflows: Option<u64>,
}

/// See [`Event::Closed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedSocket {
    /// The closed socket.
    pub socket: SocketView,
}

/// See [`Event::Dropped`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Number of arrivals since the last such event.
    pub count: u64,
    /// Reason.
    pub reason: String,
}

/// See [`Event::Summary`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of connections.
    pub accepted: u64,
    /// Number of datagrams.
    pub datagrams: u64,
    /// Number of connections and datagrams without a line.
    pub dropped: u64,
    /// Sorted by listener.
    pub by_listener: Vec<ListenerSummary>,
    /// Number of errors of each kind: `accept EMFILE`, ...
    pub errors: BTreeMap<String, u64>,
}

/// One listener's part of a [`Summary`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerSummary {
    /// Name of the listener.
    pub listener: String,
    /// Number of connections.
    pub accepted: u64,
    /// Number of datagrams.
    pub datagrams: u64,
    /// Number of connections closed immediately because `max_connections` were open.
    pub over_limit: u64,
    /// Connections and datagrams by ingress interface; `unknown` if it is not known.
    pub by_ingress: BTreeMap<IfName, u64>,
}

/// The key of [`ListenerSummary::by_ingress`] for an ingress interface.
#[must_use]
pub fn ingress_key(name: Option<&IfName>, index: Option<u32>) -> IfName {
    match (name, index) {
        (Some(name), _) => name.clone(),
        (None, Some(index)) => IfName::from(format!("if{index}").as_str()),
        (None, None) => IfName::from("unknown"),
    }
}
