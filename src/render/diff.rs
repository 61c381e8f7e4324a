//! Comparisons for people and for machines.

use std::fmt::Write as _;

use super::markdown;
use super::style::{Paint, Tone};
use crate::escape::{csv_escaped, escape, printable};
use crate::render::table;
use crate::report::report_diff::{Comparison, Difference};

/// The widest column. A longer text moves what follows it instead of padding every line.
const WIDEST: usize = 100;

/// The comparison as text for people: a table, or two lines for each difference if the table is wider than `limit`.
#[must_use]
pub fn human(comparison: &Comparison, color: bool, limit: usize) -> String {
    let paint = Paint::new(color);
    let (a, b) = (escape(&comparison.a), escape(&comparison.b));
    let mut out = String::new();
    let value = |value: &Option<String>| value.as_deref().map_or_else(|| "-".to_owned(), printable);
    let wide = |part: &dyn Fn(&Difference) -> String, least: &str| {
        let widths = comparison.differences.iter().map(|difference| table::width(&part(difference)));
        widths.chain([table::width(least)]).max().unwrap_or(0).min(WIDEST)
    };
    let keys = wide(&|difference| printable(&difference.key), "");
    let firsts = wide(&|difference| value(&difference.a), &a);
    let seconds = wide(&|difference| value(&difference.b), &b);
    let narrow = keys + firsts + seconds + 4 > limit;
    let mut kind = "";
    for difference in &comparison.differences {
        if difference.kind != kind {
            kind = &difference.kind;
            // The documents call a result of one source and destination a cell.
            let title = if kind == "cell" { "results".to_owned() } else { format!("{kind}s") };
            let heading = if narrow {
                format!("{title}\n  {a} -> {b}")
            } else {
                format!("{title:<keys$}  {a:<firsts$}  {b}")
            };
            let _ = writeln!(out, "{}", paint.tone(Tone::Strong, &heading));
        }
        let first = value(&difference.a);
        let padding = " ".repeat(firsts.saturating_sub(table::width(&first)));
        let tone = |value: &Option<String>| if value.is_some() { Tone::Good } else { Tone::Faint };
        let key = printable(&difference.key);
        let first = paint.tone(tone(&difference.a), &first);
        let second = paint.tone(tone(&difference.b), &value(&difference.b));
        let _ = if narrow {
            writeln!(out, "{key}\n  {first} -> {second}")
        } else {
            writeln!(out, "{key:<keys$}  {first}{padding}  {second}")
        };
    }
    if !comparison.differences.is_empty() {
        out.push('\n');
    }
    if let Some(note) = only_in_one(comparison) {
        let _ = writeln!(out, "{}", printable(&note));
    }
    let _ = writeln!(out, "{a} and {b}: {} of {} differ", comparison.differences.len(), comparison.compared);
    out
}

/// The number of results that only one side has, which are not compared.
fn only_in_one(comparison: &Comparison) -> Option<String> {
    let of = |name: &str, side: fn(&Difference) -> bool| {
        let count = comparison.only_in_one.iter().filter(|asked| side(asked)).count();
        (count > 0).then(|| format!("{count} of {}", escape(name)))
    };
    let parts = [of(&comparison.a, |asked| asked.a.is_some()), of(&comparison.b, |asked| asked.b.is_some())];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| {
        format!("only one report has these results, so they are not compared: {}", parts.join(" and "))
    })
}

/// One line for each difference (RFC 4180).
#[must_use]
pub fn csv(comparison: &Comparison) -> String {
    let mut out = String::from("kind,key,a,b\r\n");
    for difference in &comparison.differences {
        let field = |value: &Option<String>| csv_escaped(printable(value.as_deref().unwrap_or_default()));
        let _ = write!(
            out,
            "{},{},{},{}\r\n",
            difference.kind,
            csv_escaped(printable(&difference.key)),
            field(&difference.a),
            field(&difference.b)
        );
    }
    out
}

/// A table for a pull request or a ticket.
#[must_use]
pub fn markdown(comparison: &Comparison) -> String {
    let cell = |text: &str| markdown::cell(&printable(text));
    let (a, b) = (cell(&escape(&comparison.a)), cell(&escape(&comparison.b)));
    let mut out = format!("| | | {a} | {b} |\n|---|---|---|---|\n");
    for difference in &comparison.differences {
        let value = |value: &Option<String>| cell(value.as_deref().unwrap_or("-"));
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} |",
            difference.kind,
            cell(&difference.key),
            value(&difference.a),
            value(&difference.b)
        );
    }
    if let Some(note) = only_in_one(comparison) {
        let _ = writeln!(out, "\n{}", cell(&note));
    }
    let _ = writeln!(out, "\n{} of {} differ", comparison.differences.len(), comparison.compared);
    out
}
