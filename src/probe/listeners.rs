//! The listening sockets of a probe: opened in order, with the result of each.

use crate::model::{IfName, Snapshot, SocketSpec};
use crate::plan::exposure::{Exposer, Facts};
use crate::plan::predict::BindOutcome;
use crate::report::matrix::{ObservedBind, Seen};
use crate::serve::bind::{self, BindFailure, Bound};

use super::attempt::Observation;

/// Results of opening every socket.
pub struct Opened {
    /// The requested sockets, with the ports that the kernel chose.
    pub specs: Vec<SocketSpec>,
    /// Result of each.
    pub outcomes: Vec<ObservedBind>,
    /// The open sockets.
    pub bound: Vec<Bound>,
    /// Index of each open socket among the specs.
    pub owners: Vec<usize>,
}

impl Opened {
    /// Opens all sockets independently: a failure is an outcome.
    #[must_use]
    pub fn all(sockets: &[SocketSpec], snapshot: &Snapshot) -> Opened {
        let exposer = Exposer::new(snapshot);
        let mut opened =
            Opened { specs: sockets.to_vec(), outcomes: Vec::new(), bound: Vec::new(), owners: Vec::new() };
        bind::choose_ports(&mut opened.specs);
        for (index, spec) in opened.specs.clone().iter().enumerate() {
            let exposure = exposer.exposure(&Facts::of_spec(spec, snapshot));
            opened.outcomes.push(match bind::open(spec, exposure) {
                Ok(bound) => {
                    opened.specs[index].port = bound.view.port;
                    opened.bound.push(bound);
                    opened.owners.push(index);
                    ObservedBind { outcome: BindOutcome::Ok, phase: None, errno: None }
                }
                Err(BindFailure { phase, errno, .. }) => {
                    ObservedBind { outcome: BindOutcome::Error, phase: Some(phase), errno: Some(errno) }
                }
            });
        }
        opened
    }
}

/// An observation as shown in a report. `owners` are those of [`Opened`].
#[must_use]
pub fn in_names(observation: &Observation, owners: &[usize], snapshot: &Snapshot) -> Seen {
    let name = |index: u32| match snapshot.interface(index) {
        Some(interface) => interface.name.clone(),
        // The interface came up after the snapshot was taken.
        None => IfName::from(format!("#{index}").as_str()),
    };
    // A stand-in is on another host, whose interfaces are not those of the snapshot.
    let here = observation.taker.is_none_or(|taker| taker < owners.len());
    Seen {
        outcome: observation.outcome,
        taker: observation.taker.and_then(|taker| owners.get(taker)).copied(),
        ingress: observation.ingress.filter(|_| here).map(name),
        local: observation.local,
        peer: observation.peer,
        v4_mapped: observation.v4_mapped,
        errno: observation.errno,
        answer: observation.answer,
        client: observation.client,
        connect_us: u64::try_from(observation.took.as_micros()).unwrap_or(u64::MAX),
    }
}
