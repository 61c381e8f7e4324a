//! Rows 51 to 54: standard streams that are closed, full, or not read.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::netns::Netns;
use crate::support::program::{PATIENCE, bindscope, finish, run, text, wait};
use crate::{behind, connect};

/// Commands that end by themselves and write to standard output.
const COMMANDS: [&[&str]; 7] = [
    &[],
    &["interfaces"],
    &["interfaces", "--format", "json"],
    &["audit", "--format", "json"],
    &["explain", "v6only"],
    &["completions", "bash"],
    &["--help"],
];

pub fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Row 53: with all of descriptors 0 to 2 closed, none of them becomes a socket that a stray message would be written to.
pub fn closed_streams_are_not_taken_by_sockets() {
    let shell = ["bash", "-c", "exec \"$0\" \"$@\" <&- >&- 2>&-"];
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let arguments = ["listen", "--bind", "127.0.0.1:8081", "--format", "ndjson", "-o", log.to_str().unwrap()];
    let ns = Netns::new();
    let mut child = ns.run(|| behind(&shell, &arguments).spawn()).unwrap();
    let begun = Instant::now();
    while !std::fs::read_to_string(&log).unwrap_or_default().contains("\"listening\"") {
        assert!(begun.elapsed() < PATIENCE && child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    for fd in 0..3 {
        let what = std::fs::read_link(format!("/proc/{}/fd/{fd}", child.id())).unwrap();
        assert_eq!(what.to_str(), Some("/dev/null"), "descriptor {fd}");
    }
    let _client = ns.run(|| connect(([127, 0, 0, 1], 8081).into()));
    kill(pid(&child), Signal::SIGTERM).unwrap();
    assert_eq!(wait(&mut child).code(), Some(0));
    assert!(std::fs::read_to_string(&log).unwrap().lines().last().unwrap().contains("\"accepted\":1,"));
    for arguments in COMMANDS {
        assert_eq!(wait(&mut behind(&shell, arguments).spawn().unwrap()).code(), Some(5), "{arguments:?}");
    }
    // With standard error open it says so, and `listen` accepts no client that it could not report.
    let shell = ["bash", "-c", "exec \"$0\" \"$@\" >&-"];
    for arguments in
        [&["interfaces"][..], &["--version"], &["listen", "--bind", "127.0.0.1:8082", "--for", "20s"]]
    {
        let mut command = behind(&shell, arguments);
        let output = finish(ns.run(|| command.stderr(Stdio::piped()).spawn()).unwrap());
        assert_eq!(output.status.code(), Some(5), "{arguments:?} {:?}", text(&output));
        assert!(text(&output).1.contains("standard output: Bad file descriptor"), "{:?}", text(&output));
    }
}

/// A reader that goes away from `listen` wanted no more: it ends as it would have, and says how many arrivals were not told of.
pub fn a_reader_that_leaves_listen_is_told_what_it_missed() {
    let ns = Netns::new();
    for (clients, format) in [(5, "ndjson"), (5, "human"), (0, "ndjson")] {
        let mut command =
            bindscope(&["listen", "--bind", "127.0.0.1:8081", "--format", format, "--for", "3s"]);
        let mut child = ns.run(|| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()).unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let begun = Instant::now();
        while ns.run(|| std::net::TcpStream::connect("127.0.0.1:8081")).is_err() {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let mut line = String::new();
        while !line.contains("127.0.0.1:") && !line.contains("\"accepted\"")
            || line.contains("tcp") && format == "human"
        {
            line.clear();
            assert!(stdout.read_line(&mut line).unwrap() > 0);
        }
        drop(stdout);
        ns.run(|| {
            let held: Vec<_> = (0..clients).map(|_| connect(([127, 0, 0, 1], 8081).into())).collect();
            drop(held);
        });
        let output = finish(child);
        let said = text(&output).1;
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert_eq!(said.contains("the reader of the output went away: "), clients > 0, "{said}");
    }
}

/// Row 51: `| head`, `| true`: the end is what it would have been, and nothing is said.
pub fn readers_that_go_away_are_no_failure() {
    for arguments in COMMANDS {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child =
            bindscope(arguments).stdout(OwnedFd::from(writer)).stderr(Stdio::piped()).spawn().unwrap();
        let output = finish(child);
        let expected = run(arguments);
        assert_eq!(output.status.code(), expected.status.code(), "{arguments:?} {:?}", text(&output));
        assert_eq!(text(&output).1, text(&expected).1, "{arguments:?}");
    }
}

/// Row 52, for every command that writes a document.
pub fn full_devices_are_exit_5() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for arguments in COMMANDS {
        let output = finish(bindscope(arguments).stdout(full()).stderr(Stdio::piped()).spawn().unwrap());
        assert_eq!(output.status.code(), Some(5), "{arguments:?} {:?}", text(&output));
        assert!(text(&output).1.contains("cannot write"), "{arguments:?} {:?}", text(&output));
    }
    for arguments in [&["interfaces", "-o", "/dev/full"][..], &["audit", "-o", "/dev/full"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(5), "{arguments:?} {:?}", text(&output));
        assert!(text(&output).1.contains("/dev/full"), "{arguments:?} {:?}", text(&output));
    }
    // A standard error that takes nothing changes no verdict.
    let output = finish(bindscope(&["listne"]).stderr(full()).spawn().unwrap());
    assert_eq!(output.status.code(), Some(2));
}

/// Row 54: a pager that is stopped. Clients are answered all the same, the end comes, and every arrival has either its line
/// or its place in the count of those that have none.
pub fn a_stopped_pager_stops_nothing() {
    const CLIENTS: u64 = 1500;
    let directory = tempfile::tempdir().unwrap();
    let shown = directory.path().join("shown");
    let (reader, writer) = std::io::pipe().unwrap();
    let mut pager = Command::new("cat")
        .stdin(OwnedFd::from(reader))
        .stdout(std::fs::File::create(&shown).unwrap())
        .spawn()
        .unwrap();
    kill(pid(&pager), Signal::SIGSTOP).unwrap();
    let ns = Netns::new();
    let mut command = bindscope(&["listen", "--bind", "127.0.0.1:8081", "--format", "ndjson"]);
    let mut child = ns.run(|| command.stdout(OwnedFd::from(writer)).stderr(Stdio::piped()).spawn()).unwrap();
    drop(command);
    ns.run(|| {
        let begun = Instant::now();
        while std::net::TcpStream::connect("127.0.0.1:8081").is_err() {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        for _ in 1..CLIENTS {
            let client = connect(([127, 0, 0, 1], 8081).into());
            (&client).write_all(b"x\n").unwrap();
            let mut answer = String::new();
            BufReader::new(client).read_line(&mut answer).unwrap();
            assert!(answer.starts_with("bindscope: "), "{answer}");
        }
    });
    kill(pid(&child), Signal::SIGTERM).unwrap();
    let status = wait(&mut child);
    let stderr = text(&finish(child)).1;
    assert_eq!(status.code(), Some(5), "{stderr}");
    let lost: u64 =
        stderr.split_once(" arrivals have no line").unwrap().0.rsplit(' ').next().unwrap().parse().unwrap();
    kill(pid(&pager), Signal::SIGCONT).unwrap();
    wait(&mut pager);
    let shown = std::fs::read_to_string(&shown).unwrap();
    let events = shown.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let told = events.filter(|event| event["event"] == "accepted").count() as u64;
    assert!(shown.ends_with('\n') && told > 0 && lost > 0);
    assert_eq!(told + lost, CLIENTS, "{stderr}");
}
