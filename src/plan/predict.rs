//! What each bind will do, in the order of the profile.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::bind_check::{Availability, Rights, availability, vrf_of};
use super::conflict::Verdict;
use super::local_table::LocalAddresses;
use super::socket_table::{Entry, Id, Local, Tables};
use crate::code::Code;
use crate::model::{Errno, Family, Phase, Protocol, Snapshot, SocketSpec, SocketView};

/// A socket that was there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// What is known of it; unknown flags are `None`.
    pub view: SocketView,
    /// The user who owns it.
    pub uid: Option<u32>,
    /// How it is named to a person: its program, or its address.
    pub name: String,
}

/// Whether a socket will be opened, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BindOutcome {
    /// It will.
    Ok,
    /// It will not.
    Error,
    /// It depends on what is not known.
    Uncertain,
}

/// What opening one socket will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindPrediction {
    /// Whether it will be opened.
    pub outcome: BindOutcome,
    /// The call that fails, or may fail.
    pub phase: Option<Phase>,
    /// What it answers, or may answer.
    pub errno: Option<Errno>,
    /// The sockets in the way, earlier ones of the profile before those that were there already.
    pub in_the_way: Vec<Holder>,
    /// The rule.
    pub code: Option<Code>,
}

/// A socket that takes part: of the profile, or there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// The index of a socket of the profile.
    Own(usize),
    /// The index of a socket that was there before.
    Foreign(usize),
}

/// Every bind foretold, and the tables as they stand afterwards.
#[derive(Debug)]
pub struct Binds {
    /// In the order of the sockets.
    pub predictions: Vec<BindPrediction>,
    /// What packets are matched with.
    pub tables: Tables,
    holders: Vec<Holder>,
    ids: HashMap<usize, Id>,
}

impl Binds {
    /// Who a socket of the tables is.
    #[must_use]
    pub fn holder(&self, id: Id) -> Holder {
        self.holders[id]
    }

    /// A socket of the profile in the tables; `None` when it will not be opened.
    #[must_use]
    pub fn id_of(&self, own: usize) -> Option<Id> {
        self.ids.get(&own).copied()
    }
}

/// Foretells the binds of `sockets`, in this order, on the host of `snapshot` where `foreign` sockets are open. Each TCP socket
/// listens before the next one is bound.
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
        binds.tables.insert(foreign_entry(socket, snapshot), socket.view.protocol == Protocol::Tcp);
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
                // Only sockets that were bound and did not listen could bring this about, and neither a profile nor an
                // inventory has such; so nothing is certain any more.
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

/// How the kernel sees a socket that was there before.
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
            Local::V6(v6) if !v6.is_unspecified() => Some(true),
            Local::V6(_) => view.v6only,
        },
        device: device.map_or(0, |device| device.index),
        vrf: device.map_or(0, |device| vrf_of(snapshot, device)),
        reuse_address: view.reuse_address,
        reuse_port: view.reuse_port,
        uid: socket.uid,
        certain: true,
        ordered: false,
    }
}
