//! Clients whose packets arrive and that get no answer, because of the routes and policy rules of the host.

use std::net::IpAddr;

use super::answer::{Answer, Answering, NamedAnswer, Verdict};
use super::paths::{Back, HostView, Path};
use super::{destinations, sources, with_routes};
use crate::code::Code;
use crate::model::{Protocol, Snapshot, Source};
use crate::plan::fib::Fact;
use crate::plan::local_table::LocalAddresses;

/// How many addresses of the host are asked about.
const MOST_ADDRESSES: usize = 64;
/// How many sockets are asked about, where policy rules treat them differently.
const MOST_SOCKETS: usize = 64;

/// A socket as policy rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Its port.
    pub port: u16,
    /// The user who owns it; `None` when not known.
    pub user: Option<u32>,
    /// Its firewall mark; `None` when not known.
    pub mark: Option<u32>,
}

/// Clients of one source that get no answer, for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    /// The clients.
    pub source: Source,
    /// The addresses of the host that they connect to.
    pub to: Vec<IpAddr>,
    /// The sockets that do not answer; empty where no socket does.
    pub services: Vec<Service>,
    /// The rule that decides.
    pub why: Code,
    /// Where the answer goes.
    pub answer: NamedAnswer,
}

/// The clients on links and beyond their routers that get no answer from sockets without a device, by sources.
#[must_use]
pub fn unanswered(snapshot: &Snapshot, local: &LocalAddresses, services: &[Service]) -> Vec<Unanswered> {
    let complete = with_routes(snapshot);
    let view = HostView::new(&complete, local);
    let mut services: Vec<Service> =
        services.iter().copied().filter(|service| service.protocol == Protocol::Tcp).collect();
    services.sort_unstable();
    services.dedup();
    services.truncate(MOST_SOCKETS);
    let name = |index: u32| Some(complete.interface(index)?.name.clone());
    let addresses = destinations(snapshot, local);
    let mut found: Vec<Unanswered> = Vec::new();
    let mut add = |source: &Source, to: IpAddr, service: Option<Service>, why: Code, answer: Answer| {
        if ![Code::ANSWER_DIVERTED, Code::ANSWER_ELSEWHERE, Code::RP_FILTER].contains(&why) {
            return;
        }
        let answer = answer.named(name);
        let same = |one: &&mut Unanswered| one.source == *source && one.why == why && one.answer == answer;
        let one = match found.iter_mut().find(same) {
            Some(one) => one,
            None => {
                let (to, services) = (Vec::new(), Vec::new());
                found.push(Unanswered { source: source.clone(), to, services, why, answer });
                let Some(one) = found.last_mut() else { return };
                one
            }
        };
        if !one.to.contains(&to) {
            one.to.push(to);
        }
        if let Some(service) = service.filter(|service| !one.services.contains(service)) {
            one.services.push(service);
        }
    };
    for source in sources(snapshot).iter().filter(|source| **source != Source::Host) {
        for to in addresses.iter().filter(|to| !to.address.is_loopback()).take(MOST_ADDRESSES) {
            match view.path(source, *to) {
                Some(Path::Dropped(why, answer) | Path::Unresolved(why, Some(answer))) => {
                    add(source, to.address, None, why, answer);
                }
                Some(Path::Arrives(arriving)) => match arriving.back {
                    Back::Same { plain: Verdict::Lost(why, answer), .. } => {
                        add(source, to.address, None, why, answer);
                    }
                    Back::Each(question) => {
                        for service in &services {
                            let Service { protocol, port, user, mark: socket_mark } = *service;
                            let user = user.map_or(Fact::Unknown, Fact::Known);
                            let answering = Answering {
                                protocol,
                                port,
                                user,
                                accepts: true,
                                socket_mark,
                                ..Answering::KERNEL
                            };
                            let verdict = match view.accepts_source(&question, Some(&answering)) {
                                Verdict::Arrives => view.answer(&question, &answering),
                                other => other,
                            };
                            if let Verdict::Lost(why, answer) = verdict {
                                add(source, to.address, Some(*service), why, answer);
                            }
                        }
                    }
                    _ => {}
                },
                _ => {}
            }
        }
    }
    // What is so on the link is so beyond it.
    let on_link: Vec<Unanswered> =
        found.iter().filter(|one| matches!(one.source, Source::Link(_))).cloned().collect();
    found.retain(|one| match &one.source {
        Source::Beyond(name) => !on_link.iter().any(|other| {
            other.source == Source::Link(name.clone()) && (other.why, &other.answer) == (one.why, &one.answer)
        }),
        _ => true,
    });
    found
}
