//! Colours.

use anstyle::{AnsiColor, Style};

/// Headings.
pub(super) const BOLD: Style = Style::new().bold();
/// Less important text.
pub(super) const DIM: Style = Style::new().dimmed();
/// What only this host, or a private network, can reach; what is as it should be.
pub(super) const GREEN: Style = AnsiColor::Green.on_default();
/// What other hosts can reach; warnings.
pub(super) const YELLOW: Style = AnsiColor::Yellow.on_default();
/// Errors.
pub(super) const RED: Style = AnsiColor::Red.on_default();
/// Notes.
pub(super) const CYAN: Style = AnsiColor::Cyan.on_default();

/// Meaning of a piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tone {
    /// Good.
    Good,
    /// A problem.
    Bad,
    /// Less important.
    Faint,
    /// A heading.
    Strong,
}

/// Colours text, or leaves it plain.
pub(super) struct Paint(bool);

impl Paint {
    pub(super) fn new(color: bool) -> Paint {
        Paint(color)
    }

    pub(super) fn tone(&self, tone: Tone, text: &str) -> String {
        if !self.0 {
            return text.to_owned();
        }
        let style = match tone {
            Tone::Good => GREEN,
            Tone::Bad => RED.bold(),
            Tone::Faint => DIM,
            Tone::Strong => BOLD,
        };
        format!("{style}{text}{style:#}")
    }
}
