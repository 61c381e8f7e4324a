//! Network namespaces: which there are, and how to work in one.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Inode of the calling thread's network namespace.
pub(super) fn current() -> Option<u64> {
    inode_of_link(Path::new("/proc/thread-self/ns/net"))
}

/// The number in `net:[4026531840]`, which the link reads as.
fn inode_of_link(path: &Path) -> Option<u64> {
    let link = std::fs::read_link(path).ok()?;
    let digits = link.as_os_str().as_bytes().strip_prefix(b"net:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
