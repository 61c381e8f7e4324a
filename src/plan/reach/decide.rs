//! The outcome of a packet at the sockets: which one receives it, whether the answer gets back, and the rule that decided.

use std::net::IpAddr;

use super::answer::{Answer, Answering, Verdict};
use super::paths::{Arriving, Back, HostView, Path};
use super::{Local, Packet, Preference, Reach, Tables, Winner};
use crate::code::Code;
use crate::model::{Outcome, Protocol};
use crate::plan::fib::Fact;
use crate::plan::predict::{Binds, Holder};

/// The packet as the sockets are looked up for it.
pub(super) fn packet(arriving: &Arriving, protocol: Protocol, port: u16) -> Packet {
    let Arriving { destination, device, vrf, .. } = *arriving;
    Packet { protocol, destination, port, device, vrf }
}

/// The outcome of a packet at the sockets.
///
/// `mark` is the firewall mark that packet filters have given to it.
pub(super) fn arrive(
    view: &HostView<'_>,
    binds: &Binds,
    path: Path,
    (protocol, port): (Protocol, u16),
    mark: Fact<u32>,
) -> Reach {
    let arriving = match path {
        Path::Lost(outcome, why) => return Reach::without_socket(outcome, why, None),
        Path::Dropped(why, answer) => return Reach::without_socket(Outcome::Timeout, why, Some(answer)),
        Path::Unresolved(why, answer) => {
            // The kernel does not report a transient error to a UDP socket (`udp_err()`).
            let outcome = if protocol == Protocol::Udp { Outcome::Timeout } else { Outcome::Unreachable };
            return Reach::without_socket(outcome, why, answer);
        }
        Path::Unknown(why, answer) => return Reach::unknown(why, Vec::new(), answer),
        Path::Arrives(arriving) => arriving,
    };
    let Arriving { destination, device, vrf, ingress, special, back } = arriving;
    let kernel = Answering { protocol, port, mark, ..Answering::KERNEL };
    if let Back::Each(question) = &back {
        match view.accepts_source(question, Some(&kernel)) {
            Verdict::Arrives => {}
            Verdict::Lost(why, answer) => return Reach::without_socket(Outcome::Timeout, why, Some(answer)),
            Verdict::Unknown(answer) => {
                return Reach::unknown(Code::ANSWER_UNKNOWN, Vec::new(), Some(answer));
            }
        }
    }
    let packet = Packet { protocol, destination, port, device, vrf };
    let holders = |ids: &[usize]| ids.iter().map(|&id| binds.holder(id)).collect::<Vec<_>>();
    match binds.tables.winner(&packet) {
        // Without a way back there is no handshake and no word that nothing listens; but a datagram needs no answer.
        Winner::Found { ids, over } => {
            let mut verdicts = ids.iter().map(|&id| {
                let entry = binds.tables.entry(id);
                let user = entry.uid.map_or(Fact::Unknown, Fact::Known);
                let (device, socket_mark) = (entry.device, entry.mark);
                answer(view, &back, &Answering { user, accepts: true, device, socket_mark, ..kernel })
            });
            let lost = |verdict: &Verdict| *verdict != Verdict::Arrives && protocol == Protocol::Tcp;
            match verdicts.find(lost) {
                Some(Verdict::Lost(why, answer)) => {
                    return Reach::without_socket(Outcome::Timeout, why, shown(why, answer));
                }
                Some(Verdict::Unknown(answer)) => {
                    return Reach::unknown(Code::ANSWER_UNKNOWN, holders(&ids), Some(answer));
                }
                _ => {}
            }
            Reach {
                outcome: Some(Outcome::Accepted),
                takers: holders(&ids),
                // A connection over IPv4 reports the VRF; one over IPv6, and every datagram, the interface in it.
                ingress: Some(match (protocol, destination, vrf) {
                    (Protocol::Tcp, IpAddr::V4(_), 1..) => vrf,
                    _ => ingress,
                }),
                why: why_accepted(binds, &packet, &ids, over.map(|(_, preference)| preference), special),
                answer: None,
                filtered: None,
            }
        }
        Winner::NoSocket => match answer(view, &back, &kernel) {
            Verdict::Arrives => {
                Reach::without_socket(Outcome::Refused, why_refused(&binds.tables, &packet), None)
            }
            Verdict::Lost(why, answer) => Reach::without_socket(Outcome::Timeout, why, shown(why, answer)),
            Verdict::Unknown(answer) => Reach::unknown(Code::ANSWER_UNKNOWN, Vec::new(), Some(answer)),
        },
        Winner::Unknown(ids) => Reach::unknown(Code::REACH_UNKNOWN, holders(&ids), None),
    }
}

/// What happens to an answer.
fn answer(view: &HostView<'_>, back: &Back, answering: &Answering) -> Verdict {
    let bound = answering.device != 0;
    match back {
        Back::Here { plain, by_device } => match if bound { *by_device } else { *plain } {
            Some(true) => Verdict::Arrives,
            Some(false) => Verdict::Lost(Code::NO_WAY_BACK, Answer::default()),
            None => Verdict::Unknown(Answer::default()),
        },
        // A socket may be bound to the VRF of the link and not to the link.
        Back::Same { question, plain, by_device } => match answering.device {
            0 => *plain,
            device if device == question.link => *by_device,
            _ => view.answer(question, answering),
        },
        Back::Each(question) => view.answer(question, answering),
    }
}

/// Where an answer goes, if that says more than the code.
fn shown(why: Code, answer: Answer) -> Option<Answer> {
    (why != Code::NO_WAY_BACK || answer != Answer::default()).then_some(answer)
}

/// The most telling of the rules that brought a packet to its socket.
fn why_accepted(
    binds: &Binds,
    packet: &Packet,
    ids: &[usize],
    over: Option<Preference>,
    special: Option<Code>,
) -> Code {
    let Some(&first) = ids.first() else { return Code::REACH_UNKNOWN };
    let entry = binds.tables.entry(first);
    if matches!(binds.holder(first), Holder::Foreign(_)) {
        return Code::FOREIGN_SOCKET;
    }
    match over {
        Some(Preference::Order) => return Code::ORDER_DECIDES,
        Some(Preference::SpecificAddress) => return Code::SPECIFIC_WINS,
        Some(Preference::Ipv4Socket) => return Code::IPV4_SOCKET_WINS,
        Some(Preference::Device) => return Code::DEVICE_WINS,
        None if ids.len() > 1 => return Code::GROUP_SHARES,
        None => {}
    }
    if let Some(special) = special {
        return special;
    }
    if entry.device != 0 {
        return Code::DEVICE_BOUND;
    }
    match (packet.destination, entry.local) {
        (IpAddr::V4(_), Local::V6(_)) => Code::DUAL_STACK,
        (_, local) if local.is_any() => Code::WILDCARD,
        _ => Code::EXACT_ADDRESS,
    }
}

/// Why no socket received a packet: a socket that almost matched, or none.
fn why_refused(tables: &Tables, packet: &Packet) -> Code {
    let own = Local::of(packet.destination);
    let mut other_family = false;
    for id in tables.near(packet.protocol, packet.port, own) {
        let entry = tables.entry(id);
        let takes_family = match (packet.destination, entry.local) {
            (IpAddr::V4(_), Local::V4(_)) | (IpAddr::V6(_), Local::V6(_)) => true,
            (IpAddr::V4(_), Local::V6(_)) => entry.v6only == Some(false),
            (IpAddr::V6(_), Local::V4(_)) => false,
        };
        if takes_family {
            return Code::OTHER_DEVICE;
        }
        other_family = true;
    }
    if other_family { Code::OTHER_FAMILY } else { Code::NO_LISTENER }
}
