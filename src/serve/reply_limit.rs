//! Limits for replies to datagrams. A reply goes to the address that the datagram claims as its source. A reply must
//! therefore not be larger than the datagram, replies must be few, and a reply must not trigger another reply. Pure:
//! the time is a parameter.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::reply::DATAGRAM_MARK;

/// Maximum number of replies to a client at once.
const BURST: u32 = 32;

/// Time until a client may receive one more reply after its burst.
const REFILL: Duration = Duration::from_millis(100);

/// Maximum number of remembered clients. While all of them are active, a further one receives no reply.
const PEERS: usize = 1024;

/// A datagram that repeats a recent reply to its sender may be that reply, sent back. This is the time limit.
const ECHO: Duration = Duration::from_secs(10);

/// Number of allowed repetitions: a client that sends the same datagram again is not a loop.
const REPEATS: usize = 3;

/// Source ports below this one belong to services, some of which reply to every datagram (echo 7, chargen 19, DNS 53).
/// The port of a client is higher (RFC 6056, 3.2).
const FIRST_CLIENT_PORT: u16 = 1024;

/// Why a datagram gets no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withheld {
    /// The source port belongs to a service.
    ServicePort,
    /// The datagram is a reply of a program like this one, or a reply of this program, sent back.
    LooksLikeReply,
    /// The sender, or all senders together, received too many replies.
    TooMany,
}

impl std::fmt::Display for Withheld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Withheld::ServicePort => "the source port is that of a service",
            Withheld::LooksLikeReply => "they look like replies",
            Withheld::TooMany => "too many from one sender",
        })
    }
}

/// One client: an IPv4 address, or an IPv6 network of 64 bits, from which one host can choose addresses.
struct Peer {
    /// Number of replies that it may receive, as of `since`.
    left: u32,
    since: Instant,
    /// Hashes of the last replies with their ports, and their times: as many as the limit allows within [`ECHO`].
    sent: VecDeque<(u64, Instant)>,
}

/// Decides about replies, and remembers their receivers.
#[derive(Default)]
pub(super) struct ReplyLimit {
    peers: HashMap<u128, Peer>,
    /// When old clients were last removed.
    pruned: Option<Instant>,
    /// Random, so that a sender cannot construct two texts with the same hash.
    hasher: RandomState,
}

impl ReplyLimit {
    /// The part of `reply` to send for a datagram of which `received` was read, or why there is none.
    pub(super) fn limit<'a>(
        &mut self,
        peer: SocketAddr,
        received: &[u8],
        reply: &'a [u8],
        now: Instant,
    ) -> Result<&'a [u8], Withheld> {
        if peer.port() < FIRST_CLIENT_PORT {
            return Err(Withheld::ServicePort);
        }
        if looks_like_reply(received) {
            return Err(Withheld::LooksLikeReply);
        }
        let key = key(peer.ip());
        if self.peers.len() >= PEERS && !self.peers.contains_key(&key) {
            // Clients that have their full allowance again and whose last reply is old are removed. A search at each
            // datagram would cost more than a reply.
            if self.pruned.is_none_or(|pruned| now.duration_since(pruned) >= Duration::from_secs(1)) {
                self.pruned = Some(now);
                self.peers.retain(|_, peer| now.duration_since(peer.since) < REFILL * BURST + ECHO);
            }
            if self.peers.len() >= PEERS {
                return Err(Withheld::TooMany);
            }
        }
        let hash = |bytes: &[u8]| {
            let mut hasher = self.hasher.build_hasher();
            hasher.write_u16(peer.port());
            hasher.write(bytes);
            hasher.finish()
        };
        let known = self.peers.entry(key).or_insert(Peer { left: BURST, since: now, sent: VecDeque::new() });
        while known.sent.front().is_some_and(|(_, sent)| now.duration_since(*sent) >= ECHO) {
            known.sent.pop_front();
        }
        let received_hash = hash(received);
        if known.sent.iter().filter(|(sent, _)| *sent == received_hash).count() >= REPEATS {
            return Err(Withheld::LooksLikeReply);
        }
        let refilled = now.duration_since(known.since).as_millis() / REFILL.as_millis();
        if refilled > 0 {
            known.left = known.left.saturating_add(u32::try_from(refilled).unwrap_or(BURST)).min(BURST);
            known.since = now;
        }
        let Some(left) = known.left.checked_sub(1) else { return Err(Withheld::TooMany) };
        known.left = left;
        let reply = &reply[..reply.len().min(received.len())];
        known.sent.push_back((hash(reply), now));
        Ok(reply)
    }
}

/// Whether it starts like a reply of this program, or is the start of one: a short datagram receives a short reply.
fn looks_like_reply(received: &[u8]) -> bool {
    let length = received.len().min(DATAGRAM_MARK.len());
    received[..length] == DATAGRAM_MARK[..length]
}

fn key(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(host: u8, port: u16) -> SocketAddr {
        ([192, 0, 2, host], port).into()
    }

    const REPLY: &[u8] = b"bindscope: your datagram from 192.0.2.1:7001 to 192.0.2.2:7001";

    #[test]
    fn a_reply_is_never_longer_than_the_datagram() {
        let (mut limit, now) = (ReplyLimit::default(), Instant::now());
        for length in [1, 2, 40, REPLY.len(), 500] {
            let sent = limit.limit(peer(1, 5000), &vec![b'x'; length], REPLY, now).unwrap();
            assert_eq!(sent, &REPLY[..length.min(REPLY.len())]);
        }
        assert_eq!(limit.limit(peer(1, 5000), b"", REPLY, now), Err(Withheld::LooksLikeReply));
    }

    #[test]
    fn what_looks_like_a_reply_is_not_answered() {
        let (mut limit, now) = (ReplyLimit::default(), Instant::now());
        for cut in 0..=REPLY.len() {
            let answer = limit.limit(peer(1, 5000), &REPLY[..cut], REPLY, now);
            assert_eq!(answer, Err(Withheld::LooksLikeReply), "{cut}");
        }
        assert!(limit.limit(peer(1, 5000), b"bindscope, please", REPLY, now).is_ok());
        for port in [0, 7, 19, 53, 123, 1023] {
            assert_eq!(limit.limit(peer(1, port), b"x", REPLY, now), Err(Withheld::ServicePort));
        }
    }

    /// Two echo servers, for any first datagram and any delay.
    #[test]
    fn two_that_echo_each_other_stop() {
        for millis in [0, 1, 200, 1000] {
            let (mut one, mut other) = (ReplyLimit::default(), ReplyLimit::default());
            let (mut now, mut sent, text) = (Instant::now(), 0, b"hello".as_slice());
            loop {
                now += Duration::from_millis(millis);
                if one.limit(peer(2, 7001), text, text, now).is_err() {
                    break;
                }
                now += Duration::from_millis(millis);
                if other.limit(peer(1, 7001), text, text, now).is_err() {
                    break;
                }
                sent += 2;
                assert!(sent < 10, "after {millis} ms each");
            }
        }
    }

    #[test]
    fn a_sender_gets_few_replies_whatever_port_it_claims() {
        let (mut limit, start) = (ReplyLimit::default(), Instant::now());
        let mut replies = |host, from: Duration| {
            (0..1000u16)
                .filter(|number| {
                    let text = number.to_be_bytes();
                    limit.limit(peer(host, 2000 + number), &text, REPLY, start + from).is_ok()
                })
                .count()
        };
        assert_eq!(replies(1, Duration::ZERO), BURST as usize);
        assert_eq!(replies(1, REFILL * 3), 3);
        assert_eq!(replies(2, REFILL * 3), BURST as usize, "another one has its own");
        assert_eq!(replies(1, Duration::from_secs(60)), BURST as usize);
    }

    #[test]
    fn senders_without_end_take_no_memory_without_end() {
        let (mut limit, start) = (ReplyLimit::default(), Instant::now());
        let from = |number: u32| SocketAddr::from((number.to_be_bytes(), 5000));
        let answered = (0..100_000).filter(|number| limit.limit(from(*number), b"x", REPLY, start).is_ok());
        assert_eq!(answered.count(), PEERS);
        assert_eq!(limit.peers.len(), PEERS);
        let later = start + Duration::from_secs(20);
        assert!(limit.limit(from(200_000), b"x", REPLY, later).is_ok());
        assert_eq!(limit.peers.len(), 1);
        // One host has 2^64 IPv6 addresses.
        let one = |number: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, number], 5000));
        let answered = (0..1000).filter(|number| limit.limit(one(*number), b"x", REPLY, later).is_ok());
        assert_eq!(answered.count(), BURST as usize);
    }
}
