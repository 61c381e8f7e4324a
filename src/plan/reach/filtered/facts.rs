//! What the host knows about a packet that its packet filters ask about.

use super::*;

impl Facts for Host<'_> {
    fn address_type(&self, address: IpAddr, device: Option<&Device>) -> Option<u32> {
        if address.is_multicast() {
            return Some(address_type::MULTICAST);
        }
        let only = device.map(|device| device.index);
        if let Some(owner) = self.view.local.owner(address, only) {
            // A link-local or IPv4 address counts as local to its own interface only, where one is asked about.
            return Some(match only {
                Some(only) if only != owner => address_type::UNICAST,
                _ => address_type::LOCAL,
            });
        }
        match address {
            IpAddr::V4(v4) if self.view.local.ipv4(v4, only) == Ipv4Kind::Broadcast => {
                Some(address_type::BROADCAST)
            }
            _ => self.route(address, Some(0), None)?.map(|_| address_type::UNICAST),
        }
    }

    fn route(&self, to: IpAddr, mark: Option<u32>, device: Option<&Device>) -> Option<Option<Device>> {
        let mark = mark.map_or(Fact::Unknown, Fact::Known);
        let flow = Flow { mark, oif: device.map_or(0, |device| device.index), ..Flow::to(to) };
        let decision = self.view.fib.look_up(self.view.local, &flow);
        let found = route_device(self.view, &decision)?;
        // IPv6 prefers the interface and does not insist on it.
        Some(found.filter(|found| device.is_none_or(|device| device.index == found.index)))
    }

    fn incoming(&self, packet: &Packet) -> Incoming {
        let (Some(to), Some(input)) = (packet.destination.address, packet.input.as_ref()) else {
            return Incoming::Unknown;
        };
        let Some(interface) = self.view.by_index.get(&input.index) else { return Incoming::Unknown };
        let looped = interface.loopback;
        if to.is_loopback() && !looped && (to.is_ipv6() || !self.view.route_localnet(interface)) {
            return Incoming::Lost;
        }
        if self.view.local.owner(to, Some(input.index)).is_some() {
            return Incoming::Local;
        }
        let forwards = match to {
            IpAddr::V4(_) => interface.settings.get("ipv4.forwarding").copied(),
            IpAddr::V6(_) => interface.settings.get("ipv6.forwarding").copied(),
        };
        match forwards {
            None => return Incoming::Unknown,
            Some(0) => return Incoming::Lost,
            Some(_) => {}
        }
        let flow = Flow {
            iif: input.index,
            from: packet.source.address,
            mark: packet.mark.get().map_or(Fact::Unknown, Fact::Known),
            ..Flow::to(to)
        };
        match route_device(self.view, &self.view.fib.look_up(self.view.local, &flow)) {
            Some(Some(device)) => Incoming::Forward(device),
            // The client may receive an ICMP error: there is no route.
            _ => Incoming::Unknown,
        }
    }

    fn outgoing(&self, packet: &Packet) -> Option<Option<Device>> {
        let to = packet.destination.address?;
        let mark = packet.mark.get().map_or(Fact::Unknown, Fact::Known);
        let flow = Flow { from: packet.source.address, mark, ..Flow::to(to) };
        let decision = self.view.fib.output(self.view.local, &flow);
        if let Decision::Local { .. } = decision {
            let loopback = self.view.snapshot.interfaces.iter().find(|interface| interface.loopback)?;
            return Some(Some(device(loopback)));
        }
        route_device(self.view, &decision)
    }

    fn redirect(&self, device: &Device, family: Family) -> Vec<IpAddr> {
        let Some(interface) = self.view.by_index.get(&device.index) else { return Vec::new() };
        let own = interface.addresses.iter().filter(|address| address.family == family);
        own.map(|address| address.address).collect()
    }

    fn masquerade(&self, device: &Device, packet: &Packet) -> Option<IpAddr> {
        let interface = self.view.by_index.get(&device.index)?;
        let usable = |address: &IpAddr| !crate::model::addr::needs_zone(*address) && !address.is_loopback();
        let mut own = self.redirect(device, packet.family).into_iter().filter(usable);
        let first = own.next().filter(|_| !interface.loopback)?;
        own.next().is_none().then_some(first)
    }

    fn deliver(&self, protocol: Protocol, destination: IpAddr, port: u16, packet: &Packet) -> Delivery {
        let path = if destination == self.arriving.destination {
            Some(Path::Arrives(self.arriving))
        } else {
            self.translated_path(destination)
        };
        let Some(path) = path else { return Delivery::Unknown };
        let mut looked_up = self.looked_up.borrow_mut();
        if looked_up.len() < MOST_LOOKED_UP && !looked_up.contains(&(path, port)) {
            looked_up.push((path, port));
        }
        drop(looked_up);
        let mark = packet.mark.get().map_or(Fact::Unknown, Fact::Known);
        let reach = decide::arrive(self.view, self.binds, path, (protocol, port), mark);
        // A rule of the hook `output` may give the answer a mark, and thereby another route.
        let unanswered = matches!(
            reach.why,
            Code::NO_WAY_BACK | Code::ANSWER_DIVERTED | Code::ANSWER_ELSEWHERE | Code::ANSWER_UNKNOWN
        );
        if unanswered && self.marks_answers && self.routes_by_mark(Family::of(destination)) {
            return Delivery::Unknown;
        }
        let mut seen = self.seen.borrow_mut();
        let number = match seen.iter().position(|other| *other == reach) {
            Some(number) => number,
            None => {
                seen.push(reach);
                seen.len() - 1
            }
        };
        match seen.get(number).and_then(|reach| reach.outcome) {
            None => Delivery::Unknown,
            Some(Outcome::Accepted) => Delivery::Accepted(u32::try_from(number).unwrap_or(u32::MAX)),
            Some(Outcome::Refused) => Delivery::Refused,
            Some(_) => Delivery::Silent,
        }
    }

    fn reflects_mark(&self, family: Family) -> bool {
        self.setting(match family {
            Family::Ipv4 => "net.ipv4.fwmark_reflect",
            Family::Ipv6 => "net.ipv6.fwmark_reflect",
        })
    }

    fn accepts_mark(&self) -> bool {
        self.setting("net.ipv4.tcp_fwmark_accept")
    }

    fn routes_by_mark(&self, family: Family) -> bool {
        self.view.fib.routes_by_mark(family)
    }
}
