//! A blocking netlink socket (netlink(7)) for rtnetlink, nfnetlink and generic netlink: dumps and acknowledged requests.
//!
//! Messages go in and out as bytes behind the `nlmsghdr`; what they mean is the caller's matter. The typed decoder of
//! `netlink-packet-route` is not used for what the kernel sends: it refuses a whole message whose interface name is
//! not UTF-8, which the kernel allows (`a_typed_decoder_refuses_real_names` keeps that measurement).

use std::io;
use std::ops::Range;

use netlink_sys::{Socket, SocketAddr};

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_ACK_TLVS: u16 = 0x200;
/// From `linux/netlink.h`: the kernel's message in an extended acknowledgement.
const NLMSGERR_ATTR_MSG: u16 = 1;
const HEADER: usize = 16;

/// How often a dump is repeated if the kernel reports that its list changed during the dump.
const DUMP_TRIES: u32 = 10;
/// The kernel packs a dump into replies of at most 32 KiB, or as much as one entry needs.
const BUFFER: usize = 64 << 10;
/// The maximum length of one reply.
const LONGEST_REPLY: usize = 16 << 20;

/// Which kernel service a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// rtnetlink(7): links, addresses, routes, rules.
    Route,
    /// nfnetlink: packet filters.
    Netfilter,
    /// Generic netlink: services of kernel modules, by name.
    Generic,
}

/// A refused request.
#[derive(Debug, thiserror::Error)]
pub struct Refusal {
    /// The errno.
    pub source: io::Error,
    /// The kernel's message (NLMSGERR_ATTR_MSG), if any.
    pub explanation: Option<String>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.explanation {
            Some(explanation) => write!(f, "{} ({})", self.source, crate::escape::escape(explanation)),
            None => self.source.fmt(f),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(source: io::Error) -> Refusal {
        Refusal { source, explanation: None }
    }
}

impl Refusal {
    /// Whether the errno is this one.
    #[must_use]
    pub fn is(&self, errno: i32) -> bool {
        self.source.raw_os_error() == Some(errno)
    }
}

/// Result of a dump.
#[derive(Debug, Default)]
pub struct Dump {
    bytes: Vec<u8>,
    messages: Vec<(u16, Range<usize>)>,
    /// False if the list changed repeatedly during the dump: entries may be missing or duplicated.
    pub consistent: bool,
}

impl Dump {
    fn clear(&mut self) {
        self.bytes.clear();
        self.messages.clear();
    }

    /// Type and payload (after the `nlmsghdr`) of each message, in the kernel's order.
    pub fn messages(&self) -> impl Iterator<Item = (u16, &[u8])> {
        self.messages.iter().map(|(kind, range)| (*kind, self.bytes.get(range.clone()).unwrap_or_default()))
    }
}

/// A request of a transaction: see [`Netlink::batch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The type of the message.
    pub kind: u16,
    /// `NLM_F_*` flags, such as `NLM_F_CREATE`.
    pub flags: u16,
    /// The message behind the `nlmsghdr`.
    pub payload: Vec<u8>,
}

/// A netlink socket. It stays in the network namespace of the thread that opened it.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace. Requests strict checking and error messages from the
    /// kernel; a kernel without these (before 4.20, gVisor) is used without them.
    ///
    /// # Errors
    /// Those of `socket(2)` and `bind(2)`.
    pub fn open(service: Service) -> io::Result<Netlink> {
        let mut socket = Socket::new(match service {
            Service::Route => netlink_sys::protocols::NETLINK_ROUTE,
            Service::Netfilter => netlink_sys::protocols::NETLINK_NETFILTER,
            Service::Generic => netlink_sys::protocols::NETLINK_GENERIC,
        })?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let _ = socket.set_netlink_get_strict_chk(true);
        let _ = socket.set_ext_ack(true);
        Ok(Netlink { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Requests a list. `payload` is the message after the `nlmsghdr`. If the kernel reports an interruption, the dump
    /// is repeated up to ten times; the last one is then returned as inconsistent.
    ///
    /// # Errors
    /// The kernel's refusal, or a communication error.
    pub fn dump(&mut self, kind: u16, payload: &[u8]) -> Result<Dump, Refusal> {
        let mut dump = Dump::default();
        dump.consistent = self.dump_each(kind, payload, &mut dump, Dump::clear, |dump, kind, payload| {
            let start = dump.bytes.len();
            dump.bytes.extend_from_slice(payload);
            dump.messages.push((kind, start..dump.bytes.len()));
        })?;
        Ok(dump)
    }

    /// Like [`Netlink::dump`], but passes each message's type and payload on immediately. If the dump is repeated,
    /// `restart` discards the earlier messages. Returns whether the list was consistent.
    ///
    /// # Errors
    /// The kernel's refusal, or a communication error.
    pub fn dump_each<T>(
        &mut self,
        kind: u16,
        payload: &[u8],
        state: &mut T,
        restart: fn(&mut T),
        mut each: impl FnMut(&mut T, u16, &[u8]),
    ) -> Result<bool, Refusal> {
        let mut tries = 1;
        loop {
            restart(state);
            match self.dump_once(kind, payload, |kind, payload| each(state, kind, payload)) {
                Ok(consistent) if consistent || tries >= DUMP_TRIES => return Ok(consistent),
                Ok(_) => {}
                // The lost replies may belong to this dump: start again.
                Err(refusal) if tries < DUMP_TRIES && refusal.is(libc::ENOBUFS) => {}
                // `receive` has enlarged the buffer.
                Err(refusal) if tries < DUMP_TRIES && refusal.is(libc::EMSGSIZE) => {}
                Err(refusal) => return Err(refusal),
            }
            tries += 1;
        }
    }

    fn dump_once(
        &mut self,
        kind: u16,
        payload: &[u8],
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<bool, Refusal> {
        let sequence = self.send(kind, NLM_F_REQUEST | NLM_F_DUMP, payload)?;
        let mut consistent = true;
        loop {
            self.receive()?;
            for message in messages(&self.buffer) {
                let message = message?;
                // Remaining messages of an abandoned dump.
                if message.sequence != sequence {
                    continue;
                }
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_NOOP => {}
                    NLMSG_DONE => {
                        return match message.errno() {
                            0 => Ok(consistent),
                            errno => Err(message.refusal(errno, 4)),
                        };
                    }
                    NLMSG_ERROR => return Err(message.refusal(message.errno(), message.ext_ack_offset())),
                    NLMSG_OVERRUN => return Err(io::Error::from_raw_os_error(libc::ENOBUFS).into()),
                    kind => each(kind, message.payload),
                }
            }
        }
    }

    /// Sends a request and waits for its acknowledgement. `flags` are further `NLM_F_*` flags, such as `NLM_F_CREATE`.
    ///
    /// # Errors
    /// The kernel's refusal, or a communication error.
    pub fn request(&mut self, kind: u16, flags: u16, payload: &[u8]) -> Result<(), Refusal> {
        let sequence = self.send(kind, NLM_F_REQUEST | NLM_F_ACK | flags, payload)?;
        loop {
            self.receive()?;
            for message in messages(&self.buffer) {
                let message = message?;
                if message.sequence == sequence && message.kind == NLMSG_ERROR {
                    return match message.errno() {
                        0 => Ok(()),
                        errno => Err(message.refusal(errno, message.ext_ack_offset())),
                    };
                }
            }
        }
    }

    /// Sends a request that the kernel answers with one message, and returns the payload of that message.
    ///
    /// # Errors
    /// The kernel's refusal, or a failure to talk to the kernel.
    pub fn ask(&mut self, kind: u16, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
        let sequence = self.send(kind, NLM_F_REQUEST, payload)?;
        loop {
            self.receive()?;
            for message in messages(&self.buffer) {
                let message = message?;
                if message.sequence != sequence || message.kind == NLMSG_NOOP {
                    continue;
                }
                return match message.kind {
                    NLMSG_ERROR => Err(message.refusal(message.errno(), message.ext_ack_offset())),
                    _ => Ok(message.payload.to_vec()),
                };
            }
        }
    }

    /// Sends requests in one transaction of nfnetlink, between `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`. Returns the
    /// place of each refused request with the refusal; after a refusal the kernel keeps nothing of the transaction.
    ///
    /// # Errors
    /// The refusal of the transaction as a whole, or a failure to talk to the kernel.
    pub fn batch(&mut self, subsystem: u8, requests: &[Request]) -> Result<Vec<(usize, Refusal)>, Refusal> {
        const BATCH_BEGIN: u16 = 16;
        const BATCH_END: u16 = 17;
        let marker = [0, 0, 0, subsystem];
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        self.append(&mut bytes, BATCH_BEGIN, NLM_F_REQUEST, &marker)?;
        for (place, request) in requests.iter().enumerate() {
            // One acknowledgement is enough; errors arrive for each request in any case.
            let ack = if place + 1 == requests.len() { NLM_F_ACK } else { 0 };
            self.append(&mut bytes, request.kind, NLM_F_REQUEST | request.flags | ack, &request.payload)?;
        }
        let last = self.sequence;
        self.append(&mut bytes, BATCH_END, NLM_F_REQUEST, &marker)?;
        self.transmit(&bytes)?;
        let mut refused = Vec::new();
        loop {
            self.receive()?;
            let mut over = false;
            for message in messages(&self.buffer) {
                let message = message?;
                let place = message.sequence.wrapping_sub(first);
                if message.kind != NLMSG_ERROR || place > last.wrapping_sub(first) {
                    continue;
                }
                let errno = message.errno();
                match usize::try_from(place).ok().and_then(|place| place.checked_sub(1)) {
                    Some(place) if errno != 0 => {
                        refused.push((place, message.refusal(errno, message.ext_ack_offset())));
                    }
                    Some(_) => {}
                    // An error of the beginning is one of the whole.
                    None if errno != 0 => return Err(message.refusal(errno, message.ext_ack_offset())),
                    None => {}
                }
                over |= message.sequence == last;
            }
            if over {
                return Ok(refused);
            }
        }
    }

    /// Makes this socket receive what the kernel sends to a multicast group, and receiving return at once where nothing waits.
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn join(&mut self, group: u32) -> io::Result<()> {
        self.socket.add_membership(group)?;
        self.socket.set_non_blocking(true)
    }

    /// Asks for a receive buffer of so many bytes, of which the system gives what it allows.
    pub fn make_room(&mut self, bytes: usize) {
        let _ = self.socket.set_rx_buf_sz(i32::try_from(bytes).unwrap_or(i32::MAX));
    }

    /// Hands out the type and payload of each message that waits, after [`Netlink::join`]. Returns whether the kernel had to
    /// drop messages because this socket's buffer was full.
    ///
    /// # Errors
    /// As `recv(2)`.
    pub fn drain(&mut self, mut each: impl FnMut(u16, &[u8])) -> io::Result<bool> {
        let mut lost = false;
        loop {
            match self.receive() {
                Ok(()) => {
                    messages(&self.buffer).map_while(Result::ok).for_each(|one| each(one.kind, one.payload));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(lost),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => lost = true,
                Err(error) => return Err(error),
            }
        }
    }

    fn send(&mut self, kind: u16, flags: u16, payload: &[u8]) -> io::Result<u32> {
        let mut message = Vec::with_capacity(HEADER + payload.len());
        self.append(&mut message, kind, flags, payload)?;
        self.transmit(&message)?;
        Ok(self.sequence)
    }

    /// Appends a message with the next sequence number.
    fn append(&mut self, bytes: &mut Vec<u8>, kind: u16, flags: u16, payload: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER + payload.len())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Ok(())
    }

    fn transmit(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            match self.socket.send(bytes, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(drop),
            }
        }
    }

    /// Reads the next datagram into the buffer. If it did not fit, returns EMSGSIZE and enlarges the buffer.
    fn receive(&mut self) -> io::Result<()> {
        loop {
            self.buffer.clear();
            let room = self.buffer.capacity();
            // With MSG_TRUNC the kernel returns the full length, even if only part of it fitted.
            match self.socket.recv(&mut self.buffer, libc::MSG_TRUNC) {
                Ok(length) if length > room => {
                    if length > LONGEST_REPLY {
                        return Err(io::Error::from(io::ErrorKind::InvalidData));
                    }
                    self.buffer.reserve(length);
                    return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
                }
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

pub(super) struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    pub(super) payload: &'a [u8],
}

impl Message<'_> {
    /// The errno of NLMSG_ERROR and NLMSG_DONE, positive; 0 for success.
    pub(super) fn errno(&self) -> i32 {
        read(self.payload, 0).map_or(0, i32::from_ne_bytes).saturating_neg()
    }

    /// Start of the attributes of an NLMSG_ERROR: after the repeated request, or only its header.
    pub(super) fn ext_ack_offset(&self) -> usize {
        let repeated = match read(self.payload, 4).map(u32::from_ne_bytes) {
            Some(length) if self.flags & NLM_F_CAPPED == 0 => {
                usize::try_from(length).unwrap_or(usize::MAX).max(HEADER)
            }
            _ => HEADER,
        };
        repeated.saturating_add(4).next_multiple_of(4)
    }

    pub(super) fn refusal(&self, errno: i32, attributes_at: usize) -> Refusal {
        let explanation = (self.flags & NLM_F_ACK_TLVS != 0)
            .then(|| self.payload.get(attributes_at..))
            .flatten()
            .and_then(|bytes| attributes(bytes).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG))
            .map(|(_, text)| String::from_utf8_lossy(until_nul(text)).into_owned());
        Refusal { source: io::Error::from_raw_os_error(errno), explanation }
    }
}

/// The messages of one datagram. A message with an invalid length ends the list with an error.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = io::Result<Message<'_>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let message = split_message(bytes);
        match message {
            Some((message, rest)) => {
                bytes = rest;
                Some(Ok(message))
            }
            None => {
                bytes = &[];
                Some(Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel's reply is cut short")))
            }
        }
    })
}

fn split_message(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(read(bytes, 0)?)).ok()?;
    let message = Message {
        kind: u16::from_ne_bytes(read(bytes, 4)?),
        flags: u16::from_ne_bytes(read(bytes, 6)?),
        sequence: u32::from_ne_bytes(read(bytes, 8)?),
        payload: bytes.get(HEADER..length)?,
    };
    Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// `N` bytes at `offset`, if present.
#[must_use]
pub fn read<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

/// The attributes (`struct nlattr`) in `bytes`: type without flags, and value. Malformed data ends the list.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// `NLA_F_NESTED | NLA_F_NET_BYTEORDER`.
    const FLAGS: u16 = 0xc000;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(read(bytes, 0)?));
        let kind = u16::from_ne_bytes(read(bytes, 2)?) & !FLAGS;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// One attribute in the kernel's format, padded to four bytes. A value of more than 65531 bytes gives no attribute.
#[must_use]
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let Ok(length) = u16::try_from(value.len() + 4) else { return Vec::new() };
    let mut out = Vec::with_capacity(value.len() + 8);
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// The bytes before the first NUL.
#[must_use]
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `RTM_GETLINK`, `RTM_NEWADDR`, `RTM_GETADDR`.
    const GETLINK: u16 = 18;
    const NEWADDR: u16 = 20;

    #[test]
    fn a_dump_has_the_loopback() {
        let mut netlink = Netlink::open(Service::Route).unwrap();
        for _ in 0..2 {
            let dump = netlink.dump(GETLINK, &[0; 16]).unwrap();
            assert!(dump.consistent);
            let index = |payload| read(payload, 4).map(i32::from_ne_bytes);
            assert!(dump.messages().any(|(_, payload)| index(payload) == Some(1)));
        }
    }

    #[test]
    fn a_longer_reply_than_the_buffer_is_read_whole() {
        let mut netlink = Netlink::open(Service::Route).unwrap();
        let whole = netlink.dump(GETLINK, &[0; 16]).unwrap().bytes.len();
        netlink.buffer = Vec::with_capacity(64);
        assert_eq!(netlink.dump(GETLINK, &[0; 16]).unwrap().bytes.len(), whole);
    }

    #[test]
    fn the_kernel_explains_its_refusal() {
        let mut netlink = Netlink::open(Service::Route).unwrap();
        // An address of an interface that does not exist: refused before or after the permission check.
        let mut payload = vec![2, 32, 0, 0];
        payload.extend_from_slice(&0x7fff_fff0u32.to_ne_bytes());
        payload.extend(attribute(2, &[192, 0, 2, 1]));
        let refusal = netlink.request(NEWADDR, 0x600, &payload).unwrap_err();
        assert!(refusal.is(libc::ENODEV) || refusal.is(libc::EPERM), "{refusal}");
        // A dump with a header that is too short: strict checking reports it.
        let refusal = netlink.dump(22, &[2, 0]).unwrap_err();
        assert!(refusal.is(libc::EINVAL) && refusal.explanation.is_some(), "{refusal}");
    }

    #[test]
    fn malformed_bytes_end_the_list() {
        assert_eq!(attributes(&[3, 0, 1, 0, 9]).count(), 0);
        assert_eq!(attributes(&[8, 0, 1, 0, 9]).count(), 0);
        assert_eq!(attributes(&[5, 0, 1, 0x80, 9]).collect::<Vec<_>>(), [(1, &[9][..])]);
        assert!(messages(&[1, 2, 3]).next().unwrap().is_err());
        assert!(messages(&[200, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).next().unwrap().is_err());
    }

    #[test]
    fn a_name_need_not_be_utf8() {
        // The crate netlink-packet-route refuses such a link (`LinkMessage::parse` of 0.34), so messages are decoded here.
        let mut link = vec![0; 16];
        link.extend(attribute(3, b"\xff\xfe\0"));
        assert_eq!(attributes(&link[16..]).next(), Some((3, &b"\xff\xfe\0"[..])));
    }
}
