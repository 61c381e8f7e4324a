//! Parsing of destinations: an address, a network, or an interface name of this host. Addresses of other hosts are
//! refused.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::local_table::LocalAddresses;
use super::reach::{self, Destination};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::model::addr::needs_zone;
use crate::model::{IfName, Snapshot};

/// The destinations for `texts` on the host of `snapshot`, sorted.
///
/// # Errors
/// A problem for each text without an address of this host.
pub fn chosen(texts: &[String], snapshot: &Snapshot) -> Result<Vec<Destination>, Vec<Diagnostic>> {
    let local = LocalAddresses::new(snapshot);
    let all = reach::destinations(snapshot, &local);
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for text in texts {
        match one(text, snapshot, &local, &all) {
            Ok(destinations) => found.extend(destinations),
            Err(problem) => problems.push(problem),
        }
    }
    found.sort_unstable();
    found.dedup();
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

fn one(
    text: &str,
    snapshot: &Snapshot,
    local: &LocalAddresses,
    all: &[Destination],
) -> Result<Vec<Destination>, Diagnostic> {
    let elsewhere = |what: String| {
        Diagnostic::error(Code::DESTINATION_NOT_HERE, what)
            .help("only this host's own addresses are connected to; `bindscope interfaces` shows them")
    };
    if let Ok(net) = text.parse::<IpNet>() {
        let within: Vec<_> = all.iter().copied().filter(|to| net.contains(&to.address)).collect();
        return if within.is_empty() {
            Err(elsewhere(format!("no address of this host is in {net}")))
        } else {
            Ok(within)
        };
    }
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return of_interface(text, snapshot, all);
    };
    let zone = match zone {
        Some(zone) => Some(zone_of(zone, snapshot)?),
        None => None,
    };
    let to = match address {
        IpAddr::V6(v6) if needs_zone(address) => zoned(v6, zone, snapshot, all)?,
        _ => Destination { address, zone: 0 },
    };
    // As destinations, the wildcards mean the host itself.
    let here = address.to_canonical().is_unspecified()
        || local.owner(address, (to.zone != 0).then_some(to.zone)).is_some();
    if here { Ok(vec![to]) } else { Err(elsewhere(format!("{text} is not an address of this host"))) }
}

/// The index of a zone: interface names take precedence over indexes.
fn zone_of(zone: &str, snapshot: &Snapshot) -> Result<u32, Diagnostic> {
    let named = snapshot.interface_named(&IfName::from_escaped(zone));
    let index = || snapshot.interface(zone.parse().ok()?);
    named.or_else(index).map(|interface| interface.index).ok_or_else(|| no_interface(zone))
}

const HELP: &str = "write an address, a network such as 192.0.2.0/24, or the name of an interface";

fn no_interface(name: &str) -> Diagnostic {
    Diagnostic::error(Code::NO_SUCH_DEVICE, format!("there is no interface {name} here")).help(HELP)
}

/// A link-local address; the zone is optional if only one interface has the address.
fn zoned(
    address: Ipv6Addr,
    zone: Option<u32>,
    snapshot: &Snapshot,
    all: &[Destination],
) -> Result<Destination, Diagnostic> {
    let address = IpAddr::V6(address);
    if let Some(zone) = zone {
        return Ok(Destination { address, zone });
    }
    let mut owners = all.iter().filter(|to| to.address == address);
    match (owners.next(), owners.next()) {
        (Some(first), Some(second)) => {
            let name = |to: &Destination| {
                snapshot.interface(to.zone).map(|i| i.name.to_string()).unwrap_or_default()
            };
            let message = format!("{address} is an address of {} and of {}", name(first), name(second));
            Err(Diagnostic::error(Code::BAD_ZONE, message)
                .help(format!("add the zone: {address}%{}", name(first))))
        }
        (Some(only), None) => Ok(*only),
        _ => Ok(Destination { address, zone: 0 }),
    }
}

/// Whether the text looks like an address or a network. No interface name contains `/` or `:` (`dev_valid_name()` of
/// `net/core/dev.c`).
fn looks_like_an_address(text: &str) -> bool {
    text.contains(['/', ':']) || text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

fn of_interface(
    name: &str,
    snapshot: &Snapshot,
    all: &[Destination],
) -> Result<Vec<Destination>, Diagnostic> {
    let Some(interface) = snapshot.interface_named(&IfName::from_escaped(name)) else {
        let code =
            if looks_like_an_address(name) { Code::DESTINATION_NOT_HERE } else { Code::NO_SUCH_DEVICE };
        let message = format!("{name:?} is neither an address, nor a network, nor an interface here");
        return Err(Diagnostic::error(code, message).help(HELP));
    };
    let own: HashSet<IpAddr> = interface.addresses.iter().map(|address| address.address).collect();
    let has = |to: &Destination| own.contains(&to.address) && (to.zone == 0 || to.zone == interface.index);
    let found: Vec<_> = all.iter().copied().filter(has).collect();
    if found.is_empty() {
        let message = format!("interface {name} has no address that can be connected to");
        return Err(Diagnostic::error(Code::DESTINATION_NOT_HERE, message));
    }
    Ok(found)
}
