//! Fails every system call of a run, one at a time: no hang, no panic, no abort, no torn JSON, a documented exit code.
//! The way curl's torture tests go, without a program built for it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::behind;
use crate::support::netns::Netns;
use crate::support::program::{finish, text};
use crate::support::tool;

/// How many of each kind are failed, from the first one on. `BINDSCOPE_LONG` fails all of them.
const FIRST: usize = 2;

/// How a call fails, as its manual page has it. Calls of the C library and of threads that no program can live without
/// (memory, its own start and end) are not here.
const ERRORS: [(&str, &str); 36] = [
    ("accept4", "EMFILE"),
    ("bind", "EADDRINUSE"),
    ("clone3", "EAGAIN"),
    ("close", "EIO"),
    ("connect", "EACCES"),
    ("epoll_create1", "EMFILE"),
    ("epoll_ctl", "ENOMEM"),
    ("epoll_wait", "EINTR"),
    ("fcntl", "EMFILE"),
    ("fstat", "ENOMEM"),
    ("getdents64", "ENOENT"),
    ("getpeername", "ENOTCONN"),
    ("getrandom", "ENOSYS"),
    ("getsockname", "ENOBUFS"),
    ("getsockopt", "ENOPROTOOPT"),
    ("ioctl", "EPERM"),
    ("listen", "EADDRINUSE"),
    ("lseek", "ESPIPE"),
    ("newfstatat", "ENOENT"),
    ("openat", "EMFILE"),
    ("prctl", "EPERM"),
    ("pread64", "EIO"),
    ("prlimit64", "EPERM"),
    ("read", "EIO"),
    ("readlink", "ENOENT"),
    ("recvfrom", "ENOBUFS"),
    ("recvmsg", "ENOBUFS"),
    ("rt_sigaction", "EINVAL"),
    ("sendmsg", "ENOBUFS"),
    ("sendto", "ENOBUFS"),
    ("setsockopt", "ENOPROTOOPT"),
    ("shutdown", "ENOTCONN"),
    ("socket", "EMFILE"),
    ("socketpair", "ENFILE"),
    ("statx", "ENOENT"),
    ("write", "EIO"),
];

/// Contract: 0 to 5. 101 is a panic, 134 an abort, 70 an internal error.
const DOCUMENTED: [i32; 5] = [0, 1, 3, 4, 5];

/// One run with a client that comes when it can; `None` for `fault` writes the calls to `log` instead.
fn run(arguments: &[&str], fault: Option<&str>, log: &str, client: bool) -> Output {
    let ns = Netns::new();
    let mut command = match fault {
        // Killed when it hangs, so that the fault is named by the assertion about its exit code.
        Some(fault) => behind(
            &["timeout", "-s", "KILL", "15", "strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", fault],
            arguments,
        ),
        None => behind(&["strace", "-D", "-f", "-qq", "-o", log], arguments),
    };
    ns.run(|| {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            if client {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) && !visit() {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                });
            }
            let output = finish(child);
            over.store(true, Ordering::Relaxed);
            output
        })
    })
}

/// Asks for the page, if anybody listens.
fn visit() -> bool {
    let to: SocketAddr = ([127, 0, 0, 1], 8081).into();
    let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_secs(5)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let _ = stream.read_to_end(&mut Vec::new());
    true
}

/// The calls of a run by name: how many there are, and how many of them belong to the start of any program, before the first
/// one of `main` (which asks what standard output is).
fn calls(arguments: &[&str], client: bool) -> BTreeMap<String, (usize, usize)> {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("calls");
    let output = run(arguments, None, log.to_str().unwrap(), client);
    assert_eq!(output.status.code(), Some(0), "without faults: {:?}", text(&output));
    let mut calls: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut started = false;
    for line in std::fs::read_to_string(&log).unwrap().lines() {
        let Some((_, call)) = line.split_once(' ') else { continue };
        let Some((name, _)) = call.trim_start().split_once('(') else { continue };
        started |= name == "ioctl";
        let (all, before) = calls.entry(name.to_owned()).or_default();
        *all += 1;
        *before += usize::from(!started);
    }
    assert!(started);
    calls
}

fn torture(arguments: &[&str], client: bool, check: impl Fn(&str, &Output) + Sync) {
    if !tool("strace") {
        return;
    }
    let calls = calls(arguments, client);
    let first = if std::env::var_os("BINDSCOPE_LONG").is_some() { usize::MAX } else { FIRST };
    let mut faults = Vec::new();
    for (name, errno) in ERRORS {
        let Some(&(all, before)) = calls.get(name) else { continue };
        for number in (before + 1..=all).take(first) {
            faults.push(format!("inject={name}:error={errno}:when={number}"));
        }
        // Not once but for good.
        faults.push(format!("inject={name}:error={errno}:when={}+", before + 1));
    }
    assert!(faults.len() > 40, "{} faults are too few to prove anything: {calls:?}", faults.len());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let output = run(arguments, Some(fault), "", client);
                    let (stdout, stderr) = text(&output);
                    let code = output.status.code();
                    assert!(
                        code.is_some_and(|code| DOCUMENTED.contains(&code)),
                        "{fault}: {} {stdout} {stderr}",
                        output.status
                    );
                    assert!(!stderr.contains("panicked") && !stderr.contains("BS9001"), "{fault}: {stderr}");
                    if code != Some(0) && code != Some(1) && !fault.contains("write") {
                        assert!(!stderr.is_empty(), "{fault}: exit {code:?} and not a word why");
                    }
                    check(fault, &output);
                }
            });
        }
    });
}

pub fn listen() {
    let arguments = ["listen", "--bind", "127.0.0.1:8081", "--format", "ndjson", "--for", "150ms"];
    torture(&arguments, true, |fault, output| {
        let (stdout, stderr) = text(output);
        assert!(stdout.is_empty() || stdout.ends_with('\n'), "{fault}: a torn line: {stdout}");
        let events: Vec<Value> = stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{fault}: {error}: {line}")))
            .collect();
        if output.status.success() {
            let last = events.last().unwrap_or_else(|| panic!("{fault}: success without a word"));
            assert_eq!(last["event"], "summary", "{fault}: {stderr}");
            let lines = events.iter().filter(|event| event["event"] == "accepted").count();
            assert_eq!(last["accepted"], lines, "{fault}: {stdout}");
        }
    });
}

pub fn interfaces() {
    torture(&["interfaces", "--format", "json"], false, |fault, output| {
        let (stdout, stderr) = text(output);
        match serde_json::from_str::<Value>(&stdout) {
            Ok(document) => {
                let lo = document.to_string().contains("127.0.0.1");
                assert!(
                    lo || !output.status.success(),
                    "{fault}: success without the facts: {stdout} {stderr}"
                );
            }
            Err(error) => {
                assert!(stdout.is_empty(), "{fault}: {error}: {stdout}");
                assert!(!output.status.success(), "{fault}: success without a document");
            }
        }
    });
}
