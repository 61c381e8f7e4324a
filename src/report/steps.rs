//! The document of `plan --steps`: the path of one connection.

use std::net::IpAddr;

use serde::Serialize;

use crate::code::Code;
use crate::model::{Outcome, Protocol, Source};
use crate::plan::reach::steps::{Step, Steps};

/// The path of a connection.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PathReport {
    /// Who connects.
    pub source: Source,
    /// The address of the client; null where it is not known.
    pub client: Option<IpAddr>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The destination address, with its zone if link-local.
    pub destination: String,
    /// The port.
    pub port: u16,
    /// The predicted outcome; null if it depends on unknown facts.
    pub outcome: Option<Outcome>,
    /// Code of what decides.
    pub why: Code,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

impl PathReport {
    /// The report about a path.
    #[must_use]
    pub fn new(
        source: Source,
        destination: String,
        (protocol, port): (Protocol, u16),
        path: Steps,
    ) -> PathReport {
        let Steps { client, steps, reach } = path;
        PathReport {
            source,
            client,
            protocol,
            destination,
            port,
            outcome: reach.outcome,
            why: reach.why,
            steps,
        }
    }
}
