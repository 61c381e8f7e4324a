//! The table of causes. Each is a pure function of [`Facts`]; the first that applies decides.

use super::sockets::{self, error, failing, takes_family};
use super::{Diagnosis, Facts, Ipv6, Place, Tried, program};
use crate::code::Code;
use crate::escape::{escape, shell};
use crate::model::{Errno, IfName, ListeningSocket, Outcome, Protocol};

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
    translated_in_vain,
    queue_full,
    blocked,
    no_ipv6,
    sockets::bound_to_device,
    sockets::v6only,
    sockets::one_family,
    sockets::loopback_only,
    sockets::other_address,
    sockets::not_listening,
    sockets::other_namespace,
    sockets::other_protocol,
    sockets::in_connection,
    sockets::time_wait,
    sockets::nothing_listens,
    partly_elsewhere,
    sockets::two_programs,
    sockets::shared_port,
    sockets::unexpected_program,
];

/// A packet filter decides.
pub(super) const FILTER_CODES: [Code; 3] =
    [Code::FILTER_DROPS, Code::FILTER_REJECTS, Code::FILTER_DROPS_ANSWER];

/// A packet filter that keeps the connection out.
fn filtered(facts: &Facts) -> Option<Diagnosis> {
    let tried = failing(facts).find(|one| one.rule.is_some() && FILTER_CODES.contains(&one.because))?;
    let rule = tried.rule.as_deref()?;
    let what = if tried.because == Code::FILTER_REJECTS { "rejects" } else { "drops" };
    error(
        tried.because,
        "filters",
        format!("A packet filter {what} the connection to {}: {rule}.", tried.text()),
        format!(
            "accept {} port {} before this rule; `bindscope why {} --steps` shows every rule that the packets meet",
            sockets::shown(facts.protocol),
            facts.port,
            shell(&facts.target)
        ),
    )
}

fn name_unresolved(facts: &Facts) -> Option<Diagnosis> {
    if !facts.addresses.is_empty() {
        return None;
    }
    let name = escape(&facts.name);
    let numbers = facts.name.split('.').count() == 4
        && facts.name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let help = if facts.name.eq_ignore_ascii_case("localhost") {
        "add the lines `127.0.0.1 localhost` and `::1 localhost` to /etc/hosts; /etc/nsswitch.conf must have `files` in the line `hosts:`"
            .to_owned()
    } else if facts.host_name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(&facts.name))
        || facts.name.to_ascii_lowercase().ends_with(".localhost")
    {
        format!("add the line `127.0.0.1 {name}` to /etc/hosts, or use localhost")
    } else if numbers {
        format!("{name} is not a valid IPv4 address: each of the four numbers is at most 255")
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

/// No address of the target can be used on this host.
fn other_host(facts: &Facts) -> Option<Diagnosis> {
    if facts.addresses.is_empty() || facts.addresses.iter().any(Tried::local) {
        return None;
    }
    let decides = facts.addresses.iter().find(|one| one.place != Place::Elsewhere);
    let tried = decides.or_else(|| facts.addresses.first())?;
    let address = tried.text();
    let group = |what: &str| {
        error(
            Code::WHY_OTHER_HOST,
            "BS3062",
            format!("{address} is a {what} address. It does not belong to one host."),
            match facts.protocol {
                Protocol::Tcp => {
                    "connect to the address of one host: TCP has no multicast or broadcast".to_owned()
                }
                Protocol::Udp => format!(
                    "send a datagram to it; which sockets receive it depends on their groups and options: bindscope audit --protocol udp --port {}",
                    facts.port
                ),
            },
        )
    };
    match &tried.place {
        Place::Here => None,
        Place::Multicast => group("multicast"),
        Place::Broadcast => group("broadcast"),
        Place::Tentative(interface) => error(
            Code::ADDRESS_TENTATIVE,
            "dad",
            format!(
                "{address} is tentative on {interface}: duplicate address detection has not finished, and the kernel does not use the address yet."
            ),
            format!("wait two seconds and try again; if it stays tentative, set the link of {interface} up"),
        ),
        Place::OtherLink(interface) => error(
            Code::WHY_OTHER_ADDRESS,
            "scope-id",
            format!("{address} is not an address of this host. {interface} has {}.", tried.address),
            format!("use {}", facts.with_port(&format!("{}%{interface}", tried.address))),
        ),
        Place::Elsewhere => {
            let bound = |socket: &&ListeningSocket| {
                socket.view.address.to_canonical() == tried.address.to_canonical()
            };
            if let Some(socket) = facts.serving().map(|(_, socket)| socket).find(bound) {
                return error(
                    Code::STALE_ADDRESS,
                    "BS1022",
                    format!(
                        "{address} is not an address of this host. {} is bound to it here, but no client can reach it.",
                        program(socket)
                    ),
                    format!(
                        "add {address} to an interface of this host; the standby of a floating address waits for it"
                    ),
                );
            }
            let off = match ipv6_off(facts, tried) {
                Some(interface) => format!(
                    " IPv6 is disabled on {interface} (net.ipv6.conf.{interface}.disable_ipv6 is 1), which removes the IPv6 addresses of {interface}."
                ),
                None => " Only its own host can say what listens there.".to_owned(),
            };
            error(
                Code::WHY_OTHER_HOST,
                "BS3062",
                format!("{address} is not an address of this host.{off}"),
                format!("run `bindscope why {}` on the host that has it", shell(&facts.with_port(&address))),
            )
        }
    }
}

/// The first interface without IPv6, if that may be why this host does not have the address.
fn ipv6_off<'a>(facts: &'a Facts, tried: &Tried) -> Option<&'a IfName> {
    facts.ipv6_off.first().filter(|_| !tried.is_ipv4() && !tried.local())
}

/// A name of this host that also means an address which this host does not have.
fn partly_elsewhere(facts: &Facts) -> Option<Diagnosis> {
    let here = facts.addresses.iter().find(|one| one.local())?;
    let there = facts.addresses.iter().find(|one| one.place == Place::Elsewhere)?;
    let owner_off = here.owner.as_ref().filter(|owner| facts.ipv6_off.contains(owner) && !there.is_ipv4());
    let name = escape(&facts.name);
    match owner_off {
        Some(interface) => error(
            Code::WHY_NO_IPV6,
            "BS3076",
            format!(
                "{name} also means {}, which this host does not have: net.ipv6.conf.{interface}.disable_ipv6 is 1.",
                there.text()
            ),
            format!(
                "sysctl -w net.ipv6.conf.{interface}.disable_ipv6=0, and configure {} again; or let clients use {}",
                there.text(),
                here.text()
            ),
        ),
        None => error(
            Code::WHY_OTHER_HOST,
            "BS3062",
            format!(
                "{name} also means {}, which is not an address of this host. A client may connect there.",
                there.text()
            ),
            format!("let clients use {}, or correct the addresses of {name}", facts.with_port(&here.text())),
        ),
    }
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
        one.local()
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

/// A rule that sends the connection to a place where it fails.
fn translated_in_vain(facts: &Facts) -> Option<Diagnosis> {
    let tried =
        failing(facts).find(|one| one.translated.is_some() && !FILTER_CODES.contains(&one.because))?;
    let (to, rule) =
        (tried.translated.as_deref()?, tried.rule.as_deref().unwrap_or("a rule that was not seen"));
    error(
        Code::WHY_TRANSLATED,
        "docker",
        format!(
            "Connections to {} are sent to {to}, and fail there. The rule that translates the address: {rule}.",
            facts.with_port(&tried.text())
        ),
        format!(
            "start the server at {to}, or remove the rule: sudo nft list ruleset, or sudo iptables -t nat -S"
        ),
    )
}

/// A socket that is predicted to accept, and did not.
fn silent(facts: &Facts) -> Option<(&Tried, &ListeningSocket)> {
    let tried = facts.addresses.iter().find(|one| {
        one.local()
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

/// A socket that covers the address, where the prediction is unknown and the connection failed.
fn unpredicted(facts: &Facts) -> Option<(&Tried, &ListeningSocket)> {
    let tried = failing(facts).find(|one| one.predicted.is_none() && one.observed.is_some())?;
    let covers = |socket: &ListeningSocket| {
        let bound = socket.view.address.to_canonical();
        socket.view.device.is_none()
            && takes_family(socket, tried.is_ipv4())
            && (bound.is_unspecified() || bound == tried.address.to_canonical())
    };
    facts.serving().find(|(_, socket)| covers(socket)).map(|(_, socket)| (tried, socket))
}

/// A connection that fails without any of the known causes.
pub(super) fn unexplained(facts: &Facts) -> Option<Diagnosis> {
    let tried = failing(facts).find(|one| one.outcome().is_some())?;
    error(
        Code::WHY_BLOCKED,
        "BS3073",
        format!(
            "A connection to {} ends with: {}. bindscope finds no cause.",
            facts.with_port(&tried.text()),
            tried.outcome()?
        ),
        format!(
            "follow the path with `bindscope why {} --steps`; `bindscope doctor` shows what could not be read",
            shell(&facts.target)
        ),
    )
}

/// A socket that is predicted to accept, and whose connections do not arrive.
fn blocked(facts: &Facts) -> Option<Diagnosis> {
    if queue_full(facts).is_some() {
        return None;
    }
    let (tried, socket) = silent(facts).or_else(|| unpredicted(facts))?;
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
        failing(facts).chain(facts.addresses.iter().filter(|one| !one.local())).find(|one| !one.is_ipv4())?;
    // Without a server IPv4 fails as well, and IPv6 is not the cause.
    if facts.serving().next().is_none() && failing(facts).any(Tried::is_ipv4) {
        return None;
    }
    let refused = tried.observed.is_some_and(|seen| seen.errno == Some(Errno::EAFNOSUPPORT));
    let (cause, help) = match facts.ipv6 {
        Ipv6::Available if refused => (
            "the kernel creates no IPv6 socket (EAFNOSUPPORT): it has no IPv6, or a filter of system calls (seccomp) denies it",
            "allow socket(AF_INET6) in the seccomp profile, or start a kernel with IPv6",
        ),
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
