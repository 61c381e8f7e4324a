//! Plans and probes as CSV, Markdown, JUnit and workflow commands of GitHub Actions.

use std::fmt::Write as _;

use super::details::{exposure_text, row_of, source_of};
use super::{bind_word, is_probe, summary_line};
use crate::escape::{csv_escaped, escape, printable};
use crate::model::{Schema, Verdict};
use crate::plan::predict::BindOutcome;
use crate::render::junit::{Case, Outcome, Suite, document};
use crate::render::workflow;
use crate::report::matrix::{CellReport, Report};

/// The columns of a cell in CSV and Markdown.
const COLUMNS: [&str; 16] = [
    "source",
    "protocol",
    "destination",
    "port",
    "predicted",
    "predicted_listener",
    "predicted_ingress",
    "why",
    "observed",
    "observed_listener",
    "observed_ingress",
    "errno",
    "connect_us",
    "agrees",
    "source_address",
    "packets_confirm",
];

fn fields(cell: &CellReport) -> [String; 16] {
    let predicted = &cell.predicted;
    let text = |value: Option<String>| value.unwrap_or_default();
    let seen = cell.observed.as_ref();
    let packets = seen.and_then(|seen| seen.packets.as_ref());
    [
        cell.source.to_string(),
        cell.protocol.to_string(),
        cell.destination.to_string(),
        cell.port.to_string(),
        predicted.outcome.map_or_else(|| "unknown".to_owned(), |outcome| outcome.to_string()),
        predicted.listener.as_deref().map_or_else(|| predicted.candidates.join(" "), escape),
        text(predicted.ingress.as_ref().map(ToString::to_string)),
        predicted.why.to_string(),
        text(seen.map(|seen| seen.outcome.to_string())),
        text(seen.and_then(|seen| seen.listener.as_deref()).map(escape)),
        text(seen.and_then(|seen| seen.ingress.as_ref()).map(ToString::to_string)),
        text(seen.and_then(|seen| seen.errno).map(|errno| errno.to_string())),
        text(seen.map(|seen| seen.connect_us.to_string())),
        text(cell.agrees.map(|agrees| agrees.to_string())),
        text(cell.source_address.clone()),
        text(packets.and_then(|packets| packets.confirms).map(|confirms| confirms.to_string())),
    ]
}

/// One line for each cell (RFC 4180).
#[must_use]
pub fn csv(report: &Report) -> String {
    let mut out = COLUMNS.join(",") + "\r\n";
    for cell in &report.cells {
        let fields: Vec<String> = fields(cell).iter().map(|field| csv_escaped(printable(field))).collect();
        out.push_str(&fields.join(","));
        out.push_str("\r\n");
    }
    out
}

/// Text in a cell of a Markdown table; its names are escaped.
fn markdown_cell(text: &str) -> String {
    crate::render::markdown::cell(&printable(text))
}

/// A document for a pull request or a ticket.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let mut out = format!(
        "# {} of {}\n\n",
        match report.schema {
            Schema::Lab => "Lab run",
            _ if is_probe(report) => "Probe",
            _ => "Plan",
        },
        markdown_cell(&escape(&report.profile))
    );
    out.push_str("| listener | socket | bind | reachable |\n|---|---|---|---|\n");
    for socket in &report.sockets {
        let name = socket.socket.listener.as_deref().unwrap_or("-");
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} |",
            markdown_cell(&escape(name)),
            markdown_cell(&socket.socket.to_string()),
            markdown_cell(&bind_word(socket).0),
            exposure_text(socket)
        );
    }
    out.push_str("\n| source | port | destination | result | ingress | why |\n|---|---|---|---|---|---|\n");
    for cell in &report.cells {
        let row = row_of(cell);
        let _ = writeln!(
            out,
            "| {} | {} {} | {} | {} | {} | {} |",
            markdown_cell(&source_of(cell)),
            cell.protocol,
            cell.port,
            markdown_cell(&cell.destination),
            markdown_cell(&row.result),
            markdown_cell(&row.ingress),
            markdown_cell(&row.why)
        );
    }
    if !report.expectations.is_empty() {
        out.push_str("\n| expectation | rule | verdict | because |\n|---|---|---|---|\n");
        for expectation in &report.expectations {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} |",
                markdown_cell(&escape(&expectation.listener)),
                markdown_cell(&expectation.rule),
                expectation.verdict,
                markdown_cell(&expectation.because)
            );
        }
    }
    let _ = writeln!(out, "\n{}", markdown_cell(&summary_line(report)));
    out
}

/// What is wrong with a cell: not as predicted, or not as reported.
fn failure_of(cell: &CellReport) -> Option<String> {
    let packets = cell.observed.as_ref().and_then(|seen| seen.packets.as_ref());
    let elsewhere = packets.is_some_and(|packets| packets.confirms == Some(false));
    (elsewhere || cell.agrees == Some(false)).then(|| {
        let row = row_of(cell);
        if elsewhere { format!("{} on {}", row.result, row.ingress) } else { row.result }
    })
}

/// What a test runner shows: one case for each bind, cell and expectation that was judged.
fn cases(report: &Report) -> Vec<Case<'static>> {
    let outcome = |failure: Option<String>, skipped: Option<String>| match (failure, skipped) {
        (Some(failure), _) => Outcome::Failure("differs".to_owned(), failure),
        (None, Some(reason)) => Outcome::Skipped(reason),
        (None, None) => Outcome::Pass,
    };
    let unpredicted = || "could not be predicted".to_owned();
    let mut cases = Vec::new();
    for socket in &report.sockets {
        let Some(seen) = &socket.bind.observed else { continue };
        let predicted = &socket.bind.predicted;
        let same = (seen.outcome, seen.errno) == (predicted.outcome, predicted.errno);
        let differs = predicted.outcome != BindOutcome::Uncertain && !same;
        let uncertain = predicted.outcome == BindOutcome::Uncertain;
        cases.push(Case {
            class: "bindscope.bind",
            name: socket.socket.to_string(),
            outcome: outcome(differs.then(|| bind_word(socket).0), uncertain.then(unpredicted)),
        });
    }
    for cell in report.cells.iter().filter(|cell| cell.observed.is_some()) {
        cases.push(Case {
            class: "bindscope.reach",
            name: format!("{} to {} {} port {}", cell.source, cell.protocol, cell.destination, cell.port),
            outcome: outcome(failure_of(cell), cell.agrees.is_none().then(unpredicted)),
        });
    }
    for expectation in &report.expectations {
        let because = || expectation.because.clone();
        let failure = (expectation.verdict == Verdict::Fail).then(because);
        cases.push(Case {
            class: "bindscope.expect",
            name: format!("{} {}", escape(&expectation.listener), expectation.rule),
            outcome: outcome(failure, (expectation.verdict == Verdict::Undecided).then(because)),
        });
    }
    cases
}

/// JUnit XML, as CI servers read it.
#[must_use]
pub fn junit(report: &Report) -> String {
    let name = format!("bindscope {}", report.profile);
    document(&Suite { name: &name, cases: cases(report), messages: Vec::new() })
}

/// Workflow commands of GitHub Actions: one for each failure and each undecided expectation.
#[must_use]
pub fn github(report: &Report) -> String {
    let data = |text: &str| workflow::data(&printable(text));
    let property = |text: &str| workflow::property(&printable(text));
    let mut out = String::new();
    for case in cases(report) {
        let title =
            property(&format!("bindscope {}: {}", case.class.trim_start_matches("bindscope."), case.name));
        if let Outcome::Failure(_, failure) = &case.outcome {
            let _ = writeln!(out, "::error title={title}::{}", data(failure));
        } else if let (Outcome::Skipped(reason), "bindscope.expect") = (&case.outcome, case.class) {
            let _ = writeln!(out, "::warning title={title}::{}", data(reason));
        }
    }
    let _ = writeln!(out, "::notice title=bindscope::{}", data(&summary_line(report)));
    out
}
