//! Level-triggered readiness over many sockets: epoll(7).

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::sys::{Interest, Readiness};

/// Watches sockets; each is known by a key of the caller's. Level-triggered: what is still ready is told again.
pub struct Poller {
    epoll: Epoll,
    events: Vec<EpollEvent>,
    bell: Option<Arc<EventFd>>,
}

/// The key of a poller's own bell.
const BELL: u64 = u64::MAX;

/// Ends the wait of a poller, from any thread.
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// Ends the present wait or, if there is none, the next one.
    pub fn wake(&self) {
        // It can fail only when it has been rung 2^64 times and not been heard.
        let _ = self.0.write(1);
    }
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
            bell: None,
        })
    }

    /// Begins to watch `source`.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn add(&self, source: &impl AsFd, key: u64, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.add(source, EpollEvent::new(flags(interest), key))?)
    }

    /// Begins to watch a source that other pollers watch too: when it is ready, not all of them are woken (EPOLLEXCLUSIVE of
    /// epoll_ctl(2)). It can be removed, not changed.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn add_among_others(&self, source: &impl AsFd, key: u64) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        Ok(self.epoll.add(source, EpollEvent::new(flags, key))?)
    }

    /// What ends a wait from another thread.
    ///
    /// # Errors
    /// As `eventfd(2)` and `epoll_ctl(2)`.
    pub fn waker(&mut self) -> io::Result<Waker> {
        if let Some(bell) = &self.bell {
            return Ok(Waker(Arc::clone(bell)));
        }
        let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        self.epoll.add(&*bell, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        self.bell = Some(Arc::clone(&bell));
        Ok(Waker(bell))
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

    /// Ends watching a source that its owner is about to close: the kernel does so by itself (epoll(7), question 6).
    pub fn forget(&self, _source: &impl AsFd) {}

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
        let told = self.events.iter().take(count);
        if let Some(bell) = self.bell.as_ref().filter(|_| told.clone().any(|event| event.data() == BELL)) {
            let _ = nix::unistd::read(&**bell, &mut [0; 8]);
        }
        ready.extend(told.filter(|event| event.data() != BELL).map(|event| {
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
