//! Connections: accepted, attributed, reported and answered.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::Observer;
use super::connection::{Fresh, Place};
use super::error::ServeError;
use super::interface_names::Period;
use super::token::Token;
use super::worker::{LONG_AGO, Order, TURN, Worker, bound_address};
use super::worker_group::WorkerGroup;
use crate::attribute::{Raw, attribute_into};
use crate::model::socket::Reply;
use crate::model::{Evidence, Protocol};
use crate::sys::{self, options, packet_info};

/// After one connection was found alone in its queue, so many more are taken without a look at the queue: where they come one
/// by one, that look costs a system call each.
const UNASKED: u32 = 15;

/// How many connections are accepted before they are attributed. In between, one check finds out whether a name has changed.
const AT_ONCE: u32 = 16;

/// The same while names change: the sooner a change is noticed, the fewer arrivals may be older.
const AT_ONCE_WHEN_RESTLESS: u32 = 2;

/// A connection that waited so long is reported with the time at which it arrived, else with that at which it was accepted.
const REPORTED_AGE: Duration = Duration::from_millis(10);

impl Worker {
    /// Accepts as many connections as wait, at most `most`. An accept that finds nothing costs more than asking for the
    /// queue's length, so that is asked first where the system tells.
    pub(super) fn accept_some(
        &mut self,
        number: usize,
        most: u32,
        observer: &mut impl Observer,
    ) -> ControlFlow<()> {
        let epoch = self.neighbourhood.epoch();
        let order = if self.order.is_empty() { None } else { self.order.remove(&number) };
        let Some(served) = self.served.get_mut(number) else { return ControlFlow::Continue(()) };
        if served.given_up || served.resumes.is_some() {
            return ControlFlow::Continue(());
        }
        let settled = served.epoch == epoch || order == Some(Order::AllAfter);
        let waiting = if served.unasked > 0 && most == TURN && settled {
            served.unasked -= 1;
            1
        } else {
            let queue = packet_info::listen_queue(&served.bound.socket);
            // At the end the queue was made short on purpose.
            if let Ok(queue) = queue.as_ref()
                && queue.is_pressed()
                && most == TURN
            {
                observer.queue_filled(&served.bound.spec.listener, queue.queued, queue.limit);
            }
            if !settled {
                // These may have arrived before the name of their interface changed; whatever comes later has not.
                served.suspects = queue.as_ref().map_or(u32::MAX, |queue| queue.queued);
            }
            let waiting = queue.map_or(1, |queue| queue.queued.max(1));
            served.unasked = if waiting == 1 { UNASKED } else { 0 };
            waiting
        };
        if order == Some(Order::AllAfter) {
            served.suspects = 0;
        }
        served.epoch = epoch;
        let alone = waiting == 1 && !self.busy;
        let mut first_before = match order {
            Some(Order::FirstBefore(change)) => Some(change),
            _ => None,
        };
        let behind = self.late || waiting > most;
        let mut left = waiting.min(most);
        let mut is_first = true;
        while left > 0 {
            left = self.accept_turn(number, left, observer);
            // Now every change is noticed that came before the last of these.
            self.neighbourhood.note_changes();
            if self.neighbourhood.epoch() != epoch {
                left = 0;
                // The socket was ready in a round in which nothing had changed yet.
                if is_first && self.quiet && !self.previous.contains(&Token::Socket(number).key()) {
                    first_before = self.neighbourhood.last_change().map(|change| change.after);
                }
                self.mark_suspects();
            }
            let taken = self.take_fresh(number, epoch, first_before.take(), alone, behind, observer);
            if taken.is_break() {
                return ControlFlow::Break(());
            }
            is_first = false;
        }
        ControlFlow::Continue(())
    }

    /// Accepts some connections of `left`; several threads do so by turns, and each accepts some while the others look at theirs.
    /// Returns how many are left.
    fn accept_turn(&mut self, number: usize, left: u32, observer: &mut impl Observer) -> u32 {
        if self.crew.is_one() {
            let restless = self.neighbourhood.is_restless(self.clock.last());
            let some = left.min(if restless { AT_ONCE_WHEN_RESTLESS } else { AT_ONCE });
            return if self.accept_up_to(number, some, observer) { left - some } else { 0 };
        }
        let crew = Arc::clone(&self.crew);
        let _turn = crew.turn();
        let some = left.min(WorkerGroup::AT_A_TIME);
        if self.accept_up_to(number, some, observer) { left - some } else { 0 }
    }

    /// Returns whether it is worth while to go on.
    fn accept_up_to(&mut self, number: usize, most: u32, observer: &mut impl Observer) -> bool {
        for _ in 0..most {
            match self.accept(number, observer) {
                ControlFlow::Continue(accepted) => self.fresh.extend(accepted),
                ControlFlow::Break(()) => return false,
            }
        }
        true
    }

    /// Attributes what was accepted, and begins to answer it. `epoch` is that of before it was accepted; where the first one came before
    /// the last change, `first_before` is the moment after which that change happened.
    fn take_fresh(
        &mut self,
        number: usize,
        epoch: u64,
        mut first_before: Option<Instant>,
        alone: bool,
        behind: bool,
        observer: &mut impl Observer,
    ) -> ControlFlow<()> {
        let changed = self.neighbourhood.epoch() != epoch;
        let mut fresh = std::mem::take(&mut self.fresh);
        // They are reported in the order of the queue: none of these is older than the first.
        let age = |socket| packet_info::age_of_connection(socket).filter(|(least, _)| *least >= REPORTED_AGE);
        let waited = fresh.first().filter(|_| behind).and_then(|(socket, _)| age(socket));
        let at = waited.and_then(|(least, _)| SystemTime::now().checked_sub(least));
        let mut flow = ControlFlow::Continue(());
        for (socket, peer) in fresh.drain(..) {
            let Some(served) = self.served.get_mut(number) else { break };
            // After a change, the suspects are those that are still in the queue.
            let suspect = changed || served.suspects > 0;
            served.suspects = served.suspects.saturating_sub(u32::from(!changed));
            let mut arrival = suspect.then(|| period_of(&socket));
            if let Some(change) = first_before.take() {
                let arrival = arrival.get_or_insert_with(|| period_of(&socket));
                arrival.by = arrival.by.min(change.checked_sub(Duration::from_nanos(1)).unwrap_or(change));
            }
            self.take(number, (socket, peer), (arrival, at), alone, observer);
            if self.crew.commit() {
                flow = ControlFlow::Break(());
                break;
            }
        }
        fresh.clear();
        self.fresh = fresh;
        flow
    }

    /// Accepts one connection; none when that one failed. `Break` when it is not worth while to go on.
    #[inline(always)]
    fn accept(
        &mut self,
        number: usize,
        observer: &mut impl Observer,
    ) -> ControlFlow<(), Option<(socket2::Socket, SocketAddr)>> {
        let Some(served) = self.served.get_mut(number) else { return ControlFlow::Break(()) };
        if !self.crew.try_reserve() {
            return ControlFlow::Break(());
        }
        let error = match options::accept(&served.bound.socket) {
            Ok((socket, peer)) => {
                served.backoff.succeeded();
                if let Some(peer) = peer.as_socket() {
                    return ControlFlow::Continue(Some((socket, peer)));
                }
                observer.error(&ServeError::UnknownPeer, 1);
                self.crew.release();
                return ControlFlow::Continue(None);
            }
            Err(error) => error,
        };
        self.crew.release();
        if self.failed(number, ServeError::Accept, &error, observer) {
            ControlFlow::Continue(None)
        } else {
            ControlFlow::Break(())
        }
    }

    /// Attributes and reports one accepted connection, and begins to answer it. It arrived at a moment within the period, where that
    /// matters; `at` is the time to tell, if not now. `alone` is whether nothing else is to be done, as far as is known.
    fn take(
        &mut self,
        number: usize,
        (socket, peer): (socket2::Socket, SocketAddr),
        (arrived, at): (Option<Period>, Option<SystemTime>),
        alone: bool,
        observer: &mut impl Observer,
    ) {
        let Some(served) = self.served.get_mut(number) else { return };
        let spec = &served.bound.spec;
        let native_ipv6 = matches!(peer, SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none());
        let origin = packet_info::origin_of_connection(&socket, native_ipv6).unwrap_or_else(|error| {
            observer.error(&ServeError::Ingress(sys::errno_of(&error)), 1);
            None
        });
        // A socket bound to one address has no other, unless TPROXY steers foreign ones to it (IP_TRANSPARENT; not known of an
        // inherited socket): only those and wildcards need to ask, and over IPv4 the kernel has reported it already.
        let bound_to = bound_address(&served.bound);
        let unsure = spec.transparent || served.inherited;
        let local = if unsure || bound_to.ip().to_canonical().is_unspecified() {
            match origin.and_then(|(_, local)| local) {
                Some(local) if !unsure => SocketAddr::new(local.into(), bound_to.port()),
                _ => socket.local_addr().ok().and_then(|local| local.as_socket()).unwrap_or(bound_to),
            }
        } else {
            bound_to
        };
        if let Some((index, _)) = origin {
            self.neighbourhood.learn(&socket, index, served.same_netns, arrived);
        }
        let (kernel, sure) = origin.map(|(index, _)| self.neighbourhood.ingress(index)).unzip();
        let book = self.neighbourhood.book(served.same_netns);
        let raw = Raw { listener: &spec.listener, protocol: Protocol::Tcp, peer, local, kernel };
        attribute_into(&mut self.arrival, &raw, book);
        if sure == Some(false) {
            self.arrival.ingress.evidence = Evidence::Unknown;
        }
        let one_more = |open: u32| (open < spec.max_connections).then_some(open + 1);
        let room = match spec.reply {
            // It is closed at once, so it takes no place.
            Reply::None => served.open.load(Ordering::Relaxed) < spec.max_connections,
            _ => served.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok(),
        };
        if !room {
            observer.over_limit(&self.arrival, at);
            return;
        }
        observer.arrived(&self.arrival, None, at);
        if spec.reply == Reply::None {
            return;
        }
        if alone {
            // The first bytes of a connection may be waited for. Output without a reader is reported before the next
            // wait.
            let _ = observer.idle(Instant::now());
        }
        let idle = spec.idle_timeout;
        let (arrival, described) = (&self.arrival, spec.reply == Reply::Describe);
        let place = Place(Arc::clone(&served.open));
        let fresh = Fresh { socket, place, arrival, described, alone, idle };
        let outcome = self.connections.open(fresh, &self.poller, &mut self.buffer);
        self.settle(outcome, observer);
    }
}

/// When a connection that was just accepted has arrived.
fn period_of(socket: &socket2::Socket) -> Period {
    let now = Instant::now();
    let (least, most) = packet_info::age_of_connection(socket).unwrap_or((Duration::ZERO, Duration::MAX));
    // What is not known may be as old as anything that is known.
    let after = now.checked_sub(most).or_else(|| now.checked_sub(LONG_AGO)).unwrap_or(now);
    Period { after, by: now.checked_sub(least).unwrap_or(now) }
}
