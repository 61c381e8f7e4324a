//! Audit report for people: a table of the sockets, widest exposure first, then one footnote for each finding, then
//! counts and what was not examined.

use std::fmt::Write as _;

use super::layout::{Style, wrapped, write_finding};
use super::notes::{Footnotes, subject_of};
use super::rows;
use crate::audit::{BySocket, Finding, Report, Verdict};
use crate::escape::{escape, printable};
use crate::model::{Exposure, filters};
use crate::render::style::BOLD;

/// The whole report.
#[must_use]
pub fn human(report: &Report, style: Style) -> String {
    let mut out = String::new();
    let findings = report.counting_by_socket();
    let order = shown(report, &findings);
    let notes = Footnotes::of(report, &findings, order.iter().flatten().copied(), style.verbose);
    for (namespace, here) in report.namespaces.iter().zip(&order) {
        if report.namespaces.len() > 1 {
            let name = namespace.name.as_deref().map_or_else(|| "this one".to_owned(), escape);
            let inode = namespace.inode.map_or_else(|| "unknown".to_owned(), |inode| inode.to_string());
            let gap = if out.is_empty() { "" } else { "\n" };
            let _ =
                writeln!(out, "{gap}{}", style.paint(BOLD, &format!("network namespace {inode}: {name}")));
        }
        let published: Vec<usize> = (0..report.published.len())
            .filter(|&place| report.published[place].netns == namespace.inode && report.baseline.is_none())
            .collect();
        rows::write(&mut out, report, here, &published, &notes, style);
    }
    if report.sockets.is_empty() {
        out.push_str(if report.unseen() {
            "What listens here is not known.\n"
        } else if report.summary.not_selected > 0 {
            "No socket matches the selection.\n"
        } else {
            "No socket listens here.\n"
        });
    }
    notes.write(&mut out, style);
    of_host(&mut out, report, style);
    if let Some(baseline) = &report.baseline {
        let skipped = (0..report.sockets.len()).filter(|&place| !findings.any(place)).count();
        let gap = if out.is_empty() { "" } else { "\n" };
        let _ = writeln!(out, "{gap}{} in {}", counted(skipped, "socket"), escape(baseline));
    }
    checks(&mut out, report, style);
    out.push('\n');
    for line in closing(report, style) {
        wrapped(&mut out, &line, "", "  ", style.width);
    }
    out
}

/// The positions of the sockets that are shown, for each namespace: widest exposure first. With a baseline only what counts is shown.
fn shown(report: &Report, findings: &BySocket<'_>) -> Vec<Vec<usize>> {
    let of = |inode| {
        let mut here: Vec<usize> = (0..report.sockets.len())
            .filter(|&place| report.sockets[place].netns == inode)
            .filter(|&place| report.baseline.is_none() || findings.any(place))
            .collect();
        here.sort_by_key(|&place| std::cmp::Reverse(report.sockets[place].view.exposure.widest()));
        here
    };
    report.namespaces.iter().map(|namespace| of(namespace.inode)).collect()
}

/// Findings that are about no socket.
fn of_host(out: &mut String, report: &Report, style: Style) {
    // Those about published ports are footnotes of the table, which a comparison with a baseline does not show.
    let in_table = |finding: &Finding| finding.published.is_some() && report.baseline.is_none();
    let of_host = || {
        let all = report.findings.iter().filter(|finding| finding.socket.is_none() && finding.counts());
        all.filter(move |finding| !in_table(finding))
    };
    if of_host().next().is_some() && !out.is_empty() {
        out.push('\n');
    }
    for finding in of_host() {
        write_finding(out, finding, &printable(&finding.message), "", "  ", style);
    }
}

fn checks(out: &mut String, report: &Report, style: Style) {
    let Some(policy) = &report.policy else { return };
    let _ = writeln!(out, "\n{}", style.paint(BOLD, &format!("policy {}", escape(policy))));
    for check in report.checks.iter().filter(|check| style.verbose || check.verdict != Verdict::Pass) {
        let word = match check.verdict {
            Verdict::Pass => "pass",
            Verdict::Fail => "FAIL",
            Verdict::Undecided => "?   ",
        };
        // Without -v the footnotes have the reasons.
        let because = if style.verbose { format!(": {}", printable(&check.because)) } else { String::new() };
        wrapped(out, &format!("{word} {}{because}", escape(&check.name)), "  ", "       ", style.width);
    }
    if report.checks.is_empty() {
        let _ = writeln!(out, "  nothing was judged");
    } else if !style.verbose && report.checks.iter().all(|check| check.verdict == Verdict::Pass) {
        let _ = writeln!(out, "  pass: {} checks", report.checks.len());
    }
    if style.verbose {
        for skipped in &report.skipped {
            let line = format!("left out {}: {}", subject_of(&skipped.socket), skipped.because);
            wrapped(out, &line, "  ", "       ", style.width);
        }
    }
}

/// The last lines: counts, what was left out, not examined or incomplete, and the next command.
fn closing(report: &Report, style: Style) -> Vec<String> {
    let mut lines = vec![summary(report)];
    if report.summary.skipped > 0 && !style.verbose {
        lines.push(format!(
            "Left out: {} (-v lists them).",
            counted(report.summary.skipped, "UDP socket of a client")
                .replace("socket of a clients", "sockets of clients")
        ));
    }
    if report.summary.not_selected > 0 {
        lines.push(format!(
            "Not shown: {} that the selection leaves out.",
            counted(report.summary.not_selected, "socket")
        ));
    }
    if let Some(rehearsal) = &report.rehearsal {
        let tried = rehearsal.sockets.iter().filter(|one| one.observed.is_some()).count();
        let sources: Vec<String> = rehearsal.sources.iter().map(ToString::to_string).collect();
        lines.push(format!(
            "Tried in a copy of this network: {tried} of {}, {} from {}.",
            counted(rehearsal.sockets.len(), "socket"),
            counted(rehearsal.connections, "connection"),
            sources.join(", ")
        ));
    }
    lines.extend(filters_line(report));
    lines.extend(not_examined(report, style));
    lines.extend(
        report.incomplete_because.iter().map(|because| format!("not complete: {}", printable(because))),
    );
    lines.extend(next(report));
    lines
}

/// What is known of packet filters, in one line.
fn filters_line(report: &Report) -> Option<String> {
    if let Some(because) = &report.exposure_filtered_because {
        return Some(format!("What packet filters leave is not known: {}.", printable(because)));
    }
    let mut tables: Vec<&str> =
        report.filters.iter().flat_map(|filters| &filters.tables).map(String::as_str).collect();
    tables.sort_unstable();
    tables.dedup();
    let filtered = report.summary.filtered;
    (!tables.is_empty()).then(|| {
        format!(
            "Packet filters: {} filtered ({}).",
            counted(filtered, "socket"),
            printable(&tables.join(", "))
        )
    })
}

/// What was found but not evaluated, in one line, with the list if requested.
fn not_examined(report: &Report, style: Style) -> Vec<String> {
    let seen = &report.not_examined;
    // What was read and evaluated is named elsewhere.
    let evaluated = report.exposure_filtered_because.is_none();
    let mut parts: Vec<String> =
        report.filters.iter().filter(|_| !evaluated).filter_map(filters::seen).collect();
    parts.dedup();
    let hidden = !seen.sockets.is_empty() && !style.all_protocols;
    let counts = seen.counts();
    let last = counts.len();
    parts.extend(counts.into_iter().enumerate().map(|(place, count)| {
        if hidden && place + 1 == last { format!("{count} (--all-protocols)") } else { count }
    }));
    let mut kinds: Vec<&str> = seen.programs.iter().map(|program| program.attach.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    parts.extend(seen.program_count().map(|count| format!("{count} ({})", escape(&kinds.join(", ")))));
    let mut lines = Vec::new();
    if !parts.is_empty() {
        lines.push(format!("Not examined: {}.", parts.join(", ")));
    }
    if style.all_protocols {
        lines.extend(seen.sockets.iter().map(|socket| {
            let local =
                socket.local.as_deref().map_or_else(String::new, |local| format!("  {}", escape(local)));
            let holders = match socket.owners.as_deref() {
                None => "owner unknown".to_owned(),
                Some([]) => "no process".to_owned(),
                Some(owners) => owners.iter().map(super::owner).collect::<Vec<_>>().join(", "),
            };
            format!("  {}{local}  {holders}", socket.kind)
        }));
        lines.extend(seen.programs.iter().map(|program| {
            format!("  program {}  {}  {}", program.id, escape(&program.attach), escape(&program.cgroup))
        }));
    }
    if style.verbose || style.all_protocols {
        lines
            .extend(seen.unknown_because.iter().map(|because| format!("Not known: {}.", printable(because))));
    }
    lines
}

/// The next command: about the worst finding, and how to write a first policy.
fn next(report: &Report) -> Option<String> {
    let worst = report.findings.iter().filter(|finding| finding.counts());
    let worst = worst.min_by_key(|finding| (finding.severity, finding.code));
    let mut commands: Vec<String> =
        worst.map(|finding| format!("bindscope explain {}", finding.code)).into_iter().collect();
    if report.policy.is_none() && report.baseline.is_none() && !report.sockets.is_empty() {
        commands.push("bindscope audit --write-policy policy.toml".to_owned());
    }
    (!commands.is_empty()).then(|| format!("Next: {}", commands.join("; ")))
}

/// The counts, in one line.
fn summary(report: &Report) -> String {
    let summary = &report.summary;
    let by = &summary.by_exposure;
    let mut text = counted(summary.sockets, "socket");
    if !report.published.is_empty() {
        let _ = write!(text, " and {}", counted(report.published.len(), "published port"));
    }
    let parts: Vec<String> = [
        (by.global, Exposure::Global.words()),
        (by.private, Exposure::Private.words()),
        (by.link, Exposure::Link.words()),
        (by.loopback, Exposure::Loopback.words()),
        (by.none, Exposure::None.words()),
        (by.unknown, "unknown"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, name)| format!("{count} {name}"))
    .collect();
    if !parts.is_empty() {
        let _ = write!(text, ": {}", parts.join(", "));
    }
    let _ = write!(
        text,
        ". {}, {}, {}",
        counted(summary.errors, "error"),
        counted(summary.warnings, "warning"),
        counted(summary.notes, "note")
    );
    for (count, name) in [(summary.waived, "waived"), (summary.known, "in the baseline")] {
        if count > 0 {
            let _ = write!(text, ", {count} {name}");
        }
    }
    text.push('.');
    if report.policy.is_some() {
        let _ = write!(
            text,
            " {} checked, {} failed, {} undecided.",
            summary.checked, summary.failed, summary.undecided
        );
    }
    text
}

/// `1 note`, `2 notes`.
fn counted(count: usize, name: &str) -> String {
    if count == 1 { format!("1 {name}") } else { format!("{count} {name}s") }
}
