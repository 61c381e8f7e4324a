//! Multicast groups of interfaces: not available on this system.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Unknown.
#[must_use]
pub fn groups() -> Option<BTreeMap<IpAddr, Vec<u32>>> {
    None
}
