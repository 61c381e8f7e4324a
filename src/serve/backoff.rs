//! Reaction to errors of `accept(2)` and `recvmsg(2)`. Pure, without a clock.

use std::time::Duration;

use crate::model::Errno;

/// The first pause after a resource of the process or the system is exhausted.
const FIRST: Duration = Duration::from_millis(5);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(1);

/// Maximum number of consecutive lost connections before a pause. Otherwise a kernel that always fails would keep a
/// core busy.
const PATIENCE: u32 = 64;

/// The next action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing is waiting.
    Wait,
    /// This connection is lost; continue with the next one.
    Continue,
    /// Pause the listener: waiting connections stay in the kernel's queue.
    Pause(Duration),
    /// The socket itself is broken.
    GiveUp,
}

/// Pauses of one listener, doubled from 5 ms to 1 s while errors last.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    last: Option<Duration>,
    lost_in_a_row: u32,
}

impl Backoff {
    /// A connection was accepted: the next pause is short again.
    pub fn succeeded(&mut self) {
        *self = Backoff::default();
    }

    /// Whether the last attempts failed for lack of a resource. Connections may then still wait in the queue.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.last.is_some()
    }

    /// Classes of errors from accept(2): a network error ends only the one connection.
    pub fn failed(&mut self, errno: Errno) -> Next {
        match errno {
            Errno::EAGAIN => Next::Wait,
            Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EPERM => self.pause(),
            Errno::EBADF | Errno::ENOTSOCK | Errno::EINVAL => Next::GiveUp,
            _ if self.lost_in_a_row >= PATIENCE => self.pause(),
            _ => {
                self.lost_in_a_row += 1;
                Next::Continue
            }
        }
    }

    fn pause(&mut self) -> Next {
        let pause = self.last.map_or(FIRST, |last| (last * 2).min(LONGEST));
        self.last = Some(pause);
        Next::Pause(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second_and_start_over() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..10)
            .map(|_| match backoff.failed(Errno::EMFILE) {
                Next::Pause(pause) => pause.as_millis(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        backoff.succeeded();
        assert_eq!(backoff.failed(Errno::ENFILE), Next::Pause(FIRST));
    }

    #[test]
    fn one_lost_connection_does_not_stop_the_others() {
        let mut backoff = Backoff::default();
        for errno in [Errno::ECONNABORTED, Errno::EPROTO, Errno::ENETDOWN, Errno::EHOSTUNREACH] {
            assert_eq!(backoff.failed(errno), Next::Continue, "{errno}");
        }
        assert!(!backoff.is_failing());
        assert_eq!(backoff.failed(Errno::EAGAIN), Next::Wait);
        assert_eq!(backoff.failed(Errno::EINVAL), Next::GiveUp);
    }

    #[test]
    fn nothing_but_lost_connections_does_not_keep_a_core_busy() {
        let mut backoff = Backoff::default();
        for _ in 0..PATIENCE {
            assert_eq!(backoff.failed(Errno::ECONNABORTED), Next::Continue);
        }
        assert_eq!(backoff.failed(Errno::EPROTO), Next::Pause(FIRST));
        assert!(backoff.is_failing());
        backoff.succeeded();
        assert_eq!(backoff.failed(Errno::EPROTO), Next::Continue);
    }
}
