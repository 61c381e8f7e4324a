//! Domain types as plain values. Nothing here calls the system.
//!
//! The serde forms of these types are the JSON that users see. Documents have a schema number (see [`crate::record`]),
//! and renaming a field changes the schema.

pub mod addr;
pub mod arrival;
pub mod bind_forms;
pub mod changes;
pub mod confinement;
pub mod crosscheck;
pub mod document;
pub mod errno;
pub mod filter_result;
pub mod filtered_exposure;
pub mod filters;
pub mod host;
pub mod ifname;
pub mod inventory;
pub mod kernel_release;
pub mod link_kind;
pub mod not_examined;
pub mod reach;
pub mod rehearsal;
pub mod rule_action;
pub mod ruleset;
pub mod setting;
pub mod socket;
pub mod topology;
pub mod verdict;

pub use addr::{AddrClass, Exposure, Family, FamilyExposure};
pub use arrival::{Arrival, Endpoint, Evidence, Ingress, PathChange};
pub use changes::Change;
pub use document::{Document, HostReport, Schema};
pub use errno::Errno;
pub use filter_result::{
    Answer, AnswerKind, Decider, FilterDecision, FilterVerdict, FilteredPacket, Translated,
};
pub use filtered_exposure::{FilteredExposure, ReachedFrom};
pub use host::{
    AddrState, Host, Interface, InterfaceAddress, ROUTE_METRICS, Route, RouteKind, RouterPreference, Rule,
    Scope, Snapshot, known_index, number_interfaces,
};
pub use ifname::IfName;
pub use inventory::{
    Activation, ClientPorts, Inventory, KernelHolder, Lifetime, ListeningSocket, Owner, Owners, PortHolder,
    Queue, SocketState,
};
pub use link_kind::LinkKind;
pub use not_examined::{AttachedProgram, NotExamined, OtherKind, OtherSocket};
pub use reach::{Outcome, PacketsSeen, Source};
pub use rule_action::RuleAction;
pub use socket::{Phase, Protocol, SocketSpec, SocketView, V6Only};
pub use verdict::Verdict;
