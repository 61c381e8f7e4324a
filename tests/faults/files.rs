//! Rows 55 to 58: logs and reports whose disk fills up, whose writer is killed, or that have two writers.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::injected;
use crate::streams::pid;
use crate::support::netns::Netns;
use crate::support::program::{PATIENCE, bindscope, finish, run, text, wait};
use crate::support::tool;

fn events(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn count(events: &[Value], kind: &str) -> u64 {
    events.iter().filter(|event| event["event"] == kind).count() as u64
}

/// A `listen` that adds to `log`, once it says that it listens for the `times`-th time.
fn start(ns: &Netns, port: u16, log: &Path, times: usize) -> Child {
    let profile = log.with_extension("toml");
    std::fs::write(&profile, format!("schema = 1\nname = 'log'\n[[listener]]\nname = 'l{port}'\nbind = '127.0.0.1'\nport = {port}\nreply = 'none'\n")).unwrap();
    let mut command = bindscope(&["listen", "--format", "ndjson", "-o", log.to_str().unwrap()]);
    let mut child = ns.run(|| command.arg(&profile).stderr(Stdio::piped()).spawn()).unwrap();
    let begun = Instant::now();
    while std::fs::read_to_string(log).unwrap_or_default().matches("\"event\":\"listening\"").count() < times
    {
        assert!(begun.elapsed() < PATIENCE && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

/// Connects, and leaves with a reset so that no port stays in TIME_WAIT.
fn visit(port: u16) -> bool {
    let to: SocketAddr = ([127, 0, 0, 1], port).into();
    match TcpStream::connect_timeout(&to, Duration::from_secs(20)) {
        Ok(stream) => socket2::Socket::from(stream).set_linger(Some(Duration::ZERO)).is_ok(),
        Err(_) => false,
    }
}

/// Row 55: no half line, one complaint, exit 5; lines and the count of those without one add up to what the clients did.
pub fn a_full_disk_leaves_whole_lines() {
    const CLIENTS: u64 = 1000;
    let directory = tempfile::tempdir().unwrap();
    let mounted = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                // A mount that only this thread and its children see.
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS | nix::sched::CloneFlags::CLONE_NEWNS)?;
                mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
                mount(Some("none"), directory.path(), Some("tmpfs"), MsFlags::empty(), Some("size=64k"))?;
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
                std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
                full_disk(directory.path(), CLIENTS);
                umount2(directory.path(), MntFlags::MNT_DETACH)
            })
            .join()
            .unwrap()
    });
    mounted.unwrap();
}

fn full_disk(directory: &Path, clients: u64) {
    let log = directory.join("log.ndjson");
    let arguments =
        ["listen", "--bind", "127.0.0.1:8081,reply=none", "--format", "ndjson", "-o", log.to_str().unwrap()];
    let mut child = bindscope(&arguments).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !visit(8081) {
        assert!(begun.elapsed() < PATIENCE && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(2));
    }
    for _ in 1..clients {
        assert!(visit(8081));
    }
    kill(pid(&child), Signal::SIGTERM).unwrap();
    let output = finish(child);
    let stderr = text(&output).1;
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert_eq!(stderr.matches("No space left").count(), 1, "{stderr}");
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.ends_with('\n'), "no half line");
    let told = count(&events(&text), "accepted");
    let lost: u64 =
        stderr.split_once(" arrivals have no line").unwrap().0.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(told > 0 && lost > 0);
    assert_eq!(told + lost, clients, "{stderr}");
}

/// Row 56: killed in the middle of it, again and again: whole lines, and none is torn or mixed with the next run's.
pub fn a_killed_writer_leaves_whole_lines() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log.ndjson");
    let ns = Netns::new();
    let rounds = if std::env::var_os("BINDSCOPE_LONG").is_some() { 1000 } else { 25 };
    for round in 1..=rounds {
        let mut child = start(&ns, 8081, &log, round);
        ns.run(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| while visit(8081) {});
                std::thread::sleep(Duration::from_millis(5 + u64::try_from(round % 7).unwrap()));
                child.kill().unwrap();
                child.wait().unwrap();
            });
        });
        let text = std::fs::read_to_string(&log).unwrap();
        if !text.ends_with('\n') {
            // A write of several lines to a file may be cut by SIGKILL; that tail is all that may be
            // torn: the rest is read strictly below.
            std::fs::write(&log, &text[..text.rfind('\n').map_or(0, |end| end + 1)]).unwrap();
        }
    }
    let events = events(&std::fs::read_to_string(&log).unwrap());
    assert_eq!(count(&events, "started"), rounds as u64);
    assert!(count(&events, "accepted") > rounds as u64, "too few to prove anything");
}

/// Row 58: two programs on one log.
pub fn two_writers_do_not_mix_their_lines() {
    const CLIENTS: usize = 2000;
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log.ndjson");
    let ns = Netns::new();
    let children = [start(&ns, 8081, &log, 1), start(&ns, 8082, &log, 2)];
    ns.run(|| {
        std::thread::scope(|scope| {
            for port in [8081, 8082] {
                scope.spawn(move || assert!((0..CLIENTS).all(|_| visit(port))));
            }
        });
    });
    for mut child in children {
        kill(pid(&child), Signal::SIGTERM).unwrap();
        assert_eq!(wait(&mut child).code(), Some(0));
    }
    let events = events(&std::fs::read_to_string(&log).unwrap());
    for name in ["l8081", "l8082"] {
        let told = events.iter().filter(|event| event["event"] == "accepted" && event["listener"] == name);
        assert_eq!(told.count(), CLIENTS, "{name}");
    }
}

/// Row 57: a report that cannot be finished leaves the old one as it was and no rubbish beside it.
pub fn a_report_is_the_old_one_or_the_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report.json");
    let arguments = ["interfaces", "--format", "json", "-o", report.to_str().unwrap()];
    std::fs::write(&report, "old").unwrap();
    if tool("strace") {
        for fault in [
            "inject=fsync:error=EIO",
            "inject=rename,renameat,renameat2:error=EXDEV",
            "inject=write:error=ENOSPC:when=1",
        ] {
            let child = injected(&[fault], &arguments).stderr(Stdio::piped()).spawn().unwrap();
            let output = finish(child);
            assert_eq!(output.status.code(), Some(5), "{fault} {:?}", text(&output));
            assert_eq!(std::fs::read_to_string(&report).unwrap(), "old", "{fault}");
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "{fault}");
        }
    }
    // What a killed program left there goes with the next report; what a living one writes, or another user's file, stays.
    let part = |name: String| directory.path().join(name);
    let own = std::process::id();
    let (left, living, other) = (
        part("report.json.4194303.part".into()),
        part(format!("report.json.{own}.part")),
        part("report.json.x.part".into()),
    );
    for path in [&left, &living, &other] {
        let file = std::fs::File::create(path).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(3600)).unwrap();
    }
    assert!(run(&arguments).status.success());
    assert_eq!([left, living, other].map(|path| path.exists()), [false, true, true]);
    assert!(serde_json::from_slice::<Value>(&std::fs::read(&report).unwrap()).is_ok());
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&report).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // A link at its place is replaced, not followed.
    let target = directory.path().join("target");
    std::fs::write(&target, "old").unwrap();
    std::fs::remove_file(&report).unwrap();
    std::os::unix::fs::symlink(&target, &report).unwrap();
    assert!(run(&arguments).status.success());
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "old");
}

/// Directories, files and sockets alike: an error of close(2) says nothing of what was read before.
pub fn what_cannot_be_closed_is_no_panic() {
    let ns = Netns::new();
    let held = ns.run(|| std::net::TcpListener::bind("127.0.0.1:80")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report");
    for arguments in [
        &["audit", "--all-namespaces"][..],
        &["interfaces", "-o", file.to_str().unwrap()],
        &["listen", "--bind", "127.0.0.1:81", "--for", "100ms"],
    ] {
        let run = |mut command: Command| {
            finish(ns.run(|| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()).unwrap())
        };
        let whole = run(bindscope(arguments));
        // The first ones are those of the loader, which goes no further without them.
        let failed = run(injected(&["inject=close:error=EBADF:when=6+"], arguments));
        assert_eq!(failed.status.code(), whole.status.code(), "{arguments:?} {:?}", text(&failed));
    }
    drop(held);
}
