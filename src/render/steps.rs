//! The path of a connection, one line for each step.

use std::fmt::Write as _;

use super::style::{Paint, Tone};
use super::table::wrap;
use crate::escape::printable;
use crate::model::{FilteredPacket, Outcome};
use crate::plan::reach::steps::Step;
use crate::report::steps::PathReport;

/// Width of the columns for the packet and the stage.
const PACKET: usize = 9;
const STAGE: usize = 13;

/// The whole path.
#[must_use]
pub fn human(report: &PathReport, color: bool, width: usize) -> String {
    let paint = Paint::new(color);
    let mut out = String::new();
    let to = if report.destination.contains(':') {
        format!("[{}]:{}", report.destination, report.port)
    } else {
        format!("{}:{}", report.destination, report.port)
    };
    let tone = if report.outcome == Some(Outcome::Accepted) { Tone::Good } else { Tone::Bad };
    let outcome = report.outcome.map_or_else(|| "not known".to_owned(), |outcome| outcome.to_string());
    let head = format!("{} -> {} {to}: {outcome}", report.source, report.protocol);
    let _ = writeln!(out, "{}\n", paint.tone(tone, &printable(&head)));
    let digits = report.steps.len().to_string().len();
    for (number, step) in report.steps.iter().enumerate() {
        let packet = packet(step.packet);
        let stage = step.stage.as_str();
        let first = format!("{:>digits$}  {packet:<PACKET$}  {stage:<STAGE$}  ", number + 1);
        let further = " ".repeat(digits + 2 + PACKET + 2 + STAGE + 2);
        let code = step.code.map_or_else(String::new, |code| format!(" [{code}]"));
        let text = format!("{}{code}", printable(&what(step)));
        let room = width.max(60).saturating_sub(first.len());
        let wrapped = wrap(&text, room, "").replace('\n', &format!("\n{further}"));
        let _ = writeln!(out, "{first}{wrapped}");
        for candidate in &step.candidates {
            let matches = match candidate.matches {
                Some(true) => format!("matches, score {}", candidate.score),
                Some(false) => "does not match".to_owned(),
                None => "not known whether it matches".to_owned(),
            };
            let wins = if candidate.wins { " <- wins" } else { "" };
            let _ = writeln!(out, "{further}- {}: {matches}{wins}", printable(&candidate.name));
        }
    }
    out
}

fn packet(packet: FilteredPacket) -> &'static str {
    match packet {
        FilteredPacket::Syn => "SYN",
        FilteredPacket::Datagram => "datagram",
        FilteredPacket::Answer => "answer",
        FilteredPacket::Ack => "ACK",
        FilteredPacket::Neighbour => "neighbour",
    }
}

fn what(step: &Step) -> String {
    match &step.by {
        Some(by) => format!("{}: {}", by.place(), step.what),
        None => step.what.clone(),
    }
}
