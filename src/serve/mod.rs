//! Accepting: readiness loops over all sockets, one for each thread. They take connections and datagrams, ask the kernel where
//! those came in, and answer them; an [`Observer`] for each thread hears of everything.

mod backoff;
pub mod bind;
mod connection;
mod error;
mod interface_names;
mod network_changes;
mod network_view;
mod reply_limit;
mod served_sockets;
mod shutdown;
mod tcp;
mod timers;
mod token;
mod udp;
mod wall_clock;
mod worker;
mod worker_group;

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Instant, SystemTime};

use crate::model::{Arrival, Change, FamilyExposure, PathChange, Protocol, SocketView};
use crate::reply::OwnNames;
use crate::serve::bind::Bound;
use crate::sys::{Monitor, Poller, Signals};

pub use error::{ConnectionEnd, ServeError};
pub use network_view::InitialNetwork;
use network_view::{NetworkView, Seen};
use token::Token;
use worker::{Limits, Worker};
use worker_group::WorkerGroup;

/// Hears of everything the loop does, in the order in which it happens.
pub trait Observer {
    /// A connection, or a datagram with its length in bytes and whether only its beginning was read. It arrived `at` this time, or just
    /// now.
    fn arrived(&mut self, arrival: &Arrival, datagram: Option<(usize, bool)>, at: Option<SystemTime>);
    /// A connection that is closed at once: its listener has `max_connections` open ones. It is reported only here.
    fn over_limit(&mut self, arrival: &Arrival, at: Option<SystemTime>);
    /// The accept queue of a listener is full or nearly so: `length` connections wait, and `limit` may.
    fn queue_filled(&mut self, _listener: &str, _length: u32, _limit: u32) {}
    /// `count` errors of a kind, such as `accept EMFILE`.
    fn error(&mut self, error: &ServeError, count: u64);
    /// The host's network changed. `lost` are the sockets that can no longer be reached, `found` those that can be
    /// reached again, as listener and socket.
    fn network_changed(&mut self, change: &Change, lost: &[&SocketView], found: &[&SocketView]);
    /// More hosts can reach these sockets than was reported before. Each comes with the exposure that was reported.
    fn exposure_changed(&mut self, _sockets: &[(&SocketView, FamilyExposure)]) {}
    /// A connection ended whose later packets came in elsewhere than its handshake.
    fn path_changed(&mut self, _change: PathChange) {}
    /// The loop is about to wait at the moment `now`. `Break` ends it; else it waits no longer than until the moment that is
    /// returned, if any, and asks again.
    fn idle(&mut self, now: Instant) -> ControlFlow<(), Option<Instant>>;
    /// SIGHUP arrived: the output file is to be opened again. `Break` ends the loop, as a signal that asks for the end does.
    fn hung_up(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
    /// The loop ends, or waits for open connections to end: what was held back is reported now.
    fn pauses(&mut self) {}
}

/// A socket to serve.
pub struct Endpoint {
    /// The open socket with what was asked of it.
    pub bound: Bound,
    /// Whether another program handed it over. It may live in another network namespace.
    pub inherited: bool,
}

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A signal asked for it.
    Signal,
    /// The time was up.
    Deadline,
    /// The requested number of arrivals was reported.
    Count,
    /// The observer asked for it.
    Observer,
    /// The network changed, and [`Acceptor::stop_on_change`] was asked for. The run may go on.
    Changed,
    /// No socket is left that works.
    NothingLeft,
    /// Another thread ended, and tells why.
    Stopped,
}

/// Takes what arrives at its sockets.
///
/// Datagrams and changes of the network are the first thread's. Connections are taken by whichever thread is free: what one
/// thread tells is in order, and the lines of two may be a batch apart.
pub struct Acceptor {
    first: Worker,
    others: Vec<Worker>,
    crew: Arc<WorkerGroup>,
}

impl Acceptor {
    /// Takes over the sockets, for so many threads and at most `count` arrivals. The network is read again unless what was
    /// `read` before still holds.
    ///
    /// # Errors
    /// When no poller can be made or a socket cannot be watched.
    pub fn new(
        endpoints: Vec<Endpoint>,
        threads: usize,
        count: Option<u64>,
        read: Option<InitialNetwork>,
    ) -> io::Result<Acceptor> {
        let mut pollers = (0..threads.max(1)).map(|_| Poller::new()).collect::<io::Result<Vec<_>>>()?;
        let crew = Arc::new(WorkerGroup::new(&mut pollers, count)?);
        // All of them listen for changes before it is asked whether what was read still holds.
        let monitors: Vec<_> = (1..pollers.len()).map(|_| Monitor::new().ok()).collect();
        let (first, seen) = Seen::now(read);
        let monitors = std::iter::once(first).chain(monitors);
        let names = Arc::new(OwnNames::new(seen.as_ref().and_then(Seen::host_name)));
        let mut workers = pollers.into_iter().zip(monitors).enumerate().map(|(number, (poller, monitor))| {
            let neighbourhood = NetworkView::new(&poller, Token::Monitor.key(), monitor, seen.as_ref());
            Worker::new(poller, Arc::clone(&crew), number == 0, neighbourhood, Arc::clone(&names))
        });
        let Some(first) = workers.next() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let others = workers.collect();
        let mut acceptor = Acceptor { first, others, crew };
        for endpoint in endpoints {
            acceptor.add(endpoint)?;
        }
        Ok(acceptor)
    }

    /// Serves one more socket.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn add(&mut self, Endpoint { bound, inherited }: Endpoint) -> io::Result<()> {
        let (bound, open) = (Arc::new(bound), Arc::new(AtomicU32::new(0)));
        if bound.spec.protocol == Protocol::Tcp {
            for other in &mut self.others {
                other.add(Arc::clone(&bound), inherited, Arc::clone(&open))?;
            }
        }
        self.first.add(bound, inherited, open)
    }

    /// Closes the sockets that `goes` names, after taking what waits in their queues; connections of theirs go on.
    pub fn retire(&mut self, goes: impl Fn(&Bound) -> bool, observer: &mut impl Observer) -> Vec<SocketView> {
        for other in &mut self.others {
            other.detach(&goes);
        }
        self.first.retire(goes, observer)
    }

    /// Whether a change of the network ends the run with [`End::Changed`].
    pub fn stop_on_change(&mut self, stops: bool) {
        self.first.stop_on_change(stops);
    }

    /// Serves until a signal, the deadline, the count or an observer ends it. `observers` are those of the other threads.
    ///
    /// # Errors
    /// When a poller fails or a thread cannot be started; single sockets and connections are counted, not fatal.
    pub fn run<O: Observer + Send>(
        &mut self,
        observer: &mut O,
        observers: &mut [O],
        signals: &Signals,
        deadline: Option<Instant>,
    ) -> io::Result<End> {
        let wakes = signals.watch(&self.first.poller, Token::Signals.key())?;
        let limits = Limits { signals, wakes, deadline };
        let end = self.run_all(observer, observers, &limits);
        signals.unwatch(&self.first.poller);
        end
    }

    fn run_all<O: Observer + Send>(
        &mut self,
        observer: &mut O,
        observers: &mut [O],
        limits: &Limits<'_>,
    ) -> io::Result<End> {
        self.crew.go_on();
        let (first, crew) = (&mut self.first, &*self.crew);
        std::thread::scope(|scope| {
            // However this thread ends, the others must.
            let stop = Stop(crew);
            let mut handles = Vec::new();
            for (worker, observer) in self.others.iter_mut().zip(observers) {
                let thread = std::thread::Builder::new().name("accept".into());
                handles.push(thread.spawn_scoped(scope, move || {
                    let stop = Stop(crew);
                    let end = worker.serve(observer, None);
                    if matches!(end, Ok(End::NothingLeft)) {
                        // The first thread sees that too, and may have datagrams to receive.
                        std::mem::forget(stop);
                    }
                    end
                })?);
            }
            let mut end = first.serve(observer, Some(limits));
            drop(stop);
            for handle in handles {
                match handle.join() {
                    Ok(Ok(End::Stopped | End::NothingLeft)) => {}
                    Ok(other) if matches!(end, Ok(End::Stopped)) || other.is_err() => end = other,
                    Ok(_) => {}
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            end
        })
    }

    /// Ends in an orderly way: takes the connections that the kernel has accepted already (unless `take_waiting` is false:
    /// enough were counted), closes the listeners, and lets open connections finish for half a second.
    ///
    /// # Errors
    /// When the poller fails.
    pub fn close(&mut self, observer: &mut impl Observer, take_waiting: bool) -> io::Result<()> {
        for other in &mut self.others {
            other.forget_all();
        }
        self.first.close(observer, take_waiting);
        observer.pauses();
        for other in &mut self.others {
            self.first.connections.adopt(&mut other.connections, &other.poller, &self.first.poller);
        }
        self.first.drain_connections(observer)
    }

    /// After [`Acceptor::close`]: listeners that could not accept all waiting clients, who are not counted.
    #[must_use]
    pub fn unaccepted(&self) -> &[String] {
        &self.first.unaccepted
    }
}

/// Ends the loops of all threads when it goes, in a panic too.
struct Stop<'a>(&'a WorkerGroup);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
