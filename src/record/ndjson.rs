//! NDJSON lines of arrivals and of bound sockets, byte for byte as serde writes them. Most lines of a socket differ
//! only in time and peer, so the rest is cached. Writing these lines is a tenth of the instructions of a busy server
//! (`cargo bench --bench cost` counts them).

use serde::Serialize;

use super::event::{ArrivalEvent, BoundSocket, Event};
use super::time::{Time, set_digits};
use crate::model::{Arrival, addr};

/// Maximum number of cached kinds of lines.
const KINDS: usize = 64;

/// The text before the time, and the placeholder for the time in cached text.
const BEFORE_TIME: &str = "{\"event\":\"accepted\",\"time\":\"";
const SOME_TIME: &str = "1970-01-01T00:00:00.000000Z";

/// The text before the peer's address. No name contains it, because a quotation mark in a name is escaped with a
/// backslash.
const BEFORE_ADDRESS: &[u8] = b"\"peer\":{\"address\":\"";

/// Writes lines.
#[derive(Debug)]
pub struct Lines {
    second: i64,
    /// Text of the current second, up to and including the decimal point; empty before the first line.
    head: String,
    known: [Option<Kind>; KINDS],
}

/// A cache of lines that differ only in time, peer address and peer port.
#[derive(Debug)]
struct Kind {
    /// One cached line.
    like: Arrival,
    /// The text from the end of the time to the peer's address.
    middle: Vec<u8>,
    /// The text after the peer's port.
    rest: Vec<u8>,
}

impl Default for Lines {
    fn default() -> Lines {
        Lines { second: 0, head: String::new(), known: [const { None }; KINDS] }
    }
}

impl Lines {
    /// Appends the line of an arrival with its newline to `out`. For a datagram it includes the length in bytes and
    /// whether only the beginning was read.
    pub fn arrival(
        &mut self,
        out: &mut Vec<u8>,
        time: Time,
        arrival: &Arrival,
        datagram: Option<(usize, bool)>,
    ) {
        if let Some((bytes, truncated)) = datagram {
            return whole(out, &ArrivalEvent::Datagram { time, arrival, bytes, truncated });
        }
        self.set_second(time);
        let place = usize::from(arrival.local.port)
            ^ arrival.ingress.index.map_or(0, |index| index as usize * 8)
            ^ usize::from(arrival.peer_is_local == Some(true));
        let place = &mut self.known[place % KINDS];
        if !place.as_ref().is_some_and(|kind| kind.has(arrival)) {
            *place = Kind::new(arrival);
        }
        let Some(kind) = place else {
            return whole(out, &ArrivalEvent::Accepted { time, arrival, over_limit: false });
        };
        out.extend_from_slice(BEFORE_TIME.as_bytes());
        out.extend_from_slice(self.head.as_bytes());
        let mut fraction = *b"000000Z";
        set_digits(&mut fraction[..6], time.parts().1);
        out.extend_from_slice(&fraction);
        out.extend_from_slice(&kind.middle);
        addr::push(out, arrival.peer.address);
        out.extend_from_slice(b"\",\"port\":");
        out.extend_from_slice(itoa::Buffer::new().format(arrival.peer.port).as_bytes());
        out.extend_from_slice(&kind.rest);
    }

    fn set_second(&mut self, time: Time) {
        let (second, _) = time.parts();
        if self.second != second || self.head.is_empty() {
            self.second = second;
            self.head = time.to_string();
            // The six decimals and the Z are written for each line.
            self.head.truncate(self.head.len().saturating_sub("000000Z".len()));
        }
    }
}

/// The text before the port of a socket. No name contains it, as with [`BEFORE_ADDRESS`].
const BEFORE_PORT: &[u8] = b",\"port\":";

/// Writes the lines of opened sockets. The lines of a port range differ only in the port.
#[derive(Debug, Default)]
pub struct BoundLines {
    known: Option<BoundKind>,
}

/// A cache of sockets that differ only in the port.
#[derive(Debug)]
struct BoundKind {
    /// One cached line.
    like: BoundSocket,
    /// The text before the port.
    before: Vec<u8>,
    /// The text after the port.
    behind: Vec<u8>,
}

impl BoundLines {
    /// Appends the line of [`Event::Bound`] with its newline to `out`.
    pub fn bound(&mut self, out: &mut Vec<u8>, bound: &BoundSocket) {
        if !self.known.as_mut().is_some_and(|kind| kind.has(bound)) {
            self.known = BoundKind::new(bound);
        }
        let Some(kind) = &self.known else { return whole(out, &Event::Bound(bound.clone())) };
        out.extend_from_slice(&kind.before);
        out.extend_from_slice(itoa::Buffer::new().format(bound.socket.port).as_bytes());
        out.extend_from_slice(&kind.behind);
    }
}

impl BoundKind {
    /// `None` would mean a line without a port.
    fn new(bound: &BoundSocket) -> Option<BoundKind> {
        let mut line = Vec::new();
        whole(&mut line, &Event::Bound(bound.clone()));
        let port = line.windows(BEFORE_PORT.len()).position(|bytes| bytes == BEFORE_PORT)?;
        let (before, behind) = line.split_at_checked(port + BEFORE_PORT.len())?;
        let digits = behind.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let behind = behind.get(digits..)?.to_vec();
        Some(BoundKind { like: bound.clone(), before: before.to_vec(), behind })
    }

    /// Whether the sockets differ only in the port.
    fn has(&mut self, bound: &BoundSocket) -> bool {
        self.like.socket.port = bound.socket.port;
        self.like == *bound
    }
}

/// Appends the line of a connection that was closed immediately because its listener had its maximum of connections.
pub fn over_limit(out: &mut Vec<u8>, time: Time, arrival: &Arrival) {
    whole(out, &ArrivalEvent::Accepted { time, arrival, over_limit: true });
}

fn whole(out: &mut Vec<u8>, event: &impl Serialize) {
    // Events have string keys only, so they always have a JSON form, and a vector always has room.
    let _ = serde_json::to_writer(&mut *out, event);
    out.push(b'\n');
}

impl Kind {
    /// `None` would mean a line without a peer.
    fn new(arrival: &Arrival) -> Option<Kind> {
        let time = Time::new(std::time::UNIX_EPOCH);
        let line = serde_json::to_vec(&ArrivalEvent::Accepted { time, arrival, over_limit: false }).ok()?;
        let behind_time = BEFORE_TIME.len() + SOME_TIME.len();
        let address = line.windows(BEFORE_ADDRESS.len()).position(|bytes| bytes == BEFORE_ADDRESS)?;
        let address = address + BEFORE_ADDRESS.len();
        let mut peer = Vec::new();
        addr::push(&mut peer, arrival.peer.address);
        peer.extend_from_slice(b"\",\"port\":");
        peer.extend_from_slice(itoa::Buffer::new().format(arrival.peer.port).as_bytes());
        let middle = line.get(behind_time..address)?.to_vec();
        let mut rest = line.get(address + peer.len()..)?.to_vec();
        rest.push(b'\n');
        Some(Kind { like: arrival.clone(), middle, rest })
    }

    fn has(&self, arrival: &Arrival) -> bool {
        let Arrival {
            listener,
            protocol,
            family,
            v4_mapped,
            peer,
            local,
            ingress,
            address_owner,
            peer_is_local,
        } = &self.like;
        *local == arrival.local
            && *ingress == arrival.ingress
            && *peer_is_local == arrival.peer_is_local
            && *address_owner == arrival.address_owner
            && *listener == arrival.listener
            && (*protocol, *family, *v4_mapped) == (arrival.protocol, arrival.family, arrival.v4_mapped)
            && peer.scope_id == arrival.peer.scope_id
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Endpoint, Evidence, Family, IfName, Ingress, Protocol, SocketView};
    use crate::record::event::Backlog;

    fn endpoints() -> impl Strategy<Value = Endpoint> {
        let address = prop_oneof![
            any::<u32>().prop_map(|v4| IpAddr::V4(v4.into())),
            any::<u128>().prop_map(|v6| IpAddr::V6(v6.into()))
        ];
        (address, any::<u16>(), any::<Option<u32>>()).prop_map(|(address, port, scope_id)| Endpoint {
            address,
            port,
            scope_id,
        })
    }

    fn names() -> impl Strategy<Value = Option<IfName>> {
        let bytes = prop_oneof![
            "[a-z0-9\"\\\\]{1,15}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 1..15)
        ];
        proptest::option::of(bytes.prop_map(|bytes| IfName::from_bytes(&bytes)))
    }

    fn arrivals() -> impl Strategy<Value = Arrival> {
        let kinds = (
            prop_oneof!["[a-z0-9-]{1,20}", any::<String>()],
            prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)],
            prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)],
            prop_oneof![
                Just(Evidence::Kernel),
                Just(Evidence::ScopeId),
                Just(Evidence::Address),
                Just(Evidence::Unknown)
            ],
        );
        let rest = (
            endpoints(),
            endpoints(),
            any::<Option<u32>>(),
            names(),
            names(),
            any::<bool>(),
            any::<Option<bool>>(),
        );
        (kinds, rest).prop_map(
            |(
                (listener, protocol, family, evidence),
                (peer, local, index, name, address_owner, v4_mapped, peer_is_local),
            )| Arrival {
                listener,
                protocol,
                family,
                v4_mapped,
                peer,
                local,
                ingress: Ingress { index, name, evidence },
                address_owner,
                peer_is_local,
            },
        )
    }

    proptest! {
        /// Lines of few sockets, so that many are of one kind, with single fields changed.
        #[test]
        fn lines_are_what_serde_writes(
            some in prop::collection::vec(arrivals(), 1..4),
            steps in prop::collection::vec(
                (0..4_usize, endpoints(), 0..12, arrivals(), 0..3_000_000_u64, proptest::option::of((any::<usize>(), any::<bool>()))),
                1..20,
            ),
        ) {
            let (mut lines, mut out, mut expected) = (Lines::default(), Vec::new(), Vec::new());
            for (which, peer, changed, other, micros, datagram) in steps {
                let mut arrival = some[which % some.len()].clone();
                (arrival.peer.address, arrival.peer.port) = (peer.address, peer.port);
                match changed {
                    0 => arrival.listener = other.listener,
                    1 => arrival.peer.scope_id = other.peer.scope_id,
                    2 => arrival.ingress.name = other.ingress.name,
                    3 => arrival.address_owner = other.address_owner,
                    4 => arrival.peer_is_local = other.peer_is_local,
                    5 => arrival.local.address = other.local.address,
                    6 => arrival.ingress.evidence = other.ingress.evidence,
                    7 => (arrival.family, arrival.v4_mapped) = (other.family, other.v4_mapped),
                    8 => arrival.protocol = other.protocol,
                    9 => arrival = other,
                    _ => {}
                }
                let arrival = &arrival;
                // Times within three seconds, so that some lines share a second.
                let time = Time::new(UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_000 + micros));
                lines.arrival(&mut out, time, arrival, datagram);
                let event = match datagram {
                    None => ArrivalEvent::Accepted { time, arrival, over_limit: false },
                    Some((bytes, truncated)) => ArrivalEvent::Datagram { time, arrival, bytes, truncated },
                };
                serde_json::to_writer(&mut expected, &event).unwrap();
                expected.push(b'\n');
            }
            prop_assert_eq!(String::from_utf8(out), String::from_utf8(expected));
        }

        /// Consecutive sockets that differ in one or two fields.
        #[test]
        fn bound_lines_are_what_serde_writes(
            steps in prop::collection::vec((any::<u16>(), 0..14, arrivals(), any::<Option<bool>>()), 1..20),
        ) {
            let (mut lines, mut out, mut expected) = (BoundLines::default(), Vec::new(), Vec::new());
            let mut bound = BoundSocket {
                socket: SocketView {
                    listener: Some("a".to_owned()),
                    reuse_address: Some(true),
                    ..SocketView::of(Protocol::Tcp, [127, 0, 0, 1].into(), 0)
                },
                backlog: None,
                packet_info_errno: None,
                inherited: false,
            };
            for (port, changed, other, truth) in steps {
                let socket = &mut bound.socket;
                socket.port = port;
                match changed {
                    0 => socket.listener = truth.map(|_| other.listener),
                    1 => socket.address = other.local.address,
                    2 => socket.device = other.ingress.name,
                    3 => socket.scope_id = other.local.scope_id,
                    4 => socket.v6only = truth,
                    5 => socket.reuse_port = truth,
                    6 => socket.reuse_address = truth,
                    7 => (socket.protocol, socket.family) = (other.protocol, other.family),
                    8 => socket.exposure.ipv4 = crate::model::Exposure::Link,
                    9 => bound.inherited = !bound.inherited,
                    10 => bound.packet_info_errno = truth.map(|_| crate::model::Errno::EPERM),
                    11 => bound.backlog = other.local.scope_id.map(|effective| {
                        Backlog { requested: other.peer.scope_id, effective: Some(effective) }
                    }),
                    _ => {}
                }
                lines.bound(&mut out, &bound);
                serde_json::to_writer(&mut expected, &Event::Bound(bound.clone())).unwrap();
                expected.push(b'\n');
            }
            prop_assert_eq!(String::from_utf8(out), String::from_utf8(expected));
        }
    }
}
