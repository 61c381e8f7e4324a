//! Clients of the servers, and where `connections` says that they came in.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde_json::Value;
use socket2::{Domain, SockRef, Socket, Type};

use crate::expect::json;
use crate::start::{PATIENCE, Site, program};
use crate::support::netns::Netns;
use crate::support::program::text;

/// One client.
pub struct Dial {
    /// Where it connects.
    to: SocketAddr,
    /// From the other host, or else from the server's own.
    from_there: bool,
    /// The listener that must be told to have taken it.
    listener: SocketAddr,
}

/// From the other host to `to`, which `listener` takes.
pub fn from_there(to: &str, listener: &str) -> Dial {
    Dial { to: to.parse().unwrap(), from_there: true, listener: listener.parse().unwrap() }
}

/// The same from the server's own host.
pub fn from_here(to: &str, listener: &str) -> Dial {
    Dial { from_there: false, ..from_there(to, listener) }
}

impl Dial {
    /// What the kernel names: a connection from a host to its own address came in where the address is.
    fn ingress(&self) -> &'static str {
        if self.to.ip().is_loopback() { "lo" } else { "eth0" }
    }
}

/// What a client says after all was looked at, and how the answer begins. Nothing for a protocol without text.
pub struct Say(Vec<u8>, &'static str);

pub fn say(request: &str, answer: &'static str) -> Say {
    // One byte for each character: protocols of bytes are written so, too.
    Say(request.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect(), answer)
}

/// What the server's socket was left as: IP_PKTINFO and IPV6_RECVPKTINFO, which the answer needs, and IP_RECVTTL, which it
/// does not.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    packet_info: bool,
    packet_info_6: Option<bool>,
    ttl: bool,
    blocking: bool,
}

/// A server's end of a connection, as `ss` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    pid: i32,
    fd: i32,
}

impl End {
    fn options(&self) -> Options {
        let process = pidfd_open(Pid::from_raw(self.pid).unwrap(), PidfdFlags::empty()).unwrap();
        let socket = pidfd_getfd(&process, self.fd, PidfdGetfdFlags::empty()).unwrap();
        Options {
            packet_info: getsockopt(&socket, sockopt::Ipv4PacketInfo).unwrap(),
            packet_info_6: getsockopt(&socket, sockopt::Ipv6RecvPacketInfo).ok(),
            ttl: getsockopt(&socket, sockopt::Ipv4RecvTtl).unwrap_or(false),
            blocking: SockRef::from(&socket).nonblocking().unwrap(),
        }
    }
}

/// The servers' ends of established connections in `host` by the client's port, with the process that holds each.
fn ends(host: &Netns) -> BTreeMap<u16, End> {
    let output = host.output(Command::new("ss").args(["-Htnp", "state", "established"]));
    let (stdout, stderr) = text(&output);
    assert!(output.status.success(), "{stderr}");
    let number = |line: &str, key: &str| {
        let rest = line.split_once(key)?.1;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    stdout
        .lines()
        .filter_map(|line| {
            let peer = line.split_whitespace().nth(3)?.rsplit_once(':')?.1.parse().ok()?;
            Some((peer, End { pid: number(line, "pid=")?, fd: number(line, "fd=")? }))
        })
        .collect()
}

/// Connects all of `dials` at once and compares what is told of each.
pub fn dials(site: &Site, exe: &Path, dials: &[Dial], say: &Say) {
    let mut clients: Vec<(u16, TcpStream, &Dial)> = dials
        .iter()
        .map(|dial| {
            let from = if dial.from_there { &site.there } else { &site.here };
            let client = from.run(|| TcpStream::connect(dial.to)).unwrap();
            (client.local_addr().unwrap().port(), client, dial)
        })
        .collect();
    // A server accepts when it gets to it, and some hand the connection to a child that starts anew with another descriptor.
    let began = Instant::now();
    let mut before = BTreeMap::new();
    let ends = loop {
        let ends = ends(&site.here);
        if ends == before && clients.iter().all(|(port, ..)| ends.contains_key(port)) {
            break ends;
        }
        assert!(began.elapsed() < PATIENCE, "the server does not accept: {ends:?}");
        before = ends;
        std::thread::sleep(Duration::from_millis(100));
    };
    let options = || -> Vec<Options> { clients.iter().map(|(port, ..)| ends[port].options()).collect() };
    let before = options();
    let document = json(&site.here, &["connections", "--format", "json"]);
    assert_eq!(options(), before, "a server's socket was left changed");
    let asks = |one: &Options| one.packet_info || one.packet_info_6 == Some(true);
    // dnsmasq asks the kernel the same question.
    assert!(exe.ends_with("dnsmasq") || !before.iter().any(asks), "{before:?}");
    let told = document["connections"].as_array().unwrap();
    assert_eq!(told.len(), clients.len(), "{document:#}");
    let mut by_ingress: BTreeMap<&str, u64> = BTreeMap::new();
    for (port, client, dial) in &clients {
        let one = told.iter().find(|one| one["peer"]["port"] == *port).unwrap();
        is_told(one, client, dial);
        let pids: Vec<i64> =
            one["owners"].as_array().unwrap().iter().map(|owner| owner["pid"].as_i64().unwrap()).collect();
        assert!(pids.contains(&i64::from(ends[port].pid)), "{one:#}");
        assert!(one["owners"].as_array().unwrap().iter().all(|owner| owner["exe"] == exe.to_str().unwrap()));
        *by_ingress.entry(dial.ingress()).or_default() += 1;
    }
    assert_eq!(document["by_ingress"], serde_json::to_value(by_ingress).unwrap());
    // The server has noticed nothing.
    if !say.1.is_empty() {
        for (_, client, dial) in &mut clients {
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.write_all(&say.0).unwrap();
            let mut answer = vec![0; say.1.len()];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(String::from_utf8_lossy(&answer), say.1, "{}", dial.to);
        }
    }
}

fn is_told(one: &Value, client: &TcpStream, dial: &Dial) {
    assert_eq!(one["ingress"]["name"], dial.ingress(), "{one:#}");
    assert_eq!(one["ingress"]["evidence"], "kernel", "{one:#}");
    assert_eq!(one["ingress_unknown_because"], Value::Null, "{one:#}");
    let listener = dial.listener;
    assert_eq!(one["socket"]["address"], listener.ip().to_string(), "{one:#}");
    assert_eq!(one["socket"]["port"], listener.port(), "{one:#}");
    let exposure = &one["socket"]["exposure"];
    let wide = if listener.ip().is_loopback() { "loopback" } else { "global" };
    assert!(exposure["ipv4"] == wide || exposure["ipv6"] == wide, "{one:#}");
    assert_eq!(
        (&one["v4_mapped"], &one["peer_is_local"]),
        (&(dial.to.is_ipv4() && listener.is_ipv6()).into(), &(!dial.from_there).into()),
        "{one:#}"
    );
    assert_eq!(one["peer"]["address"], client.local_addr().unwrap().ip().to_string());
    assert_eq!(one["local"]["address"], client.peer_addr().unwrap().ip().to_string());
    let family = if client.peer_addr().unwrap().is_ipv4() { "ipv4" } else { "ipv6" };
    assert_eq!(one["family"], family, "{one:#}");
}

/// A connection that speaks MPTCP keeps no ingress interface: that is said, not guessed. A client of the same server that
/// speaks plain TCP gets a plain socket, which does.
pub fn over_mptcp() {
    let Some(python) = program(&["/usr/bin/python3"]) else { return };
    if std::fs::read_to_string("/proc/sys/net/mptcp/enabled").is_err() {
        eprintln!("not tested: this kernel has no MPTCP");
        return;
    }
    let site = Site::new();
    let script = site.file(
        "mptcp.py",
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)\n\
         s.bind(('0.0.0.0', 8000)); s.listen()\n\
         held = []\n\
         while True: held.append(s.accept())\n",
    );
    let mut server = site.start(Command::new(&python).arg(script));
    let began = Instant::now();
    let plain = loop {
        server.must_run();
        match site.there.run(|| TcpStream::connect("192.0.2.1:8000")) {
            Ok(client) => break client,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}: {}", server.said()),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let several = site.there.run(|| Socket::new(Domain::IPV4, Type::STREAM, Some(262.into()))).unwrap();
    several.connect(&SocketAddr::from(([192, 0, 2, 1], 8000)).into()).unwrap();
    let several = TcpStream::from(several);
    let report = json(&site.here, &["audit", "--format", "json"]);
    assert_eq!(report["sockets"][0]["mptcp"], true, "{report:#}");
    let document = loop {
        let document = json(&site.here, &["connections", "--format", "json"]);
        let list = document["connections"].as_array().unwrap();
        if list.len() == 2 && list.iter().all(|one| !one["inode"].is_null()) {
            break document;
        }
        assert!(began.elapsed() < PATIENCE, "{document:#}");
    };
    for (client, evidence, because) in [(&plain, "kernel", None), (&several, "address", Some("MPTCP"))] {
        let port = client.local_addr().unwrap().port();
        let list = document["connections"].as_array().unwrap();
        let one = list.iter().find(|one| one["peer"]["port"] == port).unwrap();
        assert_eq!(one["ingress"]["evidence"], evidence, "{one:#}");
        match because {
            Some(word) => assert!(one["ingress_unknown_because"].as_str().unwrap().contains(word), "{one:#}"),
            None => assert!(one["ingress_unknown_because"].is_null(), "{one:#}"),
        }
    }
    assert_eq!(document["by_ingress"], serde_json::json!({"eth0": 1, "unknown": 1}));
}
