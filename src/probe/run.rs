//! Runs connection attempts.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::Socket;

use super::attempt::{Attempt, Attempts, Limits, Observation, client};
use super::engine::Engine;
use crate::model::Protocol;
use crate::model::addr::is_mapped;
use crate::serve::bind::Bound;

/// Makes the attempts against `listeners`, in this process. `open` creates the client's socket of the attempt with this
/// index, so that a caller can choose the namespace and source address. `progress` receives the number of finished
/// attempts.
///
/// The result of an attempt that was not made before the deadline is `None`.
///
/// # Errors
/// If the system refuses to create or use the poller.
pub fn run(
    listeners: &[Bound],
    attempts: &[Attempt],
    limits: Limits,
    open: &mut dyn FnMut(usize) -> io::Result<Socket>,
    progress: &mut dyn FnMut(usize),
) -> io::Result<Vec<Option<Observation>>> {
    run_among(&listeners.iter().collect::<Vec<_>>(), attempts, limits, open, progress)
}

/// As [`run`], with listeners that are in different places.
///
/// # Errors
/// Those of [`run`].
pub fn run_among(
    listeners: &[&Bound],
    attempts: &[Attempt],
    limits: Limits,
    open: &mut dyn FnMut(usize) -> io::Result<Socket>,
    progress: &mut dyn FnMut(usize),
) -> io::Result<Vec<Option<Observation>>> {
    let mut seen = vec![None; attempts.len()];
    let mut tell = |index: usize, observation| seen[index] = Some(observation);
    let attempts = Attempts { count: attempts.len(), of: &|index| attempts[index] };
    Engine::new(listeners, attempts, &|_, _| false, &mut tell)?.run(limits, open, progress)?;
    Ok(seen)
}

/// Like [`run`], with clients in the namespace of this thread. The client of an attempt first binds `source`, with its
/// zone. Clients without a source share a socket while they are refused, which saves one socket per port of a scan.
/// `seen` receives the index and result of each attempt.
///
/// # Errors
/// Those of [`run`].
pub fn run_from_here(
    listeners: &[Bound],
    attempts: Attempts<'_>,
    limits: Limits,
    source: &dyn Fn(usize) -> Option<(IpAddr, u32)>,
    seen: &mut dyn FnMut(usize, Observation),
    progress: &mut dyn FnMut(usize),
) -> io::Result<()> {
    let listeners: Vec<&Bound> = listeners.iter().collect();
    let plain = |index: usize, attempt: &Attempt| {
        // The zone stays with the socket.
        let zone = matches!(attempt.to, SocketAddr::V6(v6) if v6.scope_id() != 0);
        attempt.protocol == Protocol::Tcp && !zone && !is_mapped(attempt.to.ip()) && source(index).is_none()
    };
    let mut open = |index: usize| client(&(attempts.of)(index), source(index));
    Engine::new(&listeners, attempts, &plain, seen)?.run(limits, &mut open, progress)
}
