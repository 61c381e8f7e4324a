//! How far a socket is exposed: the widest class of local address at which somebody else can reach it, per family, and why.
//!
//! No firewall is assumed. The weak host model is: an address is reached through whatever interface a packet comes in by,
//! but for link-local IPv6, loopback addresses and sockets bound to a device (measured in the tests of this repository).

mod many;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::local::LocalAddresses;
use crate::model::addr::{self, needs_zone};
use crate::model::{
    AddrClass, AddrState, Exposure, Family, FamilyExposure, IfName, Interface, InterfaceAddress, RouteKind,
    Snapshot, SocketSpec, SocketView, V6Only,
};

/// What of a socket decides its exposure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Facts<'a> {
    /// The bound address as the socket has it; a v4-mapped one is that of an AF_INET6 socket.
    pub address: IpAddr,
    /// `sin6_scope_id` of a link-local address.
    pub scope_id: Option<u32>,
    /// The device it is bound to.
    pub device: Option<&'a IfName>,
    /// IPV6_V6ONLY; `None` when it is not known: the socket then counts as dual-stack, and a reason says so.
    pub v6only: Option<bool>,
    /// The protocol, since VRFs have a setting for each.
    pub protocol: crate::model::Protocol,
}

impl<'a> Facts<'a> {
    /// Of a socket that is to be opened. `net.ipv6.bindv6only` stands in for a V6ONLY that is left to the system.
    #[must_use]
    pub fn of_spec(spec: &'a SocketSpec, snapshot: &Snapshot) -> Facts<'a> {
        Facts {
            address: spec.address,
            scope_id: (spec.scope_id != 0).then_some(spec.scope_id),
            device: spec.device.as_ref(),
            v6only: match spec.v6only {
                V6Only::On => Some(true),
                V6Only::Off => Some(false),
                V6Only::System => snapshot.setting("net.ipv6.bindv6only").map(|value| value != 0),
            },
            protocol: spec.protocol,
        }
    }

    /// Of a socket that is open.
    #[must_use]
    pub fn of_view(view: &'a SocketView) -> Facts<'a> {
        Facts {
            address: view.address,
            scope_id: view.scope_id,
            device: view.device.as_ref(),
            v6only: view.v6only,
            protocol: view.protocol,
        }
    }

    /// Whether it takes traffic of this family.
    fn serves(&self, family: Family) -> bool {
        match (self.address, family) {
            (IpAddr::V4(_), family) => family == Family::Ipv4,
            (IpAddr::V6(v6), Family::Ipv6) => v6.to_ipv4_mapped().is_none(),
            (IpAddr::V6(v6), Family::Ipv4) => {
                // On a V6ONLY socket the kernel refuses a v4-mapped address (EINVAL).
                (v6.is_unspecified() || v6.to_ipv4_mapped().is_some()) && self.v6only != Some(true)
            }
        }
    }
}

/// One link of the chain that leads to an exposure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The family it is about.
    pub family: Family,
    /// What is so, a sentence without a full stop; interface names in it are escaped.
    pub text: String,
}

/// The exposure of a socket that is open.
#[must_use]
pub fn exposure_of_view(view: &SocketView, snapshot: &Snapshot) -> FamilyExposure {
    Exposer::new(snapshot).exposure(&Facts::of_view(view))
}

/// The exposure of a socket with the reasons for it.
#[must_use]
pub fn explain(facts: &Facts<'_>, snapshot: &Snapshot) -> (FamilyExposure, Vec<Reason>) {
    Exposer::new(snapshot).explain(facts)
}

/// Whether an address receives now. IPv4 addresses do whatever the state of their interface; IPv6 ones go with it.
#[must_use]
pub fn is_usable(interface: &Interface, address: &InterfaceAddress) -> bool {
    match address.family {
        Family::Ipv4 => true,
        Family::Ipv6 => {
            let unchecked = address.is(AddrState::Tentative) && !address.is(AddrState::Optimistic);
            let disabled = interface.settings.get("ipv6.disable_ipv6").is_some_and(|value| *value != 0);
            interface.up && !unchecked && !address.is(AddrState::Dadfailed) && !disabled
        }
    }
}

/// The class of the widest address of a network that a local route makes this host's own.
#[must_use]
pub fn network_exposure(network: IpNet) -> Exposure {
    let (first, last) = (AddrClass::of(network.network()), AddrClass::of(network.broadcast()));
    // The classes are contiguous blocks, so a network with ends of two classes holds some of the rest, which is global.
    if first == last { Exposure::of(first) } else { Exposure::Global }
}

/// Answers for many sockets on one host: what does not depend on the socket is looked up once.
#[derive(Debug)]
pub struct Exposer<'a> {
    snapshot: &'a Snapshot,
    local: LocalAddresses,
    /// By interface and address, since hosts with ten thousand addresses are looked up as often.
    listed: FxHashMap<(u32, IpAddr), &'a InterfaceAddress>,
    /// By VRF (its index; `None` outside of all) and family: what a wildcard gets.
    widest: Vec<(Option<u32>, Family, Exposure, String)>,
}

impl<'a> Exposer<'a> {
    /// Looks the snapshot over.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot) -> Exposer<'a> {
        let listed = snapshot
            .addresses()
            .map(|(interface, address)| ((interface.index, address.address), address))
            .collect();
        let mut new = Exposer { snapshot, local: LocalAddresses::new(snapshot), listed, widest: Vec::new() };
        for (interface, address) in snapshot.addresses() {
            // Link-local IPv6 addresses belong to their link; they are looked at with the device.
            if is_usable(interface, address) {
                let exposure = class_on(interface, address);
                new.widen(vrf_of(snapshot, interface), address.family, exposure, || {
                    format!("{} on {}", addr::text(address.address, Some(&interface.name)), interface.name)
                });
            }
        }
        for route in snapshot.routes.iter().filter(|route| route.kind == RouteKind::Local) {
            let vrf = route
                .interface
                .and_then(|index| snapshot.interface(index))
                .and_then(|interface| vrf_of(snapshot, interface));
            let family = Family::of(route.destination.addr());
            new.widen(vrf, family, network_exposure(route.destination), || {
                format!("all of {} (a local route)", route.destination)
            });
        }
        new
    }

    /// The host's addresses, indexed.
    #[must_use]
    pub fn local(&self) -> &LocalAddresses {
        &self.local
    }

    fn widen(&mut self, vrf: Option<u32>, family: Family, exposure: Exposure, what: impl FnOnce() -> String) {
        match self.widest.iter_mut().find(|entry| entry.0 == vrf && entry.1 == family) {
            Some(entry) if exposure > entry.2 => (entry.2, entry.3) = (exposure, what()),
            Some(_) => {}
            None => self.widest.push((vrf, family, exposure, what())),
        }
    }

    /// The exposure of a socket.
    #[must_use]
    pub fn exposure(&self, facts: &Facts<'_>) -> FamilyExposure {
        self.explain(facts).0
    }

    /// The exposure of a socket with the reasons for it.
    #[must_use]
    pub fn explain(&self, facts: &Facts<'_>) -> (FamilyExposure, Vec<Reason>) {
        let mut exposure = FamilyExposure::default();
        let mut reasons = Vec::new();
        for family in Family::BOTH {
            let mut because = |text: String| reasons.push(Reason { family, text });
            if !facts.serves(family) {
                continue;
            }
            if facts.address.is_ipv6() && !self.snapshot.ipv6_available {
                because("this kernel makes no IPv6 sockets".to_owned());
                continue;
            }
            if family == Family::Ipv4 && facts.address.is_ipv6() && facts.address.is_unspecified() {
                because(match facts.v6only {
                    Some(_) => "it is dual-stack: it takes IPv4 too".to_owned(),
                    None => "whether it takes IPv4 too is not known; it counts as if it did".to_owned(),
                });
            }
            let found = if facts.address.to_canonical().is_unspecified() {
                self.wildcard(facts, family, &mut because)
            } else {
                self.specific(facts, &mut because)
            };
            match family {
                Family::Ipv4 => exposure.ipv4 = found,
                Family::Ipv6 => exposure.ipv6 = found,
            }
        }
        (exposure, reasons)
    }

    fn device(&self, facts: &Facts<'_>) -> Result<Option<&'a Interface>, String> {
        match facts.device {
            None => Ok(None),
            Some(name) => match self.snapshot.interface_named(name) {
                Some(interface) => Ok(Some(interface)),
                None => Err(format!("its device {name} does not exist here")),
            },
        }
    }

    /// Whether a socket without a device hears what comes in through VRFs.
    fn hears_vrfs(&self, facts: &Facts<'_>) -> bool {
        let setting = match facts.protocol {
            crate::model::Protocol::Tcp => "net.ipv4.tcp_l3mdev_accept",
            crate::model::Protocol::Udp => "net.ipv4.udp_l3mdev_accept",
        };
        self.snapshot.setting(setting).is_some_and(|value| value != 0)
    }

    fn wildcard(&self, facts: &Facts<'_>, family: Family, because: &mut impl FnMut(String)) -> Exposure {
        let device = match self.device(facts) {
            Ok(device) => device,
            Err(reason) => {
                because(reason);
                return Exposure::None;
            }
        };
        let Some(device) = device else {
            let all_vrfs = self.hears_vrfs(facts);
            let entries =
                self.widest.iter().filter(|entry| entry.1 == family && (all_vrfs || entry.0.is_none()));
            let Some(widest) = entries.max_by_key(|entry| entry.2) else {
                because(format!("this host has no {family} address that can be used"));
                return Exposure::None;
            };
            because(format!("a wildcard takes every address; the widest is {}", widest.3));
            return self.route_localnet(family, widest.2, None, because);
        };
        let own =
            device.addresses.iter().filter(|address| address.family == family && is_usable(device, address));
        let own = own.map(|address| class_on(device, address)).max();
        if device.loopback {
            because(format!("it is bound to device {}, which nobody else reaches", device.name));
            return if own.is_some() { Exposure::Loopback } else { Exposure::None };
        }
        if !device.up {
            because(format!("nothing arrives through its device {}, which is down", device.name));
            return if own.is_some() { Exposure::Loopback } else { Exposure::None };
        }
        let vrf = vrf_of(self.snapshot, device);
        let elsewhere = self
            .snapshot
            .addresses()
            .filter(|(interface, address)| {
                address.family == family
                    && (!needs_zone(address.address) || interface.index == device.index)
                    && is_usable(interface, address)
                    && vrf_of(self.snapshot, interface) == vrf
            })
            .map(|(interface, address)| {
                let text = addr::text(address.address, Some(&interface.name));
                (class_on(interface, address), format!("{text} on {}", interface.name))
            });
        let routes = self
            .snapshot
            .routes
            .iter()
            .filter(|route| {
                route.kind == RouteKind::Local
                    && Family::of(route.destination.addr()) == family
                    && route
                        .interface
                        .and_then(|index| self.snapshot.interface(index))
                        .and_then(|i| vrf_of(self.snapshot, i))
                        == vrf
            })
            .map(|route| {
                (network_exposure(route.destination), format!("all of {} (a local route)", route.destination))
            });
        // `max_by_key` keeps the last of equals; the first reads better.
        let widest = elsewhere.chain(routes).fold(None, |best: Option<(Exposure, String)>, new| match best {
            Some(best) if best.0 >= new.0 => Some(best),
            _ => Some(new),
        });
        let Some((exposure, what)) = widest.filter(|(exposure, _)| *exposure > Exposure::Loopback) else {
            because(format!("no {family} address can be reached through its device {}", device.name));
            return self.route_localnet(family, Exposure::None, Some(device), because);
        };
        because(format!(
            "hosts that arrive through its device {} reach every address of this host; the widest is {what}",
            device.name
        ));
        exposure
    }

    fn specific(&self, facts: &Facts<'_>, because: &mut impl FnMut(String)) -> Exposure {
        let address = facts.address.to_canonical();
        let class = AddrClass::of(address);
        let zone = facts.scope_id;
        let device = match self.device(facts) {
            Ok(device) => device,
            Err(reason) => {
                because(reason);
                return Exposure::None;
            }
        };
        let text = addr::text(address, device.map(|device| &device.name));
        if let Some(many) = self.to_many(facts, address, class, device, because) {
            return many;
        }
        if !matches!(class, AddrClass::Loopback | AddrClass::Link | AddrClass::Private | AddrClass::Global) {
            because(format!("{text} is a {class} address; nothing that is sent to one host goes to it"));
            return Exposure::None;
        }
        let zone = zone.or_else(|| device.map(|device| device.index));
        let owner = self.local.owner(address, zone);
        let owner = owner.or_else(|| self.local.owner_in_a_vrf(address).filter(|_| device.is_none()));
        let owner = owner.and_then(|index| self.snapshot.interface(index));
        let Some(owner) = owner else {
            because(format!("{text} is not an address of this host that can be used now"));
            return Exposure::None;
        };
        let listed = self.listed.get(&(owner.index, address)).copied();
        if listed.is_some_and(|candidate| !is_usable(owner, candidate)) {
            because(format!("{text} cannot be used while {} is down or has IPv6 switched off", owner.name));
            return Exposure::None;
        }
        let exposure = listed.map_or_else(|| Exposure::of(class), |candidate| class_on(owner, candidate));
        if let Some(device) = device {
            if device.loopback {
                because(format!("it is bound to device {}, which nobody else reaches", device.name));
                return if owner.loopback { Exposure::Loopback } else { Exposure::None };
            }
            if !device.up {
                because(format!("nothing arrives through its device {}, which is down", device.name));
                return if owner.index == device.index { Exposure::Loopback } else { Exposure::None };
            }
        } else if let Some(vrf) = vrf_of(self.snapshot, owner).filter(|_| !self.hears_vrfs(facts)) {
            let vrf = self.snapshot.interface(vrf).map_or_else(String::new, |vrf| vrf.name.to_string());
            because(format!("{text} is in the VRF {vrf}, which a socket without a device does not hear"));
            return Exposure::None;
        }
        if exposure == Exposure::Loopback {
            because(format!("{text} is reached by this host itself only"));
            if device.is_some() {
                return self.route_localnet(Family::of(address), Exposure::None, device, because);
            }
            return self.route_localnet(Family::of(address), exposure, None, because);
        }
        because(match (needs_zone(address), device) {
            (true, _) => format!("{text} is reached from the link of {} only", owner.name),
            (false, Some(device)) => {
                format!("{text} is a {class} address, reached through device {}", device.name)
            }
            // Put together by hand: there may be one for each of ten thousand addresses.
            (false, None) => [
                &text,
                " is a ",
                class.as_str(),
                " address of ",
                &owner.name.to_string(),
                "; under the weak host model it is reached through every interface",
            ]
            .concat(),
        });
        exposure
    }

    /// With `route_localnet` (of the interface or of all) packets to 127/8 are taken from the wire, so who is on that link reaches
    /// what listens on loopback.
    fn route_localnet(
        &self,
        family: Family,
        exposure: Exposure,
        device: Option<&Interface>,
        because: &mut impl FnMut(String),
    ) -> Exposure {
        if family != Family::Ipv4 || exposure >= Exposure::Link {
            return exposure;
        }
        let all = self.snapshot.setting("net.ipv4.conf.all.route_localnet").is_some_and(|value| value != 0);
        let open = self.snapshot.interfaces.iter().find(|interface| {
            let own = interface.settings.get("ipv4.route_localnet").is_some_and(|value| *value != 0);
            interface.up
                && !interface.loopback
                && (all || own)
                && device.is_none_or(|device| device.index == interface.index)
        });
        let has_loopback = self.local.owner(IpAddr::V4(Ipv4Addr::LOCALHOST), None).is_some();
        match open.filter(|_| has_loopback) {
            Some(interface) => {
                because(format!(
                    "route_localnet is on for {}: hosts on that link reach 127.0.0.0/8 of this host",
                    interface.name
                ));
                Exposure::Link
            }
            None => exposure,
        }
    }
}

/// The exposure that an address gives where it is: link-local IPv6 of a loopback interface has no link.
fn class_on(interface: &Interface, address: &InterfaceAddress) -> Exposure {
    let strong = needs_zone(address.address) || address.address == IpAddr::V6(Ipv6Addr::LOCALHOST);
    if interface.loopback && strong { Exposure::Loopback } else { Exposure::of(address.class) }
}

/// Index of the VRF an interface belongs to, or is.
fn vrf_of(snapshot: &Snapshot, interface: &Interface) -> Option<u32> {
    Some(super::available::vrf_of(snapshot, interface)).filter(|vrf| *vrf != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    fn interface(index: u32, name: &str, addresses: &[&str]) -> Interface {
        let addresses = addresses.iter().map(|text| {
            let (net, states) = text.split_once(' ').unwrap_or((text, ""));
            let net: IpNet = net.parse().unwrap();
            let address = net.addr();
            InterfaceAddress {
                scope_id: needs_zone(address).then_some(index),
                state: states.split_whitespace().map(|s| serde_json::from_value(s.into()).unwrap()).collect(),
                ..InterfaceAddress::new(address, net.prefix_len())
            }
        });
        Interface {
            up: true,
            running: true,
            loopback: name == "lo",
            multicast: true,
            addresses: addresses.collect(),
            ..Interface::new(index, IfName::from(name))
        }
    }

    fn host(interfaces: Vec<Interface>) -> Snapshot {
        Snapshot { interfaces, ipv6_available: true, complete: true, ..Snapshot::default() }
    }

    pub(super) fn usual() -> Snapshot {
        host(vec![
            interface(1, "lo", &["127.0.0.1/8", "::1/128"]),
            interface(2, "eth0", &["192.168.1.5/24", "fe80::1/64"]),
            interface(3, "eth1", &["192.0.2.7/24", "fd00::7/64", "fe80::2/64"]),
        ])
    }

    /// `ADDRESS[%DEVICE][ v6only|dual|?]` to `ipv4/ipv6`.
    fn exposure(snapshot: &Snapshot, form: &str) -> String {
        let (address, rest) = form.split_once(' ').unwrap_or((form, "v6only"));
        let (address, device) =
            address.split_once('%').map_or((address, None), |(a, d)| (a, Some(IfName::from(d))));
        let facts = Facts {
            address: address.parse().unwrap(),
            scope_id: None,
            device: device.as_ref(),
            v6only: match rest {
                "dual" => Some(false),
                "?" => None,
                _ => Some(true),
            },
            protocol: Protocol::Tcp,
        };
        let (found, reasons) = explain(&facts, snapshot);
        assert!(found == FamilyExposure::default() || !reasons.is_empty(), "{form} has no reason");
        format!("{}/{}", found.ipv4, found.ipv6)
    }

    #[test]
    fn each_form_of_bind() {
        let host = usual();
        for (form, expected) in [
            ("0.0.0.0", "global/none"),
            ("127.0.0.1", "loopback/none"),
            ("127.0.0.2", "loopback/none"),
            ("192.168.1.5", "private/none"),
            ("192.168.1.6", "none/none"),
            ("224.0.0.1", "none/none"),
            ("192.0.2.255", "none/none"),
            (":: v6only", "none/private"),
            (":: dual", "global/private"),
            (":: ?", "global/private"),
            ("::1", "none/loopback"),
            ("fe80::1%eth0", "none/link"),
            ("fe80::1%eth1", "none/none"),
            ("::ffff:0.0.0.0 dual", "global/none"),
            ("::ffff:127.0.0.1 dual", "loopback/none"),
            ("::ffff:127.0.0.1 v6only", "none/none"),
            ("0.0.0.0%lo", "loopback/none"),
            ("::%lo dual", "loopback/loopback"),
            // Weak host model: through eth0 all addresses are reached, but only its own link-local one.
            ("0.0.0.0%eth0", "global/none"),
            ("::%eth0 dual", "global/private"),
            ("192.0.2.7%eth0", "global/none"),
            ("192.0.2.7%lo", "none/none"),
            ("0.0.0.0%gone", "none/none"),
        ] {
            assert_eq!(exposure(&host, form), expected, "{form}");
        }
    }

    #[test]
    fn link_local_counts_through_its_own_device_only() {
        let host = host(vec![
            interface(1, "lo", &["127.0.0.1/8", "::1/128"]),
            interface(2, "eth0", &[]),
            interface(3, "eth1", &["fe80::2/64"]),
        ]);
        assert_eq!(exposure(&host, "::%eth0"), "none/none");
        assert_eq!(exposure(&host, "::%eth1"), "none/link");
        assert_eq!(exposure(&host, "::"), "none/link");
    }

    #[test]
    fn state_decides() {
        let mut down = host(vec![
            interface(1, "lo", &["127.0.0.1/8", "::1/128"]),
            interface(2, "eth0", &["192.0.2.7/24", "2001:db8::7/64"]),
        ]);
        down.interfaces[1].up = false;
        assert_eq!(exposure(&down, ":: dual"), "global/loopback", "IPv4 stays on an interface that is down");
        assert_eq!(exposure(&down, "2001:db8::7"), "none/none");
        assert_eq!(exposure(&down, "192.0.2.7"), "global/none");
        assert_eq!(exposure(&down, "0.0.0.0%eth0"), "loopback/none");
        for (states, expected) in [
            ("tentative", "none/none"),
            ("dadfailed", "none/none"),
            ("tentative optimistic", "none/global"),
            ("deprecated", "none/global"),
        ] {
            let host = host(vec![interface(2, "eth0", &[&format!("2001:db8::7/64 {states}")])]);
            assert_eq!(exposure(&host, "::"), expected, "{states}");
            assert_eq!(exposure(&host, "2001:db8::7"), expected, "{states}");
        }
        let mut disabled = usual();
        disabled.interfaces[2].settings.insert("ipv6.disable_ipv6".into(), 1);
        assert_eq!(exposure(&disabled, "::"), "none/link");
        let mut absent = usual();
        absent.ipv6_available = false;
        assert_eq!(exposure(&absent, ":: dual"), "none/none");
    }

    #[test]
    fn local_routes_count() {
        let mut host = host(vec![interface(1, "lo", &["127.0.0.1/8", "::1/128"])]);
        assert_eq!(exposure(&host, "0.0.0.0"), "loopback/none");
        host.routes.push(crate::model::Route {
            table: 255,
            kind: RouteKind::Local,
            destination: "198.51.100.0/24".parse().unwrap(),
            interface: Some(1),
            gateway: None,
            source: None,
            metric: None,
            weight: None,
            metrics: Default::default(),
        });
        assert_eq!(exposure(&host, "0.0.0.0"), "global/none");
        assert_eq!(exposure(&host, "198.51.100.77"), "global/none");
        for (network, expected) in [
            ("0.0.0.0/0", Exposure::Global),
            ("10.0.0.0/7", Exposure::Global),
            ("10.1.0.0/16", Exposure::Private),
            ("127.0.0.0/8", Exposure::Loopback),
            ("::/0", Exposure::Global),
        ] {
            assert_eq!(network_exposure(network.parse().unwrap()), expected, "{network}");
        }
    }

    #[test]
    fn route_localnet_opens_loopback_to_the_link() {
        let mut host = host(vec![interface(1, "lo", &["127.0.0.1/8", "::1/128"]), interface(2, "eth0", &[])]);
        host.interfaces[1].settings.insert("ipv4.route_localnet".into(), 1);
        assert_eq!(exposure(&host, "127.0.0.1"), "link/none");
        assert_eq!(exposure(&host, "0.0.0.0"), "link/none");
        assert_eq!(exposure(&host, "127.0.0.1%eth0"), "link/none");
        assert_eq!(exposure(&host, "0.0.0.0%lo"), "loopback/none");
        assert_eq!(exposure(&host, "::1"), "none/loopback");
    }

    #[test]
    fn a_vrf_is_a_world_of_its_own() {
        let mut host = usual();
        let mut vrf = interface(9, "blue", &[]);
        vrf.kind = Some("vrf".into());
        host.interfaces.push(vrf);
        host.interfaces[2].master = Some(9);
        assert_eq!(exposure(&host, "0.0.0.0"), "private/none");
        assert_eq!(exposure(&host, "192.0.2.7"), "none/none");
        assert_eq!(exposure(&host, "0.0.0.0%blue"), "global/none");
        assert_eq!(exposure(&host, "0.0.0.0%eth0"), "private/none");
        host.settings.insert("net.ipv4.tcp_l3mdev_accept".into(), 1);
        assert_eq!(exposure(&host, "0.0.0.0"), "global/none");
    }
}
