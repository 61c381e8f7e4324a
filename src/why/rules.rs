//! The table of causes. Each is a pure function of [`Facts`]; the first that applies decides.

use std::net::IpAddr;

use super::{Diagnosis, Facts, Ipv6, Tried, command, program, serves};
use crate::code::Code;
use crate::diag::Severity;
use crate::escape::escape;
use crate::model::{ListeningSocket, Outcome, Protocol, SocketState};

/// A cause: `None` where it does not apply.
pub type Rule = fn(&Facts) -> Option<Diagnosis>;

/// All causes, the most specific first.
pub const ALL: &[Rule] = &[
    name_unresolved,
    localhost_elsewhere,
    other_host,
    loopback_down,
    filtered,
    translated,
    queue_full,
    blocked,
    no_ipv6,
    bound_to_device,
    v6only,
    one_family,
    loopback_only,
    other_address,
    not_listening,
    other_namespace,
    other_protocol,
    time_wait,
    nothing_listens,
    two_programs,
    unexpected_program,
];

fn error(code: Code, page: &'static str, message: String, help: String) -> Option<Diagnosis> {
    Some(Diagnosis { code, severity: Severity::Error, message, help, page })
}

/// A packet filter that keeps the connection out.
fn filtered(facts: &Facts) -> Option<Diagnosis> {
    const CODES: [Code; 3] = [Code::FILTER_DROPS, Code::FILTER_REJECTS, Code::FILTER_DROPS_ANSWER];
    let tried = failing(facts).find(|one| one.rule.is_some() && CODES.contains(&one.because))?;
    let rule = tried.rule.as_deref()?;
    let what = if tried.because == Code::FILTER_REJECTS { "rejects" } else { "drops" };
    error(
        tried.because,
        "filters",
        format!("a packet filter {what} the connection to {}: {rule}.", tried.text()),
        "change this rule; `bindscope why TARGET --steps` shows every rule that the packets meet".to_owned(),
    )
}

/// Addresses of this host that do not accept.
fn failing(facts: &Facts) -> impl Iterator<Item = &Tried> {
    facts.addresses.iter().filter(|one| one.local && !one.accepted())
}

/// The first address that fails because no socket is predicted to accept there.
fn unserved(facts: &Facts) -> Option<&Tried> {
    failing(facts).find(|one| one.predicted != Some(Outcome::Accepted))
}

/// Whether a client on this host reaches the socket over a packet family at all.
fn takes_family(socket: &ListeningSocket, ipv4: bool) -> bool {
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
    let loopback = tried.address.is_loopback();
    match (loopback, tried.is_ipv4()) {
        (true, true) => format!("listen on 127.0.0.1:{} in addition", facts.port),
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

fn name_unresolved(facts: &Facts) -> Option<Diagnosis> {
    if !facts.addresses.is_empty() {
        return None;
    }
    let name = escape(&facts.name);
    let help = if facts.name.eq_ignore_ascii_case("localhost") {
        "add the lines `127.0.0.1 localhost` and `::1 localhost` to /etc/hosts".to_owned()
    } else {
        format!("use an address in place of {name}, or add the name to /etc/hosts")
    };
    error(
        Code::WHY_UNRESOLVED,
        "localhost",
        format!("The resolver of this host knows no address for {name}."),
        help,
    )
}

fn localhost_elsewhere(facts: &Facts) -> Option<Diagnosis> {
    if !facts.name.eq_ignore_ascii_case("localhost") {
        return None;
    }
    let strange = facts.addresses.iter().find(|one| !one.address.to_canonical().is_loopback())?;
    error(
        Code::WHY_LOCALHOST,
        "localhost",
        format!("localhost resolves to {}, which is not a loopback address.", strange.text()),
        "correct the line of localhost in /etc/hosts: 127.0.0.1 and ::1 are its addresses (RFC 6761)"
            .to_owned(),
    )
}

fn other_host(facts: &Facts) -> Option<Diagnosis> {
    if facts.addresses.is_empty() || facts.addresses.iter().any(|one| one.local) {
        return None;
    }
    let address = facts.addresses.first()?.text();
    error(
        Code::WHY_OTHER_HOST,
        "BS3062",
        format!("{address} is not an address of this host. Only its own host can say what listens there."),
        format!("run `bindscope why {}` on that host", facts.with_port(&address)),
    )
}

fn loopback_down(facts: &Facts) -> Option<Diagnosis> {
    if facts.loopback_up {
        return None;
    }
    failing(facts).next()?;
    error(
        Code::LOOPBACK_DOWN,
        "BS3021",
        "The loopback interface is down. This host cannot connect to any of its own addresses.".to_owned(),
        "ip link set lo up".to_owned(),
    )
}

fn translated(facts: &Facts) -> Option<Diagnosis> {
    let tried = facts.addresses.iter().find(|one| {
        one.local
            && one.predicted.is_some_and(|predicted| predicted != Outcome::Accepted)
            && one.observed.is_some_and(|seen| seen.outcome == Outcome::Accepted)
    })?;
    let filters = if let Some(rule) = &tried.rule {
        format!("The rule that translates the address: {rule}.")
    } else if facts.filters.is_empty() {
        "No table of address translation is visible here; a transparent proxy or a program in the kernel may redirect it.".to_owned()
    } else {
        format!(
            "Rules that may translate the address: {}.",
            facts.filters.iter().map(|name| escape(name)).collect::<Vec<_>>().join(", ")
        )
    };
    error(
        Code::WHY_TRANSLATED,
        "docker",
        format!(
            "{} answers, although no socket of this host listens there. {filters}",
            facts.with_port(&tried.text())
        ),
        "look at the NAT rules: sudo nft list ruleset, or sudo iptables -t nat -S".to_owned(),
    )
}

/// A socket that is predicted to accept, and did not.
fn silent(facts: &Facts) -> Option<(&Tried, &ListeningSocket)> {
    let tried = facts.addresses.iter().find(|one| {
        one.local
            && one.predicted == Some(Outcome::Accepted)
            && one.observed.is_some_and(|seen| seen.outcome != Outcome::Accepted)
    })?;
    Some((tried, facts.socket_of(tried)?))
}

fn queue_full(facts: &Facts) -> Option<Diagnosis> {
    let (_, socket) = silent(facts)?;
    let queue = socket.queue?;
    let limit = queue.limit?;
    if socket.view.protocol != Protocol::Tcp || queue.length <= limit {
        return None;
    }
    error(
        Code::QUEUE_FULL,
        "BS1027",
        format!(
            "{} does not accept: its accept queue is full ({} wait, the limit is {limit}). The kernel drops new connections.",
            program(socket),
            queue.length
        ),
        "find out why the program does not call accept: it may be stopped, blocked or out of file descriptors".to_owned(),
    )
}

/// A socket that is predicted to accept, and whose connections do not arrive.
fn blocked(facts: &Facts) -> Option<Diagnosis> {
    let (tried, socket) = silent(facts)?;
    let outcome = tried.outcome()?;
    let cause = match (&tried.rule, &facts.filters_unknown, facts.filters.is_empty()) {
        (Some(rule), _, _) => format!("A packet filter decides: {rule}."),
        (None, _, false) => format!(
            "Packet filters exist here and may drop it: {}.",
            facts.filters.iter().map(|name| escape(name)).collect::<Vec<_>>().join(", ")
        ),
        (None, Some(why), true) => {
            format!("Whether a packet filter drops it could not be read: {}.", escape(why))
        }
        (None, None, true) => {
            "No packet filter is visible here; a program attached to the kernel (BPF) may drop it.".to_owned()
        }
    };
    error(
        Code::WHY_BLOCKED,
        "BS3073",
        format!(
            "{} listens on {}, and a connection to {} ends with: {outcome}. {cause}",
            program(socket),
            socket.view,
            facts.with_port(&tried.text()),
        ),
        "allow the port in the packet filter; the rules: sudo nft list ruleset, or sudo iptables -S"
            .to_owned(),
    )
}

fn no_ipv6(facts: &Facts) -> Option<Diagnosis> {
    let tried =
        failing(facts).chain(facts.addresses.iter().filter(|one| !one.local)).find(|one| !one.is_ipv4())?;
    let (cause, help) = match facts.ipv6 {
        Ipv6::Available => return None,
        Ipv6::NoKernelSupport => (
            "the kernel has no IPv6 (ipv6.disable=1, or the module is not loaded)",
            "start the kernel without ipv6.disable=1",
        ),
        Ipv6::DisabledEverywhere => {
            ("net.ipv6.conf.all.disable_ipv6 is 1", "sysctl -w net.ipv6.conf.all.disable_ipv6=0")
        }
        Ipv6::DisabledOnLoopback => {
            ("net.ipv6.conf.lo.disable_ipv6 is 1", "sysctl -w net.ipv6.conf.lo.disable_ipv6=0")
        }
        Ipv6::NoLoopbackAddress => ("no interface has the address ::1", "ip addr add ::1/128 dev lo"),
    };
    let loopback_only = matches!(facts.ipv6, Ipv6::DisabledOnLoopback | Ipv6::NoLoopbackAddress);
    if loopback_only && !tried.address.is_loopback() {
        return None;
    }
    error(
        Code::WHY_NO_IPV6,
        "BS3076",
        format!("{} cannot be used: {cause}.", tried.text()),
        format!("{help}; or let clients use an IPv4 address"),
    )
}

fn bound_to_device(facts: &Facts) -> Option<Diagnosis> {
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

fn v6only(facts: &Facts) -> Option<Diagnosis> {
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

fn one_family(facts: &Facts) -> Option<Diagnosis> {
    let tried = unserved(facts)?;
    let ipv4 = tried.is_ipv4();
    let mut serving = facts.serving().peekable();
    let (_, socket) = *serving.peek()?;
    if serving.any(|(_, socket)| takes_family(socket, ipv4)) {
        return None;
    }
    let shown = facts
        .addresses
        .iter()
        .filter(|one| one.accepted())
        .find_map(|one| facts.socket_of(one))
        .unwrap_or(socket);
    let also = if facts.addresses.len() > 1 {
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
            super::rules::bound(shown),
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

fn loopback_only(facts: &Facts) -> Option<Diagnosis> {
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

fn other_address(facts: &Facts) -> Option<Diagnosis> {
    let tried = unserved(facts)?;
    let loopback = tried.address.to_canonical().is_loopback();
    let (_, socket) = facts.serving().find(|(_, socket)| {
        let bound = socket.view.address.to_canonical();
        takes_family(socket, tried.is_ipv4())
            && !bound.is_unspecified()
            && bound != tried.address.to_canonical()
            && (loopback || !bound.is_loopback())
    })?;
    let address = socket.view.address.to_canonical().to_string();
    error(
        Code::WHY_OTHER_ADDRESS,
        "weak-host",
        format!(
            "{} listens on {} only. {} is another address of this host.",
            program(socket),
            bound(socket),
            tried.text()
        ),
        format!("connect to {}, or {}", facts.with_port(&address), listen_too(facts, tried)),
    )
}

fn not_listening(facts: &Facts) -> Option<Diagnosis> {
    unserved(facts)?;
    if facts.protocol != Protocol::Tcp || facts.serving().next().is_some() {
        return None;
    }
    let (_, socket) = facts.on_port(Protocol::Tcp).find(|(_, socket)| socket.state == SocketState::Bound)?;
    error(
        Code::WHY_NOT_LISTENING,
        "BS3068",
        format!("{} bound {}, and did not call listen.", program(socket), socket.view),
        "let the program call listen(2), or wait until it has started".to_owned(),
    )
}

fn other_namespace(facts: &Facts) -> Option<Diagnosis> {
    unserved(facts)?;
    if facts.serving().next().is_some() {
        return None;
    }
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

fn other_protocol(facts: &Facts) -> Option<Diagnosis> {
    unserved(facts)?;
    let other = if facts.protocol == Protocol::Tcp { Protocol::Udp } else { Protocol::Tcp };
    if facts.serving().next().is_some() {
        return None;
    }
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
fn shown(protocol: Protocol) -> String {
    protocol.to_string().to_uppercase()
}

fn time_wait(facts: &Facts) -> Option<Diagnosis> {
    unserved(facts)?;
    if facts.serving().next().is_some() {
        return None;
    }
    facts.on_port(facts.protocol).find(|(_, socket)| socket.state == SocketState::TimeWait)?;
    error(
        Code::WHY_TIME_WAIT,
        "BS3075",
        "No program listens on the port. Connections in TIME-WAIT show that one did within the last minute."
            .to_owned(),
        "start the server again; if its bind fails with EADDRINUSE, it must set SO_REUSEADDR".to_owned(),
    )
}

fn nothing_listens(facts: &Facts) -> Option<Diagnosis> {
    unserved(facts)?;
    if facts.serving().next().is_some() {
        return None;
    }
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
        Code::NOBODY_LISTENS,
        "BS3011",
        format!("No socket of this host listens on {} port {}.", shown(facts.protocol), facts.port),
        help,
    )
}

fn two_programs(facts: &Facts) -> Option<Diagnosis> {
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

fn unexpected_program(facts: &Facts) -> Option<Diagnosis> {
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
