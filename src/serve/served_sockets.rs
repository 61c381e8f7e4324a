//! The sockets that the loop serves, by number.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use super::Observer;
use super::backoff::Backoff;
use super::error::ServeError;
use crate::model::{FamilyExposure, SocketView};
use crate::serve::bind::Bound;

/// A socket that is served.
pub(super) struct Served {
    pub(super) bound: Arc<Bound>,
    /// What it is since its device got another name, or its exposure changed.
    pub(super) changed: Option<Box<SocketView>>,
    /// The widest exposure that was reported.
    pub(super) reported: FamilyExposure,
    pub(super) inherited: bool,
    /// In the namespace of this process, so that its snapshot speaks of this socket too.
    pub(super) same_netns: bool,
    pub(super) backoff: Backoff,
    pub(super) resumes: Option<Instant>,
    pub(super) given_up: bool,
    /// Its open connections, on all threads.
    pub(super) open: Arc<AtomicU32>,
    /// How many more times one connection is taken without a look at the queue.
    pub(super) unasked: u32,
    pub(super) lost_in_queue: u32,
    /// The count of changed names by which `suspects` was set.
    pub(super) epoch: u64,
    /// How many of the next connections may have arrived before the last change of a name.
    pub(super) suspects: u32,
}

impl Served {
    /// A socket of which `open` connections are open on all threads, and which has lost so many datagrams so far.
    pub(super) fn new(
        bound: Arc<Bound>,
        inherited: bool,
        same_netns: bool,
        open: Arc<AtomicU32>,
        lost_in_queue: u32,
    ) -> Served {
        Served {
            reported: bound.view.exposure,
            bound,
            changed: None,
            inherited,
            same_netns,
            backoff: Backoff::default(),
            resumes: None,
            given_up: false,
            open,
            unasked: 0,
            lost_in_queue,
            epoch: 0,
            suspects: 0,
        }
    }

    /// The socket as it is now.
    pub(super) fn view(&self) -> &SocketView {
        self.changed.as_deref().unwrap_or(&self.bound.view)
    }

    /// Counts what was lost since the last time; `lost` is the kernel's count of the socket.
    pub(super) fn count_lost(&mut self, lost: u32, observer: &mut impl Observer) {
        let newly = lost.wrapping_sub(self.lost_in_queue);
        self.lost_in_queue = lost;
        observer.error(&ServeError::ReceiveQueueFull, u64::from(newly));
    }
}

/// Sockets by number, which is what the poller's keys name. The place of a retired socket is used again.
#[derive(Default)]
pub(super) struct Table {
    places: Vec<Option<Served>>,
    free: Vec<usize>,
}

impl Table {
    /// Adds a socket and returns its number.
    pub(super) fn insert(&mut self, served: Served) -> usize {
        match self.free.pop() {
            Some(number) => {
                if let Some(place) = self.places.get_mut(number) {
                    *place = Some(served);
                }
                number
            }
            None => {
                self.places.push(Some(served));
                self.places.len() - 1
            }
        }
    }

    /// One more than the highest number.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Served> {
        self.places.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Served> {
        self.places.iter_mut().flatten()
    }

    pub(super) fn get(&self, number: usize) -> Option<&Served> {
        self.places.get(number)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut Served> {
        self.places.get_mut(number)?.as_mut()
    }

    pub(super) fn take(&mut self, number: usize) -> Option<Served> {
        let taken = self.places.get_mut(number)?.take();
        self.free.extend(taken.is_some().then_some(number));
        taken
    }

    /// Takes all of them out.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Served> + use<> {
        self.free.clear();
        std::mem::take(&mut self.places).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Protocol, SocketSpec};

    fn served() -> Served {
        let spec = SocketSpec::plain(Protocol::Udp, [127, 0, 0, 1].into(), 0);
        let bound = crate::serve::bind::open(&spec, crate::model::FamilyExposure::default()).unwrap();
        Served::new(Arc::new(bound), false, true, Arc::default(), 0)
    }

    #[test]
    fn the_place_of_a_retired_socket_is_used_again() {
        let mut table = Table::default();
        for _ in 0..3 {
            table.insert(served());
        }
        for _ in 0..100 {
            assert!(table.take(1).is_some() && table.take(1).is_none());
            assert_eq!(table.insert(served()), 1);
        }
        assert_eq!((table.len(), table.iter().count(), table.take_all().count()), (3, 3, 3));
        assert_eq!(table.insert(served()), 0);
    }
}
