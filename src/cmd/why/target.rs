//! The target of `bindscope why`, and the addresses that it stands for.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::num::NonZeroU16;

use crate::cmd::{Exit, Failure, spelling};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::model::addr::needs_zone;
use crate::model::{IfName, Protocol, Snapshot};
use crate::plan::reach::Destination;
use crate::why::ResolvedBy;

/// A target in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) protocol: Protocol,
    pub(super) name: String,
    pub(super) port: u16,
}

/// Reads `3000`, `:3000`, `localhost:3000`, `[::1]:3000`, `udp:localhost:53`, `http://localhost:3000/path`.
pub(super) fn parse(text: &str) -> Result<Target, Failure> {
    let whole = text.trim();
    let shown = crate::escape::escape(whole);
    let wrong = |message: String, help: String| {
        Failure::new(Exit::Usage, Diagnostic::error(Code::BAD_ADDRESS, message).help(help))
    };
    if whole.starts_with(['/', '@', '.']) && !whole.starts_with("//") || whole.starts_with("unix:") {
        let path = crate::escape::shell(whole.trim_start_matches("unix:"));
        return Err(wrong(
            format!("{shown} is a Unix socket, not a TCP or UDP port"),
            format!("only programs of this host reach it; its server: ss -xlp src {path}"),
        ));
    }
    let text = plain(whole);
    let text = text.as_str();
    if let Some(("0", port)) = text.split_once(':')
        && let Ok(port) = port.parse::<NonZeroU16>()
    {
        return Ok(Target { protocol: Protocol::Tcp, name: "0.0.0.0".to_owned(), port: port.get() });
    }
    let Some(spelled) = spelling::piece(text) else {
        return Err(match text.rsplit_once(':') {
            Some((name, port)) if !name.contains(':') => wrong(
                format!("\"{}\" is not a valid port", crate::escape::escape(port)),
                format!("a port is a number from 1 to 65535, such as {}:3000", crate::escape::escape(name)),
            ),
            None if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => wrong(
                format!("\"{shown}\" is not a valid port"),
                "a port is a number from 1 to 65535, such as localhost:3000".to_owned(),
            ),
            None if !text.is_empty() => wrong(
                format!("{shown} has no port"),
                format!("add the port: bindscope why {}", crate::escape::shell(&format!("{text}:3000"))),
            ),
            _ => wrong(
                format!("{shown} is not an address with a port"),
                "write NAME:PORT or [ADDRESS]:PORT, such as localhost:3000 or [::1]:3000".to_owned(),
            ),
        });
    };
    let address = spelled.address.unwrap_or_else(|| "localhost".to_owned());
    let Some(port) = spelled.port else {
        let example = crate::escape::shell(&format!("{address}:3000"));
        return Err(wrong(format!("{shown} has no port"), format!("add the port: bindscope why {example}")));
    };
    let port = match port.parse::<u16>() {
        Ok(port) if port > 0 => port,
        _ => {
            let first = port.split('-').next().filter(|first| *first != "0").unwrap_or("3000");
            return Err(wrong(
                format!("{port} is not one port from 1 to 65535"),
                format!(
                    "name one from 1 to 65535, such as {}",
                    crate::escape::shell(&format!("{address}:{first}"))
                ),
            ));
        }
    };
    let name = address.trim_start_matches('[').trim_end_matches(']');
    let name = if name == "*" { "localhost" } else { name };
    if name.len() > 253 {
        return Err(wrong(
            "the name is longer than 253 characters".to_owned(),
            "write NAME:PORT, such as localhost:3000".to_owned(),
        ));
    }
    let name = name.strip_suffix('.').filter(|name| !name.is_empty()).unwrap_or(name);
    let protocol = if spelled.udp { Protocol::Udp } else { Protocol::Tcp };
    Ok(Target { protocol, name: name.to_owned(), port })
}

/// The target without blanks around it, and without what follows the authority of a URL that has no scheme; `NAME PORT` is
/// `NAME:PORT`.
fn plain(text: &str) -> String {
    let text = text.strip_prefix("//").unwrap_or(text);
    let text = match text.split_once(char::is_whitespace) {
        Some((name, port)) if name.parse::<Ipv6Addr>().is_ok() => format!("[{name}]:{}", port.trim_start()),
        Some((name, port)) => format!("{name}:{}", port.trim_start()),
        None => text.to_owned(),
    };
    let is_protocol = |part: &str| matches!(part.to_ascii_lowercase().as_str(), "tcp" | "udp");
    match text.split_once(['/', '?', '#']) {
        // `3000/tcp`, `udp/53` and the length of a prefix before a port are read by `spelling`.
        Some((head, tail))
            if !text.contains("://") && !is_protocol(head) && !is_protocol(tail) && !tail.contains(':') =>
        {
            head.to_owned()
        }
        _ => text,
    }
}

/// The addresses of the name, in the order in which getaddrinfo(3) gives them.
///
/// # Errors
/// Exit 2 for a zone that is not an interface of this host.
pub(super) fn resolve(
    target: &Target,
    snapshot: &Snapshot,
) -> Result<(ResolvedBy, Vec<Destination>), Failure> {
    let (bare, zone) =
        target.name.split_once('%').map_or((target.name.as_str(), None), |(bare, zone)| (bare, Some(zone)));
    if let Ok(address) = bare.parse::<IpAddr>() {
        let zone = zone.map(|zone| index_of(zone, snapshot)).transpose()?;
        // A link-local address without a zone means the interface that has it.
        let owner = || {
            snapshot
                .addresses()
                .find(|(_, one)| one.address == address)
                .map_or(0, |(interface, _)| interface.index)
        };
        let zone = if needs_zone(address) { zone.unwrap_or_else(owner) } else { 0 };
        return Ok((ResolvedBy::Literal, vec![Destination { address, zone }]));
    }
    if let Some(interface) = snapshot.interfaces.iter().find(|one| one.name.as_str() == Some(&target.name)) {
        let own = interface.addresses.iter().map(|one| Destination {
            address: one.address,
            zone: if needs_zone(one.address) { interface.index } else { 0 },
        });
        return Ok((ResolvedBy::Interface, own.collect()));
    }
    let found: Vec<Destination> = (target.name.as_str(), target.port)
        .to_socket_addrs()
        .map(|found| {
            found
                .map(|address| match address {
                    SocketAddr::V4(v4) => Destination { address: (*v4.ip()).into(), zone: 0 },
                    SocketAddr::V6(v6) => Destination { address: (*v6.ip()).into(), zone: v6.scope_id() },
                })
                .collect()
        })
        .unwrap_or_default();
    let mut addresses: Vec<Destination> = Vec::new();
    for one in found {
        if !addresses.contains(&one) {
            addresses.push(one);
        }
    }
    let in_hosts = crate::cmd::probe::hosts_addresses(&target.name, snapshot);
    let by = if addresses.iter().all(|one| in_hosts.contains(&one.address)) {
        ResolvedBy::HostsFile
    } else {
        ResolvedBy::Resolver
    };
    Ok((by, addresses))
}

/// The index of the interface that a zone names.
fn index_of(zone: &str, snapshot: &Snapshot) -> Result<u32, Failure> {
    let named = snapshot.interface_named(&IfName::from(zone)).map(|interface| interface.index);
    let numbered = || zone.parse().ok().filter(|index| snapshot.interface(*index).is_some());
    named.or_else(numbered).ok_or_else(|| {
        let names: Vec<String> =
            snapshot.interfaces.iter().map(|interface| interface.name.to_string()).collect();
        Failure::new(
            Exit::Usage,
            Diagnostic::error(
                Code::BAD_ADDRESS,
                format!("this host has no interface {}", crate::escape::escape(zone)),
            )
            .help(format!("the zone of a link-local address is an interface: {}", names.join(", "))),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_people_write_them() {
        let good = |text: &str| {
            let target = parse(text).unwrap_or_else(|failure| panic!("{text}: {:?}", failure.problems));
            (target.name, target.port, target.protocol)
        };
        let tcp = |name: &str, port: u16| (name.to_owned(), port, Protocol::Tcp);
        for (text, wanted) in [
            ("3000", tcp("localhost", 3000)),
            (":3000", tcp("localhost", 3000)),
            ("localhost:3000", tcp("localhost", 3000)),
            ("127.0.0.1:80", tcp("127.0.0.1", 80)),
            ("[::1]:80", tcp("::1", 80)),
            ("[fe80::1%eth0]:80", tcp("fe80::1%eth0", 80)),
            ("http://localhost:3000/a?b", tcp("localhost", 3000)),
            ("http://localhost", tcp("localhost", 80)),
            ("https://user@box.example/x?y", tcp("box.example", 443)),
            ("postgres://me:secret@localhost/db", tcp("localhost", 5432)),
            ("tcp:localhost:22", tcp("localhost", 22)),
            (" localhost:22 ", tcp("localhost", 22)),
            ("localhost 22", tcp("localhost", 22)),
            ("::1 22", tcp("::1", 22)),
            ("0:22", tcp("0.0.0.0", 22)),
            ("localhost:3000/a/b?c", tcp("localhost", 3000)),
            ("//box.example:3000", tcp("box.example", 3000)),
            ("3000/tcp", tcp("localhost", 3000)),
            ("192.0.2.1/24:80", tcp("192.0.2.1", 80)),
        ] {
            assert_eq!(good(text), wanted, "{text}");
        }
        assert_eq!(good("udp:localhost:53"), ("localhost".to_owned(), 53, Protocol::Udp));
        for (text, help) in [
            ("localhost", "localhost:3000"),
            ("127.0.0.1/3000", "127.0.0.1:3000"),
            ("/run/x.sock", "ss -xlp src /run/x.sock"),
            ("unix:/run/x.sock", "ss -xlp src /run/x.sock"),
            ("::1", "[::1]:3000"),
            ("localhost:0", "1 to 65535"),
            ("localhost:99999", "1 to 65535"),
            ("[::1", "[ADDRESS]:PORT"),
            ("", "NAME:PORT"),
        ] {
            let failure = parse(text).unwrap_err();
            assert!(failure.problems[0].help.join(" ").contains(help), "{text}: {:?}", failure.problems);
        }
    }
}
