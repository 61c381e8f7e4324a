//! Signals that must not end a run, and limits that must not end it by a signal.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::streams::pid;
use crate::support::netns::Netns;
use crate::support::program::{PATIENCE, bindscope, finish, run, text};
use crate::support::tool;
use crate::{behind, connect};

fn lines(log: &Path, kind: &str) -> usize {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line: {text:?}");
    text.lines().filter(|line| line.contains(&format!("\"event\":\"{kind}\""))).count()
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `listen` on 127.0.0.1:8081 that writes to `log`, once it listens.
fn listen(ns: &Netns, log: &Path, more: &[&str]) -> Child {
    let fixed = ["listen", "--bind", "127.0.0.1:8081,reply=none", "--format", "ndjson", "-o"];
    let mut command = bindscope(&[&fixed[..], &[log.to_str().unwrap()], more].concat());
    let child = ns.run(|| command.stderr(Stdio::piped()).spawn()).unwrap();
    wait_for("it listens", || lines(log, "listening") == 1);
    child
}

fn visit(ns: &Netns) {
    drop(ns.run(|| connect(([127, 0, 0, 1], 8081).into())));
}

/// The log is renamed while clients come: the next lines are in a new file, and none is lost or torn, with one thread and several.
pub fn hangup_opens_the_log_again() {
    for threads in ["1", "3"] {
        let (ns, directory) = (Netns::new(), tempfile::tempdir().unwrap());
        let log = directory.path().join("log");
        let child = listen(&ns, &log, &["--threads", threads]);
        let mut parts = Vec::new();
        for number in 0..5 {
            for _ in 0..20 {
                visit(&ns);
            }
            let part = directory.path().join(format!("log.{number}"));
            std::fs::rename(&log, &part).unwrap();
            kill(pid(&child), Signal::SIGHUP).unwrap();
            wait_for("a new file", || log.exists());
            parts.push(part);
        }
        visit(&ns);
        kill(pid(&child), Signal::SIGTERM).unwrap();
        let output = finish(child);
        assert_eq!((output.status.code(), text(&output).1.as_str()), (Some(0), ""));
        parts.push(log.clone());
        let each: Vec<_> = parts.iter().map(|part| lines(part, "accepted")).collect();
        assert_eq!(each.iter().sum::<usize>(), 101, "{each:?}");
        assert!(lines(&log, "accepted") >= 1 && lines(&log, "summary") == 1);
        let mode = std::os::unix::fs::PermissionsExt::mode(&log.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}

/// A file that is still there is added to; one that cannot be opened is told, and the lines go on to the old one.
pub fn hangup_without_a_way_to_the_log_loses_nothing() {
    let (ns, directory) = (Netns::new(), tempfile::tempdir().unwrap());
    let place = directory.path().join("logs");
    std::fs::create_dir(&place).unwrap();
    let log = place.join("log");
    let child = listen(&ns, &log, &[]);
    let hang_up = || {
        kill(pid(&child), Signal::SIGHUP).unwrap();
        // The signal is handled before the next client is.
        visit(&ns);
    };
    hang_up();
    wait_for("the line of the first", || lines(&log, "accepted") == 1);
    let moved = directory.path().join("moved");
    std::fs::rename(&place, &moved).unwrap();
    hang_up();
    wait_for("the line of the second", || lines(&moved.join("log"), "accepted") == 2);
    kill(pid(&child), Signal::SIGTERM).unwrap();
    let output = finish(child);
    let said = text(&output).1;
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("cannot be opened again") && said.contains("BS4"), "{said}");
    assert_eq!(lines(&moved.join("log"), "summary"), 1);
}

/// SIGUSR1 and SIGUSR2 end nothing, nor does SIGHUP where no log is written; the summary comes at the end.
pub fn other_signals_end_nothing() {
    let ns = Netns::new();
    let commands: [&[&str]; 3] = [
        &["listen", "--bind", "127.0.0.1:8081", "--format", "ndjson", "--for", "3s"],
        &["listen", "--bind", "127.0.0.1:8081", "--format", "human", "--threads", "2", "--for", "3s"],
        &["audit", "--watch=200ms", "--for", "3s", "--format", "ndjson"],
    ];
    for arguments in commands {
        let begun = Instant::now();
        let child = ns.run(|| bindscope(arguments).stdout(Stdio::piped()).spawn()).unwrap();
        std::thread::sleep(Duration::from_millis(700));
        let signals = [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGHUP];
        let audit = arguments[0] == "audit";
        for signal in signals.into_iter().filter(|signal| !audit || *signal != Signal::SIGHUP) {
            for _ in 0..50 {
                kill(pid(&child), signal).unwrap();
            }
        }
        let output = finish(child);
        assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{arguments:?}: {:?}", output.status);
        assert!(begun.elapsed() > Duration::from_secs(2), "{arguments:?} ended early");
        let told = text(&output).0;
        let end = if arguments.contains(&"human") { "0 accepted" } else { "\"event\":\"summary\"" };
        assert!(told.contains(end), "{arguments:?}: {told}");
    }
}

/// A limit of the size of files is a full disk: whole lines, exit 5; of a report nothing is left.
pub fn a_limit_of_file_sizes_is_a_full_disk() {
    if !tool("prlimit") {
        return;
    }
    let (ns, directory) = (Netns::new(), tempfile::tempdir().unwrap());
    for threads in ["1", "2"] {
        let log = directory.path().join(format!("log{threads}"));
        let arguments = [
            "listen",
            "--bind",
            "127.0.0.1:8081,reply=none",
            "--format",
            "ndjson",
            "--threads",
            threads,
            "-o",
            log.to_str().unwrap(),
        ];
        let mut command = behind(&["prlimit", "--fsize=6000", "--core=0"], &arguments);
        let child = ns.run(|| command.stderr(Stdio::piped()).spawn()).unwrap();
        wait_for("it listens", || lines(&log, "listening") == 1);
        for _ in 0..60 {
            visit(&ns);
        }
        kill(pid(&child), Signal::SIGTERM).unwrap();
        let output = finish(child);
        let said = text(&output).1;
        assert_eq!(output.status.code(), Some(5), "{said}");
        let written = lines(&log, "accepted");
        assert!(written > 2 && written < 60, "{written}");
        assert!(said.contains(&format!("{} arrivals have no line", 60 - written)), "{written}: {said}");
    }
    for arguments in [&["interfaces", "--format", "json", "-o"][..], &["audit", "--format", "json", "-o"]] {
        let report = directory.path().join("report.json");
        let arguments = [arguments, &[report.to_str().unwrap()]].concat();
        let output = finish(
            behind(&["prlimit", "--fsize=100", "--core=0"], &arguments)
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        assert_eq!(output.status.code(), Some(5), "{:?}", text(&output));
        let left: Vec<_> =
            directory.path().read_dir().unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().contains("report")), "{left:?}");
    }
    // A program that `lab shell` starts has the limit as the system has it.
    let shell = ["lab", "shell", "--", "sh", "-c", "ulimit -f 1; head -c 100000 /dev/zero > \"$0\"; exit 3"];
    let output = run(&[&shell[..], &[directory.path().join("zero").to_str().unwrap()]].concat());
    let (_, said) = text(&output);
    assert!(output.status.code() == Some(3) || said.contains("BS4"), "{:?} {said}", output.status);
}

/// `-q` is for notes: that other hosts can reach a listener is a warning.
pub fn quiet_hides_no_warning() {
    let (ns, _peer) = crate::support::netns::two_hosts();
    for (more, warned) in [("0.0.0.0:8081", true), ("192.0.2.1:8081", true), ("127.0.0.1:8081", false)] {
        for quiet in [&["-q"][..], &[]] {
            let arguments = [&["listen", "--bind", more, "--for", "100ms"], quiet].concat();
            let mut command = bindscope(&arguments);
            let child = ns.run(|| command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()).unwrap();
            let said = text(&finish(child)).1;
            assert_eq!(said.contains("warning[BS2021]"), warned, "{arguments:?}: {said}");
        }
    }
}
