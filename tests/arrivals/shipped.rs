//! Every profile that is compiled in: it binds on a host with two wires, and each of its sockets is used.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::time::Duration;

use bindscope::profile::expect::BindResult;
use bindscope::profile::{self, builtin};
use serde_json::Value;

use crate::support::netns::Netns;
use crate::support::program::{Listening, bindscope, text};

/// Binds and uses each in turn.
pub fn profiles_bind_and_every_socket_is_used() {
    let (host, lan, wan) = (Netns::new(), Netns::new(), Netns::new());
    for (wire, peer, v4, v6) in
        [("eth0", &lan, "192.0.2", "2001:db8:1:"), ("eth1", &wan, "198.51.100", "2001:db8:2:")]
    {
        host.wire(wire, peer, "far");
        host.address(wire, &format!("{v4}.1/24"));
        host.address(wire, &format!("{v6}:1/64"));
        peer.address("far", &format!("{v4}.9/24"));
        peer.address("far", &format!("{v6}:9/64"));
    }
    let names: Vec<_> = builtin::names().collect();
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        let source = profile::parse(name, builtin::get(name).unwrap()).unwrap();
        assert!(source.description.is_some(), "{name} says not what it is for");
        let mut command = bindscope(&["listen", "--format", "ndjson", name]);
        let mut listening = host.run(|| Listening::start(&mut command));
        for event in listening.beginning.iter().filter(|event| event["event"] == "bind_failed") {
            let listener = event["socket"]["listener"].as_str().unwrap();
            let foreseen = source.expectations.iter().any(|expectation| {
                expectation.names(listener) && matches!(expectation.bind, Some(BindResult::Error(_)))
            });
            assert!(foreseen, "{name}: {event}");
        }
        let sockets: Vec<Value> = listening.bound().cloned().collect();
        assert!(!sockets.is_empty(), "{name}");
        for socket in &sockets {
            let device = socket["device"].as_str();
            let (from, address) = match device {
                Some("eth0") => (&lan, wildcard_to(socket, "192.0.2.1", "2001:db8:1::1")),
                Some("eth1") => (&wan, wildcard_to(socket, "198.51.100.1", "2001:db8:2::1")),
                Some("lo") => (&host, wildcard_to(socket, "127.0.0.1", "::1")),
                _ => (&host, wildcard_to(socket, "192.0.2.1", "2001:db8:1::1")),
            };
            let port = u16::try_from(socket["port"].as_u64().unwrap()).unwrap();
            let to = match address {
                IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                    SocketAddrV6::new(v6, port, 0, from.index(if device.is_some() { "far" } else { "eth0" }))
                        .into()
                }
                _ => SocketAddr::new(address, port),
            };
            let what = format!("{name}: {socket} at {to}");
            let client = from.run(|| {
                if socket["protocol"] == "tcp" {
                    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))
                        .unwrap_or_else(|error| panic!("{what}: {error}"));
                    let port = stream.local_addr().unwrap().port();
                    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                    let _ = stream.read(&mut [0; 16]);
                    port
                } else {
                    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
                    let socket = UdpSocket::bind((any, 0)).unwrap();
                    socket.send_to(b"hello", to).unwrap_or_else(|error| panic!("{what}: {error}"));
                    socket.local_addr().unwrap().port()
                }
            });
            let event = listening.next_arrival();
            assert_eq!(event["peer"]["port"], client, "{what}: {event}");
            assert_eq!(event["ingress"]["evidence"], "kernel", "{what}: {event}");
            // Where several sockets share the port the kernel chooses; the one it chose must be one of them.
            let sharing = sockets
                .iter()
                .filter(|other| other["port"] == port && other["protocol"] == socket["protocol"]);
            let sharing: Vec<_> = sharing.map(|other| &other["listener"]).collect();
            assert!(sharing.contains(&&event["listener"]), "{what}: {event}");
            if let Some(device) = device {
                assert_eq!(event["ingress"]["name"], device, "{what}: {event}");
            }
        }
        let (_, status, stderr) = listening.end();
        assert_eq!(status.code(), Some(0), "{name}: {stderr}");
        // The expectations hold here; 3 means that only the nodes of a lab could decide one. In some combinations of the
        // experiment an expectation fails on purpose, but every observed result is as predicted.
        let probe = host.output(&mut bindscope(&["probe", name]));
        let (stdout, stderr) = text(&probe);
        if name == "v6only-experiment" {
            assert_eq!(probe.status.code(), Some(1), "{stdout}{stderr}");
            assert!(stdout.contains("Every observed result is as predicted."), "{stdout}{stderr}");
        } else {
            assert!(matches!(probe.status.code(), Some(0 | 3)), "{name}: {stdout}{stderr}");
        }
    }
}

/// The socket's own address; for a wildcard one of these, by its family.
fn wildcard_to(socket: &Value, v4: &str, v6: &str) -> IpAddr {
    let address: IpAddr = socket["address"].as_str().unwrap().parse().unwrap();
    match address.to_canonical() {
        address if !address.is_unspecified() => address,
        IpAddr::V4(_) => v4.parse().unwrap(),
        IpAddr::V6(_) => v6.parse().unwrap(),
    }
}
