//! Addresses: family, class, exposure, and the single spelling of an address with its zone.

use std::fmt;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use serde::{Deserialize, Serialize};

use super::ifname::IfName;

/// An IP family. An IPv4-mapped address (`::ffff:a.b.c.d`) belongs to [`Family::Ipv4`], because its traffic is IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Both families, in display order.
    pub const BOTH: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// The family of the traffic of `address`: IPv4-mapped counts as IPv4.
    #[must_use]
    pub fn of(address: IpAddr) -> Family {
        if address.to_canonical().is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
    }

    /// The wildcard address of this family: `0.0.0.0` or `::`.
    #[must_use]
    pub fn wildcard(self) -> IpAddr {
        match self {
            Family::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        })
    }
}

/// Class of an address, with the RFC that defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddrClass {
    /// `0.0.0.0` or `::`.
    Unspecified,
    /// 127.0.0.0/8 (RFC 1122) or `::1` (RFC 4291).
    Loopback,
    /// 169.254.0.0/16 (RFC 3927) or fe80::/10 (RFC 4291).
    Link,
    /// RFC 1918, shared 100.64.0.0/10 (RFC 6598), ULA fc00::/7 (RFC 4193), deprecated site-local fec0::/10.
    Private,
    /// Every other unicast destination. Includes documentation prefixes, which count as the class that they represent.
    Global,
    /// 224.0.0.0/4 or ff00::/8.
    Multicast,
    /// 255.255.255.255.
    Broadcast,
    /// 0.0.0.0/8 except the wildcard, and 240.0.0.0/4: never a destination.
    Reserved,
}

impl AddrClass {
    /// Classifies `address`; an IPv4-mapped address has the class of its IPv4 address.
    #[must_use]
    pub fn of(address: IpAddr) -> AddrClass {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, ..] = v4.octets();
                match (a, b) {
                    _ if v4.is_unspecified() => AddrClass::Unspecified,
                    _ if v4.is_broadcast() => AddrClass::Broadcast,
                    (0, _) | (240.., _) => AddrClass::Reserved,
                    (127, _) => AddrClass::Loopback,
                    (169, 254) => AddrClass::Link,
                    (10, _) | (172, 16..=31) | (192, 168) | (100, 64..=127) => AddrClass::Private,
                    (224..=239, _) => AddrClass::Multicast,
                    _ => AddrClass::Global,
                }
            }
            IpAddr::V6(v6) => match v6.segments()[0] {
                _ if v6.is_unspecified() => AddrClass::Unspecified,
                _ if v6.is_loopback() => AddrClass::Loopback,
                0xfe80..=0xfebf => AddrClass::Link,
                0xfec0..=0xfeff | 0xfc00..=0xfdff => AddrClass::Private,
                0xff00..=0xffff => AddrClass::Multicast,
                _ => AddrClass::Global,
            },
        }
    }
}

impl AddrClass {
    /// The name in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            AddrClass::Unspecified => "unspecified",
            AddrClass::Loopback => "loopback",
            AddrClass::Link => "link",
            AddrClass::Private => "private",
            AddrClass::Global => "global",
            AddrClass::Multicast => "multicast",
            AddrClass::Broadcast => "broadcast",
            AddrClass::Reserved => "reserved",
        }
    }
}

impl fmt::Display for AddrClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether `address` is in fe80::/10, whose addresses need a zone (RFC 4007).
#[must_use]
pub fn needs_zone(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The widest class of local address at which another host can reach a socket, in one family. Ordered from narrow to
/// wide. Firewalls are not considered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exposure {
    /// No client, not even this host.
    #[default]
    None,
    /// Only this host.
    Loopback,
    /// Hosts on a directly attached link.
    Link,
    /// Hosts of private networks (RFC 1918, ULA, shared 100.64/10).
    Private,
    /// Every host.
    Global,
}

/// Whether the address is IPv4-mapped (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2).
#[must_use]
pub fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

impl Exposure {
    /// The exposure of a socket bound to an address of this class.
    #[must_use]
    pub fn of(class: AddrClass) -> Exposure {
        match class {
            AddrClass::Loopback => Exposure::Loopback,
            AddrClass::Link => Exposure::Link,
            AddrClass::Private => Exposure::Private,
            AddrClass::Global => Exposure::Global,
            AddrClass::Unspecified | AddrClass::Multicast | AddrClass::Broadcast | AddrClass::Reserved => {
                Exposure::None
            }
        }
    }
}

impl Exposure {
    /// The name in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Exposure::None => "none",
            Exposure::Loopback => "loopback",
            Exposure::Link => "link",
            Exposure::Private => "private",
            Exposure::Global => "global",
        }
    }

    /// Who can reach the socket, in the words that every command shows to people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Exposure::None => "not reachable",
            Exposure::Loopback => "this host only",
            Exposure::Link => "same link",
            Exposure::Private => "private networks",
            Exposure::Global => "anywhere",
        }
    }
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The exposure of a socket in each family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FamilyExposure {
    /// Exposure to IPv4 clients.
    pub ipv4: Exposure,
    /// Exposure to IPv6 clients.
    pub ipv6: Exposure,
}

impl FamilyExposure {
    /// The wider of the two.
    #[must_use]
    pub fn widest(self) -> Exposure {
        self.ipv4.max(self.ipv6)
    }
}

/// The text of an address for people: RFC 5952, IPv4-mapped as IPv4, and with `%zone` if a zone is given and needed.
#[must_use]
pub fn text(address: IpAddr, zone: Option<&IfName>) -> String {
    let mut out = Vec::with_capacity(if address.is_ipv4() { 15 } else { 40 });
    push_text(&mut out, address, zone);
    String::from_utf8(out).unwrap_or_default()
}

/// Displays [`text`] without an intermediate string.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a>(pub IpAddr, pub Option<&'a IfName>);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.to_canonical() {
            IpAddr::V4(v4) => {
                let (text, length) = decimal(v4);
                f.write_str(std::str::from_utf8(&text[..length]).unwrap_or_default())
            }
            canonical => f.write_str(&text(canonical, self.1)),
        }
    }
}

/// Appends [`text`] to `out`.
pub fn push_text(out: &mut Vec<u8>, address: IpAddr, zone: Option<&IfName>) {
    let canonical = address.to_canonical();
    push(out, canonical);
    if let Some(zone) = zone.filter(|_| needs_zone(canonical)) {
        out.push(b'%');
        crate::escape::push_bytes(out, zone.as_bytes());
    }
}

/// Appends the text of an address to `out`.
pub fn push(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            let (text, length) = decimal(v4);
            out.extend_from_slice(&text[..length]);
        }
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
}

/// The text of an IPv4 address, and its length in bytes. Hand-written because every connection needs it: the standard
/// library takes about ten times the instructions (`cargo bench --bench cost`).
fn decimal(v4: Ipv4Addr) -> ([u8; 15], usize) {
    let mut text = [0; 15];
    let mut length = 0;
    for (number, octet) in v4.octets().into_iter().enumerate() {
        if number > 0 {
            text[length] = b'.';
            length += 1;
        }
        if octet >= 100 {
            text[length] = b'0' + octet / 100;
            length += 1;
        }
        if octet >= 10 {
            text[length] = b'0' + octet / 10 % 10;
            length += 1;
        }
        text[length] = b'0' + octet % 10;
        length += 1;
    }
    (text, length)
}

/// Appends [`text_with_port`] to `out`.
pub fn push_with_port(out: &mut Vec<u8>, address: IpAddr, zone: Option<&IfName>, port: u16) {
    let address = address.to_canonical();
    if address.is_ipv6() {
        out.push(b'[');
    }
    push_text(out, address, zone);
    if address.is_ipv6() {
        out.push(b']');
    }
    out.push(b':');
    out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
}

/// The text of an address with a port for people: `192.0.2.1:80`, `[fe80::1%eth0]:80`.
#[must_use]
pub fn text_with_port(address: IpAddr, zone: Option<&IfName>, port: u16) -> String {
    let mut out = Vec::new();
    push_with_port(&mut out, address, zone, port);
    String::from_utf8_lossy(&out).into_owned()
}

/// The socket address of an address: a zone is for IPv6 only, and 0 without one.
#[must_use]
pub fn socket_addr(address: IpAddr, port: u16, zone: u32) -> SocketAddr {
    match address {
        IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, zone).into(),
        IpAddr::V4(v4) => (v4, port).into(),
    }
}

/// Whether sockets bound to these two addresses can receive the same packets (`inet_rcv_saddr_equal()` of
/// `net/ipv4/inet_connection_sock.c`). Each address has its IPV6_V6ONLY; an unknown value counts as off.
#[must_use]
pub fn overlap(
    (one, one_v6only): (IpAddr, Option<bool>),
    (other, other_v6only): (IpAddr, Option<bool>),
) -> bool {
    let (one, other) = (one.to_canonical(), other.to_canonical());
    match (one, other) {
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
            one == other || one.is_unspecified() || other.is_unspecified()
        }
        (IpAddr::V4(_), IpAddr::V6(v6)) => v6.is_unspecified() && other_v6only != Some(true),
        (IpAddr::V6(v6), IpAddr::V4(_)) => v6.is_unspecified() && one_v6only != Some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(text: &str) -> AddrClass {
        AddrClass::of(text.parse().unwrap())
    }

    #[test]
    fn classes_follow_their_rfcs() {
        for (expected, addresses) in [
            (AddrClass::Unspecified, vec!["0.0.0.0", "::", "::ffff:0.0.0.0"]),
            (AddrClass::Loopback, vec!["127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1"]),
            (AddrClass::Link, vec!["169.254.0.1", "fe80::1", "febf::1"]),
            (
                AddrClass::Private,
                vec![
                    "10.0.0.1",
                    "172.16.0.1",
                    "172.31.255.1",
                    "192.168.0.1",
                    "100.64.0.1",
                    "100.127.0.1",
                    "fd00::1",
                    "fc00::1",
                    "fec0::1",
                ],
            ),
            (
                AddrClass::Global,
                vec![
                    "192.0.2.1",
                    "198.51.100.1",
                    "8.8.8.8",
                    "172.32.0.1",
                    "100.128.0.1",
                    "2001:db8::1",
                    "2000::1",
                    "64:ff9b::1",
                ],
            ),
            (AddrClass::Multicast, vec!["224.0.0.1", "239.1.1.1", "ff02::1"]),
            (AddrClass::Broadcast, vec!["255.255.255.255"]),
            (AddrClass::Reserved, vec!["0.1.2.3", "240.0.0.1"]),
        ] {
            for address in addresses {
                assert_eq!(class(address), expected, "{address}");
            }
        }
    }

    #[test]
    fn exposure_is_ordered_from_narrow_to_wide() {
        assert!(Exposure::None < Exposure::Loopback);
        assert!(Exposure::Loopback < Exposure::Link);
        assert!(Exposure::Link < Exposure::Private);
        assert!(Exposure::Private < Exposure::Global);
    }

    #[test]
    fn only_link_local_text_carries_a_zone() {
        let eth0 = IfName::from("eth0");
        assert_eq!(text("fe80::1".parse().unwrap(), Some(&eth0)), "fe80::1%eth0");
        assert_eq!(text("2001:db8::1".parse().unwrap(), Some(&eth0)), "2001:db8::1");
        assert_eq!(text_with_port("fe80::1".parse().unwrap(), Some(&eth0), 80), "[fe80::1%eth0]:80");
        assert_eq!(text_with_port("::ffff:192.0.2.1".parse().unwrap(), None, 80), "192.0.2.1:80");
    }
}
