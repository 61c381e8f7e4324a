//! The correct command line for common wrong guesses.

mod commands;
mod options;

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// A line with the correct spelling; `None` if clap's own message is sufficient.
pub(super) fn tip(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let words: Vec<&str> = arguments.iter().skip(1).filter_map(|word| word.to_str()).collect();
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (command, rest) = command_of(&words);
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            commands::correct(text(ContextKind::InvalidSubcommand)?, command, &words)
        }
        ErrorKind::UnknownArgument => options::correct(text(ContextKind::InvalidArg)?, command, rest),
        ErrorKind::MissingRequiredArgument => missing(command),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            value(command, text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?)
        }
        _ => None,
    }
}

/// Names of all commands.
fn names() -> Vec<String> {
    let program = <super::Cli as clap::CommandFactory>::command();
    program.get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

/// The command of a line and the words after it; an empty text without a command.
fn command_of<'a>(words: &'a [&'a str]) -> (&'a str, &'a [&'a str]) {
    let names = names();
    let found = words.iter().position(|word| names.iter().any(|name| name == word));
    found.map_or(("", words), |at| (words[at], &words[at + 1..]))
}

/// An example for a command that lacks an argument.
fn missing(command: &str) -> Option<String> {
    let example = match command {
        "why" => "bindscope why localhost:3000",
        "check" => "bindscope check FILE; to write a first profile: bindscope init",
        "diff" => "bindscope diff A.json B.json; bindscope plan --json -o A.json writes such a file",
        "schema" => "bindscope schema profile (or policy, or lab)",
        "completions" => "bindscope completions bash (or zsh, fish, elvish, powershell)",
        _ => return None,
    };
    Some(format!("write: {example}"))
}

/// The correct value of an option.
fn value(command: &str, option: &str, value: &str) -> Option<String> {
    let lower = value.to_ascii_lowercase();
    match (command, option.split(' ').next().unwrap_or(option)) {
        ("tutorial", "--lang") if lower.starts_with("sp") || lower.starts_with("es") => {
            Some("write: bindscope tutorial --lang es".to_owned())
        }
        ("tutorial", "--lang") if lower.starts_with("en") => {
            Some("write: bindscope tutorial --lang en".to_owned())
        }
        ("probe", "--ports") if matches!(lower.as_str(), "all" | "-" | "*" | "any") => {
            Some("write: bindscope probe --ports 1-65535".to_owned())
        }
        ("completions", _) if lower == "sh" => Some("write: bindscope completions bash".to_owned()),
        (_, "--for" | "--connect-timeout" | "--deadline")
            if lower.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            let option = option.split(' ').next().unwrap_or(option);
            Some(format!("write a unit: {option} {lower}s"))
        }
        _ => None,
    }
}
