//! One run of `listen` whose clients wait in the queue before the run starts, behind a wrapper that counts instructions
//! or system calls.

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::netns::Netns;

/// Timeout of a run until it listens, and until it ends: a wrapper that counts instructions is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `listen` behind `wrapper`, which must exec it, with this many clients that have sent `request`, until its
/// normal end. Every client must be reported.
pub fn drained(wrapper: &[&str], clients: usize, reply: &str, request: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (profile, log) = (path("profile.toml"), path("log.ndjson"));
    let text = format!(
        "schema = 1\nname = 'cost'\n[[listener]]\nname = 'cost'\nbind = '127.0.0.1'\nport = 8081\nbacklog = 4096\nmax_connections = 10000\nreply = '{reply}'\n"
    );
    std::fs::write(&profile, text).unwrap();
    let ns = Netns::new();
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(env!("CARGO_BIN_EXE_bindscope"));
    command.args(["listen", "--format", "ndjson", "-o", &log, &profile]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).env_remove("LISTEN_FDS").env_remove("LISTEN_PID");
    let mut child = ns.run(|| command.spawn()).unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let told = || std::fs::read_to_string(&log).unwrap_or_default();
    let begun = Instant::now();
    while !told().contains("\"event\":\"listening\"") {
        assert!(begun.elapsed() < PATIENCE, "{}", told());
        std::thread::sleep(Duration::from_millis(2));
    }
    kill(pid, Signal::SIGSTOP).unwrap();
    let waiting: Vec<TcpStream> = ns.run(|| {
        let client = || {
            let mut client = TcpStream::connect_timeout(&([127, 0, 0, 1], 8081).into(), PATIENCE).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            std::io::Write::write_all(&mut client, request).unwrap();
            client
        };
        (0..clients).map(|_| client()).collect()
    });
    kill(pid, Signal::SIGCONT).unwrap();
    for mut client in waiting {
        let _ = std::io::copy(&mut client, &mut std::io::sink());
    }
    kill(pid, Signal::SIGTERM).unwrap();
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("the program hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(0));
    assert_eq!(told().matches("\"event\":\"accepted\"").count(), clients);
}
