//! TOML values with their positions, and the list of problems.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::code::Code;
use crate::diag::{Diagnostic, Place, Severity};

/// A value with its position.
pub(super) type Value<'a> = Spanned<DeValue<'a>>;

/// Maximum number of reported problems per file; the others are counted.
const MOST_PROBLEMS: usize = 100;

/// Problems of one text, collected while it is parsed.
#[derive(Debug)]
pub(super) struct Problems {
    file: String,
    text: Arc<str>,
    /// Start of each line.
    lines: Vec<usize>,
    list: Vec<Diagnostic>,
}

impl Problems {
    /// An empty list for the text named `file`.
    pub(super) fn new(file: &str, text: &str) -> Problems {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Problems { file: file.to_owned(), text: text.into(), lines, list: Vec::new() }
    }

    /// Adds an error at `span`. The caller can add help to the returned problem.
    pub(super) fn add(&mut self, code: Code, span: Range<usize>, message: impl Into<String>) -> Added<'_> {
        let place = self.place(&span);
        self.list.push(Diagnostic::error(code, message).at(place));
        Added(self.list.last_mut())
    }

    /// A position in the text.
    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        // Spans come from the parser. A wrong span must not cause a panic here.
        let boundary =
            |at: usize| (0..=at.min(self.text.len())).rev().find(|&at| self.text.is_char_boundary(at));
        let end = boundary(span.end).unwrap_or(0);
        let start = boundary(span.start.min(end)).unwrap_or(0);
        Place { file: self.file.clone(), text: Arc::clone(&self.text), span: start..end }
    }

    /// Line of a position, from 1.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        self.lines.partition_point(|begin| *begin <= span.start)
    }

    /// Whether there is an error.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All problems in the order of the text, without duplicates.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        let start = |problem: &Diagnostic| problem.place.as_ref().map_or(0, |place| place.span.start);
        self.list.sort_by_key(start);
        // After a syntax error the rest of the line has no meaning.
        let line = |problem: &Diagnostic| self.lines.partition_point(|begin| *begin <= start(problem));
        let broken: HashSet<usize> =
            self.list.iter().filter(|problem| problem.code == Code::SYNTAX).map(line).collect();
        let mut seen = HashSet::new();
        let keep: Vec<bool> = self
            .list
            .iter()
            .map(|problem| {
                let follows = !broken.is_empty()
                    && problem.code != Code::SYNTAX
                    && (broken.contains(&line(problem))
                        || matches!(problem.code, Code::MISSING_KEY | Code::NOTHING_ASKED));
                !follows && seen.insert((start(problem), problem.message.clone()))
            })
            .collect();
        let mut keep = keep.into_iter();
        self.list.retain(|_| keep.next().unwrap_or(true));
        let more = self.list.len().saturating_sub(MOST_PROBLEMS);
        if more > 0 {
            self.list.truncate(MOST_PROBLEMS);
            let code = self.list.last().map_or(Code::SYNTAX, |problem| problem.code);
            let message = format!("{}: {more} more problems are not shown", self.file);
            self.list.push(Diagnostic { severity: Severity::Note, ..Diagnostic::error(code, message) });
        }
        self.list
    }
}

/// The problem that was just added.
pub(super) struct Added<'a>(Option<&'a mut Diagnostic>);

impl Added<'_> {
    /// Adds a suggested fix.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        if let Added(Some(problem)) = &mut self {
            problem.help.push(help.into());
        }
        self
    }
}

/// Description of a value, for a message.
pub(super) fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The integer in a value, if it fits.
pub(super) fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// The text of `key`; `None` if it is missing or of another type.
pub(super) fn text<'a>(table: &'a DeTable<'_>, key: &str) -> Option<&'a str> {
    table.get(key)?.get_ref().as_str()
}

/// The boolean of `key`; `None` if it is missing or of another type.
pub(super) fn boolean(table: &DeTable<'_>, key: &str) -> Option<bool> {
    table.get(key)?.get_ref().as_bool()
}

/// The number of `key`, if it fits into `T`.
pub(super) fn number<T: TryFrom<i64>>(table: &DeTable<'_>, key: &str) -> Option<T> {
    integer(table.get(key)?.get_ref()).and_then(|number| T::try_from(number).ok())
}

/// The value itself, or the elements of the list.
pub(super) fn one_or_many<'v, 'a>(value: &'v Value<'a>) -> Vec<&'v Value<'a>> {
    match value.get_ref() {
        DeValue::Array(list) => list.iter().collect(),
        _ => vec![value],
    }
}

/// The strings of `key`, which is a string or a list; other elements are ignored.
pub(super) fn texts(table: &DeTable<'_>, key: &str) -> Vec<String> {
    let values = table.get(key).map(one_or_many).unwrap_or_default();
    values.into_iter().filter_map(|value| value.get_ref().as_str().map(str::to_owned)).collect()
}

/// The tables of the array of tables in `key`, each with its position.
pub(super) fn tables<'v, 'a>(table: &'v DeTable<'a>, key: &str) -> Vec<(&'v DeTable<'a>, Range<usize>)> {
    let values = table.get(key).map(one_or_many).unwrap_or_default();
    values.into_iter().filter_map(|value| Some((value.get_ref().as_table()?, value.span()))).collect()
}

/// The most similar name of `known`, if it is similar enough.
pub(super) fn nearest<'k>(wrong: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let wrong: String = wrong.chars().take(64).collect::<String>().to_lowercase().replace('-', "_");
    let distance = |name: &str| strsim::damerau_levenshtein(&wrong, name);
    let (near, name) = known.into_iter().map(|name| (distance(name), name)).min()?;
    let length = wrong.chars().count().max(name.len());
    (near * 3 <= length || (name.len() > 3 && wrong.starts_with(name))).then_some(name)
}
