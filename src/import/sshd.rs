//! OpenSSH's server: `Port`, `ListenAddress` and `AddressFamily` of sshd_config(5).
//!
//! Defaults from that page: port 22, all local addresses, address family `any`. An address without a port listens on every
//! `Port`. `listen.c` of OpenSSH sets SO_REUSEADDR on every socket and IPV6_V6ONLY on IPv6 sockets; the backlog is 128
//! (SSH_LISTEN_BACKLOG). For most keywords the first value counts; `Port` and `ListenAddress` may be repeated.

use std::net::{IpAddr, SocketAddr};

use super::{File, Import, Include, any, listener};
use crate::model::{Family, Protocol, V6Only};

/// The keywords that decide about sockets.
#[derive(Default)]
struct Keywords {
    ports: Vec<u16>,
    addresses: Vec<(String, File, usize)>,
    family: Option<String>,
}

pub(super) fn read(file: &File, include: &mut Include<'_>, import: &mut Import) {
    let mut keywords = Keywords::default();
    lines(file, include, import, &mut keywords, 0);
    let families: &[Family] = match keywords.family.as_deref() {
        Some("inet") => &[Family::Ipv4],
        Some("inet6") => &[Family::Ipv6],
        _ => &Family::BOTH,
    };
    if keywords.ports.is_empty() {
        keywords.ports.push(22);
    }
    let mut found: Vec<(IpAddr, u16, usize)> = Vec::new();
    for (text, file, line) in &keywords.addresses {
        match parse(text, &keywords.ports) {
            Some(all) => found.extend(all.into_iter().map(|(address, port)| (address, port, *line))),
            None => {
                import.skip(file, *line, format!("`{text}` is a name, which sshd resolves when it starts"))
            }
        }
    }
    if keywords.addresses.is_empty() {
        for port in &keywords.ports {
            found.extend(families.iter().map(|family| (any(*family), *port, 0)));
        }
    }
    for (address, port, line) in found {
        if !families.contains(&Family::of(address)) {
            continue;
        }
        let shown = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        let mut one = listener(&format!("sshd {shown}:{port}"), address, port, Protocol::Tcp);
        one.v6only = V6Only::On;
        one.backlog = 128;
        one.line = line;
        import.listeners.push(one);
    }
}

fn lines(file: &File, include: &mut Include<'_>, import: &mut Import, keywords: &mut Keywords, depth: usize) {
    for (index, line) in file.text.lines().enumerate() {
        let number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (keyword, rest) = line.split_once(|c: char| c.is_whitespace() || c == '=').unwrap_or((line, ""));
        let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '=');
        let words: Vec<&str> = rest
            .split_whitespace()
            .take_while(|word| !word.starts_with('#'))
            .map(|word| word.trim_matches('"'))
            .collect();
        let value = words.first().copied().unwrap_or_default();
        match keyword.to_ascii_lowercase().as_str() {
            // What follows applies to some connections, and cannot open sockets.
            "match" => return,
            "port" => match value.parse::<u16>() {
                Ok(port) if port > 0 => keywords.ports.push(port),
                _ => import.wrong(
                    file,
                    number,
                    format!("`{value}` is not a valid port"),
                    "write a number from 1 to 65535",
                ),
            },
            "listenaddress" => {
                if words.get(1).is_some_and(|word| *word == "rdomain") {
                    import.skip(file, number, "the routing domain is not predicted");
                }
                keywords.addresses.push((value.to_owned(), file.clone(), number));
            }
            "addressfamily" => {
                keywords.family.get_or_insert_with(|| value.to_ascii_lowercase());
            }
            "include" if depth < 16 => {
                for pattern in words {
                    match include(pattern, file) {
                        Ok(files) => {
                            files.iter().for_each(|found| lines(found, include, import, keywords, depth + 1))
                        }
                        Err(problem) => {
                            import.skip(file, number, format!("`Include` is left out: {}", problem.message))
                        }
                    }
                }
            }
            "include" => import.skip(file, number, "includes are nested too deeply"),
            _ => {}
        }
    }
}

/// The addresses and ports of a `ListenAddress`; `None` for a name.
fn parse(text: &str, ports: &[u16]) -> Option<Vec<(IpAddr, u16)>> {
    if let Ok(at) = text.parse::<SocketAddr>() {
        return Some(vec![(at.ip(), at.port())]);
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address: IpAddr = if bare == "*" { any(Family::Ipv4) } else { bare.parse().ok()? };
    Some(ports.iter().map(|port| (address, *port)).collect())
}
