//! Plans and probes for people and for machines.

pub(super) mod details;
mod formats;

use std::fmt::Write as _;

use super::filter;
use super::style::{Paint, Tone};
use super::table::{width as text_width, wrap as wrap_text};
use crate::escape::{escape, printable};
use crate::model::{Schema, Verdict};
use crate::plan::predict::BindOutcome;
use crate::report::matrix::{Report, SocketReport};
use details::{reach, row_of, sockets, source_of};
pub use formats::{csv, github, junit, markdown};

/// The report as text for a person, at most `width` columns wide: the verdict, one matrix, what disagrees, expectations and notes.
/// With `verbose`, then every result with its rule.
#[must_use]
pub fn human(report: &Report, targets: Option<&str>, color: bool, width: usize, verbose: bool) -> String {
    let paint = Paint::new(color);
    let width = width.max(40);
    let mut out = String::new();
    for sentence in verdict_lines(report) {
        let _ = writeln!(out, "{}", wrap_text(&sentence, width, "  "));
    }
    out.push('\n');
    failed_binds(&mut out, report, &paint, width);
    super::matrix::write(&mut out, report, &paint, width);
    disagreements(&mut out, report, &paint, width);
    super::causes::write(&mut out, report, &paint, width);
    expectations(&mut out, report, &paint, width);
    for reason in &report.incomplete_because {
        let _ = writeln!(out, "{}", wrap_text(&format!("Incomplete: {}", printable(reason)), width, "  "));
    }
    for note in &report.notes {
        let _ = writeln!(out, "{}", wrap_text(&format!("Note: {}", printable(note)), width, "  "));
    }
    if verbose {
        out.push_str("\nSOCKETS\n");
        sockets(&mut out, report, &paint);
        out.push_str("RESULTS (listener, ingress interface, rule; then the destinations)\n");
        reach(&mut out, report, &paint, width);
        let _ = writeln!(out, "{}", wrap_text(&summary_line(report), width, "  "));
    } else {
        let _ = writeln!(out, "{}", next_steps(report, targets, width));
    }
    out
}

/// The verdict in one or two sentences.
fn verdict_lines(report: &Report) -> Vec<String> {
    let summary = report.summary;
    let open = report.sockets.iter().filter(|socket| bind_outcome(socket) == BindOutcome::Ok).count();
    let uncertain =
        report.sockets.iter().filter(|socket| bind_outcome(socket) == BindOutcome::Uncertain).count();
    let all = report.sockets.len();
    let verb = if is_probe(report) { "opened" } else { "will open" };
    let mut first = match (open, all) {
        (_, 0) => String::new(),
        (1, 1) => format!("The socket {verb}. "),
        (open, all) if open == all => format!("All {all} sockets {verb}. "),
        (open, all) => format!("{open} of {all} sockets {verb}. "),
    };
    if uncertain > 0 {
        let _ = write!(first, "{uncertain} are uncertain. ");
    }
    let _ = write!(first, "{} of {} source-destination pairs are accepted", summary.accepted, summary.cells);
    if summary.unknown > 0 {
        let _ = write!(first, ", {} are not known", summary.unknown);
    }
    first.push('.');
    let mut lines = vec![first];
    if is_probe(report) {
        lines.push(match (summary.agree, summary.disagree) {
            (0, 0) => "Nothing was observed.".to_owned(),
            (agree, 0) => format!("Observed: {agree} as predicted, 0 not."),
            (agree, differ) => {
                format!("Observed: {agree} as predicted, {differ} NOT.")
            }
        });
        if summary.ingress_not_observed > 0 {
            lines.push(format!(
                "The interface of {} of {} arrivals was not observed.",
                summary.ingress_not_observed, summary.accepted
            ));
        }
    }
    if let Some(confirmed) = summary.confirmed {
        let contradicted = summary.contradicted.filter(|count| *count > 0);
        lines.push(match contradicted {
            Some(count) => format!(
                "Captured packets confirm {confirmed} of {} arrivals and CONTRADICT {count}.",
                summary.accepted
            ),
            None => format!("Captured packets confirm {confirmed} of {} arrivals.", summary.accepted),
        });
    }
    let failed = report.expectations.iter().filter(|one| one.verdict == Verdict::Fail).count();
    let undecided = report.expectations.iter().filter(|one| one.verdict == Verdict::Undecided).count();
    match (report.expectations.len(), failed, undecided) {
        (0, ..) => {}
        (1, 0, 0) => lines.push("The expectation holds.".to_owned()),
        (all, 0, 0) => lines.push(format!("All {all} expectations hold.")),
        (all, failed, undecided) => {
            let undecided = match undecided {
                0 => String::new(),
                1 => " and 1 is undecided".to_owned(),
                more => format!(" and {more} are undecided"),
            };
            lines.push(format!("Of {all} expectations, {failed} failed{undecided}."));
        }
    }
    lines
}

/// The outcome of a socket's bind: observed, else predicted.
fn bind_outcome(socket: &SocketReport) -> BindOutcome {
    socket.bind.observed.as_ref().map_or(socket.bind.predicted.outcome, |seen| seen.outcome)
}

/// Binds that fail or are uncertain, each with its cause and its fix.
fn failed_binds(out: &mut String, report: &Report, paint: &Paint, width: usize) {
    let mut any = false;
    for socket in &report.sockets {
        let (word, tone) = bind_word(socket);
        let differs =
            socket.bind.observed.as_ref().is_some_and(|seen| seen.outcome != socket.bind.predicted.outcome);
        if bind_outcome(socket) == BindOutcome::Ok && !differs {
            continue;
        }
        any = true;
        let name = escape(socket.socket.listener.as_deref().unwrap_or("-"));
        let _ = writeln!(out, "{}  {name}  {}", paint.tone(tone, &word), socket.socket);
        let predicted = &socket.bind.predicted;
        if let Some(message) = &predicted.message {
            let code = predicted.code.map(|code| format!("{code} ")).unwrap_or_default();
            let _ =
                writeln!(out, "  {}", wrap_text(&format!("{code}{}", printable(message)), width - 2, "    "));
        }
        if let Some(hint) = &predicted.hint {
            let _ = writeln!(out, "  {}", wrap_text(&format!("Fix: {}", printable(hint)), width - 2, "    "));
        }
    }
    if any {
        out.push('\n');
    }
}

/// Disagreements named before the rest is counted.
const MOST_DISAGREEMENTS: usize = 12;

/// Results that differ from the prediction, each on a line.
fn disagreements(out: &mut String, report: &Report, paint: &Paint, width: usize) {
    let mut differing = report.cells.iter().filter(|cell| {
        let contradicted = cell
            .observed
            .as_ref()
            .and_then(|seen| seen.packets.as_ref())
            .is_some_and(|seen| seen.confirms == Some(false));
        cell.agrees == Some(false) || contradicted
    });
    for cell in differing.by_ref().take(MOST_DISAGREEMENTS) {
        let row = row_of(cell);
        let filter = cell.observed.as_ref().and_then(|seen| filter::observed(seen));
        let target = if cell.destination.contains(':') {
            format!("[{}]:{}", cell.destination, cell.port)
        } else {
            format!("{}:{}", cell.destination, cell.port)
        };
        let text = format!(
            "differs  {} to {} {}: {} on {} ({})",
            source_of(cell),
            cell.protocol,
            printable(&target),
            row.result,
            row.ingress,
            filter.unwrap_or_else(|| cell.predicted.why.to_string())
        );
        let _ = writeln!(out, "{}", paint.tone(Tone::Bad, &wrap_text(&text, width, "         ")));
    }
    match differing.count() {
        0 => {}
        more => {
            let _ = writeln!(out, "and {more} more; -v shows every result");
        }
    }
}

/// What to type next, with the targets of this report.
fn next_steps(report: &Report, targets: Option<&str>, width: usize) -> String {
    const DETAILS: &str = "Details: -v";
    let (label, command) = match (&report.schema, targets) {
        (Schema::Lab, _) | (_, None) => return DETAILS.to_owned(),
        _ if is_probe(report) => ("From other hosts:", "bindscope lab run"),
        _ => ("Try it:", "bindscope probe"),
    };
    let next = match targets.unwrap_or_default() {
        "" => format!("{label} {command}"),
        targets => format!("{label} {command} {targets}"),
    };
    let (beside, below) = (format!("{DETAILS}      {next}"), format!("{DETAILS}\n{next}"));
    if text_width(&beside) <= width {
        beside
    } else if text_width(&next) <= width {
        below
    } else {
        format!("{DETAILS}\n{label} {command}, with the same targets")
    }
}

fn is_probe(report: &Report) -> bool {
    report.cells.iter().any(|cell| cell.observed.is_some())
        || report.sockets.iter().any(|socket| socket.bind.observed.is_some())
}

/// How a socket's bind went, or will go, in a word or two.
fn bind_word(socket: &SocketReport) -> (String, Tone) {
    let predicted = &socket.bind.predicted;
    let word = |outcome: BindOutcome, errno: Option<crate::model::Errno>| match (outcome, errno) {
        (BindOutcome::Ok, _) => "ok".to_owned(),
        (BindOutcome::Uncertain, _) => "uncertain".to_owned(),
        (BindOutcome::Error, Some(errno)) => errno.to_string(),
        (BindOutcome::Error, None) => "error".to_owned(),
    };
    let predicted_text = word(predicted.outcome, predicted.errno);
    match &socket.bind.observed {
        Some(seen) if word(seen.outcome, seen.errno) != predicted_text => {
            (format!("{}, predicted {predicted_text}", word(seen.outcome, seen.errno)), Tone::Bad)
        }
        Some(seen) if seen.outcome == BindOutcome::Ok => (predicted_text, Tone::Good),
        None if predicted.outcome == BindOutcome::Ok => (predicted_text, Tone::Good),
        _ => (predicted_text, Tone::Bad),
    }
}

/// Expectations that do not hold, or all of them where there are few.
fn expectations(out: &mut String, report: &Report, paint: &Paint, width: usize) {
    for expectation in &report.expectations {
        let tone = match expectation.verdict {
            Verdict::Pass => Tone::Good,
            Verdict::Fail => Tone::Bad,
            Verdict::Undecided => Tone::Faint,
        };
        let verdict = expectation.verdict.to_string();
        let text = format!(
            "{} {}: {}",
            escape(&expectation.listener),
            expectation.rule,
            printable(&expectation.because)
        );
        let indent = " ".repeat(verdict.len() + 2);
        let room = width.saturating_sub(indent.len());
        let text = wrap_text(&text, room, "").replace('\n', &format!("\n{indent}"));
        let _ = writeln!(out, "{}  {text}", paint.tone(tone, &verdict));
    }
    if !report.expectations.is_empty() {
        out.push('\n');
    }
}

/// The last line: what was looked at and what came of it.
#[must_use]
pub fn summary_line(report: &Report) -> String {
    let count =
        |wanted: fn(&SocketReport) -> bool| report.sockets.iter().filter(|socket| wanted(socket)).count();
    let ok = count(|socket| match &socket.bind.observed {
        Some(seen) => seen.outcome == BindOutcome::Ok,
        None => socket.bind.predicted.outcome == BindOutcome::Ok,
    });
    let summary = report.summary;
    let verb = if is_probe(report) { "open" } else { "will open" };
    let mut line = format!("{ok} of {} sockets {verb}", report.sockets.len());
    let uncertain = count(|socket| socket.bind.predicted.outcome == BindOutcome::Uncertain);
    if uncertain > 0 {
        let _ = write!(line, " ({uncertain} uncertain)");
    }
    let _ = write!(line, "; {} of {} source-destination pairs are accepted", summary.accepted, summary.cells);
    if is_probe(report) {
        let _ = write!(line, "; {} match the prediction, {} do not", summary.agree, summary.disagree);
        if summary.ingress_not_observed > 0 {
            let _ = write!(line, ", {} without an observed interface", summary.ingress_not_observed);
        }
    }
    if summary.unknown > 0 {
        let _ = write!(line, "; {} unknown", summary.unknown);
    }
    if let Some(confirmed) = summary.confirmed {
        let _ = write!(line, "; captured packets confirm {confirmed} of {} arrivals", summary.accepted);
        if let Some(contradicted) = summary.contradicted.filter(|count| *count > 0) {
            let _ = write!(line, " and CONTRADICT {contradicted}");
        }
    }
    if !report.expectations.is_empty() {
        let verdicts = |wanted| report.expectations.iter().filter(|e| e.verdict == wanted).count();
        let _ = write!(
            line,
            "; expectations: {} passed, {} failed, {} undecided",
            verdicts(Verdict::Pass),
            verdicts(Verdict::Fail),
            verdicts(Verdict::Undecided)
        );
    }
    line
}
