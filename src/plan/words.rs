//! What a foretold bind means, in words.

use super::failure::{self, Explanation};
use super::predict::{BindOutcome, BindPrediction};
use crate::model::{Snapshot, SocketSpec};

/// What `listen` would say of it: code, message, and the smallest change that would help. `None` when the bind will succeed.
pub(super) fn of_bind(
    spec: &SocketSpec,
    prediction: &BindPrediction,
    holders: &[String],
    snapshot: &Snapshot,
) -> Option<Explanation> {
    let (phase, errno) = (prediction.phase?, prediction.errno?);
    // The only option that is foretold to fail for want of a right; a missing device is named by its own explanation.
    let object = if spec.device.is_some() { "SO_BINDTODEVICE" } else { "IP_TRANSPARENT" };
    let mut words = failure::explain(spec, phase, errno, object, holders, snapshot);
    if prediction.outcome == BindOutcome::Uncertain {
        words.message = format!("not certain: {}", words.message);
    }
    Some(words)
}
