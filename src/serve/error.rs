//! Errors of the event loop that do not end it.

use std::fmt;

use super::reply_limit::Withheld;
use crate::model::Errno;

/// An error while serving, counted by its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServeError {
    /// accept(2) failed.
    Accept(Errno),
    /// A datagram could not be received.
    Receive(Errno),
    /// A datagram could not be answered.
    Answer(Errno),
    /// The ingress interface of a connection could not be read.
    Ingress(Errno),
    /// The peer of a connection has no IP address.
    UnknownPeer,
    /// The kernel dropped datagrams because a receive queue was full.
    ReceiveQueueFull,
    /// A datagram was not answered.
    Withheld(Withheld),
    /// The host's network could not be read again.
    Network(String),
    /// A connection ended early.
    Connection(ConnectionEnd),
}

/// Why a connection ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// It could not be registered with the poller.
    Unwatched,
    /// It was open for as long as a connection may be.
    Lifetime,
    /// Its client sent nothing for too long.
    Idle,
    /// Its client reset it.
    Reset,
}

impl ServeError {
    /// The error number of a failed system call.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            ServeError::Accept(errno)
            | ServeError::Receive(errno)
            | ServeError::Answer(errno)
            | ServeError::Ingress(errno) => Some(*errno),
            _ => None,
        }
    }

    /// Whether it concerns one client only. Such errors are counted, and cause no message.
    #[must_use]
    pub fn is_of_client(&self) -> bool {
        matches!(self, ServeError::Connection(_))
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Accept(errno) => write!(f, "accept {errno}"),
            ServeError::Receive(errno) => write!(f, "receive {errno}"),
            ServeError::Answer(errno) => write!(f, "answer a datagram: {errno}"),
            ServeError::Ingress(errno) => write!(f, "ingress interface: {errno}"),
            ServeError::UnknownPeer => f.write_str("accept: a peer of no known family"),
            ServeError::ReceiveQueueFull => f.write_str("datagrams lost in a full receive queue"),
            ServeError::Withheld(why) => write!(f, "datagrams not answered: {why}"),
            ServeError::Network(error) => write!(f, "the network cannot be read: {error}"),
            ServeError::Connection(end) => write!(f, "connection {end}"),
        }
    }
}

impl fmt::Display for ConnectionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConnectionEnd::Unwatched => "could not be watched",
            ConnectionEnd::Lifetime => "at its lifetime limit",
            ConnectionEnd::Idle => "idle",
            ConnectionEnd::Reset => "reset by the peer",
        })
    }
}
