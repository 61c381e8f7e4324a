//! The interfaces of the host and the sources of connections, as documents list them next to the results.

use std::collections::{BTreeMap, BTreeSet};

use super::results::{AddressReport, CellReport, InterfaceReport, SourceReport};
use crate::model::{IfName, Snapshot, Source};

/// The interfaces of a host.
#[must_use]
pub fn interfaces(snapshot: &Snapshot) -> Vec<InterfaceReport> {
    let address = |one: &crate::model::InterfaceAddress| AddressReport {
        address: one.address,
        prefix: one.prefix,
        class: one.class,
    };
    snapshot
        .interfaces
        .iter()
        .map(|one| InterfaceReport {
            index: one.index,
            name: one.name.clone(),
            up: one.up,
            loopback: one.loopback,
            kind: one.kind.clone(),
            master: one.master,
            addresses: one.addresses.iter().map(address).collect(),
        })
        .collect()
}

/// The sources of these results. Packets of a lab's node arrive on the interfaces that `node_interfaces` has, or else on those of its
/// results.
#[must_use]
pub fn sources(
    cells: &[CellReport],
    snapshot: &Snapshot,
    node_interfaces: &BTreeMap<String, BTreeSet<IfName>>,
) -> Vec<SourceReport> {
    let mut sources: Vec<SourceReport> = Vec::new();
    for run in cells.chunk_by(|a, b| a.source == b.source) {
        let Some(source) = run.first().map(|cell| &cell.source) else { continue };
        if sources.iter().any(|known| known.source == *source) {
            continue;
        }
        let (description, interfaces) = match source {
            Source::Host => {
                let loopback = snapshot.interfaces.iter().filter(|interface| interface.loopback);
                ("programs on this host".to_owned(), loopback.map(|one| one.name.clone()).collect())
            }
            Source::Link(name) => (format!("hosts on the link of {name}"), BTreeSet::from([name.clone()])),
            Source::Beyond(name) => {
                (format!("hosts beyond the routers of {name}"), BTreeSet::from([name.clone()]))
            }
            Source::From(name, network) => {
                (format!("hosts in {network} whose packets arrive on {name}"), BTreeSet::from([name.clone()]))
            }
            Source::Node(name) => {
                let known = node_interfaces.get(name).cloned().unwrap_or_else(|| {
                    let of_source = cells.iter().filter(|cell| cell.source == *source);
                    of_source.filter_map(|cell| cell.ingress().cloned()).collect()
                });
                (node_words(&known), known)
            }
        };
        let interfaces = interfaces.into_iter().collect();
        sources.push(SourceReport { source: source.clone(), description, interfaces });
    }
    sources
}

/// What a node of a lab is: another host, and where its packets arrive.
fn node_words(interfaces: &BTreeSet<IfName>) -> String {
    let names: Vec<String> = interfaces.iter().map(ToString::to_string).collect();
    match names.as_slice() {
        [] => "another host, without a route here".to_owned(),
        names => format!("another host, over {}", names.join(" and ")),
    }
}
