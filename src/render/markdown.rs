//! Styling of explain pages for a terminal; any other output receives the Markdown source.

use std::fmt::Write as _;

use super::style::{BOLD as HEADING, DIM as CODE};
use super::table::{padded, wrap_from};

/// The paragraphs and list items of a page in lines of at most `width` columns. Headings, tables and blocks of code stay.
#[must_use]
pub fn reflowed(markdown: &str, width: usize) -> String {
    let mut out = String::with_capacity(markdown.len());
    let (mut mark, mut text) = ("", String::new());
    let mut in_block = false;
    for line in markdown.lines() {
        let fence = line.trim_start().starts_with("```");
        let fixed = in_block || fence || line.is_empty() || line.starts_with(['#', '|']);
        let item = marker(line);
        if fixed || !item.is_empty() {
            paragraph(&mut out, mark, &mut text, width);
            mark = item;
        }
        if fixed {
            mark = "";
            let _ = writeln!(out, "{line}");
        } else {
            let rest = line.strip_prefix(item).unwrap_or(line).trim();
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(rest);
        }
        in_block ^= fence;
    }
    paragraph(&mut out, mark, &mut text, width);
    out
}

/// The mark of a list item at the start of a line: `- ` or `1. `.
fn marker(line: &str) -> &str {
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    match line.get(digits..) {
        Some(rest) if digits > 0 && rest.starts_with(". ") => line.get(..digits + 2).unwrap_or_default(),
        _ if line.starts_with("- ") => "- ",
        _ => "",
    }
}

/// Writes a paragraph. A code span is one word.
fn paragraph(out: &mut String, mark: &str, text: &mut String, width: usize) {
    const BLANK: &str = "\u{a0}";
    if text.is_empty() {
        return;
    }
    let spans = text.split('`').enumerate();
    let whole =
        spans.map(|(index, part)| if index % 2 == 1 { part.replace(' ', BLANK) } else { part.to_owned() });
    let whole = whole.collect::<Vec<_>>().join("`");
    let wrapped = wrap_from(mark, &whole, width, &" ".repeat(mark.len()));
    let _ = writeln!(out, "{}", wrapped.replace(BLANK, " "));
    text.clear();
}

/// The Markdown source, or with `color` a styled page: bold headings and dimmed code, both without their marks. Styling
/// removes the fences. It adds or wraps no line.
#[must_use]
pub fn styled(markdown: &str, color: bool) -> String {
    if !color {
        return markdown.to_owned();
    }
    let mut out = String::with_capacity(markdown.len() * 2);
    let mut in_block = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
            continue;
        }
        let _ = if in_block {
            writeln!(out, "    {CODE}{line}{CODE:#}")
        } else if let Some(heading) = heading(line) {
            writeln!(out, "{HEADING}{heading}{HEADING:#}")
        } else {
            inline(&mut out, line);
            writeln!(out)
        };
    }
    out
}

/// A name in a column of its own and a title, which continues in its column.
#[must_use]
pub fn entry(name: &str, title: &str, limit: usize) -> String {
    const NAME: usize = 21;
    wrap_from(&padded(name, NAME), title, limit, &" ".repeat(NAME))
}

/// The text of a heading.
fn heading(line: &str) -> Option<&str> {
    let text = line.trim_start_matches('#');
    (text.len() < line.len()).then(|| text.strip_prefix(' ')).flatten()
}

/// A line with dimmed code spans and bold `**strong**` words. A mark without its partner stays.
fn inline(out: &mut String, line: &str) {
    let mut rest = line;
    while let Some(at) = rest.find(['`', '*']) {
        let (before, marked) = rest.split_at(at);
        out.push_str(before);
        let mark = if marked.starts_with('`') { "`" } else { "**" };
        let inside = marked.strip_prefix(mark).and_then(|text| text.split_once(mark));
        let Some((inside, after)) = inside.filter(|(inside, _)| !inside.is_empty()) else {
            let one = marked.chars().next().map_or(0, char::len_utf8);
            out.push_str(&marked[..one]);
            rest = &marked[one..];
            continue;
        };
        let style = if mark == "`" { CODE } else { HEADING };
        let _ = write!(out, "{style}{inside}{style:#}");
        rest = after;
    }
    out.push_str(rest);
}

/// Escaped text, made safe for a Markdown table cell.
#[must_use]
pub fn cell(escaped: &str) -> String {
    let mut out = String::with_capacity(escaped.len());
    for c in escaped.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '|' => out.push_str("&#124;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '~' | '!' | '#' | '@' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_and_items_fill_the_width() {
        let page = "# A title that stays as long as it is\n\nOne two\nthree `a b c` four.\n\n- first item\n  goes on\n- second\n\n1. one\n\n```\n$ a command that stays as it is\n```\n| a | b |\n";
        let wanted = "# A title that stays as long as it is\n\nOne two three\n`a b c` four.\n\n- first item\n  goes on\n- second\n\n1. one\n\n```\n$ a command that stays as it is\n```\n| a | b |\n";
        assert_eq!(reflowed(page, 13), wanted);
        assert_eq!(reflowed("One\ntwo\n", 80), "One two\n");
    }

    const PAGE: &str = "# Title\n\nSome `code` and **more**, 2 * 3, a ` alone.\n\n```\n$ ss -ltn\n# note\n```\n## Part\n#7\n";

    #[test]
    fn a_pipe_gets_the_page_itself() {
        assert_eq!(styled(PAGE, false), PAGE);
    }

    #[test]
    fn a_terminal_gets_headings_and_code() {
        let out = styled(PAGE, true);
        assert!(out.starts_with("\u{1b}[1mTitle\u{1b}[0m\n"), "{out:?}");
        assert!(out.contains("Some \u{1b}[2mcode\u{1b}[0m and \u{1b}[1mmore\u{1b}[0m, 2 * 3, a ` alone."));
        assert!(out.contains("    \u{1b}[2m$ ss -ltn\u{1b}[0m\n    \u{1b}[2m# note\u{1b}[0m\n"));
        assert!(!out.contains("```") && out.contains("\n#7\n"));
        assert_eq!(
            out.matches("\u{1b}[1m").count() + out.matches("\u{1b}[2m").count(),
            out.matches("\u{1b}[0m").count()
        );
    }
}
