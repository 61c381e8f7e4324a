//! Values that both sides of [`super`] hand out about sockets.

use std::io;

use socket2::Socket;

use crate::model::Protocol;

/// What a monitor of the network has to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notices {
    /// Nothing changed.
    None,
    /// Something changed.
    Some,
    /// Something changed, and part of what did was lost.
    Lost,
}

/// The accept queue of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransportState {
    /// Connections that wait to be accepted.
    pub queued: u32,
    /// How many may wait: the backlog after the system's cap.
    pub limit: u32,
}

impl TransportState {
    /// Whether it is full (Linux lets one more wait than the limit says, `sk_acceptq_is_full()`), or a long one nearly so.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        /// A shorter queue is a quarter from its end all the time.
        const LONG: u32 = 16;
        self.queued > self.limit || (self.queued >= LONG && self.queued >= self.limit - self.limit / 4)
    }
}

/// What a socket is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Nothing for now; it stays in the set.
    Nothing,
    /// A connection, a datagram or bytes to read.
    Read,
    /// Room to write.
    Write,
}

/// A socket that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// The key it was added with.
    pub key: u64,
    /// Something can be read, or an error waits to be.
    pub readable: bool,
    /// Something can be written, or an error waits to be read.
    pub writable: bool,
}

/// What an inventory looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InventoryOptions {
    /// Look for the processes that hold each socket.
    pub owners: bool,
    /// Read SO_REUSEADDR, SO_REUSEPORT and IPV6_V6ONLY from the sockets themselves, where the processes may be traced.
    pub socket_options: bool,
    /// Do not ask sock_diag, as on a system that refuses it.
    pub proc_net_only: bool,
}

impl Default for InventoryOptions {
    fn default() -> InventoryOptions {
        InventoryOptions { owners: true, socket_options: false, proc_net_only: false }
    }
}

/// A socket that another program opened and handed over.
#[derive(Debug)]
pub struct Inherited {
    /// Its name of `LISTEN_FDNAMES`, or `fd3` and so on.
    pub name: String,
    /// The socket, non-blocking.
    pub socket: Socket,
    /// TCP (it listens) or UDP.
    pub protocol: Protocol,
}

/// The serving end of an established TCP connection of any program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConnection {
    /// The local end as the socket has it (v4-mapped on an AF_INET6 socket).
    pub local: std::net::SocketAddr,
    /// The peer as the socket has it.
    pub peer: std::net::SocketAddr,
    /// Index of the device that the socket is bound to.
    pub device_index: Option<u32>,
    /// Its inode; `None` while it waits to be accepted.
    pub inode: Option<u64>,
    /// User that made it.
    pub uid: u32,
    /// Processes that hold it; `None` when they could not be read.
    pub owners: Option<crate::model::Owners>,
    /// Index and name of the interface that the kernel names for it; else why it does not.
    pub ingress: Result<(u32, Option<crate::model::IfName>), &'static str>,
}

/// The connections of the servers of one network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerConnections {
    /// The connections, by local and peer address.
    pub list: Vec<ServerConnection>,
    /// Whether every connection is in the list, however little may be known of some.
    pub all: bool,
    /// One sentence for each thing that could not be read.
    pub incomplete_because: Vec<String>,
}

/// What the calling thread may do to its network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerRights {
    /// Effective user id.
    pub uid: u32,
    /// Bind ports below `net.ipv4.ip_unprivileged_port_start` (CAP_NET_BIND_SERVICE).
    pub privileged_ports: bool,
    /// Set IP_TRANSPARENT (CAP_NET_ADMIN or CAP_NET_RAW).
    pub transparent: bool,
}

/// What this user can see of the machine. An error in an option is why something cannot be seen; `None` is that it can.
#[derive(Debug, Default)]
pub struct Visibility {
    /// Effective user.
    pub uid: u32,
    /// Effective capabilities, of those that matter.
    pub capabilities: Vec<&'static str>,
    /// Each protocol that sock_diag was asked for; empty where there is no sock_diag.
    pub sock_diag: Vec<(&'static str, Option<io::Error>)>,
    /// Processes that are seen.
    pub processes: usize,
    /// Those whose descriptors cannot be read.
    pub processes_unreadable: usize,
    /// Why there may be more.
    pub processes_hidden_because: Option<&'static str>,
    /// Whether sockets can be borrowed at all (pidfd_getfd).
    pub borrow: Option<io::Error>,
    /// Network namespaces that are seen.
    pub namespaces: usize,
    /// Of these, how many may not be entered.
    pub namespaces_closed: usize,
    /// Whether AF_INET6 sockets can be made.
    pub ipv6_sockets: Option<io::Error>,
    /// Settings that decide, by dotted name; those that this system has not are absent.
    pub settings: std::collections::BTreeMap<String, i64>,
    /// Limit of open descriptors.
    pub descriptors: Option<u64>,
}

/// How far a connection got at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connecting {
    /// It is there.
    Done,
    /// The other side has not answered yet.
    Pending,
}
