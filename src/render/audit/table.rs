//! As CSV (RFC 4180) and as a Markdown table.

use super::{address, families, level, owners};
use crate::audit::Report;
use crate::model::Exposure;
use crate::text::{csv_field, escape};

/// One row for each socket, with a line of names.
#[must_use]
pub fn csv(report: &Report) -> String {
    let mut out = String::from(
        "protocol,address,port,family,v6only,device,state,mptcp,exposure_ipv4,exposure_ipv6,netns,uid,inode,\
         queue_length,queue_limit,owners_known,pids,commands,exes,users,units,findings\r\n",
    );
    let optional = |value: Option<String>| value.unwrap_or_default();
    let findings = report.counting_by_socket();
    for (place, socket) in report.sockets.iter().enumerate() {
        let view = &socket.view;
        let each = |text: &dyn Fn(&crate::model::Owner) -> Option<String>| {
            let all: Vec<String> =
                socket.owners.iter().flatten().map(|owner| text(owner).unwrap_or_default()).collect();
            all.join(";")
        };
        let known = report.exposure_known(socket);
        let exposure = |exposure: Exposure| if known { exposure.to_string() } else { "unknown".to_owned() };
        let codes: Vec<String> = findings[place].iter().map(|finding| finding.code.to_string()).collect();
        let fields = [
            view.protocol.to_string(),
            view.address.to_string(),
            view.port.to_string(),
            view.family.to_string().to_lowercase(),
            optional(view.v6only.map(|v6only| v6only.to_string())),
            // The name itself, since a field is escaped once.
            optional(
                view.device.as_ref().map(|device| String::from_utf8_lossy(device.as_bytes()).into_owned()),
            ),
            socket.state.to_string(),
            socket.mptcp.to_string(),
            exposure(view.exposure.ipv4),
            exposure(view.exposure.ipv6),
            optional(socket.netns.map(|inode| inode.to_string())),
            optional(socket.uid.map(|uid| uid.to_string())),
            optional(socket.inode.map(|inode| inode.to_string())),
            optional(socket.queue.map(|queue| queue.length.to_string())),
            optional(socket.queue.and_then(|queue| queue.limit).map(|limit| limit.to_string())),
            socket.owners.is_some().to_string(),
            each(&|owner| Some(owner.pid.to_string())),
            each(&|owner| Some(owner.command.clone())),
            each(&|owner| owner.exe.clone()),
            each(&|owner| owner.user.clone()),
            each(&|owner| owner.unit.clone()),
            codes.join(";"),
        ];
        let row: Vec<String> = fields.iter().map(|field| csv_field(field)).collect();
        out.push_str(&row.join(","));
        out.push_str("\r\n");
    }
    out
}

/// Text that is escaped for a person, made safe in a Markdown table cell.
fn cell(escaped: &str) -> String {
    let mut out = String::with_capacity(escaped.len());
    for c in escaped.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '|' => out.push_str("&#124;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '~' | '!' | '#' | '@' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// Two tables, of sockets and of findings, and the counts; for a step summary or a ticket.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let mut out = String::from("| socket | reachable | owner |\n|---|---|---|\n");
    let findings = report.counting_by_socket();
    let mut places: Vec<usize> = (0..report.sockets.len())
        .filter(|&place| report.baseline.is_none() || !findings[place].is_empty())
        .collect();
    places.sort_by_key(|&place| std::cmp::Reverse(report.sockets[place].view.exposure.widest()));
    for place in places {
        let socket = &report.sockets[place];
        out.push_str(&format!(
            "| {} {} | {} | {} |\n",
            socket.view.protocol,
            cell(&address(socket)),
            if report.exposure_known(socket) { cell(&families(socket)) } else { "unknown".to_owned() },
            cell(&owners(socket))
        ));
    }
    let counted: Vec<_> = report.findings.iter().filter(|finding| finding.counts()).collect();
    if !counted.is_empty() {
        out.push_str("\n| finding | socket | what |\n|---|---|---|\n");
    }
    for finding in counted {
        let socket = finding.socket.and_then(|place| report.sockets.get(place));
        let word = if finding.undecided { "undecided" } else { level(finding.severity) };
        out.push_str(&format!(
            "| {word} {} | {} | {} |\n",
            finding.code,
            socket.map_or_else(String::new, |socket| format!(
                "{} {}",
                socket.view.protocol,
                cell(&address(socket))
            )),
            cell(&escape(&finding.message))
        ));
    }
    if report.unseen() {
        out.push_str("\nWhat listens here is not known.\n");
    }
    let summary = &report.summary;
    out.push_str(&format!(
        "\n{} sockets; {} errors, {} warnings, {} notes; {} checked, {} failed, {} undecided\n",
        summary.sockets,
        summary.errors,
        summary.warnings,
        summary.notes,
        summary.checked,
        summary.failed,
        summary.undecided
    ));
    for because in &report.incomplete_because {
        out.push_str(&format!("\nNot complete: {}\n", cell(&escape(because))));
    }
    out
}
