//! Ports that address translation publishes: packets to them are sent on before any socket of this host is asked.

use serde::Serialize;

use super::{Finding, Site};
use crate::code::Code;
use crate::diag::Severity;
use crate::model::ruleset::NftFamily;
use crate::model::{Decider, Exposure, Family, FamilyExposure, ListeningSocket, Protocol};
use crate::plan::exposure::{Exposer, Facts};
use crate::plan::filter::Filters;
use crate::plan::filter::published::{self, Published as Rule};

/// `NF_INET_LOCAL_IN`.
const INPUT: u32 = 1;

/// A port that a rule publishes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Published {
    /// Inode of the network namespace; null when it cannot be read.
    pub netns: Option<u64>,
    /// The protocol; null for every one.
    pub protocol: Option<Protocol>,
    /// The first and the last port; null for every one.
    pub ports: Option<(u16, u16)>,
    /// The addresses of this host that it is for, as a network; null for all.
    pub address: Option<ipnet::IpNet>,
    /// Where the packets are sent: an address, or null for this host itself.
    pub to: Option<std::net::IpAddr>,
    /// The port there; null for the same one.
    pub to_port: Option<u16>,
    /// Interfaces on which packets must arrive, or must not arrive when the second value is true.
    pub interfaces: Vec<(String, bool)>,
    /// The rule.
    pub by: Decider,
    /// From where clients reach it, by the addresses alone, as for a socket.
    pub exposure: FamilyExposure,
    /// Whether a socket of this host has the port as well: its connections from outside go elsewhere.
    pub socket: bool,
    /// Whether there are rules of `input` for this host's sockets, which packets to this port never pass.
    pub bypasses_input: bool,
}

impl Published {
    /// The port, where it leads, by which rule, and whether rules of `input` are bypassed. Unescaped.
    #[must_use]
    pub fn words(&self) -> String {
        let kind = if self.to.is_some() { "DNAT" } else { "redirect" };
        let bypasses = if self.bypasses_input { "; bypasses the INPUT rules" } else { "" };
        format!("{}, {kind} ({}){bypasses}", self.summary(), self.by.place())
    }

    /// The families in which clients reach it, with how widely: `IPv4 private networks, IPv6 anywhere`.
    #[must_use]
    pub fn exposure_words(&self) -> String {
        let families = [(Family::Ipv4, self.exposure.ipv4), (Family::Ipv6, self.exposure.ipv6)];
        let open = families.iter().filter(|(_, exposure)| *exposure > Exposure::None);
        open.map(|(family, exposure)| format!("{family} {}", exposure.words())).collect::<Vec<_>>().join(", ")
    }

    /// The port and where it leads: `5432 -> 172.17.0.2:5432`.
    #[must_use]
    pub fn summary(&self) -> String {
        let port = match self.ports {
            None => "every port".to_owned(),
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
        };
        let at = self.address.map_or_else(String::new, |network| {
            match network.prefix_len() == network.max_prefix_len() {
                true => format!("{}:", crate::model::addr::text(network.addr(), None)),
                false => format!("{network}:"),
            }
        });
        let to_port = self.to_port.map_or_else(String::new, |port| format!(":{port}"));
        let to = match self.to {
            None => format!("this host{to_port}"),
            Some(std::net::IpAddr::V6(v6)) if self.to_port.is_some() => format!("[{v6}]{to_port}"),
            Some(address) => format!("{address}{to_port}"),
        };
        format!("{at}{port} -> {to}")
    }
}

/// What the rules of a site publish, and what is remarkable about it. Indexes of published ports start at `first`.
pub(super) fn of(site: &Site, first: usize, findings: &mut Vec<Finding>) -> Vec<Published> {
    let Some(filters) = &site.host.packet_filters else { return Vec::new() };
    if let Some(because) = &filters.unknown_because {
        findings.push(unreadable(because));
    }
    let Some(ruleset) = filters.ruleset.as_ref().filter(|ruleset| !ruleset.is_empty()) else {
        return Vec::new();
    };
    let decoded = match Filters::decode(ruleset) {
        Ok(decoded) => decoded,
        Err(error) => {
            findings.push(unreadable(&error.to_string()));
            return Vec::new();
        }
    };
    let exposer = Exposer::new(&site.host);
    let netns = site.namespace.inode;
    let list = published::published(&decoded);
    let mut all: Vec<Published> = list
        .into_iter()
        .map(|rule| {
            let exposure = exposure(&rule, &decoded, &exposer);
            let by = rule.by(&decoded);
            let Rule { protocol, ports, address, to, to_port, interfaces, .. } = rule;
            let socket = site.sockets.iter().any(|socket| serves(socket, protocol, ports, address));
            let bypasses_input = false;
            Published {
                netns,
                protocol,
                ports,
                address,
                to,
                to_port,
                interfaces,
                by,
                exposure,
                socket,
                bypasses_input,
            }
        })
        .collect();
    // A rule for loopback or for no address of this host publishes nothing.
    all.retain(|one| one.exposure.widest() > Exposure::Loopback);
    for (number, one) in all.iter_mut().enumerate() {
        let bypasses = passes_input(one, &decoded);
        one.bypasses_input = bypasses.is_some();
        let all = [Some(finding(one)), bypasses].into_iter().flatten();
        findings.extend(all.map(|finding| finding.about_published(first + number)));
    }
    all
}

fn unreadable(because: &str) -> Finding {
    let message = format!("the rules of packet filters and address translation could not be read: {because}");
    Finding::new(Code::FILTERS_UNREADABLE, Severity::Note, None, message)
        .help(
            "run `sudo bindscope interfaces --json > host.json`, then `bindscope audit --host host.json` and `bindscope lab run --twin host.json` as yourself",
        )
}

/// Whether a socket has one of the ports at one of the addresses.
fn serves(
    socket: &ListeningSocket,
    protocol: Option<Protocol>,
    ports: Option<(u16, u16)>,
    address: Option<ipnet::IpNet>,
) -> bool {
    let view = &socket.view;
    let bound = view.address.to_canonical();
    protocol.is_none_or(|protocol| protocol == view.protocol)
        && ports.is_none_or(|(first, last)| (first..=last).contains(&view.port))
        && (bound.is_unspecified() || address.is_none_or(|network| network.contains(&bound)))
        && !bound.is_loopback()
}

/// From where clients reach a published port: as a socket that is bound to its address, in the families of the rule's table.
fn exposure(rule: &Rule, filters: &Filters, exposer: &Exposer<'_>) -> FamilyExposure {
    let table = filters.chains.get(rule.rule.0).and_then(|chain| filters.tables.get(chain.table));
    let of_table = |family| match table.map(|table| table.family) {
        Some(NftFamily::Ip) => family == Family::Ipv4,
        Some(NftFamily::Ip6) => family == Family::Ipv6,
        _ => true,
    };
    let of_target = |family| rule.to.is_none_or(|to| Family::of(to) == family);
    let mut all = FamilyExposure::default();
    for family in Family::BOTH.into_iter().filter(|family| of_table(*family) && of_target(*family)) {
        let address = match rule.address {
            Some(network) if Family::of(network.addr()) != family => continue,
            Some(network) if network.prefix_len() == network.max_prefix_len() => network.addr(),
            _ if family == Family::Ipv4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
            _ => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let protocol = rule.protocol.unwrap_or(Protocol::Tcp);
        let facts = Facts { address, scope_id: None, device: None, v6only: Some(true), protocol };
        let found = exposer.exposure(&facts);
        match family {
            Family::Ipv4 => all.ipv4 = found.ipv4,
            Family::Ipv6 => all.ipv6 = found.ipv6,
        }
    }
    all
}

fn finding(one: &Published) -> Finding {
    let protocol = one.protocol.map_or_else(String::new, |protocol| format!("{protocol} "));
    let socket = if one.socket {
        "; a socket here has the port, and clients from outside do not reach it"
    } else {
        "; no socket here has the port"
    };
    let arrives: Vec<String> = one
        .interfaces
        .iter()
        .map(|(name, not)| format!("; packets that {}arrive on {name}", if *not { "do not " } else { "" }))
        .collect();
    let message = format!("{protocol}{}{}{socket}", one.words(), arrives.concat());
    Finding::new(Code::PUBLISHED, Severity::Warning, None, message)
        .help("publish on 127.0.0.1 only (docker run -p 127.0.0.1:PORT:PORT), or filter in the chain `forward` (DOCKER-USER)")
}

/// A published port that is sent to another host never passes the rules of `input`, which people write for their sockets.
fn passes_input(one: &Published, filters: &Filters) -> Option<Finding> {
    one.to?;
    let family = |family: NftFamily| match family {
        NftFamily::Ip => one.exposure.ipv4 > Exposure::None,
        NftFamily::Ip6 => one.exposure.ipv6 > Exposure::None,
        NftFamily::Inet => true,
        _ => false,
    };
    let chain = filters.chains.iter().find(|chain| {
        let table = &filters.tables[chain.table];
        let input = chain.base.as_ref().filter(|base| base.kind == "filter" && base.hook == INPUT);
        input.is_some_and(|base| base.drops || !chain.rules.is_empty())
            && family(table.family)
            && !table.dormant
    })?;
    let table = &filters.tables[chain.table];
    let message = format!(
        "{} is translated before the rules of {} {} {}, which never see its packets",
        one.summary(),
        table.family.name(),
        table.name,
        chain.name
    );
    let help = "the rules of the hook `forward` decide about it: for Docker, the chain DOCKER-USER";
    Some(Finding::new(Code::PASSES_INPUT, Severity::Warning, None, message).help(help))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ruleset::NftFamily;

    fn published(address: Option<&str>, to: Option<&str>, to_port: Option<u16>) -> Published {
        Published {
            netns: None,
            protocol: Some(Protocol::Tcp),
            ports: Some((5432, 5432)),
            address: address.map(|text| text.parse().unwrap()),
            to: to.map(|text| text.parse().unwrap()),
            to_port,
            interfaces: vec![("docker0".to_owned(), true)],
            by: Decider {
                family: NftFamily::Ip,
                table: "nat".to_owned(),
                chain: "DOCKER".to_owned(),
                rule: Some(2),
                handle: Some(9),
                text: "dnat".to_owned(),
            },
            exposure: FamilyExposure { ipv4: Exposure::Private, ipv6: Exposure::None },
            socket: false,
            bypasses_input: false,
        }
    }

    #[test]
    fn a_published_port_names_its_target_and_its_rule() {
        for (address, to, to_port, expected) in [
            (None, Some("172.17.0.2"), Some(5432), "5432 -> 172.17.0.2:5432"),
            (None, Some("fd00::2"), Some(80), "5432 -> [fd00::2]:80"),
            (Some("10.0.0.5/32"), Some("172.17.0.2"), None, "10.0.0.5:5432 -> 172.17.0.2"),
            (Some("10.0.0.0/8"), None, Some(8080), "10.0.0.0/8:5432 -> this host:8080"),
        ] {
            let one = published(address, to, to_port);
            assert_eq!(one.summary(), expected);
            let message = finding(&one).message;
            assert!(
                message.contains("DNAT (ip nat DOCKER rule 2); packets that do not arrive on docker0")
                    || to.is_none(),
                "{message}"
            );
        }
    }
}
