//! Neighbour discovery (RFC 4861) before the first IPv6 packet of a peer on a link.

use std::net::{IpAddr, Ipv6Addr};

use super::flow::Neighbour;
use super::hooks::Hook;
use super::packet::{Device, End, Packet, Transport};
use super::path::{Flow, Passage};
use crate::model::{Family, FilteredPacket as Role};

impl Flow<'_> {
    /// A neighbour solicitation that arrives, and the advertisement that answers it.
    pub(super) fn discovery(&mut self, device: &Device, neighbour: Neighbour) -> Passage {
        const SOLICITATION: u8 = 135;
        const ADVERTISEMENT: u8 = 136;
        let end = |address: Option<Ipv6Addr>| End { address: address.map(IpAddr::V6), port: None };
        let group = neighbour.target.map(solicited_node);
        let (source, group) = (end(neighbour.source), end(group));
        let mut ask = Packet::new(Family::Ipv6, Transport::Icmp(SOLICITATION, 0), source, group);
        ask.input = Some(device.clone());
        let target = end(neighbour.target);
        let mut tell = Packet::new(Family::Ipv6, Transport::Icmp(ADVERTISEMENT, 0), target, source);
        tell.output = Some(device.clone());
        for packet in [&mut ask, &mut tell] {
            packet.hops = Some(255);
            packet.body = neighbour.target.map(|target| target.octets());
        }
        let passage = self.hook(Hook::Prerouting, &mut ask, Role::Neighbour);
        let passage = self.then(passage, Hook::Input, &mut ask, Role::Neighbour);
        let passage = self.then(passage, Hook::Output, &mut tell, Role::Neighbour);
        // The kernel takes the output interface for the input one as well.
        tell.input = Some(device.clone());
        self.then(passage, Hook::Postrouting, &mut tell, Role::Neighbour)
    }
}

/// The group of a neighbour solicitation (RFC 4291, 2.7.1).
fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}
