//! Network namespaces of our own: made, entered and forgotten, without root where the system allows it.
//!
//! What is measured and why each step is as it is: user_namespaces(7), network_namespaces(7). A namespace lives as long as a
//! descriptor, thread or socket refers to it; nothing here gives it a name, so nothing is left when the process dies.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sched::{CloneFlags, setns, unshare};

use super::userns_errors;
use crate::sys::NamespaceRefusal;

/// Makes this process able to make network namespaces. As root that is so already; else it moves into a user namespace
/// of its own in which the user keeps the own number. To be called while the process has one thread.
///
/// # Errors
/// The step that was refused, and the switch that refuses it.
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
    // One unshare for both would succeed on Ubuntu and be of no use, so this is asked on its own.
    Namespace::new().map(drop)?;
    MOVED.store(true, Ordering::Relaxed);
    Ok(())
}

/// Whether this process is in a user namespace that [`prepare`] made.
static MOVED: AtomicBool = AtomicBool::new(false);

/// EINVAL means that there are other threads; one that was joined may be counted a little longer.
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

/// A network namespace.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// A new one, with `lo` down and nothing else in it.
    ///
    /// # Errors
    /// The refusal, with its switch.
    pub fn new() -> Result<Namespace, NamespaceRefusal> {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
                .map(OwnedFd::from)
                .map_err(|error| nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
        })
        .join();
        match made {
            Ok(Ok(descriptor)) => Ok(Namespace(descriptor)),
            Ok(Err(errno)) => Err(userns_errors::net_namespace("unshare(CLONE_NEWNET)", errno)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Moves the calling thread here. Threads and processes that it starts are here too; others are not moved. For threads
    /// of one's own only: a thread that goes back to a pool would take strangers with it.
    ///
    /// # Errors
    /// As `setns(2)`.
    pub fn enter(&self) -> io::Result<()> {
        setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
    }

    /// Runs `body` on a thread of this namespace.
    ///
    /// # Errors
    /// As `setns(2)`; what `body` returns is handed through.
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
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// A command that goes in from outside, to which another may be added: nsenter(1). The user namespace is named only where
    /// it is another one than outside, since nobody can enter the one that he is in (setns(2)).
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
        self.0.as_fd()
    }
}

/// Writes a setting of the calling thread's namespace. `name` is the path below `/proc/sys`, such as
/// `net/ipv4/conf/eth0/rp_filter`.
///
/// # Errors
/// ENOENT for a setting this kernel does not have, EROFS in containers that make `/proc/sys` read-only.
pub fn write_setting(name: &str, value: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/{name}"), value)
}

/// Reads a setting of the calling thread's namespace, named as in [`write_setting`].
///
/// # Errors
/// As `read(2)`.
pub fn read_setting(name: &str) -> io::Result<String> {
    std::fs::read_to_string(format!("/proc/sys/{name}")).map(|text| text.trim().to_owned())
}

/// CAP_NET_BIND_SERVICE 10, CAP_NET_ADMIN 12, CAP_NET_RAW 13 (capabilities(7)).
const NETWORK_RIGHTS: [u32; 3] = [10, 12, 13];

/// Gives up, on the calling thread only, the rights that an ordinary service does not have: CAP_NET_BIND_SERVICE, CAP_NET_ADMIN
/// and CAP_NET_RAW. In a namespace of its own a process has them all, which would hide EACCES and EPERM.
///
/// # Errors
/// As `capget(2)` and `capset(2)`.
pub fn drop_network_rights() -> io::Result<()> {
    change_rights(|rights, bits| rights.effective &= !bits)
}

/// Lets programs that the calling thread starts keep these rights, though their user is not root (capabilities(7), "ambient").
///
/// # Errors
/// As `capset(2)` and `prctl(2)`.
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

/// Sends the program that `command` starts a SIGHUP when the thread that starts it ends, however that happens: it is to outlive
/// neither this process nor its network (prctl(2), PR_SET_PDEATHSIG).
#[expect(unsafe_code, reason = "std has no safe way to do something between fork and exec")]
pub fn end_with_us(command: &mut std::process::Command) {
    let body = || nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGHUP).map_err(io::Error::from);
    // SAFETY: the body makes one system call and allocates nothing, which is allowed in a child of a process with threads.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, body) };
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
