//! Which names a browser may call this host by.
//!
//! A page of another site can make a browser connect here by a name of its own (DNS rebinding): the browser then takes the reply for
//! one of that site, whose scripts read it. The Host header shows the name, so a foreign one gets no reply.

use std::net::IpAddr;

/// The names of this host, besides its addresses and `localhost`.
#[derive(Debug, Clone, Default)]
pub struct OwnNames(Vec<String>);

impl OwnNames {
    /// A host name, and its first label where it has several.
    #[must_use]
    pub fn new(host_name: Option<&str>) -> OwnNames {
        let name = host_name.unwrap_or_default().trim_end_matches('.');
        let first = name.split('.').next().unwrap_or_default();
        let mut names: Vec<String> =
            [name, first].into_iter().filter(|name| !name.is_empty()).map(str::to_ascii_lowercase).collect();
        names.dedup();
        OwnNames(names)
    }

    /// Whether the value of a Host header means this host: an IP address as a browser writes it, `localhost` or a name below it
    /// (RFC 6761, 6.3), or a name of this host; each with a port or without.
    #[must_use]
    pub fn includes(&self, host: &[u8]) -> bool {
        let Ok(host) = std::str::from_utf8(host) else { return false };
        let host = host.trim_matches([' ', '\t']);
        if let Some(rest) = host.strip_prefix('[') {
            let Some((address, port)) = rest.split_once(']') else { return false };
            let address = address.split('%').next().unwrap_or_default();
            return is_port(port) && matches!(address.parse(), Ok(IpAddr::V6(_)));
        }
        let (name, port) = host.find(':').map_or((host, ""), |colon| host.split_at(colon));
        if !is_port(port) {
            return false;
        }
        if name.parse::<std::net::Ipv4Addr>().is_ok() {
            return true;
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        name == "localhost" || name.ends_with(".localhost") || self.0.contains(&name)
    }
}

/// Nothing, or a colon and digits (RFC 9110, 4.2.1: the port may be empty).
fn is_port(text: &str) -> bool {
    text.is_empty()
        || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_means_this_host_is_included() {
        let names = OwnNames::new(Some("Web1.Example.com."));
        for own in [
            "127.0.0.1",
            "127.0.0.1:8081",
            "192.0.2.7:80",
            "[::1]:8081",
            "[::1]",
            "[fe80::1%25eth0]:1",
            "localhost",
            "LocalHost:8081",
            "localhost.",
            "app.localhost:80",
            "web1.example.com",
            "WEB1:8081",
            "web1:",
        ] {
            assert!(names.includes(own.as_bytes()), "{own}");
        }
        for foreign in [
            "",
            ":80",
            "evil",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "web1.example.com.evil.example",
            "web2.example.com",
            "example.com",
            "web1.local",
            "127.1",
            "0x7f.1",
            "2130706433",
            "127.0.0.1:80:80",
            "127.0.0.1:evil",
            "[::1",
            "[127.0.0.1]",
            "[::1]evil",
            "::1",
            "user@127.0.0.1",
            "127.0.0.1, evil",
            ".localhost.evil",
        ] {
            assert!(!names.includes(foreign.as_bytes()), "{foreign}");
        }
        assert!(!names.includes(b"\xff"));
        assert!(!OwnNames::new(None).includes(b"web1") && !OwnNames::new(Some(".")).includes(b"."));
    }
}
