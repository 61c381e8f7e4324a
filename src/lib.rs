//! bindscope answers a question about every server, with evidence from the kernel: *if I bind this address, which
//! clients can reach me, over which interface, and in which address family?*
//!
//! This is the library behind the program of the same name. It offers five functions and the types of their results:
//!
//! | Function | Answer |
//! |---|---|
//! | [`snapshot`] | the interfaces, addresses, routes and settings of this machine, as a value |
//! | [`predict`] | for each listener of a profile: whether its bind succeeds, and which source reaches it over which interface; with the reason |
//! | [`audit`] | what listens on this machine, how far it is exposed, and whether a policy allows it |
//! | [`run_lab`] | the same matrix as `predict`, observed with real connections in a temporary network of namespaces |
//! | [`ingress::of`] | the interface on which an accepted connection arrived |
//!
//! Predict the exposure of a listener before it exists:
//!
//! ```
//! let profile = bindscope::parse_profile(
//!     "example",
//!     r#"
//!         schema = 1
//!         name = "example"
//!         [[listener]]
//!         name = "web"
//!         bind = "127.0.0.1"
//!         port = 8080
//!     "#,
//! )
//! .expect("the profile is valid");
//! let report = bindscope::predict(&profile, bindscope::this_host()?);
//! let web = &report.sockets[0];
//! assert_eq!(web.socket.exposure.widest(), bindscope::Exposure::Loopback);
//! // Only this host itself reaches it.
//! for cell in report.cells.iter().filter(|cell| cell.predicted.outcome == Some(bindscope::Outcome::Accepted)) {
//!     assert_eq!(cell.source, bindscope::Source::Host);
//! }
//! # Ok::<(), bindscope::Error>(())
//! ```
//!
//! Reports implement `serde::Serialize` and have the shape of the JSON documents of the program.
//!
//! The modules of the program are public for its tests only. They are hidden here and change without notice;
//! `docs/architecture.md` in the repository describes them.
#![deny(missing_docs)]

#[doc(hidden)]
pub mod attribute;
#[doc(hidden)]
pub mod audit;
#[doc(hidden)]
pub mod cmd;
#[doc(hidden)]
pub mod code;
#[doc(hidden)]
pub mod diag;
#[doc(hidden)]
pub mod escape;
#[doc(hidden)]
pub mod explain;
#[doc(hidden)]
pub mod import;
#[doc(hidden)]
pub mod lab;
mod library;
#[doc(hidden)]
pub mod model;
#[doc(hidden)]
pub mod plan;
#[doc(hidden)]
pub mod probe;
#[doc(hidden)]
pub mod profile;
#[doc(hidden)]
pub mod record;
#[doc(hidden)]
pub mod render;
#[doc(hidden)]
pub mod reply;
#[doc(hidden)]
pub mod report;
#[doc(hidden)]
pub mod serve;
#[doc(hidden)]
pub mod sys;
#[doc(hidden)]
pub mod unit_file;
#[doc(hidden)]
pub mod why;

#[doc(inline)]
pub use ingress_interface as ingress;

pub use library::{LabError, audit, predict, run_lab, this_host};

#[doc(inline)]
pub use audit::{Audit, Check, Finding, Report as AuditReport, Summary as AuditSummary, Verdict};
#[doc(inline)]
pub use code::Code;
#[doc(inline)]
pub use diag::{Diagnostic, Severity};
#[doc(inline)]
pub use model::{
    Document, Errno, Exposure, Family, FamilyExposure, Host, HostReport, IfName, Interface, InterfaceAddress,
    ListeningSocket, Outcome, Owner, Phase, Protocol, Route, Schema, Snapshot, SocketView, Source,
};
#[doc(inline)]
pub use plan::bind_check::Rights;
#[doc(inline)]
pub use plan::predict::{BindOutcome, Foreign};
#[doc(inline)]
pub use profile::{Profile, parse as parse_profile};
#[doc(inline)]
pub use report::matrix::{
    BindReport, CellReport, ObservedBind, ObservedCell, PredictedBind, PredictedCell, Reachability,
    Report as PlanReport, SocketReport,
};
#[doc(inline)]
pub use report::plan::TargetHost;
#[doc(inline)]
pub use sys::{Error, snapshot};
