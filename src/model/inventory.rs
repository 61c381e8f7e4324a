//! Existing sockets and the processes that own them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::socket::SocketView;
use crate::escape::escape;

/// The sockets of one host, or of several of its network namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The sockets, in the order of [`ListeningSocket::order`].
    pub sockets: Vec<ListeningSocket>,
    /// Whether every socket of the namespace is in the list, even if some facts are unknown.
    pub all_sockets: bool,
    /// False if anything could not be read; [`Inventory::incomplete_because`] has the reasons.
    pub complete: bool,
    /// One sentence for each fact that could not be read.
    pub incomplete_because: Vec<String>,
}

/// A socket that clients may reach: a listening TCP socket or a UDP socket without a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListeningSocket {
    /// Address, port, family, device and options. An option that the source does not report is null. A removed device
    /// is shown by its index, as `#13`.
    #[serde(rename = "socket")]
    pub view: SocketView,
    /// State of the socket.
    pub state: SocketState,
    /// Whether it is an MPTCP socket. Such sockets also accept TCP, but do not report the ingress interface.
    pub mptcp: bool,
    /// Inode of its network namespace; null if it cannot be read.
    pub netns: Option<u64>,
    /// The user that created it, as a number in the reader's user namespace; null when unknown.
    pub uid: Option<u32>,
    /// Inode in sockfs, the number in `socket:[...]`. Null for a socket of the kernel, or one that no process owns any
    /// more.
    pub inode: Option<u64>,
    /// Queue; null if the source does not report it.
    pub queue: Option<Queue>,
    /// Whether the source reports the device of a socket (`/proc/net` does not). Otherwise an unknown device may make
    /// the exposure narrower than shown.
    pub device_known: bool,
    /// Index of the device.
    pub device_index: Option<u32>,
    /// Path of the cgroup in which it was created, if the kernel reports it and the path can be found.
    pub cgroup: Option<Arc<str>>,
    /// Processes that own it, by pid. Null if they could not be read. Empty if every process could be read and none
    /// owns it: then it belongs to the kernel.
    pub owners: Option<Owners>,
}

impl ListeningSocket {
    /// Sort key of socket lists: port before address, because users search by port.
    #[must_use]
    pub fn order(&self) -> impl Ord + use<> {
        let view = &self.view;
        (
            (self.netns, view.port, view.protocol, view.family, view.address),
            (self.device_index, self.state, self.inode, self.uid),
        )
    }

    /// The known owners.
    #[must_use]
    pub fn known_owners(&self) -> &[Owner] {
        self.owners.as_deref().unwrap_or_default()
    }

    /// The socket and its owners in one line for people: `tcp 0.0.0.0:80 (nginx, pid 12)`. Escaped.
    #[must_use]
    pub fn summary(&self) -> String {
        let holders = match self.owners.as_deref() {
            None => match self.uid {
                Some(uid) => format!("a process that could not be read, uid {uid}"),
                None => "a process that could not be read".to_owned(),
            },
            Some([]) => match self.state {
                SocketState::TimeWait => "a connection in TIME-WAIT".to_owned(),
                _ => "no process: a socket of the kernel, or one that is passed between processes".to_owned(),
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

/// State of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketState {
    /// TCP: `listen(2)` was called.
    Listen,
    /// UDP: accepts datagrams from any sender.
    Unconnected,
    /// Bound, but neither listening nor connected.
    Bound,
    /// Connected to a peer.
    Connected,
    /// Remaining state of a closed connection (RFC 9293, TIME-WAIT).
    TimeWait,
}

impl SocketState {
    /// The name in tables.
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
    /// TCP: the maximum. Null if the source does not report it (UDP, `/proc/net`).
    pub limit: Option<u32>,
}

/// Processes that own a socket, by pid. Sockets with the same owners share one list: a program can have thousands of
/// sockets.
pub type Owners = Arc<[Owner]>;

/// A process that owns a socket. Text is unescaped, as reported by the system; bytes that are not UTF-8 are written as
/// `\xNN`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Process id, in the reader's pid namespace.
    pub pid: u32,
    /// Name that the process sets itself (`/proc/PID/comm`): proves nothing.
    pub command: String,
    /// Path of the executable; null if it cannot be read.
    pub exe: Option<String>,
    /// Whether the executable was deleted or replaced after the process started.
    pub exe_deleted: bool,
    /// Whether the path leads to the same file for the reader. A container has other files under the same paths. Null
    /// if unknown.
    pub exe_visible: Option<bool>,
    /// Name of its effective user; the number if it has no name; null if it cannot be read.
    pub user: Option<String>,
    /// Effective user id.
    pub uid: Option<u32>,
    /// Systemd unit of its cgroup.
    pub unit: Option<String>,
    /// Container of its cgroup, as `docker:0123456789ab`.
    pub container: Option<String>,
}

impl fmt::Display for Owner {
    /// Format `nginx, pid 12, user root`. Escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, pid {}", escape(&self.command), self.pid)?;
        match &self.user {
            Some(user) => write!(f, ", user {}", escape(user)),
            None => Ok(()),
        }
    }
}
