//! Capture of packets that arrive in the calling thread's network namespace, each with its interface: packet(7).
//!
//! The capture uses a ring in shared memory. The queue of a plain socket is limited by `net.core.rmem_max`, which a
//! user namespace cannot change, so a burst of connections would overflow it. Packets that do not fit into the ring are
//! counted and reported.

use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::{Domain, SockFilter, Socket, Type};

/// Size of a block in bytes, a multiple of the page size of every machine.
const BLOCK: usize = 64 << 10;
const BLOCKS: usize = 64;
/// Size of a frame in bytes: its header and [`SNAP`] bytes of the packet.
const FRAME: usize = 256;
const FRAMES: usize = BLOCKS * BLOCK / FRAME;
/// Number of bytes kept per packet: the longest headers of IPv4 and TCP have 60 bytes each.
const SNAP: u32 = 128;
/// Offset of `struct sockaddr_ll` in a frame: after the aligned header (`Documentation/networking/packet_mmap.rst`).
const ADDRESS: usize = size_of::<libc::tpacket2_hdr>().next_multiple_of(16);

/// A capture of arriving TCP and UDP packets. Packets from this host to itself arrive on `lo`.
#[derive(Debug)]
pub struct Capture {
    socket: Socket,
    ring: *mut u8,
    next: usize,
}

// SAFETY: the ring is the process's, not the thread's, and it is reached through `&mut self` only.
#[expect(unsafe_code, reason = "the pointer to the ring")]
unsafe impl Send for Capture {}

impl Capture {
    /// Starts a capture in the namespace of the calling thread, on all its interfaces.
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW over the namespace; ENOMEM; EAFNOSUPPORT if the kernel has no packet sockets.
    #[expect(unsafe_code, reason = "no crate kept here maps a packet ring")]
    pub fn here() -> io::Result<Capture> {
        // Without a protocol no packet is captured before the setup is complete.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
        socket.attach_filter(&filter())?;
        set(&socket, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V2 as libc::c_int))?;
        let number = |number: usize| u32::try_from(number).unwrap_or(0);
        let request = libc::tpacket_req {
            tp_block_size: number(BLOCK),
            tp_block_nr: number(BLOCKS),
            tp_frame_size: number(FRAME),
            tp_frame_nr: number(FRAMES),
        };
        set(&socket, libc::PACKET_RX_RING, &request)?;
        // SAFETY: a new mapping at an address of the kernel's choice, of the size that the ring was just given.
        let ring = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                BLOCKS * BLOCK,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        if ring == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let capture = Capture { socket, ring: ring.cast(), next: 0 };
        // SAFETY: an all-zero sockaddr_ll is valid, it holds only integers.
        let mut all: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        all.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
        all.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or(0).to_be();
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the pointer leads to a sockaddr_ll of this length, which outlives the call.
        let answer = unsafe { libc::bind(capture.socket.as_raw_fd(), (&raw const all).cast(), length) };
        if answer == 0 { Ok(capture) } else { Err(io::Error::last_os_error()) }
    }

    /// Passes on every packet that arrived since the last call, in order: the index of the interface, and at most
    /// `SNAP` bytes from the IP header on. A packet that passes several devices (a bridge port, then the bridge) is
    /// passed on for each.
    #[expect(unsafe_code, reason = "the ring is shared with the kernel")]
    pub fn drain(&mut self, take: &mut dyn FnMut(u32, &[u8])) {
        for _ in 0..FRAMES {
            // SAFETY: `next` is below FRAMES, so the frame is within the mapping, which lives as long as `self`.
            let frame = unsafe { self.ring.add(self.next * FRAME) };
            // SAFETY: `tp_status` is the first field of the header, aligned with the frame; both sides access it atomically.
            let status = unsafe { AtomicU32::from_ptr(frame.cast()) };
            if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
                return;
            }
            // SAFETY: with TP_STATUS_USER the frame is ours until the status is given back, and the kernel has written a header.
            let header = unsafe { frame.cast::<libc::tpacket2_hdr>().read() };
            // SAFETY: as above; the address follows the header at this offset, aligned for it.
            let address = unsafe { frame.add(ADDRESS).cast::<libc::sockaddr_ll>().read() };
            let start = usize::from(header.tp_mac).min(FRAME);
            let length = usize::try_from(header.tp_snaplen).unwrap_or(0).min(FRAME - start);
            // SAFETY: start and length are within the frame, which is ours, and any byte is a valid u8.
            let bytes = unsafe { std::slice::from_raw_parts(frame.add(start), length) };
            take(u32::try_from(address.sll_ifindex).unwrap_or(0), bytes);
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
            self.next = (self.next + 1) % FRAMES;
        }
    }

    /// Number of packets that did not fit into the ring since the last call (PACKET_STATISTICS).
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
    #[expect(unsafe_code, reason = "no crate kept here wraps PACKET_STATISTICS")]
    pub fn lost(&mut self) -> io::Result<u32> {
        let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes to the statistics, which are integers; both outlive the call.
        let answer = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        if answer == 0 { Ok(statistics.tp_drops) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Capture {
    #[expect(unsafe_code, reason = "as the mapping")]
    fn drop(&mut self) {
        // SAFETY: the mapping of `here`, to which nothing refers any more.
        unsafe { libc::munmap(self.ring.cast(), BLOCKS * BLOCK) };
    }
}

#[expect(unsafe_code, reason = "no crate kept here wraps these options of packet sockets")]
fn set<T>(socket: &Socket, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as the value has, and the value outlives the call.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const *value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A filter for arriving TCP and UDP packets over IPv4 and IPv6 (`Documentation/networking/filter.rst`).
fn filter() -> [SockFilter; 12] {
    // Loads of one and two bytes, jumps, a return: `linux/bpf_common.h`.
    const BYTE: u16 = 0x30;
    const HALF: u16 = 0x28;
    const EQUAL: u16 = 0x15;
    const ALWAYS: u16 = 0x05;
    const RETURN: u16 = 0x06;
    let ancillary = |what: libc::c_int| (libc::SKF_AD_OFF + what).cast_unsigned();
    let step = SockFilter::new;
    [
        step(BYTE, 0, 0, ancillary(libc::SKF_AD_PKTTYPE)),
        step(EQUAL, 9, 0, u32::from(libc::PACKET_OUTGOING)),
        step(HALF, 0, 0, ancillary(libc::SKF_AD_PROTOCOL)),
        step(EQUAL, 3, 0, 0x86dd),
        step(EQUAL, 0, 6, 0x0800),
        // The protocol is the tenth byte of an IPv4 header, the next header the seventh of an IPv6 one.
        step(BYTE, 0, 0, 9),
        step(ALWAYS, 0, 0, 1),
        step(BYTE, 0, 0, 6),
        step(EQUAL, 1, 0, 6),
        step(EQUAL, 0, 1, 17),
        step(RETURN, 0, 0, SNAP),
        step(RETURN, 0, 0, 0),
    ]
}
