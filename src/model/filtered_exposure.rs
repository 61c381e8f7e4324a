//! What packet filters leave of the exposure of a socket.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::addr::{Exposure, Family};
use super::filter_result::Decider;
use super::ifname::IfName;

/// The exposure of a socket in each family behind the packet filters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilteredExposure {
    /// Exposure to IPv4 clients; null when it depends on what is not known.
    pub ipv4: Option<Exposure>,
    /// Exposure to IPv6 clients; null when it depends on what is not known.
    pub ipv6: Option<Exposure>,
    /// The families in which filters keep out clients that no rule names: all others, or all on some interface.
    pub narrowed: Vec<Family>,
}

impl FilteredExposure {
    /// The exposure in one family.
    #[must_use]
    pub fn of(&self, family: Family) -> Option<Exposure> {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }

    /// The wider of the two; `None` when one is not known.
    #[must_use]
    pub fn widest(&self) -> Option<Exposure> {
        Some(self.ipv4?.max(self.ipv6?))
    }
}

/// Clients of other hosts that reach a socket through the packet filters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReachedFrom {
    /// Their family.
    pub family: Family,
    /// The interface on which their packets arrive.
    pub interface: IfName,
    /// The network of their addresses, without the narrower networks that rules name; null for all addresses that no rule names.
    pub network: Option<IpNet>,
    /// The addresses of this host at which they reach it; null for all at which the socket can be reached.
    pub destinations: Option<Vec<IpAddr>>,
    /// The rule that lets them in; null where none decides alone.
    pub by: Option<Decider>,
}
