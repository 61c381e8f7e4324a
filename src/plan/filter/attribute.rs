//! Netlink attributes, read strictly: what does not fit is an error, never a guess.

/// What is wrong with the attributes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub String);

/// A result of reading attributes.
pub type Read<T> = Result<T, Malformed>;

/// Shorthand for an error.
pub fn malformed<T>(what: impl Into<String>) -> Read<T> {
    Err(Malformed(what.into()))
}

/// Length of `struct nlattr`.
const HEADER: usize = 4;
/// The bits of a type that are not flags (`NLA_TYPE_MASK` of `linux/netlink.h`).
const TYPE_MASK: u16 = 0x3fff;
/// More attributes than any object has, except a list.
const MOST: usize = 1 << 21;

/// The attributes of one level.
#[derive(Debug, Clone, Default)]
pub struct Attributes<'a> {
    all: Vec<(u16, &'a [u8])>,
}

impl<'a> Attributes<'a> {
    /// Splits `bytes` into attributes.
    pub fn read(mut bytes: &'a [u8]) -> Read<Attributes<'a>> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let (Some(&[l0, l1]), Some(&[t0, t1])) = (bytes.get(..2), bytes.get(2..HEADER)) else {
                return malformed("an attribute is cut off");
            };
            let length = usize::from(u16::from_ne_bytes([l0, l1]));
            if length < HEADER || length > bytes.len() {
                return malformed(format!(
                    "an attribute has length {length}, {} bytes are left",
                    bytes.len()
                ));
            }
            if all.len() == MOST {
                return malformed("too many attributes");
            }
            all.push((u16::from_ne_bytes([t0, t1]) & TYPE_MASK, &bytes[HEADER..length]));
            bytes = bytes.get(length.next_multiple_of(HEADER)..).unwrap_or_default();
        }
        Ok(Attributes { all })
    }

    /// Each attribute with its type.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &'a [u8])> + '_ {
        self.all.iter().copied()
    }

    /// The bytes of the attribute of this type, if there is one.
    pub fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.all.iter().find(|(one, _)| *one == kind).map(|(_, bytes)| *bytes)
    }

    /// The bytes of the attribute of this type.
    pub fn need(&self, kind: u16, name: &str) -> Read<&'a [u8]> {
        self.get(kind).ok_or_else(|| Malformed(format!("{name} is missing")))
    }

    /// A big-endian number, if it is there.
    pub fn number(&self, kind: u16, name: &str) -> Read<Option<u32>> {
        let Some(bytes) = self.get(kind) else { return Ok(None) };
        match bytes {
            [one] => Ok(Some(u32::from(*one))),
            [a, b] => Ok(Some(u32::from(u16::from_be_bytes([*a, *b])))),
            [a, b, c, d] => Ok(Some(u32::from_be_bytes([*a, *b, *c, *d]))),
            _ => malformed(format!("{name} has {} bytes", bytes.len())),
        }
    }

    /// A big-endian number.
    pub fn need_number(&self, kind: u16, name: &str) -> Read<u32> {
        self.number(kind, name)?.ok_or_else(|| Malformed(format!("{name} is missing")))
    }

    /// A text that ends with a zero byte or with the attribute, if it is there.
    pub fn text(&self, kind: u16) -> Option<String> {
        self.get(kind).map(text)
    }

    /// The attributes inside of one.
    pub fn nested(&self, kind: u16) -> Read<Attributes<'a>> {
        Attributes::read(self.get(kind).unwrap_or_default())
    }
}

/// The text before the first zero byte.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn cut_and_overlong_attributes_are_errors() {
        let good = [8, 0, 1, 0, 0, 0, 0, 7, 5, 0, 2, 0, 9];
        let read = Attributes::read(&good).unwrap();
        assert_eq!(read.number(1, "x").unwrap(), Some(7));
        assert_eq!(read.get(2), Some(&[9][..]));
        for end in [1, 2, 3, 5, 7, 9, 12] {
            assert!(Attributes::read(&good[..end]).is_err(), "{end}");
        }
        assert!(Attributes::read(&[3, 0, 1, 0]).is_err());
        assert!(Attributes::read(&[0, 0, 0, 0]).is_err());
        assert!(Attributes::read(&[9, 0, 1, 0, 0, 0, 0, 0]).is_err());
    }
}
