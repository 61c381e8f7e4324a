//! What the threads of a run share: the sockets to watch, how many arrivals may still be taken, and the end.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use socket2::Socket;

use crate::sys::{Interest, Poller, Waker};

/// How often to look whether it is one's turn before falling asleep over it: some 10 to 100 us, as
/// processors go; a turn takes 30.
const LOOKS: u32 = 2_000;

/// The threads of a run.
#[derive(Default)]
pub(super) struct WorkerGroup {
    accepting: Mutex<()>,
    quota: Option<Quota>,
    stopped: AtomicBool,
    /// One for each thread; none when there is one thread only.
    wakers: Vec<Waker>,
}

/// A number of arrivals that is neither missed nor exceeded. Whoever may take one says afterwards whether it did.
struct Quota {
    /// How many more may be begun.
    to_begin: AtomicU64,
    /// How many more are to be told.
    to_tell: AtomicU64,
}

impl WorkerGroup {
    /// How many connections one of several threads accepts before another does. Two accepts at one listener wait for each other in
    /// the kernel (`lock_sock()`), asleep; a turn of several is over before the others are done with theirs.
    pub(super) const AT_A_TIME: u32 = 8;

    /// The threads of these pollers, which take at most `count` arrivals together.
    ///
    /// # Errors
    /// When a poller cannot be woken.
    pub(super) fn new(pollers: &mut [Poller], count: Option<u64>) -> io::Result<WorkerGroup> {
        let alone = pollers.len() < 2;
        Ok(WorkerGroup {
            accepting: Mutex::new(()),
            quota: count.map(|count| Quota { to_begin: count.into(), to_tell: count.into() }),
            stopped: AtomicBool::new(false),
            wakers: if alone {
                Vec::new()
            } else {
                pollers.iter_mut().map(Poller::waker).collect::<io::Result<_>>()?
            },
        })
    }

    /// Whether there is one thread only.
    pub(super) fn is_one(&self) -> bool {
        self.wakers.is_empty()
    }

    /// The turn to accept, as long as the guard lives.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        for _ in 0..LOOKS {
            if let Ok(turn) = self.accepting.try_lock() {
                return turn;
            }
            std::hint::spin_loop();
        }
        self.accepting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to watch a socket; one of the threads that do so is woken when it is ready.
    pub(super) fn watch(&self, poller: &Poller, socket: &Socket, key: u64) -> io::Result<()> {
        if self.is_one() {
            poller.add(socket, key, Interest::Read)
        } else {
            poller.add_among_others(socket, key)
        }
    }

    /// Whether one more arrival may be taken. Then [`WorkerGroup::commit`] or [`WorkerGroup::release`] must follow.
    pub(super) fn try_reserve(&self) -> bool {
        self.quota.as_ref().is_none_or(|quota| {
            quota
                .to_begin
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
        })
    }

    /// One was taken and told. Returns whether it was the last.
    pub(super) fn commit(&self) -> bool {
        self.quota.as_ref().is_some_and(|quota| quota.to_tell.fetch_sub(1, Ordering::Relaxed) == 1)
    }

    /// None was there after all.
    pub(super) fn release(&self) {
        if let Some(quota) = &self.quota {
            quota.to_begin.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether all were taken and told.
    pub(super) fn counted_all(&self) -> bool {
        self.quota.as_ref().is_some_and(|quota| quota.to_tell.load(Ordering::Relaxed) == 0)
    }

    /// Ends the loops of all threads.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        for waker in &self.wakers {
            waker.wake();
        }
    }

    /// The loops may run again.
    pub(super) fn go_on(&self) {
        self.stopped.store(false, Ordering::Release);
    }

    /// Whether the loops are to end.
    pub(super) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}
