//! Targets as other programs write them (`8080/udp`, `tcp://0.0.0.0:80`, `::1:8080`, `-p 8080`), in the spelling of bindscope.

use std::net::{IpAddr, Ipv6Addr};

/// Names of ports that people write in place of numbers.
const SERVICES: &[(&str, &str)] = &[
    ("http", "80"),
    ("www", "80"),
    ("ws", "80"),
    ("https", "443"),
    ("wss", "443"),
    ("ssh", "22"),
    ("dns", "53"),
    ("domain", "53"),
    ("smtp", "25"),
    ("postgres", "5432"),
    ("postgresql", "5432"),
    ("mysql", "3306"),
    ("redis", "6379"),
    ("mongodb", "27017"),
];

/// Options that name an address or an interface in other programs, without their dashes.
const ADDRESS_OPTIONS: &[&str] = &[
    "host",
    "hostname",
    "address",
    "addr",
    "ip",
    "listen",
    "bind",
    "bind-address",
    "bind-addr",
    "local",
    "source",
    "server",
    "interface",
    "iface",
    "if",
    "nic",
    "dev",
    "device",
    "a",
    "H",
    "i",
    "I",
    "s",
    "B",
];
/// Options that name a port.
const PORT_OPTIONS: &[&str] = &["port", "ports", "local-port", "listen-port", "sport", "dport", "p", "P"];
/// Other options of the network programs, which have no value.
const SWITCHES: &[&str] = &["l", "k", "n", "v", "r", "t", "u", "4", "6", "z", "w"];
/// Options with a value that is no part of a target.
const OTHER_VALUES: &[&str] = &[
    "timeout",
    "duration",
    "time",
    "for",
    "count",
    "output",
    "o",
    "format",
    "f",
    "color",
    "profile",
    "config",
    "c",
    "file",
    "user",
    "name",
    "connect-timeout",
    "deadline",
    "threads",
    "topology",
    "set",
];

/// Protocol, address and port of one word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Piece {
    /// UDP instead of TCP.
    pub(super) udp: bool,
    /// Address, name or interface; IPv6 in brackets, `*` for all.
    pub(super) address: Option<String>,
    /// Port, or a range of ports.
    pub(super) port: Option<String>,
}

impl Piece {
    fn text(&self) -> String {
        let udp = if self.udp { "udp:" } else { "" };
        match (&self.address, &self.port) {
            (Some(address), Some(port)) => format!("{udp}{address}:{port}"),
            (Some(only), None) | (None, Some(only)) => format!("{udp}{only}"),
            (None, None) => String::new(),
        }
    }
}

/// The correct spelling of a word that names an address and a port, or ports; `None` if it is not recognized.
pub(super) fn corrected(word: &str) -> Option<Vec<String>> {
    let (word, options) = match word.split_once(',') {
        Some((head, rest)) if rest.contains('=') => (head, format!(",{rest}")),
        _ => (word, String::new()),
    };
    let pieces: Vec<Piece> = word.split(',').map(piece).collect::<Option<_>>()?;
    if pieces.iter().any(|piece| piece.port.is_none()) {
        return None;
    }
    let first = pieces.first()?.clone();
    let address = |piece: &Piece| piece.address.clone().or_else(|| first.address.clone());
    Some(
        pieces
            .iter()
            .map(|piece| Piece {
                address: address(piece),
                udp: piece.udp || first.udp,
                port: piece.port.clone(),
            })
            .map(|piece| piece.text() + &options)
            .collect(),
    )
}

/// Reads a word as protocol, address and port.
pub(super) fn piece(word: &str) -> Option<Piece> {
    let lower = word.to_ascii_lowercase();
    let (scheme, rest) = match lower.split_once("://") {
        Some((scheme, rest)) => {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
            (scheme, authority.rsplit_once('@').map_or(authority, |(_, host)| host))
        }
        None => ("", lower.as_str()),
    };
    let mut udp = scheme.starts_with("udp");
    let mut rest = rest;
    for (mark, is_udp) in [("udp", true), ("tcp", false)] {
        let prefixed = [":", "/"].iter().find_map(|sign| rest.strip_prefix(&format!("{mark}{sign}")));
        let suffixed = ["/", ":"].iter().find_map(|sign| rest.strip_suffix(&format!("{sign}{mark}")));
        if let Some(inner) = prefixed.or(suffixed) {
            (rest, udp) = (inner, udp || is_udp);
        }
    }
    // After a scheme any text is the name of a host.
    let host =
        || (!scheme.is_empty() && !rest.is_empty() && !rest.contains(':')).then(|| (address(rest), None));
    let (address, port) = parts(rest).or_else(host)?;
    let default = SERVICES.iter().find(|(name, _)| *name == scheme).map(|(_, port)| (*port).to_owned());
    Some(Piece { udp, address, port: port.or(default) })
}

/// Address and port; at least one of them.
fn parts(text: &str) -> Option<(Option<String>, Option<String>)> {
    if let Some(port) = ports(text) {
        return Some((None, Some(port)));
    }
    if let Some(inside) = text.strip_prefix('[') {
        let (inside, tail) = inside.split_once(']')?;
        let tail = tail.trim_start_matches(':');
        let port = if tail.is_empty() { None } else { Some(ports(tail)?) };
        return Some((Some(address(inside)?), port));
    }
    let without_zone = text.split('%').next().unwrap_or(text);
    match text.rsplit_once(':') {
        // `::1:8080`: an address too, but the port is what is intended.
        Some((head, port)) if head.contains(':') => {
            let head_is_one = head.split('%').next().unwrap_or(head).parse::<Ipv6Addr>().is_ok();
            // `:::8080`
            let head_is_one = head_is_one || head == "::";
            match (head_is_one, ports(port)) {
                (true, Some(port)) => Some((Some(address(head)?), Some(port))),
                _ => without_zone.parse::<Ipv6Addr>().ok().map(|_| (Some(format!("[{text}]")), None)),
            }
        }
        Some((host, port)) => Some((Some(address(host)?), Some(ports(port)?))),
        None => {
            let alone = text == "localhost" || text == "*" || text.parse::<IpAddr>().is_ok();
            alone.then(|| (Some(text.to_owned()), None))
        }
    }
}

/// Whether the text is an address, `localhost` or a wildcard, without a port.
pub(super) fn address_alone(word: &str) -> Option<String> {
    let piece = piece(word)?;
    piece.port.is_none().then_some(piece.address?)
}

/// A port, a service, or a range of ports.
fn ports(text: &str) -> Option<String> {
    if let Some((_, port)) = SERVICES.iter().find(|(name, _)| *name == text) {
        return Some((*port).to_owned());
    }
    let number = |text: &str| text.parse::<u16>().ok();
    if let Some(port) = number(text) {
        return Some(port.to_string());
    }
    let (low, high) = ["..=", "..", "-", ":"].iter().find_map(|sign| text.split_once(sign))?;
    Some(format!("{}-{}", number(low)?, number(high)?))
}

/// An address as a target has it: IPv6 in brackets, `*` for all, without the length of a prefix.
fn address(text: &str) -> Option<String> {
    let text = text.split_once('/').map_or(text, |(address, _)| address);
    if matches!(text, "" | "*" | "+" | "any" | "all" | "everywhere") {
        return Some("*".to_owned());
    }
    if text.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()) {
        return Some(format!("[{text}]"));
    }
    (!text.contains(['[', ']', ' '])).then(|| text.to_owned())
}

/// What the words of a command line name, in the habits of `nc`, `nmap`, `ss` and servers.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Complete targets, and words that are something else, such as profiles.
    ready: Vec<String>,
    address: Option<String>,
    ports: Vec<String>,
    udp: bool,
    family: Option<char>,
    options: String,
    /// Whether a switch asks to listen.
    pub(super) listens: bool,
}

impl Wanted {
    /// Reads the words after a command.
    pub(super) fn read(words: &[&str]) -> Wanted {
        let mut wanted = Wanted::default();
        let mut rest = words.iter().copied().peekable();
        while let Some(word) = rest.next() {
            let dashes = word.len() - word.trim_start_matches('-').len();
            if dashes == 0 || word == "-" {
                wanted.word(word);
                continue;
            }
            let (name, inline) = match word[dashes..].split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (&word[dashes..], None),
            };
            let mut value = |wanted: &mut Wanted, set: fn(&mut Wanted, &str)| {
                let next = inline.or_else(|| rest.next_if(|next| !next.starts_with('-')));
                if let Some(value) = next {
                    set(wanted, value);
                }
            };
            if PORT_OPTIONS.contains(&name) {
                value(&mut wanted, Wanted::port);
            } else if name == "listen" && inline.is_none() {
                wanted.listens = true;
            } else if matches!(name, "device" | "dev") && word.starts_with("--") {
                value(&mut wanted, |wanted, device| wanted.options = format!(",device={device}"));
            } else if ADDRESS_OPTIONS.contains(&name) {
                value(&mut wanted, Wanted::word);
            } else if OTHER_VALUES.contains(&name) {
                value(&mut wanted, |_, _| {});
            } else {
                wanted.switch(name, dashes == 2, &mut |wanted| value(wanted, Wanted::port));
            }
        }
        wanted
    }

    /// A switch without a value, or several short ones together, of which `p` takes the next word.
    fn switch(&mut self, name: &str, long: bool, port: &mut dyn FnMut(&mut Wanted)) {
        if long {
            match name {
                "udp" => self.udp = true,
                "ipv4" | "inet" => self.family = Some('4'),
                "ipv6" | "inet6" => self.family = Some('6'),
                "dual-stack" | "dualstack" | "dual" => self.family = Some('*'),
                "v6only" | "ipv6only" => self.family = Some('6'),
                "reuse-port" | "reuseport" => self.options = ",reuse_port=true".to_owned(),
                _ => {}
            }
            return;
        }
        for (index, letter) in name.char_indices() {
            match letter {
                'u' => self.udp = true,
                'l' => self.listens = true,
                '4' | '6' => self.family = Some(letter),
                'p' if index + 1 == name.len() => port(self),
                'p' => {
                    self.port(&name[index + 1..]);
                    return;
                }
                _ => {}
            }
        }
    }

    fn port(&mut self, text: &str) {
        for part in text.split(',') {
            match piece(part) {
                Some(Piece { port: Some(port), address, udp }) => {
                    self.udp |= udp;
                    self.address = self.address.take().or(address);
                    self.ports.push(port);
                }
                // nmap's `-p-`
                _ if part == "-" => self.ports.push("1-65535".to_owned()),
                _ => {}
            }
        }
    }

    fn word(&mut self, word: &str) {
        match word.to_ascii_lowercase().as_str() {
            "udp" => self.udp = true,
            "tcp" | "on" | "at" | "port" => {}
            lower => match piece(lower) {
                Some(Piece { port: None, address: Some(address), udp }) => {
                    self.udp |= udp;
                    self.address = Some(address);
                }
                Some(Piece { port: Some(port), address: None, udp }) => {
                    self.udp |= udp;
                    self.ports.push(port);
                }
                Some(_) => self.ready.extend(corrected(lower).unwrap_or_default()),
                None if word.contains(',') && corrected(lower).is_some() => {
                    self.ready.extend(corrected(lower).unwrap_or_default());
                }
                None if word.contains('.') || word.contains('/') || self.address.is_some() => {
                    self.ready.push(word.to_owned());
                }
                None => self.address = Some(word.to_owned()),
            },
        }
    }

    /// Whether a port is named.
    pub(super) fn ports(&self) -> &[String] {
        &self.ports
    }

    /// The address that is named, without a port.
    pub(super) fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    /// The targets, each quoted for a shell. What is not named comes from the defaults.
    pub(super) fn targets(&self, default_address: &str, default_port: &str) -> String {
        let address = self.address.clone().unwrap_or_else(|| {
            match self.family {
                Some('6') => "[::]",
                Some('*') => "*",
                Some(_) => "0.0.0.0",
                None => default_address,
            }
            .to_owned()
        });
        let mut all = self.ready.clone();
        let builtin = |name: &str| crate::profile::builtin::get(name).is_some();
        if self.ports.is_empty() && self.address.as_deref().is_some_and(builtin) {
            all.push(address);
        } else if self.ready.is_empty() || !self.ports.is_empty() || self.address.is_some() {
            let ports =
                if self.ports.is_empty() { vec![default_port.to_owned()] } else { self.ports.clone() };
            all.extend(ports.iter().map(|port| format!("{address}:{port}")));
        }
        let spelled = |target: &String| {
            let udp = if self.udp && !target.starts_with("udp:") { "udp:" } else { "" };
            crate::escape::shell(&format!("{udp}{target}{}", self.options))
        };
        all.iter().map(spelled).collect::<Vec<_>>().join(" ")
    }
}

/// Whether an option belongs to the vocabulary of network programs. The name includes its dashes.
pub(super) fn is_network_option(option: &str) -> bool {
    let name = option.trim_start_matches('-');
    let long = option.starts_with("--");
    PORT_OPTIONS.contains(&name)
        || ADDRESS_OPTIONS.contains(&name)
        || (!long
            && name.chars().all(|letter| SWITCHES.contains(&letter.to_string().as_str()) || letter == 'p'))
        || matches!(
            name,
            "udp"
                | "tcp"
                | "ipv4"
                | "ipv6"
                | "inet"
                | "inet6"
                | "dual-stack"
                | "dualstack"
                | "dual"
                | "v6only"
                | "ipv6only"
                | "reuse-port"
                | "reuseport"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_spellings_of_a_target_are_corrected() {
        for (typed, correct) in [
            ("5353/udp", "udp:5353"),
            ("udp/5353", "udp:5353"),
            ("0.0.0.0:53/udp", "udp:0.0.0.0:53"),
            ("udp://0.0.0.0:53", "udp:0.0.0.0:53"),
            ("tcp://0.0.0.0:80", "0.0.0.0:80"),
            ("http://localhost", "localhost:80"),
            ("https://user@[::1]/path?x#y", "[::1]:443"),
            ("https://box.example/path", "box.example:443"),
            ("::1:8080", "[::1]:8080"),
            (":::8080", "[::]:8080"),
            ("2001:db8::1:8080", "[2001:db8::1]:8080"),
            ("fe80::1%eth0:8080", "[fe80::1%eth0]:8080"),
            ("[::]8080", "[::]:8080"),
            ("8000..8009", "8000-8009"),
            ("8000:8009", "8000-8009"),
            ("80,443", "80 443"),
            ("0.0.0.0:80,443", "0.0.0.0:80 0.0.0.0:443"),
            ("any:80", "*:80"),
            ("0.0.0.0:http", "0.0.0.0:80"),
            ("10.0.0.0/8:80", "10.0.0.0:80"),
            ("LOCALHOST:80", "localhost:80"),
        ] {
            assert_eq!(corrected(typed).map(|all| all.join(" ")).as_deref(), Some(correct), "{typed}");
        }
        for typed in ["default", "::1", "0.0.0.0", "8080x", "0.0.0.0:99999", "web.toml", "[::1", ""] {
            assert_eq!(corrected(typed), None, "{typed}");
        }
    }

    #[test]
    fn options_of_other_programs_become_targets() {
        for (line, correct) in [
            ("--host 0.0.0.0 --port 8080", "0.0.0.0:8080"),
            ("--host=::1 --port=8080", "'[::1]:8080'"),
            ("--host 0.0.0.0:8080", "0.0.0.0:8080"),
            ("-l -p 8080", "0.0.0.0:8080"),
            ("-lvp 8080", "0.0.0.0:8080"),
            ("-p8080", "0.0.0.0:8080"),
            ("-p 80,443", "0.0.0.0:80 0.0.0.0:443"),
            ("-u 5353", "udp:0.0.0.0:5353"),
            ("-6 8080", "'[::]:8080'"),
            ("-i eth0", "eth0:8080"),
            ("--device eth0 8080", "'0.0.0.0:8080,device=eth0'"),
            ("--dual-stack 8080", "'*:8080'"),
            ("--timeout 5 8080", "0.0.0.0:8080"),
            ("localhost 3000", "localhost:3000"),
            ("::1 3000", "'[::1]:3000'"),
            ("default", "default"),
            ("--port 80 web.toml", "web.toml 0.0.0.0:80"),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(Wanted::read(&words).targets("0.0.0.0", "8080"), correct, "{line}");
        }
    }
}
