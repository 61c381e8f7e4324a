//! Sockets of different programs that share a port.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::{Finding, Site};
use super::{is_mapped_wildcard, takes};
use crate::code::Code;
use crate::diag::Severity;
use crate::model::addr::needs_zone;
use crate::model::{AddrClass, Family, ListeningSocket, Owner};

/// The owner of a socket, for comparison.
fn pids(socket: &ListeningSocket) -> Option<Vec<u32>> {
    socket.owners.as_ref().map(|owners| owners.iter().map(|owner| owner.pid).collect())
}

fn who(socket: &ListeningSocket) -> String {
    match socket.owners.as_deref() {
        Some([owner, ..]) => format!("{} (pid {})", owner.command, owner.pid),
        Some([]) => "no process".to_owned(),
        None => match socket.uid {
            Some(uid) => format!("a process of uid {uid}"),
            None => "an unknown process".to_owned(),
        },
    }
}

/// Sockets of different programs on one port, each of which receives part of the traffic.
pub(super) fn shadowed(site: &Site, places: &[usize], first: usize, findings: &mut Vec<Finding>) {
    let one_program = |pair: &[usize]| {
        let (one, two) = (&site.sockets[pair[0]], &site.sockets[pair[1]]);
        one.owners == two.owners && (one.owners.is_some() || one.uid == two.uid)
    };
    // Also if there is only one.
    if places.windows(2).all(one_program) {
        return;
    }
    // One of each kind represents all: a program may have thousands that share a port.
    let mut kinds: BTreeMap<_, usize> = BTreeMap::new();
    for &place in places {
        let socket = &site.sockets[place];
        let key = (pids(socket), socket.uid, socket.view.family, socket.view.address, socket.device_index);
        kinds.entry(key).or_insert(place);
    }
    let mut wildcards = Vec::new();
    let mut specific: BTreeMap<IpAddr, Vec<usize>> = BTreeMap::new();
    for place in kinds.into_values() {
        let address = site.sockets[place].view.address.to_canonical();
        if address.is_unspecified() {
            wildcards.push(place);
        } else {
            specific.entry(address).or_default().push(place);
        }
    }
    // A port may be bound at every address of 127.0.0.0/8: only pairs that can interact are compared.
    let mut pairs = Vec::new();
    let among = |list: &[usize], pairs: &mut Vec<(usize, usize)>| {
        for (position, &one) in list.iter().enumerate() {
            pairs.extend(list[position + 1..].iter().map(|&two| (one, two)));
        }
    };
    among(&wildcards, &mut pairs);
    for list in specific.values() {
        among(list, &mut pairs);
        pairs.extend(list.iter().flat_map(|&one| wildcards.iter().map(move |&two| (one, two))));
    }
    let at = |address: IpAddr| specific.get(&address).map_or(&[][..], Vec::as_slice);
    for &one in at(IpAddr::V4(Ipv4Addr::LOCALHOST)) {
        pairs.extend(at(IpAddr::V6(Ipv6Addr::LOCALHOST)).iter().map(|&two| (one, two)));
    }
    for (one, two) in pairs {
        let (a, b) = (&site.sockets[one], &site.sockets[two]);
        let apart = a.device_index.is_some() && b.device_index.is_some() && a.device_index != b.device_index;
        if related(a, b) || apart {
            continue;
        }
        if let Some((place, message)) = divided(one, a, two, b) {
            findings.push(
                Finding::new(Code::SHADOWED, Severity::Warning, Some(first + place), message)
                    .help("decide which program clients should reach, and stop the other or move its port"),
            );
        }
    }
}

/// Whether the same program owns both: the same process, or processes with the same file and user.
fn related(a: &ListeningSocket, b: &ListeningSocket) -> bool {
    let (Some(first), Some(second)) = (&a.owners, &b.owners) else { return a.uid == b.uid };
    let same = |one: &Owner, two: &Owner| {
        one.pid == two.pid || one.exe.is_some() && one.exe == two.exe && one.uid == two.uid
    };
    first.iter().any(|one| second.iter().any(|two| same(one, two))) || first.is_empty() && second.is_empty()
}

/// How two sockets of different programs divide the traffic of their port, and which of them to check.
fn divided(one: usize, a: &ListeningSocket, two: usize, b: &ListeningSocket) -> Option<(usize, String)> {
    let whole = |socket: &ListeningSocket| {
        socket.view.address.is_unspecified() || is_mapped_wildcard(socket.view.address)
    };
    let (address_a, address_b) = (a.view.address.to_canonical(), b.view.address.to_canonical());
    match (whole(a), whole(b)) {
        (true, false) => divided(two, b, one, a),
        (false, true) => {
            let covered = takes(b, Family::of(address_a)) && !needs_zone(address_a);
            covered.then(|| {
                (
                    one,
                    format!(
                        "connections to {address_a} reach {}, those to the host's other addresses {}",
                        who(a),
                        who(b)
                    ),
                )
            })
        }
        (true, true) => {
            let both = |family| takes(a, family) && takes(b, family);
            if both(Family::Ipv4) || both(Family::Ipv6) {
                return Some((
                    one,
                    format!(
                        "{} and {} share the port: which of them gets a packet depends on device, order or hash",
                        who(a),
                        who(b)
                    ),
                ));
            }
            let (v4, v6) = if takes(a, Family::Ipv4) { (a, b) } else { (b, a) };
            Some((one, format!("over IPv4 the port reaches {}, over IPv6 {}", who(v4), who(v6))))
        }
        (false, false) if address_a == address_b => Some((
            one,
            format!(
                "{} and {} share the address and port: which of them gets a packet depends on order or hash",
                who(a),
                who(b)
            ),
        )),
        // Loopback of one family in one program, of the other in another: `localhost` leads to two programs.
        (false, false) => {
            let loopback = |address: IpAddr| AddrClass::of(address) == AddrClass::Loopback;
            let split =
                loopback(address_a) && loopback(address_b) && Family::of(address_a) != Family::of(address_b);
            split.then(|| {
                let (v4, v6) = if address_a.is_ipv4() { (a, b) } else { (b, a) };
                (one, format!("localhost is two programs: 127.0.0.1 reaches {}, [::1] {}", who(v4), who(v6)))
            })
        }
    }
}
