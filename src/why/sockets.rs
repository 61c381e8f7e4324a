//! Causes that lie with the sockets of this host: what listens on the port, where, and for whom.

use std::net::IpAddr;

use super::{Diagnosis, Facts, Tried, command, program, serves};
use crate::code::Code;
use crate::diag::Severity;
use crate::escape::escape;
use crate::model::{ListeningSocket, Outcome, Protocol, SocketState};

pub(super) fn error(code: Code, page: &'static str, message: String, help: String) -> Option<Diagnosis> {
    Some(Diagnosis { code, severity: Severity::Error, message, help, page })
}

/// Addresses of this host that do not accept.
pub(super) fn failing(facts: &Facts) -> impl Iterator<Item = &Tried> {
    facts.addresses.iter().filter(|one| one.local() && !one.accepted())
}

/// The first address that fails because no socket is predicted to accept there.
fn unserved(facts: &Facts) -> Option<&Tried> {
    failing(facts).find(|one| one.predicted != Some(Outcome::Accepted))
}

/// The same where no socket serves the port at all.
fn without_server(facts: &Facts) -> Option<&Tried> {
    unserved(facts).filter(|_| facts.serving().next().is_none())
}

/// Whether a client on this host reaches the socket over a packet family at all.
pub(super) fn takes_family(socket: &ListeningSocket, ipv4: bool) -> bool {
    match (socket.view.address, ipv4) {
        (IpAddr::V4(_), ipv4) => ipv4,
        (IpAddr::V6(v6), true) => {
            v6.to_ipv4_mapped().is_some() || (v6.is_unspecified() && socket.view.v6only == Some(false))
        }
        (IpAddr::V6(v6), false) => v6.to_ipv4_mapped().is_none(),
    }
}

fn family_name(ipv4: bool) -> &'static str {
    if ipv4 { "IPv4" } else { "IPv6" }
}

/// Where a program should listen in addition, so that the failing address answers.
fn listen_too(facts: &Facts, tried: &Tried) -> String {
    // A client that connects to the unspecified address reaches loopback.
    let (loopback, unspecified) = (tried.address.is_loopback(), tried.address.is_unspecified());
    match (loopback || unspecified, tried.is_ipv4()) {
        (true, true) if unspecified => format!("listen on 127.0.0.1:{} in addition", facts.port),
        (true, true) => format!("listen on {} in addition", facts.with_port(&tried.text())),
        (true, false) => format!("listen on [::1]:{} in addition", facts.port),
        (false, true) => format!(
            "listen on 0.0.0.0:{0}, or on {1} in addition",
            facts.port,
            facts.with_port(&tried.text())
        ),
        (false, false) => {
            format!("listen on [::]:{0}, or on {1} in addition", facts.port, facts.with_port(&tried.text()))
        }
    }
}

pub(super) fn bound_to_device(facts: &Facts) -> Option<Diagnosis> {
    let tried = unserved(facts)?;
    let (_, socket) = facts.serving().find(|(_, socket)| {
        socket.view.device.is_some()
            && takes_family(socket, tried.is_ipv4())
            && socket.view.scope_id.is_none()
    })?;
    let device = socket.view.device.as_ref()?;
    error(
        Code::OTHER_DEVICE,
        "device",
        format!(
            "{} listens on {}: it accepts only what arrives on {device}. This host's own connections arrive on {}.",
            program(socket),
            socket.view,
            tried.owner.as_ref().map_or_else(|| "lo".to_owned(), ToString::to_string)
        ),
        "connect from a host on that link, or remove the device option (SO_BINDTODEVICE) of the listener"
            .to_owned(),
    )
}

pub(super) fn v6only(facts: &Facts) -> Option<Diagnosis> {
    let tried = unserved(facts).filter(|one| one.is_ipv4())?;
    let (_, socket) = facts
        .serving()
        .find(|(_, socket)| socket.view.address.is_ipv6() && socket.view.address.is_unspecified())?;
    if socket.view.v6only == Some(false) || facts.serving().any(|(_, other)| takes_family(other, true)) {
        return None;
    }
    error(
        Code::WHY_V6ONLY,
        "v6only",
        format!(
            "{} listens on [::]:{} with IPV6_V6ONLY: it accepts IPv6 only, and {} is IPv4.",
            program(socket),
            facts.port,
            tried.text()
        ),
        "turn IPV6_V6ONLY off for the listener (dual-stack), or listen on 0.0.0.0 in addition".to_owned(),
    )
}

pub(super) fn one_family(facts: &Facts) -> Option<Diagnosis> {
    let tried = unserved(facts)?;
    let ipv4 = tried.is_ipv4();
    let mut serving = facts.serving().peekable();
    let (_, socket) = *serving.peek()?;
    if serving.any(|(_, socket)| takes_family(socket, ipv4)) || v6only(facts).is_some() {
        return None;
    }
    let shown = facts
        .addresses
        .iter()
        .filter(|one| one.accepted())
        .find_map(|one| facts.socket_of(one))
        .unwrap_or(socket);
    let also = if tried.address.is_unspecified() {
        format!(" A connection to {} goes to the loopback address of {}.", tried.text(), family_name(ipv4))
    } else if facts.addresses.len() > 1 {
        format!(" {} also means {}.", escape(&facts.name), tried.text())
    } else {
        format!(" {} is {}.", tried.text(), family_name(ipv4))
    };
    error(
        Code::WHY_ONE_FAMILY,
        if facts.name.eq_ignore_ascii_case("localhost") { "localhost" } else { "BS1021" },
        format!(
            "{} listens on {}, which is {} only.{also}",
            program(shown),
            bound(shown),
            family_name(!ipv4)
        ),
        format!("{}, or let clients use {}", listen_too(facts, tried), other_address_of(facts, shown)),
    )
}

/// The address that a socket is bound to, as text.
fn bound(socket: &ListeningSocket) -> String {
    socket.view.bound_address()
}

/// An address at which the socket can be reached from this host.
fn other_address_of(facts: &Facts, socket: &ListeningSocket) -> String {
    let accepted = facts.addresses.iter().find(|one| one.accepted() && facts.socket_of(one) == Some(socket));
    match (accepted, socket.view.address) {
        (Some(one), _) => one.text(),
        (None, IpAddr::V4(v4)) if v4.is_unspecified() => "127.0.0.1".to_owned(),
        (None, IpAddr::V6(v6)) if v6.is_unspecified() => "::1".to_owned(),
        (None, address) => address.to_canonical().to_string(),
    }
}

pub(super) fn loopback_only(facts: &Facts) -> Option<Diagnosis> {
    let tried = unserved(facts).filter(|one| !one.address.is_loopback())?;
    let mut family = facts.serving().filter(|(_, socket)| takes_family(socket, tried.is_ipv4())).peekable();
    let (_, socket) = *family.peek()?;
    if !family.all(|(_, socket)| socket.view.address.to_canonical().is_loopback()) {
        return None;
    }
    error(
        Code::WHY_LOOPBACK_ONLY,
        "exposure",
        format!(
            "{} listens on {}, which this host reaches only through its loopback address. {} is another address.",
            program(socket),
            bound(socket),
            tried.text()
        ),
        format!(
            "{} if other hosts are intended to connect; otherwise use {}",
            listen_too(facts, tried),
            facts.with_port(&socket.view.address.to_canonical().to_string())
        ),
    )
}

pub(super) fn other_address(facts: &Facts) -> Option<Diagnosis> {
    let tried = unserved(facts)?;
    let loopback = tried.address.to_canonical().is_loopback();
    let (_, socket) = facts.serving().find(|(_, socket)| {
        let bound = socket.view.address.to_canonical();
        takes_family(socket, tried.is_ipv4())
            && !bound.is_unspecified()
            && bound != tried.address.to_canonical()
            && (loopback || !bound.is_loopback())
    })?;
    error(
        Code::WHY_OTHER_ADDRESS,
        "weak-host",
        format!(
            "{} listens on {} only. {} is another address of this host.",
            program(socket),
            bound(socket),
            tried.text()
        ),
        format!("connect to {}:{}, or {}", socket.view.host(), facts.port, listen_too(facts, tried)),
    )
}

pub(super) fn not_listening(facts: &Facts) -> Option<Diagnosis> {
    without_server(facts).filter(|_| facts.protocol == Protocol::Tcp)?;
    let (_, socket) = facts.on_port(Protocol::Tcp).find(|(_, socket)| socket.state == SocketState::Bound)?;
    error(
        Code::WHY_NOT_LISTENING,
        "BS3068",
        format!("{} bound {}, and did not call listen.", program(socket), socket.view),
        "let the program call listen(2), or wait until it has started".to_owned(),
    )
}

pub(super) fn other_namespace(facts: &Facts) -> Option<Diagnosis> {
    without_server(facts)?;
    let found = facts.elsewhere.iter().find(|one| serves(&one.socket))?;
    let more = match facts.elsewhere.len() {
        0 | 1 => String::new(),
        more => format!(" So do {} others.", more - 1),
    };
    error(
        Code::WHY_NAMESPACE,
        "docker",
        format!(
            "Nothing listens on the port in this network namespace. {} listens on it in {}.{more}",
            program(&found.socket),
            found.namespace
        ),
        "publish the port of the container, or connect from inside: bindscope audit --all-namespaces lists all of them".to_owned(),
    )
}

pub(super) fn other_protocol(facts: &Facts) -> Option<Diagnosis> {
    without_server(facts)?;
    let other = if facts.protocol == Protocol::Tcp { Protocol::Udp } else { Protocol::Tcp };
    let (_, socket) = facts.on_port(other).find(|(_, socket)| serves(socket))?;
    error(
        Code::WHY_OTHER_PROTOCOL,
        "BS3070",
        format!(
            "{} serves the port over {}, and nothing serves it over {}.",
            program(socket),
            shown(other),
            shown(facts.protocol)
        ),
        format!("use a client that speaks {}", shown(other)),
    )
}

/// The name of a protocol in a sentence.
pub(super) fn shown(protocol: Protocol) -> String {
    protocol.to_string().to_uppercase()
}

/// A socket with one peer, and no listener: a port of a client, or a server that closed its listener.
pub(super) fn in_connection(facts: &Facts) -> Option<Diagnosis> {
    without_server(facts)?;
    let (_, socket) =
        facts.on_port(facts.protocol).find(|(_, socket)| socket.state == SocketState::Connected)?;
    let program = program(socket);
    let (message, help) = match facts.protocol {
        Protocol::Tcp => (
            format!(
                "No socket listens on TCP port {}. {program} uses the port for a connection: as a client, or as a server that closed its listener.",
                facts.port
            ),
            "start the server; if its bind fails with EADDRINUSE, close the connection or choose another port",
        ),
        Protocol::Udp => (
            format!(
                "{program} connected its socket on UDP port {} to one peer. It receives datagrams from this peer only.",
                facts.port
            ),
            "let the program receive from any peer: do not call connect(2) on the socket of a server",
        ),
    };
    error(Code::WHY_NOT_LISTENING, "BS3068", message, help.to_owned())
}

pub(super) fn time_wait(facts: &Facts) -> Option<Diagnosis> {
    without_server(facts)?;
    facts.on_port(facts.protocol).find(|(_, socket)| socket.state == SocketState::TimeWait)?;
    error(
        Code::WHY_TIME_WAIT,
        "BS3075",
        "No program listens on the port. Connections in TIME-WAIT show that one did within the last minute."
            .to_owned(),
        "start the server again; if its bind fails with EADDRINUSE, it must set SO_REUSEADDR".to_owned(),
    )
}

pub(super) fn nothing_listens(facts: &Facts) -> Option<Diagnosis> {
    without_server(facts)?;
    let distance = |socket: &&ListeningSocket| socket.view.port.abs_diff(facts.port);
    let near = facts
        .sockets
        .iter()
        .filter(|socket| socket.view.protocol == facts.protocol && serves(socket))
        .filter(|socket| distance(socket) <= 1000)
        .min_by_key(distance);
    let help = match near {
        Some(socket) => {
            format!("start the server; or is it port {}? {} listens there", socket.view.port, program(socket))
        }
        None => "start the server, or look for its port with bindscope audit".to_owned(),
    };
    error(
        Code::NO_LISTENER,
        "BS3011",
        format!("No socket of this host listens on {} port {}.", shown(facts.protocol), facts.port),
        help,
    )
}

pub(super) fn two_programs(facts: &Facts) -> Option<Diagnosis> {
    let answering: Vec<(&Tried, &ListeningSocket)> = facts
        .addresses
        .iter()
        .filter(|one| one.accepted())
        .filter_map(|one| Some((one, facts.socket_of(one)?)))
        .collect();
    let (first, one) = answering.first()?;
    let (second, two) = answering.iter().find(|(_, other)| command(other) != command(one))?;
    error(
        Code::SHADOWED,
        "BS1028",
        format!(
            "{} is answered by {}, {} by {}. A client meets either, by the order in which it tries the addresses.",
            first.text(),
            program(one),
            second.text(),
            program(two)
        ),
        "stop one of the two programs, or let clients use the address of the one that is intended".to_owned(),
    )
}

/// Sockets of several programs at the same address (SO_REUSEPORT, SO_REUSEADDR).
pub(super) fn shared_port(facts: &Facts) -> Option<Diagnosis> {
    let accepted = facts.addresses.iter().filter(|one| one.accepted());
    let (one, other) = accepted.filter_map(|tried| facts.socket_of(tried)).find_map(|one| {
        let same = |socket: &ListeningSocket| {
            let (a, b) = (&one.view, &socket.view);
            (a.address, a.scope_id, &a.device, a.v6only) == (b.address, b.scope_id, &b.device, b.v6only)
        };
        let other = facts.serving().find(|(_, socket)| same(socket) && command(socket) != command(one))?.1;
        Some((one, other))
    })?;
    error(
        Code::SHADOWED,
        "reuse",
        format!(
            "{} and {} both serve {}. The kernel gives a client to either of them.",
            program(one),
            program(other),
            one.view
        ),
        "stop the program that is not intended".to_owned(),
    )
}

pub(super) fn unexpected_program(facts: &Facts) -> Option<Diagnosis> {
    let expected = facts.expected.as_deref()?;
    let socket = facts
        .addresses
        .iter()
        .filter(|one| one.accepted())
        .filter_map(|one| facts.socket_of(one))
        .find(|socket| command(socket).is_some_and(|command| command != expected))?;
    error(
        Code::WHY_UNEXPECTED,
        "BS3078",
        format!("{} answers, and {} is expected.", program(socket), escape(expected)),
        "stop the other program, or give the expected one another port".to_owned(),
    )
}
