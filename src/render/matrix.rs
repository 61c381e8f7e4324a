//! The one-screen matrix of `plan`, `probe` and `lab run`: rows are ports and listeners, columns are sources.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use super::ranges;
use super::style::{Paint, Tone};
use super::table::{Item, line, width, widths, wrap};
use crate::escape::{escape, printable};
use crate::model::{Outcome, Protocol, SocketView, Source};
use crate::report::matrix::{CellReport, Report};

/// Number of rows above which listeners that differ only in name and port share one row.
const MOST_ROWS: usize = 24;

/// Maximum number of port runs named in one row.
const MOST_RUNS: usize = 3;

/// Results of one source at one port of one listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Reached {
    /// Accepted and tested destinations, IPv4 then IPv6.
    families: [(u32, u32); 2],
    /// Accepted at an address of another interface than the ingress interface.
    elsewhere: [bool; 2],
    /// Unknown results.
    unknown: [u32; 2],
    /// Results that differ from the prediction.
    differ: u32,
}

/// One row, before rows are combined.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    protocol: Protocol,
    ports: Vec<u16>,
    listeners: Vec<String>,
    bound: String,
    reached: Vec<Reached>,
}

/// 0 for IPv4 packets, 1 for IPv6 packets to the destination. An IPv4-mapped address is reached by IPv4 packets.
fn family(destination: &str) -> usize {
    let address = destination.split('%').next().unwrap_or(destination);
    usize::from(address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_ipv6()))
}

/// The outcome, listener and ingress interface: observed if there is an observation, otherwise predicted.
fn result(cell: &CellReport) -> (Option<Outcome>, Vec<&str>) {
    let predicted = &cell.predicted;
    let possible = || predicted.listener.iter().chain(&predicted.candidates).map(String::as_str).collect();
    match &cell.observed {
        Some(seen) => (Some(seen.outcome), seen.listener.as_deref().map_or_else(possible, |name| vec![name])),
        None => (predicted.outcome, possible()),
    }
}

/// Heading of a source.
fn heading(source: &Source) -> String {
    match source {
        Source::Host => "THIS HOST".to_owned(),
        Source::Node(name) => printable(name),
        other => {
            let text = other.to_string();
            match text.split_once(':') {
                Some((kind, name)) => format!("{} {}", kind.to_uppercase(), printable(name)),
                None => printable(&text),
            }
        }
    }
}

/// The sockets of a report by protocol, listener and port.
type ByRow<'a> = HashMap<(Protocol, &'a str, u16), Vec<&'a SocketView>>;

fn by_row(report: &Report) -> ByRow<'_> {
    let mut all = ByRow::new();
    for view in report.sockets.iter().map(|socket| &socket.socket) {
        if let Some(listener) = view.listener.as_deref() {
            all.entry((view.protocol, listener, view.port)).or_default().push(view);
        }
    }
    all
}

/// The bound addresses of a row's sockets, in short. The port of a socket that is not open may not be known yet.
fn bound(sockets: &ByRow<'_>, protocol: Protocol, port: u16, listener: &str) -> String {
    let known = if port == 0 { None } else { sockets.get(&(protocol, listener, port)) };
    let views: Vec<String> = known
        .into_iter()
        .chain(sockets.get(&(protocol, listener, 0)))
        .flatten()
        .map(|view| {
            let mut text = view.bound_address();
            if let Some(device) = &view.device {
                let _ = write!(text, " on {}", printable(&device.to_string()));
            }
            text
        })
        .collect();
    let distinct: BTreeSet<&String> = views.iter().collect();
    match (distinct.len(), views.first()) {
        (0, _) => String::new(),
        (1, Some(one)) => one.clone(),
        (count, _) => format!("{count} addresses"),
    }
}

/// Counts the results of each row; every requested port has at least one row.
fn rows(report: &Report, sources: &[&Source]) -> Vec<Row> {
    let column: BTreeMap<&Source, usize> =
        sources.iter().enumerate().map(|(index, source)| (*source, index)).collect();
    let mut counted: BTreeMap<(Protocol, u16, &str), Vec<Reached>> = BTreeMap::new();
    let mut asked: BTreeMap<(Protocol, u16), Vec<Reached>> = BTreeMap::new();
    for cell in report.cells.iter().filter(|cell| cell.source_address.is_none()) {
        let Some(&source) = column.get(&cell.source) else { continue };
        let family = family(&cell.destination);
        let all = asked
            .entry((cell.protocol, cell.port))
            .or_insert_with(|| vec![Reached::default(); sources.len()]);
        if let Some(all) = all.get_mut(source) {
            all.families[family].1 += 1;
            all.unknown[family] += u32::from(result(cell).0.is_none());
            all.differ += u32::from(cell.agrees == Some(false));
        }
        let (outcome, listeners) = result(cell);
        if outcome != Some(Outcome::Accepted) {
            continue;
        }
        let listeners = if listeners.is_empty() { vec!["another program"] } else { listeners };
        for listener in listeners {
            let row = counted
                .entry((cell.protocol, cell.port, listener))
                .or_insert_with(|| vec![Reached::default(); sources.len()]);
            if let Some(reached) = row.get_mut(source) {
                reached.families[family].0 += 1;
                reached.elsewhere[family] |= cell.arrives_elsewhere();
            }
        }
    }
    // A listener without accepted results has a row, too.
    for socket in &report.sockets {
        let view = &socket.socket;
        let Some(name) = view.listener.as_deref() else { continue };
        if asked.contains_key(&(view.protocol, view.port)) {
            counted
                .entry((view.protocol, view.port, name))
                .or_insert_with(|| vec![Reached::default(); sources.len()]);
        }
    }
    // Listeners in the order of the profile, then foreign programs.
    let mut order: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, socket) in report.sockets.iter().enumerate() {
        if let Some(name) = socket.socket.listener.as_deref() {
            order.entry(name).or_insert(index);
        }
    }
    let sockets = by_row(report);
    let mut counted: Vec<_> = counted.into_iter().collect();
    counted.sort_by_key(|((protocol, port, listener), _)| {
        (*protocol, *port, order.get(listener).copied().unwrap_or(usize::MAX))
    });
    counted
        .into_iter()
        .map(|((protocol, port, listener), mut reached)| {
            if let Some(asked) = asked.get(&(protocol, port)) {
                for (reached, asked) in reached.iter_mut().zip(asked) {
                    for family in 0..2 {
                        reached.families[family].1 = asked.families[family].1;
                    }
                    reached.unknown = asked.unknown;
                    reached.differ = asked.differ;
                }
            }
            Row {
                protocol,
                ports: vec![port],
                listeners: vec![listener.to_owned()],
                bound: bound(&sockets, protocol, port, listener),
                reached,
            }
        })
        .collect()
}

/// Combines rows that differ only in the port; beyond `MOST_ROWS` also those that differ in the listener's name.
fn fold(rows: Vec<Row>) -> Vec<Row> {
    let join = |rows: Vec<Row>, names: bool| {
        let mut joined: Vec<Row> = Vec::new();
        let mut places: HashMap<(Protocol, String, Vec<Reached>, Vec<String>), usize> = HashMap::new();
        let mut listed: HashSet<(usize, String)> = HashSet::new();
        for row in rows {
            let listeners = if names { Vec::new() } else { row.listeners.clone() };
            let key = (row.protocol, row.bound.clone(), row.reached.clone(), listeners);
            let place = *places.entry(key).or_insert(joined.len());
            let new = |name: &String| listed.insert((place, name.clone()));
            match joined.get_mut(place) {
                Some(other) => {
                    other.ports.extend(&row.ports);
                    other.listeners.extend(row.listeners.into_iter().filter(new));
                }
                None => {
                    listed.extend(row.listeners.iter().map(|name| (place, name.clone())));
                    joined.push(row);
                }
            }
        }
        joined
    };
    let rows = join(rows, false);
    if rows.len() > MOST_ROWS { join(rows, true) } else { rows }
}

/// Format of the two families of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `v4 2/3*  v6 -`
    Named,
    /// `2/3* -`, below a heading that names the families.
    Bare,
}

/// How many addresses of one family accept, or `-`.
fn count_text(reached: &Reached, index: usize) -> String {
    let (accepted, all) = reached.families[index];
    let star = if reached.elsewhere[index] { "*" } else { "" };
    let unknown = if reached.unknown[index] > 0 { "?" } else { "" };
    let text = if accepted == 0 { "-".to_owned() } else { format!("{accepted}/{all}{star}") };
    format!("{text}{unknown}")
}

/// The text of a combination, and its tone. `room` is the width of a count.
fn item(reached: &Reached, families: &[usize], form: Form, room: usize) -> Item {
    let parts: Vec<String> = families
        .iter()
        .filter(|index| form == Form::Bare || reached.families[**index].1 > 0)
        .map(|&index| {
            let text = count_text(reached, index);
            match (form, index) {
                (Form::Bare, _) => format!("{text:<room$}"),
                (Form::Named, 0) => format!("v4 {text:<room$}"),
                (Form::Named, _) => format!("v6 {text:<room$}"),
            }
        })
        .collect();
    let none = reached.families.iter().all(|(accepted, _)| *accepted == 0);
    let mut text = parts.join(" ").trim_end().to_owned();
    if none && reached.unknown == [0, 0] {
        "-".clone_into(&mut text);
    }
    if reached.differ > 0 {
        text.push_str(" !");
        return Item::toned(Tone::Bad, text);
    }
    if none { Item::toned(Tone::Faint, text) } else { Item::toned(Tone::Good, text) }
}

fn listeners_text(row: &Row) -> String {
    let shown: Vec<String> = row.listeners.iter().take(2).map(|name| escape(name)).collect();
    match row.listeners.len() {
        1 | 2 => shown.join(", "),
        more => format!("{more} listeners"),
    }
}

/// Shortens a text to `limit` columns.
pub(super) fn shortened(text: String, limit: usize) -> String {
    if width(&text) <= limit {
        return text;
    }
    let mut short = String::new();
    for c in text.chars() {
        if width(&short) + unicode_width::UnicodeWidthChar::width(c).unwrap_or(0) + 1 > limit {
            break;
        }
        short.push(c);
    }
    short.push('…');
    short
}

/// Appends the matrix of `report`, in as many blocks of columns as `limit` needs, and a legend for the marks that occur.
pub(super) fn write(out: &mut String, report: &Report, paint: &Paint, limit: usize) {
    let mut sources: Vec<&Source> = Vec::new();
    for cell in &report.cells {
        if cell.source_address.is_none()
            && sources.last() != Some(&&cell.source)
            && !sources.contains(&&cell.source)
        {
            sources.push(&cell.source);
        }
    }
    let rows = fold(rows(report, &sources));
    if rows.is_empty() {
        return;
    }
    let families: Vec<usize> = [0, 1]
        .into_iter()
        .filter(|&index| {
            rows.iter().any(|row| row.reached.iter().any(|reached| reached.families[index].1 > 0))
        })
        .collect();
    let room = rows
        .iter()
        .flat_map(|row| &row.reached)
        .flat_map(|reached| families.iter().map(|&index| width(&count_text(reached, index))))
        .max()
        .unwrap_or(1);
    let names = rows.iter().map(|row| width(&listeners_text(row))).max().unwrap_or(0);
    let narrow = limit < 80;
    let mut left: Vec<Vec<Item>> = vec![vec![Item::plain("PORT"), Item::plain("LISTENER")]];
    for row in &rows {
        let ports = ranges::ports(&row.ports, MOST_RUNS).join(",");
        let ports = if row.protocol == Protocol::Udp { format!("{ports}/udp") } else { ports };
        let name = listeners_text(row);
        let room = if sources.len() > 2 { limit / 3 } else { limit / 2 }.max(12);
        let pad = names.min(room / 2).saturating_sub(width(&name));
        let text = if narrow || row.bound.is_empty() {
            name
        } else {
            format!("{name}{}  {}", " ".repeat(pad), row.bound)
        };
        left.push(vec![Item::plain(shortened(ports, room / 2 + 4)), Item::plain(shortened(text, room + 4))]);
    }
    let columns_of = |form: Form| -> Vec<Vec<Item>> {
        let column = |(index, source): (usize, &&Source)| {
            let mut column = vec![Item::toned(Tone::Strong, shortened(heading(source), 20))];
            if form == Form::Bare {
                let names: Vec<String> = families
                    .iter()
                    .map(|index| format!("{:<room$}", if *index == 0 { "v4" } else { "v6" }))
                    .collect();
                column.push(Item::toned(Tone::Faint, names.join(" ").trim_end()));
            }
            let reached = rows.iter().filter_map(|row| row.reached.get(index));
            column.extend(reached.map(|reached| item(reached, &families, form, room)));
            column
        };
        sources.iter().enumerate().map(column).collect()
    };
    let wide = |columns: &[Vec<Item>]| -> usize {
        columns.iter().map(|column| column.iter().map(|item| width(&item.text) + 2).max().unwrap_or(0)).sum()
    };
    let fixed: usize = widths(&left).iter().map(|width| width + 2).sum();
    let mut columns = columns_of(Form::Named);
    if fixed + wide(&columns) > limit + 2 {
        columns = columns_of(Form::Bare);
        left.insert(1, vec![Item::plain(""), Item::plain("")]);
    }
    let mut at = 0;
    while at < columns.len() {
        let mut used = fixed;
        let mut end = at;
        while let Some(column) = columns.get(end) {
            let wide = column.iter().map(|item| width(&item.text)).max().unwrap_or(0);
            if end > at && used + wide > limit {
                break;
            }
            used += wide + 2;
            end += 1;
        }
        let block: Vec<Vec<Item>> = left
            .iter()
            .enumerate()
            .map(|(row, start)| {
                let cells =
                    columns.get(at..end).unwrap_or_default().iter().filter_map(|column| column.get(row));
                start.iter().cloned().chain(cells.cloned()).collect()
            })
            .collect();
        let sizes = widths(&block);
        for row in &block {
            let _ = writeln!(out, "{}", line(row, &sizes, paint));
        }
        out.push('\n');
        at = end;
    }
    legend(out, &rows, &families, limit);
}

fn legend(out: &mut String, rows: &[Row], families: &[usize], limit: usize) {
    let all = || rows.iter().flat_map(|row| &row.reached);
    let mut parts = Vec::new();
    let example = families.iter().find_map(|&index| {
        let (accepted, count) =
            all().map(|reached| reached.families[index]).find(|(accepted, _)| *accepted > 0)?;
        let (short, long) = if index == 0 { ("v4", "IPv4") } else { ("v6", "IPv6") };
        Some(format!("{short} {accepted}/{count}: accepted at {accepted} of {count} {long} addresses."))
    });
    parts.extend(example);
    if all().any(|reached| reached.elsewhere.contains(&true)) {
        parts.push(
            "*: also at an address of another interface (weak host model): bindscope explain weak-host."
                .to_owned(),
        );
    }
    if all().any(|reached| reached.unknown != [0, 0]) {
        parts.push("?: some results are not known; -v names the missing fact.".to_owned());
    }
    if all().any(|reached| reached.differ > 0) {
        parts.push("!: observed and predicted differ.".to_owned());
    }
    if !parts.is_empty() {
        let _ = writeln!(out, "{}", wrap(&parts.join(" "), limit, ""));
    }
}
