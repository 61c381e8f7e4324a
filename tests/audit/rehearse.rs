//! `audit --rehearse`: sockets like those of a host, bound in its twin and connected to.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::netns::Netns;
use crate::support::program::{bindscope, finish, text};

/// A host that answers no client from one of its addresses, which an audit of addresses alone cannot know.
fn host() -> (Netns, Netns) {
    let (ns, far) = (Netns::new(), Netns::new());
    for name in ["eth0", "eth1"] {
        ns.sysctl("net.ipv6.conf.default.addr_gen_mode", "1");
        ns.wire(name, &far, name);
    }
    ns.address("eth0", "192.0.2.1/24");
    ns.address("eth0", "2001:db8::1/64");
    ns.address("eth0", "fe80::1/64");
    ns.address("eth1", "10.9.0.1/24");
    ns.ip("rule add from 10.9.0.1 unreachable priority 100");
    ns.ip("route add local 100.64.0.0/24 dev lo");
    crate::support::snapshot::settle(&ns);
    (ns, far)
}

pub fn what_is_seen_in_a_twin_is_held_against_the_exposure() {
    let (ns, _far) = host();
    let listeners = ns.run(|| {
        [
            "0.0.0.0:4001",
            "127.0.0.1:4002",
            "[::]:4003",
            "10.9.0.1:4004",
            "192.0.2.1:4005",
            "[::1]:4006",
            "100.64.0.9:4007",
        ]
        .map(|address| TcpListener::bind(address).unwrap())
    });
    let datagrams = ns.run(|| UdpSocket::bind("0.0.0.0:4001")).unwrap();
    let group = ns.run(|| UdpSocket::bind("224.0.0.251:5353")).unwrap();
    let ordinary =
        std::fs::read_to_string("/proc/self/uid_map").unwrap().split_whitespace().nth(2) != Some("1");
    for nobody in [false, ordinary] {
        let mut command = bindscope(&["audit", "--rehearse", "--format", "json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if nobody {
            command.uid(65534).gid(65534);
        }
        let output = finish(ns.run(|| command.spawn()).unwrap());
        let document: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {:?}", text(&output)));
        held(&document);
    }
    let human = finish(
        ns.run(|| {
            let mut command: Command = bindscope(&["audit", "--rehearse"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
        })
        .unwrap(),
    );
    let human = text(&human).0;
    assert!(human.contains("Tried in a copy of this network: 8 of 9 sockets"), "{human}");
    assert!(human.contains("note[BS1040]"), "{human}");
    drop((listeners, datagrams, group));
}

fn held(document: &Value) {
    let rehearsal = &document["rehearsal"];
    let sources: Vec<&str> =
        rehearsal["sources"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert_eq!(sources, ["host", "link:eth0", "link:eth1"], "{rehearsal:#}");
    let sockets = document["sockets"].as_array().unwrap();
    let rehearsed = rehearsal["sockets"].as_array().unwrap();
    assert_eq!((sockets.len(), rehearsed.len()), (9, 9));
    for (place, one) in rehearsed.iter().enumerate() {
        assert_eq!(one["socket"], place);
        let socket = &sockets[place]["socket"];
        let (exposure, observed) = (&socket["exposure"], &one["observed"]);
        match socket["port"].as_u64().unwrap() {
            4004 => assert_eq!(observed["ipv4"], "loopback", "the rule loses the answers: {one}"),
            5353 => assert_eq!((observed, &one["bound"]), (&Value::Null, &Value::Bool(false))),
            _ => assert_eq!(observed, exposure, "{socket} {one}"),
        }
    }
    let findings = document["findings"].as_array().unwrap();
    let mine: Vec<&Value> = findings.iter().filter(|finding| finding["code"] == "BS1040").collect();
    assert_eq!(mine.len(), 1, "{mine:#?}");
    let socket = usize::try_from(mine[0]["socket"].as_u64().unwrap()).unwrap();
    assert_eq!(sockets[socket]["socket"]["port"], 4004);
    assert_eq!(document["complete"], false, "one socket is not rehearsed");
    let because = document["incomplete_because"].to_string();
    assert!(because.contains("rehearsal: 1 of 9 sockets could not be rehearsed"), "{because}");
}
