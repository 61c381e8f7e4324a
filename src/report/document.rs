//! The reader of every document, and the document of a snapshot.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::experiment::Experiment;
use super::matrix::Report;
use super::report_diff::Comparison;
use crate::audit::sheet::Sheet;
use crate::model::filters::PacketFilters;
use crate::model::{Document, Host, HostReport, Interface, Route, Rule, Schema, Snapshot, number_interfaces};
use crate::record::event::Event;
use crate::record::history::History;

/// The largest snapshot that is read, in bytes: some 100,000 addresses.
pub const LARGEST_SNAPSHOT: u64 = 64 << 20;

/// The largest report that is read, in bytes: some half a million results.
pub const LARGEST_REPORT: u64 = 256 << 20;

/// The documents that `diff` compares.
pub const COMPARABLE: [Schema; 6] =
    [Schema::Plan, Schema::Probe, Schema::Lab, Schema::Experiment, Schema::Audit, Schema::Interfaces];

/// The documents that a page can show.
pub const SHOWN: [Schema; 7] = [
    Schema::Plan,
    Schema::Probe,
    Schema::Lab,
    Schema::Audit,
    Schema::Diff,
    Schema::Listen,
    Schema::Experiment,
];

/// Why a file is not taken as a document.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is not JSON.
    #[error("it is not JSON: {0}")]
    NotJson(String),
    /// It is JSON without a schema of this program.
    #[error("it is not a document of bindscope: it has no `schema` that begins with \"bindscope.\"")]
    Foreign,
    /// It is a document of another kind.
    #[error("it is a {found} document, not {wanted}")]
    OtherKind {
        /// Its schema, escaped.
        found: String,
        /// The schemas that are read here.
        wanted: String,
    },
    /// A newer program wrote it.
    #[error("its schema {found} is newer than this version, which reads {known}")]
    Newer {
        /// Its schema, escaped.
        found: String,
        /// The newest known schema.
        known: String,
    },
    /// The schema is correct, but the content is not.
    #[error("it does not fit its schema: {0}")]
    Misshapen(String),
}

/// The fields that all documents have, without the body: reading them apart from it needs no copy of a body in memory.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    version: String,
    #[serde(default)]
    complete: bool,
    #[serde(default)]
    incomplete_because: Vec<String>,
    #[serde(default)]
    host: Host,
}

#[derive(Deserialize)]
struct Title {
    schema: Option<String>,
}

/// Reads a document of one of these kinds, at most as new as this version writes. Memory and time are bounded by a multiple of the
/// length of `bytes`: nothing is kept of what the body does not name.
///
/// # Errors
/// See [`ReadError`].
pub fn read<T: DeserializeOwned>(
    kinds: &[Schema],
    bytes: &[u8],
) -> Result<Document<HostReport<T>>, ReadError> {
    // Some shells put a mark before whatever they pass on.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let schema = known(kinds, serde_json::from_slice(bytes))?;
    let head: Head = serde_json::from_slice(bytes).map_err(|error| ReadError::Misshapen(shown(&error)))?;
    let body = serde_json::from_slice(bytes).map_err(|error| ReadError::Misshapen(shown(&error)))?;
    let Head { version, complete, incomplete_because, host } = head;
    Ok(Document { schema, version, body: HostReport { complete, incomplete_because, host, body } })
}

/// The kind of a document, if it is one of `kinds` and not newer than this version writes.
fn known(kinds: &[Schema], title: Result<Title, serde_json::Error>) -> Result<Schema, ReadError> {
    let title = title.map_err(|error| match error.classify() {
        serde_json::error::Category::Data => ReadError::Foreign,
        _ => ReadError::NotJson(shown(&error)),
    })?;
    let title = title.schema.filter(|schema| schema.starts_with("bindscope.")).ok_or(ReadError::Foreign)?;
    let found = crate::escape::escape(&title.chars().take(LONGEST_NAME).collect::<String>());
    let (name, number) = title.split_once('/').unwrap_or((&title, ""));
    let kind = kinds.iter().copied().find(|kind| kind.name() == name);
    match (kind, number.parse::<u32>()) {
        (Some(kind), Ok(number)) if number > kind.number() => {
            Err(ReadError::Newer { found, known: kind.to_string() })
        }
        (Some(kind), Ok(1..)) => Ok(kind),
        _ => {
            let wanted: Vec<String> = kinds.iter().map(Schema::to_string).collect();
            Err(ReadError::OtherKind { found, wanted: wanted.join(", ") })
        }
    }
}

/// A document that a page can show.
#[derive(Debug, Clone)]
pub enum Shown {
    /// A plan, a probe or a lab run.
    Reach(Box<Report>),
    /// An audit.
    Audit(Box<HostReport<Sheet<'static>>>),
    /// A comparison.
    Diff(Comparison),
    /// The events of `listen`.
    Listen(Box<History>),
    /// An experiment.
    Experiment(Box<HostReport<Experiment>>),
}

/// Reads a document that a page can show: JSON, or the NDJSON of `listen`.
///
/// # Errors
/// See [`ReadError`].
pub fn read_shown(bytes: &[u8]) -> Result<Shown, ReadError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // The first value; events follow it on lines of their own.
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Title>();
    let schema = known(&SHOWN, values.next().unwrap_or_else(|| serde_json::from_slice(bytes)))?;
    Ok(match schema {
        Schema::Audit => Shown::Audit(Box::new(read(&[schema], bytes)?.body)),
        Schema::Diff => Shown::Diff(read(&[schema], bytes)?.body.body),
        Schema::Experiment => Shown::Experiment(Box::new(read(&[schema], bytes)?.body)),
        Schema::Listen => Shown::Listen(Box::new(read_history(bytes)?)),
        _ => Shown::Reach(Box::new(read(&[schema], bytes)?)),
    })
}

/// Reads the events of `listen`. A last line without its end was cut, and is passed over.
fn read_history(bytes: &[u8]) -> Result<History, ReadError> {
    let mut history = History::default();
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice::<Event>(line) {
            Ok(event) => history.event(&event),
            Err(_) if !line.ends_with(b"\n") && number > 0 => {}
            Err(error) => {
                return Err(ReadError::Misshapen(format!("line {}: {}", number + 1, shown(&error))));
            }
        }
    }
    Ok(history)
}

/// Characters of a name or a message from a document that are shown.
const LONGEST_NAME: usize = 200;

/// The message of an error, which may hold text of the document.
fn shown(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.char_indices().nth(LONGEST_NAME).map_or(text.len(), |(end, _)| end);
    let place = if end < text.len() {
        format!("... at line {} column {}", error.line(), error.column())
    } else {
        String::new()
    };
    crate::escape::printable(text.get(..end).unwrap_or(&text)) + &place
}

/// The body of `interfaces --format json`: a [`Snapshot`], and the coverage of each bind form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interfaces<'a, C = serde::de::IgnoredAny> {
    /// Sorted by index.
    pub interfaces: Cow<'a, [Interface]>,
    /// See [`Snapshot::routes`].
    #[serde(default)]
    pub routes: Cow<'a, [Route]>,
    /// See [`Snapshot::rules`].
    #[serde(default)]
    pub rules: Cow<'a, [Rule]>,
    /// See [`Snapshot::missing_default_rules`].
    #[serde(default)]
    pub missing_default_rules: Cow<'a, [Rule]>,
    /// See [`Snapshot::settings`].
    #[serde(default)]
    pub settings: Cow<'a, BTreeMap<String, i64>>,
    /// See [`Snapshot::ipv6_available`].
    #[serde(default = "yes")]
    pub ipv6_available: bool,
    /// See [`Snapshot::disagreements`].
    #[serde(default)]
    pub disagreements: Cow<'a, [String]>,
    /// See [`Snapshot::packet_filters`].
    #[serde(default)]
    pub packet_filters: Option<Cow<'a, PacketFilters>>,
    /// See [`Snapshot::unsupported`].
    #[serde(default)]
    pub unsupported: Cow<'a, [String]>,
    /// Whether the list was compared with the C library's; otherwise the disagreements are only those of labels.
    #[serde(default)]
    pub cross_checked: bool,
    /// Coverage of each bind form: a list of [`Coverage`](crate::model::bind_forms::Coverage). It is derived from the
    /// rest and therefore not read back.
    #[serde(default)]
    pub coverage: C,
}

/// The value of what the writer of another system leaves out.
fn yes() -> bool {
    true
}

/// The document of a snapshot. `coverage` is written as a list of [`Coverage`](crate::model::bind_forms::Coverage).
#[must_use]
pub fn of_snapshot<C: Serialize>(
    snapshot: &Snapshot,
    cross_checked: bool,
    coverage: C,
) -> Document<HostReport<Interfaces<'_, C>>> {
    let body = Interfaces {
        interfaces: Cow::Borrowed(&snapshot.interfaces),
        routes: Cow::Borrowed(&snapshot.routes),
        rules: Cow::Borrowed(&snapshot.rules),
        missing_default_rules: Cow::Borrowed(&snapshot.missing_default_rules),
        settings: Cow::Borrowed(&snapshot.settings),
        ipv6_available: snapshot.ipv6_available,
        disagreements: Cow::Borrowed(&snapshot.disagreements),
        packet_filters: snapshot.packet_filters.as_ref().map(Cow::Borrowed),
        unsupported: Cow::Borrowed(&snapshot.unsupported),
        cross_checked,
        coverage,
    };
    let report = HostReport::new(snapshot.host.clone(), snapshot.incomplete_because.clone(), body);
    Document::new(Schema::Interfaces, report)
}

/// Reads the document of [`of_snapshot`], as `plan --host` does.
///
/// # Errors
/// See [`ReadError`].
pub fn read_snapshot(bytes: &[u8]) -> Result<Snapshot, ReadError> {
    let HostReport { complete, incomplete_because, host, body } =
        read::<Interfaces>(&[Schema::Interfaces], bytes)?.body;
    let mut interfaces = body.interfaces.into_owned();
    number_interfaces(&mut interfaces);
    Ok(Snapshot {
        host,
        complete,
        incomplete_because,
        interfaces,
        routes: body.routes.into_owned(),
        rules: body.rules.into_owned(),
        missing_default_rules: body.missing_default_rules.into_owned(),
        settings: body.settings.into_owned(),
        ipv6_available: body.ipv6_available,
        disagreements: body.disagreements.into_owned(),
        groups: None,
        packet_filters: body.packet_filters.map(Cow::into_owned),
        unsupported: body.unsupported.into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_reads_back_equal() {
        let mut snapshot = Snapshot { complete: true, ipv6_available: true, ..Snapshot::default() };
        // Of two interfaces the system reported no index.
        snapshot.interfaces = [0, 2, 0]
            .map(|index| Interface::new(index, crate::model::IfName::from(format!("if{index}").as_str())))
            .to_vec();
        number_interfaces(&mut snapshot.interfaces);
        let mut json = Vec::new();
        crate::report::json::write(&mut json, &of_snapshot(&snapshot, false, [(); 0]), 4).unwrap();
        assert_eq!(read_snapshot(&json[..]).unwrap(), snapshot);
    }

    #[test]
    fn other_files_are_refused_by_name() {
        for (text, expected) in [
            ("", "it is not JSON"),
            ("{", "it is not JSON"),
            ("[]", "it is not a document of bindscope"),
            ("{}", "it is not a document of bindscope"),
            (r#"{"schema":"x/1"}"#, "it is not a document of bindscope"),
            (
                r#"{"schema":"bindscope.plan/1"}"#,
                "it is a bindscope.plan/1 document, not bindscope.interfaces/1",
            ),
            (r#"{"schema":"bindscope.interfaces/2"}"#, "its schema bindscope.interfaces/2 is newer"),
            (r#"{"schema":"bindscope.interfaces/0"}"#, "it is a bindscope.interfaces/0 document"),
            (r#"{"schema":"bindscope.interfaces/1"}"#, "it does not fit its schema"),
        ] {
            let error = read_snapshot(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        let audit = read::<serde::de::IgnoredAny>(&[Schema::Audit], br#"{"schema":"bindscope.audit/9"}"#);
        assert!(audit.unwrap_err().to_string().contains("audit/9 is newer"));
        // What a hostile document says is shown escaped and cut.
        for text in [
            format!(r#"{{"schema":"bindscope.\u001b[2J{}"}}"#, "x".repeat(10_000)),
            format!(r#"{{"schema":"bindscope.interfaces/1","complete":"\u001b[2J{}"}}"#, "x".repeat(10_000)),
        ] {
            let error = read_snapshot(text.as_bytes()).unwrap_err().to_string();
            assert!(error.len() < 500 && !error.contains('\u{1b}'), "{error}");
        }
        let deep = format!(r#"{{"schema":"bindscope.interfaces/1","interfaces":{}"#, "[".repeat(1_000_000));
        assert!(matches!(read_snapshot(deep.as_bytes()), Err(ReadError::NotJson(_))));
        let twice = r#"{"schema":"bindscope.interfaces/1","complete":true,"complete":true}"#;
        assert!(matches!(read_snapshot(twice.as_bytes()), Err(ReadError::Misshapen(_))));
    }
}
