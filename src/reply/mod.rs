//! Replies to clients. A pure function from the received bytes and the arrival to the reply.

mod host_name;
mod http;
mod page;

use std::borrow::Cow;
use std::io::Write as _;

pub use host_name::OwnNames;

use crate::escape;
use crate::model::addr::push_with_port;
use crate::model::{Arrival, Endpoint, Evidence, IfName};

/// Maximum number of bytes read from a client.
pub const READ_LIMIT: usize = 4096;

/// Action for the bytes that a client has sent so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Possibly the beginning of an HTTP request: wait for more.
    Wait,
    /// An HTTP response. The request was read completely, so the connection may be closed afterwards.
    Http(Vec<u8>),
    /// One line for a client that uses another protocol.
    Line(Vec<u8>),
}

/// Describes an arrival to its client. `input` is what the client has sent so far, at most [`READ_LIMIT`] bytes; `names` are the names
/// by which a browser may call this host.
#[must_use]
pub fn describe(input: &[u8], arrival: &Arrival, names: &OwnNames) -> Answer {
    http::answer(input, arrival, names).unwrap_or_else(|| Answer::Line(line(arrival)))
}

/// How every reply to a datagram begins.
pub const DATAGRAM_MARK: &[u8] = b"bindscope: your datagram from ";

/// The description as one line of text with its newline.
#[must_use]
pub fn line(arrival: &Arrival) -> Vec<u8> {
    let mut out = match arrival.protocol {
        crate::model::Protocol::Tcp => b"bindscope: your connection from ".to_vec(),
        crate::model::Protocol::Udp => DATAGRAM_MARK.to_vec(),
    };
    push_endpoint(&mut out, arrival, &arrival.peer);
    out.extend_from_slice(b" to ");
    push_endpoint(&mut out, arrival, &arrival.local);
    out.extend_from_slice(b" was accepted by listener \"");
    escape::push(&mut out, &arrival.listener);
    out.extend_from_slice(b"\" and arrived on ");
    push_ingress(&mut out, arrival);
    out.push(b'\n');
    out
}

/// One end of the connection. Link-local addresses are on the ingress link, so its name is their zone.
fn push_endpoint(out: &mut Vec<u8>, arrival: &Arrival, end: &Endpoint) {
    let number;
    let zone = match (end.scope_id, &arrival.ingress.name) {
        (None, _) => None,
        (index, Some(name)) if arrival.ingress.index == index => Some(name),
        (Some(index), _) => {
            number = IfName::from(index.to_string().as_str());
            Some(&number)
        }
    };
    push_with_port(out, end.address, zone, end.port);
}

/// The ingress interface with its evidence.
fn push_ingress(out: &mut Vec<u8>, arrival: &Arrival) {
    match (&arrival.ingress.name, arrival.ingress.index) {
        (Some(name), _) => escape::push_bytes(out, name.as_bytes()),
        (None, Some(index)) => drop(write!(out, "interface {index}, which no longer exists")),
        (None, None) => return out.extend_from_slice(b"an interface that this system does not report"),
    }
    out.extend_from_slice(match arrival.ingress.evidence {
        Evidence::Kernel => b" (reported by the kernel)",
        Evidence::ScopeId => b" (known from the scope id)",
        Evidence::Address => b" (inferred from the address; it may be another one)",
        Evidence::Unknown => b"",
    });
}

/// Explanations of the arrival, one sentence each: where the client is, whether the address belongs to another
/// interface, which family it used.
fn meaning(arrival: &Arrival) -> impl Iterator<Item = Cow<'static, str>> {
    let client = arrival.peer_is_local.map(|local| {
        if !local {
            return "The client is another host.".into();
        }
        let itself = "The client is this host itself: the packets never left it.";
        if arrival.ingress.name != arrival.address_owner || arrival.local.address.is_loopback() {
            return itself.into();
        }
        let name = arrival.ingress.name.as_ref().map_or_else(String::new, ToString::to_string);
        format!("{itself} The kernel still names {name}, the interface that has the address.").into()
    });
    let weak = match (&arrival.address_owner, &arrival.ingress.name) {
        (Some(owner), Some(name)) if owner != name && arrival.ingress.evidence == Evidence::Kernel => {
            Some(Cow::from(format!(
                "The address belongs to {owner}, but the packets arrived on {name}. On this system an address belongs to the host, not to the interface (weak host model). Binding the address of one interface does not limit connections to that interface."
            )))
        }
        _ => None,
    };
    let mapped = arrival
        .v4_mapped
        .then(|| "IPv4 arrived on an IPv6 socket: it is dual-stack, since IPV6_V6ONLY is off.".into());
    [client, weak, mapped].into_iter().flatten()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::{Family, Ingress, Protocol};

    pub(crate) fn arrival() -> Arrival {
        Arrival {
            listener: "all4".into(),
            protocol: Protocol::Tcp,
            family: Family::Ipv4,
            v4_mapped: false,
            peer: Endpoint { address: [192, 0, 2, 9].into(), port: 40312, scope_id: None },
            local: Endpoint { address: [192, 0, 2, 2].into(), port: 8081, scope_id: None },
            ingress: Ingress { index: Some(4), name: Some("eth1".into()), evidence: Evidence::Kernel },
            address_owner: Some("eth0".into()),
            peer_is_local: Some(false),
        }
    }

    #[test]
    fn the_line_names_everything_that_counts() {
        assert_eq!(
            String::from_utf8(line(&arrival())).unwrap(),
            "bindscope: your connection from 192.0.2.9:40312 to 192.0.2.2:8081 was accepted by listener \"all4\" and arrived on eth1 (reported by the kernel)\n"
        );
    }

    #[test]
    fn the_weak_host_model_is_named_when_it_shows() {
        assert!(meaning(&arrival()).any(|sentence| sentence.contains("weak host model")));
        let same = Arrival { address_owner: Some("eth1".into()), ..arrival() };
        assert!(!meaning(&same).any(|sentence| sentence.contains("weak host model")));
    }

    #[test]
    fn hostile_names_are_escaped() {
        let hostile = Arrival {
            listener: "\x1b[31m<script>".into(),
            ingress: Ingress { name: Some(IfName::from_bytes(b"\x1b[2J\xff")), ..arrival().ingress },
            ..arrival()
        };
        assert!(line(&hostile).iter().all(|&byte| (0x20..0x7f).contains(&byte) || byte == b'\n'));
        let Answer::Http(page) =
            describe(b"GET / HTTP/1.1\r\nAccept: text/html\r\n\r\n", &hostile, &OwnNames::default())
        else {
            panic!()
        };
        let page = String::from_utf8(page).unwrap();
        assert!(!page.contains("<script") && !page.contains('\x1b'));
    }
}
