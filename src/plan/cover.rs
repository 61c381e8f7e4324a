//! What each form of bind would cover on a host: the wildcards, loopback, and every address.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::exposure::{Exposer, Facts, is_usable};
use crate::model::addr::{self, needs_zone};
use crate::model::coverage::{Coverage, Reach};
use crate::model::{AddrClass, Exposure, Family, IfName, Protocol, RouteKind, Snapshot};

/// Every form, wildcards first, then the addresses in the order of the snapshot.
#[must_use]
pub fn coverage(snapshot: &Snapshot) -> Vec<Coverage> {
    let mut forms = Vec::new();
    let Ok(()) = each_form(snapshot, |form| {
        forms.push(form);
        Ok::<(), Infallible>(())
    });
    forms
}

/// Hands out what [`coverage`] returns form by form, so that nobody needs to hold those of ten thousand addresses at once.
///
/// # Errors
/// What `each` returns ends it.
pub fn each_form<E>(snapshot: &Snapshot, mut each: impl FnMut(Coverage) -> Result<(), E>) -> Result<(), E> {
    let exposer = Exposer::new(snapshot);
    let all4 = all(snapshot, Family::Ipv4);
    let all6 = all(snapshot, Family::Ipv6);
    let both: Vec<String> = all4.iter().chain(&all6).cloned().collect();
    let loopback4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let loopback6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let text = |address: IpAddr| address.to_string();
    let wildcard4 = Family::Ipv4.wildcard();
    each(form(&exposer, wildcard4, text(wildcard4), None, None, all4))?;
    each(form(&exposer, loopback4, text(loopback4), None, None, vec![text(loopback4)]))?;
    if snapshot.ipv6_available {
        let wildcard6 = Family::Ipv6.wildcard();
        each(form(&exposer, wildcard6, text(wildcard6), None, Some(true), all6))?;
        each(form(&exposer, wildcard6, text(wildcard6), None, Some(false), both))?;
        each(form(&exposer, loopback6, text(loopback6), None, Some(true), vec![text(loopback6)]))?;
    }
    for (interface, address) in snapshot.addresses() {
        if address.address == loopback4 || address.address == loopback6 {
            continue;
        }
        let zone = needs_zone(address.address).then_some((&interface.name, interface.index));
        let text = addr::text(address.address, Some(&interface.name));
        let v6only = (address.family == Family::Ipv6).then_some(true);
        each(form(&exposer, address.address, text.clone(), zone, v6only, vec![text]))?;
    }
    Ok(())
}

/// `bind` is the form as it is written.
fn form(
    exposer: &Exposer<'_>,
    address: IpAddr,
    bind: String,
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
        bind,
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
