//! Level-triggered readiness over many sockets, by the `polling` crate (kqueue, epoll, IOCP).

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use polling::{Event, Events, PollMode};

use crate::sys::{Interest, Readiness};

/// [`Poller::BATCH`] as `polling` wants it.
const CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(Poller::BATCH - 1);

/// Watches sockets, each with a key chosen by the caller. Level-triggered: a socket that is still ready is reported
/// again.
pub struct Poller {
    poller: Arc<polling::Poller>,
    events: Events,
}

/// Wakes a poller from any thread.
pub struct Waker(Arc<polling::Poller>);

impl Waker {
    /// Ends the current wait or, if there is none, the next one.
    pub fn wake(&self) {
        let _ = self.0.notify();
    }
}

impl Poller {
    /// Maximum number of events per wait.
    pub const BATCH: usize = 256;

    /// An empty set.
    ///
    /// # Errors
    /// As the system's poller.
    pub fn new() -> io::Result<Poller> {
        Ok(Poller { poller: Arc::new(polling::Poller::new()?), events: Events::with_capacity(CAPACITY) })
    }

    /// Starts to watch `source`.
    ///
    /// # Errors
    /// Those of the system's poller.
    #[expect(unsafe_code, reason = "polling leaves it to the caller to remove a source before closing it")]
    pub fn add<S>(&self, source: &S, key: u64, interest: Interest) -> io::Result<()>
    where
        for<'a> &'a S: polling::AsRawSource,
    {
        // SAFETY: `remove` is called before a source is closed, as its documentation demands; the two owners of sources,
        // `accept::Acceptor` and `accept::connection`, do so in the one place where they drop them.
        unsafe { self.poller.add_with_mode(source, event(key, interest), PollMode::Level) }
    }

    /// Starts to watch a source that other pollers watch too; here all of them wake up.
    ///
    /// # Errors
    /// Those of the system's poller.
    pub fn add_among_others<S>(&self, source: &S, key: u64) -> io::Result<()>
    where
        for<'a> &'a S: polling::AsRawSource,
    {
        self.add(source, key, Interest::Read)
    }

    /// A handle that ends a wait from another thread.
    ///
    /// # Errors
    /// None.
    pub fn waker(&mut self) -> io::Result<Waker> {
        Ok(Waker(Arc::clone(&self.poller)))
    }

    /// Changes the watched events.
    ///
    /// # Errors
    /// Those of the system's poller.
    pub fn change(&self, source: &impl polling::AsSource, key: u64, interest: Interest) -> io::Result<()> {
        self.poller.modify_with_mode(source, event(key, interest), PollMode::Level)
    }

    /// Stops watching `source`. A source must be removed before it is closed.
    ///
    /// # Errors
    /// Those of the system's poller.
    pub fn remove(&self, source: &impl polling::AsSource) -> io::Result<()> {
        self.poller.delete(source)
    }

    /// Stops watching a source that its owner is about to close.
    pub fn forget(&self, source: &impl polling::AsSource) {
        let _ = self.poller.delete(source);
    }

    /// Waits until something is ready or `timeout` has passed; a signal ends the wait early. Replaces `ready`. Returns
    /// whether more may be ready than one wait reports.
    ///
    /// # Errors
    /// Those of the system's poller, except EINTR.
    pub fn wait(&mut self, ready: &mut Vec<Readiness>, timeout: Option<Duration>) -> io::Result<bool> {
        ready.clear();
        self.events.clear();
        match self.poller.wait(&mut self.events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        ready.extend(self.events.iter().map(|event| Readiness {
            key: event.key as u64,
            readable: event.readable,
            writable: event.writable,
        }));
        Ok(ready.len() >= Poller::BATCH)
    }

    /// Like [`Poller::wait`], until the time `until`. `now` is the current time.
    ///
    /// # Errors
    /// Those of the system's poller, except EINTR.
    pub fn wait_until(
        &mut self,
        ready: &mut Vec<Readiness>,
        until: Option<Instant>,
        now: Instant,
    ) -> io::Result<bool> {
        self.wait(ready, until.map(|until| until.saturating_duration_since(now)))
    }
}

fn event(key: u64, interest: Interest) -> Event {
    let key = usize::try_from(key).unwrap_or(usize::MAX - 1);
    match interest {
        Interest::Nothing => Event::none(key),
        Interest::Read => Event::readable(key),
        Interest::Write => Event::writable(key),
    }
}
