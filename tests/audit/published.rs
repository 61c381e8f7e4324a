//! What an audit says of ports without sockets, of sockets that it does not judge, and of a selection.

use std::process::Command;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::support::netns::{Netns, two_hosts};
use super::support::program::text;
use super::{json_in, policy, run_in, server};

/// Runs nft(8) in a namespace; `false` where it is not installed.
pub fn nft(host: &Netns, commands: &[&str]) -> bool {
    for command in commands {
        let mut nft = Command::new("nft");
        nft.arg(command);
        match host.run(|| nft.output()) {
            Ok(output) => assert!(output.status.success(), "{command}: {output:?}"),
            Err(error) => {
                eprintln!("not tried: the command nft (Debian: nftables): {error}");
                assert!(std::env::var_os("BINDSCOPE_REQUIRE_NETNS").is_none(), "nft is required");
                return false;
            }
        }
    }
    true
}

pub fn a_published_port_is_listed_and_judged() {
    let (host, _there) = two_hosts();
    let rules = [
        "add table ip nat",
        "add chain ip nat pre { type nat hook prerouting priority dstnat; }",
        "add rule ip nat pre tcp dport 5432 dnat to 172.17.0.2:5432",
        "add table ip filter",
        "add chain ip filter input { type filter hook input priority 0; policy drop; }",
    ];
    if !nft(&host, &rules) {
        return;
    }
    let _held = server(&host, &["127.0.0.1:80"]);
    let document = json_in(&host, &["audit", "--json"]);
    let published = &document["published"][0];
    assert_eq!(
        (&published["to"], &published["socket"]),
        (&"172.17.0.2".into(), &false.into()),
        "{published}"
    );
    assert_eq!(published["exposure"]["ipv6"], "none");
    assert_eq!(document["exposure_filtered_because"], Value::Null);
    let codes: Vec<&Value> =
        document["findings"].as_array().unwrap().iter().map(|one| &one["code"]).collect();
    for code in ["BS1041", "BS1042"] {
        assert!(codes.contains(&&code.into()), "{code}: {codes:?}");
    }
    let (human, _) = text(&run_in(&host, &["audit"]));
    assert!(human.contains("5432 -> 172.17.0.2:5432  anywhere"), "{human}");
    let rule = "DNAT (ip nat pre rule 1); bypasses the INPUT rules";
    assert!(
        super::support::program::flat(&human).contains(rule) && human.contains("nftables ip nat"),
        "{human}"
    );
    let local = "[[allow]]\nid = \"local\"\nexposure = \"loopback\"\n";
    let open = "[[allow]]\nid = \"db\"\nport = 5432\nexposure = \"global\"\nreason = \"r\"\n";
    for (rules, expected) in [(local.to_owned(), 1), (format!("{local}{open}"), 0)] {
        let (_directory, path) = policy(&rules);
        let output = run_in(&host, &["audit", "--policy", &path]);
        assert_eq!(output.status.code(), Some(expected), "{:?}", text(&output));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.toml");
    let path = path.to_str().unwrap();
    assert!(run_in(&host, &["audit", "--write-policy", path]).status.success());
    let output = run_in(&host, &["audit", "--policy", path]);
    assert_eq!(output.status.code(), Some(0), "{:?}", text(&output));
}

pub fn what_is_not_judged_is_named_everywhere() {
    let host = Netns::new();
    host.ip("link set lo up");
    let _held = server(&host, &["127.0.0.1:80"]);
    let Ok(raw) = host.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(1.into()))) else {
        eprintln!("not tried: a raw socket needs CAP_NET_RAW");
        return;
    };
    for command in [&["audit"][..], &["doctor"], &[]] {
        let (stdout, _) = text(&run_in(&host, command));
        assert!(stdout.contains("1 raw socket"), "{command:?}: {stdout}");
    }
    let document = json_in(&host, &["audit", "--json"]);
    assert_eq!(document["not_examined"]["sockets"][0]["kind"], "raw", "{}", document["not_examined"]);
    let (stdout, _) = text(&run_in(&host, &["audit", "--all-protocols"]));
    assert!(stdout.contains("raw  0.0.0.0 protocol 1"), "{stdout}");
    drop(raw);
}

pub fn a_selection_narrows_and_fail_on_decides() {
    let (host, _there) = two_hosts();
    let _held = server(&host, &["0.0.0.0:80", "127.0.0.1:81", "[::1]:82"]);
    let ports = |arguments: &[&str]| -> Vec<u64> {
        let document = json_in(&host, &[&["audit", "--json"], arguments].concat());
        let sockets = document["sockets"].as_array().unwrap();
        sockets.iter().map(|one| one["socket"]["port"].as_u64().unwrap()).collect()
    };
    assert_eq!(ports(&[]), [80, 81, 82]);
    assert_eq!(ports(&["--port", "80,82-90"]), [80, 82]);
    assert_eq!(ports(&["-6"]), [82]);
    assert_eq!(ports(&["--exposure", "anywhere"]), [80]);
    assert_eq!(ports(&["--protocol", "udp"]), [] as [u64; 0]);
    assert_eq!(ports(&["--process", "bindscope"]), [80, 81, 82]);
    let exit = |arguments: &[&str]| run_in(&host, &[&["audit"], arguments].concat()).status.code();
    assert_eq!(exit(&[]), Some(0));
    assert_eq!(exit(&["--fail-on", "warning"]), Some(1), "a wildcard that is reachable from anywhere");
    assert_eq!(exit(&["--fail-on", "warning", "--port", "81"]), Some(0));
    assert_eq!(exit(&["--fail-on", "note", "--port", "81"]), Some(1));
}
