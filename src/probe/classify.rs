//! Meaning of an errno of `connect(2)` for reachability.

use crate::model::{Answer, AnswerKind, Errno, Outcome};

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

/// Whether an ICMP error is one that may pass (`icmp_err_convert` of `net/ipv4/icmp.c`, `tab_unreach` of `net/ipv6/icmp.c`): no
/// route, no neighbour, a time that is exceeded.
#[must_use]
pub fn may_pass(answer: Answer) -> bool {
    match (answer.kind, answer.icmp_type, answer.code) {
        (AnswerKind::Icmp, Some(3), Some(code)) => matches!(code, 0 | 1 | 5 | 11 | 12),
        (AnswerKind::Icmpv6, Some(1), Some(code)) => matches!(code, 0 | 2 | 3),
        (AnswerKind::Reset, ..) => false,
        _ => true,
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
