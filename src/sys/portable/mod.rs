//! The portable side of [`super`]. No logic here.

pub mod capabilities;
pub mod capture;
pub mod connections;
pub mod error_queue;
pub mod filters;
pub mod groups;
pub mod inventory;
pub mod monitor;
pub mod namespaces;
pub mod netns;
pub mod network;
pub mod not_examined;
pub mod options;
pub mod overflows;
pub mod packet_info;
pub mod poller;
pub mod sandbox;
pub mod snapshot;
pub mod socket_activation;
#[cfg(any(windows, test))]
mod socket_tables;
pub mod startup;
pub mod visibility;
#[cfg(windows)]
mod windows;
