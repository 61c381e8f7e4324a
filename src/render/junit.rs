//! JUnit XML, in the subset that Jenkins, GitLab and the reporters of GitHub read.

use std::fmt::Write as _;

use crate::escape::{html_entities, printable};

/// A group of test cases.
pub(super) struct Suite<'a> {
    pub(super) name: &'a str,
    pub(super) cases: Vec<Case<'a>>,
    /// One line each for standard error.
    pub(super) messages: Vec<String>,
}

/// A test case. Its name must be the same in every run.
pub(super) struct Case<'a> {
    pub(super) class: &'a str,
    pub(super) name: String,
    pub(super) outcome: Outcome,
}

/// The outcome of a test case; what did not pass has a type and a text.
pub(super) enum Outcome {
    Pass,
    Failure(String, String),
    /// An undecided check counts as an error: readers do not treat a skipped case as a failure.
    Error(String, String),
    Skipped(String),
}

impl Outcome {
    fn element(&self) -> Option<(&'static str, Option<&str>, &str)> {
        match self {
            Outcome::Pass => None,
            Outcome::Failure(kind, text) => Some(("failure", Some(kind), text)),
            Outcome::Error(kind, text) => Some(("error", Some(kind), text)),
            Outcome::Skipped(text) => Some(("skipped", None, text)),
        }
    }
}

/// One document with one suite.
pub(super) fn document(suite: &Suite<'_>) -> String {
    let count = |kind: &str| {
        suite
            .cases
            .iter()
            .filter(|case| case.outcome.element().is_some_and(|(name, ..)| name == kind))
            .count()
    };
    let counts = format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\"",
        suite.cases.len(),
        count("failure"),
        count("error"),
        count("skipped")
    );
    let name = xml(suite.name);
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"{name}\" {counts}>\n  <testsuite name=\"{name}\" {counts}>\n"
    );
    for case in &suite.cases {
        let _ = write!(out, "    <testcase classname=\"{}\" name=\"{}\"", xml(case.class), xml(&case.name));
        match case.outcome.element() {
            None => out.push_str("/>\n"),
            Some((element, kind, text)) => {
                let kind = kind.map_or_else(String::new, |kind| format!(" type=\"{}\"", xml(kind)));
                let text = xml(text);
                let _ = writeln!(
                    out,
                    ">\n      <{element}{kind} message=\"{text}\">{text}</{element}>\n    </testcase>"
                );
            }
        }
    }
    if !suite.messages.is_empty() {
        let lines: Vec<String> = suite.messages.iter().map(|line| xml(line)).collect();
        let _ = writeln!(out, "    <system-err>{}</system-err>", lines.join("\n"));
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

/// Text for XML 1.0: escaped for people, then for XML; the two noncharacters that XML forbids are made visible.
pub(super) fn xml(text: &str) -> String {
    html_entities(&printable(text)).replace('\u{fffe}', "\\u{fffe}").replace('\u{ffff}', "\\u{ffff}")
}
