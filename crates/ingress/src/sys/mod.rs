//! The system calls, and the only place of `unsafe` and of the choice between systems. Every system exports the same functions.

#[cfg(not(any(unix, windows)))]
compile_error!("ingress-interface supports Unix and Windows");

#[cfg(all(target_os = "linux", not(bindscope_portable)))]
#[path = "linux.rs"]
mod system;
#[cfg(all(unix, any(bindscope_portable, not(target_os = "linux"))))]
#[path = "other_unix.rs"]
mod system;
#[cfg(windows)]
#[path = "windows.rs"]
mod system;

#[cfg(all(target_os = "linux", not(bindscope_portable)))]
mod control;
#[cfg(unix)]
mod unix;

#[cfg(unix)]
pub use std::os::fd::AsFd as AsSocket;
#[cfg(windows)]
pub use std::os::windows::io::AsSocket;

pub(crate) use system::*;

#[cfg(unix)]
pub(crate) use unix::{is_stream, local_addr, peer_addr};
