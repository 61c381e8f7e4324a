//! Level-triggered readiness over many sockets: epoll(7).

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::sys::{Interest, Readiness};

/// Watches sockets, each with a key chosen by the caller. Level-triggered: a socket that is still ready is reported
/// again.
pub struct Poller {
    epoll: Epoll,
    events: Vec<EpollEvent>,
    bell: Option<Arc<EventFd>>,
    alarm: Option<Alarm>,
}

/// A timer that stays set over several waits. With a timeout in each wait, the kernel would set and cancel a timer each
/// time, which is expensive in a virtual machine. This timer is set only if it must fire earlier than planned.
struct Alarm {
    timer: TimerFd,
    rings: Option<Instant>,
}

/// Keys of the poller's own bell (wake-up) and alarm (timer).
const BELL: u64 = u64::MAX;
const ALARM: u64 = u64::MAX - 1;

/// Wakes a poller from any thread.
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// Ends the current wait or, if there is none, the next one.
    pub fn wake(&self) {
        // Fails only after 2^64 calls without a read.
        let _ = self.0.write(1);
    }
}

impl Poller {
    /// Maximum number of events per wait.
    pub const BATCH: usize = 256;

    /// An empty set.
    ///
    /// # Errors
    /// As `epoll_create1(2)`.
    pub fn new() -> io::Result<Poller> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        // Without an alarm each wait has its own timeout.
        let alarm = Alarm::new(&epoll).ok();
        Ok(Poller { epoll, events: vec![EpollEvent::empty(); Poller::BATCH], bell: None, alarm })
    }

    /// Starts to watch `source`.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn add(&self, source: &impl AsFd, key: u64, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.add(source, EpollEvent::new(flags(interest), key))?)
    }

    /// Starts to watch a source that other pollers watch too. If it becomes ready, only some pollers wake up
    /// (EPOLLEXCLUSIVE of epoll_ctl(2)). The registration can be removed, but not changed.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn add_among_others(&self, source: &impl AsFd, key: u64) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        Ok(self.epoll.add(source, EpollEvent::new(flags, key))?)
    }

    /// A handle that ends a wait from another thread.
    ///
    /// # Errors
    /// Those of `eventfd(2)` and `epoll_ctl(2)`.
    pub fn waker(&mut self) -> io::Result<Waker> {
        if let Some(bell) = &self.bell {
            return Ok(Waker(Arc::clone(bell)));
        }
        let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        self.epoll.add(&*bell, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        self.bell = Some(Arc::clone(&bell));
        Ok(Waker(bell))
    }

    /// Changes the watched events.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn change(&self, source: &impl AsFd, key: u64, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.modify(source, &mut EpollEvent::new(flags(interest), key))?)
    }

    /// Stops watching `source`. A source must be removed before it is closed.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn remove(&self, source: &impl AsFd) -> io::Result<()> {
        Ok(self.epoll.delete(source)?)
    }

    /// Stops watching a source that its owner is about to close: the kernel removes it automatically (epoll(7),
    /// question 6).
    pub fn forget(&self, _source: &impl AsFd) {}

    /// Waits until something is ready or `timeout` has passed; a signal ends the wait early. Replaces `ready`. Returns
    /// whether more may be ready than one wait reports.
    ///
    /// # Errors
    /// Those of `epoll_wait(2)`, except EINTR.
    pub fn wait(&mut self, ready: &mut Vec<Readiness>, timeout: Option<Duration>) -> io::Result<bool> {
        ready.clear();
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            // Rounded up, so that a deadline has passed when the wait ends.
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
        for event in self.events.iter().take(count) {
            match (event.data(), &self.bell, &mut self.alarm) {
                (BELL, Some(bell), _) => drop(nix::unistd::read(&**bell, &mut [0; 8])),
                (ALARM, _, Some(alarm)) => alarm.rang(),
                _ => ready.push(readiness(event)),
            }
        }
        // Bell and alarm also used an event.
        Ok(count >= Poller::BATCH)
    }

    /// Like [`Poller::wait`], for repeated waits: until something is ready, or until the time `until`. `now` is the
    /// current time. May end earlier.
    ///
    /// # Errors
    /// Those of `epoll_wait(2)`, except EINTR.
    pub fn wait_until(
        &mut self,
        ready: &mut Vec<Readiness>,
        until: Option<Instant>,
        now: Instant,
    ) -> io::Result<bool> {
        let Some(until) = until else { return self.wait(ready, None) };
        let left = until.saturating_duration_since(now);
        let will_ring = match &mut self.alarm {
            Some(alarm) if !left.is_zero() => alarm.ring_by(until, left),
            _ => false,
        };
        self.wait(ready, if will_ring { None } else { Some(left) })
    }
}

impl Alarm {
    fn new(epoll: &Epoll) -> nix::Result<Alarm> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, ALARM))?;
        Ok(Alarm { timer, rings: None })
    }

    /// Sets the alarm for `moment`, which is this long from now, unless it fires earlier anyway. Returns whether this
    /// is possible.
    fn ring_by(&mut self, moment: Instant, left: Duration) -> bool {
        if self.rings.is_none_or(|rings| rings > moment) {
            let set = self.timer.set(Expiration::OneShot(left.into()), TimerSetTimeFlags::empty());
            self.rings = set.is_ok().then_some(moment);
        }
        self.rings.is_some()
    }

    fn rang(&mut self) {
        let _ = self.timer.wait();
        self.rings = None;
    }
}

fn readiness(event: &EpollEvent) -> Readiness {
    let flags = event.events();
    let broken = flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
    Readiness {
        key: event.data(),
        readable: broken || flags.contains(EpollFlags::EPOLLIN),
        writable: broken || flags.contains(EpollFlags::EPOLLOUT),
    }
}

fn flags(interest: Interest) -> EpollFlags {
    match interest {
        Interest::Nothing => EpollFlags::empty(),
        Interest::Read => EpollFlags::EPOLLIN,
        Interest::Write => EpollFlags::EPOLLOUT,
    }
}
