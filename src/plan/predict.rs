//! Predicts the result of each bind, in the order of the profile.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::bind_check::{Availability, Rights, availability};
use super::conflict::Verdict;
use super::local_table::LocalAddresses;
use super::socket_table::{Entry, Id, Local, Tables};
use crate::code::Code;
use crate::model::{
    Errno, Family, ListeningSocket, Phase, Protocol, Snapshot, SocketSpec, SocketState, SocketView,
};

/// An existing socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Its known properties; unknown options are `None`.
    pub view: SocketView,
    /// The user that owns it.
    pub uid: Option<u32>,
    /// Its firewall mark (SO_MARK); `None` when not known.
    pub mark: Option<u32>,
    /// Its name for people: its program, or its address.
    pub name: String,
    /// Whether it serves clients, and if not, why it holds the port.
    pub state: SocketState,
    /// The port of the other end of a connection; `None` without one, or where it is not known.
    pub peer_port: Option<u16>,
}

impl Foreign {
    /// A socket of the inventory, which does not tell the other end of a connection. `name` is for people.
    #[must_use]
    pub fn of(socket: &ListeningSocket, name: String) -> Foreign {
        Foreign {
            view: socket.view.clone(),
            uid: socket.uid,
            mark: socket.mark,
            name,
            state: socket.state,
            peer_port: None,
        }
    }
}

/// Whether a socket will be opened, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BindOutcome {
    /// bind(2) succeeds.
    Ok,
    /// bind(2) fails; see `errno`.
    Error,
    /// Depends on state that could not be read.
    Uncertain,
}

/// Prediction of opening one socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindPrediction {
    /// Whether it will be opened.
    pub outcome: BindOutcome,
    /// The system call that fails, or may fail.
    pub phase: Option<Phase>,
    /// Its errno, or possible errno.
    pub errno: Option<Errno>,
    /// The conflicting sockets: first those of the profile, then existing ones.
    pub in_the_way: Vec<Holder>,
    /// Code of the rule.
    pub code: Option<Code>,
}

/// A participating socket: of the profile, or an existing one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// The index of a socket of the profile.
    Own(usize),
    /// Index of an existing socket.
    Foreign(usize),
}

/// All predicted binds, and the resulting tables.
#[derive(Debug)]
pub struct Binds {
    /// In the order of the sockets.
    pub predictions: Vec<BindPrediction>,
    /// The tables for packet lookups.
    pub tables: Tables,
    holders: Vec<Holder>,
    ids: HashMap<usize, Id>,
}

impl Binds {
    /// The origin of each socket in the tables.
    #[must_use]
    pub fn holder(&self, id: Id) -> Holder {
        self.holders[id]
    }

    /// Id of a profile socket in the tables; `None` if it will not be opened.
    #[must_use]
    pub fn id_of(&self, own: usize) -> Option<Id> {
        self.ids.get(&own).copied()
    }
}

/// Predicts the binds of `sockets`, in this order, on the host of `snapshot` with the open sockets `foreign`. Each TCP
/// socket listens before the next one is bound.
#[must_use]
pub fn predict_binds(
    sockets: &[SocketSpec],
    snapshot: &Snapshot,
    rights: Rights,
    foreign: &[Foreign],
) -> Binds {
    let local = LocalAddresses::new(snapshot);
    let mut binds = Binds {
        predictions: Vec::with_capacity(sockets.len()),
        tables: Tables::of(snapshot),
        holders: Vec::new(),
        ids: HashMap::new(),
    };
    for (index, socket) in foreign.iter().enumerate() {
        binds.tables.insert_foreign(foreign_entry(socket, snapshot), serves(socket));
        binds.holders.push(Holder::Foreign(index));
    }
    for (index, spec) in sockets.iter().enumerate() {
        let prediction = binds.predict(index, availability(spec, snapshot, &local, rights));
        binds.predictions.push(prediction);
    }
    binds
}

impl Binds {
    fn predict(&mut self, index: usize, availability: Availability) -> BindPrediction {
        let (mut entry, doubt) = match availability {
            Availability::Available(entry) => (entry, None),
            Availability::Unknown(code, entry) => (entry, Some(code)),
            Availability::Refused(refusal) => {
                return BindPrediction {
                    outcome: BindOutcome::Error,
                    phase: Some(refusal.phase),
                    errno: Some(refusal.errno),
                    in_the_way: Vec::new(),
                    code: Some(refusal.code),
                };
            }
        };
        let mut prediction = BindPrediction {
            outcome: if doubt.is_some() { BindOutcome::Uncertain } else { BindOutcome::Ok },
            phase: doubt.map(|_| Phase::Bind),
            errno: doubt.map(|_| Errno::EADDRNOTAVAIL),
            in_the_way: Vec::new(),
            code: doubt,
        };
        // The kernel chooses a free port.
        if entry.port == 0 {
            return prediction;
        }
        match self.tables.bind_verdict(&entry) {
            Verdict::Free => {}
            Verdict::InUse(by) => return self.in_use(BindOutcome::Error, Phase::Bind, &by),
            Verdict::Unknown(by) => {
                prediction = self.in_use(BindOutcome::Uncertain, Phase::Bind, &by);
                entry.certain = false;
            }
        }
        let id = self.tables.insert(entry, false);
        self.holders.push(Holder::Own(index));
        self.ids.insert(index, id);
        if entry.protocol == Protocol::Tcp {
            match self.tables.listen_verdict(id) {
                Verdict::Free => {}
                // A foreign socket that is bound may start to listen before this one does.
                Verdict::InUse(by) | Verdict::Unknown(by) => {
                    if prediction.outcome == BindOutcome::Ok {
                        prediction = self.in_use(BindOutcome::Uncertain, Phase::Listen, &by);
                    }
                }
            }
            self.tables.listen(id);
        }
        prediction
    }

    fn in_use(&self, outcome: BindOutcome, phase: Phase, by: &[Id]) -> BindPrediction {
        let mut in_the_way: Vec<Holder> = by.iter().map(|&id| self.holders[id]).collect();
        in_the_way.sort_unstable();
        BindPrediction {
            outcome,
            phase: Some(phase),
            errno: Some(Errno::EADDRINUSE),
            in_the_way,
            code: Some(Code::ADDRESS_IN_USE),
        }
    }
}

/// Whether packets of any sender can find the socket.
fn serves(socket: &Foreign) -> bool {
    matches!(socket.state, SocketState::Listen | SocketState::Unconnected)
}

/// Whether the address of a socket may be that of a connection, and not the one to which it was bound.
fn has_peer(socket: &Foreign) -> bool {
    matches!(socket.state, SocketState::Connected | SocketState::TimeWait)
}

/// The kernel's view of an existing socket.
fn foreign_entry(socket: &Foreign, snapshot: &Snapshot) -> Entry {
    let view = &socket.view;
    let device = view.device.as_ref().and_then(|name| snapshot.interface_named(name));
    let zone = view.scope_id.and_then(|index| snapshot.interface(index));
    let device = device.or(zone);
    let local = Local::of(view.address);
    Entry {
        protocol: view.protocol,
        port: view.port,
        inet6: view.family == Family::Ipv6,
        local,
        v6only: match local {
            Local::V4(_) => Some(false),
            Local::V6(v6) if !v6.is_unspecified() && !has_peer(socket) => Some(true),
            Local::V6(_) => view.v6only,
        },
        device: device.map_or(0, |device| device.index),
        vrf: device.map_or(0, |device| snapshot.vrf_of(device)),
        reuse_address: view.reuse_address.or_else(|| left_by_a_server(socket, snapshot).then_some(true)),
        reuse_port: view.reuse_port,
        uid: socket.uid,
        mark: socket.mark,
        certain: true,
        ordered: false,
    }
}

/// Whether a connection in TIME-WAIT was accepted by a server: its port is outside the range from which the kernel chooses ports of
/// clients, and the port of the other end is in it. (An NFS client has a port outside the range too, but so has its server.) The kernel does not report SO_REUSEADDR of such a socket. It has that of the listener (`inet_twsk_alloc()` of
/// `net/ipv4/inet_timewait_sock.c`), which servers set so that they can start again.
fn left_by_a_server(socket: &Foreign, snapshot: &Snapshot) -> bool {
    let end = |end: &str| snapshot.setting(&format!("net.ipv4.ip_local_port_range.{end}"));
    let (Some(low), Some(high)) = (end("low"), end("high")) else { return false };
    let chosen = |port: u16| (low..=high).contains(&i64::from(port));
    socket.state == SocketState::TimeWait && !chosen(socket.view.port) && socket.peer_port.is_some_and(chosen)
}
