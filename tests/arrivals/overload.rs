//! More clients than can be served: every client is accepted, memory is bounded, and losses are reported.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::netns::Netns;
use crate::support::program::{PATIENCE, bindscope, wait};

const SCHEMA: &str = "schema = 1\nname = 'overload'\n";

/// A running `listen` that writes to a file.
pub struct Server {
    pub ns: Netns,
    child: Child,
    log: PathBuf,
    _directory: tempfile::TempDir,
}

impl Server {
    pub fn start(listeners: &str, format: &str) -> Server {
        // A test's own sockets are the other half of the connections.
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        let ns = Netns::new();
        ns.sysctl("net.core.somaxconn", "8192");
        ns.sysctl("net.ipv4.ip_local_port_range", "20000 65535");
        let directory = tempfile::tempdir().unwrap();
        let (profile, log) = (directory.path().join("overload.toml"), directory.path().join("log"));
        std::fs::write(&profile, format!("{SCHEMA}{listeners}")).unwrap();
        std::fs::write(&log, "").unwrap();
        let mut command = bindscope(&["listen", "--format", format, "-o"]);
        command.args([&log, &profile]).stdout(Stdio::null()).stderr(Stdio::null());
        let child = ns.run(|| command.spawn()).unwrap();
        let server = Server { ns, child, log, _directory: directory };
        let begun = if format == "human" { "REMARKS" } else { "\"event\":\"listening\"" };
        server.wait_for(|told| told.contains(begun));
        server
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub fn told(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn wait_for(&self, so: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        while !so(&self.told()) {
            assert!(begun.elapsed() < PATIENCE, "{}", tail(&self.log));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Bytes of memory that are its own.
    fn memory(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    fn connect(&self, port: u16) -> TcpStream {
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = self.ns.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Many at once, without a thread for each.
    fn connect_many(&self, port: u16, count: usize) -> Vec<TcpStream> {
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        self.ns.run(|| (0..count).map(|_| TcpStream::connect_timeout(&to, PATIENCE).unwrap()).collect())
    }

    /// Asks it to end; its events.
    fn end(mut self) -> Vec<Value> {
        self.signal(Signal::SIGTERM);
        assert!(wait(&mut self.child).success());
        self.told().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().rev().take(3).collect::<Vec<_>>().join("\n")
}

/// 5,000 connections wait at one listener when a client comes to another: it is served while the burst drains.
pub fn a_burst_does_not_starve_another_listener() {
    const BURST: usize = 5000;
    let server = Server::start(
        "[[listener]]\nname = 'burst'\nbind = '127.0.0.1'\nport = 8081\nbacklog = 8192\nreply = 'none'\n\
         [[listener]]\nname = 'quiet'\nbind = '127.0.0.1'\nport = 8082\n",
        "ndjson",
    );
    server.signal(Signal::SIGSTOP);
    let burst = server.connect_many(8081, BURST);
    let quiet = server.connect(8082);
    server.signal(Signal::SIGCONT);
    let mut line = String::new();
    BufReader::new(quiet).read_line(&mut line).unwrap();
    assert!(line.contains("listener \"quiet\""), "{line}");
    server.wait_for(|told| told.matches("\"event\":\"accepted\"").count() == BURST + 1);
    drop(burst);
    let events = server.end();
    let accepted: Vec<&Value> = events.iter().filter(|event| event["event"] == "accepted").collect();
    let place = accepted.iter().position(|event| event["listener"] == "quiet").unwrap();
    assert!(place < BURST / 10, "the quiet listener had its turn after {place} of the burst");
    assert_eq!(events.last().unwrap()["accepted"], BURST + 1);
    let queue = events.iter().find(|event| event["event"] == "queue");
    assert!(queue.is_none(), "5000 of 8192 is no full queue: {queue:?}");
}

/// How far the queue was filled, and what the kernel counted of those it turned away.
pub fn a_full_queue_is_told() {
    const CLIENTS: usize = 30;
    let listener =
        "[[listener]]\nname = 'web'\nbind = '127.0.0.1'\nport = 8081\nbacklog = 16\nreply = 'none'\n";
    for format in ["ndjson", "human"] {
        let server = Server::start(listener, format);
        server.signal(Signal::SIGSTOP);
        let to = SocketAddr::from(([127, 0, 0, 1], 8081)).into();
        let clients: Vec<Socket> = server.ns.run(|| {
            let client = |_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
                let _ = socket.connect(&to);
                socket
            };
            (0..CLIENTS).map(client).collect()
        });
        server.signal(Signal::SIGCONT);
        // Those that were turned away try again after a second.
        if format == "human" {
            server.wait_for(|told| told.lines().filter(|line| line.contains("127.0.0.1:8081 ")).count() > 0);
            server.wait_for(|told| {
                told.contains("queue 17/16 of web, ") && told.contains(" overflows in this namespace")
            });
            continue;
        }
        server.wait_for(|told| told.matches("\"event\":\"accepted\"").count() == CLIENTS);
        drop(clients);
        let netstat = server.ns.run(|| std::fs::read_to_string("/proc/thread-self/net/netstat")).unwrap();
        let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next().unwrap().split(' '), lines.next().unwrap().split(' '));
        let counted = names.zip(values).find(|(name, _)| *name == "ListenOverflows").unwrap().1;
        let events = server.end();
        let queues: Vec<&Value> = events.iter().filter(|event| event["event"] == "queue").collect();
        let first = queues.first().unwrap();
        assert_eq!(
            (&first["listener"], &first["length"], &first["limit"]),
            (&"web".into(), &17.into(), &16.into())
        );
        let told = queues.last().unwrap()["overflows"].as_u64().unwrap();
        assert!(told > 0 && told <= counted.parse().unwrap(), "{queues:?}, and the kernel has {counted}");
        assert_eq!(events.last().unwrap()["accepted"], CLIENTS);
    }
}

/// A thousand clients that begin a request and do not end it.
pub fn slow_clients_cost_little() {
    const CLIENTS: usize = 1000;
    let server = Server::start(
        "[[listener]]\nname = 'web'\nbind = '127.0.0.1'\nport = 8081\nmax_connections = 2000\nidle_timeout = '60s'\n",
        "ndjson",
    );
    // What the first client brings about stays.
    drop(server.connect_many(8081, 50));
    server.wait_for(|told| told.matches("\"event\":\"accepted\"").count() == 50);
    let before = server.memory();
    let mut clients = server.connect_many(8081, CLIENTS);
    for client in &mut clients {
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n").unwrap();
    }
    server.wait_for(|told| told.matches("\"event\":\"accepted\"").count() == CLIENTS + 50);
    std::thread::sleep(Duration::from_millis(300));
    let cost = server.memory().saturating_sub(before);
    assert!(cost < 2 << 20, "{CLIENTS} slow clients cost {cost} bytes");
    // They were open all the time: each can end its request.
    let mut last = clients.pop().unwrap();
    last.write_all(b"Connection: close\r\n\r\n").unwrap();
    last.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(clients);
    assert_eq!(server.end().last().unwrap()["accepted"], CLIENTS + 50);
}

/// Datagrams that come while the program does not read: the kernel keeps what the socket's buffer holds, and each of the rest is counted.
pub fn a_flood_is_bounded_and_counted() {
    const SENT: u64 = 20_000;
    let server = Server::start(
        "[[listener]]\nname = 'udp'\nprotocol = 'udp'\nbind = '127.0.0.1'\nport = 8081\n",
        "ndjson",
    );
    let before = server.memory();
    server.signal(Signal::SIGSTOP);
    server.ns.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..SENT {
            socket.send_to(&[0; 512], "127.0.0.1:8081").unwrap();
        }
    });
    server.signal(Signal::SIGCONT);
    std::thread::sleep(Duration::from_millis(500));
    let cost = server.memory().saturating_sub(before);
    assert!(cost < 4 << 20, "the flood cost {cost} bytes");
    let events = server.end();
    let summary = events.last().unwrap();
    let lines = events.iter().filter(|event| event["event"] == "datagram").count() as u64;
    let lost = summary["errors"]["datagrams lost in a full receive queue"].as_u64().unwrap();
    assert!(lost > 0, "{summary}");
    assert_eq!(summary["datagrams"], lines);
    assert_eq!(lines + lost, SENT, "{summary}");
}

/// What each listener and each open connection takes beyond what is there without them; twice the goal of the benchmark, since
/// memory is taken in steps.
pub fn listeners_and_connections_are_small() {
    const MANY: usize = 3000;
    const MOST: u64 = 2048;
    let few = Server::start("[[listener]]\nname = 'few'\nbind = '127.0.0.1'\nport = 8081\n", "ndjson");
    let base = few.memory();
    drop(few);
    let ranges: String = (0..MANY / 1000)
        .map(|n| {
            let first = 8081 + 1000 * n;
            format!("[[listener]]\nname = 'm{n}'\nbind = '127.0.0.1'\nport = '{first}-{}'\n", first + 999)
        })
        .collect();
    let listeners = format!("[limits]\nmax_sockets = {MANY}\n{ranges}");
    let many = Server::start(&listeners, "ndjson");
    let each = many.memory().saturating_sub(base) / MANY as u64;
    assert!(each < MOST, "a listener takes {each} bytes");
    drop(many);
    let server = Server::start(
        "[[listener]]\nname = 'open'\nbind = '127.0.0.1'\nport = 8081\nreply = 'echo'\nmax_connections = 5000\nidle_timeout = '60s'\n",
        "ndjson",
    );
    let mut clients = server.connect_many(8081, MANY);
    for client in &mut clients {
        client.write_all(b"x").unwrap();
    }
    for client in &mut clients {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    let each = server.memory().saturating_sub(base) / MANY as u64;
    assert!(each < MOST, "an open connection takes {each} bytes");
}
