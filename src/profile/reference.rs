//! The reference of profiles, policies and lab files as Markdown, generated from the key tables of the parser.

use std::fmt::Write as _;

use super::keys::{Key, Keys, Kind};
use super::{FileKind, PROFILE, lab, policy};

/// The reference of a kind of file.
#[must_use]
pub fn reference(kind: FileKind) -> String {
    let (root, title, intro) = match kind {
        FileKind::Profile => (&PROFILE, "Profile reference", PROFILE_INTRO),
        FileKind::Policy => (&policy::POLICY_FILE, "Policy reference", POLICY_INTRO),
        FileKind::Lab => (&lab::LAB_FILE, "Lab reference", LAB_INTRO),
    };
    let mut page = format!(
        "<!-- Generated from the key tables of the parser; bindscope schema prints it. -->\n# {title}\n\n{intro}"
    );
    for table in tables(root) {
        let _ = write!(page, "\n## {}\n\n| key | value | meaning |\n|---|---|---|\n", table.what);
        for key in table.keys {
            row(&mut page, key);
        }
    }
    page
}

const PROFILE_INTRO: &str = "A profile says which sockets to open, and who is expected to reach them. `bindscope init` writes a first one, \
`bindscope check FILE` finds mistakes, and `bindscope schema profile` prints the JSON Schema for editors. Keys in **bold** are \
required. The smallest profile:\n\n<!-- file: smallest.toml -->\n```toml\nschema = 1\n\n[[listener]]\nname = \"web\"\nbind = \"0.0.0.0\"\nport = 8080\n\n\
[[expect]]\nlistener = \"web\"\nreachable_from = [\"host\", \"others\"]\n```\n\n```console\n$ bindscope check smallest.toml\n$ bindscope plan smallest.toml\n```\n";

const POLICY_INTRO: &str = "A policy says which sockets may listen on a host. `bindscope audit --policy FILE` checks it, and `bindscope audit \
--write-policy FILE` writes one from the current state. `bindscope explain policy` describes how rules are matched. Keys in **bold** \
are required. The smallest policy:\n\n<!-- file: smallest.toml -->\n```toml\nschema = 1\nkind = \"policy\"\n\n[[allow]]\nid = \"local\"\nexposure = \"loopback\"\n```\n\n\
```console\n$ bindscope check smallest.toml\n```\n";

const LAB_INTRO: &str = "A lab file describes a temporary network of namespaces for `bindscope lab run --topology FILE`. The table `[lab]` of a \
profile has the same keys. `bindscope lab list` names the built-in networks, and `bindscope explain lab` describes what a lab can do. Keys \
in **bold** are required.\n";

fn row(page: &mut String, key: &Key) {
    let name = if key.required { format!("**`{}`**", key.name) } else { format!("`{}`", key.name) };
    let kind = if key.name == "schema" { format!("`{}`", super::SCHEMA) } else { value(key.kind) };
    let _ = writeln!(page, "| {name} | {kind} | {} |", cell(key.about));
}

/// Text in a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

/// The possible values.
fn value(kind: Kind) -> String {
    let words =
        |words: &[&str]| words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ");
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Texts => "text, or a list of texts".to_owned(),
        Kind::Choice(choices) => words(choices),
        Kind::Choices(choices) => format!("{}, or a list of them", words(choices)),
        Kind::Bool => "`true`, `false`".to_owned(),
        Kind::BoolOr(choices) => format!("`true`, `false`, {}", words(choices)),
        Kind::WordOrTable(choices, keys) => format!("{}, or {}", words(choices), link(keys)),
        Kind::BoolOrTable(keys) => format!("`true`, `false`, or {}", link(keys)),
        Kind::Integer(low, i64::MAX) => format!("integer from {low}"),
        Kind::Integer(low, high) => format!("integer, {low} to {high}"),
        Kind::Share => "number, 0 to 1".to_owned(),
        Kind::Duration => "duration such as `\"10s\"`, `\"500ms\"`, `\"5m\"`".to_owned(),
        Kind::Date => "date such as `2027-01-31`".to_owned(),
        Kind::Ports => "port, range such as `\"8000-8009\"`, or a list of them".to_owned(),
        Kind::Bind(keys) => format!("address, `\"loopback\"`, {}, or a list of them", link(keys)),
        Kind::Table(keys) => link(keys),
        Kind::Tables(keys) => format!("{}; may be repeated", link(keys)),
        Kind::Map => "table of texts or integers".to_owned(),
    }
}

/// The table that a value contains.
fn inner(kind: Kind) -> Option<&'static Keys> {
    match kind {
        Kind::WordOrTable(_, keys)
        | Kind::BoolOrTable(keys)
        | Kind::Bind(keys)
        | Kind::Table(keys)
        | Kind::Tables(keys) => Some(keys),
        _ => None,
    }
}

/// A link to the section of a table.
fn link(keys: &Keys) -> String {
    let anchor: String = keys
        .what
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() })
        .collect();
    format!("table [{}](#{anchor})", keys.what.replace('[', "\\[").replace(']', "\\]"))
}

/// Every table of a file, each once, in the order of their first mention.
fn tables(root: &'static Keys) -> Vec<&'static Keys> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(table) = found.get(next).copied() {
        for keys in table.keys.iter().filter_map(|key| inner(key.kind)) {
            if !found.iter().any(|known| std::ptr::eq(*known, keys)) {
                found.push(keys);
            }
        }
        next += 1;
    }
    found
}
