//! `[[expect]]`: the expected properties of listeners. Other modules evaluate them. An expectation that tests nothing
//! is undecided, never a pass.

use std::fmt;

use toml::de::DeTable;

use super::bind::glob;
use super::keys::{self, Keys, Kind, optional, required};
use super::value::{Problems, nearest, number, one_or_many, tables, text, texts};
use crate::code::Code;
use crate::model::{Errno, Family, IfName, Interface, Outcome};

/// The expected properties of the listeners that it names.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// Patterns for listener names; `*` stands for any text and `?` for any character.
    pub listeners: Vec<String>,
    /// Address families that the expectation covers; empty for every family of the listener.
    pub families: Vec<Family>,
    /// Sources that must all reach the listener.
    pub reachable_from: Vec<ExpectedSource>,
    /// Sources that must not reach the listener.
    pub not_reachable_from: Vec<ExpectedSource>,
    /// The only sources that may reach the listener; all of them must.
    pub only_from: Vec<ExpectedSource>,
    /// Minimum number of other sources that must be tested to decide `only_from` and `not_reachable_from`.
    pub min_sources: u32,
    /// Outcomes that count as not reached; empty for every outcome except `accepted`.
    pub how_refused: Vec<Outcome>,
    /// Patterns for the ingress interface of every arrival; empty for no condition.
    pub arrives_on: Vec<String>,
    /// Expected outcome of the bind.
    pub bind: Option<BindResult>,
    /// Patterns for the names of the conflicting listeners.
    pub conflicts_with: Vec<String>,
    /// Expected distribution of connections over the sockets of a group.
    pub spread: Option<Spread>,
    /// First line in the file, from 1.
    pub line: usize,
}

impl Expectation {
    /// Whether the expectation covers the listener with this name.
    #[must_use]
    pub fn names(&self, listener: &str) -> bool {
        self.listeners.iter().any(|pattern| glob(pattern.as_bytes(), listener.as_bytes()))
    }

    /// The same expectation with the names of interfaces in place of their alternative names, which results do not have.
    #[must_use]
    pub fn with_names_of(&self, interfaces: &[Interface]) -> Expectation {
        let sources = |all: &[ExpectedSource]| {
            let mut out = Vec::new();
            for source in all {
                match source {
                    ExpectedSource::Link(pattern) => {
                        out.extend(named(pattern, interfaces).into_iter().map(ExpectedSource::Link));
                    }
                    other => out.push(other.clone()),
                }
            }
            out
        };
        Expectation {
            reachable_from: sources(&self.reachable_from),
            not_reachable_from: sources(&self.not_reachable_from),
            only_from: sources(&self.only_from),
            arrives_on: self.arrives_on.iter().flat_map(|pattern| named(pattern, interfaces)).collect(),
            ..self.clone()
        }
    }
}

/// A pattern for names of interfaces, and the names of those that only their alternative names match. The pattern is left out where
/// it matches no other name.
fn named(pattern: &str, interfaces: &[Interface]) -> Vec<String> {
    let fits = |name: &IfName| glob(pattern.as_bytes(), name.as_bytes());
    let (by_name, others): (Vec<_>, Vec<_>) = interfaces.iter().partition(|one| fits(&one.name));
    let others = others.into_iter().filter(|one| one.altnames.iter().any(fits));
    let mut all: Vec<String> = others.map(|one| one.name.to_string()).collect();
    if !by_name.is_empty() || all.is_empty() {
        all.insert(0, pattern.to_owned());
    }
    all
}

/// Source of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ExpectedSource {
    /// This host, to its loopback addresses.
    Loopback,
    /// This host, to its other addresses.
    OwnAddresses,
    /// This host, to any of its addresses.
    Host,
    /// A client whose packets arrive on an interface with this name (a pattern).
    Link(String),
    /// A lab node with this name (a pattern).
    Node(String),
    /// Any other host: a client on a link, or a lab node. Exists in every network.
    Others,
}

impl ExpectedSource {
    fn parse(text: &str) -> Option<ExpectedSource> {
        Some(match text.split_once(':') {
            None if text == "loopback" => ExpectedSource::Loopback,
            None if text == "self" => ExpectedSource::OwnAddresses,
            None if text == "host" => ExpectedSource::Host,
            None if text == "others" => ExpectedSource::Others,
            Some(("link", name)) if !name.is_empty() => ExpectedSource::Link(name.to_owned()),
            Some(("node", name)) if !name.is_empty() => ExpectedSource::Node(name.to_owned()),
            _ => return None,
        })
    }
}

impl fmt::Display for ExpectedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExpectedSource::Loopback => f.write_str("loopback"),
            ExpectedSource::OwnAddresses => f.write_str("self"),
            ExpectedSource::Host => f.write_str("host"),
            ExpectedSource::Others => f.write_str("others"),
            ExpectedSource::Link(name) => write!(f, "link:{}", crate::escape::escape(name)),
            ExpectedSource::Node(name) => write!(f, "node:{}", crate::escape::escape(name)),
        }
    }
}

/// Outcome of a bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BindResult {
    /// The bind succeeds.
    Ok,
    /// The bind fails with this errno.
    Error(Errno),
}

/// Distribution of connections over the sockets of a `reuse_port` group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Number of connections.
    pub connections: u32,
    /// Smallest share of the connections that every socket of the group must receive, from 0 to 1.
    pub min_share: f64,
}

const FAMILIES: &[&str] = &["ipv4", "ipv6"];

/// Keys of `[[expect]]`.
pub(super) static EXPECT: Keys = Keys {
    what: "[[expect]]",
    keys: &[
        required(
            "listener",
            Kind::Texts,
            "name of the listener, a pattern such as \"lo*\", or a list of them",
        ),
        optional("family", Kind::Choices(FAMILIES), "the same as `families`"),
        optional("families", Kind::Choices(FAMILIES), "the families that are checked (default: both)"),
        optional(
            "reachable_from",
            Kind::Texts,
            "sources that must reach it: \"loopback\", \"self\", \"host\", \"others\" (any other host), \"link:eth0\", \"node:lan\"",
        ),
        optional("not_reachable_from", Kind::Texts, "sources that must not reach it"),
        optional("only_from", Kind::Texts, "the only sources that may reach it; all of them must"),
        optional(
            "min_sources",
            Kind::Integer(1, 65_536),
            "how many other sources must be tested (default 1)",
        )
        .default("1"),
        optional(
            "how_refused",
            Kind::Choices(&["refused", "timeout", "unreachable", "error"]),
            "outcomes that count as not reached (default: all except accepted)",
        ),
        optional("arrives_on", Kind::Texts, "ingress interface of every arrival, or a pattern"),
        optional(
            "bind",
            Kind::Text,
            "expected outcome of the bind: \"ok\", or an error such as \"EADDRINUSE\"",
        ),
        optional("conflicts_with", Kind::Texts, "the conflicting listeners"),
        optional(
            "spread",
            Kind::Table(&SPREAD),
            "expected distribution of connections over a reuse_port group",
        ),
    ],
};

static SPREAD: Keys = Keys {
    what: "`spread`",
    keys: &[
        required("connections", Kind::Integer(1, 1_000_000), "number of connections"),
        required("min_share", Kind::Share, "smallest share that every socket must receive, from 0 to 1"),
    ],
};

/// Parses the expectations of a profile.
pub(super) fn read(table: &DeTable<'_>, problems: &mut Problems) -> Vec<Expectation> {
    let entries = tables(table, "expect");
    entries.into_iter().map(|(entry, span)| one(entry, &span, problems)).collect()
}

fn one(table: &DeTable<'_>, span: &std::ops::Range<usize>, problems: &mut Problems) -> Expectation {
    const ASSERTIONS: [&str; 7] = [
        "reachable_from",
        "not_reachable_from",
        "only_from",
        "arrives_on",
        "bind",
        "conflicts_with",
        "spread",
    ];
    if !ASSERTIONS.iter().any(|key| table.contains_key(*key)) {
        problems
            .add(Code::NOTHING_ASKED, span.clone(), "this [[expect]] expects nothing")
            .help(format!("add at least one of {}", ASSERTIONS.join(", ")));
    }
    if let (Some(value), true) = (table.get("family"), table.contains_key("families")) {
        problems
            .add(Code::CONTRADICTION, value.span(), "`family` and `families` say the same thing twice")
            .help("keep one of them");
    }
    for (key, other) in [("only_from", "reachable_from"), ("only_from", "not_reachable_from")] {
        if let (Some(value), true) = (table.get(key), table.contains_key(other)) {
            problems
                .add(Code::CONTRADICTION, value.span(), format!("`{key}` already says what `{other}` says"))
                .help("keep one of them");
        }
    }
    let family = |name: String| if name == "ipv4" { Family::Ipv4 } else { Family::Ipv6 };
    let families = [texts(table, "family"), texts(table, "families")].concat();
    let how_refused = texts(table, "how_refused").into_iter().filter_map(|word| match word.as_str() {
        "refused" => Some(Outcome::Refused),
        "timeout" => Some(Outcome::Timeout),
        "unreachable" => Some(Outcome::Unreachable),
        "error" => Some(Outcome::Error),
        _ => None,
    });
    let spread = table.get("spread").and_then(|value| value.get_ref().as_table()).and_then(|spread| {
        let min_share = keys::share(spread.get("min_share")?.get_ref())?;
        Some(Spread { connections: number(spread, "connections")?, min_share })
    });
    Expectation {
        listeners: texts(table, "listener"),
        families: families.into_iter().map(family).collect(),
        reachable_from: sources(table, "reachable_from", problems),
        not_reachable_from: sources(table, "not_reachable_from", problems),
        only_from: sources(table, "only_from", problems),
        min_sources: number(table, "min_sources").unwrap_or(1),
        how_refused: how_refused.collect(),
        arrives_on: texts(table, "arrives_on"),
        bind: bind_result(table, problems),
        conflicts_with: texts(table, "conflicts_with"),
        spread,
        line: problems.line(span),
    }
}

fn sources(table: &DeTable<'_>, key: &str, problems: &mut Problems) -> Vec<ExpectedSource> {
    let values = table.get(key).map(one_or_many).unwrap_or_default();
    let mut sources = Vec::new();
    for value in values {
        let Some(text) = value.get_ref().as_str().filter(|text| !text.is_empty()) else { continue };
        match ExpectedSource::parse(text) {
            Some(source) => sources.push(source),
            None => {
                let help = match nearest(text, ["loopback", "self", "host", "others"]) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => "write \"loopback\", \"self\" (this host's other addresses), \"host\", \"others\" (any other host), \"link:INTERFACE\" or \"node:NAME\"".to_owned(),
                };
                problems
                    .add(Code::NOT_A_CHOICE, value.span(), format!("\"{text}\" is not a valid source"))
                    .help(help);
            }
        }
    }
    sources
}

fn bind_result(table: &DeTable<'_>, problems: &mut Problems) -> Option<BindResult> {
    let value = table.get("bind")?;
    let name = text(table, "bind").filter(|name| !name.is_empty())?;
    if name == "ok" {
        return Some(BindResult::Ok);
    }
    let errno = Errno::from_name(name);
    if errno.is_none() {
        let names: Vec<String> = Errno::NAMED.iter().map(ToString::to_string).collect();
        let near = nearest(&name.to_lowercase(), names.iter().map(String::as_str));
        problems
            .add(Code::NOT_A_CHOICE, value.span(), format!("\"{name}\" is not a valid bind outcome"))
            .help(format!(
                "write \"ok\", or the name of an error such as \"{}\"",
                near.unwrap_or("EADDRINUSE")
            ));
    }
    errno.map(BindResult::Error)
}
