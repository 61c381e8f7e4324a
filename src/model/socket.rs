//! Sockets: the requested socket ([`SocketSpec`]) and the displayed one ([`SocketView`]).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::addr::{self, Family, FamilyExposure};
use super::ifname::IfName;

/// Transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The name in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }

    /// The number in the header of a packet (`IPPROTO_*`).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Requested value of IPV6_V6ONLY (ipv6(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum V6Only {
    /// Set to 1: IPv6 only.
    #[default]
    On,
    /// Set to 0: a wildcard accepts IPv4 as well, with IPv4-mapped addresses.
    Off,
    /// Not set: `net.ipv6.bindv6only` decides when the socket is created.
    System,
}

impl V6Only {
    /// The requested value; `None` if the system decides.
    #[must_use]
    pub fn as_set(self) -> Option<bool> {
        match self {
            V6Only::On => Some(true),
            V6Only::Off => Some(false),
            V6Only::System => None,
        }
    }
}

/// System call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// `socket(2)`.
    Socket,
    /// `setsockopt(2)`.
    Setsockopt,
    /// `bind(2)`.
    Bind,
    /// `listen(2)`.
    Listen,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Phase::Socket => "socket",
            Phase::Setsockopt => "setsockopt",
            Phase::Bind => "bind",
            Phase::Listen => "listen",
        })
    }
}

/// Reply to a client that connects or sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// No reply.
    #[default]
    None,
    /// A description of the arrival: one line, or a page for an HTTP client.
    Describe,
    /// The received bytes.
    Echo,
}

/// One socket to open, with all options for the kernel and the way it is served.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SocketSpec {
    /// Name of its listener.
    pub listener: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The address passed to bind(2). Its variant (not [`Family::of`]) selects AF_INET or AF_INET6, so an IPv4-mapped
    /// address creates an AF_INET6 socket.
    pub address: IpAddr,
    /// Port in host byte order; 0 lets the kernel choose.
    pub port: u16,
    /// `sin6_scope_id`; 0 for none. Used only for link-local addresses.
    pub scope_id: u32,
    /// IPV6_V6ONLY; ignored on AF_INET.
    pub v6only: V6Only,
    /// SO_BINDTODEVICE.
    pub device: Option<IfName>,
    /// SO_REUSEADDR.
    pub reuse_address: bool,
    /// SO_REUSEPORT.
    pub reuse_port: bool,
    /// IP_FREEBIND or IPV6_FREEBIND.
    pub freebind: bool,
    /// IP_TRANSPARENT or IPV6_TRANSPARENT.
    pub transparent: bool,
    /// Limit of the accept queue, passed to `listen(2)`; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// Reply to clients.
    pub reply: Reply,
    /// A connection that is idle for this time is closed.
    pub idle_timeout: Duration,
    /// Maximum of open connections; further ones are counted and closed immediately.
    pub max_connections: u32,
    /// How long to wait for a tentative address before bind; zero does not wait.
    pub wait_for_address: Duration,
    /// Whether a missing address is skipped with a note instead of an error.
    pub skip_when_missing: bool,
    /// With port 0: whether every socket of the listener takes a port of its own. Otherwise all take the same one.
    pub port_per_socket: bool,
}

impl SocketSpec {
    /// A socket without a name and without options except IPV6_V6ONLY, with no reply and the shortest queue.
    #[must_use]
    pub fn plain(protocol: Protocol, address: IpAddr, port: u16) -> SocketSpec {
        SocketSpec {
            listener: String::new(),
            protocol,
            address,
            port,
            scope_id: 0,
            v6only: V6Only::On,
            device: None,
            reuse_address: false,
            reuse_port: false,
            freebind: false,
            transparent: false,
            backlog: 1,
            reply: Reply::None,
            idle_timeout: Duration::ZERO,
            max_connections: 1,
            wait_for_address: Duration::ZERO,
            skip_when_missing: false,
            port_per_socket: false,
        }
    }

    /// Address family of the socket itself: AF_INET6 for an IPv4-mapped address.
    #[must_use]
    pub fn domain(&self) -> Family {
        if self.address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
    }

    /// The address for bind(2).
    #[must_use]
    pub fn socket_addr(&self) -> SocketAddr {
        super::addr::socket_addr(self.address, self.port, self.scope_id)
    }

    /// The displayed form before the socket is opened. `v6only` is the requested value, null if the system decides.
    #[must_use]
    pub fn view(&self, exposure: FamilyExposure) -> SocketView {
        let v6only = match (self.domain(), self.v6only) {
            (Family::Ipv4, _) | (_, V6Only::System) => None,
            (_, V6Only::On) => Some(true),
            (_, V6Only::Off) => Some(false),
        };
        SocketView {
            listener: Some(self.listener.clone()),
            protocol: self.protocol,
            family: self.domain(),
            address: self.address,
            port: self.port,
            scope_id: (self.scope_id != 0).then_some(self.scope_id),
            device: self.device.clone(),
            v6only,
            reuse_address: Some(self.reuse_address),
            reuse_port: Some(self.reuse_port),
            exposure,
        }
    }
}

/// A socket as shown in every document. `null` means unknown or not applicable (v6only on AF_INET, listener of a
/// foreign socket).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketView {
    /// Listener of the profile; null for a socket of another program.
    pub listener: Option<String>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Address family of the socket itself (AF_INET or AF_INET6).
    pub family: Family,
    /// The bound address.
    pub address: IpAddr,
    /// The bound port.
    pub port: u16,
    /// Scope id of a link-local address.
    pub scope_id: Option<u32>,
    /// Device that it is bound to.
    pub device: Option<IfName>,
    /// IPV6_V6ONLY in effect.
    pub v6only: Option<bool>,
    /// SO_REUSEADDR.
    pub reuse_address: Option<bool>,
    /// SO_REUSEPORT.
    pub reuse_port: Option<bool>,
    /// Exposure for each family.
    pub exposure: FamilyExposure,
}

impl SocketView {
    /// A socket of which only this is known.
    #[must_use]
    pub fn of(protocol: Protocol, address: IpAddr, port: u16) -> SocketView {
        SocketView {
            listener: None,
            protocol,
            family: Family::of(address),
            address,
            port,
            scope_id: None,
            device: None,
            v6only: None,
            reuse_address: None,
            reuse_port: None,
            exposure: FamilyExposure::default(),
        }
    }

    /// The name of its zone: the device where it has one, else the number.
    fn zone(&self) -> Option<IfName> {
        self.scope_id.map(|id| self.device.clone().unwrap_or_else(|| IfName::from(id.to_string().as_str())))
    }

    /// The address as it stands before a port: IPv6 in brackets, with its zone.
    #[must_use]
    pub fn host(&self) -> String {
        // Whether `::` is dual-stack is the difference people miss, so the address keeps its own spelling here.
        match self.address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(_) if self.address.to_canonical().is_ipv4() => format!("[{}]", self.address),
            IpAddr::V6(_) => format!("[{}]", addr::text(self.address, self.zone().as_ref())),
        }
    }

    /// `v6only` or `dual-stack` for the IPv6 wildcard, whose spelling does not tell; nothing for others.
    #[must_use]
    pub fn families_word(&self) -> Option<&'static str> {
        match self.v6only {
            Some(true) if self.address.is_unspecified() => Some("v6only"),
            Some(false) if self.address.is_unspecified() => Some("dual-stack"),
            _ => None,
        }
    }

    /// The address without the port, as `0.0.0.0` or `[::] v6only`.
    #[must_use]
    pub fn bound_address(&self) -> String {
        match self.families_word() {
            Some(word) => format!("{} {word}", self.host()),
            None => self.host(),
        }
    }
}

impl fmt::Display for SocketView {
    /// Format `tcp 0.0.0.0:8081`, `udp [::]:5353 v6only`, `tcp 0.0.0.0:80 device eth0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:{}", self.protocol, self.host(), self.port)?;
        if let Some(word) = self.families_word() {
            write!(f, " {word}")?;
        }
        match &self.device {
            Some(device) if self.scope_id.is_none() => write!(f, " device {device}"),
            _ => Ok(()),
        }
    }
}
