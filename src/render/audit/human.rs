//! For a person: widest exposure first, one line for each socket, findings beneath.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Color};

use super::{address, families, level, owners};
use crate::audit::change::Change;
use crate::audit::{BySocket, Finding, Report, Verdict};
use crate::diag::Severity;
use crate::escape::{escape, printable};
use crate::model::{Exposure, ListeningSocket};

/// How it is to look.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Colour with ANSI sequences.
    pub color: bool,
    /// Columns to wrap at.
    pub width: usize,
    /// Show the ways out and the evidence.
    pub verbose: bool,
}

impl Style {
    fn paint(self, style: anstyle::Style, text: &str) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

const BOLD: anstyle::Style = anstyle::Style::new().bold();

fn severity_style(severity: Severity) -> anstyle::Style {
    let color = match severity {
        Severity::Error => AnsiColor::Red,
        Severity::Warning => AnsiColor::Yellow,
        Severity::Note => AnsiColor::Cyan,
    };
    anstyle::Style::new().fg_color(Some(Color::Ansi(color)))
}

const GROUPS: [(Exposure, &str); 5] = [
    (Exposure::Global, "reachable from anywhere"),
    (Exposure::Private, "reachable from private networks"),
    (Exposure::Link, "reachable from the link"),
    (Exposure::Loopback, "reachable from this host only"),
    (Exposure::None, "reachable by nobody"),
];

/// The whole report.
#[must_use]
pub fn human(report: &Report, style: Style) -> String {
    let mut out = String::new();
    let findings = report.counting_by_socket();
    for (position, namespace) in report.namespaces.iter().enumerate() {
        if report.namespaces.len() > 1 {
            let name = namespace.name.as_deref().map_or_else(|| "this one".to_owned(), escape);
            let inode = namespace.inode.map_or_else(|| "unknown".to_owned(), |inode| inode.to_string());
            let gap = if position > 0 { "\n" } else { "" };
            let _ =
                writeln!(out, "{gap}{}", style.paint(BOLD, &format!("network namespace {inode}: {name}")));
        }
        // ObservationMerger a baseline only what counts is shown.
        let here: Vec<usize> = (0..report.sockets.len())
            .filter(|&place| report.sockets[place].netns == namespace.inode)
            .filter(|&place| report.baseline.is_none() || findings.any(place))
            .collect();
        if namespace.exposure_known {
            namespace_sockets(&mut out, report, &findings, &here, style);
        } else {
            for place in here {
                let socket = &report.sockets[place];
                let line = format!(
                    "  {:<5} {}  reach unknown  {}",
                    socket.view.protocol,
                    address(socket),
                    owners(socket)
                );
                wrapped(&mut out, &line, "", "        ", style.width);
            }
        }
    }
    if report.sockets.is_empty() {
        out.push_str(if report.unseen() {
            "what listens here is not known\n"
        } else {
            "nothing listens here\n"
        });
    }
    let of_host = || report.findings.iter().filter(|finding| finding.socket.is_none() && finding.counts());
    if of_host().next().is_some() && !out.is_empty() {
        out.push('\n');
    }
    for finding in of_host() {
        write_finding(&mut out, finding, "", style);
    }
    if let Some(baseline) = &report.baseline {
        let skipped = (0..report.sockets.len()).filter(|&place| !findings.any(place)).count();
        let gap = if out.is_empty() { "" } else { "\n" };
        let _ = writeln!(out, "{gap}{} in {}", counted(skipped, "socket"), escape(baseline));
    }
    checks(&mut out, report, style);
    let _ = writeln!(out, "\n{}", summary(report));
    if let Some(rehearsal) = &report.rehearsal {
        let tried = rehearsal.sockets.iter().filter(|one| one.observed.is_some()).count();
        let sources: Vec<String> = rehearsal.sources.iter().map(ToString::to_string).collect();
        let line = format!(
            "rehearsed in a copy of this network: {tried} of {}, {} from {}",
            counted(rehearsal.sockets.len(), "socket"),
            counted(rehearsal.connections, "connection"),
            sources.join(", ")
        );
        wrapped(&mut out, &line, "", "  ", style.width);
    }
    for because in &report.incomplete_because {
        wrapped(&mut out, &format!("not complete: {}", printable(because)), "", "  ", style.width);
    }
    out
}

fn namespace_sockets(
    out: &mut String,
    report: &Report,
    findings: &BySocket<'_>,
    places: &[usize],
    style: Style,
) {
    let column = |text: &dyn Fn(&ListeningSocket) -> String| {
        places.iter().map(|&place| text(&report.sockets[place]).chars().count()).max().unwrap_or(0)
    };
    let (address_width, family_width) = (column(&address).min(40), column(&families));
    let mut first = out.is_empty();
    for (exposure, title) in GROUPS {
        let group: Vec<usize> = places
            .iter()
            .copied()
            .filter(|&place| report.sockets[place].view.exposure.widest() == exposure)
            .collect();
        if group.is_empty() {
            continue;
        }
        let gap = if first { "" } else { "\n" };
        first = false;
        let _ = writeln!(out, "{gap}{}", style.paint(BOLD, &format!("{title} ({})", group.len())));
        for place in group {
            let socket = &report.sockets[place];
            let kind = if socket.mptcp { "mptcp".to_owned() } else { socket.view.protocol.to_string() };
            let line = format!(
                "  {kind:<5} {:<address_width$}  {:<family_width$}  {}",
                address(socket),
                families(socket),
                owners(socket)
            );
            wrapped(out, &line, "", "        ", style.width);
            for finding in findings.of(place) {
                write_finding(out, finding, "        ", style);
            }
        }
    }
}

fn write_finding(out: &mut String, finding: &Finding, indent: &str, style: Style) {
    let word = if finding.undecided { "undecided" } else { level(finding.severity) };
    let head = format!("{word}[{}]", finding.code);
    let mut text = String::new();
    wrapped(
        &mut text,
        &format!("{head} {}", printable(&finding.message)),
        indent,
        &format!("{indent}  "),
        style.width,
    );
    // Painted when the lines are made: the escape sequences take no columns.
    out.push_str(&text.replacen(&head, &style.paint(severity_style(finding.severity), &head), 1));
    if let Some(place) = &finding.location {
        let (line, column) = place.line_column();
        let _ = writeln!(out, "{indent}  --> {}:{line}:{column}", escape(&place.file));
    }
    if let (true, Some(help)) = (style.verbose, &finding.help) {
        wrapped(
            out,
            &format!("help: {}", printable(help)),
            &format!("{indent}  "),
            &format!("{indent}    "),
            style.width,
        );
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
        wrapped(
            out,
            &format!("{word} {}: {}", escape(&check.name), printable(&check.because)),
            "  ",
            "       ",
            style.width,
        );
    }
    if report.checks.is_empty() {
        let _ = writeln!(out, "  nothing was judged");
    } else if !style.verbose && report.checks.iter().all(|check| check.verdict == Verdict::Pass) {
        let _ = writeln!(out, "  pass: {} checks", report.checks.len());
    }
}

/// The counts, in one line.
fn summary(report: &Report) -> String {
    let summary = &report.summary;
    let by = &summary.by_exposure;
    let mut text = counted(summary.sockets, "socket");
    let parts: Vec<String> = [
        (by.global, "global"),
        (by.private, "private"),
        (by.link, "link"),
        (by.loopback, "loopback"),
        (by.none, "unreachable"),
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
        "; {}, {}, {}",
        counted(summary.errors, "error"),
        counted(summary.warnings, "warning"),
        counted(summary.notes, "note")
    );
    for (count, name) in [(summary.waived, "waived"), (summary.known, "in the baseline")] {
        if count > 0 {
            let _ = write!(text, ", {count} {name}");
        }
    }
    if report.policy.is_some() {
        let _ = write!(
            text,
            "; {} checked, {} failed, {} undecided",
            summary.checked, summary.failed, summary.undecided
        );
    }
    text
}

/// `1 note`, `2 notes`.
fn counted(count: usize, name: &str) -> String {
    if count == 1 { format!("1 {name}") } else { format!("{count} {name}s") }
}

/// One change, in one line.
#[must_use]
pub fn change(change: &Change, style: Style) -> String {
    let mut out = String::new();
    let (word, text) = match change {
        Change::SocketNew { socket, .. } => ("new", socket_line(socket)),
        Change::SocketGone { socket } => ("gone", socket_line(socket)),
        Change::SocketChanged { before, after } => {
            ("changed", format!("{}; was {}, {}", socket_line(after), families(before), owners(before)))
        }
        Change::FindingNew { finding } => (
            "finding",
            format!("{}[{}] {}", level(finding.severity), finding.code, printable(&finding.message)),
        ),
        Change::FindingGone { finding } => {
            ("resolved", format!("[{}] {}", finding.code, printable(&finding.message)))
        }
        Change::AddressNew { interface, address } => {
            ("address", format!("{} has {address} now", escape(interface)))
        }
        Change::AddressGone { interface, address } => {
            ("address", format!("{} has lost {address}", escape(interface)))
        }
        Change::InterfaceNew { interface } => ("interface", format!("{} is new", escape(interface))),
        Change::InterfaceGone { interface } => ("interface", format!("{} is gone", escape(interface))),
        Change::InterfaceChanged { interface, up } => {
            ("interface", format!("{} is {}", escape(interface), if *up { "up" } else { "down" }))
        }
    };
    wrapped(&mut out, &format!("{word:<9} {text}"), "", "          ", style.width);
    out.replacen(word, &style.paint(BOLD, word), 1)
}

fn socket_line(socket: &ListeningSocket) -> String {
    format!("{} {}, {}, {}", socket.view.protocol, address(socket), families(socket), owners(socket))
}

/// Writes `text` in lines of at most `width` columns where words allow it; blanks at the front of `text` are kept.
fn wrapped(out: &mut String, text: &str, indent: &str, further: &str, width: usize) {
    let mut line = String::from(indent);
    let body = text.trim_start_matches(' ');
    line.push_str(&text[..text.len() - body.len()]);
    let mut columns = line.chars().count();
    let mut begun = false;
    let mut gap = String::new();
    for word in body.split(' ') {
        let length = word.chars().count();
        if word.is_empty() {
            gap.push(' ');
            continue;
        }
        if begun {
            gap.push(' ');
            if columns + gap.len() + length > width {
                out.push_str(line.trim_end());
                out.push('\n');
                line = further.to_owned();
                columns = further.chars().count();
            } else {
                line.push_str(&gap);
                columns += gap.len();
            }
        }
        gap.clear();
        line.push_str(word);
        columns += length;
        begun = true;
    }
    out.push_str(line.trim_end());
    out.push('\n');
}
