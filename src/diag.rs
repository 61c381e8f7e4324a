//! Problems: message, position and fix, and their rendering.

use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::escape::{escape, printable};

/// Severity of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The request cannot be fulfilled, or a check failed.
    Error,
    /// The request can be fulfilled, but is probably a mistake.
    Warning,
    /// For information.
    Note,
}

/// A position in a text: the name of the text, the text, and a byte range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// File name, `<stdin>`, or `--bind`.
    pub file: String,
    /// The whole text, shared between the problems of one file.
    pub text: std::sync::Arc<str>,
    /// Byte range within `text`.
    pub span: Range<usize>,
}

impl Place {
    /// Line and column, both from 1; the column counts characters.
    #[must_use]
    pub fn line_column(&self) -> (usize, usize) {
        let before = self.text.get(..self.span.start).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its code.
    pub code: Code,
    /// Severity.
    pub severity: Severity,
    /// The problem, with operation and object. Lower case, no full stop. Unescaped: [`render`] escapes it.
    pub message: String,
    /// Position.
    pub place: Option<Place>,
    /// Suggested fixes, one sentence each. Unescaped.
    pub help: Vec<String>,
}

impl Diagnostic {
    /// An error without a position.
    #[must_use]
    pub fn error(code: Code, message: impl Into<String>) -> Diagnostic {
        Diagnostic { code, severity: Severity::Error, message: message.into(), place: None, help: Vec::new() }
    }

    /// A note without a position.
    #[must_use]
    pub fn note(code: Code, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Note, ..Diagnostic::error(code, message) }
    }

    /// A warning without a position.
    #[must_use]
    pub fn warning(code: Code, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, message) }
    }

    /// Adds a position.
    #[must_use]
    pub fn at(mut self, place: Place) -> Diagnostic {
        self.place = Some(place);
        self
    }

    /// Adds a suggested fix.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help.push(help.into());
        self
    }
}

/// Maximum length of a source line that is shown with a caret, in bytes; for a longer one only line and column are
/// shown.
const LONGEST_SHOWN_LINE: usize = 4096;

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(render(self, false).trim_end())
    }
}

/// Renders a problem for people, with the source line and a caret if there is a position. Ends with a newline.
#[must_use]
pub fn render(problem: &Diagnostic, color: bool) -> String {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let code = problem.code.to_string();
    let message = printable(&problem.message);
    let mut group = level
        .primary_title(&message)
        .id(&code)
        .elements([] as [Snippet<'_, annotate_snippets::Annotation<'_>>; 0]);
    let shown;
    let file;
    let mut trailer = String::new();
    if let Some(place) = &problem.place {
        let (line, column) = place.line_column();
        file = escape(&place.file);
        match source_line(place) {
            Some((text, span)) => {
                shown = text;
                group = group.element(
                    Snippet::source(&shown)
                        .path(&file)
                        .line_start(line)
                        .annotation(AnnotationKind::Primary.span(span)),
                );
            }
            None => {
                let _ = writeln!(trailer, " --> {file}:{line}:{column}");
            }
        }
    }
    let helps: Vec<String> = problem.help.iter().map(|help| printable(help)).collect();
    let with_source = problem.place.is_some() && trailer.is_empty();
    for help in helps.iter().filter(|_| with_source) {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    let mut out = renderer.render(&[group]);
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out += &trailer;
    // Without a source line the renderer would print an empty gutter before the help.
    for help in helps.iter().filter(|_| !with_source) {
        let _ = writeln!(out, "  = help: {help}");
    }
    out
}

/// The first line of a position, made safe to print, and the span within it. `None` if it is too long to show.
fn source_line(place: &Place) -> Option<(String, Range<usize>)> {
    let start = place.span.start.min(place.text.len());
    let line_start = place.text.get(..start)?.rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = place.text[start..].find('\n').map_or(place.text.len(), |newline| start + newline);
    if line_end - line_start > LONGEST_SHOWN_LINE {
        return None;
    }
    let end = place.span.end.clamp(start, line_end);
    // Escaped in parts, so that the caret still points to the right place. A backslash is harmless here and frequent in
    // TOML, so it is not doubled.
    let part = |range: Range<usize>| place.text.get(range).map(|text| printable(text).replace("\\t", " "));
    let before = part(line_start..start)?;
    let inside = part(start..end)?;
    let after = part(end..line_end)?;
    let after = after.trim_end_matches("\\r");
    let span = before.len()..before.len() + inside.len();
    Some((format!("{before}{inside}{after}"), span))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::IfName;

    /// An external name stays harmless, and is escaped once.
    #[test]
    fn names_are_escaped_once() {
        let name = IfName::from_bytes(b"e\x1b[31m");
        let problem = Diagnostic::warning(Code::INTERNAL, format!("{name} and \x1b[2J")).help("a \\ stays");
        let shown = render(&problem, false);
        assert_eq!(shown, "warning[BS9001]: e\\x1b[31m and \\x1b[2J\n  = help: a \\ stays\n");
    }
}
