//! Looks at a twin that stands: every cell of the plan of its host, connected for real.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{BEYOND, Client, Twin};
use crate::lab::build::Lab;
use crate::lab::run::{Looked, Opened, Patience, look_from, names_of_oneself, rights};
use crate::model::addr::needs_zone;
use crate::model::{Family, Snapshot, Source};
use crate::plan::bind_check::Rights;
use crate::plan::reach::{Cell, Matrix};
use crate::report::matrix::Plan;
use crate::sys::Error;

/// Foretells every cell of the host that a twin is of, as it was when the sockets were opened, connects in the twin every one
/// that somebody stands for, and puts both side by side.
///
/// # Errors
/// When the system refuses to be waited on.
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

/// What is asked of a twin.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// What whoever bound the sockets may do.
    pub rights: Rights,
    /// The only addresses that are connected to; all without.
    pub only: Option<&'a BTreeSet<IpAddr>>,
}

/// As [`look`], about sockets that are bound already.
///
/// # Errors
/// As [`look`].
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
    let mut plan = Plan::new(opened.sockets.specs.clone(), snapshot, question.rights, Vec::new(), &more);
    add_beyond(&mut plan.matrix, twin, snapshot);
    if let Some(only) = question.only {
        let Matrix { cells, destinations, .. } = &mut plan.matrix;
        cells.retain(|cell| only.contains(&destinations[cell.destination].address));
    }
    let clients = clients(&plan.matrix, twin);
    look_from(lab, opened, plan, &clients, snapshot.clone(), patience, progress)
}

/// Who asks each cell; `None` where nobody can.
pub fn clients(matrix: &Matrix, twin: &Twin) -> Vec<Option<Client>> {
    let by_source: Vec<Option<Client>> = matrix
        .sources
        .iter()
        .map(|source| match source {
            Source::Host => Some(Client { node: twin.plan.host, zone: 0 }),
            Source::Node(_) => twin.beyond.map(|beyond| Client { node: beyond.node, zone: 0 }),
            // Beyond the default route there is a node; beyond other routers there is none.
            Source::Beyond(_) => None,
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

/// Adds the cells of whoever is beyond the default route: what comes of his packets is what comes of anybody's on that wire. What
/// no router forwards to a host, loopback and link-local addresses, he is not asked for.
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
