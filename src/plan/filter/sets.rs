//! Sets, maps and verdict maps, and what a lookup in them finds.

use std::collections::BTreeMap;

use super::attribute::{Attributes, Malformed, Read, malformed};
use super::bits::{Answer, Bits};
use super::expression::{self, Expression, REGISTERS, Verdict};

/// Flags of a set (`enum nft_set_flags`).
const ANONYMOUS: u32 = 0x1;
const INTERVAL: u32 = 0x4;
const EVALUATED: u32 = 0x20;
const OBJECTS: u32 = 0x40;

/// What an element maps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mapped {
    /// Nothing: the set is not a map.
    Nothing,
    /// A value.
    Value(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
    /// A named object.
    Object(String),
}

/// An element: what it maps to, and the expressions that limit it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// What it maps to.
    pub mapped: Mapped,
    /// Expressions such as `limit`, which run when the element is found.
    pub limited: Vec<Expression>,
}

/// A set of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// Length of its keys.
    pub key_length: usize,
    /// The type of the keys as `nft` numbers them, for people.
    pub key_type: u32,
    /// Whether the packet path adds elements, so that a dump does not say what is in it.
    pub dynamic: bool,
    /// Whether it was written inside of a rule.
    pub anonymous: bool,
    /// The elements.
    pub elements: Elements,
    /// The element that matches when no other does.
    pub catch_all: Option<Element>,
    /// Whether it maps to objects.
    pub objects: bool,
}

/// The elements of a set, by its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Elements {
    /// Single keys.
    Exact(BTreeMap<Vec<u8>, Element>),
    /// Ranges that do not overlap, sorted; the end is not in the range, and is missing where it is open.
    Ranges(Vec<(Vec<u8>, Option<Vec<u8>>, Element)>),
    /// Ranges of each field of a concatenation, in the order of the dump.
    Fields(Vec<(Vec<u8>, Vec<u8>, Element)>, Vec<usize>),
}

/// An element as it is dumped.
#[derive(Debug)]
struct Dumped {
    key: Vec<u8>,
    /// The last key of a range of a concatenation.
    last: Option<Vec<u8>>,
    end: bool,
    element: Element,
}

/// A set while its elements are read.
#[derive(Debug)]
pub struct Draft {
    set: Set,
    interval: bool,
    fields: Vec<usize>,
    dumped: Vec<Dumped>,
}

impl Draft {
    /// A set from the attributes of its message, without elements.
    pub fn read(attributes: &Attributes<'_>) -> Read<Draft> {
        let flags = attributes.number(3, "the flags")?.unwrap_or(0);
        let key_length = attributes.need_number(5, "the length of keys")? as usize;
        if key_length == 0 || key_length > REGISTERS {
            return malformed(format!("keys of {key_length} bytes"));
        }
        let description = attributes.nested(9)?;
        let mut fields = Vec::new();
        for (_, field) in description.nested(2)?.iter() {
            fields.push(Attributes::read(field)?.need_number(1, "the length of a field")? as usize);
        }
        let padded: usize = fields.iter().map(|field| field.next_multiple_of(4)).sum();
        if fields.contains(&0) || (!fields.is_empty() && padded != key_length) {
            return malformed("the fields do not fill the key");
        }
        let set = Set {
            name: attributes.text(2).ok_or_else(|| Malformed("the name is missing".into()))?,
            key_length,
            key_type: attributes.number(4, "the type of keys")?.unwrap_or(0),
            dynamic: flags & EVALUATED != 0,
            anonymous: flags & ANONYMOUS != 0,
            elements: Elements::Exact(BTreeMap::new()),
            catch_all: None,
            objects: flags & OBJECTS != 0,
        };
        Ok(Draft { set, interval: flags & INTERVAL != 0, fields, dumped: Vec::new() })
    }

    /// Adds elements of one message.
    pub fn add(&mut self, attributes: &Attributes<'_>) -> Read<()> {
        for (_, bytes) in attributes.nested(3)?.iter() {
            let one = Attributes::read(bytes)?;
            let flags = one.number(3, "the flags of an element")?.unwrap_or(0);
            let mut limited = Vec::new();
            if let Some(bytes) = one.get(7) {
                limited.push(expression::one(bytes)?);
            }
            if let Some(bytes) = one.get(11) {
                limited.extend(expression::list(bytes)?);
            }
            let mapped = match (one.get(2), one.text(9)) {
                (_, Some(object)) => Mapped::Object(object),
                (None, None) => Mapped::Nothing,
                (Some(data), None) if Attributes::read(data)?.get(2).is_some() => {
                    Mapped::Verdict(expression::data_verdict(data)?)
                }
                (Some(data), None) => Mapped::Value(expression::data_value(data)?),
            };
            let element = Element { mapped, limited };
            if flags & 2 != 0 {
                self.set.catch_all = Some(element);
                continue;
            }
            let key = expression::data_value(one.need(1, "the key of an element")?)?;
            let last = one.get(10).map(expression::data_value).transpose()?;
            let fits = |key: &[u8]| key.len() == self.set.key_length;
            if !fits(&key) || !last.as_deref().is_none_or(fits) {
                return malformed(format!("a key of {} bytes", key.len()));
            }
            self.dumped.push(Dumped { key, last, end: flags & 1 != 0, element });
        }
        Ok(())
    }

    /// The set with its elements.
    pub fn finish(self) -> Set {
        let Draft { mut set, interval, fields, dumped } = self;
        set.elements = if interval && fields.len() > 1 {
            let all =
                dumped.into_iter().map(|one| (one.key.clone(), one.last.unwrap_or(one.key), one.element));
            Elements::Fields(all.collect(), fields)
        } else if interval {
            Elements::Ranges(ranges(dumped))
        } else {
            Elements::Exact(dumped.into_iter().map(|one| (one.key, one.element)).collect())
        };
        set
    }
}

/// Ranges out of their ends: where one ends and the next begins at the same key, the end comes first.
fn ranges(mut dumped: Vec<Dumped>) -> Vec<(Vec<u8>, Option<Vec<u8>>, Element)> {
    dumped.sort_by(|a, b| a.key.cmp(&b.key).then(b.end.cmp(&a.end)));
    let mut ranges: Vec<(Vec<u8>, Option<Vec<u8>>, Element)> = Vec::new();
    for one in dumped {
        match ranges.last_mut() {
            Some(open) if one.end => {
                if open.1.is_none() {
                    open.1 = Some(one.key);
                }
            }
            // The end of the range before the first one.
            None if one.end => {}
            last => {
                if let Some(open) = last.filter(|open| open.1.is_none()) {
                    open.1 = Some(one.key.clone());
                }
                ranges.push((one.key, None, one.element));
            }
        }
    }
    ranges
}

/// What a lookup finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// This element.
    Element(&'a Element),
    /// None.
    Nothing,
    /// It depends on what is not known of the key or of the set.
    Unknown,
}

impl Set {
    /// Looks up the key in `registers` at `at`.
    #[must_use]
    pub fn find(&self, registers: &Bits, at: usize) -> Found<'_> {
        if self.dynamic {
            return Found::Unknown;
        }
        match self.find_element(registers, at) {
            Found::Nothing => self.catch_all.as_ref().map_or(Found::Nothing, Found::Element),
            found => found,
        }
    }

    /// The elements that a key of which not all is known may be, the one that matches else among them; `None` where they are too
    /// many or not known.
    #[must_use]
    pub fn candidates(&self, registers: &Bits, at: usize, most: usize) -> Option<Vec<&Element>> {
        if self.dynamic {
            return None;
        }
        let maybe = |answer: Answer| answer != Answer::No;
        let length = self.key_length;
        let mut found: Vec<&Element> = match &self.elements {
            Elements::Exact(elements) => {
                let some = elements.iter().filter(|(key, _)| maybe(registers.equal(at, key)));
                some.map(|(_, element)| element).take(most + 1).collect()
            }
            Elements::Ranges(ranges) => {
                let (least, greatest) = registers.bounds(at, length);
                let some = ranges.iter().filter(|(low, end, _)| {
                    *low <= greatest && end.as_deref().is_none_or(|end| end > &least[..])
                });
                some.map(|(_, _, element)| element).take(most + 1).collect()
            }
            Elements::Fields(elements, fields) => {
                let some = elements
                    .iter()
                    .filter(|(low, high, _)| maybe(field_answer(registers, at, fields, low, high)));
                some.map(|(_, _, element)| element).take(most + 1).collect()
            }
        };
        found.extend(&self.catch_all);
        (found.len() <= most).then_some(found)
    }

    fn find_element(&self, registers: &Bits, at: usize) -> Found<'_> {
        let length = self.key_length;
        match &self.elements {
            Elements::Exact(elements) => match registers.bytes(at, length) {
                Some(key) => elements.get(key).map_or(Found::Nothing, Found::Element),
                None => first(elements.iter().map(|(key, element)| (registers.equal(at, key), element))),
            },
            Elements::Ranges(ranges) => {
                let (least, greatest) = registers.bounds(at, length);
                let start =
                    ranges.partition_point(|(_, end, _)| end.as_deref().is_some_and(|end| end <= &least[..]));
                match ranges.get(start) {
                    Some((low, end, element)) if *low <= least => {
                        if end.as_deref().is_none_or(|end| end > &greatest[..]) {
                            Found::Element(element)
                        } else {
                            Found::Unknown
                        }
                    }
                    Some((low, _, _)) if *low <= greatest => Found::Unknown,
                    _ => Found::Nothing,
                }
            }
            Elements::Fields(elements, fields) => first(
                elements
                    .iter()
                    .map(|(low, high, element)| (field_answer(registers, at, fields, low, high), element)),
            ),
        }
    }
}

/// Whether each field is in its range.
fn field_answer(registers: &Bits, at: usize, fields: &[usize], low: &[u8], high: &[u8]) -> Answer {
    let (mut offset, mut answer) = (0, Answer::Yes);
    for field in fields {
        let (from, to) = (offset, offset + field);
        answer = answer.and(registers.within(at + from, &low[from..to], &high[from..to]));
        offset += field.next_multiple_of(4);
    }
    answer
}

/// The first element that matches, unless it is uncertain whether one before it does.
fn first<'a>(elements: impl Iterator<Item = (Answer, &'a Element)>) -> Found<'a> {
    for (answer, element) in elements {
        match answer {
            Answer::Yes => return Found::Element(element),
            Answer::No => {}
            Answer::Unknown => return Found::Unknown,
        }
    }
    Found::Nothing
}

/// The key before another one, which is the last one of a range that ends there.
#[must_use]
pub fn before(end: &[u8]) -> Vec<u8> {
    let mut last = end.to_vec();
    for byte in last.iter_mut().rev() {
        *byte = byte.wrapping_sub(1);
        if *byte != 0xff {
            break;
        }
    }
    last
}
