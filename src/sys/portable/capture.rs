//! Packet capture: not supported on this system.

use std::convert::Infallible;
use std::io;

/// A capture; there is none on this system.
#[derive(Debug)]
pub struct Capture(Infallible);

impl Capture {
    /// Always refuses.
    ///
    /// # Errors
    /// Always.
    pub fn here() -> io::Result<Capture> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never called.
    pub fn drain(&mut self, _take: &mut dyn FnMut(u32, &[u8])) {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn lost(&mut self) -> io::Result<u32> {
        match self.0 {}
    }
}
