//! Interface names: bytes to the kernel, text to a person.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of a network interface: 1 to 15 bytes (`IFNAMSIZ` of `linux/if.h` less its NUL) without `/`, `:` and white
/// space (`dev_valid_name()` of `net/core/dev.c`); they need not be UTF-8 and may hold control characters.
///
/// [`fmt::Display`] shows the escaped form. JSON holds the name itself when it is UTF-8 without a
/// backslash, and the escaped form else, so that reading it back gives the same bytes.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(Box<[u8]>);

impl Clone for IfName {
    fn clone(&self) -> IfName {
        IfName(self.0.clone())
    }

    fn clone_from(&mut self, other: &IfName) {
        // Without a new allocation where the names are equally long, as they are on one interface after the other.
        self.0.clone_from(&other.0);
    }
}

impl IfName {
    /// The longest name the kernel takes, in bytes.
    pub const MAX_LEN: usize = 15;

    /// A name from the kernel's bytes, without the NUL.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> IfName {
        IfName(bytes.into())
    }

    /// The bytes as the kernel has them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as it is, when it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Reads the escaped form that [`fmt::Display`] writes (`\xNN`, `\\`); other text is taken as it is.
    #[must_use]
    pub fn from_escaped(text: &str) -> IfName {
        let bytes = text.as_bytes();
        let mut out = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let Some((&first, tail)) = rest.split_first() {
            let (byte, tail) = match tail {
                [b'\\', after @ ..] if first == b'\\' => (b'\\', after),
                [b'x', high, low, after @ ..] if first == b'\\' => {
                    match std::str::from_utf8(&[*high, *low])
                        .ok()
                        .and_then(|hex| u8::from_str_radix(hex, 16).ok())
                    {
                        Some(byte) => (byte, after),
                        None => (first, tail),
                    }
                }
                _ => (first, tail),
            };
            out.push(byte);
            rest = tail;
        }
        IfName(out.into())
    }
}

impl From<&str> for IfName {
    fn from(name: &str) -> IfName {
        IfName::from_bytes(name.as_bytes())
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&crate::text::escape_bytes(&self.0))
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", crate::text::escape_bytes(&self.0))
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
        for bytes in [&b"eth0"[..], b"\x1b[31mX\xff", b"a\\xff", b"\\", b"x\\x4"] {
            let name = IfName::from_bytes(bytes);
            assert_eq!(IfName::from_escaped(&name.to_string()), name, "{name:?}");
        }
    }
}
