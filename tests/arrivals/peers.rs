//! Peers that behave badly: bounded in bytes, time and number, and never at the cost of others.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::Value;

use crate::support::netns::Netns;
use crate::support::program::{Listening, bindscope};

const PATIENCE: Duration = Duration::from_secs(30);

fn listening(listeners: &str) -> (Netns, Listening) {
    let host = Netns::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profile.toml");
    std::fs::write(&path, format!("schema = 1\nname = 'peers'\n{listeners}")).unwrap();
    let mut command = bindscope(&["listen", "--format", "ndjson", path.to_str().unwrap()]);
    let listening = host.run(|| Listening::start(&mut command));
    (host, listening)
}

fn to(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn connect(host: &Netns, port: u16) -> TcpStream {
    let stream = host.run(|| TcpStream::connect_timeout(&to(port), PATIENCE)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Whether the other side has closed, however roughly.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

fn last(listening: Listening) -> Value {
    let (mut events, status, stderr) = listening.end();
    assert_eq!(status.code(), Some(0), "{stderr}");
    let summary = events.pop().unwrap();
    assert_eq!(summary["event"], "summary");
    summary
}

/// A client that says nothing is told how it came, or closed when the idle time is over.
pub fn that_are_silent_are_closed() {
    let (host, mut listening) = listening(
        "[[listener]]\nname = 'echo'\nbind = '127.0.0.1'\nport = 8081\nreply = 'echo'\nidle_timeout = '200ms'\n\
         [[listener]]\nname = 'describe'\nbind = '127.0.0.1'\nport = 8082\nidle_timeout = '10s'\n",
    );
    let mut echo = connect(&host, 8081);
    assert!(is_closed(&mut echo));
    let mut line = String::new();
    BufReader::new(connect(&host, 8082)).read_line(&mut line).unwrap();
    assert!(line.starts_with("bindscope: your connection from 127.0.0.1:"), "{line}");
    listening.next_arrival();
    listening.next_arrival();
    let summary = last(listening);
    assert_eq!(summary["errors"]["connection idle"], 1, "{summary}");
}

/// Half a request does not hold a connection for ever, and costs the others nothing.
pub fn that_begin_a_request_and_stop_are_closed() {
    let (host, listening) =
        listening("[[listener]]\nname = 'web'\nbind = '127.0.0.1'\nport = 8081\nidle_timeout = '300ms'\n");
    let slow: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = connect(&host, 8081);
            stream.write_all(b"GET / HT").unwrap();
            stream
        })
        .collect();
    let mut brisk = connect(&host, 8081);
    brisk.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    brisk.read_to_string(&mut page).unwrap();
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    for mut stream in slow {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        assert!(is_closed(&mut stream));
    }
    assert_eq!(last(listening)["accepted"], 101);
}

/// Who sends without end is read for 4 KiB at the most.
pub fn that_send_without_end_are_cut_off() {
    let (host, listening) = listening(
        "[[listener]]\nname = 'web'\nbind = '127.0.0.1'\nport = 8081\n\
         [[listener]]\nname = 'echo'\nbind = '127.0.0.1'\nport = 8082\nreply = 'echo'\n",
    );
    for port in [8081, 8082] {
        let mut stream = connect(&host, port);
        let block = [b'y'; 64 << 10];
        let mut sent = 0;
        while sent < 1 << 30 {
            match stream.write(&block) {
                Ok(count) => sent += count,
                Err(error) => {
                    assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
                    break;
                }
            }
        }
        assert!(sent < 1 << 30, "a gigabyte was taken on port {port}");
    }
    assert_eq!(last(listening)["accepted"], 2);
}

/// Bytes that would steer a terminal stay out of every line and answer.
pub fn that_send_control_bytes_steer_nothing() {
    let (host, mut listening) = listening("[[listener]]\nname = 'web'\nbind = '127.0.0.1'\nport = 8081\n");
    for payload in [
        &b"\x1b]52;c;AAAA\x07\x1b[2J\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-x\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"\xff\xfe\xc2\x9b31m\xe2\x80\xae\n",
        b"GET /\x1b[2J HTTP/1.1\r\n\r\n",
        b"GET  HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let mut stream = connect(&host, 8081);
        stream.write_all(payload).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.is_empty(), "{payload:?}");
        assert!(
            answer.iter().all(|&byte| matches!(byte, b'\r' | b'\n' | 0x20..0x7f)),
            "{payload:?}: {answer:?}"
        );
        assert_eq!(listening.next_arrival()["event"], "accepted");
    }
    assert_eq!(last(listening)["accepted"], 8);
}

/// Above `max_connections` a client is counted and closed at once.
pub fn that_are_too_many_are_counted() {
    let (host, mut listening) = listening(
        "[[listener]]\nname = 'small'\nbind = '127.0.0.1'\nport = 8081\nreply = 'echo'\nmax_connections = 3\n",
    );
    let mut streams: Vec<_> = (0..3).map(|_| connect(&host, 8081)).collect();
    for stream in &mut streams {
        stream.write_all(b"x").unwrap();
        assert!(!is_closed(stream), "the echo");
    }
    let mut extra: Vec<_> = (0..4).map(|_| connect(&host, 8081)).collect();
    assert!(extra.iter_mut().all(is_closed));
    for number in 0..7 {
        let event = listening.next_arrival();
        assert_eq!((&event["event"], &event["over_limit"]), (&"accepted".into(), &(number >= 3).into()));
    }
    drop(streams);
    let summary = last(listening);
    assert_eq!(
        (&summary["accepted"], &summary["by_listener"][0]["over_limit"]),
        (&7.into(), &4.into()),
        "{summary}"
    );
}

/// An empty datagram and the largest one are both told; what did not fit is marked.
pub fn that_send_the_smallest_and_the_largest_datagram() {
    let (host, mut listening) =
        listening("[[listener]]\nname = 'udp'\nprotocol = 'udp'\nbind = '127.0.0.1'\nport = 8081\n");
    let socket = host.run(|| UdpSocket::bind("127.0.0.1:0")).unwrap();
    for (length, truncated) in [(0, false), (4096, false), (4097, true), (65_507, true)] {
        socket.send_to(&vec![0; length], to(8081)).unwrap();
        let event = listening.next_arrival();
        assert_eq!((&event["bytes"], &event["truncated"]), (&length.into(), &truncated.into()), "{event}");
    }
    assert_eq!(last(listening)["datagrams"], 4);
}

/// A peer that resets before it is accepted is counted with what is known of it.
pub fn that_are_gone_already_are_counted() {
    let (host, listening) = listening("[[listener]]\nname = 'web'\nbind = '127.0.0.1'\nport = 8081\n");
    for _ in 0..200 {
        let socket = socket2::Socket::from(connect(&host, 8081));
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(last(listening)["accepted"], 200);
}
