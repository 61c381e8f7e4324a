//! Starts servers in a host of their own, and ends them.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, User};
use tempfile::TempDir;

use crate::support::netns::{Netns, two_hosts};

/// How long a server may take to listen, and to end.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Two hosts and the wire between them: `eth0` here has 192.0.2.1 and 2001:db8::1, the other end the same with 2.
pub struct Site {
    pub here: Netns,
    pub there: Netns,
    directory: TempDir,
}

impl Site {
    pub fn new() -> Site {
        use std::os::unix::fs::PermissionsExt as _;
        let (here, there) = two_hosts();
        let directory = tempfile::tempdir().unwrap();
        // Servers give up being root.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Site { here, there, directory }
    }

    /// A directory for one server's files.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A file of this text there.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts a server here, in a process group of its own; what it says goes to a file that [`Server::said`] reads.
    pub fn start(&self, command: &mut Command) -> Server {
        let name = Path::new(command.get_program()).file_name().unwrap().to_string_lossy().into_owned();
        let log = self.path().join(format!("{name}.{:?}.log", Instant::now()).replace(' ', ""));
        let file = File::create(&log).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .current_dir(self.path())
            .process_group(0);
        let child = self.here.run(|| command.spawn()).unwrap_or_else(|error| panic!("{name}: {error}"));
        Server { child, name, log, stop: Signal::SIGTERM }
    }
}

impl Site {
    /// Processes in the server's host that are not this one.
    fn left(&self) -> Vec<i32> {
        let own = std::process::id().cast_signed();
        let link = format!("net:[{}]", self.here.inode());
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != own)
            .filter(|pid| {
                std::fs::read_link(format!("/proc/{pid}/ns/net"))
                    .is_ok_and(|read| read.as_os_str() == OsStr::new(&link))
            })
            .collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // What serves one client ends with that client, in a session of its own.
        let began = Instant::now();
        let mut left = self.left();
        while !left.is_empty() && began.elapsed() < PATIENCE / 4 {
            std::thread::sleep(Duration::from_millis(20));
            left = self.left();
        }
        for pid in &left {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        assert!(left.is_empty() || std::thread::panicking(), "processes were left behind: {left:?}");
    }
}

/// A running server; ended with all its children when dropped.
pub struct Server {
    child: Child,
    name: String,
    log: PathBuf,
    /// The signal that ends it and its children.
    pub stop: Signal,
}

impl Server {
    /// What it has written.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Fails the test when it has ended.
    pub fn must_run(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} has ended, {status}: {}", self.name, self.said());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.child.id().cast_signed());
        let _ = kill(group, self.stop);
        let deadline = Instant::now() + PATIENCE / 4;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
        // Children are gone only when the system has seen them off.
        while killpg(group, None).is_ok() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Where a program is, as the kernel will name it; `None` with the reason said when it is not here.
pub fn program(names: &[&str]) -> Option<PathBuf> {
    let found = names.iter().map(Path::new).find(|path| path.is_file());
    match found {
        Some(path) => Some(path.canonicalize().unwrap()),
        None => {
            eprintln!("not tested: there is no {} here", names.join(" and no "));
            assert!(
                std::env::var_os("BINDSCOPE_REQUIRE_TOOLS").is_none(),
                "{names:?} is required and missing"
            );
            None
        }
    }
}

/// Whether servers can give up being root for other users: not in a user namespace that has one user only.
pub fn several_users() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let several = map.split_whitespace().nth(2).is_some_and(|count| count != "1");
    if !several {
        eprintln!(
            "not tested: the server runs as another user, and there is one user only in this user namespace"
        );
    }
    several
}

/// A user of the system, by the first of these names that there is.
pub fn user(names: &[&str]) -> User {
    names
        .iter()
        .find_map(|name| User::from_name(name).unwrap())
        .unwrap_or_else(|| panic!("no user is called {names:?}"))
}
