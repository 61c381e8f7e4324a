//! What matches and targets of iptables do with a packet, and what translation does.

use std::net::IpAddr;

use super::bits::{Answer, Bits, Word};
use super::expression::{Expression, NatRegisters, Verdict};
use super::facts::Because;
use super::hooks::Hook;
use super::machine::{Machine, Next};
use super::meta::{do_not_track, state, state_bit};
use super::packet::{End, Packet, TCP, Transport, UDP, set_address, status};
use super::xt::{self, Conntrack, Match, Ports, Range, Raw, Target};
use crate::model::Family;

/// Whether a port is in a range.
fn in_ports(port: Option<u16>, ports: &Ports) -> Answer {
    let everything = ports.low == 0 && ports.high == u16::MAX;
    let inside =
        if everything { Some(true) } else { port.map(|port| (ports.low..=ports.high).contains(&port)) };
    Answer::from(inside).inverted(ports.inverted)
}

/// The bytes of an address, as rules compare them.
fn address_bits(address: Option<IpAddr>) -> Bits {
    let mut bits = Bits::UNKNOWN;
    set_address(&mut bits, 0, address);
    bits
}

fn length(family: Family) -> usize {
    if family == Family::Ipv4 { 4 } else { 16 }
}

impl Machine<'_> {
    pub(super) fn matches(&mut self, one: &Match, packet: &Packet) -> Answer {
        if packet.rewritten {
            return Answer::Unknown;
        }
        match one {
            Match::Ports { protocol, source, destination, flags, option } => {
                if packet.protocol() != *protocol {
                    return Answer::No;
                }
                let mut answer =
                    in_ports(packet.source.port, source).and(in_ports(packet.destination.port, destination));
                if let (Some((mask, value, inverted)), Transport::Tcp(set)) = (flags, packet.transport) {
                    // The two highest bits are those of explicit congestion notification.
                    let word = Word { value: u32::from(set), known: 0x3f };
                    answer = answer.and(word.equals(u32::from(*mask), u32::from(*value)).inverted(*inverted));
                }
                if *option { answer.and(Answer::Unknown) } else { answer }
            }
            Match::Multiport { source, destination, ranges, inverted } => {
                if !matches!(packet.protocol(), TCP | UDP) {
                    return Answer::No;
                }
                let mut answer = Answer::No;
                for (used, port) in [(source, packet.source.port), (destination, packet.destination.port)] {
                    for (low, high) in ranges.iter().filter(|_| *used) {
                        answer =
                            answer.or(in_ports(port, &Ports { low: *low, high: *high, inverted: false }));
                    }
                }
                answer.inverted(*inverted)
            }
            Match::Conntrack(conntrack) => self.conntrack(conntrack, packet),
            Match::AddressType { source, destination, input, output } => {
                let device = match () {
                    () if *input => packet.input.as_ref(),
                    () if *output => packet.output.as_ref(),
                    () => None,
                };
                let mut answer = Answer::Yes;
                for (end, (types, inverted)) in [(packet.source, source), (packet.destination, destination)] {
                    if *types != 0 {
                        answer = answer.and(self.has_type(end.address, *types, device).inverted(*inverted));
                    }
                }
                answer
            }
            Match::Mark { mark, mask, inverted, connection } => {
                let word = match (connection, self.tracked(packet)) {
                    (false, _) => packet.mark,
                    (true, Some(_)) => self.connection.mark,
                    (true, None) => return Answer::No,
                };
                word.equals(*mask, *mark).inverted(*inverted)
            }
            Match::AddressRange { source, destination } => {
                let mut answer = Answer::Yes;
                for (end, range) in [(packet.source, source), (packet.destination, destination)] {
                    if let Some((low, high, inverted)) = range {
                        let n = length(packet.family);
                        let inside = address_bits(end.address).within(0, &low[..n], &high[..n]);
                        answer = answer.and(inside.inverted(*inverted));
                    }
                }
                answer
            }
            Match::Icmp { v6, kind, codes, inverted } => match packet.transport {
                Transport::Icmp(one, code) if *v6 == (packet.family == Family::Ipv6) => {
                    let any = !v6 && *kind == 0xff;
                    Answer::from(any || (one == *kind && (codes.0..=codes.1).contains(&code)))
                        .inverted(*inverted)
                }
                _ => Answer::No,
            },
            Match::Hops { how, limit } => match packet.hops {
                Some(hops) => Answer::from(match how {
                    0 => hops == *limit,
                    1 => hops != *limit,
                    2 => hops < *limit,
                    3 => hops > *limit,
                    _ => return Answer::Unknown,
                }),
                None => Answer::Unknown,
            },
            Match::PacketType { kind, inverted } => {
                let same = self.packet_type(packet).map(|one| u32::from(one) == *kind);
                Answer::from(same).inverted(*inverted)
            }
            Match::Absent { .. } => Answer::No,
            Match::Limit { budget, inverted } => {
                self.assumes.insert(budget.assumption());
                Answer::from(!inverted)
            }
            Match::True { .. } => Answer::Yes,
            Match::Opaque { .. } => Answer::Unknown,
        }
    }

    fn conntrack(&self, one: &Conntrack, packet: &Packet) -> Answer {
        let tracked = self.tracked(packet);
        let mut answer = Answer::Yes;
        if let Some((mask, inverted)) = one.state {
            let mut bits = match state_bit(packet.tracked) {
                state::UNTRACKED => 1 << 8,
                bit => bit,
            };
            if tracked.is_some() {
                let done = self.connection.status;
                if self.connection.doubtful & done != 0 && mask & 0xc0 != 0 {
                    answer = Answer::Unknown;
                }
                bits |= if done & status::SOURCE != 0 { 1 << 6 } else { 0 };
                bits |= if done & status::DESTINATION != 0 { 1 << 7 } else { 0 };
            }
            let matches = Answer::from(u32::from(mask) & bits != 0).inverted(inverted);
            answer = if answer == Answer::Unknown { answer } else { matches };
        }
        let Some((_, reply)) = tracked else {
            // Without a connection only the state is compared, and whatever else is asked for counts as matching.
            return if one.state.is_some() { answer } else { Answer::No };
        };
        if one.opaque {
            answer = answer.and(Answer::Unknown);
        }
        if let Some((protocol, inverted)) = one.protocol {
            answer = answer.and(Answer::from(protocol == packet.protocol()).inverted(inverted));
        }
        if let Some(original) = one.direction {
            answer = answer.and(Answer::from(original != reply));
        }
        let connection = &self.connection;
        let ends = [
            connection.source,
            connection.destination,
            connection.reply_end(true),
            connection.reply_end(false),
        ];
        let n = length(packet.family);
        for (end, wanted) in ends.iter().zip(&one.addresses) {
            if let Some((address, mask, inverted)) = wanted {
                let mut bits = address_bits(end.address);
                bits.mask(0, 0, &mask[..n], &[0; 16][..n]);
                answer = answer.and(bits.equal(0, &address[..n]).inverted(*inverted));
            }
        }
        for (end, wanted) in ends.iter().zip(&one.ports) {
            if let Some((low, high, inverted)) = *wanted {
                answer = answer.and(in_ports(end.port, &Ports { low, high, inverted }));
            }
        }
        if let Some((mask, inverted)) = one.status {
            let word = connection.status();
            answer = answer.and(word.any(u32::from(mask)).inverted(inverted));
        }
        answer
    }

    pub(super) fn target(&mut self, target: &Target, packet: &mut Packet) -> Next {
        match target {
            Target::Reject(number) => {
                return match xt::reject_with(packet.family == Family::Ipv6, *number) {
                    Some(how) => Next::Reject(how),
                    None => Next::Verdict(Verdict::Drop),
                };
            }
            Target::Nat { source, range } => return self.translate_to(*source, range, packet),
            Target::Redirect(range) => return self.redirect(ports(range.ports, range.mapped), packet),
            Target::Masquerade(range) => return self.masquerade(ports(range.ports, range.mapped), packet),
            Target::Mark { value, mask } => packet.mark = packet.mark.mask(!mask, *value),
            Target::ConnectionMark { value, mask, packet_mask, how } => {
                if self.tracked(packet).is_some() {
                    match how {
                        0 => self.connection.mark = self.connection.mark.mask(!mask, *value),
                        1 => {
                            let kept = self.connection.mark.mask(!mask, 0);
                            self.connection.mark = kept.xor(packet.mark.mask(*packet_mask, 0));
                        }
                        2 => {
                            let kept = packet.mark.mask(!packet_mask, 0);
                            packet.mark = kept.xor(self.connection.mark.mask(*mask, 0));
                        }
                        _ => (self.connection.mark, packet.mark) = (Word::UNKNOWN, Word::UNKNOWN),
                    }
                }
            }
            Target::NoTrack => do_not_track(packet),
            Target::Neutral { name } => {
                if matches!(name.as_str(), "TTL" | "HL") {
                    packet.hops = None;
                }
            }
            Target::Opaque { .. } => return Next::Uncertain,
        }
        Next::Continue
    }

    /// `nat`, `redir`, `masq` of nf_tables.
    pub(super) fn translate(&mut self, expression: &Expression, packet: &mut Packet) -> Next {
        let port_of = |machine: &Self, registers: &NatRegisters| {
            registers.port.map(|(low, high)| {
                let low = machine.registers.port(low);
                low.filter(|_| low == machine.registers.port(high))
            })
        };
        match expression {
            Expression::Nat { source, family, registers } => {
                // A rule of the other family is no verdict.
                let own = if packet.family == Family::Ipv4 { 2 } else { 10 };
                if *family != own {
                    return Next::Continue;
                }
                let n = length(packet.family);
                let address = registers.address.map(|(low, high)| {
                    let bytes = self.registers.bytes(low, n).filter(|_| !registers.netmap)?;
                    if self.registers.bytes(high, n)? != bytes {
                        return None;
                    }
                    let mut raw: Raw = [0; 16];
                    raw[..n].copy_from_slice(bytes);
                    Some(xt::address(raw, packet.family))
                });
                let port = port_of(self, registers);
                self.set_translation(*source, address, port, packet)
            }
            Expression::Redirect(registers) => self.redirect(port_of(self, registers), packet),
            Expression::Masquerade(registers) => self.masquerade(port_of(self, registers), packet),
            _ => Next::Uncertain,
        }
    }

    fn translate_to(&mut self, source: bool, range: &Range, packet: &mut Packet) -> Next {
        let address = range
            .addresses
            .map(|(low, high)| (low == high && !range.mapped).then(|| xt::address(low, packet.family)));
        self.set_translation(source, address, ports(range.ports, range.mapped), packet)
    }

    fn redirect(&mut self, port: Option<Option<u16>>, packet: &mut Packet) -> Next {
        let addresses = match (self.hook, &packet.input, packet.family) {
            (Hook::Output, _, Family::Ipv4) => vec![std::net::Ipv4Addr::LOCALHOST.into()],
            (Hook::Output, _, Family::Ipv6) => vec![std::net::Ipv6Addr::LOCALHOST.into()],
            (_, Some(device), family) => self.facts.redirect(device, family),
            (_, None, _) => Vec::new(),
        };
        let address = match addresses[..] {
            // Without an address the packet is dropped.
            [] => return Next::Verdict(Verdict::Drop),
            [one] => one,
            _ => addresses[self.choices.choose(addresses.len(), Because::Address(self.place))],
        };
        self.set_translation(false, Some(Some(address)), port, packet)
    }

    fn masquerade(&mut self, port: Option<Option<u16>>, packet: &mut Packet) -> Next {
        let address = packet.output.as_ref().and_then(|device| self.facts.masquerade(device, packet));
        self.set_translation(true, Some(address), port, packet)
    }

    /// Translates the connection: an outer `None` keeps what there is, an inner one is not known.
    fn set_translation(
        &mut self,
        source: bool,
        address: Option<Option<IpAddr>>,
        port: Option<Option<u16>>,
        packet: &mut Packet,
    ) -> Next {
        let old = if source { packet.source } else { packet.destination };
        let new = End { address: address.unwrap_or(old.address), port: port.unwrap_or(old.port) };
        let certain = new.address.is_some() && new.port.is_some() == old.port.is_some();
        let (done, bit, index) = if source {
            (&mut self.connection.source_done, status::SOURCE, 1)
        } else {
            (&mut self.connection.destination_done, status::DESTINATION, 0)
        };
        if std::mem::replace(done, true) {
            return Next::Verdict(Verdict::Accept);
        }
        // A translation to what there is already is none.
        if new != old || !certain {
            self.connection.status |= bit;
            if !certain {
                self.connection.doubtful |= bit;
            }
            self.translated_by[index] = Some(self.place);
            if source {
                self.connection.from = Some(new);
            } else {
                self.connection.to = Some(new);
            }
        }
        Next::Verdict(Verdict::Accept)
    }
}

/// The port of a range, where it is one.
fn ports(range: Option<(u16, u16)>, mapped: bool) -> Option<Option<u16>> {
    range.map(|(low, high)| (low == high && !mapped).then_some(low))
}
