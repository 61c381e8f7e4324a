//! Every key of a file, with the kind of its value. The parser and the JSON Schema both use these tables.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::{Problems, Value, integer, kind_of, nearest, one_or_many};
use crate::code::Code;

/// A key of a table.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
    /// Description, for the schema and for `init`.
    pub(super) about: &'static str,
    /// The value that an absent key stands for, as JSON; `None` if it depends on other keys or on the host.
    pub(super) default: Option<&'static str>,
}

impl Key {
    /// The key with this default.
    pub(super) const fn default(self, json: &'static str) -> Key {
        Key { default: Some(json), ..self }
    }
}

/// An optional key.
pub(super) const fn optional(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, kind, required: false, about, default: None }
}

/// A mandatory key.
pub(super) const fn required(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, kind, required: true, about, default: None }
}

/// A table: its name in messages, and its keys.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) what: &'static str,
    pub(super) keys: &'static [Key],
}

/// Kind of a value. For kinds with their own grammar, only the TOML type is checked here.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Non-empty text.
    Text,
    /// Text, or a non-empty list of texts.
    Texts,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// One of these words, or a non-empty list of them.
    Choices(&'static [&'static str]),
    /// `true` or `false`.
    Bool,
    /// `true`, `false`, or one of these words.
    BoolOr(&'static [&'static str]),
    /// One of these words, or a table.
    WordOrTable(&'static [&'static str], &'static Keys),
    /// `true`, `false`, or a table.
    BoolOrTable(&'static Keys),
    /// A whole number within these limits.
    Integer(i64, i64),
    /// A number from 0 to 1.
    Share,
    /// `"10s"`.
    Duration,
    /// A TOML date.
    Date,
    /// Number, range, or list of them.
    Ports,
    /// Address, `loopback`, interface selector, or list of them.
    Bind(&'static Keys),
    /// A table.
    Table(&'static Keys),
    /// An array of tables.
    Tables(&'static Keys),
    /// A non-empty list of any values.
    List,
    /// A table with any keys and texts or numbers as values.
    Map,
}

impl Kind {
    /// Description of the expected kind, for a message.
    fn expected(self) -> &'static str {
        match self {
            Kind::Text | Kind::Choice(_) => "a string",
            Kind::Texts | Kind::Choices(_) => "a string or a list of strings",
            Kind::Bool => "true or false",
            Kind::BoolOr(_) => "true, false or a string",
            Kind::WordOrTable(..) => "a string or a table",
            Kind::BoolOrTable(_) => "true, false or a table",
            Kind::Integer(..) => "an integer",
            Kind::Share => "a number from 0 to 1",
            Kind::Duration => "a string with a unit, such as \"10s\"",
            Kind::Date => "a date, such as 2027-01-31",
            Kind::Ports => "a port, a range such as \"8000-8009\", or a list of them",
            Kind::Bind(_) => "an address, \"loopback\", { interface = ... }, or a list of them",
            Kind::Table(_) | Kind::Map => "a table",
            Kind::Tables(_) => "an array of tables",
            Kind::List => "a list",
        }
    }
}

/// Checks a table against its keys: unknown and missing keys, types, words, ranges, and nested tables.
pub(super) fn check(
    table: &DeTable<'_>,
    span: std::ops::Range<usize>,
    keys: &'static Keys,
    problems: &mut Problems,
) {
    for (name, value) in table {
        match keys.keys.iter().find(|key| key.name == name.get_ref().as_ref()) {
            Some(key) => check_value(key.name, value, key.kind, problems),
            None => unknown(name, keys, problems),
        }
    }
    for key in keys.keys.iter().filter(|key| key.required && !table.contains_key(key.name)) {
        problems
            .add(Code::MISSING_KEY, span.clone(), format!("{} has no `{}`", keys.what, key.name))
            .help(format!("`{}`: {}", key.name, key.about));
    }
}

fn unknown(name: &Spanned<std::borrow::Cow<'_, str>>, keys: &Keys, problems: &mut Problems) {
    let wrong = name.get_ref();
    let known = || keys.keys.iter().map(|key| key.name);
    let shown: String = wrong.chars().take(64).collect();
    let added =
        problems.add(Code::UNKNOWN_KEY, name.span(), format!("unknown key `{shown}` in {}", keys.what));
    let _ = match nearest(wrong, known()) {
        Some(near) => added.help(format!("did you mean `{near}`?")),
        None => added.help(format!("known are {}", known().collect::<Vec<_>>().join(", "))),
    };
}

pub(super) fn check_value(name: &str, value: &Value<'_>, kind: Kind, problems: &mut Problems) {
    let wrong_type = |problems: &mut Problems, value: &Value<'_>| {
        let found = kind_of(value.get_ref());
        problems.add(
            Code::WRONG_TYPE,
            value.span(),
            format!("`{name}` is {found}, but must be {}", kind.expected()),
        );
    };
    let word = |problems: &mut Problems, value: &Value<'_>, words: &'static [&'static str]| match value
        .get_ref()
        .as_str()
    {
        None => wrong_type(problems, value),
        Some(text) if words.contains(&text) => {}
        Some(text) => {
            let shown: String = text.chars().take(64).collect();
            let list = words.join("\", \"");
            let added = problems.add(
                Code::NOT_A_CHOICE,
                value.span(),
                format!("`{name}` is \"{shown}\", but must be one of \"{list}\""),
            );
            if let Some(near) = nearest(text, words.iter().copied()) {
                let _ = added.help(format!("did you mean \"{near}\"?"));
            }
        }
    };
    let not_empty = |problems: &mut Problems| {
        if value.get_ref().as_array().is_some_and(|list| list.is_empty()) {
            problems
                .add(Code::NOTHING_ASKED, value.span(), format!("`{name}` is an empty list"))
                .help("leave the key out, or name at least one");
        }
    };
    let plain = |problems: &mut Problems, value: &Value<'_>| match value.get_ref().as_str() {
        None => wrong_type(problems, value),
        Some("") => {
            problems.add(Code::NOTHING_ASKED, value.span(), format!("`{name}` is empty"));
        }
        Some(_) => {}
    };
    let inner = value.get_ref();
    match kind {
        Kind::Text => plain(problems, value),
        Kind::Texts => {
            not_empty(problems);
            one_or_many(value).into_iter().for_each(|value| plain(problems, value));
        }
        Kind::Choice(words) => word(problems, value, words),
        Kind::WordOrTable(words, _) if inner.is_str() => word(problems, value, words),
        Kind::Choices(words) => {
            not_empty(problems);
            one_or_many(value).into_iter().for_each(|value| word(problems, value, words));
        }
        Kind::BoolOr(words) if inner.is_str() => {
            if let Some(text) = inner.as_str().filter(|text| !words.contains(text)) {
                let shown: String = text.chars().take(64).collect();
                let message = format!(
                    "`{name}` is \"{shown}\", but must be true, false or \"{}\"",
                    words.join("\", \"")
                );
                let added = problems.add(Code::NOT_A_CHOICE, value.span(), message);
                if text == "true" || text == "false" {
                    let _ = added.help(format!("write {text} without quotes"));
                }
            }
        }
        Kind::Bool | Kind::BoolOr(_) if inner.is_bool() => {}
        Kind::BoolOrTable(_) if inner.is_bool() => {}
        Kind::Integer(low, high) if inner.is_integer() => {
            if !integer(inner).is_some_and(|number| (low..=high).contains(&number)) {
                let message = format!("`{name}` must be from {low} to {high}");
                problems.add(Code::NOT_A_CHOICE, value.span(), message);
            }
        }
        Kind::Share if inner.is_float() || inner.is_integer() => {
            if share(inner).is_none() {
                problems.add(Code::NOT_A_CHOICE, value.span(), format!("`{name}` must be from 0 to 1"));
            }
        }
        // Their own parsers report more than the type.
        Kind::Duration | Kind::Ports => not_empty(problems),
        Kind::Date if inner.as_datetime().is_some_and(|date| date.date.is_some()) => {}
        Kind::Bind(keys) => {
            not_empty(problems);
            for value in one_or_many(value) {
                match value.get_ref() {
                    DeValue::String(_) => plain(problems, value),
                    DeValue::Table(table) => check(table, value.span(), keys, problems),
                    _ => wrong_type(problems, value),
                }
            }
        }
        Kind::BoolOrTable(keys) | Kind::WordOrTable(_, keys) | Kind::Table(keys) if inner.is_table() => {
            if let Some(table) = inner.as_table() {
                check(table, value.span(), keys, problems);
            }
        }
        Kind::Tables(keys) if inner.is_array() => {
            for value in one_or_many(value) {
                match value.get_ref().as_table() {
                    Some(table) => check(table, value.span(), keys, problems),
                    None => wrong_type(problems, value),
                }
            }
        }
        Kind::Tables(_) if inner.is_table() => {
            problems
                .add(Code::WRONG_TYPE, value.span(), format!("`{name}` is a single table"))
                .help(format!("write [[{name}]] with two brackets: there may be several"));
        }
        Kind::List if inner.is_array() => not_empty(problems),
        Kind::Map if inner.is_table() => {}
        _ => wrong_type(problems, value),
    }
}

/// A number from 0 to 1.
pub(super) fn share(value: &DeValue<'_>) -> Option<f64> {
    let text = value.as_float().map(|float| float.as_str().to_owned());
    let number = text.and_then(|text| text.parse::<f64>().ok()).or_else(|| match integer(value)? {
        0 => Some(0.0),
        1 => Some(1.0),
        _ => None,
    })?;
    (0.0..=1.0).contains(&number).then_some(number)
}
