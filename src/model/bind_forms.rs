//! What a bind to one address would cover on a host.

use serde::{Deserialize, Serialize};

use super::addr::{Family, FamilyExposure};
use super::ifname::IfName;

/// Who can send to what a bind form covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Whoever gets a packet here, through any interface: the weak host model.
    AnyInterface,
    /// Hosts on the link of the named interfaces: link-local addresses are strong.
    Link,
    /// This host itself.
    ThisHost,
    /// Nobody, as things stand.
    Nobody,
}

/// What one bind form would cover. It borrows its texts, since there may be one for each of ten thousand addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Coverage<'a> {
    /// The form as it is written in a profile: `0.0.0.0`, `::`, `fe80::1%eth0`.
    pub bind: &'a str,
    /// Address family of the socket.
    pub family: Family,
    /// IPV6_V6ONLY of the socket; null on AF_INET.
    pub v6only: Option<bool>,
    /// The local addresses at which it would be reached, sorted; networks where a local route makes more than one ours.
    pub addresses: &'a [&'a str],
    /// Who can send there.
    pub reach: Reach,
    /// The interfaces of [`Reach::Link`].
    pub interfaces: &'a [IfName],
    /// Its exposure.
    pub exposure: FamilyExposure,
    /// Why, one sentence each.
    pub because: &'a [String],
}
