//! Binds sockets like those of a host in its twin, and tests which sources reach them.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use super::build::Lab;
use super::run::{Looked, Opened, Patience};
use super::twin::{Twin, run};
use crate::model::rehearsal::{Rehearsal, Rehearsed};
use crate::model::{
    Errno, Exposure, Family, FamilyExposure, IfName, ListeningSocket, Outcome, Protocol, Snapshot,
    SocketSpec, Source, V6Only,
};
use crate::plan::bind_check::Rights;
use crate::plan::expand::Expansion;
use crate::plan::local_table::{Ipv4Kind, LocalAddresses};
use crate::probe::listeners as probe;
use crate::sys::{self, Error};

/// Maximum number of tested sockets.
const MOST_SOCKETS: usize = 500;
/// Maximum number of connections; with more, only some addresses are tested.
const MOST_CONNECTIONS: usize = 50_000;

/// A socket that can be rebuilt.
struct Like {
    place: usize,
    spec: SocketSpec,
    /// Whether its options are known.
    known: bool,
    because: Option<String>,
}

/// Binds sockets like `sockets`, which have these indexes in a report, in the twin of the host of `snapshot`. Connects
/// from every source to each of them, and reports which sources reached it.
///
/// # Errors
/// If the twin cannot be entered or polled.
pub fn rehearse(
    lab: &Lab,
    twin: &Twin,
    snapshot: &Snapshot,
    sockets: &[(usize, &ListeningSocket)],
    patience: Patience,
) -> Result<Rehearsal, Error> {
    let local = LocalAddresses::new(snapshot);
    let mut incomplete = lab.gaps.clone();
    let mut rehearsed = Vec::new();
    let mut likes = Vec::new();
    for &(place, socket) in sockets {
        match like(place, socket, snapshot, &local) {
            Ok(_) if likes.len() == MOST_SOCKETS => {
                rehearsed.push(skipped(place, format!("no more than {MOST_SOCKETS} sockets are rehearsed")));
            }
            Ok(like) => likes.push((socket.inode, like)),
            Err(because) => rehearsed.push(skipped(place, because)),
        }
    }
    // Inodes increase: older sockets come first, as on the host.
    likes.sort_by_key(|(inode, like)| (*inode, like.place));
    let mut likes: Vec<Like> = likes.into_iter().map(|(_, like)| like).collect();
    let opened = open(lab, snapshot, &mut likes)?;
    let (limit, more) = destinations(&likes, twin, snapshot);
    incomplete.extend(more);
    let rights = Rights { uid: sys::rights().uid, privileged_ports: true, transparent: true };
    let question = run::Question { rights, only: limit.as_ref() };
    let looked = run::ask(lab, twin, &opened, question, patience, &mut |_, _| {})?;
    if looked.unseen > 0 {
        incomplete.push(crate::probe::attempt::why_unseen(looked.unseen));
    }
    for (index, like) in likes.iter().enumerate() {
        let outcome = opened.sockets.outcomes.get(index);
        let errno = outcome.and_then(|outcome| outcome.errno);
        let bound = opened.sockets.owners.contains(&index);
        let (observed, reached_from) = reached(&looked, &like.spec.listener, snapshot);
        let (observed, because) = match no_possible_source(like, twin, snapshot) {
            _ if !bound => (None, like.because.clone()),
            Some(because) => (None, Some(because)),
            None => (Some(observed), like.because.clone()),
        };
        let differs = if bound { differing(&looked, &like.spec.listener) } else { Vec::new() };
        let socket = like.place;
        rehearsed.push(Rehearsed { socket, bound, errno, observed, reached_from, differs, because });
    }
    rehearsed.sort_by_key(|one| one.socket);
    let missing = rehearsed.iter().filter(|one| one.observed.is_none()).count();
    if missing > 0 {
        incomplete.push(format!("{missing} of {} sockets could not be rehearsed", rehearsed.len()));
    }
    let connections = looked.cells.iter().filter(|cell| cell.observed.is_some()).count();
    let sources: BTreeSet<&Source> =
        looked.cells.iter().filter(|cell| cell.observed.is_some()).map(|cell| &cell.source).collect();
    Ok(Rehearsal {
        complete: incomplete.is_empty(),
        incomplete_because: incomplete,
        connections,
        sources: sources.into_iter().cloned().collect(),
        sockets: rehearsed,
    })
}

fn skipped(place: usize, because: String) -> Rehearsed {
    Rehearsed {
        socket: place,
        bound: false,
        errno: None,
        observed: None,
        reached_from: Vec::new(),
        differs: Vec::new(),
        because: Some(because),
    }
}

/// The request for a socket like this one, or the reason why there is none.
fn like(
    place: usize,
    socket: &ListeningSocket,
    snapshot: &Snapshot,
    local: &LocalAddresses,
) -> Result<Like, String> {
    let view = &socket.view;
    let address = view.address.to_canonical();
    if address.is_multicast() {
        return Err("it is bound to a multicast group, which the test does not connect to".to_owned());
    }
    if matches!(address, IpAddr::V4(v4) if !v4.is_unspecified() && local.ipv4(v4, socket.device_index) == Ipv4Kind::Broadcast)
    {
        return Err("it is bound to a broadcast address, which the test does not connect to".to_owned());
    }
    if let Some(device) = view.device.as_ref().filter(|device| snapshot.interface_named(device).is_none()) {
        return Err(format!("its device {device} is not on the host"));
    }
    let mut because = Vec::new();
    let known = view.reuse_address.is_some() && view.reuse_port.is_some();
    if view.v6only.is_none() && view.address.is_ipv6() && view.address.is_unspecified() {
        because.push("it is assumed to be dual-stack");
    }
    if !socket.device_known {
        because.push("it is assumed to have no device");
    }
    if socket.mptcp {
        because.push("it is rehearsed as plain TCP");
    }
    // A socket keeps an address after the address is removed.
    let owner = local.owner(view.address, view.scope_id);
    let spec = SocketSpec {
        listener: place.to_string(),
        scope_id: view.scope_id.unwrap_or(0),
        v6only: if view.v6only == Some(true) { V6Only::On } else { V6Only::Off },
        // A zone also binds the device.
        device: view.device.clone().filter(|_| view.scope_id.is_none()),
        reuse_address: view.reuse_address.unwrap_or(view.protocol == Protocol::Tcp),
        reuse_port: view.reuse_port.unwrap_or(false),
        freebind: owner.is_none() && !address.is_unspecified(),
        backlog: 1024,
        ..SocketSpec::plain(view.protocol, view.address, view.port)
    };
    let because = (!because.is_empty()).then(|| because.join("; "));
    Ok(Like { place, spec, known, because })
}

/// Binds the sockets, with sufficient privileges. Conflicting sockets on one port with unknown options are assumed to
/// share it, as they do on the host.
fn open(lab: &Lab, snapshot: &Snapshot, likes: &mut [Like]) -> Result<Opened, Error> {
    let namespace =
        lab.namespaces().get(lab.plan.host).ok_or(Error::Unsupported { what: "the host node" })?;
    let bind = |likes: &[Like]| -> Result<probe::Opened, Error> {
        let specs: Vec<SocketSpec> = likes.iter().map(|like| like.spec.clone()).collect();
        let opened = namespace.run(|| probe::Opened::all(&specs, snapshot));
        opened.map_err(|error: io::Error| Error::call("enter", "the host node", error))
    };
    let mut sockets = bind(likes)?;
    let in_the_way: BTreeSet<(Protocol, u16)> = likes
        .iter()
        .zip(&sockets.outcomes)
        .filter(|(_, outcome)| outcome.errno == Some(Errno::EADDRINUSE))
        .map(|(like, _)| (like.spec.protocol, like.spec.port))
        .collect();
    let mut changed = false;
    for like in likes.iter_mut().filter(|like| !like.known) {
        if in_the_way.contains(&(like.spec.protocol, like.spec.port)) {
            like.spec.reuse_port = true;
            like.spec.reuse_address = true;
            like.because = Some("its options are unknown; it is assumed to share its port".to_owned());
            changed = true;
        }
    }
    if changed {
        drop(sockets);
        sockets = bind(likes)?;
    }
    Ok(Opened { sockets, expansion: Expansion::default(), snapshot: snapshot.clone(), services: Vec::new() })
}

/// The addresses to connect to, if there are too many; and a sentence that says so.
fn destinations(
    likes: &[Like],
    twin: &Twin,
    snapshot: &Snapshot,
) -> (Option<BTreeSet<IpAddr>>, Option<String>) {
    let services: BTreeSet<(Protocol, u16)> =
        likes.iter().map(|like| (like.spec.protocol, like.spec.port)).collect();
    let each = services.len().max(1) * (twin.clients.len() + 2);
    let count = snapshot.addresses().count();
    if count * each <= MOST_CONNECTIONS {
        return (None, None);
    }
    let most = (MOST_CONNECTIONS / each).max(1);
    // First addresses that sockets are bound to, then one of each class on each interface, then others.
    let mut seen = BTreeSet::new();
    let mut ranked: Vec<(u8, IpAddr)> = snapshot
        .addresses()
        .map(|(interface, address)| {
            let bound = likes.iter().any(|like| like.spec.address.to_canonical() == address.address);
            let first = seen.insert((interface.index, address.family, address.class as u8));
            (
                if bound {
                    0
                } else if first {
                    1
                } else {
                    2
                },
                address.address,
            )
        })
        .collect();
    ranked.sort_unstable();
    let chosen = ranked.into_iter().take(most).map(|(_, address)| address).collect();
    (Some(chosen), Some(format!("of the host's {count} addresses {most} are connected to")))
}

/// Why no source could have reached it in any case; the test then proves nothing.
fn no_possible_source(like: &Like, twin: &Twin, snapshot: &Snapshot) -> Option<String> {
    let zone = snapshot.interface(like.spec.scope_id).map(|interface| &interface.name);
    let device = like.spec.device.as_ref().or(zone);
    let on = |name: &IfName| {
        twin.clients.iter().any(|(source, _)| matches!(source, Source::Link(link) if link == name))
    };
    match device.filter(|device| snapshot.interface_named(device).is_some_and(|one| !one.loopback)) {
        Some(device) if !on(device) => Some(format!("there is no client on the link of its device {device}")),
        None if twin.clients.is_empty() => Some("there is no client on any link of the host".to_owned()),
        _ => None,
    }
}

/// Connections that reached a socket, or were predicted to reach it, and whose result differs from the prediction.
fn differing(looked: &Looked, name: &str) -> Vec<String> {
    let mut out = Vec::new();
    for cell in looked.cells.iter().filter(|cell| cell.agrees == Some(false)) {
        let Some(observed) = &cell.observed else { continue };
        let predicted = &cell.predicted;
        let mut names = predicted.candidates.iter().chain(&predicted.listener).chain(&observed.listener);
        if !names.any(|other| other == name) {
            continue;
        }
        let outcome = predicted.outcome.map_or_else(|| "unknown".to_owned(), |outcome| outcome.to_string());
        out.push(format!(
            "{} to {}: {outcome} is predicted, and {} was observed",
            cell.source, cell.destination, observed.outcome
        ));
    }
    out
}

/// The widest class of address at which another host reached a socket, and the sources that reached it.
fn reached(looked: &Looked, name: &str, snapshot: &Snapshot) -> (FamilyExposure, Vec<Source>) {
    let mut exposure = FamilyExposure::default();
    let mut from = BTreeSet::new();
    for cell in &looked.cells {
        let Some(observed) = &cell.observed else { continue };
        // If sockets share a port, any of them may have answered.
        let shared =
            observed.listener.as_ref().is_some_and(|taker| cell.predicted.candidates.contains(taker));
        let candidates = shared && cell.predicted.candidates.iter().any(|one| one == name);
        if observed.outcome != Outcome::Accepted
            || !(observed.listener.as_deref() == Some(name) || candidates)
        {
            continue;
        }
        let Some(address) = observed.local.map(|local| local.to_canonical()) else { continue };
        let class = snapshot
            .addresses()
            .find(|(_, own)| own.address == address)
            .map_or_else(|| crate::model::AddrClass::of(address), |(_, own)| own.class);
        let reach = match cell.source {
            Source::Host => Exposure::Loopback,
            // With `route_localnet`, from the link.
            _ if address.is_loopback() => Exposure::Link,
            _ => Exposure::of(class),
        };
        let family = match Family::of(address) {
            Family::Ipv4 => &mut exposure.ipv4,
            Family::Ipv6 => &mut exposure.ipv6,
        };
        *family = (*family).max(reach);
        from.insert(cell.source.clone());
    }
    (exposure, from.into_iter().collect())
}
