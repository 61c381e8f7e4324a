//! Hosts as they are built in practice, each with the one setting that decides: every result is tried.

use std::fmt::Write as _;

use bindscope::model::{IfName, Protocol, SocketSpec, V6Only};

use crate::host::spec;
use crate::routed::RoutedHost;
use crate::{compare_with, describe};

/// A name, and the lines that are added to a host with two links and a default route over the first: words of ip(8), or of sysctl.
type Situation = (&'static str, &'static [&'static str]);

const TO_W1: &str = "route add 0.0.0.0/0 via 10.1.0.254 dev w1 onlink table 77";
const TO_W1_IPV6: &str = "route add ::/0 via fe80::fe dev w1 table 77";

/// Those in which every result is predicted.
const CERTAIN: &[Situation] = &[
    ("a rule for what arrives", &["rule add iif w0 table 77", TO_W1]),
    ("a rule for what is sent", &["rule add iif lo table 77", TO_W1]),
    ("a rule for UDP", &["rule add from 0.0.0.0/0 ipproto udp table 77", TO_W1]),
    ("a rule for a range of ports", &["rule add from 0.0.0.0/0 ipproto tcp sport 3990-4000 table 77", TO_W1]),
    ("a rule for an IPv6 port", &["rule add from ::/0 ipproto tcp sport 4000 table 77", TO_W1_IPV6]),
    ("a rule for root", &["rule add from 0.0.0.0/0 uidrange 0-0 table 77", TO_W1]),
    ("a rule for other users", &["rule add from 0.0.0.0/0 uidrange 1000-2000 unreachable"]),
    ("a rule for an IPv6 source", &["rule add from fd00::/64 unreachable"]),
    (
        "IPv6 routes by source",
        &[
            "route del ::/0 via fe80::fe dev w0",
            "route add ::/0 from fd01::/64 via fe80::fe dev w1",
            "route add ::/0 from fd00::/64 via fe80::fe dev w0",
        ],
    ),
    (
        "two defaults with metrics and a table for the second address",
        &[
            "route add 0.0.0.0/0 via 10.1.0.254 dev w1 onlink metric 600",
            "rule add from 10.1.0.1 table 77 priority 100",
            TO_W1,
        ],
    ),
    (
        "two next hops on one link",
        &[
            "route replace 0.0.0.0/0 nexthop via 10.0.0.254 dev w0 onlink nexthop via 10.0.0.253 dev w0 onlink",
        ],
    ),
    ("a prohibited IPv6 default", &["route del ::/0 via fe80::fe dev w0", "route add prohibit ::/0"]),
    ("strict rp_filter on the second link", &["sysctl net.ipv4.conf.w1.rp_filter 1"]),
    ("strict rp_filter on all links", &["sysctl net.ipv4.conf.all.rp_filter 1"]),
    ("loose rp_filter without a default", &["route del 0.0.0.0/0", "sysctl net.ipv4.conf.all.rp_filter 2"]),
    (
        "rp_filter with a rule for unmarked packets",
        &["rule add from 0.0.0.0/0 fwmark 0/0xff table 77", TO_W1, "sysctl net.ipv4.conf.w1.rp_filter 1"],
    ),
    (
        "src_valid_mark without marks",
        &[
            "rule add not from 0.0.0.0/0 fwmark 51820 table 77",
            TO_W1,
            "sysctl net.ipv4.conf.all.rp_filter 1",
            "sysctl net.ipv4.conf.all.src_valid_mark 1",
        ],
    ),
    (
        "wg-quick for all destinations",
        &[
            "tuntap add dev tun0 mode tun",
            "link set tun0 up",
            "address add 10.66.0.2/32 dev tun0",
            "rule add not from 0.0.0.0/0 fwmark 51820 table 51820",
            "route add 0.0.0.0/0 dev tun0 table 51820",
            "rule add from 0.0.0.0/0 table main suppress_prefixlength 0",
            "rule add not from ::/0 fwmark 51820 table 51820",
            "route add ::/0 dev tun0 table 51820",
            "rule add from ::/0 table main suppress_prefixlength 0",
        ],
    ),
    ("noprefixroute", &["address del 10.1.0.1/24 dev w1", "address add 10.1.0.1/24 dev w1 noprefixroute"]),
    (
        "noprefixroute with a route of its own",
        &[
            "address del 10.1.0.1/24 dev w1",
            "address add 10.1.0.1/24 dev w1 noprefixroute",
            "route add 10.1.0.0/24 dev w1 metric 700",
        ],
    ),
    (
        "a connected route with a worse metric",
        &[
            "address del 10.0.0.1/24 dev w0",
            "address add 10.0.0.1/24 dev w0 metric 500",
            "route add 10.0.0.0/24 dev w1 metric 100",
        ],
    ),
    (
        "an address of 32 bits with a gateway on the link",
        &[
            "address del 10.0.0.1/24 dev w0",
            "address add 10.0.0.1/32 dev w0",
            "route add 10.0.0.254/32 dev w0",
            "route add 0.0.0.0/0 via 10.0.0.254 dev w0",
        ],
    ),
    ("a floating address", &["address add 10.0.0.100/32 dev w0", "address add fd00::100/128 dev w0 nodad"]),
    (
        "a virtual server address on lo",
        &[
            "address add 10.0.0.100/32 dev lo",
            "sysctl net.ipv4.conf.all.arp_ignore 1",
            "sysctl net.ipv4.conf.all.arp_announce 2",
        ],
    ),
    ("anycast on lo", &["address add 192.0.2.53/32 dev lo", "address add 2001:db8:53::53/128 dev lo nodad"]),
    ("AnyIP", &["route add local 192.0.2.128/25 dev lo", "route add local 2001:db8:9::/64 dev lo"]),
    (
        "rules for an interface in place of a VRF",
        &[
            "rule add iif w1 table 77 priority 50",
            "rule add oif w1 table 77 priority 51",
            "route add 10.1.0.0/24 dev w1 table 77",
            TO_W1,
        ],
    ),
    ("a rule for the interface of the socket", &["rule add from ::/0 oif w1 unreachable"]),
    ("a throw route", &["rule add from 0.0.0.0/0 table 77", "route add throw 10.1.0.0/24 table 77", TO_W1]),
    (
        "goto",
        &["rule add from 0.0.0.0/0 priority 200 prohibit", "rule add from 0.0.0.0/0 priority 100 goto 32766"],
    ),
    (
        "suppress_ifgroup",
        &[
            "link set w0 group 9",
            "rule add from 0.0.0.0/0 priority 100 table main suppress_ifgroup 9",
            "rule add from 0.0.0.0/0 priority 200 table 77",
            TO_W1,
        ],
    ),
    (
        "a next hop object",
        &["nexthop add id 7 via 10.0.0.254 dev w0 onlink", "route replace 0.0.0.0/0 nhid 7"],
    ),
    ("a blackhole next hop", &["nexthop add id 7 blackhole", "route replace 0.0.0.0/0 nhid 7"]),
    ("an address of this host as the gateway", &["route replace 0.0.0.0/0 via 10.0.0.1 dev w0"]),
    ("an IPv6 gateway for IPv4", &["route replace 0.0.0.0/0 via inet6 fe80::fe dev w0"]),
    ("a peer address", &["address del 10.1.0.1/24 dev w1", "address add 10.1.0.1 peer 10.1.0.7 dev w1"]),
    ("a network of two addresses", &["address del 10.1.0.1/24 dev w1", "address add 10.1.0.0/31 dev w1"]),
    ("a better IPv6 metric over the second link", &["route add ::/0 via fe80::fe dev w1 metric 10"]),
    (
        "a rule of a transparent proxy",
        &["rule add from 0.0.0.0/0 fwmark 1 table 100", "route add local 0.0.0.0/0 dev lo table 100"],
    ),
    ("a rule for a type of service", &["rule add from 0.0.0.0/0 tos 0x10 table 77", TO_W1]),
    ("route_localnet", &["sysctl net.ipv4.conf.all.route_localnet 1"]),
    ("no IPv6 on the second link", &["sysctl net.ipv6.conf.w1.disable_ipv6 1"]),
    ("arp_filter", &["sysctl net.ipv4.conf.all.arp_filter 1"]),
    ("arp_ignore 2", &["sysctl net.ipv4.conf.all.arp_ignore 2"]),
    (
        "a bridge over the first link",
        &[
            "address del 10.0.0.1/24 dev w0",
            "link add br0 type bridge",
            "link set br0 up",
            "link set w0 master br0",
            "address add 10.0.0.1/24 dev br0",
        ],
    ),
    ("a deprecated address", &["address add fd00::dd/64 dev w0 preferred_lft 0 valid_lft 3600 nodad"]),
    ("accept_local", &["sysctl net.ipv4.conf.all.accept_local 1", "sysctl net.ipv4.conf.all.rp_filter 1"]),
    ("IPv4 link-local", &["address add 169.254.10.10/16 dev w0"]),
    (
        "banned clients",
        &[
            "route add blackhole 10.0.0.77/32",
            "route add prohibit 198.18.9.0/24",
            "rule add to 198.18.8.0/24 unreachable",
        ],
    ),
];

/// Those in which some results depend on what the snapshot does not have.
const UNCERTAIN: &[Situation] = &[
    ("a rule for the port of clients", &["rule add from 0.0.0.0/0 ipproto tcp dport 1-1023 prohibit"]),
    (
        "next hops on two links",
        &[
            "route replace 0.0.0.0/0 nexthop via 10.0.0.254 dev w0 onlink nexthop via 10.1.0.254 dev w1 onlink",
        ],
    ),
    ("arp_ignore 8", &["sysctl net.ipv4.conf.w0.arp_ignore 8"]),
    (
        "the table local after another rule",
        &[
            "rule add from 0.0.0.0/0 table local priority 1000",
            "rule del from 0.0.0.0/0 table local priority 0",
            "rule add from 10.0.0.0/24 table 77 priority 500",
            TO_W1,
        ],
    ),
];

const BASE: &str = "\
address add 10.0.0.1/24 dev w0
address add fe80::0:1/64 dev w0 nodad
address add fd00::1/64 dev w0 nodad
address add 10.1.0.1/24 dev w1
address add fe80::1:1/64 dev w1 nodad
address add fd01::1/64 dev w1 nodad
route add 0.0.0.0/0 via 10.0.0.254 dev w0 onlink
route add ::/0 via fe80::fe dev w0
";

fn sockets() -> Vec<SocketSpec> {
    let mut all = vec![
        spec(Protocol::Tcp, "0.0.0.0", 4000),
        spec(Protocol::Tcp, "::", 4000),
        spec(Protocol::Udp, "0.0.0.0", 4001),
        spec(Protocol::Tcp, "0.0.0.0", 4002),
        spec(Protocol::Tcp, "::", 4002),
    ];
    for (number, one) in all.iter_mut().enumerate() {
        one.listener = number.to_string();
        one.v6only = V6Only::On;
        one.device = (one.port == 4002).then(|| IfName::from("w1"));
    }
    all
}

fn run((name, lines): Situation) -> usize {
    let mut script = BASE.to_owned();
    let mut settings = Vec::new();
    for line in lines {
        match line.strip_prefix("sysctl ").and_then(|rest| rest.split_once(' ')) {
            Some(setting) => settings.push(setting),
            None => {
                let _ = writeln!(script, "{line}");
            }
        }
    }
    let host = RoutedHost::of_script(2, &script, &settings);
    let specs = sockets();
    let result = compare_with(&host.ns, (&host.far, &host.beyond), &specs);
    assert!(
        result.wrong.is_empty(),
        "{name}: {} of {} cells differ from the kernel\n{}\n{}",
        result.wrong.len(),
        result.cells,
        describe(&specs),
        result.wrong.iter().take(12).cloned().collect::<String>(),
    );
    assert!(result.accepted > 0, "{name}");
    result.unknown.len()
}

pub fn certain(part: usize) {
    for situation in CERTAIN.iter().skip(part).step_by(2) {
        assert_eq!(run(*situation), 0, "{}: results are not known", situation.0);
    }
}

pub fn uncertain() {
    for situation in UNCERTAIN {
        assert_ne!(run(*situation), 0, "{}: what decides is not in the snapshot", situation.0);
    }
}
