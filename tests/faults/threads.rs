//! `--threads`: any free thread accepts a connection, and the counts are those of one thread.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use serde_json::Value;

use crate::support::netns::Netns;
use crate::support::program::{Listening, PATIENCE, bindscope, wait};
use crate::{address, connect, profile};

const TO: ([u8; 4], u16) = ([127, 0, 0, 1], 8081);

/// A profile of one listener with these further settings.
fn one(settings: &str) -> (tempfile::TempDir, String) {
    profile(&format!(
        "[[listener]]\nname = 'one'\nbind = '127.0.0.1'\nport = 8081\nbacklog = 4096\n{settings}\n"
    ))
}

/// Summary and lines of what it wrote to its log.
fn told(log: &Path) -> (Value, Vec<Value>) {
    let text = std::fs::read_to_string(log).unwrap();
    let mut events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = events.pop().unwrap();
    assert_eq!(summary["event"], "summary");
    events.retain(|event| event["event"] == "accepted");
    (summary, events)
}

/// Clients on several threads; each waits for its end. Returns their ports.
fn clients(ns: &Netns, threads: usize, each: usize) -> Vec<u16> {
    ns.run(|| {
        std::thread::scope(|scope| {
            let one_thread = || {
                let client = || {
                    let mut client = connect(TO.into());
                    let port = client.local_addr().unwrap().port();
                    std::io::Write::write_all(&mut client, b"GET / HTTP/1.0\r\n\r\n").unwrap();
                    let _ = client.read_to_end(&mut Vec::new());
                    port
                };
                (0..each).map(|_| client()).collect::<Vec<_>>()
            };
            let handles: Vec<_> = (0..threads).map(|_| scope.spawn(one_thread)).collect();
            handles.into_iter().flat_map(|handle| handle.join().unwrap()).collect()
        })
    })
}

/// Every client has its line and is counted once.
pub fn count_every_client() {
    for reply in ["none", "describe"] {
        let (_directory, path) = one(&format!("reply = '{reply}'\nmax_connections = 10000"));
        let log = Path::new(&path).with_extension("ndjson");
        let ns = Netns::new();
        let arguments =
            ["listen", "--threads", "3", "--format", "ndjson", "-o", log.to_str().unwrap(), &path];
        let mut child = ns.run(|| bindscope(&arguments).spawn()).unwrap();
        let begun = std::time::Instant::now();
        while !std::fs::read_to_string(&log).unwrap_or_default().contains("\"listening\"") {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let mut ports = clients(&ns, 4, 300);
        let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default()
        };
        assert_eq!(tasks.map(name).filter(|name| name == "accept\n").count(), 2, "beside the first thread");
        nix::sys::signal::kill(crate::streams::pid(&child), nix::sys::signal::Signal::SIGTERM).unwrap();
        assert_eq!(wait(&mut child).code(), Some(0));
        let (summary, lines) = told(&log);
        let mut seen: Vec<u16> =
            lines.iter().map(|line| u16::try_from(line["peer"]["port"].as_u64().unwrap()).unwrap()).collect();
        ports.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, ports, "{reply}");
        assert_eq!((&summary["accepted"], &summary["dropped"]), (&1200.into(), &0.into()), "{summary}");
        assert_eq!(summary["by_listener"][0]["by_ingress"], serde_json::json!({ "lo": 1200 }), "{summary}");
    }
}

/// `--count` is neither missed nor exceeded, though more clients wait than that.
pub fn stop_at_the_count() {
    let (_directory, path) = one("reply = 'none'");
    for count in ["1", "70", "333"] {
        let ns = Netns::new();
        let log = Path::new(&path).with_extension(count);
        let arguments = [
            "listen",
            "--threads",
            "4",
            "--count",
            count,
            "--format",
            "ndjson",
            "-o",
            log.to_str().unwrap(),
            &path,
        ];
        let mut child = ns.run(|| bindscope(&arguments).spawn()).unwrap();
        let mut connected = Vec::new();
        // Until it has ended.
        ns.run(|| {
            while child.try_wait().unwrap().is_none() {
                connected.extend(TcpStream::connect_timeout(&SocketAddr::from(TO), PATIENCE));
            }
        });
        assert_eq!(wait(&mut child).code(), Some(0));
        let (summary, lines) = told(&log);
        let count: usize = count.parse().unwrap();
        assert_eq!((&summary["accepted"], lines.len()), (&count.into(), count), "{summary}");
        assert!(connected.len() >= count);
    }
}

/// `max_connections` is one limit, not one for each thread.
pub fn share_the_limit() {
    let (_directory, path) = one("reply = 'echo'\nidle_timeout = '5m'\nmax_connections = 50");
    let ns = Netns::new();
    let mut command = bindscope(&["listen", "--threads", "4", "--format", "ndjson", &path]);
    let mut listening = ns.run(|| Listening::start(&mut command));
    let to = address(&listening.beginning, 0);
    let held: Vec<TcpStream> = ns.run(|| (0..200).map(|_| connect(to)).collect());
    for _ in 0..held.len() {
        assert_eq!(listening.next()["event"], "accepted");
    }
    let open = |mut client: &TcpStream| {
        std::io::Write::write_all(&mut client, b"?").is_ok()
            && client.read(&mut [0]).is_ok_and(|count| count == 1)
    };
    assert_eq!(held.iter().filter(|client| open(client)).count(), 50);
    let (mut events, status, stderr) = listening.end();
    let summary = events.pop().unwrap();
    assert_eq!(summary["by_listener"][0]["over_limit"], 150, "{summary}");
    assert_eq!((&summary["accepted"], status.code()), (&200.into(), Some(0)), "{stderr}");
}
