//! The linux side of [`super`]. No logic here.

mod borrow;
pub mod capture;
mod cgroup;
pub mod confine;
pub mod connections;
pub mod filters;
pub mod inherit;
pub mod inventory;
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
