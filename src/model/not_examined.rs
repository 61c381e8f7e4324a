//! What an audit counts and does not judge: sockets of other protocols, and programs attached to cgroups.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::inventory::Owners;

/// What was seen in one network namespace and is not judged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotExamined {
    /// Sockets of protocols other than TCP and UDP, by kind.
    pub sockets: Vec<OtherSocket>,
    /// BPF programs that decide about the sockets of a cgroup, by cgroup.
    pub programs: Vec<AttachedProgram>,
    /// One sentence for each kind that could not be listed.
    pub unknown_because: Vec<String>,
}

/// A socket that receives from a network and is neither TCP nor UDP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherSocket {
    /// Its kind.
    pub kind: OtherKind,
    /// What it receives, such as `0.0.0.0 protocol 1` or `port 2222`; null when the kernel only counts it. Unescaped.
    pub local: Option<String>,
    /// User that made it; null when unknown.
    pub uid: Option<u32>,
    /// Its inode; null when unknown.
    pub inode: Option<u64>,
    /// Inode of its network namespace; null when it cannot be read, and for vsock, which has none.
    pub netns: Option<u64>,
    /// Processes that hold it; null when they could not be read.
    pub owners: Option<Owners>,
}

/// Kinds of sockets that an audit does not judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OtherKind {
    /// Raw IP (raw(7)).
    Raw,
    /// ICMP echo without privileges (icmp(7)).
    Ping,
    /// Frames of a link (packet(7)).
    Packet,
    /// Frames of a link that a BPF program hands over (AF_XDP).
    Xdp,
    /// UDP-Lite (udplite(7)).
    UdpLite,
    /// SCTP (sctp(7)).
    Sctp,
    /// DCCP.
    Dccp,
    /// Between a virtual machine and its host (vsock(7)).
    Vsock,
}

impl OtherKind {
    /// Every kind.
    pub const ALL: [OtherKind; 8] = [
        OtherKind::Raw,
        OtherKind::Ping,
        OtherKind::Packet,
        OtherKind::Xdp,
        OtherKind::UdpLite,
        OtherKind::Sctp,
        OtherKind::Dccp,
        OtherKind::Vsock,
    ];

    /// What a person calls one of them.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            OtherKind::Raw => "raw socket",
            OtherKind::Ping => "ping socket",
            OtherKind::Packet => "packet socket",
            OtherKind::Xdp => "XDP socket",
            OtherKind::UdpLite => "UDP-Lite socket",
            OtherKind::Sctp => "SCTP endpoint",
            OtherKind::Dccp => "DCCP socket",
            OtherKind::Vsock => "vsock listener",
        }
    }
}

impl fmt::Display for OtherKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            OtherKind::Raw => "raw",
            OtherKind::Ping => "ping",
            OtherKind::Packet => "packet",
            OtherKind::Xdp => "xdp",
            OtherKind::UdpLite => "udp-lite",
            OtherKind::Sctp => "sctp",
            OtherKind::Dccp => "dccp",
            OtherKind::Vsock => "vsock",
        })
    }
}

/// A BPF program attached to a cgroup.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttachedProgram {
    /// The path of the cgroup in its hierarchy. Unescaped.
    pub cgroup: String,
    /// Where it is attached, in the words of `bpftool cgroup`: `cgroup_inet_ingress`, `cgroup_inet4_bind`.
    pub attach: String,
    /// The kernel's number of the program.
    pub id: u32,
}

impl NotExamined {
    /// How many sockets of each kind there are, in one phrase each: `1 raw socket`, `2 packet sockets`.
    #[must_use]
    pub fn counts(&self) -> Vec<String> {
        let count = |kind| self.sockets.iter().filter(|socket| socket.kind == kind).count();
        let phrase = |kind: OtherKind| match count(kind) {
            0 => None,
            1 => Some(format!("1 {}", kind.noun())),
            several => Some(format!("{several} {}s", kind.noun())),
        };
        OtherKind::ALL.into_iter().filter_map(phrase).collect()
    }

    /// The number of attached programs in one phrase; `None` when there is none.
    #[must_use]
    pub fn program_count(&self) -> Option<String> {
        match self.programs.len() {
            0 => None,
            1 => Some("1 program attached to a cgroup".to_owned()),
            several => Some(format!("{several} programs attached to cgroups")),
        }
    }

    /// Adds what was seen in another network namespace. Programs and vsock sockets belong to no namespace and are kept once.
    pub fn merge(&mut self, other: NotExamined) {
        for socket in other.sockets {
            if socket.kind != OtherKind::Vsock || !self.sockets.contains(&socket) {
                self.sockets.push(socket);
            }
        }
        self.sockets
            .sort_by(|a, b| (a.kind, a.netns, &a.local, a.inode).cmp(&(b.kind, b.netns, &b.local, b.inode)));
        self.programs.extend(other.programs);
        self.programs.sort();
        self.programs.dedup();
        for because in other.unknown_because {
            if !self.unknown_because.contains(&because) {
                self.unknown_because.push(because);
            }
        }
    }
}
