//! The expressions of nf_tables rules, decoded (`linux/netfilter/nf_tables.h`).

use super::attribute::{Attributes, Malformed, Read, malformed, text};
use super::xt::{self, Match, Target};

/// Bytes of all data registers together.
pub const REGISTERS: usize = 64;

/// The place of a register: the offset of its first byte.
pub type Register = usize;

/// A comparison (`enum nft_cmp_ops`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// Less.
    Less,
    /// Less or equal.
    LessOrEqual,
    /// Greater.
    Greater,
    /// Greater or equal.
    GreaterOrEqual,
}

/// A verdict (`enum nft_verdicts`), with the name of the chain for jumps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The packet is dropped.
    Drop,
    /// The packet passes this base chain.
    Accept,
    /// A program in user space decides.
    Queue,
    /// The next rule is evaluated.
    Continue,
    /// The rule does not match.
    Break,
    /// Another chain is evaluated, then the next rule.
    Jump(String),
    /// Another chain is evaluated instead of the rest of this one.
    Goto(String),
    /// The rest of the chain is skipped.
    Return,
}

/// What `bitwise` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bits {
    /// And with the first, exclusive or with the second.
    Mask(Vec<u8>, Vec<u8>),
    /// Shift left.
    Left(u32),
    /// Shift right.
    Right(u32),
}

/// What a `fib` expression asks for (`enum nft_fib_result`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FibResult {
    /// The index of the interface of the route.
    Index,
    /// Its name.
    Name,
    /// The type of the address.
    Type,
}

/// What `nat`, `redir`, `masq` change; registers or constants of addresses and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NatRegisters {
    /// Register of the lowest and of the highest address.
    pub address: Option<(Register, Register)>,
    /// Register of the lowest and of the highest port.
    pub port: Option<(Register, Register)>,
    /// Whether the address is mapped by its prefix, so that the result is another one for each.
    pub netmap: bool,
}

/// What kind of budget an expression has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// Packets or bytes in a time.
    Rate,
    /// Bytes in total.
    Quota,
    /// Connections at a time.
    Connections,
}

impl Budget {
    /// The assumption under which a result holds.
    #[must_use]
    pub fn assumption(self) -> &'static str {
        match self {
            Budget::Rate => "the rate limit is not reached",
            Budget::Quota => "the quota is not used up",
            Budget::Connections => "the limit of connections is not reached",
        }
    }
}

/// An answer that a rule sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reject {
    /// A TCP segment with RST.
    Reset,
    /// An ICMP or ICMPv6 error with this code, in the family of the packet.
    Unreachable(u8),
    /// The same by a code of its own that is translated for each family (`icmpx`).
    Abstract(u8),
}

/// One expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// Loads metadata.
    Meta { key: u32, to: Register },
    /// Sets metadata.
    SetMeta { key: u32, from: Register },
    /// Loads bytes of the packet.
    Payload { base: u32, offset: u32, length: usize, to: Register },
    /// Changes bytes of the packet.
    SetPayload { base: u32, offset: u32, length: usize },
    /// Loads an extension header of IPv6, or whether there is one.
    Extension { to: Register, length: usize, present: bool },
    /// Compares a register.
    Compare { from: Register, how: Comparison, with: Vec<u8> },
    /// Compares a register with a range; true outside of it if inverted.
    Range { from: Register, inverted: bool, low: Vec<u8>, high: Vec<u8> },
    /// Changes bits.
    Bitwise { from: Register, to: Register, length: usize, bits: Bits },
    /// Swaps bytes of words of this size.
    ByteOrder { from: Register, to: Register, length: usize, size: usize },
    /// Loads a constant.
    Immediate { to: Register, data: Vec<u8> },
    /// Ends the rule.
    Verdict(Verdict),
    /// Looks up a set or map.
    Lookup { set: String, from: Register, to: Option<Register>, verdict: bool, inverted: bool },
    /// Loads a property of the connection.
    Connection { key: u32, reply: Option<bool>, to: Register },
    /// Sets a property of the connection.
    SetConnection { key: u32, from: Register },
    /// Asks the routing tables.
    Fib { to: Register, result: FibResult, flags: u32 },
    /// Translates the source or the destination, for packets of one family.
    Nat { source: bool, family: u32, registers: NatRegisters },
    /// Translates to this host itself.
    Redirect(NatRegisters),
    /// Translates the source to the address of the interface.
    Masquerade(NatRegisters),
    /// Answers and drops.
    Reject(Reject),
    /// Keeps the packet out of connection tracking.
    NoTrack,
    /// Matches within a budget; beyond it if inverted.
    Limit { budget: Budget, inverted: bool },
    /// A named object: its kind and, where it is a budget, its name.
    Object { kind: u32, name: String },
    /// An object out of a map.
    ObjectMap { set: String, from: Register },
    /// Adds an element to a set; whether it matches is uncertain for other operations.
    Dynamic { set: String, limited: Vec<Expression>, adds: bool },
    /// Changes nothing that decides.
    Neutral { name: String },
    /// Loads a value that only the running kernel has.
    Opaque { name: String, to: Option<Register> },
    /// A match of iptables.
    Match(Match),
    /// A target of iptables.
    Target(Target),
    /// An expression that is not known here.
    Unknown { name: String },
}

/// The offset of a register (`enum nft_registers`).
fn register(number: u32, length: usize) -> Read<Register> {
    let offset = match number {
        1..=4 => (number as usize - 1) * 16,
        8..=23 => (number as usize - 8) * 4,
        _ => return malformed(format!("register {number} does not exist")),
    };
    if offset + length > REGISTERS {
        return malformed(format!("register {number} does not have {length} bytes"));
    }
    Ok(offset)
}

/// The register that an attribute names.
fn register_in(attributes: &Attributes<'_>, kind: u16, name: &str, length: usize) -> Read<Register> {
    register(attributes.need_number(kind, name)?, length)
}

fn register_or(attributes: &Attributes<'_>, kind: u16, name: &str, length: usize) -> Read<Option<Register>> {
    attributes.number(kind, name)?.map(|number| register(number, length)).transpose()
}

/// The value in `NFTA_DATA_VALUE` of nested data.
pub fn data_value(bytes: &[u8]) -> Read<Vec<u8>> {
    let data = Attributes::read(bytes)?;
    let value = data.need(1, "a value")?;
    if value.len() > REGISTERS {
        return malformed(format!("a value of {} bytes", value.len()));
    }
    Ok(value.to_vec())
}

/// The verdict in nested data (`NFTA_DATA_VERDICT`).
pub fn data_verdict(bytes: &[u8]) -> Read<Verdict> {
    let data = Attributes::read(bytes)?;
    let verdict = Attributes::read(data.need(2, "a verdict")?)?;
    let code = verdict.need_number(1, "the code of a verdict")?.cast_signed();
    let chain = || verdict.text(2).ok_or_else(|| Malformed("a jump without a chain".into()));
    Ok(match code {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        -1 => Verdict::Continue,
        -2 => Verdict::Break,
        -3 => Verdict::Jump(chain()?),
        -4 => Verdict::Goto(chain()?),
        -5 => Verdict::Return,
        // The number of the queue is in the upper half.
        _ if code & 0xff == 3 => Verdict::Queue,
        _ => return malformed(format!("verdict {code} is not known")),
    })
}

/// The expressions of a list (`NFTA_LIST_ELEM` each).
pub fn list(bytes: &[u8]) -> Read<Vec<Expression>> {
    let mut all = Vec::new();
    for (kind, element) in Attributes::read(bytes)?.iter() {
        if kind != 1 {
            return malformed(format!("attribute {kind} in a list of expressions"));
        }
        all.push(one(element)?);
    }
    Ok(all)
}

/// One expression: its name and its attributes.
pub fn one(bytes: &[u8]) -> Read<Expression> {
    let expression = Attributes::read(bytes)?;
    let name = text(expression.need(1, "the name of an expression")?);
    let data = expression.nested(2)?;
    decode(&name, &data).map_err(|Malformed(what)| Malformed(format!("expression {name}: {what}")))
}

#[expect(clippy::too_many_lines, reason = "one arm for each expression")]
fn decode(name: &str, data: &Attributes<'_>) -> Read<Expression> {
    let length = |kind, name| -> Read<usize> {
        let length = data.need_number(kind, name)? as usize;
        if length == 0 || length > REGISTERS {
            return malformed(format!("{name} is {length}"));
        }
        Ok(length)
    };
    let opaque = |kind: u16| -> Read<Expression> {
        Ok(Expression::Opaque { name: name.to_owned(), to: register_or(data, kind, "the register", 4)? })
    };
    Ok(match name {
        "meta" => {
            let key = data.need_number(2, "the key")?;
            match data.number(3, "the source register")? {
                Some(from) => Expression::SetMeta { key, from: register(from, 4)? },
                None => Expression::Meta { key, to: register_in(data, 1, "the register", meta_length(key))? },
            }
        }
        "payload" => {
            let (base, offset) = (data.need_number(2, "the base")?, data.need_number(3, "the offset")?);
            let length = length(4, "the length")?;
            if data.get(5).is_some() {
                Expression::SetPayload { base, offset, length }
            } else {
                Expression::Payload {
                    base,
                    offset,
                    length,
                    to: register_in(data, 1, "the register", length)?,
                }
            }
        }
        "exthdr" => {
            let (flags, op) = (data.number(5, "the flags")?.unwrap_or(0), data.number(6, "the operation")?);
            if data.get(7).is_some() {
                return Ok(Expression::Neutral { name: name.to_owned() });
            }
            let length = length(4, "the length")?;
            match op.unwrap_or(0) {
                0 => Expression::Extension {
                    to: register_in(data, 1, "the register", length)?,
                    length,
                    present: flags & 1 != 0,
                },
                // Options of TCP, IPv4, SCTP and DCCP: not in the packet that is followed.
                _ => opaque(1)?,
            }
        }
        "cmp" => {
            let with = data_value(data.need(3, "the value")?)?;
            let how = match data.need_number(2, "the operation")? {
                0 => Comparison::Equal,
                1 => Comparison::NotEqual,
                2 => Comparison::Less,
                3 => Comparison::LessOrEqual,
                4 => Comparison::Greater,
                5 => Comparison::GreaterOrEqual,
                other => return malformed(format!("comparison {other} does not exist")),
            };
            Expression::Compare { from: register_in(data, 1, "the register", with.len())?, how, with }
        }
        "range" => {
            let low = data_value(data.need(3, "the low end")?)?;
            let high = data_value(data.need(4, "the high end")?)?;
            if low.len() != high.len() {
                return malformed("the ends differ in length");
            }
            let inverted = data.need_number(2, "the operation")? == 1;
            Expression::Range { from: register_in(data, 1, "the register", low.len())?, inverted, low, high }
        }
        "bitwise" => {
            let length = length(3, "the length")?;
            let from = register_in(data, 1, "the source register", length)?;
            let to = register_in(data, 2, "the register", length)?;
            let shift = || -> Read<u32> {
                let bytes = data_value(data.need(7, "the distance")?)?;
                match bytes[..] {
                    [a, b, c, d] => Ok(u32::from_ne_bytes([a, b, c, d])),
                    _ => malformed(format!("a distance of {} bytes", bytes.len())),
                }
            };
            match data.number(6, "the operation")?.unwrap_or(0) {
                0 => {
                    let mask = data_value(data.need(4, "the mask")?)?;
                    let xor = data_value(data.need(5, "the second mask")?)?;
                    if mask.len() != length || xor.len() != length {
                        return malformed("a mask of another length");
                    }
                    Expression::Bitwise { from, to, length, bits: Bits::Mask(mask, xor) }
                }
                1 => Expression::Bitwise { from, to, length, bits: Bits::Left(shift()?) },
                2 => Expression::Bitwise { from, to, length, bits: Bits::Right(shift()?) },
                // And, or, exclusive or of two registers: newer kernels.
                _ => Expression::Unknown { name: name.to_owned() },
            }
        }
        "byteorder" => {
            let length = length(4, "the length")?;
            let size = data.need_number(5, "the size")? as usize;
            if !matches!(size, 2 | 4 | 8) || !length.is_multiple_of(size) {
                return malformed(format!("size {size} of {length}"));
            }
            let from = register_in(data, 1, "the source register", length)?;
            Expression::ByteOrder { from, to: register_in(data, 2, "the register", length)?, length, size }
        }
        "immediate" => {
            let value = data.need(2, "the data")?;
            match data.need_number(1, "the register")? {
                0 => Expression::Verdict(data_verdict(value)?),
                number => {
                    let value = data_value(value)?;
                    Expression::Immediate { to: register(number, value.len())?, data: value }
                }
            }
        }
        "lookup" => {
            let set = data.text(1).ok_or_else(|| Malformed("the set is missing".into()))?;
            let inverted = data.number(5, "the flags")?.unwrap_or(0) & 1 != 0;
            let to = data.number(3, "the register")?;
            Expression::Lookup {
                set,
                from: register_in(data, 2, "the source register", 1)?,
                to: match to {
                    None | Some(0) => None,
                    Some(number) => Some(register(number, 1)?),
                },
                verdict: to == Some(0),
                inverted,
            }
        }
        "ct" => {
            let key = data.need_number(2, "the key")?;
            match data.number(4, "the source register")? {
                Some(from) => Expression::SetConnection { key, from: register(from, 1)? },
                None => Expression::Connection {
                    key,
                    reply: data.number(3, "the direction")?.map(|direction| direction == 1),
                    to: register_in(data, 1, "the register", connection_length(key))?,
                },
            }
        }
        "fib" => {
            let result = match data.need_number(2, "the result")? {
                1 => FibResult::Index,
                2 => FibResult::Name,
                3 => FibResult::Type,
                other => return malformed(format!("result {other} is not known")),
            };
            let length = if result == FibResult::Name { 16 } else { 4 };
            let flags = data.need_number(3, "the flags")?;
            Expression::Fib { to: register_in(data, 1, "the register", length)?, result, flags }
        }
        "nat" => {
            let registers = NatRegisters {
                address: pair(data, 3, 4, 4)?,
                port: pair(data, 5, 6, 2)?,
                netmap: data.number(7, "the flags")?.unwrap_or(0) & 0x40 != 0,
            };
            let source = match data.need_number(1, "the type")? {
                0 => true,
                1 => false,
                other => return malformed(format!("type {other} does not exist")),
            };
            Expression::Nat { source, family: data.need_number(2, "the family")?, registers }
        }
        "redir" => {
            Expression::Redirect(NatRegisters { port: pair(data, 1, 2, 2)?, ..NatRegisters::default() })
        }
        "masq" => {
            Expression::Masquerade(NatRegisters { port: pair(data, 2, 3, 2)?, ..NatRegisters::default() })
        }
        "reject" => {
            let code = u8::try_from(data.number(2, "the code")?.unwrap_or(0)).unwrap_or(u8::MAX);
            Expression::Reject(match data.need_number(1, "the type")? {
                0 => Reject::Unreachable(code),
                1 => Reject::Reset,
                2 => Reject::Abstract(code),
                other => return malformed(format!("type {other} is not known")),
            })
        }
        "notrack" => Expression::NoTrack,
        "limit" => limit(data, Budget::Rate, 5)?,
        "quota" => limit(data, Budget::Quota, 2)?,
        "connlimit" => limit(data, Budget::Connections, 2)?,
        "counter" | "log" | "last" | "dup" | "flow_offload" => Expression::Neutral { name: name.to_owned() },
        "objref" => match data.text(4) {
            Some(set) => Expression::ObjectMap { set, from: register_in(data, 3, "the source register", 1)? },
            None => Expression::Object {
                kind: data.need_number(1, "the type")?,
                name: data.text(2).ok_or_else(|| Malformed("the name is missing".into()))?,
            },
        },
        "dynset" => {
            let set = data.text(1).ok_or_else(|| Malformed("the set is missing".into()))?;
            let mut limited = Vec::new();
            if let Some(bytes) = data.get(7) {
                limited.push(one(bytes)?);
            }
            if let Some(bytes) = data.get(11) {
                limited.extend(list(bytes)?);
            }
            let inverted = data.number(10, "the flags")?.unwrap_or(0) & 1 != 0;
            let adds = data.number(3, "the operation")?.unwrap_or(0) != 2 && !inverted;
            Expression::Dynamic { set, limited, adds }
        }
        "numgen" | "osf" | "xfrm" => opaque(1)?,
        "rt" => opaque(1)?,
        "hash" | "socket" | "tunnel" => opaque(2)?,
        "match" => Expression::Match(xt::decode_match(data)?),
        "target" => Expression::Target(xt::decode_target(data)?),
        _ => Expression::Unknown { name: name.to_owned() },
    })
}

/// The registers of the two ends of a range; the second one is the first where it is missing.
fn pair(data: &Attributes<'_>, low: u16, high: u16, length: usize) -> Read<Option<(Register, Register)>> {
    let Some(low) = register_or(data, low, "the register", length)? else { return Ok(None) };
    Ok(Some((low, register_or(data, high, "the register", length)?.unwrap_or(low))))
}

fn limit(data: &Attributes<'_>, budget: Budget, flags: u16) -> Read<Expression> {
    Ok(Expression::Limit { budget, inverted: data.number(flags, "the flags")?.unwrap_or(0) & 1 != 0 })
}

/// A budget as an object has it (`NFT_OBJECT_*`).
pub fn object_limit(kind: u32, data: &Attributes<'_>) -> Read<Option<Expression>> {
    Ok(match kind {
        2 => Some(limit(data, Budget::Quota, 2)?),
        4 => Some(limit(data, Budget::Rate, 5)?),
        5 => Some(limit(data, Budget::Connections, 2)?),
        _ => None,
    })
}

/// Bytes that a key of `meta` fills.
pub fn meta_length(key: u32) -> usize {
    match key {
        // Protocol, types, l4proto and others are shorter, but a register of 4 bytes is written whole.
        6 | 7 | 17 | 18 | 26 | 27 | 34 => 16,
        30 => 8,
        _ => 4,
    }
}

/// Whether an expression looks at the mark of a connection.
pub fn reads_connection_mark(expression: &Expression) -> bool {
    match expression {
        Expression::Connection { key, .. } => *key == super::meta::CONNECTION_MARK,
        Expression::Match(Match::Mark { connection, .. }) => *connection,
        Expression::Target(Target::ConnectionMark { .. }) => true,
        _ => false,
    }
}

/// Bytes that a key of `ct` fills.
pub fn connection_length(key: u32) -> usize {
    match key {
        6 | 8 | 9 | 13 | 21 | 22 => 16,
        14..=16 => 8,
        _ => 4,
    }
}
