//! Datagrams: received, attributed, told and answered.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Instant;

use super::Observer;
use super::worker::{Worker, bound_address};
use crate::attribute::{Raw, attribute_into};
use crate::model::Protocol;
use crate::model::socket::Reply;
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
                    if self.failed(number, "receive", &error, observer) {
                        continue;
                    }
                    break;
                }
            };
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
                self.neighbourhood.learn(&bound.socket, index, served.same_netns);
            }
            let kernel = datagram.index.map(|index| self.neighbourhood.ingress(index));
            let book = self.neighbourhood.book(served.same_netns);
            let spec = &bound.spec;
            let raw =
                Raw { listener: &spec.listener, protocol: Protocol::Udp, peer: datagram.peer, local, kernel };
            attribute_into(&mut self.arrival, &raw, book);
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
                Some(Err(withheld)) => observer.error(withheld.kind(), 1),
                Some(Ok(reply)) => {
                    let sent = packet_info::send(&bound.socket, reply, datagram.peer, datagram.reply_from);
                    if let Err(error) = sent {
                        observer.error(&format!("answer a datagram: {}", sys::errno_of(&error)), 1);
                    }
                }
            }
            observer.arrived(&self.arrival, Some((datagram.length, datagram.truncated)));
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
