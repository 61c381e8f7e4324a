//! Positional TARGETs of `listen`, `plan`, `probe` and `lab run`: a profile, or something to bind.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::spelling;
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::escape::escape;
use crate::profile::{self, builtin, flag};

/// One TARGET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The name of a built-in profile, a file, or `-`.
    Profile(OsString),
    /// A listener, in the syntax of `--bind`.
    Bind(String),
}

/// Separates profiles from listeners. `is_file` says whether a file with this name exists. A built-in profile takes
/// precedence over a file in the current directory, unless the name contains a slash or a dot.
///
/// Returns the recognized targets, and a problem for each target that is neither and for more than one profile.
pub fn classify(names: &[OsString], is_file: impl Fn(&Path) -> bool) -> (Vec<Target>, Vec<Diagnostic>) {
    let mut targets = Vec::new();
    let mut problems = Vec::new();
    let mut profiles: Vec<String> = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let next = names.get(index + 1).and_then(|next| next.to_str());
        match one(name, next, &is_file) {
            Ok(target) => {
                if let Target::Profile(name) = &target {
                    profiles.push(escape(&name.display().to_string()));
                }
                targets.push(target);
            }
            Err(problem) => problems.push(problem),
        }
    }
    if let [first, second, ..] = profiles.as_slice() {
        let message = format!("{first} and {second} are both profiles; a command accepts one");
        problems.push(Diagnostic::error(Code::UNKNOWN_PROFILE, message).help(
            "run the command once for each, or let one file extend the other: bindscope explain profiles",
        ));
    }
    (targets, problems)
}

fn one(name: &OsStr, next: Option<&str>, is_file: &impl Fn(&Path) -> bool) -> Result<Target, Diagnostic> {
    let profile = || Ok(Target::Profile(name.to_owned()));
    let Some(text) = name.to_str() else { return profile() };
    if text == "-" || builtin::get(text).is_some() {
        return profile();
    }
    let spelled = spelling::corrected(text).is_some();
    if (text.contains('/') && !spelled)
        || text.ends_with(".toml")
        || (spelled && text.contains('/') && is_file(Path::new(text)))
    {
        return profile();
    }
    if let Some(address) = spelling::address_alone(text) {
        let port = next.filter(|next| is_number(next)).unwrap_or("8080");
        let message = format!("{} is an address without a port", escape(text));
        return Err(Diagnostic::error(Code::AMBIGUOUS_BIND, message)
            .help(format!("write address and port together: {address}:{port}")));
    }
    if let Some(spelled) = other_spelling(text) {
        let message = format!("\"{}\" is not a valid target", escape(text));
        return Err(Diagnostic::error(Code::BAD_ADDRESS, message).help(format!("write {spelled}")));
    }
    let digits = text.split('-').all(is_number);
    if digits || text.contains(':') {
        return Ok(Target::Bind(text.to_owned()));
    }
    if text.split_once(',').is_some_and(|(head, _)| head.split('-').all(is_number)) {
        return Ok(Target::Bind(text.to_owned()));
    }
    if is_file(Path::new(text)) && crate::import::Kind::of_name(text).is_none() {
        return profile();
    }
    Err(unknown(text, next.filter(|next| is_number(next))))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The correct spelling of a target that is written as other programs write it; `None` for a correct one.
fn other_spelling(text: &str) -> Option<String> {
    let spelled = spelling::corrected(text)?;
    let same =
        matches!(spelled.as_slice(), [one] if one.eq_ignore_ascii_case(text.trim_start_matches("tcp:")));
    // A question with two answers stays one: `:8080` is IPv4, IPv6 or both.
    let question = text.trim_start_matches("udp:").starts_with(':') && !text.starts_with("::");
    if same || question || flag::parse("target", text).is_ok() && !all_addresses(text) {
        return None;
    }
    Some(spelled.join(" "))
}

/// Whether the address is a word for all addresses that is also a possible name of an interface.
fn all_addresses(text: &str) -> bool {
    let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
    matches!(host.trim_start_matches("udp:"), "any" | "all" | "everywhere" | "+")
}

/// A suggestion for a text that is neither a profile nor a listener.
fn unknown(text: &str, next: Option<&str>) -> Diagnostic {
    if text == "help" {
        let problem = Diagnostic::error(Code::UNKNOWN_PROFILE, "\"help\" is not a target");
        return problem.help("write the option: --help; or bindscope help COMMAND");
    }
    if crate::import::Kind::of_name(text).is_some() {
        let message = format!("{} is the configuration of another program, not a profile", escape(text));
        return Diagnostic::error(Code::UNKNOWN_PROFILE, message)
            .help(format!("write: bindscope plan --from {}", crate::escape::shell(text)));
    }
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    let port = if digits.is_empty() { next.unwrap_or("8080") } else { &digits };
    let message = format!("\"{}\" is neither a profile, a file nor an address with a port", escape(text));
    let mut problem = Diagnostic::error(Code::UNKNOWN_PROFILE, message);
    if let Some(near) = profile::nearest_name(text, builtin::names()) {
        problem = problem.help(format!("did you mean the built-in profile {near}?"));
    }
    problem = problem.help(if digits.is_empty() {
        format!("to listen on the addresses of an interface, write {}:{port}; on every IPv4 address, 0.0.0.0:{port}", escape(text))
    } else {
        format!("to listen on port {port} of this host only, write {port}; of every address, 0.0.0.0:{port} or [::]:{port}")
    });
    problem.help(format!("built-in profiles: {}", builtin::names().collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(names: &[&str]) -> Result<Vec<Target>, Vec<Diagnostic>> {
        let names: Vec<OsString> = names.iter().map(OsString::from).collect();
        let (targets, problems) =
            classify(&names, |path| path == Path::new("here") || path == Path::new("default"));
        if problems.is_empty() { Ok(targets) } else { Err(problems) }
    }

    #[test]
    fn profiles_and_listeners_differ_in_their_form() {
        for name in ["default", "./default", "a.toml", "dir/a", "-", "here", "dir/a:b.toml"] {
            assert_eq!(kinds(&[name]).unwrap(), [Target::Profile(name.into())], "{name}");
        }
        for name in [
            "8080",
            "8000-8009",
            "0.0.0.0:8080",
            "[::]:8080",
            "localhost:3000",
            "eth0:80",
            "udp:eth0:53",
            "*:80",
            ":80",
            "8080,reply=none",
            "0.0.0.0:80,reply=none",
            "tcp:0.0.0.0:80",
            "eth*:80",
        ] {
            assert_eq!(kinds(&[name]).unwrap(), [Target::Bind(name.into())], "{name}");
        }
        assert_eq!(kinds(&["default", "8080", "[::]:1"]).unwrap().len(), 3);
    }

    #[test]
    fn a_refusal_names_the_spelling_that_works() {
        let help = |names: &[&str]| {
            kinds(names)
                .unwrap_err()
                .iter()
                .map(|problem| problem.help.join("; "))
                .collect::<Vec<_>>()
                .join("; ")
        };
        for (names, wanted) in [
            (&["0.0.0.0", "9000"][..], "0.0.0.0:9000"),
            (&["::"], "[::]:8080"),
            (&["localhost"], "localhost:8080"),
            (&["http://localhost:3000/"], "localhost:3000"),
            (&["any:80"], "*:80"),
            (&["80,443"], "80 443"),
            (&["5353/udp"], "udp:5353"),
            (&["eth0"], "eth0:8080"),
            (&["8080x"], "0.0.0.0:8080"),
            (&["defualt"], "default"),
            (&["default", "loopback"], "once for each"),
        ] {
            assert!(help(names).contains(wanted), "{names:?}: {}", help(names));
        }
    }
}
