//! Layout and colours of the report for people, and the text of one finding.

use super::level;
use crate::audit::Finding;
use crate::diag::Severity;
use crate::escape::{escape, printable};
use crate::render::style::{CYAN, RED, YELLOW};

/// The layout and colours of a report.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Colour with ANSI sequences.
    pub color: bool,
    /// Columns to wrap at.
    pub width: usize,
    /// Show remedies, evidence and what was left out.
    pub verbose: bool,
    /// List the sockets of other protocols.
    pub all_protocols: bool,
}

impl Style {
    pub(super) fn paint(self, style: anstyle::Style, text: &str) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

pub(super) fn severity_style(severity: Severity) -> anstyle::Style {
    match severity {
        Severity::Error => RED,
        Severity::Warning => YELLOW,
        Severity::Note => CYAN,
    }
}

/// One finding: code, severity, message and position in the policy, and with `verbose` the fix.
pub(super) fn write_finding(
    out: &mut String,
    finding: &Finding,
    message: &str,
    first: &str,
    further: &str,
    style: Style,
) {
    let word = if finding.undecided { "undecided" } else { level(finding.severity) };
    let head = format!("{word}[{}]", finding.code);
    let place = finding.location.as_ref().map_or_else(String::new, |place| {
        let (line, column) = place.line_column();
        format!(" ({}:{line}:{column})", escape(&place.file))
    });
    let mut text = String::new();
    wrapped(&mut text, &format!("{head} {message}{place}"), first, further, style.width);
    // Coloured when the lines are written: escape sequences take no columns.
    out.push_str(&text.replacen(&head, &style.paint(severity_style(finding.severity), &head), 1));
    if let (true, Some(help)) = (style.verbose, &finding.help) {
        wrapped(out, &format!("help: {}", printable(help)), further, &format!("{further}  "), style.width);
    }
}

/// Writes `text` in lines of at most `width` columns. The first line starts with `indent`, the others with `further`.
pub(super) fn wrapped(out: &mut String, text: &str, indent: &str, further: &str, width: usize) {
    let blank = text.len() - text.trim_start_matches(' ').len();
    let first = format!("{indent}{}", &text[..blank]);
    let whole = crate::render::table::wrap_from(&first, &text[blank..], width, further);
    for line in whole.lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
}
