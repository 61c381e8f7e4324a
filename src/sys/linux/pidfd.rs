//! Sockets of other processes, duplicated with pidfd_getfd(2) to read options that no table contains.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::sys::socket::{getsockopt, sockopt};
use socket2::Socket;

use super::processes::Process;

/// A duplicate of descriptor `number` of `process`, if it is still the socket with this inode. The duplicate shares
/// everything with the original: setting an option affects both.
///
/// # Errors
/// EPERM without permission to trace the process (ptrace(2), "Ptrace access mode checking"); ESRCH and EBADF if it no
/// longer exists; ENOSYS before Linux 5.6.
#[expect(unsafe_code, reason = "no crate wraps pidfd_open(2) and pidfd_getfd(2)")]
pub(super) fn socket(process: &Process, number: i32, inode: u64) -> io::Result<Socket> {
    let pid = libc::c_long::from(i32::try_from(process.pid).map_err(|_| io::ErrorKind::InvalidInput)?);
    // SAFETY: pidfd_open(2) takes two integers and returns a new descriptor or -1.
    let pidfd = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // If the process is alive now, the descriptor refers to it and not to a later process with the same number.
    if !process.lives() {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: pidfd_getfd(2) takes three integers and returns a new descriptor or -1.
    let copy = owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })?;
    let stat = nix::sys::stat::fstat(copy.as_fd())?;
    if stat.st_ino != inode {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    Ok(Socket::from(copy))
}

#[expect(unsafe_code, reason = "a descriptor fresh from the kernel")]
fn owned(answer: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(answer) {
        // SAFETY: the kernel has just created this descriptor for this process, and nothing else owns it.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Options of a socket that sock_diag does not report.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub reuse_address: Option<bool>,
    pub reuse_port: Option<bool>,
    pub v6only: Option<bool>,
}

/// Reads the options without changing anything.
pub(super) fn options(socket: &Socket, ipv6: bool) -> Options {
    Options {
        reuse_address: socket.reuse_address().ok(),
        reuse_port: socket.reuse_port().ok(),
        v6only: ipv6.then(|| getsockopt(socket, sockopt::Ipv6V6Only).ok()).flatten(),
    }
}
