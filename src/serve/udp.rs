//! Datagrams: received, attributed, told and answered.

use std::net::SocketAddr;
use std::ops::ControlFlow;

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
            if let Some(lost) = datagram.lost_in_queue {
                served.count_lost(lost, observer);
            }
            let bound = &served.bound;
            let bound_to = bound_address(bound);
            let mut local =
                datagram.local.map_or(bound_to, |address| SocketAddr::new(address, bound_to.port()));
            if let (SocketAddr::V6(local), Some(index)) = (&mut local, datagram.ingress)
                && (local.ip().is_unicast_link_local() || is_link_multicast(*local.ip()))
            {
                local.set_scope_id(index);
            }
            if let Some(index) = datagram.ingress {
                self.neighbourhood.learn(&bound.socket, index, served.same_netns);
            }
            let kernel = datagram.ingress.map(|index| self.neighbourhood.ingress(index));
            let book = self.neighbourhood.book(served.same_netns);
            let spec = &bound.spec;
            let raw =
                Raw { listener: &spec.listener, protocol: Protocol::Udp, peer: datagram.peer, local, kernel };
            attribute_into(&mut self.arrival, &raw, book);
            let arrival = &self.arrival;
            let length = datagram.length.min(self.buffer.len());
            let answer = match spec.reply {
                Reply::None => None,
                Reply::Echo => self.buffer.get(..length).map(<[u8]>::to_vec),
                Reply::Describe => Some(line(arrival)),
            };
            let to_ourselves =
                arrival.peer_is_local == Some(true) && self.is_our_udp_port(datagram.peer.port());
            // Two sockets of ours that answer each other would never stop.
            if let Some(answer) = answer.filter(|_| !to_ourselves)
                && let Some(served) = self.served.get(number)
                && let Err(error) =
                    packet_info::send(&served.bound.socket, &answer, datagram.peer, datagram.reply_from)
            {
                observer.error(&format!("answer a datagram: {}", sys::errno_of(&error)), 1);
            }
            observer.arrived(&self.arrival, Some((datagram.length, datagram.truncated)));
            if self.crew.commit() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn is_our_udp_port(&self, port: u16) -> bool {
        self.served
            .0
            .iter()
            .flatten()
            .any(|served| served.bound.spec.protocol == Protocol::Udp && served.bound.view.port == port)
    }
}

/// ff01::/16 and ff02::/16: groups that mean another one on each link (RFC 4291, 2.7).
fn is_link_multicast(address: std::net::Ipv6Addr) -> bool {
    matches!(address.segments()[0] & 0xff0f, 0xff01 | 0xff02)
}
