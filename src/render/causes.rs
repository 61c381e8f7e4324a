//! What keeps clients out although a socket listens, in sections below the matrix: packet filters, and the path of the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::filter;
use super::ranges;
use super::style::{Paint, Tone};
use super::table::wrap;
use crate::escape::printable;
use crate::model::{Outcome, Protocol};
use crate::report::matrix::{CellReport, Report};

/// How many causes of one kind are shown without `-v`.
const MOST_CAUSES: usize = 12;
/// How many ports and runs of ports are named for one cause.
const MOST_RUNS: usize = 8;

/// Both sections; nothing where no client is kept out in these ways. `width` is in columns.
pub(super) fn write(out: &mut String, report: &Report, paint: &Paint, width: usize) {
    section(out, "PACKET FILTERS", report, filter::effect_on, paint, width);
    section(out, "RETURN PATH", report, lost_answer, paint, width);
}

/// The causes that `cause` finds, each once, with the clients and ports it concerns.
fn section(
    out: &mut String,
    heading: &str,
    report: &Report,
    cause: impl Fn(&CellReport) -> Option<String>,
    paint: &Paint,
    width: usize,
) {
    let mut causes: BTreeMap<String, BTreeMap<(String, Protocol), BTreeSet<u16>>> = BTreeMap::new();
    for cell in &report.cells {
        let Some(words) = cause(cell) else { continue };
        let clients = (printable(&cell.source.to_string()), cell.protocol);
        causes.entry(words).or_default().entry(clients).or_default().insert(cell.port);
    }
    if causes.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", paint.tone(Tone::Strong, heading));
    for (words, clients) in causes.iter().take(MOST_CAUSES) {
        let _ = writeln!(out, "{}", wrap(words, width, "  "));
        for ((source, protocol), ports) in clients {
            let ports: Vec<u16> = ports.iter().copied().collect();
            let named = if ports.len() > 1 { "ports" } else { "port" };
            let ports = ranges::ports(&ports, MOST_RUNS).join(", ");
            let line = format!("{source}: {protocol} {named} {ports}");
            let _ = writeln!(out, "  {}", wrap(&line, width - 2, "    "));
        }
    }
    if causes.len() > MOST_CAUSES {
        let _ = writeln!(out, "and {} more; -v shows every result", causes.len() - MOST_CAUSES);
    }
    out.push('\n');
}

/// Why the answer of the host does not arrive, with the rule or route that decides it; `None` for a client that is accepted, and where
/// the answer is not what decides.
fn lost_answer(cell: &CellReport) -> Option<String> {
    let path = cell.predicted.return_path.as_ref()?;
    let outcome = cell.observed.as_ref().map_or(cell.predicted.outcome, |seen| Some(seen.outcome));
    let as_predicted = cell.agrees != Some(false);
    (outcome != Some(Outcome::Accepted) && as_predicted)
        .then(|| format!("{}: {}", cell.predicted.why.title(), printable(&path.to_string())))
}
