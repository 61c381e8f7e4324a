//! Two reports side by side: what is only in one, and what is not the same in both.
//!
//! Reports of every kind are compared alike: each has lists of things with a key (a socket, a question, an expectation, a finding, an
//! interface), and each thing has a value in a few words. Times and counts are not compared.
//!
//! A question that only one report was asked is no difference: a probe asks more than a plan, a sweep of ports more than both. It
//! is one when the other was asked of every address, and does not have that one. A plan that leaves open what a probe has seen,
//! and a probe that could not see what was foretold, contradict each other in nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::escape::{escape, printable};
use crate::model::IfName;

/// Schema of a comparison.
pub const DIFF_SCHEMA: &str = "bindscope.diff/1";

/// One thing that is not the same in both, in words whose names are escaped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Difference {
    /// `socket`, `cell`, `expectation`, `finding` or `interface`.
    pub kind: String,
    /// What it is.
    pub key: String,
    /// Its value in the first; null when it is not there.
    pub a: Option<String>,
    /// Its value in the second; null when it is not there.
    pub b: Option<String>,
}

/// The document of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// [`DIFF_SCHEMA`].
    pub schema: String,
    /// Version of the program.
    pub version: String,
    /// Name of the first.
    pub a: String,
    /// Name of the second.
    pub b: String,
    /// How many things were compared.
    pub compared: usize,
    /// Sorted by kind and key.
    pub differences: Vec<Difference>,
    /// What only one was asked, sorted likewise: not compared, and no differences.
    #[serde(default)]
    pub only_in_one: Vec<Difference>,
}

/// The stem of a schema: `bindscope.plan` of `bindscope.plan/1`.
#[must_use]
pub fn kind_of(document: &Value) -> Option<&str> {
    let schema = document["schema"].as_str()?;
    schema.starts_with("bindscope.").then(|| schema.split('/').next())?
}

/// Whether two kinds of reports have the same lists: plans, probes and labs do.
#[must_use]
pub fn comparable(a: &str, b: &str) -> bool {
    let family = |kind: &str| match kind {
        "bindscope.plan" | "bindscope.probe" | "bindscope.lab" => "reach".to_owned(),
        other => other.to_owned(),
    };
    family(a) == family(b)
}

/// Compares two documents of bindscope. The names are shown.
#[must_use]
pub fn compare(a: (&str, &Value), b: (&str, &Value)) -> Comparison {
    let (left, right) = (entries(a.1), entries(b.1));
    let (of_left, of_right) = (Asked::of(a.1), Asked::of(b.1));
    let keys: BTreeSet<_> = left.keys().chain(right.keys()).collect();
    let (mut differences, mut only_in_one) = (Vec::new(), Vec::new());
    for key in &keys {
        let (one, two) = (left.get(*key), right.get(*key));
        let asked = match (one, two) {
            (Some(one), Some(two)) if one.agrees(two) => continue,
            (Some(one), None) => one.cell.is_none_or(|cell| of_right.covers(cell, &of_left)),
            (None, Some(two)) => two.cell.is_none_or(|cell| of_left.covers(cell, &of_right)),
            _ => true,
        };
        let text = |entry: Option<&Entry<'_>>| entry.map(|entry| entry.text.clone());
        let found = Difference { kind: key.0.to_owned(), key: key.1.clone(), a: text(one), b: text(two) };
        if asked { &mut differences } else { &mut only_in_one }.push(found);
    }
    Comparison {
        schema: DIFF_SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        a: a.0.to_owned(),
        b: b.0.to_owned(),
        compared: keys.len() - only_in_one.len(),
        differences,
        only_in_one,
    }
}

/// What a report was asked.
struct Asked<'a> {
    /// These destinations alone, if it was not all of the host.
    only: bool,
    /// Destinations beside the host's addresses.
    more: BTreeSet<&'a str>,
    destinations: BTreeSet<&'a str>,
    /// Protocol, port, and `host`, `link` or `node`.
    services: BTreeSet<(&'a str, u64, &'a str)>,
    /// Whether clients bound addresses.
    from_addresses: bool,
    sources: BTreeSet<&'a str>,
}

/// Protocol, port and the kind of source of a cell.
fn service(cell: &Value) -> (&str, u64, &str) {
    let source = cell["source"].as_str().unwrap_or_default();
    let kind = source.split(':').next().unwrap_or_default();
    (cell["protocol"].as_str().unwrap_or_default(), cell["port"].as_u64().unwrap_or_default(), kind)
}

impl<'a> Asked<'a> {
    fn of(document: &'a Value) -> Asked<'a> {
        let cells = list(document, "cells");
        let texts = |key: &'static str| cells.iter().filter_map(move |cell| cell[key].as_str()).collect();
        let more = document["requested"]["more"].as_array().map(Vec::as_slice).unwrap_or_default();
        Asked {
            only: document["requested"]["only"].is_array(),
            more: more.iter().filter_map(Value::as_str).collect(),
            destinations: texts("destination"),
            services: cells.iter().map(service).collect(),
            from_addresses: cells.iter().any(|cell| cell["source_address"].is_string()),
            sources: texts("source"),
        }
    }

    /// Whether it was asked a question of `other`, or would have been if its host had the address or the interface.
    fn covers(&self, cell: &Value, other: &Asked<'_>) -> bool {
        let (to, from) = (cell["destination"].as_str().unwrap_or_default(), &cell["source"]);
        let has_both =
            self.destinations.contains(to) && self.sources.contains(from.as_str().unwrap_or_default());
        self.services.contains(&service(cell))
            && (self.from_addresses || cell["source_address"].is_null())
            && (!has_both || cell["source_address"].is_string())
            && !self.only
            && !other.more.contains(to)
    }
}

type Entries<'a> = BTreeMap<(&'static str, String), Entry<'a>>;

/// A thing of a report.
struct Entry<'a> {
    text: String,
    /// The question, when it is one.
    cell: Option<&'a Value>,
    /// What is said of it, and whether that was seen; `None` for what is neither foretold nor seen.
    said: Option<(&'a Value, bool)>,
}

impl Entry<'_> {
    /// Whether two reports say the same of a thing, as far as both say something.
    fn agrees(&self, other: &Entry<'_>) -> bool {
        if self.text == other.text {
            return true;
        }
        let (foretold, seen) = match (self.said, other.said) {
            (Some((one, false)), Some((two, true))) => (one, two),
            (Some((two, true)), Some((one, false))) => (one, two),
            _ => return false,
        };
        if self.cell.is_none() {
            return foretold["outcome"] == "uncertain";
        }
        let candidates = foretold["candidates"].as_array().map(Vec::as_slice).unwrap_or_default();
        let taker = foretold["listener"] == seen["listener"] || candidates.contains(&seen["listener"]);
        // Where it came in at a server of others cannot be seen.
        let ingress = foretold["ingress"] == seen["ingress"]
            || seen["ingress"].is_null() && seen["listener"].is_null() && seen["outcome"] == "accepted";
        foretold["outcome"].is_null() || foretold["outcome"] == seen["outcome"] && taker && ingress
    }
}

fn list<'a>(document: &'a Value, key: &str) -> &'a [Value] {
    document[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn entries(document: &Value) -> Entries<'_> {
    let mut entries = Entries::new();
    let mut add = |kind, key: String, entry| {
        // Two sockets may look the same (a SO_REUSEPORT group): they are told apart by their number.
        let mut unique = key.clone();
        let mut number = 1;
        while entries.contains_key(&(kind, unique.clone())) {
            number += 1;
            unique = format!("{key} #{number}");
        }
        entries.insert((kind, unique), entry);
    };
    let plain = |text: String| Entry { text, cell: None, said: None };
    for socket in list(document, "sockets") {
        let said = said(&socket["bind"]);
        let entry = Entry { text: socket_value(socket, said.0), cell: None, said: Some(said) };
        add("socket", socket_key(&socket["socket"]), entry);
    }
    for cell in list(document, "cells") {
        let words = ["source", "protocol", "destination", "port"].map(|key| printable(&word(&cell[key])));
        let [mut source, protocol, destination, port] = words;
        if let Some(address) = cell["source_address"].as_str() {
            source = format!("{source} as {}", printable(address));
        }
        let said = said(cell);
        let entry = Entry { text: cell_value(said.0), cell: Some(cell), said: Some(said) };
        add("cell", format!("{source} to {protocol} {destination} port {port}"), entry);
    }
    for expectation in list(document, "expectations") {
        let key = format!("{} {}", escaped(&expectation["listener"]), escaped(&expectation["rule"]));
        add("expectation", key, plain(escaped(&expectation["verdict"])));
    }
    for finding in list(document, "findings") {
        let key = format!("{} {}", escaped(&finding["code"]), printable(&word(&finding["message"])));
        add("finding", key, plain(escaped(&finding["severity"])));
    }
    for interface in list(document, "interfaces") {
        let addresses: Vec<String> = list(interface, "addresses")
            .iter()
            .map(|address| format!("{}/{}", escaped(&address["address"]), escaped(&address["prefix"])))
            .collect();
        let up = if interface["up"] == true { "up" } else { "down" };
        let value = format!("{up} {}", addresses.join(" ")).trim().to_owned();
        add("interface", if_name(&interface["name"]), plain(value));
    }
    entries
}

/// What was seen, else what is foretold.
fn said(of: &Value) -> (&Value, bool) {
    let seen = !of["observed"].is_null();
    (if seen { &of["observed"] } else { &of["predicted"] }, seen)
}

/// A value in a word; nothing for null.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A value in a word, escaped.
fn escaped(value: &Value) -> String {
    escape(&word(value))
}

/// The name of an interface, which a document has escaped where it is no text.
fn if_name(value: &Value) -> String {
    IfName::from_escaped(&word(value)).to_string()
}

fn socket_key(view: &Value) -> String {
    let mut key = format!(
        "{} {} port {}",
        escaped(&view["protocol"]),
        escaped(&view["address"]),
        escaped(&view["port"])
    );
    for (name, value) in [("scope", &view["scope_id"]), ("device", &view["device"])] {
        if !value.is_null() {
            key.push_str(&format!(" {name} {}", if_name(value)));
        }
    }
    if view["v6only"] == false && view["address"] == "::" {
        key.push_str(" dual-stack");
    }
    key
}

fn socket_value(socket: &Value, bind: &Value) -> String {
    let view = &socket["socket"];
    let mut words = vec![escaped(&view["listener"])];
    match (bind["outcome"].as_str(), bind["errno"].as_str()) {
        (Some("error"), Some(errno)) => words.push(escape(errno)),
        (Some(outcome), _) => words.push(escape(outcome)),
        _ => {}
    }
    for family in ["ipv4", "ipv6"] {
        let exposure = escaped(&view["exposure"][family]);
        if !exposure.is_empty() && exposure != "none" {
            words.push(format!("{family} {exposure}"));
        }
    }
    let mut commands: Vec<String> =
        list(socket, "owners").iter().map(|owner| escaped(&owner["command"])).collect();
    commands.sort_unstable();
    commands.dedup();
    words.extend(commands);
    words.retain(|word| !word.is_empty());
    words.join(", ")
}

fn cell_value(value: &Value) -> String {
    let mut text = if value["outcome"].is_null() { "unknown".to_owned() } else { escaped(&value["outcome"]) };
    if !value["listener"].is_null() {
        text.push_str(&format!(" by {}", escaped(&value["listener"])));
    } else if let Some(candidates) =
        value["candidates"].as_array().filter(|candidates| !candidates.is_empty())
    {
        let candidates: Vec<String> = candidates.iter().map(|name| printable(&word(name))).collect();
        text.push_str(&format!(" by {}", candidates.join(" or ")));
    }
    if !value["ingress"].is_null() {
        text.push_str(&format!(" on {}", if_name(&value["ingress"])));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_one_only_is_a_difference() {
        let cell = |listener: &str| {
            serde_json::json!({"schema": "bindscope.plan/1", "cells": [{
                "source": "host", "protocol": "tcp", "destination": "127.0.0.1", "port": 80,
                "predicted": {"outcome": "accepted", "listener": listener, "ingress": "lo"}, "observed": null}]})
        };
        let (a, b) = (cell("x"), cell("y"));
        assert_eq!(compare(("a", &a), ("b", &a)).differences, []);
        let found = compare(("a", &a), ("b", &b));
        assert_eq!(found.differences.len(), 1);
        assert_eq!(found.differences[0].a.as_deref(), Some("accepted by x on lo"));
    }

    #[test]
    fn what_one_was_not_asked_is_no_difference() {
        let report = |asked: Value, cells: &[(&str, &str, u16)]| {
            let cells = cells.iter().map(|(source, to, port)| {
                let said = serde_json::json!({"outcome": "refused", "listener": null, "ingress": null});
                serde_json::json!({"source": source, "protocol": "tcp", "destination": to, "port": port,
                                   "predicted": said, "observed": null})
            });
            serde_json::json!({"schema": "bindscope.plan/1", "requested": asked, "cells": cells.collect::<Vec<_>>()})
        };
        let all = serde_json::json!({"only": null, "more": []});
        let plan = report(all.clone(), &[("host", "10.0.0.1", 80), ("link:eth0", "10.0.0.1", 80)]);
        let counts = |other: &Value| {
            let found = compare(("a", &plan), ("b", other));
            (found.compared, found.differences.len(), found.only_in_one.len())
        };
        let more = serde_json::json!({"only": null, "more": ["0.0.0.0"]});
        let same = [("host", "10.0.0.1", 80), ("link:eth0", "10.0.0.1", 80)];
        assert_eq!(counts(&report(more, &[&same[..], &[("host", "0.0.0.0", 80)]].concat())), (2, 0, 1));
        // An address more, and a wire less, are differences; another port is another question.
        assert_eq!(
            counts(&report(all.clone(), &[&same[..], &[("host", "10.0.0.2", 80)]].concat())),
            (3, 1, 0)
        );
        assert_eq!(counts(&report(all.clone(), &[same[0], ("link:eth1", "10.0.0.1", 80)])), (3, 2, 0));
        assert_eq!(counts(&report(all.clone(), &[same[0], same[1], ("host", "10.0.0.1", 81)])), (2, 0, 1));
        assert_eq!(counts(&report(all, &[])), (0, 0, 2));
        let only = serde_json::json!({"only": ["10.0.0.2"], "more": []});
        assert_eq!(counts(&report(only, &[("host", "10.0.0.2", 80)])), (1, 1, 2));
    }

    #[test]
    fn what_is_left_open_contradicts_nothing() {
        let cell = |predicted: Value, observed: Value| {
            serde_json::json!({"schema": "bindscope.plan/1", "cells": [{"source": "host", "protocol": "tcp",
                "destination": "127.0.0.1", "port": 80, "predicted": predicted, "observed": observed}]})
        };
        let said = |outcome: Value, listener: Value, candidates: Value, ingress: Value| serde_json::json!({"outcome": outcome, "listener": listener, "candidates": candidates, "ingress": ingress});
        for (foretold, seen, differ) in [
            // A server of others does not say where we came in.
            (
                said("accepted".into(), Value::Null, ["nginx"].into(), "lo".into()),
                said("accepted".into(), Value::Null, Value::Null, Value::Null),
                0,
            ),
            (
                said("accepted".into(), Value::Null, vec!["a", "b"].into(), "lo".into()),
                said("accepted".into(), "b".into(), Value::Null, "lo".into()),
                0,
            ),
            (
                said(Value::Null, Value::Null, Value::Null, Value::Null),
                said("refused".into(), Value::Null, Value::Null, Value::Null),
                0,
            ),
            (
                said("accepted".into(), "a".into(), Value::Null, "lo".into()),
                said("accepted".into(), "a".into(), Value::Null, "eth0".into()),
                1,
            ),
        ] {
            let (plan, probe) = (cell(foretold.clone(), Value::Null), cell(foretold, seen));
            assert_eq!(compare(("a", &plan), ("b", &probe)).differences.len(), differ, "{probe:#}");
            assert_eq!(compare(("a", &probe), ("b", &plan)).differences.len(), differ, "{probe:#}");
        }
    }

    #[test]
    fn names_are_escaped_once_whatever_a_document_has() {
        for (json, shown) in [("e\u{1b}", "e\\x1b"), ("\\xff", "\\xff"), ("a\\\\b", "a\\\\b")] {
            let host = serde_json::json!({"interfaces": [{"name": json, "up": true, "addresses": []}]});
            let found = compare(("a", &host), ("b", &serde_json::json!({"interfaces": []})));
            assert_eq!(found.differences[0].key, shown);
        }
    }
}
