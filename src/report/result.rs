//! What holds of a result: the observation, or else the prediction.

use super::matrix::CellReport;
use crate::model::{IfName, Outcome, Source};

impl CellReport {
    /// The outcome; `None` if it is not known.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match &self.observed {
            Some(seen) => Some(seen.outcome),
            None => self.predicted.outcome,
        }
    }

    /// The listener that accepts it; `None` if none does, if several may, or if another program's socket does.
    #[must_use]
    pub fn listener(&self) -> Option<&str> {
        match &self.observed {
            Some(seen) => seen.listener.as_deref(),
            None => self.predicted.listener.as_deref(),
        }
    }

    /// The ingress interface that the kernel reports.
    #[must_use]
    pub fn ingress(&self) -> Option<&IfName> {
        match &self.observed {
            Some(seen) => seen.ingress.as_ref(),
            None => self.predicted.ingress.as_ref(),
        }
    }

    /// Whether it arrives from another host at an address that another interface has.
    #[must_use]
    pub fn arrives_elsewhere(&self) -> bool {
        let ingress = self.ingress().or(self.predicted.ingress.as_ref());
        let link_local = self.destination.contains('%');
        match (self.source == Source::Host, ingress, &self.address_owner) {
            (false, Some(ingress), Some(owner)) => ingress != owner && !link_local,
            _ => false,
        }
    }
}
