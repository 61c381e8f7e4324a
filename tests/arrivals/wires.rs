//! Connections whose SYN, final ACK and data come in by different wires, made by hand: which of them the kernel's report is about,
//! what is said of it, and that a capture of the packets sees them where they were sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bindscope::lab::capture_check::Witness;
use bindscope::model::{Family, IfName, PacketsSeen, Protocol};
use bindscope::sys::{self, Capture, packet_info};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::netns::Netns;
use crate::support::program::{Listening, bindscope};

const SYN: u8 = 2;
const RST: u8 = 4;
const PUSH: u8 = 8;
const ACK: u8 = 16;

/// The wires of each packet: SYN, final ACK, data.
const WAYS: [[usize; 3]; 4] = [[0, 0, 0], [0, 1, 1], [0, 0, 1], [1, 0, 0]];
/// The host's ends of the wires.
const WIRES: [&str; 2] = ["lan0", "wan0"];

/// A host with two wires to a peer. The clients have addresses that are the peer's to forward for and that no host has, so that no
/// kernel but the host's has a say in their connections.
struct World {
    host: Netns,
    peer: Netns,
}

fn world() -> World {
    let (host, peer) = (Netns::new(), Netns::new());
    for (number, (near, far)) in WIRES.into_iter().zip(["p0", "p1"]).enumerate() {
        host.wire(near, &peer, far);
        host.address(near, &format!("192.0.{number}.1/24"));
        peer.address(far, &format!("192.0.{number}.10/24"));
        for (ns, interface, end) in [(&host, near, 1), (&peer, far, 10)] {
            ns.ip(&format!("address add 2001:db8:{number}::{end}/64 dev {interface} nodad"));
        }
    }
    for setting in ["all", "default", "lan0", "wan0"] {
        host.sysctl(&format!("net.ipv4.conf.{setting}.rp_filter"), "0");
    }
    host.ip("route add 203.0.113.0/24 via 192.0.0.10");
    host.ip("route add 2001:db8:f::/64 via 2001:db8:0::10");
    // The way to the host's first address over the second wire, which only a client bound to it uses.
    peer.ip("route add 192.0.0.1/32 via 192.0.1.1 dev p1 metric 500");
    peer.ip("route add 192.0.0.1/32 dev p0");
    peer.ip("route add 2001:db8:0::1/128 via 2001:db8:1::1 dev p1 metric 2048");
    World { host, peer }
}

/// One end of a hand-made connection.
struct Client<'a> {
    world: &'a World,
    own: SocketAddr,
    server: SocketAddr,
    sequence: u32,
    acknowledged: u32,
    answers: Capture,
}

/// The ones' complement sum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

impl Client<'_> {
    fn send(&self, wire: usize, flags: u8, data: &[u8]) {
        let octets = |address: SocketAddr| match address.ip() {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let ends = [octets(self.own), octets(self.server)].concat();
        let mut segment = Vec::new();
        segment.extend(self.own.port().to_be_bytes());
        segment.extend(self.server.port().to_be_bytes());
        segment.extend(self.sequence.to_be_bytes());
        segment.extend(self.acknowledged.to_be_bytes());
        segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(data);
        let length = u16::try_from(segment.len()).unwrap();
        let mut pseudo = ends.clone();
        pseudo.extend([0, 6]);
        pseudo.extend(length.to_be_bytes());
        pseudo.extend(&segment);
        segment[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
        let (domain, mut packet) = if self.own.is_ipv4() {
            // The kernel fills in length, identification and checksum (raw(7)).
            (Domain::IPV4, vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0])
        } else {
            let [high, low] = length.to_be_bytes();
            (Domain::IPV6, vec![0x60, 0, 0, 0, high, low, 6, 64])
        };
        packet.extend(ends);
        packet.extend(segment);
        let server = self.server.ip();
        self.world.peer.run(|| {
            // IPPROTO_RAW: the header is in the packet.
            let socket = Socket::new(domain, Type::RAW, Some(255.into())).unwrap();
            socket.bind_device(Some([&b"p0"[..], b"p1"][wire])).unwrap();
            let to = SocketAddr::new(server, 0);
            socket.send_to(&packet, &SockAddr::from(to)).unwrap();
        });
    }

    /// Waits for a packet of the server, by its flags, number and length of data.
    fn wait_for(&mut self, wanted: impl Fn(u8, usize) -> bool) -> u32 {
        let begun = Instant::now();
        let mut found = None;
        let port = self.own.port().to_be_bytes();
        let (version, header) = if self.own.is_ipv4() { (4, 20) } else { (6, 40) };
        while found.is_none() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the server does not answer");
            self.answers.drain(&mut |_, bytes| {
                // A connection from before may still be spoken to.
                if bytes[0] >> 4 != version {
                    return;
                }
                let tcp = &bytes[header..];
                let data = tcp.len().saturating_sub(usize::from(tcp[12] >> 4) * 4);
                if tcp[2..4] == port && wanted(tcp[13], data) {
                    found = Some(u32::from_be_bytes(tcp[4..8].try_into().unwrap()));
                }
            });
            std::thread::sleep(Duration::from_millis(1));
        }
        found.unwrap()
    }

    fn speak(&mut self, wire: usize) {
        self.send(wire, ACK | PUSH, b"hey\r\n");
        self.sequence = self.sequence.wrapping_add(5);
    }
}

/// A handshake from a client of its own, whose packets take these wires.
fn shake<'a>(world: &'a World, server: SocketAddr, number: u16, way: [usize; 3]) -> Client<'a> {
    let own: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::new(203, 0, 113, 7).into(),
        SocketAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 7).into(),
    };
    let answers = world.peer.run(Capture::here).unwrap();
    let mut client = Client {
        world,
        own: SocketAddr::new(own, 40_000 + number),
        server,
        sequence: 0xffff_ffff,
        acknowledged: 0,
        answers,
    };
    client.send(way[0], SYN, b"");
    client.acknowledged = client.wait_for(|flags, _| flags & (SYN | ACK) == SYN | ACK).wrapping_add(1);
    client.sequence = client.sequence.wrapping_add(1);
    client.send(way[1], ACK, b"");
    client
}

/// `listen` names the interface of the final ACK over IPv4 and of the SYN over IPv6, and tells when later packets of an IPv6
/// connection took another way. Over IPv4 the kernel does not tell that, and nothing is said.
pub fn are_told_as_the_kernel_notes_them() {
    let world = world();
    let arguments = [
        "listen",
        "--format",
        "ndjson",
        "--bind",
        "0.0.0.0:8081",
        "--bind",
        "[::]:8082",
        "--bind",
        "[::]:8083,v6only=false",
    ];
    let mut listening = world.host.run(|| Listening::start(&mut bindscope(&arguments)));
    let v4: IpAddr = Ipv4Addr::new(192, 0, 0, 1).into();
    let v6: IpAddr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into();
    let mut number = 0;
    let mut changed = Vec::new();
    for (address, port) in [(v4, 8081), (v6, 8082), (v4, 8083), (v6, 8083)] {
        for way in WAYS {
            number += 1;
            let mut client = shake(&world, SocketAddr::new(address, port), number, way);
            let event = listening.next_arrival();
            let noted = if address.is_ipv4() { way[1] } else { way[0] };
            assert_eq!(event["ingress"]["name"], WIRES[noted], "{way:?} {event}");
            assert_eq!(event["ingress"]["evidence"], "kernel");
            assert_eq!(event["peer"]["port"], client.own.port());
            client.speak(way[2]);
            client.wait_for(|_, data| data > 0);
            client.send(0, RST, b"");
            if address.is_ipv6() && way[0] != way[2] {
                let event = listening.next_arrival();
                assert_eq!(event["event"], "path_changed", "{way:?} {event}");
                let wires = (event["ingress"]["name"].as_str(), event["later"]["name"].as_str());
                assert_eq!(wires, (Some(WIRES[way[0]]), Some(WIRES[way[2]])), "{event}");
                assert_eq!(event["peer"]["port"], client.own.port());
                changed.push(client.own.port());
            }
        }
    }
    let (rest, status, stderr) = listening.end();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(rest.iter().all(|event| event["event"] != "path_changed"), "{rest:?}");
    assert_eq!(rest.last().unwrap()["accepted"], number);
    assert_eq!(changed.len(), 6);
}

/// The kernel's note itself, asked in both ways, at accept and after data; and the packets beside it.
pub fn are_noted_by_the_kernel_and_seen_by_a_capture() {
    let world = world();
    let snapshot = world.host.run(sys::snapshot).unwrap();
    let mut number = 100;
    for address in ["192.0.0.1:0", "[2001:db8::1]:0"] {
        for on_listener in [true, false] {
            for way in WAYS {
                number += 1;
                let any: SocketAddr = address.parse().unwrap();
                let listener =
                    world.host.run(|| Socket::new(Domain::for_address(any), Type::STREAM, None)).unwrap();
                if on_listener {
                    let family = if any.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
                    packet_info::request(&listener, family, Protocol::Tcp).unwrap();
                }
                listener.bind(&any.into()).unwrap();
                listener.listen(8).unwrap();
                let server = listener.local_addr().unwrap().as_socket().unwrap();
                let mut capture = world.host.run(Capture::here).unwrap();
                let mut client = shake(&world, server, number, way);
                let (mut accepted, peer) = listener.accept().unwrap();
                let native6 = any.is_ipv6();
                let noted = |socket: &Socket| {
                    let index = packet_info::ingress_of_connection(socket, native6).unwrap().unwrap();
                    packet_info::interface_name(socket, index).unwrap()
                };
                let wire = |number: usize| IfName::from(WIRES[number]);
                let at_first = noted(&accepted);
                let decides = if native6 && on_listener { way[0] } else { way[1] };
                assert_eq!(at_first, wire(decides), "{address} {way:?} {on_listener}");
                client.speak(way[2]);
                accepted.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                std::io::Read::read_exact(&mut accepted, &mut [0; 5]).unwrap();
                let later = if native6 { way[2] } else { way[1] };
                assert_eq!(noted(&accepted), wire(later), "{address} {way:?} {on_listener}");
                let mut witness = Witness::default();
                capture.drain(&mut |interface, bytes| witness.note(interface, bytes));
                assert_eq!(capture.lost().unwrap(), 0);
                let peer = peer.as_socket().unwrap();
                let seen = witness.seen(Protocol::Tcp, peer, server, Some(&at_first), &snapshot);
                let [syn, ack, data] = way.map(|number| vec![wire(number)]);
                // The report of a listener that asked beforehand is the one that the packets are held against.
                let confirms = Some(!native6 || way[0] == decides);
                assert_eq!(
                    seen,
                    PacketsSeen { syn, ack, data, via_lo: false, confirms },
                    "{address} {way:?}"
                );
            }
        }
    }
}

/// What does not fit is counted, so that a capture is never taken for more than it is.
pub fn are_missed_by_a_capture_only_with_a_count() {
    let ns = Netns::new();
    let mut capture = ns.run(Capture::here).unwrap();
    let socket = ns.run(|| std::net::UdpSocket::bind("127.0.0.1:0")).unwrap();
    let to = socket.local_addr().unwrap();
    for _ in 0..20_000 {
        socket.send_to(b"x", to).unwrap();
    }
    let mut kept = 0;
    capture.drain(&mut |_, _| kept += 1);
    let lost = capture.lost().unwrap();
    assert!(lost > 0 && kept > 10_000 && kept + lost == 20_000, "{kept} kept, {lost} lost");
    // And it goes on.
    socket.send_to(b"x", to).unwrap();
    capture.drain(&mut |_, _| kept += 1);
    assert_eq!((kept + lost, capture.lost().unwrap()), (20_001, 0));
}
