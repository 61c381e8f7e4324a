//! Clients to which the host sends no answer, wherever they are: a route or a policy rule refuses to send to their network.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::answer::{Answer, NamedAnswer};
use super::{Service, destinations, with_routes};
use crate::model::{Family, Protocol, RouteKind, Snapshot};
use crate::plan::fib::{Decision, Fact, Fib, Flow};
use crate::plan::filter::sources::representative;
use crate::plan::local_table::LocalAddresses;

/// How many networks, addresses of the host and sockets are asked about.
const MOST: usize = 64;

/// A network of clients that get no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barred {
    /// The network of the clients.
    pub clients: IpNet,
    /// The addresses of the host that do not answer; empty for all of the family.
    pub to: Vec<IpAddr>,
    /// The ports that do not answer; empty for all.
    pub ports: Vec<u16>,
    /// The rule or route that refuses.
    pub answer: NamedAnswer,
}

impl fmt::Display for Barred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "clients in {} get no answer", self.clients)?;
        let list = |all: &[String]| {
            let more = all.len().saturating_sub(4);
            let shown = all.get(..4).unwrap_or(all).join(", ");
            if more > 0 { format!("{shown} and {more} more") } else { shown }
        };
        if !self.to.is_empty() {
            write!(f, " from {}", list(&self.to.iter().map(ToString::to_string).collect::<Vec<_>>()))?;
        }
        if !self.ports.is_empty() {
            write!(f, " on port {}", list(&self.ports.iter().map(ToString::to_string).collect::<Vec<_>>()))?;
        }
        write!(f, ": {}", self.answer)
    }
}

/// The networks of clients that get no answer from these TCP sockets, in their order.
#[must_use]
pub fn barred(snapshot: &Snapshot, local: &LocalAddresses, services: &[Service]) -> Vec<Barred> {
    let complete = with_routes(snapshot);
    let fib = Fib::new(&complete);
    let mut services: Vec<Service> =
        services.iter().copied().filter(|service| service.protocol == Protocol::Tcp).collect();
    services.sort_unstable();
    services.dedup();
    services.truncate(MOST);
    let own = destinations(snapshot, local);
    let mut found = Vec::new();
    for net in networks(&complete).into_iter().take(MOST) {
        let family = Family::of(net.addr());
        let Some(client) = representative(net).filter(|client| !local.has_address(*client)) else { continue };
        let mut answers: Option<Answer> = None;
        let (mut to, mut ports, mut asked) = (Vec::new(), Vec::new(), 0);
        let addresses = own.iter().filter(|to| to.zone == 0 && !to.address.is_loopback());
        for address in addresses.map(|to| to.address).filter(|to| Family::of(*to) == family).take(MOST) {
            for service in &services {
                asked += 1;
                let flow = Flow {
                    from: Some(address),
                    protocol: service.protocol.number(),
                    source_port: Fact::Known(service.port),
                    destination_port: Fact::Unknown,
                    user: service.user.map_or(Fact::Unknown, Fact::Known),
                    mark: Fact::Known(service.mark.unwrap_or(0)),
                    ..Flow::to(client)
                };
                let decision = fib.output(local, &flow);
                if refuses(&decision, net) {
                    answers.get_or_insert(Answer::of_decision(&decision));
                    to.push(address);
                    ports.push(service.port);
                }
            }
        }
        let Some(answer) = answers else { continue };
        if to.len() == asked {
            (to, ports) = (Vec::new(), Vec::new());
        }
        to.dedup();
        ports.sort_unstable();
        ports.dedup();
        if ports.len() == services.len() {
            ports.clear();
        }
        let name = |index: u32| Some(complete.interface(index)?.name.clone());
        found.push(Barred { clients: net, to, ports, answer: answer.named(name) });
    }
    found
}

/// Whether a rule or a route refuses to send, and does so because of the destination.
fn refuses(decision: &Decision<'_>, net: IpNet) -> bool {
    let Decision::Refused { rule, route, .. } = decision else { return false };
    let by_route = route.is_some_and(|route| route.destination == net);
    by_route || rule.is_some_and(|rule| rule.to == Some(net) && !rule.inverted)
}

/// The networks that a rule or a refusing route names, sorted.
fn networks(snapshot: &Snapshot) -> Vec<IpNet> {
    let refuse = [RouteKind::Blackhole, RouteKind::Unreachable, RouteKind::Prohibit];
    let routes = snapshot.routes.iter().filter(|route| refuse.contains(&route.kind));
    let rules = snapshot.rules.iter().filter_map(|rule| rule.to);
    let mut all: Vec<IpNet> = routes.map(|route| route.destination).chain(rules).collect();
    all.retain(|net| net.prefix_len() > 0 && !net.addr().is_multicast() && !net.addr().is_loopback());
    all.sort_unstable();
    all.dedup();
    all
}
