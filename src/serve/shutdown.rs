//! The end of a socket or of all sockets: waiting connections are accepted, so that every connected client is counted.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::Observer;
use super::served_sockets::Served;
use super::token::Token;
use super::worker::Worker;
use crate::model::{Protocol, SocketView};
use crate::serve::bind::Bound;
use crate::sys::{self, Poller, options, packet_info};

/// Number of sockets that are closed after one check of all queues. A client that connects in between is not counted.
const CLOSED_AT_ONCE: usize = 16;

/// Up to so many listeners, each refuses new connections before its queue is read for the last time.
const FEW: usize = 1024;

/// How long open connections may go on after the end was asked for.
const FAREWELL: Duration = Duration::from_millis(500);

/// How many datagrams of a socket are taken at the end: more than a queue holds, yet a flood does not keep the program alive.
const LAST_DATAGRAMS: u32 = 16_384;

/// How long handshakes may take that are under way at the end.
const HANDSHAKES: Duration = Duration::from_millis(500);

/// How long to wait before it is looked whether they are over.
const HANDSHAKE_REST: Duration = Duration::from_millis(1);

/// How often the queue of a listener is looked at, at the end.
const LAST_ROUNDS: u32 = 64;

impl Worker {
    /// Closes the sockets that `goes` names, after taking what waits in their queues; connections of theirs go on.
    pub(super) fn retire(
        &mut self,
        goes: impl Fn(&Bound) -> bool,
        observer: &mut impl Observer,
    ) -> Vec<SocketView> {
        let mut gone = Vec::new();
        for number in 0..self.served.len() {
            if !self.served.get(number).is_some_and(|served| goes(&served.bound)) {
                continue;
            }
            let _ = self.take_waiting(number, observer);
            if let Some(served) = self.take_out(number) {
                let _ = self.poller.remove(&served.bound.socket);
                gone.push(served.view().clone());
            }
        }
        gone
    }

    /// Takes a socket out; its number may be another one's from here on.
    fn take_out(&mut self, number: usize) -> Option<Served> {
        self.paused.retain(|&paused| paused != number);
        self.served.take(number)
    }

    /// Takes what waits in the queue of a socket.
    pub(super) fn take_waiting(&mut self, number: usize, observer: &mut impl Observer) -> ControlFlow<()> {
        // The socket may have become ready after the last round, and after a change that nothing has noticed yet.
        self.quiet = false;
        // One more attempt for a listener in a pause: its waiting clients would not be counted otherwise.
        if let Some(served) = self.served.get_mut(number) {
            served.resumes = None;
        }
        match self.served.get(number).map(|served| served.bound.spec.protocol) {
            Some(Protocol::Tcp) => self.accept_last(number, observer),
            Some(Protocol::Udp) => {
                let flow = self.receive_some(number, LAST_DATAGRAMS, observer);
                // A datagram tells what was lost before it; nothing tells what was lost after the last one.
                if let Some(served) = self.served.get_mut(number)
                    && let Some(lost) = packet_info::dropped_datagrams(&served.bound.socket)
                {
                    served.count_lost(lost, observer);
                }
                flow
            }
            None => ControlFlow::Continue(()),
        }
    }

    /// Accepts what waits on a listener that is about to be closed. New connections are stopped in the meantime;
    /// otherwise a client that connects between the last check and the close would not be counted. A shared socket
    /// cannot be changed.
    fn accept_last(&mut self, number: usize, observer: &mut impl Observer) -> ControlFlow<()> {
        for round in 0..LAST_ROUNDS {
            let Some(served) = self.served.get_mut(number).filter(|served| !served.given_up) else { break };
            let socket = &served.bound.socket;
            if round == 0 && !served.inherited {
                let _ = options::refuse_new_connections(socket);
            }
            match packet_info::listen_queue(socket) {
                Ok(queue) if queue.queued == 0 => {
                    served.backoff.succeeded();
                    break;
                }
                _ if served.resumes.is_some() => break,
                Err(_) if round > 0 => break,
                _ => {}
            }
            if self.accept_some(number, u32::MAX, observer).is_break() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Lets go of the sockets that `goes` names, which others go on to serve or to close.
    pub(super) fn detach(&mut self, goes: impl Fn(&Bound) -> bool) {
        for number in 0..self.served.len() {
            if self.served.get(number).is_some_and(|served| goes(&served.bound))
                && let Some(served) = self.take_out(number)
            {
                let _ = self.poller.remove(&served.bound.socket);
            }
        }
    }

    /// Accepts the connections that the kernel has accepted already (unless `take_waiting` is false), and closes the
    /// listeners. The poller reports where clients wait, so a socket without waiting clients costs only its close.
    pub(super) fn close(&mut self, observer: &mut impl Observer, take_waiting: bool) {
        let mut taking = take_waiting;
        if taking {
            taking = self.take_unwatched(observer).is_continue();
        }
        if taking && self.served.iter().count() <= FEW {
            taking = self.end_handshakes(observer).is_continue();
        }
        for number in 0..self.served.len() {
            if taking && number % CLOSED_AT_ONCE == 0 {
                taking = self.take_ready(observer).is_continue();
            }
            let Some(served) = self.served.take(number) else { continue };
            self.forget(&served);
            if take_waiting && (served.given_up || served.backoff.is_failing()) {
                self.unaccepted.push(served.bound.spec.listener.clone());
            }
        }
    }

    /// Refuses new connections where that is possible, and takes what waits where the poller does not report it: at a paused
    /// listener, and at one that another thread's poller watches. Datagrams and shared sockets are taken here as well: their peers go
    /// on sending, so the poller would report them for ever.
    fn take_unwatched(&mut self, observer: &mut impl Observer) -> ControlFlow<()> {
        let few = self.served.len() <= FEW;
        for served in self.served.iter() {
            if few && !served.inherited && served.bound.spec.protocol == Protocol::Tcp {
                let _ = options::refuse_new_connections(&served.bound.socket);
            }
        }
        for number in 0..self.served.len() {
            let Some(served) = self.served.get(number) else { continue };
            let shared = served.inherited || served.bound.spec.protocol == Protocol::Udp;
            if shared {
                let _ = self.poller.remove(&served.bound.socket);
            }
            if shared || served.resumes.is_some() || served.backoff.is_failing() || !self.crew.is_one() {
                self.take_waiting(number, observer)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Waits for handshakes that had begun when new connections were refused, and accepts those clients: for some of them `connect()`
    /// has returned already. A client whose handshake takes longer than [`HANDSHAKES`] is reset when the listener is closed.
    fn end_handshakes(&mut self, observer: &mut impl Observer) -> ControlFlow<()> {
        let own = self.served.iter().filter(|served| !served.inherited && served.same_netns);
        let ports: HashSet<u16> = own
            .filter(|served| served.bound.spec.protocol == Protocol::Tcp)
            .map(|served| served.bound.view.port)
            .collect();
        if ports.is_empty() {
            return ControlFlow::Continue(());
        }
        // A SYN that the kernel was processing when new ones were refused may have no handshake yet that the kernel lists.
        if !options::wait_for_packets_in_process() {
            std::thread::sleep(HANDSHAKE_REST);
        }
        let deadline = Instant::now() + HANDSHAKES;
        while sys::handshakes(&|port| ports.contains(&port)).is_some_and(|under_way| under_way > 0)
            && Instant::now() < deadline
        {
            self.take_ready(observer)?;
            std::thread::sleep(HANDSHAKE_REST);
        }
        // The kernel puts a connection in the queue before it tells the poller (`tcp_child_process()`), so the queues are asked.
        (0..self.served.len()).try_for_each(|number| {
            let watched = self.served.get(number).is_some_and(|served| {
                served.bound.spec.protocol == Protocol::Tcp && !served.inherited && served.resumes.is_none()
            });
            if watched { self.accept_last(number, observer) } else { ControlFlow::Continue(()) }
        })
    }

    /// Accepts the waiting clients of all watched sockets.
    fn take_ready(&mut self, observer: &mut impl Observer) -> ControlFlow<()> {
        let mut ready = Vec::new();
        for _ in 0..LAST_ROUNDS as usize + self.served.len() / Poller::BATCH {
            let Ok(full) = self.poller.wait(&mut ready, Some(Duration::ZERO)) else {
                return (0..self.served.len()).try_for_each(|number| self.take_waiting(number, observer));
            };
            let mut all = !full;
            for event in &ready {
                match Token::of(event.key) {
                    Token::Socket(number) => {
                        all = false;
                        self.take_waiting(number, observer)?;
                    }
                    Token::Connection(id) => {
                        let outcome = self.connections.ready(id, *event, &self.poller, &mut self.buffer);
                        self.settle(outcome, observer);
                    }
                    Token::Signals | Token::Monitor => {}
                }
            }
            if all {
                break;
            }
        }
        ControlFlow::Continue(())
    }

    /// Stops watching a socket that is about to be closed, by this thread or another.
    fn forget(&self, served: &Served) {
        if served.inherited {
            // The program that passed the socket may keep it open.
            let _ = self.poller.remove(&served.bound.socket);
        } else if !served.given_up {
            self.poller.forget(&served.bound.socket);
        }
    }

    /// Stops watching all sockets, which the first thread is about to close.
    pub(super) fn forget_all(&mut self) {
        for served in self.served.take_all() {
            self.forget(&served);
        }
    }

    /// Lets open connections finish for half a second, and ends those that do not.
    ///
    /// # Errors
    /// When the poller fails.
    pub(super) fn drain_connections(&mut self, observer: &mut impl Observer) -> io::Result<()> {
        let deadline = Instant::now() + FAREWELL;
        let mut ready = Vec::new();
        while !self.connections.is_empty() {
            let now = Instant::now();
            if now >= deadline {
                break;
            }
            let until = self.connections.next_deadline().map_or(deadline, |next| next.min(deadline));
            self.poller.wait(&mut ready, Some(until.saturating_duration_since(now)))?;
            for event in &ready {
                if let Token::Connection(id) = Token::of(event.key) {
                    let outcome = self.connections.ready(id, *event, &self.poller, &mut self.buffer);
                    self.settle(outcome, observer);
                }
            }
            self.expire(Instant::now(), observer);
            if ready.iter().any(|event| event.key == Token::Monitor.key()) {
                let _ = self.neighbourhood.refresh_if_changed(true);
            }
        }
        for outcome in self.connections.close_all(&self.poller) {
            self.settle(outcome, observer);
        }
        Ok(())
    }
}
