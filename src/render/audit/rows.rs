//! The table of sockets: address, reach in each family, process, and the numbers of footnotes.

use super::layout::Style;
use super::notes::Footnotes;
use super::{address, owners};
use crate::audit::{Published, Report};
use crate::escape::escape;
use crate::model::{Exposure, Family, ListeningSocket, Protocol};
use crate::render::style::BOLD;
use crate::render::table::width;

/// Blanks between two columns.
const GAP: usize = 2;
/// Minimum width of a column of processes or addresses; below it, rows use two lines.
const LEAST_PROCESS: usize = 14;
const LEAST_ADDRESS: usize = 20;

const HEADINGS: [&str; 5] = ["ADDRESS", "IPV4", "IPV6", "PROCESS", "NOTES"];

/// Writes the table of the sockets at `places`.
pub(super) fn write(
    out: &mut String,
    report: &Report,
    places: &[usize],
    published: &[usize],
    notes: &Footnotes<'_>,
    style: Style,
) {
    let mut cells: Vec<[String; 5]> = places.iter().map(|&place| row(report, place, notes, style)).collect();
    let translated =
        |place: &usize| Some(translated(report.published.get(*place)?, notes.of_published(*place)));
    cells.extend(published.iter().filter_map(translated));
    if cells.is_empty() {
        return;
    }
    let widest = |column: usize| {
        cells.iter().map(|row| width(&row[column])).max().unwrap_or(0).max(width(HEADINGS[column]))
    };
    let widths: [usize; 5] = std::array::from_fn(widest);
    let layout = Layout::fit(widths, style.width);
    let heading = layout.lines(&HEADINGS.map(str::to_owned), true);
    let heading = heading.trim_end();
    for line in heading.lines() {
        out.push_str(&style.paint(BOLD, line.trim_end()));
        out.push('\n');
    }
    for row in &cells {
        out.push_str(&layout.lines(row, false));
    }
}

fn row(report: &Report, place: usize, notes: &Footnotes<'_>, style: Style) -> [String; 5] {
    let socket = &report.sockets[place];
    let known = report.exposure_known(socket);
    [
        bound(socket),
        reach(socket, Family::Ipv4, known),
        reach(socket, Family::Ipv6, known),
        process(socket, style),
        notes.numbers(place),
    ]
}

/// A port that a rule publishes: where it leads, and that no socket decides.
fn translated(one: &Published, notes: String) -> [String; 5] {
    let udp = one.protocol.filter(|protocol| *protocol == Protocol::Udp).map_or("", |_| " udp");
    let reach = |exposure: Exposure| match exposure {
        Exposure::None => "-".to_owned(),
        exposure => exposure.words().to_owned(),
    };
    let process = if one.to.is_some() { "no socket: DNAT" } else { "no socket: redirect" };
    [
        format!("{}{udp}", one.summary()),
        reach(one.exposure.ipv4),
        reach(one.exposure.ipv6),
        process.to_owned(),
        notes,
    ]
}

/// The address as `ss` writes it, with its kind if not TCP: `*:8443 dual-stack`, `0.0.0.0:53 udp`.
fn bound(socket: &ListeningSocket) -> String {
    let view = &socket.view;
    let wildcard6 = view.address.is_ipv6() && view.address.is_unspecified();
    let mut text = address(socket);
    let mut words = Vec::new();
    if view.protocol == Protocol::Udp {
        words.push("udp");
    }
    if socket.mptcp {
        words.push("mptcp");
    }
    match view.v6only {
        Some(false) if wildcard6 => {
            text = text.replacen("[::]", "*", 1);
            words.push("dual-stack");
        }
        Some(true) if wildcard6 => words.push("v6only"),
        None if wildcard6 => words.push("v6only?"),
        _ => {}
    }
    if socket.transparent == Some(true) {
        words.push("transparent");
    }
    if words.is_empty() { text } else { format!("{text} {}", words.join(" ")) }
}

/// Exposure in one family; `-` if it does not serve the family.
fn reach(socket: &ListeningSocket, family: Family, known: bool) -> String {
    let view = &socket.view;
    let wildcard6 = view.address.is_ipv6() && view.address.is_unspecified();
    let serves = match family {
        Family::Ipv4 => view.address.to_canonical().is_ipv4() || wildcard6 && view.v6only != Some(true),
        Family::Ipv6 => view.address.to_canonical().is_ipv6(),
    };
    let exposure = match family {
        Family::Ipv4 => view.exposure.ipv4,
        Family::Ipv6 => view.exposure.ipv6,
    };
    match (serves, known) {
        (false, _) => "-".to_owned(),
        (true, false) => "unknown".to_owned(),
        (true, true) if family == Family::Ipv4 && wildcard6 && view.v6only.is_none() => {
            format!("{}?", exposure.words())
        }
        (true, true) => {
            let filtered =
                socket.exposure_filtered.as_ref().is_some_and(|left| left.narrowed.contains(&family));
            format!("{}{}", exposure.words(), if filtered { "; filtered" } else { "" })
        }
    }
}

/// The owner: `nginx (979) +2`; with `verbose` also user and unit.
fn process(socket: &ListeningSocket, style: Style) -> String {
    match socket.owners.as_deref() {
        Some([first, rest @ ..]) if !style.verbose && socket.activation.is_none() => {
            let more = if rest.is_empty() { String::new() } else { format!(" +{}", rest.len()) };
            format!("{} ({}){more}", escape(&first.command), first.pid)
        }
        _ => owners(socket),
    }
}

/// Width of the columns, and whether a row uses two lines.
struct Layout {
    widths: [usize; 5],
    two_lines: bool,
    total: usize,
}

impl Layout {
    /// Fits columns of these widths into `total`. Exposure and numbers are never truncated; processes are truncated at
    /// the end, and a longer address gets its own line.
    fn fit(widths: [usize; 5], total: usize) -> Layout {
        let [address, ipv4, ipv6, process, notes] = widths;
        let fixed = ipv4 + ipv6 + notes + 4 * GAP;
        let room = total.saturating_sub(fixed);
        if address + process <= room {
            return Layout { widths, two_lines: false, total };
        }
        if room >= LEAST_ADDRESS + LEAST_PROCESS {
            let process = process.min(room.saturating_sub(address).max(LEAST_PROCESS));
            let address = address.min(room - process);
            return Layout { widths: [address, ipv4, ipv6, process, notes], two_lines: false, total };
        }
        let address = address.min(total.saturating_sub(ipv4 + ipv6 + 2 * GAP));
        Layout { widths: [address, ipv4, ipv6, process, notes], two_lines: true, total }
    }

    fn lines(&self, row: &[String; 5], heading: bool) -> String {
        let [address, ipv4, ipv6, process, notes] = row;
        let mut out = String::new();
        let mut line = String::new();
        if width(address) > self.widths[0] && !heading {
            // A longer address gets its own line, because users search for it.
            for part in crate::render::table::wrap(address, self.total, "  ").lines() {
                out.push_str(part.trim_end());
                out.push('\n');
            }
            pad(&mut line, "", self.widths[0] + GAP);
        } else {
            pad(&mut line, address, self.widths[0] + GAP);
        }
        pad(&mut line, ipv4, self.widths[1] + GAP);
        pad(&mut line, ipv6, self.widths[2] + GAP);
        if self.two_lines {
            out.push_str(line.trim_end());
            out.push('\n');
            line.clear();
            pad(&mut line, "", 4);
            let room = self.total.saturating_sub(4 + GAP + width(notes));
            let process = cut(process, room);
            pad(&mut line, &process, width(&process) + GAP);
        } else {
            pad(&mut line, &cut(process, self.widths[3]), self.widths[3] + GAP);
        }
        line.push_str(notes);
        out.push_str(line.trim_end());
        out.push('\n');
        out
    }
}

/// Appends `text` and blanks up to `columns`.
fn pad(line: &mut String, text: &str, columns: usize) {
    line.push_str(text);
    line.push_str(&" ".repeat(columns.saturating_sub(width(text))));
}

/// The text, or its beginning with an ellipsis if it is wider than `columns`.
fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 1;
    for c in text.chars() {
        let wide = unicode_width::UnicodeWidthChar::width(c).unwrap_or(0);
        if used + wide > columns {
            break;
        }
        out.push(c);
        used += wide;
    }
    out.push('\u{2026}');
    out
}
