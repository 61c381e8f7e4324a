//! Rows 10 and 13: peers that take their time for a whole minute, and peers that do not read what they are told.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::netns::{Netns, two_hosts};
use crate::support::program::{Listening, bindscope};
use crate::terminal::fake_clock;
use crate::{address, connect, profile};

/// Resident memory in bytes.
fn resident(pid: Pid) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// How many descriptors a process has open.
fn descriptors(pid: Pid) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Whether the other side has closed, however roughly.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

/// Row 10: a thousand clients, each with a byte every nine seconds, which is never silent for long. Each is closed after its minute.
/// The program's minute takes three seconds here, by a clock that runs twenty times as fast; `BINDSCOPE_LONG=minute` waits for a
/// real one.
pub fn that_are_slow_for_a_minute() {
    const CLIENTS: usize = 1_000;
    let (speed, idle) = match std::env::var("BINDSCOPE_LONG").as_deref() {
        Ok("minute") => (1, "10s"),
        // A busy machine may be late with a byte by a second.
        _ => (20, "30s"),
    };
    let (_directory, path) = profile(&format!(
        "[[listener]]\nname = 'web'\nbind = '127.0.0.1'\nport = 8081\nmax_connections = 2000\nbacklog = 2000\nidle_timeout = '{idle}'\n"
    ));
    let mut command = bindscope(&["listen", "--format", "ndjson", &path]);
    if speed > 1 {
        let Some(library) = fake_clock() else { return };
        command.env("LD_PRELOAD", library).env("FAKETIME", format!("+0 x{speed}"));
    }
    let ns = Netns::new();
    ns.sysctl("net.core.somaxconn", "2000");
    let mut listening = ns.run(|| Listening::start(&mut command));
    let to = address(&listening.beginning, 0);
    // What the first client brings about stays.
    let mut first = ns.run(|| connect(to));
    first.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
    first.read_to_end(&mut Vec::new()).unwrap();
    listening.next_arrival();
    let before = resident(listening.pid());
    // It is stopped until each has sent its first byte: who says nothing is told how it came and closed.
    kill(listening.pid(), Signal::SIGSTOP).unwrap();
    let mut clients: Vec<TcpStream> = ns.run(|| (0..CLIENTS).map(|_| connect(to)).collect());
    for client in &mut clients {
        client.write_all(b"G").unwrap();
        client.set_nonblocking(true).unwrap();
    }
    let mut bytes = b"ET /slowly HTTP/1.1".iter();
    kill(listening.pid(), Signal::SIGCONT).unwrap();
    let begun = Instant::now();
    for _ in 0..CLIENTS {
        listening.next_arrival();
    }
    let mut most = 0;
    while !clients.is_empty() {
        std::thread::sleep(Duration::from_secs(9) / speed);
        if begun.elapsed() * speed < Duration::from_secs(55) {
            most = most.max(resident(listening.pid()));
            assert!(!clients.iter_mut().any(is_closed), "closed before its minute was over");
        }
        let byte = *bytes.next().unwrap();
        // A client whose connection was just closed is told so.
        clients.retain_mut(|client| !is_closed(client) && client.write_all(&[byte]).is_ok());
    }
    let cost = most.saturating_sub(before);
    assert!(cost < 2 << 20, "{CLIENTS} slow clients cost {cost} bytes");
    let (mut events, status, stderr) = listening.end();
    let summary = events.pop().unwrap();
    assert_eq!(summary["accepted"], CLIENTS + 1);
    assert_eq!(
        summary["errors"],
        serde_json::json!({ "connection at its lifetime limit": CLIENTS }),
        "{summary}"
    );
    assert_eq!(status.code(), Some(0), "{stderr}");
}

/// A client with the smallest receive buffer there is.
fn narrow(to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

/// Row 13: clients that ask and read nothing, where no buffer of the kernel's holds what they are told. They cost others no time,
/// and are closed when their own is over.
pub fn that_never_read() {
    const CLIENTS: usize = 100;
    let (_directory, path) = profile(
        "[[listener]]\nname = 'echo'\nbind = '192.0.2.1'\nport = 8081\nreply = 'echo'\nidle_timeout = '1s'\nmax_connections = 1000\n",
    );
    let (ns, there) = two_hosts();
    ns.sysctl("net.ipv4.tcp_wmem", "2048 2048 2048");
    let mut command = bindscope(&["listen", "--format", "ndjson", &path]);
    let mut listening = ns.run(|| Listening::start(&mut command));
    let to = address(&listening.beginning, 0);
    let before = descriptors(listening.pid());
    let clients: Vec<TcpStream> = there.run(|| (0..CLIENTS).map(|_| narrow(to)).collect());
    for mut client in &clients {
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.write(&[b'x'; 4096]).unwrap(), 4096);
    }
    for _ in 0..CLIENTS {
        listening.next_arrival();
    }
    // Others are served meanwhile.
    for _ in 0..10 {
        let mut brisk = there.run(|| connect(to));
        brisk.write_all(b"hello").unwrap();
        let mut echo = [0; 5];
        brisk.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"hello");
        listening.next_arrival();
    }
    let begun = Instant::now();
    while descriptors(listening.pid()) > before {
        assert!(begun.elapsed() < Duration::from_secs(30), "they are held");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (mut events, status, stderr) = listening.end();
    let summary = events.pop().unwrap();
    assert_eq!(summary["accepted"], CLIENTS + 10);
    // Whose 4 KiB were echoed would have been closed for that.
    assert_eq!(summary["errors"], serde_json::json!({ "connection idle": CLIENTS }), "{summary}");
    assert_eq!(status.code(), Some(0), "{stderr}");
}
