//! Random hosts whose answers take different ways: policy rules, several tables, `rp_filter`, links that share a subnet, addresses
//! that neighbours cannot resolve. Clients are on each link, and beyond the routers of each link.

use std::fmt::Write as _;

use bindscope::model::{Family, IfName, Protocol, Snapshot, SocketSpec, V6Only};
use bindscope::plan::clients::Clients;
use bindscope::plan::local_table::LocalAddresses;

use crate::fib::try_batch;
use crate::foreign::Others;
use crate::host::{batch, spec};
use crate::support::netns::Netns;
use crate::support::random::Random;
use crate::support::snapshot::settle;

/// A host with its links, a client at the far end of each, and clients beyond.
pub struct RoutedHost {
    pub ns: Netns,
    pub far: Vec<(String, Netns)>,
    pub beyond: Vec<(String, Netns)>,
    addresses: Vec<String>,
    pub script: String,
}

const FIRST_PORT: u16 = 4000;

/// A next hop for which the link-layer address is given: no host has it.
const GIVEN: [&str; 2] = ["169.254.255.254", "fe80::ffff:ffff:ffff:fffe"];

impl RoutedHost {
    pub fn new(random: &mut Random) -> RoutedHost {
        let mut host = RoutedHost::bare(2 + random.below(2));
        host.addresses(random);
        host.routes(random);
        host.rules(random);
        try_batch(&host.ns, &host.script);
        host.settings(random);
        host.finish();
        host
    }

    /// A host with this network, whose lines must succeed, and with these settings.
    pub fn of_script(links: usize, script: &str, settings: &[(&str, &str)]) -> RoutedHost {
        let mut host = RoutedHost::bare(links);
        batch(&host.ns, script);
        for (name, value) in settings {
            host.ns.sysctl(name, value);
        }
        host.finish();
        host
    }

    /// A host with links that have no addresses yet.
    fn bare(links: usize) -> RoutedHost {
        let ns = Netns::new();
        let far: Vec<(String, Netns)> = (0..links).map(|i| (format!("w{i}"), Netns::new())).collect();
        for (link, other) in &far {
            for one in [&ns, other] {
                crate::host::prepare(one);
                // A request for a link-layer address would teach the neighbours the address that an answer comes from.
                one.sysctl("net.ipv4.conf.all.arp_announce", "2");
            }
            ns.wire(link, other, "far");
        }
        RoutedHost { ns, far, beyond: Vec::new(), addresses: Vec::new(), script: String::new() }
    }

    /// Gives the clients their addresses.
    fn finish(&mut self) {
        settle(&self.ns);
        let snapshot = self.ns.run(bindscope::sys::snapshot).unwrap();
        self.clients(&snapshot);
        for ns in self.far.iter().chain(&self.beyond).map(|(_, ns)| ns).chain([&self.ns]) {
            settle(ns);
        }
    }

    /// Sockets of another program on the ports of [`RoutedHost::sockets`].
    pub fn others(&self, random: &mut Random) -> Others {
        Others::new(&self.ns, &self.addresses, FIRST_PORT, random)
    }

    fn add(&mut self, address: &str, words: &str) {
        let _ = writeln!(self.script, "address add {address} {words}");
        self.addresses.push(address.split('/').next().unwrap().to_owned());
    }

    fn addresses(&mut self, random: &mut Random) {
        for i in 0..self.far.len() {
            let route = if random.once_in(5) { " noprefixroute" } else { "" };
            self.add(&format!("10.{i}.0.1/24"), &format!("dev w{i}{route}"));
            let _ = writeln!(self.script, "address add fe80::{i}:1/64 dev w{i} nodad");
            if !random.once_in(4) {
                let route = if random.once_in(6) { " noprefixroute" } else { "" };
                self.add(&format!("fd0{i}::1/64"), &format!("dev w{i} nodad{route}"));
            }
            if random.once_in(3) {
                self.add(&format!("10.{i}.0.11/24"), &format!("dev w{i} label w{i}:1"));
            }
            if random.once_in(6) {
                self.add(&format!("169.254.7.{}/16", i + 1), &format!("dev w{i}"));
            }
        }
        if random.once_in(4) {
            self.add("10.0.0.3/24", "dev w1");
        }
        if random.once_in(5) {
            self.add("fd00::3/64", "dev w1 nodad");
        }
        if random.once_in(3) {
            self.add("10.0.0.200/32", "dev lo");
            self.add("fd00::200/128", "dev lo nodad");
        }
        if random.once_in(4) {
            self.add("10.77.0.1/32", "dev lo");
        }
        if random.once_in(5) {
            self.script.push_str("link add br0 type bridge\nlink set br0 up\n");
            self.script.push_str("link add port0 type veth peer name port1\nlink set port0 master br0 up\n");
            self.add("10.88.0.1/24", "dev br0");
        }
        if random.once_in(5) {
            self.script.push_str("link add mv0 link w0 type macvlan mode bridge\nlink set mv0 up\n");
            self.add("10.99.0.1/24", "dev mv0");
        }
        if random.once_in(6) {
            self.script.push_str("tuntap add dev tun0 mode tun\nlink set tun0 up\n");
            self.add("10.66.0.1/24", "dev tun0");
        }
        if random.once_in(5) {
            self.script.push_str("link property add dev w0 altname first-link\n");
        }
        if random.once_in(4) {
            self.script.push_str("route add local 198.51.100.0/24 dev lo\n");
            self.addresses.push("198.51.100.1".to_owned());
        }
    }

    /// The words of a next hop on a random link, as clients there have it.
    fn hop(&self, random: &mut Random, ipv4: bool) -> String {
        let i = random.below(self.far.len());
        if ipv4 { format!("via 10.{i}.0.254 dev w{i} onlink") } else { format!("via fe80::fe dev w{i}") }
    }

    fn routes(&mut self, random: &mut Random) {
        for ipv4 in [true, false] {
            let everywhere = if ipv4 { "0.0.0.0/0" } else { "::/0" };
            if !random.once_in(4) {
                let hop = self.hop(random, ipv4);
                let metric = if random.once_in(3) { " metric 100" } else { "" };
                let _ = writeln!(self.script, "route add {everywhere} {hop}{metric}");
            }
            if random.once_in(4) {
                let hop = self.hop(random, ipv4);
                let _ = writeln!(self.script, "route add {everywhere} {hop} metric 200");
            }
            for table in [100, 200] {
                if random.once_in(2) {
                    let hop = self.hop(random, ipv4);
                    let _ = writeln!(self.script, "route add {everywhere} {hop} table {table}");
                }
            }
            for _ in 0..random.below(4) {
                let i = random.below(self.far.len());
                let net = if ipv4 {
                    format!("10.{i}.0.0/{}", random.pick(&[24, 25, 28]))
                } else {
                    format!("fd0{i}::/64")
                };
                let table = random.pick(&["main", "100", "200"]);
                let words = match random.below(6) {
                    0 => format!("unreachable {net} metric 50"),
                    1 => format!("prohibit {net} metric 50"),
                    2 => format!("blackhole {net} metric 50"),
                    3 => format!("throw {net} metric 50"),
                    _ => format!(
                        "{net} dev w{} metric {}",
                        random.below(self.far.len()),
                        random.pick(&[10, 300])
                    ),
                };
                let _ = writeln!(self.script, "route append {words} table {table}");
            }
        }
    }

    fn rules(&mut self, random: &mut Random) {
        if random.once_in(3) {
            return;
        }
        for number in 0..1 + random.below(4) {
            let ipv4 = !random.once_in(3);
            let i = random.below(self.far.len());
            let net = if ipv4 { format!("10.{i}.0.0/24") } else { format!("fd0{i}::/64") };
            let all = if ipv4 { "0.0.0.0/0" } else { "::/0" };
            let selector = match random.below(12) {
                0 => format!("from {net}"),
                1 => format!("to {net}"),
                2 => format!("from {all} ipproto tcp sport 4001"),
                3 => format!("from {all} ipproto udp"),
                4 => format!("from {all} uidrange 0-0"),
                5 => format!("from {all} uidrange 1000-2000"),
                6 => format!("from {all} fwmark 1"),
                7 => format!("from {all} iif lo"),
                8 => format!("not from {all} fwmark 51820"),
                9 => format!("from {all} oif w{i}"),
                10 => format!("from {net} iif w{i}"),
                _ => format!("not from {net}"),
            };
            let action = match random.below(9) {
                0 => "unreachable".to_owned(),
                1 => "prohibit".to_owned(),
                2 => "blackhole".to_owned(),
                3 => "nop".to_owned(),
                4 => "goto 32766".to_owned(),
                5 => "table main suppress_prefixlength 0".to_owned(),
                _ => format!("table {}", random.pick(&["100", "200", "main"])),
            };
            let _ = writeln!(self.script, "rule add {selector} priority {} {action}", 100 + 10 * number);
        }
    }

    fn settings(&mut self, random: &mut Random) {
        let mut set = |host: &mut RoutedHost, name: &str, values: &[&str], odds: usize| {
            for which in ["all", "w0", "w1"] {
                if random.once_in(odds) {
                    let value = *random.pick(values);
                    host.ns.sysctl(&format!("net.ipv4.conf.{which}.{name}"), value);
                    let _ = writeln!(host.script, "{which}.{name} {value}");
                }
            }
        };
        set(self, "rp_filter", &["1", "1", "2"], 7);
        set(self, "arp_ignore", &["1", "1", "2"], 10);
        set(self, "arp_filter", &["1"], 40);
        set(self, "route_localnet", &["1"], 10);
    }

    /// Gives the far ends the addresses that a plan takes for those of clients, and routes to all of the host.
    fn clients(&mut self, snapshot: &Snapshot) {
        let local = LocalAddresses::new(snapshot);
        let clients = Clients::new(snapshot, &local);
        for (link, far) in &self.far {
            let interface = snapshot.interface_named(&IfName::from(link.as_str())).unwrap();
            let found = clients.on_link(interface);
            let mac = interface.mac.clone().unwrap();
            // A macvlan interface and its parent both answer for every address: there the link-layer address is given.
            let shared = snapshot.interfaces.iter().any(|other| other.link == Some(interface.index));
            let mut script = String::new();
            script.push_str("address del 127.0.0.1/8 dev lo\naddress del ::1/128 dev lo\n");
            let own: Vec<_> = found.own.iter().map(ipnet::IpNet::addr).collect();
            let gateways = found.gateways.iter().filter(|gateway| !own.contains(gateway));
            for net in found.own.iter().copied().chain(gateways.map(|gateway| ipnet::IpNet::from(*gateway))) {
                let link_local = net.to_string().starts_with("fe80");
                let net = if shared && !link_local { ipnet::IpNet::from(net.addr()) } else { net };
                let nodad = if net.addr().is_ipv6() { " nodad" } else { "" };
                let _ = writeln!(script, "address add {net} dev far{nodad}");
            }
            for (side, given) in GIVEN.iter().enumerate() {
                let _ = writeln!(script, "neighbour replace {given} lladdr {mac} dev far nud permanent");
                let via = found.by_way_of[side]
                    .filter(|_| !shared)
                    .map_or_else(|| (*given).to_owned(), |via| via.to_string());
                let all = if side == 0 { "0.0.0.0/0" } else { "::/0" };
                let source = if side == 0 { format!(" src {}", own[0]) } else { String::new() };
                let _ = writeln!(script, "route replace {all} via {via} dev far onlink{source}");
                let networks = found.own.iter().filter(|net| {
                    shared && net.addr().is_ipv6() == (side == 1) && net.prefix_len() < net.max_prefix_len()
                });
                for net in networks.filter(|net| !net.to_string().starts_with("fe80")) {
                    let (to, from) = (net.trunc(), net.addr());
                    let _ = writeln!(script, "route replace {to} via {given} dev far onlink src {from}");
                }
            }
            batch(far, &script);
            for name in ["all", "far"] {
                far.sysctl(&format!("net.ipv4.conf.{name}.route_localnet"), "1");
                far.sysctl(&format!("net.ipv4.conf.{name}.send_redirects"), "0");
            }
            for family in ["ipv4", "ipv6"] {
                far.sysctl(&format!("net.{family}.neigh.far.retrans_time_ms"), "50");
                far.sysctl(&format!("net.{family}.conf.all.forwarding"), "1");
            }
            let outside: Vec<_> = Family::BOTH
                .into_iter()
                .filter_map(|family| clients.beyond(interface, family).map(|(client, _)| client))
                .collect();
            if outside.is_empty() {
                continue;
            }
            let beyond = Netns::new();
            beyond.sysctl("net.ipv6.conf.default.addr_gen_mode", "1");
            beyond.wire("far", far, "up0");
            let output = far.output(std::process::Command::new("ip").args(["-o", "link", "show", "up0"]));
            let text = String::from_utf8(output.stdout).unwrap();
            let router = text.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
            let output = beyond.output(std::process::Command::new("ip").args(["-o", "link", "show", "far"]));
            let text = String::from_utf8(output.stdout).unwrap();
            let mac = text.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
            let (mut there, mut here) = (String::new(), String::new());
            for client in outside {
                let side = usize::from(client.is_ipv6());
                let nodad = if client.is_ipv6() { " nodad" } else { "" };
                let (given, all) = (GIVEN[side], if side == 0 { "0.0.0.0/0" } else { "::/0" });
                let net = ipnet::IpNet::from(client);
                let _ = writeln!(there, "address add {net} dev far{nodad}");
                let _ = writeln!(there, "neighbour replace {given} lladdr {router} dev far nud permanent");
                let _ = writeln!(there, "route replace {all} via {given} dev far onlink");
                let _ = writeln!(here, "neighbour replace {client} lladdr {mac} dev up0 nud permanent");
                let _ = writeln!(here, "route replace {net} dev up0");
            }
            batch(&beyond, &there);
            batch(far, &here);
            self.beyond.push((link.clone(), beyond));
        }
    }

    /// A few sockets on two ports.
    pub fn sockets(&self, random: &mut Random) -> Vec<SocketSpec> {
        let links: Vec<&str> = self.far.iter().map(|(link, _)| link.as_str()).collect();
        (0..2 + random.below(4))
            .map(|number| {
                let protocol = if random.once_in(4) { Protocol::Udp } else { Protocol::Tcp };
                let address = match random.below(4) {
                    0 => "0.0.0.0".to_owned(),
                    1 => "::".to_owned(),
                    _ => random.pick(&self.addresses).clone(),
                };
                let port = FIRST_PORT + u16::try_from(random.below(2)).unwrap();
                let mut spec = spec(protocol, &address, port);
                spec.listener = number.to_string();
                spec.reuse_address = random.once_in(3);
                spec.reuse_port = random.once_in(6);
                if random.once_in(2) {
                    spec.v6only = V6Only::On;
                }
                if random.once_in(12) {
                    spec.device = Some(IfName::from(*random.pick(&links)));
                }
                spec
            })
            .collect()
    }
}
