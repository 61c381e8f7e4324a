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
    ("a rule that refuses what arrives on a link", &["rule add iif w1 unreachable"]),
    (
        "connected routes only, then another table",
        &[
            "rule add from 0.0.0.0/0 table main suppress_prefixlength 16 priority 100",
            "rule add from 0.0.0.0/0 table 77 priority 200",
            TO_W1,
        ],
    ),
    ("a rule for ICMP", &["rule add from 0.0.0.0/0 ipproto icmp unreachable"]),
    ("a rule for ICMPv6", &["rule add from ::/0 ipproto ipv6-icmp unreachable"]),
    ("not to a network", &["rule add not to 10.0.0.0/16 table 77", TO_W1]),
    ("a table without a route", &["rule add from 0.0.0.0/0 table 78"]),
    (
        "goto a rule that does not exist",
        &[
            "rule add from 0.0.0.0/0 priority 100 goto 150",
            "rule add from 10.1.0.0/24 priority 200 unreachable",
        ],
    ),
    ("IPv6 rule for what is sent", &["rule add from ::/0 iif lo table 77", TO_W1_IPV6]),
    ("IPv6 clients that a rule refuses", &["rule add to fd00::/64 unreachable"]),
    ("an address that a rule prohibits", &["rule add from 10.0.0.1 prohibit"]),
    (
        "the usual pair of rules",
        &[
            "rule add from 10.0.0.0/24 to 10.0.0.0/24 table main priority 10",
            "rule add from 10.0.0.0/24 table 77 priority 20",
            TO_W1,
        ],
    ),
    (
        "a group of next hops on one link",
        &[
            "nexthop add id 1 via 10.0.0.254 dev w0 onlink",
            "nexthop add id 2 via 10.0.0.253 dev w0 onlink",
            "nexthop add id 3 group 1/2",
            "route replace 0.0.0.0/0 nhid 3",
        ],
    ),
    (
        "an IPv6 next hop object",
        &[
            "nexthop add id 5 via fe80::fe dev w1",
            "route del ::/0 via fe80::fe dev w0",
            "route add ::/0 nhid 5",
        ],
    ),
    ("a next hop object of a connected route", &["nexthop add id 6 dev w1", "route add 10.0.0.0/25 nhid 6"]),
    ("an unreachable default behind the default", &["route add unreachable 0.0.0.0/0 metric 4278198272"]),
    ("loose beats strict", &["sysctl net.ipv4.conf.all.rp_filter 1", "sysctl net.ipv4.conf.w1.rp_filter 2"]),
    (
        "strict on the first link only",
        &["sysctl net.ipv4.conf.w0.rp_filter 1", "route replace 0.0.0.0/0 via 10.1.0.254 dev w1 onlink"],
    ),
    (
        "half of a network in a blackhole, with rp_filter",
        &["route add blackhole 10.0.0.0/25", "sysctl net.ipv4.conf.all.rp_filter 2"],
    ),
    ("a router", &["sysctl net.ipv4.ip_forward 1", "sysctl net.ipv6.conf.all.forwarding 1"]),
    ("an address of scope host", &["address add 10.0.0.60/32 dev w0 scope host"]),
    (
        "a bridge whose port keeps the address",
        &["link add br0 type bridge", "link set br0 up", "link set w1 master br0"],
    ),
    ("no IPv6 at all", &["sysctl net.ipv6.conf.all.disable_ipv6 1"]),
    ("a rule for unmarked packets", &["rule add from 0.0.0.0/0 fwmark 0/0xff unreachable"]),
    ("a client's address as a broadcast address", &["route add broadcast 10.0.0.2 dev w0 table local"]),
    ("an IPv6 network in a blackhole", &["route add blackhole fd00::/64 metric 1"]),
    ("a default without a gateway", &["route replace 0.0.0.0/0 dev w0 scope link"]),
    ("no rule for the table main", &["rule del from 0.0.0.0/0 table main priority 32766"]),
    (
        "IPv6 suppress_ifgroup",
        &[
            "link set w0 group 9",
            "rule add from ::/0 priority 100 table main suppress_ifgroup 9",
            "rule add from ::/0 priority 200 table 77",
            TO_W1_IPV6,
        ],
    ),
    (
        "proxy ARP and an address on lo",
        &[
            "address add 10.0.0.100/32 dev lo",
            "sysctl net.ipv4.conf.all.arp_ignore 1",
            "sysctl net.ipv4.ip_forward 1",
            "sysctl net.ipv4.conf.w0.proxy_arp 1",
        ],
    ),
    ("a rule for an unused mark and for an interface", &["rule add iif w1 fwmark 7 table 77", TO_W1]),
    (
        "the second link in the first one's subnet, with a rule",
        &[
            "address add 10.0.0.2/24 dev w1",
            "rule add from 10.0.0.2 table 77",
            "route add 10.0.0.0/24 dev w1 table 77",
            "sysctl net.ipv4.conf.all.arp_filter 1",
        ],
    ),
    ("deleted connected route", &["route del 10.1.0.0/24 dev w1"]),
    ("an IPv6 address with a peer", &["address add fd77::1 peer fd77::7 dev w1 nodad"]),
    (
        "IPv6 noprefixroute",
        &["address del fd01::1/64 dev w1", "address add fd01::1/64 dev w1 nodad noprefixroute"],
    ),
    (
        "IPv6 metric of an address",
        &[
            "address del fd00::1/64 dev w0",
            "address add fd00::1/64 dev w0 nodad metric 500",
            "route add fd00::/64 dev w1 metric 100",
        ],
    ),
    (
        "an interface without carrier that has the better route",
        &[
            "link add d0 type veth peer name d1",
            "link set d0 up",
            "address add 10.5.0.9/24 dev d0",
            "route add 10.0.0.0/25 dev d0",
        ],
    ),
    (
        "the route to the clients over a down interface",
        &[
            "link add d0 type veth peer name d1",
            "address add 10.5.0.9/24 dev d0",
            "route add 10.1.0.0/24 dev w0 metric 10",
        ],
    ),
    (
        "fwmark_reflect and tcp_fwmark_accept without marks",
        &[
            "sysctl net.ipv4.fwmark_reflect 1",
            "sysctl net.ipv4.tcp_fwmark_accept 1",
            "rule add from 0.0.0.0/0 fwmark 1 unreachable",
        ],
    ),
    (
        "an IPv4 host with secondaries",
        &[
            "address add 10.0.0.21/24 dev w0",
            "address add 10.0.0.22/25 dev w0",
            "rule add from 10.0.0.21 unreachable",
        ],
    ),
    ("a class E address", &["address add 240.0.0.1/24 dev w1"]),
    ("a link without ARP", &["link set w1 arp off"]),
    (
        "IPv6 without the table main",
        &["rule add from ::/0 iif w1 table 77", "rule del from ::/0 table main priority 32766"],
    ),
    ("throw in main", &["route del 0.0.0.0/0 via 10.0.0.254 dev w0", "route add throw 0.0.0.0/0"]),
    (
        "a rule after main",
        &[
            "rule add from 0.0.0.0/0 table 77 priority 40000",
            "route del 0.0.0.0/0 via 10.0.0.254 dev w0",
            TO_W1,
        ],
    ),
    (
        "a default in the table default",
        &[
            "route del 0.0.0.0/0 via 10.0.0.254 dev w0",
            "route add 0.0.0.0/0 via 10.1.0.254 dev w1 onlink table default",
        ],
    ),
    (
        "IPv6 default in the table default",
        &["route del ::/0 via fe80::fe dev w0", "route add ::/0 via fe80::fe dev w1 table default"],
    ),
    (
        "WireGuard networks that cover the LAN",
        &[
            "tuntap add dev tun0 mode tun",
            "link set tun0 up",
            "address add 10.66.0.2/32 dev tun0",
            "route add 10.0.0.0/25 dev tun0",
            "route add 10.0.0.128/25 dev tun0",
        ],
    ),
    (
        "OpenVPN redirect-gateway def1",
        &[
            "tuntap add dev tun0 mode tun",
            "link set tun0 up",
            "address add 10.8.0.2 peer 10.8.0.1 dev tun0",
            "route add 0.0.0.0/1 via 10.8.0.1 dev tun0",
            "route add 128.0.0.0/1 via 10.8.0.1 dev tun0",
        ],
    ),
    (
        "Tailscale rules",
        &[
            "rule add from 0.0.0.0/0 fwmark 0x80000/0xff0000 table main priority 5210",
            "rule add from 0.0.0.0/0 fwmark 0x80000/0xff0000 table default priority 5230",
            "rule add from 0.0.0.0/0 fwmark 0x80000/0xff0000 unreachable priority 5250",
            "rule add from 0.0.0.0/0 table 52 priority 5270",
            "tuntap add dev ts0 mode tun",
            "link set ts0 up",
            "address add 100.64.0.7/32 dev ts0",
            "route add 100.100.100.100/32 dev ts0 table 52",
            "route add 10.0.0.0/24 dev ts0 table 52",
        ],
    ),
    (
        "Tailscale exit node with throw for the LAN",
        &[
            "rule add from 0.0.0.0/0 table 52 priority 5270",
            "tuntap add dev ts0 mode tun",
            "link set ts0 up",
            "address add 100.64.0.7/32 dev ts0",
            "route add 0.0.0.0/0 dev ts0 table 52",
            "route add throw 10.0.0.0/24 table 52",
        ],
    ),
    (
        "EC2 with two network interfaces",
        &[
            "rule add from 10.0.0.1 table 1001 priority 10001",
            "rule add from 10.1.0.1 table 1002 priority 10002",
            "route add 10.0.0.0/24 dev w0 table 1001",
            "route add 0.0.0.0/0 via 10.0.0.254 dev w0 onlink table 1001",
            "route add 10.1.0.0/24 dev w1 table 1002",
            "route add 0.0.0.0/0 via 10.1.0.254 dev w1 onlink table 1002",
            "sysctl net.ipv4.conf.all.rp_filter 1",
        ],
    ),
    (
        "Kubernetes pod: /32 and a link-local gateway",
        &[
            "address del 10.1.0.1/24 dev w1",
            "address add 10.1.0.1/32 dev w1",
            "route add 169.254.1.1 dev w1 scope link",
            "route replace 0.0.0.0/0 via 169.254.1.1 dev w1",
        ],
    ),
    (
        "Docker: a bridge without ports and a network",
        &["link add docker0 type bridge", "link set docker0 up", "address add 172.17.0.1/16 dev docker0"],
    ),
    (
        "keepalived: VIP as /32 with virtual_rules",
        &["address add 10.0.0.100/32 dev w0", "rule add from 10.0.0.100 table 77", TO_W1],
    ),
    (
        "VRRP macvlan with rp_filter",
        &[
            "link add vrrp51 link w0 type macvlan mode private",
            "link set vrrp51 up",
            "address add 10.0.0.100/32 dev vrrp51",
            "sysctl net.ipv4.conf.vrrp51.rp_filter 1",
            "sysctl net.ipv4.conf.all.arp_ignore 1",
        ],
    ),
    (
        "BGP to the host: loopback with unnumbered next hops",
        &[
            "address add 10.255.0.1/32 dev lo",
            "route del 0.0.0.0/0 via 10.0.0.254 dev w0",
            "route add 0.0.0.0/0 via inet6 fe80::fe dev w1 src 10.255.0.1",
        ],
    ),
    (
        "IPv6 privacy: temporary and deprecated",
        &[
            "address add fd00::dd/64 dev w0 preferred_lft 0 valid_lft 3600 nodad",
            "address add fd00::ee/64 dev w0 preferred_lft 600 valid_lft 3600 nodad mngtmpaddr",
        ],
    ),
    (
        "uid rules of a VPN kill switch",
        &["rule add from 0.0.0.0/0 uidrange 1-65535 prohibit", "rule add from ::/0 uidrange 0-0 prohibit"],
    ),
    ("kill switch by IPv6 blackhole", &["route add blackhole ::/0 metric 1"]),
    (
        "IPv6 unreachable default at the lowest priority",
        &["route del ::/0 via fe80::fe dev w0", "route add unreachable ::/0 metric 4294967295"],
    ),
    (
        "accept_local with a shared address",
        &["address add 10.0.0.1/24 dev w1", "sysctl net.ipv4.conf.all.accept_local 1"],
    ),
    (
        "the same address on two links, strict",
        &["address add 10.0.0.1/24 dev w1", "sysctl net.ipv4.conf.all.rp_filter 1"],
    ),
    (
        "link-local addresses on both links",
        &["address add 169.254.1.1/16 dev w0", "address add 169.254.1.2/16 dev w1"],
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
    ("IPv6 whose rule for the table main was deleted", &["rule del from ::/0 table main priority 32766"]),
    (
        "a proxy of neighbour discovery for an address on lo",
        &[
            "address add fd00::200/128 dev lo nodad",
            "sysctl net.ipv6.conf.all.forwarding 1",
            "sysctl net.ipv6.conf.w0.proxy_ndp 1",
            "neighbour add proxy fd00::200 dev w0",
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
