//! Level-triggered readiness over many sockets, by the `polling` crate (kqueue, epoll, IOCP).

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use polling::{Event, Events, PollMode};

use crate::sys::{Interest, Readiness};

/// [`Poller::BATCH`] as `polling` wants it.
const CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(Poller::BATCH - 1);

/// Watches sockets; each is known by a key of the caller's. Level-triggered: what is still ready is told again.
pub struct Poller {
    poller: Arc<polling::Poller>,
    events: Events,
}

/// Ends the wait of a poller, from any thread.
pub struct Waker(Arc<polling::Poller>);

impl Waker {
    /// Ends the present wait or, if there is none, the next one.
    pub fn wake(&self) {
        let _ = self.0.notify();
    }
}

impl Poller {
    /// How many events one wait takes.
    pub const BATCH: usize = 256;

    /// An empty set.
    ///
    /// # Errors
    /// As the system's poller.
    pub fn new() -> io::Result<Poller> {
        Ok(Poller { poller: Arc::new(polling::Poller::new()?), events: Events::with_capacity(CAPACITY) })
    }

    /// Begins to watch `source`.
    ///
    /// # Errors
    /// As the system's poller.
    #[expect(unsafe_code, reason = "polling leaves it to the caller to remove a source before closing it")]
    pub fn add<S>(&self, source: &S, key: u64, interest: Interest) -> io::Result<()>
    where
        for<'a> &'a S: polling::AsRawSource,
    {
        // SAFETY: `remove` is called before a source is closed, as its documentation demands; the two owners of sources,
        // `accept::Acceptor` and `accept::connection`, do so in the one place where they drop them.
        unsafe { self.poller.add_with_mode(source, event(key, interest), PollMode::Level) }
    }

    /// Begins to watch a source that other pollers watch too: here all of them are woken.
    ///
    /// # Errors
    /// As the system's poller.
    pub fn add_among_others<S>(&self, source: &S, key: u64) -> io::Result<()>
    where
        for<'a> &'a S: polling::AsRawSource,
    {
        self.add(source, key, Interest::Read)
    }

    /// What ends a wait from another thread.
    ///
    /// # Errors
    /// None.
    pub fn waker(&mut self) -> io::Result<Waker> {
        Ok(Waker(Arc::clone(&self.poller)))
    }

    /// Changes what is watched for.
    ///
    /// # Errors
    /// As the system's poller.
    pub fn change(&self, source: &impl polling::AsSource, key: u64, interest: Interest) -> io::Result<()> {
        self.poller.modify_with_mode(source, event(key, interest), PollMode::Level)
    }

    /// Ends watching `source`. A source must be removed before it is closed.
    ///
    /// # Errors
    /// As the system's poller.
    pub fn remove(&self, source: &impl polling::AsSource) -> io::Result<()> {
        self.poller.delete(source)
    }

    /// Ends watching a source that its owner is about to close.
    pub fn forget(&self, source: &impl polling::AsSource) {
        let _ = self.poller.delete(source);
    }

    /// Waits until something is ready or `timeout` has passed; a signal ends the wait early. `ready` is replaced. Returns whether more
    /// may be ready than one wait takes.
    ///
    /// # Errors
    /// As the system's poller, but for EINTR.
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

    /// The same until the moment `until` has come. `now` is the present moment.
    ///
    /// # Errors
    /// As the system's poller, but for EINTR.
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
