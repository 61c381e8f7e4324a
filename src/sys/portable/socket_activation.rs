//! Sockets passed by another program: not supported on this system.

use crate::sys::socket_types::Inherited;

/// None.
///
/// # Errors
/// Always: the protocol is not implemented here.
pub fn inherited() -> Result<Vec<Result<Inherited, String>>, String> {
    Err("taking over sockets by LISTEN_FDS is implemented on Linux only".to_owned())
}
