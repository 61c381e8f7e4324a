//! Every socket and every result with its rule: what `-v` adds for a person.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::{bind_word, is_probe};
use crate::escape::{escape, printable};
use crate::model::{
    Answer, Errno, Exposure, FilterDecision, IfName, Outcome, PacketsSeen, Protocol, Schema, Source,
    Translated,
};
use crate::plan::predict::BindOutcome;
use crate::render::ranges;
use crate::render::style::{Paint, Tone};
use crate::render::{filter, table};
use crate::report::matrix::{CellReport, PredictedCell, Report, SocketReport};

/// How many ports and runs of ports are named above a table.
const MOST_RUNS: usize = 40;

pub(super) fn exposure_text(socket: &SocketReport) -> String {
    let exposure = socket.socket.exposure;
    let parts: Vec<String> = [("IPv4", exposure.ipv4), ("IPv6", exposure.ipv6)]
        .into_iter()
        .filter(|(_, exposure)| *exposure != Exposure::None)
        .map(|(family, exposure)| format!("{family} {exposure}"))
        .collect();
    if parts.is_empty() { "not reachable".to_owned() } else { parts.join(", ") }
}

pub(super) fn sockets(out: &mut String, report: &Report, paint: &Paint) {
    if report.sockets.is_empty() {
        return;
    }
    let name = |socket: &SocketReport| escape(socket.socket.listener.as_deref().unwrap_or("-"));
    let names = report.sockets.iter().map(|socket| table::width(&name(socket))).max().unwrap_or(0);
    let views: Vec<String> = report.sockets.iter().map(|socket| socket.socket.to_string()).collect();
    let widest = views.iter().map(|view| table::width(view)).max().unwrap_or(0);
    for (socket, view) in report.sockets.iter().zip(&views) {
        let (word, tone) = bind_word(socket);
        let (name, view) = (table::padded(&name(socket), names), table::padded(view, widest));
        let _ = write!(out, "{name}  {view}  {}", paint.tone(tone, &word));
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
pub(in crate::render) struct Row {
    pub(in crate::render) result: String,
    tone: Tone,
    pub(in crate::render) ingress: String,
    pub(in crate::render) why: String,
}

pub(super) fn result_of(outcome: Option<Outcome>, listener: Option<&str>, candidates: &[String]) -> String {
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

pub(in crate::render) fn row_of(cell: &CellReport) -> Row {
    let predicted = &cell.predicted;
    let predicted_text = result_of(predicted.outcome, predicted.listener.as_deref(), &predicted.candidates);
    let (result, tone, ingress) = match &cell.observed {
        None => {
            let tone = if predicted.outcome == Some(Outcome::Accepted) { Tone::Good } else { Tone::Faint };
            (predicted_text, tone, predicted.ingress.clone())
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
                (format!("{result}{errno} PREDICTED {predicted_text}{over}"), Tone::Bad, seen.ingress.clone())
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
            Some(name) => format!("not observable, predicted {name}"),
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
    let filter = filter::of(cell);
    let mut rule = format!("{} {}", predicted.why, predicted.why.title());
    if let Some(path) = &predicted.return_path {
        rule = format!("{rule}: {path}");
    }
    // A reason that did not come true explains nothing.
    let why = match filter {
        Some(filter) if cell.agrees == Some(false) => filter,
        Some(filter) => format!("{rule}; {filter}"),
        None => rule,
    };
    Row { result, tone, ingress, why }
}

/// What a capture of the packets adds to the reported interface; nothing where they agree.
pub(super) fn on_other_wires(packets: &PacketsSeen) -> String {
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
pub(super) fn source_of(cell: &CellReport) -> String {
    match &cell.source_address {
        Some(address) => format!("{} as {}", cell.source, printable(address)),
        None => cell.source.to_string(),
    }
}

/// Outcome, listener, ingress interface and error of a cell.
pub(super) type Seen<'a> = (Outcome, Option<&'a str>, Option<&'a IfName>, Option<Errno>);

/// Whatever of a cell makes another row: all that [`row_of`] looks at, so that a row is written once for many cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::render) struct Likeness<'a> {
    /// Compared by its place first, which cells share.
    predicted: &'a Arc<PredictedCell>,
    observed: Option<Seen<'a>>,
    packets: Option<&'a PacketsSeen>,
    filter: Option<(Option<&'a FilterDecision>, Option<&'a Translated>, Option<&'a Answer>)>,
    agrees: Option<bool>,
}

pub(in crate::render) fn likeness(cell: &CellReport) -> Likeness<'_> {
    Likeness {
        predicted: &cell.predicted,
        observed: cell
            .observed
            .as_ref()
            .map(|seen| (seen.outcome, seen.listener.as_deref(), seen.ingress.as_ref(), seen.errno)),
        packets: cell.observed.as_ref().and_then(|seen| seen.packets.as_ref()),
        filter: cell
            .observed
            .as_ref()
            .filter(|seen| seen.filter.is_some() || seen.translated.is_some())
            .map(|seen| (seen.filter.as_ref(), seen.translated.as_ref(), seen.answer.as_ref())),
        agrees: cell.agrees,
    }
}

/// Numbers for what comes again and again, often the same many times in a row.
pub(super) struct Numbered<K, V> {
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

pub(super) fn reach(out: &mut String, report: &Report, paint: &Paint, width: usize) {
    let (mut sources, mut rows, mut destinations) = (Numbered::new(), Numbered::new(), Numbered::new());
    // Service, and by number: source, row, destination.
    let mut lines: Vec<((Protocol, u16), [u32; 3])> = Vec::with_capacity(report.cells.len());
    for cell in &report.cells {
        let source = sources.number((&cell.source, cell.source_address.as_deref()), || cell);
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
    let from_here = is_probe(report) && report.schema != Schema::Lab;
    for ((protocol, table), ports) in order.into_iter().zip(&tables.values) {
        let widest = |part: fn(&Row) -> &str| {
            let all = table.iter().filter_map(|&[_, row, _]| rows.of(row));
            all.map(|row| table::width(part(row))).max().unwrap_or(0)
        };
        let (results, ingresses) = (widest(|row| &row.result), widest(|row| &row.ingress));
        let named = if ports.len() > 1 { "ports" } else { "port" };
        let ports = ranges::ports(ports, MOST_RUNS).join(", ");
        let _ = writeln!(out, "{}", paint.tone(Tone::Strong, &format!("{protocol} {named} {ports}")));
        for of_source in table.chunk_by(|a, b| a[0] == b[0]) {
            let Some(source) = sources.of(of_source[0][0]) else { continue };
            let from = match (&source.source, &source.source_address) {
                (Source::Host, None) => "from this host".to_owned(),
                (Source::Host, Some(address)) => format!("from this host as {}", printable(address)),
                _ if from_here => format!("from {}, predicted only", source_of(source)),
                _ => format!("from {}", source_of(source)),
            };
            let _ = writeln!(out, "  {from}");
            for of_row in of_source.chunk_by(|a, b| a[1] == b[1]) {
                let Some(row) = rows.of(of_row[0][1]) else { continue };
                let padding = " ".repeat(results.saturating_sub(table::width(&row.result)));
                let ingress = table::padded(&row.ingress, ingresses);
                let _ = writeln!(
                    out,
                    "    {}{padding}  {ingress}  {}",
                    paint.tone(row.tone, &row.result),
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
pub(super) fn wrap(out: &mut String, words: &[String], width: usize) {
    const INDENT: &str = "        ";
    let mut line = String::from(INDENT);
    for (index, word) in words.iter().enumerate() {
        let comma = if index + 1 < words.len() { "," } else { "" };
        if line.len() > INDENT.len() && table::width(&line) + table::width(word) + 2 > width {
            let _ = writeln!(out, "{}", line.trim_end());
            line = String::from(INDENT);
        }
        let _ = write!(line, "{word}{comma} ");
    }
    let _ = writeln!(out, "{}", line.trim_end());
}
