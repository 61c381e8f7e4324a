//! A line on the terminal that shows how far a command is.

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::Context;

/// The line; commands that end soon show none.
pub(super) struct Progress {
    label: &'static str,
    total: usize,
    shown: bool,
    next: Instant,
    wanted: bool,
}

impl Progress {
    pub(super) fn new(label: &'static str, total: usize, context: &Context) -> Progress {
        let wanted = context.terminal_stderr && !context.quiet;
        // What is over at once needs no line.
        Progress { label, total, shown: false, next: Instant::now() + Duration::from_millis(300), wanted }
    }

    pub(super) fn show(&mut self, done: usize) {
        if self.wanted && Instant::now() >= self.next {
            self.next = Instant::now() + Duration::from_millis(100);
            self.shown = true;
            let _ = write!(std::io::stderr(), "\r{}: {done} of {}\x1b[K", self.label, self.total);
        }
    }

    pub(super) fn end(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
