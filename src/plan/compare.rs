//! Two reports side by side: what is only in one, and what is not the same in both.
//!
//! Reports of every kind are compared alike: each has lists of things with a key (a socket, a question, an expectation, a finding, an
//! interface), and each thing has a value in a few words. Times and counts are not compared.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Schema of a comparison.
pub const DIFF_SCHEMA: &str = "bindscope.diff/1";

/// One thing that is not the same in both.
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
    let keys: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
    let differences = keys
        .iter()
        .filter(|key| left.get(**key) != right.get(**key))
        .map(|key| Difference {
            kind: key.0.to_owned(),
            key: key.1.clone(),
            a: left.get(*key).cloned(),
            b: right.get(*key).cloned(),
        })
        .collect();
    Comparison {
        schema: DIFF_SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        a: a.0.to_owned(),
        b: b.0.to_owned(),
        compared: keys.len(),
        differences,
    }
}

type Entries = BTreeMap<(&'static str, String), String>;

fn entries(document: &Value) -> Entries {
    let mut entries = Entries::new();
    let list = |key: &str| document[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut add = |kind, key: String, value: String| {
        // Two sockets may look the same (a SO_REUSEPORT group): they are told apart by their number.
        let mut unique = key.clone();
        let mut number = 1;
        while entries.contains_key(&(kind, unique.clone())) {
            number += 1;
            unique = format!("{key} #{number}");
        }
        entries.insert((kind, unique), value);
    };
    for socket in list("sockets") {
        add("socket", socket_key(&socket["socket"]), socket_value(socket));
    }
    for cell in list("cells") {
        let words = ["source", "protocol", "destination", "port"].map(|key| word(&cell[key]));
        let [mut source, protocol, destination, port] = words;
        if let Some(address) = cell["source_address"].as_str() {
            source = format!("{source} as {address}");
        }
        let value = if cell["observed"].is_null() { &cell["predicted"] } else { &cell["observed"] };
        add("cell", format!("{source} to {protocol} {destination} port {port}"), cell_value(value));
    }
    for expectation in list("expectations") {
        let key = format!("{} {}", word(&expectation["listener"]), word(&expectation["rule"]));
        add("expectation", key, word(&expectation["verdict"]));
    }
    for finding in list("findings") {
        let key = format!("{} {}", word(&finding["code"]), word(&finding["message"]));
        add("finding", key, word(&finding["severity"]));
    }
    for interface in list("interfaces") {
        let addresses = interface["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
        let addresses: Vec<String> = addresses
            .iter()
            .map(|address| format!("{}/{}", word(&address["address"]), word(&address["prefix"])))
            .collect();
        let up = if interface["up"] == true { "up" } else { "down" };
        add("interface", word(&interface["name"]), format!("{up} {}", addresses.join(" ")).trim().to_owned());
    }
    entries
}

/// A value in a word; nothing for null.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn socket_key(view: &Value) -> String {
    let mut key =
        format!("{} {} port {}", word(&view["protocol"]), word(&view["address"]), word(&view["port"]));
    for (name, value) in [("scope", &view["scope_id"]), ("device", &view["device"])] {
        if !value.is_null() {
            key.push_str(&format!(" {name} {}", word(value)));
        }
    }
    if view["v6only"] == false && view["address"] == "::" {
        key.push_str(" dual-stack");
    }
    key
}

fn socket_value(socket: &Value) -> String {
    let view = &socket["socket"];
    let mut words = vec![word(&view["listener"])];
    let bind = if socket["bind"]["observed"].is_null() {
        &socket["bind"]["predicted"]
    } else {
        &socket["bind"]["observed"]
    };
    match (bind["outcome"].as_str(), bind["errno"].as_str()) {
        (Some("error"), Some(errno)) => words.push(errno.to_owned()),
        (Some(outcome), _) => words.push(outcome.to_owned()),
        _ => {}
    }
    for family in ["ipv4", "ipv6"] {
        let exposure = word(&view["exposure"][family]);
        if !exposure.is_empty() && exposure != "none" {
            words.push(format!("{family} {exposure}"));
        }
    }
    let owners = socket["owners"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut commands: Vec<String> = owners.iter().map(|owner| word(&owner["command"])).collect();
    commands.sort_unstable();
    commands.dedup();
    words.extend(commands);
    words.retain(|word| !word.is_empty());
    words.join(", ")
}

fn cell_value(value: &Value) -> String {
    let mut text = if value["outcome"].is_null() { "unknown".to_owned() } else { word(&value["outcome"]) };
    if !value["listener"].is_null() {
        text.push_str(&format!(" by {}", word(&value["listener"])));
    } else if let Some(among) = value["among"].as_array().filter(|among| !among.is_empty()) {
        let among: Vec<String> = among.iter().map(word).collect();
        text.push_str(&format!(" by {}", among.join(" or ")));
    }
    if !value["ingress"].is_null() {
        text.push_str(&format!(" on {}", word(&value["ingress"])));
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
        let empty = serde_json::json!({"schema": "bindscope.plan/1", "cells": []});
        assert_eq!(compare(("a", &a), ("b", &empty)).differences[0].b, None);
    }
}
