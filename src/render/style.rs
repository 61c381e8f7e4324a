//! Colours.

use anstyle::{AnsiColor, Style};

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
            Tone::Good => Style::new().fg_color(Some(AnsiColor::Green.into())),
            Tone::Bad => Style::new().fg_color(Some(AnsiColor::Red.into())).bold(),
            Tone::Faint => Style::new().dimmed(),
            Tone::Strong => Style::new().bold(),
        };
        format!("{style}{text}{style:#}")
    }
}
