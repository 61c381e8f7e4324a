//! From the messages of a dump to tables, chains, rules and sets.
//!
//! Decoding is strict: malformed attributes are an error that names the object. An expression that is not known stays in its rule as
//! [`Expression::Unknown`], because a rule that was lost would make a wrong prediction.

use std::collections::{BTreeMap, HashMap};

use super::attribute::{Attributes, Malformed, Read, malformed};
use super::expression::{self, Expression, Verdict};
use super::flow::{Origin, Question};
use super::hooks::{self, Hook, Hooks};
use super::legacy;
use super::sets::{Draft, Mapped, Set};
use super::text;
use crate::model::ruleset::{NftFamily, NftKind, NftObject, Ruleset};
use crate::model::{Decider, Family};

/// More rules than any host has that this program is meant for; a dump of 16 MiB cannot hold more.
const MOST_RULES: usize = 1 << 20;

/// A ruleset that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {what}")]
pub struct DecodeError {
    /// The object, as `rule of ip filter INPUT (handle 7)`.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
}

/// A base chain's registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Its type: `filter`, `nat` or `route`.
    pub kind: String,
    /// The number of its hook.
    pub hook: u32,
    /// Its priority.
    pub priority: i32,
    /// Whether packets that no rule decides about are dropped.
    pub drops: bool,
    /// Devices of chains of the family `netdev`.
    pub devices: Vec<String>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Index of its table.
    pub table: usize,
    /// Its name.
    pub name: String,
    /// Where it is registered, for base chains.
    pub base: Option<Base>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its handle.
    pub handle: Option<u64>,
    /// Its expressions.
    pub expressions: Vec<Expression>,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: NftFamily,
    /// Its name.
    pub name: String,
    /// Whether it is switched off.
    pub dormant: bool,
    /// Indexes of its chains by name.
    pub chains: HashMap<String, usize>,
    /// Its sets and maps by name.
    pub sets: HashMap<String, Set>,
    /// Its objects that are budgets, by name and kind.
    pub limits: HashMap<(String, u32), Expression>,
}

/// A part of a ruleset that is not interpreted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotInterpreted {
    /// The part, as `chain netdev t ingress`.
    pub what: String,
    /// Which packets it can decide about.
    pub scope: Scope,
}

/// The packets that a part of a ruleset can decide about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All packets of a family, or of both.
    All(Option<Family>),
    /// Packets on links: those of this family, or of both, on one of these devices, or on any where there is none.
    Links(Option<Family>, Vec<String>),
}

/// A decoded ruleset, ready to be asked about packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filters {
    /// Its tables, in the order of the dump.
    pub tables: Vec<Table>,
    /// The chains of all tables, in the order of the dump.
    pub chains: Vec<Chain>,
    /// What runs at each hook, in order.
    pub hooks: Hooks,
    /// A port of each class of clients' ports that the rules treat alike; empty where there are too many classes.
    pub client_ports: Vec<u16>,
    /// Whether any rule looks at the mark of a connection.
    pub reads_marks: bool,
    /// What the ruleset has that is not interpreted.
    pub not_interpreted: Vec<NotInterpreted>,
}

impl Filters {
    /// Decodes a ruleset.
    ///
    /// # Errors
    /// When a message is malformed or refers to what is not there.
    pub fn decode(ruleset: &Ruleset) -> Result<Filters, DecodeError> {
        if !ruleset.consistent {
            return Err(DecodeError {
                object: "the ruleset".to_owned(),
                what: "it kept changing while it was read; read it again".to_owned(),
            });
        }
        let mut reader = Reader::default();
        for object in &ruleset.nftables {
            reader.take(object).map_err(|Malformed(what)| DecodeError { object: describe(object), what })?;
        }
        let (mut tables, mut chains) = reader.finish();
        let own = tables.len();
        for table in &ruleset.legacy {
            legacy::add(table, &mut tables, &mut chains).map_err(|Malformed(what)| DecodeError {
                object: format!("legacy iptables table {} {}", table.family.name(), table.table),
                what,
            })?;
        }
        if let Some(chain) = hooks::jumps_in_a_circle(&tables, &chains) {
            let table = &tables[chains[chain].table];
            return Err(DecodeError {
                object: format!("chain {} {} {}", table.family.name(), table.name, chains[chain].name),
                what: "its jumps lead back to it".to_owned(),
            });
        }
        let mut not_interpreted = Vec::new();
        // In which order both translate is not known.
        let both = |family: NftFamily| {
            let translates = |range: std::ops::Range<usize>| {
                chains.iter().any(|chain| {
                    let table = tables[chain.table].family;
                    range.contains(&chain.table)
                        && (table == family || table == NftFamily::Inet)
                        && chain.base.as_ref().is_some_and(|base| base.kind == "nat")
                        && !chain.rules.is_empty()
                })
            };
            translates(0..own) && translates(own..tables.len())
        };
        for (family, nft) in [(Family::Ipv4, NftFamily::Ip), (Family::Ipv6, NftFamily::Ip6)] {
            if both(nft) {
                not_interpreted.push(NotInterpreted {
                    what: format!("the order of nf_tables and legacy iptables in translating {family}"),
                    scope: Scope::All(Some(family)),
                });
            }
        }
        let hooks = Hooks::new(&tables, &chains, own, ruleset.order.as_deref());
        not_interpreted.extend(hooks::not_interpreted(&tables, &chains));
        let client_ports = super::ports::classes(&tables, &chains);
        let mut all = chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.expressions);
        let reads_marks = all.any(expression::reads_connection_mark);
        Ok(Filters { tables, chains, hooks, client_ports, reads_marks, not_interpreted })
    }

    /// Whether no packet of a host can be decided by these rules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hooks.is_empty() && self.not_interpreted.is_empty()
    }

    /// What can decide about this connection and is not interpreted.
    #[must_use]
    pub fn not_interpreted_for(&self, question: &Question) -> Vec<String> {
        let family = Family::of(question.destination);
        let decides = |one: &&NotInterpreted| match (&one.scope, &question.origin) {
            (Scope::All(only), _) => only.is_none_or(|only| only == family),
            (Scope::Links(only, devices), Origin::Link { input, .. }) => {
                only.is_none_or(|only| only == family)
                    && (devices.is_empty() || devices.contains(&input.name))
            }
            (Scope::Links(_, devices), Origin::Host(device)) => devices.contains(&device.name),
        };
        self.not_interpreted.iter().filter(decides).map(|one| one.what.clone()).collect()
    }

    /// Whether connections of a family can be translated.
    #[must_use]
    pub fn translates(&self, family: Family) -> bool {
        self.hooks.translate(family)
    }

    /// Whether a chain sees what the host sends.
    #[must_use]
    pub fn sees_output(&self, family: Family) -> bool {
        self.hooks.has_chain(family, Hook::Output)
    }

    /// A rule, or the policy of the chain where `rule` is `None`.
    #[must_use]
    pub fn decider(&self, chain: usize, rule: Option<usize>) -> Decider {
        let (family, table, name, handle) = match self.chains.get(chain) {
            Some(one) => {
                let table = &self.tables[one.table];
                let handle = rule.and_then(|rule| one.rules.get(rule)).and_then(|rule| rule.handle);
                (table.family, table.name.clone(), one.name.clone(), handle)
            }
            None => (NftFamily::Inet, String::new(), String::new(), None),
        };
        let text = match rule {
            Some(rule) => text::rule(self, chain, rule),
            None => {
                let base = self.chains.get(chain).and_then(|chain| chain.base.as_ref());
                let drops = base.is_some_and(|base| base.drops);
                format!("policy {}", if drops { "drop" } else { "accept" })
            }
        };
        let rule = rule.map(|rule| rule + 1);
        Decider { family, table, chain: name, rule, handle, text }
    }
}

/// An object for a message of an error.
fn describe(object: &NftObject) -> String {
    let kind = match object.kind {
        NftKind::Table => "table",
        NftKind::Chain => "chain",
        NftKind::Set => "set",
        NftKind::Element => "elements of set",
        NftKind::Rule => "rule of",
        NftKind::Object => "object",
        NftKind::Flowtable => "flow table",
    };
    let mut words = vec![kind.to_owned(), object.family.name().to_owned(), object.table.clone()];
    words.extend(object.chain.clone());
    words.extend(object.name.clone());
    if let Some(handle) = object.handle {
        words.push(format!("(handle {handle})"));
    }
    words.join(" ")
}

#[derive(Default)]
struct Reader {
    tables: Vec<Table>,
    chains: Vec<Chain>,
    by_name: BTreeMap<(NftFamily, String), usize>,
    drafts: Vec<(usize, Draft)>,
    sets: HashMap<(usize, String), usize>,
    rules: usize,
}

impl Reader {
    fn take(&mut self, object: &NftObject) -> Read<()> {
        let attributes = Attributes::read(&object.attributes)?;
        let name = attributes.text(1).ok_or_else(|| Malformed("the name of the table is missing".into()))?;
        if object.kind == NftKind::Table {
            let dormant = attributes.number(2, "the flags")?.unwrap_or(0) & 1 != 0;
            if self.by_name.insert((object.family, name.clone()), self.tables.len()).is_some() {
                return malformed("there are two with this name");
            }
            self.tables.push(Table {
                family: object.family,
                name,
                dormant,
                chains: HashMap::new(),
                sets: HashMap::new(),
                limits: HashMap::new(),
            });
            return Ok(());
        }
        let Some(&table) = self.by_name.get(&(object.family, name)) else {
            return malformed("its table is not in the dump");
        };
        match object.kind {
            NftKind::Table | NftKind::Flowtable => {}
            NftKind::Chain => self.chain(table, &attributes)?,
            NftKind::Set => {
                let draft = Draft::read(&attributes)?;
                let name = attributes.text(2).unwrap_or_default();
                self.sets.insert((table, name), self.drafts.len());
                self.drafts.push((table, draft));
            }
            NftKind::Element => {
                let set = attributes.text(2).unwrap_or_default();
                match self.sets.get(&(table, set)).and_then(|index| self.drafts.get_mut(*index)) {
                    Some((_, draft)) => draft.add(&attributes)?,
                    None => return malformed("the set is not in the dump"),
                }
            }
            NftKind::Rule => self.rule(table, &attributes)?,
            NftKind::Object => {
                let kind = attributes.need_number(3, "the type")?;
                if let Some(limit) = expression::object_limit(kind, &attributes.nested(4)?)? {
                    let name = attributes.text(2).unwrap_or_default();
                    self.tables[table].limits.insert((name, kind), limit);
                }
            }
        }
        Ok(())
    }

    fn chain(&mut self, table: usize, attributes: &Attributes<'_>) -> Read<()> {
        let name = attributes.text(3).ok_or_else(|| Malformed("the name is missing".into()))?;
        let base = match attributes.get(4) {
            None => None,
            Some(bytes) => {
                let hook = Attributes::read(bytes)?;
                let mut devices: Vec<String> = hook.text(3).into_iter().collect();
                for (_, device) in hook.nested(4)?.iter() {
                    devices.push(super::attribute::text(device));
                }
                Some(Base {
                    kind: attributes.text(7).unwrap_or_else(|| "filter".to_owned()),
                    hook: hook.need_number(1, "the hook")?,
                    priority: hook.need_number(2, "the priority")?.cast_signed(),
                    drops: attributes.number(5, "the policy")? == Some(0),
                    devices,
                })
            }
        };
        if self.tables[table].chains.insert(name.clone(), self.chains.len()).is_some() {
            return malformed("there are two with this name");
        }
        self.chains.push(Chain { table, name, base, rules: Vec::new() });
        Ok(())
    }

    fn rule(&mut self, table: usize, attributes: &Attributes<'_>) -> Read<()> {
        let chain = attributes.text(2).ok_or_else(|| Malformed("the name of the chain is missing".into()))?;
        let Some(&chain) = self.tables[table].chains.get(&chain) else {
            return malformed("its chain is not in the dump");
        };
        self.rules += 1;
        if self.rules > MOST_RULES {
            return malformed("there are too many rules");
        }
        let handle = match attributes.get(3) {
            Some(bytes) => Some(u64::from_be_bytes(
                bytes.try_into().map_err(|_| Malformed(format!("a handle of {} bytes", bytes.len())))?,
            )),
            None => None,
        };
        let expressions = expression::list(attributes.get(4).unwrap_or_default())?;
        for expression in &expressions {
            self.refers(table, expression)?;
        }
        self.chains[chain].rules.push(Rule { handle, expressions });
        Ok(())
    }

    /// What an expression refers to must be there.
    fn refers(&self, table: usize, expression: &Expression) -> Read<()> {
        match expression {
            Expression::Verdict(Verdict::Jump(name) | Verdict::Goto(name))
                if !self.tables[table].chains.contains_key(name) =>
            {
                malformed(format!("a jump to chain {name}, which is not in the dump"))
            }
            Expression::Lookup { set, .. } | Expression::ObjectMap { set, .. }
                if !self.sets.contains_key(&(table, set.clone())) =>
            {
                malformed(format!("a lookup in set {set}, which is not in the dump"))
            }
            _ => Ok(()),
        }
    }

    fn finish(mut self) -> (Vec<Table>, Vec<Chain>) {
        for (table, draft) in self.drafts {
            let set = draft.finish();
            self.tables[table].sets.insert(set.name.clone(), set);
        }
        (self.tables, self.chains)
    }
}

impl Table {
    /// Verdicts that a map of this set can give.
    #[must_use]
    pub fn verdicts(&self, set: &str) -> Vec<&Verdict> {
        let Some(set) = self.sets.get(set) else { return Vec::new() };
        let elements: Vec<_> = match &set.elements {
            super::sets::Elements::Exact(all) => all.values().collect(),
            super::sets::Elements::Ranges(all) => all.iter().map(|(_, _, element)| element).collect(),
            super::sets::Elements::Fields(all, _) => all.iter().map(|(_, _, element)| element).collect(),
        };
        let mapped = elements.into_iter().chain(&set.catch_all).map(|element| &element.mapped);
        mapped
            .filter_map(|mapped| if let Mapped::Verdict(verdict) = mapped { Some(verdict) } else { None })
            .collect()
    }
}
