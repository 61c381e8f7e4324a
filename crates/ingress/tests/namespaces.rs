//! Connections and datagrams between network namespaces: on which interface they really arrive, and what the crate reports.
//!
//! The topology: a host with two links to one peer. The peer reaches each address of the host over each link, so the address that a
//! client connects to and the interface it arrives on are independent.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test")]

use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use ingress_interface::{Evidence, Ingress, kernel, of, record, recv_with_ingress, send_from};
use socket2::{Domain, Protocol, Socket, Type};

#[allow(dead_code, reason = "other tests use more of it")]
#[path = "../../../tests/support/netns.rs"]
mod netns;

use netns::{Netns, trial};

/// The host's ends of the links, with their addresses.
const LINKS: [(&str, [&str; 3]); 2] = [
    ("lan0", ["192.0.2.1", "2001:db8:1::1", "fe80::1:1"]),
    ("wan0", ["198.51.100.1", "2001:db8:2::1", "fe80::2:1"]),
];
/// The peer's ends of the links.
const FAR: [(&str, [&str; 3]); 2] = [
    ("far0", ["192.0.2.10", "2001:db8:1::10", "fe80::1:10"]),
    ("far1", ["198.51.100.10", "2001:db8:2::10", "fe80::2:10"]),
];

struct World {
    host: Netns,
    peer: Netns,
}

fn world() -> World {
    let (host, peer) = (Netns::new(), Netns::new());
    for ns in [&host, &peer] {
        for setting in ["all", "default"] {
            ns.sysctl(&format!("net.ipv4.conf.{setting}.rp_filter"), "0");
        }
        ns.sysctl("net.ipv6.conf.default.addr_gen_mode", "1");
    }
    for ((near, here), (far, there)) in LINKS.iter().zip(&FAR) {
        host.wire(near, &peer, far);
        for ((ns, interface), addresses) in [(&host, near), (&peer, far)].into_iter().zip([here, there]) {
            ns.sysctl(&format!("net.ipv4.conf.{interface}.rp_filter"), "0");
            for (address, length) in addresses.iter().zip([24, 64, 64]) {
                ns.address(interface, &format!("{address}/{length}"));
            }
        }
    }
    // A socket of the peer that is bound to the other link takes these routes.
    for (other, this) in [(0, 1), (1, 0)] {
        let (far, [via4, via6, _]) = (FAR[this].0, LINKS[this].1);
        let [to4, to6, _] = LINKS[other].1;
        peer.ip(&format!("route add {to4}/32 via {via4} dev {far} metric 500"));
        peer.ip(&format!("route add {to6}/128 via {via6} dev {far} metric 2048"));
    }
    World { host, peer }
}

impl World {
    fn listener(&self, address: &str, only_v6: bool) -> TcpListener {
        let address: SocketAddr = address.parse().unwrap();
        self.host.run(|| {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            if address.is_ipv6() {
                socket.set_only_v6(only_v6).unwrap();
            }
            socket.bind(&address.into()).unwrap();
            socket.listen(64).unwrap();
            socket.into()
        })
    }

    /// A socket of the peer that sends over this link, connected to `to`.
    fn client(&self, link: usize, kind: Type, to: SocketAddr) -> Socket {
        self.peer.run(|| {
            let socket = Socket::new(Domain::for_address(to), kind, None).unwrap();
            socket.bind_device(Some(FAR[link].0.as_bytes())).unwrap();
            socket.connect(&to.into()).unwrap();
            socket
        })
    }

    /// The address of a link of the host, as the peer writes it when it sends over that link.
    fn address(&self, owner: usize, kind: usize, port: u16) -> SocketAddr {
        let scope = if kind == 2 { self.peer.index(FAR[owner].0) } else { 0 };
        with_scope(LINKS[owner].1[kind], port, scope)
    }
}

fn with_scope(address: &str, port: u16, scope: u32) -> SocketAddr {
    match address.parse().unwrap() {
        IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, scope).into(),
        v4 => SocketAddr::new(v4, port),
    }
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

fn assert_arrived(ingress: Option<Ingress>, ns: &Netns, interface: &str, what: &str) {
    let ingress = ingress.unwrap_or_else(|| panic!("{what}: unknown"));
    assert_eq!(ingress.evidence, Evidence::Kernel, "{what}");
    assert_eq!(ingress.name.unwrap(), interface, "{what}");
    assert_eq!(ingress.index, ns.index(interface), "{what}");
}

/// Every form of listener, recorded before `listen`, after the connection, and not at all; over each link, to each address.
fn connections_arrive_where_the_peer_sent_them() {
    let world = world();
    let mut arrivals = 0;
    let forms = [
        ("0.0.0.0:0", false, &[0][..], None),
        ("[::]:0", false, &[0, 1, 2], None),
        ("[::]:0", true, &[1, 2], None),
        ("[::ffff:0.0.0.0]:0", false, &[0], None),
        ("192.0.2.1:0", false, &[0], Some(0)),
        ("[2001:db8:2::1]:0", true, &[1], Some(1)),
        ("[::ffff:198.51.100.1]:0", false, &[0], Some(1)),
    ];
    for (form, only_v6, kinds, bound) in forms {
        for when in ["before", "after", "never"] {
            let listener = world.listener(form, only_v6);
            if when == "before" {
                record(&listener).unwrap();
            }
            for (owner, link) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                if bound.is_some_and(|bound| bound != owner) {
                    continue;
                }
                for &kind in kinds {
                    // Link-local addresses follow the strong host model: they are reached over their own link only.
                    if kind == 2 && owner != link {
                        continue;
                    }
                    let what =
                        format!("{form} recorded {when}, {} over {}", LINKS[owner].1[kind], LINKS[link].0);
                    let _client =
                        world.client(link, Type::STREAM, world.address(owner, kind, port(&listener)));
                    if when == "after" {
                        record(&listener).unwrap();
                    }
                    let (stream, _) = listener.accept().unwrap();
                    // The thread is not in the namespace of the socket.
                    assert_arrived(of(&stream).unwrap(), &world.host, LINKS[link].0, &what);
                    let local = stream.local_addr().unwrap().ip().to_canonical();
                    let recorded = kernel::recorded(&stream, local.is_ipv6()).unwrap().unwrap();
                    assert_eq!(recorded.local.map(IpAddr::V4), Some(local).filter(IpAddr::is_ipv4), "{what}");
                    arrivals += 1;
                }
            }
        }
    }
    assert_eq!(arrivals, 3 * (4 + 10 + 6 + 4 + 2 + 2 + 2));
}

/// A listener on a link-local address, which is bound to the interface as well.
fn a_link_local_listener_is_reached_over_its_own_link() {
    let world = world();
    let scope = world.host.index("wan0");
    let listener = world.listener(&format!("[fe80::2:1%{scope}]:0"), true);
    let _client = world.client(1, Type::STREAM, world.address(1, 2, port(&listener)));
    assert_arrived(of(&listener.accept().unwrap().0).unwrap(), &world.host, "wan0", "fe80::2:1");
}

/// The kernel reports the interface that has the address, and `lo` for the addresses of `lo`.
fn a_host_that_connects_to_itself_arrives_at_the_owner_of_the_address() {
    let world = world();
    let listener = world.listener("[::]:0", false);
    record(&listener).unwrap();
    for (address, interface) in [
        ("127.0.0.1", "lo"),
        ("127.1.2.3", "lo"),
        ("::1", "lo"),
        ("192.0.2.1", "lan0"),
        ("2001:db8:2::1", "wan0"),
        ("fe80::2:1", "wan0"),
    ] {
        let scope = if address.starts_with("fe80") { world.host.index(interface) } else { 0 };
        let to = with_scope(address, port(&listener), scope);
        let _client = world.host.run(|| TcpStream::connect(to)).unwrap();
        assert_arrived(of(&listener.accept().unwrap().0).unwrap(), &world.host, interface, address);
    }
}

/// With SYN cookies the kernel keeps no state between SYN and ACK.
fn syn_cookies_do_not_lose_the_interface() {
    let world = world();
    world.host.sysctl("net.ipv4.tcp_syncookies", "2");
    let listener = world.listener("[::]:0", false);
    record(&listener).unwrap();
    for (owner, link) in [(0, 1), (1, 0)] {
        for kind in [0, 1] {
            let _client = world.client(link, Type::STREAM, world.address(owner, kind, port(&listener)));
            let ingress = of(&listener.accept().unwrap().0).unwrap();
            assert_arrived(ingress, &world.host, LINKS[link].0, LINKS[owner].1[kind]);
        }
    }
}

/// The interface of an IPv4 connection never changes; the name is that at the time of the call.
fn names_are_read_at_the_time_of_the_call() {
    let world = world();
    let listener = world.listener("0.0.0.0:0", false);
    let client = world.client(1, Type::STREAM, world.address(1, 0, port(&listener)));
    let (stream, _) = listener.accept().unwrap();
    (&client).write_all(b"data").unwrap();
    let index = world.host.index("wan0");
    world.host.ip("link set wan0 down");
    world.host.ip_args(&["link", "set", "wan0", "name", "a\u{1b}[2J"]);
    let ingress = of(&stream).unwrap().unwrap();
    assert_eq!((ingress.index, ingress.to_string().as_str()), (index, r"a\x1b[2J (kernel)"));
    world.host.ip_args(&["link", "del", "a\u{1b}[2J"]);
    let ingress = of(&stream).unwrap().unwrap();
    assert_eq!((ingress.index, ingress.name), (index, None));
    assert_eq!(ingress.to_string(), format!("interface {index} (kernel)"));
}

/// `recorded_unchanged` is for sockets of other programs.
fn options_of_other_programs_stay_as_they_were() {
    let world = world();
    for set in [false, true] {
        let listener = world.listener("[::]:0", false);
        if set {
            record(&listener).unwrap();
        }
        for kind in [0, 1] {
            let _client = world.client(0, Type::STREAM, world.address(1, kind, port(&listener)));
            let stream = Socket::from(listener.accept().unwrap().0);
            let recorded = kernel::recorded_unchanged(&stream, kind == 1).unwrap().unwrap();
            assert_eq!(recorded.index, world.host.index("lan0"));
            let option = if kind == 1 {
                nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::Ipv6RecvPacketInfo)
            } else {
                nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::Ipv4PacketInfo)
            };
            assert_eq!(option.unwrap(), set, "{kind}");
        }
    }
}

/// The kernel does not record the interface of MPTCP connections. What is left is evidence of the address, unless it is ambiguous
/// or belongs to another namespace.
fn without_a_record_the_address_is_weak_evidence() {
    const MPTCP: i32 = 262;
    let world = world();
    let open = |ns: &Netns, domain| ns.run(|| Socket::new(domain, Type::STREAM, Some(Protocol::from(MPTCP))));
    let listener = match open(&world.host, Domain::IPV6) {
        Ok(socket) => socket,
        Err(error) => return eprintln!("this kernel has no MPTCP: {error}"),
    };
    listener.set_only_v6(false).unwrap();
    let error = record(&listener).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported, "{error}");
    listener.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0).into()).unwrap();
    listener.listen(16).unwrap();
    let listener = TcpListener::from(listener);
    let arrival = |owner: usize, kind: usize, link: usize| {
        let to = world.address(owner, kind, port(&listener));
        let client = open(&world.peer, Domain::for_address(to)).unwrap();
        client.bind_device(Some(FAR[link].0.as_bytes())).unwrap();
        client.connect(&to.into()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        (client, stream)
    };
    let lan0 = world.host.index("lan0");
    for kind in [0, 1] {
        // Arrives over wan0. The inference is wrong, and says that it is an inference.
        let (_client, stream) = arrival(0, kind, 1);
        let ingress = world.host.run(|| of(&stream)).unwrap().unwrap();
        assert_eq!((ingress.index, ingress.evidence), (lan0, Evidence::Address));
        assert!(!ingress.evidence.is_observed());
        assert_eq!(of(&stream).unwrap(), None, "the addresses of this thread's namespace do not count");
    }
    // The addresses of a link-local MPTCP connection have no scope id.
    let (_client, stream) = arrival(1, 2, 1);
    assert_eq!(world.host.run(|| of(&stream)).unwrap(), None);
    // The same address on a second interface.
    world.host.ip("address add 192.0.2.1/32 dev wan0");
    let (_client, stream) = arrival(0, 0, 0);
    assert_eq!(world.host.run(|| of(&stream)).unwrap(), None);
}

fn datagram_socket(ns: &Netns, address: &str, recorded: bool) -> UdpSocket {
    let address: SocketAddr = address.parse().unwrap();
    let socket = ns.run(|| Socket::new(Domain::for_address(address), Type::DGRAM, None)).unwrap();
    if recorded {
        record(&socket).unwrap();
    }
    if address.is_ipv6() {
        socket.set_only_v6(false).unwrap();
    }
    socket.bind(&address.into()).unwrap();
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// Datagrams over each link to each address, and answers that the client accepts.
fn datagrams_arrive_where_the_peer_sent_them() {
    let world = world();
    for (form, kinds) in [("0.0.0.0:0", &[0][..]), ("[::]:0", &[0, 1, 2])] {
        let server = datagram_socket(&world.host, form, true);
        let port = server.local_addr().unwrap().port();
        for (owner, link) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            for &kind in kinds.iter().filter(|&&kind| kind != 2 || owner == link) {
                let what = format!("{form}, {} over {}", LINKS[owner].1[kind], LINKS[link].0);
                // Connected, so the client accepts answers from this address only.
                let client =
                    UdpSocket::from(world.client(link, Type::DGRAM, world.address(owner, kind, port)));
                client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                client.send(b"hello").unwrap();
                let datagram = recv_with_ingress(&server, &mut [0; 4]).unwrap();
                assert_arrived(datagram.ingress, &world.host, LINKS[link].0, &what);
                let destination = LINKS[owner].1[kind].parse().ok();
                assert_eq!((datagram.destination, datagram.length), (destination, 5), "{what}");
                assert_eq!(datagram.reply_from, destination, "{what}");
                send_from(&server, b"answer", datagram.peer, datagram.reply_from).unwrap();
                assert_eq!(client.recv(&mut [0; 10]).unwrap(), 6, "{what}");
            }
        }
    }
}

/// The destination of such a datagram is not an address of the host; the answer comes from one.
fn broadcast_and_multicast_datagrams_arrive_on_a_link() {
    let world = world();
    let server = datagram_socket(&world.host, "0.0.0.0:0", true);
    let port = server.local_addr().unwrap().port();
    let client = datagram_socket(&world.peer, "0.0.0.0:0", false);
    client.set_broadcast(true).unwrap();
    client.send_to(b"hello", ("198.51.100.255", port)).unwrap();
    let datagram = recv_with_ingress(&server, &mut [0; 10]).unwrap();
    assert_arrived(datagram.ingress, &world.host, "wan0", "broadcast");
    assert_eq!(datagram.destination, Some([198, 51, 100, 255].into()));
    assert_eq!(datagram.reply_from, Some([198, 51, 100, 1].into()));

    let server = datagram_socket(&world.host, "[::]:0", true);
    let port = server.local_addr().unwrap().port();
    let group: Ipv6Addr = "ff02::1".parse().unwrap();
    let client = datagram_socket(&world.peer, "[::]:0", false);
    client.send_to(b"hello", SocketAddrV6::new(group, port, 0, world.peer.index("far0"))).unwrap();
    let datagram = recv_with_ingress(&server, &mut [0; 10]).unwrap();
    assert_arrived(datagram.ingress, &world.host, "lan0", "multicast");
    assert_eq!((datagram.destination, datagram.reply_from), (Some(group.into()), None));
}

/// The kernel keeps nothing for datagrams that arrive before `record`. A link-local sender carries its interface.
fn datagrams_from_before_the_record_are_unknown() {
    let world = world();
    let server = datagram_socket(&world.host, "[::]:0", false);
    let port = server.local_addr().unwrap().port();
    for (kind, expected) in [(0, None), (1, None), (2, Some((world.host.index("wan0"), Evidence::ScopeId)))] {
        let client = world.client(1, Type::DGRAM, world.address(1, kind, port));
        client.send(b"hello").unwrap();
        let datagram = recv_with_ingress(&server, &mut [0; 10]).unwrap();
        let found = datagram.ingress.map(|ingress| (ingress.index, ingress.evidence));
        assert_eq!((found, datagram.destination), (expected, None), "{kind}");
    }
}

/// The mode of the socket decides whether to wait.
fn a_non_blocking_socket_does_not_wait() {
    let ns = Netns::new();
    let server = datagram_socket(&ns, "127.0.0.1:0", true);
    server.set_nonblocking(true).unwrap();
    let error = recv_with_ingress(&server, &mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    server.set_nonblocking(false).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let begun = std::time::Instant::now();
    assert!(recv_with_ingress(&server, &mut [0; 10]).is_err());
    assert!(begun.elapsed() >= Duration::from_millis(40), "it waited");
    let error = kernel::try_receive(&server, &mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "try_receive never waits");
}

fn main() -> ExitCode {
    netns::harness(vec![
        trial("connections_arrive_where_the_peer_sent_them", connections_arrive_where_the_peer_sent_them),
        trial(
            "a_link_local_listener_is_reached_over_its_own_link",
            a_link_local_listener_is_reached_over_its_own_link,
        ),
        trial(
            "a_host_that_connects_to_itself_arrives_at_the_owner_of_the_address",
            a_host_that_connects_to_itself_arrives_at_the_owner_of_the_address,
        ),
        trial("syn_cookies_do_not_lose_the_interface", syn_cookies_do_not_lose_the_interface),
        trial("names_are_read_at_the_time_of_the_call", names_are_read_at_the_time_of_the_call),
        trial("options_of_other_programs_stay_as_they_were", options_of_other_programs_stay_as_they_were),
        trial("without_a_record_the_address_is_weak_evidence", without_a_record_the_address_is_weak_evidence),
        trial("datagrams_arrive_where_the_peer_sent_them", datagrams_arrive_where_the_peer_sent_them),
        trial(
            "broadcast_and_multicast_datagrams_arrive_on_a_link",
            broadcast_and_multicast_datagrams_arrive_on_a_link,
        ),
        trial("datagrams_from_before_the_record_are_unknown", datagrams_from_before_the_record_are_unknown),
        trial("a_non_blocking_socket_does_not_wait", a_non_blocking_socket_does_not_wait),
    ])
}
