//! Decoders of rtnetlink(7) messages: bytes to model values. Pure; numbers are those of `linux/rtnetlink.h`,
//! `linux/if_link.h`, `linux/if_addr.h`, `linux/fib_rules.h`, `linux/ip.h` and `linux/ipv6.h`.
//!
//! Unknown attributes are ignored, so a newer kernel causes no failure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::netlink::{attribute, attributes, read, until_nul};
use crate::model::{
    AddrClass, AddrState, Family, IfName, Interface, InterfaceAddress, LinkKind, ROUTE_METRICS, Route,
    RouteKind, RouterPreference, Rule, RuleAction, Scope, addr,
};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Tables `default`, `main` and `local`.
const TABLE_DEFAULT: u32 = 253;
const TABLE_MAIN: u32 = 254;
const TABLE_LOCAL: u32 = 255;

/// Names and positions of the settings that affect binds and delivery, in the `IFLA_INET_CONF` array (`IPV4_DEVCONF_*`
/// less one).
const IPV4_CONF: &[(&str, usize)] = &[
    ("ipv4.forwarding", 0),
    ("ipv4.rp_filter", 7),
    ("ipv4.arp_filter", 12),
    ("ipv4.arp_ignore", 18),
    ("ipv4.accept_local", 22),
    ("ipv4.src_valid_mark", 23),
    ("ipv4.route_localnet", 25),
];
/// The same for `IFLA_INET6_CONF` (`DEVCONF_*`, from 0).
const IPV6_CONF: &[(&str, usize)] = &[
    ("ipv6.forwarding", 0),
    ("ipv6.accept_ra", 3),
    ("ipv6.proxy_ndp", 22),
    ("ipv6.optimistic_dad", 23),
    ("ipv6.disable_ipv6", 26),
    ("ipv6.accept_dad", 27),
    ("ipv6.keep_addr_on_down", 42),
];

fn number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => AF_INET,
        Family::Ipv6 => AF_INET6,
    }
}

/// `struct ifinfomsg` and the flag that omits the counters (`RTEXT_FILTER_SKIP_STATS`).
#[must_use]
pub fn link_request() -> Vec<u8> {
    const IFLA_EXT_MASK: u16 = 29;
    const SKIP_STATS: u32 = 8;
    let mut request = vec![0; 16];
    request.extend(attribute(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes()));
    request
}

/// `struct ifaddrmsg` for both families.
#[must_use]
pub fn address_request() -> Vec<u8> {
    vec![0; 8]
}

/// `struct rtmsg`.
#[must_use]
pub fn route_request(family: Family) -> Vec<u8> {
    let mut request = vec![0; 12];
    request[0] = number(family);
    request
}

/// `struct fib_rule_hdr`.
#[must_use]
pub fn rule_request(family: Family) -> Vec<u8> {
    route_request(family)
}

pub(super) fn u32_of(value: &[u8]) -> Option<u32> {
    read(value, 0).map(u32::from_ne_bytes)
}

pub(super) fn name_of(value: &[u8]) -> IfName {
    IfName::from_bytes(until_nul(value))
}

pub(super) fn ip_of(family: Family, value: &[u8]) -> Option<IpAddr> {
    match family {
        Family::Ipv4 => read::<4>(value, 0).map(IpAddr::from),
        Family::Ipv6 => read::<16>(value, 0).map(IpAddr::from),
    }
}

pub(super) fn family_of(payload: &[u8]) -> Option<Family> {
    match *payload.first()? {
        AF_INET => Some(Family::Ipv4),
        AF_INET6 => Some(Family::Ipv6),
        _ => None,
    }
}

/// Whether the driver of an interface reports its other end (IFF_LOWER_UP), from RTM_NEWLINK. The kernel may update
/// dependent values, such as [`Interface::running`], up to a second later (`net/core/link_watch.c`).
#[must_use]
pub fn has_carrier(payload: &[u8]) -> Option<bool> {
    const IFF_LOWER_UP: u32 = 0x1_0000;
    Some(u32::from_ne_bytes(read(payload, 8)?) & IFF_LOWER_UP != 0)
}

/// An interface from RTM_NEWLINK, without addresses.
#[must_use]
pub fn link(payload: &[u8]) -> Option<Interface> {
    const IFF_UP: u32 = 0x1;
    const IFF_LOOPBACK: u32 = 0x8;
    const IFF_POINTOPOINT: u32 = 0x10;
    const IFF_RUNNING: u32 = 0x40;
    const IFF_NOARP: u32 = 0x80;
    const IFF_MULTICAST: u32 = 0x1000;
    let hardware = u16::from_ne_bytes(read(payload, 2)?);
    let flags = u32::from_ne_bytes(read(payload, 8)?);
    let mut interface = Interface {
        up: flags & IFF_UP != 0,
        running: flags & IFF_RUNNING != 0,
        loopback: flags & IFF_LOOPBACK != 0,
        point_to_point: flags & IFF_POINTOPOINT != 0,
        multicast: flags & IFF_MULTICAST != 0,
        no_arp: flags & IFF_NOARP != 0,
        kind: hardware_kind(hardware),
        ..Interface::new(u32::from_ne_bytes(read(payload, 4)?), IfName::from_bytes(b""))
    };
    let mut elsewhere = false;
    for (kind, value) in attributes(payload.get(16..)?) {
        match kind {
            // IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO, IFLA_AF_SPEC, IFLA_LINK_NETNSID
            1 => interface.mac = mac(value),
            3 => interface.name = name_of(value),
            4 => interface.mtu = u32_of(value),
            5 => interface.link = u32_of(value),
            10 => interface.master = u32_of(value),
            18 => {
                // IFLA_INFO_KIND
                if let Some((_, kind)) = attributes(value).find(|(kind, _)| *kind == 1) {
                    interface.kind = Some(String::from_utf8_lossy(until_nul(kind)).into_owned().into());
                }
                // IFLA_INFO_DATA, IFLA_VRF_TABLE
                let data = attributes(value).find(|(kind, _)| *kind == 2).map(|(_, data)| data);
                if let Some(data) = data.filter(|_| interface.kind == Some(LinkKind::Vrf)) {
                    let table = attributes(data).find(|(kind, _)| *kind == 1);
                    interface.vrf_table = table.and_then(|(_, table)| u32_of(table));
                }
            }
            26 => link_settings(value, &mut interface.settings),
            // IFLA_GROUP
            27 => interface.group = u32_of(value).unwrap_or(0),
            37 => elsewhere = true,
            // IFLA_PROP_LIST, IFLA_ALT_IFNAME
            52 => {
                let names = attributes(value).filter(|(kind, _)| *kind == 53);
                interface.altnames = names.map(|(_, name)| name_of(name)).collect();
                interface.altnames.sort_unstable();
            }
            _ => {}
        }
    }
    let own = interface.index;
    interface.link = interface.link.filter(|&link| link != 0 && link != own && !elsewhere);
    (!interface.name.as_bytes().is_empty()).then_some(interface)
}

/// Some `ARPHRD_*` of `linux/if_arp.h`; the kind from the driver is preferred if there is one.
fn hardware_kind(hardware: u16) -> Option<LinkKind> {
    Some(match hardware {
        1 => LinkKind::Ether,
        512 => "ppp".into(),
        768 => "ipip".into(),
        769 => "ip6tnl".into(),
        772 => LinkKind::Loopback,
        776 => "sit".into(),
        _ => return None,
    })
}

/// The text of an Ethernet address; others (tunnels have their IP endpoints here) have none.
fn mac(value: &[u8]) -> Option<String> {
    (value.len() == 6).then(|| value.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"))
}

fn link_settings(spec: &[u8], settings: &mut BTreeMap<String, i64>) {
    for (family, per_family) in attributes(spec) {
        let (array_kind, names) = match u8::try_from(family) {
            // IFLA_INET_CONF, IFLA_INET6_CONF
            Ok(AF_INET) => (1, IPV4_CONF),
            Ok(AF_INET6) => (2, IPV6_CONF),
            _ => continue,
        };
        let Some((_, array)) = attributes(per_family).find(|(kind, _)| *kind == array_kind) else { continue };
        for (name, place) in names {
            // An older kernel has a shorter array.
            if let Some(value) = read(array, place * 4) {
                settings.insert((*name).to_owned(), i32::from_ne_bytes(value).into());
            }
        }
    }
}

/// An address from RTM_NEWADDR, with its interface's index.
#[must_use]
pub fn address(payload: &[u8]) -> Option<(u32, InterfaceAddress)> {
    let family = family_of(payload)?;
    let prefix = *payload.get(1)?;
    let mut flags = u32::from(*payload.get(2)?);
    let index = u32::from_ne_bytes(read(payload, 4)?);
    let (mut far, mut local, mut label, mut broadcast) = (None, None, None, None);
    for (kind, value) in attributes(payload.get(8..)?) {
        match kind {
            // IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_BROADCAST, IFA_FLAGS
            1 => far = ip_of(family, value),
            2 => local = ip_of(family, value),
            3 => label = Some(name_of(value)),
            4 => broadcast = ip_of(family, value),
            8 => flags = u32_of(value).unwrap_or(flags),
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the peer and IFA_LOCAL the local address (comment in linux/if_addr.h).
    let address = local.or(far)?;
    let class = AddrClass::of(address);
    Some((
        index,
        InterfaceAddress {
            address,
            prefix,
            family,
            class,
            scope_id: addr::needs_zone(address).then_some(index),
            label,
            peer: far.filter(|far| *far != address),
            broadcast,
            state: states(family, flags),
            scope: payload.get(3).copied().map(Scope::from_number),
        },
    ))
}

fn states(family: Family, flags: u32) -> Vec<AddrState> {
    let (mut secondary, mut temporary) = (0x01, 0);
    if family == Family::Ipv6 {
        (secondary, temporary) = (temporary, secondary);
    }
    // In the order of the type.
    let all = [
        (AddrState::Permanent, flags & 0x80),
        (AddrState::Dynamic, !flags & 0x80),
        (AddrState::Tentative, flags & 0x40),
        (AddrState::Dadfailed, flags & 0x08),
        (AddrState::Optimistic, flags & 0x04),
        (AddrState::Deprecated, flags & 0x20),
        (AddrState::Temporary, flags & temporary),
        (AddrState::Secondary, flags & secondary),
        (AddrState::Nodad, flags & 0x02),
    ];
    let mut states = Vec::with_capacity(2);
    states.extend(all.into_iter().filter(|(_, set)| *set != 0).map(|(state, _)| state));
    states
}

/// The routes in one RTM_NEWROUTE: one for each next hop.
#[must_use]
pub fn route(payload: &[u8]) -> Vec<Route> {
    route_of(payload).unwrap_or_default()
}

fn route_of(payload: &[u8]) -> Option<Vec<Route>> {
    let family = family_of(payload)?;
    let length = *payload.get(1)?;
    let from_length = *payload.get(2)?;
    let mut base = Route {
        tos: *payload.get(3)?,
        dead: is_dead(u32::from_ne_bytes(read(payload, 8)?)),
        ..Route::new(
            u32::from(*payload.get(4)?),
            route_kind(*payload.get(7)?),
            IpNet::new(family.wildcard(), length).ok()?,
        )
    };
    let mut hops: Vec<Hop> = Vec::new();
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            // RTA_DST, RTA_SRC, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_MULTIPATH, RTA_TABLE, RTA_VIA,
            // RTA_PREF (RFC 4191: 1 is high, 3 is low), RTA_ENCAP, RTA_NH_ID
            1 => base.destination = IpNet::new(ip_of(family, value)?, length).ok()?,
            2 if from_length > 0 => base.from = Some(IpNet::new(ip_of(family, value)?, from_length).ok()?),
            4 => base.interface = u32_of(value),
            5 => base.gateway = ip_of(family, value),
            6 => base.metric = u32_of(value),
            7 => base.source = ip_of(family, value),
            8 => base.metrics = metrics(value),
            9 => hops = next_hops(family, value),
            15 => base.table = u32_of(value)?,
            18 => base.gateway = via(value),
            20 => {
                base.preference = match *value.first()? {
                    1 => Some(RouterPreference::High),
                    3 => Some(RouterPreference::Low),
                    _ => None,
                }
            }
            22 => base.encapsulated = true,
            30 => base.nexthop = u32_of(value),
            _ => {}
        }
    }
    if hops.is_empty() {
        return Some(vec![base]);
    }
    let route = |hop: Hop| Route {
        interface: Some(hop.interface),
        gateway: hop.gateway,
        weight: Some(hop.weight),
        dead: hop.dead,
        encapsulated: hop.encapsulated,
        ..base.clone()
    };
    Some(hops.into_iter().map(route).collect())
}

/// `RTAX_*` with numeric values.
fn metrics(value: &[u8]) -> BTreeMap<String, u32> {
    const CONGESTION_CONTROL: u16 = 16;
    attributes(value)
        .filter(|(kind, _)| *kind != CONGESTION_CONTROL)
        .filter_map(|(kind, value)| {
            let name = ROUTE_METRICS.get(usize::from(kind).checked_sub(1)?)?;
            Some(((*name).to_owned(), u32_of(value)?))
        })
        .collect()
}

/// A next hop of a route.
struct Hop {
    interface: u32,
    gateway: Option<IpAddr>,
    weight: u32,
    dead: bool,
    encapsulated: bool,
}

/// Whether the kernel leaves a next hop out (RTNH_F_DEAD of `linux/rtnetlink.h`).
fn is_dead(flags: u32) -> bool {
    flags & 1 != 0
}

/// `struct rtnexthop` records: each head with its attributes.
fn records(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(read(bytes, 0)?));
        let record = bytes.get(..length)?.split_at_checked(8)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(record)
    })
}

/// `struct rtnexthop` records.
fn next_hops(family: Family, bytes: &[u8]) -> Vec<Hop> {
    let hop = |(head, record): (&[u8], &[u8])| {
        let gateway = attributes(record).find_map(|(kind, value)| match kind {
            5 => ip_of(family, value),
            18 => via(value),
            _ => None,
        });
        Some(Hop {
            interface: u32::from_ne_bytes(read(head, 4)?),
            gateway,
            // `rtnh_hops` is the weight less one.
            weight: u32::from(*head.get(3)?) + 1,
            dead: is_dead(u32::from(*head.get(2)?)),
            // RTA_ENCAP
            encapsulated: attributes(record).any(|(kind, _)| kind == 22),
        })
    };
    records(bytes).filter_map(hop).collect()
}

/// `struct rtvia`: a gateway of the other family (RFC 5549).
fn via(value: &[u8]) -> Option<IpAddr> {
    let family = match u16::from_ne_bytes(read(value, 0)?) {
        2 => Family::Ipv4,
        10 => Family::Ipv6,
        _ => return None,
    };
    ip_of(family, value.get(2..)?)
}

pub(super) fn route_kind(number: u8) -> RouteKind {
    match number {
        1 => RouteKind::Unicast,
        2 => RouteKind::Local,
        3 => RouteKind::Broadcast,
        4 => RouteKind::Anycast,
        5 => RouteKind::Multicast,
        6 => RouteKind::Blackhole,
        7 => RouteKind::Unreachable,
        8 => RouteKind::Prohibit,
        9 => RouteKind::Throw,
        _ => RouteKind::Other,
    }
}

/// `struct fib_rule_port_range`: first and last port.
fn ports_of(value: &[u8]) -> Option<(u16, u16)> {
    Some((u16::from_ne_bytes(read(value, 0)?), u16::from_ne_bytes(read(value, 2)?)))
}

/// A policy rule from RTM_NEWRULE. Its action is `other` if it has conditions that [`Rule`] cannot represent.
#[must_use]
pub fn rule(payload: &[u8]) -> Option<Rule> {
    const FIB_RULE_INVERT: u32 = 0x2;
    let family = family_of(payload)?;
    let (to_length, from_length) = (*payload.get(1)?, *payload.get(2)?);
    let mut table = u32::from(*payload.get(4)?);
    let mut exact = true;
    let (mut mask, mut goto) = (None, None);
    let inverted = u32::from_ne_bytes(read(payload, 8)?) & FIB_RULE_INVERT != 0;
    let tos = Some(*payload.get(3)?).filter(|tos| *tos != 0);
    let mut rule = Rule { inverted, tos, ..Rule::any(family) };
    let mut l3mdev = false;
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            // FRA_DST, FRA_SRC, FRA_IIFNAME, FRA_GOTO, FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_OIFNAME, FRA_L3MDEV
            1 => rule.to = IpNet::new(ip_of(family, value)?, to_length).ok(),
            2 => rule.from = IpNet::new(ip_of(family, value)?, from_length).ok(),
            3 => rule.iif = Some(name_of(value)),
            4 => goto = u32_of(value),
            6 => rule.priority = u32_of(value)?,
            10 => rule.fwmark = u32_of(value).filter(|mark| *mark != 0),
            15 => table = u32_of(value)?,
            17 => rule.oif = Some(name_of(value)),
            19 => l3mdev = value.first().is_some_and(|flag| *flag != 0),
            // FRA_SUPPRESS_IFGROUP, FRA_SUPPRESS_PREFIXLEN: -1 is off
            13 => rule.suppress_group = u32_of(value).filter(|group| *group != u32::MAX),
            14 => rule.suppress_prefix = u32_of(value).filter(|length| *length != u32::MAX),
            // FRA_FWMASK
            16 => mask = u32_of(value),
            // FRA_UID_RANGE, FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE, FRA_DSCP
            20 => {
                rule.users =
                    u32_of(value).zip(value.get(4..).and_then(u32_of)).filter(|all| *all != (0, u32::MAX))
            }
            22 => rule.ip_protocol = value.first().copied(),
            23 => rule.source_ports = ports_of(value),
            24 => rule.destination_ports = ports_of(value),
            25 => rule.dscp = value.first().copied(),
            // FRA_SPORT_MASK, FRA_DPORT_MASK, FRA_DSCP_MASK: every bit is what a rule without a mask has
            28 | 29 => exact &= value.iter().all(|byte| *byte == 0xff),
            30 => exact &= value.first() == Some(&0x3f),
            // FRA_TUN_ID, FRA_FLOWLABEL, FRA_FLOWLABEL_MASK and what came after them
            12 | 26 | 27 | 31.. => exact = false,
            _ => {}
        }
    }
    // A mask of all bits is what a mark has without one.
    rule.fwmask = match (rule.fwmark, mask) {
        (Some(_), Some(u32::MAX)) | (None, Some(0)) => None,
        (_, mask) => mask,
    };
    let action = match *payload.get(7)? {
        1 if l3mdev => RuleAction::L3mdev,
        1 => RuleAction::Lookup,
        2 => RuleAction::Goto,
        3 => RuleAction::Nop,
        6 => RuleAction::Blackhole,
        7 => RuleAction::Unreachable,
        8 => RuleAction::Prohibit,
        _ => RuleAction::Other,
    };
    rule.action = if exact { action } else { RuleAction::Other };
    rule.table = (action == RuleAction::Lookup).then_some(table);
    rule.goto = goto.filter(|_| action == RuleAction::Goto);
    Some(rule)
}

/// The default rules of a new namespace for this family; IPv6 has no table `default`.
#[must_use]
pub fn standard_rules(family: Family) -> Vec<Rule> {
    let all = [(0, TABLE_LOCAL), (32766, TABLE_MAIN), (32767, TABLE_DEFAULT)];
    let count = if family == Family::Ipv4 { 3 } else { 2 };
    let rule = |&(priority, table): &(u32, u32)| Rule {
        priority,
        table: Some(table),
        action: RuleAction::Lookup,
        ..Rule::any(family)
    };
    all.iter().take(count).map(rule).collect()
}

/// Whether it is one of the three default rules of Linux: local, main, default.
#[must_use]
pub fn is_standard(rule: &Rule) -> bool {
    standard_rules(rule.family).contains(rule)
}

/// Decodes bytes as a reply of rtnetlink, each message as every possible kind. Returns the number of decoded values.
#[cfg(fuzzing)]
#[must_use]
pub fn decode(bytes: &[u8]) -> usize {
    use super::netlink::messages;
    let mut values = 0;
    for message in messages(bytes).map_while(Result::ok) {
        let _ = message.refusal(message.errno(), message.ext_ack_offset()).to_string();
        let payload = message.payload;
        values += usize::from(link(payload).is_some());
        values += usize::from(address(payload).is_some());
        values += route(payload).len();
        values += usize::from(rule(payload).is_some());
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_to_point_address_has_its_own_end() {
        let mut payload = vec![AF_INET, 32, 0x80, 0];
        payload.extend(7u32.to_ne_bytes());
        payload.extend(attribute(1, &[10, 0, 0, 2]));
        payload.extend(attribute(2, &[10, 0, 0, 1]));
        payload.extend(attribute(3, b"ppp0\0"));
        let (index, address) = address(&payload).unwrap();
        assert_eq!(index, 7);
        assert_eq!(address.address, IpAddr::from([10, 0, 0, 1]));
        assert_eq!(address.peer, Some(IpAddr::from([10, 0, 0, 2])));
        assert_eq!(address.state, [AddrState::Permanent]);
        assert_eq!(address.label, Some(IfName::from("ppp0")));
    }

    #[test]
    fn each_next_hop_is_a_route() {
        let mut payload = vec![AF_INET, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        let mut hops = Vec::new();
        for (index, last) in [(2u32, 1), (3, 2)] {
            let gateway = attribute(5, &[192, 0, 2, last]);
            hops.extend(u16::try_from(8 + gateway.len()).unwrap().to_ne_bytes());
            hops.extend([0, 0]);
            hops.extend(index.to_ne_bytes());
            hops.extend(gateway);
        }
        payload.extend(attribute(9, &hops));
        let routes = route(&payload);
        assert_eq!(routes.iter().map(|route| route.interface).collect::<Vec<_>>(), [Some(2), Some(3)]);
        assert_eq!(routes[1].gateway, Some(IpAddr::from([192, 0, 2, 2])));
    }

    #[test]
    fn conditions_without_a_place_are_not_hidden() {
        let mut payload = vec![AF_INET, 0, 0, 0, 100, 0, 0, 1, 0, 0, 0, 0];
        payload.extend(attribute(6, &5u32.to_ne_bytes()));
        assert_eq!(rule(&payload).unwrap().action, RuleAction::Lookup);
        payload.extend(attribute(22, &[6]));
        assert_eq!(
            (rule(&payload).unwrap().action, rule(&payload).unwrap().ip_protocol),
            (RuleAction::Lookup, Some(6))
        );
        payload.extend(attribute(12, &[0, 0, 0, 0, 0, 0, 0, 5]));
        assert_eq!(rule(&payload).unwrap().action, RuleAction::Other);
        assert_eq!(rule(&payload).unwrap().table, Some(100));
    }

    #[test]
    fn nothing_the_kernel_could_send_cut_short_is_a_panic() {
        let bytes: Vec<u8> = (0..200u8).map(|byte| byte.wrapping_mul(37)).collect();
        for length in 0..bytes.len() {
            for family in [AF_INET, AF_INET6] {
                let mut payload = bytes[..length].to_vec();
                if let Some(first) = payload.first_mut() {
                    *first = family;
                }
                let _ = (link(&payload), address(&payload), route(&payload), rule(&payload));
            }
        }
    }
}
