//! Changes of interfaces and addresses, as rtnetlink(7) multicasts them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::poller::Poller;
use crate::sys::Interest;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE` of `linux/rtnetlink.h`:
/// routes too, since a local route makes addresses ours.
const GROUPS: u32 = 0x1 | 0x10 | 0x100 | 0x40 | 0x400;

/// Number of notifications read at once.
const AT_ONCE: u32 = 4096;

/// Reports that the host's network has changed since the last query.
pub struct Monitor {
    socket: Socket,
}

impl Monitor {
    /// Starts to receive changes in the calling thread's network namespace.
    ///
    /// # Errors
    /// Those of `socket(2)` and `bind(2)` of a netlink socket.
    pub fn new() -> io::Result<Monitor> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, GROUPS))?;
        socket.set_non_blocking(true)?;
        Ok(Monitor { socket })
    }

    /// Registers the monitor, so that a change wakes the poller. Returns whether it does; otherwise the caller must
    /// call [`Monitor::changed`] regularly.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn watch(&self, poller: &Poller, key: u64) -> io::Result<bool> {
        poller.add(self, key, Interest::Read)?;
        Ok(true)
    }

    /// Whether anything has changed since the last call; never blocks. Lost notifications count as a change.
    pub fn changed(&mut self) -> bool {
        let mut changed = false;
        // Only the fact of a change matters, because the state is read again. Messages may therefore be truncated.
        let mut buffer = [0u8; 512];
        // Limited: remaining messages wake the poller again.
        for _ in 0..AT_ONCE {
            match self.socket.recv(&mut buffer.as_mut_slice(), libc::MSG_DONTWAIT) {
                Ok(_) => changed = true,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        changed
    }
}

impl AsFd for Monitor {
    #[expect(unsafe_code, reason = "netlink-sys gives a raw descriptor only")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as `self.socket` lives, which the borrow outlasts not.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_network_has_not_changed() {
        let mut monitor = Monitor::new().unwrap();
        while monitor.changed() {}
        assert!(!monitor.changed());
    }
}
