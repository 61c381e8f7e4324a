//! Privileges of this process in its network namespace.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use caps::{CapSet, Capability};

use crate::sys::CallerRights;

/// Effective capabilities of the calling thread, if its user namespace owns its network namespace. A capability in
/// another user namespace has no effect there (user_namespaces(7)).
#[must_use]
pub fn rights() -> CallerRights {
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    let has = |capability| effective.contains(&capability) && owns_network().unwrap_or(true);
    CallerRights {
        uid: nix::unistd::geteuid().as_raw(),
        privileged_ports: has(Capability::CAP_NET_BIND_SERVICE),
        transparent: has(Capability::CAP_NET_ADMIN) || has(Capability::CAP_NET_RAW),
    }
}

/// Whether the thread's user namespace owns its network namespace; `None` if unknown. An owner in an ancestor namespace
/// cannot be opened from here, which also gives an answer.
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
    // SAFETY: the kernel has just created this descriptor for this process, and nothing else owns it.
    let owner: File = unsafe { std::os::fd::FromRawFd::from_raw_fd(owner) };
    let inode = |file: &File| {
        use std::os::unix::fs::MetadataExt as _;
        file.metadata().ok().map(|metadata| metadata.ino())
    };
    let own = File::open("/proc/thread-self/ns/user").ok()?;
    Some(inode(&owner)? == inode(&own)?)
}
