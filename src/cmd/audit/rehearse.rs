//! `bindscope audit --rehearse`.

use std::time::Duration;

use crate::audit::{Report, rehearsed};
use crate::cmd::{Failure, lab};
use crate::lab::run::Patience;
use crate::lab::{rehearse, twin};
use crate::model::Snapshot;
use crate::sys;

/// Timeout of one connection, and of all of them.
const PATIENCE: Patience = Patience { connect: Duration::from_secs(1), all: Duration::from_secs(60) };

/// Tests the report's sockets in the namespace of `host` in a copy of it, and adds the results.
///
/// # Errors
/// Exit code 4 if the copy cannot be built.
pub(super) fn add(report: &mut Report, host: &Snapshot) -> Result<(), Failure> {
    let snapshot = Snapshot { packet_filters: Some(sys::packet_filters_with_rules()), ..host.clone() };
    let twin = twin::of(&snapshot);
    lab::prepare()?;
    let lab = lab::copy(&snapshot, &twin)?;
    let own = report.namespaces.first().and_then(|namespace| namespace.inode);
    let sockets: Vec<_> =
        report.sockets.iter().enumerate().filter(|(_, socket)| socket.netns == own).collect();
    let elsewhere = report.sockets.len() - sockets.len();
    let mut rehearsal = rehearse::rehearse(&lab, &twin, &snapshot, &sockets, PATIENCE)
        .map_err(|error| lab::environment(&error))?;
    if elsewhere > 0 {
        let more = format!("{elsewhere} sockets of other network namespaces are not rehearsed");
        rehearsal.incomplete_because.push(more);
        rehearsal.complete = false;
    }
    rehearsed::add(report, rehearsal);
    Ok(())
}
