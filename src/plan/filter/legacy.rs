//! Tables of legacy iptables: the entries of their blobs (`struct ipt_entry`, `struct ip6t_entry`) as rules of the same machine.

use std::collections::HashMap;

use super::attribute::{Malformed, Read, malformed};
use super::decode::{Base, Chain, Rule, Table};
use super::expression::{Bits, Comparison, Expression, Verdict};
use super::xt::{self, Data, Match};
use crate::model::ruleset::{LegacyTable, NftFamily};

/// Hooks, by number.
const NAMES: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// The register that rules use.
const REGISTER: usize = 16;
/// Length of the head of a match or target: size, name, revision.
const HEAD: usize = 32;
/// Bits of `invflags`; those of IPv6 are equal.
const NOT_INPUT: u8 = 1;
const NOT_OUTPUT: u8 = 2;
const NOT_SOURCE: u8 = 8;
const NOT_DESTINATION: u8 = 0x10;
const NOT_FRAGMENT: u8 = 0x20;
const NOT_PROTOCOL: u8 = 0x40;

/// Places in an entry.
struct Layout {
    /// Length of an address.
    address: usize,
    /// The names of interfaces; their masks follow.
    interfaces: usize,
    protocol: usize,
    flags: usize,
    target_offset: usize,
    header: usize,
    goto: u8,
}

const IPV4: Layout =
    Layout { address: 4, interfaces: 16, protocol: 80, flags: 82, target_offset: 88, header: 112, goto: 2 };
const IPV6: Layout = Layout {
    address: 16,
    interfaces: 64,
    protocol: 128,
    flags: 131,
    target_offset: 140,
    header: 168,
    goto: 4,
};

/// An entry with its place in the blob.
struct Entry<'a> {
    at: usize,
    bytes: &'a [u8],
    target: usize,
}

/// Adds a table and its chains.
pub fn add(one: &LegacyTable, tables: &mut Vec<Table>, chains: &mut Vec<Chain>) -> Read<()> {
    let layout = match one.family {
        NftFamily::Ip => IPV4,
        NftFamily::Ip6 => IPV6,
        other => return malformed(format!("tables of the family {}", other.name())),
    };
    let entries = entries(one, &layout)?;
    let index = tables.len();
    let mut table = Table {
        family: one.family,
        name: one.table.clone(),
        dormant: false,
        chains: HashMap::new(),
        sets: HashMap::new(),
        limits: HashMap::new(),
    };
    // The places where chains begin, with their names; the last head closes the table.
    let mut starts: Vec<(usize, String, Option<usize>)> = Vec::new();
    for (hook, name) in NAMES.iter().enumerate().filter(|(hook, _)| one.valid_hooks & (1 << hook) != 0) {
        let at = *one.hook_entry.get(hook).ok_or_else(|| Malformed("the hooks are missing".to_owned()))?;
        starts.push((at as usize, (*name).to_owned(), Some(hook)));
    }
    for pair in entries.windows(2) {
        if let ([head, first], Some(name)) = (pair, head(&pair[0])) {
            let _ = head;
            starts.push((first.at, name, None));
        }
    }
    for (_, name, _) in &starts {
        if table.chains.insert(name.clone(), chains.len() + table.chains.len()).is_some() {
            return malformed(format!("there are two chains {name}"));
        }
    }
    let by_place: HashMap<usize, &str> = starts
        .iter()
        .filter(|(_, _, hook)| hook.is_none())
        .map(|(at, name, _)| (*at, name.as_str()))
        .collect();
    for (start, name, hook) in &starts {
        let first = entries
            .iter()
            .position(|entry| entry.at == *start)
            .ok_or_else(|| Malformed(format!("the chain {name} begins in the middle of a rule")))?;
        let end = match hook {
            Some(hook) => one.underflow.get(*hook).map(|at| *at as usize),
            None => None,
        };
        let mut chain = Chain { table: index, name: name.clone(), base: None, rules: Vec::new() };
        let mut policy = None;
        for entry in &entries[first..] {
            if end == Some(entry.at) {
                policy = Some(entry);
                break;
            }
            if head(entry).is_some() || is_last(entry) {
                break;
            }
            chain.rules.push(Rule { handle: None, expressions: rule(entry, &layout, &by_place)? });
        }
        if let Some(hook) = hook {
            let policy = policy.ok_or_else(|| Malformed(format!("the chain {name} has no policy")))?;
            chain.base = Some(Base {
                kind: if one.table == "nat" { "nat" } else { "filter" }.to_owned(),
                hook: u32::try_from(*hook).unwrap_or(0),
                priority: priority(&one.table, *hook)?,
                drops: matches!(standard(policy), Some(-1)),
                devices: Vec::new(),
            });
        } else if let Some(Rule { expressions, .. }) = chain.rules.last()
            && expressions[..] == [Expression::Verdict(Verdict::Return)]
        {
            // The end of the chain, which no one wrote.
            chain.rules.pop();
        }
        chains.push(chain);
    }
    tables.push(table);
    Ok(())
}

/// The priorities of `enum nf_ip_hook_priorities`.
fn priority(table: &str, hook: usize) -> Read<i32> {
    Ok(match table {
        "raw" => -300,
        "mangle" => -150,
        "nat" if hook == 0 || hook == 3 => -100,
        "nat" => 100,
        "filter" => 0,
        "security" => 50,
        other => return malformed(format!("the table {other} is not known")),
    })
}

fn entries<'a>(one: &'a LegacyTable, layout: &Layout) -> Read<Vec<Entry<'a>>> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < one.blob.len() {
        let rest = &one.blob[at..];
        let data = Data(rest);
        let target = usize::from(data.u16(layout.target_offset)?);
        let next = usize::from(data.u16(layout.target_offset + 2)?);
        if target < layout.header || next < target + HEAD || next > rest.len() {
            return malformed("the offsets of a rule are wrong");
        }
        all.push(Entry { at, bytes: &rest[..next], target });
        at += next;
    }
    Ok(all)
}

/// The name and revision of a match or target, with its data.
fn extension(bytes: &[u8]) -> Read<(String, u32, &[u8], usize)> {
    let size = usize::from(Data(bytes).u16(0)?);
    if size < HEAD || size > bytes.len() {
        return malformed("a match or target is cut short");
    }
    Ok((super::attribute::text(&bytes[2..31]), u32::from(bytes[31]), &bytes[HEAD..size], size))
}

/// The name of the chain that begins after an entry.
fn head(entry: &Entry<'_>) -> Option<String> {
    let (name, _, data, _) = extension(&entry.bytes[entry.target..]).ok()?;
    let chain = super::attribute::text(data.get(..data.len().min(32))?);
    (name == "ERROR" && chain != "ERROR").then_some(chain)
}

fn is_last(entry: &Entry<'_>) -> bool {
    extension(&entry.bytes[entry.target..]).is_ok_and(|(name, ..)| name == "ERROR")
}

/// The verdict of a standard target.
fn standard(entry: &Entry<'_>) -> Option<i32> {
    let (name, _, data, _) = extension(&entry.bytes[entry.target..]).ok()?;
    let verdict = data.get(..4)?.try_into().ok()?;
    name.is_empty().then_some(i32::from_ne_bytes(verdict))
}

fn rule(entry: &Entry<'_>, layout: &Layout, chains: &HashMap<usize, &str>) -> Read<Vec<Expression>> {
    let data = Data(entry.bytes);
    let (flags, inverted) = (data.u8(layout.flags)?, data.u8(layout.flags + 1)?);
    let ipv6 = layout.address == 16;
    let mut all = Vec::new();
    let how = |bit: u8| if inverted & bit != 0 { Comparison::NotEqual } else { Comparison::Equal };
    let slice = |at: usize, length: usize| {
        entry.bytes.get(at..at + length).ok_or_else(|| Malformed("a rule is cut short".to_owned()))
    };
    let n = layout.address;
    for (place, offset, bit) in
        [(0, if ipv6 { 8 } else { 12 }, NOT_SOURCE), (n, if ipv6 { 24 } else { 16 }, NOT_DESTINATION)]
    {
        let (address, mask) = (slice(place, n)?, slice(place + 2 * n, n)?);
        if mask.iter().any(|byte| *byte != 0) || inverted & bit != 0 {
            all.push(Expression::Payload { base: 1, offset, length: n, to: REGISTER });
            let bits = Bits::Mask(mask.to_vec(), vec![0; n]);
            all.push(Expression::Bitwise { from: REGISTER, to: REGISTER, length: n, bits });
            all.push(Expression::Compare { from: REGISTER, how: how(bit), with: address.to_vec() });
        }
    }
    for (number, (key, bit)) in [(6, NOT_INPUT), (7, NOT_OUTPUT)].into_iter().enumerate() {
        let name = slice(layout.interfaces + 16 * number, 16)?;
        let mask = slice(layout.interfaces + 32 + 16 * number, 16)?;
        let length = mask.iter().take_while(|byte| **byte == 0xff).count();
        if length > 0 {
            all.push(Expression::Meta { key, to: REGISTER });
            // The end of the name counts as well, unless any rest is meant.
            let mut with = name[..length].to_vec();
            if with.last() == Some(&0) {
                with.resize(16, 0);
            }
            all.push(Expression::Compare { from: REGISTER, how: how(bit), with });
        } else if inverted & bit != 0 {
            all.push(Expression::Match(Match::Absent { name: "interface".to_owned() }));
        }
    }
    let protocol = data.u16(layout.protocol)?;
    if protocol != 0 && (!ipv6 || flags & 1 != 0) {
        let protocol =
            u8::try_from(protocol).map_err(|_| Malformed("a protocol that is too large".to_owned()))?;
        all.push(Expression::Meta { key: 16, to: REGISTER });
        all.push(Expression::Compare { from: REGISTER, how: how(NOT_PROTOCOL), with: vec![protocol] });
    }
    if !ipv6 && flags & 1 != 0 && inverted & NOT_FRAGMENT == 0 {
        // Later fragments, which packets that are followed are not.
        all.push(Expression::Match(Match::Absent { name: "fragment".to_owned() }));
    }
    if ipv6 && flags & 2 != 0 {
        all.push(Expression::Match(Match::Opaque { name: "tos".to_owned() }));
    }
    let mut at = layout.header;
    while at < entry.target {
        let (name, revision, data, size) = extension(&entry.bytes[at..entry.target])?;
        let one = xt::the_match(&name, revision, &Data(data))
            .map_err(|Malformed(what)| Malformed(format!("{name}: {what}")))?;
        all.push(Expression::Match(one));
        at += size;
    }
    let (name, revision, data, _) = extension(&entry.bytes[entry.target..])?;
    if !name.is_empty() {
        let target = xt::target(&name, revision, &Data(data))
            .map_err(|Malformed(what)| Malformed(format!("{name}: {what}")))?;
        all.push(Expression::Target(target));
        return Ok(all);
    }
    let verdict = standard(entry).ok_or_else(|| Malformed("a verdict is cut short".to_owned()))?;
    let next = entry.at + entry.bytes.len();
    match verdict {
        -1 => all.push(Expression::Verdict(Verdict::Drop)),
        -2 => all.push(Expression::Verdict(Verdict::Accept)),
        // `NF_QUEUE`
        -4 => all.push(Expression::Verdict(Verdict::Queue)),
        // `XT_RETURN`
        -5 => all.push(Expression::Verdict(Verdict::Return)),
        0.. => {
            let to = usize::try_from(verdict).unwrap_or(usize::MAX);
            // A rule without a target goes on to the next one.
            if to == next && !chains.contains_key(&to) {
                return Ok(all);
            }
            let Some(chain) = chains.get(&to) else { return malformed("a jump into the middle of a chain") };
            let chain = (*chain).to_owned();
            let goto = flags & layout.goto != 0;
            all.push(Expression::Verdict(if goto { Verdict::Goto(chain) } else { Verdict::Jump(chain) }));
        }
        other => return malformed(format!("the verdict {other}")),
    }
    Ok(all)
}
