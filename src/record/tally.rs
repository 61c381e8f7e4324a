//! Counts arrivals, whether or not their lines can be written.

use std::collections::BTreeMap;

use super::event::{ListenerSummary, Summary, ingress_key};
use crate::model::{Arrival, IfName, Ingress, Protocol};

/// Counts per listener and ingress interface, and errors.
#[derive(Debug, Default)]
pub struct Tally {
    accepted: u64,
    datagrams: u64,
    listeners: BTreeMap<String, Counts>,
    errors: BTreeMap<String, u64>,
    latest: Option<Row>,
}

/// A run of arrivals of one kind, not yet added to a sum. Most arrivals are part of such a run.
#[derive(Debug)]
struct Row {
    listener: String,
    protocol: Protocol,
    ingress: Ingress,
    count: u64,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: u64,
    datagrams: u64,
    over_limit: u64,
    /// Counts by reported ingress; entries with the same name are combined at the end.
    by_ingress: BTreeMap<Ingress, u64>,
}

impl Tally {
    /// Starts at zero for a listener, so that the summary includes listeners without arrivals.
    pub fn expect(&mut self, listener: &str) {
        self.listeners.entry(listener.to_owned()).or_default();
    }

    /// Counts one arrival.
    pub fn arrival(&mut self, arrival: &Arrival) {
        if let Some(row) = &mut self.latest
            && row.protocol == arrival.protocol
            && row.ingress == arrival.ingress
            && row.listener == arrival.listener
        {
            row.count += 1;
            return;
        }
        self.add_up();
        self.latest = Some(Row {
            listener: arrival.listener.clone(),
            protocol: arrival.protocol,
            ingress: arrival.ingress.clone(),
            count: 1,
        });
    }

    fn add_up(&mut self) {
        let Some(Row { listener, protocol, ingress, count }) = self.latest.take() else { return };
        let counts = self.listeners.entry(listener).or_default();
        let (all, of_listener) = match protocol {
            Protocol::Tcp => (&mut self.accepted, &mut counts.accepted),
            Protocol::Udp => (&mut self.datagrams, &mut counts.datagrams),
        };
        *all += count;
        *of_listener += count;
        *counts.by_ingress.entry(ingress).or_default() += count;
    }

    /// Counts a connection that was closed immediately because its listener had its maximum of connections.
    pub fn over_limit(&mut self, listener: &str) {
        self.listeners.entry(listener.to_owned()).or_default().over_limit += 1;
    }

    /// Counts `count` errors of a kind.
    pub fn error(&mut self, kind: &str, count: u64) {
        if count > 0 {
            *self.errors.entry(kind.to_owned()).or_default() += count;
        }
    }

    /// Adds the counts of another tally.
    pub fn add(&mut self, mut other: Tally) {
        other.add_up();
        self.accepted += other.accepted;
        self.datagrams += other.datagrams;
        for (listener, counts) in &other.listeners {
            let mine = self.listeners.entry(listener.clone()).or_default();
            mine.accepted += counts.accepted;
            mine.datagrams += counts.datagrams;
            mine.over_limit += counts.over_limit;
            for (ingress, count) in &counts.by_ingress {
                *mine.by_ingress.entry(ingress.clone()).or_default() += count;
            }
        }
        for (kind, count) in &other.errors {
            self.error(kind, *count);
        }
    }

    /// The summary, with the number of lines that the sink dropped.
    #[must_use]
    pub fn summary(&mut self, dropped: u64) -> Summary {
        self.add_up();
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

fn by_name(by_ingress: &BTreeMap<Ingress, u64>) -> BTreeMap<IfName, u64> {
    let mut sums = BTreeMap::new();
    for (ingress, count) in by_ingress {
        *sums.entry(ingress_key(ingress.name.as_ref(), ingress.index)).or_default() += count;
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Evidence;

    #[test]
    fn sums_do_not_depend_on_the_order_or_on_who_counted() {
        let arrival = |listener: &str, index, protocol| {
            let ingress = Ingress { index: Some(index), name: None, evidence: Evidence::Kernel };
            Arrival { listener: listener.into(), protocol, ingress, ..Arrival::nowhere() }
        };
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let all = [("a", 1, tcp), ("a", 1, tcp), ("a", 2, tcp), ("b", 2, tcp), ("a", 1, tcp), ("a", 1, udp)];
        let (mut one, mut first, mut second) = (Tally::default(), Tally::default(), Tally::default());
        one.expect("c");
        first.expect("c");
        for (number, (listener, index, protocol)) in all.into_iter().enumerate() {
            let arrival = arrival(listener, index, protocol);
            one.arrival(&arrival);
            if number % 2 == 0 { &mut first } else { &mut second }.arrival(&arrival);
        }
        second.over_limit("b");
        one.over_limit("b");
        second.error("accept EMFILE", 2);
        one.error("accept EMFILE", 2);
        first.add(second);
        let summary = one.summary(0);
        assert_eq!(first.summary(0), summary);
        assert_eq!((summary.accepted, summary.datagrams), (5, 1));
        let a = &summary.by_listener[0];
        assert_eq!((a.listener.as_str(), a.accepted, a.datagrams), ("a", 4, 1));
        assert_eq!(a.by_ingress, BTreeMap::from([("if1".into(), 4), ("if2".into(), 1)]));
        assert_eq!(summary.by_listener.iter().map(|row| row.over_limit).collect::<Vec<_>>(), [0, 1, 0]);
    }
}
