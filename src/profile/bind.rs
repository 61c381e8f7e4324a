//! The value of `bind` of a listener: an address, loopback, or the addresses of interfaces. The types and their parser.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use toml::de::{DeTable, DeValue};

use super::value::{Problems, Value, one_or_many, text, texts};
use crate::code::Code;
use crate::model::addr::needs_zone;
use crate::model::{AddrClass, Family, IfName};

/// The target of a bind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Bind {
    /// 127.0.0.1 and `::1`.
    Loopback,
    /// One address.
    Address {
        /// The address passed to bind(2).
        address: IpAddr,
        /// Zone of a link-local address: an interface name, or an interface index in digits.
        zone: Option<IfName>,
    },
    /// Every address that matches; each gets a separate socket.
    Interface(Selector),
    /// Several targets.
    Each(Vec<Bind>),
}

/// Selects addresses by their interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selector {
    /// Names of interfaces as [`crate::model::IfName::from_escaped`] reads them; `*` stands for any bytes and `?` for one.
    pub interfaces: Vec<String>,
    /// Address family; `None` selects both.
    pub family: Option<Family>,
    /// Scope of the addresses.
    pub scope: Scope,
}

/// Scope of the selected interface addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Scope {
    /// All addresses.
    #[default]
    Any,
    /// Addresses that ip-address(8) shows as `scope global`: neither link-local nor loopback. Includes private
    /// addresses.
    Global,
    /// Private addresses: RFC 1918, shared 100.64/10, ULA.
    Private,
    /// Link-local addresses.
    Link,
    /// 127.0.0.0/8 and `::1`.
    Loopback,
}

impl Scope {
    /// Spellings of the scopes.
    pub(super) const WORDS: &'static [&'static str] = &["any", "global", "private", "link", "loopback"];

    pub(super) fn from_word(word: &str) -> Option<Scope> {
        Some(match word {
            "any" => Scope::Any,
            "global" => Scope::Global,
            "private" => Scope::Private,
            "link" => Scope::Link,
            "loopback" => Scope::Loopback,
            _ => return None,
        })
    }

    /// Whether the scope includes an address of this class.
    #[must_use]
    pub fn has(self, class: AddrClass) -> bool {
        match self {
            Scope::Any => true,
            Scope::Global => matches!(class, AddrClass::Global | AddrClass::Private),
            Scope::Private => class == AddrClass::Private,
            Scope::Link => class == AddrClass::Link,
            Scope::Loopback => class == AddrClass::Loopback,
        }
    }
}

/// Whether `name` matches `pattern`, in which `*` stands for any bytes and `?` for one character, or for one byte that is not part of
/// a character. The time is at most proportional to the product of the lengths.
#[must_use]
pub fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(b'?') => {
                p += 1;
                n += 1;
                // The other bytes of the character in UTF-8.
                while name.get(n).is_some_and(|byte| byte & 0xc0 == 0x80) {
                    n += 1;
                }
            }
            Some(&byte) if byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    p = star + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// A problem with the text of an address: code, message, fix.
pub(super) type Wrong = (Code, String, String);

/// Parses an address, with `%zone` if it needs one.
pub(super) fn address(text: &str) -> Result<(IpAddr, Option<IfName>), Wrong> {
    let (literal, zone) = match text.split_once('%') {
        Some((literal, zone)) => (literal, Some(zone)),
        None => (text, None),
    };
    let Ok(address) = literal.parse::<IpAddr>() else { return Err(not_an_address(text)) };
    match zone {
        None if needs_zone(address) => Err((
            Code::BAD_ZONE,
            format!("{address} has no zone: every interface has its own fe80::/10"),
            format!(
                "write \"{address}%eth0\" with the name of the interface, or {{ interface = \"eth0\", family = \"ipv6\", scope = \"link\" }}"
            ),
        )),
        None => Ok((address, None)),
        Some(_) if !needs_zone(address) && !is_scoped_multicast(address) => Err((
            Code::BAD_ZONE,
            format!("{address} has a zone, but only link-local addresses have one"),
            format!("write \"{address}\"; `device = ...` restricts a socket to an interface"),
        )),
        Some(zone) => interface_name(zone).map(|zone| (address, Some(zone))).map_err(|reason| {
            (Code::BAD_ZONE, format!("the zone of {address} {reason}"), ZONE_HELP.to_owned())
        }),
    }
}

const ZONE_HELP: &str = "write the name of an interface after the %, or its index";

fn is_scoped_multicast(address: IpAddr) -> bool {
    // ff01::/16 is interface-local, ff02::/16 link-local (RFC 4291 section 2.7).
    matches!(address, IpAddr::V6(v6) if matches!(v6.segments()[0] & 0xff0f, 0xff01 | 0xff02))
}

/// The reason why `text` is not an address, and a suggestion.
fn not_an_address(text: &str) -> Wrong {
    let shown: String = text.chars().take(64).collect();
    let wrong = |message: String, help: &str| (Code::BAD_ADDRESS, message, help.to_owned());
    let ambiguous = |message: String, help: &str| (Code::AMBIGUOUS_BIND, message, help.to_owned());
    if let Some((inside, tail)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        if let Some((port, zone)) = tail.strip_prefix(':').and_then(|tail| tail.split_once('%')) {
            return (
                Code::BAD_ZONE,
                format!("\"{shown}\" has its zone after the port"),
                format!(
                    "write [{inside}%{zone}]:{port}, as an address with a port: the zone belongs to the address"
                ),
            );
        }
        let help = match tail.strip_prefix(':') {
            Some(port) => format!("write bind = \"{inside}\" and port = {port}"),
            None => format!("write \"{inside}\" without brackets"),
        };
        return wrong(format!("\"{shown}\" is not an address alone"), &help);
    }
    if let Some(address) = octal(text) {
        let (decimal, octal) = address;
        return ambiguous(
            format!("\"{shown}\" has leading zeros: it can be read as {decimal} or, in octal, as {octal}"),
            "write the numbers without leading zeros",
        );
    }
    if let Some(address) = short_form(text) {
        return ambiguous(
            format!(
                "\"{shown}\" is an IPv4 address with too few numbers; some programs read it as {address}"
            ),
            &format!("write all four numbers, such as \"{address}\""),
        );
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && host.parse::<Ipv4Addr>().is_ok()
    {
        return wrong(
            format!("\"{shown}\" is an address with a port"),
            &format!("write bind = \"{host}\" and port = {port}"),
        );
    }
    match text {
        "*" | "any" | "all" => ambiguous(
            format!("\"{shown}\" can be read as 0.0.0.0, as :: or as both"),
            "write \"0.0.0.0\" for IPv4, \"::\" for IPv6, or \"::\" with v6only = false for both",
        ),
        "localhost" => ambiguous(
            "\"localhost\" can be read as 127.0.0.1 or as ::1".to_owned(),
            "write \"loopback\" for both, or one of the two addresses",
        ),
        _ if interface_name(text).is_ok() && !text.contains(':') => wrong(
            format!("\"{shown}\" is not an address; names are not resolved"),
            &format!("for the addresses of an interface write {{ interface = \"{shown}\" }}"),
        ),
        _ => wrong(
            format!("\"{shown}\" is not an address"),
            "write an IPv4 or IPv6 address, \"loopback\", or { interface = \"eth0\" }",
        ),
    }
}

/// The two interpretations of an IPv4 address with leading zeros.
fn octal(text: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let parts: Vec<&str> = text.split('.').collect();
    let digits =
        |part: &&str| !part.is_empty() && part.len() < 9 && part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.len() != 4
        || !parts.iter().all(digits)
        || !parts.iter().any(|part| part.len() > 1 && part.starts_with('0'))
    {
        return None;
    }
    let read = |radix_of: &dyn Fn(&str) -> u32| {
        let mut octets = [0; 4];
        for (octet, part) in octets.iter_mut().zip(&parts) {
            *octet = u8::from_str_radix(part, radix_of(part)).ok()?;
        }
        Some(Ipv4Addr::from(octets))
    };
    let decimal = read(&|_| 10)?;
    let octal = read(&|part| if part.len() > 1 && part.starts_with('0') { 8 } else { 10 })?;
    Some((decimal, octal))
}

/// The interpretation by inet_aton(3) of fewer than four numbers: the last number fills the remaining bytes.
fn short_form(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u32> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let (last, first) = parts.split_last().filter(|(_, first)| (1..3).contains(&first.len()))?;
    let room = 32 - 8 * u32::try_from(first.len()).ok()?;
    if u64::from(*last) >> room != 0 || text.contains('+') {
        return None;
    }
    let mut bits = *last;
    for (place, &part) in first.iter().enumerate() {
        bits |= u32::from(u8::try_from(part).ok()?) << (24 - 8 * place);
    }
    Some(Ipv4Addr::from(bits))
}

/// The interface name in a text, if the kernel accepts such a name (`dev_valid_name()` of net/core/dev.c). Bytes that
/// are not text are written in displayed form: `\xff`.
///
/// # Errors
/// The problem, as the end of a sentence.
pub(super) fn interface_name(text: &str) -> Result<IfName, String> {
    let name = IfName::from_escaped(text);
    let bytes = name.as_bytes();
    if bytes.is_empty() {
        return Err("is empty".to_owned());
    }
    if bytes.len() > IfName::MAX_LEN {
        return Err(format!(
            "is {} bytes long, but no interface has a name of more than {}",
            bytes.len(),
            IfName::MAX_LEN
        ));
    }
    if bytes == b"." || bytes == b".." || bytes.iter().any(|b| matches!(b, 0 | b'/' | b':' | b' ' | 9..=13)) {
        return Err("contains a character that is not allowed in interface names".to_owned());
    }
    Ok(name)
}

/// Like [`interface_name`], and also accepts an IPv4 label such as `eth0:1`, so that a plan can name the address that has it.
///
/// # Errors
/// Those of [`interface_name`].
pub(super) fn name_or_label(text: &str) -> Result<IfName, String> {
    let label = text.split_once(':').filter(|(name, number)| {
        interface_name(name).is_ok()
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_alphanumeric())
    });
    match label {
        Some(_) if text.len() <= IfName::MAX_LEN => Ok(IfName::from_escaped(text)),
        _ => interface_name(text),
    }
}

/// A link-local address without a zone, in a text; the device of its listener can supply the zone.
pub(super) fn without_zone(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().filter(|address| needs_zone(*address))
}

/// Parses the value of `bind`; adds problems if it is invalid. `device` is the zone of link-local addresses without one.
pub(super) fn read(value: &Value<'_>, device: Option<&IfName>, problems: &mut Problems) -> Option<Bind> {
    let mut binds = Vec::new();
    let mut seen = HashSet::new();
    for value in one_or_many(value) {
        let one = match value.get_ref() {
            DeValue::String(text) => from_text(text, value, device, problems),
            DeValue::Table(table) => selector(table, problems).map(Bind::Interface),
            _ => None,
        };
        if let Some(bind) = one {
            if !seen.insert(bind.clone()) {
                problems.add(Code::DUPLICATE_NAME, value.span(), "this is in the list already");
            }
            binds.push(bind);
        }
    }
    if binds.len() > 1 { Some(Bind::Each(binds)) } else { binds.pop() }
}

fn from_text(
    text: &str,
    value: &Value<'_>,
    device: Option<&IfName>,
    problems: &mut Problems,
) -> Option<Bind> {
    if let (Some(address), Some(device)) = (without_zone(text), device) {
        return Some(Bind::Address { address, zone: Some(device.clone()) });
    }
    match text {
        "" => None,
        "loopback" => Some(Bind::Loopback),
        _ => match address(text) {
            Ok((address, zone)) => Some(Bind::Address { address, zone }),
            Err((code, message, help)) => {
                let _ = problems.add(code, value.span(), message).help(help);
                None
            }
        },
    }
}

fn selector(table: &DeTable<'_>, problems: &mut Problems) -> Option<Selector> {
    let value = table.get("interface")?;
    for value in one_or_many(value) {
        let Some(name) = value.get_ref().as_str().filter(|name| !name.is_empty() && !name.contains('*'))
        else {
            continue;
        };
        if let Err(reason) = name_or_label(name) {
            problems.add(Code::BAD_INTERFACE, value.span(), format!("\"{name}\" {reason}"));
        }
    }
    let family = match text(table, "family") {
        Some("ipv4") => Some(Family::Ipv4),
        Some("ipv6") => Some(Family::Ipv6),
        _ => None,
    };
    let scope = text(table, "scope").and_then(Scope::from_word).unwrap_or_default();
    Some(Selector { interfaces: texts(table, "interface"), family, scope })
}

impl Bind {
    /// The single targets of this bind.
    pub fn parts(&self) -> &[Bind] {
        match self {
            Bind::Each(parts) => parts,
            one => std::slice::from_ref(one),
        }
    }

    /// The addresses of [`Bind::Loopback`].
    pub const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_names() {
        for (pattern, name, expected) in [
            ("*", "eth0", true),
            ("eth*", "eth0", true),
            ("e*h?", "eth0", true),
            ("eth", "eth0", false),
            ("*0", "eth00", true),
            ("", "", true),
            ("?", "", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYb", false),
            ("lo*", "all", false),
            ("**", "x", true),
            ("a?c", "a\u{e9}c", true),
            ("a??c", "a\u{e9}c", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn every_invalid_address_has_a_suggestion() {
        for (text, code, help) in [
            ("fe80::1", Code::BAD_ZONE, "fe80::1%eth0"),
            ("[fe80::1]:80%eth0", Code::BAD_ZONE, "[fe80::1%eth0]:80"),
            ("127.0.0.1%lo", Code::BAD_ZONE, "127.0.0.1"),
            ("0127.0.0.1", Code::AMBIGUOUS_BIND, "without leading zeros"),
            ("127.1", Code::AMBIGUOUS_BIND, "127.0.0.1"),
            ("*", Code::AMBIGUOUS_BIND, "0.0.0.0"),
            ("localhost", Code::AMBIGUOUS_BIND, "loopback"),
            ("eth0", Code::BAD_ADDRESS, "{ interface = \"eth0\" }"),
            ("127.0.0.1:80", Code::BAD_ADDRESS, "port = 80"),
            ("[::1]:80", Code::BAD_ADDRESS, "port = 80"),
            ("fe80::1%0123456789abcdef", Code::BAD_ZONE, "index"),
        ] {
            let (found, message, hint) = address(text).unwrap_err();
            assert_eq!(found, code, "{text}: {message}");
            assert!(hint.contains(help), "{text}: {hint}");
        }
        assert_eq!(octal("0127.0.0.1").unwrap().1, Ipv4Addr::new(87, 0, 0, 1));
        assert!(address("fe80::1%99").is_ok() && address("ff02::1%eth0").is_ok());
    }
}
