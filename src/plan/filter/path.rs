//! One run of a connection through the hooks, with one choice for each thing that is not known.

use std::collections::HashMap;

use super::bits::Word;
use super::decode::Filters;
use super::expression::Reject;
use super::facts::{Because, Choices, Delivery, Facts, Incoming, Place, address_type};
use super::flow::{Fate, Origin, Question, Reply};
use super::hooks::{Hook, Step};
use super::machine::{Ending, Machine};
use super::packet::{Connection, Device, End, Packet, State, Tracked, Transport, flag, status};
use super::trail::What;
use crate::model::{Family, FilteredPacket as Role, Protocol};

/// The result of one run.
#[derive(Debug, Clone)]
pub struct Once {
    /// What becomes of the connection.
    pub fate: Fate,
    /// The rule or policy that decided.
    pub place: Option<Place>,
    /// The packet that it decided about.
    pub role: Role,
}

/// How a packet ends at a hook, or at several.
pub(super) enum Passage {
    Passed,
    Dropped(Place),
    Rejected(Place, Reject, Hook),
    Uncertain(Place),
}

/// One run of a connection through the hooks.
pub struct Flow<'a> {
    /// The machine that runs the rules.
    pub machine: Machine<'a>,
    pub(super) question: &'a Question,
    pub(super) family: Family,
    /// The last rule that let the first packet pass.
    passed: Option<Place>,
    /// Whether the chains of equal priority at a hook run in the opposite order.
    reversed: HashMap<(Hook, usize), bool>,
    accepted: Option<Place>,
}

impl<'a> Flow<'a> {
    /// A run with these choices.
    pub fn new(
        filters: &'a Filters,
        facts: &'a dyn Facts,
        question: &'a Question,
        choices: &'a mut Choices,
    ) -> Flow<'a> {
        let port = question.source_port.or_else(|| match filters.client_ports[..] {
            [] => None,
            [one] => Some(one),
            ref several => several.get(choices.choose(several.len(), Because::Port)).copied(),
        });
        let source = End { address: question.source, port };
        let destination = End { address: Some(question.destination), port: Some(question.port) };
        Flow {
            machine: Machine::new(filters, facts, choices, Connection::new(source, destination)),
            question,
            family: Family::of(question.destination),
            passed: None,
            reversed: HashMap::new(),
            accepted: None,
        }
    }

    pub(super) fn end(&self, fate: Fate, place: Option<Place>, role: Role) -> Once {
        Once { fate, place, role }
    }

    /// Follows the packets, as far as they get. Ends repeat a TCP packet that is lost. Where rules have changed the mark of the
    /// connection since, and look at such marks, the repeated packet may pass.
    pub fn run(&mut self) -> Once {
        let once = self.once();
        let lost = matches!(once.fate, Fate::Dropped | Fate::AnswerDropped(_) | Fate::HalfOpen(_));
        let connection = &self.machine.connection;
        let marked = connection.exists && connection.mark != Word::new(0);
        if self.question.protocol == Protocol::Tcp && lost && marked && self.machine.filters.reads_marks {
            return Once { fate: Fate::Uncertain, ..once };
        }
        once
    }

    fn once(&mut self) -> Once {
        if let Origin::Link { input, neighbour: Some(neighbour), .. } = &self.question.origin {
            match self.discovery(input, *neighbour) {
                Passage::Passed => {}
                Passage::Dropped(place) | Passage::Rejected(place, ..) => {
                    return self.end(Fate::NoNeighbour, Some(place), Role::Neighbour);
                }
                Passage::Uncertain(place) => return self.end(Fate::Uncertain, Some(place), Role::Neighbour),
            }
        }
        let tcp = self.question.protocol == Protocol::Tcp;
        let role = if tcp { Role::Syn } else { Role::Datagram };
        let transport = if tcp { Transport::Tcp(flag::SYN) } else { Transport::Udp };
        let (from, to) = (self.machine.connection.source, self.machine.connection.destination);
        let mut packet = Packet::new(self.family, transport, from, to);
        self.accepted = None;
        if let Origin::Host(device) = &self.question.origin {
            match self.leave(&mut packet, device.clone(), role) {
                Ok(None) => {}
                Ok(Some(once)) => return once,
                Err(Passage::Dropped(place)) if !tcp => {
                    return self.end(Fate::SendRefused, Some(place), role);
                }
                // The datagram is not sent, and the answer of the rule comes as well.
                Err(Passage::Rejected(place, ..)) if !tcp => {
                    return self.end(Fate::SendRefused, Some(place), role);
                }
                Err(passage) => return self.stopped(passage, &packet, role),
            }
        } else if let Origin::Link { input, .. } = &self.question.origin {
            packet.input = Some(input.clone());
        }
        let passage = self.hook(Hook::Prerouting, &mut packet, role);
        if !matches!(passage, Passage::Passed) {
            return self.stopped(passage, &packet, role);
        }
        if packet.rewritten {
            return self.end(Fate::Uncertain, self.accepted, role);
        }
        // A loopback address is dropped after this hook, unless it was translated.
        let loopback =
            self.question.destination.is_loopback() && matches!(self.question.origin, Origin::Link { .. });
        let moved = packet.destination != to || packet.mark != Word::new(0);
        let incoming = if moved || loopback { self.machine.facts.incoming(&packet) } else { Incoming::Local };
        match incoming {
            Incoming::Local => {}
            Incoming::Forward(device) => return self.forward(packet, device, role),
            Incoming::Lost => return self.end(Fate::Lost, self.machine.translated_by[0], role),
            Incoming::Unknown => return self.end(Fate::Uncertain, self.machine.translated_by[0], role),
        }
        let passage = self.hook(Hook::Input, &mut packet, role);
        if !matches!(passage, Passage::Passed) {
            return self.stopped(passage, &packet, role);
        }
        self.confirm(&packet);
        self.passed = self.accepted;
        if packet.rewritten {
            return self.end(Fate::Uncertain, self.accepted, role);
        }
        let (Some(address), Some(port)) = (packet.destination.address, packet.destination.port) else {
            return self.end(Fate::Uncertain, self.machine.translated_by[0], role);
        };
        let delivery = self.machine.facts.deliver(self.question.protocol, address, port, &packet);
        self.delivered(delivery, &packet, role)
    }

    /// The packets after the first one has reached the sockets.
    fn delivered(&mut self, delivery: Delivery, first: &Packet, role: Role) -> Once {
        let (icmp_kind, icmp_code) = if self.family == Family::Ipv4 { (3, 3) } else { (1, 4) };
        let facts = self.machine.facts;
        let reflected = if facts.reflects_mark(self.family) { first.mark } else { Word::new(0) };
        let (transport, mark) = match (delivery, first.transport) {
            (Delivery::Accepted(_), Transport::Tcp(_)) => {
                let mark = if facts.accepts_mark() { first.mark } else { Word::new(0) };
                (Transport::Tcp(flag::SYN | flag::ACK), mark)
            }
            (Delivery::Refused, Transport::Tcp(_)) => (Transport::Tcp(flag::RST | flag::ACK), reflected),
            (Delivery::Refused, _) => (Transport::Icmp(icmp_kind, icmp_code), reflected),
            _ => return self.end(Fate::Delivered(delivery), self.passed, role),
        };
        if self.family == Family::Ipv6
            && first.input.as_ref().is_some_and(|input| input.hardware == Some(super::LOOPBACK))
            && delivery == Delivery::Refused
            && self.machine.connection.to.is_some()
        {
            // The answer is routed over the interface that owns the translated address, where the client's may not be.
            return self.end(Fate::Uncertain, self.machine.translated_by[0], Role::Answer);
        }
        let mut answer = Packet::new(self.family, transport, first.destination, first.source);
        if matches!(transport, Transport::Icmp(..)) {
            (answer.source.port, answer.destination.port) = (None, None);
        }
        answer.mark = mark;
        match self.answer(answer) {
            Passage::Passed => {}
            Passage::Dropped(place) | Passage::Rejected(place, ..) => {
                return self.ask_again(delivery, place);
            }
            Passage::Uncertain(place) => return self.end(Fate::Uncertain, Some(place), Role::Answer),
        }
        if !matches!((delivery, first.transport), (Delivery::Accepted(_), Transport::Tcp(_))) {
            return self.end(Fate::Delivered(delivery), self.passed, role);
        }
        self.acknowledge(delivery, role)
    }

    /// The answer was dropped, so the client sends its SYN again. To connection tracking that is a packet of an established
    /// connection when it has seen the answer, and a rule may answer this one.
    fn ask_again(&mut self, delivery: Delivery, place: Place) -> Once {
        let dropped = self.end(Fate::AnswerDropped(delivery), Some(place), Role::Answer);
        // After a reset the kernel takes a repeated SYN for a new connection.
        let repeated = self.question.protocol == Protocol::Tcp && matches!(delivery, Delivery::Accepted(_));
        if !repeated || self.machine.connection.status & status::SEEN_REPLY == 0 {
            return dropped;
        }
        let (passage, packet) = match self.another(flag::SYN) {
            Ok(sent) => sent,
            Err(once) => return once,
        };
        match passage {
            Passage::Rejected(place, how, hook) => match self.reject(how, hook, &packet) {
                Ok(Some(reply)) => self.end(Fate::Rejected(reply), Some(place), Role::Syn),
                Err(Passage::Uncertain(place)) => self.end(Fate::Uncertain, Some(place), Role::Answer),
                _ => dropped,
            },
            Passage::Uncertain(place) => self.end(Fate::Uncertain, Some(place), Role::Syn),
            Passage::Passed | Passage::Dropped(_) => dropped,
        }
    }

    /// Another packet of the client after the first one, as far as it gets.
    fn another(&mut self, flags: u8) -> Result<(Passage, Packet), Once> {
        let (from, to) = (self.machine.connection.source, self.machine.connection.destination);
        let mut packet = Packet::new(self.family, Transport::Tcp(flags), from, to);
        let passage = match &self.question.origin {
            Origin::Host(device) => match self.leave(&mut packet, device.clone(), Role::Ack) {
                Ok(None) => Passage::Passed,
                Ok(Some(once)) => return Err(once),
                Err(passage) => passage,
            },
            Origin::Link { input, .. } => {
                packet.input = Some(input.clone());
                Passage::Passed
            }
        };
        let passage = self.then(passage, Hook::Prerouting, &mut packet, Role::Ack);
        let passage = self.then(passage, Hook::Input, &mut packet, Role::Ack);
        Ok((passage, packet))
    }

    fn acknowledge(&mut self, delivery: Delivery, role: Role) -> Once {
        let (passage, ack) = match self.another(flag::ACK) {
            Ok(sent) => sent,
            Err(once) => return once,
        };
        match passage {
            Passage::Passed => self.end(Fate::Delivered(delivery), self.passed, role),
            Passage::Dropped(place) => self.end(Fate::HalfOpen(delivery), Some(place), Role::Ack),
            Passage::Uncertain(place) => self.end(Fate::Uncertain, Some(place), Role::Ack),
            Passage::Rejected(place, how, hook) => {
                let fate = match self.reject(how, hook, &ack) {
                    Ok(Some(reply)) => Fate::Broken(delivery, reply),
                    Ok(None) | Err(Passage::Passed | Passage::Dropped(_) | Passage::Rejected(..)) => {
                        Fate::HalfOpen(delivery)
                    }
                    Err(Passage::Uncertain(_)) => Fate::Uncertain,
                };
                self.end(fate, Some(place), Role::Ack)
            }
        }
    }

    /// A packet of the host itself up to the point where it arrives again on the loopback interface. `Ok` with a result where it
    /// leaves the host.
    fn leave(&mut self, packet: &mut Packet, device: Device, role: Role) -> Result<Option<Once>, Passage> {
        let (to, mark) = (packet.destination, packet.mark);
        packet.output = Some(device.clone());
        passed(self.hook(Hook::Output, packet, role))?;
        if packet.destination != to || packet.mark != mark {
            match self.machine.facts.outgoing(packet) {
                Some(Some(other)) => packet.output = Some(other),
                Some(None) => return Ok(Some(self.end(Fate::Lost, self.machine.translated_by[0], role))),
                None => return Ok(Some(self.end(Fate::Uncertain, self.machine.translated_by[0], role))),
            }
        }
        passed(self.hook(Hook::Postrouting, packet, role))?;
        self.confirm(packet);
        if packet.output.as_ref().is_none_or(|output| output.index != device.index) {
            let by = packet.output.clone().unwrap_or(device);
            return Ok(Some(self.beyond(packet, by, role)));
        }
        packet.input = packet.output.take();
        Ok(None)
    }

    fn forward(&mut self, mut packet: Packet, device: Device, role: Role) -> Once {
        packet.output = Some(device.clone());
        let passage = self.hook(Hook::Forward, &mut packet, role);
        let passage = self.then(passage, Hook::Postrouting, &mut packet, role);
        if !matches!(passage, Passage::Passed) {
            return self.stopped(passage, &packet, role);
        }
        self.confirm(&packet);
        self.passed = self.accepted;
        self.beyond(&packet, device, role)
    }

    /// A result for a first packet that did not pass.
    fn stopped(&mut self, passage: Passage, packet: &Packet, role: Role) -> Once {
        match passage {
            Passage::Passed => self.end(Fate::Uncertain, None, role),
            Passage::Dropped(place) => self.end(Fate::Dropped, Some(place), role),
            Passage::Uncertain(place) => self.end(Fate::Uncertain, Some(place), role),
            Passage::Rejected(place, how, hook) => match self.reject(how, hook, packet) {
                Ok(Some(reply)) => self.end(Fate::Rejected(reply), Some(place), role),
                Ok(None) => self.end(Fate::Dropped, Some(place), role),
                Err(Passage::Uncertain(place)) => self.end(Fate::Uncertain, Some(place), Role::Answer),
                Err(Passage::Dropped(by) | Passage::Rejected(by, ..)) => {
                    self.end(Fate::Dropped, Some(by), Role::Answer)
                }
                Err(Passage::Passed) => self.end(Fate::Uncertain, Some(place), role),
            },
        }
    }

    /// Whether a rule answers a packet of this host that was translated to another one: the answer would come from that address.
    fn answers_for_another(&self, hook: Hook, packet: &Packet) -> bool {
        let local = |address| self.machine.facts.address_type(address, None) == Some(address_type::LOCAL);
        hook == Hook::Output
            && self.machine.connection.to.is_some()
            && !packet.destination.address.is_some_and(local)
    }

    /// The answer of a rule on its way to the client: `None` where none is sent, an error where it does not get there.
    fn reject(&mut self, how: Reject, hook: Hook, packet: &Packet) -> Result<Option<Reply>, Passage> {
        let ipv4 = self.family == Family::Ipv4;
        if self.answers_for_another(hook, packet) {
            // Whether an ICMP error from an address that is not the host's finds a route depends on more than is followed
            // (`icmp_route_lookup()`).
            return Err(Passage::Uncertain(self.machine.place));
        }
        let code = match how {
            Reject::Reset => {
                let Transport::Tcp(flags) = packet.transport else { return Ok(None) };
                if flags & flag::RST != 0 {
                    return Ok(None);
                }
                let set = if flags & flag::ACK == 0 { flag::RST | flag::ACK } else { flag::RST };
                let answer = Packet::new(self.family, Transport::Tcp(set), packet.destination, packet.source);
                passed(self.answer_of_rule(answer, packet))?;
                return Ok(Some(Reply::Reset));
            }
            Reject::Unreachable(code) => code,
            // Of `icmpx`: no route, port, host, prohibited.
            Reject::Abstract(number) => match (number, ipv4) {
                (0, _) => 0,
                (1, true) | (2, false) => 3,
                (1, false) => 4,
                (2, true) => 1,
                (3, true) => 13,
                (3, false) => 1,
                _ => return Ok(None),
            },
        };
        if matches!(packet.transport, Transport::Icmp(..)) {
            return Ok(None);
        }
        let kind = if ipv4 { 3 } else { 1 };
        let mut answer =
            Packet::new(self.family, Transport::Icmp(kind, code), packet.destination, packet.source);
        (answer.source.port, answer.destination.port) = (None, None);
        if hook == Hook::Prerouting {
            // The packet has no route yet, so the source is an address of the interface it leaves by.
            answer.source.address = None;
        }
        passed(self.answer_of_rule(answer, packet))?;
        Ok(Some(Reply::Icmp { kind, code }))
    }

    fn answer_of_rule(&mut self, mut answer: Packet, to: &Packet) -> Passage {
        // It is attached to the connection of the packet that it answers.
        if let Tracked::As { reply, .. } = to.tracked {
            answer.tracked = Tracked::As { state: State::Related, reply: !reply };
        }
        if self.machine.facts.reflects_mark(self.family) {
            answer.mark = to.mark;
        }
        self.answer(answer)
    }

    /// A packet of the host on its way to the client.
    fn answer(&mut self, mut answer: Packet) -> Passage {
        let translated = self.machine.connection.from.is_some();
        match &self.question.origin {
            Origin::Host(device) => match self.leave(&mut answer, device.clone(), Role::Answer) {
                Ok(None) => {
                    let passage = self.hook(Hook::Prerouting, &mut answer, Role::Answer);
                    self.then(passage, Hook::Input, &mut answer, Role::Answer)
                }
                // It leaves by another interface, because its mark or the client's translated address says so.
                Ok(Some(_)) => Passage::Uncertain(self.machine.place),
                Err(passage) => passage,
            },
            Origin::Link { output, .. } => {
                let output =
                    if translated { self.machine.facts.outgoing(&answer).flatten() } else { output.clone() };
                if output.is_none() && self.decides_about_answers() {
                    return Passage::Uncertain(self.machine.place);
                }
                answer.output = output;
                let mark = answer.mark;
                let passage = self.hook(Hook::Output, &mut answer, Role::Answer);
                if answer.mark != mark && self.machine.facts.routes_by_mark(self.family) {
                    return Passage::Uncertain(self.machine.place);
                }
                self.then(passage, Hook::Postrouting, &mut answer, Role::Answer)
            }
        }
    }

    /// Whether any chain sees what leaves the host.
    fn decides_about_answers(&self) -> bool {
        let hooks = &self.machine.filters.hooks;
        [Hook::Output, Hook::Postrouting].into_iter().any(|hook| hooks.has_chain(self.family, hook))
    }

    /// The connection gets its entry when its first packet has passed.
    fn confirm(&mut self, packet: &Packet) {
        if matches!(packet.tracked, Tracked::As { state: State::New, .. }) {
            self.machine.connection.exists = true;
            self.machine.connection.status |= status::CONFIRMED;
        }
    }

    pub(super) fn then(&mut self, before: Passage, hook: Hook, packet: &mut Packet, role: Role) -> Passage {
        match before {
            Passage::Passed => self.hook(hook, packet, role),
            stopped => stopped,
        }
    }

    /// Sends a packet through the chains of a hook.
    pub(super) fn hook(&mut self, hook: Hook, packet: &mut Packet, role: Role) -> Passage {
        let steps = self.machine.filters.hooks.of(self.family, hook);
        (self.machine.hook, self.machine.role) = (hook, role);
        if self.machine.trail.is_some() {
            let name = |device: &Option<Device>| device.as_ref().map(|device| device.name.clone());
            self.machine.record(What::Enters { input: name(&packet.input), output: name(&packet.output) });
        }
        let mut order: Vec<usize> = (0..steps.steps.len()).collect();
        for doubtful in &steps.doubtful {
            let key = (hook, doubtful.start);
            let reversed = match self.reversed.get(&key) {
                Some(reversed) => *reversed,
                None => {
                    let chain = steps.steps[doubtful.clone()].iter().find_map(|step| match step {
                        Step::Chain(chain) => Some(*chain),
                        _ => None,
                    });
                    let place = Place { chain: chain.unwrap_or(0), rule: None };
                    self.machine.choices.choose(2, Because::Order(place)) == 1
                }
            };
            self.reversed.insert(key, reversed);
            if reversed {
                order[doubtful.clone()].reverse();
            }
        }
        for index in order {
            match &steps.steps[index] {
                Step::Track => self.track(packet, role),
                Step::Chain(chain) => match self.machine.chain(*chain, packet) {
                    Ending::Accept(place) => self.accepted = Some(place),
                    Ending::Drop(place) => return Passage::Dropped(place),
                    Ending::Reject(place, how) => return Passage::Rejected(place, how, hook),
                    Ending::Uncertain(place) => return Passage::Uncertain(place),
                },
                Step::Translate(chains) => {
                    let before = (packet.source, packet.destination);
                    let passage = self.translate(chains, hook, packet);
                    if packet.destination != before.1 {
                        self.machine.record(What::Destination { from: before.1, to: packet.destination });
                    }
                    if packet.source != before.0 {
                        self.machine.record(What::Source { from: before.0, to: packet.source });
                    }
                    if !matches!(passage, Passage::Passed) {
                        return passage;
                    }
                }
            }
        }
        Passage::Passed
    }

    /// Assigns a packet to the connection.
    fn track(&mut self, packet: &mut Packet, role: Role) {
        if packet.tracked != Tracked::Not {
            return;
        }
        let connection = &mut self.machine.connection;
        packet.tracked = match role {
            Role::Neighbour => Tracked::Untracked,
            Role::Syn | Role::Datagram => Tracked::As { state: State::New, reply: false },
            Role::Ack if connection.exists && connection.status & status::SEEN_REPLY != 0 => {
                Tracked::As { state: State::Established, reply: false }
            }
            // Without the answer the ACK is out of the window: invalid (`tcp_conntracks` of `nf_conntrack_proto_tcp.c`).
            Role::Ack if connection.exists => Tracked::Not,
            // A connection that began unseen is picked up by its first packet.
            Role::Ack => Tracked::As { state: State::New, reply: false },
            Role::Answer if connection.exists && matches!(packet.transport, Transport::Icmp(..)) => {
                Tracked::As { state: State::Related, reply: true }
            }
            Role::Answer if connection.exists => {
                connection.status |= status::SEEN_REPLY;
                Tracked::As { state: State::Established, reply: true }
            }
            // An answer alone begins no connection.
            Role::Answer if !matches!(packet.transport, Transport::Udp) => Tracked::Not,
            Role::Answer => Tracked::As { state: State::New, reply: false },
        };
    }

    /// Translates a packet: the first ones of a connection by the chains, the others as that was decided.
    fn translate(&mut self, chains: &[usize], hook: Hook, packet: &mut Packet) -> Passage {
        let Some((state, reply)) = self.machine.tracked(packet) else { return Passage::Passed };
        let of_destination = matches!(hook, Hook::Prerouting | Hook::Output);
        let done = |connection: &Connection| {
            if of_destination { connection.destination_done } else { connection.source_done }
        };
        let is_error = matches!(packet.transport, Transport::Icmp(..));
        if state != State::Established && !is_error && !done(&self.machine.connection) {
            for chain in chains {
                match self.machine.chain(*chain, packet) {
                    Ending::Accept(_) => {}
                    Ending::Drop(place) => return Passage::Dropped(place),
                    Ending::Reject(place, how) => return Passage::Rejected(place, how, hook),
                    Ending::Uncertain(place) => return Passage::Uncertain(place),
                }
                if done(&self.machine.connection) {
                    break;
                }
            }
            if of_destination {
                self.machine.connection.destination_done = true;
            } else {
                self.machine.connection.source_done = true;
            }
        }
        let connection = &self.machine.connection;
        let keep_ports = |end: End| if is_error { End { port: None, ..end } } else { end };
        match (reply, of_destination) {
            (false, true) => packet.destination = connection.to.map_or(packet.destination, keep_ports),
            (false, false) => packet.source = connection.from.map_or(packet.source, keep_ports),
            (true, true) if connection.from.is_some() => packet.destination = keep_ports(connection.source),
            (true, false) if connection.to.is_some() => packet.source = keep_ports(connection.destination),
            (true, _) => {}
        }
        Passage::Passed
    }
}

fn passed(passage: Passage) -> Result<(), Passage> {
    match passage {
        Passage::Passed => Ok(()),
        stopped => Err(stopped),
    }
}
