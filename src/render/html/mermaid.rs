//! The picture as a Mermaid flowchart, for wikis that draw it.

use std::fmt::Write as _;

use super::picture::{FlowKind, Picture};

/// A text of a node or an edge: everything that Mermaid or HTML could take for their own is written as a character code.
fn text(words: &str) -> String {
    let mut out = String::new();
    for c in words.chars() {
        if c.is_alphanumeric() || " .,:_-/%+@()".contains(c) {
            out.push(c);
        } else {
            let _ = write!(out, "#{};", u32::from(c));
        }
    }
    out
}

/// The picture as a flowchart from left to right.
pub(super) fn draw(picture: &Picture) -> String {
    let mut out = String::from("flowchart LR\n");
    let _ = writeln!(out, "  accTitle: {}", text(&picture.title));
    out.push_str("  subgraph who [\"who connects\"]\n");
    for (number, source) in picture.sources.iter().enumerate() {
        let _ = writeln!(out, "    s{number}([\"{}<br/>{}\"])", text(&source.name), text(&source.words));
    }
    out.push_str("  end\n  subgraph host [\"interfaces of the host\"]\n");
    for (number, lane) in picture.lanes.iter().enumerate() {
        let mut lines = vec![text(&lane.name)];
        lines.extend(lane.addresses.iter().map(|address| text(address)));
        let _ = writeln!(out, "    i{number}[\"{}\"]", lines.join("<br/>"));
    }
    out.push_str("  end\n  subgraph listeners [\"listeners\"]\n");
    for (number, listener) in picture.listeners.iter().enumerate() {
        let mut lines = vec![text(&listener.name), text(&listener.bound)];
        if !listener.status.words().is_empty() {
            lines.push(text(listener.status.words()));
        }
        lines.extend(listener.alarms.iter().map(|alarm| text(alarm)));
        let class = if listener.status.is_bad() { ":::bad" } else { "" };
        let _ = writeln!(out, "    l{number}[\"{}\"]{class}", lines.join("<br/>"));
    }
    out.push_str("  end\n");
    for (number, source) in picture.sources.iter().enumerate() {
        for lane in &source.lanes {
            let _ = writeln!(out, "  s{number} --- i{lane}");
        }
    }
    for flow in &picture.flows {
        let who = text(&picture.sources[flow.source].name);
        let gates: Vec<String> = flow.gates.iter().map(|&gate| text(&format!("gate {}", gate + 1))).collect();
        let label = [vec![who], gates].concat().join(", ");
        let arrow = match flow.kind {
            FlowKind::Open => format!("-->|\"{label}\"|"),
            FlowKind::Forbidden => format!("==>|\"{label}: NOT EXPECTED\"|"),
            FlowKind::Missing => format!("--x|\"{label}: EXPECTED, not accepted\"|"),
            FlowKind::Blocked => format!("--x|\"{label}\"|"),
            FlowKind::Unknown => format!("-.->|\"{label}: not known\"|"),
        };
        let _ = writeln!(out, "  i{} {arrow} l{}", flow.lane, flow.listener);
    }
    for (number, gate) in picture.gates.iter().enumerate() {
        let _ = writeln!(out, "  g{number}[/\"gate {}: {}\"/]", number + 1, text(&gate.words));
    }
    if let Some(words) = &picture.left_out {
        let _ = writeln!(out, "  more[\"{}\"]", text(words));
    }
    out.push_str("  classDef bad stroke:#b80f1d,stroke-width:3px\n");
    let bad: Vec<String> = picture
        .flows
        .iter()
        .enumerate()
        .filter(|(_, flow)| matches!(flow.kind, FlowKind::Forbidden | FlowKind::Missing))
        .map(|(number, _)| {
            let wires: usize = picture.sources.iter().map(|source| source.lanes.len()).sum();
            (wires + number).to_string()
        })
        .collect();
    if !bad.is_empty() {
        let _ = writeln!(out, "  linkStyle {} stroke:#b80f1d,stroke-width:4px", bad.join(","));
    }
    out
}
