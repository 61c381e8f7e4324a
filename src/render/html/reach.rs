//! The section of a plan, a probe or a lab run: verdict, picture, crossings, expectations, events and all results.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::crossing::{Column, Crossing, Crossings, Row, State};
use super::picture::{Picture, alarms, bind_outcome, status};
use super::results;
use super::words::{clipped, counted, is_plain_name, listed, verdict_text, verdict_word};
use super::{Mark, Section, Verdict, code_link, evidence_words, host_words, svg, time_words};
use crate::code::Code;
use crate::escape::{escape, printable};
use crate::model::{Schema, Source, Verdict as Judged};
use crate::plan::predict::BindOutcome;
use crate::render::ranges;
use crate::report::expectations::ExpectationReport;
use crate::report::matrix::Report;

/// Failed expectations that the lead explains.
const MOST_LEADS: usize = 3;
/// Crossings above which reasons are left out of the table.
const MOST_REASONS: usize = 600;
/// Runs of ports that a row names.
const MOST_RUNS: usize = 6;
/// Addresses that a crossing names.
const MOST_ADDRESSES: usize = 3;

/// The section of a report. `id` begins the names of its anchors.
pub(super) fn section(report: &Report, id: &str) -> Section {
    let crossings = Crossings::of(report);
    let picture = Picture::of(report, &crossings);
    let mut codes: BTreeSet<Code> = report.cells.iter().map(|cell| cell.predicted.why).collect();
    codes.extend(report.sockets.iter().filter_map(|socket| socket.bind.predicted.code));
    let mut contents = Vec::new();
    let mut add = |name: &str, words| contents.push((format!("{id}{name}"), words));
    if !picture.listeners.is_empty() {
        add("picture", "Picture");
    }
    add("crossings", "Results");
    if !report.expectations.is_empty() {
        add("expectations", "Expectations");
    }
    if !report.events.is_empty() {
        add("events", "Events");
    }
    let verdict = verdict(report, &crossings);
    let body = html! {
        @if !picture.listeners.is_empty() {
            section id=(format!("{id}picture")) {
                h2 { (picture.title) }
                div.scroll tabindex="0" role="region" aria-label="Picture" { (svg::draw(&picture, id)) }
            }
        }
        (table(report, &crossings, id))
        (expectations(report, id))
        (events(report, id))
    };
    Section {
        command: command(report),
        verdict,
        facts: facts(report),
        contents,
        body,
        notes: report.notes.clone(),
        incomplete: report.incomplete_because.clone(),
        codes,
    }
}

/// The command that makes this document.
fn command(report: &Report) -> String {
    let command = match report.schema {
        Schema::Lab => "lab run",
        Schema::Probe => "probe",
        _ => "plan",
    };
    if is_plain_name(&report.profile) {
        format!("bindscope {command} {}", report.profile)
    } else {
        format!("bindscope {command}")
    }
}

fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let summary = report.summary;
    let mut facts = vec![("host", host_words(&report.host))];
    if let Some(time) = report.time {
        facts.push(("time", time_words(&time.to_string())));
    }
    facts.push(("source-destination pairs", format!("{}, {} accepted", summary.cells, summary.accepted)));
    if summary.unknown > 0 {
        facts.push(("not known", counted(summary.unknown, "result")));
    }
    facts.push(match (summary.agree, summary.disagree) {
        (0, 0) => ("observed", "nothing: this is a prediction".to_owned()),
        (agree, disagree) => ("observed", format!("{agree} as predicted, {disagree} not")),
    });
    if let Some(confirmed) = summary.confirmed {
        let contradicted = match summary.contradicted {
            Some(count) if count > 0 => format!(", contradict {count}"),
            _ => String::new(),
        };
        facts.push((
            "captured packets",
            format!("confirm {confirmed} of {} arrivals{contradicted}", summary.accepted),
        ));
    }
    facts.push(("evidence", evidence_words(report.complete, &report.incomplete_because)));
    facts
}

fn verdict(report: &Report, crossings: &Crossings<'_>) -> Verdict {
    let count = |verdict| report.expectations.iter().filter(|one| one.verdict == verdict).count();
    let (failed, undecided, all) = (count(Judged::Fail), count(Judged::Undecided), report.expectations.len());
    let differ = report.summary.disagree + report.summary.contradicted.unwrap_or(0);
    let (mark, headline) = match () {
        () if failed > 0 => (Mark::Fails, format!("{failed} of {} failed", counted(all, "expectation"))),
        () if differ > 0 => (Mark::Differs, format!("{} not as predicted", counted(differ, "result"))),
        () if undecided > 0 => {
            (Mark::Undecided, format!("{undecided} of {} could not be decided", counted(all, "expectation")))
        }
        () if all == 1 => (Mark::Holds, "The expectation holds".to_owned()),
        () if all > 0 => (Mark::Holds, format!("All {all} expectations hold")),
        () => {
            let open = crossings.rows.iter().filter(|row| row.open_to_others(&crossings.columns)).count();
            let noun = counted(crossings.rows.len(), "listener");
            (Mark::None, format!("{noun}, {open} reachable from other hosts"))
        }
    };
    let failing = report.expectations.iter().filter(|one| one.verdict == Judged::Fail);
    let mut lead: Vec<Markup> = failing.clone().take(MOST_LEADS).map(|one| because(report, one)).collect();
    if failed > MOST_LEADS {
        lead.push(html! { "and " (failed - MOST_LEADS) " more: see " a href="#expectations" { "Expectations" } "." });
    }
    let closed: Vec<String> = report
        .sockets
        .iter()
        .filter(|socket| bind_outcome(socket) == BindOutcome::Error)
        .map(|socket| socket.socket.to_string())
        .collect();
    if !closed.is_empty() {
        lead.push(html! { "Not open: " (listed(&closed, 3)) "." });
    }
    Verdict { mark, headline, lead }
}

/// Why an expectation failed: the reason of the report, and the rule of the kernel behind it.
fn because(report: &Report, failed: &ExpectationReport) -> Markup {
    let cell = failed.cells.iter().find_map(|&index| {
        let cell = report.cells.get(index)?;
        (cell.arrives_elsewhere() || cell.source != Source::Host).then_some(cell)
    });
    let first = failed.sockets.first().and_then(|&index| report.sockets.get(index));
    let name = first.and_then(|socket| socket.socket.listener.as_deref()).unwrap_or(&failed.listener);
    html! {
        b { (escape(name)) }
        @if let Some(socket) = first { " (" (socket.socket.to_string()) ")" }
        ": " (printable(&failed.because)) "."
        @if let Some(cell) = cell {
            @if let (true, Some(owner)) = (cell.arrives_elsewhere(), &cell.address_owner) {
                " " (printable(&cell.destination)) " is the address of " b { (owner.to_string()) }
                ", and Linux accepts it on every interface (weak host model, " (code_link(Code::WEAK_HOST)) "). "
                "A listener that is bound to the device " (owner.to_string()) " accepts only what arrives on " (owner.to_string()) "."
            } @else {
                " Rule: " (code_link(cell.predicted.why)) " " (cell.predicted.why.title()) "."
            }
        }
    }
}

/// Listeners as rows, sources as columns.
fn table(report: &Report, crossings: &Crossings<'_>, id: &str) -> Markup {
    let columns = &crossings.columns;
    let reasons = crossings.rows.len() * columns.len() <= MOST_REASONS;
    let groups = if reasons { Some(results::Groups::of(report)) } else { None };
    let anything = |wanted: &dyn Fn(&Row<'_>) -> bool| crossings.rows.iter().any(wanted);
    let some_bad = anything(&|row| status(report, &[row]).is_bad());
    let some_own = anything(&|row| !row.open_to_others(columns));
    let filters = crossings.rows.len() > 1 && (some_bad || some_own);
    html! {
        section.crossings id=(format!("{id}crossings")) {
            h2 { "Results by listener and source" }
            @if filters {
                fieldset.flt {
                    legend { "Show" }
                    label { input.r-all type="radio" name=(format!("{id}rows")) checked; " all listeners" }
                    label { input.r-oth type="radio" name=(format!("{id}rows")); " those that other hosts reach" }
                    @if some_bad { label { input.r-bad type="radio" name=(format!("{id}rows")); " those that fail" } }
                }
            }
            div.scroll tabindex="0" role="region" aria-label="Results by listener and source" {
                table.cross {
                    caption { "Listeners are rows. Sources are columns, with the interface on which their packets arrive." }
                    thead {
                        tr {
                            th.corner scope="col" { "listener" }
                            @for column in columns { (column_head(column, crossings)) }
                            @if !report.expectations.is_empty() { th scope="col" { "expectations" } }
                        }
                    }
                    tbody {
                        @for row in &crossings.rows {
                            tr.(row_class(report, row, columns)) {
                                (row_head(row))
                                @for (number, cell) in row.cells.iter().enumerate() {
                                    (crossing(cell, &columns[number], row, groups.as_ref()))
                                }
                                @if !report.expectations.is_empty() { (claims(report, row)) }
                            }
                        }
                    }
                }
            }
            @if crossings.rows_left_out > 0 {
                p { "The table leaves out " (crossings.rows_left_out) " rows of listeners, which no failed expectation is about; the JSON document has them." }
            }
            (results::all(report, id))
        }
    }
}

fn row_class(report: &Report, row: &Row<'_>, columns: &[Column]) -> &'static str {
    match (status(report, &[row]).is_bad(), row.open_to_others(columns)) {
        (true, true) => "row-bad",
        (true, false) => "row-bad own",
        (false, true) => "row",
        (false, false) => "row own",
    }
}

fn column_head(column: &Column, crossings: &Crossings<'_>) -> Markup {
    html! {
        th.lane.(column.lanes.first().map_or("l0".to_owned(), |&lane| svg::lane_class(lane))) scope="col" {
            span.van { b { (column.name) } " " small { (column.words) } }
            @for &lane in &column.lanes {
                @let lane = &crossings.lanes[lane];
                span.plug { b { (lane.name.to_string()) } @for address in lane.addresses.iter().take(4) { " " span.m { (address) } }
                    @if lane.addresses.len() > 4 { " " span.m { "and " (lane.addresses.len() - 4) " more" } } }
            }
        }
    }
}

fn row_head(row: &Row<'_>) -> Markup {
    let sockets: Vec<String> = row.sockets.iter().map(|(_, socket)| socket.socket.to_string()).collect();
    html! {
        th scope="row" {
            span.name { (row.name()) } " "
            @if row.ports.len() > 1 || sockets.is_empty() {
                span.m { (row.protocol.as_str()) " " (if row.ports.len() > 1 { "ports " } else { "port " }) (ranges::ports(&row.ports, MOST_RUNS).join(", ")) } " "
            }
            @for socket in sockets.iter().take(3) { span.m { (socket) } " " }
            @if sockets.len() > 3 { span.m { "and " (sockets.len() - 3) " more" } " " }
            @for (_, socket) in row.sockets.iter().take(1) {
                @let predicted = &socket.bind.predicted;
                @if bind_outcome(socket) != BindOutcome::Ok {
                    strong.no { "NOT OPEN" } " "
                    @if let Some(message) = &predicted.message { small { (printable(message)) } " " }
                    @if let Some(hint) = &predicted.hint { small { "Fix: " (printable(hint)) } }
                } @else {
                    @for reason in socket.exposure_because.iter().take(2) { small { (printable(reason)) } " " }
                }
            }
        }
    }
}

impl State {
    fn words(self) -> &'static str {
        match self {
            State::Forbidden => "OPEN, NOT EXPECTED",
            State::Missing => "SHUT, NOT EXPECTED",
            State::Differs => "NOT AS PREDICTED",
            State::Open => "OPEN",
            State::Unknown => "NOT KNOWN",
            State::Shut => "SHUT",
            State::Untested => "NOT TESTED",
        }
    }

    fn class(self) -> &'static str {
        match self {
            State::Forbidden | State::Missing => "bad",
            State::Differs => "dif",
            State::Open => "open",
            State::Unknown | State::Untested => "unk",
            State::Shut => "shut",
        }
    }
}

fn crossing(
    cell: &Crossing<'_>,
    column: &Column,
    row: &Row<'_>,
    groups: Option<&results::Groups<'_>>,
) -> Markup {
    let state = cell.state();
    let lane = column.lanes.first().map_or_else(String::new, |&lane| svg::lane_class(lane));
    let lane = if state == State::Open { lane } else { String::new() };
    let alarms = alarms(cell, &column.name, &column.source);
    let elsewhere: Vec<String> = cell
        .elsewhere
        .iter()
        .map(|(destination, owner)| format!("{}, an address of {owner}", printable(destination)))
        .collect();
    html! {
        td.x.(state.class()).(lane) {
            b.st { (if state == State::Missing && cell.accepted() { "PARTLY SHUT, NOT EXPECTED" } else { state.words() }) }
            @for (family, (accepted, tested)) in ["IPv4", "IPv6"].iter().zip(cell.families) {
                @if accepted > 0 { " " span.f { (family) " " (accepted) " of " (tested) } }
            }
            @for alarm in alarms.iter().take(MOST_ADDRESSES) { " " span.rem { (alarm) } }
            @if alarms.is_empty() && !elsewhere.is_empty() { " " span.rem { "also to " (listed(&elsewhere, MOST_ADDRESSES)) } }
            @for gate in &cell.gates { " " span.gt { (if gate.open { "passes: " } else { "gate shut: " }) (clipped(&gate.words, 160)) } }
            @if let Some(groups) = groups { (groups.reasons(column, row)) }
        }
    }
}

/// The expectations about a row.
fn claims(report: &Report, row: &Row<'_>) -> Markup {
    let about = |one: &&ExpectationReport| row.sockets.iter().any(|(index, _)| one.sockets.contains(index));
    html! {
        td.claim {
            @for one in report.expectations.iter().filter(about) { (claim(one)) }
        }
    }
}

fn claim(one: &ExpectationReport) -> Markup {
    html! {
        p.(one.verdict.to_string()) {
            b { (verdict_word(one.verdict)) } " " code { (printable(&one.rule)) } " "
            span { (printable(&one.because)) }
        }
    }
}

fn expectations(report: &Report, id: &str) -> Markup {
    html! {
        @if !report.expectations.is_empty() {
            section id=(format!("{id}expectations")) {
                h2 { "Expectations" }
                div.scroll tabindex="0" role="region" aria-label="Expectations" {
                    table.plain {
                        caption { "The rules of the profile, with what decided them." }
                        thead { tr { th scope="col" { "verdict" } th scope="col" { "listeners" } th scope="col" { "rule" } th scope="col" { "reason" } } }
                        tbody {
                            @for one in &report.expectations {
                                tr {
                                    td.claim { (verdict_text(one.verdict)) }
                                    th scope="row" { (escape(&one.listener)) }
                                    td { code { (printable(&one.rule)) } }
                                    td { (printable(&one.because)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The events of a lab with the results that they changed.
fn events(report: &Report, id: &str) -> Markup {
    html! {
        @if !report.events.is_empty() {
            section id=(format!("{id}events")) {
                h2 { "Events" }
                @for (number, event) in report.events.iter().enumerate() {
                    h3 { "Event " (number + 1) ": " (counted(event.changed.len(), "result")) " changed, " (event.disagree) " not as predicted" }
                    pre tabindex="0" { @for command in &event.commands { (printable(command)) "\n" } }
                    (results::changes(&event.changed))
                }
            }
        }
    }
}

/// A code with its title, for a list of reasons.
pub(super) fn rule(code: Code) -> Markup {
    html! { (code_link(code)) " " (code.title()) }
}
