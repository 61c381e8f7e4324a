//! The linux side of [`super`]. No logic here.

pub mod beginning;
mod borrow;
pub mod capture;
mod cgroup;
pub mod confine;
pub mod connections;
pub mod filters;
pub mod groups;
mod implied;
pub mod inherit;
pub mod inventory;
mod memory;
pub mod monitor;
pub mod namespaces;
pub mod netlink;
pub mod netns;
pub mod network;
pub mod options;
pub mod overflows;
pub mod packet_info;
pub mod poller;
mod proc_net;
mod processes;
mod refused;
pub mod rights;
pub mod rtnetlink;
pub mod sight;
pub mod snapshot;
mod sock_diag;

#[cfg(fuzzing)]
pub mod decoders {
    //! Doors for fuzzing: bytes in, how much came of them out.
    pub use super::netlink::decode as netlink;
    pub use super::proc_net::decode as proc_net;
    pub use super::processes::decode as process;
    pub use super::sock_diag::decode as sock_diag;
}
