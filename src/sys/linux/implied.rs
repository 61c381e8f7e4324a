//! Two parts: routes that follow from the addresses, which a snapshot omits, and features without a place in a
//! snapshot, which become sentences. Pure; numbers are those of `linux/rtnetlink.h`, `linux/if_link.h` and
//! `linux/if_bridge.h`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::netlink::{attributes, read, until_nul};
use super::rtnetlink::{family_of, ip_of, name_of, route_kind, u32_of};
use crate::model::{Family, Interface, Route, RouteKind};

/// Routes that follow from the addresses of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Implied {
    /// The addresses, sorted, without duplicates.
    local: Vec<IpAddr>,
    /// The addresses that had a route.
    seen: Vec<bool>,
    /// The address that most likely has the next route: the kernel's table is in order.
    next: usize,
    /// First and last addresses of their networks and their broadcast addresses, sorted.
    networks: Vec<IpAddr>,
}

impl Implied {
    /// Computed from the addresses of one family of these interfaces.
    #[must_use]
    pub fn by(interfaces: &[Interface], family: Family) -> Implied {
        let addresses = || {
            let all = interfaces.iter().flat_map(|interface| &interface.addresses);
            all.filter(move |address| address.family == family)
        };
        let mut local: Vec<IpAddr> = addresses().map(|address| address.address).collect();
        // The addresses of an interface are already sorted, and often numerous: the stable sort benefits from this.
        local.sort();
        local.dedup();
        let mut networks: Vec<IpAddr> = Vec::new();
        let mut last = [None; 3];
        for address in addresses() {
            let net = IpNet::new(address.peer.unwrap_or(address.address), address.prefix).ok();
            let first = net.map(|net| net.network());
            let these =
                [address.broadcast, first, net.map(|net| net.broadcast()).filter(|end| Some(*end) != first)];
            // There can be a thousand addresses in one network.
            if these != last {
                networks.extend(these.iter().flatten());
                last = these;
            }
        }
        networks.sort();
        networks.dedup();
        Implied { seen: vec![false; local.len()], local, next: 0, networks }
    }

    /// Whether an RTM_NEWROUTE follows from the addresses: local host routes, broadcast and anycast addresses of their
    /// networks, IPv6 multicast. Other local routes are kept, because they make addresses local that no interface has
    /// (127.0.0.2, AnyIP).
    pub fn implies(&mut self, payload: &[u8]) -> bool {
        let kind = payload.get(7).map(|kind| route_kind(*kind));
        let others = matches!(kind, Some(RouteKind::Broadcast | RouteKind::Anycast | RouteKind::Multicast));
        if !(others || kind == Some(RouteKind::Local)) {
            return false;
        }
        let (Some(family), Some(length)) = (family_of(payload), payload.get(1)) else { return false };
        let whole = if family == Family::Ipv4 { 32 } else { 128 };
        // RTA_DST
        let destination = attributes(payload.get(12..).unwrap_or_default())
            .find(|(kind, _)| *kind == 1)
            .and_then(|(_, value)| ip_of(family, value));
        if kind == Some(RouteKind::Multicast) {
            // `addrconf_add_mroute()`
            return family == Family::Ipv6 && *length == 8;
        }
        let Some(destination) = destination.filter(|_| *length == whole) else { return false };
        if others {
            return self.networks.binary_search(&destination).is_ok();
        }
        let expected = self.local.get(self.next).is_some_and(|next| *next == destination);
        let found = if expected { Ok(self.next) } else { self.local.binary_search(&destination) };
        let Ok(place) = found else { return false };
        self.next = place + 1;
        if let Some(seen) = self.seen.get_mut(place) {
            *seen = true;
        }
        true
    }

    /// Whether each address had a route.
    #[must_use]
    pub fn has_seen_all(&self) -> bool {
        self.seen.iter().all(|seen| *seen)
    }

    /// Whether one of the addresses had a local route.
    #[must_use]
    pub fn has_seen(&self, address: IpAddr) -> bool {
        self.local.binary_search(&address).is_ok_and(|place| self.seen.get(place) == Some(&true))
    }

    /// Resets which addresses had a route.
    pub fn begin(&mut self) {
        self.seen.fill(false);
        self.next = 0;
    }
}

/// Properties of an RTM_NEWLINK that affect reachability and that [`Interface`] cannot represent: sentences.
#[must_use]
pub fn unsupported_of_link(payload: &[u8]) -> Vec<String> {
    unsupported_link_features(payload).unwrap_or_default()
}

fn unsupported_link_features(payload: &[u8]) -> Option<Vec<String>> {
    const IFF_NOARP: u32 = 0x80;
    const ETHERNET: u16 = 1;
    let hardware = u16::from_ne_bytes(read(payload, 2)?);
    let flags = u32::from_ne_bytes(read(payload, 8)?);
    let all = || attributes(payload.get(16..).unwrap_or_default());
    // IFLA_IFNAME, IFLA_LINKINFO
    let name = all().find(|(kind, _)| *kind == 3).map(|(_, value)| name_of(value))?;
    let info = all().find(|(kind, _)| *kind == 18).map_or(&[][..], |(_, value)| value);
    let part = |wanted: u16| attributes(info).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    // IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA
    let (kind, data) = (part(1).map(until_nul), part(2).unwrap_or_default());
    let (as_port, port) = (part(4).map(until_nul), part(5).unwrap_or_default());
    let number = |nested: &[u8], wanted: u16| -> Option<u32> {
        let (_, value) = attributes(nested).find(|(kind, _)| *kind == wanted)?;
        u32_of(value).or_else(|| value.first().map(|byte| u32::from(*byte)))
    };
    let mut out = Vec::new();
    // Other types have no ARP, or are copied as another type.
    let ours = matches!(kind, None | Some(b"veth" | b"bridge" | b"macvlan"));
    if flags & IFF_NOARP != 0 && hardware == ETHERNET && ours {
        out.push(format!("{name} answers no ARP (arp off)"));
    }
    if kind == Some(b"bridge") {
        // IFLA_BR_STP_STATE, IFLA_BR_VLAN_FILTERING
        if number(data, 5).is_some_and(|on| on != 0) {
            out.push(format!("the bridge {name} speaks the spanning tree protocol"));
        }
        if number(data, 7).is_some_and(|on| on != 0) {
            out.push(format!("the bridge {name} filters VLANs"));
        }
    }
    if kind == Some(b"macvlan") {
        // IFLA_MACVLAN_MODE
        let mode = match number(data, 1) {
            Some(1) => Some("private"),
            Some(2) => Some("vepa"),
            Some(8) => Some("passthru"),
            Some(16) => Some("source"),
            _ => None,
        };
        out.extend(mode.map(|mode| format!("{name} is a macvlan interface of the mode {mode}")));
    }
    // IFLA_BRPORT_STATE: 3 is forwarding
    let up = flags & 0x1 != 0 && flags & 0x40 != 0;
    if as_port == Some(b"bridge") && up && number(port, 1).is_some_and(|state| state != 3) {
        out.push(format!("{name} is a port that its bridge forwards nothing of"));
    }
    Some(out)
}

/// What a route does that a copy cannot do: a sentence.
#[must_use]
pub fn unsupported_of_route(route: &Route) -> Option<String> {
    route.encapsulated.then(|| {
        format!(
            "the route to {} in table {} puts packets into others (encap)",
            route.destination, route.table
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::linux::netlink::attribute;

    #[test]
    fn nothing_the_kernel_could_send_cut_short_is_a_panic() {
        let bytes: Vec<u8> = (0..200u8).map(|byte| byte.wrapping_mul(37)).collect();
        for length in 0..bytes.len() {
            for family in [2, 10] {
                let mut payload = bytes[..length].to_vec();
                if let Some(first) = payload.first_mut() {
                    *first = family;
                }
                let _ = Implied::by(&[], Family::Ipv4).implies(&payload);
                let _ = unsupported_of_link(&payload);
            }
        }
    }

    #[test]
    fn bridge_features_are_reported() {
        let mut payload = vec![0, 0, 1, 0];
        payload.extend([4u32.to_ne_bytes(), 0x41u32.to_ne_bytes(), [0; 4]].concat());
        payload.extend(attribute(3, b"br0\0"));
        let plain = payload.clone();
        let data = [attribute(5, &1u32.to_ne_bytes()), attribute(7, &[1])].concat();
        payload.extend(attribute(18, &[attribute(1, b"bridge\0"), attribute(2, &data)].concat()));
        let found = unsupported_of_link(&payload);
        assert_eq!(
            found,
            ["the bridge br0 speaks the spanning tree protocol", "the bridge br0 filters VLANs"]
        );
        let mut port = plain;
        let data = attribute(1, &[4]);
        port.extend(attribute(18, &[attribute(4, b"bridge\0"), attribute(5, &data)].concat()));
        assert_eq!(unsupported_of_link(&port), ["br0 is a port that its bridge forwards nothing of"]);
    }
}
