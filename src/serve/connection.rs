//! Accepted connections that are answered: a small state machine, bounded in bytes and in time.

use std::collections::HashMap;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use socket2::Socket;

use super::timers::Timers;
use super::worker::{connection_key, would_block};
use crate::model::{Arrival, Evidence, Family, Ingress, PathChange};
use crate::reply::{self, Answer, OwnNames, READ_LIMIT};
use crate::sys::{Interest, Poller, Readiness, options, packet_info};

/// How long a client may stay silent before it gets the line: one that speaks HTTP speaks first and at once.
const SPEAK: Duration = Duration::from_millis(250);

/// How long to wait for the first words of a client that comes alone, while nothing else is to be done. Who connects to ask
/// asks at once; reading then saves watching the connection, which is three system calls. It is the least there is: the kernel waits for
/// its next tick but one, 4 to 8 ms where it has 250 of them a second. Others wait meanwhile.
const SPEAKS_SOON: Duration = Duration::from_micros(300);

/// After a client that did not speak so soon, none of so many is waited for.
const NOT_WAITED_FOR: u32 = 64;

/// How long a connection may live, however busy it is.
const LIFETIME: Duration = Duration::from_secs(60);

/// How long to wait for the client's end after ours, so that our answer is not destroyed by a reset.
const LINGER: Duration = Duration::from_secs(1);

/// What became of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It goes on.
    Open,
    /// It is over.
    Closed {
        /// What to count it as, when it did not end well.
        error: Option<&'static str>,
        /// Set when its later packets came in elsewhere.
        moved: Option<Box<PathChange>>,
    },
}

/// What to compare with at the end of a connection, so that it can be told when its later packets took another way. Native IPv6
/// only: over IPv4 the kernel keeps what it noted in the handshake.
fn path_of(arrival: &Arrival) -> Option<Box<PathChange>> {
    (arrival.family == Family::Ipv6 && arrival.ingress.evidence == Evidence::Kernel).then(|| {
        let Arrival { listener, peer, local, ingress, .. } = arrival.clone();
        Box::new(PathChange { listener, peer, local, later: ingress.clone(), ingress })
    })
}

/// Why a connection's time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// It has not spoken: it gets the line.
    Speak,
    /// It is silent, or does not read.
    Idle,
    /// It has had its answer.
    Linger,
}

/// A place among the `max_connections` of a listener, which is free again when the connection is over.
pub(super) struct Place(pub(super) Arc<AtomicU32>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that was just accepted.
pub(super) struct Fresh<'a> {
    pub(super) socket: Socket,
    /// Its place among the open connections of its listener.
    pub(super) place: Place,
    /// How it arrived.
    pub(super) arrival: &'a Arrival,
    /// That is to be described; else its bytes are echoed.
    pub(super) described: bool,
    /// Nothing else is to be done, as far as is known.
    pub(super) alone: bool,
    pub(super) idle: Duration,
}

struct Connection {
    socket: Socket,
    _place: Place,
    /// How it arrived, when it is to be described; else its bytes are echoed.
    describe: Option<Box<Arrival>>,
    path: Option<Box<PathChange>>,
    input: Vec<u8>,
    read: usize,
    output: Vec<u8>,
    /// Nothing more will be sent behind `output`.
    last: bool,
    /// The request was read whole, so closing cannot reset the answer.
    clean: bool,
    closing: bool,
    due: Due,
    deadline: Instant,
    dies: Instant,
    idle: Duration,
    watched: Interest,
}

/// What to do next with a connection.
enum Step {
    /// Wait for readiness.
    Wait(Interest),
    /// Everything is sent and our end is closed: wait for the client's, not for long.
    Linger,
    /// It is over.
    Close(Option<&'static str>),
}

/// The open connections.
#[derive(Default)]
pub(super) struct Connections {
    open: HashMap<u64, Connection>,
    next: u64,
    timers: Timers,
    /// How many are not waited for, since one has not spoken soon.
    not_waited_for: u32,
    names: Arc<OwnNames>,
}

impl Connections {
    /// None yet. `names` are what a browser may call this host.
    pub(super) fn new(names: Arc<OwnNames>) -> Connections {
        Connections { names, ..Connections::default() }
    }

    /// Begins to answer an accepted connection. Its bytes are often there already, so they are tried for at once.
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
                if poller.add(&connection.socket, connection_key(id), interest).is_err() {
                    let error = Some("connection could not be watched");
                    return Outcome::Closed { error, moved: None };
                }
                connection.watched = interest;
                self.timers.add(id, connection.deadline.min(connection.dies));
                self.open.insert(id, connection);
                Outcome::Open
            }
        }
    }

    /// Goes on with a connection that is ready.
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

    /// Ends, or gives the line to, the next connection whose time is over.
    pub(super) fn expire(&mut self, now: Instant, poller: &Poller) -> Option<Outcome> {
        let open = &self.open;
        let id = self
            .timers
            .due(now, |id| open.get(&id).map(|connection| connection.deadline.min(connection.dies)))?;
        let connection = self.open.get_mut(&id)?;
        let step = if connection.dies <= now {
            Step::Close(Some("connection at its lifetime limit"))
        } else {
            match connection.due {
                Due::Speak => match connection.describe.take() {
                    Some(arrival) if connection.input.is_empty() => {
                        connection.answer(reply::line(&arrival), false, now)
                    }
                    // It has begun a request: it may take the idle time.
                    arrival => {
                        connection.describe = arrival;
                        connection.due = Due::Idle;
                        connection.deadline += connection.idle;
                        Step::Wait(Interest::Read)
                    }
                },
                Due::Idle => Step::Close(Some("connection idle")),
                Due::Linger => Step::Close(None),
            }
        };
        if let Step::Wait(_) = step {
            // Its entry was taken out above.
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
                if poller.change(&connection.socket, connection_key(id), interest).is_ok() {
                    connection.watched = interest;
                    return Outcome::Open;
                }
                Some("connection could not be watched")
            }
        };
        let moved = connection.moved();
        if let Some(connection) = self.open.remove(&id) {
            let _ = poller.remove(&connection.socket);
        }
        Outcome::Closed { error, moved }
    }

    /// When to look for connections whose time is over.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether none is open.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes over the connections of another thread that has ended. They end without a listener's knowledge.
    pub(super) fn adopt(&mut self, others: &mut Connections, from: &Poller, poller: &Poller) {
        for (_, connection) in others.open.drain() {
            let _ = from.remove(&connection.socket);
            let id = self.next;
            self.next += 1;
            if poller.add(&connection.socket, connection_key(id), connection.watched).is_ok() {
                self.timers.add(id, connection.deadline.min(connection.dies));
                self.open.insert(id, connection);
            }
        }
    }

    /// Ends all of them. Returns what came to be of each.
    pub(super) fn close_all(&mut self, poller: &Poller) -> Vec<Outcome> {
        let end = |(_, mut connection): (u64, Connection)| {
            let _ = poller.remove(&connection.socket);
            Outcome::Closed { error: None, moved: connection.moved() }
        };
        self.open.drain().map(end).collect()
    }
}

impl Connection {
    /// Whether its later packets came in elsewhere than its handshake, asked at its end.
    fn moved(&mut self) -> Option<Box<PathChange>> {
        let mut path = self.path.take()?;
        let now = packet_info::ingress_of_connection(&self.socket, true).ok().flatten()?;
        (path.ingress.index != Some(now)).then(|| {
            let name = packet_info::interface_name(&self.socket, now);
            path.later = Ingress { index: Some(now), name, evidence: Evidence::Kernel };
            path
        })
    }

    /// Reads what is there, once, and answers when that suffices. `describe` is how it arrived, while it is not known for long
    /// enough to keep that. Waits for it so long if there is a `patience`.
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
            Err(_) => return Step::Close(Some("connection reset by the peer")),
        };
        self.read += bytes.len();
        if self.closing {
            // Read and thrown away, so that the end is clean; but not for ever.
            return if self.read > 2 * READ_LIMIT { Step::Close(None) } else { Step::Wait(Interest::Read) };
        }
        self.deadline = now + self.idle;
        self.due = Due::Idle;
        let Some(arrival) = describe.or(self.describe.as_deref()) else {
            self.output = bytes.to_vec();
            self.last = self.read >= READ_LIMIT;
            return self.writable(now);
        };
        // Nearly always the first bytes are the whole request: no copy is made then.
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

    /// The client has said all it will: it gets its line, if it has had nothing yet.
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

    /// Sends what is left to send.
    fn writable(&mut self, now: Instant) -> Step {
        while !self.output.is_empty() {
            match options::send_now(&self.socket, &self.output, self.last && self.clean) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if would_block(&error) => {
                    self.deadline = self.deadline.max(now + self.idle);
                    self.due = Due::Idle;
                    return Step::Wait(Interest::Write);
                }
                Err(_) => return Step::Close(Some("connection reset by the peer")),
            }
        }
        if self.last { self.finish(now) } else { Step::Wait(Interest::Read) }
    }

    /// Everything is sent. A connection with unread bytes is not closed at once: the reset that follows could overtake
    /// the answer.
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
