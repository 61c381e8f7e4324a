//! The sockets that are there already, and the processes that hold them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::socket::SocketView;
use crate::escape::escape;

/// What was found on one host, or in several of its network namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The sockets, sorted as [`ListeningSocket::order`] says.
    pub sockets: Vec<ListeningSocket>,
    /// Whether every socket of the namespace is in the list, however little may be known of some.
    pub all_sockets: bool,
    /// False when anything could not be read; [`Inventory::incomplete_because`] says what.
    pub complete: bool,
    /// One sentence for each thing that could not be read.
    pub incomplete_because: Vec<String>,
}

/// A socket that somebody may reach: a listening TCP socket or a UDP socket without a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListeningSocket {
    /// Address, port, family, device and options. An option that the source does not tell is null. A device that is gone
    /// is shown by its index, as `#13`.
    #[serde(rename = "socket")]
    pub view: SocketView,
    /// What it does.
    pub state: SocketState,
    /// Whether it is an MPTCP socket: those carry TCP too, and no ingress interface.
    pub mptcp: bool,
    /// Inode of its network namespace; null when it cannot be read.
    pub netns: Option<u64>,
    /// User that made it, as a number in the reader's user namespace; null when unknown.
    pub uid: Option<u32>,
    /// Its inode in sockfs, the number behind `socket:[...]`; null for a socket that no process made (the kernel's own) or
    /// that none holds any more.
    pub inode: Option<u64>,
    /// Its queue; null when the source does not tell.
    pub queue: Option<Queue>,
    /// Whether the source tells the device a socket is bound to (`/proc/net` does not): else a device may be there that
    /// makes its exposure narrower than shown.
    pub device_known: bool,
    /// Index of the device it is bound to.
    pub device_index: Option<u32>,
    /// Path of the cgroup in which it was made, where the kernel tells and the path can be found.
    pub cgroup: Option<Arc<str>>,
    /// Processes that hold it, by pid. Null when they could not be read; empty when every process could be read and none
    /// has it: then it is the kernel's own.
    pub owners: Option<Owners>,
}

impl ListeningSocket {
    /// The key by which lists of sockets are sorted: port before address, since that is what people look for.
    #[must_use]
    pub fn order(&self) -> impl Ord + use<> {
        let view = &self.view;
        (
            (self.netns, view.port, view.protocol, view.family, view.address),
            (self.device_index, self.state, self.inode, self.uid),
        )
    }

    /// The processes that are known to hold it.
    #[must_use]
    pub fn known_owners(&self) -> &[Owner] {
        self.owners.as_deref().unwrap_or_default()
    }

    /// The socket and who holds it, in one line for a person: `tcp 0.0.0.0:80 (nginx, pid 12)`. Escaped.
    #[must_use]
    pub fn summary(&self) -> String {
        let holders = match self.owners.as_deref() {
            None => match self.uid {
                Some(uid) => format!("a process that could not be read, uid {uid}"),
                None => "a process that could not be read".to_owned(),
            },
            Some([]) => match self.state {
                SocketState::TimeWait => "a connection in TIME-WAIT".to_owned(),
                _ => "no process; the kernel itself or a socket on its way between processes".to_owned(),
            },
            Some(owners) => {
                let mut parts: Vec<String> = owners.iter().take(3).map(Owner::to_string).collect();
                if owners.len() > 3 {
                    parts.push(format!("{} more", owners.len() - 3));
                }
                parts.join("; ")
            }
        };
        format!("{} ({holders})", self.view)
    }
}

/// What a socket does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketState {
    /// TCP: `listen(2)` was called.
    Listen,
    /// UDP: it takes datagrams from anybody.
    Unconnected,
    /// It is bound, and neither listens nor is connected.
    Bound,
    /// It has a peer.
    Connected,
    /// What TCP keeps of a connection after its end (RFC 9293, TIME-WAIT).
    TimeWait,
}

impl SocketState {
    /// The word for it in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            SocketState::Listen => "listen",
            SocketState::Unconnected => "unconnected",
            SocketState::Bound => "bound",
            SocketState::Connected => "connected",
            SocketState::TimeWait => "time-wait",
        }
    }
}

impl fmt::Display for SocketState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The queue of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// TCP: connections that wait to be accepted. UDP: bytes that wait to be read.
    pub length: u32,
    /// TCP: how many may wait. Null where the source does not tell (UDP, `/proc/net`).
    pub limit: Option<u32>,
}

/// Processes that hold a socket, by pid. Sockets with the same owners share them: a program may have thousands.
pub type Owners = Arc<[Owner]>;

/// A process that holds a socket. Text is as the system has it, and unescaped; bytes that are not UTF-8 stand as `\xNN`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Process id, in the reader's pid namespace.
    pub pid: u32,
    /// Name the process gives itself (`/proc/PID/comm`): proves nothing.
    pub command: String,
    /// Path of its executable; null when it cannot be read.
    pub exe: Option<String>,
    /// Whether the executable has been removed or replaced since the process began.
    pub exe_deleted: bool,
    /// Whether the path leads to that very file for the reader too. A container's files are others under the same names.
    /// Null when it cannot be told.
    pub exe_visible: Option<bool>,
    /// Name of its effective user, the number when it has no name, null when it cannot be read.
    pub user: Option<String>,
    /// Its effective user id.
    pub uid: Option<u32>,
    /// The systemd unit of its cgroup.
    pub unit: Option<String>,
    /// The container of its cgroup, as `docker:0123456789ab`.
    pub container: Option<String>,
}

impl fmt::Display for Owner {
    /// As `nginx, pid 12, user root`. Escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, pid {}", escape(&self.command), self.pid)?;
        match &self.user {
            Some(user) => write!(f, ", user {}", escape(user)),
            None => Ok(()),
        }
    }
}
