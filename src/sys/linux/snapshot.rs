//! The current network of the host, from rtnetlink(7) and `/proc/sys/net`.

use std::collections::BTreeMap;
use std::io::{self, Read as _};

use super::implied::{Implied, unsupported_of_link, unsupported_of_route};
use super::netlink::{Netlink, Refusal, Service};
use super::nexthops;
use super::rtnetlink as decode;
use crate::model::{AddrState, Family, Host, Interface, Route, Rule, Snapshot};
use crate::sys::host_id::host_id;
use crate::sys::{Error, getifaddrs};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWRULE: u16 = 32;
const RTM_GETRULE: u16 = 34;

/// Settings of the namespace (`Documentation/networking/ip-sysctl.rst`). A per-interface setting takes effect together with
/// its `all`: `rp_filter` and `arp_ignore` as the larger of the two, `route_localnet`, `arp_filter` and `disable_ipv6`
/// if either is set, `accept_local` likewise; `forwarding` by the interface's alone.
const SETTINGS: &[&str] = &[
    "net.core.somaxconn",
    "net.ipv4.conf.all.accept_local",
    "net.ipv4.conf.all.arp_filter",
    "net.ipv4.conf.all.arp_ignore",
    "net.ipv4.conf.all.forwarding",
    "net.ipv4.conf.all.route_localnet",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.all.src_valid_mark",
    "net.ipv4.fwmark_reflect",
    "net.ipv4.ip_nonlocal_bind",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_fwmark_accept",
    "net.ipv4.tcp_l3mdev_accept",
    "net.ipv4.udp_l3mdev_accept",
    "net.ipv6.bindv6only",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.conf.default.disable_ipv6",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.all.proxy_ndp",
    "net.ipv6.ip_nonlocal_bind",
];

/// Interfaces, addresses, routes, rules and settings of the calling thread's network namespace.
/// [`Snapshot::disagreements`] is empty: see [`crate::sys::listed_addresses`] for the comparison.
///
/// # Errors
/// If nothing could be read. A partial result has [`Snapshot::complete`] false.
pub fn snapshot() -> Result<Snapshot, Error> {
    take(true)
}

/// Only the interfaces and addresses of [`snapshot`], without routes, rules and settings, which take longer to read
/// with thousands of addresses.
///
/// # Errors
/// Those of [`snapshot`].
pub fn addresses() -> Result<Snapshot, Error> {
    take(false)
}

fn take(all: bool) -> Result<Snapshot, Error> {
    let mut gaps = Vec::new();
    // Read from /proc, because reading a snapshot must not create sockets of these families. Without /proc, IPv6 is
    // assumed to be available.
    let proc_net = std::path::Path::new("/proc/thread-self/net");
    let ipv6_available = proc_net.join("if_inet6").exists() || !proc_net.exists();
    let mut snapshot = Snapshot { host: host(), ipv6_available, ..Snapshot::default() };
    if all {
        snapshot.settings = settings(&mut gaps);
    }
    match Netlink::open(Service::Route).map_err(Refusal::from).and_then(|mut netlink| {
        let found = interfaces(&mut netlink, &mut gaps)?;
        Ok((netlink, found))
    }) {
        Ok((mut netlink, (interfaces, unsupported))) => {
            snapshot.interfaces = interfaces;
            if all {
                snapshot.unsupported = unsupported;
                routes(&mut netlink, &mut snapshot, &mut gaps);
                (snapshot.rules, snapshot.missing_default_rules) =
                    rules(&mut netlink, ipv6_available, &mut gaps);
            }
        }
        Err(refusal) => {
            gaps.push(format!(
                "rtnetlink cannot be used: {refusal}; the interfaces are from getifaddrs(3), without routes, rules, address states and interfaces that have no address"
            ));
            snapshot.interfaces = getifaddrs::interfaces()
                .map_err(|error| Error::call("list", "the network interfaces", error))?;
        }
    }
    snapshot.complete = gaps.is_empty();
    snapshot.incomplete_because = gaps;
    Ok(snapshot)
}

/// Identification of the host.
pub(super) fn host() -> Host {
    use std::os::unix::fs::MetadataExt as _;
    let read = |name| Some(setting(&format!("/proc/sys/kernel/{name}")).ok()?.trim().to_owned());
    let name = getifaddrs::host_name();
    Host {
        id: host_id(name.as_deref()),
        name,
        system: "linux".to_owned(),
        release: read("osrelease"),
        build: read("version"),
        netns: std::fs::metadata("/proc/thread-self/ns/net").ok().map(|metadata| metadata.ino()),
    }
}

/// The text of a setting, which fits into one read.
fn setting(path: &str) -> io::Result<String> {
    let mut text = [0; 128];
    let length = std::fs::File::open(path)?.read(&mut text)?;
    Ok(String::from_utf8_lossy(&text[..length]).into_owned())
}

/// Reads `/proc/sys`, whose `net` belongs to the calling thread's namespace. A missing file is a setting that this
/// kernel does not have (l3mdev and IPv6 are build options), which does not make the snapshot incomplete.
fn settings(gaps: &mut Vec<String>) -> BTreeMap<String, i64> {
    let mut settings = BTreeMap::new();
    if !std::path::Path::new("/proc/sys/net").exists() {
        gaps.push("/proc/sys/net is missing: the settings of the network are unknown".to_owned());
        return settings;
    }
    let mut read = |name: &str| -> Option<String> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        match setting(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                gaps.push(format!("cannot read {path}: {error}"));
                None
            }
        }
    };
    for name in SETTINGS {
        if let Some(value) = read(name).and_then(|text| text.trim().parse().ok()) {
            settings.insert((*name).to_owned(), value);
        }
    }
    if let Some(range) = read("net.ipv4.ip_local_port_range") {
        let mut values = range.split_whitespace().map_while(|value| value.parse().ok());
        if let (Some(low), Some(high)) = (values.next(), values.next()) {
            settings.insert("net.ipv4.ip_local_port_range.low".to_owned(), low);
            settings.insert("net.ipv4.ip_local_port_range.high".to_owned(), high);
        }
    }
    settings
}

/// The interfaces, and their features that cannot be represented.
fn interfaces(
    netlink: &mut Netlink,
    gaps: &mut Vec<String>,
) -> Result<(Vec<Interface>, Vec<String>), Refusal> {
    let mut unsupported = Vec::new();
    let links = netlink.dump(RTM_GETLINK, &decode::link_request())?;
    note_changes(links.consistent, "interfaces", gaps);
    let mut by_index: BTreeMap<u32, Interface> = BTreeMap::new();
    for (_, payload) in links.messages().filter(|(kind, _)| *kind == RTM_NEWLINK) {
        match decode::link(payload) {
            Some(interface) => {
                unsupported.append(&mut unsupported_of_link(payload));
                by_index.insert(interface.index, interface);
            }
            None => {
                gaps.push("the kernel named an interface in a form this program does not know".to_owned())
            }
        }
    }
    let mut found = (by_index, Vec::new());
    let restart = |found: &mut (BTreeMap<u32, Interface>, Vec<String>)| {
        found.0.values_mut().for_each(|interface| interface.addresses.clear());
        found.1.clear();
    };
    let consistent = netlink.dump_each(
        RTM_GETADDR,
        &decode::address_request(),
        &mut found,
        restart,
        |(by_index, late), kind, payload| {
            let Some((index, address)) = decode::address(payload).filter(|_| kind == RTM_NEWADDR) else { return };
            match by_index.get_mut(&index) {
                Some(interface) => interface.addresses.push(address),
                None => late.push(format!(
                    "{} is on the interface with index {index}, which came after the list of interfaces was read",
                    address.address
                )),
            }
        },
    )?;
    note_changes(consistent, "addresses", gaps);
    let (by_index, mut late) = found;
    gaps.append(&mut late);
    let mut interfaces: Vec<Interface> = by_index.into_values().collect();
    for interface in &mut interfaces {
        interface
            .addresses
            .sort_by_key(|address| (address.family, address.address, address.prefix, address.peer));
        interface.addresses.dedup();
    }
    Ok((interfaces, unsupported))
}

/// Adds the routes that do not follow from the addresses.
fn routes(netlink: &mut Netlink, snapshot: &mut Snapshot, gaps: &mut Vec<String>) {
    let mut routes: Vec<Route> = Vec::new();
    let mut unsupported: Vec<String> = Vec::new();
    let mut asked = Vec::new();
    let interfaces = &snapshot.interfaces;
    per_family("routes", snapshot.ipv6_available, gaps, |family| {
        let mut found = (Vec::new(), Vec::new(), Implied::by(interfaces, family));
        let restart = |(routes, unsupported, implied): &mut (Vec<Route>, Vec<String>, Implied)| {
            routes.clear();
            unsupported.clear();
            implied.begin();
        };
        // Every address has a route in the table `local`, so almost all routes are skipped immediately.
        let consistent = netlink.dump_each(
            RTM_GETROUTE,
            &decode::route_request(family),
            &mut found,
            restart,
            |(routes, unsupported, implied), kind, payload| {
                if kind == RTM_NEWROUTE && !implied.implies(payload) {
                    let found = decode::route(payload);
                    unsupported.extend(found.first().and_then(unsupported_of_route));
                    routes.extend(found);
                }
            },
        )?;
        routes.append(&mut found.0);
        unsupported.append(&mut found.1);
        asked.push((family, found.2));
        Ok(consistent)
    });
    if routes.iter().any(nexthops::is_bare) {
        routes = resolved(netlink, routes, &mut unsupported, gaps);
    }
    asked.retain(|(_, implied)| !implied.has_seen_all());
    for (interface, address) in snapshot.addresses().filter(|_| !asked.is_empty()) {
        // IPv6 addresses get their route when they become usable, and lose it with their interface.
        let waits = address.is(AddrState::Tentative) || address.is(AddrState::Dadfailed);
        let used = address.family == Family::Ipv4 || (interface.up && interface.running && !waits);
        let mut implied = asked.iter().filter(|(family, _)| *family == address.family);
        if used && implied.next().is_some_and(|(_, implied)| !implied.has_seen(address.address)) {
            unsupported.push(format!(
                "{} on {} has no local route, because it was removed",
                address.address, interface.name
            ));
        }
    }
    // Routes to one destination are evaluated in the kernel's order, so the sort must be stable.
    let key = |route: &Route| {
        let family = Family::of(route.destination.addr());
        (route.table, family, route.destination, route.metric, route.tos, route.from)
    };
    routes.sort_by_key(key);
    routes.dedup();
    snapshot.routes = routes;
    snapshot.unsupported.append(&mut unsupported);
}

/// Routes with the next hops of their objects, where the kernel reports the number of the object alone.
fn resolved(
    netlink: &mut Netlink,
    routes: Vec<Route>,
    unsupported: &mut Vec<String>,
    gaps: &mut Vec<String>,
) -> Vec<Route> {
    let objects = match netlink.dump(nexthops::RTM_GETNEXTHOP, &nexthops::REQUEST) {
        Ok(dump) => {
            let found = dump.messages().filter(|(kind, _)| *kind == nexthops::RTM_NEWNEXTHOP);
            nexthops::by_number(found.filter_map(|(_, payload)| nexthops::object(payload)))
        }
        Err(refusal) => {
            gaps.push(format!("cannot dump the next hop objects: {refusal}"));
            BTreeMap::new()
        }
    };
    let mut out = Vec::new();
    for route in routes {
        match nexthops::is_bare(&route).then(|| nexthops::resolve(&route, &objects)) {
            None => out.push(route),
            Some(Some(mut hops)) => out.append(&mut hops),
            Some(None) => {
                unsupported.push(format!(
                    "the route to {} in table {} has the next hop object {}, which is not in the list of objects",
                    route.destination,
                    route.table,
                    route.nexthop.unwrap_or(0)
                ));
                out.push(route);
            }
        }
    }
    out
}

/// The rules that are not default rules, and the missing default rules.
fn rules(netlink: &mut Netlink, ipv6_available: bool, gaps: &mut Vec<String>) -> (Vec<Rule>, Vec<Rule>) {
    let mut rules: Vec<Rule> = Vec::new();
    let mut gone = Vec::new();
    per_family("rules", ipv6_available, gaps, |family| {
        let dump = netlink.dump(RTM_GETRULE, &decode::rule_request(family))?;
        let all: Vec<Rule> = dump
            .messages()
            .filter(|(kind, _)| *kind == RTM_NEWRULE)
            .filter_map(|(_, payload)| decode::rule(payload))
            .collect();
        gone.extend(decode::standard_rules(family).into_iter().filter(|rule| !all.contains(rule)));
        rules.extend(all.into_iter().filter(|rule| !decode::is_standard(rule)));
        Ok(dump.consistent)
    });
    // Rules of one priority are evaluated in the kernel's order, so the sort must be stable.
    rules.sort_by_key(|rule| (rule.family, rule.priority));
    (rules, gone)
}

/// Runs `dump`, which reports whether the list was consistent, for each available family.
fn per_family(
    what: &str,
    ipv6_available: bool,
    gaps: &mut Vec<String>,
    mut dump: impl FnMut(Family) -> Result<bool, Refusal>,
) {
    for family in Family::BOTH.into_iter().filter(|family| *family == Family::Ipv4 || ipv6_available) {
        match dump(family) {
            Ok(consistent) => note_changes(consistent, &format!("{family} {what}"), gaps),
            // A kernel without policy routing has no rules.
            Err(refusal) if refusal.is(libc::EOPNOTSUPP) => {}
            Err(refusal) => gaps.push(format!("cannot dump the {family} {what}: {refusal}")),
        }
    }
}

fn note_changes(consistent: bool, what: &str, gaps: &mut Vec<String>) {
    if !consistent {
        gaps.push(format!("the {what} kept changing while they were read; some may be missing"));
    }
}
