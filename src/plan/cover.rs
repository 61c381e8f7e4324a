//! What each form of bind would cover on a host: the wildcards, loopback, and every address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::exposure::{Exposer, Facts, is_usable};
use crate::model::addr::{self, needs_zone};
use crate::model::coverage::{Coverage, Reach};
use crate::model::{AddrClass, Exposure, Family, IfName, Protocol, RouteKind, Snapshot};

/// Every form, wildcards first, then the addresses in the order of the snapshot.
#[must_use]
pub fn coverage(snapshot: &Snapshot) -> Vec<Coverage> {
    let exposer = Exposer::new(snapshot);
    let all4 = all(snapshot, Family::Ipv4);
    let all6 = all(snapshot, Family::Ipv6);
    let both: Vec<String> = all4.iter().chain(&all6).cloned().collect();
    let loopback4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let loopback6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let mut forms = vec![
        form(&exposer, Family::Ipv4.wildcard(), None, None, all4),
        form(&exposer, loopback4, None, None, vec![loopback4.to_string()]),
    ];
    if snapshot.ipv6_available {
        forms.push(form(&exposer, Family::Ipv6.wildcard(), None, Some(true), all6));
        forms.push(form(&exposer, Family::Ipv6.wildcard(), None, Some(false), both));
        forms.push(form(&exposer, loopback6, None, Some(true), vec![loopback6.to_string()]));
    }
    for (interface, address) in snapshot.addresses() {
        if address.address == loopback4 || address.address == loopback6 {
            continue;
        }
        let zone = needs_zone(address.address).then_some((&interface.name, interface.index));
        let text = addr::text(address.address, Some(&interface.name));
        let v6only = (address.family == Family::Ipv6).then_some(true);
        forms.push(form(&exposer, address.address, zone, v6only, vec![text]));
    }
    forms
}

fn form(
    exposer: &Exposer<'_>,
    address: IpAddr,
    zone: Option<(&IfName, u32)>,
    v6only: Option<bool>,
    addresses: Vec<String>,
) -> Coverage {
    let facts = Facts {
        address,
        scope_id: zone.map(|zone| zone.1),
        device: zone.map(|zone| zone.0),
        v6only,
        protocol: Protocol::Tcp,
    };
    let (exposure, reasons) = exposer.explain(&facts);
    let reach = match exposure.widest() {
        Exposure::None => Reach::Nobody,
        Exposure::Loopback => Reach::ThisHost,
        _ if zone.is_some() => Reach::Link,
        // With route_localnet the link reaches loopback, through whatever interface has it on.
        _ => Reach::AnyInterface,
    };
    Coverage {
        bind: addr::text(address, zone.map(|zone| zone.0)),
        family: Family::of(address),
        v6only,
        addresses: if reach == Reach::Nobody { Vec::new() } else { addresses },
        reach,
        interfaces: zone.filter(|_| reach == Reach::Link).map(|zone| zone.0.clone()).into_iter().collect(),
        exposure,
        because: reasons.into_iter().map(|reason| reason.text).collect(),
    }
}

/// Every address of a family that can be reached now, and the networks of local routes.
fn all(snapshot: &Snapshot, family: Family) -> Vec<String> {
    let mut listed: Vec<(IpAddr, String)> = snapshot
        .addresses()
        .filter(|(interface, address)| address.family == family && is_usable(interface, address))
        .map(|(interface, address)| (address.address, addr::text(address.address, Some(&interface.name))))
        .collect();
    listed.sort();
    listed.dedup();
    let routes = snapshot
        .routes
        .iter()
        .filter(|route| route.kind == RouteKind::Local && Family::of(route.destination.addr()) == family)
        // 127.0.0.0/8 is on every host and says nothing.
        .filter(|route| AddrClass::of(route.destination.addr()) != AddrClass::Loopback)
        .map(|route| route.destination.to_string());
    listed.into_iter().map(|(_, text)| text).chain(routes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_host_covers_nothing() {
        let forms = coverage(&Snapshot { ipv6_available: true, ..Snapshot::default() });
        assert_eq!(
            forms.iter().map(|form| form.bind.as_str()).collect::<Vec<_>>(),
            ["0.0.0.0", "127.0.0.1", "::", "::", "::1"]
        );
        assert!(
            forms.iter().all(|form| form.reach == Reach::Nobody && form.addresses.is_empty()),
            "{forms:?}"
        );
    }
}
