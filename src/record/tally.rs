//! Counts arrivals as they come, whether or not their lines can be written.

use std::collections::BTreeMap;

use super::event::{ListenerSummary, Summary, ingress_key};
use crate::model::{Arrival, Ingress, Protocol};

/// Counts per listener and ingress interface, and errors.
#[derive(Debug, Default)]
pub struct Tally {
    accepted: u64,
    datagrams: u64,
    listeners: BTreeMap<String, Counts>,
    errors: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: u64,
    datagrams: u64,
    over_limit: u64,
    /// By the ingress as it was told; those that are shown alike are added up at the end.
    by_ingress: BTreeMap<Ingress, u64>,
}

impl Tally {
    /// Begins at zero for a listener, so that one that nobody reached is in the summary too.
    pub fn expect(&mut self, listener: &str) {
        self.listeners.entry(listener.to_owned()).or_default();
    }

    /// Counts one arrival.
    pub fn arrival(&mut self, arrival: &Arrival) {
        let counts = match self.listeners.get_mut(&arrival.listener) {
            Some(counts) => counts,
            None => self.listeners.entry(arrival.listener.clone()).or_default(),
        };
        match arrival.protocol {
            Protocol::Tcp => (self.accepted, counts.accepted) = (self.accepted + 1, counts.accepted + 1),
            Protocol::Udp => (self.datagrams, counts.datagrams) = (self.datagrams + 1, counts.datagrams + 1),
        }
        match counts.by_ingress.get_mut(&arrival.ingress) {
            Some(count) => *count += 1,
            None => drop(counts.by_ingress.insert(arrival.ingress.clone(), 1)),
        }
    }

    /// Counts a connection that was closed at once since its listener was full.
    pub fn over_limit(&mut self, listener: &str) {
        if let Some(counts) = self.listeners.get_mut(listener) {
            counts.over_limit += 1;
        }
    }

    /// Counts `count` errors of a kind.
    pub fn error(&mut self, kind: &str, count: u64) {
        if count > 0 {
            *self.errors.entry(kind.to_owned()).or_default() += count;
        }
    }

    /// Connections and datagrams so far.
    #[must_use]
    pub fn arrivals(&self) -> u64 {
        self.accepted + self.datagrams
    }

    /// The summary, with what the sink has dropped.
    #[must_use]
    pub fn summary(&self, dropped: u64) -> Summary {
        let by_listener = self
            .listeners
            .iter()
            .map(|(listener, counts)| ListenerSummary {
                listener: listener.clone(),
                accepted: counts.accepted,
                datagrams: counts.datagrams,
                over_limit: counts.over_limit,
                by_ingress: by_name(&counts.by_ingress),
            })
            .collect();
        Summary {
            accepted: self.accepted,
            datagrams: self.datagrams,
            dropped,
            by_listener,
            errors: self.errors.clone(),
        }
    }
}

fn by_name(by_ingress: &BTreeMap<Ingress, u64>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (ingress, count) in by_ingress {
        *sums.entry(ingress_key(ingress.name.as_ref(), ingress.index)).or_default() += count;
    }
    sums
}
