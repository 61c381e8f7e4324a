//! Further situations for `bindscope why`: targets in other spellings, names, UDP, two causes at once, zones, translation.
//! Where the fix can be applied here, it is, and then there is no diagnosis.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::causes::{Case, Cure, Kept, Place, case, with_hosts};
use super::stage;

const fn cured(case: Case, act: fn(&Place, &mut Kept)) -> Case {
    cured_with(case, act, stage::HOSTS)
}

const fn cured_with(case: Case, act: fn(&Place, &mut Kept), hosts: &'static str) -> Case {
    Case { cure: Some(Cure { act, hosts }), ..case }
}

/// Correct lines of `/etc/hosts` are the fix.
const fn cured_by_hosts(case: Case, hosts: &'static str) -> Case {
    cured_with(case, |_, _| {}, hosts)
}

const fn exits(case: Case, exit: i32) -> Case {
    Case { exit: Some(exit), ..case }
}

const fn and(case: Case, also: &'static str) -> Case {
    Case { also: Some(also), ..case }
}

/// A server on 127.0.0.1, asked for as `target`, which means ::1 too.
const fn ipv4_only(name: &'static str, target: &'static str) -> Case {
    cured(case(name, |p| vec![p.listen("127.0.0.1")], target, "BS3063", "listen on [::1]:PORT"), |p, kept| {
        kept.push(p.listen("[::1]"))
    })
}

/// A server on 127.0.0.1, asked for as `target`, which means this address.
const fn answers(name: &'static str, target: &'static str) -> Case {
    case(name, |p| vec![p.listen("127.0.0.1")], target, "", "")
}

/// A name that the resolver does not find until /etc/hosts is correct.
const fn unresolved(
    name: &'static str,
    target: &'static str,
    hosts: &'static str,
    says: &'static str,
) -> Case {
    let both = |p: &Place| vec![p.listen("127.0.0.1"), p.listen("[::1]")];
    with_hosts(case(name, both, target, "BS3060", says), hosts)
}

fn udp(p: &Place, address: &str) -> Box<dyn std::any::Any> {
    Box::new(stage::udp(&p.host, &p.at(address)))
}

/// A UDP socket with an option that is set before the bind.
fn udp_with(p: &Place, address: &str, option: impl FnOnce(&Socket) + Send) -> Box<dyn std::any::Any> {
    let address: SocketAddr = p.at(address).parse().unwrap();
    Box::new(p.host.run(|| {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP)).unwrap();
        option(&socket);
        socket.bind(&address.into()).unwrap();
        socket
    }))
}

/// Two ends of a connection to the port, without the listener.
fn connection(p: &Place) -> (TcpStream, TcpStream) {
    let listener = stage::tcp(&p.host, &p.at("127.0.0.1"));
    let at = listener.local_addr().unwrap();
    let client = p.host.run(|| TcpStream::connect(at)).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Closes the sockets, and waits until no process that is about to start another program has a copy of them.
fn close(p: &Place, kept: &mut Kept) {
    kept.clear();
    let begun = Instant::now();
    let at: SocketAddr = p.at("[::]").parse().unwrap();
    while p.host.run(|| UdpSocket::bind(at).is_err() || TcpListener::bind(at).is_err()) {
        assert!(begun.elapsed() < Duration::from_secs(20), "the port stays in use");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn flush(p: &Place) {
    assert!(p.host.output(Command::new("nft").args(["flush", "ruleset"])).status.success());
}

const DROP4: &str = "table ip f { chain i { type filter hook input priority 0; tcp dport PORT drop; }; }";
const DEAD_PORT: &str =
    "table ip n { chain o { type nat hook output priority -100; tcp dport PORT redirect to :4999; }; }";
const DEAD_HOST: &str =
    "table ip n { chain o { type nat hook output priority -100; tcp dport PORT dnat to 192.168.1.99:80; }; }";
const CONTAINER: &str =
    "table ip n { chain o { type nat hook output priority -100; tcp dport PORT dnat to 192.168.1.20; }; }";
const OF_A_USER: &str =
    "table inet f { chain o { type filter hook output priority 0; meta skuid 0 tcp dport PORT reject; }; }";
const POLICY: &str =
    "table inet f { chain i { type filter hook input priority 0; policy drop; iifname != \"lo\" accept; }; }";
const ICMP: &str = "table inet f { chain i { type filter hook input priority 0; tcp dport PORT reject with icmpx port-unreachable; }; }";
const RATE: &str = "table inet f { chain i { type filter hook input priority 0; tcp dport PORT limit rate 1/hour burst 1 packets accept; tcp dport PORT drop; }; }";

pub const MORE: &[Case] = &[
    // Spellings of a target.
    ipv4_only("spelled url", "http://localhost:PORT/"),
    ipv4_only("spelled websocket", "ws://localhost:PORT/x?y#z"),
    ipv4_only("spelled url_without_scheme", "localhost:PORT/a/b"),
    ipv4_only("spelled slashes", "//localhost:PORT"),
    ipv4_only("spelled upper_case", "LOCALHOST:PORT"),
    ipv4_only("spelled upper_case_url", "HTTP://LocalHost:PORT"),
    ipv4_only("spelled trailing_dot", "localhost.:PORT"),
    ipv4_only("spelled colon", ":PORT"),
    ipv4_only("spelled port", "PORT"),
    ipv4_only("spelled port_of_protocol", "PORT/tcp"),
    ipv4_only("spelled with_a_blank", "'localhost PORT'"),
    ipv4_only("spelled with_blanks_around", "' localhost:PORT '"),
    ipv4_only("spelled star", "'*:PORT'"),
    ipv4_only("spelled unspecified", "'[::]:PORT'"),
    ipv4_only("spelled bracketed_url", "'http://[::1]:PORT'"),
    ipv4_only("spelled expanded", "'[0:0:0:0:0:0:0:1]:PORT'"),
    answers("spelled zero", "0:PORT"),
    answers("spelled zeros", "0.0.0.0:PORT"),
    answers("spelled short", "127.1:PORT"),
    answers("spelled hexadecimal", "0x7f000001:PORT"),
    answers("spelled mapped", "'[::ffff:127.0.0.1]:PORT'"),
    cured(
        case(
            "another_loopback",
            |p| vec![p.listen("127.0.0.1")],
            "127.0.0.2:PORT",
            "BS3065",
            "listen on 127.0.0.2:PORT",
        ),
        |p, kept| kept.push(p.listen("127.0.0.2")),
    ),
    // Names.
    cured_by_hosts(
        unresolved("below_localhost", "app.localhost:PORT", stage::HOSTS, "127.0.0.1 app.localhost"),
        "127.0.0.1 app.localhost\n",
    ),
    cured_by_hosts(
        unresolved("hosts reversed", "localhost:PORT", "localhost 127.0.0.1\n", "127.0.0.1 localhost"),
        stage::HOSTS,
    ),
    cured_by_hosts(
        unresolved("hosts commented", "localhost:PORT", "#127.0.0.1 localhost\n", "127.0.0.1 localhost"),
        stage::HOSTS,
    ),
    cured_by_hosts(
        Case {
            sources: "hosts: dns\n",
            ..unresolved("hosts not_a_source", "localhost:PORT", stage::HOSTS, "/etc/nsswitch.conf")
        },
        stage::HOSTS,
    ),
    unresolved("not_an_address", "300.1.1.1:PORT", stage::HOSTS, "at most 255"),
    unresolved("international", "bücher.example:PORT", stage::HOSTS, "bücher.example"),
    with_hosts(
        case("hosts with_comments", |p| vec![p.listen("127.0.0.1")], "localhost:PORT", "BS3063", "IPv4 only"),
        "# local\n\t127.0.0.1\tlocalhost # this host\n\n  ::1 localhost ip6-localhost\n",
    ),
    cured(
        with_hosts(
            case("hosts ipv6_only", |p| vec![p.listen("127.0.0.1")], "localhost:PORT", "BS3063", "IPv4 only"),
            "::1 localhost\n",
        ),
        |p, kept| kept.push(p.listen("[::1]")),
    ),
    cured_by_hosts(
        with_hosts(
            case(
                "hosts unspecified",
                |p| vec![p.listen("127.0.0.1"), p.listen("[::1]")],
                "localhost:PORT",
                "BS3061",
                "0.0.0.0",
            ),
            "0.0.0.0 localhost\n",
        ),
        stage::HOSTS,
    ),
    with_hosts(
        case("hosts own_name", |p| vec![p.listen("192.168.1.10")], "box:PORT", "BS3065", "127.0.1.1"),
        "127.0.1.1 box\n",
    ),
    cured_by_hosts(
        with_hosts(
            case(
                "hosts name_of_two_hosts",
                |p| vec![p.listen("0.0.0.0")],
                "web:PORT",
                "BS3062",
                "192.168.1.77",
            ),
            "192.168.1.10 web\n192.168.1.77 web\n",
        ),
        "192.168.1.10 web\n",
    ),
    // UDP.
    cured(
        case("udp ipv4_only", |p| vec![udp(p, "127.0.0.1")], "udp:localhost:PORT", "BS3063", "IPv4 only"),
        |p, kept| kept.push(udp(p, "[::1]")),
    ),
    cured(
        case(
            "udp loopback_only",
            |p| vec![udp(p, "127.0.0.1")],
            "udp:192.168.1.10:PORT",
            "BS3064",
            "127.0.0.1",
        ),
        |p, kept| kept.push(udp(p, "192.168.1.10")),
    ),
    cured(
        case(
            "udp another_address",
            |p| vec![udp(p, "192.168.1.10")],
            "udp:10.20.0.10:PORT",
            "BS3065",
            "192.168.1.10",
        ),
        |p, kept| kept.push(udp(p, "10.20.0.10")),
    ),
    cured(
        case(
            "udp v6only",
            |p| vec![udp_with(p, "[::]", |socket| socket.set_only_v6(true).unwrap())],
            "udp:127.0.0.1:PORT",
            "BS3066",
            "IPV6_V6ONLY",
        ),
        |p, kept| {
            close(p, kept);
            kept.push(udp_with(p, "[::]", |socket| socket.set_only_v6(false).unwrap()));
        },
    ),
    cured(
        case(
            "udp device",
            |p| vec![udp_with(p, "0.0.0.0", |socket| socket.bind_device(Some(b"eth0")).unwrap())],
            "udp:127.0.0.1:PORT",
            "BS3012",
            "eth0",
        ),
        |p, kept| {
            close(p, kept);
            kept.push(udp(p, "0.0.0.0"));
        },
    ),
    cured(
        case(
            "udp connected",
            |p| {
                let socket = stage::udp(&p.host, &p.at("127.0.0.1"));
                socket.connect("127.0.0.1:9").unwrap();
                vec![Box::new(socket)]
            },
            "udp:127.0.0.1:PORT",
            "BS3068",
            "from this peer only",
        ),
        |p, kept| {
            close(p, kept);
            kept.push(udp(p, "127.0.0.1"));
        },
    ),
    case("udp nothing", |_| vec![], "udp:localhost:PORT", "BS3011", "UDP port PORT"),
    // Connections without a listener.
    case(
        "close_wait",
        |p| {
            let (client, server) = connection(p);
            drop(client);
            vec![Box::new(server)]
        },
        "127.0.0.1:PORT",
        "BS3068",
        "closed its listener",
    ),
    case(
        "port_of_a_client",
        |p| {
            let server = stage::tcp(&p.host, "127.0.0.1:4001");
            let (from, to): (SocketAddr, SocketAddr) =
                (p.at("127.0.0.1").parse().unwrap(), server.local_addr().unwrap());
            let client = p.host.run(|| {
                let client = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
                client.bind(&from.into()).unwrap();
                client.connect(&to.into()).unwrap();
                client
            });
            vec![Box::new(server), Box::new(client)]
        },
        "127.0.0.1:PORT",
        "BS3068",
        "as a client",
    ),
    // Two causes at once.
    cured(
        case(
            "two nothing_and_no_ipv6",
            |p| {
                p.host.sysctl("net.ipv6.conf.lo.disable_ipv6", "1");
                vec![]
            },
            "localhost:PORT",
            "BS3011",
            "start the server",
        ),
        |p, kept| {
            p.host.sysctl("net.ipv6.conf.lo.disable_ipv6", "0");
            kept.extend([p.listen("127.0.0.1"), p.listen("[::1]")]);
        },
    ),
    and(
        case(
            "two dropped_and_nothing",
            |p| {
                p.filter(DROP4);
                vec![]
            },
            "127.0.0.1:PORT --connect-timeout 300ms",
            "BS3050",
            "ip f",
        ),
        "BS3011",
    ),
    and(
        cured(
            case(
                "two dropped_and_one_family",
                |p| {
                    p.filter(DROP4);
                    vec![p.listen("127.0.0.1")]
                },
                "localhost:PORT --connect-timeout 300ms",
                "BS3050",
                "ip f",
            ),
            |p, kept| {
                flush(p);
                kept.push(p.listen("[::1]"));
            },
        ),
        "BS3063",
    ),
    case("two elsewhere_and_nothing", |_| vec![], "localhost:PORT", "BS3011", "No socket"),
    with_hosts(
        case("two wrong_localhost_and_nothing", |_| vec![], "localhost:PORT", "BS3061", "10.9.9.9"),
        "10.9.9.9 localhost\n",
    ),
    and(
        case(
            "two queue_full_and_one_family",
            |p| p.full("127.0.0.1"),
            "localhost:PORT --connect-timeout 300ms",
            "BS1027",
            "queue is full",
        ),
        "BS3063",
    ),
    and(
        case(
            "two another_namespace_and_udp",
            |p| vec![p.program(&p.peers[0], "TCP4-LISTEN:PORT,fork"), udp(p, "127.0.0.1")],
            "localhost:PORT",
            "BS3069",
            "socat",
        ),
        "BS3070",
    ),
    case(
        "two bound_and_the_next_port",
        |p| vec![p.bound("127.0.0.1"), Box::new(stage::tcp(&p.host, &format!("127.0.0.1:{}", p.port + 1)))],
        "127.0.0.1:PORT",
        "BS3068",
        "did not call listen",
    ),
    // Zones, and addresses that are not usable.
    exits(
        case(
            "zone_of_another_link",
            |p| vec![p.wildcard6(true)],
            "'[fe80::1%eth1]:PORT'",
            "BS3065",
            "use [fe80::1%eth0]:PORT",
        ),
        1,
    ),
    cured(
        case(
            "zone_of_the_listener",
            |p| vec![p.listen_with_zone()],
            "'[fe80::2%eth1]:PORT'",
            "BS3065",
            "connect to [fe80::1%eth0]:PORT",
        ),
        |p, kept| {
            close(p, kept);
            kept.push(p.wildcard6(true));
        },
    ),
    case("zone_and_loopback", |p| vec![p.listen("[::1]")], "'[fe80::1%eth0]:PORT'", "BS3064", "::1"),
    exits(
        case(
            "tentative",
            |p| {
                p.host.sysctl("net.ipv6.conf.all.accept_dad", "1");
                p.host.sysctl("net.ipv6.conf.eth0.accept_dad", "1");
                p.host.sysctl("net.ipv6.conf.eth0.dad_transmits", "60");
                p.host.ip("-6 address add 2001:db8:1::66/64 dev eth0");
                vec![p.wildcard6(true)]
            },
            "'[2001:db8:1::66]:PORT'",
            "BS2003",
            "eth0",
        ),
        1,
    ),
    exits(case("group", |p| vec![p.listen("0.0.0.0")], "224.0.0.1:PORT", "BS3062", "multicast"), 1),
    exits(case("broadcast", |p| vec![p.listen("0.0.0.0")], "192.168.1.255:PORT", "BS3062", "broadcast"), 1),
    // IPv6 is missing on one interface, or for this program.
    case(
        "ipv6_disabled_on_one_interface",
        |p| {
            p.host.sysctl("net.ipv6.conf.eth0.disable_ipv6", "1");
            vec![p.wildcard6(false)]
        },
        "'[2001:db8:1::10]:PORT'",
        "BS3062",
        "net.ipv6.conf.eth0.disable_ipv6",
    ),
    cured_with(
        with_hosts(
            case(
                "ipv6_disabled_below_a_name",
                |p| {
                    p.host.sysctl("net.ipv6.conf.eth0.disable_ipv6", "1");
                    vec![p.wildcard6(false)]
                },
                "web:PORT",
                "BS3076",
                "net.ipv6.conf.eth0.disable_ipv6=0",
            ),
            WEB,
        ),
        |p, _| {
            p.host.sysctl("net.ipv6.conf.eth0.disable_ipv6", "0");
            p.host.ip("-6 address add 2001:db8:1::10/64 dev eth0 nodad");
        },
        WEB,
    ),
    Case {
        no_inet6: true,
        ..case("no_ipv6_sockets", |p| vec![p.listen("127.0.0.1")], "localhost:PORT", "BS3076", "seccomp")
    },
    // Translation.
    cured(
        case(
            "translated_to_a_dead_port",
            |p| {
                p.filter(DEAD_PORT);
                vec![]
            },
            "127.0.0.1:PORT",
            "BS3072",
            "127.0.0.1:4999",
        ),
        |p, kept| {
            flush(p);
            kept.push(p.listen("127.0.0.1"));
        },
    ),
    case(
        "translated_to_a_dead_host",
        |p| {
            p.filter(DEAD_HOST);
            vec![]
        },
        "192.168.1.10:PORT --connect-timeout 300ms",
        "BS3072",
        "192.168.1.99:80",
    ),
    case(
        "translated_to_a_container",
        |p| {
            p.peers[0].address("far", "192.168.1.20/24");
            p.filter(CONTAINER);
            vec![Box::new(stage::tcp(&p.peers[0], &p.at("192.168.1.20")))]
        },
        "192.168.1.10:PORT",
        "",
        "",
    ),
    // Packet filters.
    cured(
        case(
            "filter of_a_user",
            |p| {
                p.filter(OF_A_USER);
                vec![p.listen("127.0.0.1")]
            },
            "127.0.0.1:PORT",
            "BS3073",
            "inet f",
        ),
        |p, _| flush(p),
    ),
    cured(
        case(
            "filter policy",
            |p| {
                p.filter(POLICY);
                vec![p.listen("0.0.0.0")]
            },
            "127.0.0.1:PORT --connect-timeout 300ms",
            "BS3050",
            "policy",
        ),
        |p, _| flush(p),
    ),
    cured(
        case(
            "filter icmp",
            |p| {
                p.filter(ICMP);
                vec![p.listen("127.0.0.1")]
            },
            "127.0.0.1:PORT",
            "BS3051",
            "rejects",
        ),
        |p, _| flush(p),
    ),
    cured(
        case(
            "filter rate",
            |p| {
                p.filter(RATE);
                let listener = stage::tcp(&p.host, &p.at("127.0.0.1"));
                let at = listener.local_addr().unwrap();
                let first = p.host.run(|| TcpStream::connect(at)).unwrap();
                vec![Box::new(listener), Box::new(first)]
            },
            "127.0.0.1:PORT --connect-timeout 300ms",
            "BS3073",
            "inet f",
        ),
        |p, _| flush(p),
    ),
    // Several programs.
    cured(
        case(
            "programs_that_share_a_port",
            |p| {
                let mine = p.listen_with("127.0.0.1", |socket| socket.set_reuse_port(true).unwrap());
                vec![p.program(&p.host, "TCP4-LISTEN:PORT,bind=127.0.0.1,reuseport,fork"), mine]
            },
            "127.0.0.1:PORT",
            "BS1028",
            "both serve",
        ),
        |_, kept| drop(kept.remove(0)),
    ),
    case(
        "wildcard_of_another_program",
        |p| vec![p.program(&p.host, "TCP6-LISTEN:PORT,ipv6only=1,fork"), p.listen("127.0.0.1")],
        "localhost:PORT",
        "BS1028",
        "socat",
    ),
    case(
        "the_expected_program",
        |p| vec![p.program(&p.host, "TCP4-LISTEN:PORT,fork")],
        "127.0.0.1:PORT --process socat",
        "",
        "",
    ),
];

/// A name in both families.
const WEB: &str = "192.168.1.10 web\n2001:db8:1::10 web\n";
