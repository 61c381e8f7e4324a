//! Changes of the network, told with the sockets that they concern.

use std::collections::HashMap;
use std::net::IpAddr;

use super::Observer;
use super::served_sockets::Served;
use super::worker::Worker;
use crate::model::addr::needs_zone;
use crate::model::{Change, IfName, SocketView};

impl Worker {
    /// Tells of changes, sorted. A socket stays bound to a device that gets another name: from there on it goes by that.
    pub(super) fn tell_changes(&mut self, changes: &[Change], observer: &mut impl Observer) {
        // All at once, since two interfaces may have swapped their names.
        let names: HashMap<&IfName, &IfName> = changes
            .iter()
            .filter_map(|change| match change {
                Change::InterfaceRenamed { interface, before } => Some((before, interface)),
                _ => None,
            })
            .collect();
        let mut renamed = names.is_empty();
        for change in changes {
            // What was removed is told by the names of before.
            if !renamed && matches!(change, Change::InterfaceRenamed { .. }) {
                for served in self.served.iter_mut().filter(|served| served.same_netns) {
                    let view = served.view();
                    if let Some(name) = view.device.as_ref().and_then(|device| names.get(device)) {
                        let device = Some((*name).clone());
                        served.renamed = Some(Box::new(SocketView { device, ..view.clone() }));
                    }
                }
                renamed = true;
            }
            self.tell_change(change, observer);
        }
    }

    /// Tells of a change and of the sockets that it concerns. Linux leaves a socket open whose address went away.
    fn tell_change(&self, change: &Change, observer: &mut impl Observer) {
        let views = |wanted: &dyn Fn(&SocketView) -> bool| -> Vec<&SocketView> {
            let same_netns = self.served.iter().filter(|served| served.same_netns);
            same_netns.map(Served::view).filter(|view| wanted(view)).collect()
        };
        let on = |view: &SocketView, name: &IfName| view.device.as_ref() == Some(name);
        let has = |view: &SocketView, address: IpAddr, name: &IfName| {
            view.address.to_canonical() == address && (!needs_zone(address) || on(view, name))
        };
        let nowhere = |address: IpAddr| {
            let book = self.neighbourhood.book(true);
            book.is_none_or(|book| !book.is_local(address, None))
        };
        let (lost, found) = match change {
            Change::AddressRemoved { address, interface } if nowhere(*address) => {
                (views(&|view| has(view, *address, interface)), Vec::new())
            }
            Change::AddressAdded { address, interface } => {
                (Vec::new(), views(&|view| has(view, *address, interface)))
            }
            Change::InterfaceRemoved { interface } => (views(&|view| on(view, interface)), Vec::new()),
            _ => (Vec::new(), Vec::new()),
        };
        observer.network_changed(change, &lost, &found);
    }
}
