//! Coverage of each bind form on a host: the wildcards, loopback, and every address.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::exposure::{Exposer, Facts, is_usable};
use crate::model::addr::{self, needs_zone};
use crate::model::bind_forms::{Coverage, Reach};
use crate::model::{
    AddrClass, Exposure, Family, FamilyExposure, IfName, Interface, Protocol, RouteKind, Snapshot,
};

/// A bind form: a wildcard or one address, with its zone.
#[derive(Clone, Copy)]
struct Form<'a> {
    address: IpAddr,
    zone: Option<&'a Interface>,
    v6only: Option<bool>,
    wildcard: bool,
}

/// Every form, wildcards first, then the addresses in the order of the snapshot.
fn forms(snapshot: &Snapshot) -> impl Iterator<Item = Form<'_>> {
    let form = |address, v6only, wildcard| Form { address, zone: None, v6only, wildcard };
    let (wildcard4, wildcard6) = (Family::Ipv4.wildcard(), Family::Ipv6.wildcard());
    let (loopback4, loopback6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
    let fixed = [
        form(wildcard4, None, true),
        form(loopback4, None, false),
        form(wildcard6, Some(true), true),
        form(wildcard6, Some(false), true),
        form(loopback6, Some(true), false),
    ];
    let count = if snapshot.ipv6_available { fixed.len() } else { 2 };
    let own = snapshot
        .addresses()
        .filter(move |(_, own)| own.address != loopback4 && own.address != loopback6)
        .map(move |(interface, own)| Form {
            zone: needs_zone(own.address).then_some(interface),
            ..form(own.address, (own.family == Family::Ipv6).then_some(true), false)
        });
    fixed.into_iter().take(count).chain(own)
}

/// Passes on the spelling of each form of [`each_form`] and its IPV6_V6ONLY.
pub fn each_bind(snapshot: &Snapshot, mut each: impl FnMut(&str, Option<bool>)) {
    let mut bind = Vec::new();
    for form in forms(snapshot) {
        each(form.written(&mut bind), form.v6only);
    }
}

impl Form<'_> {
    fn written<'a>(&self, text: &'a mut Vec<u8>) -> &'a str {
        text.clear();
        addr::push_text(text, self.address, self.zone.map(|zone| &zone.name));
        std::str::from_utf8(text).unwrap_or_default()
    }
}

/// Passes on the coverage of every form: wildcards first, then the addresses in the order of the snapshot. Without
/// `why` only forms that no client can reach have reasons.
///
/// # Errors
/// An error of `each`.
pub fn each_form<E>(
    snapshot: &Snapshot,
    why: bool,
    mut each: impl FnMut(&Coverage<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let exposer = Exposer::new(snapshot);
    let mut texts = Vec::new();
    let mut ends = all(snapshot, Family::Ipv4, &mut texts);
    let count = ends.len();
    ends.append(&mut all(snapshot, Family::Ipv6, &mut texts));
    let mut start = 0;
    let cut = |end| std::str::from_utf8(&texts[std::mem::replace(&mut start, end)..end]).unwrap_or_default();
    let both: Vec<&str> = ends.into_iter().map(cut).collect();
    let (all4, all6) = both.split_at(count);
    let (mut bind, mut because) = (Vec::new(), Sentences::default());
    for form in forms(snapshot) {
        let Form { address, zone, v6only, wildcard } = form;
        let bind = form.written(&mut bind);
        because.count = 0;
        let facts = Facts {
            address,
            scope_id: zone.map(|zone| zone.index),
            device: zone.map(|zone| &zone.name),
            v6only,
            protocol: Protocol::Tcp,
        };
        let mut exposure = FamilyExposure::default();
        if !why {
            exposure = exposer.exposure(&facts);
        }
        if exposure == FamilyExposure::default() {
            exposure = exposer.explain_to(&facts, |_, sentence| because.push(sentence));
        }
        let reach = match exposure.widest() {
            Exposure::None => Reach::NoClient,
            Exposure::Loopback => Reach::ThisHost,
            _ if zone.is_some() => Reach::Link,
            // With route_localnet the link can reach loopback, over any interface that has the setting.
            _ => Reach::AnyInterface,
        };
        let itself = [bind];
        each(&Coverage {
            bind,
            family: Family::of(address),
            v6only,
            addresses: match (reach, wildcard, v6only) {
                (Reach::NoClient, ..) => &[],
                (_, false, _) => &itself,
                (_, true, None) => all4,
                (_, true, Some(true)) => all6,
                (_, true, Some(false)) => &both,
            },
            reach,
            interfaces: zone
                .filter(|_| reach == Reach::Link)
                .map_or(&[], |zone| std::slice::from_ref(&zone.name)),
            exposure,
            because: &because.texts[..because.count],
        })?;
    }
    Ok(())
}

/// Sentences whose memory is reused.
#[derive(Default)]
struct Sentences {
    texts: Vec<String>,
    count: usize,
}

impl Sentences {
    fn push(&mut self, sentence: fmt::Arguments<'_>) {
        if self.count == self.texts.len() {
            self.texts.push(String::new());
        }
        let text = &mut self.texts[self.count];
        text.clear();
        let _ = text.write_fmt(sentence);
        self.count += 1;
    }
}

/// Appends to `texts` every reachable address of a family, and the networks of local routes. Returns the end of each.
fn all(snapshot: &Snapshot, family: Family, texts: &mut Vec<u8>) -> Vec<usize> {
    let text = |(address, name): (IpAddr, &IfName)| addr::text(address, Some(name));
    let mut listed: Vec<(IpAddr, &IfName)> = snapshot
        .addresses()
        .filter(|(interface, address)| address.family == family && is_usable(interface, address))
        .map(|(interface, address)| (address.address, &interface.name))
        .collect();
    listed.sort_by(|one, other| one.0.cmp(&other.0).then_with(|| text(*one).cmp(&text(*other))));
    listed.dedup_by(|one, other| one.0 == other.0 && text(*one) == text(*other));
    let mut ends: Vec<usize> = Vec::with_capacity(listed.len());
    for (address, name) in listed {
        addr::push_text(texts, address, Some(name));
        ends.push(texts.len());
    }
    let routes = snapshot
        .routes
        .iter()
        .filter(|route| route.kind == RouteKind::Local && Family::of(route.destination.addr()) == family)
        // Every host has 127.0.0.0/8, so it is omitted.
        .filter(|route| AddrClass::of(route.destination.addr()) != AddrClass::Loopback);
    for route in routes {
        texts.extend_from_slice(route.destination.to_string().as_bytes());
        ends.push(texts.len());
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_host_covers_nothing() {
        let mut binds = Vec::new();
        let each = each_form(&Snapshot { ipv6_available: true, ..Snapshot::default() }, true, |form| {
            binds.push(form.bind.to_owned());
            if form.reach == Reach::NoClient && form.addresses.is_empty() {
                Ok(())
            } else {
                Err(binds.clone())
            }
        });
        assert_eq!(each, Ok(()));
        assert_eq!(binds, ["0.0.0.0", "127.0.0.1", "::", "::", "::1"]);
    }
}
