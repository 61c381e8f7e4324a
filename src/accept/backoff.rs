//! What to do about an error of `accept(2)` or `recvmsg(2)`. Pure, and without a clock.

use std::time::Duration;

use crate::model::Errno;

/// The first pause after the process or the system has run out of something.
const FIRST: Duration = Duration::from_millis(5);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(1);

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing waits any more.
    Wait,
    /// That one is lost, the next one may be fine.
    Continue,
    /// Leave the listener alone for a while: those who wait stay in the kernel's queue.
    Pause(Duration),
    /// The socket itself is broken.
    GiveUp,
}

/// The pauses of one listener, doubling from 5 ms to 1 s while errors last.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// Something was accepted: the next pause is short again.
    pub fn succeeded(&mut self) {
        self.last = None;
    }

    /// Classes as accept(2) has them: what the network did to one connection is that connection's end only.
    pub fn failed(&mut self, errno: Errno) -> Next {
        match errno {
            Errno::EAGAIN => Next::Wait,
            Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EPERM => {
                let pause = self.last.map_or(FIRST, |last| (last * 2).min(LONGEST));
                self.last = Some(pause);
                Next::Pause(pause)
            }
            Errno::EBADF | Errno::ENOTSOCK | Errno::EINVAL => Next::GiveUp,
            _ => Next::Continue,
        }
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
        for errno in [Errno::ECONNABORTED, Errno::EINTR, Errno::EPROTO, Errno::ENETDOWN, Errno::EHOSTUNREACH]
        {
            assert_eq!(backoff.failed(errno), Next::Continue, "{errno}");
        }
        assert_eq!(backoff.failed(Errno::EAGAIN), Next::Wait);
        assert_eq!(backoff.failed(Errno::EINVAL), Next::GiveUp);
    }
}
