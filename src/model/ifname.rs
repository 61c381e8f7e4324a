//! Interface names: bytes for the kernel, text for people.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of a network interface: 1 to 15 bytes (`IFNAMSIZ` of `linux/if.h` less its NUL) without `/`, `:` and white
/// space (`dev_valid_name()` of `net/core/dev.c`). Names need not be UTF-8 and may contain control characters.
///
/// [`fmt::Display`] shows the escaped form. JSON has the name itself if it is UTF-8 without a backslash, and otherwise
/// the escaped form, so that reading it back gives the same bytes.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(Box<[u8]>);

impl Clone for IfName {
    fn clone(&self) -> IfName {
        IfName(self.0.clone())
    }

    fn clone_from(&mut self, other: &IfName) {
        // Reuses the allocation if the names have equal length, as for consecutive rows of one interface.
        self.0.clone_from(&other.0);
    }
}

impl IfName {
    /// The maximum length in bytes.
    pub const MAX_LEN: usize = 15;

    /// A name from the kernel's bytes, without the NUL.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> IfName {
        IfName(bytes.into())
    }

    /// The bytes of the kernel.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name, if it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The text of [`fmt::Display`].
    #[must_use]
    pub fn shown(&self) -> Cow<'_, str> {
        match crate::escape::plain_ascii(&self.0) {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(crate::escape::escape_bytes(&self.0)),
        }
    }

    /// Parses the escaped form of [`fmt::Display`] (`\xNN`, `\u{N}`, `\n`, `\\`); other text is used unchanged.
    #[must_use]
    pub fn from_escaped(text: &str) -> IfName {
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('\\') {
            let (plain, escape) = rest.split_at(at);
            out.extend_from_slice(plain.as_bytes());
            rest = match unescaped(escape) {
                Some((bytes, after)) => {
                    out.extend_from_slice(&bytes);
                    after
                }
                None => {
                    out.push(b'\\');
                    escape.get(1..).unwrap_or_default()
                }
            };
        }
        out.extend_from_slice(rest.as_bytes());
        IfName(out.into())
    }
}

/// The bytes of the escape at the start of `text`, and the remaining text; `None` if there is no escape.
fn unescaped(text: &str) -> Option<(Vec<u8>, &str)> {
    let after = text.get(2..)?;
    let byte = match text.as_bytes().get(1)? {
        b'\\' => b'\\',
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'x' => {
            let digits =
                after.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
            return Some((vec![u8::from_str_radix(digits, 16).ok()?], after.get(2..)?));
        }
        b'u' => {
            let (digits, after) = after.strip_prefix('{')?.split_once('}')?;
            let digits =
                Some(digits).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
            let character = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
            return Some((character.to_string().into_bytes(), after));
        }
        _ => return None,
    };
    Some((vec![byte], after))
}

impl From<&str> for IfName {
    fn from(name: &str) -> IfName {
        IfName::from_bytes(name.as_bytes())
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.shown())
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", crate::escape::escape_bytes(&self.0))
    }
}

impl Serialize for IfName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_str().filter(|name| !name.contains('\\')) {
            Some(name) => serializer.serialize_str(name),
            None => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for IfName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<IfName, D::Error> {
        Ok(IfName::from_escaped(&String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_read_back() {
        // U+0085 and the byte 0x85 are different names.
        let other = ["\u{85}", "\u{202e}x", "a\tb\r\n", "\\u{41}", "\\n", "\\xé"].map(str::as_bytes);
        let names = [&b"eth0"[..], b"\x1b[31mX\xff", b"a\\xff", b"\\", b"x\\x4", b"\x85", b"\\x+1"];
        for bytes in names.into_iter().chain(other) {
            let name = IfName::from_bytes(bytes);
            assert_eq!(IfName::from_escaped(&name.to_string()), name, "{name:?}");
        }
    }
}
