//! Exposure of a socket: the widest class of local address at which another host can reach it, per family, with
//! reasons.
//!
//! Firewalls are not considered. With the weak host model an address is reachable over every interface. Exceptions are
//! link-local IPv6 addresses, loopback addresses and sockets bound to a device (measured in the tests of this
//! repository). Another host is any client on a link that is up, as in [`super::reach::sources`]. While no link is up,
//! only this host itself connects.

mod multicast;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::local_table::{Ipv4Kind, LocalAddresses, TABLE_LOCAL};
use super::reach;
use crate::model::addr::{self, needs_zone};
use crate::model::{
    AddrClass, AddrState, Exposure, Family, FamilyExposure, IfName, Interface, InterfaceAddress, Route,
    RouteKind, Snapshot, SocketSpec, SocketView,
};

/// Properties of a socket that decide its exposure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Facts<'a> {
    /// The bound address of the socket; an IPv4-mapped address belongs to an AF_INET6 socket.
    pub address: IpAddr,
    /// `sin6_scope_id` of a link-local address.
    pub scope_id: Option<u32>,
    /// Device that it is bound to.
    pub device: Option<&'a IfName>,
    /// IPV6_V6ONLY; `None` if unknown: the socket then counts as dual-stack, and a reason says so.
    pub v6only: Option<bool>,
    /// The protocol, because VRFs have a setting for each.
    pub protocol: crate::model::Protocol,
}

impl<'a> Facts<'a> {
    /// Of a socket to be opened. `net.ipv6.bindv6only` gives the value of a V6ONLY that the system decides.
    #[must_use]
    pub fn of_spec(spec: &'a SocketSpec, snapshot: &Snapshot) -> Facts<'a> {
        Facts {
            address: spec.address,
            scope_id: (spec.scope_id != 0).then_some(spec.scope_id),
            device: spec.device.as_ref(),
            v6only: spec
                .v6only
                .as_set()
                .or_else(|| snapshot.setting("net.ipv6.bindv6only").map(|value| value != 0)),
            protocol: spec.protocol,
        }
    }

    /// Of an open socket.
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

    /// Whether the socket accepts traffic of this family.
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

/// One reason for an exposure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Its family.
    pub family: Family,
    /// The reason, as a sentence without a full stop; interface names in it are escaped.
    pub text: String,
}

/// The exposure of an open socket.
#[must_use]
pub fn exposure_of_view(view: &SocketView, snapshot: &Snapshot) -> FamilyExposure {
    Exposer::new(snapshot).exposure(&Facts::of_view(view))
}

/// The exposure of a socket with its reasons.
#[must_use]
pub fn explain(facts: &Facts<'_>, snapshot: &Snapshot) -> (FamilyExposure, Vec<Reason>) {
    Exposer::new(snapshot).explain(facts)
}

/// Whether packets to an address are accepted now. IPv4 addresses do not depend on the state of their interface; IPv6
/// addresses do.
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

/// The class of the widest address in a network that a local route makes local.
#[must_use]
pub fn network_exposure(network: IpNet) -> Exposure {
    let (first, last) = (AddrClass::of(network.network()), AddrClass::of(network.broadcast()));
    // The classes are contiguous blocks. A network whose ends have different classes therefore contains some of the
    // rest, which is global.
    if first == last { Exposure::of(first) } else { Exposure::Global }
}

/// Computes exposures of many sockets on one host. Data that does not depend on the socket is computed once.
#[derive(Debug)]
pub struct Exposer<'a> {
    snapshot: &'a Snapshot,
    local: LocalAddresses,
    /// IPv6 addresses by interface and address: on a host with ten thousand addresses there are as many lookups.
    listed: FxHashMap<(u32, Ipv6Addr), &'a InterfaceAddress>,
    /// Whether sockets without a device receive packets of VRFs: TCP, UDP.
    hears_vrfs: [bool; 2],
    /// The exposure of a wildcard, by VRF (its index; `None` outside VRFs) and family.
    widest: Vec<(Option<u32>, Family, Exposure, String)>,
    /// Links that are up, by index: their VRF, and whether they accept IPv6.
    wires: FxHashMap<u32, (Option<u32>, bool)>,
}

impl<'a> Exposer<'a> {
    /// Indexes the snapshot.
    #[must_use]
    pub fn new(snapshot: &'a Snapshot) -> Exposer<'a> {
        let listed = snapshot
            .addresses()
            .filter_map(|(interface, address)| match address.address {
                IpAddr::V4(_) => None,
                IpAddr::V6(v6) => Some(((interface.index, v6), address)),
            })
            .collect();
        let hears_vrfs = ["net.ipv4.tcp_l3mdev_accept", "net.ipv4.udp_l3mdev_accept"]
            .map(|name| snapshot.setting(name).is_some_and(|value| value != 0));
        let wires = reach::wires(snapshot)
            .map(|wire| (wire.index, (vrf_of(snapshot, wire), !reach::ipv6_is_off(wire))))
            .collect();
        let local = LocalAddresses::new(snapshot);
        let mut new = Exposer { snapshot, local, listed, hears_vrfs, widest: Vec::new(), wires };
        for (interface, address) in snapshot.addresses() {
            // Link-local IPv6 addresses belong to their link; they are checked with the device.
            if is_usable(interface, address) {
                let exposure = class_on(interface, address);
                new.widen(vrf_of(snapshot, interface), address.family, exposure, || {
                    format!("{} on {}", addr::text(address.address, Some(&interface.name)), interface.name)
                });
            }
        }
        for (vrf, route) in local_routes(snapshot) {
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
        self.explain_to(facts, |_, _| {})
    }

    /// The exposure of a socket with its reasons.
    #[must_use]
    pub fn explain(&self, facts: &Facts<'_>) -> (FamilyExposure, Vec<Reason>) {
        let mut reasons = Vec::new();
        let exposure = self.explain_to(facts, |family, text| {
            reasons.push(Reason { family, text: text.to_string() });
        });
        (exposure, reasons)
    }

    /// Like [`Exposer::explain`], but passes on each reason: its family, and a function for [`Reason::text`], which
    /// costs nothing unless it is called.
    pub fn explain_to(
        &self,
        facts: &Facts<'_>,
        mut reason: impl FnMut(Family, fmt::Arguments<'_>),
    ) -> FamilyExposure {
        let mut exposure = FamilyExposure::default();
        for family in Family::BOTH {
            let mut because = |text: fmt::Arguments<'_>| reason(family, text);
            if !facts.serves(family) {
                continue;
            }
            if facts.address.is_ipv6() && !self.snapshot.ipv6_available {
                because(format_args!("this kernel makes no IPv6 sockets"));
                continue;
            }
            if family == Family::Ipv4 && facts.address.is_ipv6() && facts.address.is_unspecified() {
                because(match facts.v6only {
                    Some(_) => format_args!("it is dual-stack: it accepts IPv4 as well"),
                    None => {
                        format_args!("it is unknown whether it accepts IPv4 as well; it counts as if it did")
                    }
                });
            }
            let found = if facts.address.to_canonical().is_unspecified() {
                let found = self.wildcard(facts, family, &mut because);
                self.sent_to_all(facts, family, found, &mut because)
            } else {
                self.specific(facts, &mut because)
            };
            match family {
                Family::Ipv4 => exposure.ipv4 = found,
                Family::Ipv6 => exposure.ipv6 = found,
            }
        }
        exposure
    }

    fn device(&self, facts: &Facts<'_>) -> Result<Option<&'a Interface>, String> {
        // The zone of a link-local address replaces any device of the socket (`__inet6_bind()`).
        let zone = facts.scope_id.filter(|_| needs_zone(facts.address) && facts.device.is_some());
        if let Some(interface) = zone.and_then(|zone| self.snapshot.interface(zone)) {
            return Ok(Some(interface));
        }
        match facts.device {
            None => Ok(None),
            Some(name) => match self.snapshot.interface_named(name) {
                Some(interface) => Ok(Some(interface)),
                None => Err(format!("its device {name} does not exist here")),
            },
        }
    }

    /// Whether packets from other hosts can arrive: on a device, or in a VRF (`None`: outside VRFs), or anywhere.
    fn can_arrive(
        &self,
        family: Family,
        device: Option<&Interface>,
        vrf: Option<u32>,
        anywhere: bool,
    ) -> bool {
        let takes = |ipv6: bool| family == Family::Ipv4 || ipv6;
        match device {
            Some(device) if vrf != Some(device.index) => {
                self.wires.get(&device.index).is_some_and(|(_, ipv6)| takes(*ipv6))
            }
            _ => self.wires.values().any(|(of, ipv6)| (anywhere || *of == vrf) && takes(*ipv6)),
        }
    }

    /// Whether a socket without a device receives packets of VRFs.
    fn hears_vrfs(&self, facts: &Facts<'_>) -> bool {
        self.hears_vrfs[usize::from(facts.protocol == crate::model::Protocol::Udp)]
    }

    fn wildcard(
        &self,
        facts: &Facts<'_>,
        family: Family,
        because: &mut impl FnMut(fmt::Arguments<'_>),
    ) -> Exposure {
        let device = match self.device(facts) {
            Ok(device) => device,
            Err(reason) => {
                because(format_args!("{reason}"));
                return Exposure::None;
            }
        };
        let Some(device) = device else {
            let all_vrfs = self.hears_vrfs(facts);
            let entries =
                self.widest.iter().filter(|entry| entry.1 == family && (all_vrfs || entry.0.is_none()));
            let Some(widest) = entries.max_by_key(|entry| entry.2) else {
                because(format_args!("this host has no {family} address that can be used"));
                return Exposure::None;
            };
            because(format_args!("a wildcard covers every address; the widest is {}", widest.3));
            if !self.can_arrive(family, None, None, all_vrfs) && widest.2 > Exposure::Loopback {
                because(format_args!("{NO_LINK}"));
                return Exposure::Loopback;
            }
            return self.route_localnet(family, widest.2, None, because);
        };
        let own =
            device.addresses.iter().filter(|address| address.family == family && is_usable(device, address));
        let own = own.map(|address| class_on(device, address)).max();
        if device.loopback {
            because(format_args!("it is bound to device {}, which no other host can reach", device.name));
            return if own.is_some() { Exposure::Loopback } else { Exposure::None };
        }
        let vrf = vrf_of(self.snapshot, device);
        if !self.can_arrive(family, Some(device), vrf, false) {
            because(format_args!("{}", nothing_arrives(device)));
            return if own.is_some() { Exposure::Loopback } else { Exposure::None };
        }
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
        let routes = local_routes(self.snapshot)
            .filter(|(of, route)| *of == vrf && Family::of(route.destination.addr()) == family)
            .map(|(_, route)| {
                (network_exposure(route.destination), format!("all of {} (a local route)", route.destination))
            });
        // `max_by_key` returns the last of equal values; the first one is easier to read.
        let widest = elsewhere.chain(routes).fold(None, |best: Option<(Exposure, String)>, new| match best {
            Some(best) if best.0 >= new.0 => Some(best),
            _ => Some(new),
        });
        let Some((exposure, what)) = widest.filter(|(exposure, _)| *exposure > Exposure::Loopback) else {
            because(format_args!("no {family} address can be reached through its device {}", device.name));
            return self.route_localnet(family, Exposure::None, Some(device), because);
        };
        because(format_args!(
            "hosts that arrive through its device {} reach every address of this host; the widest is {what}",
            device.name
        ));
        exposure
    }

    fn specific(&self, facts: &Facts<'_>, because: &mut impl FnMut(fmt::Arguments<'_>)) -> Exposure {
        let address = facts.address.to_canonical();
        let class = AddrClass::of(address);
        let zone = facts.scope_id;
        let device = match self.device(facts) {
            Ok(device) => device,
            Err(reason) => {
                because(format_args!("{reason}"));
                return Exposure::None;
            }
        };
        let text = addr::Text(address, device.map(|device| &device.name));
        // Looked up once: with fifty thousand addresses this is a tenth of the work.
        let zone = zone.or_else(|| device.map(|device| device.index));
        let kind = match address {
            IpAddr::V4(v4) => Some(self.local.ipv4(v4, zone)),
            IpAddr::V6(_) => None,
        };
        let broadcast = kind == Some(Ipv4Kind::Broadcast);
        if let Some(many) = self.to_many(facts, (address, class, broadcast), device, because) {
            return many;
        }
        if !matches!(class, AddrClass::Loopback | AddrClass::Link | AddrClass::Private | AddrClass::Global) {
            because(format_args!("{text} is a {class} address; nothing that is sent to one host goes to it"));
            return Exposure::None;
        }
        let owner = match kind {
            Some(Ipv4Kind::Local(interface)) => Some(interface),
            Some(_) => None,
            None => self.local.owner(address, zone),
        };
        let owner = owner.or_else(|| self.local.owner_in_a_vrf(address).filter(|_| device.is_none()));
        let owner = owner.and_then(|index| self.snapshot.interface(index));
        let Some(owner) = owner else {
            because(format_args!("{text} is not an address of this host that can be used now"));
            return Exposure::None;
        };
        // IPv4 addresses can be used on any interface, and count by their class.
        let listed = match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => self.listed.get(&(owner.index, v6)).copied(),
        };
        if listed.is_some_and(|candidate| !is_usable(owner, candidate)) {
            because(format_args!(
                "{text} cannot be used while {} is down or has IPv6 switched off",
                owner.name
            ));
            return Exposure::None;
        }
        let exposure = listed.map_or_else(|| Exposure::of(class), |candidate| class_on(owner, candidate));
        if let Some(device) = device {
            if device.loopback {
                because(format_args!("it is bound to device {}, which no other host can reach", device.name));
                return if owner.loopback { Exposure::Loopback } else { Exposure::None };
            }
            let vrf = vrf_of(self.snapshot, device);
            if !self.can_arrive(Family::of(address), Some(device), vrf, false) {
                because(format_args!("{}", nothing_arrives(device)));
                return if owner.index == device.index { Exposure::Loopback } else { Exposure::None };
            }
        } else if let Some(vrf) = vrf_of(self.snapshot, owner).filter(|_| !self.hears_vrfs(facts)) {
            let vrf = self.snapshot.interface(vrf).map_or_else(String::new, |vrf| vrf.name.to_string());
            because(format_args!(
                "{text} is in the VRF {vrf}, from which a socket without a device receives nothing"
            ));
            return Exposure::None;
        }
        if exposure == Exposure::Loopback {
            because(format_args!("{text} is reached by this host itself only"));
            if device.is_some() {
                return self.route_localnet(Family::of(address), Exposure::None, device, because);
            }
            return self.route_localnet(Family::of(address), exposure, None, because);
        }
        let vrf = vrf_of(self.snapshot, owner);
        let through = device.or(Some(owner).filter(|_| needs_zone(address)));
        let anywhere = vrf.is_none() && self.hears_vrfs(facts);
        if !self.can_arrive(Family::of(address), through, vrf, anywhere) {
            because(format_args!("{NO_LINK}"));
            return Exposure::Loopback;
        }
        let name = &owner.name;
        match device {
            _ if needs_zone(address) => {
                because(format_args!("{text} is reached from the link of {name} only"))
            }
            Some(device) => {
                because(format_args!("{text} is a {class} address, reached through device {}", device.name));
            }
            None => because(format_args!(
                "{text} is a {class} address of {name}; under the weak host model it is reached through every interface"
            )),
        }
        exposure
    }

    /// With `route_localnet` (of the interface or of all) packets to 127/8 are accepted from the link. Hosts there can
    /// reach listeners on loopback.
    fn route_localnet(
        &self,
        family: Family,
        exposure: Exposure,
        device: Option<&Interface>,
        because: &mut impl FnMut(fmt::Arguments<'_>),
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
                because(format_args!(
                    "route_localnet is on for {}: hosts on that link reach 127.0.0.0/8 of this host",
                    interface.name
                ));
                Exposure::Link
            }
            None => exposure,
        }
    }
}

const NO_LINK: &str = "no link to another host is up: only this host itself can connect";

fn nothing_arrives(device: &Interface) -> String {
    let why = if device.up { "which no other host can reach" } else { "which is down" };
    format!("nothing arrives through its device {}, {why}", device.name)
}

/// Local routes, with their VRF; `None` for the default VRF (see [`LocalAddresses`]).
fn local_routes(snapshot: &Snapshot) -> impl Iterator<Item = (Option<u32>, &Route)> {
    snapshot.routes.iter().filter(|route| route.kind == RouteKind::Local).filter_map(|route| {
        if route.table == TABLE_LOCAL {
            return Some((None, route));
        }
        let interface = route.interface.and_then(|index| snapshot.interface(index));
        interface.and_then(|interface| vrf_of(snapshot, interface)).map(|vrf| (Some(vrf), route))
    })
}

/// The exposure of an address at its interface: a link-local IPv6 address of a loopback interface has no link.
fn class_on(interface: &Interface, address: &InterfaceAddress) -> Exposure {
    let strong = needs_zone(address.address) || address.address == IpAddr::V6(Ipv6Addr::LOCALHOST);
    if interface.loopback && strong { Exposure::Loopback } else { Exposure::of(address.class) }
}

/// Index of the VRF that an interface is or belongs to.
fn vrf_of(snapshot: &Snapshot, interface: &Interface) -> Option<u32> {
    Some(snapshot.vrf_of(interface)).filter(|vrf| *vrf != 0)
}

#[cfg(test)]
mod tests;
