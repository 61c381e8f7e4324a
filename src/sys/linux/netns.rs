//! Private network namespaces: created, entered and released, without root if the system permits it.
//!
//! The reasons for each step are in user_namespaces(7) and network_namespaces(7). A namespace exists as long as a
//! descriptor, thread or socket refers to it. These namespaces have no name, so nothing remains when the process ends.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sched::{CloneFlags, setns, unshare};

pub use super::settings::read_setting;
use super::userns_errors;
use crate::model::setting;
use crate::sys::{CallerRights, NamespaceRefusal};

/// Enables this process to create network namespaces. Root already can. Another user moves into a new user namespace
/// with the same user number. Must be called while the process has one thread.
///
/// # Errors
/// The refused step, and the setting that refuses it.
pub fn prepare() -> Result<(), NamespaceRefusal> {
    if nix::unistd::geteuid().is_root() && Namespace::new().is_ok() {
        return Ok(());
    }
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    // A set-capability or unreadable binary may not write its own maps (proc(5), "dumpable").
    let _ = nix::sys::prctl::set_dumpable(true);
    unshare_user().map_err(|errno| userns_errors::user_namespace("unshare(CLONE_NEWUSER)", errno))?;
    // Without "deny" an ordinary user may not write gid_map (user_namespaces(7)). Absent before Linux 3.19.
    for (path, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{uid} {uid} 1")),
        ("/proc/self/gid_map", format!("{gid} {gid} 1")),
    ] {
        match std::fs::write(path, text) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.ends_with("setgroups") => {}
            Err(error) => return Err(userns_errors::map(path, &error)),
            Ok(()) => {}
        }
    }
    // On Ubuntu one unshare for both would succeed without effect, so this is a separate call.
    Namespace::new().map(drop)?;
    MOVED.store(true, Ordering::Relaxed);
    Ok(())
}

/// Whether this process is in a user namespace created by [`prepare`].
static MOVED: AtomicBool = AtomicBool::new(false);

/// EINVAL means that there are other threads; a thread that was joined may be counted a little longer.
fn unshare_user() -> nix::Result<()> {
    let mut answer = unshare(CloneFlags::CLONE_NEWUSER);
    for _ in 0..50 {
        if answer != Err(nix::errno::Errno::EINVAL) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
        answer = unshare(CloneFlags::CLONE_NEWUSER);
    }
    answer
}

fn errno_of(error: &io::Error) -> nix::errno::Errno {
    nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// A network namespace that this process created.
#[derive(Debug)]
pub struct Namespace {
    descriptor: OwnedFd,
    identity: (u64, u64),
}

impl Drop for Namespace {
    fn drop(&mut self) {
        created().remove(&self.identity);
    }
}

impl Namespace {
    /// A new namespace, with `lo` down and nothing else.
    ///
    /// # Errors
    /// The refusal, with its setting.
    pub fn new() -> Result<Namespace, NamespaceRefusal> {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net").map_err(|error| errno_of(&error))
        })
        .join();
        match made {
            Ok(Ok(file)) => match identity(&file) {
                Ok(identity) => {
                    created().insert(identity);
                    Ok(Namespace { descriptor: file.into(), identity })
                }
                Err(error) => Err(userns_errors::net_namespace("fstat", errno_of(&error))),
            },
            Ok(Err(errno)) => Err(userns_errors::net_namespace("unshare(CLONE_NEWNET)", errno)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Moves the calling thread into this namespace, and thereby the threads and processes that it starts. Use only
    /// dedicated threads: a thread of a pool would run unrelated work here.
    ///
    /// # Errors
    /// Those of `setns(2)`.
    pub fn enter(&self) -> io::Result<()> {
        setns(self.descriptor.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
    }

    /// Runs `body` on a thread in this namespace.
    ///
    /// # Errors
    /// Those of `setns(2)`; the result of `body` is returned unchanged.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> io::Result<T> {
        let result = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    Ok(body())
                })
                .join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A path that names this namespace to other programs (`nsenter --net=`), while this process lives.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.descriptor.as_raw_fd())
    }

    /// A command that enters from outside and accepts a further command: nsenter(1). It names the user namespace only
    /// if that differs from the caller's, because a process cannot enter its own user namespace again (setns(2)).
    #[must_use]
    pub fn way_in(&self) -> String {
        let user = if MOVED.load(Ordering::Relaxed) {
            format!("--target {} --user --preserve-credentials ", std::process::id())
        } else {
            String::new()
        };
        format!("nsenter {user}--net={}", self.path())
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Device and inode of the network namespaces that this process created and still holds, so that neither is used again meanwhile.
static CREATED: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());

fn created() -> MutexGuard<'static, BTreeSet<(u64, u64)>> {
    CREATED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What makes a namespace the same as another: the device and the inode of its file (namespaces(7)).
fn identity(namespace: &File) -> io::Result<(u64, u64)> {
    let metadata = namespace.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Checks that the calling thread is in a network namespace that this process created. Every function here that changes a network
/// checks this itself, so that no caller can change the machine's.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`] in any other namespace.
pub fn require_own() -> io::Result<()> {
    let here = identity(&File::open("/proc/thread-self/ns/net")?)?;
    if created().contains(&here) {
        return Ok(());
    }
    let sentence = "refused: this is not a network namespace that this process created";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, sentence))
}

/// Writes a setting of the calling thread's namespace. `name` is the path below `/proc/sys`, such as
/// `net/ipv4/conf/eth0/rp_filter`. What is not in the list of [`setting::is_changeable`], and what is not in a namespace of this
/// process, is refused, whatever the caller checked.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`] for what is refused, ENOENT for a setting this kernel does not have, EROFS in containers that
/// make `/proc/sys` read-only.
pub fn write_setting(name: &str, value: &str) -> io::Result<()> {
    if !setting::is_changeable(name) {
        let sentence = "refused: it is not a setting of a network namespace that a lab may change";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, sentence));
    }
    if !setting::is_value(value) {
        let sentence = "refused: the value is not one or several whole numbers";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
    }
    require_own()?;
    // Not created, and no link followed: a setting is a file of proc(5).
    let path = format!("/proc/sys/{name}");
    let mut file = File::options().write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    file.write_all(value.as_bytes())
}

/// CAP_NET_BIND_SERVICE 10, CAP_NET_ADMIN 12, CAP_NET_RAW 13 (capabilities(7)).
const NETWORK_RIGHTS: [u32; 3] = [10, 12, 13];

/// Drops, on the calling thread only, those of CAP_NET_BIND_SERVICE, CAP_NET_ADMIN and CAP_NET_RAW that `kept` does not
/// include. In its own namespace a process has them all, which would hide EACCES and EPERM.
///
/// # Errors
/// Those of `capget(2)` and `capset(2)`.
pub fn drop_network_rights(kept: CallerRights) -> io::Result<()> {
    let [ports, others @ ..] = NETWORK_RIGHTS;
    let ports = if kept.privileged_ports { 0 } else { 1 << ports };
    let others: u32 = if kept.transparent { 0 } else { others.iter().map(|right| 1 << right).sum() };
    change_rights(|rights, _| rights.effective &= !(ports | others))
}

/// Keeps these capabilities for programs that the calling thread starts, although their user is not root
/// (capabilities(7), "ambient").
///
/// # Errors
/// Those of `capset(2)` and `prctl(2)`.
#[expect(unsafe_code, reason = "no crate kept here wraps PR_CAP_AMBIENT")]
pub fn keep_network_rights() -> io::Result<()> {
    change_rights(|rights, bits| rights.inheritable |= rights.permitted & bits)?;
    for right in NETWORK_RIGHTS {
        // SAFETY: PR_CAP_AMBIENT takes integers only.
        let answer = unsafe {
            libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, libc::c_ulong::from(right), 0, 0)
        };
        if answer != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Makes the program started by `command` receive SIGHUP when the thread that starts it ends for any reason. The
/// program must not outlive this process or its network (prctl(2), PR_SET_PDEATHSIG).
#[expect(unsafe_code, reason = "std has no safe function that runs code between fork and exec")]
pub fn end_with_us(command: &mut std::process::Command) {
    let body = || nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGHUP).map_err(io::Error::from);
    // SAFETY: the body makes one system call and allocates nothing, which is allowed in a child of a process with threads.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, body) };
}

/// Gives the terminal to the program started by `command`, a shell, if it is this process group's: the shell leads a process group of its
/// own. In another process-id namespace it could not give the terminal back to this one. Returns whether [`take_terminal`] must follow.
#[expect(unsafe_code, reason = "std has no safe function that runs code between fork and exec")]
pub fn give_terminal(command: &mut std::process::Command) -> bool {
    use nix::unistd::{getpgrp, getpid, setpgid, tcgetpgrp};
    if tcgetpgrp(io::stdin()) != Ok(getpgrp()) {
        return false;
    }
    let body = || {
        setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::Pid::from_raw(0))?;
        foreground(getpid())
    };
    // SAFETY: the body makes system calls and allocates nothing, which is allowed in a child of a process with threads.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, body) };
    true
}

/// Makes the process group of this process that of the terminal again.
pub fn take_terminal() {
    let _ = foreground(nix::unistd::getpgrp());
}

/// Makes a process group that of the terminal, from the background too, where SIGTTOU would stop the caller (tcsetpgrp(3)).
fn foreground(group: nix::unistd::Pid) -> io::Result<()> {
    use nix::sys::signal::{SigSet, Signal};
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTTOU);
    stop.thread_block()?;
    let result = nix::unistd::tcsetpgrp(io::stdin(), group);
    stop.thread_unblock()?;
    Ok(result?)
}

/// A process-id namespace for the programs that the calling thread starts from here on: with this value all of them end, and
/// with this process, whatever ends it (pid_namespaces(7)). Its first process does nothing but hold it.
#[derive(Debug)]
pub struct Processes(std::process::Child);

impl Processes {
    /// Creates the namespace. Afterwards the calling thread starts programs in it, and can start no threads.
    ///
    /// # Errors
    /// Those of `unshare(2)` and `fork(2)`.
    #[expect(unsafe_code, reason = "std has no safe function that runs code between fork and exec")]
    pub fn new() -> io::Result<Processes> {
        use nix::sys::signal::{SigHandler, Signal, signal};
        use std::process::{Command, Stdio};
        unshare(CloneFlags::CLONE_NEWPID)?;
        // It is never executed: the process stays in `hold`.
        let mut command = Command::new("/proc/self/exe");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let hold = || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // SAFETY: no function is installed. Orphans of the namespace become children of this process, which leaves none as zombies.
            unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
            // Among these is the pipe at whose end the parent waits for the exec.
            // SAFETY: nothing of this process uses a descriptor from here on.
            if unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
            loop {
                nix::unistd::pause();
            }
        };
        // SAFETY: the body makes system calls and allocates nothing, which is allowed in a child of a process with threads.
        unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, hold) };
        command.spawn().map(Processes)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // The kernel kills the others before the first process is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `struct __user_cap_data_struct` of `linux/capability.h`.
#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Rights {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

#[expect(unsafe_code, reason = "no crate kept here wraps capset(2)")]
fn change_rights(change: impl FnOnce(&mut Rights, u32)) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    /// `_LINUX_CAPABILITY_VERSION_3` of `linux/capability.h`.
    const VERSION_3: u32 = 0x2008_0522;
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Rights::default(); 2];
    // SAFETY: version 3 reads the header and writes two Rights, which is what the pointers lead to.
    let answer = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    change(&mut data[0], NETWORK_RIGHTS.iter().map(|right| 1 << right).sum());
    // SAFETY: version 3 reads the header and two Rights, which is what the pointers lead to.
    let answer = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_a_namespace_of_this_process_is_changed() {
        let name = "net/ipv4/ip_forward";
        let here = read_setting(name).unwrap();
        assert_eq!(write_setting(name, &here).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(require_own().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let Ok(namespace) = Namespace::new() else {
            return; // Needs root; the labs of tests/lab show the same without.
        };
        namespace
            .run(|| {
                require_own().unwrap();
                write_setting(name, "1").unwrap();
                assert_eq!(read_setting(name).unwrap(), "1");
                for (other, value) in [
                    ("kernel/randomize_va_space", "2"),
                    ("net/ipv4/conf/../../../kernel/randomize_va_space", "2"),
                    ("net/core/bpf_jit_enable", "1"),
                ] {
                    let refused = write_setting(other, value).unwrap_err();
                    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{other}");
                }
                assert_eq!(write_setting(name, "1\n2").unwrap_err().kind(), io::ErrorKind::InvalidInput);
                // In a namespace that another created, though the caller has every privilege there.
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                assert_eq!(write_setting(name, "1").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            })
            .unwrap();
        assert_eq!(read_setting(name).unwrap(), here);
    }
}
