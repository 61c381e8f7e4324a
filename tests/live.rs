//! The live view on a real terminal: what it shows, and that the terminal is what it was however it ends.
#![cfg(all(target_os = "linux", feature = "tui"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a test")]

#[path = "support/mod.rs"]
mod support;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;

use support::program::{PATIENCE, bindscope, run, text, wait};

/// A program on a terminal of its own.
struct Session {
    child: Child,
    master: Option<File>,
    slave: File,
    before: Termios,
    output: Arc<Mutex<Vec<u8>>>,
}

impl Session {
    fn start(arguments: &[&str], columns: u16, rows: u16) -> Session {
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname_r(&master).unwrap();
        let slave =
            File::options().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(&name).unwrap();
        let size = ["-F", &name, "cols", &columns.to_string(), "rows", &rows.to_string()];
        assert!(Command::new("stty").args(size).status().unwrap().success());
        let before = tcgetattr(&slave).unwrap();
        let program = bindscope(arguments);
        let mut command = Command::new("setsid");
        command
            .arg("-c")
            .arg(program.get_program())
            .args(program.get_args())
            .env("TERM", "xterm")
            .env_remove("NO_COLOR");
        let end = || Stdio::from(slave.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let master = File::from(std::os::fd::OwnedFd::from(master));
        let output = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, theirs) = (master.try_clone().unwrap(), Arc::clone(&output));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                theirs.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Session { child, master: Some(master), slave, before, output }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned()
    }

    /// Waits for a text on the screen, or for a control sequence in the output.
    fn waits_for(&self, wanted: &str) {
        self.waits_until(wanted, &|screen| {
            if wanted.starts_with('\u{1b}') { self.shown().contains(wanted) } else { screen.contains(wanted) }
        });
    }

    fn waits_until(&self, what: &str, wanted: &dyn Fn(&str) -> bool) {
        let begun = Instant::now();
        while !wanted(&screen(&self.shown())) {
            assert!(begun.elapsed() < PATIENCE, "{what:?}:\n{}", screen(&self.shown()));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn keys(&self, keys: &[u8]) {
        self.master.as_ref().unwrap().write_all(keys).unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// The exit code, after which the terminal is as it was before.
    fn ends(mut self) -> (Option<i32>, String) {
        let code = wait(&mut self.child).code();
        self.is_restored();
        std::thread::sleep(Duration::from_millis(50));
        let shown = self.shown();
        let last = |text: &str| shown.rfind(text).unwrap_or_else(|| panic!("{text:?} in {shown:?}"));
        assert!(last("\u{1b}[?1049l") > last("\u{1b}[?1049h"), "{shown:?}");
        assert!(last("\u{1b}[?25h") > last("\u{1b}[?25l"), "{shown:?}");
        (code, shown)
    }

    fn is_restored(&self) {
        assert_eq!(tcgetattr(self.slave.as_fd()).unwrap(), self.before);
    }

    fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    }

    fn reaches(&self, wanted: char) {
        let begun = Instant::now();
        while self.state() != wanted {
            assert!(begun.elapsed() < PATIENCE, "{} instead of {wanted}", self.state());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// What a terminal shows after this output, as far as the view uses it.
fn screen(output: &str) -> String {
    let mut lines: Vec<Vec<char>> = Vec::new();
    let (mut x, mut y) = (0, 0);
    let mut rest = output.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' if rest.peek() == Some(&'[') => {
                rest.next();
                let mut parameters = String::new();
                let end = loop {
                    match rest.next() {
                        Some(c) if c.is_ascii_alphabetic() => break c,
                        Some(c) => parameters.push(c),
                        None => {
                            return lines.iter().map(|line| line.iter().collect::<String>() + "\n").collect();
                        }
                    }
                };
                match end {
                    'H' => {
                        let numbers: Vec<usize> =
                            parameters.split(';').filter_map(|n| n.parse().ok()).collect();
                        (y, x) = (numbers[0] - 1, numbers[1] - 1);
                    }
                    'J' => lines.clear(),
                    'h' | 'l' if parameters == "?1049" => lines.clear(),
                    _ => {}
                }
            }
            '\r' => x = 0,
            '\n' => y += 1,
            c => {
                if lines.len() <= y {
                    lines.resize(y + 1, Vec::new());
                }
                if lines[y].len() <= x {
                    lines[y].resize(x + 1, ' ');
                }
                lines[y][x] = c;
                x += 1;
            }
        }
    }
    lines.iter().map(|line| line.iter().collect::<String>() + "\n").collect()
}

/// A view of a listener on a free port.
fn listening(more: &[&str]) -> (Session, u16) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let bind = format!("127.0.0.1:{port},name=web");
    let session = Session::start(&[&["listen", "--tui", "--bind", &bind], more].concat(), 80, 24);
    session.waits_for("LISTENER");
    session.waits_for("web");
    (session, port)
}

#[test]
fn a_view_needs_a_terminal() {
    for arguments in [&["listen", "--tui", "--bind", "127.0.0.1:0"][..], &["audit", "--watch", "--tui"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{:?}", text(&output));
        assert!(text(&output).1.contains("--tui needs a terminal"), "{:?}", text(&output));
    }
}

/// How the interface of a connection over loopback is known.
const EVIDENCE: &str = if cfg!(bindscope_portable) {
    "interface inferred from the address"
} else {
    "the kernel reported the interface"
};

#[test]
fn arrivals_fill_the_matrix_and_the_summary_stays() {
    let (session, port) = listening(&[]);
    for _ in 0..3 {
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
    session.waits_for("3 arrivals");
    session.waits_for("127.0.0.1:");
    // The reason for the selected value; then the filter; then a pause, which counts what it does not show.
    session.keys(b"\r");
    session.waits_for(EVIDENCE);
    session.keys(b"\x1b");
    session.waits_for("BOUND TO");
    session.keys(b" ");
    session.waits_for("PAUSED, 0 more since");
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    session.waits_for("PAUSED, 1 more since");
    session.keys(b" ");
    session.waits_for("4 arrivals");
    session.keys(b"q");
    let (code, shown) = session.ends();
    assert_eq!(code, Some(0), "{shown:?}");
    let end = &shown[shown.rfind("\u{1b}[?1049l").unwrap()..];
    assert!(end.contains("4 accepted") && end.contains("LISTENER"), "{end:?}");
}

#[test]
fn the_terminal_is_restored_however_the_view_ends() {
    for keys in [&b"q"[..], b"\x03"] {
        let (session, _) = listening(&[]);
        session.keys(keys);
        assert_eq!(session.ends().0, Some(0));
    }
    for (signal, code) in [(Signal::SIGINT, Some(0)), (Signal::SIGTERM, Some(0)), (Signal::SIGQUIT, None)] {
        let (session, _) = listening(&[]);
        session.signal(signal);
        assert_eq!(session.ends().0, code, "{signal}");
    }
    // A second signal ends the program at once.
    let (session, _) = listening(&[]);
    session.signal(Signal::SIGTERM);
    session.signal(Signal::SIGTERM);
    let code = session.ends().0;
    assert!(matches!(code, Some(0 | 143)), "{code:?}");
    // Its time is over; an output that is full; a panic of a debug build.
    let (session, _) = listening(&["--for", "300ms"]);
    assert_eq!(session.ends().0, Some(0));
    let (session, port) = listening(&["-o", "/dev/full"]);
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    session.waits_for("1 arrivals");
    session.keys(b"q");
    assert_eq!(session.ends().0, Some(5));
    let (session, _) = listening(&[]);
    session.keys(b"\x10");
    let (code, shown) = session.ends();
    if cfg!(debug_assertions) {
        assert_eq!(code, Some(5), "{shown:?}");
        let end = &shown[shown.rfind("\u{1b}[?1049l").unwrap()..];
        assert!(end.contains("error[BS9001]"), "{end:?}");
    }
}

#[test]
fn a_stop_restores_the_terminal_and_a_continuation_draws_again() {
    let (session, port) = listening(&[]);
    let raw = tcgetattr(session.slave.as_fd()).unwrap();
    assert_ne!(raw, session.before);
    for way in 0..3 {
        match way {
            0 => session.signal(Signal::SIGTSTP),
            1 => session.keys(b"\x1a"),
            _ => session.signal(Signal::SIGSTOP),
        }
        session.reaches('T');
        if way < 2 {
            session.is_restored();
        }
        session.output.lock().unwrap().clear();
        session.signal(Signal::SIGCONT);
        session.waits_for("\u{1b}[?1049h");
        session.waits_for("LISTENER");
        assert_eq!(tcgetattr(session.slave.as_fd()).unwrap(), raw);
    }
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    session.waits_for("127.0.0.1:");
    session.keys(b"q");
    assert_eq!(session.ends().0, Some(0));
}

#[test]
fn a_terminal_that_is_gone_ends_the_program() {
    let (mut session, _) = listening(&[]);
    // The reading thread has a descriptor as well, and ends with the program.
    drop(session.master.take());
    session.signal(Signal::SIGHUP);
    session.signal(Signal::SIGTERM);
    assert!(wait(&mut session.child).code().is_some());
}

#[test]
fn a_terminal_that_does_not_read_stops_nothing() {
    let (mut session, port) = listening(&[]);
    nix::sys::termios::tcflow(session.slave.as_fd(), nix::sys::termios::FlowArg::TCOOFF).unwrap();
    for _ in 0..200 {
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        // The answer shows that it was accepted.
        let _ = client.write_all(b"x\n");
        assert!(client.read(&mut [0; 64]).is_ok());
    }
    session.signal(Signal::SIGTERM);
    assert!(wait(&mut session.child).code().is_some());
    nix::sys::termios::tcflow(session.slave.as_fd(), nix::sys::termios::FlowArg::TCOON).unwrap();
    session.is_restored();
}

#[test]
fn any_size_will_do() {
    for (columns, rows) in [(1, 1), (20, 5), (40, 10), (200, 60)] {
        let session = Session::start(&["listen", "--tui", "--bind", "127.0.0.1:0,name=web"], columns, rows);
        session.waits_for("\u{1b}[?1049h");
        std::thread::sleep(Duration::from_millis(300));
        session.keys(b"?\r/w\r\x1b[B\x1b[Cq");
        assert_eq!(session.ends().0, Some(0), "{columns}x{rows}");
    }
}

/// Only Linux lists the sockets of other programs.
#[cfg(not(bindscope_portable))]
#[test]
fn an_audit_is_shown_live() {
    let session = Session::start(&["audit", "--watch=500ms", "--tui"], 100, 30);
    session.waits_for("REACHABLE FROM");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    session.waits_for("CHANGES");
    session.waits_for("new");
    session.waits_for(&listener.local_addr().unwrap().port().to_string());
    session.keys(b"\r");
    session.waits_until("no CHANGES", &|screen| !screen.contains("CHANGES"));
    session.keys(b"\x1b");
    session.waits_for("CHANGES");
    session.keys(b"q");
    let (_, shown) = session.ends();
    let end = &shown[shown.rfind("\u{1b}[?1049l").unwrap()..];
    assert!(end.contains("looks"), "{end:?}");
}
