//! As CSV (RFC 4180) and as a Markdown table.

use std::borrow::Cow;
use std::io::{self, Write as _};

use super::{address, families, level, owners};
use crate::audit::Report;
use crate::model::Owner;
use crate::render::markdown::cell;
use crate::render::row::Row;
use crate::text::{csv_escaped, csv_field, printable};

/// One row for each socket, with a line of names.
///
/// # Errors
/// When the writer fails.
pub fn csv(report: &Report, mut out: impl io::Write) -> io::Result<()> {
    out.write_all(
        b"protocol,address,port,family,v6only,device,state,mptcp,exposure_ipv4,exposure_ipv6,netns,uid,inode,\
          queue_length,queue_limit,owners_known,pids,commands,exes,users,units,findings\r\n",
    )?;
    let findings = report.counting_by_socket();
    let mut row = Row::default();
    for (place, socket) in report.sockets.iter().enumerate() {
        let view = &socket.view;
        row.text(view.protocol.as_str());
        row.address(Some(view.address));
        row.number(Some(view.port));
        row.family(view.family);
        row.truth(view.v6only);
        let device = view.device.as_ref().map(ToString::to_string);
        row.text(&device.map_or_else(String::new, csv_escaped));
        row.text(socket.state.as_str());
        row.truth(Some(socket.mptcp));
        let known = report.exposure_known(socket);
        for exposure in [view.exposure.ipv4, view.exposure.ipv6] {
            row.text(if known { exposure.as_str() } else { "unknown" });
        }
        row.number(socket.netns);
        row.number(socket.uid);
        row.number(socket.inode);
        row.number(socket.queue.map(|queue| queue.length));
        row.number(socket.queue.and_then(|queue| queue.limit));
        row.truth(Some(socket.owners.is_some()));
        let owners = socket.known_owners();
        each(&mut row, owners, |owner| Some(owner.pid.to_string().into()));
        each(&mut row, owners, |owner| Some(owner.command.as_str().into()));
        each(&mut row, owners, |owner| owner.exe.as_deref().map(Cow::from));
        each(&mut row, owners, |owner| owner.user.as_deref().map(Cow::from));
        each(&mut row, owners, |owner| owner.unit.as_deref().map(Cow::from));
        row.field(|out| {
            for (number, finding) in findings.of(place).enumerate() {
                let _ = write!(out, "{}{}", if number > 0 { ";" } else { "" }, finding.code);
            }
        });
        row.end(&mut out)?;
    }
    Ok(())
}

/// What each owner has of something, between semicolons.
fn each<'a>(row: &mut Row, owners: &'a [Owner], text: impl Fn(&'a Owner) -> Option<Cow<'a, str>>) {
    match owners {
        [] => row.text(""),
        [one] => row.text(&csv_field(&text(one).unwrap_or_default())),
        several => {
            let all: Vec<Cow<'_, str>> =
                several.iter().map(|owner| text(owner).unwrap_or_default()).collect();
            row.text(&csv_field(&all.join(";")));
        }
    }
}

/// Two tables, of sockets and of findings, and the counts; for a step summary or a ticket.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let mut out = String::from("| socket | reachable | owner |\n|---|---|---|\n");
    let findings = report.counting_by_socket();
    let mut places: Vec<usize> =
        (0..report.sockets.len()).filter(|&place| report.baseline.is_none() || findings.any(place)).collect();
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
            cell(&printable(&finding.message))
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
        out.push_str(&format!("\nNot complete: {}\n", cell(&printable(because))));
    }
    out
}
