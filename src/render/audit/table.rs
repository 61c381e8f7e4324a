//! CSV (RFC 4180) and Markdown tables.

use std::borrow::Cow;
use std::io;

use rustc_hash::FxHashMap;

use super::{address, families, level, owners};
use crate::audit::Report;
use crate::escape::{csv_escaped, csv_field, printable};
use crate::model::{Exposure, Family, ListeningSocket, Owner};
use crate::render::csv::Row;
use crate::render::markdown::cell;

/// One row for each socket, after a header.
///
/// # Errors
/// If the writer fails.
pub fn csv(report: &Report, mut out: impl io::Write) -> io::Result<()> {
    out.write_all(
        b"protocol,address,port,family,v6only,device,state,mptcp,exposure_ipv4,exposure_ipv6,netns,uid,inode,\
          queue_length,queue_limit,owners_known,pids,commands,exes,users,units,findings,\
          exposure_filtered_ipv4,exposure_filtered_ipv6\r\n",
    )?;
    let findings = report.counting_by_socket();
    // A program can have a thousand similar sockets. Text that is equal to the previous row is reused. Several such
    // programs can alternate, so the text of each owner is cached.
    let mut before: Option<&ListeningSocket> = None;
    let (mut row, mut kind) = (Row::default(), Row::default());
    let mut owners: FxHashMap<Option<*const Owner>, Row> = FxHashMap::default();
    for (place, socket) in report.sockets.iter().enumerate() {
        if !before.is_some_and(|before| alike(before, socket)) {
            kind.clear();
            write_kind(&mut kind, socket, report.exposure_known(socket));
        }
        before = Some(socket);
        row.text(socket.view.protocol.as_str());
        row.address(Some(socket.view.address));
        row.number(Some(socket.view.port));
        row.fields(&kind);
        row.number(socket.inode);
        row.number(socket.queue.map(|queue| queue.length));
        row.number(socket.queue.and_then(|queue| queue.limit));
        let list = socket.owners.as_ref().map(|owners| owners.as_ptr());
        row.fields(owners.entry(list).or_insert_with(|| owners_of(socket)));
        row.field(|out| {
            for (number, finding) in findings.of(place).enumerate() {
                if number > 0 {
                    out.push(b';');
                }
                out.extend_from_slice(&finding.code.text());
            }
        });
        for family in Family::BOTH {
            let left = socket.exposure_filtered.as_ref().and_then(|left| left.of(family));
            row.text(left.filter(|_| report.exposure_known(socket)).map_or("", Exposure::as_str));
        }
        row.end(&mut out)?;
    }
    Ok(())
}

/// Whether [`write_kind`] writes the same for both.
fn alike(one: &ListeningSocket, two: &ListeningSocket) -> bool {
    let of = |socket: &ListeningSocket| {
        let view = &socket.view;
        ((view.family, view.v6only, view.exposure), (socket.state, socket.mptcp, socket.netns, socket.uid))
    };
    of(one) == of(two) && one.view.device == two.view.device
}

/// The fields from the family to the user, which many sockets share.
fn write_kind(row: &mut Row, socket: &ListeningSocket, exposure_known: bool) {
    let view = &socket.view;
    row.family(view.family);
    row.truth(view.v6only);
    let device = view.device.as_ref().map(ToString::to_string);
    row.text(&device.map_or_else(String::new, csv_escaped));
    row.text(socket.state.as_str());
    row.truth(Some(socket.mptcp));
    for exposure in [view.exposure.ipv4, view.exposure.ipv6] {
        row.text(if exposure_known { exposure.as_str() } else { "unknown" });
    }
    row.number(socket.netns);
    row.number(socket.uid);
}

/// The fields of the processes.
fn owners_of(socket: &ListeningSocket) -> Row {
    let mut row = Row::default();
    row.truth(Some(socket.owners.is_some()));
    let owners = socket.known_owners();
    each(&mut row, owners, |owner| Some(owner.pid.to_string().into()));
    each(&mut row, owners, |owner| Some(owner.command.as_str().into()));
    each(&mut row, owners, |owner| owner.exe.as_deref().map(Cow::from));
    each(&mut row, owners, |owner| owner.user.as_deref().map(Cow::from));
    each(&mut row, owners, |owner| owner.unit.as_deref().map(Cow::from));
    row
}

/// One field of each owner, separated by semicolons.
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
    for one in &report.published {
        out.push_str(&format!(
            "| {} | {} | no socket |\n",
            cell(&printable(&one.words())),
            one.exposure_words()
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
            match (socket, finding.published.and_then(|place| report.published.get(place))) {
                (Some(socket), _) => format!("{} {}", socket.view.protocol, cell(&address(socket))),
                (None, Some(published)) => cell(&printable(&published.summary())),
                (None, None) => String::new(),
            },
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
