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

/// How many of each kind are failed, from the first one on. `BINDSCOPE_LONG` fails all of them, in every way, for good too.
const FIRST: usize = 2;

/// How a call fails, as its manual page has it; the first error is the likeliest one. Calls of the C library and of threads that
/// no program can live without (memory, its own start and end) are not here.
const ERRORS: [(&str, &[&str]); 40] = [
    ("accept4", &["EMFILE", "ENFILE", "ECONNABORTED", "EPROTO", "ENOBUFS", "EINVAL", "EPERM"]),
    ("bind", &["EADDRINUSE", "EACCES", "EADDRNOTAVAIL", "ENOMEM", "EINVAL"]),
    ("capget", &["EINVAL"]),
    ("capset", &["EPERM"]),
    ("clone3", &["EAGAIN", "ENOSYS"]),
    ("close", &["EIO", "EINTR"]),
    ("connect", &["EACCES", "EADDRNOTAVAIL", "ENETUNREACH", "ETIMEDOUT", "EAGAIN", "EINTR"]),
    ("epoll_create1", &["EMFILE", "ENOMEM"]),
    ("epoll_ctl", &["ENOMEM", "ENOSPC"]),
    ("epoll_wait", &["EINTR", "EINVAL"]),
    ("fcntl", &["EMFILE", "EPERM"]),
    ("fstat", &["ENOMEM"]),
    ("getdents64", &["ENOENT", "EIO"]),
    ("getpeername", &["ENOTCONN", "ENOBUFS"]),
    ("getrandom", &["ENOSYS"]),
    ("getsockname", &["ENOBUFS"]),
    ("getsockopt", &["ENOPROTOOPT", "ENOBUFS", "ENODEV"]),
    ("ioctl", &["EPERM", "ENODEV", "ENOTTY"]),
    ("landlock_create_ruleset", &["EOPNOTSUPP", "ENOSYS", "E2BIG"]),
    ("landlock_restrict_self", &["E2BIG", "EPERM"]),
    ("listen", &["EADDRINUSE"]),
    ("lseek", &["ESPIPE"]),
    ("newfstatat", &["ENOENT", "EACCES"]),
    ("openat", &["EMFILE", "EACCES", "ENOENT", "ENFILE"]),
    ("poll", &["ENOMEM", "EINTR"]),
    ("ppoll", &["ENOMEM", "EINTR"]),
    ("prctl", &["EPERM", "EINVAL"]),
    ("pread64", &["EIO"]),
    ("prlimit64", &["EPERM"]),
    ("read", &["EIO", "EINTR"]),
    ("readlink", &["ENOENT", "EACCES"]),
    ("recvfrom", &["ENOBUFS", "EAGAIN", "EINTR", "ENOMEM", "ECONNRESET", "EIO"]),
    ("recvmsg", &["ENOBUFS", "EAGAIN", "EINTR", "ENOMEM", "EIO"]),
    ("rt_sigaction", &["EINVAL"]),
    ("sendto", &["ENOBUFS", "EAGAIN", "EPERM", "EPIPE", "EINTR", "EACCES"]),
    ("setsockopt", &["ENOPROTOOPT", "EPERM", "ENOBUFS", "ENODEV"]),
    ("shutdown", &["ENOTCONN"]),
    ("socket", &["EMFILE", "EAFNOSUPPORT", "EACCES", "EPROTONOSUPPORT", "ENOBUFS"]),
    ("statx", &["ENOENT", "EACCES"]),
    ("write", &["EIO", "ENOSPC", "EPIPE", "EINTR"]),
];

// Of recvmsg, EBADF, ENOTSOCK, ENOTCONN and ECONNREFUSED are left out: glibc aborts a program whose getifaddrs() meets one of
// them, since only a bug could bring them about (`__netlink_assert_response()` of sysdeps/unix/sysv/linux/netlink_assert_response.c).

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

/// Requests the page, if a socket listens.
fn visit() -> bool {
    let to: SocketAddr = ([127, 0, 0, 1], 8081).into();
    let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_secs(5)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
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
    let long = std::env::var_os("BINDSCOPE_LONG").is_some();
    let first = if long { usize::MAX } else { FIRST };
    let mut faults = Vec::new();
    for (name, errors) in ERRORS {
        let Some(&(all, before)) = calls.get(name) else { continue };
        for (rank, errno) in errors.iter().enumerate() {
            // Each way to fail for the first call, and the likeliest one for those after it.
            let most = if rank == 0 || long { usize::MAX } else { 1 };
            for number in (before + 1..=all).take(first.min(most)) {
                faults.push(format!("inject={name}:error={errno}:when={number}"));
            }
            // Not once but for good. A call that is interrupted for ever is tried for ever.
            if (rank == 0 && *errno != "EINTR") || (long && !matches!(*errno, "EINTR" | "EAGAIN")) {
                faults.push(format!("inject={name}:error={errno}:when={}+", before + 1));
            }
        }
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
                    if code != Some(0) && code != Some(1) && !fault.contains("=write") {
                        // A document that lacks something says in itself what and why.
                        let in_document = code == Some(3) && stdout.contains("\"complete\": false");
                        assert!(
                            !stderr.is_empty() || in_document,
                            "{fault}: exit {code:?} and not a word why"
                        );
                    }
                    // A reader that has gone away wants no more: a quiet end, wherever it comes.
                    if !fault.contains("EPIPE") {
                        check(fault, &output);
                    }
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

/// Sockets of its own, a connection to each, datagrams, reports of the answers.
pub fn probe() {
    let arguments = [
        "probe",
        "--bind",
        "127.0.0.1:8081",
        "--bind",
        "udp:127.0.0.1:8082,reply=describe",
        "--format",
        "json",
    ];
    torture(&arguments, false, |fault, output| {
        let (stdout, stderr) = text(output);
        match serde_json::from_str::<Value>(&stdout) {
            Ok(document) => {
                let cells = document["cells"].as_array().unwrap();
                let seen = cells.iter().filter(|cell| !cell["observed"].is_null()).count();
                // Destinations come from what could be read of the host; a gap there is told.
                let whole = seen == cells.len() && (!cells.is_empty() || document["complete"] == false);
                assert!(
                    whole || !output.status.success(),
                    "{fault}: success without the facts: {stdout} {stderr}"
                );
                // What a probe saw of a socket that is there is what was predicted, or the difference is a finding.
                let differs = cells.iter().any(|cell| cell["agrees"] == false);
                assert!(!differs || matches!(output.status.code(), Some(1 | 4)), "{fault}: {stdout}");
            }
            Err(error) => {
                assert!(stdout.is_empty(), "{fault}: {error}: {stdout}");
                assert!(!output.status.success(), "{fault}: success without a document");
            }
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
