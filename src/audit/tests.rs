//! Tests of the whole module, with invented hosts and sockets.

use std::net::IpAddr;
use std::sync::Arc;

use super::*;
use crate::model::{IfName, Interface, InterfaceAddress, Owner, Protocol, Queue, SocketView};

pub(crate) fn interface(index: u32, name: &str, addresses: &[(&str, u8)]) -> Interface {
    let addresses = addresses.iter().map(|&(text, prefix)| {
        let address: IpAddr = text.parse().unwrap();
        InterfaceAddress {
            scope_id: crate::model::addr::needs_zone(address).then_some(index),
            label: address.is_ipv4().then(|| IfName::from(name)),
            ..InterfaceAddress::new(address, prefix)
        }
    });
    Interface {
        up: true,
        running: true,
        loopback: name == "lo",
        multicast: true,
        mtu: Some(1500),
        addresses: addresses.collect(),
        ..Interface::new(index, IfName::from(name))
    }
}

/// A host with a private IPv4 and a global IPv6 address on eth0, and a second interface.
pub(crate) fn host() -> Snapshot {
    Snapshot {
        complete: true,
        ipv6_available: true,
        interfaces: vec![
            interface(1, "lo", &[("127.0.0.1", 8), ("::1", 128)]),
            interface(2, "eth0", &[("10.0.0.5", 24), ("2001:db8::5", 64), ("fe80::5", 64)]),
            Interface { altnames: vec!["enp9s0".into()], ..interface(3, "eth1", &[("192.168.9.1", 24)]) },
        ],
        ..Snapshot::default()
    }
}

pub(crate) fn owner(pid: u32, command: &str, exe: &str) -> Owner {
    Owner {
        pid,
        command: command.to_owned(),
        exe: Some(exe.to_owned()),
        exe_deleted: false,
        exe_visible: Some(true),
        user: Some("root".to_owned()),
        uid: Some(0),
        unit: Some(format!("{command}.service")),
        container: None,
    }
}

/// `tcp 0.0.0.0:80`, `udp [::]:53 v6only`, `tcp [::]:80 dual`, `tcp [::]:80 ?`, `tcp 10.0.0.5:80 device 2`.
pub(crate) fn socket(text: &str) -> ListeningSocket {
    let mut words = text.split(' ');
    let protocol = if words.next() == Some("udp") { Protocol::Udp } else { Protocol::Tcp };
    let (address, port) = words.next().unwrap().rsplit_once(':').unwrap();
    let address: IpAddr = address.trim_matches(['[', ']']).parse().unwrap();
    let (mut v6only, mut device) = (address.is_ipv6().then(|| !address.to_canonical().is_ipv4()), None);
    while let Some(word) = words.next() {
        match word {
            "dual" => v6only = Some(false),
            "v6only" => v6only = Some(true),
            "?" => v6only = None,
            "device" => device = Some(words.next().unwrap().parse::<u32>().unwrap()),
            other => panic!("{other}"),
        }
    }
    let port: u16 = port.parse().unwrap();
    let names = [None, Some("lo"), Some("eth0"), Some("eth1")];
    let name = device.map(|index| match names.get(index as usize) {
        Some(Some(name)) => IfName::from(*name),
        _ => IfName::from(format!("#{index}").as_str()),
    });
    ListeningSocket {
        netns: Some(1),
        uid: Some(0),
        inode: Some(u64::from(port) * 1000 + 7),
        queue: Some(Queue { length: 0, limit: Some(128) }),
        device_known: true,
        device_index: device,
        owners: Some(vec![owner(u32::from(port), "server", "/usr/sbin/server")].into()),
        ..ListeningSocket::of(SocketView { device: name, v6only, ..SocketView::of(protocol, address, port) })
    }
}

pub(crate) fn report_of(sockets: Vec<ListeningSocket>, host: Snapshot) -> Report {
    report_with(sockets, host, false)
}

pub(crate) fn report_with(sockets: Vec<ListeningSocket>, host: Snapshot, leave_out_clients: bool) -> Report {
    let namespace =
        Namespace { inode: Some(1), name: None, current: true, complete: true, exposure_known: true };
    let client_ports = ClientPorts::parse("32768 60999", "");
    let site = Site { namespace, host, sockets, client_ports, ..Site::default() };
    report(&mut [site], Vec::new(), "2026-01-02T03:04:05.000006Z".to_owned(), leave_out_clients)
}

fn codes(report: &Report) -> Vec<Code> {
    let mut codes: Vec<Code> = report.findings.iter().map(|finding| finding.code).collect();
    codes.dedup();
    codes
}

fn alone(text: &str) -> Vec<Code> {
    codes(&report_of(vec![socket(text)], host()))
}

#[test]
fn each_kind_of_socket_has_its_findings() {
    for (text, expected) in [
        ("tcp 127.0.0.1:80", vec![Code::ONE_FAMILY]),
        ("tcp [::1]:80", vec![Code::ONE_FAMILY]),
        ("udp 127.0.0.1:80", vec![]),
        ("tcp 0.0.0.0:80", vec![Code::WILDCARD_LISTENER, Code::ONE_FAMILY]),
        ("tcp [::]:80 v6only", vec![Code::WILDCARD_LISTENER, Code::ONE_FAMILY]),
        ("tcp [::]:80 dual", vec![Code::WILDCARD_LISTENER, Code::WIDER_IN_IPV6]),
        ("tcp [::]:80 ?", vec![Code::WILDCARD_LISTENER, Code::WIDER_IN_IPV6, Code::V6ONLY_UNKNOWN]),
        ("tcp 0.0.0.0:80 device 1", vec![]),
        ("tcp 0.0.0.0:80 device 9", vec![Code::DEVICE_GONE]),
        ("tcp 10.0.0.5:80", vec![Code::ADDRESS_NOT_INTERFACE]),
        ("tcp 10.0.0.5:80 device 2", vec![]),
        ("tcp 10.9.9.9:80", vec![Code::STALE_ADDRESS]),
        ("tcp [2001:db8::dead]:80", vec![Code::STALE_ADDRESS]),
        ("udp 224.0.0.251:5353", vec![Code::SENT_TO_MANY]),
        ("tcp [::ffff:0.0.0.0]:80", vec![Code::WILDCARD_LISTENER, Code::ONE_FAMILY]),
    ] {
        let mut found = alone(text);
        found.sort();
        let mut expected = expected;
        expected.sort();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn loopback_in_both_families_is_whole() {
    let both = report_of(vec![socket("tcp 127.0.0.1:80"), socket("tcp [::1]:80")], host());
    assert!(!codes(&both).contains(&Code::ONE_FAMILY), "{:?}", both.findings);
    let mut only4 = host();
    only4.interfaces[0].addresses.truncate(1);
    assert_eq!(codes(&report_of(vec![socket("tcp 127.0.0.1:80")], only4)), []);
}

#[test]
fn route_localnet_opens_loopback() {
    let mut open = host();
    open.interfaces[1].settings.insert("ipv4.route_localnet".to_owned(), 1);
    let report = report_of(vec![socket("tcp 127.0.0.1:80"), socket("tcp [::1]:80")], open);
    let found: Vec<&Finding> =
        report.findings.iter().filter(|finding| finding.code == Code::LOOPBACK_FROM_OUTSIDE).collect();
    assert_eq!((found.len(), found[0].socket, found[0].severity), (1, Some(0), Severity::Error));
    assert!(found[0].message.contains("eth0") && !found[0].message.contains("eth1"), "{}", found[0].message);
}

#[test]
fn programs_that_share_a_port_differ_from_one_program() {
    let divided = |a: &str, b: &str, same: bool| {
        let (mut one, mut two) = (socket(a), socket(b));
        two.inode = Some(5);
        if !same {
            one.owners = Some(vec![owner(1, "one", "/one")].into());
            two.owners = Some(vec![owner(2, "two", "/two")].into());
        }
        let report = report_of(vec![one, two], host());
        report
            .findings
            .iter()
            .find(|finding| finding.code == Code::SHADOWED)
            .map(|finding| finding.message.clone())
    };
    for (a, b, expected) in [
        ("tcp 127.0.0.1:80", "tcp 0.0.0.0:80", "connections to 127.0.0.1 reach one (pid 1)"),
        ("tcp 0.0.0.0:80", "tcp 10.0.0.5:80", "connections to 10.0.0.5 reach two (pid 2)"),
        (
            "tcp 0.0.0.0:80",
            "tcp [::]:80 v6only",
            "over IPv4 the port reaches one (pid 1), over IPv6 two (pid 2)",
        ),
        ("tcp 127.0.0.1:80", "tcp [::1]:80", "localhost is two programs"),
        ("udp 0.0.0.0:80", "udp 0.0.0.0:80", "share the port"),
        ("udp 10.0.0.5:80", "udp 10.0.0.5:80", "share the address and port"),
    ] {
        let message = divided(a, b, false).unwrap_or_else(|| panic!("{a} and {b}"));
        assert!(message.contains(expected), "{a} and {b}: {message}");
        assert_eq!(divided(a, b, true), None, "{a} and {b} of one program");
    }
    for (a, b) in [
        ("tcp 127.0.0.1:80", "tcp [::]:80 v6only"),
        ("tcp 127.0.0.1:80", "tcp 10.0.0.5:80"),
        ("tcp 0.0.0.0:80", "udp 0.0.0.0:80"),
        ("tcp 0.0.0.0:80 device 2", "tcp 0.0.0.0:80 device 3"),
    ] {
        assert_eq!(divided(a, b, false), None, "{a} and {b}");
    }
}

#[test]
fn a_queue_is_full_above_its_limit() {
    for (length, limit, full) in
        [(0, 0, false), (1, 0, true), (127, 128, false), (128, 128, false), (129, 128, true)]
    {
        let mut one = socket("tcp 127.0.0.1:80");
        one.queue = Some(Queue { length, limit: Some(limit) });
        let report = report_of(vec![one], host());
        assert_eq!(codes(&report).contains(&Code::QUEUE_FULL), full, "{length}/{limit}");
    }
}

#[test]
fn labels_local_routes_and_replaced_programs_are_noticed() {
    let mut odd = host();
    odd.interfaces[1].addresses[0].label = Some(IfName::from("lo"));
    odd.routes.push(crate::model::Route {
        interface: Some(1),
        ..crate::model::Route::new(255, crate::model::RouteKind::Local, "198.51.100.0/24".parse().unwrap())
    });
    let mut one = socket("tcp 0.0.0.0:80");
    Arc::make_mut(one.owners.as_mut().unwrap())[0].exe_deleted = true;
    one.view.reuse_address = Some(true);
    let mut two = socket("udp 0.0.0.0:81");
    two.view.reuse_address = Some(true);
    let found = codes(&report_of(vec![one, two], odd));
    for code in [Code::LABEL_MASKS_INTERFACE, Code::ANY_IP, Code::EXE_REPLACED, Code::OTHERS_MAY_JOIN] {
        assert!(found.contains(&code), "{code}: {found:?}");
    }
}

#[test]
fn without_interfaces_nothing_is_said_of_reach() {
    let report = report_of(vec![socket("tcp 0.0.0.0:80")], Snapshot::default());
    assert!(report.findings.is_empty() && !report.complete);
}

#[test]
fn a_baseline_knows_what_it_has_seen_whatever_the_pid() {
    let first = report_of(vec![socket("tcp 0.0.0.0:80")], host());
    let parse = |text: &str| serde_json::from_str(text).map(baseline::Baseline::new);
    let baseline = parse(&serde_json::to_string(&first).unwrap()).unwrap();
    let mut again = socket("tcp 0.0.0.0:80");
    again.inode = Some(4);
    Arc::make_mut(again.owners.as_mut().unwrap())[0].pid = 77;
    let mut second = report_of(vec![again, socket("tcp 0.0.0.0:81")], host());
    baseline.apply("b.json", &mut second);
    for finding in &second.findings {
        assert_eq!(finding.known, finding.socket == Some(0), "{finding:?}");
    }
    let new: Vec<_> =
        second.findings.iter().filter(|finding| finding.code == Code::NOT_IN_BASELINE).collect();
    assert_eq!((new.len(), new[0].socket), (1, Some(1)));
    assert!(parse("{}").is_err());
}

#[test]
fn changes_are_reported_once_and_equal_reports_have_none() {
    use change::Change;
    let before = report_of(vec![socket("tcp 0.0.0.0:80"), socket("tcp 127.0.0.1:81")], host());
    assert_eq!(change::of_reports(&before, &before), []);
    let mut queued = before.clone();
    queued.body.sockets[0].queue = Some(Queue { length: 5, limit: Some(128) });
    assert_eq!(change::of_reports(&before, &queued), [], "the length of a queue is not a change");
    let after = report_of(vec![socket("tcp 0.0.0.0:80"), socket("udp 0.0.0.0:82")], host());
    let changes = change::of_reports(&before, &after);
    assert!(matches!(&changes[0], Change::SocketGone { socket } if socket.view.port == 81));
    assert!(matches!(&changes[1], Change::SocketNew { socket, .. } if socket.view.port == 82));
    assert_eq!(changes.len(), 2, "{changes:?}");

    let mut moved = host();
    moved.interfaces[1].addresses.remove(0);
    moved.interfaces[2].up = false;
    moved.interfaces.push(interface(4, "tun0", &[("10.8.0.1", 24)]));
    let changes = change::of_hosts(&host(), &moved);
    assert_eq!(
        changes,
        [
            Change::AddressGone { interface: "eth0".to_owned(), address: "10.0.0.5/24".to_owned() },
            Change::InterfaceChanged { interface: "eth1".to_owned(), up: false },
            Change::InterfaceNew { interface: "tun0".to_owned() },
            Change::AddressNew { interface: "tun0".to_owned(), address: "10.8.0.1/24".to_owned() },
        ]
    );
    let less = report_of(vec![socket("tcp 0.0.0.0:80")], moved);
    let changes = change::of_reports(&report_of(vec![socket("tcp 0.0.0.0:80")], host()), &less);
    assert!(
        changes.iter().any(|change| matches!(change, Change::FindingNew { .. } | Change::FindingGone { .. })),
        "{changes:?}"
    );
}
