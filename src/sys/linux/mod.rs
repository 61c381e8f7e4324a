//! The linux side of [`super`]. No logic here.

pub mod capabilities;
pub mod capture;
mod cgroup;
pub mod connections;
pub mod error_queue;
pub mod filters;
pub mod groups;
mod hugepages;
mod implied;
pub mod inventory;
mod ipset;
mod kernel_sockets;
mod lifetimes;
pub mod monitor;
pub mod namespaces;
pub mod netlink;
pub mod netns;
pub mod network;
mod network_routes;
mod nexthops;
mod nftables;
pub mod not_examined;
pub mod options;
pub mod overflows;
pub mod packet_info;
mod pidfd;
pub mod poller;
mod proc_net;
mod processes;
pub mod rtnetlink;
pub mod sandbox;
mod settings;
pub mod snapshot;
mod sock_diag;
pub mod socket_activation;
mod socket_units;
pub mod startup;
mod userns_errors;
pub mod visibility;
mod xtables;

#[cfg(fuzzing)]
pub mod decoders {
    //! Doors for fuzzing: bytes in, how much came of them out.
    pub use super::proc_net::decode as proc_net;
    pub use super::processes::decode as process;
    pub use super::rtnetlink::decode as netlink;
    pub use super::sock_diag::decode as sock_diag;
}
