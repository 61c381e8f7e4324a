//! Tests a running twin: every result of its host's plan, with real connections.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{BEYOND, Client, Twin};
use crate::lab::build::Lab;
use crate::lab::run::{Looked, Opened, Patience, look_from, names_of_oneself, rights};
use crate::model::addr::needs_zone;
use crate::model::{Family, Snapshot, Source};
use crate::plan::bind_check::Rights;
use crate::plan::reach::{Cell, Matrix};
use crate::report::matrix::{Asked, Plan};
use crate::sys::Error;

/// Predicts every result for the host of a twin, as of the time when the sockets were opened. Makes every connection
/// for which the twin has a client, and compares.
///
/// # Errors
/// If the system refuses to create or use the poller.
pub fn look(
    lab: &Lab,
    twin: &Twin,
    opened: &Opened,
    patience: Patience,
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<Looked, Error> {
    let question = Question { rights: rights(), only: None };
    ask(lab, twin, opened, question, patience, progress)
}

/// The requested tests of a twin.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Privileges of the process that bound the sockets.
    pub rights: Rights,
    /// The only destination addresses; if empty, all.
    pub only: Option<&'a BTreeSet<IpAddr>>,
}

/// Like [`look`], for sockets that are already bound.
///
/// # Errors
/// Those of [`look`].
pub fn ask(
    lab: &Lab,
    twin: &Twin,
    opened: &Opened,
    question: Question<'_>,
    patience: Patience,
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<Looked, Error> {
    let snapshot = &opened.snapshot;
    let more = names_of_oneself(snapshot);
    let asked = Asked { more: &more, services: &opened.services, ..Asked::default() };
    let mut plan = Plan::of(opened.sockets.specs.clone(), snapshot, question.rights, Vec::new(), asked);
    add_beyond(&mut plan.matrix, twin, snapshot);
    if let Some(only) = question.only {
        let Matrix { cells, destinations, .. } = &mut plan.matrix;
        cells.retain(|cell| only.contains(&destinations[cell.destination].address));
    }
    let clients = clients(&plan.matrix, twin);
    look_from(lab, opened, plan, &clients, snapshot.clone(), patience, progress)
}

/// The client of each result; `None` if there is none.
pub fn clients(matrix: &Matrix, twin: &Twin) -> Vec<Option<Client>> {
    let by_source: Vec<Option<Client>> = matrix
        .sources
        .iter()
        .map(|source| match source {
            Source::Host => Some(Client { node: twin.plan.host, zone: 0 }),
            Source::Node(_) => twin.beyond.map(|beyond| Client { node: beyond.node, zone: 0 }),
            // There is a node beyond the default route, but none beyond other routers.
            Source::Beyond(_) | Source::From(..) => None,
            Source::Link(_) => {
                twin.clients.iter().find(|(other, _)| other == source).map(|(_, client)| *client)
            }
        })
        .collect();
    let clients = matrix.cells.iter().map(|cell| {
        let client = by_source[cell.source]?;
        let to = matrix.destinations[cell.destination];
        let zone = match matrix.sources[cell.source] {
            Source::Host => to.zone,
            _ if needs_zone(to.address) => client.zone,
            _ => 0,
        };
        Some(Client { zone, ..client })
    });
    clients.collect()
}

/// Adds the results of the client beyond the default route. They are those of any client on that link. Loopback and
/// link-local addresses, which no router forwards, are left out.
fn add_beyond(matrix: &mut Matrix, twin: &Twin, snapshot: &Snapshot) {
    let Some(beyond) = twin.beyond else { return };
    // Where the results beyond the link are those on the link, the matrix has no source of their own.
    let of = |index: Option<u32>| {
        let name = &snapshot.interface(index?)?.name;
        let position = |wanted: Source| matrix.sources.iter().position(|source| *source == wanted);
        position(Source::Beyond(name.clone())).or_else(|| position(Source::Link(name.clone())))
    };
    let by_family = [of(beyond.ipv4), of(beyond.ipv6)];
    let source = matrix.sources.len();
    let cells: Vec<Cell> = matrix
        .cells
        .iter()
        .filter(|cell| {
            let address = matrix.destinations[cell.destination].address;
            let family = usize::from(Family::of(address) == Family::Ipv6);
            let link_local = needs_zone(address) || is_link_local(address);
            by_family[family] == Some(cell.source)
                && cell.source_address.is_none()
                && !address.is_loopback()
                && !link_local
        })
        .map(|cell| Cell { source, ..cell.clone() })
        .collect();
    // The node stands for them.
    let stood_for = |cell: &Cell| {
        matches!(matrix.sources[cell.source], Source::Beyond(_)) && by_family.contains(&Some(cell.source))
    };
    let kept = matrix.cells.iter().filter(|cell| !stood_for(cell)).cloned().collect();
    matrix.cells = kept;
    if !cells.is_empty() {
        matrix.sources.push(Source::Node(BEYOND.to_owned()));
        matrix.cells.extend(cells);
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.is_link_local())
}
