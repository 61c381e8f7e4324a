//! The picture as SVG. Presentation attributes make it complete without a style sheet; that of the page overrides them.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::picture::{Flow, FlowKind, Picture, PictureListener};
use super::words::{clipped, listed};
use crate::render::table::wrap;

/// The colours and dashes of the interfaces. The style sheet has the same colours for `l0` to `l7`.
const LANES: [(&str, &str); 8] = [
    ("#5a6270", "2 5"),
    ("#0b63bd", ""),
    ("#96490f", "14 4 3 4"),
    ("#6b3fa0", "9 4"),
    ("#0f6b5c", "18 4 2 4 2 4"),
    ("#a02664", "4 3"),
    ("#5f6b00", "22 5"),
    ("#3d4db3", "12 3 4 3 4 3"),
];

const BAD: &str = "#b80f1d";
const DIM: &str = "#555b66";
const TEXT: &str = "#14171c";
const OK: &str = "#1d6b3c";
const MONO: &str = "ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace";

const WIDTH: u32 = 1120;
const TOP: u32 = 44;
const GAP: u32 = 16;
const SOURCE_HEIGHT: u32 = 52;
/// Right end of the sources, and both ends of the interfaces and of the listeners.
const SOURCES: (u32, u32) = (6, 200);
const PORTS: (u32, u32) = (280, 472);
const BOXES: (u32, u32) = (690, 1102);
/// Where gates stand.
const GATE: u32 = 618;
/// Characters of monospace that fit in an interface, of 11.5 px, and in a listener, of 12 px.
const PORT_CHARS: usize = 26;
const BOX_CHARS: usize = 50;
/// Addresses that an interface shows.
const MOST_ADDRESSES: usize = 4;
/// Lines of alarms that a listener shows, and their width in characters of 12.5 px.
const MOST_ALARMS: usize = 4;
const ALARM_CHARS: usize = 50;

/// The CSS class, the colour and the dashes of an interface.
pub(super) fn lane_class(lane: usize) -> String {
    format!("l{}", lane % LANES.len())
}

fn colour(lane: usize) -> &'static str {
    LANES[lane % LANES.len()].0
}

fn dashes(lane: usize) -> Option<&'static str> {
    Some(LANES[lane % LANES.len()].1).filter(|dashes| !dashes.is_empty())
}

/// A box in a column: its top and its height.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    top: u32,
    height: u32,
}

impl Place {
    fn middle(self) -> u32 {
        self.top + self.height / 2
    }
}

/// Where everything stands.
struct Layout {
    sources: Vec<Place>,
    lanes: Vec<Place>,
    listeners: Vec<Place>,
    /// The lower end of the host.
    bottom: u32,
    height: u32,
}

fn port_height(addresses: usize) -> u32 {
    let lines = addresses.min(MOST_ADDRESSES) + usize::from(addresses > MOST_ADDRESSES);
    34 + 15 * count(lines)
}

/// The height of a listener: its lines of text, and room for its flows and their gates.
fn box_height(picture: &Picture, number: usize) -> u32 {
    let alarms = picture.listeners.get(number).map_or(0, |listener| alarm_lines(listener).len());
    let flows = || picture.flows.iter().filter(|flow| flow.listener == number);
    let each = if flows().any(|flow| !flow.gates.is_empty()) { 21 } else { 13 };
    (72 + 17 * count(alarms)).max(16 + each * count(flows().count()))
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

impl Layout {
    fn of(picture: &Picture) -> Layout {
        let mut sources = vec![Place::default(); picture.sources.len()];
        let mut lanes = vec![Place::default(); picture.lanes.len()];
        let mut at = TOP + 14;
        for (lane, place) in lanes.iter_mut().enumerate() {
            let height = port_height(picture.lanes[lane].addresses.len());
            let here: Vec<usize> = (0..picture.sources.len())
                .filter(|&source| picture.sources[source].lanes.first() == Some(&lane))
                .collect();
            let column = (count(here.len()) * (SOURCE_HEIGHT + GAP)).saturating_sub(GAP);
            let tall = height.max(column);
            *place = Place { top: at + (tall - height) / 2, height };
            for (number, &source) in here.iter().enumerate() {
                let top = at + (tall - column) / 2 + count(number) * (SOURCE_HEIGHT + GAP);
                sources[source] = Place { top, height: SOURCE_HEIGHT };
            }
            at += tall + GAP;
        }
        for (source, place) in sources.iter_mut().enumerate() {
            if picture.sources[source].lanes.is_empty() {
                *place = Place { top: at, height: SOURCE_HEIGHT };
                at += SOURCE_HEIGHT + GAP;
            }
        }
        let left = at - GAP;
        let mut at = TOP + 14;
        let mut listeners = Vec::new();
        for number in 0..picture.listeners.len() {
            let height = box_height(picture, number);
            listeners.push(Place { top: at, height });
            at += height + GAP;
        }
        let right = at - GAP;
        // The shorter side stands in the middle.
        let bottom = left.max(right);
        let shift = |places: &mut [Place], own: u32| {
            for place in places {
                place.top += (bottom - own) / 2;
            }
        };
        shift(&mut sources, left);
        shift(&mut lanes, left);
        shift(&mut listeners, right);
        let notes = count(picture.gates.len()) + u32::from(picture.left_out.is_some());
        let bottom = bottom + 14;
        let height = bottom + 40 + if notes > 0 { 8 + 22 * notes } else { 0 };
        Layout { sources, lanes, listeners, bottom, height }
    }
}

/// The picture. `id` begins the names of its parts, which are unique in a page.
pub(super) fn draw(picture: &Picture, id: &str) -> Markup {
    let layout = Layout::of(picture);
    let (title, description) = (format!("{id}pt"), format!("{id}pd"));
    let labelled = format!("{title} {description}");
    let view = format!("0 0 {WIDTH} {}", layout.height);
    let host = if picture.host.is_empty() {
        "interfaces of the host".to_owned()
    } else {
        format!("interfaces of {}", picture.host)
    };
    html! {
        svg.pic xmlns="http://www.w3.org/2000/svg" viewBox=(view) width=(WIDTH) height=(layout.height) role="img"
            aria-labelledby=(labelled) font-family="ui-sans-serif,system-ui,sans-serif" font-size="14" {
            title id=(title) { (picture.title) }
            desc id=(description) { (picture.sentences.join(" ")) }
            rect.ground x="0" y="0" width=(WIDTH) height=(layout.height) fill="#fff" {}
            rect.chassis x="300" y=(TOP) width="812" height=(layout.bottom - TOP) rx="12" fill="#f4f5f7" stroke="#9aa1ac" {}
            (heading(SOURCES.0 + 2, "who connects"))
            (heading(312, &clipped(&host, 46)))
            (heading(BOXES.0, "listeners"))
            @for (number, source) in picture.sources.iter().enumerate() {
                @for &lane in &source.lanes { (wire(layout.sources[number], layout.lanes[lane], lane)) }
            }
            @for (number, lane) in picture.lanes.iter().enumerate() {
                @if let Some(master) = lane.master { (port_of(layout.lanes[number], layout.lanes[master], number)) }
            }
            @for flow in &picture.flows { (path(picture, &layout, flow)) }
            @for (number, source) in picture.sources.iter().enumerate() {
                @let place = layout.sources[number];
                rect.box x=(SOURCES.0) y=(place.top) width=(SOURCES.1 - SOURCES.0) height=(place.height) rx="24" fill="#fff" stroke=(DIM) stroke-width="2" {}
                text.t x="22" y=(place.top + 23) font-weight="600" fill=(TEXT) { (clipped(&source.name, 20)) }
                text.s x="22" y=(place.top + 40) font-size="12" fill=(DIM) { (clipped(&source.words, 27)) }
            }
            @for (number, lane) in picture.lanes.iter().enumerate() {
                @let place = layout.lanes[number];
                rect.port.(lane_class(number)) x=(PORTS.0) y=(place.top) width=(PORTS.1 - PORTS.0) height=(place.height) rx="7" fill=(colour(number)) {}
                text.pt x=(PORTS.0 + 12) y=(place.top + 22) font-weight="700" fill="#fff" { (clipped(&lane.name, 20)) }
                @for (line, text) in address_lines(&lane.addresses).iter().enumerate() {
                    text.pa x=(PORTS.0 + 12) y=(place.top + 40 + 15 * count(line)) font-size="11.5" fill="#fff" font-family=(MONO) { (text) }
                }
            }
            @for (number, listener) in picture.listeners.iter().enumerate() {
                (listener_box(listener, layout.listeners[number]))
            }
            (key(picture, layout.bottom + 26))
            @for (number, gate) in picture.gates.iter().enumerate() {
                @let y = layout.bottom + 52 + 22 * count(number);
                (gate_mark(24, y - 5, number, gate.open))
                text.s x="42" y=(y) font-size="13" fill=(TEXT) { (clipped(&gate.words, 150)) }
            }
            @if let Some(words) = &picture.left_out {
                text.s x="16" y=(layout.bottom + 52 + 22 * count(picture.gates.len())) font-size="13" fill=(DIM) { (words) }
            }
        }
    }
}

fn heading(x: u32, words: &str) -> Markup {
    html! { text.cap x=(x) y="30" fill=(DIM) font-size="13" { (words) } }
}

fn address_lines(addresses: &[String]) -> Vec<String> {
    let mut lines: Vec<String> =
        addresses.iter().take(MOST_ADDRESSES).map(|one| clipped(one, PORT_CHARS)).collect();
    if addresses.len() > MOST_ADDRESSES {
        lines.push(format!("and {} more", addresses.len() - MOST_ADDRESSES));
    }
    lines
}

/// The link between a source and an interface.
fn wire(source: Place, lane: Place, number: usize) -> Markup {
    let (from, to) = (source.middle(), lane.middle());
    let (x1, x2) = (SOURCES.1, PORTS.0);
    let line = if from.abs_diff(to) < 4 {
        format!("M{x1},{from} H{x2}")
    } else {
        format!("M{x1},{from} C{},{from} {},{to} {x2},{to}", x1 + 40, x2 - 40)
    };
    html! {
        path.wire.(lane_class(number)) d=(line) fill="none" stroke=(colour(number)) stroke-width="4" stroke-dasharray=[dashes(number)] {}
    }
}

/// The link between an interface and the bridge, VRF or bond that it is a port of.
fn port_of(lane: Place, master: Place, number: usize) -> Markup {
    let (from, to, x) = (lane.middle() + 8, master.middle(), PORTS.0);
    let line = format!("M{x},{from} C{},{from} {},{to} {x},{to}", x - 34, x - 34);
    html! {
        path.wire.(lane_class(number)) d=(line) fill="none" stroke=(colour(number)) stroke-width="4" stroke-dasharray=[dashes(number)] {}
    }
}

/// The place of each flow's end at its listener: the flows of a listener are spread over its height, by interface.
fn slot(picture: &Picture, layout: &Layout, flow: &Flow) -> u32 {
    let mut order: Vec<(usize, usize, FlowKind)> = picture
        .flows
        .iter()
        .filter(|other| other.listener == flow.listener)
        .map(|other| (other.lane, other.source, other.kind))
        .collect();
    order.sort_unstable();
    let number = order.iter().position(|key| *key == (flow.lane, flow.source, flow.kind)).unwrap_or(0);
    let place = layout.listeners[flow.listener];
    place.top + 8 + (place.height - 16) * (2 * count(number) + 1) / (2 * count(order.len()).max(1))
}

/// Where a flow leaves its interface: several sources of an interface are spread.
fn start(picture: &Picture, layout: &Layout, flow: &Flow) -> u32 {
    let on_lane: Vec<usize> = (0..picture.sources.len())
        .filter(|&source| picture.flows.iter().any(|other| other.lane == flow.lane && other.source == source))
        .collect();
    let number = on_lane.iter().position(|&source| source == flow.source).unwrap_or(0);
    let place = layout.lanes[flow.lane];
    place.top + 6 + (place.height - 12) * (2 * count(number) + 1) / (2 * count(on_lane.len()).max(1))
}

fn path(picture: &Picture, layout: &Layout, flow: &Flow) -> Markup {
    let (from, to) = (start(picture, layout, flow), slot(picture, layout, flow));
    let stops = matches!(flow.kind, FlowKind::Blocked | FlowKind::Missing | FlowKind::Unknown);
    let end = if stops { GATE } else { BOXES.0 - 10 };
    let x = PORTS.1;
    let line = format!("M{x},{from} C{},{from} {},{to} {},{to} H{end}", x + 95, GATE - 95, GATE - 14);
    let class = match flow.kind {
        FlowKind::Forbidden | FlowKind::Missing => "bad",
        FlowKind::Unknown => "unk",
        FlowKind::Open | FlowKind::Blocked => "",
    };
    let (stroke, width, dash) = match flow.kind {
        FlowKind::Forbidden | FlowKind::Missing => (BAD, "5", Some("11 5")),
        FlowKind::Unknown => (DIM, "2", Some("1 6")),
        FlowKind::Open | FlowKind::Blocked => (colour(flow.lane), "3", dashes(flow.lane)),
    };
    let tip = BOXES.0 - 2;
    html! {
        path.path.(lane_class(flow.lane)).(class) d=(line) fill="none" stroke=(stroke) stroke-width=(width) stroke-dasharray=[dash] {}
        @if !stops {
            path.head.(lane_class(flow.lane)).(class) d=(format!("M{},{} L{tip},{to} L{},{} Z", tip - 11, to - 6, tip - 11, to + 6)) fill=(stroke) {}
        }
        @if flow.kind == FlowKind::Missing || flow.kind == FlowKind::Blocked && flow.gates.is_empty() { (cross(GATE + 8, to)) }
        @if flow.kind == FlowKind::Unknown {
            text.s x=(GATE + 5 + 22 * count(flow.gates.len())) y=(to + 5) fill=(DIM) font-weight="700" { "?" }
        }
        @for (number, &gate) in flow.gates.iter().enumerate() {
            (gate_mark(GATE + 10 + 22 * count(number), to, gate, picture.gates[gate].open))
        }
    }
}

fn cross(x: u32, y: u32) -> Markup {
    html! {
        path.bad.path d=(format!("M{},{} L{},{} M{},{} L{},{}", x - 6, y - 6, x + 6, y + 6, x - 6, y + 6, x + 6, y - 6)) fill="none" stroke=(BAD) stroke-width="3" {}
    }
}

/// A gate: two posts with its number, joined by a bar where it is shut.
fn gate_mark(x: u32, y: u32, number: usize, open: bool) -> Markup {
    let stroke = if open { OK } else { BAD };
    html! {
        g.gate.(if open { "open" } else { "shut" }) {
            rect x=(x - 9) y=(y - 9) width="18" height="18" rx="3" fill="#fff" stroke=(stroke) stroke-width=(if open { "1.5" } else { "3" }) {}
            text x=(x) y=(y + 4) text-anchor="middle" font-size="11" font-weight="700" fill=(stroke) { (number + 1) }
        }
    }
}

fn listener_box(listener: &PictureListener, place: Place) -> Markup {
    let bad = listener.status.is_bad();
    let left = BOXES.0 + 18;
    let status = listener.status.words();
    // The status stands at the right end of the first line.
    let room = 46usize.saturating_sub(status.len() + 2).max(12);
    let reached = match listener.reached_by.as_slice() {
        [] => "reached by no source".to_owned(),
        names => format!("reached by {}", listed(names, 6)),
    };
    html! {
        rect.lst.(if bad { "bad" } else { "" }) x=(BOXES.0) y=(place.top) width=(BOXES.1 - BOXES.0) height=(place.height) rx="8"
            fill="#fff" stroke=(if bad { BAD } else { "#9aa1ac" }) stroke-width=(if bad { "3" } else { "1.5" }) {}
        text.t x=(left) y=(place.top + 24) font-weight="650" fill=(TEXT) { (clipped(&listener.name, room)) }
        text.v.(if bad { "bad" } else { "" }) x=(BOXES.1 - 14) y=(place.top + 24) text-anchor="end" font-size="12.5"
            font-weight=(if bad { "700" } else { "400" }) fill=(if bad { BAD } else { OK }) { (status) }
        text.m x=(left) y=(place.top + 43) font-size="12" fill=(DIM) font-family=(MONO) { (clipped(&listener.bound, BOX_CHARS)) }
        text.s x=(left) y=(place.top + 61) font-size="12.5" fill=(DIM) { (clipped(&reached, 58)) }
        @for (line, text) in alarm_lines(listener).iter().enumerate() {
            text.v.bad x=(left) y=(place.top + 79 + 17 * count(line)) font-size="12.5" font-weight="700" fill=(BAD) { (text) }
        }
    }
}

/// The alarms of a listener in lines.
fn alarm_lines(listener: &PictureListener) -> Vec<String> {
    let wrapped = |alarm: &String| -> Vec<String> {
        wrap(alarm, ALARM_CHARS, "  ").lines().map(|line| clipped(line, ALARM_CHARS)).collect()
    };
    let mut lines: Vec<String> = Vec::new();
    for (number, alarm) in listener.alarms.iter().enumerate() {
        let more = wrapped(alarm);
        let others = listener.alarms.len() - number;
        // The last line says how many alarms have no place.
        if lines.len() + more.len() > MOST_ALARMS - usize::from(others > 1) {
            lines.push(format!("and {others} more"));
            break;
        }
        lines.extend(more);
    }
    lines
}

/// What the lines mean, as far as the picture has them.
fn key(picture: &Picture, y: u32) -> Markup {
    let has = |kind: FlowKind| picture.flows.iter().any(|flow| flow.kind == kind);
    let mut items: Vec<(&str, Option<&str>, &str, String)> = Vec::new();
    if has(FlowKind::Forbidden) {
        items.push((BAD, Some("11 5"), "5", "accepted, although an expectation forbids it".to_owned()));
    }
    if has(FlowKind::Missing) {
        items.push((BAD, Some("11 5"), "5", "required by an expectation, not accepted (✕)".to_owned()));
    }
    if has(FlowKind::Unknown) {
        items.push((DIM, Some("1 6"), "2", "not known (?)".to_owned()));
    }
    let gates = match (picture.gates.iter().any(|gate| !gate.open), picture.gates.is_empty()) {
        (_, true) => None,
        (true, _) => {
            Some("numbered box: a packet filter or address translation, thick where it stops packets")
        }
        (false, _) => Some("numbered box: a packet filter or address translation that lets packets pass"),
    };
    let mut x = 16;
    let mut drawn = Vec::new();
    for (stroke, dash, width, words) in items {
        let length = 52 + count(words.chars().count()) * 7;
        drawn.push(html! {
            path.path.(if stroke == BAD { "bad" } else { "unk" }) d=(format!("M{x},{y} h40")) fill="none" stroke=(stroke) stroke-width=(width) stroke-dasharray=[dash] {}
            text.s x=(x + 48) y=(y + 4) font-size="12.5" fill=(DIM) { (words) }
        });
        x += length + 20;
    }
    html! {
        @for item in &drawn { (item) }
        @if let Some(words) = gates { text.s x=(x) y=(y + 4) font-size="12.5" fill=(DIM) { (words) } }
        @if drawn.is_empty() && gates.is_none() {
            text.s x="16" y=(y + 4) font-size="12.5" fill=(DIM) { "A line is a source whose connections are accepted; its colour and dashes are those of the interface." }
        }
    }
}

/// The bars of a count over time, as one path in a box of 20 units height.
pub(super) fn bars(counts: &[u64]) -> String {
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let mut line = String::new();
    for (number, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let height = (count * 19).div_ceil(most);
        let _ = write!(line, "M{} 20v-{height}h3v{height}z", number * 4);
    }
    line
}
