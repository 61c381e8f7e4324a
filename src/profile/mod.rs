//! The profile language: from TOML text to checked values. Every problem has its position. This module does not read
//! the state of this machine.
//!
//! [`parse`] reads a text in one pass. `keys` checks names and types against the tables that also produce the JSON
//! Schema. The other modules parse values with their own grammar. All problems of a text are reported together.

pub mod bind;
pub mod builtin;
pub mod duration;
pub mod expect;
pub mod flag;
mod keys;
pub mod lab;
pub mod listener;
pub mod policy;
pub mod ports;
pub mod reference;
pub mod schema;
mod value;
pub mod vary;
pub mod writer;

use std::collections::HashMap;
use std::ops::Range;

use toml::de::DeTable;

use crate::code::Code;
use crate::diag::Diagnostic;
use crate::model::Protocol;
use crate::model::socket::Reply;

pub use bind::{Bind, Scope, Selector};
pub use expect::Expectation;
use keys::{Keys, Kind, optional, required};
pub use lab::Lab;
use listener::Draft;
pub use listener::{Listener, WhenMissing};
use value::Problems;

/// The version of the language.
pub const SCHEMA: i64 = 1;

/// A checked profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Name of the profile.
    pub name: String,
    /// Description.
    pub description: Option<String>,
    /// Where the text comes from: a file, `<stdin>`, `built-in NAME`, `--bind`.
    pub origin: String,
    /// Listeners, in bind order.
    pub listeners: Vec<Listener>,
    /// Expectations.
    pub expectations: Vec<Expectation>,
    /// The network of its lab.
    pub lab: Option<Lab>,
    /// The factors of an experiment, in the order of the text.
    pub vary: Vec<vary::Factor>,
    /// Limits.
    pub limits: Limits,
}

/// Limits of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Maximum number of sockets of all listeners.
    pub max_sockets: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_sockets: 1024 }
    }
}

impl Profile {
    /// A profile with this name and without listeners.
    #[must_use]
    pub fn named(name: &str) -> Profile {
        Profile {
            name: name.to_owned(),
            description: None,
            origin: name.to_owned(),
            listeners: Vec::new(),
            expectations: Vec::new(),
            lab: None,
            vary: Vec::new(),
            limits: Limits::default(),
        }
    }
}

static PROFILE: Keys = Keys {
    what: "the profile",
    keys: &[
        required("schema", Kind::Integer(0, i64::MAX), "the version of the language: 1"),
        optional("kind", Kind::Choice(&["profile", "policy", "lab"]), "kind of the file (default profile)")
            .default(r#""profile""#),
        optional("name", Kind::Text, "the name of the profile in every report"),
        optional("description", Kind::Text, "purpose"),
        optional(
            "extends",
            Kind::Text,
            "a file in the same directory, whose defaults, limits, listeners and expectations are inherited",
        ),
        optional("defaults", Kind::Table(&listener::DEFAULTS), "default values of listeners"),
        optional("limits", Kind::Table(&LIMITS), "limits of the profile"),
        optional("listener", Kind::Tables(&listener::LISTENER), "sockets to open"),
        optional("expect", Kind::Tables(&expect::EXPECT), "expected properties"),
        optional("vary", Kind::Tables(&vary::VARY), "factors of an experiment: every combination is run"),
        optional("lab", Kind::Table(&lab::LAB), "the network that `lab run` builds for the profile"),
    ],
};

static LIMITS: Keys = Keys {
    what: "[limits]",
    keys: &[optional("max_sockets", Kind::Integer(1, 65_536), "maximum number of sockets (default 1024)")
        .default("1024")],
};

/// Kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Listeners, expectations, perhaps a lab.
    Profile,
    /// Rules for what may listen on a host.
    Policy,
    /// The network of a lab.
    Lab,
}

/// The kind that a text declares; a profile if it declares none.
#[must_use]
pub fn kind_of(text: &str) -> FileKind {
    let (table, _) = DeTable::parse_recoverable(text);
    match value::text(table.get_ref(), "kind") {
        Some("policy") => FileKind::Policy,
        Some("lab") => FileKind::Lab,
        _ => FileKind::Profile,
    }
}

/// The file that a text extends, with the position of that key.
#[must_use]
pub fn extends(text: &str) -> Option<(String, Range<usize>)> {
    let (table, _) = DeTable::parse_recoverable(text);
    let value = table.get_ref().get("extends")?;
    Some((value.get_ref().as_str()?.to_owned(), value.span()))
}

/// Parses a profile. `origin` names the text in messages.
///
/// # Errors
/// Every problem, in the order of the text.
pub fn parse(origin: &str, text: &str) -> Result<Profile, Vec<Diagnostic>> {
    parse_on(origin, text, None)
}

/// Like [`parse`], for a text that extends another (with its origin and text; see [`extends`]).
///
/// # Errors
/// Every problem of both texts.
pub fn parse_on(origin: &str, text: &str, base: Option<(&str, &str)>) -> Result<Profile, Vec<Diagnostic>> {
    let mut wrong = Vec::new();
    let mut draft = Draft::new();
    let mut profile = Profile::named("");
    if let Some((origin, text)) = base {
        wrong.extend(read(&mut profile, &mut draft, origin, text, Layer::Base));
    }
    let layer = if base.is_some() { Layer::Upper } else { Layer::Alone };
    wrong.extend(read(&mut profile, &mut draft, origin, text, layer));
    if wrong.is_empty() { Ok(profile) } else { Err(wrong) }
}

/// Which text of a profile it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    Alone,
    Base,
    Upper,
}

/// Parses TOML up to the first error, and reports its position.
fn syntax<'t>(text: &'t str, problems: &mut Problems) -> toml::Spanned<DeTable<'t>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        problems.add(Code::SYNTAX, span, format!("not TOML: {}", error.message()));
    }
    table
}

/// Checks the version first. Returns false if the rest needs another version of the program.
fn version(table: &DeTable<'_>, problems: &mut Problems) -> bool {
    let Some(value) = table.get("schema") else { return true };
    match value::integer(value.get_ref()) {
        Some(found) if found != SCHEMA => {
            problems
                .add(Code::UNKNOWN_SCHEMA, value.span(), format!("schema {found} is not known here"))
                .help(format!("bindscope {} reads schema {SCHEMA}", env!("CARGO_PKG_VERSION")));
            false
        }
        _ => true,
    }
}

fn read(profile: &mut Profile, draft: &mut Draft, origin: &str, text: &str, layer: Layer) -> Vec<Diagnostic> {
    let mut problems = Problems::new(origin, text);
    let document = syntax(text, &mut problems);
    let table = document.get_ref();
    if !version(table, &mut problems) {
        return problems.finish();
    }
    let top = 0..0;
    if let Some(kind @ ("policy" | "lab")) = value::text(table, "kind") {
        let span = table.get("kind").map(toml::Spanned::span).unwrap_or(top);
        problems.add(Code::WRONG_KIND, span, format!("this is a {kind} file, not a profile")).help(
            if kind == "policy" {
                "give it to `bindscope audit --policy`"
            } else {
                "give it to `bindscope lab run --topology`"
            },
        );
        return problems.finish();
    }
    keys::check(table, top.clone(), &PROFILE, &mut problems);
    if layer != Layer::Upper
        && let Some(value) = table.get("extends")
    {
        let (message, help) = match layer {
            Layer::Base => {
                ("a file that is extended cannot itself extend another", "one level is all there is")
            }
            _ => (
                "`extends` works in a file only",
                "save the profile in the directory of the file that it extends",
            ),
        };
        problems.add(Code::CONTRADICTION, value.span(), message).help(help);
    }
    if let Some(name) = value::text(table, "name").or(profile.name.is_empty().then_some(stem(origin))) {
        profile.name = name.to_owned();
    }
    if let Some(description) = value::text(table, "description") {
        profile.description = Some(description.to_owned());
    }
    origin.clone_into(&mut profile.origin);
    if let Some(limits) = table.get("limits").and_then(|limits| limits.get_ref().as_table()) {
        profile.limits.max_sockets =
            value::number(limits, "max_sockets").unwrap_or(profile.limits.max_sockets);
    }
    if let Some(defaults) = table.get("defaults").and_then(|defaults| defaults.get_ref().as_table()) {
        draft.overlay(defaults, &mut problems);
    }
    listeners(profile, draft, table, &mut problems);
    if profile.listeners.is_empty() && layer != Layer::Base && problems.is_empty() {
        problems
            .add(Code::NOTHING_ASKED, top, "the profile has no [[listener]]")
            .help("`bindscope init` writes a profile to begin with");
    }
    profile.expectations.extend(expect::read(table, &mut problems));
    for factor in vary::read(table, text, &profile.listeners, &mut problems) {
        profile.vary.retain(|other| other.key != factor.key);
        profile.vary.push(factor);
    }
    if let Some(lab) = lab::read(table, stem(origin), &mut problems) {
        profile.lab = Some(lab);
    }
    problems.finish()
}

/// Name of a profile without a name: the name of its file.
fn stem(origin: &str) -> &str {
    std::path::Path::new(origin).file_stem().and_then(|stem| stem.to_str()).unwrap_or(origin)
}

fn listeners(profile: &mut Profile, draft: &Draft, table: &DeTable<'_>, problems: &mut Problems) {
    let mut lines: HashMap<String, usize> = HashMap::new();
    let base = profile.listeners.len();
    let mut sockets = 0usize;
    let mut reported = false;
    for (entry, span) in value::tables(table, "listener") {
        // The ports of thousands of listeners would take gigabytes.
        let listener = draft.clone().finish(entry, &span, reported, problems);
        if let Some(name) = entry.get("name").filter(|name| name.get_ref().is_str()) {
            if let Some(line) = lines.get(&listener.name) {
                problems
                    .add(
                        Code::DUPLICATE_NAME,
                        name.span(),
                        format!("another listener is called \"{}\"", listener.name),
                    )
                    .help(format!(
                        "it stands in line {line}; reports name listeners, so each needs its own name"
                    ));
            }
            lines.entry(listener.name.clone()).or_insert(listener.line);
        }
        sockets = sockets.saturating_add(at_least(&listener).max(listener.ports.len()));
        if sockets > profile.limits.max_sockets && !reported {
            reported = true;
            let at = entry.get("port").map_or(span, toml::Spanned::span);
            problems
                .add(
                    Code::TOO_MANY_SOCKETS,
                    at,
                    format!("with this listener the profile asks for {sockets} sockets, but at most {} are allowed", profile.limits.max_sockets),
                )
                .help("ask for fewer ports, or raise max_sockets in [limits]");
        }
        let (inherited, _) = profile.listeners.split_at_mut(base);
        match inherited.iter_mut().find(|other| other.name == listener.name) {
            Some(other) => *other = listener,
            None => profile.listeners.push(listener),
        }
    }
}

/// Checks that the profile's listeners, including those of the command line, respect its limits.
///
/// # Errors
/// If they exceed a limit.
pub fn within_limits(profile: &Profile) -> Result<(), Diagnostic> {
    let sockets: usize = profile.listeners.iter().map(at_least).fold(0, usize::saturating_add);
    let limit = profile.limits.max_sockets;
    if sockets <= limit {
        return Ok(());
    }
    let message = format!("the profile needs {sockets} sockets, but at most {limit} are allowed");
    Err(Diagnostic::error(Code::TOO_MANY_SOCKETS, message)
        .help("ask for fewer ports, or raise max_sockets in [limits] of a profile"))
}

/// Whether other hosts may reach a listener, as far as the profile alone shows.
fn may_be_open(listener: &Listener) -> bool {
    let loopback_device = listener.device.as_ref().is_some_and(|device| device.as_bytes() == b"lo");
    !loopback_device
        && listener.bind.parts().iter().any(|bind| match bind {
            Bind::Address { address, .. } => !address.to_canonical().is_loopback(),
            Bind::Interface(selector) => selector.scope != Scope::Loopback,
            Bind::Loopback | Bind::Each(_) => false,
        })
}

/// A warning for each listener that answers datagrams of other hosts, whose source addresses may be forged.
#[must_use]
pub fn udp_replies(profile: &Profile) -> Vec<Diagnostic> {
    let answers = |listener: &&Listener| {
        listener.protocol == Protocol::Udp && listener.reply != Reply::None && may_be_open(listener)
    };
    let warning = |listener: &Listener| {
        let place = if listener.line > 0 { format!(" (line {})", listener.line) } else { String::new() };
        let message = format!(
            "{}: listener \"{}\"{place} answers UDP datagrams of other hosts, whose source address may be forged",
            profile.origin, listener.name
        );
        Diagnostic::warning(Code::UDP_REPLIES, message)
            .help("write reply = \"none\", or bind a loopback address")
    };
    profile.listeners.iter().filter(answers).map(warning).collect()
}

/// Listeners that other hosts may reach and that have no `exposure_reason`: refused by `--strict`.
#[must_use]
pub fn without_reason(profile: &Profile) -> Vec<Diagnostic> {
    let open = profile.listeners.iter().filter(|listener| may_be_open(listener));
    open.filter(|listener| listener.exposure_reason.is_none())
        .map(|listener| {
            let place = if listener.line > 0 { format!(" (line {})", listener.line) } else { String::new() };
            Diagnostic::error(
                Code::NO_REASON,
                format!(
                    "{}: listener \"{}\"{place} may be open to other hosts and does not say why",
                    profile.origin, listener.name
                ),
            )
            .help("write exposure_reason = \"...\", or bind a loopback address; this is refused for --strict")
        })
        .collect()
}

/// The most similar name of `known`, if it is similar enough.
pub fn nearest_name<'k>(wrong: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    value::nearest(wrong, known)
}

/// Minimum number of sockets of a listener. An interface counts as one address until the host is known.
fn at_least(listener: &Listener) -> usize {
    let addresses: usize = listener
        .bind
        .parts()
        .iter()
        .map(|bind| if *bind == Bind::Loopback { Bind::LOOPBACK.len() } else { 1 })
        .sum();
    addresses * listener.ports.len() * usize::from(listener.reuse_port.unwrap_or(1))
}
