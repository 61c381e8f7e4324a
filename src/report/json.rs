//! JSON documents: the outer levels are indented, and each list entry is on one line. `diff` and `grep` therefore work
//! on entries, and a hundred thousand entries contain few blanks.

use std::fmt::Display;
use std::io::{self, Write};

use serde::ser::{self, Serialize, Serializer};

/// Writes `value` and a newline. Content inside more than `levels` containers is on one line.
///
/// # Errors
/// If the writer fails, or a map has keys that are not strings.
pub fn write(mut out: impl Write, value: &impl Serialize, levels: usize) -> io::Result<()> {
    let text = Vec::with_capacity(PIECE + PIECE / 4);
    let mut json = Json { out: &mut out, text, levels, depth: 0 };
    value.serialize(&mut json).map_err(|Error(error)| error)?;
    json.text.push(b'\n');
    json.out.write_all(&json.text)
}

/// Like [`write()`], without the newline: the text of `value` inside `depth` containers.
///
/// # Errors
/// If a map has keys that are not strings.
pub fn part(value: &impl Serialize, levels: usize, depth: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut json = Json { out: &mut out, text: Vec::new(), levels, depth };
    value.serialize(&mut json).map_err(|Error(error)| error)?;
    let rest = json.text;
    out.extend_from_slice(&rest);
    Ok(out)
}

/// Existing JSON, as from [`part`]. [`write()`] copies it into the document unchanged; other serializers see bytes.
#[derive(Debug, Clone, Copy)]
pub struct Made<'a>(pub &'a [u8]);

impl Serialize for Made<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// Number of bytes to collect before a write: the size of the output buffer, which is then bypassed.
const PIECE: usize = 64 << 10;

/// The serializer. serde_json's own hands its writer five pieces for a field, and looks at each byte of each name and text by
/// itself: that was half of what `interfaces --format json` executed. What is rare is still left to it.
struct Json<'a> {
    out: &'a mut dyn Write,
    text: Vec<u8>,
    levels: usize,
    depth: usize,
}

/// A failed write, or an error from a value.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Error(io::Error);

impl ser::Error for Error {
    fn custom<T: Display>(message: T) -> Error {
        Error(io::Error::other(message.to_string()))
    }
}

/// Whether JSON must escape any of these bytes: control characters, quotes, backslashes. Tests eight bytes at a time
/// with the usual test for a zero byte.
#[must_use]
pub fn has_escapes(text: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES << 7;
    let (words, rest) = text.as_chunks::<8>();
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let found = words.iter().fold(0, |found, word| {
        let word = u64::from_ne_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        found | control | zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\')))
    });
    found & HIGH != 0 || rest.iter().any(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\'))
}

impl<'b> Json<'b> {
    #[inline(always)]
    fn push(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
    }

    fn begin(&mut self, bracket: u8) {
        self.depth += 1;
        self.text.push(bracket);
    }

    /// Writes the collected bytes if there are enough.
    fn hand_on(&mut self) -> Result<(), Error> {
        if self.text.len() >= PIECE {
            self.out.write_all(&self.text).map_err(Error)?;
            self.text.clear();
        }
        Ok(())
    }

    fn blanks(&self) -> usize {
        (2 * self.depth).min(16)
    }

    /// Before an entry of the container that was begun last. Pieces of a fixed length are cheap to copy: what is too much goes again.
    #[inline]
    fn entry(&mut self, first: bool) {
        let length = if self.depth <= self.levels { 1 + self.blanks() } else { 0 };
        let length = self.text.len() + length + usize::from(!first);
        self.push(if first { b"\n                 " } else { b",\n                " });
        self.text.truncate(length);
    }

    fn end(&mut self, empty: bool, bracket: u8) {
        self.depth -= 1;
        if !empty && self.depth < self.levels {
            let length = self.text.len() + 1 + self.blanks();
            self.push(b"\n                ");
            self.text.truncate(length);
        }
        self.text.push(bracket);
    }

    #[inline(always)]
    fn colon(&mut self) {
        self.push(b": ");
        self.text.truncate(self.text.len() - usize::from(self.depth > self.levels));
    }

    /// Name of a field or variant: an identifier of this program, which needs no escapes.
    #[inline(always)]
    fn name(&mut self, name: &str) {
        debug_assert!(!has_escapes(name.as_bytes()));
        self.text.push(b'"');
        self.push(name.as_bytes());
        self.text.push(b'"');
    }

    fn key(&mut self, key: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        let start = self.text.len();
        key.serialize(&mut *self)?;
        match self.text.get(start) {
            Some(b'"') => Ok(()),
            Some(b'0'..=b'9' | b'-' | b't' | b'f') => {
                self.text.insert(start, b'"');
                self.text.push(b'"');
                Ok(())
            }
            _ => Err(ser::Error::custom("key must be a string")),
        }
    }

    fn number(&mut self, number: impl itoa::Integer) -> Result<(), Error> {
        self.push(itoa::Buffer::new().format(number).as_bytes());
        Ok(())
    }

    fn left_to_serde_json(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        serde_json::to_writer(&mut self.text, value).map_err(ser::Error::custom)
    }

    fn container(&mut self, bracket: u8, ends: &'static [u8]) -> Container<'_, 'b> {
        self.begin(bracket);
        Container { json: self, empty: true, ends }
    }

    /// The object around a variant that has content.
    fn variant(&mut self, name: &'static str) -> Result<(), Error> {
        self.begin(b'{');
        self.entry(true);
        self.name(name);
        self.colon();
        Ok(())
    }
}

/// All integers have the same format.
macro_rules! numbers {
    ($($method:ident($type:ty))*) => {
        $(fn $method(self, value: $type) -> Result<(), Error> {
            self.number(value)
        })*
    };
}

impl<'a, 'b> Serializer for &'a mut Json<'b> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Container<'a, 'b>;
    type SerializeTuple = Container<'a, 'b>;
    type SerializeTupleStruct = Container<'a, 'b>;
    type SerializeTupleVariant = Container<'a, 'b>;
    type SerializeMap = Container<'a, 'b>;
    type SerializeStruct = Container<'a, 'b>;
    type SerializeStructVariant = Container<'a, 'b>;

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.push(if value { b"true" } else { b"false" });
        Ok(())
    }

    numbers! {
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64) serialize_i128(i128)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64) serialize_u128(u128)
    }

    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        self.left_to_serde_json(&value)
    }

    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        self.left_to_serde_json(&value)
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.left_to_serde_json(&value)
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        if has_escapes(value.as_bytes()) {
            return self.left_to_serde_json(value);
        }
        self.text.push(b'"');
        self.push(value.as_bytes());
        self.text.push(b'"');
        Ok(())
    }

    /// Only [`Made`] has bytes.
    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        self.push(value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), Error> {
        self.push(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    #[inline(always)]
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        self.name(variant);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.variant(variant)?;
        value.serialize(&mut *self)?;
        self.end(false, b'}');
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Container<'a, 'b>, Error> {
        Ok(self.container(b'[', b"]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Container<'a, 'b>, Error> {
        Ok(self.container(b'[', b"]"))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Container<'a, 'b>, Error> {
        Ok(self.container(b'[', b"]"))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Container<'a, 'b>, Error> {
        self.variant(variant)?;
        Ok(self.container(b'[', b"]}"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Container<'a, 'b>, Error> {
        Ok(self.container(b'{', b"}"))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Container<'a, 'b>, Error> {
        Ok(self.container(b'{', b"}"))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Container<'a, 'b>, Error> {
        self.variant(variant)?;
        Ok(self.container(b'{', b"}}"))
    }
}

/// A list or an object in progress.
struct Container<'a, 'b> {
    json: &'a mut Json<'b>,
    empty: bool,
    /// Its bracket, and that of the enclosing object for a variant.
    ends: &'static [u8],
}

impl Container<'_, '_> {
    fn element(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.json.hand_on()?;
        self.json.entry(self.empty);
        self.empty = false;
        value.serialize(&mut *self.json)
    }

    // The names of a type's fields are constants, which justifies these instructions.
    #[inline(always)]
    fn field(&mut self, name: &str, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.json.entry(self.empty);
        self.empty = false;
        self.json.name(name);
        self.json.colon();
        value.serialize(&mut *self.json)
    }

    fn finish(mut self) -> Result<(), Error> {
        for bracket in self.ends {
            self.json.end(self.empty, *bracket);
            self.empty = false;
        }
        Ok(())
    }
}

/// This writer treats all lists alike, and all objects.
macro_rules! containers {
    ($trait:ident, element $method:ident) => {
        impl ser::$trait for Container<'_, '_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.element(value)
            }

            fn end(self) -> Result<(), Error> {
                self.finish()
            }
        }
    };
    ($trait:ident, field) => {
        impl ser::$trait for Container<'_, '_> {
            type Ok = ();
            type Error = Error;

            #[inline(always)]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Error> {
                self.field(name, value)
            }

            fn end(self) -> Result<(), Error> {
                self.finish()
            }
        }
    };
}

containers!(SerializeSeq, element serialize_element);
containers!(SerializeTuple, element serialize_element);
containers!(SerializeTupleStruct, element serialize_field);
containers!(SerializeTupleVariant, element serialize_field);
containers!(SerializeStruct, field);
containers!(SerializeStructVariant, field);

impl ser::SerializeMap for Container<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.json.hand_on()?;
        self.json.entry(self.empty);
        self.empty = false;
        self.json.key(key)?;
        self.json.colon();
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(&mut *self.json)
    }

    fn end(self) -> Result<(), Error> {
        self.finish()
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

    /// Results of [`write()`] on one line and of serde_json.
    fn both(value: &impl Serialize) -> (String, String) {
        let mut out = Vec::new();
        write(&mut out, value, 0).unwrap();
        (String::from_utf8(out).unwrap(), serde_json::to_string(value).unwrap() + "\n")
    }

    #[test]
    fn any_text_is_escaped_as_serde_json_does() {
        for character in ('\0'..='\u{17f}').chain(['\u{2028}', '\u{ffff}', '\u{1f600}']) {
            for place in 0..20 {
                let text = format!("{}{character}{}", "a".repeat(place), "~".repeat(19 - place));
                let (ours, theirs) = both(&text);
                assert_eq!(ours, theirs);
                assert_eq!(has_escapes(text.as_bytes()), theirs != format!("\"{text}\"\n"), "{text:?}");
            }
        }
    }

    #[test]
    fn any_kind_of_value_is_written_as_serde_json_does() {
        #[derive(serde::Serialize)]
        enum Kind {
            Unit,
            Newtype(Option<u8>),
            Tuple(i8, char),
            Struct { bytes: [u8; 2] },
        }
        #[derive(serde::Serialize)]
        struct Unit;
        #[derive(serde::Serialize)]
        struct All(Unit, (), i128, f64, f32, bool, Vec<Kind>, std::collections::BTreeMap<u16, Kind>);
        let kinds = || vec![Kind::Unit, Kind::Newtype(Some(7)), Kind::Newtype(None), Kind::Tuple(-1, '"')];
        let map = [(5, Kind::Struct { bytes: [1, 2] }), (6, Kind::Unit)].into();
        let all = All(Unit, (), i128::MIN, 0.1, f32::NAN, true, kinds(), map);
        let (ours, theirs) = both(&all);
        assert_eq!(ours, theirs);
        let mut pretty = Vec::new();
        write(&mut pretty, &all, 20).unwrap();
        assert_eq!(
            String::from_utf8(pretty).unwrap().trim_end(),
            serde_json::to_string_pretty(&all).unwrap()
        );
        let by_list = std::collections::BTreeMap::from([([1], 2)]);
        assert!(write(io::sink(), &by_list, 0).is_err());
    }

    #[test]
    fn a_full_disk_reports_its_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for count in [1, 2 * PIECE] {
            assert_eq!(write(Full, &vec![1; count], 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
    }
}
