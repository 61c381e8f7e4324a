//! What this process may do to its network namespace.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use crate::sys::CallerRights;

/// Bits of `linux/capability.h`.
const CAP_NET_BIND_SERVICE: u64 = 10;
const CAP_NET_ADMIN: u64 = 12;
const CAP_NET_RAW: u64 = 13;

/// What the calling thread may do: its effective capabilities, if its user namespace owns its network namespace. A capability
/// in another user namespace is worth nothing there (user_namespaces(7)).
#[must_use]
pub fn rights() -> CallerRights {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let has = |bit: u64| effective & (1 << bit) != 0 && owns_network().unwrap_or(true);
    CallerRights {
        uid: nix::unistd::geteuid().as_raw(),
        privileged_ports: has(CAP_NET_BIND_SERVICE),
        transparent: has(CAP_NET_ADMIN) || has(CAP_NET_RAW),
    }
}

/// Whether the thread's user namespace is the owner of its network namespace; `None` when that cannot be told. An owner further
/// up the line cannot be opened from here, which is an answer too.
#[expect(unsafe_code, reason = "no crate in use wraps NS_GET_USERNS")]
fn owns_network() -> Option<bool> {
    /// `NS_GET_USERNS` of `linux/nsfs.h` (ioctl_ns(2)).
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    let network = File::open("/proc/thread-self/ns/net").ok()?;
    // SAFETY: this ioctl takes no argument and returns a new descriptor or an error.
    let owner = unsafe { libc::ioctl(network.as_raw_fd(), NS_GET_USERNS as _) };
    if owner < 0 {
        let error = std::io::Error::last_os_error();
        return (error.raw_os_error() == Some(libc::EPERM)).then_some(false);
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
    let owner: File = unsafe { std::os::fd::FromRawFd::from_raw_fd(owner) };
    let inode = |file: &File| {
        use std::os::unix::fs::MetadataExt as _;
        file.metadata().ok().map(|metadata| metadata.ino())
    };
    let own = File::open("/proc/thread-self/ns/user").ok()?;
    Some(inode(&owner)? == inode(&own)?)
}
