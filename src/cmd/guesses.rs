//! Suggestions for common wrong guesses on the command line.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::escape::escape;

/// Commands that users try, with the correct command.
const COMMANDS: &[(&[&str], &str)] = &[
    (&["serve", "server", "start", "run", "bind", "open", "up", "accept", "host"], "listen 0.0.0.0:8080"),
    (&["monitor", "watch", "tail", "follow"], "audit --watch"),
    (&["scan", "portscan", "nmap", "ports", "sweep"], "probe --ports 1-65535"),
    (&["test", "verify", "try", "simulate", "run-lab"], "lab run"),
    (
        &[
            "ss",
            "netstat",
            "lsof",
            "ls",
            "list",
            "show",
            "status",
            "who",
            "sockets",
            "listeners",
            "listening",
        ],
        "audit",
    ),
    (
        &["connect", "port", "ask", "curl", "debug", "diagnose", "reach", "check-port", "ping"],
        "why localhost:8080",
    ),
    (&["ip", "ifconfig", "interface", "addr", "address", "addresses", "ifs", "nics", "if"], "interfaces"),
    (&["profiles", "profile", "topics", "codes", "docs", "man-page", "doc"], "explain --list"),
    (&["predict", "dry-run", "simulate-bind", "what-if"], "plan"),
    (&["new", "create", "generate", "scaffold"], "init"),
    (&["lint", "validate"], "check bindscope.toml"),
    (&["compare", "delta"], "diff A B"),
    (&["learn", "demo", "intro", "guide", "example", "examples"], "tutorial"),
    (&["twin", "rehearse", "copy"], "lab run --twin"),
    (&["version"], "--version"),
    (&["completion"], "completions bash"),
    (&["firewall", "nft", "iptables", "ufw"], "explain filters"),
];

/// Options that users try with commands that take targets.
const ADDRESS_OPTIONS: &[&str] = &[
    "--host",
    "--address",
    "--addr",
    "--ip",
    "--listen",
    "-a",
    "-H",
    "--bind-address",
    "--interface",
    "--iface",
    "-i",
    "-I",
    "--dev",
];
const PORT_OPTIONS: &[&str] = &["--port", "-p", "-P"];

/// A line with the correct spelling; `None` if clap's own message is sufficient.
pub(super) fn tip(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let words: Vec<&str> = arguments.iter().skip(1).filter_map(|word| word.to_str()).collect();
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => for_command(text(ContextKind::InvalidSubcommand)?, &words),
        ErrorKind::UnknownArgument => for_argument(text(ContextKind::InvalidArg)?, &words),
        _ => None,
    }
}

fn for_command(wrong: &str, words: &[&str]) -> Option<String> {
    if wrong.parse::<u16>().is_ok() || wrong.contains(':') {
        return Some(format!(
            "to listen there, write: bindscope listen {0}; to see who could reach it: bindscope plan {0}",
            escape(wrong)
        ));
    }
    let lower = wrong.to_ascii_lowercase();
    if lower.len() == 6 && lower.starts_with("bs") {
        return Some(format!("write: bindscope explain {}", escape(&lower.to_ascii_uppercase())));
    }
    let right =
        COMMANDS.iter().find(|(guesses, _)| guesses.contains(&lower.as_str())).map(|(_, right)| *right)?;
    let rest = words.iter().skip_while(|word| **word != wrong).nth(1).filter(|word| !word.starts_with('-'));
    match (right.split_once(' '), rest) {
        (Some((command @ ("listen" | "why"), _)), Some(target)) => {
            Some(format!("write: bindscope {command} {}", escape(target)))
        }
        _ => Some(format!("write: bindscope {right}")),
    }
}

fn for_argument(wrong: &str, words: &[&str]) -> Option<String> {
    let command = words.iter().find(|word| !word.starts_with('-')).copied().unwrap_or_default();
    let name = wrong.split('=').next().unwrap_or(wrong);
    let value = |options: &[&str]| {
        words.iter().enumerate().find_map(|(index, word)| {
            let (option, inline) =
                word.split_once('=').map_or((*word, None), |(option, value)| (option, Some(value)));
            if options.contains(&option) {
                return inline
                    .or_else(|| words.get(index + 1).copied().filter(|next| !next.starts_with('-')));
            }
            let short = options.iter().find(|option| option.len() == 2)?;
            let glued = word.strip_prefix(short)?;
            (!word.starts_with("--") && glued.parse::<u16>().is_ok()).then_some(glued)
        })
    };
    if matches!(command, "listen" | "plan" | "probe")
        && (ADDRESS_OPTIONS.contains(&name) || PORT_OPTIONS.contains(&name))
    {
        let address = value(ADDRESS_OPTIONS).unwrap_or("0.0.0.0");
        let address = if address.contains(':') && !address.starts_with('[') {
            format!("[{address}]")
        } else {
            address.to_owned()
        };
        let port = value(PORT_OPTIONS).unwrap_or("8080");
        return Some(format!(
            "write address and port together, without an option: bindscope {command} {}:{}",
            escape(&address),
            escape(port)
        ));
    }
    match (command, name) {
        ("listen" | "plan" | "probe", "--udp" | "-u") => {
            Some(format!("name the protocol before the address: bindscope {command} udp:0.0.0.0:5353"))
        }
        ("listen" | "plan" | "probe", "--tcp") => {
            Some(format!("TCP is the default: bindscope {command} 0.0.0.0:8080"))
        }
        ("listen" | "plan" | "probe", "-4" | "--ipv4") => {
            Some(format!("write an IPv4 address: bindscope {command} 0.0.0.0:8080"))
        }
        ("listen" | "plan" | "probe", "-6" | "--ipv6") => {
            Some(format!("write an IPv6 address: bindscope {command} '[::]:8080'"))
        }
        ("listen", "--timeout" | "--duration" | "--time" | "-t") => {
            Some("write: bindscope listen --for 30s".to_owned())
        }
        ("listen" | "plan" | "probe", "--profile" | "--config" | "-c" | "--file") => {
            Some(format!("write the file without an option: bindscope {command} FILE"))
        }
        (_, "-j") => Some(format!("write: bindscope {command} --json").replace("  ", " ")),
        ("audit", "--tcp") => Some("write: bindscope audit --protocol tcp".to_owned()),
        ("audit", "--udp" | "-u") => Some("write: bindscope audit --protocol udp".to_owned()),
        ("audit", "--listening" | "-l" | "-n" | "-tlnp" | "-tulpn" | "-ltn" | "-lntp") => {
            Some("audit lists listening sockets, with numbers and processes: bindscope audit".to_owned())
        }
        ("audit", "--pid" | "-p" | "--program" | "--name") => {
            Some("write: bindscope audit --process NAME".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_answered_with_a_command_that_works() {
        let tip_of = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let wrong = words[0];
            for_command(wrong, &words)
        };
        assert_eq!(tip_of("serve 0.0.0.0:80").unwrap(), "write: bindscope listen 0.0.0.0:80");
        assert_eq!(tip_of("serve").unwrap(), "write: bindscope listen 0.0.0.0:8080");
        assert_eq!(tip_of("scan").unwrap(), "write: bindscope probe --ports 1-65535");
        assert_eq!(tip_of("bs2001").unwrap(), "write: bindscope explain BS2001");
        assert!(tip_of("0.0.0.0:8080").unwrap().contains("bindscope listen 0.0.0.0:8080"));
        assert_eq!(tip_of("nonsense"), None);
    }

    #[test]
    fn address_and_port_options_become_a_target() {
        let tip_of =
            |wrong: &str, line: &str| for_argument(wrong, &line.split(' ').collect::<Vec<_>>()).unwrap();
        for (wrong, line, target) in [
            ("--port", "listen --port 9000", "0.0.0.0:9000"),
            ("-p", "listen -p 9000", "0.0.0.0:9000"),
            ("-p", "plan -p9000", "0.0.0.0:9000"),
            ("--host", "listen --host ::1 --port=9000", "[::1]:9000"),
            ("--interface", "listen --interface eth0", "eth0:8080"),
            ("-i", "probe -i eth0 -p 22", "eth0:22"),
        ] {
            assert!(tip_of(wrong, line).ends_with(target), "{line}: {}", tip_of(wrong, line));
        }
    }
}
