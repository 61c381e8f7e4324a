//! What came of sockets like those of a host in a copy of its network.

use serde::Serialize;

use super::addr::FamilyExposure;
use super::errno::Errno;
use super::reach::Source;

/// A rehearsal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rehearsal {
    /// False when anything was left out.
    pub complete: bool,
    /// What the copy and the rehearsal leave out, one sentence each.
    pub incomplete_because: Vec<String>,
    /// Connections that were made.
    pub connections: usize,
    /// Who connected.
    pub sources: Vec<Source>,
    /// By the sockets of the report.
    pub sockets: Vec<Rehearsed>,
}

/// One socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rehearsed {
    /// Position of the socket in the report.
    pub socket: usize,
    /// Whether one like it was bound in the copy.
    pub bound: bool,
    /// What bind answered instead.
    pub errno: Option<Errno>,
    /// The widest class of address at which somebody else reached it, per family; `loopback` when only the copy itself did. Null when
    /// it was not bound, or nobody could have tried.
    pub observed: Option<FamilyExposure>,
    /// Who reached it.
    pub reached_from: Vec<Source>,
    /// What was taken for granted, or why nothing can be said.
    pub because: Option<String>,
}
