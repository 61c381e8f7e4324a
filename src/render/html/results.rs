//! Single results: the reasons in a crossing, the closed table of all, and what events changed.

use std::collections::HashMap;
use std::fmt::Write as _;

use maud::{Markup, PreEscaped, html};

use super::crossing::{Column, Row};
use super::words::{counted, listed, source_name};
use super::{code_link, words};
use crate::escape::{html_entities, printable};
use crate::model::{Outcome, Protocol, Source};
use crate::render::filter;
use crate::render::plan::details::{Likeness, likeness, row_of};
use crate::report::matrix::{CellReport, ChangedCell, Report};

/// Results above which the table of all is left out.
const MOST_CELLS: usize = 20_000;
/// Changes of an event that are listed.
const MOST_CHANGES: usize = 500;
/// Destinations that a reason names.
const MOST_DESTINATIONS: usize = 6;

/// The results of each source and port, grouped by their reason.
#[derive(Debug)]
pub(super) struct Groups<'a> {
    by_source: HashMap<(&'a Source, Protocol, u16), Vec<Group<'a>>>,
}

/// Results with the same outcome and reason.
#[derive(Debug)]
struct Group<'a> {
    like: Likeness<'a>,
    cells: Vec<&'a CellReport>,
}

impl<'a> Groups<'a> {
    pub(super) fn of(report: &'a Report) -> Groups<'a> {
        let mut by_source: HashMap<_, Vec<Group<'a>>> = HashMap::new();
        for cell in report.cells.iter().filter(|cell| cell.source_address.is_none()) {
            let groups = by_source.entry((&cell.source, cell.protocol, cell.port)).or_default();
            let like = likeness(cell);
            match groups.iter_mut().find(|group| group.like == like) {
                Some(group) => group.cells.push(cell),
                None => groups.push(Group { like, cells: vec![cell] }),
            }
        }
        Groups { by_source }
    }

    /// Why a source is accepted or not at the first port of a row.
    pub(super) fn reasons(&self, column: &Column, row: &Row<'_>) -> Markup {
        let key = row.ports.first().map(|&port| (&column.source, row.protocol, port));
        let groups = key.and_then(|key| self.by_source.get(&key)).map_or(&[][..], Vec::as_slice);
        html! {
            @if !groups.is_empty() {
                details {
                    summary { "why" }
                    ul.why { @for group in groups { (group.item()) } }
                }
            }
        }
    }
}

impl Group<'_> {
    fn item(&self) -> Markup {
        let Some(first) = self.cells.first() else { return html! {} };
        let destinations: Vec<String> = self.cells.iter().map(|cell| printable(&cell.destination)).collect();
        let agree = self.cells.iter().filter(|cell| cell.agrees == Some(true)).count();
        let tested = self.cells.iter().filter(|cell| cell.agrees.is_some()).count();
        let packets =
            || self.cells.iter().filter_map(|cell| cell.observed.as_ref()?.packets.as_ref()?.confirms);
        let filters = filter::of(first);
        html! {
            li {
                b { (outcome_words(first)) } " "
                span.m { (listed(&destinations, MOST_DESTINATIONS)) } " "
                span.rule { (super::reach::rule(first.predicted.why)) }
                @if let Some(filters) = filters { " " span.rule { (filters) } }
                @if tested > 0 { " " span.rule { (agree) " of " (tested) " as predicted" } }
                @if packets().count() > 0 {
                    " " span.rule { "captured packets confirm " (packets().filter(|confirms| *confirms).count()) " of " (packets().count()) }
                }
            }
        }
    }
}

/// What came of a connection, in words.
pub(super) fn outcome_words(cell: &CellReport) -> String {
    let shown = row_of(cell);
    match cell.outcome() {
        _ if cell.agrees == Some(false) => shown.result,
        Some(Outcome::Accepted) => format!("accepted by {} on {}", shown.result, shown.ingress),
        Some(outcome) => outcome.to_string(),
        None => "not known".to_owned(),
    }
}

/// The closed table of every result.
pub(super) fn all(report: &Report, id: &str) -> Markup {
    let count = report.cells.len();
    if count == 0 {
        return html! {};
    }
    if count > MOST_CELLS {
        return html! {
            p.small { "The page leaves out the list of all " (count) " results, because it has more than " (MOST_CELLS) ". The JSON document has them." }
        };
    }
    html! {
        details.all {
            summary { "all " (counted(count, "result")) }
            div.scroll tabindex="0" role="region" aria-label="All results" {
                table.plain.cells id=(format!("{id}all")) {
                    caption { "One row for each source, destination and port. Observed where there was an observation, else predicted; in parentheses what is not accepted." }
                    thead { tr { th scope="col" { "destination" } th scope="col" { "port" } th scope="col" { "result" } th scope="col" { "arrives on" } th scope="col" { "rule" } } }
                    (PreEscaped(rows(report)))
                }
            }
        }
    }
}

/// A body of the table for each source. Written by hand, because there may be twenty thousand rows; the tails of equal results are
/// made once.
fn rows(report: &Report) -> String {
    let mut out = String::with_capacity(report.cells.len() * 110);
    let mut tails: HashMap<Likeness<'_>, usize> = HashMap::new();
    let mut lines: Vec<String> = Vec::new();
    let mut destination: (&str, String) = ("", String::new());
    let same_source =
        |a: &CellReport, b: &CellReport| a.source == b.source && a.source_address == b.source_address;
    for cells in report.cells.chunk_by(same_source) {
        let Some(first) = cells.first() else { continue };
        let mut name = source_name(&first.source);
        if let Some(address) = &first.source_address {
            let _ = write!(name, " as {}", printable(address));
        }
        let _ = write!(
            out,
            "<tbody><tr class=\"src\"><th scope=\"rowgroup\" colspan=\"5\">from {}, {}</th></tr>",
            html_entities(&name),
            words::counted(cells.len(), "result")
        );
        for cell in cells {
            let like = likeness(cell);
            let number = *tails.entry(like).or_insert_with(|| {
                lines.push(tail(cell));
                lines.len() - 1
            });
            if !std::ptr::eq(destination.0, &*cell.destination) {
                destination = (&cell.destination, html_entities(&printable(&cell.destination)));
            }
            out.push_str("<tr><td>");
            out.push_str(&destination.1);
            out.push_str("</td><td>");
            if cell.protocol == Protocol::Udp {
                out.push_str("udp ");
            }
            let _ = write!(out, "{}", cell.port);
            out.push_str(&lines[number]);
        }
        out.push_str("</tbody>");
    }
    out
}

/// The result, the interface and the rule of a row.
fn tail(cell: &CellReport) -> String {
    let shown = row_of(cell);
    let filter = filter::of(cell).map(|words| format!(": {words}")).unwrap_or_default();
    format!(
        "</td><td>{}{}</td><td>{}</td><td>{}</td></tr>",
        html_entities(&shown.result),
        html_entities(&filter),
        html_entities(&shown.ingress),
        cell.predicted.why
    )
}

/// The results that an event changed.
pub(super) fn changes(changed: &[ChangedCell]) -> Markup {
    let words = |cell: Option<&CellReport>| {
        cell.map_or_else(|| "not an address of the host".to_owned(), outcome_words)
    };
    html! {
        @if !changed.is_empty() {
            div.scroll tabindex="0" role="region" aria-label="Changed results" {
                table.plain {
                    caption { "Results that changed." }
                    thead { tr { th scope="col" { "connection" } th scope="col" { "before" } th scope="col" { "after" } th scope="col" { "rule" } } }
                    tbody {
                        @for one in changed.iter().take(MOST_CHANGES) {
                            @if let Some(cell) = one.after.as_ref().or(one.before.as_ref()) {
                                tr {
                                    th scope="row" { (source_name(&cell.source)) " to " (cell.protocol.as_str()) " " (printable(&cell.destination)) " port " (cell.port) }
                                    td { (words(one.before.as_ref())) }
                                    td { (words(one.after.as_ref())) }
                                    td { (code_link(cell.predicted.why)) }
                                }
                            }
                        }
                    }
                }
            }
            @if changed.len() > MOST_CHANGES { p { "and " (changed.len() - MOST_CHANGES) " more; the JSON document has them." } }
        }
    }
}
