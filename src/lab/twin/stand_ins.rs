//! Stand-ins: who answers on a link of the host for the targets of address translation, such as containers.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::{Builder, eth0, plain};
use crate::lab::ops::{Action, StandIn};
use crate::model::{Protocol, Route, RouteKind};
use crate::plan::fib::TABLE_MAIN;
use crate::plan::filter::Filters;
use crate::plan::filter::published::published;

/// How many sockets stand in, and how many ports of a range.
const MOST: usize = 512;
const MOST_OF_A_RANGE: u16 = 16;

impl Builder<'_> {
    /// Gives the client on a link the addresses of the translation targets that the host finds there, and lists the sockets that
    /// answer. A target that the host finds nowhere is noted.
    pub(super) fn stand_ins(&mut self) {
        let rules = self.snapshot.packet_filters.as_ref().and_then(|filters| filters.ruleset.as_ref());
        let Some(Ok(filters)) = rules.map(Filters::decode) else { return };
        let mut given: BTreeSet<IpAddr> = BTreeSet::new();
        let mut missing: BTreeSet<IpAddr> = BTreeSet::new();
        let mut all: BTreeSet<StandIn> = BTreeSet::new();
        for one in published(&filters) {
            let Some(to) = one.to.filter(|to| !self.is_own(*to)) else { continue };
            let interface = self.link_of(to);
            let client = interface.and_then(|interface| self.clients.get(&interface));
            let Some((node, addresses)) = client else {
                missing.insert(to);
                continue;
            };
            let node = *node;
            if given.insert(to) && !addresses.own.iter().any(|net| net.addr() == to) {
                self.twin.plan.push(node, Action::Address(eth0(), plain(to)));
            }
            let ports = match (one.to_port, one.ports) {
                (Some(port), _) => port..=port,
                (None, Some((low, high))) => low..=high.min(low.saturating_add(MOST_OF_A_RANGE - 1)),
                (None, None) => continue,
            };
            let protocols = one.protocol.map_or(vec![Protocol::Tcp, Protocol::Udp], |one| vec![one]);
            for (port, protocol) in ports.flat_map(|port| protocols.iter().map(move |one| (port, *one))) {
                if all.len() < MOST {
                    all.insert(StandIn { node, protocol, address: SocketAddr::new(to, port) });
                }
            }
        }
        for to in missing {
            self.twin.notes.push(format!(
                "connections that are forwarded to {to} are not tried: the twin has no link on which the host finds it"
            ));
        }
        self.twin.plan.stand_ins = all.into_iter().collect();
    }

    /// The interface over which the host finds an address, by the routes of the table `main`.
    fn link_of(&self, to: IpAddr) -> Option<u32> {
        let routes = self.snapshot.routes.iter().filter(|route| {
            route.table == TABLE_MAIN && route.kind == RouteKind::Unicast && route.destination.contains(&to)
        });
        let key = |route: &&Route| (route.destination.prefix_len(), Reverse(route.metric.unwrap_or(0)));
        routes.max_by_key(key)?.interface
    }

    fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.snapshot.addresses().any(|(_, own)| own.address == address)
    }
}
