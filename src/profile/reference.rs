//! The reference of profiles, policies and lab files as Markdown and as manual pages, generated from the key tables of the parser.

use std::fmt::Write as _;

use roff::{Inline, Roff, bold, italic, roman};

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

/// The manual page of a kind of file, for section 5.
#[must_use]
pub fn manual(kind: FileKind) -> String {
    let (root, word, about) = match kind {
        FileKind::Profile => {
            (&PROFILE, "profile", "which sockets to open, and who is expected to reach them")
        }
        FileKind::Policy => (&policy::POLICY_FILE, "policy", "which sockets may listen on a host"),
        FileKind::Lab => (&lab::LAB_FILE, "lab", "a temporary network of namespaces"),
    };
    let mut page = Roff::new();
    let source = format!("bindscope {}", env!("CARGO_PKG_VERSION"));
    page.control("TH", [format!("bindscope-{word}").as_str(), "5", "", source.as_str(), "File formats"]);
    page.control("SH", ["NAME"]).text([roman(format!("bindscope-{word} - {about}"))]);
    page.control("SH", ["DESCRIPTION"]).text([
        roman("A file in TOML. "),
        bold("bindscope check"),
        roman(" FILE finds mistakes, and "),
        bold(format!("bindscope schema {word}")),
        roman(" prints the JSON Schema for editors. Keys marked with * are required."),
    ]);
    for table in tables(root) {
        page.control("SH", [table.what.to_uppercase().replace('`', "").as_str()]);
        for key in table.keys {
            page.control("TP", []);
            page.text([bold(key.name), roman(if key.required { " *" } else { "" })]);
            let mut line: Vec<Inline> = values_of(key).iter().map(Part::roff).collect();
            line.push(roman(". "));
            line.extend(prose(&sentence(key.about)));
            page.text(line);
        }
    }
    let mut others = vec![bold("bindscope"), roman("(1), "), bold("bindscope-check"), roman("(1)")];
    for other in ["profile", "policy", "lab"].iter().filter(|other| **other != word) {
        others.extend([roman(", "), bold(format!("bindscope-{other}")), roman("(5)")]);
    }
    page.control("SH", ["SEE ALSO"]).text(others);
    page.render()
}

/// Text with its literals, which are between backticks.
fn prose(text: &str) -> impl Iterator<Item = Inline> {
    text.split('`').enumerate().map(|(index, part)| if index % 2 == 0 { roman(part) } else { bold(part) })
}

/// Text with a capital at its beginning and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

/// A part of the description of a value.
enum Part {
    Text(String),
    /// What is written in the file.
    Literal(String),
    Table(&'static Keys),
}

impl Part {
    fn text(text: impl Into<String>) -> Part {
        Part::Text(text.into())
    }

    fn literal(text: impl Into<String>) -> Part {
        Part::Literal(text.into())
    }

    fn markdown(&self) -> String {
        match self {
            Part::Text(text) => text.clone(),
            Part::Literal(text) => format!("`{text}`"),
            Part::Table(keys) => link(keys),
        }
    }

    fn roff(&self) -> Inline {
        match self {
            Part::Text(text) => roman(text),
            Part::Literal(text) => bold(text),
            Part::Table(keys) => italic(format!("table {}", keys.what.replace('`', ""))),
        }
    }
}

fn row(page: &mut String, key: &Key) {
    let name = if key.required { format!("**`{}`**", key.name) } else { format!("`{}`", key.name) };
    let kind: String = values_of(key).iter().map(Part::markdown).collect();
    let _ = writeln!(page, "| {name} | {kind} | {} |", cell(key.about));
}

/// Text in a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

/// The possible values of a key.
fn values_of(key: &Key) -> Vec<Part> {
    if key.name == "schema" { vec![Part::literal(super::SCHEMA.to_string())] } else { value(key.kind) }
}

/// The possible values.
fn value(kind: Kind) -> Vec<Part> {
    let or = |mut parts: Vec<Part>, more: Vec<Part>| {
        parts.extend(more);
        parts
    };
    let words = |words: &[&str]| {
        let mut parts = Vec::new();
        for word in words {
            if !parts.is_empty() {
                parts.push(Part::text(", "));
            }
            parts.push(Part::literal(format!("\"{word}\"")));
        }
        parts
    };
    let flags = || vec![Part::literal("true"), Part::text(", "), Part::literal("false")];
    match kind {
        Kind::Text => vec![Part::text("text")],
        Kind::Texts => vec![Part::text("text, or a list of texts")],
        Kind::Choice(choices) => words(choices),
        Kind::Choices(choices) => or(words(choices), vec![Part::text(", or a list of them")]),
        Kind::Bool => flags(),
        Kind::BoolOr(choices) => or(or(flags(), vec![Part::text(", ")]), words(choices)),
        Kind::WordOrTable(choices, keys) => or(words(choices), vec![Part::text(", or "), Part::Table(keys)]),
        Kind::BoolOrTable(keys) => or(flags(), vec![Part::text(", or "), Part::Table(keys)]),
        Kind::Integer(low, i64::MAX) => vec![Part::text(format!("integer from {low}"))],
        Kind::Integer(low, high) => vec![Part::text(format!("integer, {low} to {high}"))],
        Kind::Share => vec![Part::text("number, 0 to 1")],
        Kind::Duration => vec![
            Part::text("duration such as "),
            Part::literal("\"10s\""),
            Part::text(", "),
            Part::literal("\"500ms\""),
            Part::text(", "),
            Part::literal("\"5m\""),
        ],
        Kind::Date => vec![Part::text("date such as "), Part::literal("2027-01-31")],
        Kind::Ports => vec![
            Part::text("port, range such as "),
            Part::literal("\"8000-8009\""),
            Part::text(", or a list of them"),
        ],
        Kind::Bind(keys) => vec![
            Part::text("address, "),
            Part::literal("\"loopback\""),
            Part::text(", "),
            Part::Table(keys),
            Part::text(", or a list of them"),
        ],
        Kind::Table(keys) => vec![Part::Table(keys)],
        Kind::Tables(keys) => vec![Part::Table(keys), Part::text("; may be repeated")],
        Kind::List => vec![Part::text("a list of values")],
        Kind::Map => vec![Part::text("table of texts or integers")],
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
