//! Accept queues that fill up: the length, and the number of connections that the kernel dropped.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::sys::Overflows;

/// Minimum time between two reports of one listener.
const REST: Duration = Duration::from_secs(1);

/// The queue of one listener.
struct Queue {
    /// Maximum length since the last report.
    fullest: Option<(u32, u32)>,
    reported: Instant,
}

/// Maximum lengths of the queues of all listeners.
pub(super) struct Pressure {
    overflows: Option<Overflows>,
    queues: BTreeMap<String, Queue>,
}

impl Pressure {
    pub(super) fn new() -> Pressure {
        Pressure { overflows: Overflows::new(), queues: BTreeMap::new() }
    }

    /// Records the length and limit of a queue. Returns the maximum since the last report when it is time to report it:
    /// immediately, then at most every second.
    pub(super) fn filled(
        &mut self,
        listener: &str,
        length: u32,
        limit: u32,
        now: Instant,
    ) -> Option<(u32, u32)> {
        let Some(queue) = self.queues.get_mut(listener) else {
            self.queues.insert(listener.to_owned(), Queue { fullest: None, reported: now });
            return Some((length, limit));
        };
        queue.fullest = queue.fullest.max(Some((length, limit)));
        if now.duration_since(queue.reported) < REST {
            return None;
        }
        queue.reported = now;
        queue.fullest.take()
    }

    /// The recorded but unreported lengths of each listener.
    pub(super) fn unreported(&mut self) -> Vec<(String, (u32, u32))> {
        let queues = self.queues.iter_mut();
        queues.filter_map(|(listener, queue)| Some((listener.clone(), queue.fullest.take()?))).collect()
    }

    /// Number of connections that the kernel dropped at full queues in this network namespace.
    pub(super) fn overflows(&self) -> Option<u64> {
        self.overflows.as_ref()?.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_reported_at_once_and_then_each_second() {
        let mut pressure = Pressure { overflows: None, queues: BTreeMap::new() };
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(pressure.filled("a", 100, 128, at(0)), Some((100, 128)));
        assert_eq!(pressure.filled("a", 129, 128, at(300)), None);
        assert_eq!(pressure.filled("b", 17, 16, at(300)), Some((17, 16)));
        assert_eq!(pressure.filled("a", 99, 128, at(1000)), Some((129, 128)));
        assert_eq!(pressure.unreported(), []);
        assert_eq!(pressure.filled("a", 110, 128, at(1100)), None);
        assert_eq!(pressure.unreported(), [("a".to_owned(), (110, 128))]);
    }
}
