//! State shared by the threads of a run: the sockets to watch, the number of arrivals still allowed, and the end.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use socket2::Socket;

use crate::sys::{Interest, Poller, Waker};

/// Number of spin iterations before a thread blocks on the accept lock: 10 to 100 us; one critical section takes 30 us.
const LOOKS: u32 = 2_000;

/// The threads of a run.
#[derive(Default)]
pub(super) struct WorkerGroup {
    accepting: Mutex<()>,
    quota: Option<Quota>,
    stopped: AtomicBool,
    /// One poller for each thread; empty if there is only one thread.
    wakers: Vec<Waker>,
}

/// An exact limit on the number of arrivals. A thread reserves an arrival and then commits or releases it.
struct Quota {
    /// Number of further arrivals that may be reserved.
    to_begin: AtomicU64,
    /// Number of further arrivals that will be reported.
    to_tell: AtomicU64,
}

impl WorkerGroup {
    /// Number of connections that one of several threads accepts before another does. Two concurrent accepts on one
    /// listener block each other in the kernel (`lock_sock()`). After several connections, the other threads are still
    /// handling theirs.
    pub(super) const AT_A_TIME: u32 = 8;

    /// The threads of these pollers, which accept at most `count` arrivals together.
    ///
    /// # Errors
    /// If a poller cannot be woken.
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

    /// The lock for accept, held as long as the guard exists.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        for _ in 0..LOOKS {
            if let Ok(turn) = self.accepting.try_lock() {
                return turn;
            }
            std::hint::spin_loop();
        }
        self.accepting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to watch a socket; one of the watching threads wakes up when it is ready.
    pub(super) fn watch(&self, poller: &Poller, socket: &Socket, key: u64) -> io::Result<()> {
        if self.is_one() {
            poller.add(socket, key, Interest::Read)
        } else {
            poller.add_among_others(socket, key)
        }
    }

    /// Whether one more arrival may be accepted. [`WorkerGroup::commit`] or [`WorkerGroup::release`] must follow.
    pub(super) fn try_reserve(&self) -> bool {
        self.quota.as_ref().is_none_or(|quota| {
            quota
                .to_begin
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
        })
    }

    /// An arrival was accepted and reported. Returns whether it was the last one.
    pub(super) fn commit(&self) -> bool {
        self.quota.as_ref().is_some_and(|quota| quota.to_tell.fetch_sub(1, Ordering::Relaxed) == 1)
    }

    /// There was no arrival.
    pub(super) fn release(&self) {
        if let Some(quota) = &self.quota {
            quota.to_begin.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether all arrivals were accepted and reported.
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

    /// Allows the loops to run again.
    pub(super) fn go_on(&self) {
        self.stopped.store(false, Ordering::Release);
    }

    /// Whether the loops must end.
    pub(super) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}
