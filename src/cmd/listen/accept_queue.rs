//! Accept queues that fill up: how far, and how many connections the kernel has turned away meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::sys::Overflows;

/// How long a listener rests after its queue was told.
const REST: Duration = Duration::from_secs(1);

/// The queue of one listener.
struct Queue {
    /// The fullest since it was told.
    fullest: Option<(u32, u32)>,
    told: Instant,
}

/// How far the queues of all listeners have been filled.
pub(super) struct Pressure {
    overflows: Option<Overflows>,
    queues: BTreeMap<String, Queue>,
}

impl Pressure {
    pub(super) fn new() -> Pressure {
        Pressure { overflows: Overflows::new(), queues: BTreeMap::new() }
    }

    /// Takes note that so many wait of so many that may. Returns the fullest since the last time when it is to be told now: at
    /// once, and then every second at the most.
    pub(super) fn filled(
        &mut self,
        listener: &str,
        length: u32,
        limit: u32,
        now: Instant,
    ) -> Option<(u32, u32)> {
        let Some(queue) = self.queues.get_mut(listener) else {
            self.queues.insert(listener.to_owned(), Queue { fullest: None, told: now });
            return Some((length, limit));
        };
        queue.fullest = queue.fullest.max(Some((length, limit)));
        if now.duration_since(queue.told) < REST {
            return None;
        }
        queue.told = now;
        queue.fullest.take()
    }

    /// What was noted of each listener and not told yet.
    pub(super) fn unreported(&mut self) -> Vec<(String, (u32, u32))> {
        let queues = self.queues.iter_mut();
        queues.filter_map(|(listener, queue)| Some((listener.clone(), queue.fullest.take()?))).collect()
    }

    /// How many connections the kernel has turned away at full queues in this network namespace.
    pub(super) fn overflows(&self) -> Option<u64> {
        self.overflows.as_ref()?.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_told_at_once_and_then_each_second() {
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
