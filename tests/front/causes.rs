//! `bindscope why` in staged situations: the diagnosis is the cause that was staged, every time.

use std::any::Any;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use super::{situations, stage};
use crate::support::netns::Netns;
use crate::support::program::{finish, text};
use crate::support::seccomp;
use crate::support::tool;

/// What keeps a situation as it is while the program runs.
pub type Kept = Vec<Box<dyn Any>>;

/// A host with two links, and a port of its own, so that situations which run at the same time do not meet.
pub struct Place {
    pub host: Netns,
    pub peers: Vec<Netns>,
    pub port: u16,
}

impl Place {
    pub fn at(&self, address: &str) -> String {
        format!("{address}:{}", self.port)
    }

    /// A socket of this test that listens.
    pub fn listen(&self, address: &str) -> Box<dyn Any> {
        Box::new(stage::tcp(&self.host, &self.at(address)))
    }

    /// The same with options.
    pub fn listen_with(&self, address: &str, options: impl FnOnce(&Socket) + Send) -> Box<dyn Any> {
        Box::new(stage::tcp_with(&self.host, &self.at(address), options))
    }

    /// An IPv6 wildcard socket that accepts IPv4 or does not.
    pub fn wildcard6(&self, only: bool) -> Box<dyn Any> {
        self.listen_with("[::]", move |socket| socket.set_only_v6(only).unwrap())
    }

    pub fn device(&self, address: &str, device: &'static str) -> Box<dyn Any> {
        self.listen_with(address, move |socket| socket.bind_device(Some(device.as_bytes())).unwrap())
    }

    /// The rules of a packet filter.
    pub fn filter(&self, rules: &str) {
        assert!(tool("nft"));
        let rules = rules.replace("PORT", &self.port.to_string());
        let output = self.host.output(Command::new("nft").arg(&rules));
        assert!(output.status.success(), "{rules}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Another program that listens, in this or another namespace.
    pub fn program(&self, ns: &Netns, listen: &str) -> Box<dyn Any> {
        assert!(tool("socat"));
        let mut command = Command::new("socat");
        command.arg(listen.replace("PORT", &self.port.to_string())).arg("SYSTEM:cat");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = Running(ns.run(|| command.spawn()).unwrap());
        let begun = Instant::now();
        let wanted = format!(":{:04X} ", self.port);
        // The sockets of the namespace, in hexadecimal.
        let listens = || {
            ["tcp", "tcp6", "udp", "udp6"].iter().any(|table| {
                let path = format!("/proc/{}/net/{table}", child.0.id());
                std::fs::read_to_string(path).is_ok_and(|text| text.contains(&wanted))
            })
        };
        while !listens() {
            assert!(begun.elapsed() < Duration::from_secs(20), "socat does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Box::new(child)
    }

    /// A socket that is bound and does not listen.
    pub fn bound(&self, address: &str) -> Box<dyn Any> {
        let address: SocketAddr = self.at(address).parse().unwrap();
        Box::new(self.host.run(|| {
            let socket =
                Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).unwrap();
            socket.bind(&address.into()).unwrap();
            socket
        }))
    }

    /// A listener with a queue of one, and clients that fill it.
    pub fn full(&self, address: &str) -> Kept {
        let at: SocketAddr = self.at(address).parse().unwrap();
        let (listener, clients) = self.host.run(|| {
            let listener = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP)).unwrap();
            listener.bind(&at.into()).unwrap();
            listener.listen(0).unwrap();
            let connect = |_| TcpStream::connect_timeout(&at, Duration::from_millis(300)).ok();
            (listener, (0..3).map(connect).collect::<Vec<_>>())
        });
        vec![Box::new(listener), Box::new(clients)]
    }

    /// A connection that the server closed first; its end is in TIME-WAIT.
    pub fn time_wait(&self, address: &str) {
        let listener = stage::tcp(&self.host, &self.at(address));
        let at = listener.local_addr().unwrap();
        let mut client = self.host.run(|| TcpStream::connect(at)).unwrap();
        drop(listener.accept().unwrap());
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    }
}

/// A program that ends with the situation.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A situation with its cause.
pub struct Case {
    pub name: &'static str,
    pub stage: fn(&Place) -> Kept,
    /// The target, with PORT in place of the port, and other arguments.
    pub target: &'static str,
    pub hosts: &'static str,
    /// The line of nsswitch.conf.
    pub sources: &'static str,
    /// The code of the diagnosis; empty if there is none.
    pub code: &'static str,
    /// Text of the diagnosis, with PORT.
    pub says: &'static str,
    /// The code of the second diagnosis.
    pub also: Option<&'static str>,
    /// The exit code, where it is another one than usual.
    pub exit: Option<i32>,
    /// Whether the program may not create IPv6 sockets.
    pub no_inet6: bool,
    /// Applies the fix; afterwards there is no diagnosis.
    pub cure: Option<Cure>,
}

/// A fix: what changes in the namespace, and /etc/hosts afterwards.
pub struct Cure {
    pub act: fn(&Place, &mut Kept),
    pub hosts: &'static str,
}

pub const fn case(
    name: &'static str,
    stage: fn(&Place) -> Kept,
    target: &'static str,
    code: &'static str,
    says: &'static str,
) -> Case {
    Case {
        name,
        stage,
        target,
        hosts: stage::HOSTS,
        sources: stage::SOURCES,
        code,
        says,
        also: None,
        exit: None,
        no_inet6: false,
        cure: None,
    }
}

pub const fn with_hosts(case: Case, hosts: &'static str) -> Case {
    Case { hosts, ..case }
}

const REDIRECT: &str = "table ip nat { chain output { type nat hook output priority -100; tcp dport PORT redirect to :4000; }; }";

const CASES: &[Case] = &[
    // Everything is in order.
    case("both_loopbacks", |p| vec![p.listen("127.0.0.1"), p.listen("[::1]")], "localhost:PORT", "", ""),
    case("dual_stack", |p| vec![p.wildcard6(false)], "localhost:PORT", "", ""),
    case("device_lo", |p| vec![p.device("0.0.0.0", "lo")], "127.0.0.1:PORT", "", ""),
    case("link_local", |p| vec![p.wildcard6(true)], "[fe80::1%eth0]:PORT", "", ""),
    case(
        "udp_socket",
        |p| vec![Box::new(stage::udp(&p.host, &p.at("127.0.0.1")))],
        "udp:127.0.0.1:PORT",
        "",
        "",
    ),
    // Nothing listens.
    case("nothing", |_| vec![], "localhost:PORT", "BS3011", "No socket"),
    case("nothing_at_an_address", |_| vec![], "192.168.1.10:PORT", "BS3011", "No socket"),
    case(
        "the_next_port",
        |p| vec![Box::new(stage::tcp(&p.host, &format!("127.0.0.1:{}", p.port + 1)))],
        "localhost:PORT",
        "BS3011",
        "or is it port NEXT?",
    ),
    case("bound_only", |p| vec![p.bound("127.0.0.1")], "127.0.0.1:PORT", "BS3068", "did not call listen"),
    case("bound_only_ipv6", |p| vec![p.bound("[::1]")], "localhost:PORT", "BS3068", "did not call listen"),
    case(
        "time_wait",
        |p| {
            p.time_wait("127.0.0.1");
            vec![]
        },
        "127.0.0.1:PORT",
        "BS3075",
        "TIME-WAIT",
    ),
    case(
        "time_wait_ipv6",
        |p| {
            p.time_wait("[::1]");
            vec![]
        },
        "localhost:PORT",
        "BS3075",
        "TIME-WAIT",
    ),
    // In another namespace.
    case(
        "another_namespace",
        |p| vec![p.program(&p.peers[0], "TCP4-LISTEN:PORT,fork")],
        "localhost:PORT",
        "BS3069",
        "socat",
    ),
    case(
        "another_namespace_udp",
        |p| vec![p.program(&p.peers[1], "UDP4-RECVFROM:PORT,fork")],
        "udp:localhost:PORT",
        "BS3069",
        "socat",
    ),
    // The other protocol.
    case(
        "udp_only",
        |p| vec![Box::new(stage::udp(&p.host, &p.at("127.0.0.1")))],
        "127.0.0.1:PORT",
        "BS3070",
        "over UDP",
    ),
    case("tcp_only", |p| vec![p.listen("127.0.0.1")], "udp:127.0.0.1:PORT", "BS3070", "over TCP"),
    // One family.
    case("ipv4_loopback", |p| vec![p.listen("127.0.0.1")], "localhost:PORT", "BS3063", "IPv4 only"),
    case("ipv6_loopback", |p| vec![p.listen("[::1]")], "localhost:PORT", "BS3063", "IPv6 only"),
    case("ipv4_wildcard", |p| vec![p.listen("0.0.0.0")], "localhost:PORT", "BS3063", "IPv4 only"),
    case(
        "ipv4_wildcard_asked_over_ipv6",
        |p| vec![p.listen("0.0.0.0")],
        "[2001:db8:1::10]:PORT",
        "BS3063",
        "IPv4 only",
    ),
    case(
        "ipv6_address_asked_over_ipv4",
        |p| vec![p.listen("[::1]")],
        "127.0.0.1:PORT",
        "BS3063",
        "IPv6 only",
    ),
    case(
        "mapped",
        |p| vec![p.listen_with("[::ffff:127.0.0.1]", |s| s.set_only_v6(false).unwrap())],
        "[::1]:PORT",
        "BS3063",
        "IPv4 only",
    ),
    // V6ONLY.
    case("v6only", |p| vec![p.wildcard6(true)], "127.0.0.1:PORT", "BS3066", "IPV6_V6ONLY"),
    case("v6only_of_a_name", |p| vec![p.wildcard6(true)], "localhost:PORT", "BS3066", "IPV6_V6ONLY"),
    case(
        "v6only_by_default",
        |p| {
            p.host.sysctl("net.ipv6.bindv6only", "1");
            vec![p.listen_with("[::]", |_| {})]
        },
        "192.168.1.10:PORT",
        "BS3066",
        "IPV6_V6ONLY",
    ),
    // Loopback only.
    case("loopback_only", |p| vec![p.listen("127.0.0.1")], "192.168.1.10:PORT", "BS3064", "127.0.0.1"),
    case("loopback_only_ipv6", |p| vec![p.listen("[::1]")], "[2001:db8:1::10]:PORT", "BS3064", "::1"),
    case(
        "loopback_only_both",
        |p| vec![p.listen("127.0.0.1"), p.listen("[::1]")],
        "eth1:PORT",
        "BS3064",
        "loopback",
    ),
    // Another address of the host.
    case(
        "another_interface",
        |p| vec![p.listen("192.168.1.10")],
        "10.20.0.10:PORT",
        "BS3065",
        "192.168.1.10",
    ),
    case(
        "another_interface_ipv6",
        |p| vec![p.listen("[2001:db8:1::10]")],
        "[fd20::10]:PORT",
        "BS3065",
        "2001:db8:1::10",
    ),
    case("not_loopback", |p| vec![p.listen("10.20.0.10")], "127.0.0.1:PORT", "BS3065", "10.20.0.10"),
    case("link_local_only", |p| vec![p.listen_with_zone()], "[::1]:PORT", "BS3065", "fe80::1"),
    // Bound to a device. A connection of this host to the address of the device counts as arriving on it.
    case("device_of_the_address", |p| vec![p.device("0.0.0.0", "eth1")], "10.20.0.10:PORT", "", ""),
    case("device_eth0", |p| vec![p.device("0.0.0.0", "eth0")], "127.0.0.1:PORT", "BS3012", "eth0"),
    case("device_eth1", |p| vec![p.device("0.0.0.0", "eth1")], "192.168.1.10:PORT", "BS3012", "eth1"),
    case("device_ipv6", |p| vec![p.device("[::]", "eth0")], "[::1]:PORT", "BS3012", "eth0"),
    // Names.
    with_hosts(
        case("localhost_elsewhere", |p| vec![p.listen("127.0.0.1")], "localhost:PORT", "BS3061", "10.9.9.9"),
        "10.9.9.9 localhost\n",
    ),
    with_hosts(
        case(
            "localhost_is_an_interface",
            |p| vec![p.listen("127.0.0.1")],
            "localhost:PORT",
            "BS3061",
            "192.168.1.10",
        ),
        "192.168.1.10 localhost\n",
    ),
    with_hosts(
        case(
            "localhost_is_nothing",
            |p| vec![p.listen("127.0.0.1")],
            "localhost:PORT",
            "BS3060",
            "no address",
        ),
        "192.0.2.7 other\n",
    ),
    with_hosts(
        case(
            "a_name_of_nothing",
            |p| vec![p.listen("127.0.0.1")],
            "db.internal:PORT",
            "BS3060",
            "db.internal",
        ),
        stage::HOSTS,
    ),
    with_hosts(
        case("localhost_is_ipv4", |p| vec![p.listen("[::1]")], "localhost:PORT", "BS3063", "IPv6 only"),
        "127.0.0.1 localhost\n",
    ),
    with_hosts(
        case(
            "a_name_of_another_host",
            |p| vec![p.listen("127.0.0.1")],
            "db.internal:PORT",
            "BS3062",
            "192.168.1.77",
        ),
        "192.168.1.77 db.internal\n",
    ),
    with_hosts(
        case(
            "a_name_of_this_host",
            |p| vec![p.listen("127.0.0.1")],
            "web.internal:PORT",
            "BS3064",
            "127.0.0.1",
        ),
        "192.168.1.10 web.internal\n",
    ),
    case("another_host", |_| vec![], "192.168.1.77:PORT", "BS3062", "not an address of this host"),
    case("another_host_ipv6", |_| vec![], "[2001:db8:1::77]:PORT", "BS3062", "not an address of this host"),
    // Filters and translation.
    case(
        "dropped",
        |p| {
            p.filter(
                "table inet f { chain input { type filter hook input priority 0; tcp dport PORT drop; }; }",
            );
            vec![p.listen("127.0.0.1")]
        },
        "127.0.0.1:PORT --connect-timeout 300ms",
        "BS3050",
        "inet f",
    ),
    case(
        "rejected",
        |p| {
            p.filter("table inet f { chain input { type filter hook input priority 0; tcp dport PORT reject with tcp reset; }; }");
            vec![p.listen("0.0.0.0")]
        },
        "192.168.1.10:PORT",
        "BS3051",
        "inet f",
    ),
    case(
        "dropped_on_the_way_out",
        |p| {
            p.filter(
                "table ip6 g { chain output { type filter hook output priority 0; tcp dport PORT drop; }; }",
            );
            vec![p.listen("[::1]")]
        },
        "[::1]:PORT --connect-timeout 300ms",
        "BS3050",
        "ip6 g",
    ),
    case(
        "translated",
        |p| {
            p.filter(REDIRECT);
            vec![Box::new(stage::tcp(&p.host, "127.0.0.1:4000"))]
        },
        "127.0.0.1:PORT",
        "BS3072",
        "ip nat",
    ),
    case(
        "translated_at_an_address",
        |p| {
            p.filter(REDIRECT);
            vec![Box::new(stage::tcp(&p.host, "0.0.0.0:4000"))]
        },
        "192.168.1.10:PORT",
        "BS3072",
        "ip nat",
    ),
    // The accept queue.
    case(
        "queue_full",
        |p| p.full("127.0.0.1"),
        "127.0.0.1:PORT --connect-timeout 300ms",
        "BS1027",
        "queue is full",
    ),
    case(
        "queue_full_ipv6",
        |p| p.full("[::1]"),
        "[::1]:PORT --connect-timeout 300ms",
        "BS1027",
        "queue is full",
    ),
    // Another program.
    case(
        "another_program",
        |p| vec![p.listen("127.0.0.1"), p.listen("[::1]")],
        "localhost:PORT --process nginx",
        "BS3078",
        "nginx",
    ),
    case(
        "two_programs",
        |p| vec![p.listen("127.0.0.1"), p.program(&p.host, "TCP6-LISTEN:PORT,bind=[::1],fork")],
        "localhost:PORT",
        "BS1028",
        "socat",
    ),
    // IPv6 is missing.
    case(
        "ipv6_disabled",
        |p| {
            p.host.sysctl("net.ipv6.conf.all.disable_ipv6", "1");
            vec![p.listen("127.0.0.1")]
        },
        "localhost:PORT",
        "BS3076",
        "all.disable_ipv6",
    ),
    case(
        "ipv6_disabled_on_loopback",
        |p| {
            p.host.sysctl("net.ipv6.conf.lo.disable_ipv6", "1");
            vec![p.listen("127.0.0.1")]
        },
        "localhost:PORT",
        "BS3076",
        "lo.disable_ipv6",
    ),
    case(
        "no_ipv6_loopback_address",
        |p| {
            p.host.ip("address del ::1/128 dev lo");
            vec![p.listen("127.0.0.1")]
        },
        "localhost:PORT",
        "BS3076",
        "::1",
    ),
    case(
        "loopback_down",
        |p| {
            let kept = vec![p.listen("0.0.0.0")];
            p.host.ip("link set lo down");
            kept
        },
        "127.0.0.1:PORT --connect-timeout 300ms",
        "BS3021",
        "loopback interface is down",
    ),
];

impl Place {
    /// A listener on the link-local address of eth0.
    pub fn listen_with_zone(&self) -> Box<dyn Any> {
        let at =
            std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), self.port, 0, self.host.index("eth0"));
        Box::new(self.host.run(|| std::net::TcpListener::bind(at)).unwrap())
    }
}

/// One trial for each situation.
pub fn trials() -> Vec<Trial> {
    assert!(CASES.len() >= 40 && situations::MORE.len() >= 40);
    CASES
        .iter()
        .chain(situations::MORE)
        .enumerate()
        .map(|(index, case)| {
            Trial::test(format!("why {}", case.name), move || {
                try_one(case, 21_000 + 10 * u16::try_from(index).unwrap());
                Ok(())
            })
        })
        .collect()
}

fn try_one(case: &Case, port: u16) {
    let (host, peers) = stage::host();
    let place = Place { host, peers, port };
    let mut kept = (case.stage)(&place);
    let (document, code) = ask(case, &place, case.hosts, case.sources);
    let first = &document["diagnosis"][0];
    let shown = serde_json::to_string_pretty(&document["diagnosis"]).unwrap();
    assert_eq!(first["code"].as_str().unwrap_or_default(), case.code, "{shown}\n{}", document["addresses"]);
    if let Some(also) = case.also {
        assert_eq!(document["diagnosis"][1]["code"], also, "{shown}");
    }
    let said = format!(
        "{} {}",
        first["message"].as_str().unwrap_or_default(),
        first["help"].as_str().unwrap_or_default()
    );
    let says = case.says.replace("PORT", &port.to_string()).replace("NEXT", &(port + 1).to_string());
    assert!(said.contains(&says), "{says}: {shown}");
    // Whether another host answers is not decided here.
    let other_host = document["addresses"].as_array().unwrap().iter().all(|one| one["local"] == false);
    let expected = case.exit.unwrap_or(match (case.code, other_host) {
        ("", _) => 0,
        ("BS3060", _) | (_, false) => 1,
        (_, true) => 3,
    });
    assert_eq!(code, Some(expected), "{shown}");
    if let Some(cure) = &case.cure {
        (cure.act)(&place, &mut kept);
        let (document, code) = ask(case, &place, cure.hosts, stage::SOURCES);
        assert_eq!(code, Some(0), "after the fix: {}\n{}", document["diagnosis"], document["addresses"]);
    }
    drop(kept);
}

/// The document of `bindscope why` and its exit code.
fn ask(case: &Case, place: &Place, hosts: &str, sources: &str) -> (Value, Option<i32>) {
    let directory = tempfile::tempdir().unwrap();
    let target = case.target.replace("PORT", &place.port.to_string());
    let script = format!("exec bindscope why --json {target}");
    let mut command = stage::shell_with(directory.path(), hosts, sources, &script);
    let child = place.host.run(|| {
        if case.no_inet6 {
            seccomp::filter(seccomp::Denied::Ipv6);
        }
        command.spawn()
    });
    let output = finish(child.unwrap());
    let (stdout, stderr) = text(&output);
    let document = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
    (document, output.status.code())
}
