//! What a connection costs in system calls: repeatable, so it can be held.

use std::net::TcpStream;
use std::process::Stdio;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};

use crate::streams::pid;
use crate::support::netns::Netns;
use crate::support::program::{PATIENCE, wait};
use crate::support::tool;
use crate::{behind, connect, profile};

/// All calls of a run that takes `clients` connections, which wait in the queue when it looks.
fn calls(clients: usize, reply: &str, request: &[u8]) -> f64 {
    let listener = "[[listener]]\nname = 'cost'\nbind = '127.0.0.1'\nport = 8081\nmax_connections = 10000\n";
    let (directory, path) = profile(&format!("{listener}reply = '{reply}'\n"));
    let (table, log) = (directory.path().join("table"), directory.path().join("log"));
    let (table, log) = (table.to_str().unwrap(), log.to_str().unwrap());
    let arguments = ["listen", "--format", "ndjson", "-o", log, &path];
    let wrapper = ["strace", "-D", "-f", "-qq", "-c", "-o", table];
    let ns = Netns::new();
    let mut child = ns.run(|| behind(&wrapper, &arguments).stderr(Stdio::inherit()).spawn()).unwrap();
    let told = || std::fs::read_to_string(log).unwrap_or_default();
    let begun = Instant::now();
    while !told().contains("\"event\":\"listening\"") {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    kill(pid(&child), Signal::SIGSTOP).unwrap();
    let waiting: Vec<TcpStream> = ns.run(|| {
        let client = || {
            let mut client = connect(([127, 0, 0, 1], 8081).into());
            std::io::Write::write_all(&mut client, request).unwrap();
            client
        };
        (0..clients).map(|_| client()).collect()
    });
    kill(pid(&child), Signal::SIGCONT).unwrap();
    for mut client in waiting {
        let _ = std::io::copy(&mut client, &mut std::io::sink());
    }
    kill(pid(&child), Signal::SIGTERM).unwrap();
    assert_eq!(wait(&mut child).code(), Some(0));
    assert_eq!(told().matches("\"event\":\"accepted\"").count(), clients);
    // The tracer writes its table when the program has ended.
    loop {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        if text.contains(" total") {
            // Columns: % time, seconds, usecs/call, calls, errors if any, name. A debug build looks at a descriptor with fcntl
            // before it closes it.
            let rows = text.lines().filter(|line| !line.ends_with(" total") && !line.ends_with(" fcntl"));
            return rows.filter_map(|row| row.split_whitespace().nth(3)?.parse::<f64>().ok()).sum();
        }
        assert!(begun.elapsed() < PATIENCE, "{text}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// accept4, getsockopt, close; with an answer recv and send too. The twentieth part above it is what a batch of them shares.
pub fn a_connection_costs_three_calls_and_an_answer_two_more() {
    if !tool("strace") {
        return;
    }
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (reply, request, goal) in [("none", &b""[..], 3.1), ("describe", request, 5.1)] {
        let (few, many) = (calls(64, reply, request), calls(1344, reply, request));
        let each = (many - few) / 1280.0;
        eprintln!("{reply}: {each:.3} system calls for a connection");
        assert!(each >= 3.0 && each <= goal * 1.05, "{reply}: {each} system calls for a connection");
    }
}
