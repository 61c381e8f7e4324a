//! Every listener form x source x destination, over TCP and UDP, against what the kernel really does.
//!
//! What is expected is worked out here from the topology alone, by rules that do not share code with the program.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::Value;

use crate::support::netns::Netns;
use crate::support::program::{Listening, bindscope};

/// A host with two wires (`eth0` to `lan`, `eth1` to `wan`), a third interface `eth10` whose name an address label on `eth1`
/// borrows, addresses on `lo`, and a peer `far` behind `lan`.
struct Network {
    host: Netns,
    lan: Netns,
    wan: Netns,
    far: Netns,
    _spare: Netns,
}

/// The host's addresses with the interface that has each.
const ADDRESSES: [(&str, &str); 11] = [
    ("127.0.0.1", "lo"),
    ("::1", "lo"),
    ("203.0.113.1", "lo"),
    ("2001:db8:ff::1", "lo"),
    ("192.0.2.1", "eth0"),
    ("2001:db8:1::1", "eth0"),
    ("fe80::1", "eth0"),
    ("198.51.100.1", "eth1"),
    ("198.51.100.10", "eth1"),
    ("2001:db8:2::1", "eth1"),
    ("fe80::2:1", "eth1"),
];

fn network() -> Network {
    let [host, lan, wan, far, spare] = [(); 5].map(|()| Netns::new());
    host.wire("eth0", &lan, "host");
    host.wire("eth1", &wan, "host");
    host.wire("eth10", &spare, "host");
    lan.wire("far", &far, "lan");
    for (address, interface) in
        ADDRESSES.iter().filter(|(address, _)| !["127.0.0.1", "::1"].contains(address))
    {
        let prefix = match (*interface, address.contains(':')) {
            ("lo", false) => 32,
            ("lo", true) => 128,
            (_, false) => 24,
            (_, true) => 64,
        };
        if *address == "198.51.100.10" {
            host.ip("address add 198.51.100.10/24 dev eth1 label eth10");
        } else {
            host.address(interface, &format!("{address}/{prefix}"));
        }
    }
    lan.address("host", "192.0.2.9/24");
    lan.address("host", "2001:db8:1::9/64");
    lan.address("host", "fe80::9/64");
    wan.address("host", "198.51.100.9/24");
    wan.address("host", "2001:db8:2::9/64");
    wan.address("host", "fe80::9/64");
    lan.address("far", "10.9.0.1/24");
    lan.address("far", "fd09::1/64");
    far.address("lan", "10.9.0.9/24");
    far.address("lan", "fd09::9/64");
    lan.sysctl("net.ipv4.ip_forward", "1");
    lan.sysctl("net.ipv6.conf.all.forwarding", "1");
    // Peers reach every address of the host through their own wire: the weak host model at work.
    lan.ip("route add default via 192.0.2.1");
    lan.ip("-6 route add default via 2001:db8:1::1");
    wan.ip("route add default via 198.51.100.1");
    wan.ip("-6 route add default via 2001:db8:2::1");
    far.ip("route add default via 10.9.0.1");
    far.ip("-6 route add default via fd09::1");
    host.ip("route add 10.9.0.0/24 via 192.0.2.9");
    host.ip("-6 route add fd09::/64 via 2001:db8:1::9");
    Network { host, lan, wan, far, _spare: spare }
}

/// A listener form: its name, the keys of its profile entry, and what it takes.
struct Form {
    name: &'static str,
    keys: &'static str,
    port: u16,
    takes: fn(IpAddr, &str) -> bool,
    ipv6_socket: bool,
}

fn is(address: IpAddr, text: &str) -> bool {
    address == text.parse::<IpAddr>().unwrap()
}

/// `takes` is told the destination and the interface by which the kernel sees it arrive.
const FORMS: [Form; 14] = [
    Form {
        name: "all4",
        keys: "bind = '0.0.0.0'",
        port: 8001,
        takes: |to, _| to.is_ipv4(),
        ipv6_socket: false,
    },
    Form { name: "all6", keys: "bind = '::'", port: 8002, takes: |to, _| to.is_ipv6(), ipv6_socket: true },
    Form {
        name: "dual",
        keys: "bind = '::'\nv6only = false",
        port: 8003,
        takes: |_, _| true,
        ipv6_socket: true,
    },
    Form {
        name: "eth0-v4",
        keys: "bind = '192.0.2.1'",
        port: 8004,
        takes: |to, _| is(to, "192.0.2.1"),
        ipv6_socket: false,
    },
    Form {
        name: "eth0-v6",
        keys: "bind = '2001:db8:1::1'",
        port: 8005,
        takes: |to, _| is(to, "2001:db8:1::1"),
        ipv6_socket: true,
    },
    Form {
        name: "lo-v4",
        keys: "bind = '203.0.113.1'",
        port: 8006,
        takes: |to, _| is(to, "203.0.113.1"),
        ipv6_socket: false,
    },
    Form {
        name: "lo-v6",
        keys: "bind = '2001:db8:ff::1'",
        port: 8007,
        takes: |to, _| is(to, "2001:db8:ff::1"),
        ipv6_socket: true,
    },
    Form {
        name: "label",
        keys: "bind = '198.51.100.10'",
        port: 8008,
        takes: |to, _| is(to, "198.51.100.10"),
        ipv6_socket: false,
    },
    Form {
        name: "device4",
        keys: "bind = '0.0.0.0'\ndevice = 'eth0'",
        port: 8009,
        takes: |to, on| to.is_ipv4() && on == "eth0",
        ipv6_socket: false,
    },
    Form {
        name: "device46",
        keys: "bind = '::'\nv6only = false\ndevice = 'eth0'",
        port: 8010,
        takes: |_, on| on == "eth0",
        ipv6_socket: true,
    },
    Form {
        name: "link-local",
        keys: "bind = 'fe80::1%eth0'",
        port: 8011,
        takes: |to, on| is(to, "fe80::1") && on == "eth0",
        ipv6_socket: true,
    },
    Form {
        name: "mapped",
        keys: "bind = '::ffff:192.0.2.1'\nv6only = false",
        port: 8012,
        takes: |to, _| is(to, "192.0.2.1"),
        ipv6_socket: true,
    },
    Form {
        name: "loopback4",
        keys: "bind = '127.0.0.1'",
        port: 8013,
        takes: |to, _| is(to, "127.0.0.1"),
        ipv6_socket: false,
    },
    Form {
        name: "loopback6",
        keys: "bind = '::1'",
        port: 8014,
        takes: |to, _| is(to, "::1"),
        ipv6_socket: true,
    },
];

/// What must be reported of one connection or datagram.
#[derive(Debug, PartialEq)]
struct Expected {
    listener: String,
    local: String,
    ingress: String,
    owner: String,
    family: &'static str,
    v4_mapped: bool,
    peer_is_local: bool,
}

/// Connections and datagrams are told apart by the client's own address and the destination.
type Key = (IpAddr, u16, IpAddr, u16);

pub fn tcp() {
    every_combination("tcp");
}

pub fn udp() {
    every_combination("udp");
}

fn every_combination(protocol: &'static str) {
    let network = network();
    let mut profile = "schema = 1\nname = 'matrix'\n".to_owned();
    for form in &FORMS {
        profile += &format!(
            "[[listener]]\nname = '{}'\n{}\nport = {}\nprotocol = '{protocol}'\nreply = 'none'\n",
            form.name, form.keys, form.port
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("matrix.toml");
    std::fs::write(&path, profile).unwrap();
    let mut command = bindscope(&["listen", "--format", "ndjson", path.to_str().unwrap()]);
    let listening = network.host.run(|| Listening::start(&mut command));
    assert_eq!(listening.bound().count(), FORMS.len(), "{:?}", listening.beginning);

    let sources = [
        ("host", &network.host, None),
        ("lan", &network.lan, Some("eth0")),
        ("wan", &network.wan, Some("eth1")),
        ("far", &network.far, Some("eth0")),
    ];
    let mut expected: BTreeMap<Key, Expected> = BTreeMap::new();
    for (source, namespace, wire) in sources {
        for (destination, owner) in ADDRESSES {
            let to: IpAddr = destination.parse().unwrap();
            let link_local = destination.starts_with("fe80");
            // What never leaves a host, or has no meaning on another link, cannot be tried from there.
            let tried = match wire {
                None => true,
                Some(wire) => !to.is_loopback() && (!link_local || (source != "far" && wire == owner)),
            };
            if !tried {
                continue;
            }
            // Local packets cross lo, yet the kernel names the owner of the address.
            let arrives_on = wire.unwrap_or(owner);
            for form in &FORMS {
                let takes = (form.takes)(to, arrives_on);
                let zone = match (link_local, wire) {
                    (false, _) => 0,
                    (true, None) => network.host.index(owner),
                    (true, Some(_)) => namespace.index("host"),
                };
                let address = match to {
                    IpAddr::V4(v4) => SocketAddr::from((v4, form.port)),
                    IpAddr::V6(v6) => SocketAddrV6::new(v6, form.port, 0, zone).into(),
                };
                let what = format!("{protocol} {source} -> {destination} ({})", form.name);
                let from = namespace.run(|| {
                    if protocol == "tcp" {
                        connect(address, takes, &what)
                    } else {
                        send(address, takes, &what)
                    }
                });
                let Some(from) = from else { continue };
                let before = expected.insert(
                    (from.ip(), from.port(), to, form.port),
                    Expected {
                        listener: form.name.to_owned(),
                        local: destination.to_owned(),
                        ingress: arrives_on.to_owned(),
                        owner: owner.to_owned(),
                        family: if to.is_ipv4() { "ipv4" } else { "ipv6" },
                        v4_mapped: to.is_ipv4() && form.ipv6_socket,
                        peer_is_local: wire.is_none(),
                    },
                );
                assert!(before.is_none(), "the client's port was used twice: {what}");
            }
        }
    }
    assert!(expected.len() > 100, "{} cells are too few to prove anything", expected.len());
    let (events, status, stderr) = listening.end();
    assert_eq!(status.code(), Some(0), "{stderr}");
    let kind = if protocol == "tcp" { "accepted" } else { "datagram" };
    let mut reported = 0;
    for event in events.iter().filter(|event| event["event"] == kind) {
        let end = |end: &Value| -> (IpAddr, u16) {
            let port = u16::try_from(end["port"].as_u64().unwrap()).unwrap();
            (end["address"].as_str().unwrap().parse().unwrap(), port)
        };
        let ((peer, peer_port), (local, port)) = (end(&event["peer"]), end(&event["local"]));
        let key = (peer, peer_port, local, port);
        let expected = expected.get(&key).unwrap_or_else(|| panic!("no client sent {event}"));
        assert_eq!(&reported_as(event), expected, "{event}");
        assert_eq!(event["ingress"]["evidence"], "kernel", "{event}");
        let index = network.host.index(&expected.ingress);
        assert_eq!(event["ingress"]["index"], index, "{event}");
        let zoned = expected.local.starts_with("fe80");
        assert_eq!(
            event["local"]["scope_id"],
            if zoned { Value::from(index) } else { Value::Null },
            "{event}"
        );
        reported += 1;
    }
    assert_eq!(reported, expected.len(), "some arrivals have no line");
    let summary = events.last().unwrap();
    assert_eq!(summary["event"], "summary");
    assert_eq!(summary[if protocol == "tcp" { "accepted" } else { "datagrams" }], expected.len());
    for row in summary["by_listener"].as_array().unwrap() {
        for (interface, count) in row["by_ingress"].as_object().unwrap() {
            let sent = expected
                .values()
                .filter(|one| row["listener"] == one.listener.as_str() && *interface == one.ingress)
                .count();
            assert_eq!(*count, sent, "{row}");
        }
    }
}

fn reported_as(event: &Value) -> Expected {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Expected {
        listener: text(&event["listener"]),
        local: text(&event["local"]["address"]),
        ingress: text(&event["ingress"]["name"]),
        owner: text(&event["address_owner"]),
        family: if event["family"] == "ipv4" { "ipv4" } else { "ipv6" },
        v4_mapped: event["v4_mapped"].as_bool().unwrap(),
        peer_is_local: event["peer_is_local"].as_bool().unwrap(),
    }
}

/// The client's own address when it was connected.
fn connect(to: SocketAddr, must: bool, what: &str) -> Option<SocketAddr> {
    match TcpStream::connect_timeout(&to, Duration::from_secs(5)) {
        Ok(stream) => {
            assert!(must, "{what} was accepted");
            Some(stream.local_addr().unwrap())
        }
        Err(error) => {
            assert!(!must, "{what}: {error}");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{what}");
            None
        }
    }
}

/// The client's own address when a datagram was sent that must arrive.
fn send(to: SocketAddr, must: bool, what: &str) -> Option<SocketAddr> {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.connect(to).unwrap_or_else(|error| panic!("{what}: {error}"));
    socket.send(b"hello").unwrap_or_else(|error| panic!("{what}: {error}"));
    if must {
        return Some(socket.local_addr().unwrap());
    }
    // That it was not taken shows at the end: every datagram that is told must be an expected one.
    None
}
