//! The number of results of a plan, known before they are made. Pure.

use std::collections::BTreeSet;

use super::matrix::Asked;
use crate::model::{Snapshot, SocketSpec};
use crate::plan::local_table::LocalAddresses;
use crate::plan::reach;

/// What decides the number of results, in addition to the sockets and the host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extent<'a> {
    /// The requested destinations and ports.
    pub asked: Asked<'a>,
    /// Whether the sockets will be opened, so that the kernel replaces each port 0.
    pub opened: bool,
    /// Whether the host also connects from each of its addresses.
    pub from_addresses: bool,
}

impl Extent<'_> {
    /// The most results that a plan of `sockets` makes and keeps in memory: sources, destinations and services multiplied.
    #[must_use]
    pub fn results(self, sockets: &[SocketSpec], snapshot: &Snapshot) -> usize {
        let Extent { asked, opened, from_addresses } = self;
        let local = LocalAddresses::new(snapshot);
        let (ordinary, more) = match asked.only {
            Some(only) => (only.len(), 0),
            None => {
                let bound = reach::bound_by_route(sockets, &local).len();
                (reach::destinations(snapshot, &local).len() + bound, asked.more.len())
            }
        };
        let own: BTreeSet<_> =
            reach::services(sockets).into_iter().chain(asked.services.iter().copied()).collect();
        let mut services = own.len();
        if opened {
            let without_port = sockets.iter().filter(|socket| socket.port == 0);
            let chosen: BTreeSet<_> =
                without_port.map(|socket| (socket.protocol, socket.listener.as_str())).collect();
            services += chosen.len();
        }
        let addresses = if from_addresses { snapshot.addresses().count() } else { 0 };
        let links = reach::sources(snapshot).len().saturating_sub(1);
        let from_links = links.saturating_mul(ordinary);
        let from_host = (ordinary + more).saturating_mul(1 + addresses);
        let of_sockets = from_links.saturating_add(from_host).saturating_mul(services);
        of_sockets.saturating_add(ordinary.saturating_mul(asked.ports.len()))
    }
}
