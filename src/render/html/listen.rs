//! The section of `listen`: who arrived where, over time.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::words::{counted, listed};
use super::{Mark, Section, Verdict, code_link, host_words, svg, time_words};
use crate::code::Code;
use crate::escape::{escape, printable};
use crate::model::{IfName, SocketView};
use crate::record::history::{History, Lane};

/// Addresses that a cell names.
const MOST_ADDRESSES: usize = 3;

/// The section of a run. `id` begins the names of its anchors.
pub(super) fn section(history: &History, id: &str) -> Section {
    let lanes: Vec<&IfName> =
        history.lanes.keys().map(|(_, name)| name).collect::<BTreeSet<_>>().into_iter().collect();
    let elsewhere: u64 = history.lanes.values().flat_map(|lane| lane.elsewhere.values()).sum();
    let codes = if elsewhere > 0 { BTreeSet::from([Code::WEAK_HOST]) } else { BTreeSet::new() };
    let mut incomplete = Vec::new();
    if history.summary.is_none() {
        incomplete.push("the run has no summary: it was cut before its end".to_owned());
    }
    if let Some(summary) = history.summary.as_ref().filter(|summary| summary.dropped > 0) {
        incomplete.push(format!("{} arrivals have no line", summary.dropped));
    }
    let profile = history.started.as_ref().map(|started| started.profile.as_str()).unwrap_or_default();
    Section {
        command: format!("bindscope listen {}", escape(profile)).trim_end().to_owned(),
        verdict: verdict(history, elsewhere),
        facts: facts(history),
        contents: vec![(format!("{id}arrivals"), "Arrivals")],
        body: body(history, &lanes, id),
        notes: history.notices.clone(),
        incomplete,
        codes,
    }
}

fn verdict(history: &History, elsewhere: u64) -> Verdict {
    let total = history.total();
    let listeners = listeners(history).len();
    let headline = format!(
        "{} at {}",
        counted(usize::try_from(total).unwrap_or(usize::MAX), "arrival"),
        counted(listeners, "listener")
    );
    let mut lead = Vec::new();
    if elsewhere > 0 {
        lead.push(html! {
            b { (elsewhere) } " of them arrived on an interface that does not have the destination address: "
            "Linux accepts an address on every interface (weak host model, " (code_link(Code::WEAK_HOST)) ")."
        });
    }
    if !history.failed.is_empty() {
        let names: Vec<String> = history.failed.iter().map(|(socket, _)| socket.to_string()).collect();
        lead.push(html! { "Not open: " (listed(&names, 3)) "." });
    }
    let mark = match () {
        () if total == 0 && history.sockets.is_empty() => Mark::Undecided,
        () => Mark::None,
    };
    Verdict { mark, headline, lead }
}

fn facts(history: &History) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(started) = &history.started {
        facts.push(("host", host_words(&started.host)));
        facts.push(("started", time_words(&started.time.to_string())));
    }
    if let (Some((first, _)), Some((last, _))) = (history.arrivals.first(), history.arrivals.last()) {
        let to = if history.not_listed > 0 { "later".to_owned() } else { last.time_of_day() };
        facts.push(("arrivals", format!("{} to {to}", first.time_of_day())));
    }
    if let Some(summary) = &history.summary {
        facts.push(("connections", summary.accepted.to_string()));
        facts.push(("datagrams", summary.datagrams.to_string()));
        let errors: u64 = summary.errors.values().sum();
        if errors > 0 {
            facts.push(("errors", errors.to_string()));
        }
    }
    if history.network_changes > 0 {
        facts.push(("changes of the network", history.network_changes.to_string()));
    }
    if history.path_changes > 0 {
        facts.push(("connections that changed their interface", history.path_changes.to_string()));
    }
    facts
}

/// The listeners in the order of their sockets, each with those; listeners whose sockets are not in the record at the end.
fn listeners(history: &History) -> Vec<(&str, Vec<&SocketView>)> {
    let mut listeners: Vec<(&str, Vec<&SocketView>)> = Vec::new();
    let mut places = std::collections::BTreeMap::new();
    for socket in &history.sockets {
        let name = socket.listener.as_deref().unwrap_or_default();
        let place = *places.entry(name).or_insert_with(|| {
            listeners.push((name, Vec::new()));
            listeners.len() - 1
        });
        listeners[place].1.push(socket);
    }
    for (name, _) in history.lanes.keys() {
        places.entry(name).or_insert_with(|| {
            listeners.push((name, Vec::new()));
            listeners.len() - 1
        });
    }
    listeners
}

fn body(history: &History, lanes: &[&IfName], id: &str) -> Markup {
    let intervals = history.intervals();
    html! {
        section id=(format!("{id}arrivals")) {
            h2 { "Arrivals by listener and interface" }
            div.scroll tabindex="0" role="region" aria-label="Arrivals by listener and interface" {
                table.cross.arr {
                    caption { "Listeners are rows, the interfaces on which connections and datagrams arrived are columns. Each bar counts " (history.interval_ms()) " ms." }
                    thead {
                        tr {
                            th.corner scope="col" { "listener" }
                            @for (number, name) in lanes.iter().enumerate() {
                                th.lane.(svg::lane_class(number)) scope="col" { span.plug { b { (name.to_string()) } } }
                            }
                            th.tot scope="col" { "total" }
                        }
                    }
                    tbody {
                        @for (name, sockets) in listeners(history) {
                            tr {
                                th scope="row" {
                                    span.name { (escape(name)) } " "
                                    @for socket in sockets.iter().take(3) { span.m { (socket.to_string()) } " " }
                                    @if sockets.len() > 3 { span.m { "and " (sockets.len() - 3) " more" } }
                                }
                                @for (number, lane) in lanes.iter().enumerate() {
                                    (cell(history.lanes.get(&(name.to_owned(), (*lane).clone())), number, intervals))
                                }
                                td.num { (total(history, name)) }
                            }
                        }
                    }
                }
            }
            (list(history, id))
        }
    }
}

fn total(history: &History, listener: &str) -> u64 {
    history.lanes.iter().filter(|((name, _), _)| name == listener).map(|(_, lane)| lane.count).sum()
}

fn cell(lane: Option<&Lane>, number: usize, intervals: usize) -> Markup {
    let Some(lane) = lane else { return html! { td.x.shut { "none" } } };
    let elsewhere: Vec<String> = lane
        .elsewhere
        .iter()
        .map(|((address, owner), count)| format!("{count} to {address}, an address of {owner}"))
        .collect();
    let class =
        if elsewhere.is_empty() { format!("open {}", svg::lane_class(number)) } else { "dif".to_owned() };
    let width = intervals.max(1) * 4;
    let title =
        format!("{} over time", counted(usize::try_from(lane.count).unwrap_or(usize::MAX), "arrival"));
    html! {
        td.x.(class) {
            b.num { (lane.count) } " "
            svg.spark xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {width} 20")) width=(width) height="20" role="img" aria-label=(title) {
                path d=(format!("M0 19.5h{width}")) stroke="#9aa1ac" stroke-width="1" {}
                path.bars d=(svg::bars(&lane.intervals)) fill="#5a6270" {}
            }
            @if !elsewhere.is_empty() { " " span.rem { (listed(&elsewhere, MOST_ADDRESSES)) } }
            @if lane.not_from_kernel > 0 { " " span.f { (lane.not_from_kernel) " without the kernel's report of the interface" } }
        }
    }
}

fn list(history: &History, id: &str) -> Markup {
    if history.arrivals.is_empty() {
        return html! {};
    }
    html! {
        details.all {
            summary { "the first " (counted(history.arrivals.len(), "arrival")) }
            div.scroll tabindex="0" role="region" aria-label="Arrivals" {
                table.plain.cells id=(format!("{id}all")) {
                    caption { "One row for each arrival." @if history.not_listed > 0 { " The page leaves out " (history.not_listed) " later ones." } }
                    thead { tr { th scope="col" { "time" } th scope="col" { "listener" } th scope="col" { "client" } th scope="col" { "address" } th scope="col" { "arrived on" } th scope="col" { "evidence" } } }
                    tbody {
                        @for (time, arrival) in &history.arrivals {
                            tr {
                                td { (time.time_of_day()) }
                                td { (escape(&arrival.listener)) }
                                td { (arrival.peer.address) " port " (arrival.peer.port) }
                                td { (arrival.protocol.as_str()) " " (arrival.local.address) " port " (arrival.local.port) }
                                td { @if let Some(name) = &arrival.ingress.name { (name.to_string()) } @else { "unknown" }
                                    @if let Some(owner) = arrival.other_owner() { ", not " (printable(&owner.to_string())) }
                                }
                                td { (arrival.ingress.evidence.to_string()) }
                            }
                        }
                    }
                }
            }
        }
    }
}
