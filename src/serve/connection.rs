//! Accepted connections that receive a reply: a small state machine, limited in bytes and time.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use socket2::Socket;

use super::error::ConnectionEnd;
use super::timers::Timers;
use super::token::Token;
use crate::model::{Arrival, Errno, Evidence, Family, Ingress, PathChange};
use crate::reply::{self, Answer, OwnNames, READ_LIMIT};
use crate::sys::{self, Interest, Poller, Readiness, options, packet_info};

/// How long a client may be silent before it receives the text line. An HTTP client sends its request first and
/// immediately.
const SPEAK: Duration = Duration::from_millis(250);

/// How long `take` waits for a request directly after accept, if no other event is pending. Clients that want a reply
/// usually send a request immediately. This saves registering the connection with epoll, which takes three system
/// calls. The kernel rounds the time up to its next tick but one: 4 to 8 ms with 250 ticks per second. Other clients
/// wait during this time.
const SPEAKS_SOON: Duration = Duration::from_micros(300);

/// After a client that did not send immediately, this number of clients is registered without waiting.
const NOT_WAITED_FOR: u32 = 64;

/// Maximum lifetime of a connection.
const LIFETIME: Duration = Duration::from_secs(60);

/// How long to wait for the client to close after the reply, so that a reset does not destroy the reply.
const LINGER: Duration = Duration::from_secs(1);

/// State of a connection after an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It continues.
    Open,
    /// It has ended.
    Closed {
        /// Error to count, if any.
        error: Option<ConnectionEnd>,
        /// Set if later packets arrived on another interface.
        moved: Option<Box<PathChange>>,
    },
}

/// Values for a comparison at the end of a connection, to detect that later packets arrived on another interface.
/// Native IPv6 only: over IPv4 the kernel keeps the interface of the handshake.
fn path_of(arrival: &Arrival) -> Option<Box<PathChange>> {
    (arrival.family == Family::Ipv6 && arrival.ingress.evidence == Evidence::Kernel).then(|| {
        let Arrival { listener, peer, local, ingress, .. } = arrival.clone();
        Box::new(PathChange { listener, peer, local, later: ingress.clone(), ingress })
    })
}

/// Why a connection timed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// The client sent nothing: it receives the text line.
    Speak,
    /// The client is idle, or does not read.
    Idle,
    /// The client has received its reply.
    Linger,
}

/// One of the `max_connections` of a listener, released at the end of the connection.
pub(super) struct Place(pub(super) Arc<AtomicU32>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A newly accepted connection.
pub(super) struct Fresh<'a> {
    pub(super) socket: Socket,
    /// Its slot among the open connections of its listener.
    pub(super) place: Place,
    /// Details of the arrival.
    pub(super) arrival: &'a Arrival,
    /// Whether to describe the arrival; otherwise its bytes are echoed.
    pub(super) described: bool,
    /// Whether no other event is pending.
    pub(super) alone: bool,
    pub(super) idle: Duration,
}

struct Connection {
    socket: Socket,
    _place: Place,
    /// The arrival to describe; if empty, the received bytes are echoed.
    describe: Option<Box<Arrival>>,
    path: Option<Box<PathChange>>,
    input: Vec<u8>,
    read: usize,
    output: Vec<u8>,
    /// Nothing more will be sent after `output`.
    last: bool,
    /// The request was read completely, so closing cannot reset the reply.
    clean: bool,
    closing: bool,
    due: Due,
    deadline: Instant,
    dies: Instant,
    idle: Duration,
    watched: Interest,
}

/// The next action for a connection.
enum Step {
    /// Wait for readiness.
    Wait(Interest),
    /// Everything is sent and this end is closed: wait briefly for the client to close.
    Linger,
    /// It is over.
    Close(Option<ConnectionEnd>),
}

/// The open connections.
#[derive(Default)]
pub(super) struct Connections {
    open: HashMap<u64, Connection>,
    next: u64,
    timers: Timers,
    /// Number of further clients that are registered without waiting, because one did not send immediately.
    not_waited_for: u32,
    names: Arc<OwnNames>,
}

impl Connections {
    /// No connections. `names` are the host names that browsers may use.
    pub(super) fn new(names: Arc<OwnNames>) -> Connections {
        Connections { names, ..Connections::default() }
    }

    /// Starts to serve an accepted connection. Its request has often arrived already, so it is read immediately.
    pub(super) fn open(&mut self, fresh: Fresh<'_>, poller: &Poller, buffer: &mut [u8]) -> Outcome {
        let Fresh { socket, place, arrival, described, alone, idle } = fresh;
        let describe = Some(arrival).filter(|_| described);
        let now = Instant::now();
        let (due, wait) = if describe.is_some() { (Due::Speak, SPEAK.min(idle)) } else { (Due::Idle, idle) };
        let mut connection = Connection {
            socket,
            _place: place,
            describe: None,
            path: path_of(arrival),
            input: Vec::new(),
            read: 0,
            output: Vec::new(),
            last: false,
            clean: false,
            closing: false,
            due,
            deadline: now + wait,
            dies: now + LIFETIME,
            idle,
            watched: Interest::Read,
        };
        let patience = (alone && describe.is_some() && self.not_waited_for == 0).then_some(SPEAKS_SOON);
        let step = connection.readable(buffer, now, describe, patience, &self.names);
        let silent = connection.read == 0 && matches!(step, Step::Wait(_));
        self.not_waited_for =
            if patience.is_some() && silent { NOT_WAITED_FOR } else { self.not_waited_for.saturating_sub(1) };
        match step {
            Step::Close(error) => Outcome::Closed { error, moved: connection.moved() },
            step => {
                if !connection.last {
                    connection.describe = describe.map(|arrival| Box::new(arrival.clone()));
                }
                let interest = if let Step::Wait(interest) = step { interest } else { Interest::Read };
                let id = self.next;
                self.next += 1;
                if poller.add(&connection.socket, Token::Connection(id).key(), interest).is_err() {
                    let error = Some(ConnectionEnd::Unwatched);
                    return Outcome::Closed { error, moved: None };
                }
                connection.watched = interest;
                self.timers.add(id, connection.deadline.min(connection.dies));
                self.open.insert(id, connection);
                Outcome::Open
            }
        }
    }

    /// Continues a connection that is ready.
    pub(super) fn ready(&mut self, id: u64, event: Readiness, poller: &Poller, buffer: &mut [u8]) -> Outcome {
        let Some(connection) = self.open.get_mut(&id) else { return Outcome::Open };
        let now = Instant::now();
        let step = if connection.output.is_empty() && event.readable {
            connection.readable(buffer, now, None, None, &self.names)
        } else {
            connection.writable(now)
        };
        self.apply(id, step, poller)
    }

    /// Handles the next connection that has timed out: sends the text line, or ends it.
    pub(super) fn expire(&mut self, now: Instant, poller: &Poller) -> Option<Outcome> {
        let open = &self.open;
        let id = self
            .timers
            .due(now, |id| open.get(&id).map(|connection| connection.deadline.min(connection.dies)))?;
        let connection = self.open.get_mut(&id)?;
        let step = if connection.dies <= now {
            Step::Close(Some(ConnectionEnd::Lifetime))
        } else {
            match connection.due {
                Due::Speak => match connection.describe.take() {
                    Some(arrival) if connection.input.is_empty() => {
                        connection.answer(reply::line(&arrival), false, now)
                    }
                    // It has started a request: the idle timeout applies.
                    arrival => {
                        connection.describe = arrival;
                        connection.due = Due::Idle;
                        connection.deadline += connection.idle;
                        Step::Wait(Interest::Read)
                    }
                },
                Due::Idle => Step::Close(Some(ConnectionEnd::Idle)),
                Due::Linger => Step::Close(None),
            }
        };
        if let Step::Wait(_) = step {
            // Its entry was removed above.
            self.timers.add(id, connection.deadline.min(connection.dies));
        }
        Some(self.apply(id, step, poller))
    }

    fn apply(&mut self, id: u64, step: Step, poller: &Poller) -> Outcome {
        let Some(connection) = self.open.get_mut(&id) else { return Outcome::Open };
        let error = match step {
            Step::Close(error) => error,
            Step::Wait(_) | Step::Linger => {
                let interest = if let Step::Wait(interest) = step { interest } else { Interest::Read };
                if let Step::Linger = step {
                    self.timers.add(id, connection.deadline.min(connection.dies));
                }
                if connection.watched == interest {
                    return Outcome::Open;
                }
                if poller.change(&connection.socket, Token::Connection(id).key(), interest).is_ok() {
                    connection.watched = interest;
                    return Outcome::Open;
                }
                Some(ConnectionEnd::Unwatched)
            }
        };
        let moved = connection.moved();
        if let Some(connection) = self.open.remove(&id) {
            let _ = poller.remove(&connection.socket);
        }
        Outcome::Closed { error, moved }
    }

    /// The time of the next timeout.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether no connection is open.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes over the connections of a thread that has ended. Their end is not reported to a listener.
    pub(super) fn adopt(&mut self, others: &mut Connections, from: &Poller, poller: &Poller) {
        for (_, connection) in others.open.drain() {
            let _ = from.remove(&connection.socket);
            let id = self.next;
            self.next += 1;
            if poller.add(&connection.socket, Token::Connection(id).key(), connection.watched).is_ok() {
                self.timers.add(id, connection.deadline.min(connection.dies));
                self.open.insert(id, connection);
            }
        }
    }

    /// Ends all connections. Returns their final states.
    pub(super) fn close_all(&mut self, poller: &Poller) -> Vec<Outcome> {
        let end = |(_, mut connection): (u64, Connection)| {
            let _ = poller.remove(&connection.socket);
            Outcome::Closed { error: None, moved: connection.moved() }
        };
        self.open.drain().map(end).collect()
    }
}

impl Connection {
    /// Whether later packets arrived on another interface than the handshake; checked at the end.
    fn moved(&mut self) -> Option<Box<PathChange>> {
        let mut path = self.path.take()?;
        let now = packet_info::ingress_of_connection(&self.socket, true).ok().flatten()?;
        (path.ingress.index != Some(now)).then(|| {
            let name = packet_info::interface_name(&self.socket, now);
            path.later = Ingress { index: Some(now), name, evidence: Evidence::Kernel };
            path
        })
    }

    /// Reads available data once, and replies if it is sufficient. `describe` is the arrival, borrowed. Waits for data
    /// up to `patience`, if set.
    fn readable(
        &mut self,
        buffer: &mut [u8],
        now: Instant,
        describe: Option<&Arrival>,
        patience: Option<Duration>,
        names: &OwnNames,
    ) -> Step {
        let room =
            if self.closing { buffer.len() } else { READ_LIMIT.saturating_sub(self.read).min(buffer.len()) };
        let Some(buffer) = buffer.get_mut(..room).filter(|buffer| !buffer.is_empty()) else {
            return self.finish(now);
        };
        let received = match patience {
            Some(patience) => options::recv_soon(&self.socket, buffer, patience),
            None => options::recv_now(&self.socket, buffer),
        };
        let bytes = match received {
            Ok(0) if self.closing => return Step::Close(None),
            Ok(0) => return self.ended(now, describe),
            Ok(count) => buffer.get(..count).unwrap_or_default(),
            Err(error) if would_block(&error) => return Step::Wait(Interest::Read),
            Err(_) => return Step::Close(Some(ConnectionEnd::Reset)),
        };
        self.read += bytes.len();
        if self.closing {
            // Read and discarded, for a clean close; limited in time.
            return if self.read > 2 * READ_LIMIT { Step::Close(None) } else { Step::Wait(Interest::Read) };
        }
        self.deadline = now + self.idle;
        self.due = Due::Idle;
        let Some(arrival) = describe.or(self.describe.as_deref()) else {
            self.output = bytes.to_vec();
            self.last = self.read >= READ_LIMIT;
            return self.writable(now);
        };
        // The first bytes are usually the whole request: they are then not copied.
        let answer = if self.input.is_empty() {
            reply::describe(bytes, arrival, names)
        } else {
            self.input.extend_from_slice(bytes);
            reply::describe(&self.input, arrival, names)
        };
        match answer {
            Answer::Wait => {
                if self.input.is_empty() {
                    self.input = bytes.to_vec();
                }
                Step::Wait(Interest::Read)
            }
            Answer::Http(response) => self.answer(response, self.read < READ_LIMIT, now),
            Answer::Line(line) => self.answer(line, false, now),
        }
    }

    /// The client will send nothing more: it receives the text line, if it has received nothing yet.
    fn ended(&mut self, now: Instant, describe: Option<&Arrival>) -> Step {
        match describe.or(self.describe.as_deref()) {
            Some(arrival) => self.answer(reply::line(arrival), true, now),
            None => Step::Close(None),
        }
    }

    fn answer(&mut self, bytes: Vec<u8>, clean: bool, now: Instant) -> Step {
        self.output = bytes;
        self.clean = clean;
        self.last = true;
        self.describe = None;
        self.writable(now)
    }

    /// Sends the remaining output.
    fn writable(&mut self, now: Instant) -> Step {
        while !self.output.is_empty() {
            match options::send_now(&self.socket, &self.output, self.last && self.clean) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if would_block(&error) => {
                    self.deadline = self.deadline.max(now + self.idle);
                    self.due = Due::Idle;
                    return Step::Wait(Interest::Write);
                }
                Err(_) => return Step::Close(Some(ConnectionEnd::Reset)),
            }
        }
        if self.last { self.finish(now) } else { Step::Wait(Interest::Read) }
    }

    /// Everything is sent. A connection with unread bytes is not closed immediately, because the resulting reset could
    /// overtake the reply.
    fn finish(&mut self, now: Instant) -> Step {
        if self.clean {
            return Step::Close(None);
        }
        if !self.closing {
            self.closing = true;
            self.due = Due::Linger;
            self.deadline = now + LINGER;
            return if self.socket.shutdown(Shutdown::Write).is_ok() {
                Step::Linger
            } else {
                Step::Close(None)
            };
        }
        Step::Wait(Interest::Read)
    }
}

/// Whether an error means "not now".
pub(super) fn would_block(error: &io::Error) -> bool {
    matches!(sys::errno_of(error), Errno::EAGAIN | Errno::EINTR) || error.kind() == io::ErrorKind::WouldBlock
}
