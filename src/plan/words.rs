//! What a foretold bind means, in words.

use super::failure;
use super::predict::{BindOutcome, BindPrediction};
use crate::model::{Snapshot, SocketSpec};

/// The message and the smallest change that would help; `None` when the bind will succeed.
pub(super) fn of_bind(
    spec: &SocketSpec,
    prediction: &BindPrediction,
    holders: &[String],
    snapshot: &Snapshot,
) -> Option<(String, Option<String>)> {
    let (phase, errno) = (prediction.phase?, prediction.errno?);
    // The only option that is foretold to fail for want of a right; a missing device is named by its own explanation.
    let object = if spec.device.is_some() { "SO_BINDTODEVICE" } else { "IP_TRANSPARENT" };
    let words = failure::explain(spec, phase, errno, object, holders, snapshot);
    let message = match prediction.outcome {
        BindOutcome::Uncertain => format!("not certain: {}", words.message),
        _ => words.message,
    };
    Some((message, words.hint))
}
