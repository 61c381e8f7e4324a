//! Next hop objects of a network (`ip nexthop`), for routes that the kernel reports by the number of their object alone
//! (`net.ipv4.nexthop_compat_mode` = 0). Pure; numbers are those of `linux/nexthop.h`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::netlink::{attributes, read};
use super::rtnetlink::{ip_of, u32_of};
use crate::model::{Family, Route, RouteKind};

/// Request and message of a dump.
pub const RTM_GETNEXTHOP: u16 = 106;
/// The answer.
pub const RTM_NEWNEXTHOP: u16 = 104;
/// `struct nhmsg`.
pub const REQUEST: [u8; 8] = [0; 8];

/// A next hop object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Object {
    number: u32,
    interface: Option<u32>,
    gateway: Option<IpAddr>,
    /// Numbers and weights of the members of a group.
    members: Vec<(u32, u32)>,
    blackhole: bool,
    dead: bool,
    encapsulated: bool,
}

/// A next hop object from RTM_NEWNEXTHOP.
#[must_use]
pub fn object(payload: &[u8]) -> Option<Object> {
    let family = match *payload.first()? {
        10 => Family::Ipv6,
        _ => Family::Ipv4,
    };
    let mut object = Object { dead: u32::from_ne_bytes(read(payload, 4)?) & 1 != 0, ..Object::default() };
    for (kind, value) in attributes(payload.get(8..)?) {
        match kind {
            // NHA_ID, NHA_GROUP, NHA_BLACKHOLE, NHA_OIF, NHA_GATEWAY, NHA_ENCAP_TYPE
            1 => object.number = u32_of(value)?,
            2 => {
                // `struct nexthop_grp`: number, weight less one, its high byte.
                let member = |entry: &[u8]| {
                    let weight = u32::from(*entry.get(4)?) + (u32::from(*entry.get(5)?) << 8) + 1;
                    Some((u32_of(entry)?, weight))
                };
                object.members = value.chunks_exact(8).filter_map(member).collect();
            }
            4 => object.blackhole = true,
            5 => object.interface = u32_of(value),
            6 => object.gateway = ip_of(family, value),
            7 => object.encapsulated = true,
            _ => {}
        }
    }
    Some(object)
}

/// Whether the kernel reported a route by the number of its next hop object alone.
#[must_use]
pub fn is_bare(route: &Route) -> bool {
    let forwards = matches!(route.kind, RouteKind::Unicast | RouteKind::Local);
    forwards && route.nexthop.is_some() && route.interface.is_none() && route.gateway.is_none()
}

/// The routes of a bare one: one for each next hop. `None` when the object is not in the list.
#[must_use]
pub fn resolve(route: &Route, objects: &BTreeMap<u32, Object>) -> Option<Vec<Route>> {
    let object = objects.get(&route.nexthop?)?;
    let hop = |object: &Object, weight| Route {
        interface: object.interface,
        gateway: object.gateway,
        weight,
        dead: object.dead,
        encapsulated: object.encapsulated,
        kind: if object.blackhole { RouteKind::Blackhole } else { route.kind },
        ..route.clone()
    };
    if object.members.is_empty() {
        return Some(vec![hop(object, None)]);
    }
    let member = |&(number, weight): &(u32, u32)| Some(hop(objects.get(&number)?, Some(weight)));
    object.members.iter().map(member).collect()
}

/// The objects by their numbers.
pub fn by_number(objects: impl Iterator<Item = Object>) -> BTreeMap<u32, Object> {
    objects.map(|object| (object.number, object)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::linux::netlink::attribute;

    fn message(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut payload = vec![2, 0, 0, 0, 0, 0, 0, 0];
        for (kind, value) in attributes {
            payload.extend(attribute(*kind, value));
        }
        payload
    }

    #[test]
    fn a_group_becomes_one_route_for_each_member() {
        let one = message(&[(1, &1u32.to_ne_bytes()), (5, &7u32.to_ne_bytes()), (6, &[192, 0, 2, 1])]);
        let two = message(&[(1, &2u32.to_ne_bytes()), (5, &8u32.to_ne_bytes())]);
        let members = [[1, 0, 0, 0, 4, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0]].concat();
        let group = message(&[(1, &3u32.to_ne_bytes()), (2, &members)]);
        let objects = by_number([one, two, group].iter().filter_map(|payload| object(payload)));
        let bare =
            Route { nexthop: Some(3), ..Route::new(254, RouteKind::Unicast, "0.0.0.0/0".parse().unwrap()) };
        assert!(is_bare(&bare));
        let routes = resolve(&bare, &objects).unwrap();
        let hops: Vec<_> = routes.iter().map(|route| (route.interface, route.weight)).collect();
        assert_eq!(hops, [(Some(7), Some(5)), (Some(8), Some(1))]);
        assert_eq!(resolve(&Route { nexthop: Some(9), ..bare }, &objects), None);
    }
}
