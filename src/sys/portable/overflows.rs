//! Connections that found an accept queue full are not counted here.

/// Not available here.
#[derive(Debug)]
pub struct Overflows(std::convert::Infallible);

impl Overflows {
    /// `None`.
    #[must_use]
    pub fn new() -> Option<Overflows> {
        None
    }

    /// How many there have been since.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        match self.0 {}
    }
}
