//! Documents as JSON: the outer levels indented, a line for each entry of a list, and the entry itself on that line. So `diff` and
//! `grep` work on entries, and a hundred thousand of them are not mostly blanks.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Writes `value` and a newline. What lies deeper than `levels` containers is on one line.
///
/// # Errors
/// When the writer fails, or a map has other keys than strings.
pub fn write(mut out: impl Write, value: &impl Serialize, levels: usize) -> io::Result<()> {
    let lines = Lines { levels, depth: 0, filled: false };
    value.serialize(&mut Serializer::with_formatter(&mut out, lines))?;
    out.write_all(b"\n")
}

struct Lines {
    levels: usize,
    depth: usize,
    /// Whether the container that ends now had an entry.
    filled: bool,
}

impl Lines {
    fn begin<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.filled = false;
        out.write_all(bracket)
    }

    fn entry<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(b",")?;
        }
        if self.depth <= self.levels { self.new_line(out) } else { Ok(()) }
    }

    fn end<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if self.filled && self.depth < self.levels {
            self.new_line(out)?;
        }
        self.filled = true;
        out.write_all(bracket)
    }

    fn new_line<W: ?Sized + Write>(&self, out: &mut W) -> io::Result<()> {
        const BLANKS: &[u8] = b"\n                ";
        out.write_all(&BLANKS[..BLANKS.len().min(1 + 2 * self.depth)])
    }
}

impl Formatter for Lines {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.begin(out, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.end(out, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.entry(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.begin(out, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.end(out, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.entry(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(if self.depth <= self.levels { b": " } else { b":" })
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_lines_and_any_level_reads_back() {
        let value = serde_json::json!({"a": [{"b": [1, 2], "c": {}}, {"b": []}], "d": [], "e": {"f": null}});
        let text = |levels| {
            let mut out = Vec::new();
            write(&mut out, &value, levels).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            text(2),
            "{\n  \"a\": [\n    {\"b\":[1,2],\"c\":{}},\n    {\"b\":[]}\n  ],\n  \"d\": [],\n  \"e\": {\n    \"f\": null\n  }\n}\n"
        );
        assert_eq!(text(0), format!("{value}\n"));
        for levels in 0..20 {
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text(levels)).unwrap(), value);
        }
        assert_eq!(text(20).trim_end(), serde_json::to_string_pretty(&value).unwrap());
    }
}
