//! Everything the operating system does for us. The only home of `unsafe` and `cfg(target_os)`.
//!
//! # Required items
//!
//! `linux` and `portable` export the same items, so that nothing above knows which one runs. `portable` answers
//! [`Error::Unsupported`] or leaves a field unknown where the system cannot tell. On Linux,
//! `RUSTFLAGS='--cfg bindscope_portable'` builds `portable`, so that it is tested.
//!
//! | item | meaning |
//! |---|---|
//! | `snapshot()` | interfaces, addresses, routes, settings of the calling thread's network namespace |
//! | `addresses()` | the interfaces and addresses of `snapshot()`, and nothing else |
//! | `listed_addresses()` | the addresses as the C library lists them: a second opinion |
//! | `packet_info` | asking for, and reading, the ingress interface of connections and datagrams |
//! | `poller::Poller` | level-triggered readiness over many sockets |
//! | `inventory`, `attach_owners`, `owners` | sockets that listen on this machine, and who holds them |
//! | `netns`, `Network` | namespaces of our own, and changes of their networks, for labs |
//! | `Capture` | the packets that come into the calling thread's namespace, for labs |
//! | `namespaces`, `in_namespace` | the other network namespaces, and work in one |
//! | `groups` | the multicast groups that interfaces have joined |
//! | `report_icmp`, `take_icmp` | the ICMP errors that a client received |
//! | `packet_filters`, `packet_filters_with_rules` | the tables of packet filters, and their rules |
//! | `replay_rules`, `Trace` | rules of a snapshot into a namespace of a lab; what packets meet there |
//! | `not_examined` | sockets of other protocols and programs attached to cgroups, which no audit judges |
//! | `began_without_output` | whether standard output was closed at the start |
//! | `confine`, `with_other_threads` | giving up the rights that are not needed after binding |
//! | `Overflows` | how many connections found an accept queue full |
//! | `set_host_id` | the identifier of this host in documents |
//! | `port_holder`, `port_holders` | the sockets that hold a port |

mod errno;
mod error;
mod file;
mod filter_types;
mod getifaddrs;
mod host_id;
mod input;
mod lab_types;
#[cfg(all(target_os = "linux", not(bindscope_portable)))]
mod linux;
#[cfg(not(all(target_os = "linux", not(bindscope_portable))))]
mod portable;

/// The decoder of Windows' tables, whose tests run everywhere.
#[cfg(all(test, target_os = "linux", not(bindscope_portable)))]
#[path = "portable/socket_tables.rs"]
mod socket_tables;

mod output;
#[cfg(unix)]
mod resolve;
mod signals;
mod socket_types;
mod terminal;

/// The decoders of what the kernel says, for `tests/fuzz` alone.
#[cfg(all(fuzzing, target_os = "linux", not(bindscope_portable)))]
pub mod fuzzing {
    pub use super::linux::decoders::{netlink, proc_net, process, sock_diag};
}

#[cfg(all(target_os = "linux", not(bindscope_portable)))]
use linux as system;
#[cfg(not(all(target_os = "linux", not(bindscope_portable))))]
use portable as system;

pub use errno::errno_of;
pub use error::Error;
pub use file::is_gone;
pub use file::{
    entries, is_pipe, open_for_append, open_regular, output_closed, raise_file_limit, spare_descriptors,
    standard_output, terminal_width, world_writable_for_root, write_error_within, write_now,
};
pub use filter_types::{BaseChain, ChainName, Met, Replayed, TraceEvent, TraceVerdict, TracedPacket};
pub use getifaddrs::listed_addresses;
pub use host_id::set_host_id;
pub use input::{InputError, Trust, read_input};
pub use lab_types::{LinkSpec, NamespaceRefusal, NewAddress, NewRoute, NextHop};
pub use output::{Existing, Output, Readers, WholeFile, open_output};
pub use signals::{Signals, signal_of, survive_file_size_limit, without_signals};
pub use socket_types::{
    CallerRights, Connecting, Inherited, Interest, InventoryOptions, Notices, Readiness, ServerConnection,
    ServerConnections, TransportState, Visibility,
};
pub use terminal::{Heard, Terminal, Waker as TerminalWaker, ask_to_end, has_view, restore_terminal};

pub use system::capabilities::rights;
pub use system::capture::Capture;
pub use system::connections::{connections, handshakes};
pub use system::error_queue::{report_icmp, take_icmp};
pub use system::filters::{Trace, packet_filters, packet_filters_with_rules, replay_rules};
pub use system::groups::groups;
pub use system::inventory::{attach_owners, inventory, owners, port_holder, port_holders};
pub use system::monitor::Monitor;
pub use system::namespaces::{NetNamespace, in_namespace, inventory_from_outside, namespaces};
pub use system::netns;
pub use system::network::Network;
pub use system::not_examined::not_examined;
pub use system::overflows::Overflows;
pub use system::poller::{Poller, Waker};
pub use system::sandbox::{confine, with_other_threads};
pub use system::snapshot::{addresses, snapshot};
pub use system::socket_activation::inherited;
pub use system::startup::began_without_output;
pub use system::visibility::visibility;
pub use system::{options, packet_info};
