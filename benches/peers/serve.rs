//! Works of a server: connections queued up and then drained, or one after the other. Each round has servers of its own: what one
//! process costs differs from the next by a tenth and more, and stays so for its life.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
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
/// Of socat, which starts a process for each, and ncat, which rests between them.
const FEW: usize = 100;

const OURS: &str = env!("CARGO_BIN_EXE_bindscope");

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n";

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

/// A program that listens on [`PORT`].
struct Server {
    ns: Netns,
    child: Child,
    request: Option<&'static [u8]>,
    /// The client ends the connection, since the server does not.
    client_ends: bool,
    /// Connections made one by one in a round.
    sparse: usize,
    /// Every connection there was.
    made: usize,
    /// The lines that it writes, if they are ours.
    log: Option<String>,
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
        let mut server =
            Server { ns, child, request, client_ends: false, sparse: SPARSE, made: 0, log: None, reader };
        let begun = Instant::now();
        while server.ns.run(|| TcpStream::connect(("127.0.0.1", PORT))).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{program} does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        server.made += 1;
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

    /// Waits for the server's end of the connection.
    fn read(mut stream: &TcpStream) {
        let mut answer = [0; 16_384];
        while stream.read(&mut answer).is_ok_and(|count| count > 0) {}
    }

    /// The same, and leaves nothing behind in TIME_WAIT.
    fn finish(&self, stream: TcpStream) {
        if !self.client_ends {
            Server::read(&stream);
        }
        socket2::Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    fn drained(&mut self) -> Cost {
        signal(&self.child, Signal::SIGSTOP);
        let clients: Vec<TcpStream> = self.ns.run(|| (0..QUEUED).map(|_| self.client()).collect());
        let (before, begun) = (cpu(self.child.id()), Instant::now());
        signal(&self.child, Signal::SIGCONT);
        // The last client is served last, give or take a batch. To wait for one only leaves the cores to the server.
        Server::read(clients.last().unwrap());
        let wall = begun.elapsed();
        clients.into_iter().for_each(|client| self.finish(client));
        self.made += QUEUED;
        self.cost(before, wall, QUEUED)
    }

    fn one_by_one(&mut self) -> Cost {
        let (before, begun) = (cpu(self.child.id()), Instant::now());
        self.ns.run(|| (0..self.sparse).for_each(|_| self.finish(self.client())));
        self.made += self.sparse;
        self.cost(before, begun.elapsed(), self.sparse)
    }

    fn cost(&self, before: Duration, wall: Duration, count: usize) -> Cost {
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

type Start<'a> = Box<dyn Fn() -> Server + 'a>;
type Servers<'a> = Vec<(&'static str, Start<'a>)>;

fn sides<'a>(files: &'a Files, servers: Servers<'a>, drained: bool) -> Vec<Side<'a>> {
    let side = |(name, start): (&'static str, Start<'a>)| Side {
        name,
        run: Box::new(move || {
            let mut server = start();
            let mut measure = || if drained { server.drained() } else { server.one_by_one() };
            // The first time is for pages that are touched for the first time.
            measure();
            let cost = measure();
            files.look_whether_all_are_told(&mut server);
            cost
        }),
    };
    servers.into_iter().map(side).collect()
}

/// A directory with what the servers need, and how many connections were looked for in their lines.
struct Files(tempfile::TempDir, Cell<usize>);

impl Files {
    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    fn profile(&self, reply: &str) -> String {
        let text = format!(
            "schema = 1\nname = 'bench'\n[[listener]]\nname = 'bench'\nbind = '127.0.0.1'\nport = {PORT}\nbacklog = 16384\nmax_connections = 100000\nreply = '{reply}'\nidle_timeout = '5m'\n"
        );
        self.write(&format!("{reply}.toml"), &text)
    }

    /// Our program, writing NDJSON to a file.
    fn ours(&self, reply: &str, threads: &str, request: Option<&'static [u8]>) -> Server {
        let (profile, log) = (self.profile(reply), self.path(&format!("{reply}-{threads}.ndjson")));
        let arguments = ["listen", "--format", "ndjson", "--threads", threads, "-o", &log, &profile];
        let mut server = Server::start(OURS, &arguments, request, false);
        server.log = Some(log);
        server
    }

    /// Ends it in an orderly way and looks at its summary and its lines, if they are ours.
    fn look_whether_all_are_told(&self, server: &mut Server) {
        let Some(log) = server.log.take() else { return };
        signal(&server.child, Signal::SIGTERM);
        server.child.wait().unwrap();
        let text = std::fs::read_to_string(&log).unwrap();
        let summary: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        let lines = text.lines().filter(|line| line.starts_with("{\"event\":\"accepted\"")).count();
        let accepted = usize::try_from(summary["accepted"].as_u64().unwrap()).unwrap();
        assert_eq!((accepted, lines), (server.made, server.made), "{summary}");
        self.1.set(self.1.get() + lines);
        std::fs::remove_file(log).unwrap();
    }

    fn say_how_many_were_told(&self) {
        println!("  {} connections of ours, each told once", self.1.take());
    }

    /// nginx in one process, with a line in its log for each connection or request. `block` is a stream or http server.
    fn nginx(&self, block: &str, drained: bool) -> Option<Start<'_>> {
        let request = block.starts_with("http").then_some(REQUEST);
        let modules = "/usr/lib/nginx/modules/ngx_stream_module.so";
        if !installed("nginx") || (request.is_none() && !Path::new(modules).is_file()) {
            return None;
        }
        let load = if request.is_none() { format!("load_module {modules};\n") } else { String::new() };
        let multi_accept = if drained { "on" } else { "off" };
        let configuration = format!(
            "{load}daemon off;\nmaster_process off;\npid {};\nerror_log /dev/null;\nworker_rlimit_nofile 20000;\n\
             events {{ worker_connections 10000; multi_accept {multi_accept}; }}\n{}\n",
            self.path("nginx.pid"),
            block
                .replace("LOG", &self.path("nginx.log"))
                .replace("DIRECTORY", self.0.path().to_str().unwrap())
        );
        let file = self.write(&format!("nginx-{}.conf", &block[..4]), &configuration);
        Some(Box::new(move || Server::start("nginx", &["-c", &file], request, false)))
    }

    /// haproxy in one process and thread, with a line in a log for each connection or request.
    fn haproxy(&self, frontend: &str, request: Option<&'static [u8]>) -> Option<Start<'_>> {
        if !installed("haproxy") {
            return None;
        }
        let configuration = format!(
            "global\n  maxconn 5000\n  nbthread 1\n  log stdout format raw local0\ndefaults\n  log global\n  \
             timeout client 20s\n  timeout connect 20s\n  timeout server 20s\nfrontend bench\n  bind 127.0.0.1:{PORT} backlog 16384\n{frontend}"
        );
        let file = self.write(&format!("haproxy-{}.cfg", request.is_some()), &configuration);
        Some(Box::new(move || Server::start("haproxy", &["-db", "-f", &file], request, false)))
    }
}

const NGINX_STREAM: &str = "stream {
    log_format line '$time_iso8601 $remote_addr $remote_port $server_addr $server_port';
    access_log LOG line;
    server { listen 127.0.0.1:900 backlog=16384; return ''; }
}";

const NGINX_HTTP: &str = "http {
    access_log LOG;
    client_body_temp_path DIRECTORY; proxy_temp_path DIRECTORY; fastcgi_temp_path DIRECTORY;
    uwsgi_temp_path DIRECTORY; scgi_temp_path DIRECTORY;
    keepalive_timeout 0;
    server { listen 127.0.0.1:900 backlog=16384; return 200 'ANSWER'; }
}";

/// Programs that take a connection, tell of it, and close it.
fn others(files: &Files, drained: bool) -> Servers<'_> {
    let mut servers: Servers<'_> = Vec::new();
    servers.extend(files.nginx(NGINX_STREAM, drained).map(|start| ("nginx stream, access_log", start)));
    let reject = "  mode tcp\n  option tcplog\n  tcp-request content reject\n";
    servers.extend(files.haproxy(reject, None).map(|start| ("haproxy tcp reject, tcplog", start)));
    if installed("python3") {
        let start = || Server::start("python3", &["-c", PYTHON], None, true);
        servers.push(("python3 tutorial loop, pipe", Box::new(start)));
    }
    // Its descriptors end at 1024 (select), and socat's queue is short: they take part only where connections come one by one.
    if !drained && installed("ncat") {
        let start = || {
            let mut ncat = Server::start("ncat", &["-lkv", "-m", "1000", "127.0.0.1", "900"], None, false);
            ncat.client_ends = true;
            ncat.sparse = FEW;
            ncat
        };
        servers.push(("ncat -lkv", Box::new(start)));
    }
    if !drained && installed("socat") {
        let start = || {
            let arguments = ["TCP4-LISTEN:900,bind=127.0.0.1,fork,reuseaddr", "OPEN:/dev/null"];
            let mut socat = Server::start("socat", &arguments, None, false);
            socat.sparse = FEW;
            socat
        };
        servers.push(("socat fork", Box::new(start)));
    }
    servers
}

pub fn all(bench: &mut Bench) {
    let files = &Files(tempfile::tempdir().unwrap(), Cell::new(0));
    let bare = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let limit = || {
        let bare = bare.clone();
        let start: Start<'_> = Box::new(move || Server::start(&bare, &["--bare=accept", "0"], None, false));
        ("bare accept loop", start)
    };
    for (drained, how, goal) in [(true, "queued up and drained", 1.06), (false, "one by one", 1.15)] {
        let name = format!("accept, attribute, record: {how}");
        if bench.wants(&name) {
            let ours: Start<'_> = Box::new(|| files.ours("none", "1", None));
            let mut servers = vec![limit(), ("bindscope to a file", ours)];
            servers.extend(others(files, drained));
            bench.work(&name, Some(goal), sides(files, servers, drained));
            files.say_how_many_were_told();
        }
        let name = format!("live view for people on a pipe: {how}");
        if bench.wants(&name) {
            let ours: Start<'_> =
                Box::new(|| Server::start(OURS, &["listen", &files.profile("none")], None, true));
            let servers = vec![limit(), ("bindscope on a pipe", ours)];
            bench.work(&name, Some(1.25), sides(files, servers, drained));
        }
        let name = format!("answer an HTTP request: {how}");
        if bench.wants(&name) {
            let naive: Start<'_> =
                Box::new(|| Server::start(&bare, &["--bare=answer", "600"], Some(REQUEST), false));
            let ours: Start<'_> = Box::new(|| files.ours("describe", "1", Some(REQUEST)));
            let mut servers =
                vec![("bare loop that does not cork", naive), ("bindscope describe, to a file", ours)];
            let answer = NGINX_HTTP.replace("ANSWER", &"x".repeat(600));
            servers
                .extend(files.nginx(&answer, drained).map(|start| ("nginx return 200, access_log", start)));
            let reply = format!(
                "  mode http\n  option httplog\n  option httpclose\n  http-request return status 200 content-type text/plain string {}\n",
                "x".repeat(600)
            );
            servers.extend(
                files.haproxy(&reply, Some(REQUEST)).map(|start| ("haproxy return 200, httplog", start)),
            );
            bench.work(&name, Some(0.75), sides(files, servers, drained));
            files.say_how_many_were_told();
        }
    }
    let name = "two threads: queued up and drained";
    if bench.wants(name) {
        let ours: Start<'_> = Box::new(|| files.ours("none", "2", None));
        let servers = vec![limit(), ("bindscope --threads 2", ours)];
        bench.work_by_wall(name, Some(1.0 / 1.75), sides(files, servers, true));
        files.say_how_many_were_told();
    }
}
