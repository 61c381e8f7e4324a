//! Exposure of sockets bound to broadcast addresses and multicast groups.

use std::fmt;
use std::net::IpAddr;

use super::{Exposer, Facts, vrf_of};
use crate::model::{AddrClass, Exposure, Family, Interface, Protocol};

impl Exposer<'_> {
    /// Adds to `found` that a wildcard UDP socket receives datagrams to 255.255.255.255 and 224.0.0.1 from every link,
    /// even without an IPv4 address there, as DHCP clients need it (`ip_route_input_slow()`).
    pub(super) fn sent_to_all(
        &self,
        facts: &Facts<'_>,
        family: Family,
        found: Exposure,
        because: &mut impl FnMut(fmt::Arguments<'_>),
    ) -> Exposure {
        if facts.protocol != Protocol::Udp || family != Family::Ipv4 || found >= Exposure::Link {
            return found;
        }
        let Ok(device) = self.device(facts) else { return found };
        let wire = self.snapshot.interfaces.iter().find(|interface| {
            device.is_none_or(|device| device.index == interface.index)
                && self.can_arrive(family, Some(interface), vrf_of(self.snapshot, interface), false)
                && (device.is_some() || vrf_of(self.snapshot, interface).is_none() || self.hears_vrfs(facts))
        });
        let Some(wire) = wire else { return found };
        because(format_args!(
            "datagrams to 255.255.255.255 reach it, as hosts on the link of {} send them",
            wire.name
        ));
        Exposure::Link
    }

    /// The exposure of a socket bound to a broadcast address or a group; `None` for other addresses. Datagrams to such
    /// an address are accepted from the link, whatever interface has the network (`ip_route_input_slow()`,
    /// `ip_check_mc_rcu()`).
    pub(super) fn to_many(
        &self,
        facts: &Facts<'_>,
        (address, class, broadcast): (IpAddr, AddrClass, bool),
        device: Option<&Interface>,
        because: &mut impl FnMut(fmt::Arguments<'_>),
    ) -> Option<Exposure> {
        // Binding a link-local group with a zone also binds the device (`__inet6_bind()`).
        let device = device.map(|device| device.index).or(facts.scope_id);
        if !broadcast && class != AddrClass::Multicast {
            return None;
        }
        if facts.protocol == Protocol::Tcp {
            let kind = if broadcast { "broadcast address" } else { "group" };
            because(format_args!("{address} is a {kind}, and TCP connections go to one host only"));
            return Some(Exposure::None);
        }
        let up = |loopback: bool| {
            self.snapshot.interfaces.iter().filter(move |interface| {
                interface.up
                    && interface.loopback == loopback
                    && device.is_none_or(|device| device == interface.index)
            })
        };
        let names = |list: &[&Interface]| {
            let names: Vec<String> = list.iter().map(|interface| interface.name.to_string()).collect();
            names.join(", ")
        };
        if broadcast {
            let links: Vec<&Interface> = up(false).collect();
            if class != AddrClass::Loopback && !links.is_empty() {
                let links = names(&links);
                because(format_args!(
                    "{address} is a broadcast address: hosts on the link send to it, through {links}"
                ));
                return Some(Exposure::Link);
            }
            let itself =
                matches!(class, AddrClass::Loopback | AddrClass::Broadcast) && up(true).next().is_some();
            because(format_args!(
                "{address} is a broadcast address, {}",
                if itself {
                    "which only this host itself can send to"
                } else {
                    "and there is no link to receive it from"
                }
            ));
            return Some(if itself { Exposure::Loopback } else { Exposure::None });
        }
        let joined = self.snapshot.groups.as_ref().map(|groups| groups.get(&address));
        let member = |interface: &&Interface| match joined {
            Some(joined) => joined.is_some_and(|joined| joined.contains(&interface.index)),
            None => interface.multicast || interface.loopback,
        };
        let (links, itself): (Vec<&Interface>, Vec<&Interface>) =
            (up(false).filter(member).collect(), up(true).filter(member).collect());
        if joined.is_none() {
            because(format_args!(
                "which interfaces have joined {address} is not known; it counts as if all had"
            ));
        }
        let reach = reach_of_group(address);
        if !links.is_empty() && reach > Exposure::Loopback {
            let links = names(&links);
            if reach == Exposure::Link {
                because(format_args!("{address} is a group: hosts on the link send to it, through {links}"));
            } else {
                because(format_args!(
                    "{address} is a multicast group, joined on {links}: hosts on the link can send to it, and others if routers forward it"
                ));
            }
            return Some(reach);
        }
        if !itself.is_empty() || !links.is_empty() {
            because(format_args!("{address} is a group that only this host itself can send to"));
            return Some(Exposure::Loopback);
        }
        because(format_args!("{address} is a group that no interface in question has joined"));
        Some(Exposure::None)
    }
}

/// How far datagrams of a group can travel: the scope of IPv6 (RFC 7346), the blocks of IPv4 (RFC 5771, RFC 2365).
fn reach_of_group(group: IpAddr) -> Exposure {
    match group {
        IpAddr::V4(v4) => match v4.octets() {
            [224, 0, 0, _] => Exposure::Link,
            [239, ..] => Exposure::Private,
            _ => Exposure::Global,
        },
        IpAddr::V6(v6) => match v6.segments()[0] & 0xf {
            0 | 1 => Exposure::Loopback,
            2 => Exposure::Link,
            3..=0xd => Exposure::Private,
            _ => Exposure::Global,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::explain;
    use super::super::tests::usual;
    use super::*;
    use crate::model::{IfName, Snapshot};

    #[test]
    fn what_is_sent_to_many_is_heard_on_the_link() {
        let mut host = usual();
        let udp = |host: &Snapshot, form: &str| {
            let (address, device) =
                form.split_once('%').map_or((form, None), |(a, d)| (a, Some(IfName::from(d))));
            let facts = Facts {
                address: address.parse().unwrap(),
                scope_id: None,
                device: device.as_ref(),
                v6only: Some(true),
                protocol: Protocol::Udp,
            };
            let (found, reasons) = explain(&facts, host);
            assert!(!reasons.is_empty(), "{form} has no reason");
            format!("{}/{}", found.ipv4, found.ipv6)
        };
        for (form, expected) in [
            ("192.0.2.255", "link/none"),
            ("192.0.2.255%eth0", "link/none"),
            ("192.0.2.255%lo", "none/none"),
            ("198.51.100.255", "none/none"),
            ("255.255.255.255", "link/none"),
            ("255.255.255.255%lo", "loopback/none"),
            ("127.255.255.255", "loopback/none"),
            // If the memberships are unknown, all interfaces count as joined.
            ("224.0.0.251", "link/none"),
            ("239.1.1.1", "private/none"),
            ("232.1.1.1", "global/none"),
            ("ff01::1", "none/loopback"),
            ("ff02::fb", "none/link"),
            ("ff05::2", "none/private"),
            ("ff0e::1", "none/global"),
        ] {
            assert_eq!(udp(&host, form), expected, "{form}");
        }
        let group = |text: &str, interfaces: &[u32]| (text.parse().unwrap(), interfaces.to_vec());
        host.groups =
            Some([group("224.0.0.251", &[1]), group("ff02::fb", &[2]), group("ff01::1", &[2])].into());
        for (form, expected) in [
            ("224.0.0.251", "loopback/none"),
            ("224.0.0.252", "none/none"),
            ("ff02::fb", "none/link"),
            ("ff02::fb%eth1", "none/none"),
            ("ff01::1", "none/loopback"),
        ] {
            assert_eq!(udp(&host, form), expected, "{form}");
        }
        // Without an address on the link, as for a DHCP client.
        for interface in host.interfaces.iter_mut().filter(|interface| !interface.loopback) {
            interface.addresses.retain(|address| address.family == Family::Ipv6);
        }
        for (form, expected) in
            [("0.0.0.0", "link/none"), ("0.0.0.0%eth0", "link/none"), ("0.0.0.0%lo", "loopback/none")]
        {
            assert_eq!(udp(&host, form), expected, "{form}");
        }
    }
}
