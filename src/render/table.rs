//! Columns of text by their display width, so that wide and combining characters stay aligned.

use unicode_width::UnicodeWidthStr as _;

use super::style::{Paint, Tone};

/// A piece of a row: text that is safe to show, and its tone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) text: String,
    pub(super) tone: Option<Tone>,
}

impl Item {
    /// Text without colour.
    pub(super) fn plain(text: impl Into<String>) -> Item {
        Item { text: text.into(), tone: None }
    }

    /// Text in a tone.
    pub(super) fn toned(tone: Tone, text: impl Into<String>) -> Item {
        Item { text: text.into(), tone: Some(tone) }
    }
}

/// Terminal columns of a text.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The text, with blanks up to this many columns.
pub(super) fn padded(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

/// The widest item of each column.
pub(super) fn widths(rows: &[Vec<Item>]) -> Vec<usize> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    (0..columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|item| width(&item.text)).max().unwrap_or(0)
        })
        .collect()
}

/// One row with its columns padded to `widths` and two blanks between them; no blanks at the end.
pub(super) fn line(row: &[Item], widths: &[usize], paint: &Paint) -> String {
    let mut out = String::new();
    let last = row.iter().rposition(|item| !item.text.is_empty()).map_or(0, |last| last + 1);
    for (index, item) in row.iter().enumerate().take(last) {
        match item.tone {
            Some(tone) => out.push_str(&paint.tone(tone, &item.text)),
            None => out.push_str(&item.text),
        }
        if index + 1 < last {
            let wanted = widths.get(index).copied().unwrap_or(0);
            out.push_str(&" ".repeat(wanted.saturating_sub(width(&item.text)) + 2));
        }
    }
    out
}

/// A screen in lines of at most `limit` columns. A longer line continues, indented, at a gap between its columns or at a blank.
/// Escape sequences of colours have no width.
#[must_use]
pub fn folded(screen: &str, limit: usize) -> String {
    const INDENT: usize = 4;
    let mut out = String::with_capacity(screen.len());
    for line in screen.split_inclusive('\n') {
        let (mut rest, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
        let own = rest.len() - rest.trim_start_matches(' ').len();
        let indent = own + INDENT;
        let mut room = limit;
        while let Some(at) = break_at(rest, room).filter(|_| limit > indent + 8) {
            out.push_str(rest[..at].trim_end_matches(' '));
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            rest = rest[at..].trim_start_matches(' ');
            room = limit - indent;
        }
        out.push_str(rest);
        out.push_str(end);
    }
    out
}

/// Where to break a line that has more than `room` columns: after the last gap of two blanks, else after the last blank.
fn break_at(line: &str, room: usize) -> Option<usize> {
    let (mut used, mut gap, mut blank) = (0, None, None);
    let mut escape = false;
    let start = line.len() - line.trim_start_matches(' ').len();
    for (at, c) in line.char_indices() {
        match c {
            '\u{1b}' => escape = true,
            'm' if escape => escape = false,
            _ if escape => {}
            c => {
                used += unicode_width::UnicodeWidthChar::width(c).unwrap_or(0);
                if used > room {
                    return gap.or(blank);
                }
                if c == ' ' && at >= start {
                    if line[..at].ends_with(' ') && at > start {
                        gap = Some(at);
                    }
                    blank = Some(at);
                }
            }
        }
    }
    None
}

/// The text in lines of at most `limit` columns, broken at blanks; a longer word is broken inside. Later lines start with
/// `indent`.
pub(super) fn wrap(text: &str, limit: usize, indent: &str) -> String {
    wrap_from("", text, limit, indent)
}

/// As [`wrap`]; the first line starts with `first`.
pub(super) fn wrap_from(first: &str, text: &str, limit: usize, indent: &str) -> String {
    /// A column of visible text takes at most so many bytes, with its combining characters.
    const LONGEST: usize = 32;
    let limit = limit.max(width(indent) + 8);
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let mut word = word;
        loop {
            let start = if lines.is_empty() { first } else { indent };
            let blank = usize::from(!line.is_empty());
            // The width of a long word is not asked again for each line that it takes.
            if word.len() <= limit.saturating_mul(LONGEST)
                && width(start) + width(&line) + blank + width(word) <= limit
            {
                if blank == 1 {
                    line.push(' ');
                }
                line.push_str(word);
                break;
            }
            if !line.is_empty() {
                lines.push(format!("{start}{line}"));
                line = String::new();
                continue;
            }
            let mut room = limit - width(start);
            let cut = word
                .char_indices()
                .find(|(_, c)| {
                    let wide = unicode_width::UnicodeWidthChar::width(*c).unwrap_or(0);
                    if wide > room {
                        return true;
                    }
                    room -= wide;
                    false
                })
                .map_or(word.len(), |(at, _)| at);
            if cut == 0 || cut == word.len() {
                line.push_str(word);
                break;
            }
            lines.push(format!("{start}{}", &word[..cut]));
            word = &word[cut..];
        }
    }
    let start = if lines.is_empty() { first } else { indent };
    lines.push(format!("{start}{line}"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_count_as_two_columns() {
        let rows = vec![
            vec![Item::plain("名前"), Item::plain("b")],
            vec![Item::plain("abcd"), Item::plain("c")],
            vec![Item::plain("x"), Item::plain("")],
        ];
        let widths = widths(&rows);
        let lines: Vec<String> = rows.iter().map(|row| line(row, &widths, &Paint::new(false))).collect();
        assert_eq!(lines, ["名前  b", "abcd  c", "x"]);
    }

    #[test]
    fn a_screen_is_folded_between_its_columns() {
        assert_eq!(folded("ab cd  ef gh\n", 11), "ab cd  ef gh\n", "an indent needs room");
        let line = "address of a  process name  note\nshort\n";
        assert_eq!(folded(line, 24), "address of a\n    process name  note\nshort\n");
        assert_eq!(
            folded("\u{1b}[1maddress of a\u{1b}[0m  process\n", 21),
            "\u{1b}[1maddress of a\u{1b}[0m  process\n"
        );
    }

    #[test]
    fn text_is_wrapped_within_the_width() {
        assert_eq!(wrap("one two three four", 10, "  "), "one two\n  three\n  four");
        let long = wrap(&format!("x {}", "y".repeat(40)), 20, "  ");
        assert!(long.lines().all(|line| width(line) <= 20), "{long}");
        assert_eq!(wrap("", 20, ""), "");
    }
}
