//! Lines that are held back for some milliseconds, and the timer that ends that: neither may cost anything but those.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::netns::Netns;
use crate::support::program::{PATIENCE, bindscope, wait};
use crate::{connect, profile};

const FIRST: ([u8; 4], u16) = ([127, 0, 0, 1], 9000);

/// A `listen` that writes to a file.
struct Server {
    child: Child,
    log: PathBuf,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start(ns: &Netns, listener: &str) -> Server {
        let (directory, path) = profile(&format!("[[listener]]\nname = 'a'\n{listener}\n"));
        let log = Path::new(&path).with_extension("ndjson");
        let mut command = bindscope(&["listen", "--format", "ndjson", "-o", log.to_str().unwrap(), &path]);
        let child = ns.run(|| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()).unwrap();
        let server = Server { child, log, _directory: directory };
        server.wait_for("\"listening\"", 1);
        server
    }

    fn told(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait_for(&self, word: &str, count: usize) {
        let begun = Instant::now();
        while self.told().matches(word).count() < count {
            assert!(begun.elapsed() < PATIENCE, "{count} times {word}: {}", self.told());
            std::thread::yield_now();
        }
    }

    fn accepted(&self) -> Vec<Value> {
        let events =
            self.told().lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
        events.into_iter().filter(|event| event["event"] == "accepted").collect()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Lets it set its timer, and stops it before that has rung, if the machine is not too busy: a line behind another.
    fn stop_while_it_gathers(&self, ns: &Netns) -> [TcpStream; 2] {
        let before = self.accepted().len();
        let first = ns.run(|| connect(FIRST.into()));
        self.wait_for("\"event\":\"accepted\"", before + 1);
        let second = ns.run(|| connect(FIRST.into()));
        std::thread::sleep(Duration::from_millis(1));
        self.signal(Signal::SIGSTOP);
        // By now it has rung.
        std::thread::sleep(Duration::from_millis(30));
        [first, second]
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As many sockets are ready at once as the poller tells at a time, the timer among them. The change of the network that is behind them
/// is known all the same before an arrival is attributed.
pub fn a_full_batch_hides_no_change_of_the_network() {
    const PORTS: u16 = 300;
    for _ in 0..3 {
        let ns = Netns::new();
        ns.ip("link add d0 type veth peer name d1");
        ns.ip("link set d0 up");
        ns.ip("link set d1 up");
        ns.ip("address add 10.9.0.1/24 dev d0");
        let ports = format!("bind = '0.0.0.0'\nport = '9000-{}'\nreply = 'none'", 8999 + PORTS);
        let mut server = Server::start(&ns, &ports);
        let _clients = server.stop_while_it_gathers(&ns);
        let to_all = |address: [u8; 4]| -> Vec<TcpStream> {
            let to = |port| SocketAddr::from((address, port));
            ns.run(|| (9000..9000 + PORTS).map(|port| connect(to(port))).collect())
        };
        let _before = to_all([127, 0, 0, 1]);
        ns.ip("address add 10.9.0.7/24 dev d0");
        let _behind = to_all([10, 9, 0, 7]);
        server.signal(Signal::SIGCONT);
        server.wait_for("\"event\":\"accepted\"", 2 + 2 * usize::from(PORTS));
        let told = server.accepted();
        let owners = told.iter().filter(|event| event["local"]["address"] == "10.9.0.7");
        let unknown = owners.filter(|event| event["address_owner"] != "d0").count();
        assert_eq!(unknown, 0, "attributed by the network of before");
        server.signal(Signal::SIGTERM);
        assert!(wait(&mut server.child).success());
    }
}

/// The same at the end, where open connections are ready, too: waiting clients are accepted before the listener is closed.
pub fn a_full_batch_hides_no_client_that_waits_at_the_end() {
    let holding =
        "bind = '127.0.0.1'\nport = 9000\nreply = 'echo'\nmax_connections = 1000\nidle_timeout = '5m'";
    for open in [254, 255, 256, 300] {
        let ns = Netns::new();
        let mut server = Server::start(&ns, holding);
        let clients: Vec<TcpStream> = ns.run(|| (0..open).map(|_| connect(FIRST.into())).collect());
        server.wait_for("\"event\":\"accepted\"", open);
        // A pause, so that the next line is written at once.
        std::thread::sleep(Duration::from_millis(50));
        let _two = server.stop_while_it_gathers(&ns);
        for mut client in &clients {
            client.write_all(b"x").unwrap();
        }
        let _waiting: Vec<TcpStream> = ns.run(|| (0..10).map(|_| connect(FIRST.into())).collect());
        server.signal(Signal::SIGTERM);
        server.signal(Signal::SIGCONT);
        assert!(wait(&mut server.child).success());
        assert_eq!(server.accepted().len(), open + 12);
    }
}

/// Clients that stay keep the end waiting for half a second. What was told of them is written before that, since the next signal ends
/// all at once.
pub fn lines_are_not_held_back_at_the_end() {
    let holding = "bind = '127.0.0.1'\nport = 9000\nreply = 'echo'\nidle_timeout = '5m'";
    for _ in 0..5 {
        let ns = Netns::new();
        let mut server = Server::start(&ns, holding);
        let _first = ns.run(|| connect(FIRST.into()));
        server.wait_for("\"event\":\"accepted\"", 1);
        let _more: Vec<TcpStream> = ns.run(|| (0..3).map(|_| connect(FIRST.into())).collect());
        std::thread::sleep(Duration::from_millis(1));
        server.signal(Signal::SIGTERM);
        // The end takes that long only while the clients stay.
        std::thread::sleep(Duration::from_millis(250));
        server.signal(Signal::SIGKILL);
        assert!(!wait(&mut server.child).success());
        assert_eq!(server.accepted().len(), 4);
    }
}
