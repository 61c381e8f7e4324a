//! The end of a run: no client is lost, and a reader that stalls does not delay the end.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::streams::pid;
use crate::support::netns::two_hosts;
use crate::support::program::{bindscope, text, wait};

/// Clients that connect while the program ends. Two of three wait for the answer: each is counted, or sees a reset, since the kernel
/// resets a connection that the program did not accept before it closed the listener. One of three resets its connection at once, so
/// that nothing repeats a packet that the kernel dropped because the queue was full: each is counted. With `BINDSCOPE_LONG=1`
/// there are 200 ends with 6,000 clients each, more than a million in all.
pub fn no_client_is_lost_at_the_end() {
    let long = std::env::var("BINDSCOPE_LONG").is_ok_and(|value| value == "1");
    let (ends, of_each) = if long { (200, 6_000) } else { (40, 300) };
    let (here, there) = two_hosts();
    let directory = tempfile::tempdir().unwrap();
    let (mut connected, mut lost) = (0, 0);
    for number in 0..ends {
        let log = directory.path().join(format!("log{number}"));
        // One listener, and more than those of which every queue is looked at.
        let bind = if number % 4 == 3 { "0.0.0.0:9000-9099" } else { "0.0.0.0:9000" };
        let threads = ["1", "2", "4"][number % 3];
        let arguments = [
            "listen",
            "--bind",
            bind,
            "--threads",
            threads,
            "--format",
            "ndjson",
            "-o",
            log.to_str().unwrap(),
        ];
        let mut child = here.run(|| bindscope(&arguments).stderr(Stdio::null()).spawn()).unwrap();
        let begun = Instant::now();
        while !std::fs::read_to_string(&log).unwrap_or_default().contains("\"listening\"") {
            assert!(begun.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(5));
        }
        let (over, count) = (AtomicBool::new(false), AtomicUsize::new(0));
        let clients = std::thread::scope(|scope| {
            let load = |waits: bool| {
                there.run(|| {
                    let mut ports = HashSet::new();
                    let to = SocketAddr::from(([192, 0, 2, 1], 9000));
                    while !over.load(Ordering::Relaxed) {
                        if let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_millis(300)) {
                            count.fetch_add(1, Ordering::Relaxed);
                            let port = stream.local_addr().unwrap().port();
                            if !waits {
                                socket2::Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
                                ports.insert(port);
                                continue;
                            }
                            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                            let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
                            // An error but a reset would be a client that waits for nothing.
                            match stream.read_to_end(&mut Vec::new()) {
                                Ok(_) => {
                                    ports.insert(port);
                                }
                                Err(error) => {
                                    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
                                }
                            }
                            let _ = socket2::Socket::from(stream).set_linger(Some(Duration::ZERO));
                        }
                    }
                    ports
                })
            };
            let crowd: Vec<_> = (0..3).map(|client| scope.spawn(move || load(client > 0))).collect();
            while count.load(Ordering::Relaxed) < of_each && begun.elapsed() < Duration::from_secs(30) {
                std::thread::sleep(Duration::from_millis(1));
            }
            kill(pid(&child), Signal::SIGTERM).unwrap();
            assert_eq!(wait(&mut child).code(), Some(0));
            over.store(true, Ordering::Relaxed);
            crowd.into_iter().flat_map(|one| one.join().unwrap()).collect::<HashSet<u16>>()
        });
        let told: HashSet<u16> = std::fs::read_to_string(&log)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .filter(|event| event["event"] == "accepted")
            .map(|event| u16::try_from(event["peer"]["port"].as_u64().unwrap()).unwrap())
            .collect();
        connected += clients.len();
        lost += clients.difference(&told).count();
    }
    eprintln!("{ends} ends, {connected} connected, {lost} without a line");
    assert_eq!(lost, 0);
}

/// `audit --watch` ends when its time is up, and at the first signal, though its output is not read.
pub fn a_reader_that_stands_still_holds_up_no_watch() {
    for (arguments, signal) in [
        (&["audit", "--watch=200ms", "--for", "1s", "--format", "ndjson"][..], None),
        (&["audit", "--watch=200ms", "--for", "1s"], None),
        (&["audit", "--watch=200ms", "--format", "ndjson"], Some(Signal::SIGTERM)),
        (&["audit", "--watch=200ms"], Some(Signal::SIGINT)),
    ] {
        // A pipe that is full from the start.
        let (reader, writer) = std::io::pipe().unwrap();
        let full = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
        let mut page = [b'.'; 4096];
        nix::fcntl::fcntl(&full, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        while std::io::Write::write(&mut &full, &page).is_ok() {}
        nix::fcntl::fcntl(&full, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
        let mut child = bindscope(arguments).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        if let Some(signal) = signal {
            std::thread::sleep(Duration::from_secs(1));
            kill(pid(&child), signal).unwrap();
        }
        while child.try_wait().unwrap().is_none() {
            if begun.elapsed() > Duration::from_secs(15) {
                let _ = child.kill();
                panic!("{arguments:?} is held up");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(5), "{:?}", text(&output));
        let _ = (&reader).read(&mut page);
    }
}
