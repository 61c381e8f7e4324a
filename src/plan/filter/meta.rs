//! What rules load: metadata, bytes of the packet, properties of the connection, answers of the routing tables.

use std::net::IpAddr;

use super::bits::{Answer, Bits};
use super::expression::{self, FibResult, REGISTERS};
use super::hooks::Hook;
use super::machine::{Machine, Next};
use super::packet::{Device, End, Packet, State, Tracked, set_address};
use crate::model::Family;

/// `NFT_META_MARK`.
pub const MARK: u32 = 3;
/// `NFT_CT_MARK`.
pub const CONNECTION_MARK: u32 = 3;
/// Length of an interface's name in a register.
const NAME: usize = 16;

/// Bits of `ct state`.
pub mod state {
    /// The packet belongs to no connection.
    pub const INVALID: u32 = 1;
    /// Packets of both directions were seen.
    pub const ESTABLISHED: u32 = 2;
    /// It belongs to another connection.
    pub const RELATED: u32 = 4;
    /// It begins a connection.
    pub const NEW: u32 = 8;
    /// It is not tracked.
    pub const UNTRACKED: u32 = 64;
}

/// The bit of a packet's state.
#[must_use]
pub fn state_bit(tracked: Tracked) -> u32 {
    match tracked {
        Tracked::Not => state::INVALID,
        Tracked::Untracked => state::UNTRACKED,
        Tracked::As { state: State::New, .. } => state::NEW,
        Tracked::As { state: State::Established, .. } => state::ESTABLISHED,
        Tracked::As { state: State::Related, .. } => state::RELATED,
    }
}

/// Keeps a packet out of connection tracking, unless it is tracked already.
pub fn do_not_track(packet: &mut Packet) {
    if packet.tracked == Tracked::Not {
        packet.tracked = Tracked::Untracked;
    }
}

/// A rule writes bytes of the packet.
pub fn rewrite(packet: &mut Packet, base: u32, offset: usize, length: usize) {
    let harmless = match packet.family {
        // Up to the time to live: class, length, identification, fragments.
        Family::Ipv4 => offset + length <= 9,
        Family::Ipv6 => offset + length <= 6 || (offset, length) == (7, 1),
    };
    packet.hops = None;
    if base != 1 || !harmless {
        packet.rewritten = true;
    }
}

impl Machine<'_> {
    /// The state and direction of a packet that belongs to the connection.
    pub(super) fn tracked(&self, packet: &Packet) -> Option<(State, bool)> {
        match packet.tracked {
            Tracked::As { state, reply } => Some((state, reply)),
            _ => None,
        }
    }

    pub(super) fn load_meta(&mut self, key: u32, to: usize, packet: &Packet) -> Next {
        let packet_type = self.packet_type(packet);
        let registers = &mut self.registers;
        let mut byte = |value: u8| registers.set(to, &[value, 0, 0, 0]);
        let (input, output) = (packet.input.as_ref(), packet.output.as_ref());
        match key {
            1 => {
                let kind: u16 = if packet.family == Family::Ipv4 { 0x0800 } else { 0x86dd };
                let [high, low] = kind.to_be_bytes();
                self.registers.set(to, &[high, low, 0, 0]);
                if self.hook == Hook::Output {
                    self.registers.forget(to, 2);
                }
            }
            MARK => self.registers.set_word(to, packet.mark),
            4 => self.registers.set(to, &input.map_or(0, |device| device.index).to_ne_bytes()),
            5 => self.registers.set(to, &output.map_or(0, |device| device.index).to_ne_bytes()),
            6 => self.set_name(to, input),
            7 => self.set_name(to, output),
            8 | 9 => {
                let Some(device) = (if key == 8 { input } else { output }) else { return Next::Break };
                match device.hardware {
                    Some(hardware) => {
                        let [a, b] = hardware.to_ne_bytes();
                        self.registers.set(to, &[a, b, 0, 0]);
                    }
                    None => self.registers.forget(to, 4),
                }
            }
            15 => byte(if packet.family == Family::Ipv4 { 2 } else { 10 }),
            16 => byte(packet.protocol()),
            19 => match packet_type {
                Some(kind) => byte(kind),
                None => {
                    self.registers.set(to, &[0; 4]);
                    self.registers.forget(to, 1);
                }
            },
            _ => self.registers.forget(to, expression::meta_length(key).min(REGISTERS - to)),
        }
        Next::Continue
    }

    /// The type of the packet on its link: to this host, or to a group.
    pub(super) fn packet_type(&self, packet: &Packet) -> Option<u8> {
        if packet.rewritten || packet.input.is_none() || packet.output.is_some() && self.hook != Hook::Forward
        {
            return None;
        }
        Some(if packet.destination.address?.is_multicast() { 2 } else { 0 })
    }

    fn set_name(&mut self, to: usize, device: Option<&Device>) {
        let mut name = [0; NAME];
        for (to, from) in name.iter_mut().zip(device.map_or("", |device| &device.name).bytes()) {
            *to = from;
        }
        self.registers.set(to, &name);
    }

    pub(super) fn load_payload(
        &mut self,
        base: u32,
        offset: usize,
        length: usize,
        to: usize,
        packet: &Packet,
    ) -> Next {
        self.registers.forget(to, length.next_multiple_of(4).min(REGISTERS - to));
        let (network, header) = packet.network();
        let (carried, _, _) = packet.carried();
        let from = match base {
            1 => offset,
            2 => offset.saturating_add(header),
            // The header of the link, or what is inside: not known, and there may be none.
            _ => return Next::Continue,
        };
        for index in 0..length {
            let (source, at) = match from.saturating_add(index) {
                at if at < header => (&network, at),
                at => (&carried, at - header),
            };
            if at < REGISTERS {
                self.registers.copy(to + index, source, at, 1);
            }
        }
        // A register is cleared before its last word is filled.
        for index in length..length.next_multiple_of(4) {
            self.registers.set(to + index, &[0]);
        }
        Next::Continue
    }

    pub(super) fn load_connection(
        &mut self,
        key: u32,
        reply: Option<bool>,
        to: usize,
        packet: &Packet,
    ) -> Next {
        if key == 0 {
            self.registers.set(to, &state_bit(packet.tracked).to_ne_bytes());
            return Next::Continue;
        }
        let Some((_, direction)) = self.tracked(packet) else { return Next::Break };
        let connection = &self.connection;
        let family = packet.family;
        let end = |source: bool| -> End {
            match (reply.unwrap_or(direction), source) {
                (false, true) => connection.source,
                (false, false) => connection.destination,
                (true, source) => connection.reply_end(source),
            }
        };
        let mut bits = Bits::UNKNOWN;
        let length = expression::connection_length(key).min(REGISTERS - to);
        match key {
            1 => bits.set(0, &[u8::from(direction), 0, 0, 0]),
            2 => bits.set_word(0, connection.status()),
            CONNECTION_MARK => bits.set_word(0, connection.mark),
            7 => bits.set(0, &[if family == Family::Ipv4 { 2 } else { 10 }, 0, 0, 0]),
            8 | 9 => {
                bits.set(0, &[0; 16]);
                bits.forget(0, if family == Family::Ipv4 { 4 } else { 16 });
                set_address(&mut bits, 0, end(key == 8).address);
            }
            10 => bits.set(0, &[packet.protocol(), 0, 0, 0]),
            11 | 12 => {
                bits.set(0, &[0; 4]);
                bits.forget(0, 2);
                if let Some(port) = end(key == 11).port {
                    bits.set(0, &port.to_be_bytes());
                }
            }
            17 => bits.set(0, &[0; 4]),
            19..=22 => {
                if (family == Family::Ipv6) != (key >= 21) {
                    return Next::Break;
                }
                set_address(&mut bits, 0, end(key == 19 || key == 21).address);
            }
            _ => {}
        }
        // A key of 16 bytes in a table of IPv4 has 4; nothing lies behind it that a later expression loads.
        let length = if matches!(key, 8 | 9) && family == Family::Ipv4 { length.min(4) } else { length };
        self.registers.copy(to, &bits, 0, length);
        Next::Continue
    }

    pub(super) fn load_fib(&mut self, to: usize, result: FibResult, flags: u32, packet: &Packet) {
        const SOURCE: u32 = 1;
        const BY_MARK: u32 = 4;
        const ON_INPUT: u32 = 8;
        const ON_OUTPUT: u32 = 16;
        const PRESENT: u32 = 32;
        let end = if flags & SOURCE != 0 { packet.source } else { packet.destination };
        let address = end.address.filter(|_| !packet.rewritten);
        let device = match () {
            () if flags & ON_INPUT != 0 => packet.input.as_ref(),
            () if flags & ON_OUTPUT != 0 => packet.output.as_ref(),
            () => None,
        };
        let length = if result == FibResult::Name && flags & PRESENT == 0 { NAME } else { 4 };
        self.registers.forget(to, length.min(REGISTERS - to));
        if result == FibResult::Type {
            let kind = address.and_then(|address| self.facts.address_type(address, device));
            if let Some(kind) = kind {
                self.registers.set(to, &kind.to_ne_bytes());
            }
            return;
        }
        let looped = packet.input.as_ref().filter(|device| device.hardware == Some(super::LOOPBACK));
        let found = match (looped, address) {
            (Some(device), _) if self.hook == Hook::Prerouting => Some(Some(device.clone())),
            (_, Some(address)) => {
                let mark = if flags & BY_MARK != 0 { packet.mark.get() } else { Some(0) };
                if flags & BY_MARK != 0 && mark.is_none() {
                    None
                } else {
                    self.facts.route(address, mark, device)
                }
            }
            _ => None,
        };
        let Some(found) = found else { return };
        if flags & PRESENT != 0 {
            self.registers.set(to, &[u8::from(found.is_some()), 0, 0, 0]);
        } else if result == FibResult::Index {
            self.registers.set(to, &found.map_or(0, |device| device.index).to_ne_bytes());
        } else {
            self.set_name(to, found.as_ref());
        }
    }

    /// Whether an address has one of these types (bits `1 << RTN_*`).
    pub(super) fn has_type(&self, address: Option<IpAddr>, types: u16, device: Option<&Device>) -> Answer {
        let Some(kind) = address.and_then(|address| self.facts.address_type(address, device)) else {
            return Answer::Unknown;
        };
        Answer::from(types & 1u16.checked_shl(kind).unwrap_or(0) != 0)
    }
}
