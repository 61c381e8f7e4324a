//! `--steps` of `plan` and `why`: the path of one connection.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Exit, Failure};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::model::addr::needs_zone;
use crate::model::{Document, HostReport, IfName, Outcome, Protocol, Schema, Snapshot, SocketSpec, Source};
use crate::plan::bind_check::Rights;
use crate::plan::local_table::LocalAddresses;
use crate::plan::predict::{Foreign, Holder, predict_binds};
use crate::plan::reach::Destination;
use crate::plan::reach::steps::{NoPath, steps};
use crate::report::steps::PathReport;

/// A connection to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Who connects.
    pub source: Source,
    /// The destination.
    pub to: Destination,
    /// As it was written.
    pub destination: String,
    /// Protocol and port.
    pub service: (Protocol, u16),
}

impl Question {
    /// Reads SOURCE DESTINATION PORT.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn parse(words: &[String], snapshot: &Snapshot) -> Result<Question, Failure> {
        let mut problems = Vec::new();
        let mut wrong = |message: String, help: &str| {
            problems.push(Diagnostic::error(Code::BAD_ADDRESS, message).help(help.to_owned()));
        };
        let [from, to, port] = words else {
            let message = "--steps takes a source, a destination and a port";
            let problem = Diagnostic::error(Code::COMMAND_LINE, message);
            return Err(Failure::usage(vec![problem.help("such as --steps link:eth0 192.0.2.10 22")]));
        };
        let shown = crate::escape::escape;
        let mut source = source(from);
        if source.is_none() {
            let message = format!("{} is not a source", shown(from));
            wrong(
                message,
                "sources are host, link:eth0, \"link:eth0 beyond\" and \"link:eth0 from 10.0.0.0/8\"",
            );
        }
        let link = match &mut source {
            Some(Source::Link(name) | Source::Beyond(name) | Source::From(name, _)) => {
                // Results have the name of an interface, not an alternative one.
                if let Some(interface) = snapshot.interface_named(name) {
                    name.clone_from(&interface.name);
                }
                Some(name.clone())
            }
            _ => None,
        };
        if let Some(name) = link.as_ref().filter(|name| snapshot.interface_named(name).is_none()) {
            wrong(format!("no interface is called {name}"), "`bindscope interfaces` lists them");
        }
        let (bare, zone) = to.split_once('%').map_or((to.as_str(), None), |(bare, zone)| (bare, Some(zone)));
        let address: Option<IpAddr> = bare.trim_matches(['[', ']']).parse().ok();
        if address.is_none() {
            let message = format!("{} is not an address", shown(to));
            wrong(message, "write an address of the host without a port");
        }
        let zone = match (zone, address.filter(|address| needs_zone(*address))) {
            (None, None) => Some(0),
            (Some(name), Some(_)) => {
                snapshot.interface_named(&IfName::from_escaped(name)).map(|interface| interface.index)
            }
            (None, Some(_)) => link.and_then(|name| Some(snapshot.interface_named(&name)?.index)),
            (Some(_), None) => None,
        };
        if zone.is_none() && address.is_some() {
            let message = format!("the zone of {} is not an interface of the host", shown(to));
            wrong(
                message,
                "a link-local address has a zone, such as fe80::1%eth0, and no other address has one",
            );
        }
        let (protocol, number) =
            match port.split_once(':').or_else(|| port.split_once('/').map(|(a, b)| (b, a))) {
                Some(("udp", number)) => (Protocol::Udp, number),
                Some(("tcp", number)) => (Protocol::Tcp, number),
                _ => (Protocol::Tcp, port.as_str()),
            };
        let number: Option<u16> = number.parse().ok().filter(|number| *number != 0);
        if number.is_none() {
            wrong(format!("{} is not a port", shown(port)), "write 22, tcp:22 or udp:53");
        }
        match (source, address, zone, number) {
            (Some(source), Some(address), Some(zone), Some(number)) if problems.is_empty() => Ok(Question {
                source,
                to: Destination { address, zone },
                destination: to.clone(),
                service: (protocol, number),
            }),
            _ => Err(Failure::usage(problems)),
        }
    }

    /// Follows it on a host with these sockets.
    ///
    /// # Errors
    /// Exit 2 where the source cannot send to the destination.
    pub fn follow(
        self,
        snapshot: &Snapshot,
        sockets: &[SocketSpec],
        foreign: &[Foreign],
        rights: Rights,
    ) -> Result<PathReport, Failure> {
        let Question { source, to, destination, service } = self;
        let of_port = |socket: &&Foreign| (socket.view.protocol, socket.view.port) == service;
        let foreign: Vec<Foreign> = foreign.iter().filter(of_port).cloned().collect();
        let binds = predict_binds(sockets, snapshot, rights, &foreign);
        let name = |holder: Holder| match holder {
            Holder::Own(index) => sockets.get(index).map_or_else(String::new, |spec| {
                format!("{} ({})", spec.listener, spec.view(Default::default()))
            }),
            Holder::Foreign(index) => {
                foreign.get(index).map_or_else(String::new, |socket| socket.name.clone())
            }
        };
        let local = LocalAddresses::new(snapshot);
        match steps(&binds, snapshot, &local, (&source, to), service, &name) {
            Ok(path) => Ok(PathReport::new(source, destination, service, path)),
            Err(why) => {
                let (message, help) = match why {
                    NoPath::CannotSend => (
                        format!("{source} cannot send to {}", crate::escape::escape(&destination)),
                        "no router forwards packets to loopback and link-local addresses, the families must be the same, and beyond a link without a router there is no client",
                    ),
                    NoPath::NoClient => (
                        format!("there is no client {source}"),
                        "every address of the network is one of this host",
                    ),
                };
                Err(Failure::usage(vec![Diagnostic::error(Code::BAD_ADDRESS, message).help(help)]))
            }
        }
    }
}

/// The document.
#[must_use]
pub fn json(snapshot: &Snapshot, report: &PathReport) -> String {
    let because = snapshot.incomplete_because.clone();
    let report = HostReport::new(snapshot.host.clone(), because, report);
    serde_json::to_string_pretty(&Document::new(Schema::Steps, report)).unwrap_or_default() + "\n"
}

/// How it ends: undecided where the outcome is not known.
#[must_use]
pub fn exit(outcome: Option<Outcome>) -> Exit {
    if outcome.is_some() { Exit::Success } else { Exit::Undecided }
}

/// A source as results name it. A client's address alone is a network of one.
fn source(text: &str) -> Option<Source> {
    let (link, rest) =
        text.strip_prefix("link:").map(|rest| rest.split_once(' ').unwrap_or((rest, ""))).unzip();
    match (text, link, rest) {
        ("host", ..) => Some(Source::Host),
        (_, Some(name), Some("")) if !name.is_empty() => Some(Source::Link(IfName::from_escaped(name))),
        (_, Some(name), Some("beyond")) => Some(Source::Beyond(IfName::from_escaped(name))),
        (_, Some(name), Some(rest)) => {
            let network = rest.strip_prefix("from ")?;
            let network = match network.parse::<IpAddr>() {
                Ok(address) => IpNet::from(address),
                Err(_) => network.parse::<IpNet>().ok()?.trunc(),
            };
            Some(Source::From(IfName::from_escaped(name), network))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_as_they_are_shown() {
        for text in [
            "host",
            "link:eth0",
            "link:eth0 beyond",
            "link:eth0 from 10.0.0.0/8",
            "link:br-1 from 2001:db8::/32",
        ] {
            assert_eq!(source(text).map(|source| source.to_string()).as_deref(), Some(text));
        }
        assert_eq!(
            source("link:eth0 from 10.0.0.7").map(|one| one.to_string()).as_deref(),
            Some("link:eth0 from 10.0.0.7/32")
        );
        for text in ["", "eth0", "link:", "link:eth0 from", "link:eth0 from x", "node:a", "others"] {
            assert_eq!(source(text), None, "{text}");
        }
    }
}
