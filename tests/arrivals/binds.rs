//! Binds that fail or come out otherwise than asked: each says why, with its errno, its code and the way out.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::netns::Netns;
use crate::support::program::{bindscope, text};

/// The events of a short run with these listeners.
fn events(host: &Netns, listeners: &str) -> Vec<Value> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profile.toml");
    std::fs::write(&path, format!("schema = 1\nname = 'binds'\n{listeners}")).unwrap();
    let output = host.output(&mut bindscope(&[
        "listen",
        "--format",
        "ndjson",
        "--for",
        "20ms",
        path.to_str().unwrap(),
    ]));
    let (stdout, stderr) = text(&output);
    assert!(matches!(output.status.code(), Some(0 | 4)), "{stderr}");
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn listener(name: &str, keys: &str) -> String {
    format!("[[listener]]\nname = '{name}'\nport = 9000\n{keys}\n")
}

/// The failure of a single listener with these keys: errno, code, and that its hint says this.
fn fails(host: &Netns, keys: &str, errno: &str, code: &str, hint: &str) {
    let events = events(host, &listener("one", keys));
    let failed = events
        .iter()
        .find(|event| event["event"] == "bind_failed")
        .unwrap_or_else(|| panic!("{keys} was bound: {events:?}"));
    assert_eq!((failed["errno"].as_str(), failed["code"].as_str()), (Some(errno), Some(code)), "{failed}");
    assert!(failed["hint"].as_str().is_some_and(|text| text.contains(hint)), "{failed}");
}

fn bound<'e>(events: &'e [Value], name: &str) -> &'e Value {
    let is = |event: &&Value| event["event"] == "bound" && event["socket"]["listener"] == name;
    events.iter().find(is).unwrap_or_else(|| panic!("{name} was not bound: {events:?}"))
}

fn noticed(events: &[Value], name: &str, code: &str) -> bool {
    let is = |event: &Value| event["event"] == "notice" && event["listener"] == name && event["code"] == code;
    events.iter().any(is)
}

/// A host with a wire, and the other end of it.
fn wired() -> (Netns, Netns) {
    let (host, peer) = (Netns::new(), Netns::new());
    host.wire("eth0", &peer, "far");
    host.address("eth0", "192.0.2.1/24");
    host.address("eth0", "fe80::1/64");
    host.ip("link add eth1 type veth peer name eth2");
    host.ip("link set eth1 up");
    (host, peer)
}

pub fn explain_why_an_address_cannot_be_bound() {
    let (host, _peer) = wired();
    fails(&host, "bind = '203.0.113.7'", "EADDRNOTAVAIL", "BS2002", "freebind");
    fails(&host, "bind = 'fe80::1%eth1'", "EADDRNOTAVAIL", "BS2006", "fe80::1%eth0");
    fails(&host, "bind = 'fe80::1%eth9'", "ENODEV", "BS2007", "eth0");
    fails(&host, "bind = '0.0.0.0'\ndevice = 'eth9'", "ENODEV", "BS2007", "eth0");
    fails(&host, "bind = '::1'\ndevice = 'eth0'", "EADDRNOTAVAIL", "BS2008", "device");
    host.sysctl("net.ipv6.conf.lo.disable_ipv6", "1");
    fails(&host, "bind = '::1'", "EADDRNOTAVAIL", "BS2010", "disable_ipv6");
    // What IPv6 is off for can still be bound as a wildcard, and a dual-stack one serves IPv4.
    let events = events(&host, &listener("dual", "bind = '::'\nv6only = false"));
    assert_eq!(bound(&events, "dual")["socket"]["v6only"], false);
}

pub fn wait_for_duplicate_address_detection_when_asked() {
    let (host, peer) = wired();
    // The last word: per-interface settings decide what an address that comes now goes through.
    host.sysctl("net.ipv6.conf.all.accept_dad", "1");
    host.sysctl("net.ipv6.conf.eth0.accept_dad", "1");
    host.sysctl("net.ipv6.conf.eth0.dad_transmits", "3");
    host.ip("address add 2001:db8::1/64 dev eth0");
    fails(&host, "bind = '2001:db8::1'", "EADDRNOTAVAIL", "BS2003", "wait_dad");
    let events = events(&host, &listener("patient", "bind = '2001:db8::1'\nwait_dad = true"));
    assert_eq!(bound(&events, "patient")["socket"]["address"], "2001:db8::1");

    peer.address("far", "2001:db8::2/64");
    host.ip("address add 2001:db8::2/64 dev eth0");
    let begun = Instant::now();
    let failed = || {
        let shown =
            host.output(std::process::Command::new("ip").args(["-6", "address", "show", "dadfailed"]));
        text(&shown).0.contains("2001:db8::2")
    };
    while !failed() {
        assert!(begun.elapsed() < Duration::from_secs(30), "the duplicate was not found");
        std::thread::sleep(Duration::from_millis(50));
    }
    fails(&host, "bind = '2001:db8::2'", "EADDRNOTAVAIL", "BS2004", "another address");
}

pub fn tell_what_took_effect() {
    let (host, _peer) = wired();
    host.sysctl("net.core.somaxconn", "64");
    host.sysctl("net.ipv6.bindv6only", "1");
    let profile = listener("long", "bind = '127.0.0.1'\nbacklog = 1000")
        + &listener("none", "bind = '127.0.0.2'\nbacklog = 0")
        + &listener("system", "bind = '::'\nv6only = 'system'")
        + &listener("everybody", "bind = '255.255.255.255'")
        + &listener("group", "bind = '224.0.0.1'")
        + &listener("subnet", "bind = '192.0.2.255'")
        + &listener("joined", "protocol = 'udp'\nbind = '224.0.0.1'")
        + &listener("unjoined", "protocol = 'udp'\nbind = '224.0.0.251'")
        + &listener("foreign", "bind = '203.0.113.7'\nwhen_missing = 'freebind'");
    let events = events(&host, &profile);
    let long = bound(&events, "long");
    assert_eq!((&long["backlog"]["requested"], &long["backlog"]["effective"]), (&1000.into(), &64.into()));
    assert!(noticed(&events, "long", "BS2022"));
    assert_eq!(bound(&events, "none")["backlog"]["effective"], 0);
    assert_eq!(bound(&events, "system")["socket"]["v6only"], true, "net.ipv6.bindv6only is 1");
    for name in ["everybody", "group", "subnet"] {
        bound(&events, name);
        assert!(noticed(&events, name, "BS2024"), "{name} can never be reached: {events:?}");
    }
    for (name, exposure) in [("joined", "link"), ("unjoined", "none")] {
        assert_eq!(bound(&events, name)["socket"]["exposure"]["ipv4"], exposure, "{name}");
    }
    bound(&events, "foreign");
    assert!(!noticed(&events, "foreign", "BS2024"));
}

/// Once they were 65,536 by a slip: nothing is bound then, and a profile that means it says so.
pub fn are_as_many_as_the_limits_say() {
    let (host, _peer) = wired();
    let many = "[[listener]]\nname = 'many'\nbind = '127.0.0.1'\nport = '10000-12999'\n";
    let output = host.output(&mut bindscope(&["listen", "--bind", "127.0.0.1:1-65535", "--for", "20ms"]));
    assert_eq!(output.status.code(), Some(2), "{:?}", text(&output));
    let events = events(&host, &format!("[limits]\nmax_sockets = 4000\n{many}"));
    assert_eq!(events.iter().filter(|event| event["event"] == "bound").count(), 3000);
}
