//! Network namespaces for tests, without root if the system permits it.
//!
//! A test crate with `harness = false` calls [`harness`] from `main`. Each [`Netns`] exists as long as its descriptor.
//! The kernel then removes it with its contents, so no cleanup is needed.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::{Command, ExitCode, Output};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sched::{CloneFlags, setns, unshare};

/// Runs the trials in namespaces, or prints why it cannot. They then count as ignored, or as failed with
/// `BINDSCOPE_REQUIRE_NETNS`.
pub fn harness(trials: Vec<Trial>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Two cores can run several trials; a test that measures nothing may run with others.
    arguments.test_threads.get_or_insert(4);
    let trials = match prepare() {
        Ok(()) => trials,
        Err(reason) => {
            eprintln!("these tests need network namespaces: {reason}");
            if std::env::var_os("BINDSCOPE_REQUIRE_NETNS").is_some() {
                vec![Trial::test("network_namespaces_are_available", move || Err(Failed::from(reason)))]
            } else {
                trials.into_iter().map(|trial| trial.with_ignored_flag(true)).collect()
            }
        }
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A trial that passes unless it panics.
#[must_use]
pub fn trial(name: &str, body: fn()) -> Trial {
    Trial::test(name, move || {
        body();
        Ok(())
    })
}

/// Enables the process to create namespaces. Must be called while it has one thread.
pub fn prepare() -> Result<(), String> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if !uid.is_root() || std::env::var_os("BINDSCOPE_TEST_ROOTLESS").is_some() {
        unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| {
            format!(
                "unshare(CLONE_NEWUSER): {error} (look at kernel.unprivileged_userns_clone, user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns)"
            )
        })?;
        let write =
            |path: &str, text: String| std::fs::write(path, text).map_err(|error| format!("{path}: {error}"));
        write("/proc/self/setgroups", "deny".into())?;
        write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    // Test in a child process whether a namespace can be created.
    std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET))
        .join()
        .map_err(|_| "a thread panicked".to_owned())?
        .map_err(|error| format!("unshare(CLONE_NEWNET): {error}"))?;
    match Command::new("ip").arg("-V").output() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("the command ip (Debian: iproute2): {error}")),
    }
}

/// A host with a link to another one: 192.0.2.1 and 2001:db8::1 on `eth0` here, the same with 2 there.
#[must_use]
pub fn two_hosts() -> (Netns, Netns) {
    let (here, there) = (Netns::new(), Netns::new());
    here.wire("eth0", &there, "far");
    here.address("eth0", "192.0.2.1/24");
    here.address("eth0", "2001:db8::1/64");
    there.address("far", "192.0.2.2/24");
    there.address("far", "2001:db8::2/64");
    (here, there)
}

/// A network namespace with `lo` up.
pub struct Netns(OwnedFd);

impl Netns {
    /// A new namespace; duplicate address detection is off, so that addresses are usable immediately.
    #[must_use]
    pub fn new() -> Netns {
        let fd = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            OwnedFd::from(File::open("/proc/thread-self/ns/net").unwrap())
        });
        let new = Netns(fd.join().unwrap());
        new.sysctl("net.ipv6.conf.all.accept_dad", "0");
        new.sysctl("net.ipv6.conf.default.accept_dad", "0");
        new.ip("link set lo up");
        new
    }

    /// Runs `body` on a thread in this namespace. Programs that it starts are in the namespace too.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let result = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                    body()
                })
                .join()
        });
        match result {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs a command here and returns its output.
    pub fn output(&self, command: &mut Command) -> Output {
        self.run(|| command.output()).unwrap()
    }

    /// Runs `ip` with these words, separated by blanks; it must succeed.
    pub fn ip(&self, words: &str) {
        self.ip_args(&words.split_whitespace().collect::<Vec<_>>());
    }

    /// Runs `ip` with these arguments; it must succeed.
    pub fn ip_args<S: AsRef<std::ffi::OsStr> + std::fmt::Debug + Sync>(&self, arguments: &[S]) {
        let output = self.output(Command::new("ip").args(arguments));
        assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Sets a sysctl by its dotted name (not for interface names with dots).
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.run(|| std::fs::write(&path, value)).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// A path that names this namespace to `ip`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Its inode, the number in `/proc/PID/ns/net`.
    #[must_use]
    pub fn inode(&self) -> u64 {
        nix::sys::stat::fstat(self.0.as_fd()).unwrap().st_ino
    }

    /// A link (veth pair) from `here` in this namespace to `there` in the other one, both up.
    pub fn wire(&self, here: &str, other: &Netns, there: &str) {
        self.ip_args(&["link", "add", here, "type", "veth", "peer", "name", there, "netns", &other.path()]);
        self.ip(&format!("link set {here} up"));
        other.ip(&format!("link set {there} up"));
    }

    /// Adds an address to an interface, usable immediately.
    pub fn address(&self, interface: &str, address: &str) {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        self.ip(&format!("address add {address} dev {interface}{nodad}"));
    }

    /// Number of handshakes that the kernel has completed here as a server (RFC 4022, `tcpPassiveOpens`).
    #[must_use]
    pub fn passive_opens(&self) -> u64 {
        let text = self.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).unwrap();
        let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let mut fields = names.split(' ').zip(values.split(' '));
        fields.find(|(name, _)| *name == "PassiveOpens").unwrap().1.parse().unwrap()
    }

    /// The index of an interface here.
    #[must_use]
    pub fn index(&self, interface: &str) -> u32 {
        self.run(|| nix::net::if_::if_nametoindex(interface)).unwrap()
    }
}

impl Default for Netns {
    fn default() -> Netns {
        Netns::new()
    }
}
