//! What of a dumped ruleset may be replayed: an allow list of attributes, expressions and extensions, each with its size. A
//! snapshot may come from any source, and nf_tables is asked with privileges over the copy's network. What is not known is refused
//! with its name.
//!
//! The messages are rebuilt on the way, without what belongs to the original alone: handles, use counts, counters, owners. Rate
//! limits are taken out, since the probes of a lab would use them up.

mod tables;

use std::collections::BTreeSet;

use tables::{CHAIN, DATA, ELEMENTS, EXPRESSIONS, LIST, OBJECT, RULE, SET, TABLE, object_data};
pub use tables::{MATCHES, TARGETS};

use super::super::netlink::{attribute, attributes, read, until_nul};
use crate::model::ruleset::{NftFamily, NftKind, NftObject};

/// The deepest nesting of expressions in expressions.
const DEEPEST: u32 = 4;
/// The longest value of a plain attribute, such as a register's data, a name or a comment.
const LONGEST: usize = 256;
/// The longest data of an xt match or target.
const LONGEST_INFO: usize = 4096;
/// The most elements that a set may announce: some kinds of set make a table of this size at once.
const MOST_ANNOUNCED: u32 = 1 << 22;
/// Flags of an attribute's type.
const TYPE: u16 = 0x3fff;

/// A message that may be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// The attributes.
    pub attributes: Vec<u8>,
    /// Names of the sets that a rule refers to.
    pub sets: BTreeSet<String>,
    /// The attribute with the protocol that extensions of xt want, where the rule has any.
    pub compat: Option<[u8; 20]>,
    /// Why the rule does not mean in a copy what it means in the original.
    pub unfaithful: BTreeSet<&'static str>,
    /// Whether a rule answers with an error.
    pub rejects: bool,
    /// Whether a rate limit was taken out.
    pub limited: bool,
    /// Whether the rule never matches without its rate limit: an inverted limit.
    pub never: bool,
}

/// Whether a stateful object is an inverted rate limit.
type Limits<'a> = &'a dyn Fn(&[u8]) -> Option<bool>;

/// Prepares an object for a replay. `limit` says of a stateful object of the same table, by its name, whether it
/// is a rate limit that is inverted; `None` for what is not a rate limit.
///
/// # Errors
/// What is not known, in words.
pub fn prepare(object: &NftObject, limit: Limits<'_>) -> Result<Prepared, String> {
    let mut walk = Walk { family: object.family, limit, prepared: Prepared::default() };
    let mut out = Vec::new();
    let table = match object.kind {
        NftKind::Table => TABLE,
        NftKind::Chain => CHAIN,
        NftKind::Rule => RULE,
        NftKind::Set => SET,
        NftKind::Element => ELEMENTS,
        NftKind::Object => OBJECT,
        NftKind::Flowtable => return Err("flow tables are not copied".to_owned()),
    };
    walk.copy(&object.attributes, table, "the message", 0, &mut out)?;
    walk.prepared.attributes = out;
    Ok(walk.prepared)
}

/// How an attribute is copied.
#[derive(Clone, Copy)]
enum Shape {
    /// Not at all.
    Drop,
    /// As it is, up to the longest value.
    Plain,
    /// Flags of 32 bits, of which only these are kept.
    Flags(u32),
    /// A number of elements.
    Announced,
    /// A list of attributes.
    Nest(&'static [(u16, Shape)]),
    /// One expression.
    Expression,
    /// A list of expressions, in which rate limits are taken out.
    Rule,
    /// The data of a stateful object, whose type another attribute has.
    Object,
    /// As it is, up to 64 KiB: nested lists of a conntrack timeout.
    Opaque,
}

struct Walk<'a> {
    family: NftFamily,
    limit: Limits<'a>,
    prepared: Prepared,
}

impl Walk<'_> {
    /// Appends a copy of the attributes in `bytes`, each of which must be in `table`.
    fn copy(
        &mut self,
        bytes: &[u8],
        table: &[(u16, Shape)],
        what: &str,
        depth: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        if depth > DEEPEST * 3 {
            return Err(format!("{what} is nested too deeply"));
        }
        for found in strictly(bytes) {
            let (kind, value) = found.ok_or_else(|| format!("{what} is cut short"))?;
            let number = kind & TYPE;
            let Some((_, shape)) = table.iter().find(|(known, _)| *known == number) else {
                return Err(format!("attribute {number} of {what} is not known"));
            };
            match shape {
                Shape::Drop => {}
                Shape::Plain => {
                    if value.len() > LONGEST {
                        return Err(format!("attribute {number} of {what} is too long"));
                    }
                    out.extend(attribute(kind, value));
                }
                Shape::Flags(kept) => {
                    let flags = word(value).ok_or_else(|| format!("flags of {what} are cut short"))?;
                    // As the kernel, which leaves out flags without a bit.
                    if flags & kept != 0 {
                        out.extend(attribute(kind, &(flags & kept).to_be_bytes()));
                    }
                }
                Shape::Announced => {
                    if word(value).is_none_or(|size| size > MOST_ANNOUNCED) {
                        return Err(format!("{what} announces more than {MOST_ANNOUNCED} elements"));
                    }
                    out.extend(attribute(kind, value));
                }
                Shape::Nest(inner) => {
                    let mut nested = Vec::new();
                    self.copy(value, inner, what, depth + 1, &mut nested)?;
                    nest(kind, &nested, what, out)?;
                }
                Shape::Expression => nest(kind, &self.expression(value, depth + 1)?, what, out)?,
                Shape::Rule => {
                    let mut nested = Vec::new();
                    for found in strictly(value) {
                        let (element, value) = found.ok_or_else(|| format!("{what} is cut short"))?;
                        if element & TYPE != 1 {
                            return Err(format!("a list of expressions has attribute {}", element & TYPE));
                        }
                        if self.neutral(value)? {
                            continue;
                        }
                        nest(element, &self.expression(value, depth + 1)?, what, &mut nested)?;
                    }
                    self.prepared.compat = compat(value);
                    nest(kind, &nested, what, out)?;
                }
                Shape::Object => {
                    let of = attributes(bytes).find(|(kind, _)| *kind == 3).and_then(|(_, kind)| word(kind));
                    let known = of.and_then(object_data);
                    let known = known.ok_or_else(|| "this kind of object is not known".to_owned())?;
                    let mut nested = Vec::new();
                    self.copy(value, known, what, depth + 1, &mut nested)?;
                    nest(kind, &nested, what, out)?;
                }
                Shape::Opaque => nest(kind, value, what, out)?,
            }
        }
        Ok(())
    }

    /// A copy of one expression.
    fn expression(&mut self, bytes: &[u8], depth: u32) -> Result<Vec<u8>, String> {
        if depth > DEEPEST {
            return Err("expressions are nested too deeply".to_owned());
        }
        let (name, data) = named(bytes)?;
        let shown = crate::escape::escape(&String::from_utf8_lossy(name));
        let Some((_, most, values, dropped)) = EXPRESSIONS.iter().find(|known| known.0.as_bytes() == name)
        else {
            return Err(format!("the expression {shown} is not known"));
        };
        let what = format!("the expression {shown}");
        let mut inner = Vec::new();
        for found in strictly(data) {
            let (kind, value) = found.ok_or_else(|| format!("{what} is cut short"))?;
            let number = kind & TYPE;
            if number == 0 || number > *most {
                return Err(format!("attribute {number} of {what} is not known"));
            }
            match (*known_name(name), number) {
                _ if dropped.contains(&number) => {}
                // The kernel dumps flags of a write to a TCP option, and refuses them (`nft_exthdr_tcp_set_init()`).
                ("exthdr", 5) if attributes(data).any(|(kind, _)| kind == 7) => {}
                _ if values.contains(&number) => {
                    let mut nested = Vec::new();
                    self.copy(value, DATA, &what, depth + 1, &mut nested)?;
                    nest(kind, &nested, &what, &mut inner)?;
                }
                ("dynset", 7) | ("inner", 5) => {
                    nest(kind, &self.expression(value, depth + 1)?, &what, &mut inner)?;
                }
                ("dynset", 10) => {
                    let mut nested = Vec::new();
                    self.copy(value, LIST, &what, depth + 1, &mut nested)?;
                    nest(kind, &nested, &what, &mut inner)?;
                }
                ("match" | "target", 3) if value.len() <= LONGEST_INFO => {
                    inner.extend(attribute(kind, value))
                }
                _ if value.len() <= LONGEST => inner.extend(attribute(kind, value)),
                _ => return Err(format!("attribute {number} of {what} is too long")),
            }
        }
        self.look_at(name, data)?;
        let mut out = attribute(1, &[name, &[0]].concat());
        nest(2 | NESTED, &inner, &what, &mut out)?;
        Ok(out)
    }

    /// Whether an expression of a rule is left out of the copy, which means the same or is noted: rate limits, and offloading
    /// to a flow table, which only shortens the path of established connections.
    fn neutral(&mut self, bytes: &[u8]) -> Result<bool, String> {
        let (name, data) = named(bytes)?;
        let find = |wanted: u16| attributes(data).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let number = |wanted: u16| find(wanted).and_then(word);
        let inverted = match name {
            b"flow_offload" => return Ok(true),
            b"limit" => number(5).unwrap_or(0) & 1 != 0,
            // NFT_OBJECT_LIMIT, by its name.
            b"objref" if number(1) == Some(4) => {
                match find(2).and_then(|name| (self.limit)(until_nul(name))) {
                    Some(inverted) => inverted,
                    None => return Ok(false),
                }
            }
            b"match" => match (find(1).map(until_nul), number(2)) {
                (Some(b"limit"), _) => false,
                (Some(b"hashlimit"), revision) => {
                    // `mode` of `struct hashlimit_cfg*` behind a name of IFNAMSIZ or NAME_MAX bytes; XT_HASHLIMIT_INVERT.
                    let at = if revision == Some(1) { 16 } else { 256 + 16 };
                    let mode = find(3).and_then(|info| read(info, at)).map(u32::from_ne_bytes);
                    mode.ok_or_else(|| "the match hashlimit is cut short".to_owned())? & 16 != 0
                }
                _ => return Ok(false),
            },
            _ => return Ok(false),
        };
        self.prepared.limited = true;
        self.prepared.never |= inverted;
        Ok(true)
    }

    /// Notes what an expression refers to, and what it asks that has another answer in a copy.
    fn look_at(&mut self, name: &[u8], data: &[u8]) -> Result<(), String> {
        let find = |wanted: u16| attributes(data).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let number = |wanted: u16| find(wanted).and_then(word);
        let set = match name {
            b"lookup" | b"dynset" => find(1),
            b"objref" => find(4),
            b"hash" => find(8),
            b"numgen" => find(5),
            _ => None,
        };
        self.prepared.sets.extend(set.map(|name| String::from_utf8_lossy(until_nul(name)).into_owned()));
        let target = || find(1).map(until_nul);
        self.prepared.rejects |= name == b"reject" || (name == b"target" && target() == Some(b"REJECT"));
        let reads = find(1).is_some();
        let reason = match (name, number(2)) {
            (b"meta", Some(10 | 11)) if number(1).is_some() => "users and groups of processes",
            (b"meta", Some(23)) if reads => "control groups",
            (b"meta", Some(20)) if reads => "the processor",
            (b"meta", Some(24)) if reads => "chance",
            (b"meta", Some(8 | 9 | 21 | 22 | 26 | 27)) if reads => "the kind or group of an interface",
            (b"meta", Some(25)) | (b"xfrm", _) => "IPsec",
            (b"meta", Some(30..=32)) if reads => "the time",
            (b"meta", Some(14)) => "security marks",
            // NFT_SOCKET_CGROUPV2
            (b"socket", _) if number(1) == Some(3) => "control groups",
            (b"numgen", _) if number(3) == Some(1) => "chance",
            (b"queue", _) => "a queue that a program reads",
            (b"tproxy", _) => "a transparent proxy",
            (b"quota" | b"connlimit" | b"dynset", _) => "what earlier packets used up",
            (b"osf", _) => "the client's operating system",
            // NFT_PAYLOAD_LL_HEADER
            (b"payload", Some(0)) if reads => "link-layer addresses",
            (b"match", _) => match self.extension(find(1), MATCHES, "match")? {
                "owner" => "users and groups of processes",
                "cgroup" => "control groups",
                "cpu" => "the processor",
                "devgroup" => "the kind or group of an interface",
                "policy" => "IPsec",
                "time" => "the time",
                "statistic" => "chance",
                "mac" => "link-layer addresses",
                "physdev" => "the port of a bridge",
                "quota" | "connlimit" | "recent" | "connbytes" => "what earlier packets used up",
                "osf" => "the client's operating system",
                "helper" => "helpers of connection tracking",
                _ => return Ok(()),
            },
            (b"target", _) => match self.extension(find(1), TARGETS, "target")? {
                "NFQUEUE" => "a queue that a program reads",
                "TPROXY" => "a transparent proxy",
                "SET" => "what earlier packets used up",
                _ => return Ok(()),
            },
            _ => return Ok(()),
        };
        self.prepared.unfaithful.insert(reason);
        Ok(())
    }

    fn extension(
        &self,
        name: Option<&[u8]>,
        known: &[&'static str],
        what: &str,
    ) -> Result<&'static str, String> {
        let name = until_nul(name.unwrap_or_default());
        let found = known.iter().find(|known| known.as_bytes() == name);
        if !matches!(self.family, NftFamily::Ip | NftFamily::Ip6 | NftFamily::Inet | NftFamily::Bridge) {
            return Err(format!("{} tables have no xt {what}", self.family.name()));
        }
        found.copied().ok_or_else(|| {
            format!("the xt {what} {} is not known", crate::escape::escape(&String::from_utf8_lossy(name)))
        })
    }
}

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

fn nest(kind: u16, nested: &[u8], what: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let made = attribute(kind, nested);
    if made.is_empty() {
        return Err(format!("{what} is too long"));
    }
    out.extend(made);
    Ok(())
}

/// Name and data of an expression, which has nothing else.
fn named(bytes: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let (mut name, mut data) = (&[][..], &[][..]);
    for found in strictly(bytes) {
        match found.ok_or_else(|| "an expression is cut short".to_owned())? {
            (kind, value) if kind & TYPE == 1 => name = until_nul(value),
            (kind, value) if kind & TYPE == 2 => data = value,
            (kind, _) => return Err(format!("attribute {} of an expression is not known", kind & TYPE)),
        }
    }
    Ok((name, data))
}

fn known_name(name: &[u8]) -> &'static &'static str {
    EXPRESSIONS.iter().find(|known| known.0.as_bytes() == name).map_or(&"", |known| &known.0)
}

/// The attributes in `bytes` with the flags of their types; `None` for what is malformed, which ends the list.
fn strictly(mut bytes: &[u8]) -> impl Iterator<Item = Option<(u16, &[u8])>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let found = (|| {
            let length = usize::from(u16::from_ne_bytes(read(bytes, 0)?));
            Some((u16::from_ne_bytes(read(bytes, 2)?), bytes.get(4..length)?, length))
        })();
        let Some((kind, value, length)) = found else {
            bytes = &[];
            return Some(None);
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Some((kind, value)))
    })
}

/// A number of 32 bits in network order.
fn word(bytes: &[u8]) -> Option<u32> {
    (bytes.len() == 4).then(|| read(bytes, 0)).flatten().map(u32::from_be_bytes)
}

/// `NFTA_RULE_COMPAT` of a rule with an xt match or target: the protocol that the rule asks for. The kernel does not dump it, and
/// refuses extensions that want a protocol without it (`nft_parse_compat()` of `net/netfilter/nft_compat.c`).
fn compat(list: &[u8]) -> Option<[u8; 20]> {
    const INVERTED: u32 = 2;
    let mut register = None;
    let mut extension = false;
    let mut protocol = (0, 0);
    for (_, expression) in attributes(list) {
        let (name, data) = named(expression).ok()?;
        let number = |wanted: u16| {
            attributes(data).find(|(kind, _)| *kind == wanted).and_then(|(_, value)| word(value))
        };
        match name {
            // NFT_META_L4PROTO
            b"meta" if number(2) == Some(16) => register = number(1),
            // The byte of the protocol in the header of IPv4 or IPv6.
            b"payload" if number(2) == Some(1) && number(4) == Some(1) => {
                register = number(1).filter(|_| matches!(number(3), Some(9 | 6)));
            }
            b"cmp" if register.is_some() && number(1) == register && protocol.0 == 0 => {
                let data = attributes(data).find(|(kind, _)| *kind == 3)?.1;
                let value = attributes(data).find(|(kind, _)| *kind == 1)?.1;
                match number(2) {
                    Some(0) => protocol = (u32::from(*value.first()?), 0),
                    Some(1) => protocol = (u32::from(*value.first()?), INVERTED),
                    _ => {}
                }
            }
            b"match" | b"target" => extension = true,
            _ => {}
        }
    }
    if !extension || protocol.0 == 0 {
        return None;
    }
    let mut nested = attribute(1, &protocol.0.to_be_bytes());
    nested.extend(attribute(2, &protocol.1.to_be_bytes()));
    attribute(5 | NESTED, &nested).try_into().ok()
}
