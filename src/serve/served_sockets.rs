//! The sockets that the loop serves, by number.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use super::Observer;
use super::backoff::Backoff;
use crate::model::SocketView;
use crate::serve::bind::Bound;

/// A socket that is served.
pub(super) struct Served {
    pub(super) bound: Arc<Bound>,
    /// What it is since its device has another name.
    pub(super) renamed: Option<Box<SocketView>>,
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
}

impl Served {
    /// The socket as it is now.
    pub(super) fn view(&self) -> &SocketView {
        self.renamed.as_deref().unwrap_or(&self.bound.view)
    }

    /// Counts what was lost since the last time; `lost` is the kernel's count of the socket.
    pub(super) fn count_lost(&mut self, lost: u32, observer: &mut impl Observer) {
        let newly = lost.wrapping_sub(self.lost_in_queue);
        self.lost_in_queue = lost;
        observer.error("datagrams lost in a full receive queue", u64::from(newly));
    }
}

/// Sockets by number, which is what the poller's keys and the connections name; a retired one leaves its place empty.
#[derive(Default)]
pub(super) struct Table(pub(super) Vec<Option<Served>>);

impl Table {
    pub(super) fn get(&self, number: usize) -> Option<&Served> {
        self.0.get(number)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut Served> {
        self.0.get_mut(number)?.as_mut()
    }

    pub(super) fn take(&mut self, number: usize) -> Option<Served> {
        self.0.get_mut(number)?.take()
    }
}
