//! Replays [`known_results`] on the running kernel, and compares the predictions with the results.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, SockAddr, Socket, Type};

use super::known_results::{self, Sequence};
use crate::model::{Errno, Family, FamilyExposure, Phase, Protocol, Snapshot, SocketSpec, V6Only};
use crate::plan::bind_check::{Availability, Rights, availability};
use crate::plan::conflict::Verdict;
use crate::plan::local_table::LocalAddresses;
use crate::plan::predict::{BindOutcome, predict_binds};
use crate::plan::socket_table::Tables;
use crate::serve::bind;
use crate::sys;

/// The port in a namespace without other programs.
const PORT: u16 = 48_484;

/// How often a sequence that differs is repeated, if another program may have interfered.
const TRIALS: usize = 3;

/// Where the sockets are bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a private network namespace.
    Namespace,
    /// Together with the sockets of other programs: on free ports and only on loopback addresses, so that no other host
    /// can reach them.
    Loopback,
}

/// Result of the check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    /// Number of tested sequences.
    pub sequences: usize,
    /// Number of sequences in which every step matched the prediction.
    pub agree: usize,
    /// Number of sequences that could not be tested in this place.
    pub skipped: usize,
    /// The other sequences, one sentence each.
    pub differences: Vec<String>,
}

/// The system call that failed, and its errno; `None` means success.
type OpenResult = Option<(Phase, Errno)>;

/// Binds every sequence of both tables in the network namespace of this thread. The sequences of the first table are
/// repeated with listening TCP sockets, like those of a profile. Predictions use `snapshot` and the privileges in
/// `rights`.
///
/// # Errors
/// If no port is free in [`Place::Loopback`].
pub fn replay(place: Place, snapshot: &Snapshot, rights: Rights) -> io::Result<Replay> {
    let mut replay = Replay::default();
    let all = sequences();
    let local = LocalAddresses::new(snapshot);
    for mut sequence in all {
        if place == Place::Loopback && !keep_loopback(&mut sequence) {
            replay.skipped += 1;
            continue;
        }
        replay.sequences += 1;
        let trials = if place == Place::Loopback { TRIALS } else { 1 };
        let mut difference = None;
        for _ in 0..trials {
            if place == Place::Loopback {
                let port = free_port(snapshot.ipv6_available)?;
                sequence.sockets.iter_mut().for_each(|socket| socket.port = port);
            }
            difference = compare(&sequence, snapshot, &local, rights);
            if difference.is_none() {
                break;
            }
        }
        match difference {
            None => replay.agree += 1,
            Some(difference) => replay.differences.push(difference),
        }
    }
    Ok(replay)
}

fn sequences() -> Vec<Sequence> {
    let wildcard = known_results::bind_wildcard(PORT);
    let listening: Vec<Sequence> = wildcard
        .iter()
        .filter(|sequence| sequence.sockets.iter().all(|socket| socket.protocol == Protocol::Tcp))
        .map(|sequence| Sequence {
            name: format!("{}, listening", sequence.name),
            listens: true,
            ..sequence.clone()
        })
        .collect();
    let mut all = wildcard;
    all.extend(listening);
    all.extend(known_results::second_listen(PORT));
    all
}

/// Removes the sockets that are not on loopback addresses; returns false if the sequence tests those sockets.
fn keep_loopback(sequence: &mut Sequence) -> bool {
    let on_loopback = |socket: &SocketSpec| socket.address.to_canonical().is_loopback();
    let about = sequence.sockets.iter().take(2).all(on_loopback);
    sequence.sockets.retain(on_loopback);
    about
}

/// A port that is free on both loopback addresses at this moment.
fn free_port(ipv6: bool) -> io::Result<u16> {
    let bind = |address: IpAddr, port: u16, kind: Type| -> io::Result<Socket> {
        let address = SocketAddr::new(address, port);
        let socket = Socket::new(Domain::for_address(address), kind, None)?;
        socket.bind(&SockAddr::from(address))?;
        Ok(socket)
    };
    let (v4, v6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..16 {
        let first = bind(v4, 0, Type::STREAM)?;
        let port = first.local_addr()?.as_socket().map_or(0, |address| address.port());
        let mut others = vec![(v4, Type::DGRAM)];
        if ipv6 {
            others.extend([(v6, Type::STREAM), (v6, Type::DGRAM)]);
        }
        let refused = others.into_iter().find_map(|(address, kind)| {
            let error = bind(address, port, kind).err()?;
            (sys::errno_of(&error) == Errno::EADDRINUSE).then_some(error)
        });
        match refused {
            None => return Ok(port),
            Some(error) => last = error,
        }
    }
    Err(last)
}

/// How the kernel differs from the prediction; `None` if it does not.
fn compare(
    sequence: &Sequence,
    snapshot: &Snapshot,
    local: &LocalAddresses,
    rights: Rights,
) -> Option<String> {
    let (predicted, observed) = if sequence.listens {
        (predict_open(&sequence.sockets, snapshot, rights), open(&sequence.sockets))
    } else {
        (predict_bind(&sequence.sockets, snapshot, local, rights), bind_only(&sequence.sockets))
    };
    let word = |fate: &OpenResult| match fate {
        None => "success".to_owned(),
        Some((phase, errno)) => format!("{phase} {errno}"),
    };
    let steps = sequence.sockets.iter().zip(&predicted).zip(&observed);
    let wrong: Vec<String> = steps
        .filter_map(|((socket, predicted), observed)| match predicted {
            Some(predicted) if predicted != observed => Some(format!(
                "{}: predicted {}, observed {}",
                socket.view(FamilyExposure::default()),
                word(predicted),
                word(observed)
            )),
            _ => None,
        })
        .collect();
    (!wrong.is_empty()).then(|| format!("{}: {}", sequence.name, wrong.join("; ")))
}

/// Sockets opened like those of a profile. `None` if nothing is predicted.
fn predict_open(sockets: &[SocketSpec], snapshot: &Snapshot, rights: Rights) -> Vec<Option<OpenResult>> {
    predict_binds(sockets, snapshot, rights, &[])
        .predictions
        .iter()
        .map(|prediction| match prediction.outcome {
            BindOutcome::Ok => Some(None),
            BindOutcome::Error => Some(prediction.phase.zip(prediction.errno)),
            BindOutcome::Uncertain => None,
        })
        .collect()
}

fn open(sockets: &[SocketSpec]) -> Vec<OpenResult> {
    let mut held = Vec::new();
    let mut fates = Vec::new();
    for socket in sockets {
        fates.push(match bind::open(socket, FamilyExposure::default()) {
            Ok(bound) => {
                held.push(bound);
                None
            }
            Err(failure) => Some((failure.phase, failure.errno)),
        });
    }
    fates
}

/// Without listen(2).
fn predict_bind(
    sockets: &[SocketSpec],
    snapshot: &Snapshot,
    local: &LocalAddresses,
    rights: Rights,
) -> Vec<Option<OpenResult>> {
    let mut tables = Tables::of(snapshot);
    let mut predict = |socket: &SocketSpec| -> Option<OpenResult> {
        let entry = match availability(socket, snapshot, local, rights) {
            Availability::Available(entry) => entry,
            Availability::Refused(refusal) => return Some(Some((refusal.phase, refusal.errno))),
            Availability::Unknown(..) => return None,
        };
        match tables.bind_verdict(&entry) {
            Verdict::Free => {
                tables.insert(entry, false);
                Some(None)
            }
            Verdict::InUse(_) => Some(Some((Phase::Bind, Errno::EADDRINUSE))),
            Verdict::Unknown(_) => None,
        }
    };
    sockets.iter().map(&mut predict).collect()
}

fn bind_only(sockets: &[SocketSpec]) -> Vec<OpenResult> {
    let mut held = Vec::new();
    let mut fates = Vec::new();
    for spec in sockets {
        fates.push(match bind_one(spec) {
            Ok(socket) => {
                held.push(socket);
                None
            }
            Err((phase, error)) => Some((phase, sys::errno_of(&error))),
        });
    }
    fates
}

/// Sets the options that the tables use, and calls bind(2).
fn bind_one(spec: &SocketSpec) -> Result<Socket, (Phase, io::Error)> {
    let domain = if spec.domain() == Family::Ipv4 { Domain::IPV4 } else { Domain::IPV6 };
    let kind = if spec.protocol == Protocol::Tcp { Type::STREAM } else { Type::DGRAM };
    let socket = Socket::new(domain, kind, None).map_err(|error| (Phase::Socket, error))?;
    let set = |result: io::Result<()>| result.map_err(|error| (Phase::Setsockopt, error));
    if spec.domain() == Family::Ipv6 {
        set(socket.set_only_v6(spec.v6only == V6Only::On))?;
    }
    set(socket.set_reuse_address(spec.reuse_address))?;
    if spec.reuse_port {
        set(sys::options::set_reuse_port(&socket))?;
    }
    socket.bind(&SockAddr::from(spec.socket_addr())).map_err(|error| (Phase::Bind, error))?;
    Ok(socket)
}
