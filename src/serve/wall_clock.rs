//! Moments of the wall clock as moments of the clock that never jumps, as far as that can be known.

use std::time::{Duration, Instant, SystemTime};

use super::interface_names::Period;

/// How far the two clocks may differ over one look: by the time that reading both takes, and by the pace of a clock that is being set
/// (adjtimex(2)).
const DIFFERENCE: Duration = Duration::from_millis(2);

/// Knows since when the wall clock has not been set.
#[derive(Debug)]
pub(super) struct WallClock {
    last: (Instant, SystemTime),
    steady_since: Instant,
}

impl WallClock {
    pub(super) fn new(now: Instant, wall: SystemTime) -> WallClock {
        WallClock { last: (now, wall), steady_since: now }
    }

    /// When they were last looked at.
    pub(super) fn last(&self) -> Instant {
        self.last.0
    }

    /// Looks at both clocks. To be called often: a clock that is slowly set must not seem to jump.
    pub(super) fn look(&mut self, now: Instant, wall: SystemTime) {
        let passed = now.saturating_duration_since(self.last.0);
        let moved = wall.duration_since(self.last.1);
        let pace = passed / 1000;
        if !moved.is_ok_and(|moved| moved.abs_diff(passed) <= DIFFERENCE + pace) {
            self.steady_since = now;
        }
        self.last = (now, wall);
    }

    /// When the wall clock showed this; `None` when it was set since then.
    pub(super) fn moment(&self, shown: SystemTime) -> Option<Period> {
        let (now, wall) = self.last;
        let age = wall.duration_since(shown).unwrap_or_default();
        let after = now.checked_sub(age + DIFFERENCE)?;
        let by = now.checked_sub(age.saturating_sub(DIFFERENCE)).unwrap_or(now);
        (after >= self.steady_since).then_some(Period { after, by })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_until_the_clock_jumps() {
        let (start, wall) = (Instant::now(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let ms = Duration::from_millis;
        let mut clock = WallClock::new(start, wall);
        clock.look(start + ms(1000), wall + ms(1001));
        let Period { after, by } = clock.moment(wall + ms(500)).unwrap();
        assert!(after < start + ms(500) && start + ms(499) < by && by - after == 2 * DIFFERENCE);
        assert_eq!(clock.moment(wall - ms(50)), None, "before anything was known");
        // An hour back, and an hour on.
        for (jump, number) in [(wall - ms(3_600_000), 2), (wall + ms(7_200_000), 3)] {
            let now = start + ms(1000 * number);
            clock.look(now, jump);
            assert_eq!(clock.moment(wall + ms(900)), None);
            clock.look(now + ms(100), jump + ms(100));
            assert!(clock.moment(jump + ms(50)).is_some());
        }
    }
}
