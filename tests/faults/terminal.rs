//! Rows 59 to 61: terminals of any width and kind, the signals of a terminal, and clocks that jump.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::tcgetattr;

use crate::streams::pid;
use crate::support::netns::Netns;
use crate::support::program::{Listening, PATIENCE, bindscope, wait};
use crate::support::tool;
use crate::{address, behind, connect, profile};

/// A program on a terminal of its own, and the other end of that terminal.
fn on_terminal(mut command: Command, columns: u16) -> (Child, OwnedFd, OwnedFd) {
    // Not by openpty(3), whose descriptors every program would inherit that is started meanwhile.
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname_r(&master).unwrap();
    let mut options = File::options();
    options.read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits());
    let slave = options.open(&name).unwrap();
    let width = columns.to_string();
    assert!(Command::new("stty").args(["-F", &name, "cols", &width]).status().unwrap().success());
    let end = || Stdio::from(slave.try_clone().unwrap());
    let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    (child, OwnedFd::from(master), OwnedFd::from(slave))
}

/// What it writes until it ends. Linux ends a terminal that no process has open any more with EIO.
fn shown(mut child: Child, master: OwnedFd, slave: OwnedFd) -> (Option<i32>, String) {
    drop(slave);
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = File::from(master).read_to_end(&mut bytes);
        bytes
    });
    let status = wait(&mut child);
    (status.code(), String::from_utf8(reader.join().unwrap()).unwrap())
}

/// Row 59: any width, any TERM, any locale: the same end as on a pipe, and ASCII only, so that no locale matters. Colour where the
/// terminal has it, and nowhere else.
pub fn any_terminal_will_do() {
    let commands: [&[&str]; 5] =
        [&[], &["interfaces"], &["plan", "v6only-matrix"], &["explain", "weak-host"], &["--help"]];
    for (number, arguments) in commands.into_iter().enumerate() {
        let expected = crate::support::program::run(arguments).status.code();
        for columns in [0, 1, 10, 80, u16::MAX] {
            for (term, locale) in
                [(None, "C"), (Some("dumb"), "de_DE.ISO-8859-1"), (Some("xterm-256color"), "C.UTF-8")]
            {
                // Every width with one of them is enough.
                if term != Some("xterm-256color") && (usize::from(columns) + number) % 2 == 1 {
                    continue;
                }
                let mut command = bindscope(arguments);
                // Where CI is set, colours are wanted whatever the terminal.
                command
                    .env_remove("CI")
                    .env_remove("TERM")
                    .env("LC_ALL", locale)
                    .envs(term.map(|term| ("TERM", term)));
                let (child, master, slave) = on_terminal(command, columns);
                let (code, shown) = shown(child, master, slave);
                assert_eq!(code, expected, "{arguments:?} {columns} {term:?}: {shown}");
                assert!(shown.is_ascii() && shown.len() > 20, "{arguments:?} {columns} {term:?}: {shown}");
                let colour = shown.contains('\u{1b}');
                assert!(term == Some("xterm-256color") || !colour, "{arguments:?} {term:?}: {shown}");
            }
        }
    }
}

/// A `listen` on a terminal that is its controlling one, once it listens.
fn listening_on_terminal(ns: &Netns) -> (Child, OwnedFd, OwnedFd) {
    let arguments = ["listen", "--bind", "127.0.0.1:8081"];
    let (child, master, slave) = ns.run(|| {
        let mut command = behind(&["setsid", "-c"], &arguments);
        command.env("TERM", "xterm");
        on_terminal(command, 80)
    });
    let begun = Instant::now();
    while ns.run(|| std::net::TcpStream::connect("127.0.0.1:8081")).is_err() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    (child, master, slave)
}

/// The state of a process, the letter of proc_pid_stat(5).
fn state(child: &Child) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

fn reaches(child: &Child, wanted: char) {
    let begun = Instant::now();
    while state(child) != wanted {
        assert!(begun.elapsed() < PATIENCE, "{} instead of {wanted}", state(child));
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Row 60: the keys of a terminal. Ctrl-Z stops it and `fg` goes on, who came meanwhile is served; a resize changes nothing;
/// Ctrl-C ends it with the summary. The terminal's settings are what they were.
pub fn keys_of_a_terminal_stop_go_on_and_end() {
    if !tool("setsid") {
        return;
    }
    let ns = Netns::new();
    let (child, master, slave) = listening_on_terminal(&ns);
    let before = tcgetattr(slave.as_fd()).unwrap();
    let mut keys = File::from(master.try_clone().unwrap());
    // Of an orphaned process group the kernel stops no process by SIGTSTP; SIGSTOP is what a shell's `suspend` sends.
    kill(pid(&child), Signal::SIGSTOP).unwrap();
    reaches(&child, 'T');
    let _waiting = ns.run(|| connect(([127, 0, 0, 1], 8081).into()));
    kill(pid(&child), Signal::SIGCONT).unwrap();
    kill(pid(&child), Signal::SIGWINCH).unwrap();
    kill(pid(&child), Signal::SIGTSTP).unwrap();
    kill(pid(&child), Signal::SIGCONT).unwrap();
    let mut client = ns.run(|| connect(([127, 0, 0, 1], 8081).into()));
    let mut line = String::new();
    client.read_to_string(&mut line).unwrap();
    assert!(line.starts_with("bindscope: "), "{line}");
    keys.write_all(b"\x03").unwrap();
    reaches(&child, 'Z');
    assert_eq!(tcgetattr(slave.as_fd()).unwrap(), before);
    drop(keys);
    let (code, shown) = shown(child, master, slave);
    assert_eq!(code, Some(0), "{shown}");
    // One connection found out that it listens, two more are above.
    assert!(shown.contains('3') && shown.matches("127.0.0.1:").count() >= 3, "{shown}");
}

/// Row 60: the terminal is closed. Its programs get SIGHUP, and writes fail: an orderly end, at once.
pub fn a_closed_terminal_ends_it() {
    if !tool("setsid") {
        return;
    }
    let ns = Netns::new();
    let (mut child, master, slave) = listening_on_terminal(&ns);
    drop((master, slave));
    let code = wait(&mut child).code();
    // 5 when the summary found the terminal gone.
    assert!(matches!(code, Some(0 | 5)), "{code:?}");
}

/// The library that shows a program another time; `None`, and said, where it is not and need not be.
pub fn fake_clock() -> Option<&'static str> {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    if std::path::Path::new(LIBRARY).exists() {
        return Some(LIBRARY);
    }
    eprintln!("not tested: there is no {LIBRARY} (Debian: libfaketime)");
    assert!(std::env::var_os("BINDSCOPE_REQUIRE_TOOLS").is_none(), "libfaketime is required and missing");
    None
}

/// Row 61: the wall clock jumps back by an hour. Stamps are the clock's; durations are not its matter: the idle time, and the end
/// of the run, come when they must.
pub fn a_clock_that_jumps_changes_no_duration() {
    let Some(library) = fake_clock() else { return };
    let listener = "[[listener]]\nname = 'idle'\nbind = '127.0.0.1'\nport = 8081\nreply = 'echo'\nidle_timeout = '500ms'\n";
    let (directory, path) = profile(listener);
    let offset = directory.path().join("offset");
    std::fs::write(&offset, "+0").unwrap();
    let ns = Netns::new();
    // The library could not read its file any more once Landlock holds.
    let mut command = bindscope(&["listen", "--format", "ndjson", "--for", "4s", "--keep-privileges", &path]);
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", &offset)
        .env("FAKETIME_NO_CACHE", "1")
        .env("DONT_FAKE_MONOTONIC", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let mut listening = ns.run(|| Listening::start(&mut command));
    let begun = Instant::now();
    let to = address(&listening.beginning, 0);
    let visit = || {
        let mut client = ns.run(|| connect(to));
        // The echo's idle time ends it.
        client.read_to_end(&mut Vec::new()).unwrap();
    };
    let stamp = |event: &serde_json::Value| -> jiff::Timestamp {
        assert_eq!(event["event"], "accepted", "{event}");
        event["time"].as_str().unwrap().parse().unwrap()
    };
    visit();
    let first = stamp(&listening.next());
    std::fs::write(&offset, "-3600").unwrap();
    visit();
    let second = stamp(&listening.next());
    let back = first.duration_since(second).as_secs();
    assert!((3500..=3600).contains(&back), "{first} {second}");
    let mut last = serde_json::Value::Null;
    while let Some(event) = listening.try_next() {
        last = event;
    }
    assert_eq!((&last["accepted"], &last["errors"]["connection idle"]), (&2.into(), &2.into()), "{last}");
    assert_eq!(listening.wait().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(60), "an hour is not waited for");
}
