//! Words that several parts of a page share.

use maud::{Markup, html};

use crate::escape::{escape, printable};
use crate::model::{Source, Verdict};
use crate::render::matrix::shortened;

/// The name of a source. Escaped.
pub(super) fn source_name(source: &Source) -> String {
    match source {
        Source::Host => "this host".to_owned(),
        Source::Node(name) => escape(name),
        other => printable(&other.to_string()),
    }
}

/// `1 socket`, `2 sockets`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Names in a sentence: `a`, `a and b`, `a, b and c`; beyond `most`, the number of the others.
pub(super) fn listed(names: &[String], most: usize) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        names if names.len() > most => {
            format!("{} and {} more", names[..most].join(", "), names.len() - most)
        }
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// The text, cut to so many columns.
pub(super) fn clipped(text: &str, most: usize) -> String {
    shortened(text.to_owned(), most)
}

/// Whether a name can be typed in a shell without quotes.
pub(super) fn is_plain_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// The word of a verdict.
pub(super) fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "PASS",
        Verdict::Fail => "FAIL",
        Verdict::Undecided => "UNDECIDED",
    }
}

/// The cell text of a verdict.
pub(super) fn verdict_text(verdict: Verdict) -> Markup {
    html! { p.(verdict.to_string()) { b { (verdict_word(verdict)) } } }
}
