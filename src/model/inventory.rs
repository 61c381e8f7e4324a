//! Existing sockets and the processes that own them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::filtered_exposure::{FilteredExposure, ReachedFrom};
use super::ifname::IfName;
use super::socket::{Protocol, SocketView};
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
    /// The ports from which the kernel of this network namespace chooses; null when they cannot be read.
    #[serde(default)]
    pub client_ports: Option<ClientPorts>,
    /// How long the addresses that sockets are bound to are valid; those that stay are absent.
    #[serde(default)]
    pub lifetimes: BTreeMap<IpAddr, Lifetime>,
}

/// The ports that the kernel gives to sockets that ask for none (`net.ipv4.ip_local_port_range`, for IPv6 as well), less those
/// that an administrator keeps for servers (`net.ipv4.ip_local_reserved_ports`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientPorts {
    /// The first port of the range.
    pub low: u16,
    /// The last port of the range.
    pub high: u16,
    /// Reserved ports, as ranges from the first to the last port.
    pub reserved: Vec<(u16, u16)>,
}

impl ClientPorts {
    /// Whether the kernel may choose this port.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        (self.low..=self.high).contains(&port)
            && !self.reserved.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    /// Reads the texts of the two settings.
    #[must_use]
    pub fn parse(range: &str, reserved: &str) -> Option<ClientPorts> {
        let mut ends = range.split_whitespace().map(str::parse);
        let (low, high) = (ends.next()?.ok()?, ends.next()?.ok()?);
        let part = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
        };
        let parts = reserved.split(',').map(str::trim).filter(|text| !text.is_empty());
        Some(ClientPorts { low, high, reserved: parts.map(part).collect::<Option<_>>()? })
    }
}

/// A listening TCP socket or a UDP socket without a peer: any host that the network lets through may send to it.
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
    /// Processes that hold it, by pid. Null when they could not be read; empty when the kernel itself holds it, or when every
    /// process could be read and none has it.
    pub owners: Option<Owners>,
    /// The part of the kernel that holds it; null when a process holds it or when that part is not known.
    #[serde(default)]
    pub kernel: Option<KernelHolder>,
    /// Whether IP_TRANSPARENT is set: then a rule of a packet filter may deliver packets to any address to it. Null when the
    /// source does not tell.
    #[serde(default)]
    pub transparent: Option<bool>,
    /// The firewall mark of its packets (SO_MARK), at which policy rules look. Null when it could not be read.
    #[serde(default)]
    pub mark: Option<u32>,
    /// The systemd socket unit that opened it for a service; null when it was not opened so, or when that is not known.
    #[serde(default)]
    pub activation: Option<Activation>,
    /// The interface on which its address is configured; null for a wildcard, for an address that no interface has, and before
    /// an audit looked it up.
    #[serde(default)]
    pub address_owner: Option<IfName>,
    /// Whether the kernel may have chosen its port: then the number means nothing after a restart. Null when the range of such
    /// ports is not known, and before an audit looked at it.
    #[serde(default)]
    pub port_chosen: Option<bool>,
    /// What packet filters leave of the exposure; null when they could not be read or were not evaluated.
    #[serde(default)]
    pub exposure_filtered: Option<FilteredExposure>,
    /// The clients of other hosts that packet filters let in; null when that is not known, or there are no rules.
    #[serde(default)]
    pub reached_from: Option<Arc<[ReachedFrom]>>,
}

/// How long an address is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetime {
    /// Whether its preferred lifetime is over (RFC 4862).
    pub deprecated: bool,
    /// The seconds until it is removed; null when it stays.
    pub valid: Option<u32>,
}

/// A part of the kernel that holds a socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KernelHolder {
    /// What it is: `vxlan`, `geneve`, `bareudp`, `wireguard`, `nfsd`, `mptcp endpoint`.
    pub kind: String,
    /// Its name, such as that of the interface. Unescaped.
    pub name: Option<String>,
}

impl fmt::Display for KernelHolder {
    /// As `kernel: vxlan flannel.1`. Escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel: {}", escape(&self.kind))?;
        match &self.name {
            Some(name) => write!(f, " {}", escape(name)),
            None => Ok(()),
        }
    }
}

/// A systemd socket unit that listens for a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Activation {
    /// The socket unit, such as `ssh.socket`.
    pub socket_unit: String,
    /// The service that it activates, such as `ssh.service` or `ssh@.service`.
    pub service: String,
    /// The program that the service starts; null when its unit file does not say.
    pub exe: Option<String>,
    /// The user that the service runs as; null when its unit file names none, which means root.
    pub user: Option<String>,
    /// Whether a process of the service holds the socket as well.
    pub started: bool,
}

impl fmt::Display for Activation {
    /// As `ssh.socket -> ssh.service (not started)`. Escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.started { "" } else { " (not started)" };
        write!(f, "{} -> {}{state}", escape(&self.socket_unit), escape(&self.service))
    }
}

impl ListeningSocket {
    /// A TCP listener or a UDP socket without a peer, of which only this is known.
    #[must_use]
    pub fn of(view: SocketView) -> ListeningSocket {
        ListeningSocket {
            state: match view.protocol {
                Protocol::Tcp => SocketState::Listen,
                Protocol::Udp => SocketState::Unconnected,
            },
            view,
            mptcp: false,
            netns: None,
            uid: None,
            inode: None,
            queue: None,
            device_known: false,
            device_index: None,
            cgroup: None,
            owners: None,
            kernel: None,
            transparent: None,
            mark: None,
            activation: None,
            address_owner: None,
            port_chosen: None,
            exposure_filtered: None,
            reached_from: None,
        }
    }

    /// Sort key of socket lists: port before address, because users search by port.
    #[must_use]
    pub fn order(&self) -> impl Ord + use<> {
        let view = &self.view;
        (
            (self.netns, view.port, view.protocol, view.family, view.address),
            (self.device_index, self.state, self.inode, self.uid),
        )
    }

    /// Whether the kernel certainly or probably holds it: every process is known, and none has it.
    #[must_use]
    pub fn held_by_kernel(&self) -> bool {
        self.owners.as_ref().is_some_and(|owners| owners.is_empty())
    }

    /// The processes that are known to hold it.
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
            Some([]) if self.kernel.is_some() => {
                self.kernel.as_ref().map(ToString::to_string).unwrap_or_default()
            }
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

/// A socket that occupies a port without serving clients: bound, connected or in TIME-WAIT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortHolder {
    /// The socket.
    pub socket: ListeningSocket,
    /// The other end of a connection, also of one in TIME-WAIT.
    pub peer: Option<std::net::SocketAddr>,
    /// Milliseconds until TIME-WAIT ends.
    pub expires_ms: Option<u32>,
}

impl PortHolder {
    /// The socket and why it holds the port, in one phrase for people. Escaped.
    #[must_use]
    pub fn summary(&self) -> String {
        let view = &self.socket.view;
        let program = match self.socket.known_owners() {
            [first, ..] => format!("{} (pid {})", escape(&first.command), first.pid),
            [] => "another program".to_owned(),
        };
        match (self.socket.state, self.peer) {
            (SocketState::TimeWait, _) => match self.expires_ms {
                Some(left) => format!(
                    "a closed connection in TIME-WAIT ({view}, for another {} s)",
                    left.div_ceil(1000)
                ),
                None => format!("a closed connection in TIME-WAIT ({view})"),
            },
            (SocketState::Connected, Some(peer)) => {
                format!("a connection of {program} to {peer}, which has {view} as its own end")
            }
            (SocketState::Connected, None) => format!("a connection of {program} ({view})"),
            (SocketState::Bound, _) => format!("{program}, which bound {view} and does not listen"),
            _ => self.socket.summary(),
        }
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

impl Owner {
    /// A process of which only this is known.
    #[must_use]
    pub fn of(pid: u32, command: impl Into<String>) -> Owner {
        Owner {
            pid,
            command: command.into(),
            exe: None,
            exe_deleted: false,
            exe_visible: None,
            user: None,
            uid: None,
            unit: None,
            container: None,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_chooses_within_its_range_and_never_a_reserved_port() {
        let ports = ClientPorts::parse("32768\t60999\n", "8080,54043-54045, 60000\n").unwrap();
        for (port, expected) in [
            (32767, false),
            (32768, true),
            (54042, true),
            (54043, false),
            (54045, false),
            (54046, true),
            (60000, false),
            (60999, true),
            (61000, false),
            (8080, false),
        ] {
            assert_eq!(ports.contains(port), expected, "{port}");
        }
        assert_eq!(ClientPorts::parse("1 2", "\n").unwrap().reserved, []);
        for (range, reserved) in [("", ""), ("1", ""), ("1 70000", ""), ("1 2", "x"), ("1 2", "3-")] {
            assert_eq!(ClientPorts::parse(range, reserved), None, "{range:?} {reserved:?}");
        }
    }
}
