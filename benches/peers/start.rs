//! Binding many sockets and watching them: time, and memory for each of them and for each open connection.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Bench;
use crate::enumerate::{OURS, side, words};
use crate::netns::Netns;

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
    for count in [10, 1_000, 10_000, 60_000] {
        let work = format!("start with {count} listeners");
        if !bench.wants(&work) {
            continue;
        }
        if files < count as u64 + 100 {
            println!("\n{work}: left out, {files} descriptors are allowed");
            continue;
        }
        let ns = Netns::new();
        let profile = profile(directory.path(), count);
        let ours = format!(
            "listen --format ndjson --for 1ms -o {} {profile}",
            directory.path().join("log").display()
        );
        let bare = std::env::current_exe().unwrap();
        bench.work(
            &work,
            Some(1.3),
            vec![
                side(&ns, "bare bind loop", words(bare.to_str().unwrap(), &format!("--bare=bind {count}"))),
                side(&ns, "bindscope listen", words(OURS, &ours)),
            ],
        );
    }
    for (what, sockets, connections) in
        [("idle", 10, 0), ("60000 listening sockets", 60_000, 0), ("10000 open connections", 10, 10_000)]
    {
        let work = format!("memory: {what}");
        if bench.wants(&work) && files > sockets as u64 + connections as u64 + 100 {
            memory(bench, &work, directory.path(), sockets, connections);
        }
    }
}

/// Raises the limit of descriptors as far as it may be raised; its value then.
fn more_files(wanted: u64) -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Beyond the hard limit only with the right to do so.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted.max(hard), wanted.max(hard));
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    getrlimit(Resource::RLIMIT_NOFILE).unwrap().0
}

/// Resident memory of a process that is its own: not that of files which others map, too.
fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn start(ns: &Netns, profile: &str, log: &Path) -> Child {
    std::fs::write(log, "").unwrap();
    let mut command = Command::new(OURS);
    command.args(["listen", "--format", "ndjson", "-o", log.to_str().unwrap(), profile]);
    let child =
        ns.run(|| command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()).unwrap();
    let begun = Instant::now();
    while !std::fs::read_to_string(log).unwrap().contains("\"event\":\"listening\"") {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(200));
    child
}

/// Resident memory with `sockets` listening and `connections` open, and how much of it each takes beyond what ten sockets do.
fn memory(bench: &mut Bench, work: &str, directory: &Path, sockets: usize, connections: usize) {
    let ns = Netns::new();
    ns.sysctl("net.core.somaxconn", "16384");
    ns.sysctl("net.ipv4.ip_local_port_range", "10000 65535");
    let log = directory.join("memory");
    let mut idle = start(&ns, &profile(directory, 10), &log);
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
    let mut server = start(&ns, &path, &log);
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
