//! A twin with packet filters answers as the host itself, and names the rule that decided.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::corpus::{self, nft};
use crate::support::netns::{Netns, two_hosts};
use crate::support::program::{self, bindscope};
use crate::support::tool;

const RULES: &str = r#"
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
const TCP: [u16; 8] = [2201, 2202, 2203, 2204, 2205, 2206, 2207, 2208];
const UDP: [u16; 2] = [2209, 2210];

/// `lab run --twin` of a namespace, as a user without any capability where this process may choose one.
fn twin(ns: &Netns, tcp: &[u16], udp: &[u16]) -> Value {
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
