//! Names of interfaces.

use std::fmt;

/// Name of an interface: at most 15 bytes, in any encoding.
///
/// `Display` escapes bytes that are not printable ASCII: the user who created the interface chose its name.
///
/// ```
/// use ingress_interface::InterfaceName;
///
/// let name = InterfaceName::from_bytes(b"eth0").expect("short enough");
/// assert_eq!(name.to_string(), "eth0");
/// assert_eq!(name, "eth0");
/// assert_eq!(InterfaceName::from_bytes(b"a\x1b[2J").unwrap().to_string(), r"a\x1b[2J");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName {
    /// Padded with NUL.
    bytes: [u8; InterfaceName::MAX_LEN + 1],
}

impl InterfaceName {
    /// Length of the longest name in bytes (`IFNAMSIZ` without the NUL).
    pub const MAX_LEN: usize = 15;

    /// A name from its bytes, up to the first NUL. `None` if the name is empty or too long.
    ///
    /// ```
    /// use ingress_interface::InterfaceName;
    /// assert!(InterfaceName::from_bytes(b"").is_none());
    /// assert!(InterfaceName::from_bytes(b"a-very-long-interface-name").is_none());
    /// ```
    #[must_use]
    pub fn from_bytes(name: &[u8]) -> Option<InterfaceName> {
        let name = name.split(|&byte| byte == 0).next().filter(|name| !name.is_empty())?;
        let mut bytes = [0; InterfaceName::MAX_LEN + 1];
        bytes
            .get_mut(..name.len())
            .filter(|room| room.len() <= InterfaceName::MAX_LEN)?
            .copy_from_slice(name);
        Some(InterfaceName { bytes })
    }

    /// The bytes of the name.
    ///
    /// ```
    /// let name = ingress_interface::InterfaceName::from_bytes(b"eth0").unwrap();
    /// assert_eq!(name.as_bytes(), b"eth0");
    /// ```
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let length = self.bytes.iter().position(|&byte| byte == 0).unwrap_or(self.bytes.len());
        &self.bytes[..length]
    }

    /// The name as text. `None` if it is not UTF-8.
    ///
    /// ```
    /// use ingress_interface::InterfaceName;
    /// assert_eq!(InterfaceName::from_bytes(b"eth0").unwrap().to_str(), Some("eth0"));
    /// assert_eq!(InterfaceName::from_bytes(b"\xff").unwrap().to_str(), None);
    /// ```
    #[must_use]
    pub fn to_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()).ok()
    }
}

impl PartialEq<str> for InterfaceName {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for InterfaceName {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.as_bytes().escape_ascii().to_string())
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_1_to_15_bytes_are_kept() {
        let longest = b"abcdefghijklmno";
        assert_eq!(InterfaceName::from_bytes(longest).unwrap().as_bytes(), longest);
        assert_eq!(InterfaceName::from_bytes(b"abcdefghijklmnop"), None);
        assert_eq!(InterfaceName::from_bytes(b"abcdefghijklmnopq"), None);
        assert_eq!(InterfaceName::from_bytes(b"\0eth0"), None);
        assert_eq!(InterfaceName::from_bytes(b"lo\0rest").unwrap(), "lo");
    }
}
