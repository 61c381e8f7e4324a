//! Nothing counted is lost in storms: connections from several sources while descriptors run out, the reader is slow and signals
//! come. `BINDSCOPE_LONG=connections` makes it ten million connections, `BINDSCOPE_LONG=connections:N` as many as it says.
//!
//! A client that has only seen the end of its own handshake proves nothing: a busy kernel may drop the last ACK and take the reset
//! that follows. So each waits for what only a program that has accepted it can send, its byte or its end, and the counts are equal.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::netns::Netns;
use crate::support::program::{bindscope, wait};

/// Connections of a short run: with lines of some 340 bytes more than twice the 8 MiB that may wait for a slow reader.
const SHORT: u64 = 64_000;

/// How many connections one source holds at once. The storm of descriptors lets in fewer.
const BURST: u64 = 100;

fn wanted() -> u64 {
    match std::env::var("BINDSCOPE_LONG")
        .ok()
        .as_deref()
        .map(|long| long.split_once(':').unwrap_or((long, "")))
    {
        Some(("connections", "")) => 10_000_000,
        Some(("connections", count)) => count.parse().unwrap(),
        _ => SHORT,
    }
}

/// The clients' count is the accepted lines and the dropped ones together, and the summary's.
pub fn storms_lose_no_count() {
    let (host, first, second) = (Netns::new(), Netns::new(), Netns::new());
    for (peer, wire, net) in [(&first, "eth0", "192.0.2"), (&second, "eth1", "198.51.100")] {
        host.wire(wire, peer, "far");
        host.address(wire, &format!("{net}.1/24"));
        peer.address("far", &format!("{net}.2/24"));
    }
    for ns in [&host, &first, &second] {
        ns.sysctl("net.ipv4.ip_local_port_range", "1024 65535");
    }
    // One closes at once; the other holds descriptors until its clients have read.
    let closes = "0.0.0.0:900,reply=none,backlog=4096";
    let holds = "0.0.0.0:901,reply=echo,max_connections=60000,backlog=4096";
    let mut command = bindscope(&["listen", "--format", "ndjson", "--bind", closes, "--bind", holds]);
    let mut child = host.run(|| command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()).unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("\"event\":\"listening\"")));
    let (over, connected) = (AtomicBool::new(false), AtomicU64::new(0));
    let each = wanted() / 4;
    let (accepted, dropped, summary) = std::thread::scope(|scope| {
        let (over, connected) = (&over, &connected);
        let reader = scope.spawn(move || {
            let (mut accepted, mut dropped, mut summary) = (0u64, 0u64, None);
            for (number, line) in lines.enumerate() {
                let line = line.unwrap();
                if line.starts_with("{\"event\":\"accepted\"") {
                    accepted += 1;
                    // Far slower than clients connect, until no client is left.
                    while !over.load(Ordering::Relaxed) && accepted > connected.load(Ordering::Relaxed) / 16 {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    // A line is parsed now and then: that all are whole is seen by those.
                    if number % 64 != 0 {
                        continue;
                    }
                }
                let event: Value =
                    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                match event["event"].as_str().unwrap() {
                    "dropped" => dropped += event["count"].as_u64().unwrap(),
                    "summary" => summary = Some(event),
                    _ => {}
                }
            }
            (accepted, dropped, summary)
        });
        let storms = scope.spawn(move || {
            for round in 0u64.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let limit = if round % 2 == 0 { "40:" } else { "4000:" };
                let pid_text = pid.to_string();
                let set =
                    Command::new("prlimit").args(["--pid", &pid_text, &format!("--nofile={limit}")]).status();
                assert!(set.unwrap().success());
                for signal in [Signal::SIGSTOP, Signal::SIGCONT, Signal::SIGWINCH, Signal::SIGCHLD] {
                    kill(pid, signal).unwrap();
                    std::thread::sleep(Duration::from_millis(5));
                }
                std::thread::sleep(Duration::from_millis(if round % 2 == 0 { 30 } else { 150 }));
            }
            let all = Command::new("prlimit").args(["--pid", &pid.to_string(), "--nofile=4000:"]).status();
            assert!(all.unwrap().success());
        });
        let sources = [
            (&host, "127.0.0.1:900"),
            (&host, "192.0.2.1:901"),
            (&first, "192.0.2.1:900"),
            (&second, "198.51.100.1:901"),
        ];
        let clients = sources.map(|(ns, to)| {
            let to = to.parse().unwrap();
            scope.spawn(move || ns.run(|| burst(to, each, connected)))
        });
        clients.into_iter().for_each(|client| client.join().unwrap());
        over.store(true, Ordering::Relaxed);
        storms.join().unwrap();
        kill(pid, Signal::SIGTERM).unwrap();
        reader.join().unwrap()
    });
    let status = wait(&mut child);
    let summary = summary.unwrap();
    let made = 4 * each;
    eprintln!(
        "{} connections, {accepted} lines, {dropped} dropped, errors {}",
        connected.load(Ordering::Relaxed),
        summary["errors"]
    );
    assert_eq!(connected.load(Ordering::Relaxed), made);
    assert_eq!(host.passive_opens(), made, "the kernel's own count");
    assert_eq!(summary["accepted"], made, "{summary}");
    assert_eq!(accepted + dropped, made, "{accepted} lines and {dropped} dropped: {summary}");
    assert_eq!(summary["dropped"], dropped);
    assert!(dropped > 0, "the reader was not slow: {summary}");
    let listeners = summary["by_listener"].as_array().unwrap();
    assert_eq!(listeners.len(), 2);
    // The kernel notes the interface that has the address, where a host connects to itself.
    for (one, ingress) in listeners.iter().zip([["lo", "eth0"], ["eth0", "eth1"]]) {
        assert_eq!(
            ingress.map(|interface| one["by_ingress"][interface].as_u64()),
            [Some(each); 2],
            "{summary}"
        );
    }
    assert!(
        summary["errors"]["accept EMFILE"].as_u64().is_some_and(|count| count > 0),
        "no storm: {summary}"
    );
    // Lines that were dropped are output that was lost.
    assert_eq!(status.code(), Some(5));
}

/// Connects in bursts, and waits for the program's byte (port 901) or end. Closing with a reset leaves no port in TIME_WAIT.
fn burst(to: SocketAddr, count: u64, connected: &AtomicU64) {
    let echoes = to.port() == 901;
    let mut made = 0;
    while made < count {
        let mut streams: Vec<TcpStream> =
            (0..BURST.min(count - made)).map(|_| TcpStream::connect(to).unwrap()).collect();
        for stream in &mut streams {
            let socket = socket2::SockRef::from(&*stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            if echoes {
                stream.write_all(b"x").unwrap();
            }
        }
        for stream in &mut streams {
            let mut answer = [0; 2];
            assert_eq!(stream.read(&mut answer).unwrap(), usize::from(echoes));
        }
        made += streams.len() as u64;
        connected.fetch_add(streams.len() as u64, Ordering::Relaxed);
    }
}
