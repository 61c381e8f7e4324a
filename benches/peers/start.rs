//! Binding many sockets and watching them: time, and memory for each of them and for each open connection.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::enumerate::{OURS, side, used_by_children, words};
use crate::netns::Netns;
use crate::{Bench, Cost, Side};

/// A profile with so many TCP sockets on 127.0.0.1, from port 1025.
fn profile(directory: &Path, count: usize) -> String {
    let path = directory.join(format!("{count}.toml"));
    // A listener takes so many ports at the most; more of them take more.
    let listeners: String = (0..count)
        .step_by(1_000)
        .map(|first| {
            let (first, last) = (1_025 + first, 1_024 + (first + 1_000).min(count));
            format!("[[listener]]\nname = 'many{first}'\nbind = '127.0.0.1'\nport = '{first}-{last}'\nreply = 'none'\n")
        })
        .collect();
    let text = format!("schema = 1\nname = 'many'\n[limits]\nmax_sockets = 65536\n{listeners}");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

pub fn all(bench: &mut Bench) {
    let directory = tempfile::tempdir().unwrap();
    let files = more_files(70_000);
    let many = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(200).min(60_000);
    if many < 60_000 {
        println!("\n{files} descriptors are allowed: {many} listeners stand for 60,000");
    }
    for count in [10, 1_000, 10_000, many] {
        let work = format!("start with {count} listeners");
        if !bench.wants(&work) {
            continue;
        }
        let ns = Netns::new();
        let profile = profile(directory.path(), count);
        let log = directory.path().join("log");
        let bare = std::env::current_exe().unwrap();
        let bare = words(bare.to_str().unwrap(), &format!("--bare=bind {count}"));
        bench.work(
            &work,
            Some(1.3),
            vec![
                side(&ns, "bare bind loop", bare),
                Side { name: "bindscope listen", run: Box::new(|| started(&ns, &profile, &log, count)) },
            ],
        );
    }
    for (what, sockets, connections) in [
        ("idle".to_owned(), 10, 0),
        (format!("{many} listening sockets"), many, 0),
        ("10000 open connections".to_owned(), 10, 10_000),
    ] {
        let work = format!("memory: {what}");
        if bench.wants(&work) && files > sockets as u64 + connections as u64 + 100 {
            memory(bench, &work, directory.path(), sockets, connections);
        }
    }
}

/// From nothing to the first arrival, at the socket that was opened last. The bare loop ends when all are polled, so this side is
/// ended too, by a signal that it cannot take: an orderly end asks every queue for connections that wait.
fn started(ns: &Netns, profile: &str, log: &Path, count: usize) -> Cost {
    let (before, begun) = (used_by_children(), Instant::now());
    let mut server = listen(ns, profile, log);
    let last = u16::try_from(1_024 + count).unwrap();
    let _client = ns.run(|| TcpStream::connect(("127.0.0.1", last))).unwrap();
    wait_for(log, b"\"event\":\"accepted\"");
    let wall = begun.elapsed();
    server.kill().unwrap();
    server.wait().unwrap();
    Cost { cpu: used_by_children() - before, wall }
}

/// Starts it and waits until it listens.
fn listen(ns: &Netns, profile: &str, log: &Path) -> Child {
    std::fs::write(log, "").unwrap();
    let mut command = Command::new(OURS);
    command.args(["listen", "--format", "ndjson", "-o", log.to_str().unwrap(), profile]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = ns.run(|| command.spawn()).unwrap();
    wait_for(log, b"\"event\":\"listening\"");
    child
}

/// Waits until the end of a file says so; thousands of lines stand before it.
fn wait_for(log: &Path, word: &[u8]) {
    const PATIENCE: Duration = Duration::from_secs(60);
    let (begun, file) = (Instant::now(), std::fs::File::open(log).unwrap());
    loop {
        let mut end = [0; 4096];
        let from = file.metadata().unwrap().len().saturating_sub(end.len() as u64);
        let count = file.read_at(&mut end, from).unwrap();
        if end[..count].windows(word.len()).any(|window| window == word) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "not told: {}", String::from_utf8_lossy(word));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// As [`listen`], and a moment later.
fn settled(ns: &Netns, profile: &str, log: &Path) -> Child {
    let child = listen(ns, profile, log);
    std::thread::sleep(Duration::from_millis(200));
    child
}

/// Raises the limit of descriptors as far as it may be raised; its value then.
fn more_files(wanted: u64) -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Beyond the hard limit only with the right to do so.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted.max(hard), wanted.max(hard));
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    hard
}

/// Resident memory of a process, that of files which others map among it.
fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Resident memory with `sockets` listening and `connections` open, and how much of it each takes beyond what ten sockets do.
fn memory(bench: &mut Bench, work: &str, directory: &Path, sockets: usize, connections: usize) {
    let ns = Netns::new();
    ns.sysctl("net.core.somaxconn", "16384");
    ns.sysctl("net.ipv4.ip_local_port_range", "10000 65535");
    let log = directory.join("memory");
    let mut idle = settled(&ns, &profile(directory, 10), &log);
    let base = resident(idle.id());
    idle.kill().unwrap();
    idle.wait().unwrap();
    let path = if connections > 0 {
        let path = directory.join("open.toml");
        let text = "schema = 1\nname = 'open'\n[[listener]]\nname = 'open'\nbind = '127.0.0.1'\nport = 1025\nbacklog = 16384\nmax_connections = 65536\nidle_timeout = '10m'\nreply = 'echo'\n";
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    } else {
        profile(directory, sockets)
    };
    let mut server = settled(&ns, &path, &log);
    let clients: Vec<TcpStream> = ns.run(|| {
        let client = |_| {
            let mut client = TcpStream::connect(("127.0.0.1", 1025)).unwrap();
            client.write_all(b"x").unwrap();
            std::io::Read::read_exact(&mut client, &mut [0]).unwrap();
            client
        };
        (0..connections).map(client).collect()
    });
    let whole = resident(server.id());
    drop(clients);
    server.kill().unwrap();
    server.wait().unwrap();
    let count = sockets.max(connections);
    let each = whole.saturating_sub(base) / count as u64;
    let (figure, goal) = if count == 10 { (whole, 6 << 20) } else { (each, 1024) };
    let missed = if figure > goal { " !" } else { "" };
    println!("\n{work}\n  resident {} KiB; {each} bytes each; goal {goal}{missed}", whole >> 10);
    bench.rows.push(serde_json::json!({
        "work": work, "resident": whole, "count": count, "each": each, "goal": goal,
    }));
}
