//! A line on the terminal that says how far a command is. Everything that takes longer than half a second uses it.

use std::io::Write as _;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Context;

/// What is over earlier needs no line.
const PATIENCE: Duration = Duration::from_millis(300);
/// Time between two versions of the line.
const STEP: Duration = Duration::from_millis(100);

/// The progress of a known number of steps.
pub(super) struct Progress {
    label: &'static str,
    total: usize,
    shown: bool,
    next: Instant,
    wanted: bool,
}

impl Progress {
    pub(super) fn new(label: &'static str, total: usize, context: &Context) -> Progress {
        Progress { label, total, shown: false, next: Instant::now() + PATIENCE, wanted: wanted(context) }
    }

    pub(super) fn show(&mut self, done: usize) {
        if self.wanted && Instant::now() >= self.next {
            self.next = Instant::now() + STEP;
            self.shown = true;
            write(&format!("{}: {done} of {}", self.label, self.total));
        }
    }

    pub(super) fn end(&self) {
        if self.shown {
            write("");
        }
    }
}

/// Does `work`, whose steps are not known in advance, and shows how long it takes.
pub(super) fn waiting<T>(label: &str, context: &Context, work: impl FnOnce() -> T) -> T {
    if !wanted(context) {
        return work();
    }
    let (ended, changed) = (Mutex::new(false), Condvar::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let begun = Instant::now();
            let mut shown = false;
            let mut over = ended.lock().unwrap_or_else(PoisonError::into_inner);
            while !*over {
                let pause = if shown { STEP } else { PATIENCE };
                over = changed.wait_timeout(over, pause).unwrap_or_else(PoisonError::into_inner).0;
                if !*over && begun.elapsed() >= PATIENCE {
                    shown = true;
                    write(&format!("{label}: {:.1} s", begun.elapsed().as_secs_f64()));
                }
            }
            if shown {
                write("");
            }
        });
        // Also after a panic of `work`.
        let end = End { ended: &ended, changed: &changed };
        let result = work();
        drop(end);
        result
    })
}

/// Ends the thread that shows the time.
struct End<'a> {
    ended: &'a Mutex<bool>,
    changed: &'a Condvar,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

fn wanted(context: &Context) -> bool {
    context.terminal_stderr && !context.quiet
}

/// Replaces the line.
fn write(line: &str) {
    let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
}
