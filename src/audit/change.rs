//! What has changed between two reports.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Finding, Report, plain};
use crate::model::{ListeningSocket, Snapshot};

/// One change. `change` says which; for programs it is one JSON object.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A socket listens that did not.
    SocketNew {
        /// It.
        socket: ListeningSocket,
        /// What is remarkable about it.
        findings: Vec<Finding>,
    },
    /// A socket is gone.
    SocketGone {
        /// As it was.
        socket: ListeningSocket,
    },
    /// A socket has other owners, or is exposed otherwise.
    SocketChanged {
        /// As it was.
        before: ListeningSocket,
        /// As it is.
        after: ListeningSocket,
    },
    /// Something about a socket that was there, or about the host, is remarkable now.
    FindingNew {
        /// It.
        finding: Finding,
    },
    /// Something is so no longer.
    FindingGone {
        /// It.
        finding: Finding,
    },
    /// An interface is there that was not.
    InterfaceNew {
        /// Its name.
        interface: String,
    },
    /// An interface is gone.
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
    /// An interface has an address more.
    AddressNew {
        /// Its name.
        interface: String,
        /// The address with its prefix length.
        address: String,
    },
    /// An interface has an address less.
    AddressGone {
        /// Its name.
        interface: String,
        /// The address with its prefix length.
        address: String,
    },
}

/// A finding less what ties it to one report.
fn key(report: &Report, finding: &Finding) -> String {
    let socket = finding.socket.and_then(|place| report.sockets.get(place)).and_then(|socket| socket.inode);
    format!("{} {socket:?} {:?} {}", finding.code, finding.rule, finding.message)
}

/// What must be equal for a socket to count as unchanged; the queue's length is not of it.
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
    let index = |report: &Report| -> BTreeMap<_, usize> {
        // Two sockets without an inode that look alike are told apart by their turn.
        let mut turn: BTreeMap<_, usize> = BTreeMap::new();
        let mut index = BTreeMap::new();
        for (place, socket) in report.sockets.iter().enumerate() {
            let view = &socket.view;
            let key = (socket.netns, socket.inode, view.protocol, view.address, view.port);
            let turn = turn.entry(key).or_default();
            index.insert((key, *turn), place);
            *turn += 1;
        }
        index
    };
    let (old, new) = (index(before), index(after));
    let mut changes = Vec::new();
    for (_, &place) in old.iter().filter(|(key, _)| !new.contains_key(key)) {
        changes.push(Change::SocketGone { socket: before.sockets[place].clone() });
    }
    let mut fresh = Vec::new();
    for (key, &place) in &new {
        let socket = &after.sockets[place];
        match old.get(key) {
            None => {
                fresh.push(place);
                let findings =
                    after.findings.iter().filter(|finding| finding.socket == Some(place)).cloned().collect();
                changes.push(Change::SocketNew { socket: socket.clone(), findings });
            }
            Some(&was) if facts(&before.sockets[was]) != facts(socket) => {
                changes.push(Change::SocketChanged {
                    before: before.sockets[was].clone(),
                    after: socket.clone(),
                });
            }
            Some(_) => {}
        }
    }
    let keys = |report: &Report| -> std::collections::BTreeSet<String> {
        report.findings.iter().map(|finding| key(report, finding)).collect()
    };
    let (had, has) = (keys(before), keys(after));
    let gone_inodes: Vec<_> = changes
        .iter()
        .filter_map(
            |change| if let Change::SocketGone { socket } = change { Some(socket.inode) } else { None },
        )
        .collect();
    for finding in before.findings.iter().filter(|finding| !has.contains(&key(before, finding))) {
        let inode = finding.socket.and_then(|place| before.sockets.get(place)).map(|socket| socket.inode);
        if inode.is_none_or(|inode| !gone_inodes.contains(&inode)) {
            changes.push(Change::FindingGone { finding: finding.clone() });
        }
    }
    for finding in after.findings.iter().filter(|finding| !had.contains(&key(after, finding))) {
        if finding.socket.is_none_or(|place| !fresh.contains(&place)) {
            changes.push(Change::FindingNew { finding: finding.clone() });
        }
    }
    changes
}

/// The changes of interfaces and addresses from `before` to `after`. An interface is the same when index and name are.
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
