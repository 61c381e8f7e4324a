//! A twin with packet filters answers as the host itself, and names the rule that decided.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use bindscope::plan::filter::Filters;
use bindscope::plan::filter::published::published;

use crate::corpus::{self, nft};
use crate::roundtrip::read;
use crate::support::netns::{Netns, two_hosts};
use crate::support::program::{self, bindscope};
use crate::support::tool;

pub const RULES: &str = r#"
table inet filter {
    chain lists { tcp dport 2205 drop; tcp dport 2206 accept; }
    chain input {
        type filter hook input priority 0; policy drop;
        ct state established,related accept
        iifname "lo" accept
        meta l4proto { icmp, ipv6-icmp } accept
        tcp dport 2201 accept
        tcp dport 2202 reject with tcp reset
        tcp dport 2203 reject with icmpx type admin-prohibited
        tcp dport 2204 reject
        jump lists
        ip saddr 10.0.0.0/8 tcp dport 2208 accept
        udp dport 2209 accept
        udp dport 2210 reject
    }
    chain output { type filter hook output priority 0; tcp sport 2206 drop; }
}
table ip nat {
    chain prerouting { type nat hook prerouting priority -100; tcp dport 2207 redirect to :2201; }
}
"#;

/// Ports that are listened on, by TCP.
pub const TCP: [u16; 8] = [2201, 2202, 2203, 2204, 2205, 2206, 2207, 2208];
pub const UDP: [u16; 2] = [2209, 2210];

/// `lab run --twin` of a namespace, as a user without any capability where this process may choose one.
pub fn twin(ns: &Netns, tcp: &[u16], udp: &[u16]) -> Value {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let output = ns.run(|| program::run(&["interfaces", "--format", "json", "--output", path]));
    assert!(output.status.success(), "{:?}", program::text(&output));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut arguments = vec!["lab", "run", "--format", "json", "--twin", path];
    let sockets: Vec<String> = tcp
        .iter()
        .map(|port| format!("[::]:{port},v6only=false"))
        .chain(udp.iter().map(|port| format!("udp:[::]:{port},v6only=false")))
        .collect();
    arguments.extend(sockets.iter().flat_map(|socket| ["--bind", socket]));
    let mut command = bindscope(&arguments);
    if std::fs::read_to_string("/proc/self/uid_map").unwrap().split_whitespace().nth(2) != Some("1") {
        command.uid(65534).gid(65534);
    }
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = program::finish(child);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {:?}", program::text(&output)))
}

fn observed(document: &Value, source: &str, to: &str, port: u16) -> Value {
    let cells = document["cells"].as_array().unwrap().iter();
    let mut found =
        cells.filter(|cell| cell["source"] == source && cell["destination"] == to && cell["port"] == port);
    found.next().unwrap_or_else(|| panic!("{source} {to} {port}"))["observed"].clone()
}

/// What a client sees, in the words of a cell.
fn ask(from: &Netns, to: &str, port: u16) -> &'static str {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    match from.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(1500))) {
        Ok(_) => "accepted",
        Err(error) => match error.raw_os_error().map(nix::errno::Errno::from_raw) {
            Some(nix::errno::Errno::ECONNREFUSED) => "refused",
            Some(
                nix::errno::Errno::EHOSTUNREACH | nix::errno::Errno::ENETUNREACH | nix::errno::Errno::EACCES,
            ) => "unreachable",
            _ => "timeout",
        },
    }
}

pub fn answers_as_its_host_and_names_the_rule() {
    if !tool("nft") {
        return;
    }
    let (ns, far) = two_hosts();
    nft(&ns, RULES).unwrap();
    let document = twin(&ns, &TCP, &UDP);
    let because = document["incomplete_because"].to_string();
    assert!(!because.contains("filter") && !because.contains("rule"), "{because}");
    let listeners: Vec<TcpListener> =
        ns.run(|| TCP.iter().map(|port| TcpListener::bind(("::", *port)).unwrap()).collect());
    for address in ["192.0.2.1", "2001:db8::1"] {
        for port in TCP {
            let seen = observed(&document, "link:eth0", address, port);
            assert_eq!(seen["outcome"], ask(&far, address, port), "{address} {port} {seen}");
        }
    }
    drop(listeners);
    let decided = |address: &str, port: u16| {
        let seen = observed(&document, "link:eth0", address, port);
        let filter = &seen["filter"];
        let by = &filter["by"];
        let words = ["verdict", "packet"].map(|key| filter[key].as_str().unwrap_or("-").to_owned());
        (words.join(" "), format!("{} {} {}", by["table"], by["chain"], by["rule"]).replace('"', ""))
    };
    let expect = |port: u16, verdict: &str, by: &str| {
        for address in ["192.0.2.1", "2001:db8::1"] {
            assert_eq!(decided(address, port), (verdict.to_owned(), by.to_owned()), "{address} {port}");
        }
    };
    expect(2201, "accept syn", "filter input 4");
    expect(2202, "reject syn", "filter input 5");
    expect(2203, "reject syn", "filter input 6");
    expect(2204, "reject syn", "filter input 7");
    expect(2205, "drop syn", "filter lists 1");
    expect(2206, "drop answer", "filter output 1");
    expect(2208, "drop syn", "filter input null");
    expect(2209, "accept datagram", "filter input 10");
    expect(2210, "reject datagram", "filter input 11");
    let text = &observed(&document, "link:eth0", "192.0.2.1", 2202)["filter"]["by"]["text"];
    assert!(text.as_str().unwrap().ends_with("tcp dport 2202 reject with tcp reset"), "{text}");
    // The redirection is of IPv4 alone.
    assert_eq!(decided("192.0.2.1", 2207), ("accept syn".to_owned(), "filter input 4".to_owned()));
    assert_eq!(decided("2001:db8::1", 2207), ("drop syn".to_owned(), "filter input null".to_owned()));
    let translated = &observed(&document, "link:eth0", "192.0.2.1", 2207)["translated"];
    assert_eq!((&translated["port"], &translated["by"]["chain"]), (&2201.into(), &"prerouting".into()));
    let answer = |address: &str, port: u16| observed(&document, "link:eth0", address, port)["answer"].clone();
    let icmp = |kind: &str, numbers: [u8; 2], from: &str| serde_json::json!({"kind": kind, "type": numbers[0], "code": numbers[1], "from": from});
    assert_eq!(answer("192.0.2.1", 2202)["kind"], "reset");
    assert_eq!(answer("192.0.2.1", 2203), icmp("icmp", [3, 13], "192.0.2.1"));
    assert_eq!(answer("192.0.2.1", 2204), icmp("icmp", [3, 3], "192.0.2.1"));
    assert_eq!(answer("2001:db8::1", 2203), icmp("icmpv6", [1, 1], "2001:db8::1"));
    assert_eq!(answer("2001:db8::1", 2204), icmp("icmpv6", [1, 4], "2001:db8::1"));
    assert_eq!(answer("192.0.2.1", 2210), icmp("icmp", [3, 3], "192.0.2.1"));
    assert_eq!(answer("192.0.2.1", 2205), Value::Null);
    // The host itself passes by lo.
    let own = observed(&document, "host", "192.0.2.1", 2205);
    assert_eq!((&own["outcome"], &own["filter"]["by"]["rule"]), (&"accepted".into(), &2.into()));
}

pub fn of_ufw_names_its_rules() {
    let (ns, _far) = two_hosts();
    let commands =
        ["allow 2201/tcp", "reject 2202/tcp", "allow from 192.0.2.0/24 to any port 2203 proto tcp"];
    let Some(_root) = corpus::ufw(&ns, &commands) else { return };
    let document = twin(&ns, &TCP[..4], &[]);
    let by = |address: &str, port: u16| {
        let seen = observed(&document, "link:eth0", address, port);
        let by = &seen["filter"]["by"];
        format!("{} {} {} {}", seen["outcome"], seen["filter"]["verdict"], by["chain"], by["rule"])
            .replace('"', "")
    };
    assert_eq!(by("192.0.2.1", 2201), "accepted accept ufw-user-input 1");
    assert_eq!(by("192.0.2.1", 2202), "refused reject ufw-user-input 2");
    assert_eq!(by("192.0.2.1", 2203), "accepted accept ufw-user-input 3");
    assert_eq!(by("192.0.2.1", 2204), "timeout drop INPUT null");
    assert_eq!(by("2001:db8::1", 2201), "accepted accept ufw6-user-input 1");
    assert_eq!(by("2001:db8::1", 2203), "timeout drop INPUT null");
    let assumes = observed(&document, "link:eth0", "192.0.2.1", 2204)["filter"]["assumes"].to_string();
    assert!(assumes.contains("the rate limit of rule"), "{assumes}");
}

pub fn a_rule_about_users_leaves_the_result_open() {
    if !tool("nft") {
        return;
    }
    let (ns, _far) = two_hosts();
    let rules = "table inet t {
        chain input { type filter hook input priority 0; tcp dport 2202 accept; meta mark 7 ip dscp 3 accept; }
        chain output { type filter hook output priority 0; tcp sport 2203 meta skuid 33 drop; }
    }";
    nft(&ns, rules).unwrap();
    let document = twin(&ns, &[2202, 2203], &[]);
    let depends = observed(&document, "host", "192.0.2.1", 2203)["filter"]["depends_on"].clone();
    assert!(depends.is_array());
    assert_eq!(
        depends,
        serde_json::json!(["rule 1 of inet t output depends on users and groups of processes"])
    );
}

/// The famous case: a firewall that denies a port, and Docker that publishes it over IPv4.
pub fn a_published_port_is_answered_by_a_stand_in() {
    if !tool("nft") {
        return;
    }
    let (ns, _far) = two_hosts();
    let container = Netns::new();
    ns.ip("link add docker0 type bridge");
    ns.ip("link set docker0 up");
    ns.address("docker0", "172.17.0.1/16");
    ns.wire("veth7", &container, "eth0");
    ns.ip("link set veth7 master docker0");
    ns.sysctl("net.ipv4.ip_forward", "1");
    let rules = r#"
    table ip nat {
        chain prerouting { type nat hook prerouting priority -100; fib daddr type local jump DOCKER; }
        chain DOCKER {
            iifname "docker0" return
            iifname != "docker0" tcp dport 5432 dnat to 172.17.0.2:5432
            iifname != "docker0" tcp dport 5433 dnat to 10.99.0.9
        }
    }
    table inet filter {
        chain input {
            type filter hook input priority 0; policy drop;
            ct state established,related accept
            iifname "lo" accept
            meta l4proto ipv6-icmp accept
        }
    }"#;
    nft(&ns, rules).unwrap();
    let document = twin(&ns, &[5432], &[]);
    let ipv4 = observed(&document, "link:eth0", "192.0.2.1", 5432);
    assert_eq!((&ipv4["outcome"], &ipv4["listener"]), (&"accepted".into(), &Value::Null), "{ipv4}");
    let translated = &ipv4["translated"];
    assert_eq!((&translated["address"], &translated["port"]), (&"172.17.0.2".into(), &5432.into()));
    assert_eq!(ipv4["ingress"], Value::Null, "the connection ends on another host");
    let ipv6 = observed(&document, "link:eth0", "2001:db8::1", 5432);
    assert_eq!((&ipv6["outcome"], &ipv6["filter"]["verdict"]), (&"timeout".into(), &"drop".into()), "{ipv6}");
    assert!(
        document["notes"].to_string().contains("forwarded to 10.99.0.9 are not tried"),
        "{}",
        document["notes"]
    );
}

pub fn published_ports_are_listed() {
    if !tool("nft") {
        return;
    }
    let list = |ns: &Netns| -> Vec<String> {
        let filters = Filters::decode(&read(ns)).unwrap();
        let published = published(&filters);
        published
            .iter()
            .map(|one| {
                let protocol = one.protocol.map_or("any".to_owned(), |one| one.to_string());
                let ports = one.ports.map_or("all".to_owned(), |(low, high)| format!("{low}-{high}"));
                let address = one.address.map_or(String::new(), |net| format!(" at {net}"));
                let to = one.to.map_or("here".to_owned(), |to| to.to_string());
                let port = one.to_port.map_or(String::new(), |port| format!(" {port}"));
                let by = one.by(&filters);
                format!("{protocol} {ports}{address} -> {to}{port} ({} {})", by.chain, by.rule.unwrap_or(0))
            })
            .collect()
    };
    let ns = Netns::new();
    nft(&ns, corpus::NATIVE[1].1).unwrap();
    assert_eq!(
        list(&ns),
        [
            "tcp 80-80 -> 2001:db8::7 8080 (prerouting 1)",
            "tcp 1000-1000 -> 10.0.0.1 (prerouting 3)",
            "tcp 1001-1001 -> 10.0.0.2 (prerouting 3)",
            "tcp 5432-5432 -> 172.17.0.2 5432 (prerouting 2)",
            "tcp 8080-8080 -> here 80 (prerouting 1)",
        ]
    );
    let ns = Netns::new();
    if !corpus::iptables_nft(&ns) {
        return;
    }
    // As Docker publishes a port on one address, and as kube-proxy publishes a node port: the port is compared before the jump.
    for rule in [
        "-t nat -A DOCKER -d 127.0.0.1/32 ! -i docker0 -p tcp -m tcp --dport 8081 -j DNAT --to-destination 172.17.0.3:81",
        "-t nat -N KUBE-NODEPORTS",
        "-t nat -N KUBE-SEP",
        "-t nat -A PREROUTING -j KUBE-NODEPORTS",
        "-t nat -A KUBE-NODEPORTS -p udp -m udp --dport 30053 -j KUBE-SEP",
        "-t nat -A KUBE-SEP -p udp -m udp -j DNAT --to-destination 10.244.0.5:53",
    ] {
        corpus::run(&ns, "iptables-nft", rule);
    }
    assert_eq!(
        list(&ns),
        [
            "tcp 5432-5432 -> 172.17.0.2 5432 (DOCKER 2)",
            "tcp 8081-8081 at 127.0.0.1/32 -> 172.17.0.3 81 (DOCKER 3)",
            "udp 30053-30053 -> 10.244.0.5 53 (KUBE-SEP 1)",
        ]
    );
}
