//! Changes of interfaces and addresses: not reported on this system, so a timer replaces them.

use std::io;
use std::time::{Duration, Instant};

use super::poller::Poller;
use crate::model::IfName;
use crate::sys::Notices;

/// Maximum age of a snapshot of the host's addresses.
const STALE: Duration = Duration::from_secs(1);

/// Reports once a second that the network may have changed.
pub struct Monitor {
    asked: Instant,
}

impl Monitor {
    /// Starts now.
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

    /// Whether the last "yes" is over a second ago. Names of interfaces are not reported.
    pub fn take(&mut self, _names: &mut Vec<(u32, Option<IfName>)>) -> Notices {
        if self.changed() { Notices::Some } else { Notices::None }
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
