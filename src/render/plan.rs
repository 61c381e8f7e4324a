//! Plans and probes for people and for machines.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::escape::{csv_escaped, escape, escape_html, html_entities, printable};
use crate::model::{Errno, Exposure, IfName, Outcome, PacketsSeen, Protocol};
use crate::plan::predict::BindOutcome;
use crate::report::expectations::Verdict;
use crate::report::matrix::{CellReport, LAB_SCHEMA, PredictedCell, Report, SocketReport};

use super::ranges;
use super::style::{Paint, Tone};

/// How many ports and runs of ports are named above a table.
const MOST_RUNS: usize = 40;

/// The report as text for a person, at most `width` columns wide where that can be.
#[must_use]
pub fn human(report: &Report, color: bool, width: usize) -> String {
    let paint = Paint::new(color);
    let mut out = String::new();
    let what = match report.schema.as_str() {
        LAB_SCHEMA => "lab run",
        _ if is_probe(report) => "probe",
        _ => "plan",
    };
    let host = report.host.name.as_deref().map_or_else(|| "this host".to_owned(), escape);
    let _ = writeln!(out, "{} of {} on {host}", what, escape(&report.profile));
    out.push('\n');
    sockets(&mut out, report, &paint);
    reach(&mut out, report, &paint, width.max(40));
    expectations(&mut out, report, &paint);
    for reason in &report.incomplete_because {
        let _ = writeln!(out, "incomplete: {}", printable(reason));
    }
    for note in &report.notes {
        let _ = writeln!(out, "note: {}", printable(note));
    }
    let _ = writeln!(out, "{}", summary_line(report));
    out
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
    let foretold = word(predicted.outcome, predicted.errno);
    match &socket.bind.observed {
        Some(seen) if word(seen.outcome, seen.errno) != foretold => {
            (format!("{}, foretold {foretold}", word(seen.outcome, seen.errno)), Tone::Bad)
        }
        Some(seen) if seen.outcome == BindOutcome::Ok => (foretold, Tone::Good),
        None if predicted.outcome == BindOutcome::Ok => (foretold, Tone::Good),
        _ => (foretold, Tone::Bad),
    }
}

fn exposure_text(socket: &SocketReport) -> String {
    let exposure = socket.socket.exposure;
    let parts: Vec<String> = [("IPv4", exposure.ipv4), ("IPv6", exposure.ipv6)]
        .into_iter()
        .filter(|(_, exposure)| *exposure != Exposure::None)
        .map(|(family, exposure)| format!("{family} {exposure}"))
        .collect();
    if parts.is_empty() { "nobody".to_owned() } else { parts.join(", ") }
}

fn sockets(out: &mut String, report: &Report, paint: &Paint) {
    if report.sockets.is_empty() {
        return;
    }
    let name = |socket: &SocketReport| escape(socket.socket.listener.as_deref().unwrap_or("-"));
    let names = report.sockets.iter().map(|socket| name(socket).chars().count()).max().unwrap_or(0);
    let views: Vec<String> = report.sockets.iter().map(|socket| socket.socket.to_string()).collect();
    let widest = views.iter().map(|view| view.chars().count()).max().unwrap_or(0);
    for (socket, view) in report.sockets.iter().zip(&views) {
        let (word, tone) = bind_word(socket);
        let _ = write!(out, "{:<names$}  {view:<widest$}  {}", name(socket), paint.tone(tone, &word));
        let predicted = &socket.bind.predicted;
        if predicted.outcome == BindOutcome::Ok {
            let _ = writeln!(out, "  reachable: {}", exposure_text(socket));
        } else {
            let _ = writeln!(out);
        }
        let indent = " ".repeat(names + 2);
        if let Some(message) = &predicted.message {
            let code = predicted.code.map(|code| format!("{code} ")).unwrap_or_default();
            let _ = writeln!(out, "{indent}{}{}", paint.tone(Tone::Faint, &code), printable(message));
        }
        if let Some(hint) = &predicted.hint {
            let _ = writeln!(out, "{indent}help: {}", printable(hint));
        }
    }
    out.push('\n');
}

/// What one row of the reach table says; cells that agree in all of it share a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    result: String,
    tone: Tone,
    ingress: String,
    why: String,
}

fn result_of(outcome: Option<Outcome>, listener: Option<&str>, candidates: &[String]) -> String {
    match (outcome, listener) {
        (Some(Outcome::Accepted), Some(listener)) => escape(listener),
        (Some(Outcome::Accepted), None) if candidates.is_empty() => "another program".to_owned(),
        (Some(Outcome::Accepted), None) => {
            candidates.iter().map(|name| printable(name)).collect::<Vec<_>>().join(" or ")
        }
        (Some(outcome), _) => format!("({outcome})"),
        (None, _) => "(unknown)".to_owned(),
    }
}

fn row_of(cell: &CellReport) -> Row {
    let predicted = &cell.predicted;
    let foretold = result_of(predicted.outcome, predicted.listener.as_deref(), &predicted.candidates);
    let (result, tone, ingress) = match &cell.observed {
        None => {
            let tone = if predicted.outcome == Some(Outcome::Accepted) { Tone::Good } else { Tone::Faint };
            (foretold, tone, predicted.ingress.clone())
        }
        Some(seen) => {
            let result = result_of(Some(seen.outcome), seen.listener.as_deref(), &predicted.candidates);
            let errno = seen
                .errno
                .filter(|_| seen.outcome == Outcome::Error)
                .map(|errno| format!(" {errno}"))
                .unwrap_or_default();
            if cell.agrees == Some(false) {
                let over = predicted.ingress.as_ref().map(|name| format!(" over {name}")).unwrap_or_default();
                (format!("{result}{errno} FORETOLD {foretold}{over}"), Tone::Bad, seen.ingress.clone())
            } else {
                let tone = if seen.outcome == Outcome::Accepted { Tone::Good } else { Tone::Faint };
                (format!("{result}{errno}"), tone, seen.ingress.clone())
            }
        }
    };
    let mut ingress = match (ingress, &cell.observed) {
        (Some(name), _) => name.to_string(),
        // Only the server itself can ask where a connection came in.
        (None, Some(seen)) if seen.outcome == Outcome::Accepted => match &predicted.ingress {
            Some(name) => format!("not observable, foretold {name}"),
            None => "not observable".to_owned(),
        },
        (None, _) => "-".to_owned(),
    };
    let mut tone = tone;
    if let Some(packets) = cell.observed.as_ref().and_then(|seen| seen.packets.as_ref()) {
        ingress.push_str(&on_other_wires(packets));
        if packets.confirms == Some(false) {
            tone = Tone::Bad;
        }
    }
    Row { result, tone, ingress, why: format!("{} {}", predicted.why, predicted.why.title()) }
}

/// What a capture of the packets adds to the reported interface; nothing where they agree.
fn on_other_wires(packets: &PacketsSeen) -> String {
    // Behind the port of a bridge comes the bridge, which is the one that counts.
    let kinds = [("SYN", packets.syn.last()), ("ACK", packets.ack.last()), ("data", packets.data.last())];
    let seen: Vec<_> = kinds.into_iter().filter_map(|(kind, name)| Some((kind, name?))).collect();
    let one = seen.iter().all(|(_, name)| seen.first().is_some_and(|first| first.1 == *name));
    let list = || {
        let each: Vec<String> = seen.iter().map(|(kind, name)| format!("{kind} {name}")).collect();
        each.join(", ")
    };
    match packets.confirms {
        Some(false) => format!(" BUT SEEN: {}", list()),
        _ if !one => format!(" ({})", list()),
        _ if packets.via_lo => " via lo".to_owned(),
        _ => String::new(),
    }
}

/// Who connects, and as whom.
fn source_of(cell: &CellReport) -> String {
    match &cell.source_address {
        Some(address) => format!("{} as {}", cell.source, printable(address)),
        None => cell.source.to_string(),
    }
}

/// Outcome, listener, ingress interface and error of a cell.
type Seen<'a> = (Outcome, Option<&'a str>, Option<&'a IfName>, Option<Errno>);

/// Whatever of a cell makes another row: all that [`row_of`] looks at, so that a row is written once for many cells.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Likeness<'a> {
    /// Compared by its place first, which cells share.
    predicted: &'a Arc<PredictedCell>,
    observed: Option<Seen<'a>>,
    packets: Option<&'a PacketsSeen>,
    agrees: Option<bool>,
}

fn likeness(cell: &CellReport) -> Likeness<'_> {
    Likeness {
        predicted: &cell.predicted,
        observed: cell
            .observed
            .as_ref()
            .map(|seen| (seen.outcome, seen.listener.as_deref(), seen.ingress.as_ref(), seen.errno)),
        packets: cell.observed.as_ref().and_then(|seen| seen.packets.as_ref()),
        agrees: cell.agrees,
    }
}

/// Numbers for what comes again and again, often the same many times in a row.
struct Numbered<K, V> {
    numbers: HashMap<K, u32>,
    last: Option<(K, u32)>,
    values: Vec<V>,
}

impl<K: std::hash::Hash + Eq + Copy, V> Numbered<K, V> {
    fn new() -> Numbered<K, V> {
        Numbered { numbers: HashMap::new(), last: None, values: Vec::new() }
    }

    fn of(&self, number: u32) -> Option<&V> {
        self.values.get(usize::try_from(number).ok()?)
    }

    fn number(&mut self, key: K, value: impl FnOnce() -> V) -> u32 {
        if let Some((_, number)) = self.last.filter(|(last, _)| *last == key) {
            return number;
        }
        let number = *self.numbers.entry(key).or_insert_with(|| {
            self.values.push(value());
            u32::try_from(self.values.len() - 1).unwrap_or(u32::MAX)
        });
        self.last = Some((key, number));
        number
    }
}

fn reach(out: &mut String, report: &Report, paint: &Paint, width: usize) {
    let (mut sources, mut rows, mut destinations) = (Numbered::new(), Numbered::new(), Numbered::new());
    // Service, and by number: source, row, destination.
    let mut lines: Vec<((Protocol, u16), [u32; 3])> = Vec::with_capacity(report.cells.len());
    for cell in &report.cells {
        let source = sources.number((&cell.source, cell.source_address.as_deref()), || source_of(cell));
        let row = rows.number(likeness(cell), || row_of(cell));
        let destination = destinations.number(&*cell.destination, || printable(&cell.destination));
        lines.push(((cell.protocol, cell.port), [source, row, destination]));
    }
    lines.sort_unstable();
    let (services, lines): (Vec<(Protocol, u16)>, Vec<[u32; 3]>) = lines.into_iter().unzip();
    // Ports of which the same is to be said share a table, in the place of the first.
    let mut tables: Numbered<(Protocol, &[[u32; 3]]), Vec<u16>> = Numbered::new();
    let mut order: Vec<(Protocol, &[[u32; 3]])> = Vec::new();
    let mut at = 0;
    for services in services.chunk_by(|a, b| a == b) {
        let (Some(&(protocol, port)), Some(table)) = (services.first(), lines.get(at..at + services.len()))
        else {
            continue;
        };
        at += services.len();
        let number = tables.number((protocol, table), || {
            order.push((protocol, table));
            Vec::new()
        });
        if let Some(ports) = tables.values.get_mut(number as usize) {
            ports.push(port);
        }
    }
    // A lab looks from everywhere.
    let from_here = is_probe(report) && report.schema != LAB_SCHEMA;
    for ((protocol, table), ports) in order.into_iter().zip(&tables.values) {
        let widest = |part: fn(&Row) -> &str| {
            let all = table.iter().filter_map(|&[_, row, _]| rows.of(row));
            all.map(|row| part(row).chars().count()).max().unwrap_or(0)
        };
        let (results, ingresses) = (widest(|row| &row.result), widest(|row| &row.ingress));
        let named = if ports.len() > 1 { "ports" } else { "port" };
        let ports = ranges::ports(ports, MOST_RUNS).join(", ");
        let _ = writeln!(out, "{}", paint.tone(Tone::Strong, &format!("{protocol} {named} {ports}")));
        for of_source in table.chunk_by(|a, b| a[0] == b[0]) {
            let Some(source) = sources.of(of_source[0][0]) else { continue };
            let from = match source.as_str() {
                "host" => "from this host".to_owned(),
                _ if source.starts_with("host as ") => source.replacen("host", "from this host", 1),
                _ if from_here => format!("from {source}, foretold only"),
                _ => format!("from {source}"),
            };
            let _ = writeln!(out, "  {from}");
            for of_row in of_source.chunk_by(|a, b| a[1] == b[1]) {
                let Some(row) = rows.of(of_row[0][1]) else { continue };
                let padding = " ".repeat(results.saturating_sub(row.result.chars().count()));
                let _ = writeln!(
                    out,
                    "    {}{padding}  {:<ingresses$}  {}",
                    paint.tone(row.tone, &row.result),
                    row.ingress,
                    paint.tone(Tone::Faint, &row.why),
                );
                let names: Vec<&str> =
                    of_row.iter().filter_map(|&[.., to]| destinations.of(to)).map(String::as_str).collect();
                wrap(out, &ranges::addresses(&names), width);
            }
        }
        out.push('\n');
    }
}

/// Destinations in as few lines as fit.
fn wrap(out: &mut String, words: &[String], width: usize) {
    const INDENT: &str = "        ";
    let mut line = String::from(INDENT);
    for (index, word) in words.iter().enumerate() {
        let comma = if index + 1 < words.len() { "," } else { "" };
        if line.len() > INDENT.len() && line.chars().count() + word.chars().count() + 2 > width {
            let _ = writeln!(out, "{}", line.trim_end());
            line = String::from(INDENT);
        }
        let _ = write!(line, "{word}{comma} ");
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

fn expectations(out: &mut String, report: &Report, paint: &Paint) {
    for expectation in &report.expectations {
        let tone = match expectation.verdict {
            Verdict::Pass => Tone::Good,
            Verdict::Fail => Tone::Bad,
            Verdict::Undecided => Tone::Faint,
        };
        let _ = writeln!(
            out,
            "{}  {} {}: {}",
            paint.tone(tone, &expectation.verdict.to_string()),
            escape(&expectation.listener),
            expectation.rule,
            printable(&expectation.because)
        );
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
    let _ = write!(line, "; {} of {} cells reach a listener", summary.accepted, summary.cells);
    if is_probe(report) {
        let _ = write!(line, "; {} as foretold, {} not", summary.agree, summary.disagree);
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
    super::markdown::cell(&printable(text))
}

/// A document for a pull request or a ticket.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let mut out = format!(
        "# {} of {}\n\n",
        match report.schema.as_str() {
            LAB_SCHEMA => "Lab run",
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

/// What a test runner shows: one case for each bind, cell and expectation that was judged. Names are escaped.
struct Case {
    class: &'static str,
    name: String,
    /// The failure, or why it was skipped.
    failure: Option<String>,
    skipped: Option<String>,
}

/// What is wrong with a cell: not as foretold, or not as reported.
fn failure_of(cell: &CellReport) -> Option<String> {
    let packets = cell.observed.as_ref().and_then(|seen| seen.packets.as_ref());
    let elsewhere = packets.is_some_and(|packets| packets.confirms == Some(false));
    (elsewhere || cell.agrees == Some(false)).then(|| {
        let row = row_of(cell);
        if elsewhere { format!("{} on {}", row.result, row.ingress) } else { row.result }
    })
}

fn cases(report: &Report) -> Vec<Case> {
    let mut cases = Vec::new();
    for socket in &report.sockets {
        let Some(seen) = &socket.bind.observed else { continue };
        let predicted = &socket.bind.predicted;
        let same = (seen.outcome, seen.errno) == (predicted.outcome, predicted.errno);
        let differs = predicted.outcome != BindOutcome::Uncertain && !same;
        cases.push(Case {
            class: "bind",
            name: socket.socket.to_string(),
            failure: differs.then(|| bind_word(socket).0),
            skipped: (predicted.outcome == BindOutcome::Uncertain)
                .then(|| "could not be foretold".to_owned()),
        });
    }
    for cell in report.cells.iter().filter(|cell| cell.observed.is_some()) {
        cases.push(Case {
            class: "reach",
            name: format!("{} to {} {} port {}", cell.source, cell.protocol, cell.destination, cell.port),
            failure: failure_of(cell),
            skipped: cell.agrees.is_none().then(|| "could not be foretold".to_owned()),
        });
    }
    for expectation in &report.expectations {
        cases.push(Case {
            class: "expect",
            name: format!("{} {}", escape(&expectation.listener), expectation.rule),
            failure: (expectation.verdict == Verdict::Fail).then(|| expectation.because.clone()),
            skipped: (expectation.verdict == Verdict::Undecided).then(|| expectation.because.clone()),
        });
    }
    cases
}

/// JUnit XML, as CI servers read it.
#[must_use]
pub fn junit(report: &Report) -> String {
    let cases = cases(report);
    let failures = cases.iter().filter(|case| case.failure.is_some()).count();
    let skipped = cases.iter().filter(|case| case.skipped.is_some()).count();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        out,
        "<testsuite name=\"bindscope {}\" tests=\"{}\" failures=\"{failures}\" skipped=\"{skipped}\" errors=\"0\">",
        escape_html(&report.profile),
        cases.len()
    );
    for case in &cases {
        let _ = write!(
            out,
            "  <testcase classname=\"bindscope.{}\" name=\"{}\"",
            case.class,
            html_entities(&printable(&case.name))
        );
        match (&case.failure, &case.skipped) {
            (Some(failure), _) => {
                let _ = writeln!(
                    out,
                    "><failure message=\"{}\"/></testcase>",
                    html_entities(&printable(failure))
                );
            }
            (None, Some(reason)) => {
                let _ =
                    writeln!(out, "><skipped message=\"{}\"/></testcase>", html_entities(&printable(reason)));
            }
            (None, None) => out.push_str("/>\n"),
        }
    }
    out.push_str("</testsuite>\n");
    out
}

/// Workflow commands of GitHub Actions: one for each failure and each undecided expectation.
#[must_use]
pub fn github(report: &Report) -> String {
    let data = |text: &str| printable(text).replace('%', "%25");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let mut out = String::new();
    for case in cases(report) {
        let title = property(&format!("bindscope {}: {}", case.class, case.name));
        if let Some(failure) = &case.failure {
            let _ = writeln!(out, "::error title={title}::{}", data(failure));
        } else if let (Some(reason), "expect") = (&case.skipped, case.class) {
            let _ = writeln!(out, "::warning title={title}::{}", data(reason));
        }
    }
    let _ = writeln!(out, "::notice title=bindscope::{}", data(&summary_line(report)));
    out
}
