//! From profiles to sockets, on hosts that are values.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test")]

use std::net::IpAddr;
use std::time::Duration;

use bindscope::code::Code;
use bindscope::model::{
    AddrClass, AddrState, Errno, Family, IfName, Interface, InterfaceAddress, Snapshot, V6Only,
};
use bindscope::plan::expand::{Expansion, expand};
use bindscope::profile::{self, builtin};

fn interface(index: u32, name: &str, addresses: &[(&str, u8, &[AddrState])]) -> Interface {
    let address = |(text, prefix, state): &(&str, u8, &[AddrState])| {
        let address: IpAddr = text.parse().unwrap();
        let class = AddrClass::of(address);
        InterfaceAddress {
            address,
            prefix: *prefix,
            family: Family::of(address),
            class,
            scope_id: (address.is_ipv6() && class == AddrClass::Link).then_some(index),
            label: None,
            peer: None,
            broadcast: None,
            state: state.to_vec(),
            scope: None,
        }
    };
    Interface {
        up: true,
        running: true,
        loopback: name == "lo",
        multicast: true,
        addresses: addresses.iter().map(address).collect(),
        ..Interface::new(index, IfName::from(name))
    }
}

/// A host with two wires; one of them is called like an index.
fn host() -> Snapshot {
    Snapshot {
        complete: true,
        ipv6_available: true,
        interfaces: vec![
            interface(1, "lo", &[("127.0.0.1", 8, &[]), ("::1", 128, &[])]),
            interface(2, "eth0", &[("192.168.1.5", 24, &[]), ("2001:db8::5", 64, &[]), ("fe80::5", 64, &[])]),
            interface(7, "eth1", &[("203.0.113.5", 24, &[]), ("fe80::5", 64, &[AddrState::Tentative])]),
            interface(9, "7", &[("10.0.0.5", 8, &[])]),
        ],
        ..Snapshot::default()
    }
}

/// A host without IPv6 and without a network.
fn bare() -> Snapshot {
    Snapshot {
        complete: true,
        interfaces: vec![interface(1, "lo", &[("127.0.0.1", 8, &[])])],
        ..Snapshot::default()
    }
}

fn on(snapshot: &Snapshot, listener: &str) -> Expansion {
    let text = format!("schema = 1\n[limits]\nmax_sockets = 20\n[[listener]]\nname = \"x\"\n{listener}\n");
    let profile = profile::parse("test", &text).unwrap_or_else(|problems| panic!("{problems:?}"));
    expand(&profile, snapshot)
}

/// `address%scope:port` of each socket, in order.
fn sockets(expansion: &Expansion) -> Vec<String> {
    let sockets = expansion.sockets.iter();
    sockets.map(|spec| format!("{}%{}:{}", spec.address, spec.scope_id, spec.port)).collect()
}

#[test]
fn a_selector_is_a_socket_for_each_address_that_matches() {
    for (selector, expected) in [
        (r#"{ interface = "eth0" }"#, vec!["192.168.1.5%0:80", "2001:db8::5%0:80", "fe80::5%2:80"]),
        (r#"{ interface = "eth*", family = "ipv4" }"#, vec!["192.168.1.5%0:80", "203.0.113.5%0:80"]),
        (r#"{ interface = "eth*", scope = "link" }"#, vec!["fe80::5%2:80", "fe80::5%7:80"]),
        (r#"{ interface = "*", scope = "private" }"#, vec!["192.168.1.5%0:80", "10.0.0.5%0:80"]),
        (r#"{ interface = "*", scope = "loopback" }"#, vec!["127.0.0.1%0:80", "::1%0:80"]),
        (r#"{ interface = "eth0", scope = "global" }"#, vec!["192.168.1.5%0:80", "2001:db8::5%0:80"]),
        (r#"{ interface = ["eth1", "lo"], family = "ipv4" }"#, vec!["127.0.0.1%0:80", "203.0.113.5%0:80"]),
        (r#""loopback""#, vec!["127.0.0.1%0:80", "::1%0:80"]),
        (r#"["0.0.0.0", "::", "fe80::9%eth1"]"#, vec!["0.0.0.0%0:80", "::%0:80", "fe80::9%7:80"]),
        // A name goes before an index.
        (r#""fe80::9%7""#, vec!["fe80::9%9:80"]),
        (r#""fe80::9%2""#, vec!["fe80::9%2:80"]),
        // An address that is asked for twice is bound once.
        (r#"["127.0.0.1", "loopback"]"#, vec!["127.0.0.1%0:80", "::1%0:80"]),
    ] {
        let expansion = on(&host(), &format!("bind = {selector}\nport = 80"));
        assert_eq!(sockets(&expansion), expected, "{selector}");
        assert!(expansion.missing.is_empty() && expansion.notes.is_empty(), "{selector}: {expansion:?}");
    }
}

#[test]
fn ports_and_groups_multiply_in_their_order() {
    let expansion = on(&host(), "bind = [\"127.0.0.1\", \"::\"]\nport = [81, \"79-80\"]\nv6only = false");
    let expected = ["127.0.0.1%0:81", "127.0.0.1%0:79", "127.0.0.1%0:80", "::%0:81", "::%0:79", "::%0:80"];
    assert_eq!(sockets(&expansion), expected);
    assert_eq!(expansion.sockets[3].v6only, V6Only::Off);
    let group = on(&host(), "bind = \"127.0.0.1\"\nport = 80\nreuse_port = { group = 3 }");
    assert_eq!(sockets(&group), ["127.0.0.1%0:80"; 3]);
    assert!(group.sockets.iter().all(|spec| spec.reuse_port && spec.reuse_address));
}

#[test]
fn what_is_not_here_is_missing_waited_for_or_left_out() {
    let ten = Duration::from_secs(10);
    for (bind, errno, code) in [
        (r#"{ interface = "wlan0" }"#, Errno::ENODEV, Code::NO_SUCH_DEVICE),
        (r#"{ interface = "eth1", scope = "loopback" }"#, Errno::EADDRNOTAVAIL, Code::ADDRESS_NOT_HERE),
        (r#""fe80::1%wlan0""#, Errno::ENODEV, Code::NO_SUCH_DEVICE),
    ] {
        for (when, wait) in [("fail", Duration::ZERO), ("wait", ten), ("freebind", Duration::ZERO)] {
            let listener =
                format!("bind = {bind}\nport = 80\nwhen_missing = \"{when}\"\nwait_timeout = \"10s\"");
            let expansion = on(&host(), &listener);
            assert!(expansion.sockets.is_empty() && expansion.notes.is_empty(), "{listener}: {expansion:?}");
            let [missing] = &expansion.missing[..] else { panic!("{listener}: {expansion:?}") };
            assert_eq!((missing.errno, missing.code, missing.wait), (errno, code, wait), "{listener}");
            assert_eq!((missing.spec.port, missing.spec.listener.as_str()), (80, "x"));
        }
        let skipped = on(&host(), &format!("bind = {bind}\nport = 80\nwhen_missing = \"skip\""));
        assert!(
            skipped.sockets.is_empty() && skipped.missing.is_empty() && skipped.notes.len() == 1,
            "{bind}"
        );
    }
}

#[test]
fn a_literal_address_that_is_not_here_is_left_to_bind_unless_asked_otherwise() {
    let on_host = |when: &str| {
        on(&host(), &format!("bind = \"192.0.2.77\"\nport = [80, 81]\nwhen_missing = \"{when}\""))
    };
    assert_eq!(on_host("fail").sockets.len(), 2);
    let waiting = on_host("wait");
    assert_eq!((waiting.sockets.len(), waiting.missing.len()), (0, 1));
    assert_eq!(waiting.missing[0].errno, Errno::EADDRNOTAVAIL);
    let skipping = on_host("skip");
    assert_eq!((skipping.sockets.len(), skipping.notes.len()), (0, 1));
    let bound = on_host("freebind");
    assert!(bound.sockets.len() == 2 && bound.sockets.iter().all(|spec| spec.freebind));
    let device = on(&host(), "bind = \"0.0.0.0\"\nport = 80\ndevice = \"wlan0\"\nwhen_missing = \"skip\"");
    assert_eq!((device.sockets.len(), device.notes.len()), (0, 1));
}

#[test]
fn a_tentative_address_is_used_and_waited_for_when_asked() {
    let eth1 = "bind = { interface = \"eth1\", family = \"ipv6\" }\nport = 80";
    for when in ["fail", "wait", "skip"] {
        let listener = format!("{eth1}\nwhen_missing = \"{when}\"\nwait_dad = true\nwait_timeout = \"3s\"");
        let expansion = on(&host(), &listener);
        assert_eq!(sockets(&expansion), ["fe80::5%7:80"], "{when}");
        assert_eq!(expansion.sockets[0].wait_for_address, Duration::from_secs(3));
    }
    let skipped = on(&host(), &format!("{eth1}\nwhen_missing = \"skip\""));
    assert_eq!((skipped.sockets.len(), skipped.notes.len()), (0, 1));
    assert_eq!(on(&host(), eth1).sockets[0].wait_for_address, Duration::ZERO);
}

#[test]
fn more_sockets_than_the_limit_are_not_opened() {
    let expansion = on(&host(), "bind = { interface = \"*\" }\nport = \"80-84\"");
    assert_eq!(expansion.sockets.len(), 20);
    let [over] = &expansion.missing[..] else { panic!("{expansion:?}") };
    assert_eq!(over.code, Code::TOO_MANY_SOCKETS);
}

#[test]
fn every_built_in_profile_has_something_to_say_on_every_host() {
    for name in builtin::names() {
        let profile = profile::parse(name, builtin::get(name).unwrap()).unwrap();
        for snapshot in [host(), bare()] {
            let expansion = expand(&profile, &snapshot);
            assert!(expansion.missing.is_empty(), "{name}: {:?}", expansion.missing);
            for listener in &profile.listeners {
                let here = expansion.sockets.iter().any(|spec| spec.listener == listener.name);
                let noted = expansion.notes.iter().any(|note| note.listener == listener.name);
                assert!(here || noted, "{name}: {} vanished", listener.name);
            }
            assert!(
                snapshot.ipv6_available || expansion.sockets.iter().all(|spec| spec.address.is_ipv4()),
                "{name}"
            );
        }
    }
    let default = profile::parse("default", builtin::get("default").unwrap()).unwrap();
    let expansion = expand(&default, &host());
    assert_eq!(expansion.sockets.len(), 1 + 1 + 4 + 1 + 1 + 4 - 1 + 1, "{:?}", sockets(&expansion));
    // The tentative one is left out with a note.
    assert_eq!(expansion.notes.len(), 1);
}
