//! How far a packet gets before a socket is looked up: from the host itself, from a client on a link, from one beyond its routers.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::answer::{Answer, Answering, Question, Verdict};
use super::{Destination, wires};
use crate::code::Code;
use crate::model::addr::needs_zone;
use crate::model::{AddrClass, Family, IfName, Interface, LinkKind, Outcome, RouteKind, Snapshot, Source};
use crate::plan::clients::{Addresses, Clients};
use crate::plan::fib::{Decision, Fib, Flow, TABLE_MAIN};
use crate::plan::local_table::LocalAddresses;

/// How far a packet gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// To the sockets.
    Arrives(Arriving),
    /// Nowhere, and the client sees this.
    Lost(Outcome, Code),
    /// No neighbour of the host finds out where to send it: a connection fails, and a datagram vanishes.
    Unresolved(Code, Option<Answer>),
    /// The host drops it.
    Dropped(Code, Answer),
    /// That depends on what is not known.
    Unknown(Code, Option<Answer>),
}

/// A packet at the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arriving {
    pub(super) destination: IpAddr,
    /// The interface it counts as arrived on.
    pub(super) device: u32,
    pub(super) vrf: u32,
    /// The interface the kernel will report.
    pub(super) ingress: u32,
    /// What is remarkable about its path.
    pub(super) special: Option<Code>,
    /// What decides about the answer.
    pub(super) back: Back,
}

/// The return path of a packet that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Back {
    /// From this host to itself: whether the answers of a socket without a device and of one with a device arrive.
    Here { plain: Option<bool>, by_device: Option<bool> },
    /// To a client on a link or beyond it; the same for all sockets without a device, and for all with one.
    Same { question: Question, plain: Verdict, by_device: Verdict },
    /// The same, and each socket may have another one, as policy rules look at ports, protocols or users.
    Each(Question),
}

/// A client that packet filters tell apart from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RuleClient {
    /// Its address.
    pub(super) address: IpAddr,
    /// Whether it is beyond the routers of the link.
    pub(super) beyond: bool,
}

/// The clients of a link.
#[derive(Debug)]
struct Link {
    addresses: Addresses,
    /// Addresses of clients beyond its routers, IPv4 first.
    beyond: [Option<IpAddr>; 2],
    /// Whether neighbours look for an address before they send to it, and this interface alone answers them.
    resolves: bool,
}

/// The facts of a snapshot that are looked up again and again, indexed.
pub(super) struct HostView<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) local: &'a LocalAddresses,
    pub(super) fib: Fib<'a>,
    by_name: HashMap<&'a IfName, &'a Interface>,
    pub(super) by_index: HashMap<u32, &'a Interface>,
    links: HashMap<u32, Link>,
    loopback: Option<u32>,
    loopback_up: bool,
    /// All local traffic runs over it, so `disable_ipv6` there stops a host from talking IPv6 to itself.
    loopback_refuses_ipv6: bool,
}

impl<'a> HostView<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, local: &'a LocalAddresses) -> HostView<'a> {
        let loopback = snapshot.interfaces.iter().find(|interface| interface.loopback);
        let mut view = HostView {
            snapshot,
            local,
            fib: Fib::new(snapshot),
            by_name: snapshot.interfaces.iter().map(|interface| (&interface.name, interface)).collect(),
            by_index: snapshot.interfaces.iter().map(|interface| (interface.index, interface)).collect(),
            links: HashMap::new(),
            loopback: loopback.map(|interface| interface.index),
            loopback_up: loopback.is_some_and(|interface| interface.up),
            loopback_refuses_ipv6: loopback.is_some_and(ipv6_is_off),
        };
        let clients = Clients::new(snapshot, local);
        for wire in wires(snapshot) {
            let shared = snapshot.interfaces.iter().any(|other| {
                let macvlan = [other, wire].iter().any(|one| one.kind == Some(LinkKind::Macvlan));
                macvlan && other.index != wire.index && view.same_wire(other.index, wire.index)
            });
            let resolves = !shared && !wire.no_arp && !wire.point_to_point && wire.mac.is_some();
            let beyond = Family::BOTH.map(|family| clients.beyond(wire, family).map(|(client, _)| client));
            let link = Link { addresses: clients.on_link(wire), beyond, resolves };
            view.links.insert(wire.index, link);
        }
        view
    }

    pub(super) fn vrf(&self, index: u32) -> u32 {
        self.by_index.get(&index).map_or(0, |interface| self.snapshot.vrf_of(interface))
    }

    /// How far a packet of `source` to `to` gets; `None` where the source cannot send it: no router forwards packets to loopback and
    /// link-local addresses, and beyond a link without a router there is no client.
    pub(super) fn path(&self, source: &Source, to: Destination) -> Option<Path> {
        Some(match source {
            Source::Host => self.path_of_host(to),
            Source::Link(name) => match self.by_name.get(name) {
                Some(interface) => self.path_of_link(interface, to, false, None)?,
                None => Path::Lost(Outcome::Error, Code::REACH_UNKNOWN),
            },
            Source::Beyond(name) => self.path_of_link(self.by_name.get(name)?, to, true, None)?,
            // Which client of a network is asked about depends on the rules; see `path_of_client`. Nodes of a lab differ by the
            // interface on which their packets arrive; the lab asks with that.
            Source::From(..) | Source::Node(_) => Path::Lost(Outcome::Error, Code::REACH_UNKNOWN),
        })
    }

    /// How far a packet of a client with this address gets, on a link or beyond its routers; `None` where the client cannot send it.
    pub(super) fn path_of_client(&self, link: &IfName, client: RuleClient, to: Destination) -> Option<Path> {
        if client.address.is_ipv4() != to.address.to_canonical().is_ipv4() {
            return None;
        }
        self.path_of_link(self.by_name.get(link)?, to, client.beyond, Some(client.address))
    }

    /// Whether a link has routers with clients of this family beyond them.
    pub(super) fn has_beyond_in(&self, name: &IfName, family: Family) -> bool {
        let link = self.by_name.get(name).and_then(|interface| self.links.get(&interface.index));
        link.is_some_and(|link| link.beyond[usize::from(family == Family::Ipv6)].is_some())
    }

    /// The networks of a link.
    pub(super) fn networks(&self, name: &IfName) -> impl Iterator<Item = ipnet::IpNet> + '_ {
        let link = self.by_name.get(name).and_then(|interface| self.links.get(&interface.index));
        link.into_iter().flat_map(|link| link.addresses.own.iter().map(ipnet::IpNet::trunc))
    }

    /// Whether a link has routers with clients beyond them.
    pub(super) fn has_beyond(&self, name: &IfName) -> bool {
        let link = self.by_name.get(name).and_then(|interface| self.links.get(&interface.index));
        link.is_some_and(|link| link.beyond.iter().any(Option::is_some))
    }

    /// Local traffic runs over `lo` but counts as arrived on the interface that owns the destination
    /// (`ip_route_output_key_hash_rcu()`, `ip6_rcv_core()`).
    fn path_of_host(&self, to: Destination) -> Path {
        // "This host" (RFC 1122, 3.2.1.3) means the loopback address to connect.
        let destination = match to.address.to_canonical() {
            IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            address => address,
        };
        let zone = (to.zone != 0).then_some(to.zone);
        let Some(owner) = self.local.owner(destination, zone) else {
            if self.local.owner_in_a_vrf(destination).is_some() {
                // What the host's own table has no route for goes nowhere; by a default route it would be asked of others.
                return if self.has_route(destination) {
                    Path::Unknown(Code::OTHER_VRF, None)
                } else {
                    Path::Lost(Outcome::Unreachable, Code::OTHER_VRF)
                };
            }
            let outcome = match destination {
                // Like any address of another host: it leaves by a default route, and no host answers. But `0.0.0.0`
                // stays inside.
                _ if !destination.is_loopback() => Outcome::Error,
                IpAddr::V4(_) if to.address.to_canonical().is_unspecified() => Outcome::Unreachable,
                _ if self.has_default_route(Family::of(destination)) => Outcome::Timeout,
                // Without any IPv6 address the search for a source fails first, with EADDRNOTAVAIL.
                IpAddr::V6(_) if !self.local.any_usable_ipv6() => Outcome::Error,
                _ => Outcome::Unreachable,
            };
            return Path::Lost(outcome, Code::DESTINATION_NOT_HERE);
        };
        // The SYN is routed without a source address, and the answer with one, which is the same address.
        let from = Flow { from: Some(destination), ..Flow::to(destination) };
        for flow in [Flow::to(destination), from] {
            if let Some(path) = self.diverted(Family::of(destination), flow) {
                return path;
            }
        }
        if !self.loopback_up {
            return Path::Lost(Outcome::Timeout, Code::LOOPBACK_DOWN);
        }
        if destination.is_ipv6() && self.loopback_refuses_ipv6 {
            return Path::Lost(Outcome::Timeout, Code::IPV6_OFF);
        }
        let special = self.is_local_route(destination).then_some(Code::LOCAL_ROUTE);
        // An answer over a device must find its peer there. The peer's address is the destination itself, but for IPv6 local routes.
        // A device that is down sends nothing (`ip_route_output_key_hash_rcu()`), though its IPv4 address stays the host's.
        let answered_by_device = self.by_index.get(&owner).is_some_and(|interface| interface.up)
            && (special.is_none() || destination.is_ipv4() || self.source_is_on(owner));
        // A link-local address of a VRF's interface is reached as if the interface were in none.
        Path::Arrives(Arriving {
            destination,
            device: owner,
            vrf: 0,
            ingress: owner,
            special,
            back: Back::Here { plain: Some(true), by_device: Some(answered_by_device) },
        })
    }

    /// Where the table `local` is not asked first: what else becomes of a packet to an address of this host.
    fn diverted(&self, family: Family, flow: Flow) -> Option<Path> {
        if self.fib.asks_local_first(family) {
            return None;
        }
        let decision = self.fib.look_up(self.local, &flow);
        let answer = Some(Answer::of_decision(&decision));
        match decision {
            Decision::Local { .. } => None,
            Decision::Unknown { .. } => Some(Path::Unknown(Code::ANSWER_UNKNOWN, answer)),
            // Whether another host answers there is not known.
            _ if flow.iif == 0 => Some(Path::Unknown(Code::ANSWER_DIVERTED, answer)),
            _ => Some(Path::Lost(Outcome::Timeout, Code::NOT_FORWARDED)),
        }
    }

    fn has_default_route(&self, family: Family) -> bool {
        self.own_routes().any(|to| to.prefix_len() == 0 && Family::of(to.addr()) == family)
    }

    /// Whether the host would send packets for `destination` out.
    fn has_route(&self, destination: IpAddr) -> bool {
        self.own_routes().any(|to| to.contains(&destination))
    }

    /// Where routes outside of VRFs lead.
    fn own_routes(&self) -> impl Iterator<Item = ipnet::IpNet> + '_ {
        self.snapshot
            .routes
            .iter()
            .filter(|route| route.kind == RouteKind::Unicast)
            .filter(|route| {
                route.table == TABLE_MAIN || route.interface.is_none_or(|index| self.vrf(index) == 0)
            })
            .map(|route| route.destination)
    }

    /// The way of a packet whose source address is `from`, which these interfaces have. `None` where that is not asked.
    pub(super) fn path_from(
        &self,
        from: Destination,
        interfaces: &BTreeSet<u32>,
        to: Destination,
    ) -> Option<Path> {
        let mut target = Destination { address: to.address.to_canonical(), zone: to.zone };
        if Family::of(target.address) != Family::of(from.address) {
            return None;
        }
        match target.address {
            // To connect, "this host" is the address that is bound (`ip_route_output_key_hash_rcu()`).
            IpAddr::V4(v4) if v4.is_unspecified() => target = from,
            IpAddr::V6(v6) if v6.is_unspecified() => target.address = IpAddr::V6(Ipv6Addr::LOCALHOST),
            _ if target == from => return None,
            _ => {}
        }
        // The packet and its answer are routed with both addresses.
        let there = Flow { from: Some(from.address), ..Flow::to(target.address) };
        let back = Flow { from: Some(target.address), ..Flow::to(from.address) };
        let family = Family::of(target.address);
        if self.local.owner(target.address, (target.zone != 0).then_some(target.zone)).is_some()
            && let Some(path) = [there, back].into_iter().find_map(|flow| self.diverted(family, flow))
        {
            return Some(path);
        }
        let loopback = !from.address.is_loopback() || target.address.is_loopback();
        let link = from.zone == 0 || from.zone == target.zone;
        if !(loopback && link) {
            return None;
        }
        Some(match self.path_of_host(target) {
            // An answer over a device must find the client's address there, and what comes from a link-local address goes over
            // its own (`rt6_need_strict()` of `net/ipv6/route.c`).
            Path::Arrives(arriving) => {
                // IPv4 leaves over a device without a route too, and what leaves over `lo` is back at once.
                let back = arriving.destination.is_ipv4() && Some(arriving.device) == self.loopback;
                let up = self.by_index.get(&arriving.device).is_some_and(|interface| interface.up);
                let there = up && (back || interfaces.contains(&arriving.device));
                // An answer that leaves the host over the device may come back by a router.
                let flow = Flow {
                    from: Some(arriving.destination),
                    oif: arriving.device,
                    strict: true,
                    ..Flow::to(from.address)
                };
                // Rules that look at ports may let it leave for some sockets.
                let leaves = || {
                    self.fib.is_selective(family)
                        || matches!(self.fib.output(self.local, &flow), Decision::Found(_))
                };
                let own = arriving.destination.is_ipv4()
                    && self.by_index.get(&arriving.device).is_none_or(|device| self.accepts_own(device));
                let there = if !there && up && (arriving.destination.is_ipv6() || own) && leaves() {
                    None
                } else {
                    Some(there)
                };
                let plain = if needs_zone(arriving.destination) { there } else { Some(true) };
                Path::Arrives(Arriving { back: Back::Here { plain, by_device: there }, ..arriving })
            }
            // Who looks for an address elsewhere with a source of the own choice is not this host's own affair.
            Path::Lost(_, Code::DESTINATION_NOT_HERE) => return None,
            lost => lost,
        })
    }

    /// Whether this host would talk to a global IPv6 destination behind `interface` from an address of that interface: it prefers
    /// one, but not to an address of wider scope elsewhere (RFC 6724, 5, rules 2 and 5).
    fn source_is_on(&self, interface: u32) -> bool {
        let wide = |interface: &Interface| {
            interface.addresses.iter().any(|address| {
                let wide = matches!(address.class, AddrClass::Global | AddrClass::Private);
                address.family == Family::Ipv6 && wide
            })
        };
        self.by_index.get(&interface).is_some_and(|interface| wide(interface))
            || !self.snapshot.interfaces.iter().any(wide)
    }

    /// Whether no interface has the address, only a route.
    fn is_local_route(&self, destination: IpAddr) -> bool {
        !destination.is_loopback() && !self.local.has_address(destination)
    }

    fn path_of_link(
        &self,
        wire: &Interface,
        to: Destination,
        beyond: bool,
        chosen: Option<IpAddr>,
    ) -> Option<Path> {
        let destination = to.address.to_canonical();
        let family = Family::of(destination);
        let side = usize::from(family == Family::Ipv6);
        let link = self.links.get(&wire.index);
        if beyond && (destination.is_loopback() || AddrClass::of(destination) == AddrClass::Link) {
            return None;
        }
        let client = match link {
            Some(_) if chosen.is_some() => chosen,
            Some(link) if beyond => Some(link.beyond[side]?),
            Some(link) => link.addresses.source(destination),
            None => None,
        };
        let arriving = match self.arriving(wire, destination) {
            Path::Arrives(arriving) => arriving,
            lost => return Some(lost),
        };
        let Some(client) = client else {
            return Some(Path::Lost(Outcome::Timeout, Code::NO_WAY_BACK));
        };
        let question = Question { client, beyond, link: wire.index, to: destination };
        let flow = Flow { iif: wire.index, from: Some(client), ..Flow::to(destination) };
        if let Some(path) = self.diverted(family, flow) {
            return Some(path);
        }
        if let Some(lost) = link.and_then(|link| self.unresolved(wire, link, &question)) {
            return Some(lost);
        }
        let back = if self.fib.is_selective(family) {
            Back::Each(question)
        } else {
            match self.accepts_source(&question, Some(&Answering::KERNEL)) {
                Verdict::Arrives => {}
                Verdict::Lost(why, answer) => return Some(Path::Dropped(why, answer)),
                Verdict::Unknown(answer) => return Some(Path::Unknown(Code::ANSWER_UNKNOWN, Some(answer))),
            }
            let by_device = Answering { device: wire.index, ..Answering::KERNEL };
            Back::Same {
                question,
                plain: self.answer(&question, &Answering::KERNEL),
                by_device: self.answer(&question, &by_device),
            }
        };
        Some(Path::Arrives(Arriving { back, ..arriving }))
    }

    /// A packet that has arrived on a link: whether the address is this host's there. That its answer gets back is assumed.
    pub(super) fn arriving(&self, wire: &Interface, destination: IpAddr) -> Path {
        let mut special = None;
        match destination {
            IpAddr::V4(v4) if v4.is_loopback() => {
                if !self.route_localnet(wire) {
                    return Path::Lost(Outcome::Timeout, Code::LOOPBACK_FROM_WIRE);
                }
                special = Some(Code::ROUTE_LOCALNET);
            }
            IpAddr::V6(_) if ipv6_is_off(wire) => return Path::Lost(Outcome::Timeout, Code::IPV6_OFF),
            // `ip6_rcv_core()`; RFC 4291, 2.5.3.
            IpAddr::V6(v6) if v6.is_loopback() => {
                return Path::Lost(Outcome::Timeout, Code::LOOPBACK_FROM_WIRE);
            }
            _ => {}
        }
        // On this link the address means this link's, whatever zone it was shown with. The rule for the table `local` comes before
        // the one for the VRF's (ip-rule(8)), so a VRF's packets find the addresses of the host outside of VRFs as well.
        let owner = self.local.owner(destination, None);
        let Some(owner) = owner.or_else(|| self.local.owner(destination, Some(wire.index))) else {
            let link_local = AddrClass::of(destination) == AddrClass::Link;
            let why = if link_local { Code::LINK_LOCAL_ELSEWHERE } else { Code::OTHER_VRF };
            return Path::Lost(Outcome::Timeout, why);
        };
        if special.is_none() && owner != wire.index {
            let by_route = self.is_local_route(destination);
            special = Some(if by_route { Code::LOCAL_ROUTE } else { Code::WEAK_HOST });
        }
        Path::Arrives(Arriving {
            destination,
            device: wire.index,
            vrf: self.vrf(wire.index),
            ingress: wire.index,
            special,
            back: Back::Here { plain: Some(true), by_device: Some(true) },
        })
    }

    /// Who asks whom in the neighbour discovery before a packet of a client; `None` where there is none.
    pub(super) fn discovery(&self, question: &Question) -> Option<(Option<IpAddr>, Option<IpAddr>)> {
        let link = self.links.get(&question.link).filter(|link| link.resolves)?;
        let side = usize::from(question.to.is_ipv6());
        let here = link.addresses.shared(question.to).is_some() || needs_zone(question.to);
        let asked = if here { Some(question.to) } else { link.addresses.by_way_of[side] };
        let asks = if question.beyond {
            asked.and_then(|asked| link.addresses.source(asked))
        } else {
            Some(question.client)
        };
        Some((asks, asked))
    }

    /// Whether an address is in a network of a link.
    pub(super) fn is_on_link(&self, link: u32, address: IpAddr) -> bool {
        self.links.get(&link).is_some_and(|link| link.addresses.shared(address).is_some())
    }

    /// What keeps the neighbours of a link, the client or the router before it, from finding out where to send a packet.
    fn unresolved(&self, wire: &Interface, link: &Link, question: &Question) -> Option<Path> {
        let side = usize::from(question.to.is_ipv6());
        let shared = link.addresses.shared(question.to).or_else(|| {
            // Every link-local address is looked for on the link.
            needs_zone(question.to).then(|| ipnet::IpNet::from(question.to))
        });
        let asked = if shared.is_some() { question.to } else { link.addresses.by_way_of[side]? };
        // Without ARP the interface answers no request, and the host sends its answers to the interface's own link-layer address
        // (`arp_rcv()` and `arp_constructor()` of `net/ipv4/arp.c`, `ndisc_constructor()` of `net/ipv6/ndisc.c`).
        if wire.no_arp && wire.kind.as_ref().is_some_and(LinkKind::asks_neighbours) {
            return Some(Path::Unresolved(Code::NOT_RESOLVED, None));
        }
        if !link.resolves {
            return None;
        }
        let asks = if question.beyond { link.addresses.source(asked)? } else { question.client };
        match self.resolves(wire, asked, asks) {
            Some(true) => {}
            Some(false) => return Some(Path::Unresolved(Code::NOT_RESOLVED, None)),
            None => return Some(Path::Unknown(Code::NOT_RESOLVED, None)),
        }
        // A request from an address that `rp_filter` drops is not answered either (`arp_process()`). A router may know the host
        // nevertheless, from requests that the host sends.
        let asking = Question { client: asks, beyond: false, to: asked, ..*question };
        match self.accepts_source(&asking, None) {
            Verdict::Lost(why, answer) => {
                // The packet itself may be accepted, if the neighbour knows the host.
                let marks = self.fib.routes_by_mark(Family::Ipv4) && self.has_filters();
                let same = !self.fib.depends_on_sockets(Family::Ipv4) && !marks;
                let packet = self.accepts_source(question, Some(&Answering::KERNEL));
                match matches!(packet, Verdict::Lost(..)) && same {
                    true if question.beyond => None,
                    true => Some(Path::Unresolved(why, Some(answer))),
                    false => Some(Path::Unknown(why, Some(answer))),
                }
            }
            _ => None,
        }
    }

    /// Whether packet filters may give packets a mark.
    fn has_filters(&self) -> bool {
        let filters = self.snapshot.packet_filters.as_ref();
        filters.is_some_and(|filters| !filters.tables.is_empty() || filters.unknown_because.is_some())
    }

    /// Whether 127.0.0.0/8 is taken from a wire: `all` or the interface's own setting (`IN_DEV_NET_ROUTE_LOCALNET()` of
    /// `include/linux/inetdevice.h`).
    pub(super) fn route_localnet(&self, wire: &Interface) -> bool {
        self.snapshot.setting("net.ipv4.conf.all.route_localnet").is_some_and(|on| on != 0)
            || wire.settings.get("ipv4.route_localnet").is_some_and(|&on| on != 0)
    }
}

/// Whether an interface drops every IPv6 packet (`ip6_rcv_core()`).
pub(in crate::plan) fn ipv6_is_off(interface: &Interface) -> bool {
    interface.settings.get("ipv6.disable_ipv6").is_some_and(|&off| off != 0)
}
