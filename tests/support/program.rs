//! Runs the program under test.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Timeout of anything, after which it counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program with these arguments and an environment that does not change its output.
#[must_use]
pub fn bindscope(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bindscope"));
    command.args(arguments).stdin(Stdio::null());
    for name in
        ["NO_COLOR", "CLICOLOR_FORCE", "CLICOLOR", "COLUMNS", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"]
    {
        command.env_remove(name);
    }
    command
}

/// Runs it until it ends.
#[must_use]
pub fn run(arguments: &[&str]) -> Output {
    finish(bindscope(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// Copies a program with another program. A child that another thread starts inherits the open files of this process
/// until it executes its own program. While a file is open for writing, it cannot be executed (ETXTBSY).
pub fn copy_program(from: &str, to: &std::path::Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
}

/// A separate file with this text, readable by every user.
#[must_use]
pub fn toml_file(text: &str) -> tempfile::NamedTempFile {
    use std::os::unix::fs::PermissionsExt as _;
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    file
}

/// Output and exit status of a program; a program that hangs is killed and fails the test.
#[must_use]
pub fn finish(mut child: Child) -> Output {
    let stdout = child.stdout.take().map(|mut stream| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            bytes
        })
    });
    let stderr = child.stderr.take().map(|mut stream| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            bytes
        })
    });
    let status = wait(&mut child);
    let bytes = |handle: Option<std::thread::JoinHandle<Vec<u8>>>| {
        handle.map_or_else(Vec::new, |handle| handle.join().unwrap())
    };
    Output { status, stdout: bytes(stdout), stderr: bytes(stderr) }
}

/// Waits for the end; a program that hangs is killed and fails the test.
pub fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("the program hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Both streams of an output as text, for assertions.
#[must_use]
pub fn text(output: &Output) -> (String, String) {
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// A running `listen --format ndjson` whose sockets are all open (or failed).
pub struct Listening {
    child: Option<Child>,
    lines: Receiver<String>,
    /// The events before the first arrival.
    pub beginning: Vec<Value>,
}

impl Listening {
    /// Starts `command`, which must be `listen --format ndjson ...`, and reads up to its `listening` event.
    #[must_use]
    #[allow(clippy::zombie_processes, reason = "waited for by `end`, or killed on drop")]
    pub fn start(command: &mut Command) -> Listening {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        // A channel without buffer, so that a test that does not read acts as a slow reader.
        let (sender, lines) = mpsc::sync_channel(0);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut listening = Listening { child: Some(child), lines, beginning: Vec::new() };
        loop {
            let Some(event) = listening.try_next() else {
                let output = finish(listening.child.take().unwrap());
                panic!("it ended before it listened: {:?} {:?}", listening.beginning, text(&output));
            };
            let begun = event["event"] == "listening";
            listening.beginning.push(event);
            if begun {
                return listening;
            }
        }
    }

    /// The opened sockets, as reported by `bound`.
    pub fn bound(&self) -> impl Iterator<Item = &Value> {
        self.beginning.iter().filter(|event| event["event"] == "bound").map(|event| &event["socket"])
    }

    /// The next event; `None` at the end of the stream.
    pub fn try_next(&mut self) -> Option<Value> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no event for {PATIENCE:?}"),
        }
    }

    /// The next event.
    pub fn next(&mut self) -> Value {
        self.try_next().unwrap_or_else(|| panic!("the stream ended"))
    }

    /// The next arrival. On a busy machine the kernel adds the addresses of a new link late, and reports this in
    /// between.
    pub fn next_arrival(&mut self) -> Value {
        loop {
            let event = self.next();
            if !["network", "queue", "exposure"].contains(&event["event"].as_str().unwrap()) {
                return event;
            }
        }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.as_ref().unwrap().id().try_into().unwrap())
    }

    /// Exit status, if it has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().unwrap().try_wait().unwrap()
    }

    /// Waits for the end.
    pub fn wait(mut self) -> ExitStatus {
        wait(self.child.as_mut().unwrap())
    }

    /// Ends it and returns the remaining events, its exit status, and its standard error.
    #[must_use]
    pub fn end(mut self) -> (Vec<Value>, ExitStatus, String) {
        nix::sys::signal::kill(self.pid(), nix::sys::signal::Signal::SIGINT).unwrap();
        let mut rest = Vec::new();
        while let Some(event) = self.try_next() {
            rest.push(event);
        }
        let output = finish(self.child.take().unwrap());
        let stderr = text(&output).1;
        (rest, output.status, stderr)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The text with every run of blanks and line ends as one blank, for wrapped output.
#[allow(dead_code, reason = "not every test binary uses it")]
pub fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
