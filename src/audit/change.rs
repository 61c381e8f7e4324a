//! Differences between two reports.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;

use super::identity::{self, Identity};
use super::{Finding, Report, plain};
use crate::code::Code;
use crate::model::{ListeningSocket, Snapshot};

/// One change, identified by the field `change`; for programs it is one JSON object.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A new socket listens.
    SocketNew {
        /// The socket.
        socket: Box<ListeningSocket>,
        /// Findings about it.
        findings: Vec<Finding>,
    },
    /// A socket was closed.
    SocketGone {
        /// Its last state.
        socket: Box<ListeningSocket>,
    },
    /// The owners or the exposure of a socket changed.
    SocketChanged {
        /// Before.
        before: Box<ListeningSocket>,
        /// After.
        after: Box<ListeningSocket>,
    },
    /// A new finding about an existing socket, or about the host.
    FindingNew {
        /// The finding.
        finding: Finding,
    },
    /// A finding no longer applies.
    FindingGone {
        /// The finding.
        finding: Finding,
    },
    /// An interface was added.
    InterfaceNew {
        /// Its name.
        interface: String,
    },
    /// An interface was removed.
    InterfaceGone {
        /// Its name.
        interface: String,
    },
    /// An interface went up or down.
    InterfaceChanged {
        /// Its name.
        interface: String,
        /// Whether it is up now.
        up: bool,
    },
    /// An address was added to an interface.
    AddressNew {
        /// Its name.
        interface: String,
        /// The address with its prefix length.
        address: String,
    },
    /// An address was removed from an interface.
    AddressGone {
        /// Its name.
        interface: String,
        /// The address with its prefix length.
        address: String,
    },
}

/// A finding without data specific to one report: the index of its socket, and the remaining lifetime of an address.
fn key(names: &[String], finding: &Finding) -> String {
    let socket = finding.socket.and_then(|place| names.get(place));
    let message = if finding.code == Code::ADDRESS_EXPIRES { "" } else { &finding.message };
    format!("{} {socket:?} {:?} {message}", finding.code, finding.rule)
}

/// The identity of each socket of a report, with its network namespace if there are several.
fn names(report: &Report) -> Vec<String> {
    let identities = identity::names(&report.sockets);
    let several = report.namespaces.len() > 1;
    let name = |(socket, identity): (&ListeningSocket, String)| match socket.netns {
        Some(netns) if several => format!("{netns} {identity}"),
        _ => identity,
    };
    report.sockets.iter().zip(identities).map(name).collect()
}

/// Properties that must be equal for a socket to count as unchanged; the length of the queue is not one of them.
fn facts(socket: &ListeningSocket) -> ListeningSocket {
    let mut facts = socket.clone();
    if let Some(queue) = &mut facts.queue {
        queue.length = 0;
    }
    facts
}

/// The changes of sockets and findings from `before` to `after`.
#[must_use]
pub fn of_reports(before: &Report, after: &Report) -> Vec<Change> {
    let pairs = paired(&before.sockets, &after.sockets);
    let mut changes = Vec::new();
    let kept: BTreeSet<usize> = pairs.iter().filter_map(|(old, _)| *old).collect();
    let gone = |place: &usize| !kept.contains(place);
    for place in (0..before.sockets.len()).filter(gone) {
        changes.push(Change::SocketGone { socket: Box::new(before.sockets[place].clone()) });
    }
    for (old, place) in &pairs {
        let socket = &after.sockets[*place];
        match old {
            None => {
                let findings =
                    after.findings.iter().filter(|finding| finding.socket == Some(*place)).cloned().collect();
                changes.push(Change::SocketNew { socket: Box::new(socket.clone()), findings });
            }
            Some(was) if facts(&before.sockets[*was]) != facts(socket) => {
                let before = Box::new(before.sockets[*was].clone());
                changes.push(Change::SocketChanged { before, after: Box::new(socket.clone()) });
            }
            Some(_) => {}
        }
    }
    let (old_names, new_names) = (names(before), names(after));
    let keys = |report: &Report, names: &[String]| -> BTreeSet<String> {
        report.findings.iter().map(|finding| key(names, finding)).collect()
    };
    let (had, has) = (keys(before, &old_names), keys(after, &new_names));
    for finding in before.findings.iter().filter(|finding| !has.contains(&key(&old_names, finding))) {
        if finding.socket.is_none_or(|place| kept.contains(&place)) {
            changes.push(Change::FindingGone { finding: finding.clone() });
        }
    }
    let fresh: BTreeSet<usize> =
        pairs.iter().filter(|(old, _)| old.is_none()).map(|(_, place)| *place).collect();
    for finding in after.findings.iter().filter(|finding| !had.contains(&key(&new_names, finding))) {
        if finding.socket.is_none_or(|place| !fresh.contains(&place)) {
            changes.push(Change::FindingNew { finding: finding.clone() });
        }
    }
    changes
}

/// For each socket of `after` the same listener in `before`. Among sockets with one identity, the same inode and port
/// come first, then the order of the list.
fn paired(before: &[ListeningSocket], after: &[ListeningSocket]) -> Vec<(Option<usize>, usize)> {
    let mut left: BTreeMap<(Option<u64>, Identity), VecDeque<usize>> = BTreeMap::new();
    for (place, socket) in before.iter().enumerate() {
        left.entry((socket.netns, Identity::of(socket))).or_default().push_back(place);
    }
    let same = |one: &ListeningSocket, two: &ListeningSocket| {
        one.inode == two.inode && (one.view.address, one.view.port) == (two.view.address, two.view.port)
    };
    let mut take = |socket: &ListeningSocket, exact: bool| {
        let list = left.get_mut(&(socket.netns, Identity::of(socket)))?;
        let place = list.iter().position(|place| !exact || same(&before[*place], socket))?;
        list.remove(place)
    };
    let exact: Vec<Option<usize>> = after.iter().map(|socket| take(socket, true)).collect();
    exact
        .into_iter()
        .enumerate()
        .map(|(place, found)| (found.or_else(|| take(&after[place], false)), place))
        .collect()
}

/// Changes of interfaces and addresses from `before` to `after`. Interfaces are identified by index and name.
#[must_use]
pub fn of_hosts(before: &Snapshot, after: &Snapshot) -> Vec<Change> {
    let mut changes = Vec::new();
    let same = |host: &Snapshot, index: u32, name: &crate::model::IfName| {
        host.interface(index).filter(|interface| interface.name == *name).cloned()
    };
    for interface in &before.interfaces {
        if same(after, interface.index, &interface.name).is_none() {
            changes.push(Change::InterfaceGone { interface: plain(&interface.name) });
        }
    }
    for interface in &after.interfaces {
        let name = plain(&interface.name);
        let was = same(before, interface.index, &interface.name);
        let had = |address| {
            was.as_ref().is_some_and(|was| was.addresses.iter().any(|old| same_address(old, address)))
        };
        match &was {
            None => changes.push(Change::InterfaceNew { interface: name.clone() }),
            Some(was) if was.up != interface.up => {
                changes.push(Change::InterfaceChanged { interface: name.clone(), up: interface.up });
            }
            Some(_) => {}
        }
        for old in was.iter().flat_map(|was| &was.addresses) {
            if !interface.addresses.iter().any(|address| same_address(old, address)) {
                let address = format!("{}/{}", old.address, old.prefix);
                changes.push(Change::AddressGone { interface: name.clone(), address });
            }
        }
        for address in interface.addresses.iter().filter(|address| !had(address)) {
            let address = format!("{}/{}", address.address, address.prefix);
            changes.push(Change::AddressNew { interface: name.clone(), address });
        }
    }
    changes
}

fn same_address(a: &crate::model::InterfaceAddress, b: &crate::model::InterfaceAddress) -> bool {
    (a.address, a.prefix) == (b.address, b.prefix)
}
