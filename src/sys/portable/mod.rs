//! The portable side of [`super`]. No logic here.

pub mod beginning;
pub mod capture;
pub mod confine;
pub mod connections;
pub mod filters;
pub mod groups;
pub mod inherit;
pub mod inventory;
pub mod monitor;
pub mod namespaces;
pub mod netns;
pub mod network;
pub mod options;
pub mod overflows;
pub mod packet_info;
pub mod poller;
pub mod rights;
pub mod sight;
pub mod snapshot;
