//! Changes of the network, reported with the sockets that they concern.

use std::collections::HashMap;
use std::net::IpAddr;

use super::Observer;
use super::served_sockets::Served;
use super::worker::Worker;
use crate::model::addr::needs_zone;
use crate::model::{Change, FamilyExposure, IfName, Snapshot, SocketView};
use crate::plan::exposure::{Exposer, Facts};

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
            // What was removed is reported by its previous name.
            if !renamed && matches!(change, Change::InterfaceRenamed { .. }) {
                for served in self.served.iter_mut().filter(|served| served.same_netns) {
                    let view = served.view();
                    if let Some(name) = view.device.as_ref().and_then(|device| names.get(device)) {
                        let device = Some((*name).clone());
                        served.changed = Some(Box::new(SocketView { device, ..view.clone() }));
                    }
                }
                renamed = true;
            }
            self.tell_change(change, observer);
        }
        self.report_exposures(observer);
    }

    /// Reports sockets that more hosts can reach than was ever reported. A narrower exposure is not reported.
    fn report_exposures(&mut self, observer: &mut impl Observer) {
        let Some(snapshot) = self.neighbourhood.snapshot() else { return };
        let exposer = Exposer::new(&snapshot);
        // Neighbours in a range of ports are exposed alike.
        let mut last: Option<(SocketView, Option<u32>, FamilyExposure)> = None;
        let mut before = Vec::new();
        for (number, served) in self.served.iter_mut().enumerate().filter(|(_, served)| served.same_netns) {
            let (view, index) = (served.view(), served.bound.device_index);
            let alike = |other: &SocketView| {
                SocketView {
                    port: view.port,
                    listener: view.listener.clone(),
                    exposure: view.exposure,
                    ..other.clone()
                } == *view
            };
            let now = match &last {
                Some((other, device, exposure)) if *device == index && alike(other) => *exposure,
                _ => {
                    let exposure = exposure_now(view, index, &snapshot, &exposer);
                    last = Some((view.clone(), index, exposure));
                    exposure
                }
            };
            if now != view.exposure {
                let view = SocketView { exposure: now, ..view.clone() };
                served.changed = Some(Box::new(view));
            }
            let reported = served.reported;
            let widest =
                FamilyExposure { ipv4: reported.ipv4.max(now.ipv4), ipv6: reported.ipv6.max(now.ipv6) };
            if widest != reported {
                before.push((number, reported));
                served.reported = widest;
            }
        }
        if before.is_empty() {
            return;
        }
        let mut changed = before.iter().peekable();
        let sockets: Vec<_> = (self.served.iter().enumerate())
            .filter_map(|(number, served)| {
                let (_, before) = changed.next_if(|(changed, _)| *changed == number)?;
                Some((served.view(), *before))
            })
            .collect();
        observer.exposure_changed(&sockets);
    }

    /// Tells of a change and of the sockets that it concerns. Linux leaves a socket open whose address went away.
    fn tell_change(&self, change: &Change, observer: &mut impl Observer) {
        let on = |view: &SocketView, name: &IfName| view.device.as_ref() == Some(name);
        let snapshot = self.neighbourhood.snapshot();
        let is_here = |index| snapshot.as_ref().is_none_or(|snapshot| snapshot.interface(index).is_some());
        // A socket stays on the index of its device, which a new interface of the same name has not.
        let views = |on_device: bool, wanted: &dyn Fn(&SocketView) -> bool| -> Vec<&SocketView> {
            let alive = |served: &&Served| served.bound.device_index.is_none_or(is_here) == on_device;
            let same_netns = self.served.iter().filter(|served| served.same_netns);
            same_netns.filter(alive).map(Served::view).filter(|view| wanted(view)).collect()
        };
        let has = |view: &SocketView, address: IpAddr, name: &IfName| {
            view.address.to_canonical() == address && (!needs_zone(address) || on(view, name))
        };
        let nowhere = |address: IpAddr| {
            let book = self.neighbourhood.book(true);
            book.is_none_or(|book| !book.is_local(address, None))
        };
        let (lost, found) = match change {
            Change::AddressRemoved { address, interface } if nowhere(*address) => {
                (views(true, &|view| has(view, *address, interface)), Vec::new())
            }
            Change::AddressAdded { address, interface } => {
                (Vec::new(), views(true, &|view| has(view, *address, interface)))
            }
            Change::InterfaceRemoved { interface } => (views(false, &|view| on(view, interface)), Vec::new()),
            _ => (Vec::new(), Vec::new()),
        };
        observer.network_changed(change, &lost, &found);
    }
}

/// Who can reach a socket that is open. `index` is that of its device, whose name may be another one's by now.
fn exposure_now(
    view: &SocketView,
    index: Option<u32>,
    snapshot: &Snapshot,
    exposer: &Exposer<'_>,
) -> FamilyExposure {
    let facts = Facts::of_view(view);
    let Some(index) = index else { return exposer.exposure(&facts) };
    match snapshot.interface(index) {
        Some(interface) => exposer.exposure(&Facts { device: Some(&interface.name), ..facts }),
        None => FamilyExposure::default(),
    }
}
