//! Hosts with VRFs, where the kernel has them: each has a table of addresses of its own.

use std::fmt::Write as _;
use std::process::Command;

use bindscope::model::{IfName, Protocol, SocketSpec, V6Only};

use crate::host::{batch, spec};
use crate::support::netns::Netns;
use crate::support::random::{Random, portion};
use crate::support::snapshot::settle;
use crate::{compare, describe};

const HOSTS: usize = 20;

/// Whether VRFs can be made. When not, that is said; with `BINDSCOPE_REQUIRE_VRF` set it fails the test.
pub fn available() -> bool {
    let output = Netns::new().output(Command::new("ip").args("link add blue type vrf table 10".split(' ')));
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        eprintln!("not tested: this kernel makes no VRF: {}", said.trim());
        assert!(std::env::var_os("BINDSCOPE_REQUIRE_VRF").is_none(), "VRFs are required");
    }
    output.status.success()
}

/// A host with a wire outside of VRFs and two in VRFs, which have addresses in common.
struct VrfHost {
    ns: Netns,
    far: Vec<(String, Netns)>,
    /// Without those that need a zone.
    addresses: Vec<&'static str>,
    script: String,
}

const WIRES: [(&str, &str); 3] = [("w0", ""), ("w1", "blue"), ("w2", "red")];

impl VrfHost {
    fn new(random: &mut Random) -> VrfHost {
        let ns = Netns::new();
        let far: Vec<_> = WIRES.iter().map(|(name, _)| ((*name).to_owned(), Netns::new())).collect();
        let mut script = String::new();
        for (wire, other) in &far {
            ns.wire(wire, other, "far");
        }
        script.push_str("link add blue type vrf table 10\nlink add red type vrf table 20\n");
        script
            .push_str("link set blue up\nlink set red up\nlink set w1 master blue\nlink set w2 master red\n");
        let mut addresses = vec!["127.0.0.1", "::1"];
        let mut add = |address: &'static str, prefix: u8, device: &str, script: &mut String| {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            let _ = writeln!(script, "address add {address}/{prefix} dev {device}{nodad}");
            addresses.push(address);
        };
        add("10.0.0.1", 24, "w0", &mut script);
        add("fd00::1", 64, "w0", &mut script);
        add("10.1.0.1", 24, "w1", &mut script);
        add("fd01::1", 64, "w1", &mut script);
        // The same network twice is what VRFs are for.
        add("10.1.0.1", 24, "w2", &mut script);
        add("fd02::1", 64, "w2", &mut script);
        if random.once_in(2) {
            add("10.77.0.1", 32, "blue", &mut script);
            add("fd77::1", 128, "blue", &mut script);
        }
        if random.once_in(2) {
            add("10.78.0.1", 32, "lo", &mut script);
        }
        if random.once_in(3) {
            add("10.0.0.1", 24, "w2", &mut script);
        }
        batch(&ns, &script);
        // Refusals of datagrams are told by ICMP, which is not to be scarce.
        ns.sysctl("net.ipv4.icmp_ratelimit", "0");
        ns.sysctl("net.ipv6.icmp.ratelimit", "0");
        for setting in ["tcp_l3mdev_accept", "udp_l3mdev_accept"] {
            if random.once_in(2) {
                ns.sysctl(&format!("net.ipv4.{setting}"), "1");
                let _ = writeln!(script, "{setting} 1");
            }
        }
        if random.once_in(3) {
            let which = *random.pick(&["all", "w1", "blue"]);
            ns.sysctl(&format!("net.ipv4.conf.{which}.route_localnet"), "1");
            let _ = writeln!(script, "route_localnet {which}");
        }
        addresses.sort_unstable();
        addresses.dedup();
        for (number, (_, other)) in far.iter().enumerate() {
            let mut there = format!("address add 10.{}.0.2/24 dev far\n", number.min(1));
            let _ = writeln!(there, "address add fd0{number}::2/64 dev far nodad");
            // 127.0.0.1 and ::1 of the host, not its own.
            there.push_str("address del 127.0.0.1/8 dev lo\naddress del ::1/128 dev lo\n");
            for name in ["all", "far"] {
                other.sysctl(&format!("net.ipv4.conf.{name}.route_localnet"), "1");
            }
            for address in &addresses {
                let (bits, way) = if address.contains(':') {
                    (128, format!("via fd0{number}::1"))
                } else {
                    (32, format!("via 10.{}.0.1", number.min(1)))
                };
                if !way.ends_with(&format!(" {address}")) {
                    let _ = writeln!(there, "route replace {address}/{bits} {way}");
                }
            }
            batch(other, &there);
            settle(other);
        }
        settle(&ns);
        VrfHost { ns, far, addresses, script }
    }

    fn sockets(&self, random: &mut Random) -> Vec<SocketSpec> {
        let count = 2 + random.below(10);
        (0..count)
            .map(|number| {
                let protocol = if random.once_in(3) { Protocol::Udp } else { Protocol::Tcp };
                let address = match random.below(6) {
                    0 => "0.0.0.0",
                    1 | 2 => "::",
                    3 => "::ffff:10.1.0.1",
                    _ => random.pick(&self.addresses),
                };
                let mut spec = spec(protocol, address, 4000 + u16::try_from(random.below(3)).unwrap());
                spec.listener = number.to_string();
                if address != "::ffff:10.1.0.1" && random.once_in(2) {
                    spec.v6only = V6Only::On;
                }
                if !random.once_in(3) {
                    let devices = ["blue", "blue", "red", "w0", "w1", "w2", "lo"];
                    spec.device = Some(IfName::from(*random.pick(&devices)));
                }
                spec.reuse_address = random.once_in(4);
                spec.reuse_port = random.once_in(6);
                spec
            })
            .collect()
    }
}

pub fn random_hosts() {
    if !available() {
        return;
    }
    let mut random = Random::seeded("hosts_with_vrfs");
    let (mut cells, mut accepted) = (0, 0);
    let mut wrong = String::new();
    let hosts = portion(HOSTS).max(3);
    for number in 0..hosts {
        let host = VrfHost::new(&mut random);
        let specs = host.sockets(&mut random);
        let result = compare(&host.ns, &host.far, &specs);
        cells += result.cells;
        accepted += result.accepted;
        if !result.wrong.is_empty() {
            let _ = writeln!(
                wrong,
                "host {number}: {} of {} cells differ from the kernel\n{}\n{}\n{}",
                result.wrong.len(),
                result.cells,
                host.script,
                describe(&specs),
                result.wrong.iter().take(12).cloned().collect::<String>(),
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(accepted * 50 > cells, "too few of the {cells} cells are accepted to prove anything: {accepted}");
    eprintln!("{hosts} hosts with VRFs, {cells} cells, {accepted} accepted");
}
