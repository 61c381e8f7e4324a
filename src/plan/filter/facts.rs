//! What the interpreter asks about the host, and the choices it makes where an answer is not known.

use std::net::IpAddr;

use super::packet::{Device, Packet};
use crate::model::{Family, Protocol};

/// Types of addresses as routing tables have them (`RTN_*` of `linux/rtnetlink.h`).
pub mod address_type {
    /// Another host.
    pub const UNICAST: u32 = 1;
    /// This host.
    pub const LOCAL: u32 = 2;
    /// Every host of a network.
    pub const BROADCAST: u32 = 3;
    /// One of several hosts.
    pub const ANYCAST: u32 = 4;
    /// The members of a group.
    pub const MULTICAST: u32 = 5;
    /// Nowhere.
    pub const UNREACHABLE: u32 = 7;
}

/// Where a packet goes that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// To this host.
    Local,
    /// On to another one, by this interface.
    Forward(Device),
    /// Nowhere: the kernel drops it without an answer.
    Lost,
    /// It depends on what is not known.
    Unknown,
}

/// What becomes of a packet at the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// A socket receives it; which one is a number of the caller's own.
    Accepted(u32),
    /// The host answers that there is no socket: RST, or ICMP port unreachable.
    Refused,
    /// Nothing comes back.
    Silent,
    /// It depends on what is not known.
    Unknown,
}

/// Facts about the host.
pub trait Facts {
    /// The type of an address (`RTN_*`), asked of one interface or of all; `None` where it is not known.
    fn address_type(&self, address: IpAddr, device: Option<&Device>) -> Option<u32>;

    /// The interface of the route to an address, for packets with this mark, restricted to one interface if given: `None` where
    /// it is not known, `Some(None)` where there is no route.
    fn route(&self, to: IpAddr, mark: Option<u32>, device: Option<&Device>) -> Option<Option<Device>>;

    /// Where a packet goes that has arrived on an interface and passed `prerouting`.
    fn incoming(&self, packet: &Packet) -> Incoming;

    /// The interface that a packet of this host leaves by after its destination was changed: `None` where it is not known,
    /// `Some(None)` where there is no route.
    fn outgoing(&self, packet: &Packet) -> Option<Option<Device>>;

    /// The addresses to one of which `redirect` translates what arrives on an interface.
    fn redirect(&self, device: &Device, family: Family) -> Vec<IpAddr>;

    /// The source address that `masquerade` gives to what leaves by an interface; `None` where it is not known.
    fn masquerade(&self, device: &Device, packet: &Packet) -> Option<IpAddr>;

    /// What the sockets do with a packet for this host.
    fn deliver(&self, protocol: Protocol, destination: IpAddr, port: u16, packet: &Packet) -> Delivery;

    /// Whether answers of the kernel carry the mark of what they answer (`fwmark_reflect`).
    fn reflects_mark(&self, family: Family) -> bool;

    /// Whether connections carry the mark of their SYN (`tcp_fwmark_accept`).
    fn accepts_mark(&self) -> bool;

    /// Whether policy rules look at marks.
    fn routes_by_mark(&self, family: Family) -> bool;
}

/// A place in a ruleset: a rule of a chain, or its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Index of the chain.
    pub chain: usize,
    /// Index of the rule; `None` for the policy.
    pub rule: Option<usize>,
}

/// Why a choice was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// A rule compares what is not known.
    Rule(Place),
    /// The order of two chains is not known.
    Order(Place),
    /// Rules tell ports of clients apart.
    Port,
    /// The address of an interface that a translation takes is not known.
    Address(Place),
}

/// The choices of one run. Runs with every combination of choices are all that can happen.
#[derive(Debug, Default)]
pub struct Choices {
    made: Vec<(usize, usize, Because)>,
    at: usize,
}

impl Choices {
    /// Chooses one of so many.
    pub fn choose(&mut self, options: usize, because: Because) -> usize {
        let taken = match self.made.get(self.at) {
            Some((taken, _, _)) => *taken,
            None => {
                self.made.push((0, options, because));
                0
            }
        };
        self.at += 1;
        taken
    }

    /// Goes on to the next combination; false when there is none.
    pub fn advance(&mut self) -> bool {
        self.made.truncate(self.at);
        self.at = 0;
        while let Some((taken, options, _)) = self.made.last_mut() {
            *taken += 1;
            if *taken < *options {
                return true;
            }
            self.made.pop();
        }
        false
    }

    /// The last choice that differs from the run before.
    #[must_use]
    pub fn last(&self) -> Option<Because> {
        self.made.last().map(|(_, _, because)| *because)
    }
}
