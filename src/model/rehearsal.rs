//! Results of sockets like those of a host, bound in a copy of its network.

use serde::Serialize;

use super::addr::FamilyExposure;
use super::errno::Errno;
use super::reach::Source;

/// Results of one test in a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rehearsal {
    /// False if anything was left out.
    pub complete: bool,
    /// What the copy and the test leave out, one sentence each.
    pub incomplete_because: Vec<String>,
    /// Number of connections.
    pub connections: usize,
    /// The sources.
    pub sources: Vec<Source>,
    /// Results for each socket of the report.
    pub sockets: Vec<Rehearsed>,
}

/// Result of one socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rehearsed {
    /// Index of the socket in the report.
    pub socket: usize,
    /// Whether an equivalent socket was bound in the copy.
    pub bound: bool,
    /// The error of the bind.
    pub errno: Option<Errno>,
    /// The widest class of address at which another host reached it, per family; `loopback` if only the copy itself
    /// did. Null if it was not bound, or if no source could have tested it.
    pub observed: Option<FamilyExposure>,
    /// The sources that reached it.
    pub reached_from: Vec<Source>,
    /// Connections whose result differs from the plan for this socket, one sentence each.
    pub differs: Vec<String>,
    /// Assumptions, or the reason why there is no result.
    pub because: Option<String>,
}
