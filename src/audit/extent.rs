//! The addresses and interfaces at which packets reach a socket, for `network` and `interface` of a policy.
//!
//! The weak host model applies. A socket bound to a device also receives packets to addresses of other interfaces. A
//! socket without a device receives packets to its address on every interface.

use std::net::IpAddr;

use ipnet::IpNet;

use super::plain;
use crate::model::addr::needs_zone;
use crate::model::{AddrClass, Family, IfName, ListeningSocket, Snapshot};
use crate::plan::exposure::is_usable;
use crate::plan::local_table::any_ip_routes;

/// An address or network at which a socket can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The address as a network of one address, or the network of a local route.
    pub network: IpNet,
    /// The interface that has it.
    pub interface: IfName,
}

/// Where other hosts can reach a socket; if none can, where this host can. Empty if its address is not on this host.
#[must_use]
pub fn reached(socket: &ListeningSocket, host: &Snapshot) -> Vec<Reached> {
    let view = &socket.view;
    let bound = view.address.to_canonical();
    let serves = |family| match family {
        Family::Ipv4 => bound.is_ipv4() || view.address.is_unspecified() && view.v6only != Some(true),
        Family::Ipv6 => bound.is_ipv6(),
    };
    let fits = |address: IpAddr| {
        if bound.is_unspecified() { serves(Family::of(address)) } else { address == bound }
    };
    let on_zone = |index: u32, address: IpAddr| {
        let zone = view.scope_id.or(socket.device_index);
        !needs_zone(address) || zone.is_none_or(|zone| zone == index)
    };
    let mut all: Vec<Reached> = host
        .addresses()
        .filter(|(interface, address)| {
            fits(address.address)
                && on_zone(interface.index, address.address)
                && is_usable(interface, address)
        })
        .map(|(interface, address)| Reached {
            network: address.address.into(),
            interface: interface.name.clone(),
        })
        .collect();
    for (network, interface) in any_ip_routes(host) {
        let whole = bound.is_unspecified() && serves(Family::of(network.addr()));
        if whole || network.contains(&bound) {
            let name = host.interface(interface).map(|interface| interface.name.clone());
            let network = if whole { network } else { bound.into() };
            all.push(Reached { network, interface: name.unwrap_or_else(|| IfName::from("lo")) });
        }
    }
    let outside = |one: &Reached| AddrClass::of(one.network.addr()) != AddrClass::Loopback;
    if all.iter().any(outside) {
        all.retain(outside);
    }
    all
}

/// Why a socket is not within `networks`: the first address outside. `None` if all are inside.
#[must_use]
pub fn outside_networks(socket: &ListeningSocket, host: &Snapshot, networks: &[IpNet]) -> Option<String> {
    let inside = |network: &IpNet| networks.iter().any(|wanted| wanted.contains(network));
    let reached = reached(socket, host);
    if reached.is_empty() {
        let bound = socket.view.address.to_canonical();
        return (!inside(&bound.into())).then(|| format!("it is bound to {bound}"));
    }
    let outside = reached.iter().find(|one| !inside(&one.network))?;
    Some(format!("it is reached at {}", shown(outside)))
}

/// Why a socket is not within `interfaces`: the first address on another interface. `None` if all are there, or if the
/// socket is bound to one of them.
#[must_use]
pub fn outside_interfaces(
    socket: &ListeningSocket,
    host: &Snapshot,
    interfaces: &[String],
) -> Option<String> {
    let named = |name: &IfName| is_named(host, name, interfaces);
    if let Some(device) = &socket.view.device {
        return (!named(device)).then(|| format!("it is bound to the device {}", plain(device)));
    }
    let reached = reached(socket, host);
    if reached.is_empty() {
        return Some(format!("{} is on no interface", socket.view.address.to_canonical()));
    }
    let outside = reached.iter().find(|one| !named(&one.interface))?;
    Some(format!("it is reached at {}", shown(outside)))
}

/// Whether the name of an interface, or one of its alternative names, is in `wanted`.
#[must_use]
pub fn is_named(host: &Snapshot, name: &IfName, wanted: &[String]) -> bool {
    let others = host.interface_named(name).map_or(&[][..], |interface| &interface.altnames);
    std::iter::once(name).chain(others).any(|name| wanted.contains(&plain(name)))
}

fn shown(one: &Reached) -> String {
    let network = one.network;
    let single = network.prefix_len() == network.max_prefix_len();
    let place = if single { network.addr().to_string() } else { network.to_string() };
    format!("{place} on {}", plain(&one.interface))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::{host, socket};

    #[test]
    fn every_address_must_be_on_the_interface() {
        for (text, interfaces, expected) in [
            ("tcp 10.0.0.5:22", &["eth0"][..], None),
            ("tcp 10.0.0.5:22", &["eth1"], Some("it is reached at 10.0.0.5 on eth0")),
            ("tcp 0.0.0.0:22", &["eth0"], Some("it is reached at 192.168.9.1 on eth1")),
            ("tcp 0.0.0.0:22", &["eth0", "eth1"], None),
            ("tcp [::]:22 v6only", &["eth0"], None),
            ("tcp [::]:22 dual", &["eth0"], Some("it is reached at 192.168.9.1 on eth1")),
            ("tcp 0.0.0.0:22 device 2", &["eth0"], None),
            ("tcp 0.0.0.0:22 device 3", &["eth0"], Some("it is bound to the device eth1")),
            ("tcp 0.0.0.0:22 device 3", &["enp9s0"], None),
            ("tcp 192.168.9.1:22", &["enp9s0"], None),
            ("tcp 127.0.0.1:22", &["lo"], None),
            ("tcp 127.0.0.1:22", &["eth0"], Some("it is reached at 127.0.0.1 on lo")),
            ("tcp 10.9.9.9:22", &["eth0"], Some("10.9.9.9 is on no interface")),
        ] {
            let interfaces: Vec<String> = interfaces.iter().map(|name| (*name).to_owned()).collect();
            let found = outside_interfaces(&socket(text), &host(), &interfaces);
            assert_eq!(found.as_deref(), expected, "{text} {interfaces:?}");
        }
    }

    #[test]
    fn every_address_must_lie_in_the_networks() {
        for (text, networks, expected) in [
            ("tcp 10.0.0.5:22", &["10.0.0.0/8"][..], None),
            ("tcp 10.0.0.5:22", &["192.168.0.0/16"], Some("it is reached at 10.0.0.5 on eth0")),
            ("tcp 0.0.0.0:22", &["10.0.0.0/8"], Some("it is reached at 192.168.9.1 on eth1")),
            ("tcp 0.0.0.0:22", &["10.0.0.0/8", "192.168.9.0/24"], None),
            ("tcp 0.0.0.0:22 device 2", &["10.0.0.0/8"], Some("it is reached at 192.168.9.1 on eth1")),
            ("tcp [::]:22 v6only", &["2001:db8::/32", "fe80::/10"], None),
            ("tcp [::]:22 v6only", &["2001:db8::/32"], Some("it is reached at fe80::5 on eth0")),
            ("tcp 127.0.0.1:22", &["127.0.0.0/8"], None),
            ("tcp 10.9.9.9:22", &["10.9.0.0/16"], None),
            ("tcp 10.9.9.9:22", &["10.0.0.0/24"], Some("it is bound to 10.9.9.9")),
        ] {
            let networks: Vec<IpNet> = networks.iter().map(|text| text.parse().unwrap()).collect();
            let found = outside_networks(&socket(text), &host(), &networks);
            assert_eq!(found.as_deref(), expected, "{text} {networks:?}");
        }
    }
}
