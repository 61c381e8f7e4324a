//! What a client is answered. Pure: the bytes it sent and how it arrived go in, the answer comes out.

mod http;
mod page;

use crate::model::addr::text_with_port;
use crate::model::{Arrival, Evidence};

/// How many bytes of a client are read at the most.
pub const READ_LIMIT: usize = 4096;

/// What to do with what a client has sent so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It may be the beginning of an HTTP request: wait for more.
    Wait,
    /// An HTTP response; the request was read whole, so the connection may be closed behind it.
    Http(Vec<u8>),
    /// One line for a client that speaks something else.
    Line(Vec<u8>),
}

/// Describes an arrival to the client that caused it. `input` is what it has sent so far, at most [`READ_LIMIT`] bytes.
#[must_use]
pub fn describe(input: &[u8], arrival: &Arrival) -> Answer {
    http::answer(input, arrival).unwrap_or_else(|| Answer::Line(line(arrival)))
}

/// The description as one line of text with its newline.
#[must_use]
pub fn line(arrival: &Arrival) -> Vec<u8> {
    format!("bindscope: {}\n", sentence(arrival)).into_bytes()
}

/// How it arrived, in one sentence.
#[must_use]
pub fn sentence(arrival: &Arrival) -> String {
    let verb = match arrival.protocol {
        crate::model::Protocol::Tcp => "connection",
        crate::model::Protocol::Udp => "datagram",
    };
    let local = text_with_port(
        arrival.local.address,
        zone(arrival, arrival.local.scope_id).as_ref(),
        arrival.local.port,
    );
    let peer = text_with_port(
        arrival.peer.address,
        zone(arrival, arrival.peer.scope_id).as_ref(),
        arrival.peer.port,
    );
    format!(
        "your {verb} from {peer} to {local} was taken by listener \"{}\" and arrived on {}",
        crate::text::escape(&arrival.listener),
        ingress(arrival)
    )
}

/// The zone of an address of this arrival: link-local addresses are on the ingress link, so its name is the zone's.
fn zone(arrival: &Arrival, scope_id: Option<u32>) -> Option<crate::model::IfName> {
    let index = scope_id?;
    match &arrival.ingress.name {
        Some(name) if arrival.ingress.index == Some(index) => Some(name.clone()),
        _ => Some(index.to_string().as_str().into()),
    }
}

/// The ingress interface with what it rests on.
#[must_use]
pub fn ingress(arrival: &Arrival) -> String {
    let name = match (&arrival.ingress.name, arrival.ingress.index) {
        (Some(name), _) => name.to_string(),
        (None, Some(index)) => format!("interface {index}, which is gone"),
        (None, None) => return "an interface that this system does not tell".to_owned(),
    };
    match arrival.ingress.evidence {
        Evidence::Kernel => format!("{name} (told by the kernel)"),
        Evidence::ScopeId => format!("{name} (told by the scope id)"),
        Evidence::Address => format!("{name} (inferred from the address; it may be another one)"),
        Evidence::Unknown => name,
    }
}

/// What the arrival means, one sentence each: where the client is, whether the address belongs to another interface,
/// which family it used.
#[must_use]
pub fn meaning(arrival: &Arrival) -> Vec<String> {
    let mut out = Vec::new();
    match arrival.peer_is_local {
        Some(true)
            if arrival.ingress.name == arrival.address_owner && !arrival.local.address.is_loopback() =>
        {
            let name = arrival.ingress.name.as_ref().map_or_else(String::new, ToString::to_string);
            out.push(format!(
                "The client is this machine itself: the packets never left it. The kernel still names {name}, the interface that has the address."
            ));
        }
        Some(true) => out.push("The client is this machine itself: the packets never left it.".to_owned()),
        Some(false) => out.push("The client is another host.".to_owned()),
        None => {}
    }
    if let (Some(owner), Some(name)) = (&arrival.address_owner, &arrival.ingress.name)
        && owner != name
        && arrival.ingress.evidence == Evidence::Kernel
    {
        out.push(format!(
            "The address belongs to {owner}, yet the packets came in on {name}: on this system an address belongs to the host, not to the interface (weak host model). Binding one interface's address does not limit who can connect to that interface."
        ));
    }
    if arrival.v4_mapped {
        out.push("IPv4 arrived on an IPv6 socket: it is dual-stack, since IPV6_V6ONLY is off.".to_owned());
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::{Endpoint, Family, IfName, Ingress, Protocol};

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
            "bindscope: your connection from 192.0.2.9:40312 to 192.0.2.2:8081 was taken by listener \"all4\" and arrived on eth1 (told by the kernel)\n"
        );
    }

    #[test]
    fn the_weak_host_model_is_named_when_it_shows() {
        assert!(meaning(&arrival()).iter().any(|sentence| sentence.contains("weak host model")));
        let same = Arrival { address_owner: Some("eth1".into()), ..arrival() };
        assert!(!meaning(&same).iter().any(|sentence| sentence.contains("weak host model")));
    }

    #[test]
    fn hostile_names_are_escaped() {
        let hostile = Arrival {
            listener: "\x1b[31m<script>".into(),
            ingress: Ingress { name: Some(IfName::from_bytes(b"\x1b[2J\xff")), ..arrival().ingress },
            ..arrival()
        };
        assert!(line(&hostile).iter().all(|&byte| (0x20..0x7f).contains(&byte) || byte == b'\n'));
        let Answer::Http(page) = describe(b"GET / HTTP/1.1\r\nAccept: text/html\r\n\r\n", &hostile) else {
            panic!()
        };
        let page = String::from_utf8(page).unwrap();
        assert!(!page.contains("<script") && !page.contains('\x1b'));
    }
}
