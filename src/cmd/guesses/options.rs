//! Options and words that a command does not have, and the line that does what they ask for.

use super::commands;
use crate::cmd::spelling::{Wanted, is_network_option};
use crate::escape::{escape, shell};

/// The correct line for a word that clap does not accept. `words` are those after the command.
pub(super) fn correct(wrong: &str, command: &str, words: &[&str]) -> Option<String> {
    let name = wrong.split('=').next().unwrap_or(wrong);
    if name.trim_start_matches('-').eq_ignore_ascii_case("version") && !name.is_empty() {
        return Some("write: bindscope --version".to_owned());
    }
    // clap names the first letter of several short options.
    let has = |word: &&str| {
        word.starts_with(name)
            || (!name.starts_with("--")
                && !word.starts_with("--")
                && word.starts_with('-')
                && word.contains(name.trim_start_matches('-')))
    };
    let typed =
        words.iter().copied().find(|word| word.starts_with(name)).or_else(|| words.iter().copied().find(has));
    let typed = typed.unwrap_or(wrong);
    if command.is_empty() {
        return without_command(name, typed, words);
    }
    let line = match (command, name) {
        ("listen" | "plan" | "probe" | "lab", _) => for_targets(command, name, typed, words)?,
        ("why", _) if !wrong.starts_with('-') || is_network_option(short(name, typed)) => why(words),
        ("audit", "--all" | "--namespaces" | "--containers") => "audit --all-namespaces".to_owned(),
        ("audit", "--sort" | "--interface" | "-i") => return None,
        ("audit", _) => commands::audit(words),
        ("connections", _) => {
            let wanted = Wanted::read(words);
            match wanted.ports() {
                [] => "connections".to_owned(),
                ports => format!("connections --port {}", ports.join(",")),
            }
        }
        ("interfaces", _) => general(command, name, typed, words).unwrap_or_else(|| "interfaces".to_owned()),
        ("tutorial", _) => {
            let asks = |word: &str| words.iter().any(|other| other.to_ascii_lowercase().contains(word));
            let spanish = asks("es") || asks("spa");
            if spanish { "tutorial --lang es" } else { "tutorial --lang en" }.to_owned()
        }
        ("init", "--policy" | "--profile" | "--lab") => {
            format!("init --kind {}", name.trim_start_matches('-'))
        }
        ("doctor", "--fix" | "--repair" | "--apply") => {
            return Some(
                "write: bindscope doctor; it prints the command that changes each setting".to_owned(),
            );
        }
        ("man", word) if !word.starts_with('-') => {
            format!("man {}", shell(words.first().copied().unwrap_or(word)))
        }
        _ => general(command, name, typed, words)?,
    };
    Some(format!("write: bindscope {line}"))
}

/// The whole word for a short option, of which clap names one letter.
fn short<'a>(name: &'a str, typed: &'a str) -> &'a str {
    let typed = typed.split('=').next().unwrap_or(typed);
    // `-p8080`
    if name.starts_with("--") { name } else { typed.trim_end_matches(|letter: char| letter.is_ascii_digit()) }
}

/// Options without a command.
fn without_command(name: &str, typed: &str, words: &[&str]) -> Option<String> {
    let bare = name.trim_start_matches('-');
    let line = match bare {
        _ if typed == "-version" => "--version".to_owned(),
        _ if typed == "-help" => "help".to_owned(),
        "json" | "format" | "f" | "j" => "audit --json".to_owned(),
        "bind" => format!("listen {}", Wanted::read(words).targets("0.0.0.0", "8080")),
        _ if is_network_option(short(name, typed)) => {
            format!("listen {}", Wanted::read(words).targets("0.0.0.0", "8080"))
        }
        _ if super::names().iter().any(|command| command == bare) => bare.to_owned(),
        _ => return commands::correct(bare, "", &[bare]).filter(|_| name.starts_with("--")),
    };
    Some(format!("write: bindscope {line}"))
}

/// Commands that take targets.
fn for_targets(command: &str, name: &str, typed: &str, words: &[&str]) -> Option<String> {
    let lab = command == "lab";
    let command = if lab { "lab run" } else { command };
    let words = match words {
        ["run" | "plan", rest @ ..] if lab => rest,
        words => words,
    };
    if lab && matches!(name, "--twin" | "--topology" | "--keep" | "--dry-run") {
        let rest: String = words.iter().map(|word| format!(" {}", shell(word))).collect();
        return Some(format!("lab run{rest}"));
    }
    let wanted = Wanted::read(words);
    let targets = || wanted.targets("0.0.0.0", "8080");
    let value = || value_of(name, words);
    let line = match name {
        "--timeout" | "--duration" | "--time" | "-t" | "-w" if value().is_some() && command == "listen" => {
            let value = value()?;
            let unit = if value.bytes().all(|byte| byte.is_ascii_digit()) { "s" } else { "" };
            format!("listen {} --for {}{unit}", targets(), escape(value))
        }
        "--timeout" | "-t" | "-w" if value().is_some() => {
            let value = value()?;
            let unit = if value.bytes().all(|byte| byte.is_ascii_digit()) { "s" } else { "" };
            format!("{command} {} --connect-timeout {}{unit}", targets(), escape(value))
        }
        "--once" | "-1" | "--one" => format!("{command} {} --count 1", targets()),
        "--dry-run" | "--check" | "--simulate" => format!("plan {}", targets()),
        "--background" | "--daemon" | "-d" | "--detach" => format!("{command} {} &", targets()),
        "--profile" | "--config" | "-c" | "--file" => {
            format!("{command} {}", shell(value().unwrap_or("FILE")))
        }
        "-p" | "--port" | "--ports" | "-P" if command == "probe" && wanted.address().is_none() => {
            format!("probe --ports {}", wanted.ports().join(","))
        }
        _ if is_network_option(short(name, typed)) => format!("{command} {}", targets()),
        _ => return general(command, name, typed, words),
    };
    Some(line)
}

/// `why` with the address and the port of the line.
fn why(words: &[&str]) -> String {
    format!("why {}", Wanted::read(words).targets("localhost", "3000").split(' ').next().unwrap_or_default())
}

/// Options that mean the same in every command.
fn general(command: &str, name: &str, _typed: &str, words: &[&str]) -> Option<String> {
    let value = value_of(name, words);
    Some(match name {
        "-j" => format!("{command} --json"),
        "--output-format" | "--type" | "-F" | "--fmt" => {
            format!("{command} --format {}", escape(value.unwrap_or("json")))
        }
        "--csv" | "--markdown" | "--junit" | "--sarif" | "--github" | "--ndjson" => {
            format!("{command} --format {}", name.trim_start_matches('-'))
        }
        "--no-color" | "--nocolor" | "--no-colour" | "--monochrome" => format!("{command} --color never"),
        "--colour" => format!("{command} --color {}", escape(value.unwrap_or("auto"))),
        "--debug" | "--trace" | "--details" | "-d" => format!("{command} -v"),
        "--silent" | "-s" => format!("{command} -q"),
        "--out" | "--save" | "--write" => format!("{command} -o {}", shell(value.unwrap_or("FILE"))),
        _ => return None,
    })
}

/// The value of an option.
fn value_of<'a>(name: &str, words: &[&'a str]) -> Option<&'a str> {
    words.iter().enumerate().find_map(|(index, word)| {
        if *word == name {
            return words.get(index + 1).copied().filter(|next| !next.starts_with('-'));
        }
        word.strip_prefix(name)?.strip_prefix('=')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_options_become_lines_that_work() {
        for (wrong, line, correct_line) in [
            ("--port", "listen --port 9000", "listen 0.0.0.0:9000"),
            ("-p", "listen -p 9000", "listen 0.0.0.0:9000"),
            ("-p", "plan -p9000", "plan 0.0.0.0:9000"),
            ("--host", "listen --host ::1 --port=9000", "listen '[::1]:9000'"),
            ("-i", "probe -i eth0 -p 22", "probe eth0:22"),
            ("-p", "probe -p 1-100", "probe --ports 1-100"),
            ("-l", "listen -lvp 8080", "listen 0.0.0.0:8080"),
            ("--timeout", "listen --timeout 5 8080", "listen 0.0.0.0:8080 --for 5s"),
            ("3000", "audit 3000", "audit --port 3000"),
            ("nginx", "audit nginx", "audit --process nginx"),
            ("-t", "audit -tulpn", "audit"),
            ("policy.toml", "audit policy.toml", "audit --policy policy.toml"),
            ("3000", "why localhost 3000", "why localhost:3000"),
            ("-p", "why -p 3000", "why localhost:3000"),
            ("--udp", "why 3000 --udp", "why udp:localhost:3000"),
            ("es", "tutorial es", "tutorial --lang es"),
            ("-l", "-l 8080", "listen 0.0.0.0:8080"),
            ("--audit", "--audit", "audit"),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let (command, rest) = crate::cmd::guesses::command_of(&words);
            let tip = correct(wrong, command, rest).unwrap_or_default();
            assert!(tip.contains(&format!("bindscope {correct_line}")), "{line}: {tip}");
        }
    }
}
