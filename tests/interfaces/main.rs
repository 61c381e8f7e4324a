//! Interfaces, addresses and routes of real namespaces, with `ip -j` as an independent witness.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a test")]

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, ExitCode, Stdio};

use bindscope::model::{AddrState, Family, IfName, LinkKind, RouteKind, RuleAction, Snapshot};
use libtest_mimic::Trial;
use serde_json::Value;
use support::netns::{Netns, harness};
use support::program::{bindscope, text};

fn main() -> ExitCode {
    macro_rules! trials {
        ($($name:ident),* $(,)?) => {
            vec![$(Trial::test(stringify!($name), || { $name(); Ok(()) })),*]
        };
    }
    harness(trials![
        ip_tells_the_same,
        states_of_addresses,
        a_label_does_not_hide_the_interface,
        a_second_opinion_is_given_where_it_is_asked_for,
        hostile_names_survive,
        routes_and_rules_of_all_tables,
        settings_of_interfaces_and_namespace,
        ten_thousand_addresses,
        the_document_reads_back_equal,
        csv_has_a_row_for_each_address,
        the_host_has_the_identifier_that_was_given,
        the_summary_binds_nothing_and_names_the_next_steps,
    ])
}

fn snapshot(netns: &Netns) -> Snapshot {
    let snapshot = netns.run(bindscope::sys::snapshot).unwrap();
    assert!(snapshot.complete, "{:?}", snapshot.incomplete_because);
    snapshot
}

fn ip_json(netns: &Netns, words: &str) -> Vec<Value> {
    let output = netns.output(Command::new("ip").arg("-j").args(words.split_whitespace()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Interfaces and addresses as `(interface, address, prefix, peer)` from both sources.
fn compare_with_ip(netns: &Netns) {
    let ours = snapshot(netns);
    let mut links = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    for link in ip_json(netns, "-d address") {
        let name = link["ifname"].as_str().unwrap().to_owned();
        let flag = |flag: &str| link["flags"].as_array().unwrap().iter().any(|value| value == flag);
        links.insert(format!(
            "{} {name} up {} loopback {} p2p {} multicast {} mtu {} kind {:?}",
            link["ifindex"],
            flag("UP"),
            flag("LOOPBACK"),
            flag("POINTOPOINT"),
            flag("MULTICAST"),
            link["mtu"],
            link["linkinfo"]["info_kind"].as_str().or(link["link_type"].as_str()),
        ));
        for address in link["addr_info"].as_array().unwrap() {
            addresses.insert(format!(
                "{name} {}/{} peer {:?} label {:?}",
                address["local"].as_str().unwrap(),
                address["prefixlen"],
                address["address"].as_str(),
                address["label"].as_str(),
            ));
        }
    }
    let our_links: BTreeSet<String> = ours
        .interfaces
        .iter()
        .map(|i| {
            format!(
                "{} {} up {} loopback {} p2p {} multicast {} mtu {} kind {:?}",
                i.index,
                i.name,
                i.up,
                i.loopback,
                i.point_to_point,
                i.multicast,
                i.mtu.unwrap(),
                i.kind.as_ref().map(LinkKind::as_str)
            )
        })
        .collect();
    assert_eq!(our_links, links);
    let our_addresses: BTreeSet<String> = ours
        .addresses()
        .map(|(i, a)| {
            format!(
                "{} {}/{} peer {:?} label {:?}",
                i.name,
                a.address,
                a.prefix,
                a.peer.map(|peer| peer.to_string()).as_deref(),
                a.label.as_ref().map(ToString::to_string).as_deref()
            )
        })
        .collect();
    assert_eq!(our_addresses, addresses);
}

fn ip_tells_the_same() {
    let (netns, other) = (Netns::new(), Netns::new());
    compare_with_ip(&netns);
    netns.wire("eth0", &other, "far");
    netns.ip("link add br0 type bridge");
    netns.ip("link set br0 up");
    netns.ip("link add mv0 link eth0 type macvlan mode bridge");
    netns.address("eth0", "192.0.2.1/24");
    netns.address("eth0", "192.0.2.2/24");
    netns.address("eth0", "2001:db8::1/64");
    netns.ip("address add 10.0.0.1 peer 10.0.0.2/32 dev br0");
    netns.ip("address add fd00::1 peer fd00::2/128 dev br0 nodad");
    netns.address("lo", "10.77.0.1/32");
    netns.ip("link set mv0 mtu 1400");
    compare_with_ip(&netns);
    let ours = snapshot(&netns);
    let bare = ours.interface_named(&IfName::from("mv0")).unwrap();
    assert!(bare.addresses.is_empty(), "an interface without addresses is listed");
    let second = ours.addresses().find(|(_, a)| a.address.to_string() == "192.0.2.2").unwrap().1;
    assert!(second.is(AddrState::Secondary));
    assert!(
        ours.addresses().any(|(i, a)| a.scope_id == Some(i.index)),
        "link-local addresses have their zone"
    );
}

fn states_of_addresses() {
    let (netns, other) = (Netns::new(), Netns::new());
    netns.sysctl("net.ipv6.conf.all.accept_dad", "1");
    netns.sysctl("net.ipv6.conf.default.accept_dad", "1");
    netns.sysctl("net.ipv6.conf.default.dad_transmits", "600");
    netns.wire("eth0", &other, "far");
    netns.ip("address add 2001:db8::1/64 dev eth0");
    netns.ip("address add 2001:db8::2/64 dev eth0 nodad");
    // Without this the kernel drops the word (inet6_rtm_newaddr() of net/ipv6/addrconf.c).
    netns.sysctl("net.ipv6.conf.eth0.optimistic_dad", "1");
    netns.ip("address add 2001:db8::3/64 dev eth0 optimistic");
    netns.ip("address add 2001:db8::4/64 dev eth0 nodad valid_lft 1000 preferred_lft 0");
    let ours = snapshot(&netns);
    let state = |text: &str| {
        let address = ours.addresses().find(|(_, a)| a.address.to_string() == text);
        address.unwrap_or_else(|| panic!("{text} is missing")).1.clone()
    };
    assert!(state("2001:db8::1").is(AddrState::Tentative));
    assert!(!state("2001:db8::2").is(AddrState::Tentative) && state("2001:db8::2").is(AddrState::Permanent));
    assert!(state("2001:db8::3").is(AddrState::Optimistic));
    assert!(state("2001:db8::4").is(AddrState::Deprecated) && state("2001:db8::4").is(AddrState::Dynamic));
}

fn a_label_does_not_hide_the_interface() {
    let (netns, other) = (Netns::new(), Netns::new());
    netns.wire("eth0", &other, "far0");
    netns.wire("eth1", &other, "far1");
    netns.ip("address add 192.0.2.1/24 dev eth0 label eth1");
    netns.ip("address add 198.51.100.1/24 dev eth0 label eth0:web");
    let ours = snapshot(&netns);
    let owner =
        |text: &str| ours.addresses().find(|(_, a)| a.address.to_string() == text).unwrap().0.name.clone();
    assert_eq!(owner("192.0.2.1"), IfName::from("eth0"));
    let output = netns.output(&mut bindscope(&["interfaces"]));
    let (stdout, stderr) = text(&output);
    assert!(output.status.success(), "{stderr}");
    assert!(stdout.contains("label eth1"), "{stdout}");
    assert!(
        stderr.contains("BS4001") && stderr.contains("192.0.2.1 is on eth0, but its label is eth1"),
        "{stderr}"
    );
    assert!(stderr.contains("eth0:web, which is not an interface"), "{stderr}");
    // The C library names what the labels say, which is no further difference.
    let checked = text(&netns.output(&mut bindscope(&["interfaces", "--cross-check"])));
    assert_eq!(checked.1, stderr);
    let doctor = text(&netns.output(&mut bindscope(&["doctor"]))).0;
    let line = doctor.lines().find(|line| line.starts_with("addresses ")).unwrap_or_default();
    assert!(line.contains("its label is eth1") && line.ends_with("(and 1 more)"), "{doctor}");
}

fn a_second_opinion_is_given_where_it_is_asked_for() {
    let (netns, other) = (Netns::new(), Netns::new());
    netns.wire("eth0", &other, "far");
    netns.address("eth0", "192.0.2.1/24");
    netns.address("eth0", "fe80::1/64");
    for (arguments, expected) in [
        (&["interfaces", "--format", "json"][..], false),
        (&["interfaces", "--format", "json", "--cross-check"], true),
    ] {
        let output = netns.output(&mut bindscope(arguments));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["cross_checked"], Value::Bool(expected));
        assert_eq!(document["disagreements"], Value::Array(Vec::new()));
    }
    let doctor = text(&netns.output(&mut bindscope(&["doctor"]))).0;
    let line = doctor.lines().find(|line| line.starts_with("addresses ")).unwrap_or_default();
    assert!(line.split_whitespace().nth(1) == Some("yes"), "{doctor}");
}

fn the_host_has_the_identifier_that_was_given() {
    let netns = Netns::new();
    let host = |words: &[&str]| {
        let output = netns.output(&mut bindscope(words));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        document["host"].clone()
    };
    for command in [&["interfaces", "--json"][..], &["audit", "--json"], &["plan", "127.0.0.1:80", "--json"]]
    {
        let plain = host(command);
        assert!(plain["id"].is_string() && plain["id"] == plain["name"], "{plain}");
        let given = host(&[command, &["--host-id", "rack 7/web"]].concat());
        assert_eq!((&given["id"], &given["name"]), (&"rack 7/web".into(), &plain["name"]), "{command:?}");
    }
    let empty = netns.output(&mut bindscope(&["interfaces", "--host-id", ""]));
    assert_eq!(empty.status.code(), Some(2), "{:?}", text(&empty));
}

fn hostile_names_survive() {
    let netns = Netns::new();
    for (number, name) in [&b"a\x1b[31mred"[..], b"b\xff\xfe", b"=1+1"].into_iter().enumerate() {
        let name = OsStr::from_bytes(name);
        let peer = format!("p{number}");
        let words = ["link", "add", "NAME", "type", "veth", "peer", "name", &peer];
        netns.ip_args(&words.map(|word| if word == "NAME" { name } else { OsStr::new(word) }));
    }
    let ours = snapshot(&netns);
    for name in [&b"a\x1b[31mred"[..], b"b\xff\xfe", b"=1+1"] {
        assert!(ours.interface_named(&IfName::from_bytes(name)).is_some(), "{name:?}");
    }
    for format in ["human", "csv", "json"] {
        let output = netns.output(&mut bindscope(&["interfaces", "--format", format]));
        assert!(output.status.success() && std::str::from_utf8(&output.stdout).is_ok(), "{format}");
        assert!(!output.stdout.contains(&0x1b), "{format}");
    }
    let csv = text(&netns.output(&mut bindscope(&["interfaces", "--format", "csv"]))).0;
    assert!(csv.contains(",'=1+1,"), "{csv}");
}

fn routes_and_rules_of_all_tables() {
    let (netns, other) = (Netns::new(), Netns::new());
    netns.wire("eth0", &other, "far");
    netns.address("eth0", "192.0.2.1/24");
    netns.address("eth0", "2001:db8::1/64");
    netns.ip("route add local 198.51.100.0/24 dev lo");
    netns.ip("route add local 203.0.113.7/32 dev lo");
    netns.ip("route add default via 192.0.2.9 dev eth0 metric 7");
    netns.ip("route add 10.0.0.0/8 via 192.0.2.8 dev eth0 table 1000");
    netns.ip("route add blackhole 10.9.0.0/16");
    netns.ip("route add 172.16.0.0/12 nexthop via 192.0.2.7 nexthop via 192.0.2.6");
    netns.ip("-6 route add 2001:db8:9::/48 via 2001:db8::9 table 300");
    netns.ip("rule add from 10.0.0.0/8 iif eth0 fwmark 5 table 1000 priority 50");
    netns.ip("rule add ipproto tcp table 1000 priority 51");
    netns.ip("-6 rule add to 2001:db8:9::/48 table 300 priority 60");
    netns.ip("rule add not fwmark 0x80000/0xff0000 table 1000 priority 70");
    netns.ip("rule add table main suppress_prefixlength 0 priority 71");
    netns.ip("-6 rule del priority 32766");
    let ours = snapshot(&netns);
    let wanted = [RouteKind::Unicast, RouteKind::Local, RouteKind::Blackhole];
    let our_routes: BTreeSet<String> = ours
        .routes
        .iter()
        .filter(|route| wanted.contains(&route.kind) && route.destination.addr().is_ipv4())
        .map(|route| format!("{:?} {} {}", route.kind, route.destination, route.table).to_lowercase())
        .collect();
    let table = |value: &Value| match value.as_str() {
        None | Some("main") => "254".to_owned(),
        Some("local") => "255".to_owned(),
        Some(number) => number.to_owned(),
    };
    let mut theirs = BTreeSet::new();
    for route in ip_json(&netns, "-4 route show table all") {
        let kind = route["type"].as_str().unwrap_or("unicast");
        let destination = match route["dst"].as_str().unwrap() {
            "default" => "0.0.0.0/0".to_owned(),
            network if network.contains('/') => network.to_owned(),
            address => format!("{address}/32"),
        };
        // What addresses say already is left out on purpose.
        if ["unicast", "local", "blackhole"].contains(&kind)
            && !["192.0.2.1/32", "127.0.0.1/32"].contains(&&*destination)
        {
            theirs.insert(format!("{kind} {destination} {}", table(&route["table"])));
        }
    }
    assert_eq!(our_routes, theirs);
    let hops = ours.routes.iter().filter(|route| route.destination.to_string() == "172.16.0.0/12");
    assert_eq!(hops.filter_map(|route| route.gateway).count(), 2);
    let six = ours.routes.iter().find(|route| route.table == 300).unwrap();
    assert_eq!(six.gateway, Some("2001:db8::9".parse().unwrap()));
    assert_eq!(
        ours.rules.iter().map(|rule| (rule.priority, rule.action)).collect::<Vec<_>>(),
        [50, 51, 70, 71, 60].map(|priority| (priority, RuleAction::Lookup))
    );
    let rule = &ours.rules[0];
    assert_eq!(
        (rule.iif.clone(), rule.fwmark, rule.table),
        (Some(IfName::from("eth0")), Some(5), Some(1000))
    );
    assert_eq!(rule.from, Some("10.0.0.0/8".parse().unwrap()));
    let masked = &ours.rules[2];
    assert_eq!((masked.inverted, masked.fwmark, masked.fwmask), (true, Some(0x80000), Some(0xff_0000)));
    assert_eq!((ours.rules[3].suppress_prefix, ours.rules[3].table), (Some(0), Some(254)));
    let gone: Vec<_> = ours.missing_default_rules.iter().map(|rule| (rule.family, rule.priority)).collect();
    assert_eq!(gone, [(Family::Ipv6, 32766)]);
    netns.ip("route add 10.79.0.0/24 dev eth0 tos 0x10");
    let more = snapshot(&netns).routes;
    let added: Vec<_> = more.iter().filter(|route| !ours.routes.contains(route)).collect();
    assert_eq!(
        added.iter().map(|route| route.tos).collect::<Vec<_>>(),
        [0x10],
        "a route for one type of service"
    );
    let fresh = Netns::new();
    let rules = |netns: &Netns| {
        let found = snapshot(netns);
        let gone: Vec<_> =
            found.missing_default_rules.iter().map(|rule| (rule.family, rule.priority)).collect();
        (found.rules, gone)
    };
    assert_eq!(rules(&fresh), (Vec::new(), Vec::new()));
    for priority in [0, 32766] {
        fresh.ip(&format!("-6 rule del priority {priority}"));
    }
    assert_eq!(rules(&fresh), (Vec::new(), vec![(Family::Ipv6, 0), (Family::Ipv6, 32766)]), "none is left");
}

fn settings_of_interfaces_and_namespace() {
    let (netns, other) = (Netns::new(), Netns::new());
    netns.wire("eth0", &other, "far");
    netns.ip("link add here type veth peer name there");
    netns.ip("link add mac0 link eth0 type macvlan");
    let link = |name: &str| snapshot(&netns).interface_named(&IfName::from(name)).unwrap().link;
    assert_eq!(link("eth0"), None, "its other end is elsewhere");
    assert_eq!((link("here"), link("there")), (Some(netns.index("there")), Some(netns.index("here"))));
    assert_eq!(link("mac0"), Some(netns.index("eth0")));
    for (name, value) in [
        ("ipv4.route_localnet", 1),
        ("ipv4.rp_filter", 2),
        ("ipv4.arp_ignore", 1),
        ("ipv4.arp_filter", 1),
        ("ipv4.accept_local", 1),
        ("ipv4.src_valid_mark", 1),
        ("ipv4.forwarding", 1),
        ("ipv6.forwarding", 1),
        ("ipv6.disable_ipv6", 1),
        ("ipv6.optimistic_dad", 1),
        ("ipv6.keep_addr_on_down", 1),
        ("ipv6.accept_dad", 2),
        ("ipv6.accept_ra", 2),
    ] {
        let (family, setting) = name.split_once('.').unwrap();
        netns.sysctl(&format!("net.{family}.conf.eth0.{setting}"), &value.to_string());
        let ours = snapshot(&netns);
        let got = ours.interface_named(&IfName::from("eth0")).unwrap().settings.get(name).copied();
        assert_eq!(got, Some(value), "{name}");
        netns.sysctl(&format!("net.{family}.conf.eth0.{setting}"), "0");
        let ours = snapshot(&netns);
        assert_eq!(
            ours.interface_named(&IfName::from("eth0")).unwrap().settings.get(name),
            Some(&0),
            "{name}"
        );
    }
    netns.sysctl("net.ipv6.bindv6only", "1");
    netns.sysctl("net.ipv4.ip_unprivileged_port_start", "77");
    netns.sysctl("net.ipv4.ip_local_port_range", "40000 40010");
    let ours = snapshot(&netns);
    assert_eq!(ours.setting("net.ipv6.bindv6only"), Some(1));
    assert_eq!(ours.setting("net.ipv4.ip_unprivileged_port_start"), Some(77));
    assert_eq!(ours.setting("net.ipv4.ip_local_port_range.low"), Some(40000));
    assert_eq!(ours.setting("net.ipv4.ip_local_port_range.high"), Some(40010));
    assert_eq!(snapshot(&other).setting("net.ipv6.bindv6only"), Some(0), "each namespace has its own");
}

fn ten_thousand_addresses() {
    let netns = Netns::new();
    let mut batch = String::new();
    for number in 0..10_000u32 {
        let _ = writeln!(
            batch,
            "address add 10.{}.{}.{}/32 dev lo",
            number >> 16,
            (number >> 8) & 255,
            number & 255
        );
    }
    netns.run(|| {
        let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(batch.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    });
    assert_eq!(snapshot(&netns).addresses().count(), 10_002);
    let output = netns.output(&mut bindscope(&["interfaces", "--format", "json"]));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["interfaces"][0]["addresses"].as_array().unwrap().len(), 10_002);
    assert_eq!(document["disagreements"], Value::Array(Vec::new()));
}

/// Waits until the links are up and the kernel has given them their own addresses.
fn settle(netns: &Netns) {
    let mut before = snapshot(netns);
    for _ in 0..100 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let now = snapshot(netns);
        if now == before && !now.addresses().any(|(_, address)| address.is(AddrState::Tentative)) {
            return;
        }
        before = now;
    }
}

fn the_document_reads_back_equal() {
    let (netns, other) = (Netns::new(), Netns::new());
    netns.wire("eth0", &other, "far");
    netns.address("eth0", "192.0.2.1/24");
    netns.address("eth0", "fe80::1/64");
    netns.ip("route add local 198.51.100.0/24 dev lo");
    netns.ip("rule add from 10.0.0.0/8 table 1000 priority 50");
    settle(&netns);
    let output = netns.output(&mut bindscope(&["interfaces", "--format", "json"]));
    let read = bindscope::report::document::read_snapshot(&output.stdout[..]).unwrap();
    let packet_filters = Some(netns.run(bindscope::sys::packet_filters_with_rules));
    assert_eq!(read, Snapshot { packet_filters, ..snapshot(&netns) });
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut older = document.clone();
    for (list, keys) in [("interfaces", &["link"][..]), ("rules", &["fwmask", "inverted", "suppress_prefix"])]
    {
        for one in older[list].as_array_mut().unwrap() {
            keys.iter().for_each(|key| drop(one.as_object_mut().unwrap().remove(*key).unwrap()));
        }
    }
    for key in ["missing_default_rules", "packet_filters", "unsupported"] {
        older.as_object_mut().unwrap().remove(key).unwrap();
    }
    let older = bindscope::report::document::read_snapshot(older.to_string().as_bytes()).unwrap();
    assert_eq!(older.interfaces.len(), 2, "what an earlier version wrote is read");
    assert_eq!(document["schema"], "bindscope.interfaces/1");
    assert_eq!(document["complete"], true);
    let forms: Vec<&str> =
        document["coverage"].as_array().unwrap().iter().map(|form| form["bind"].as_str().unwrap()).collect();
    assert!(forms.starts_with(&["0.0.0.0", "127.0.0.1", "::", "::", "::1"]), "{forms:?}");
    assert!(forms.contains(&"fe80::1%eth0"), "{forms:?}");
    assert_eq!(
        document["coverage"][0]["addresses"].as_array().unwrap().len(),
        3,
        "{}",
        document["coverage"][0]
    );
    let again = netns.output(&mut bindscope(&["interfaces", "--format", "json"]));
    assert_eq!(again.stdout, output.stdout, "two runs over the same state are equal");
}

fn csv_has_a_row_for_each_address() {
    let (netns, other) = (Netns::new(), Netns::new());
    netns.wire("eth0", &other, "far");
    netns.sysctl("net.ipv6.conf.eth0.disable_ipv6", "1");
    let csv = text(&netns.output(&mut bindscope(&["interfaces", "--format", "csv"]))).0;
    let columns: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
    assert!(columns.iter().all(|count| *count == 20), "{csv}");
    assert_eq!(csv.lines().filter(|line| line.contains(",lo,")).count(), 2, "{csv}");
    assert_eq!(csv.lines().filter(|line| line.contains(",eth0,")).count(), 1, "{csv}");
}

fn the_summary_binds_nothing_and_names_the_next_steps() {
    let (netns, other) = (Netns::new(), Netns::new());
    netns.wire("eth0", &other, "far");
    netns.address("lo", "192.0.2.1/32");
    let _listener = netns.run(|| std::net::TcpListener::bind("127.0.0.1:4711")).unwrap();
    let _wide = netns.run(|| std::net::TcpListener::bind("0.0.0.0:4712")).unwrap();
    let output = netns.output(&mut bindscope(&[]));
    let (stdout, stderr) = text(&output);
    assert!(output.status.success(), "{stderr}");
    assert!(stdout.lines().count() <= 24, "{stdout}");
    let line =
        |word: &str| stdout.lines().find(|line| line.trim_start().starts_with(word)).unwrap_or_default();
    assert!(line("this host only").ends_with("tcp/4711 (IPv4)"), "{stdout}");
    assert!(line("anywhere").ends_with("tcp/4712 (IPv4)"), "{stdout}");
    assert_eq!(stdout.lines().filter(|line| line.starts_with("  bindscope ")).count(), 3, "{stdout}");
}
