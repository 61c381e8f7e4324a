//! A connection that leaves for another host, and what that host answers.

use super::facts::Incoming;
use super::flow::{Fate, Origin};
use super::hooks::Hook;
use super::packet::{Device, Packet, Transport, flag};
use super::path::{Flow, Once, Passage};
use crate::model::FilteredPacket as Role;

impl Flow<'_> {
    /// A packet that left for another host, and what that answers.
    pub(super) fn beyond(&mut self, packet: &Packet, by: Device, role: Role) -> Once {
        let fate = Fate::Forwarded { to: packet.destination, by: by.clone() };
        let place = self.machine.translated_by[0];
        // No other host answers a loopback address.
        if packet.source.address.is_some_and(|source| source.is_loopback()) {
            return self.end(Fate::Lost, place, role);
        }
        if role != Role::Syn {
            return self.end(fate, place, role);
        }
        // Whether it accepts or refuses is not known, and rules may treat the two answers differently.
        let before = self.machine.connection.clone();
        for set in [flag::RST | flag::ACK, flag::SYN | flag::ACK] {
            self.machine.connection = before.clone();
            match self.answer_of_another(packet, &by, set) {
                Ok(Passage::Passed) => {}
                Ok(Passage::Dropped(place) | Passage::Rejected(place, ..) | Passage::Uncertain(place)) => {
                    return self.end(Fate::Uncertain, Some(place), Role::Answer);
                }
                Err(fate) => return self.end(fate, place, Role::Answer),
            }
        }
        let (from, to) = (self.machine.connection.source, self.machine.connection.destination);
        let mut ack = Packet::new(self.family, Transport::Tcp(flag::ACK), from, to);
        let passage = match &self.question.origin {
            Origin::Host(device) => {
                ack.output = Some(device.clone());
                let passage = self.hook(Hook::Output, &mut ack, Role::Ack);
                ack.output = Some(by);
                self.then(passage, Hook::Postrouting, &mut ack, Role::Ack)
            }
            Origin::Link { input, .. } => {
                ack.input = Some(input.clone());
                let passage = self.hook(Hook::Prerouting, &mut ack, Role::Ack);
                ack.output = Some(by);
                let passage = self.then(passage, Hook::Forward, &mut ack, Role::Ack);
                self.then(passage, Hook::Postrouting, &mut ack, Role::Ack)
            }
        };
        match passage {
            Passage::Passed => self.end(fate, place, role),
            Passage::Dropped(place) | Passage::Rejected(place, ..) => {
                self.end(Fate::Uncertain, Some(place), Role::Ack)
            }
            Passage::Uncertain(place) => self.end(Fate::Uncertain, Some(place), Role::Ack),
        }
    }

    /// The answer of another host to a packet, up to the client; an error where it ends on the way.
    fn answer_of_another(&mut self, packet: &Packet, by: &Device, set: u8) -> Result<Passage, Fate> {
        let mut answer = Packet::new(self.family, Transport::Tcp(set), packet.destination, packet.source);
        answer.input = Some(by.clone());
        let passage = self.hook(Hook::Prerouting, &mut answer, Role::Answer);
        Ok(match &self.question.origin {
            Origin::Host(_) => {
                // What comes back for a loopback address from a link is dropped, even where the source was translated.
                match self.machine.facts.incoming(&answer) {
                    Incoming::Local => {}
                    Incoming::Unknown => return Err(Fate::Uncertain),
                    _ => return Err(Fate::Lost),
                }
                self.then(passage, Hook::Input, &mut answer, Role::Answer)
            }
            Origin::Link { output, .. } => {
                answer.output = output.clone();
                let passage = self.then(passage, Hook::Forward, &mut answer, Role::Answer);
                self.then(passage, Hook::Postrouting, &mut answer, Role::Answer)
            }
        })
    }
}
