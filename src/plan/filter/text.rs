//! Rules as text for people, close to what `nft` writes. Nothing is computed from it.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::decode::{Filters, Table};
use super::expression::{Bits, Comparison, Expression, FibResult, Reject, Verdict};
use super::sets::{Elements, Mapped, Set, before};
use super::xt::{self, Match, Ports, Range, Target};
use crate::model::Family;
use crate::model::ruleset::NftFamily;

/// Elements of a set that are written.
const MOST_ELEMENTS: usize = 8;
/// Characters of a rule that are written.
const LONGEST: usize = 300;

/// How the value of a register is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    V4,
    V6,
    Port,
    Name,
    Protocol,
    State,
    Number,
    Native,
    Hex,
    AddressType,
}

/// What a register holds: the words for it and how values are written.
#[derive(Debug, Clone)]
struct Held {
    register: usize,
    words: String,
    kind: Kind,
    mask: Option<Vec<u8>>,
}

/// A rule.
#[must_use]
pub fn rule(filters: &Filters, chain: usize, rule: usize) -> String {
    let Some(one) = filters.chains.get(chain).and_then(|chain| chain.rules.get(rule)) else {
        return String::new();
    };
    let table = &filters.tables[filters.chains[chain].table];
    let mut writer = Writer { table, held: Vec::new(), words: Vec::new(), protocol: None };
    for expression in &one.expressions {
        writer.expression(expression);
    }
    let mut text = writer.words.join(" ");
    if text.chars().count() > LONGEST {
        text = text.chars().take(LONGEST).collect::<String>() + " ...";
    }
    text
}

struct Writer<'a> {
    table: &'a Table,
    held: Vec<Held>,
    words: Vec<String>,
    /// What the rule has compared the protocol with.
    protocol: Option<u8>,
}

impl Writer<'_> {
    fn hold(&mut self, register: usize, words: impl Into<String>, kind: Kind) {
        self.held.retain(|held| held.register != register);
        self.held.push(Held { register, words: words.into(), kind, mask: None });
    }

    fn held(&self, register: usize) -> Option<&Held> {
        self.held.iter().rev().find(|held| held.register == register)
    }

    fn push(&mut self, words: impl Into<String>) {
        self.words.push(words.into());
    }

    fn protocol_name(&self) -> String {
        self.protocol.map_or("th".to_owned(), protocol_name)
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each expression")]
    fn expression(&mut self, expression: &Expression) {
        match expression {
            Expression::Meta { key, to } => {
                let (words, kind) = meta(*key);
                self.hold(*to, words, kind);
            }
            Expression::SetMeta { key, from } => {
                let value = self.value_of(*from);
                self.push(format!("meta {} set {value}", meta(*key).0));
            }
            Expression::Payload { base, offset, length, to } => {
                let (words, kind) = self.payload(*base, *offset, *length);
                self.hold(*to, words, kind);
                let full = if kind == Kind::V4 { 4 } else { 16 };
                if matches!(kind, Kind::V4 | Kind::V6)
                    && *length < full
                    && let Some(held) = self.held.last_mut()
                {
                    held.mask = Some(vec![0xff; *length]);
                }
            }
            Expression::SetPayload { .. } => self.push("rewrite of the packet"),
            Expression::Extension { to, .. } => self.hold(*to, "exthdr", Kind::Hex),
            Expression::Compare { from, how, with } => self.compare(*from, *how, with),
            Expression::Range { from, inverted, low, high } => {
                if let Some(held) = self.held(*from).cloned() {
                    let not = if *inverted { "!= " } else { "" };
                    let (low, high) = (value(held.kind, low), value(held.kind, high));
                    self.push(format!("{} {not}{low}-{high}", held.words));
                }
            }
            Expression::Bitwise { from, to, bits, .. } => {
                let mut held = self.held(*from).cloned().unwrap_or(Held {
                    register: *to,
                    words: "register".into(),
                    kind: Kind::Hex,
                    mask: None,
                });
                held.register = *to;
                match bits {
                    Bits::Mask(mask, xor) if xor.iter().all(|byte| *byte == 0) => {
                        held.mask = Some(mask.clone())
                    }
                    Bits::Mask(mask, xor) => {
                        held.words = format!("{} & {} ^ {}", held.words, hex(mask), hex(xor));
                    }
                    Bits::Left(by) => held.words = format!("{} << {by}", held.words),
                    Bits::Right(by) => held.words = format!("{} >> {by}", held.words),
                }
                self.held.retain(|one| one.register != *to);
                self.held.push(held);
            }
            Expression::ByteOrder { from, to, .. } => {
                if let Some(held) = self.held(*from).cloned() {
                    self.hold(
                        *to,
                        held.words,
                        if held.kind == Kind::Native { Kind::Number } else { held.kind },
                    );
                }
            }
            Expression::Immediate { to, data } => {
                let kind = match data.len() {
                    2 => Kind::Port,
                    4 if matches!(self.table.family, NftFamily::Ip | NftFamily::Inet) => Kind::V4,
                    16 => Kind::V6,
                    _ => Kind::Hex,
                };
                // The words are the value itself; a mark is written natively where it is set.
                self.hold(*to, value(kind, data), kind);
                if let Some(held) = self.held.last_mut() {
                    held.mask = Some(data.clone());
                }
            }
            Expression::Verdict(verdict) => self.push(verdict_text(verdict)),
            Expression::Lookup { set, from, to, verdict, inverted } => {
                let held = self.held(*from).cloned();
                let words = held.as_ref().map_or("key".to_owned(), |held| held.words.clone());
                let kind = held.map_or(Kind::Hex, |held| held.kind);
                let set =
                    self.table.sets.get(set).map_or_else(|| format!("@{set}"), |set| elements(set, kind));
                let not = if *inverted { "!= " } else { "" };
                match to {
                    Some(to) => self.hold(*to, format!("{words} map {set}"), Kind::Hex),
                    None if *verdict => self.push(format!("{words} vmap {set}")),
                    None => self.push(format!("{words} {not}{set}")),
                }
            }
            Expression::Connection { key, reply, to } => {
                let direction = match reply {
                    Some(true) => "reply ",
                    Some(false) => "original ",
                    None => "",
                };
                let (name, kind) = connection(*key);
                self.hold(*to, format!("ct {direction}{name}"), kind);
            }
            Expression::SetConnection { key, from } => {
                let value = self.value_of(*from);
                self.push(format!("ct {} set {value}", connection(*key).0));
            }
            Expression::Fib { to, result, flags } => {
                let mut of = Vec::new();
                for (bit, name) in [(1, "saddr"), (2, "daddr"), (4, "mark"), (8, "iif"), (16, "oif")] {
                    if flags & bit != 0 {
                        of.push(name);
                    }
                }
                let (what, kind) = match result {
                    FibResult::Index => ("oif", Kind::Native),
                    FibResult::Name => ("oifname", Kind::Name),
                    FibResult::Type => ("type", Kind::AddressType),
                };
                self.hold(*to, format!("fib {} {what}", of.join(" . ")), kind);
            }
            Expression::Nat { source, registers, .. } => {
                let mut words = if *source { "snat to ".to_owned() } else { "dnat to ".to_owned() };
                if let Some((low, _)) = registers.address {
                    let _ = write!(words, "{}", self.constant(low));
                }
                if let Some((low, _)) = registers.port {
                    let _ = write!(words, ":{}", self.constant(low));
                }
                self.push(words);
            }
            Expression::Redirect(registers) => {
                let port = registers.port.map(|(low, _)| format!(" to :{}", self.constant(low)));
                self.push(format!("redirect{}", port.unwrap_or_default()));
            }
            Expression::Masquerade(_) => self.push("masquerade"),
            Expression::Reject(how) => self.push(reject(*how, self.table.family == NftFamily::Ip6)),
            Expression::NoTrack => self.push("notrack"),
            Expression::Limit { budget, inverted } => {
                let over = if *inverted { " over" } else { "" };
                self.push(format!("{}{over}", format!("{budget:?}").to_lowercase()));
            }
            Expression::Object { name, .. } => self.push(format!("object {name}")),
            Expression::ObjectMap { set, .. } => self.push(format!("object map @{set}")),
            Expression::Dynamic { set, .. } => self.push(format!("add @{set}")),
            Expression::Neutral { name } => self.push(name.clone()),
            Expression::Opaque { name, to } => match to {
                Some(to) => self.hold(*to, name.clone(), Kind::Hex),
                None => self.push(name.clone()),
            },
            Expression::Match(one) => {
                let text = match_text(one);
                self.words.extend(text);
            }
            Expression::Target(target) => self.push(target_text(target, self.table.family)),
            Expression::Unknown { name } => self.push(format!("unknown expression {name}")),
        }
    }

    /// The constant that was loaded into a register.
    fn constant(&self, register: usize) -> String {
        self.held(register).map_or("a register".to_owned(), |held| held.words.clone())
    }

    fn value_of(&self, register: usize) -> String {
        match self.held(register) {
            Some(Held { mask: Some(data), .. }) if data.len() == 4 => value(Kind::Native, data),
            Some(held) => held.words.clone(),
            None => "a register".to_owned(),
        }
    }

    fn compare(&mut self, from: usize, how: Comparison, with: &[u8]) {
        let Some(held) = self.held(from).cloned() else { return };
        if held.words == "meta l4proto" || held.words == "ip protocol" || held.words == "ip6 nexthdr" {
            if how == Comparison::Equal {
                self.protocol = with.first().copied();
            }
            if let Some(protocol) = self.protocol {
                self.push(format!("{} {}", held.words, protocol_name(protocol)));
            }
            return;
        }
        let sign = match how {
            Comparison::Equal => "",
            Comparison::NotEqual => "!= ",
            Comparison::Less => "< ",
            Comparison::LessOrEqual => "<= ",
            Comparison::Greater => "> ",
            Comparison::GreaterOrEqual => ">= ",
        };
        let zero = with.iter().all(|byte| *byte == 0);
        let text = match (&held.mask, held.kind) {
            (Some(mask), Kind::V4 | Kind::V6) => {
                let bits: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
                let mut full = with.to_vec();
                full.resize(if held.kind == Kind::V4 { 4 } else { 16 }, 0);
                format!("{} {sign}{}/{bits}", held.words, value(held.kind, &full))
            }
            // A set of bits, one of which must be there.
            (Some(mask), Kind::State) if zero => {
                let not = if how == Comparison::Equal { "!= " } else { "" };
                format!("{} {not}{}", held.words, value(Kind::State, mask))
            }
            (Some(mask), kind) => {
                let eq = if sign.is_empty() { "== " } else { sign };
                format!("{} & {} {eq}{}", held.words, value(kind, mask), value(kind, with))
            }
            (None, kind) => format!("{} {sign}{}", held.words, value(kind, with)),
        };
        self.push(text);
    }

    fn payload(&self, base: u32, offset: u32, length: usize) -> (String, Kind) {
        let v6 = self.table.family == NftFamily::Ip6
            || (self.table.family != NftFamily::Ip && ((offset == 8 || offset == 24) && base == 1));
        match (base, offset, length, v6) {
            (1, 12, 1..=4, false) => ("ip saddr".into(), Kind::V4),
            (1, 16, 1..=4, false) => ("ip daddr".into(), Kind::V4),
            (1, 8, 1..=16, true) => ("ip6 saddr".into(), Kind::V6),
            (1, 24, 1..=16, true) => ("ip6 daddr".into(), Kind::V6),
            (1, 9, 1, false) => ("ip protocol".into(), Kind::Protocol),
            (1, 6, 1, true) => ("ip6 nexthdr".into(), Kind::Protocol),
            (1, 8, 1, false) => ("ip ttl".into(), Kind::Number),
            (1, 7, 1, true) => ("ip6 hoplimit".into(), Kind::Number),
            (2, 0, 2, _) => (format!("{} sport", self.protocol_name()), Kind::Port),
            (2, 2, 2, _) => (format!("{} dport", self.protocol_name()), Kind::Port),
            (2, 0, 1, _) if matches!(self.protocol, Some(1 | 58)) => {
                (format!("{} type", self.protocol_name()), Kind::Number)
            }
            (2, 1, 1, _) if matches!(self.protocol, Some(1 | 58)) => {
                (format!("{} code", self.protocol_name()), Kind::Number)
            }
            (2, 13, 1, _) => ("tcp flags".into(), Kind::Hex),
            _ => {
                let base = ["ll", "nh", "th", "ih"].get(base as usize).copied().unwrap_or("?");
                (format!("@{base},{},{}", offset.saturating_mul(8), length * 8), Kind::Hex)
            }
        }
    }
}

fn meta(key: u32) -> (&'static str, Kind) {
    match key {
        0 => ("length", Kind::Native),
        1 => ("protocol", Kind::Hex),
        2 => ("priority", Kind::Native),
        3 => ("mark", Kind::Native),
        4 => ("iif", Kind::Native),
        5 => ("oif", Kind::Native),
        6 => ("iifname", Kind::Name),
        7 => ("oifname", Kind::Name),
        8 => ("iiftype", Kind::Hex),
        9 => ("oiftype", Kind::Hex),
        10 => ("meta skuid", Kind::Native),
        11 => ("meta skgid", Kind::Native),
        12 => ("nftrace", Kind::Hex),
        15 => ("meta nfproto", Kind::Number),
        16 => ("meta l4proto", Kind::Protocol),
        19 => ("meta pkttype", Kind::Number),
        23 => ("meta cgroup", Kind::Native),
        30 => ("meta time", Kind::Hex),
        31 => ("meta day", Kind::Number),
        32 => ("meta hour", Kind::Native),
        _ => ("meta key", Kind::Hex),
    }
}

fn connection(key: u32) -> (&'static str, Kind) {
    match key {
        0 => ("state", Kind::State),
        1 => ("direction", Kind::Number),
        2 => ("status", Kind::Native),
        3 => ("mark", Kind::Native),
        8 | 19 => ("saddr", Kind::V4),
        9 | 20 => ("daddr", Kind::V4),
        21 => ("saddr", Kind::V6),
        22 => ("daddr", Kind::V6),
        11 => ("proto-src", Kind::Port),
        12 => ("proto-dst", Kind::Port),
        17 => ("zone", Kind::Native),
        _ => ("key", Kind::Hex),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn protocol_name(number: u8) -> String {
    match number {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "icmpv6".into(),
        other => other.to_string(),
    }
}

fn value(kind: Kind, bytes: &[u8]) -> String {
    match (kind, bytes) {
        (Kind::V4, &[a, b, c, d]) => Ipv4Addr::new(a, b, c, d).to_string(),
        (Kind::V6, bytes) => match <[u8; 16]>::try_from(bytes) {
            Ok(raw) => Ipv6Addr::from(raw).to_string(),
            Err(_) => hex(bytes),
        },
        (Kind::Port, &[high, low]) => u16::from_be_bytes([high, low]).to_string(),
        (Kind::Protocol, &[one]) => protocol_name(one),
        (Kind::Number, &[one]) => one.to_string(),
        (Kind::Native, &[a, b, c, d]) => u32::from_ne_bytes([a, b, c, d]).to_string(),
        (Kind::AddressType, &[a, b, c, d]) => match u32::from_ne_bytes([a, b, c, d]) {
            1 => "unicast".into(),
            2 => "local".into(),
            3 => "broadcast".into(),
            4 => "anycast".into(),
            5 => "multicast".into(),
            other => other.to_string(),
        },
        (Kind::Name, bytes) => {
            let name = super::attribute::text(bytes);
            // A prefix of a name is compared without the zero byte at its end.
            if bytes.len() < 16 && !bytes.contains(&0) {
                format!("\"{name}*\"")
            } else {
                format!("\"{name}\"")
            }
        }
        (Kind::State, &[a, b, c, d]) => {
            let bits = u32::from_ne_bytes([a, b, c, d]);
            let names = [(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "untracked")];
            let set: Vec<&str> =
                names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
            set.join(",")
        }
        (_, bytes) => hex(bytes),
    }
}

fn verdict_text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Drop => "drop".into(),
        Verdict::Accept => "accept".into(),
        Verdict::Queue => "queue".into(),
        Verdict::Continue => "continue".into(),
        Verdict::Break => "break".into(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
        Verdict::Return => "return".into(),
    }
}

fn elements(set: &Set, kind: Kind) -> String {
    if !set.anonymous {
        return format!("@{}", set.name);
    }
    let mapped = |mapped: &Mapped| match mapped {
        Mapped::Nothing => String::new(),
        Mapped::Value(bytes) => {
            format!(" : {}", value(if bytes.len() == 2 { Kind::Port } else { Kind::V4 }, bytes))
        }
        Mapped::Verdict(verdict) => format!(" : {}", verdict_text(verdict)),
        Mapped::Object(name) => format!(" : {name}"),
    };
    let (mut all, count): (Vec<String>, usize) = match &set.elements {
        Elements::Exact(elements) => {
            let some = elements.iter().take(MOST_ELEMENTS);
            (some.map(|(key, one)| value(kind, key) + &mapped(&one.mapped)).collect(), elements.len())
        }
        Elements::Ranges(elements) => {
            let some = elements.iter().take(MOST_ELEMENTS);
            let text = some.map(|(low, end, one)| {
                let last = end.as_deref().map(before).filter(|last| last != low);
                let last = last.map_or(String::new(), |last| format!("-{}", value(kind, &last)));
                value(kind, low) + &last + &mapped(&one.mapped)
            });
            (text.collect(), elements.len())
        }
        Elements::Fields(elements, _) => (Vec::new(), elements.len()),
    };
    if count > all.len() {
        all.push(format!("{} more", count - all.len()));
    }
    format!("{{ {} }}", all.join(", "))
}

fn reject(how: Reject, ipv6: bool) -> String {
    match how {
        Reject::Reset => "reject with tcp reset".into(),
        Reject::Unreachable(code) => format!("reject with icmp{} code {code}", if ipv6 { "v6" } else { "" }),
        Reject::Abstract(code) => {
            let name = ["no-route", "port-unreachable", "host-unreachable", "admin-prohibited"];
            format!("reject with icmpx {}", name.get(usize::from(code)).copied().unwrap_or("code"))
        }
    }
}

fn ports(words: &str, ports: &Ports) -> Option<String> {
    if (ports.low, ports.high, ports.inverted) == (0, u16::MAX, false) {
        return None;
    }
    let not = if ports.inverted { "!= " } else { "" };
    Some(format!("{words} {not}{}", port_range(ports.low, ports.high)))
}

fn port_range(low: u16, high: u16) -> String {
    if low == high { low.to_string() } else { format!("{low}-{high}") }
}

fn match_text(one: &Match) -> Vec<String> {
    let mut words = Vec::new();
    match one {
        Match::Ports { source, destination, flags, .. } => {
            words.extend(ports(&format!("{} sport", one.name()), source));
            words.extend(ports(&format!("{} dport", one.name()), destination));
            if let Some((mask, value, inverted)) = flags {
                let not = if *inverted { "!= " } else { "== " };
                words.push(format!("tcp flags & {mask:#04x} {not}{value:#04x}"));
            }
        }
        Match::Multiport { source, destination, ranges, inverted } => {
            let which = match (source, destination) {
                (true, false) => "sports",
                (false, _) => "dports",
                (true, true) => "ports",
            };
            let all: Vec<String> = ranges.iter().map(|(low, high)| port_range(*low, *high)).collect();
            words.push(format!("{which} {}{}", if *inverted { "!= " } else { "" }, all.join(",")));
        }
        Match::Conntrack(conntrack) => {
            if let Some((state, inverted)) = conntrack.state {
                let mut names = value(Kind::State, &u32::from(state & 0xf).to_ne_bytes());
                for (bit, name) in [(64, "snat"), (128, "dnat"), (256, "untracked")] {
                    if state & bit != 0 {
                        let comma = if names.is_empty() { "" } else { "," };
                        names += comma;
                        names += name;
                    }
                }
                words.push(format!("ct state {}{names}", if inverted { "!= " } else { "" }));
            } else {
                words.push("xt conntrack".into());
            }
        }
        Match::True { name } if name == "comment" => {}
        Match::Mark { mark, mask, inverted, .. } => {
            words.push(format!("{} {}{mark:#x}/{mask:#x}", one.name(), if *inverted { "!= " } else { "" }));
        }
        Match::Icmp { kind, .. } => words.push(format!("{} type {kind}", one.name())),
        Match::Limit { budget, inverted } => {
            let over = if *inverted { " over" } else { "" };
            words.push(format!("limit {}{over}", format!("{budget:?}").to_lowercase()));
        }
        other => words.push(format!("xt {}", other.name())),
    }
    words
}

fn range(range: &Range, family: Family) -> String {
    let mut text = String::new();
    if let Some((low, high)) = range.addresses {
        text = xt::address(low, family).to_string();
        if low != high {
            let _ = write!(text, "-{}", xt::address(high, family));
        }
    }
    if let Some((low, high)) = range.ports {
        let _ = write!(text, ":{}", port_range(low, high));
    }
    text
}

fn target_text(target: &Target, family: NftFamily) -> String {
    let ipv6 = family == NftFamily::Ip6;
    let of = if ipv6 { Family::Ipv6 } else { Family::Ipv4 };
    match target {
        Target::Reject(number) => match xt::reject_with(ipv6, *number) {
            Some(how) => reject(how, ipv6),
            None => "reject".into(),
        },
        Target::Nat { source, range: to } => {
            format!("{} to {}", if *source { "snat" } else { "dnat" }, range(to, of))
        }
        Target::Redirect(to) => format!("redirect to {}", range(to, of)).trim_end_matches(" to ").to_owned(),
        Target::Masquerade(_) => "masquerade".into(),
        Target::Mark { value, mask } => format!("mark set {value:#x}/{mask:#x}"),
        Target::ConnectionMark { .. } => "connmark".into(),
        Target::NoTrack => "notrack".into(),
        Target::Neutral { name } | Target::Opaque { name } => format!("xt target {name}"),
    }
}
