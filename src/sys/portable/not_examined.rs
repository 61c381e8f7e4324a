//! Sockets of other protocols: not listed on this system.

use crate::model::{ListeningSocket, NotExamined};

/// None are listed, and the reason is stated.
#[must_use]
pub fn not_examined(_sockets: &[ListeningSocket]) -> NotExamined {
    NotExamined {
        unknown_because: vec!["sockets of other protocols are listed on Linux only".to_owned()],
        ..NotExamined::default()
    }
}
