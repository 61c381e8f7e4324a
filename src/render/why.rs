//! The screen of `bindscope why`: the answer, the evidence for each address, the cause, the fix.

use std::fmt::Write as _;

use super::style::{Paint, Tone};
use super::table::{Item, line, widths, wrap};
use crate::escape::printable;
use crate::model::{Exposure, Outcome};
use crate::why::{Diagnosis, Facts, Place, ResolvedBy, Tried, headline, program};

/// The screen, at most `width` columns wide.
#[must_use]
pub fn page(facts: &Facts, diagnosis: &[Diagnosis], color: bool, width: usize, verbose: bool) -> String {
    let paint = Paint::new(color);
    let width = width.max(40);
    let mut out = String::new();
    let tone = if diagnosis.is_empty() { Tone::Good } else { Tone::Bad };
    let _ = writeln!(out, "{}\n", paint.tone(tone, &wrap(&headline(facts, diagnosis), width, "")));
    table(&mut out, facts, &paint, width, verbose);
    exposure(&mut out, facts, width);
    if let Some(first) = diagnosis.first() {
        labelled(&mut out, "Why", &first.message, width, &paint);
        labelled(&mut out, "Fix", &first.help, width, &paint);
        let more = format!("bindscope explain {}", first.page);
        labelled(&mut out, "More", &more, width, &paint);
    }
    let others = diagnosis.get(1..).unwrap_or_default();
    for other in others.iter().take(if verbose { usize::MAX } else { 2 }) {
        labelled(&mut out, "Also", &format!("{} ({})", other.message, other.code), width, &paint);
    }
    out
}

fn labelled(out: &mut String, label: &str, text: &str, width: usize, paint: &Paint) {
    let text = wrap(text, width.saturating_sub(6), "").replace('\n', "\n      ");
    let _ = writeln!(out, "{}{text}", paint.tone(Tone::Strong, &format!("{label:<6}")));
}

/// Where the addresses come from and how long a connection took are left out where there is no room for them.
fn table(out: &mut String, facts: &Facts, paint: &Paint, limit: usize, verbose: bool) {
    if facts.addresses.is_empty() {
        return;
    }
    let literal = facts.resolved_by == ResolvedBy::Literal && !verbose;
    for (from, times) in [(!literal, true), (!literal, false), (false, false)] {
        let rows = rows(facts, from, times);
        let sizes = widths(&rows);
        let lines: Vec<String> = rows.iter().map(|row| line(row, &sizes, paint)).collect();
        let fits = sizes.iter().sum::<usize>() + 2 * (sizes.len() - 1) <= limit;
        if fits || verbose || !(from || times) {
            let _ = writeln!(out, "{}\n", lines.join("\n"));
            return;
        }
    }
}

fn rows(facts: &Facts, from: bool, times: bool) -> Vec<Vec<Item>> {
    let heading = ["ADDRESS", "FROM", "LISTENER", "PREDICTED", "OBSERVED"];
    let shown = |index: &usize| from || *index != 1;
    let heading = heading.iter().enumerate().filter(|(index, _)| shown(index));
    let mut rows: Vec<Vec<Item>> = vec![heading.map(|(_, text)| Item::toned(Tone::Strong, *text)).collect()];
    for tried in &facts.addresses {
        let listener = match (&tried.place, facts.socket_of(tried)) {
            (Place::Tentative(_), _) => "address is tentative".to_owned(),
            (Place::Multicast | Place::Broadcast, _) => "not one host".to_owned(),
            (Place::OtherLink(_) | Place::Elsewhere, _) => "not on this host".to_owned(),
            (Place::Here, Some(socket)) => {
                let view = socket.view.to_string();
                let view = view.split_once(' ').map_or(view.as_str(), |(_, rest)| rest).to_owned();
                format!("{view} {}", program(socket))
            }
            (Place::Here, None) => "none".to_owned(),
        };
        let predicted = match (tried.local(), tried.predicted) {
            (false, _) => Item::plain("-"),
            (true, Some(outcome)) => outcome_item(outcome, &outcome.to_string()),
            (true, None) => Item::plain("unknown"),
        };
        let mut row = vec![Item::plain(tried.text())];
        if from {
            row.push(Item::plain(facts.resolved_by.as_str()));
        }
        row.extend([Item::plain(listener), predicted, observed(tried, times)]);
        rows.push(row);
    }
    rows
}

fn outcome_item(outcome: Outcome, text: &str) -> Item {
    if outcome == Outcome::Accepted { Item::toned(Tone::Good, text) } else { Item::toned(Tone::Bad, text) }
}

fn observed(tried: &Tried, times: bool) -> Item {
    match tried.observed {
        None => Item::plain("not tried"),
        Some(seen) => {
            let text = match (seen.outcome, seen.errno) {
                (Outcome::Accepted, _) if times => {
                    format!("accepted  {}.{} ms", seen.connect_us / 1000, seen.connect_us % 1000 / 100)
                }
                (Outcome::Error, Some(errno)) => format!("error {errno}"),
                (outcome, _) => outcome.to_string(),
            };
            outcome_item(seen.outcome, &text)
        }
    }
}

/// From where other hosts reach the listeners of the port.
fn exposure(out: &mut String, facts: &Facts, width: usize) {
    let (mut ipv4, mut ipv6) = (Exposure::None, Exposure::None);
    for (_, socket) in facts.serving() {
        ipv4 = ipv4.max(socket.view.exposure.ipv4);
        ipv6 = ipv6.max(socket.view.exposure.ipv6);
    }
    if facts.serving().next().is_none() || !facts.addresses.iter().any(Tried::local) {
        return;
    }
    let filters = if facts.filters.is_empty() && facts.filters_unknown.is_none() {
        String::new()
    } else {
        " Packet filters may narrow this: see `bindscope audit`.".to_owned()
    };
    let text = format!("Reachable from: IPv4 {}, IPv6 {}.{filters}", ipv4.words(), ipv6.words());
    let _ = writeln!(out, "{}", wrap(&text, width, "  "));
    for lost in &facts.lost_answers {
        let _ = writeln!(out, "{}", wrap(&format!("But {}", printable(lost)), width, "  "));
    }
    out.push('\n');
}
