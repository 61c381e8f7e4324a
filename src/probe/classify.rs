//! Meaning of an errno of `connect(2)` for reachability.

use crate::model::{Errno, Outcome};

/// The outcome for an errno (connect(2), ip(7), udp(7)).
#[must_use]
pub fn outcome_of(errno: Errno) -> Outcome {
    match errno {
        Errno::ECONNREFUSED | Errno::ECONNRESET => Outcome::Refused,
        Errno::ETIMEDOUT => Outcome::Timeout,
        Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN | Errno::EHOSTDOWN => Outcome::Unreachable,
        _ => Outcome::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_timeout_and_unreachable_are_kept_apart() {
        assert_eq!(outcome_of(Errno::ECONNREFUSED), Outcome::Refused);
        assert_eq!(outcome_of(Errno::ETIMEDOUT), Outcome::Timeout);
        assert_eq!(outcome_of(Errno::EHOSTUNREACH), Outcome::Unreachable);
        assert_eq!(outcome_of(Errno::EADDRNOTAVAIL), Outcome::Error);
    }
}
