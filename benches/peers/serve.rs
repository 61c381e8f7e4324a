//! Works of a server: connections queued up and then drained, or one after the other.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bare::PORT;
use crate::netns::Netns;
use crate::{Bench, Cost, Side, installed};

/// Connections by round: as many as a queue takes, and as many as one client makes one after the other.
const QUEUED: usize = 4_000;
const SPARSE: usize = 2_000;

const OURS: &str = env!("CARGO_BIN_EXE_bindscope");

/// The loop of many a tutorial.
const PYTHON: &str = "import socket,sys
s=socket.create_server(('127.0.0.1',900),backlog=16384)
while True:
    c,a=s.accept()
    print('connection from',a,flush=True)
    c.close()";

/// CPU time of all threads of a process (schedstat of each, in ns) and of its children that are gone (ticks of 10 ms).
fn cpu(pid: u32) -> Duration {
    let own: u64 = std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .filter_map(|task| {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        })
        .sum();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let children: u64 = fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap();
    Duration::from_nanos(own) + Duration::from_millis(10 * children)
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

struct Server {
    ns: Netns,
    child: Child,
    request: Option<&'static [u8]>,
    /// Reads what the server writes to a pipe.
    reader: Option<Child>,
}

impl Server {
    fn start(program: &str, arguments: &[&str], request: Option<&'static [u8]>, piped: bool) -> Server {
        let ns = Netns::new();
        ns.sysctl("net.core.somaxconn", "16384");
        ns.sysctl("net.ipv4.ip_local_port_range", "1024 65535");
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut reader = None;
        if piped {
            let (end, pipe) = std::io::pipe().unwrap();
            reader = Some(
                Command::new("cat")
                    .stdin(end)
                    .stdout(File::options().write(true).open("/dev/null").unwrap())
                    .spawn()
                    .unwrap(),
            );
            command.stdout(pipe);
        }
        let child = ns.run(|| command.spawn()).unwrap();
        drop(command);
        let server = Server { ns, child, request, reader };
        let begun = Instant::now();
        while server.ns.run(|| TcpStream::connect(("127.0.0.1", PORT))).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{program} does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(300));
        server
    }

    /// A client that has said what it has to say.
    fn client(&self) -> TcpStream {
        let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], PORT))).unwrap();
        if let Some(request) = self.request {
            stream.write_all(request).unwrap();
        }
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Waits for the server's end of the connection, and leaves nothing behind in TIME_WAIT.
    fn finish(stream: TcpStream) {
        let mut answer = [0; 16_384];
        while (&stream).read(&mut answer).is_ok_and(|count| count > 0) {}
        socket2::Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    fn drained(&mut self) -> Cost {
        signal(&self.child, Signal::SIGSTOP);
        let clients: Vec<TcpStream> = self.ns.run(|| (0..QUEUED).map(|_| self.client()).collect());
        let (before, begun) = (cpu(self.child.id()), Instant::now());
        signal(&self.child, Signal::SIGCONT);
        clients.into_iter().for_each(Server::finish);
        self.cost(before, begun, QUEUED)
    }

    fn sparse(&mut self) -> Cost {
        self.ns.run(|| {
            let (before, begun) = (cpu(self.child.id()), Instant::now());
            (0..SPARSE).for_each(|_| Server::finish(self.client()));
            self.cost(before, begun, SPARSE)
        })
    }

    fn cost(&self, before: Duration, begun: Instant, count: usize) -> Cost {
        let wall = begun.elapsed();
        // What a server does behind its answers is its cost too.
        std::thread::sleep(Duration::from_millis(20));
        let count = u32::try_from(count).unwrap();
        Cost { cpu: (cpu(self.child.id()) - before) / count, wall: wall / count }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in std::iter::once(&mut self.child).chain(&mut self.reader) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn sides(mut servers: Vec<(&'static str, Server)>, drained: bool) -> Vec<Side<'static>> {
    servers
        .drain(..)
        .map(|(name, mut server)| Side {
            name,
            run: Box::new(move || if drained { server.drained() } else { server.sparse() }),
        })
        .collect()
}

pub fn all(bench: &mut Bench) {
    let directory = tempfile::tempdir().unwrap();
    let profile = |reply: &str| {
        let path = directory.path().join(format!("{reply}.toml"));
        let text = format!(
            "schema = 1\nname = 'bench'\n[[listener]]\nname = 'bench'\nbind = '127.0.0.1'\nport = {PORT}\nbacklog = 16384\nmax_connections = 100000\nreply = '{reply}'\n"
        );
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (none, describe) = (profile("none"), profile("describe"));
    let log = directory.path().join("log.ndjson").to_str().unwrap().to_owned();
    let to_file = |profile: &str| ["listen", "--format", "ndjson", "-o", &log, profile].map(str::to_owned);
    let ours = |profile: &str, request| {
        let arguments = to_file(profile);
        Server::start(OURS, &arguments.each_ref().map(String::as_str), request, false)
    };
    let bare = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    for (drained, how, goal) in [(true, "queued up and drained", 1.06), (false, "one by one", 1.15)] {
        let work = format!("accept, attribute, record: {how}");
        if bench.wants(&work) {
            let mut servers = vec![
                ("bare accept loop", Server::start(&bare, &["--bare=accept", "0"], None, false)),
                ("bindscope to a file", ours(&none, None)),
            ];
            if installed("python3") {
                servers.push((
                    "python3 tutorial loop, pipe",
                    Server::start("python3", &["-c", PYTHON], None, true),
                ));
            }
            // Its queue is short, so it takes part only where connections come one by one.
            if !drained && installed("socat") {
                let arguments = ["TCP4-LISTEN:900,bind=127.0.0.1,fork,reuseaddr", "OPEN:/dev/null"];
                servers.push(("socat fork", Server::start("socat", &arguments, None, false)));
            }
            bench.work(&work, Some(goal), sides(servers, drained));
        }
        let work = format!("live view for people on a pipe: {how}");
        if bench.wants(&work) {
            let servers = vec![
                ("bare accept loop", Server::start(&bare, &["--bare=accept", "0"], None, false)),
                ("bindscope on a pipe", Server::start(OURS, &["listen", &none], None, true)),
            ];
            bench.work(&work, Some(1.25), sides(servers, drained));
        }
        let work = format!("answer an HTTP request: {how}");
        if bench.wants(&work) {
            let request: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n";
            let servers = vec![
                (
                    "bare loop that does not cork",
                    Server::start(&bare, &["--bare=answer", "600"], Some(request), false),
                ),
                ("bindscope describe, to a file", ours(&describe, Some(request))),
            ];
            bench.work(&work, Some(0.75), sides(servers, drained));
        }
    }
    for absent in ["nginx", "haproxy", "nmap"] {
        if !installed(absent) {
            continue;
        }
        println!("not compared yet: {absent}");
    }
}
