//! Deadlines of connections, earliest first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Deadlines by connection. If a deadline moves to a later time, the old entry stays until it is due, which is cheaper
/// than finding it. If a deadline moves to an earlier time, it must be added again.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Instant, u64)>>,
}

impl Timers {
    /// Adds the first deadline of a connection.
    pub fn add(&mut self, id: u64, deadline: Instant) {
        self.heap.push(Reverse((deadline, id)));
    }

    /// When to check again; may be early, never late.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// The next connection that is due. `deadline_of` returns a connection's current deadline, `None` if it has ended.
    pub fn due(&mut self, now: Instant, deadline_of: impl Fn(u64) -> Option<Instant>) -> Option<u64> {
        while let Some(Reverse((deadline, id))) = self.heap.peek().copied() {
            if deadline > now {
                return None;
            }
            self.heap.pop();
            match deadline_of(id) {
                Some(later) if later > now => self.add(id, later),
                Some(_) => return Some(id),
                None => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_moved_deadline_counts_and_a_closed_connection_does_not() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut deadlines = HashMap::from([(1, at(10)), (2, at(20)), (3, at(30))]);
        let mut timers = Timers::default();
        for (&id, &deadline) in &deadlines {
            timers.add(id, deadline);
        }
        deadlines.insert(1, at(25));
        deadlines.remove(&2);
        assert_eq!(timers.due(at(20), |id| deadlines.get(&id).copied()), None);
        assert_eq!(timers.next(), Some(at(25)));
        assert_eq!(timers.due(at(30), |id| deadlines.get(&id).copied()), Some(1));
        assert_eq!(timers.due(at(30), |id| deadlines.get(&id).copied()), Some(3));
        assert_eq!(timers.due(at(99), |id| deadlines.get(&id).copied()), None);
    }
}
