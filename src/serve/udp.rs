//! Datagrams: received, attributed, reported and answered.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant, SystemTime};

use super::Observer;
use super::error::ServeError;
use super::interface_names::Period;
use super::token::Token;
use super::worker::{LONG_AGO, Order, Worker, bound_address};
use crate::attribute::{Raw, attribute_into};
use crate::model::socket::Reply;
use crate::model::{Evidence, Protocol};
use crate::reply::line;
use crate::sys::{self, packet_info};

impl Worker {
    /// Receives as many datagrams as wait, at most `most`.
    pub(super) fn receive_some(
        &mut self,
        number: usize,
        most: u32,
        observer: &mut impl Observer,
    ) -> ControlFlow<()> {
        let mut order = if self.order.is_empty() { None } else { self.order.remove(&number) };
        let mut is_first = true;
        for _ in 0..most {
            let Some(served) = self.served.get_mut(number) else { break };
            let bound = &served.bound;
            if !self.crew.try_reserve() {
                break;
            }
            let datagram = match packet_info::receive(&bound.socket, &mut self.buffer) {
                Ok(datagram) => datagram,
                Err(error) => {
                    self.crew.release();
                    if self.failed(number, ServeError::Receive, &error, observer) {
                        continue;
                    }
                    break;
                }
            };
            let is_first = std::mem::take(&mut is_first);
            if let Some(lost) = datagram.dropped {
                served.count_lost(lost, observer);
            }
            let bound = &served.bound;
            let bound_to = bound_address(bound);
            let mut local =
                datagram.destination.map_or(bound_to, |address| SocketAddr::new(address, bound_to.port()));
            if let (SocketAddr::V6(local), Some(index)) = (&mut local, datagram.index)
                && (local.ip().is_unicast_link_local() || is_link_multicast(*local.ip()))
            {
                local.set_scope_id(index);
            }
            if let Some(index) = datagram.index {
                let now = Instant::now();
                self.clock.look(now, SystemTime::now());
                // Where the time is not known, it is any time.
                let long_ago = now.checked_sub(LONG_AGO).unwrap_or(now);
                let arrived = datagram.received_at.and_then(|time| self.clock.moment(time));
                let mut arrived = arrived.unwrap_or(Period { after: long_ago, by: now });
                let epoch = self.neighbourhood.epoch();
                self.neighbourhood.note_changes_until(arrived.by);
                // The poller reported the socket, and no change: the first datagram arrived before any change that is noticed now.
                if is_first
                    && self.quiet
                    && self.neighbourhood.epoch() != epoch
                    && !self.previous.contains(&Token::Socket(number).key())
                {
                    let change = self.neighbourhood.last_change();
                    order = change.map(|change| Order::FirstBefore(change.after)).or(order);
                }
                let changed = self.neighbourhood.changed();
                let may_be_older = changed.is_some_and(|changed| arrived.after <= changed);
                if let Some(Order::FirstBefore(change)) = order {
                    order = None;
                    arrived.by =
                        arrived.by.min(change.checked_sub(Duration::from_nanos(1)).unwrap_or(change));
                }
                let arrived = Some(arrived).filter(|_| may_be_older && order != Some(Order::AllAfter));
                self.neighbourhood.learn(&bound.socket, index, served.same_netns, arrived);
            }
            let (kernel, sure) = datagram.index.map(|index| self.neighbourhood.ingress(index)).unzip();
            let book = self.neighbourhood.book(served.same_netns);
            let spec = &bound.spec;
            let raw =
                Raw { listener: &spec.listener, protocol: Protocol::Udp, peer: datagram.peer, local, kernel };
            attribute_into(&mut self.arrival, &raw, book);
            if sure == Some(false) {
                self.arrival.ingress.evidence = Evidence::Unknown;
            }
            let length = datagram.length.min(self.buffer.len());
            let received = self.buffer.get(..length).unwrap_or_default();
            let described;
            let reply = match spec.reply {
                Reply::None => None,
                Reply::Echo => Some(received),
                Reply::Describe => {
                    described = line(&self.arrival);
                    Some(described.as_slice())
                }
            };
            let limited =
                reply.map(|reply| self.replies.limit(datagram.peer, received, reply, Instant::now()));
            match limited {
                None => {}
                Some(Err(withheld)) => observer.error(&ServeError::Withheld(withheld), 1),
                Some(Ok(reply)) => {
                    let sent = packet_info::send(&bound.socket, reply, datagram.peer, datagram.reply_from);
                    if let Err(error) = sent {
                        observer.error(&ServeError::Answer(sys::errno_of(&error)), 1);
                    }
                }
            }
            observer.arrived(
                &self.arrival,
                Some((datagram.length, datagram.truncated)),
                datagram.received_at,
            );
            if self.crew.commit() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

/// ff01::/16 and ff02::/16: groups that mean another one on each link (RFC 4291, 2.7).
fn is_link_multicast(address: std::net::Ipv6Addr) -> bool {
    matches!(address.segments()[0] & 0xff0f, 0xff01 | 0xff02)
}
