//! A random host with its wires, and random sockets for it.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use bindscope::model::{IfName, Protocol, SocketSpec, V6Only};

use crate::support::netns::Netns;
use crate::support::random::Random;
use crate::support::snapshot::settle;

/// Addresses of one wire's near end.
#[derive(Debug, Clone, Copy)]
struct Wire {
    ipv4: bool,
    ipv6: bool,
    link_local: bool,
}

pub struct RandomHost {
    pub ns: Netns,
    /// The far end of each wire, by the wire's name; the interface there is called `far`.
    pub far: Vec<(String, Netns)>,
    addresses: Vec<String>,
    zones: Vec<(String, u32)>,
    script: String,
}

/// Runs `ip` commands, one a line, all of which must succeed.
pub fn batch(ns: &Netns, script: &str) {
    for (family, lines) in by_family(script) {
        ns.run(|| {
            let mut child =
                Command::new("ip").args(family).args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), lines.as_bytes()).unwrap();
            assert!(child.wait().unwrap().success(), "{lines}");
        });
    }
}

/// The option of ip(8) for the family where lines need it, and the lines. Within a batch, ip(8) takes every rule for one of IPv4 unless the
/// option is given.
pub fn by_family(script: &str) -> Vec<(&'static [&'static str], String)> {
    let is_ipv6_rule = |line: &&str| line.starts_with("rule ") && line.contains(':');
    let (rules, others): (Vec<&str>, Vec<&str>) = script.lines().partition(is_ipv6_rule);
    let text = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let both: [(&[&str], String); 2] = [(&[], text(&others)), (&["-6"], text(&rules))];
    both.into_iter().filter(|(_, lines)| !lines.is_empty()).collect()
}

/// The same link-local address on every wire, where a host has one: the zone must tell them apart.
const SAME: &str = "fe80::7";

impl RandomHost {
    pub fn new(random: &mut Random) -> RandomHost {
        let ns = Netns::new();
        let wires: Vec<Wire> = (0..2 + random.below(2))
            .map(|_| {
                let (ipv4, ipv6) = (!random.once_in(5), !random.once_in(4));
                // IPv6 without a link-local address (RFC 4291, 2.1, wants one) resolves neighbours by luck: the solicitation needs
                // a source of that interface, and the first waiting packet may have another one's.
                Wire { ipv4, ipv6, link_local: ipv6 || random.once_in(2) }
            })
            .collect();
        let mut script = String::new();
        let mut addresses = vec!["127.0.0.1".to_owned(), "::1".to_owned()];
        let mut zones = Vec::new();
        let far: Vec<(String, Netns)> = (0..wires.len()).map(|i| (format!("w{i}"), Netns::new())).collect();
        for (i, (wire, other)) in far.iter().enumerate() {
            for ns in [&ns, other] {
                prepare(ns);
            }
            ns.wire(wire, other, "far");
            let mut add = |address: String, device: &str| {
                let nodad = if address.contains(':') { " nodad" } else { "" };
                let _ = writeln!(script, "address add {address} dev {device}{nodad}");
                let bare = address.split('/').next().unwrap().to_owned();
                if !bare.starts_with("fe80") {
                    addresses.push(bare);
                }
            };
            if wires[i].ipv4 {
                add(format!("10.{i}.0.1/24"), wire);
                if random.once_in(3) {
                    add(format!("10.{i}.9.1/24"), wire);
                }
            }
            if wires[i].ipv6 {
                add(format!("fd0{i}::1/64"), wire);
            }
            if wires[i].link_local {
                add(format!("fe80::{i}:1/64"), wire);
                zones.push((format!("fe80::{i}:1"), ns.index(wire)));
                if random.once_in(2) {
                    add(format!("{SAME}/64"), wire);
                    zones.push((SAME.to_owned(), ns.index(wire)));
                }
            }
        }
        if random.once_in(2) {
            script.push_str("address add 10.77.0.1/32 dev lo\naddress add fd77::1/128 dev lo nodad\n");
            addresses.extend(["10.77.0.1".to_owned(), "fd77::1".to_owned()]);
        }
        if random.once_in(3) {
            script.push_str("route add local 198.51.100.0/24 dev lo\n");
            addresses.push("198.51.100.1".to_owned());
        }
        if random.once_in(3) {
            script.push_str("route add local 2001:db8:51::/64 dev lo\n");
        }
        if random.once_in(3) {
            // A wire that is down keeps its IPv4 address.
            script.push_str("link add down0 type veth peer name down1\naddress add 10.66.0.1/24 dev down0\n");
            addresses.push("10.66.0.1".to_owned());
        }
        if random.once_in(4) {
            // A bridge is the interface that counts, not its port.
            script.push_str("link add br0 type bridge\nlink set br0 up\n");
            script.push_str("link add port0 type veth peer name port1\nlink set port0 master br0 up\n");
            script.push_str("address add 10.88.0.1/24 dev br0\n");
            addresses.push("10.88.0.1".to_owned());
        }
        batch(&ns, &script);
        if random.once_in(3) {
            let which = if random.once_in(2) { "all".to_owned() } else { "w0".to_owned() };
            ns.sysctl(&format!("net.ipv4.conf.{which}.route_localnet"), "1");
            let _ = writeln!(script, "route_localnet {which}");
        }
        if random.once_in(5) {
            ns.sysctl("net.ipv6.conf.w1.disable_ipv6", "1");
            addresses.retain(|address| address != "fd01::1");
            zones.retain(|&(_, zone)| zone != ns.index("w1"));
            script.push_str("disable_ipv6 w1\n");
        }
        if random.once_in(6) {
            ns.sysctl("net.ipv6.conf.lo.disable_ipv6", "1");
            addresses.retain(|address| address != "::1" && address != "fd77::1");
            script.push_str("disable_ipv6 lo\n");
        }
        for (i, (wire, other)) in far.iter().enumerate() {
            let link = ns.output(Command::new("ip").args(["-o", "link", "show", wire]));
            let link = String::from_utf8(link.stdout).unwrap();
            let mac = link.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
            prepare_far(other, i, wires[i], &addresses, mac);
        }
        for ns in far.iter().map(|(_, far)| far).chain([&ns]) {
            settle(ns);
        }
        RandomHost { ns, far, addresses, zones, script }
    }

    pub fn describe(&self) -> String {
        self.script.clone()
    }

    /// Sockets on a few ports, more than fit beside each other.
    pub fn sockets(&self, random: &mut Random) -> Vec<SocketSpec> {
        let wires: Vec<&str> = self.far.iter().map(|(wire, _)| wire.as_str()).collect();
        let count = 2 + random.below(9);
        let reuse_port = random.once_in(3);
        (0..count)
            .map(|number| {
                let protocol = if random.once_in(3) { Protocol::Udp } else { Protocol::Tcp };
                let mut zone = 0;
                let address = match random.below(9) {
                    0 => "0.0.0.0".to_owned(),
                    1 | 2 => "::".to_owned(),
                    3 => "::ffff:0.0.0.0".to_owned(),
                    4 => {
                        let v4: Vec<_> = self.addresses.iter().filter(|a| !a.contains(':')).collect();
                        format!("::ffff:{}", random.pick(&v4))
                    }
                    5 if !self.zones.is_empty() => {
                        let (address, id) = random.pick(&self.zones).clone();
                        zone = id;
                        address
                    }
                    _ => random.pick(&self.addresses).clone(),
                };
                let port = 4000 + u16::try_from(random.below(3)).unwrap();
                let mut spec = spec(protocol, &address, port);
                spec.listener = number.to_string();
                spec.scope_id = zone;
                let mapped = spec.address.is_ipv6() && spec.address.to_canonical().is_ipv4();
                if !mapped && random.once_in(2) {
                    spec.v6only = V6Only::On;
                }
                if random.once_in(3) {
                    let device = if random.once_in(6) { "lo" } else { *random.pick(&wires) };
                    spec.device = Some(IfName::from(device));
                }
                spec.reuse_address = random.once_in(3);
                spec.reuse_port = if reuse_port { !random.once_in(3) } else { random.once_in(8) };
                spec
            })
            .collect()
    }
}

/// The other end of a wire: it finds the way to every address of the host, loopback ones among them.
fn prepare_far(far: &Netns, number: usize, near: Wire, addresses: &[String], mac: &str) {
    let mut script = String::new();
    let _ = writeln!(script, "address add 10.{number}.0.2/24 dev far");
    // An ordinary neighbour has an address of a network that is there.
    if near.ipv6 {
        let _ = writeln!(script, "address add fd0{number}::2/64 dev far nodad");
    }
    let _ = writeln!(script, "address add fe80::{number}:2/64 dev far nodad");
    // 127.0.0.1 and ::1 of the host, not its own.
    script.push_str("address del 127.0.0.1/8 dev lo\naddress del ::1/128 dev lo\n");
    let ways4 = if near.ipv4 { format!("via 10.{number}.0.1") } else { "dev far".to_owned() };
    let ways6 = if near.ipv6 {
        format!("via fd0{number}::1")
    } else if near.link_local {
        format!("via fe80::{number}:1 dev far")
    } else {
        "dev far".to_owned()
    };
    for address in addresses.iter().map(String::as_str).chain(["198.51.100.1", "2001:db8:51::1"]) {
        let own = [format!("10.{number}.0.1"), format!("fd0{number}::1")].iter().any(|own| own == address);
        if !own {
            let (bits, ways) = if address.contains(':') { (128, &ways6) } else { (32, &ways4) };
            let _ = writeln!(script, "route replace {address}/{bits} {ways}");
            if bits == 128 && !near.ipv6 && !near.link_local {
                // No host there answers neighbour solicitations, and yet packets arrive.
                let _ = writeln!(script, "neighbour replace {address} lladdr {mac} dev far nud permanent");
            }
        }
    }
    for name in ["all", "far"] {
        far.sysctl(&format!("net.ipv4.conf.{name}.route_localnet"), "1");
    }
    batch(far, &script);
}

/// A socket without options.
pub fn spec(protocol: Protocol, address: &str, port: u16) -> SocketSpec {
    SocketSpec {
        listener: "x".into(),
        v6only: V6Only::Off,
        backlog: 1024,
        ..SocketSpec::plain(protocol, address.parse().unwrap(), port)
    }
}

/// Turns off what would hide an answer: limits of ICMP errors, rp_filter, and generated link-local addresses.
pub fn prepare(ns: &Netns) {
    for (name, value) in [
        ("net.ipv6.conf.default.addr_gen_mode", "1"),
        ("net.ipv4.icmp_ratelimit", "0"),
        ("net.ipv6.icmp.ratelimit", "0"),
        ("net.ipv4.icmp_msgs_per_sec", "1000000"),
        ("net.ipv4.icmp_msgs_burst", "1000000"),
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
    ] {
        ns.sysctl(name, value);
    }
}
