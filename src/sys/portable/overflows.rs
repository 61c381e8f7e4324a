//! Overflows of accept queues: not counted on this system.

/// Not available here.
#[derive(Debug)]
pub struct Overflows(std::convert::Infallible);

impl Overflows {
    /// `None`.
    #[must_use]
    pub fn new() -> Option<Overflows> {
        None
    }

    /// Number of overflows since the start.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        match self.0 {}
    }
}
