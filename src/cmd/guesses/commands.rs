//! Commands that do not exist, and the commands that do what they name.

use crate::cmd::spelling::{Wanted, corrected};
use crate::escape::{escape, shell};
use crate::profile::builtin;

/// What a wrong command becomes.
#[derive(Clone, Copy)]
enum To {
    /// `listen` with the targets of the line.
    Listen,
    /// `why` with the address of the line.
    Why,
    /// `probe` with the ports of the line.
    Scan,
    /// `audit` with the ports or the protocol of the line.
    Audit,
    /// `listen` if a switch says so, otherwise `why`.
    Netcat,
    /// `plan` with the targets of the line.
    Plan,
    /// `lab run` with the targets of the line.
    Lab,
    /// This command with the other words of the line.
    With(&'static str),
    /// This command line.
    Fixed(&'static str),
}

/// Commands that users try.
const GUESSES: &[(&[&str], To)] = &[
    (
        &["serve", "server", "start", "run", "bind", "open", "up", "accept", "host", "listener", "http"],
        To::Listen,
    ),
    (&["monitor", "watch", "tail", "follow", "top", "live"], To::Fixed("audit --watch")),
    (&["scan", "portscan", "nmap", "ports", "sweep", "masscan"], To::Scan),
    (&["test", "verify", "try", "simulate", "run-lab", "reach-from"], To::Lab),
    (
        &[
            "ss",
            "netstat",
            "lsof",
            "ls",
            "list",
            "show",
            "status",
            "sockets",
            "listeners",
            "listening",
            "info",
            "ps",
            "fuser",
            "open-ports",
            "exposed",
            "exposure",
        ],
        To::Audit,
    ),
    (
        &[
            "connect",
            "port",
            "ask",
            "curl",
            "wget",
            "debug",
            "diagnose",
            "reach",
            "check-port",
            "ping",
            "telnet",
            "who",
            "which",
            "whois",
            "what",
            "lookup",
            "resolve",
            "reachable",
            "traceroute",
            "tracert",
            "troubleshoot",
        ],
        To::Why,
    ),
    (&["nc", "ncat", "netcat", "socat"], To::Netcat),
    (
        &[
            "ip",
            "ifconfig",
            "interface",
            "addr",
            "address",
            "addresses",
            "ifs",
            "nics",
            "nic",
            "if",
            "ifaces",
            "iface",
            "links",
            "link",
            "ipconfig",
            "route",
            "routes",
        ],
        To::Fixed("interfaces"),
    ),
    (
        &["profiles", "profile", "topics", "topic", "codes", "docs", "man-page", "doc", "manual"],
        To::Fixed("explain --list"),
    ),
    (&["predict", "dry-run", "simulate-bind", "what-if", "whatif"], To::Plan),
    (&["new", "create", "generate", "scaffold", "setup"], To::Fixed("init")),
    (&["lint", "validate", "valid"], To::With("check")),
    (&["compare", "delta", "changes"], To::With("diff")),
    (&["learn", "demo", "intro", "guide", "example", "examples", "tour"], To::Fixed("tutorial")),
    (&["twin", "rehearse", "copy", "replica"], To::Fixed("lab run --twin")),
    (&["version", "-version"], To::Fixed("--version")),
    (&["usage", "commands", "?", "/?"], To::Fixed("help")),
    (&["completion", "complete", "autocomplete"], To::With("completions")),
    (&["conns", "established", "sessions", "clients", "peers"], To::Fixed("connections")),
    (&["capabilities", "permissions", "privileges", "environment", "env"], To::Fixed("doctor")),
    (&["firewall", "nft", "iptables", "ufw", "nftables"], To::Fixed("explain filters")),
];

/// The correct line for a command that does not exist. `parent` is the command before it, such as `lab`.
pub(super) fn correct(wrong: &str, parent: &str, words: &[&str]) -> Option<String> {
    let at = words.iter().position(|word| *word == wrong).map_or(words.len(), |at| at + 1);
    let rest = &words[at..];
    let lower = wrong.to_ascii_lowercase();
    if parent == "lab" {
        return in_lab(&lower, wrong, rest);
    }
    if parent == "help" || words.first() == Some(&"help") {
        let topic = crate::explain::find(wrong)
            .is_ok()
            .then(|| format!("write: bindscope explain {}", shell(&lower)));
        let command = nearest(&lower).map(|name| format!("write: bindscope help {name}"));
        return command.or(topic).or_else(|| Some("write: bindscope help".to_owned()));
    }
    if let Some(right) = guessed(&lower) {
        return Some(format!("write: bindscope {}", line(right, rest)));
    }
    if lower.len() == 6 && lower.starts_with("bs") {
        return Some(format!("write: bindscope explain {}", escape(&lower.to_ascii_uppercase())));
    }
    if builtin::get(wrong).is_some() || lower.ends_with(".toml") {
        let name = shell(wrong);
        return Some(format!("write: bindscope plan {name}, or bindscope listen {name}"));
    }
    let all = [&[wrong], rest].concat();
    let wanted = Wanted::read(&all);
    if corrected(wrong).is_some() || crate::cmd::spelling::address_alone(wrong).is_some() {
        let open = wanted.targets("*", "8080");
        let ask = wanted.targets("localhost", "8080");
        return Some(format!(
            "to see what answers there, write: bindscope why {ask}; to open it: bindscope listen {open}"
        ));
    }
    if let Some(name) = nearest(&lower) {
        let rest: String = rest.iter().map(|word| format!(" {}", shell(word))).collect();
        return Some(format!("write: bindscope {name}{rest}"));
    }
    if crate::explain::find(wrong).is_ok() {
        return Some(format!("write: bindscope explain {}", shell(&lower)));
    }
    Some(format!(
        "write: bindscope listen {0}, if {1} is an interface; bindscope audit --process {2}, if it is a program",
        shell(&format!("{wrong}:8080")),
        escape(wrong),
        shell(wrong)
    ))
}

/// The meaning of a guess.
fn guessed(lower: &str) -> Option<To> {
    GUESSES.iter().find(|(guesses, _)| guesses.contains(&lower)).map(|(_, right)| *right)
}

/// The command with the most similar name.
fn nearest(lower: &str) -> Option<String> {
    super::names()
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(lower, &name), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// The line for a guess with the other words.
fn line(right: To, rest: &[&str]) -> String {
    let wanted = Wanted::read(rest);
    let words = || rest.iter().map(|word| format!(" {}", shell(word))).collect::<String>();
    match right {
        To::Listen => format!("listen {}", wanted.targets("0.0.0.0", "8080")),
        To::Plan => format!("plan {}", wanted.targets("0.0.0.0", "8080")),
        To::Lab if rest.is_empty() => "lab run tutorial".to_owned(),
        To::Lab => format!("lab run {}", wanted.targets("0.0.0.0", "8080")),
        To::Why => format!("why {}", wanted.targets("localhost", "8080")),
        To::Netcat if wanted.listens => format!("listen {}", wanted.targets("0.0.0.0", "8080")),
        To::Netcat => format!("why {}", wanted.targets("localhost", "8080")),
        To::Scan => match wanted.ports() {
            [] => "probe --ports 1-65535".to_owned(),
            ports => format!("probe --ports {}", ports.join(",")),
        },
        To::Audit => audit(rest),
        To::With(command) => format!("{command}{}", if rest.is_empty() { example(command) } else { words() }),
        To::Fixed(command) => command.to_owned(),
    }
}

/// Arguments for a command that needs some.
fn example(command: &str) -> String {
    match command {
        "check" => " bindscope.toml",
        "diff" => " A.json B.json",
        "completions" => " bash",
        _ => "",
    }
    .to_owned()
}

/// `audit` for the words of `ss`, `netstat` and `lsof`.
pub(super) fn audit(words: &[&str]) -> String {
    let mut line = "audit".to_owned();
    let (mut tcp, mut udp) = (false, false);
    let mut ports: Vec<String> = Vec::new();
    let mut process = None;
    let mut rest = words.iter().copied().peekable();
    while let Some(word) = rest.next() {
        let lower = word.to_ascii_lowercase();
        match lower.as_str() {
            "tcp" | "--tcp" => tcp = true,
            "udp" | "--udp" => udp = true,
            "json" | "csv" | "ndjson" | "markdown" | "sarif" => line += &format!(" --format {lower}"),
            "-j" => line += " --json",
            "--strict" | "--fail" => line += " --fail-on warning",
            "-p" | "--ports" | "--port" | "--sport" => {
                if let Some(value) = rest.next_if(|next| !next.starts_with('-')) {
                    match value.parse::<u16>() {
                        Ok(_) => ports.push(value.to_owned()),
                        Err(_) => process = Some(value),
                    }
                }
            }
            "--pid" | "--program" | "--name" | "--command" | "-c" => {
                process = rest.next_if(|next| !next.starts_with('-')).or(Some("NAME"));
            }
            letters if letters.starts_with('-') && !letters.starts_with("--") => {
                tcp |= letters.contains('t');
                udp |= letters.contains('u');
            }
            other if other.starts_with("--") || other == "/" => {}
            other if other.ends_with(".toml") => line += &format!(" --policy {}", shell(word)),
            other => {
                let address = other.trim_start_matches("sport=").trim_start_matches('=');
                match corrected(address) {
                    Some(targets) => ports.extend(
                        targets.iter().filter_map(|target| target.rsplit(':').next()).map(str::to_owned),
                    ),
                    None if matches!(other, "sport" | "dport" | "src" | "grep" | "|" | "=") => {}
                    None => process = Some(word),
                }
            }
        }
    }
    if tcp != udp {
        line += if udp { " --protocol udp" } else { " --protocol tcp" };
    }
    if !ports.is_empty() {
        line += &format!(" --port {}", ports.join(","));
    }
    if let Some(process) = process {
        line += &format!(" --process {}", shell(process));
    }
    line
}

/// A word after `lab` that is not a command of it.
fn in_lab(lower: &str, wrong: &str, rest: &[&str]) -> Option<String> {
    let line = match lower {
        "start" | "up" | "test" | "go" | "try" | "build" | "create" | "new" | "exec" if rest.is_empty() => {
            "lab run tutorial".to_owned()
        }
        "topologies" | "topology" | "networks" | "ls" | "show" => "lab list".to_owned(),
        "sh" | "bash" | "enter" => "lab shell".to_owned(),
        "twin" => "lab run --twin".to_owned(),
        _ => {
            let all = [&[wrong], rest].concat();
            let targets = if builtin::get(wrong).is_some() || lower.ends_with(".toml") {
                all.iter().map(|word| shell(word)).collect::<Vec<_>>().join(" ")
            } else {
                Wanted::read(&all).targets("0.0.0.0", "8080")
            };
            let distance = |name: &&str| strsim::damerau_levenshtein(lower, name);
            match ["run", "shell", "plan", "list"].into_iter().min_by_key(distance) {
                Some(name) if distance(&name) == 1 => {
                    format!(
                        "lab {name}{}",
                        rest.iter().map(|word| format!(" {}", shell(word))).collect::<String>()
                    )
                }
                _ => format!("lab run {targets}"),
            }
        }
    };
    Some(format!("write: bindscope {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_answered_with_a_command_that_works() {
        for (line, correct) in [
            ("serve 0.0.0.0:80", "bindscope listen 0.0.0.0:80"),
            ("serve", "bindscope listen 0.0.0.0:8080"),
            ("serve --port 80", "bindscope listen 0.0.0.0:80"),
            ("bind 0.0.0.0 80", "bindscope listen 0.0.0.0:80"),
            ("scan", "bindscope probe --ports 1-65535"),
            ("nmap -p 80 localhost", "bindscope probe --ports 80"),
            ("nc -l 8080", "bindscope listen 0.0.0.0:8080"),
            ("nc localhost 3000", "bindscope why localhost:3000"),
            ("ss -tlnp", "bindscope audit --protocol tcp"),
            ("netstat -tulpn", "bindscope audit"),
            ("lsof -i :8080", "bindscope audit --port 8080"),
            ("curl http://localhost:3000/x", "bindscope why localhost:3000"),
            ("bs2001", "bindscope explain BS2001"),
            ("lisen 8080", "bindscope listen 8080"),
            ("wy 3000", "bindscope why 3000"),
            ("default", "bindscope listen default"),
            ("weak-host", "bindscope explain weak-host"),
            ("eth0", "bindscope listen eth0:8080"),
            ("8080", "bindscope listen '*:8080'"),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let tip = correct_of(&words);
            assert!(tip.contains(correct), "{line}: {tip}");
        }
    }

    fn correct_of(words: &[&str]) -> String {
        correct(words[0], "", words).unwrap_or_default()
    }
}
