//! The envelope of every JSON document. [`crate::report::document`] reads documents.

use std::ops::{Deref, DerefMut};

use serde::{Serialize, Serializer};

use super::Host;

/// The kinds of documents. Each has a name and a schema number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// `interfaces`.
    Interfaces,
    /// `plan`.
    Plan,
    /// `probe`.
    Probe,
    /// `lab run`.
    Lab,
    /// `lab plan`.
    LabPlan,
    /// `audit`.
    Audit,
    /// `connections`.
    Connections,
    /// `diff`.
    Diff,
    /// `listen`, whose events are lines.
    Listen,
    /// `doctor`.
    Doctor,
    /// `why`.
    Why,
    /// `plan`, `probe` and `lab run` with factors.
    Experiment,
    /// `plan --steps`.
    Steps,
}

impl Schema {
    /// The name, without the number.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Schema::Interfaces => "bindscope.interfaces",
            Schema::Plan => "bindscope.plan",
            Schema::Probe => "bindscope.probe",
            Schema::Lab => "bindscope.lab",
            Schema::LabPlan => "bindscope.lab-plan",
            Schema::Audit => "bindscope.audit",
            Schema::Connections => "bindscope.connections",
            Schema::Diff => "bindscope.diff",
            Schema::Listen => "bindscope.listen",
            Schema::Doctor => "bindscope.doctor",
            Schema::Why => "bindscope.why",
            Schema::Experiment => "bindscope.experiment",
            Schema::Steps => "bindscope.steps",
        }
    }

    /// The newest number of this kind, which this version writes.
    #[must_use]
    pub fn number(self) -> u32 {
        1
    }
}

/// `bindscope.plan/1`.
impl std::fmt::Display for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.name(), self.number())
    }
}

impl Serialize for Schema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A document: its schema, the version of the program that wrote it, and its body.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Document<Body> {
    /// Kind and number.
    pub schema: Schema,
    /// Version of the program that wrote it.
    pub version: String,
    /// The body.
    #[serde(flatten)]
    pub body: Body,
}

impl<Body> Document<Body> {
    /// A document of this version.
    #[must_use]
    pub fn new(schema: Schema, body: Body) -> Document<Body> {
        Document { schema, version: env!("CARGO_PKG_VERSION").to_owned(), body }
    }
}

impl<Body> Deref for Document<Body> {
    type Target = Body;

    fn deref(&self) -> &Body {
        &self.body
    }
}

impl<Body> DerefMut for Document<Body> {
    fn deref_mut(&mut self) -> &mut Body {
        &mut self.body
    }
}

/// Facts about a host, and whether they are complete.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HostReport<Body> {
    /// False if anything could not be read.
    pub complete: bool,
    /// One sentence for each part that could not be read.
    pub incomplete_because: Vec<String>,
    /// The host.
    pub host: Host,
    /// The facts.
    #[serde(flatten)]
    pub body: Body,
}

impl<Body> HostReport<Body> {
    /// A report, complete if there is no reason against it.
    #[must_use]
    pub fn new(host: Host, incomplete_because: Vec<String>, body: Body) -> HostReport<Body> {
        HostReport { complete: incomplete_because.is_empty(), incomplete_because, host, body }
    }
}

impl<Body> Deref for HostReport<Body> {
    type Target = Body;

    fn deref(&self) -> &Body {
        &self.body
    }
}

impl<Body> DerefMut for HostReport<Body> {
    fn deref_mut(&mut self) -> &mut Body {
        &mut self.body
    }
}
