//! `[[vary]]` and `--vary`: the factors of an experiment. Each has a key and values; an experiment runs every combination.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::bind::glob;
use super::keys::{self, Keys, Kind, required};
use super::listener::{self, LISTENER};
use super::value::{Problems, nearest, one_or_many, tables, text};
use super::{Listener, Profile, syntax, within_limits};
use crate::code::Code;
use crate::diag::{Diagnostic, Place};
use crate::model::topology::setting_path;

/// A factor of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Factor {
    /// Its key, as written.
    pub key: String,
    /// What it changes.
    pub target: Target,
    /// Its values, at least one.
    pub values: Vec<FactorValue>,
    /// Position of the key.
    pub place: Option<Place>,
}

/// What a factor changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A key of the listeners whose names match a pattern.
    Listener {
        /// The pattern.
        pattern: String,
        /// The key.
        key: &'static str,
    },
    /// A setting of the host's kernel, by its dotted name.
    Setting(String),
    /// The order of the binds.
    Order,
    /// The network of a lab: a built-in name or a file.
    Topology,
    /// The profile: a built-in name or a file.
    Profile,
}

/// A value of a factor.
#[derive(Debug, Clone, PartialEq)]
pub struct FactorValue {
    /// The value as shown.
    pub text: String,
    /// The value in TOML; `None` where a listener's key is left out.
    expression: Option<String>,
    /// Position.
    pub place: Option<Place>,
}

/// Keys of `[[vary]]`.
pub(super) static VARY: Keys = Keys {
    what: "[[vary]]",
    keys: &[
        required(
            "key",
            Kind::Text,
            "what changes: a key of a listener (\"web.v6only\", \"*.device\"), a setting (\"net.ipv6.bindv6only\"), \"order\", \"topology\" or \"profile\"",
        ),
        required("values", Kind::List, "the values, each combined with the values of every other [[vary]]"),
    ],
};

/// Factors that are not keys of listeners or settings.
const WORDS: [(&str, Target); 3] =
    [("order", Target::Order), ("topology", Target::Topology), ("profile", Target::Profile)];

/// Keys of a listener that `none` leaves out.
const WITHOUT: [&str; 3] = ["device", "reuse_port", "exposure_reason"];

/// A value before its key is known to accept it.
struct Written {
    text: String,
    /// The value in TOML, where it was written as TOML.
    expression: Option<String>,
    span: Range<usize>,
}

/// Reads every `[[vary]]` of a text. Adds a problem for each key and value that cannot be used with these listeners.
pub(super) fn read(
    table: &DeTable<'_>,
    source: &str,
    listeners: &[Listener],
    problems: &mut Problems,
) -> Vec<Factor> {
    let entries = tables(table, "vary");
    let other_profiles = entries.iter().any(|(entry, _)| text(entry, "key") == Some("profile"));
    let mut factors: Vec<Factor> = Vec::new();
    for (entry, _) in entries {
        let (Some(key), Some(key_value), Some(values)) =
            (text(entry, "key"), entry.get("key"), entry.get("values"))
        else {
            continue;
        };
        let written: Vec<Written> = one_or_many(values)
            .into_iter()
            .filter(|_| values.get_ref().is_array())
            .map(|value| {
                let expression = source.get(value.span()).unwrap_or_default().to_owned();
                let text = match value.get_ref() {
                    DeValue::String(text) => text.to_string(),
                    DeValue::Array(list) => {
                        let words: Vec<&str> =
                            list.iter().filter_map(|word| word.get_ref().as_str()).collect();
                        if words.len() == list.len() { words.join(" ") } else { expression.clone() }
                    }
                    _ => expression.clone(),
                };
                Written { text, expression: Some(expression), span: value.span() }
            })
            .collect();
        let names = (!other_profiles).then_some(listeners);
        if let Some(factor) = factor(key, key_value.span(), written, names, problems) {
            if factors.iter().any(|other| other.key == factor.key) {
                problems
                    .add(Code::DUPLICATE_NAME, key_value.span(), format!("`{key}` is varied twice"))
                    .help("write one [[vary]] with all its values");
            }
            factors.push(factor);
        }
    }
    factors
}

/// Reads `KEY=VALUE,VALUE,...`. The key may name `listeners`; `None` accepts every listener name.
///
/// # Errors
/// Every problem, with its position in the text.
pub fn parse(text: &str, listeners: Option<&[Listener]>) -> Result<Factor, Vec<Diagnostic>> {
    let mut problems = Problems::new("--vary", text);
    let Some((key, values)) = text.split_once('=') else {
        problems
            .add(Code::BAD_FACTOR, 0..text.len(), "a factor needs a key and values")
            .help("write KEY=VALUE,VALUE, such as web.v6only=true,false or net.ipv6.bindv6only=0,1");
        return Err(problems.finish());
    };
    let begin = key.len() + 1;
    let written = split(values)
        .into_iter()
        .map(|span| {
            let item = &values[span.clone()];
            let quoted = item.len() > 1 && item.starts_with('"') && item.ends_with('"');
            Written {
                text: if quoted { item[1..item.len() - 1].to_owned() } else { item.to_owned() },
                expression: (quoted || item.starts_with(['[', '{'])).then(|| item.to_owned()),
                span: begin + span.start..begin + span.end,
            }
        })
        .collect();
    let factor = factor(key.trim(), 0..key.len(), written, listeners, &mut problems);
    match (factor, problems.finish()) {
        (Some(factor), problems) if problems.is_empty() => Ok(factor),
        (_, problems) => Err(problems),
    }
}

/// The values between commas that are outside of quotes and brackets, without blanks around them.
fn split(values: &str) -> Vec<Range<usize>> {
    let mut depth = 0_usize;
    let mut quoted = false;
    let mut ends = Vec::new();
    for (at, byte) in values.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => ends.push(at),
            _ => {}
        }
    }
    ends.push(values.len());
    let mut start = 0;
    ends.into_iter()
        .map(|end| {
            let item = &values[start..end];
            let from = start + (item.len() - item.trim_start().len());
            start = end + 1;
            from..from + item.trim().len()
        })
        .collect()
}

/// A factor whose key and values are checked; `None` after a problem with the key.
fn factor(
    key: &str,
    span: Range<usize>,
    written: Vec<Written>,
    listeners: Option<&[Listener]>,
    problems: &mut Problems,
) -> Option<Factor> {
    let (target, kind) = target(key, &span, listeners, problems)?;
    let mut values: Vec<FactorValue> = Vec::new();
    for one in written {
        if one.text.is_empty() {
            problems
                .add(Code::NOTHING_ASKED, one.span, format!("a value of `{key}` is empty"))
                .help("name each value between commas");
            continue;
        }
        if values.iter().any(|other| other.text == one.text) {
            let message = format!("`{}` is a value of `{key}` already", one.text);
            problems.add(Code::DUPLICATE_NAME, one.span, message);
            continue;
        }
        let expression = match (&target, kind) {
            (Target::Listener { key, .. }, Some(kind)) => {
                if one.text == "none" && WITHOUT.contains(key) {
                    None
                } else {
                    let expression = one.expression.clone().unwrap_or_else(|| expression(kind, &one.text));
                    check_alone(key, kind, &expression, &one.span, problems);
                    Some(expression)
                }
            }
            (Target::Order, _) => {
                check_order(&one, listeners, problems);
                None
            }
            (Target::Setting(name), _) => {
                if one.text.parse::<i64>().is_err() {
                    let message = format!("`{name}` is {}, but must be an integer", one.text);
                    problems.add(Code::WRONG_TYPE, one.span.clone(), message);
                }
                None
            }
            _ => None,
        };
        let place = Some(problems.place(&one.span));
        values.push(FactorValue { text: one.text, expression, place });
    }
    Some(Factor { key: key.to_owned(), target, values, place: Some(problems.place(&span)) })
}

/// What a key means, and the kind of its values where it is a key of listeners.
fn target(
    key: &str,
    span: &Range<usize>,
    listeners: Option<&[Listener]>,
    problems: &mut Problems,
) -> Option<(Target, Option<Kind>)> {
    if let Some((_, target)) = WORDS.iter().find(|(word, _)| *word == key) {
        return Some((target.clone(), None));
    }
    let known = |name: &str| LISTENER.keys.iter().find(|key| key.name == name && key.name != "name");
    let names = |pattern: &str| {
        listeners.is_none_or(|list| list.iter().any(|one| glob(pattern.as_bytes(), one.name.as_bytes())))
    };
    let parts = key.rsplit_once('.');
    if let Some((pattern, last)) = parts
        && let Some(known) = known(last)
        && names(pattern)
    {
        let target = Target::Listener { pattern: pattern.to_owned(), key: known.name };
        return Some((target, Some(known.kind)));
    }
    if key.starts_with("net.") {
        if setting_path(key).is_some() {
            return Some((Target::Setting(key.to_owned()), None));
        }
        problems
            .add(Code::BAD_SETTING, span.clone(), format!("`{key}` is not a setting that can be varied"))
            .help(match nearest_setting(key) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    "write the dotted name of a setting of a network namespace, such as net.ipv6.bindv6only"
                        .to_owned()
                }
            });
        return None;
    }
    let first = listeners.and_then(|list| list.first()).map_or("web", |one| &one.name);
    let (message, help) = match parts {
        Some((_, "name")) => (
            "`name` cannot be varied".to_owned(),
            "a name identifies a listener in the results; vary another key".to_owned(),
        ),
        Some((pattern, last)) if known(last).is_some() => {
            let all: Vec<&str> = listeners.unwrap_or_default().iter().map(|one| one.name.as_str()).collect();
            let help = match nearest(pattern, all.iter().copied()) {
                Some(near) => format!("did you mean `{near}.{last}`?"),
                None if all.is_empty() => "the profile has no listener".to_owned(),
                None => format!("listeners are {}; `*.{last}` means all of them", all.join(", ")),
            };
            (format!("no listener is called \"{pattern}\""), help)
        }
        Some((pattern, last)) => {
            let near = nearest(last, LISTENER.keys.iter().map(|key| key.name).filter(|key| *key != "name"));
            let help = match near {
                Some(near) => format!("did you mean `{pattern}.{near}`?"),
                None => format!("keys of a listener are {}", key_names().join(", ")),
            };
            (format!("unknown key `{last}` of a listener"), help)
        }
        None if known(key).is_some() => (
            format!("`{key}` is a key of listeners, and no listener is named"),
            format!("write `{first}.{key}`, or `*.{key}` for all listeners"),
        ),
        None => {
            let words = WORDS.iter().map(|(word, _)| *word);
            let help = match nearest(key, words.chain(key_names())) {
                Some(near) if known(near).is_some() => {
                    format!("did you mean `{first}.{near}`, or `*.{near}` for all listeners?")
                }
                Some(near) => format!("did you mean `{near}`?"),
                None => format!(
                    "write LISTENER.KEY such as {first}.v6only, a setting such as net.ipv6.bindv6only, order, topology or profile"
                ),
            };
            (format!("`{key}` is not a factor of an experiment"), help)
        }
    };
    let code = if parts.is_some_and(|(_, last)| known(last).is_some()) {
        Code::UNKNOWN_REFERENCE
    } else {
        Code::UNKNOWN_KEY
    };
    problems.add(code, span.clone(), message).help(help);
    None
}

/// The setting with the most similar name.
fn nearest_setting(key: &str) -> Option<String> {
    let interface = key.split('.').nth(3).unwrap_or("all");
    let names: Vec<String> = crate::model::setting::CHANGEABLE
        .iter()
        .map(|path| path.replace('/', ".").replace('*', interface))
        .collect();
    nearest(key, names.iter().map(String::as_str)).map(str::to_owned)
}

fn key_names() -> Vec<&'static str> {
    LISTENER.keys.iter().map(|key| key.name).filter(|key| *key != "name").collect()
}

/// A value of the command line in TOML: kinds of text get quotes, others get them if they are not TOML as they are.
fn expression(kind: Kind, text: &str) -> String {
    let quoted = || toml::Value::String(text.to_owned()).to_string();
    match kind {
        Kind::Text | Kind::Choice(_) | Kind::Duration => quoted(),
        // As with `--bind`, a number is the size of the group.
        Kind::BoolOrTable(_) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{{ group = {text} }}")
        }
        _ => {
            let source = format!("v = {text}");
            let (document, errors) = DeTable::parse_recoverable(&source);
            let plain = document
                .get_ref()
                .get("v")
                .is_some_and(|value| value.get_ref().is_bool() || value.get_ref().is_integer());
            if errors.is_empty() && plain { text.to_owned() } else { quoted() }
        }
    }
}

/// Checks a value of a listener's key, without the other keys.
fn check_alone(
    key: &'static str,
    kind: Kind,
    expression: &str,
    span: &Range<usize>,
    problems: &mut Problems,
) {
    let source = format!("{key} = {expression}");
    let mut inner = Problems::new("", &source);
    let document = syntax(&source, &mut inner);
    if inner.is_empty()
        && let Some(value) = document.get_ref().get(key)
    {
        keys::check_value(key, value, kind, &mut inner);
    }
    if inner.is_empty() {
        listener::check_values(document.get_ref(), &mut inner);
    }
    for problem in inner.finish() {
        let mut added = problems.add(problem.code, span.clone(), problem.message);
        for help in problem.help {
            added = added.help(help);
        }
    }
}

/// Words of `order` that are not names.
const ORDERS: [&str; 2] = ["profile", "reverse"];

fn check_order(written: &Written, listeners: Option<&[Listener]>, problems: &mut Problems) {
    if ORDERS.contains(&written.text.as_str()) {
        return;
    }
    let Some(listeners) = listeners else { return };
    let names: Vec<&str> = listeners.iter().map(|one| one.name.as_str()).collect();
    for name in written.text.split_whitespace().filter(|name| !names.contains(name)) {
        let help = match nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => {
                format!("write profile, reverse, or names of listeners in bind order: {}", names.join(" "))
            }
        };
        let message = format!("no listener is called \"{name}\"");
        problems.add(Code::UNKNOWN_REFERENCE, written.span.clone(), message).help(help);
    }
}

/// Two factors that change the same key of the same listener.
#[must_use]
pub fn overlap(factors: &[Factor], listeners: &[Listener]) -> Option<Diagnostic> {
    for (index, one) in factors.iter().enumerate() {
        let Target::Listener { pattern, key } = &one.target else { continue };
        for other in &factors[..index] {
            let Target::Listener { pattern: before, key: same } = &other.target else { continue };
            let both = |listener: &&Listener| {
                let name = listener.name.as_bytes();
                glob(pattern.as_bytes(), name) && glob(before.as_bytes(), name)
            };
            if key == same
                && let Some(listener) = listeners.iter().find(both)
            {
                let message =
                    format!("`{}` and `{}` both change {}.{key}", other.key, one.key, listener.name);
                let mut problem = Diagnostic::error(Code::DUPLICATE_NAME, message);
                problem.place.clone_from(&one.place);
                return Some(problem.help("name each listener in one factor"));
            }
        }
    }
    None
}

/// Applies the listener keys and the order of a combination: for each factor the index of its value.
///
/// # Errors
/// Why the combination cannot be written as a profile, in one sentence.
pub fn apply(profile: &mut Profile, factors: &[Factor], choice: &[usize]) -> Result<(), String> {
    let chosen = || {
        factors.iter().zip(choice).filter_map(|(factor, &index)| Some((factor, factor.values.get(index)?)))
    };
    for listener in &mut profile.listeners {
        let mut source = String::new();
        for (factor, value) in chosen() {
            let Target::Listener { pattern, key } = &factor.target else { continue };
            if !glob(pattern.as_bytes(), listener.name.as_bytes()) {
                continue;
            }
            match &value.expression {
                Some(expression) => source += &format!("{key} = {expression}\n"),
                None => listener.leave_out(key),
            }
        }
        if source.is_empty() {
            continue;
        }
        let mut problems = Problems::new("", &source);
        let document = syntax(&source, &mut problems);
        let varied = listener::varied(listener, document.get_ref(), &mut problems);
        if let Some(problem) = problems.finish().first() {
            return Err(format!("{}: {}", listener.name, problem.message));
        }
        *listener = varied;
    }
    for (factor, value) in chosen() {
        match &factor.target {
            Target::Listener { pattern, .. } => {
                let named = |one: &Listener| glob(pattern.as_bytes(), one.name.as_bytes());
                if !profile.listeners.iter().any(named) {
                    return Err(format!("the profile {} has no listener \"{pattern}\"", profile.name));
                }
            }
            Target::Order => put_in_order(&mut profile.listeners, &value.text),
            Target::Setting(_) | Target::Topology | Target::Profile => {}
        }
    }
    within_limits(profile).map_err(|problem| problem.message)
}

/// Named listeners first, in the order of the names; then the others.
fn put_in_order(listeners: &mut [Listener], order: &str) {
    match order {
        "profile" => {}
        "reverse" => listeners.reverse(),
        names => {
            let rank = |one: &Listener| {
                names.split_whitespace().position(|name| name == one.name).unwrap_or(usize::MAX)
            };
            listeners.sort_by_key(rank);
        }
    }
}

#[cfg(test)]
mod tests;
