//! What a run of `listen` has received, in bounded memory: sockets, counts over time, and the first arrivals.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::event::{Event, Started, Summary, ingress_key};
use super::time::Time;
use crate::model::{Arrival, IfName, SocketView};

/// Arrivals that are kept one by one.
pub const MOST_ARRIVALS: usize = 5_000;
/// Notices that are kept.
const MOST_NOTICES: usize = 100;
/// Intervals in which arrivals are counted. When time runs beyond the last, intervals are joined in pairs.
pub const INTERVALS: usize = 64;
/// The shortest interval, in microseconds.
const SHORTEST: i64 = 250_000;

/// What a run of `listen` has received.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The first event.
    pub started: Option<Started>,
    /// The open sockets, in order.
    pub sockets: Vec<SocketView>,
    /// Sockets that could not be opened, with the reason.
    pub failed: Vec<(SocketView, String)>,
    /// Notices, one sentence each.
    pub notices: Vec<String>,
    /// Arrivals by listener and ingress interface.
    pub lanes: BTreeMap<(String, IfName), Lane>,
    /// The first arrivals.
    pub arrivals: Vec<(Time, Arrival)>,
    /// Number of arrivals that are not in the list.
    pub not_listed: u64,
    /// Number of changes of the host's network.
    pub network_changes: u64,
    /// Number of connections whose later packets arrived on another interface.
    pub path_changes: u64,
    /// The last event; `None` if the run was cut.
    pub summary: Option<Summary>,
    /// Start of the first interval, in microseconds.
    origin: Option<i64>,
    /// Length of an interval, in microseconds; zero before the first arrival.
    width: i64,
}

/// Arrivals at one listener over one interface.
#[derive(Debug, Clone, Default)]
pub struct Lane {
    /// Their number.
    pub count: u64,
    /// Arrivals of other hosts at addresses of another interface, with that interface.
    pub elsewhere: BTreeMap<(IpAddr, IfName), u64>,
    /// Arrivals whose interface the kernel did not report.
    pub not_from_kernel: u64,
    /// Number in each interval.
    pub intervals: Vec<u64>,
}

impl Lane {
    fn count_at(&mut self, interval: usize) {
        if self.intervals.len() <= interval {
            self.intervals.resize(interval + 1, 0);
        }
        if let Some(count) = self.intervals.get_mut(interval) {
            *count += 1;
        }
    }

    fn halve(&mut self) {
        self.intervals = self.intervals.chunks(2).map(|pair| pair.iter().sum()).collect();
    }
}

impl History {
    /// A history that counts from `started`.
    #[must_use]
    pub fn new(started: Option<Time>) -> History {
        History { origin: started.map(micros), ..History::default() }
    }

    /// A history of another thread, to be merged into this one.
    #[must_use]
    pub fn for_thread(&self) -> History {
        History { origin: self.origin, ..History::default() }
    }

    /// Length of an interval in milliseconds.
    #[must_use]
    pub fn interval_ms(&self) -> i64 {
        self.width.max(SHORTEST) / 1000
    }

    /// Adds an event.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Started(started) => {
                self.origin = Some(micros(started.time));
                self.started = Some(started.clone());
            }
            Event::Bound(bound) => self.sockets.push(bound.socket.clone()),
            Event::BindFailed(failed) => self.failed.push((failed.socket.clone(), failed.message.clone())),
            Event::Notice(notice) if self.notices.len() < MOST_NOTICES => {
                let listener = notice.listener.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
                let sentence = format!("{listener}{}", notice.message);
                if !self.notices.contains(&sentence) {
                    self.notices.push(sentence);
                }
            }
            Event::Accepted(accepted) => self.arrival(accepted.time, &accepted.arrival),
            Event::Datagram(datagram) => self.arrival(datagram.time, &datagram.arrival),
            Event::Network(_) => self.network_changes += 1,
            Event::PathChanged(_) => self.path_changes += 1,
            Event::Summary(summary) => self.summary = Some(summary.clone()),
            Event::Notice(_)
            | Event::Listening(_)
            | Event::Exposure(_)
            | Event::Closed(_)
            | Event::Queue(_)
            | Event::Dropped(_) => {}
        }
    }

    /// Adds an arrival.
    pub fn arrival(&mut self, time: Time, arrival: &Arrival) {
        let interval = self.interval(time);
        let ingress = &arrival.ingress;
        let key = (arrival.listener.clone(), ingress_key(ingress.name.as_ref(), ingress.index));
        let lane = self.lanes.entry(key).or_default();
        lane.count += 1;
        lane.count_at(interval);
        lane.not_from_kernel += u64::from(ingress.evidence != crate::model::Evidence::Kernel);
        if let Some(owner) = arrival.other_owner() {
            *lane.elsewhere.entry((arrival.local.address, owner.clone())).or_default() += 1;
        }
        if self.arrivals.len() < MOST_ARRIVALS {
            self.arrivals.push((time, arrival.clone()));
        } else {
            self.not_listed += 1;
        }
    }

    /// The interval of a time. A time before the start, after a jump of the clock, counts in the first.
    fn interval(&mut self, time: Time) -> usize {
        let now = micros(time);
        let origin = *self.origin.get_or_insert(now);
        self.width = self.width.max(SHORTEST);
        let most = i64::try_from(INTERVALS).unwrap_or(i64::MAX);
        while now.saturating_sub(origin) / self.width >= most {
            self.widen();
        }
        usize::try_from(now.saturating_sub(origin) / self.width).unwrap_or(0)
    }

    fn widen(&mut self) {
        self.width = self.width.saturating_mul(2);
        for lane in self.lanes.values_mut() {
            lane.halve();
        }
    }

    /// Adds what another thread has received.
    pub fn add(&mut self, mut other: History) {
        if other.lanes.is_empty() {
            return;
        }
        self.origin = self.origin.or(other.origin);
        let width = self.width.max(other.width);
        for history in [&mut *self, &mut other] {
            history.width = history.width.max(SHORTEST);
            while history.width < width {
                history.widen();
            }
        }
        for (key, lane) in other.lanes {
            let mine = self.lanes.entry(key).or_default();
            mine.count += lane.count;
            mine.not_from_kernel += lane.not_from_kernel;
            for (place, count) in lane.elsewhere {
                *mine.elsewhere.entry(place).or_default() += count;
            }
            if mine.intervals.len() < lane.intervals.len() {
                mine.intervals.resize(lane.intervals.len(), 0);
            }
            for (mine, count) in mine.intervals.iter_mut().zip(lane.intervals) {
                *mine += count;
            }
        }
        self.not_listed += other.not_listed;
        self.path_changes += other.path_changes;
        self.arrivals.extend(other.arrivals);
        self.arrivals.sort_by_key(|(time, _)| *time);
        let more = self.arrivals.len().saturating_sub(MOST_ARRIVALS);
        self.arrivals.truncate(MOST_ARRIVALS);
        self.not_listed += u64::try_from(more).unwrap_or(0);
    }

    /// Number of intervals that have an arrival, or lie before one.
    #[must_use]
    pub fn intervals(&self) -> usize {
        self.lanes.values().map(|lane| lane.intervals.len()).max().unwrap_or(0)
    }

    /// Number of arrivals.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.lanes.values().map(|lane| lane.count).sum()
    }
}

/// Microseconds since 1970.
fn micros(time: Time) -> i64 {
    let (seconds, micros) = time.parts();
    seconds.saturating_mul(1_000_000).saturating_add(i64::from(micros))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(millis: u64) -> Time {
        Time::new(UNIX_EPOCH + Duration::from_secs(1_700_000_000) + Duration::from_millis(millis))
    }

    fn arrival(listener: &str) -> Arrival {
        Arrival { listener: listener.to_owned(), ..Arrival::nowhere() }
    }

    #[test]
    fn intervals_grow_with_the_time_and_keep_their_sums() {
        let mut history = History::new(Some(at(0)));
        for millis in [0, 100, 250, 16_000, 900_000] {
            history.arrival(at(millis), &arrival("a"));
        }
        let lane = history.lanes.values().next().unwrap();
        assert_eq!((lane.count, lane.intervals.iter().sum::<u64>()), (5, 5));
        assert!(lane.intervals.len() <= INTERVALS);
        assert_eq!(history.interval_ms(), 16_000);
        assert_eq!(lane.intervals[..2], [3, 1]);
    }

    #[test]
    fn threads_together_count_as_one_would() {
        let mut one = History::new(Some(at(0)));
        let (mut first, mut second) = (one.for_thread(), one.for_thread());
        for number in 0..500_u64 {
            let (time, arrival) = (at(number * 97), arrival(if number % 3 == 0 { "a" } else { "b" }));
            one.arrival(time, &arrival);
            if number % 2 == 0 { &mut first } else { &mut second }.arrival(time, &arrival);
        }
        first.add(second);
        let of = |history: &History| -> Vec<Vec<u64>> {
            history.lanes.values().map(|lane| lane.intervals.clone()).collect()
        };
        assert_eq!(of(&first), of(&one));
        assert_eq!(first.arrivals, one.arrivals);
        assert_eq!(first.interval_ms(), one.interval_ms());
    }

    #[test]
    fn the_list_is_bounded_and_the_count_is_not() {
        let mut history = History::new(None);
        for _ in 0..MOST_ARRIVALS + 7 {
            history.arrival(at(1), &arrival("a"));
        }
        assert_eq!((history.arrivals.len(), history.not_listed), (MOST_ARRIVALS, 7));
        assert_eq!(history.total(), MOST_ARRIVALS as u64 + 7);
        // A clock that jumps back.
        history.arrival(Time::new(UNIX_EPOCH), &arrival("a"));
        assert_eq!(history.lanes.values().next().unwrap().intervals[0], MOST_ARRIVALS as u64 + 8);
    }
}
