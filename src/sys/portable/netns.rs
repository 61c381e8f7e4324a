//! Network namespaces: this system has none.

use std::convert::Infallible;
use std::io;

use crate::sys::NamespaceRefusal;

fn none() -> NamespaceRefusal {
    NamespaceRefusal {
        step: "network namespaces",
        source: io::ErrorKind::Unsupported.into(),
        remedy: "run the lab on Linux, for instance in a virtual machine".to_owned(),
    }
}

/// Always refuses.
///
/// # Errors
/// Always.
pub fn prepare() -> Result<(), NamespaceRefusal> {
    Err(none())
}

/// A network namespace; there is none on this system.
#[derive(Debug)]
pub struct Namespace(Infallible);

impl Namespace {
    /// Always refuses.
    ///
    /// # Errors
    /// Always.
    pub fn new() -> Result<Namespace, NamespaceRefusal> {
        Err(none())
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn enter(&self) -> io::Result<()> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn run<T: Send>(&self, _body: impl FnOnce() -> T + Send) -> io::Result<T> {
        match self.0 {}
    }

    /// Never called.
    #[must_use]
    pub fn path(&self) -> String {
        match self.0 {}
    }

    /// Never called.
    #[must_use]
    pub fn way_in(&self) -> String {
        match self.0 {}
    }
}

/// Always refuses.
///
/// # Errors
/// Always.
pub fn require_own() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Always refuses.
///
/// # Errors
/// Always.
pub fn write_setting(_name: &str, _value: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Always refuses.
///
/// # Errors
/// Always.
pub fn read_setting(_name: &str) -> io::Result<String> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Always refuses.
///
/// # Errors
/// Always.
pub fn drop_network_rights(_kept: crate::sys::CallerRights) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Always refuses.
///
/// # Errors
/// Always.
pub fn keep_network_rights() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There are no process-id namespaces.
#[derive(Debug)]
pub struct Processes(std::convert::Infallible);

impl Processes {
    /// Always refuses.
    ///
    /// # Errors
    /// Always.
    pub fn new() -> io::Result<Processes> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Does nothing: no program is started in a namespace.
pub fn end_with_us(_command: &mut std::process::Command) {}

/// Gives nothing: no program is started in a namespace.
pub fn give_terminal(_command: &mut std::process::Command) -> bool {
    false
}

/// Takes nothing back.
pub fn take_terminal() {}
