//! Traces packets through the rules of the calling thread's network namespace: a table of this program marks them, and the kernel
//! reports each rule that matches a marked packet (`NFNLGRP_NFTRACE`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::super::netlink::{Netlink, Refusal, Request, Service, attribute, attributes, read, until_nul};
use super::{HEADER, SUBSYSTEM, family, header, message};
use crate::model::Protocol;
use crate::sys::filter_types::{Met, TraceEvent, TraceVerdict, TracedPacket};

/// `NFNLGRP_NFTRACE` of `linux/netfilter/nfnetlink.h`.
const GROUP: u32 = 9;
const NEW_TABLE: u16 = message(0);
const DELETE_TABLE: u16 = message(2);
const NEW_CHAIN: u16 = message(3);
const NEW_RULE: u16 = message(6);
const TRACE: u16 = message(17);
/// `NLM_F_CREATE`, `NLM_F_EXCL`, `NLM_F_APPEND`.
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;
const APPEND: u16 = 0x800;
/// `NFPROTO_INET`.
const INET: u8 = 1;
/// Before every other chain.
const PRIORITY: i32 = i32::MIN + 1;
/// Beyond so many ports every datagram is marked.
const MOST_PORTS: usize = 32;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// The receive buffer that is asked for; `net.core.rmem_max` bounds it.
const BUFFER: usize = 8 << 20;

/// A trace that runs. Its table is removed when it is dropped.
pub struct Trace {
    listener: Netlink,
    /// For the end: the thread may be in another namespace by then, and this socket stays here.
    control: Netlink,
    table: Vec<u8>,
}

impl Trace {
    /// Begins to trace the SYN and SYN-ACK of every TCP connection, and the datagrams to these ports.
    ///
    /// # Errors
    /// The refusal of the kernel.
    pub fn here(udp_ports: &[u16]) -> Result<Trace, Refusal> {
        let mut control = Netlink::open(Service::Netfilter)?;
        let mut refusal = None;
        for number in 0..8 {
            let table = format!("bindscope-trace-{number}\0").into_bytes();
            match mark(&mut control, &table, udp_ports)? {
                None => {
                    // Before the group is joined the answers of requests are read.
                    let mut listener = Netlink::open(Service::Netfilter)?;
                    listener.make_room(BUFFER);
                    listener.join(GROUP)?;
                    return Ok(Trace { listener, control, table });
                }
                // Another table has this name.
                Some(why) if why.is(libc::EEXIST) => refusal = Some(why),
                Some(why) => return Err(why),
            }
        }
        Err(refusal.unwrap_or_else(|| io::Error::from(io::ErrorKind::AlreadyExists).into()))
    }

    /// Hands out what was traced since the last call. Returns whether the kernel had to leave something out.
    ///
    /// # Errors
    /// As `recv(2)`.
    pub fn drain(&mut self, each: &mut dyn FnMut(TraceEvent)) -> io::Result<bool> {
        let own = self.table.strip_suffix(&[0]).unwrap_or_default();
        self.listener.drain(|kind, payload| {
            if let Some(event) = event(kind, payload).filter(|event| event.chain.1.as_bytes() != own) {
                each(event);
            }
        })
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let payload = [&header(INET)[..], &attribute(1, &self.table)].concat();
        let _ = self.control.batch(SUBSYSTEM, &[Request { kind: DELETE_TABLE, flags: 0, payload }]);
    }
}

/// Adds the table that marks; returns the refusal, where there is one.
fn mark(kernel: &mut Netlink, table: &[u8], udp_ports: &[u16]) -> Result<Option<Refusal>, Refusal> {
    let named = |kind: u16, flags: u16, rest: &[u8]| {
        let payload = [&header(INET)[..], &attribute(1, table), rest].concat();
        Request { kind, flags, payload }
    };
    let mut requests = vec![named(NEW_TABLE, CREATE | EXCLUSIVE, &[])];
    // NF_INET_PRE_ROUTING and NF_INET_LOCAL_OUT.
    for (chain, hook) in [("prerouting\0", 0u32), ("output\0", 3)] {
        let place = [attribute(1, &hook.to_be_bytes()), attribute(2, &PRIORITY.to_be_bytes())].concat();
        let parts =
            [attribute(3, chain.as_bytes()), attribute(4 | NESTED, &place), attribute(7, b"filter\0")];
        requests.push(named(NEW_CHAIN, CREATE, &parts.concat()));
        let mut rules = vec![tcp()];
        if udp_ports.len() > MOST_PORTS {
            rules.push(protocol(17));
        } else {
            rules.extend(udp_ports.iter().map(|port| udp(*port)));
        }
        for mut expressions in rules {
            expressions.extend(trace());
            let parts = [attribute(2, chain.as_bytes()), attribute(4 | NESTED, &expressions)];
            requests.push(named(NEW_RULE, CREATE | APPEND, &parts.concat()));
        }
    }
    Ok(kernel.batch(SUBSYSTEM, &requests)?.into_iter().next().map(|(_, refusal)| refusal))
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn value(kind: u16, bytes: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, &attribute(1, bytes))
}

fn expression(name: &str, parts: &[Vec<u8>]) -> Vec<u8> {
    let name = [name.as_bytes(), &[0]].concat();
    let inner = [attribute(1, &name), attribute(2 | NESTED, &parts.concat())].concat();
    attribute(1 | NESTED, &inner)
}

/// `meta l4proto PROTOCOL`.
fn protocol(number_of: u8) -> Vec<u8> {
    let load = expression("meta", &[number(1, 1), number(2, 16)]);
    [load, expression("cmp", &[number(1, 1), number(2, 0), value(3, &[number_of])])].concat()
}

/// `tcp flags & syn != 0`.
fn tcp() -> Vec<u8> {
    let load = expression("payload", &[number(1, 1), number(2, 2), number(3, 13), number(4, 1)]);
    let and =
        expression("bitwise", &[number(1, 1), number(2, 1), number(3, 1), value(4, &[2]), value(5, &[0])]);
    [protocol(6), load, and, expression("cmp", &[number(1, 1), number(2, 1), value(3, &[0])])].concat()
}

/// `udp dport PORT`.
fn udp(port: u16) -> Vec<u8> {
    let load = expression("payload", &[number(1, 1), number(2, 2), number(3, 2), number(4, 2)]);
    [protocol(17), load, expression("cmp", &[number(1, 1), number(2, 0), value(3, &port.to_be_bytes())])]
        .concat()
}

/// `meta nftrace set 1`.
fn trace() -> Vec<u8> {
    let one = expression("immediate", &[number(1, 1), value(2, &[1])]);
    [one, expression("meta", &[number(2, 12), number(3, 1)])].concat()
}

/// The event in a message (`enum nft_trace_attributes`).
fn event(kind: u16, payload: &[u8]) -> Option<TraceEvent> {
    if kind != TRACE {
        return None;
    }
    let bytes = payload.get(HEADER..)?;
    let find = |wanted: u16| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let word = |wanted: u16| find(wanted).and_then(|value| read(value, 0)).map(u32::from_be_bytes);
    let text = |wanted: u16| Some(String::from_utf8_lossy(until_nul(find(wanted)?)).into_owned());
    let chain = (family(payload)?, text(1)?, text(2)?);
    let (met, verdict) = match word(4)? {
        1 => (Met::Policy, verdict(word(16)?, None)),
        2 => (Met::Return, TraceVerdict::Return),
        _ => {
            // The end of a chain's rules is reported as a rule without a handle.
            let handle = find(3).and_then(|value| read(value, 0)).map(u64::from_be_bytes);
            let nested = find(5)?;
            let inner = |wanted: u16| attributes(nested).find(|(kind, _)| *kind == wanted);
            let code = inner(1).and_then(|(_, value)| read(value, 0)).map(u32::from_be_bytes)?;
            let to = inner(2).map(|(_, name)| String::from_utf8_lossy(until_nul(name)).into_owned());
            (handle.map_or(Met::Return, Met::Rule), verdict(code, to))
        }
    };
    let packet = find(8).zip(find(9)).and_then(|(network, transport)| packet(network, transport));
    Some(TraceEvent { id: word(6)?, chain, met, verdict, packet })
}

fn verdict(code: u32, to: Option<String>) -> TraceVerdict {
    match code.cast_signed() {
        0 => TraceVerdict::Drop,
        1 => TraceVerdict::Accept,
        -1 | -2 => TraceVerdict::Continue,
        -3 => TraceVerdict::Jump(to.unwrap_or_default()),
        -4 => TraceVerdict::Goto(to.unwrap_or_default()),
        -5 => TraceVerdict::Return,
        _ => TraceVerdict::Stolen,
    }
}

/// The ends of a packet, from its headers. Behind extension headers of IPv6 the transport header is where the kernel found it.
fn packet(network: &[u8], transport: &[u8]) -> Option<TracedPacket> {
    let (protocol, from, to): (u8, IpAddr, IpAddr) = match network.first()? >> 4 {
        4 => (
            *network.get(9)?,
            Ipv4Addr::from(read::<4>(network, 12)?).into(),
            Ipv4Addr::from(read::<4>(network, 16)?).into(),
        ),
        6 => (
            *network.get(6)?,
            Ipv6Addr::from(read::<16>(network, 8)?).into(),
            Ipv6Addr::from(read::<16>(network, 24)?).into(),
        ),
        _ => return None,
    };
    let (protocol, flags) = match protocol {
        6 => (Protocol::Tcp, *transport.get(13)?),
        17 => (Protocol::Udp, 0),
        _ => return None,
    };
    let port = |at: usize| read(transport, at).map(u16::from_be_bytes);
    let (from, to) = (SocketAddr::new(from, port(0)?), SocketAddr::new(to, port(2)?));
    Some(TracedPacket { protocol, from, to, flags })
}
