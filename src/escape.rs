//! The escaper for external text (names of interfaces, processes and profiles, bytes from clients) that people read.
//!
//! A terminal interprets control characters, and characters that reorder or hide text mislead readers. This module
//! makes both visible. JSON has its own escapes and does not use this module.

use std::fmt::Write as _;

/// Whether a character can be shown unchanged.
fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_terminal_obeys_survives() {
        let hostile: String =
            (0..0x300u32).chain(0x2000..0x2070).chain([0xfeff, 0xe0001]).filter_map(char::from_u32).collect();
        for c in escape(&hostile).chars() {
            assert!(is_plain(c), "{:x}", u32::from(c));
        }
        assert_eq!(
            escape("\x1b]52;c;x\x07\u{9b}\u{202e}\r\n\t\\"),
            "\\x1b]52;c;x\\x07\\u{9b}\\u{202e}\\r\\n\\t\\\\"
        );
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
