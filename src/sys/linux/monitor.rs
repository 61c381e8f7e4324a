//! Changes of interfaces and addresses, as rtnetlink(7) multicasts them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::poller::Poller;
use crate::model::IfName;
use crate::sys::{Interest, Notices};
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
        self.take(&mut Vec::new()) != Notices::None
    }

    /// What changed since the last call; never blocks. Names of interfaces are added to `names` in the order of their changes: the
    /// name that the interface with this index has from there on, or `None` when it is gone.
    pub fn take(&mut self, names: &mut Vec<(u32, Option<IfName>)>) -> Notices {
        let mut taken = Notices::None;
        // The content of other messages is not used, because the state is read again. Messages may be truncated.
        let mut buffer = [0u8; 512];
        // Limited: remaining messages wake the poller again.
        for _ in 0..AT_ONCE {
            match self.socket.recv(&mut buffer.as_mut_slice(), libc::MSG_DONTWAIT) {
                Ok(length) => {
                    taken = taken.max(Notices::Some);
                    names.extend(buffer.get(..length.min(buffer.len())).and_then(name_in));
                }
                // The queue was full. What is in it now can be read; what did not fit is lost.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => taken = Notices::Lost,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        taken
    }
}

/// The index and the name in the beginning of an RTM_NEWLINK message (rtnetlink(7)); no name in an RTM_DELLINK message.
fn name_in(message: &[u8]) -> Option<(u32, Option<IfName>)> {
    /// `sizeof(struct nlmsghdr)` and, behind it, `sizeof(struct ifinfomsg)`.
    const HEADER: usize = 16;
    const LINK: usize = 16;
    let word = |at: usize| message.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let half = |at: usize| message.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes);
    let (kind, family, index) = (half(4)?, *message.get(HEADER)?, word(HEADER + 4)?);
    match kind {
        libc::RTM_NEWLINK => {}
        // Other families tell of a port that leaves its bridge.
        libc::RTM_DELLINK if i32::from(family) == libc::AF_UNSPEC => return Some((index, None)),
        _ => return None,
    }
    // The first attribute, as `rtnl_fill_ifinfo()` of `net/core/rtnetlink.c` writes it.
    let mut at = HEADER + LINK;
    loop {
        let (length, kind) = (usize::from(half(at)?), half(at + 2)?);
        if length < 4 {
            return None;
        }
        if kind == libc::IFLA_IFNAME {
            let name = message.get(at + 4..at + length)?;
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            return Some((index, Some(IfName::from_bytes(name.get(..end)?))));
        }
        at += length.next_multiple_of(4);
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

    fn message(kind: u16, family: u8, index: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut out = vec![0; 32];
        out[4..6].copy_from_slice(&kind.to_ne_bytes());
        out[16] = family;
        out[20..24].copy_from_slice(&index.to_ne_bytes());
        for (kind, value) in attributes {
            out.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
            out.extend(kind.to_ne_bytes());
            out.extend(*value);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        out
    }

    #[test]
    fn names_are_read_from_whole_and_from_cut_messages() {
        let attributes: [(u16, &[u8]); 3] = [(38, &[1, 2, 3]), (libc::IFLA_IFNAME, b"eth0\0"), (4, &[0; 4])];
        let new = message(libc::RTM_NEWLINK, 0, 7, &attributes);
        assert_eq!(name_in(&new), Some((7, Some("eth0".into()))));
        for cut in 0..new.len() {
            let found = name_in(&new[..cut]);
            assert!(found.is_none() || found == Some((7, Some("eth0".into()))), "{cut}");
        }
        assert_eq!(name_in(&message(libc::RTM_DELLINK, 0, 7, &attributes)), Some((7, None)));
        let from_bridge = message(libc::RTM_DELLINK, libc::AF_BRIDGE as u8, 7, &attributes);
        assert_eq!(name_in(&from_bridge), None);
        assert_eq!(name_in(&message(libc::RTM_NEWADDR, 0, 7, &attributes)), None);
        let endless: [(u16, &[u8]); 1] = [(38, &[])];
        let mut endless = message(libc::RTM_NEWLINK, 0, 7, &endless);
        endless[32..34].fill(0);
        assert_eq!(name_in(&endless), None);
    }
}
