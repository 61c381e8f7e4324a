//! What `listen` has to tell, one event at a time. The serde shape is the NDJSON of schema `bindscope.listen/1`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::time::Time;
use crate::model::confinement::Confinement;
use crate::model::{Arrival, Change, Errno, Host, IfName, PathChange, Phase, SocketView};

/// The schema of the event stream, told by its first event.
pub const SCHEMA: &str = "bindscope.listen/1";

/// One line of the stream. A stream without a `summary` at its end was cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first event.
    Started(Started),
    /// A socket is open.
    Bound(BoundSocket),
    /// A socket could not be opened.
    BindFailed(FailedSocket),
    /// Something that was asked for and is not there was left out, or a thing worth knowing.
    Notice(Notice),
    /// Every socket is open or has failed; from here on arrivals are taken.
    Listening(Listening),
    /// A connection.
    Accepted(Accepted),
    /// A datagram.
    Datagram(Datagram),
    /// A connection ended whose later packets came in on another interface than its handshake.
    PathChanged(ChangedPath),
    /// The host's network changed.
    Network(Network),
    /// A socket of a listener that follows the network was closed: its address went away. Sockets that are opened later are
    /// told as `bound`.
    Closed(ClosedSocket),
    /// An accept queue is full or nearly so; at most once a second for each listener.
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
    /// When.
    pub time: Time,
    /// Where.
    pub host: Host,
    /// The profile's name.
    pub profile: String,
}

/// See [`Event::Bound`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoundSocket {
    /// The socket as the kernel has it.
    pub socket: SocketView,
    /// Its accept queue; null on UDP.
    pub backlog: Option<Backlog>,
    /// The errno for which the kernel would not keep the ingress interface; null when it does.
    pub packet_info_errno: Option<Errno>,
    /// Whether it was handed over by another program (`LISTEN_FDS`).
    pub inherited: bool,
}

/// Limit of an accept queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlog {
    /// What was asked for; null for an inherited socket.
    pub requested: Option<u32>,
    /// What is in effect after the system's cap (`net.core.somaxconn`); null when the system does not tell.
    pub effective: Option<u32>,
}

/// See [`Event::BindFailed`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailedSocket {
    /// The socket as it was asked for.
    pub socket: SocketView,
    /// The call that failed.
    pub phase: Phase,
    /// What it answered.
    pub errno: Errno,
    /// The code of its explanation.
    pub code: crate::code::Code,
    /// What happened, for a person.
    pub message: String,
    /// The way out; null when none is known.
    pub hint: Option<String>,
}

/// See [`Event::Notice`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// The code of its explanation.
    pub code: crate::code::Code,
    /// The listener it is about; null when about none.
    pub listener: Option<String>,
    /// What is so, for a person.
    pub message: String,
}

/// See [`Event::Listening`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// How many sockets are open.
    pub sockets: usize,
    /// How many could not be opened.
    pub failed: usize,
    /// The rights that the process has given up; null when it was told to keep them.
    #[serde(default)]
    pub confinement: Option<Confinement>,
}

/// See [`Event::Accepted`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// When it was accepted.
    pub time: Time,
    /// How it came.
    #[serde(flatten)]
    pub arrival: Arrival,
    /// Whether it was closed at once, since `max_connections` of its listener were open.
    #[serde(default)]
    pub over_limit: bool,
}

/// See [`Event::Datagram`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Datagram {
    /// When it was received.
    pub time: Time,
    /// How it came.
    #[serde(flatten)]
    pub arrival: Arrival,
    /// Its length in bytes.
    pub bytes: usize,
    /// Whether only its beginning was read.
    pub truncated: bool,
}

/// An [`Event::Accepted`] or [`Event::Datagram`] to be written, without owning the arrival.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ArrivalEvent<'a> {
    /// See [`Accepted`].
    Accepted {
        /// When it was accepted.
        time: Time,
        /// How it came.
        #[serde(flatten)]
        arrival: &'a Arrival,
        /// Whether it was closed at once, since its listener was full.
        over_limit: bool,
    },
    /// See [`Datagram`].
    Datagram {
        /// When it was received.
        time: Time,
        /// How it came.
        #[serde(flatten)]
        arrival: &'a Arrival,
        /// Its length in bytes.
        bytes: usize,
        /// Whether only its beginning was read.
        truncated: bool,
    },
}

/// See [`Event::PathChanged`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedPath {
    /// When it was noticed: at the end of the connection.
    pub time: Time,
    /// What changed.
    #[serde(flatten)]
    pub change: PathChange,
}

/// See [`Event::Network`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// When it was noticed.
    pub time: Time,
    /// What changed.
    #[serde(flatten)]
    pub change: Change,
    /// Sockets that stay open and that nobody can reach any more (`BS2025`).
    pub lost: Vec<SocketView>,
    /// Sockets that can be reached again.
    pub found: Vec<SocketView>,
}

/// See [`Event::Queue`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilledQueue {
    /// When.
    pub time: Time,
    /// Whose queue.
    pub listener: String,
    /// How many connections waited to be accepted, at the most since it was told last.
    pub length: u32,
    /// How many may wait; the kernel lets one more in.
    pub limit: u32,
    /// How often a connection found a queue full since the run began, over all listeners of this network namespace; null where
    /// that is not known. Clients try again, so one of them may be counted several times.
    pub overflows: Option<u64>,
}

/// See [`Event::Closed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedSocket {
    /// The socket as it was.
    pub socket: SocketView,
}

/// See [`Event::Dropped`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// How many since the last such event.
    pub count: u64,
    /// Why.
    pub reason: String,
}

/// See [`Event::Summary`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Connections.
    pub accepted: u64,
    /// Datagrams.
    pub datagrams: u64,
    /// Connections and datagrams without a line.
    pub dropped: u64,
    /// Sorted by listener.
    pub by_listener: Vec<ListenerSummary>,
    /// What went wrong how often: `accept EMFILE`, ...
    pub errors: BTreeMap<String, u64>,
}

/// One listener's part of a [`Summary`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerSummary {
    /// Its name.
    pub listener: String,
    /// Connections.
    pub accepted: u64,
    /// Datagrams.
    pub datagrams: u64,
    /// Connections that were closed at once since `max_connections` were open.
    pub over_limit: u64,
    /// Connections and datagrams by ingress interface; `unknown` where it could not be told.
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
