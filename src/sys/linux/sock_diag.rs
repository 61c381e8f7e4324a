//! Socket dumps by sock_diag(7): what `ss` reads, with the attributes that `ss` does not show.
//!
//! Requests are written by `netlink-packet-sock-diag`, but for the attribute that asks for MPTCP, which it lacks. Attributes that
//! were not requested are skipped, so that a newer kernel causes no error.

use std::io;
use std::net::IpAddr;
use std::num::NonZero;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use super::netlink::{attributes, read};

/// States of TCP sockets as the kernel numbers them (`net/tcp_states.h`).
pub(super) mod state {
    pub const ESTABLISHED: u8 = 1;
    pub const TIME_WAIT: u8 = 6;
    /// The peer has sent its last.
    pub const CLOSE_WAIT: u8 = 8;
    /// No connection; a UDP socket without a peer has it too.
    pub const CLOSE: u8 = 7;
    pub const LISTEN: u8 = 10;
    /// Bound and neither listening nor connected; listed since Linux 6.8.
    pub const BOUND_INACTIVE: u8 = 13;
}

/// IPPROTO_MPTCP of `linux/in.h`.
pub(super) const MPTCP: u32 = 262;
/// IPPROTO_TCP.
pub(super) const TCP: u32 = 6;
/// IPPROTO_UDP.
pub(super) const UDP: u32 = 17;

/// How often a dump that the kernel marks as interrupted is repeated.
const ATTEMPTS: usize = 10;

/// The kernel fills datagrams of at most 32 KiB in a dump (`netlink_dump()` of `net/netlink/af_netlink.c`).
const BUFFER: usize = 64 * 1024;

/// What the kernel reports of one socket, except its peer. There may be a hundred thousand of them, so it is kept small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DiagSocket {
    pub family: u8,
    pub state: u8,
    pub local: IpAddr,
    pub local_port: u16,
    /// The device it is bound to, not the interface anything arrived on; 0 is none.
    pub device: u32,
    pub receive_queue: u32,
    pub send_queue: u32,
    pub uid: u32,
    /// 0 for a socket without a file.
    pub inode: u32,
    pub cookie: u64,
    /// INET_DIAG_SKV6ONLY: given for AF_INET6 in LISTEN and CLOSE only.
    pub v6only: Option<bool>,
    /// INET_DIAG_CGROUP_ID.
    pub cgroup: Option<NonZero<u64>>,
    /// IP_TRANSPARENT, of INET_DIAG_SOCKOPT (since Linux 5.10).
    pub transparent: Option<bool>,
    /// INET_DIAG_MARK: SO_MARK, which the kernel reports with CAP_NET_ADMIN only.
    pub mark: Option<u32>,
    /// Milliseconds until the timer of the socket fires; of TIME-WAIT, until it ends.
    pub expires_ms: u32,
}

/// Address and port of a socket's peer; of a socket without one they mean nothing.
pub(super) type Peer = (IpAddr, u16);

/// What a dump asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query {
    /// AF_INET or AF_INET6; for [`TCP`] also AF_UNSPEC, which is both in one walk through the kernel's table.
    pub family: u8,
    /// [`TCP`], [`UDP`] or [`MPTCP`].
    pub protocol: u32,
    /// Bits of [`state`].
    pub states: u32,
    /// Only this local port; 0 for all.
    pub port: u16,
}

/// Why a dump did not succeed.
#[derive(Debug)]
pub(super) enum DumpError {
    /// The kernel refuses, or does not know, this dump.
    Refused(io::Error),
    /// It was interrupted by changes each time.
    Interrupted,
}

/// A connection to the kernel's socket tables, of the network namespace of the thread that opened it.
pub(super) struct SockDiag {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl SockDiag {
    pub fn open() -> io::Result<SockDiag> {
        let socket = Socket::new(NETLINK_SOCK_DIAG)?;
        set_timeout(&socket)?;
        Ok(SockDiag { socket, buffer: vec![0; BUFFER], sequence: 0 })
    }

    /// Hands every socket of the answer to `each`, as it comes. After an interrupted dump `restart` is called: what came so
    /// far is void.
    pub fn dump(
        &mut self,
        query: Query,
        mut restart: impl FnMut(),
        mut each: impl FnMut(DiagSocket, Peer),
    ) -> Result<(), DumpError> {
        for _ in 0..ATTEMPTS {
            restart();
            self.sequence = self.sequence.wrapping_add(1);
            let request = request(query, self.sequence);
            self.socket.send_to(&request, &SocketAddr::new(0, 0), 0).map_err(DumpError::Refused)?;
            let hand_out = |payload: &[u8]| {
                let (socket, peer) = parse(payload)?;
                each(socket, peer);
                Ok(())
            };
            if !self.receive(hand_out).map_err(DumpError::Refused)? {
                return Ok(());
            }
        }
        Err(DumpError::Interrupted)
    }

    /// Reads one whole dump and hands out what stands in each message; returns whether it was interrupted.
    fn receive(&mut self, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<bool> {
        let mut interrupted = false;
        loop {
            let length = match self.socket.recv(&mut self.buffer.as_mut_slice(), libc::MSG_TRUNC) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let bytes = self.buffer.get(..length).ok_or_else(|| invalid("an answer was cut"))?;
            let mut rest = bytes;
            while let Some(message) = Message::split(&mut rest)? {
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => {
                        // Its payload is 0, or the negative error that ended the dump.
                        return match message.error() {
                            None | Some(0) => Ok(interrupted),
                            Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
                        };
                    }
                    libc::NLMSG_ERROR => {
                        let code = message.error().ok_or_else(|| invalid("an error was cut"))?;
                        return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
                    }
                    libc::NLMSG_NOOP => {}
                    libc::NLMSG_OVERRUN => return Err(invalid("answers were lost")),
                    _ => each(message.payload)?,
                }
            }
        }
    }
}

/// The answer comes while we ask, so a long silence means that it was lost.
fn set_timeout(socket: &Socket) -> io::Result<()> {
    #[expect(unsafe_code, reason = "netlink-sys gives a raw descriptor only")]
    // SAFETY: the descriptor is open as long as `socket` lives, which the borrow outlasts not.
    let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    socket2::SockRef::from(&descriptor).set_read_timeout(Some(Duration::from_secs(5)))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// One netlink message (netlink(7)).
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl<'a> Message<'a> {
    const HEADER: usize = 16;

    /// Takes the first message off `rest`.
    fn split(rest: &mut &'a [u8]) -> io::Result<Option<Message<'a>>> {
        if rest.is_empty() {
            return Ok(None);
        }
        let cut = || invalid("a message was cut");
        let header = rest.get(..Self::HEADER).ok_or_else(cut)?;
        let word =
            |at: usize| -> Option<u32> { Some(u32::from_ne_bytes(header.get(at..at + 4)?.try_into().ok()?)) };
        let half =
            |at: usize| -> Option<u16> { Some(u16::from_ne_bytes(header.get(at..at + 2)?.try_into().ok()?)) };
        let length = word(0).and_then(|length| usize::try_from(length).ok()).ok_or_else(cut)?;
        let payload = rest.get(Self::HEADER..length).ok_or_else(cut)?;
        let (Some(kind), Some(flags), Some(sequence)) = (half(4), half(6), word(8)) else {
            return Err(cut());
        };
        *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Ok(Some(Message { kind, flags, sequence, payload }))
    }

    /// The error number at the front of an NLMSG_ERROR or NLMSG_DONE.
    fn error(&self) -> Option<i32> {
        Some(i32::from_ne_bytes(self.payload.get(..4)?.try_into().ok()?))
    }
}

/// SOCK_DIAG_BY_FAMILY of `linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;

fn request(query: Query, sequence: u32) -> Vec<u8> {
    if i32::from(query.family) == libc::AF_UNSPEC {
        return request_of_both_families(query, sequence);
    }
    /// INET_DIAG_REQ_PROTOCOL of `linux/inet_diag.h`: the protocol where eight bits do not hold it.
    const INET_DIAG_REQ_PROTOCOL: u16 = 3;
    // `struct inet_diag_req_v2`: family, protocol, extensions, padding, states; then the socket: ports, addresses, interface, cookie.
    // A dump ignores all of the socket except the ports.
    let mut payload = vec![0; 56];
    payload[0] = query.family;
    payload[1] = u8::try_from(query.protocol).unwrap_or(0);
    payload[4..8].copy_from_slice(&query.states.to_ne_bytes());
    payload[8..10].copy_from_slice(&query.port.to_be_bytes());
    if query.protocol > u32::from(u8::MAX) {
        payload.extend(8u16.to_ne_bytes());
        payload.extend(INET_DIAG_REQ_PROTOCOL.to_ne_bytes());
        payload.extend(query.protocol.to_ne_bytes());
    }
    message(SOCK_DIAG_BY_FAMILY, sequence, &payload)
}

/// The request that was there before [SOCK_DIAG_BY_FAMILY](request), for TCP alone. It never had a family, and the kernel answers it
/// with both (`inet_diag_dump_compat()` of `net/ipv4/inet_diag.c`).
fn request_of_both_families(query: Query, sequence: u32) -> Vec<u8> {
    /// TCPDIAG_GETSOCK of `linux/inet_diag.h`.
    const TCPDIAG_GETSOCK: u16 = 18;
    // `struct inet_diag_req`: four bytes that stay 0, the socket that is asked for, states, and what no kernel has read.
    let mut payload = [0; 60];
    payload[4..6].copy_from_slice(&query.port.to_be_bytes());
    payload[52..56].copy_from_slice(&query.states.to_ne_bytes());
    message(TCPDIAG_GETSOCK, sequence, &payload)
}

/// A request for a dump as netlink(7) wants it.
fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let length = u32::try_from(Message::HEADER + payload.len()).unwrap_or(0);
    let mut out = Vec::with_capacity(Message::HEADER + payload.len());
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend(0u32.to_ne_bytes());
    out.extend(payload);
    out
}

/// Length of `struct inet_diag_msg`.
const MESSAGE: usize = 72;

/// The fields of `struct inet_diag_msg` of `linux/inet_diag.h`, and the attributes behind it. Read by hand: the codec reads field by
/// field through a check of each, which was 3 % of an audit of 10,000 sockets, and this is a quarter of that
/// (`docs/performance.md`). `the_codec_agrees` keeps the two together.
fn parse(payload: &[u8]) -> io::Result<(DiagSocket, Peer)> {
    /// Attributes of `linux/inet_diag.h`.
    const INET_DIAG_SKV6ONLY: u16 = 11;
    const INET_DIAG_MARK: u16 = 15;
    const INET_DIAG_CGROUP_ID: u16 = 21;
    const INET_DIAG_SOCKOPT: u16 = 22;
    /// The sixth field of one bit of `struct inet_diag_sockopt`.
    const TRANSPARENT: u8 = if cfg!(target_endian = "little") { 1 << 5 } else { 1 << 2 };
    let header: &[u8; MESSAGE] = payload.first_chunk().ok_or_else(|| invalid("a socket was cut"))?;
    let half = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let ipv4 = i32::from(header[0]) == libc::AF_INET;
    let address = |at: usize| {
        if ipv4 {
            IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]])
        } else {
            IpAddr::from(read::<16>(header, at).unwrap_or_default())
        }
    };
    let mut v6only = None;
    let mut cgroup = None;
    let mut transparent = None;
    let mut mark = None;
    for (kind, value) in attributes(&payload[MESSAGE..]) {
        match (kind, value) {
            (INET_DIAG_SKV6ONLY, [value, ..]) => v6only = Some(*value != 0),
            (INET_DIAG_MARK, value) => mark = read(value, 0).map(u32::from_ne_bytes),
            (INET_DIAG_CGROUP_ID, value) => {
                cgroup = read(value, 0).map(u64::from_ne_bytes).and_then(NonZero::new)
            }
            (INET_DIAG_SOCKOPT, [bits, ..]) => transparent = Some(bits & TRANSPARENT != 0),
            _ => {}
        }
    }
    let socket = DiagSocket {
        family: header[0],
        state: header[1],
        local: address(8),
        local_port: half(4),
        device: word(40),
        receive_queue: word(56),
        send_queue: word(60),
        uid: word(64),
        inode: word(68),
        cookie: u64::from_ne_bytes(read(header, 44).unwrap_or_default()),
        v6only,
        cgroup,
        transparent,
        mark,
        expires_ms: word(52),
    };
    Ok((socket, (address(24), half(6))))
}

/// The listening vsock sockets of this machine: context identifier (all ones for any), port and inode.
///
/// # Errors
/// Unsupported where the module that answers is not there: asking would load it. Else as the dump.
pub(super) fn vsock_listeners() -> io::Result<Vec<(u32, u32, u32)>> {
    let loaded = |module: &str| std::path::Path::new("/sys/module").join(module).exists();
    if std::path::Path::new("/proc/modules").exists() && !loaded("vsock_diag") {
        return Err(io::Error::other("the module vsock_diag is not loaded"));
    }
    let mut kernel = SockDiag::open()?;
    kernel.sequence = 1;
    // `struct vsock_diag_req` of `linux/vm_sockets_diag.h`: family, protocol, two unused bytes, states, and what may be shown.
    let mut payload = [0; 24];
    payload[0] = libc::AF_VSOCK as u8;
    payload[4..8].copy_from_slice(&(1u32 << state::LISTEN).to_ne_bytes());
    let request = message(SOCK_DIAG_BY_FAMILY, kernel.sequence, &payload);
    kernel.socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
    let mut found = Vec::new();
    kernel.receive(|payload| {
        found.push(vsock(payload).ok_or_else(|| invalid("a vsock socket was cut"))?);
        Ok(())
    })?;
    Ok(found)
}

/// Source context identifier, source port and inode of `struct vsock_diag_msg`.
fn vsock(payload: &[u8]) -> Option<(u32, u32, u32)> {
    let word = |at| read(payload, at).map(u32::from_ne_bytes);
    Some((word(4)?, word(8)?, word(20)?))
}

/// Takes bytes as an answer of sock_diag's. Returns how many sockets came of them.
#[cfg(fuzzing)]
#[must_use]
pub fn decode(mut bytes: &[u8]) -> usize {
    let mut sockets = 0;
    while let Ok(Some(message)) = Message::split(&mut bytes) {
        let _ = message.error();
        sockets += usize::from(parse(message.payload).is_ok());
    }
    sockets
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One answer as the kernel makes it.
    fn answer() -> Vec<u8> {
        let mut payload = vec![0u8; MESSAGE];
        payload[0] = libc::AF_INET6 as u8;
        payload[1] = state::LISTEN;
        payload[4..6].copy_from_slice(&443u16.to_be_bytes());
        payload[23] = 1;
        payload[64..68].copy_from_slice(&7u32.to_ne_bytes());
        payload[68..72].copy_from_slice(&99u32.to_ne_bytes());
        for (kind, value) in [(8u16, &[0u8][..]), (11, &[1]), (21, &5u64.to_ne_bytes()), (999, b"unknown")] {
            payload.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
            payload.extend(kind.to_ne_bytes());
            payload.extend(value);
            payload.resize(payload.len().next_multiple_of(4), 0);
        }
        payload
    }

    #[test]
    fn an_answer_is_read_with_unknown_attributes() {
        let (socket, _) = parse(&answer()).unwrap();
        assert_eq!((socket.local, socket.local_port), ("::1".parse().unwrap(), 443));
        assert_eq!(
            (socket.v6only, socket.cgroup, socket.uid, socket.inode),
            (Some(true), NonZero::new(5), 7, 99)
        );
    }

    #[test]
    fn a_request_is_that_of_the_codec() {
        use netlink_packet_core::Emitable as _;
        use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
        for (family, id) in [(libc::AF_INET, SocketId::new_v4()), (libc::AF_INET6, SocketId::new_v6())] {
            let query = Query { family: family as u8, protocol: UDP, states: 0x1082, port: 443 };
            let theirs = InetRequest {
                family: query.family,
                protocol: 17,
                extensions: ExtensionFlags::empty(),
                states: StateFlags::from_bits_retain(query.states),
                socket_id: SocketId { source_port: query.port, ..id },
            };
            let mut expected = vec![0; theirs.buffer_len()];
            theirs.emit(&mut expected);
            assert_eq!(request(query, 1)[Message::HEADER..], expected);
        }
    }

    #[test]
    fn the_codec_agrees() {
        use netlink_packet_core::Parseable as _;
        use netlink_packet_sock_diag::inet::InetResponseHeader;
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut payload: Vec<u8> = (0..72u8).map(|byte| byte.wrapping_mul(151)).collect();
            payload[0] = family as u8;
            // The codec knows fewer timers than there are numbers.
            payload[2] = 0;
            let (ours, peer) = parse(&payload).unwrap();
            let theirs = InetResponseHeader::parse(&payload[..]).unwrap();
            let id = &theirs.socket_id;
            assert_eq!((ours.family, ours.state), (theirs.family, theirs.state));
            assert_eq!((ours.local, ours.local_port), (id.source_address, id.source_port));
            assert_eq!(peer, (id.destination_address, id.destination_port));
            assert_eq!((ours.device, ours.cookie), (id.interface_id, u64::from_ne_bytes(id.cookie)));
            assert_eq!((ours.receive_queue, ours.send_queue), (theirs.recv_queue, theirs.send_queue));
            assert_eq!((ours.uid, ours.inode), (theirs.uid, theirs.inode));
        }
    }

    #[test]
    fn one_dump_tells_the_listeners_of_both_families() {
        let listeners = ["127.0.0.1:0", "[::1]:0", "[::]:0"].map(std::net::TcpListener::bind);
        let ports: Vec<u16> =
            listeners.iter().flatten().map(|one| one.local_addr().unwrap().port()).collect();
        let mut kernel = SockDiag::open().unwrap();
        let mut listed = |family: i32, port| {
            let found = std::cell::RefCell::new(Vec::new());
            let query = Query { family: family as u8, protocol: TCP, states: 1 << state::LISTEN, port };
            let each = |socket: DiagSocket, _| {
                if ports.contains(&socket.local_port) {
                    found.borrow_mut().push(socket);
                }
            };
            kernel.dump(query, || found.borrow_mut().clear(), each).unwrap();
            found.into_inner()
        };
        let mut both = listed(libc::AF_UNSPEC, 0);
        let mut each = listed(libc::AF_INET, 0);
        each.extend(listed(libc::AF_INET6, 0));
        both.sort_by_key(|socket| socket.inode);
        each.sort_by_key(|socket| socket.inode);
        assert_eq!(both, each);
        assert!(both.len() >= ports.len(), "{both:?}");
        assert!(
            ports.iter().all(|&port| listed(libc::AF_UNSPEC, port).iter().all(|one| one.local_port == port))
        );
    }

    #[test]
    fn no_damage_to_an_answer_is_a_panic_or_an_endless_loop() {
        let whole = answer();
        for cut in 0..whole.len() {
            let _ = parse(&whole[..cut]);
        }
        for position in 0..whole.len() {
            for value in [0, 1, 3, 4, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[position] = value;
                let _ = parse(&damaged);
            }
        }
        assert!(parse(&whole[..MESSAGE - 1]).is_err());
    }

    #[test]
    fn messages_are_split_within_their_bounds() {
        let mut bytes = request(Query { family: 2, protocol: MPTCP, states: 1, port: 0 }, 9);
        let length = bytes.len();
        bytes.extend([1, 2, 3]);
        let mut rest = bytes.as_slice();
        let message = Message::split(&mut rest).unwrap().unwrap();
        assert_eq!((message.sequence, message.payload.len()), (9, length - Message::HEADER));
        assert!(Message::split(&mut rest).is_err());
        for length in [0u32, 15, 4096, u32::MAX] {
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(Message::split(&mut bytes.as_slice()).is_err(), "{length}");
        }
    }
}
