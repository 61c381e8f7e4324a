//! Control messages as the Linux kernel lays them out (`cmsg(3)`). Reads and writes bytes; calls nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use crate::kernel::{Received, Recorded};

/// Room for two packet informations, a time to live, the drop counter and a time stamp.
pub(super) const CONTROL_LEN: usize = 256;

/// Length of a `cmsghdr` in bytes.
const HEADER: usize = size_of::<libc::cmsghdr>();

/// One control message.
struct Message<'a> {
    level: i32,
    kind: i32,
    data: &'a [u8],
}

/// Iterates over the messages of a buffer. Ends at the first message that is malformed.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    #[inline]
    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::from_ne_bytes(*self.0.first_chunk()?);
        let message = self.0.get(..length).filter(|message| message.len() >= HEADER)?;
        let (header, data) = message.split_at(HEADER);
        let (level, kind) = (number(header, HEADER - 8)?, number(header, HEADER - 4)?);
        self.0 = self.0.get(length.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
        Some(Message { level, kind, data })
    }
}

/// The bytes at an offset.
#[inline]
fn bytes<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

/// The integer at an offset.
#[inline]
fn number(data: &[u8], at: usize) -> Option<i32> {
    bytes(data, at).map(i32::from_ne_bytes)
}

/// `struct in_pktinfo`.
struct Info4 {
    index: u32,
    reply_from: Ipv4Addr,
    destination: Ipv4Addr,
}

/// `struct in6_pktinfo`.
struct Info6 {
    index: u32,
    destination: Ipv6Addr,
}

impl Message<'_> {
    #[inline]
    fn info4(&self) -> Option<Info4> {
        if (self.level, self.kind) != (libc::IPPROTO_IP, libc::IP_PKTINFO) {
            return None;
        }
        Some(Info4 {
            index: u32::try_from(number(self.data, 0)?).ok()?,
            reply_from: bytes::<4>(self.data, 4)?.into(),
            destination: bytes::<4>(self.data, 8)?.into(),
        })
    }

    #[inline]
    fn info6(&self) -> Option<Info6> {
        if (self.level, self.kind) != (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) {
            return None;
        }
        let destination = bytes::<16>(self.data, 0)?.into();
        Some(Info6 { index: u32::try_from(number(self.data, 16)?).ok()?, destination })
    }
}

/// What the kernel recorded for a connection, from the control messages of IP_PKTOPTIONS or IPV6_2292PKTOPTIONS. Index 0 means
/// that nothing was recorded. The address of the IPv6 message can be that of the peer and is not used.
#[inline]
pub(super) fn packet_options(control: &[u8], native_ipv6: bool) -> Option<Recorded> {
    let recorded = if native_ipv6 {
        let info = Messages(control).find_map(|message| message.info6())?;
        Recorded { index: info.index, local: None }
    } else {
        let info = Messages(control).find_map(|message| message.info4())?;
        Recorded { index: info.index, local: Some(info.destination) }
    };
    Some(recorded).filter(|recorded| recorded.index != 0)
}

/// Adds what the control messages of a datagram say.
pub(super) fn add_to(received: &mut Received, control: &[u8]) {
    let mut index = 0;
    for message in Messages(control) {
        // A dual-stack socket gives both kinds of packet information for an IPv4 datagram, and they agree.
        if let Some(info) = message.info4() {
            received.destination = Some(info.destination.into());
            received.reply_from = Some(info.reply_from.into());
            index = info.index;
        } else if let Some(info) = message.info6() {
            let address = IpAddr::V6(info.destination).to_canonical();
            received.destination.get_or_insert(address);
            if !address.is_multicast() {
                received.reply_from.get_or_insert(address);
            }
            index = info.index;
        } else if (message.level, message.kind) == (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) {
            received.dropped = bytes(message.data, 0).map(u32::from_ne_bytes);
        } else if (message.level, message.kind) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
            received.received_at = time_in(message.data);
        }
    }
    received.index = Some(index).filter(|&index| index != 0);
}

/// The time in a `struct timespec`.
fn time_in(data: &[u8]) -> Option<SystemTime> {
    /// Two machine words.
    const WORD: usize = size_of::<libc::c_long>();
    let word = |at: usize| bytes(data, at).map(libc::c_long::from_ne_bytes);
    let (seconds, nanoseconds) = (u64::try_from(word(0)?).ok()?, u32::try_from(word(WORD)?).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
}

/// The control message that sets the source address of a datagram, and for IPv6 the outgoing interface of a link-local one.
pub(super) fn packet_info(from: IpAddr, scope_id: u32) -> Vec<u8> {
    match from {
        IpAddr::V4(from) => {
            let mut data = [0; 12];
            data[4..8].copy_from_slice(&from.octets());
            message(libc::IPPROTO_IP, libc::IP_PKTINFO, &data)
        }
        IpAddr::V6(from) => {
            let mut data = [0; 20];
            data[..16].copy_from_slice(&from.octets());
            data[16..].copy_from_slice(&scope_id.to_ne_bytes());
            message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &data)
        }
    }
}

/// A control message as the kernel reads and writes it.
fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let mut out = (HEADER + data.len()).to_ne_bytes().to_vec();
    out.extend(level.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(data);
    out.resize(out.len().next_multiple_of(size_of::<usize>()), 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info4(index: i32, reply_from: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let data = [&index.to_ne_bytes()[..], &reply_from, &destination].concat();
        message(libc::IPPROTO_IP, libc::IP_PKTINFO, &data)
    }

    fn info6(index: i32, destination: &str) -> Vec<u8> {
        let destination: Ipv6Addr = destination.parse().unwrap();
        let data = [&destination.octets()[..], &index.to_ne_bytes()].concat();
        message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &data)
    }

    fn received(control: &[Vec<u8>]) -> Received {
        let mut received = Received {
            length: 0,
            truncated: false,
            peer: ([0; 4], 0).into(),
            destination: None,
            reply_from: None,
            index: None,
            dropped: None,
            received_at: None,
        };
        add_to(&mut received, &control.concat());
        received
    }

    #[test]
    fn the_index_is_found_after_other_messages() {
        let ttl = message(libc::IPPROTO_IP, libc::IP_TTL, &64i32.to_ne_bytes());
        let control = [ttl, info4(7, [192, 0, 2, 9], [192, 0, 2, 1])].concat();
        let local = Some(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(packet_options(&control, false), Some(Recorded { index: 7, local }));
        assert_eq!(packet_options(&control, true), None, "an IPv4 message is not an answer for IPv6");
    }

    #[test]
    fn malformed_control_messages_are_not_an_answer() {
        let whole = info6(9, "2001:db8::1");
        assert_eq!(packet_options(&whole, true), Some(Recorded { index: 9, local: None }));
        for cut in 0..HEADER + 20 {
            assert_eq!(packet_options(&whole[..cut], true), None, "cut to {cut}");
        }
        for length in [0, 1, HEADER - 1, whole.len() + 1, usize::MAX] {
            let mut bad = whole.clone();
            bad[..size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(packet_options(&bad, true), None, "length {length}");
        }
        for index in [0, -1] {
            assert_eq!(packet_options(&info4(index, [0; 4], [0; 4]), false), None);
            assert_eq!(packet_options(&info6(index, "::"), true), None);
        }
    }

    #[test]
    fn a_datagram_has_destination_source_of_the_answer_and_interface() {
        let v4 = received(&[info4(3, [192, 0, 2, 1], [192, 0, 2, 255])]);
        assert_eq!(v4.destination, Some([192, 0, 2, 255].into()));
        assert_eq!((v4.reply_from, v4.index), (Some([192, 0, 2, 1].into()), Some(3)));
        let v6 = received(&[info6(4, "2001:db8::1")]);
        assert_eq!(v6.destination, "2001:db8::1".parse().ok());
        assert_eq!((v6.reply_from, v6.index), (v6.destination, Some(4)));
        let group = received(&[info6(4, "ff02::1")]);
        assert_eq!((group.destination, group.reply_from), ("ff02::1".parse().ok(), None));
    }

    #[test]
    fn both_messages_of_a_dual_stack_socket_agree_in_any_order() {
        let (v4, v6) = (info4(3, [192, 0, 2, 1], [192, 0, 2, 255]), info6(3, "::ffff:192.0.2.255"));
        let expected = received(std::slice::from_ref(&v4));
        assert_eq!(received(&[v4.clone(), v6.clone()]), expected);
        assert_eq!(received(&[v6, v4]), expected);
    }

    #[test]
    fn the_drop_counter_is_read_and_index_0_is_not_an_interface() {
        let drops = message(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &7u32.to_ne_bytes());
        let received = received(&[drops, info4(0, [127, 0, 0, 1], [127, 0, 0, 1])]);
        assert_eq!((received.dropped, received.index), (Some(7), None));
    }

    #[test]
    fn a_source_is_written_as_the_kernel_reads_it() {
        let written = packet_info([192, 0, 2, 1].into(), 0);
        let read = Messages(&written).next().unwrap().info4().unwrap();
        assert_eq!((read.index, read.reply_from), (0, [192, 0, 2, 1].into()));
        let written = packet_info("fe80::1".parse().unwrap(), 5);
        let read = Messages(&written).next().unwrap().info6().unwrap();
        assert_eq!((read.index, read.destination), (5, "fe80::1".parse().unwrap()));
    }
}
