//! Settings of the kernel (`/proc/sys`).

use std::io;

/// Reads a setting of the calling thread's namespace, named by its path below `/proc/sys`.
///
/// # Errors
/// As `read(2)`.
pub fn read_setting(name: &str) -> io::Result<String> {
    std::fs::read_to_string(format!("/proc/sys/{name}")).map(|text| text.trim().to_owned())
}
