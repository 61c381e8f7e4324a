//! Privileges of this process, as far as a portable program can determine them.

use crate::sys::CallerRights;

/// The effective user; root may do everything.
#[must_use]
pub fn rights() -> CallerRights {
    #[cfg(unix)]
    let uid = nix::unistd::geteuid().as_raw();
    #[cfg(not(unix))]
    let uid = 0;
    CallerRights { uid, privileged_ports: uid == 0, transparent: uid == 0 }
}
