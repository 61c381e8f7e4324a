//! Level-triggered readiness over many sockets: epoll(7).

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::sys::{Interest, Readiness};

/// Watches sockets; each is known by a key of the caller's. Level-triggered: what is still ready is told again.
pub struct Poller {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

impl Poller {
    /// How many events one wait takes.
    pub const BATCH: usize = 256;

    /// An empty set.
    ///
    /// # Errors
    /// As `epoll_create1(2)`.
    pub fn new() -> io::Result<Poller> {
        Ok(Poller {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            events: vec![EpollEvent::empty(); Poller::BATCH],
        })
    }

    /// Begins to watch `source`.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn add(&self, source: &impl AsFd, key: u64, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.add(source, EpollEvent::new(flags(interest), key))?)
    }

    /// Changes what is watched for.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn change(&self, source: &impl AsFd, key: u64, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.modify(source, &mut EpollEvent::new(flags(interest), key))?)
    }

    /// Ends watching `source`. A source must be removed before it is closed.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn remove(&self, source: &impl AsFd) -> io::Result<()> {
        Ok(self.epoll.delete(source)?)
    }

    /// Whether `source` can be read. Waits for that, at most `patience`, as long as nothing that is watched is ready: `source`
    /// itself need not be watched.
    #[must_use]
    pub fn wait_for(&self, source: &impl AsFd, patience: Duration) -> bool {
        let mut both = [
            PollFd::new(source.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN),
        ];
        // Interrupted or not: what counts is whether it is ready.
        let _ = ppoll(&mut both, Some(patience.into()), None);
        both[0].any().unwrap_or(true)
    }

    /// Waits until something is ready or `timeout` has passed; a signal ends the wait early. `ready` is replaced.
    ///
    /// # Errors
    /// As `epoll_wait(2)`, but for EINTR.
    pub fn wait(&mut self, ready: &mut Vec<Readiness>, timeout: Option<Duration>) -> io::Result<()> {
        ready.clear();
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            // Rounded up, so that a deadline has passed when the wait is over.
            Some(timeout) => i32::try_from(timeout.as_micros().div_ceil(1000))
                .ok()
                .and_then(|millis| EpollTimeout::try_from(millis).ok())
                .unwrap_or(EpollTimeout::MAX),
        };
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        ready.extend(self.events.iter().take(count).map(|event| {
            let flags = event.events();
            let broken = flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
            Readiness {
                key: event.data(),
                readable: broken || flags.contains(EpollFlags::EPOLLIN),
                writable: broken || flags.contains(EpollFlags::EPOLLOUT),
            }
        }));
        Ok(())
    }
}

fn flags(interest: Interest) -> EpollFlags {
    match interest {
        Interest::Nothing => EpollFlags::empty(),
        Interest::Read => EpollFlags::EPOLLIN,
        Interest::Write => EpollFlags::EPOLLOUT,
    }
}
