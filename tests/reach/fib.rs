//! The route look-up against the kernel: random rules and tables in a namespace, and random packets that the kernel is asked about
//! with RTM_GETROUTE. Route, table, source and error must be the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use bindscope::model::Snapshot;
use bindscope::plan::fib::{Decision, Fact, Fib, Flow, RouteError};
use bindscope::plan::local_table::LocalAddresses;
use ipnet::IpNet;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::host::by_family;
use crate::support::netns::Netns;
use crate::support::random::{Random, portion};
use crate::support::snapshot::settle;

/// Hosts, and look-ups on each.
const HOSTS: usize = 25;
const LOOKUPS: usize = 4000;
const LINKS: [&str; 4] = ["e0", "e1", "e2", "e3"];

/// What the kernel answers.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Error(i32),
    Route { kind: u8, table: u32, oif: u32, gateway: Option<IpAddr>, source: Option<IpAddr> },
}

/// Runs `ip` commands, one a line; those that the kernel refuses are left out.
pub fn try_batch(ns: &Netns, script: &str) {
    for (family, lines) in by_family(script) {
        ns.run(|| {
            let mut child = Command::new("ip")
                .args(family)
                .args(["-force", "-batch", "-"])
                .stdin(Stdio::piped())
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), lines.as_bytes()).unwrap();
            child.wait().unwrap();
        });
    }
}

fn address4(random: &mut Random) -> String {
    let net = *random.pick(&["10.0.0", "10.0.1", "10.1.0", "172.16.5", "192.0.2", "203.0.113"]);
    format!("{net}.{}", 2 + random.below(60))
}

fn address6(random: &mut Random) -> String {
    let net = *random.pick(&["fd00:0:0:1", "fd00:0:0:2", "fd00:1:0:1", "2001:db8:5:6", "2001:db8:9:1"]);
    format!("{net}::{:x}", 2 + random.below(60))
}

fn prefix(random: &mut Random, ipv4: bool) -> String {
    let net: IpNet = if ipv4 {
        let bits = *random.pick(&[0, 8, 12, 16, 20, 24, 24, 27, 30, 32]);
        format!("{}/{bits}", address4(random)).parse().unwrap()
    } else {
        let bits = *random.pick(&[0, 3, 16, 32, 48, 64, 64, 100, 128]);
        format!("{}/{bits}", address6(random)).parse().unwrap()
    };
    net.trunc().to_string()
}

/// A host with links, addresses, routes in several tables and rules with every selector.
fn script(random: &mut Random) -> String {
    let mut out = String::new();
    for (number, link) in LINKS.iter().enumerate() {
        for _ in 0..1 + random.below(2) {
            let route = if random.once_in(4) { " noprefixroute" } else { "" };
            let bits = *random.pick(&[24, 24, 28, 32]);
            let _ =
                writeln!(out, "address add 10.0.{number}.{}/{bits} dev {link}{route}", 1 + random.below(250));
            let _ = writeln!(
                out,
                "address add fd00:0:0:{number}::{:x}/64 dev {link} nodad{route}",
                1 + random.below(250)
            );
        }
    }
    let _ = writeln!(out, "address add 10.0.0.{}/24 dev e1", 1 + random.below(250));
    if random.once_in(2) {
        out.push_str("address add 10.77.0.1/32 dev lo\naddress add fd77::1/128 dev lo nodad\n");
    }
    if random.once_in(2) {
        out.push_str("route add local 203.0.113.0/28 dev lo\nroute add local 2001:db8:9:1::/64 dev lo\n");
    }
    let tables = ["main", "main", "100", "200", "300"];
    for _ in 0..15 + random.below(40) {
        let ipv4 = random.once_in(2);
        let table = random.pick(&tables);
        let to = prefix(random, ipv4);
        let link = *random.pick(&LINKS);
        let number = link.as_bytes()[1] - b'0';
        let via = |random: &mut Random| {
            if ipv4 {
                format!("via 10.0.{number}.{}", 1 + random.below(250))
            } else {
                format!("via fd00:0:0:{number}::{:x}", 1 + random.below(250))
            }
        };
        let mut words = match random.below(10) {
            0 => format!("unreachable {to}"),
            1 => format!("prohibit {to}"),
            2 => format!("blackhole {to}"),
            3 => format!("throw {to}"),
            4 | 5 => format!("{to} dev {link}"),
            6 => {
                let (one, two) = (via(random), via(random));
                format!(
                    "{to} table {table} nexthop {one} dev {link} weight 2 nexthop {two} dev {link} onlink"
                )
            }
            _ => format!("{to} {} dev {link} onlink", via(random)),
        };
        if !words.contains("nexthop") {
            if random.once_in(3) {
                let _ = write!(words, " metric {}", random.pick(&[5, 10, 20, 256, 1024]));
            }
            if ipv4 && random.once_in(10) {
                words.push_str(" tos 0x10");
            }
            if !ipv4 && random.once_in(10) {
                let _ = write!(words, " pref {}", random.pick(&["low", "high"]));
            }
            if !ipv4 && random.once_in(8) {
                let _ = write!(words, " from {}", prefix(random, false));
            }
        }
        let append = if random.once_in(3) { "append" } else { "add" };
        let place = if words.contains("nexthop") { String::new() } else { format!(" table {table}") };
        let _ = writeln!(out, "route {append} {words}{place}");
    }
    for number in 0..random.below(14) {
        let ipv4 = random.once_in(2);
        let priority = 100 + 10 * number + random.below(3);
        let mut words = String::new();
        if random.once_in(6) {
            words.push_str("not ");
        }
        for selector in ["from", "to"] {
            if random.once_in(3) {
                let _ = write!(words, "{selector} {} ", prefix(random, ipv4));
            }
        }
        for (odds, more) in [
            (8, "iif lo".to_owned()),
            (10, format!("iif {}", random.pick(&["e0", "gone"]))),
            (8, format!("oif {}", random.pick(&LINKS))),
            (
                5,
                format!(
                    "fwmark {:#x}/{:#x}",
                    random.pick(&[0, 1, 0x10]),
                    random.pick(&[0xff, 0x11, 0xffff_ffffu32])
                ),
            ),
            (5, format!("ipproto {}", random.pick(&["tcp", "udp", "17"]))),
            (6, format!("sport {}", random.pick(&["22", "80", "1000-2000"]))),
            (6, format!("dport {}", random.pick(&["443", "1000-2000"]))),
            (6, format!("uidrange {}", random.pick(&["0-0", "1000-2000", "5-5"]))),
            (10, "tos 0x10".to_owned()),
        ] {
            if random.once_in(odds) {
                words.push_str(&more);
                words.push(' ');
            }
        }
        let action = match random.below(12) {
            0 => "unreachable".to_owned(),
            1 => "prohibit".to_owned(),
            2 => "blackhole".to_owned(),
            3 => format!("goto {}", random.pick(&[150, 180, 32766, 40000])),
            4 => "nop".to_owned(),
            5 => format!("table main suppress_prefixlength {}", random.pick(&[0, 8, 24])),
            6 => "table 100 suppress_ifgroup 7".to_owned(),
            _ => format!("table {}", random.pick(&["100", "200", "300", "main", "555"])),
        };
        let any = if words.contains("from") || words.contains("to ") {
            ""
        } else if ipv4 {
            "from 0.0.0.0/0 "
        } else {
            "from ::/0 "
        };
        let _ = writeln!(out, "rule add {any}{words}priority {priority} {action}");
    }
    if random.once_in(6) {
        out.push_str("rule del from 0.0.0.0/0 table main\n");
    }
    out
}

/// A request of RTM_GETROUTE.
fn request(flow: &Flow) -> Vec<u8> {
    fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
        out.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let bits = if flow.to.is_ipv4() { 32 } else { 128 };
    // `struct rtmsg`, with RTM_F_LOOKUP_TABLE.
    let from = if flow.from.is_some() { bits } else { 0 };
    let mut body = vec![if flow.to.is_ipv4() { 2 } else { 10 }, bits, from, flow.tos, 0, 0, 0, 0];
    body.extend(0x1000u32.to_ne_bytes());
    attribute(&mut body, 1, &octets(flow.to));
    if let Some(from) = flow.from {
        attribute(&mut body, 2, &octets(from));
    }
    for (kind, index) in [(3, flow.iif), (4, flow.oif)] {
        if index != 0 {
            attribute(&mut body, kind, &index.to_ne_bytes());
        }
    }
    if let Fact::Known(mark) = flow.mark {
        attribute(&mut body, 16, &mark.to_ne_bytes());
    }
    if let Fact::Known(user) = flow.user {
        attribute(&mut body, 25, &user.to_ne_bytes());
    }
    if flow.protocol != 0 {
        attribute(&mut body, 27, &[flow.protocol]);
    }
    for (kind, port) in [(28, flow.source_port), (29, flow.destination_port)] {
        if let Fact::Known(port) = port
            && port != 0
        {
            attribute(&mut body, kind, &port.to_be_bytes());
        }
    }
    let mut message = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
    message.extend(26u16.to_ne_bytes());
    message.extend(1u16.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn answer(bytes: &[u8]) -> Answer {
    let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let kind = u16::from_ne_bytes(bytes[4..6].try_into().unwrap());
    if kind == 2 {
        return Answer::Error(-i32::from_ne_bytes(bytes[16..20].try_into().unwrap()));
    }
    let ipv4 = bytes[16] == 2;
    let (mut table, route) = (u32::from(bytes[20]), bytes[23]);
    let (mut oif, mut gateway, mut source) = (0, None, None);
    let end = usize::try_from(u32_at(0)).unwrap();
    let mut at = 28;
    while at + 4 <= end {
        let length = usize::from(u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap()));
        let kind = u16::from_ne_bytes(bytes[at + 2..at + 4].try_into().unwrap());
        let value = &bytes[at + 4..at + length];
        let ip = || -> IpAddr {
            if ipv4 {
                IpAddr::from(<[u8; 4]>::try_from(value).unwrap())
            } else {
                IpAddr::from(<[u8; 16]>::try_from(value).unwrap())
            }
        };
        match kind {
            4 => oif = u32::from_ne_bytes(value.try_into().unwrap()),
            5 => gateway = Some(ip()),
            7 => source = Some(ip()),
            15 => table = u32::from_ne_bytes(value.try_into().unwrap()),
            _ => {}
        }
        at += length.next_multiple_of(4);
    }
    Answer::Route { kind: route, table, oif, gateway, source }
}

/// Whether the decision is the kernel's answer; `None` where it is not known.
fn agrees(
    decision: &Decision<'_>,
    answer: &Answer,
    flow: &Flow,
    local: &LocalAddresses,
    merged: bool,
) -> Option<bool> {
    Some(match (decision, answer) {
        (Decision::Unknown { .. }, _) => return None,
        (Decision::Refused { error, .. }, Answer::Error(errno)) => match error {
            RouteError::NoRoute => *errno == libc::ENETUNREACH,
            RouteError::Unreachable => *errno == libc::EHOSTUNREACH,
            RouteError::Prohibited => *errno == libc::EACCES,
            RouteError::Blackhole => *errno == libc::EINVAL,
            RouteError::NoDevice => [libc::ENODEV, libc::ENETUNREACH].contains(errno),
        },
        (Decision::Local { table, .. }, Answer::Route { kind, table: theirs, .. }) => {
            *kind == 2 && (merged || table == theirs)
        }
        (Decision::OnLink(oif), Answer::Route { kind, oif: theirs, gateway, .. }) => {
            *kind == 1 && oif == theirs && gateway.is_none()
        }
        (Decision::Found(found), Answer::Route { kind, table, oif, gateway, source }) => {
            let hop =
                found.hops.iter().any(|hop| hop.interface == Some(*oif) && local.gateway_of(hop) == *gateway);
            let from =
                flow.from.is_some() || found.route().source.is_none() || found.route().source == *source;
            *kind == 1 && hop && from && (merged || *table == found.route().table)
        }
        _ => false,
    })
}

fn flow(random: &mut Random, snapshot: &Snapshot) -> Flow {
    let ipv4 = random.once_in(2);
    let own: Vec<IpAddr> = snapshot
        .addresses()
        .map(|(_, own)| own.address)
        .filter(|own| own.is_ipv4() == ipv4 && !own.is_loopback() && own.to_string().find("fe80") != Some(0))
        .collect();
    let to = match random.below(12) {
        0 => random.pick(&own).to_string(),
        1 if ipv4 => format!("{}.{}.{}.9", 1 + random.below(200), random.below(200), random.below(200)),
        1 => format!("2001:{:x}::9", random.below(60_000)),
        _ if ipv4 => address4(random),
        _ => address6(random),
    };
    let pick = |random: &mut Random, values: &[u32]| *random.pick(values);
    let port = |random: &mut Random| Fact::Known(*random.pick(&[0u16, 22, 80, 443, 1500]));
    let index = |name: &str| snapshot.interface_named(&name.into()).unwrap().index;
    // Without a protocol the kernel would take UDP for IPv4.
    let protocol = *random.pick(&[6u8, 6, 17]);
    Flow {
        from: random.once_in(2).then(|| *random.pick(&own)),
        oif: if random.once_in(5) { index(LINKS[random.below(4)]) } else { 0 },
        mark: Fact::Known(pick(random, &[0, 1, 0x10, 0x11])),
        user: Fact::Known(pick(random, &[0, 5, 1500])),
        tos: if random.once_in(8) { 0x10 } else { 0 },
        protocol,
        source_port: port(random),
        destination_port: port(random),
        ..Flow::to(to.parse().unwrap())
    }
}

pub fn oracle() {
    let mut random = Random::seeded("route_look_ups");
    let (mut asked, mut unknown) = (0usize, 0usize);
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..portion(HOSTS) {
        let (ns, far) = (Netns::new(), Netns::new());
        for link in LINKS {
            ns.wire(link, &far, link);
        }
        ns.ip("link set e3 group 7");
        for name in ["all", "default"] {
            ns.sysctl(&format!("net.ipv4.conf.{name}.rp_filter"), "0");
        }
        let script = script(&mut random);
        try_batch(&ns, &script);
        settle(&ns);
        if random.once_in(3) {
            ns.sysctl("net.ipv4.conf.all.ignore_routes_with_linkdown", "1");
            ns.sysctl("net.ipv6.conf.all.ignore_routes_with_linkdown", "1");
        }
        if random.once_in(3) {
            far.ip("link set e2 down");
            std::thread::sleep(std::time::Duration::from_millis(1200));
        }
        let snapshot = ns.run(bindscope::sys::snapshot).unwrap();
        let local = LocalAddresses::new(&snapshot);
        let fib = Fib::new(&snapshot);
        let socket = ns.run(|| Socket::new(NETLINK_ROUTE)).unwrap();
        socket.connect(&SocketAddr::new(0, 0)).unwrap();
        let mut buffer = vec![0; 4096];
        for _ in 0..LOOKUPS {
            let flow = flow(&mut random, &snapshot);
            // What is sent to many is no connection; an own address that is also the broadcast address of a small network is both.
            let broadcast = |own: &bindscope::model::InterfaceAddress| {
                let ends = IpNet::new(own.address, own.prefix).map(|net| [net.network(), net.broadcast()]);
                own.prefix < 31 && ends.is_ok_and(|ends| ends.contains(&flow.to))
            };
            if flow.to.is_ipv4() && snapshot.addresses().any(|(_, own)| broadcast(own)) {
                continue;
            }
            let decision = fib.output(&local, &flow);
            socket.send(&request(&flow), 0).unwrap();
            let length = socket.recv(&mut &mut buffer[..], 0).unwrap();
            let answer = answer(&buffer[..length]);
            asked += 1;
            let merged =
                snapshot.rules.iter().all(|rule| rule.family != bindscope::model::Family::of(flow.to));
            match agrees(&decision, &answer, &flow, &local, merged) {
                None => unknown += 1,
                Some(true) => {
                    let text = format!("{decision:?}");
                    let name = text.split([' ', '(']).next().unwrap().to_owned();
                    *outcomes.entry(name).or_default() += 1;
                }
                Some(false) => panic!(
                    "host {number}: {flow:?}\npredicted {decision:?}\nthe kernel answers {answer:?}\n{script}\nrules {:#?} {:?}",
                    snapshot.rules, snapshot.incomplete_because
                ),
            }
        }
    }
    eprintln!("{asked} look-ups, {unknown} not known, {outcomes:?}");
    assert!(unknown * 50 <= asked, "{unknown} of {asked} results are not known");
}
