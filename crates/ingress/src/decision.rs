//! The choice between several pieces of evidence. Pure.

use std::net::{IpAddr, SocketAddr};

use crate::Evidence;

/// Chooses the strongest evidence for the interface of an arrival: the interface that the kernel recorded, then the scope id of a
/// link-local address, then the interface that owns the local address.
///
/// [`of`](crate::of) and [`recv_with_ingress`](crate::recv_with_ingress) call this function. Call it directly if your program reads
/// the parts itself, for example with a cached table of addresses. `owner` is called only when the stronger evidence is missing, with
/// the local address in IPv4 form if it is v4-mapped.
///
/// ```
/// use ingress_interface::{Evidence, strongest_evidence};
///
/// let (local, peer) = ("192.0.2.1:80".parse().ok(), "198.51.100.7:999".parse()?);
/// let owner = |_| Some(2);
/// assert_eq!(strongest_evidence(Some(3), local, peer, owner), Some((3, Evidence::Kernel)));
/// assert_eq!(strongest_evidence(None, local, peer, owner), Some((2, Evidence::Address)));
/// assert_eq!(strongest_evidence(None, None, peer, owner), None);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[inline]
#[must_use]
pub fn strongest_evidence(
    kernel: Option<u32>,
    local: Option<SocketAddr>,
    peer: SocketAddr,
    owner: impl FnOnce(IpAddr) -> Option<u32>,
) -> Option<(u32, Evidence)> {
    if let Some(index) = kernel {
        return Some((index, Evidence::Kernel));
    }
    if let Some(index) = local.and_then(scope_id).or_else(|| scope_id(peer)) {
        return Some((index, Evidence::ScopeId));
    }
    let address = local?.ip().to_canonical();
    // The same link-local address can be on several interfaces; without a scope id no interface owns it.
    if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        return None;
    }
    Some((owner(address)?, Evidence::Address))
}

/// The scope id of a link-local address.
fn scope_id(address: SocketAddr) -> Option<u32> {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => Some(v6.scope_id()).filter(|&id| id != 0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(kernel: Option<u32>, local: &str, peer: &str) -> Option<(u32, Evidence)> {
        let owner = |address: IpAddr| (address == IpAddr::from([192, 0, 2, 1])).then_some(2);
        strongest_evidence(kernel, Some(local.parse().unwrap()), peer.parse().unwrap(), owner)
    }

    #[test]
    fn the_kernel_comes_before_scope_id_and_address() {
        assert_eq!(chosen(Some(7), "[fe80::1%3]:80", "[fe80::9%3]:9"), Some((7, Evidence::Kernel)));
        assert_eq!(chosen(Some(7), "192.0.2.1:80", "192.0.2.9:9"), Some((7, Evidence::Kernel)));
        assert_eq!(chosen(None, "192.0.2.1:80", "192.0.2.9:9"), Some((2, Evidence::Address)));
        assert_eq!(
            chosen(None, "[::ffff:192.0.2.1]:80", "[::ffff:192.0.2.9]:9"),
            Some((2, Evidence::Address))
        );
    }

    #[test]
    fn either_scope_id_counts_and_only_for_link_local_addresses() {
        assert_eq!(chosen(None, "[fe80::1%3]:80", "[2001:db8::9]:9"), Some((3, Evidence::ScopeId)));
        assert_eq!(chosen(None, "[2001:db8::1]:80", "[fe80::9%4]:9"), Some((4, Evidence::ScopeId)));
        assert_eq!(chosen(None, "[2001:db8::1%5]:80", "[2001:db8::9%5]:9"), None);
        assert_eq!(
            chosen(None, "[fe80::1]:80", "[2001:db8::9]:9"),
            None,
            "a link-local address without a scope"
        );
    }

    #[test]
    fn an_unowned_address_is_unknown() {
        assert_eq!(
            chosen(None, "192.0.2.3:80", "192.0.2.1:9"),
            None,
            "the owner of the peer address does not count"
        );
    }

    #[test]
    fn a_link_local_address_without_scope_has_no_owner() {
        let local = Some("[fe80::1]:80".parse().unwrap());
        assert_eq!(strongest_evidence(None, local, "[2001:db8::9]:9".parse().unwrap(), |_| Some(1)), None);
    }
}
