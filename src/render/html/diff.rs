//! The section of a comparison: what opens, what shuts, what moves.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::words::{counted, listed};
use super::{Mark, Section, Verdict, code_link};
use crate::code::Code;
use crate::escape::{escape, printable};
use crate::model::IfName;
use crate::report::report_diff::{Answer, ComparedCell, Comparison, Difference};

/// Rows of results, and other differences, that are shown.
const MOST_ROWS: usize = 2_000;

/// What a difference means for a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    /// Accepted in the second report only.
    Opens,
    /// Accepted in the first report only.
    Shuts,
    /// Accepted in both, by another listener or over another interface.
    Moves,
    /// Accepted in neither, with another outcome.
    Changes,
}

impl Change {
    fn of(cell: &ComparedCell) -> Change {
        let accepted = |answer: &Option<Answer>| {
            answer.as_ref().and_then(|answer| answer.outcome.as_deref()) == Some("accepted")
        };
        match (accepted(&cell.a), accepted(&cell.b)) {
            (false, true) => Change::Opens,
            (true, false) => Change::Shuts,
            (true, true) => Change::Moves,
            (false, false) => Change::Changes,
        }
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Change::Opens => ("OPENS", "opens"),
            Change::Shuts => ("SHUTS", "shuts"),
            Change::Moves => ("MOVES", "moves"),
            Change::Changes => ("CHANGES", "changes"),
        }
    }
}

/// The section of a comparison. `id` begins the names of its anchors.
pub(super) fn section(comparison: &Comparison, id: &str) -> Section {
    let cells: Vec<&ComparedCell> =
        comparison.differences.iter().filter_map(|difference| difference.cell.as_ref()).collect();
    let others: Vec<&Difference> =
        comparison.differences.iter().filter(|difference| difference.cell.is_none()).collect();
    let answers = cells.iter().flat_map(|cell| [&cell.a, &cell.b]).flatten();
    let codes: BTreeSet<Code> = answers.filter_map(code_of).collect();
    let (a, b) = (escape(&comparison.a), escape(&comparison.b));
    let count = comparison.differences.len();
    let (mark, headline) = match (comparison.compared, count) {
        (0, _) => (Mark::Undecided, "Nothing could be compared".to_owned()),
        (all, 0) => (Mark::Holds, format!("{} equal", counted(all, "entry").replace("entrys", "entries"))),
        (all, count) => (Mark::Differs, format!("{count} of {all} entries differ")),
    };
    let mut changes: BTreeMap<Change, usize> = BTreeMap::new();
    for cell in &cells {
        *changes.entry(Change::of(cell)).or_default() += 1;
    }
    let lead = if cells.is_empty() {
        Vec::new()
    } else {
        let parts: Vec<String> = changes
            .iter()
            .map(|(change, count)| {
                let verb = match change {
                    Change::Opens => "open",
                    Change::Shuts => "shut",
                    Change::Moves => "move to another listener or interface",
                    Change::Changes => "are refused in another way",
                };
                format!("{count} {verb}")
            })
            .collect();
        vec![
            html! { "From " b { (a) } " to " b { (b) } ": of the source-destination pairs, " (listed(&parts, 4)) "." },
        ]
    };
    let mut contents = Vec::new();
    if !cells.is_empty() {
        contents.push((format!("{id}pairs"), "Results"));
    }
    if !others.is_empty() {
        contents.push((format!("{id}others"), "Sockets and verdicts"));
    }
    let notes = match comparison.only_in_one.len() {
        0 => Vec::new(),
        count => vec![format!("only one report has {}, so they are not compared", counted(count, "result"))],
    };
    Section {
        command: "bindscope diff".to_owned(),
        verdict: Verdict { mark, headline, lead },
        facts: vec![
            ("first", a.clone()),
            ("second", b.clone()),
            ("compared", comparison.compared.to_string()),
            ("different", count.to_string()),
        ],
        contents,
        body: html! { (pairs(&cells, id)) (other_entries(&others, (&a, &b), id)) },
        notes,
        incomplete: Vec::new(),
        codes,
    }
}

/// The code of the rule behind an answer.
fn code_of(answer: &Answer) -> Option<Code> {
    let text = answer.why.as_deref()?;
    Code::ALL.iter().map(|(code, _)| *code).find(|code| code.to_string() == text)
}

/// Destination and port.
type Place<'a> = (&'a str, &'a str, u16);

fn pairs(cells: &[&ComparedCell], id: &str) -> Markup {
    if cells.is_empty() {
        return html! {};
    }
    let source = |cell: &ComparedCell| {
        let name = if cell.source == "host" { "this host".to_owned() } else { printable(&cell.source) };
        match &cell.source_address {
            Some(address) => format!("{name} as {}", printable(address)),
            None => name,
        }
    };
    let mut sources: Vec<String> = Vec::new();
    let mut rows: BTreeMap<Place<'_>, BTreeMap<usize, &ComparedCell>> = BTreeMap::new();
    for &cell in cells {
        let name = source(cell);
        let column = sources.iter().position(|known| *known == name).unwrap_or_else(|| {
            sources.push(name);
            sources.len() - 1
        });
        rows.entry((&cell.destination, &cell.protocol, cell.port)).or_default().insert(column, cell);
    }
    html! {
        section id=(format!("{id}pairs")) {
            h2 { "Results that differ" }
            div.scroll tabindex="0" role="region" aria-label="Results that differ" {
                table.cross.dif {
                    caption { "Destinations are rows, sources are columns. Equal results are left out." }
                    thead { tr { th.corner scope="col" { "destination" } @for name in &sources { th scope="col" { (name) } } } }
                    tbody {
                        @for ((destination, protocol, port), row) in rows.iter().take(MOST_ROWS) {
                            tr {
                                th scope="row" { span.m { (printable(destination)) } " " small { (printable(protocol)) " port " (port) } }
                                @for column in 0..sources.len() {
                                    @match row.get(&column) {
                                        Some(cell) => (pair(cell)),
                                        None => { td.same { "same" } }
                                    }
                                }
                            }
                        }
                    }
                }
            }
            @if rows.len() > MOST_ROWS { p { "The page leaves out " (rows.len() - MOST_ROWS) " rows; the JSON document has them." } }
        }
    }
}

fn pair(cell: &ComparedCell) -> Markup {
    let (word, class) = Change::of(cell).words();
    html! {
        td.x.(class) {
            b.st { (word) } " "
            span.ab { del { (answer(cell.a.as_ref())) } " → " ins { (answer(cell.b.as_ref())) } }
            @if let Some(code) = cell.b.as_ref().or(cell.a.as_ref()).and_then(code_of) { " " span.f { (code_link(code)) " " (code.title()) } }
        }
    }
}

fn answer(answer: Option<&Answer>) -> String {
    let Some(answer) = answer else { return "not there".to_owned() };
    let outcome = answer.outcome.as_deref().map_or_else(|| "not known".to_owned(), escape);
    let mut words = match (&answer.listener, answer.candidates.as_deref()) {
        (Some(listener), _) => format!("{outcome} by {}", escape(listener)),
        (None, Some(candidates)) if !candidates.is_empty() => {
            let names: Vec<String> = candidates.iter().map(|name| printable(name)).collect();
            format!("{outcome} by {}", names.join(" or "))
        }
        _ => outcome,
    };
    if let Some(ingress) = &answer.ingress {
        words.push_str(&format!(" on {}", IfName::from_escaped(ingress)));
    }
    words
}

fn other_entries(others: &[&Difference], (a, b): (&str, &str), id: &str) -> Markup {
    let value = |value: &Option<String>| value.as_deref().map_or_else(|| "-".to_owned(), printable);
    html! {
        @if !others.is_empty() {
            section id=(format!("{id}others")) {
                h2 { "Sockets, verdicts and other entries that differ" }
                div.scroll tabindex="0" role="region" aria-label="Other entries that differ" {
                    table.plain {
                        caption { "A dash: the report does not have the entry." }
                        thead { tr { th scope="col" { "kind" } th scope="col" { "entry" } th scope="col" { (a) } th scope="col" { (b) } } }
                        tbody {
                            @for difference in others.iter().take(MOST_ROWS) {
                                tr { td { (printable(&difference.kind)) } th scope="row" { (printable(&difference.key)) } td { (value(&difference.a)) } td { (value(&difference.b)) } }
                            }
                        }
                    }
                }
                @if others.len() > MOST_ROWS { p { "The page leaves out " (others.len() - MOST_ROWS) " entries; the JSON document has them." } }
            }
        }
    }
}
