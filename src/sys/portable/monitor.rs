//! Changes of interfaces and addresses: not told here, so time stands in for them.

use std::io;
use std::time::{Duration, Instant};

use super::poller::Poller;

/// How old a picture of the host's addresses may be.
const STALE: Duration = Duration::from_secs(1);

/// Says that the network may have changed, once a second at most.
pub struct Monitor {
    asked: Instant,
}

impl Monitor {
    /// Begins now.
    ///
    /// # Errors
    /// None.
    pub fn new() -> io::Result<Monitor> {
        Ok(Monitor { asked: Instant::now() })
    }

    /// Nothing wakes the poller here: false.
    ///
    /// # Errors
    /// None.
    pub fn watch(&self, _poller: &Poller, _key: u64) -> io::Result<bool> {
        Ok(false)
    }

    /// Whether the last "yes" is over a second ago.
    pub fn changed(&mut self) -> bool {
        let stale = self.asked.elapsed() >= STALE;
        if stale {
            self.asked = Instant::now();
        }
        stale
    }
}
