//! nginx: the `listen` directives of `http`, `stream` and `mail` servers.
//!
//! Defaults from <https://nginx.org/en/docs/http/ngx_http_core_module.html#listen>: port 80 without a port; `*:80` for a server
//! without `listen` if nginx has superuser privileges, otherwise `*:8000`; `ipv6only=on`; `backlog=511` on Linux. If a wildcard
//! address and other addresses of a family have the same port, nginx binds the wildcard only, unless a parameter asks for a
//! separate bind. nginx sets SO_REUSEADDR on every socket.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use super::{File, Import, Include, any, listener};
use crate::model::{Family, Protocol, V6Only};
use crate::profile::ports;

/// A directive: its words, its block, and where it stands.
#[derive(Debug)]
struct Directive {
    words: Vec<String>,
    block: Option<Vec<Directive>>,
    file: File,
    line: usize,
}

/// How deep blocks and includes may be.
const DEEPEST: usize = 32;

pub(super) fn read(file: &File, include: &mut Include<'_>, import: &mut Import) {
    let Some(mut tree) = parse(file, import) else { return };
    resolve(&mut tree, file, include, import, 0);
    let mut sockets = Sockets::default();
    // A file of `sites-enabled` has servers without `http` around them.
    for directive in &tree {
        match directive.words.first().map(String::as_str) {
            Some("server") => server(directive, "http", &mut sockets, import),
            Some(context @ ("http" | "stream" | "mail")) => {
                for inner in directive.block.iter().flatten() {
                    if inner.words.first().is_some_and(|word| word == "server") {
                        server(inner, context, &mut sockets, import);
                    }
                }
            }
            _ => {}
        }
    }
    sockets.finish(import);
}

/// One `address:port` of nginx.
#[derive(Debug, Clone)]
struct Listen {
    backlog: u32,
    v6only: bool,
    reuse_port: bool,
    separate: bool,
    line: usize,
}

/// The sockets of all servers: several servers may share one.
#[derive(Default)]
struct Sockets(BTreeMap<(u16, bool, IpAddr), Listen>);

impl Sockets {
    fn add(&mut self, address: IpAddr, port: u16, udp: bool, one: Listen) {
        match self.0.get_mut(&(port, udp, address)) {
            // The parameters of a socket may stand in any of its directives.
            Some(known) => {
                known.separate |= one.separate;
                known.reuse_port |= one.reuse_port;
                known.v6only &= one.v6only;
                if one.backlog != BACKLOG {
                    known.backlog = one.backlog;
                }
            }
            None => {
                self.0.insert((port, udp, address), one);
            }
        }
    }

    fn finish(self, import: &mut Import) {
        let wildcard = |port: u16, udp: bool, address: IpAddr| {
            self.0.contains_key(&(port, udp, any(Family::of(address))))
        };
        for ((port, udp, address), one) in &self.0 {
            if !address.is_unspecified() && !one.separate && wildcard(*port, *udp, *address) {
                continue;
            }
            let protocol = if *udp { Protocol::Udp } else { Protocol::Tcp };
            let shown = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
            let mut listener = listener(&format!("nginx {shown}:{port}"), *address, *port, protocol);
            if !udp {
                listener.backlog = one.backlog;
            }
            listener.v6only = if one.v6only { V6Only::On } else { V6Only::Off };
            listener.reuse_address = true;
            listener.reuse_port = one.reuse_port.then_some(1);
            listener.line = one.line;
            import.listeners.push(listener);
        }
    }
}

const BACKLOG: u32 = 511;

fn server(directive: &Directive, context: &str, sockets: &mut Sockets, import: &mut Import) {
    let block = directive.block.as_deref().unwrap_or_default();
    let mut any_listen = false;
    for one in block.iter().filter(|one| one.words.first().is_some_and(|word| word == "listen")) {
        any_listen = true;
        listen(one, context, sockets, import);
    }
    if !any_listen && context == "http" {
        let one = Listen {
            backlog: BACKLOG,
            v6only: true,
            reuse_port: false,
            separate: false,
            line: directive.line,
        };
        sockets.add(any(Family::Ipv4), 80, false, one);
        let message =
            "the server has no `listen`: nginx uses *:80 as root, as assumed here, and *:8000 otherwise";
        import.skip(&directive.file, directive.line, message);
    }
}

fn listen(directive: &Directive, context: &str, sockets: &mut Sockets, import: &mut Import) {
    let (file, line) = (&directive.file, directive.line);
    let Some(target) = directive.words.get(1) else {
        import.wrong(file, line, "`listen` has no address", "write listen 80; or listen [::]:80;");
        return;
    };
    if target.starts_with("unix:") {
        import.skip(file, line, "a UNIX-domain socket is not reachable over the network");
        return;
    }
    if target.contains('$') {
        import.skip(file, line, format!("the variable in `{target}` is not known"));
        return;
    }
    let Some((address, range)) = address_and_port(target, context) else {
        let host = target.rsplit_once(':').map_or(target.as_str(), |(host, _)| host);
        if host.chars().any(char::is_alphabetic) && !host.starts_with('[') {
            import.skip(file, line, format!("`{host}` is a name, which nginx resolves when it starts"));
        } else {
            import.wrong(
                file,
                line,
                format!("`{target}` is not an address with a port"),
                "write ADDRESS:PORT or [ADDRESS]:PORT",
            );
        }
        return;
    };
    let mut udp = false;
    let mut one = Listen { backlog: BACKLOG, v6only: true, reuse_port: false, separate: false, line };
    for word in directive.words.iter().skip(2) {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        // Parameters that make nginx bind the address separately.
        one.separate |= matches!(
            key,
            "bind"
                | "setfib"
                | "fastopen"
                | "backlog"
                | "rcvbuf"
                | "sndbuf"
                | "accept_filter"
                | "deferred"
                | "ipv6only"
                | "reuseport"
                | "so_keepalive"
        );
        match key {
            "udp" | "quic" => udp = true,
            "reuseport" => one.reuse_port = true,
            "ipv6only" => one.v6only = value != "off",
            "backlog" => one.backlog = value.parse().unwrap_or(BACKLOG),
            _ => {}
        }
    }
    if range.clone().count() > 1024 {
        import.skip(file, line, format!("`{target}` names more than 1024 ports"));
        return;
    }
    for port in range {
        sockets.add(address, port, udp, one.clone());
    }
}

/// The address and the ports of a `listen`; `None` for a name.
fn address_and_port(target: &str, context: &str) -> Option<(IpAddr, std::ops::RangeInclusive<u16>)> {
    // Only HTTP has a default port.
    let default = || (context == "http").then_some(80..=80);
    let port = |text: &str| ports::parse(text).ok();
    if let Some(inside) = target.strip_prefix('[') {
        let (inside, tail) = inside.split_once(']')?;
        let address: Ipv6Addr = inside.parse().ok()?;
        let ports = if tail.is_empty() { default()? } else { port(tail.strip_prefix(':')?)? };
        return Some((address.into(), ports));
    }
    if let Some(ports) = port(target) {
        return Some((any(Family::Ipv4), ports));
    }
    let (host, ports) = match target.rsplit_once(':') {
        Some((host, text)) => (host, port(text)?),
        None => (target, default()?),
    };
    let address = if host == "*" { any(Family::Ipv4) } else { IpAddr::V4(host.parse().ok()?) };
    Some((address, ports))
}

/// Replaces each `include` by the directives of its files.
fn resolve(
    tree: &mut Vec<Directive>,
    file: &File,
    include: &mut Include<'_>,
    import: &mut Import,
    depth: usize,
) {
    let mut all = Vec::new();
    for mut directive in std::mem::take(tree) {
        let name = directive.words.first().map(String::as_str);
        if name == Some("include") && depth < DEEPEST {
            let pattern = directive.words.get(1).cloned().unwrap_or_default();
            match include(&pattern, &directive.file) {
                Ok(files) => {
                    for found in files {
                        let Some(mut inner) = parse(&found, import) else { continue };
                        resolve(&mut inner, &found, include, import, depth + 1);
                        all.extend(inner);
                    }
                }
                Err(problem) => import.skip(
                    &directive.file,
                    directive.line,
                    format!("`include` is left out: {}", problem.message),
                ),
            }
            continue;
        }
        if name == Some("include") {
            import.skip(file, directive.line, "includes are nested too deeply");
            continue;
        }
        if let Some(block) = &mut directive.block {
            resolve(block, file, include, import, depth + 1);
        }
        all.push(directive);
    }
    *tree = all;
}

/// The directives of a text. `None`, with the problem, for a text that is not closed.
fn parse(file: &File, import: &mut Import) -> Option<Vec<Directive>> {
    let mut open: Vec<(Vec<String>, usize, Vec<Directive>)> = Vec::new();
    let mut here: Vec<Directive> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut begun = 1;
    for (token, line) in tokens(&file.text) {
        match token {
            Token::Word(word) => {
                if words.is_empty() {
                    begun = line;
                }
                words.push(word);
            }
            Token::End => {
                here.push(Directive {
                    words: std::mem::take(&mut words),
                    block: None,
                    file: file.clone(),
                    line: begun,
                });
            }
            Token::Open if open.len() < DEEPEST => {
                open.push((std::mem::take(&mut words), begun, std::mem::take(&mut here)));
            }
            Token::Open => {
                import.wrong(file, line, "blocks are nested too deeply", "look for a `}` that is missing");
                return None;
            }
            Token::Close => {
                let Some((words, line, outer)) = open.pop() else {
                    import.wrong(file, line, "unexpected `}`", "look for a `{` that is missing");
                    return None;
                };
                let block = std::mem::replace(&mut here, outer);
                here.push(Directive { words, block: Some(block), file: file.clone(), line });
            }
        }
    }
    if let Some((_, line, _)) = open.last() {
        import.wrong(file, *line, "the block is not closed", "look for a `}` that is missing");
        return None;
    }
    if !words.is_empty() {
        import.wrong(file, begun, "the directive is not terminated by `;`", "end it with `;`");
        return None;
    }
    Some(here)
}

enum Token {
    Word(String),
    End,
    Open,
    Close,
}

/// The tokens of a text with their lines: words (with quotes and backslashes), `;`, `{`, `}`. A `${name}` is part of a word.
fn tokens(text: &str) -> Vec<(Token, usize)> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' => line += 1,
            c if c.is_whitespace() => {}
            '#' => while chars.next_if(|next| *next != '\n').is_some() {},
            ';' => tokens.push((Token::End, line)),
            '{' => tokens.push((Token::Open, line)),
            '}' => tokens.push((Token::Close, line)),
            '"' | '\'' => {
                let begun = line;
                let mut word = String::new();
                while let Some(next) = chars.next() {
                    match next {
                        '\\' => word.extend(chars.next()),
                        next if next == c => break,
                        next => {
                            line += usize::from(next == '\n');
                            word.push(next);
                        }
                    }
                }
                tokens.push((Token::Word(word), begun));
            }
            c => {
                let mut word = String::from(c);
                loop {
                    if word.ends_with('$') && chars.peek() == Some(&'{') {
                        for next in chars.by_ref() {
                            word.push(next);
                            if next == '}' {
                                break;
                            }
                        }
                        continue;
                    }
                    match chars.next_if(|next| !next.is_whitespace() && !matches!(next, ';' | '{' | '}')) {
                        Some('\\') => word.extend(chars.next()),
                        Some(next) => word.push(next),
                        None => break,
                    }
                }
                tokens.push((Token::Word(word), line));
            }
        }
    }
    tokens
}
