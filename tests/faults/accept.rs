//! Rows 1 to 9: what can go wrong between a connection and its count.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::support::netns::Netns;
use crate::support::program::{Listening, PATIENCE, bindscope};
use crate::support::tool;
use crate::{address, behind, connect, injected, profile};

/// Holds its clients until they leave or the test is over.
const HOLDING: &str = "[[listener]]\nname = 'held'\nbind = '127.0.0.1'\nport = 8081\nreply = 'echo'\nidle_timeout = '5m'\nmax_connections = 10000\n";

const NDJSON: [&str; 3] = ["listen", "--format", "ndjson"];

/// CPU time of a process so far, in clock ticks of 10 ms: user and system (fields 14 and 15 of proc_pid_stat(5)).
pub fn ticks(pid: nix::unistd::Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Reads on until so many arrivals were told.
fn read_accepted(listening: &mut Listening, count: usize) {
    let mut accepted = 0;
    while accepted < count {
        accepted += usize::from(listening.next()["event"] == "accepted");
    }
}

/// Its end: the summary, the exit code, and standard error.
fn end(listening: Listening) -> (Value, Option<i32>, String) {
    let (mut events, status, stderr) = listening.end();
    let summary = events.pop().unwrap();
    assert_eq!(summary["event"], "summary", "{stderr}");
    (summary, status.code(), stderr)
}

/// Row 1: 200 clients, descriptors for some thirty. The rest waits in the kernel's queue, at no cost, until there is room.
pub fn too_few_descriptors_lose_no_client() {
    ["1", "2"].into_iter().for_each(too_few_descriptors);
}

fn too_few_descriptors(threads: &str) {
    let (_directory, path) = profile(HOLDING);
    let ns = Netns::new();
    let arguments = [&NDJSON[..], &["--threads", threads, &path]].concat();
    let mut command = behind(&["prlimit", "--nofile=48:48"], &arguments);
    let mut listening = ns.run(|| Listening::start(&mut command));
    let to = address(&listening.beginning, 0);
    let mut clients: Vec<TcpStream> = ns.run(|| (0..200).map(|_| connect(to)).collect());
    listening.next();
    // The first ones are told, then it starves. Over a second and a half of starving it may use a tenth of a core.
    std::thread::sleep(Duration::from_millis(500));
    let (before, begun) = (ticks(listening.pid()), Instant::now());
    std::thread::sleep(Duration::from_millis(1500));
    let (used, elapsed) = (ticks(listening.pid()) - before, begun.elapsed());
    assert!(u128::from(used) * 10 * 10 <= elapsed.as_millis(), "{used} ticks of CPU time in {elapsed:?}");
    // Accepted clients leave; others take their places, until no client is left.
    let mut told = 1;
    while told < 200 {
        clients.drain(..clients.len().min(20));
        told += 1;
        assert_eq!(listening.next()["event"], "accepted");
    }
    let (summary, code, stderr) = end(listening);
    assert_eq!((&summary["accepted"], &summary["dropped"]), (&200.into(), &0.into()), "{summary}");
    let errors = summary["errors"]["accept EMFILE"].as_u64().unwrap();
    assert!((2..2000).contains(&errors), "{summary}");
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stderr.matches("accept EMFILE").count(), 1, "one warning in ten seconds: {stderr}");
}

/// Row 3: the end comes at its time, says that a client was not counted, and the other listener is served all the while.
pub fn descriptors_that_never_come_are_undecided() {
    if !tool("strace") {
        return;
    }
    let (_directory, path) = profile(HOLDING);
    let ns = Netns::new();
    // A second listener for datagrams needs no descriptor per arrival.
    let both = std::fs::read_to_string(&path).unwrap()
        + "[[listener]]\nname = 'dgram'\nprotocol = 'udp'\nbind = '127.0.0.1'\nport = 8082\n";
    std::fs::write(&path, both).unwrap();
    let arguments = [&NDJSON[..], &["--for", "1500ms", &path]].concat();
    let mut command = injected(&["trace=accept4", "inject=accept4:error=EMFILE"], &arguments);
    let mut listening = ns.run(|| Listening::start(&mut command));
    let _client = ns.run(|| connect(address(&listening.beginning, 0)));
    let sender = ns.run(|| std::net::UdpSocket::bind("127.0.0.1:0")).unwrap();
    let mut summary = None;
    sender.send_to(b"x", address(&listening.beginning, 1)).unwrap();
    assert_eq!(listening.next()["event"], "datagram", "the other one is served");
    while let Some(event) = listening.try_next() {
        summary = Some(event);
    }
    let summary = summary.unwrap();
    assert_eq!((&summary["event"], &summary["accepted"]), (&"summary".into(), &0.into()), "{summary}");
    // 5, 10, 20 ... 640 ms: some ten attempts in a second and a half, not thousands.
    let errors = summary["errors"]["accept EMFILE"].as_u64().unwrap();
    assert!((2..=15).contains(&errors), "{summary}");
    assert_eq!(listening.wait().code(), Some(3), "who waited is not known");
}

/// Row 2: the system runs out of something for a while.
pub fn errors_of_the_system_are_waited_out() {
    if !tool("strace") {
        return;
    }
    for errno in ["ENFILE", "ENOBUFS", "ENOMEM"] {
        waited_out(errno, "1..3", 3);
    }
}

/// Row 4: the network has taken a connection back. The others are taken at once.
pub fn errors_of_one_connection_are_passed_over() {
    if !tool("strace") {
        return;
    }
    for errno in ["ECONNABORTED", "EPROTO", "ENETDOWN"] {
        waited_out(errno, "2..9", 8);
    }
}

fn waited_out(errno: &str, when: &str, times: u64) {
    let ns = Netns::new();
    let (_directory, path) = profile(HOLDING);
    let fault = format!("inject=accept4:error={errno}:when={when}");
    let mut command = injected(&["trace=accept4", &fault], &[&NDJSON[..], &[&path]].concat());
    let mut listening = ns.run(|| Listening::start(&mut command));
    let to = address(&listening.beginning, 0);
    let _clients: Vec<TcpStream> = ns.run(|| (0..20).map(|_| connect(to)).collect());
    read_accepted(&mut listening, 20);
    let (summary, code, stderr) = end(listening);
    assert_eq!(summary["accepted"], 20, "{errno}: {summary}");
    assert_eq!(summary["errors"][format!("accept {errno}")], times, "{summary}");
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stderr.matches(&format!("accept {errno}")).count(), 1, "{stderr}");
}

/// Row 5: calls that are interrupted, by an error and by real signals that stop and go on (epoll_wait(2) ends with EINTR
/// after SIGCONT).
pub fn interrupted_calls_lose_nothing() {
    let ns = Netns::new();
    let (_directory, path) = profile(HOLDING);
    let mut command = bindscope(&[&NDJSON[..], &[&path]].concat());
    let mut listening = ns.run(|| Listening::start(&mut command));
    let (to, pid) = (address(&listening.beginning, 0), listening.pid());
    let clients = ns.run(|| {
        std::thread::scope(|scope| {
            let clients = scope.spawn(move || {
                // A namespace is a thread's own; this one inherits it.
                (0..300).map(|_| connect(to)).collect::<Vec<TcpStream>>()
            });
            for _ in 0..300 {
                kill(pid, Signal::SIGWINCH).unwrap();
                kill(pid, Signal::SIGSTOP).unwrap();
                kill(pid, Signal::SIGCONT).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
            clients.join().unwrap()
        })
    });
    read_accepted(&mut listening, clients.len());
    let (summary, code, stderr) = end(listening);
    assert_eq!(
        (&summary["accepted"], &summary["errors"]),
        (&300.into(), &serde_json::json!({})),
        "{summary}"
    );
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    if !tool("strace") {
        return;
    }
    let ns = Netns::new();
    let faults = ["trace=accept4,epoll_wait", "inject=accept4,epoll_wait:error=EINTR:when=2+2"];
    let mut command = injected(&faults, &[&NDJSON[..], &[&path]].concat());
    let mut listening = ns.run(|| Listening::start(&mut command));
    let to = address(&listening.beginning, 0);
    let _clients: Vec<TcpStream> = ns.run(|| (0..50).map(|_| connect(to)).collect());
    read_accepted(&mut listening, 50);
    let (summary, code, stderr) = end(listening);
    assert_eq!((&summary["accepted"], &summary["errors"]), (&50.into(), &serde_json::json!({})), "{summary}");
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

/// Row 9: every client that the kernel had accepted when the signal came is counted, and the end is an orderly one.
pub fn a_signal_in_a_burst() {
    let ns = Netns::new();
    for (signal, threads) in [(Signal::SIGTERM, "1"), (Signal::SIGINT, "3"), (Signal::SIGTERM, "2")] {
        let before = ns.passive_opens();
        let (_directory, path) = profile(HOLDING);
        let log = std::path::Path::new(&path).with_extension("ndjson");
        let mut command =
            bindscope(&[&NDJSON[..], &["--threads", threads, "-o", log.to_str().unwrap(), &path]].concat());
        let mut child = ns.run(|| command.stderr(std::process::Stdio::piped()).spawn()).unwrap();
        let told = || std::fs::read_to_string(&log).unwrap_or_default();
        let begun = Instant::now();
        while !told().contains("\"listening\"") {
            assert!(begun.elapsed() < PATIENCE, "{}", told());
            std::thread::sleep(Duration::from_millis(2));
        }
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        let connected = ns.run(|| {
            let mut clients = Vec::new();
            // Until no socket listens any more.
            while let Ok(client) = TcpStream::connect_timeout(&([127, 0, 0, 1], 8081).into(), PATIENCE) {
                clients.push(client);
                if clients.len() == 500 {
                    kill(pid, signal).unwrap();
                }
            }
            clients.len() as u64
        });
        let status = crate::support::program::wait(&mut child);
        assert_eq!(status.code(), Some(0), "{signal}");
        let text = told();
        let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        let lines = text.lines().filter(|line| line.contains("\"accepted\",\"time\"")).count() as u64;
        assert_eq!(summary["accepted"].as_u64(), Some(lines), "{signal}: {summary}");
        // Newcomers are kept out before the last look at the queue. A client may have seen the end of a handshake that the kernel
        // has not.
        assert_eq!(lines, ns.passive_opens() - before, "{signal}");
        assert!(lines >= 500 && lines <= connected && connected - lines <= 2, "{lines} of {connected}");
        assert_eq!(summary["errors"], serde_json::json!({}), "{signal}");
    }
}
