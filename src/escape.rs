//! The escaper for external text (names of interfaces, processes and profiles, bytes from clients) that people read.
//!
//! A terminal interprets control characters, and characters that reorder or hide text mislead readers. This module
//! makes both visible. JSON has its own escapes and does not use this module.

use std::fmt::Write as _;

/// Whether a character can be shown unchanged: not what a terminal obeys, what reorders or hides text, or what no font shows.
fn is_plain(c: char) -> bool {
    use unicode_general_category::{GeneralCategory as Category, get_general_category};
    if c.is_ascii() {
        return !c.is_control();
    }
    let category = get_general_category(c);
    !matches!(
        category,
        Category::Control
            | Category::Format
            | Category::Surrogate
            | Category::PrivateUse
            | Category::Unassigned
            | Category::SpaceSeparator
            | Category::LineSeparator
            | Category::ParagraphSeparator
    ) && !is_blank_though_a_letter(c)
}

/// Characters without a glyph whose category is that of a letter, a mark or a symbol: those with the property
/// `Default_Ignorable_Code_Point` (`DerivedCoreProperties.txt` of Unicode 16), and three that fonts show as a blank.
fn is_blank_though_a_letter(c: char) -> bool {
    matches!(c,
        '\u{34f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0100}'..='\u{e01ef}'
        // BRAILLE PATTERN BLANK, KHITAN SMALL SCRIPT FILLER, MUSICAL SYMBOL NULL NOTEHEAD.
        | '\u{2800}' | '\u{16fe4}' | '\u{1d159}')
}

/// Whether every byte is an ASCII character that can be shown unchanged. This is true of almost all texts, which then
/// need no further check.
fn is_plain_ascii(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'\\')
}

/// The bytes as text, if they are ASCII and [`escape_bytes`] would not change them.
#[must_use]
pub fn plain_ascii(bytes: &[u8]) -> Option<&str> {
    if is_plain_ascii(bytes) { std::str::from_utf8(bytes).ok() } else { None }
}

/// `text` with control, bidirectional and invisible characters as `\n`, `\x1b`, `\u{202e}`, and a backslash doubled.
#[must_use]
pub fn escape(text: &str) -> String {
    if is_plain_ascii(text.as_bytes()) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        push_escaped(&mut out, c);
    }
    out
}

/// Like [`escape`], for bytes that may not be UTF-8: each invalid byte is shown as `\xNN`.
#[must_use]
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_escaped(&mut out, c);
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Appends [`escape`] of `text` to `out`.
pub fn push(out: &mut Vec<u8>, text: &str) {
    push_bytes(out, text.as_bytes());
}

/// Appends [`escape_bytes`] of `bytes` to `out`.
pub fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    if is_plain_ascii(bytes) {
        out.extend_from_slice(bytes);
    } else {
        out.extend_from_slice(escape_bytes(bytes).as_bytes());
    }
}

fn push_escaped(out: &mut String, c: char) {
    let _ = match c {
        '\\' => write!(out, "\\\\"),
        '\n' => write!(out, "\\n"),
        '\r' => write!(out, "\\r"),
        '\t' => write!(out, "\\t"),
        c if is_plain(c) => {
            out.push(c);
            Ok(())
        }
        // A single byte from 0x80 on is not a character: `\x85` is the byte, `\u{85}` the character.
        c if c.is_ascii() => write!(out, "\\x{:02x}", u32::from(c)),
        c => write!(out, "\\u{{{:x}}}", u32::from(c)),
    };
}

/// Escapes text that may contain escaped names: like [`escape`], but leaves backslashes unchanged, so that nothing is
/// escaped twice. For sentences and labels that contain names and are never read back.
#[must_use]
pub fn printable(text: &str) -> String {
    escape(text).replace("\\\\", "\\")
}

/// `text`, escaped for a person and then for HTML text and attribute values.
#[must_use]
pub fn escape_html(text: &str) -> String {
    html_entities(&escape(text))
}

/// Only the second step of [`escape_html`], for text that is already escaped for people.
#[must_use]
pub fn html_entities(escaped: &str) -> String {
    let mut out = String::with_capacity(escaped.len());
    for c in escaped.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// `text` as one CSV field (RFC 4180), escaped for a person first.
#[must_use]
pub fn csv_field(text: &str) -> String {
    csv_escaped(escape(text))
}

/// Only the second step of [`csv_field`], for text that is already escaped for people. A field that a spreadsheet would
/// run as a formula gets a leading apostrophe.
#[must_use]
pub fn csv_escaped(mut field: String) -> String {
    if field.starts_with(['=', '+', '-', '@']) && field.parse::<f64>().is_err() {
        field.insert(0, '\'');
    }
    if field.contains([',', '"', '\n', '\r']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

/// `text` as one word of a POSIX shell: pasted, it is that text again, and on a terminal it shows nothing that a terminal obeys.
#[must_use]
pub fn shell(text: &str) -> String {
    shell_bytes(text.as_bytes())
}

/// As [`shell`], for bytes that may not be UTF-8. A byte 0, which no argument of a program can hold, is left out.
#[must_use]
pub fn shell_bytes(bytes: &[u8]) -> String {
    let bare = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:/@%+-,".contains(byte);
    let text = std::str::from_utf8(bytes).ok();
    match text {
        Some(text) if !bytes.is_empty() && bytes.iter().all(bare) => text.to_owned(),
        // A backslash means itself between single quotes, a line break would only look like two commands.
        Some(text) if text.chars().all(is_plain) => format!("'{}'", text.replace('\'', "'\\''")),
        _ => shell_octal(bytes),
    }
}

/// Bytes that cannot be shown, written by printf(1), which every POSIX shell has: `$'...'` is not understood by all.
fn shell_octal(bytes: &[u8]) -> String {
    let bytes: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).collect();
    // A substitution loses the line breaks at its end.
    let end = bytes.iter().rposition(|byte| *byte != b'\n').map_or(0, |last| last + 1);
    let (body, breaks) = bytes.split_at(end);
    let mut out = String::from("\"$(printf '");
    for byte in body {
        if byte.is_ascii_alphanumeric() || b"._:/@+, ".contains(byte) {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "\\{byte:03o}");
        }
    }
    out.push_str("')\"");
    if out == "\"$(printf '')\"" {
        out = "''".to_owned();
    }
    if !breaks.is_empty() {
        let _ = write!(out, "'{}'", "\n".repeat(breaks.len()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_terminal_obeys_survives() {
        let hostile: String = (0..=0x10_ffff_u32).filter_map(char::from_u32).collect();
        for c in escape(&hostile).chars() {
            assert!(is_plain(c), "{:x}", u32::from(c));
        }
        assert_eq!(
            escape("\x1b]52;c;x\x07\u{9b}\u{202e}\r\n\t\\"),
            "\\x1b]52;c;x\\x07\\u{9b}\\u{202e}\\r\\n\\t\\\\"
        );
    }

    #[test]
    fn what_no_font_shows_is_made_visible() {
        for c in [
            0xa0, 0xad, 0x34f, 0x61c, 0x115f, 0x17b4, 0x180b, 0x180e, 0x180f, 0x2000, 0x200b, 0x2028, 0x202e,
            0x2065, 0x2800, 0x3000, 0x3164, 0xe000, 0xfdd0, 0xfe0f, 0xfeff, 0xffa0, 0xfff0, 0xfff9, 0xfffe,
            0xffff, 0x1d159, 0x1d173, 0x1_fffe, 0xe0001, 0xe0100, 0xe01ef, 0xe01f0, 0xf_0000, 0x10_ffff,
        ] {
            let text = format!("sshd{}", char::from_u32(c).unwrap());
            assert_eq!(escape(&text), format!("sshd\\u{{{c:x}}}"));
        }
        for text in ["sshd", "für", "e\u{301}", "日本語", "Ελλ", "עברית", "🦀", "a b"] {
            assert_eq!(escape(text), text);
        }
    }

    #[test]
    fn a_word_for_a_shell_is_itself_again() {
        for (text, word) in [
            ("eth0", "eth0"),
            ("", "''"),
            ("e$(>x)", "'e$(>x)'"),
            ("a'b", "'a'\\''b'"),
            ("~root", "'~root'"),
            ("a=b", "'a=b'"),
            ("#", "'#'"),
            ("*", "'*'"),
            ("a\u{1b}[2J", "\"$(printf 'a\\033\\1332J')\""),
            ("a\n\n", "\"$(printf 'a')\"'\n\n'"),
        ] {
            assert_eq!(shell(text), word);
        }
        assert_eq!(shell_bytes(b"a\n\0"), "\"$(printf 'a')\"'\n'");
        assert_eq!(shell_bytes(b"\xff%'"), "\"$(printf '\\377\\045\\047')\"");
    }

    #[test]
    fn invalid_bytes_are_shown_one_by_one() {
        assert_eq!(escape_bytes(b"a\xff\xfeb\x1b"), "a\\xff\\xfeb\\x1b");
        assert_ne!(escape_bytes(b"\\xff"), escape_bytes(b"\xff"));
    }

    #[test]
    fn what_is_added_is_escaped_alike() {
        for byte in 0..=u8::MAX {
            let bytes = [b'a', byte, b'~'];
            let mut out = b"x".to_vec();
            push_bytes(&mut out, &bytes);
            assert_eq!(out, format!("x{}", escape_bytes(&bytes)).into_bytes());
        }
    }

    #[test]
    fn html_and_csv_have_their_own_second_step() {
        assert_eq!(escape_html("<script>'\"&"), "&lt;script&gt;&#39;&quot;&amp;");
        assert_eq!(csv_field("=cmd|' /C calc'!A0"), "'=cmd|' /C calc'!A0");
        assert_eq!(csv_field("a,b"), "\"a,b\"");
        assert_eq!(csv_field("-1"), "-1");
    }

    #[test]
    fn escaped_text_is_not_escaped_again() {
        for name in ["e\x1b[31m", "a\\b", "\u{202e}x"] {
            assert_eq!(printable(&escape(name)), escape(name));
        }
        assert_eq!(printable(&escape_bytes(b"\xff")), "\\xff");
        assert_eq!(printable("a\x1bb"), "a\\x1bb");
    }
}
