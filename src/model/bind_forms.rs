//! Bind forms: what a bind to one address would cover on a host.

use serde::{Deserialize, Serialize};

use super::addr::{Family, FamilyExposure};
use super::ifname::IfName;

/// Clients that can send to a bind form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Any client whose packets reach this host, on any interface: the weak host model.
    AnyInterface,
    /// Hosts on the links of the named interfaces: Linux is strict for link-local addresses.
    Link,
    /// This host itself.
    ThisHost,
    /// No client at present.
    NoClient,
}

/// Coverage of one bind form. Texts are borrowed, because there can be one form for each of ten thousand addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Coverage<'a> {
    /// The spelling in a profile: `0.0.0.0`, `::`, `fe80::1%eth0`.
    pub bind: &'a str,
    /// Address family of the socket.
    pub family: Family,
    /// IPV6_V6ONLY of the socket; null on AF_INET.
    pub v6only: Option<bool>,
    /// Local addresses at which the socket would be reachable, sorted. Networks, where a local route covers more than
    /// one address.
    pub addresses: &'a [&'a str],
    /// Clients that can send to it.
    pub reach: Reach,
    /// The interfaces of [`Reach::Link`].
    pub interfaces: &'a [IfName],
    /// Exposure.
    pub exposure: FamilyExposure,
    /// Reasons, one sentence each.
    pub because: &'a [String],
}
