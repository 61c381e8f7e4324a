//! The machine that rules run on: registers, expressions, jumps, verdicts.
//!
//! Where a rule compares what is not known, the run chooses ([`Choices`]); the caller runs every combination.

use std::collections::BTreeSet;

use super::bits::{Answer, Bits, Word};
use super::decode::{Filters, Table};
use super::expression::{Bits as Operation, Expression, Reject, Verdict};
use super::facts::{Because, Choices, Facts, Place};
use super::hooks::Hook;
use super::packet::{Connection, Packet};
use super::sets::{Element, Found, Mapped};
use super::trail::{self, Event, What};
use crate::model::FilteredPacket as Role;

/// How deep the kernel lets chains jump (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: usize = 16;
/// Expressions that one run evaluates at most.
const MOST_STEPS: usize = 2_000_000;
/// Elements that an unknown key may match before a result counts as uncertain.
const MOST_ELEMENTS: usize = 12;

/// How a base chain ends for a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It passes.
    Accept(Place),
    /// It is dropped.
    Drop(Place),
    /// It is dropped and answered.
    Reject(Place, Reject),
    /// What happens is not known.
    Uncertain(Place),
}

/// What is left of a rule after an expression.
pub(super) enum Next {
    /// The next expression.
    Continue,
    /// The next rule.
    Break,
    /// A verdict.
    Verdict(Verdict),
    /// The packet is answered and dropped.
    Reject(Reject),
    /// It is not known.
    Uncertain,
}

impl Next {
    /// Goes on where it is certain that the expression matches.
    fn when(yes: bool) -> Next {
        if yes { Next::Continue } else { Next::Break }
    }
}

/// One run over a ruleset.
pub struct Machine<'a> {
    /// The ruleset.
    pub filters: &'a Filters,
    /// The host.
    pub facts: &'a dyn Facts,
    /// The choices of this run.
    pub choices: &'a mut Choices,
    /// The connection that is followed.
    pub connection: Connection,
    /// Under which assumptions the run goes as it goes.
    pub assumes: BTreeSet<&'static str>,
    /// Where the destination was translated, and where the source.
    pub translated_by: [Option<Place>; 2],
    /// The hook that runs.
    pub hook: Hook,
    /// The packet that runs.
    pub role: Role,
    /// What packets met; `None` where that is not recorded.
    pub trail: Option<Vec<Event>>,
    /// The rule that runs.
    pub(super) place: Place,
    pub(super) registers: Bits,
    steps: usize,
}

impl<'a> Machine<'a> {
    /// A machine for one connection.
    pub fn new(
        filters: &'a Filters,
        facts: &'a dyn Facts,
        choices: &'a mut Choices,
        connection: Connection,
    ) -> Machine<'a> {
        Machine {
            filters,
            facts,
            choices,
            connection,
            assumes: BTreeSet::new(),
            translated_by: [None; 2],
            hook: Hook::Prerouting,
            role: Role::Syn,
            trail: None,
            place: Place { chain: 0, rule: None },
            registers: Bits::UNKNOWN,
            steps: 0,
        }
    }

    /// Records what a packet met.
    pub(super) fn record(&mut self, what: What) {
        let (role, hook) = (self.role, self.hook);
        if let Some(trail) = self.trail.as_mut().filter(|trail| trail.len() < trail::MOST) {
            trail.push(Event { role, hook, what });
        }
    }

    /// Runs a base chain.
    pub fn chain(&mut self, base: usize, packet: &mut Packet) -> Ending {
        let filters = self.filters;
        let mut stack: Vec<(usize, usize)> = Vec::new();
        let (mut chain, mut rule) = (base, 0);
        self.registers = Bits::UNKNOWN;
        loop {
            let Some(one) = filters.chains[chain].rules.get(rule) else {
                // The end of a chain goes back to where it was called from.
                match stack.pop() {
                    Some(back) => (chain, rule) = back,
                    None => break,
                }
                continue;
            };
            self.place = Place { chain, rule: Some(rule) };
            let table = &filters.tables[filters.chains[chain].table];
            rule += 1;
            let mut next = Next::Continue;
            for expression in &one.expressions {
                self.steps += 1;
                if self.steps > MOST_STEPS {
                    return Ending::Uncertain(self.place);
                }
                next = self.expression(table, expression, packet);
                if !matches!(next, Next::Continue) {
                    break;
                }
            }
            if !matches!(next, Next::Break) {
                self.record(What::Meets(self.place));
            }
            match next {
                Next::Continue | Next::Break | Next::Verdict(Verdict::Continue | Verdict::Break) => {}
                Next::Uncertain | Next::Verdict(Verdict::Queue) => return Ending::Uncertain(self.place),
                Next::Reject(how) => return Ending::Reject(self.place, how),
                Next::Verdict(Verdict::Accept) => return Ending::Accept(self.place),
                Next::Verdict(Verdict::Drop) => return Ending::Drop(self.place),
                Next::Verdict(Verdict::Return) => match stack.pop() {
                    Some(back) => (chain, rule) = back,
                    None => break,
                },
                Next::Verdict(jump @ (Verdict::Jump(_) | Verdict::Goto(_))) => {
                    let (Verdict::Jump(name) | Verdict::Goto(name)) = &jump else { break };
                    let Some(&target) = table.chains.get(name) else { return Ending::Uncertain(self.place) };
                    if matches!(jump, Verdict::Jump(_)) {
                        if stack.len() == DEEPEST {
                            return Ending::Uncertain(self.place);
                        }
                        stack.push((chain, rule));
                    }
                    self.steps += 1;
                    if self.steps > MOST_STEPS {
                        return Ending::Uncertain(self.place);
                    }
                    (chain, rule) = (target, 0);
                }
            }
        }
        let place = Place { chain: base, rule: None };
        self.record(What::Meets(place));
        let drops = filters.chains[base].base.as_ref().is_some_and(|base| base.drops);
        if drops { Ending::Drop(place) } else { Ending::Accept(place) }
    }

    /// Whether an answer is yes; an unknown one is chosen.
    pub(super) fn decide(&mut self, answer: Answer) -> bool {
        match answer {
            Answer::Yes => true,
            Answer::No => false,
            Answer::Unknown => self.choices.choose(2, Because::Rule(self.place)) == 1,
        }
    }

    fn when(&mut self, answer: Answer) -> Next {
        Next::when(self.decide(answer))
    }

    pub(super) fn expression(&mut self, table: &Table, expression: &Expression, packet: &mut Packet) -> Next {
        match expression {
            Expression::Meta { key, to } => return self.load_meta(*key, *to, packet),
            Expression::SetMeta { key, from } => {
                if *key == super::meta::MARK {
                    packet.mark = self.registers.word(*from);
                }
            }
            Expression::Payload { base, offset, length, to } => {
                return self.load_payload(*base, *offset as usize, *length, *to, packet);
            }
            Expression::SetPayload { base, offset, length } => {
                super::meta::rewrite(packet, *base, *offset as usize, *length);
            }
            Expression::Extension { to, length, present } => {
                // The packets that are followed have no extension headers.
                if !present {
                    return Next::Break;
                }
                self.registers.set(*to, &vec![0; length.next_multiple_of(4)]);
            }
            Expression::Compare { from, how, with } => {
                let answer = self.registers.compare(*from, *how, with);
                return self.when(answer);
            }
            Expression::Range { from, inverted, low, high } => {
                let answer = self.registers.within(*from, low, high).inverted(*inverted);
                return self.when(answer);
            }
            Expression::Bitwise { from, to, length, bits } => match bits {
                Operation::Mask(mask, xor) => self.registers.mask(*from, *to, mask, xor),
                Operation::Left(by) => self.shift(*from, *to, *length, *by, true),
                Operation::Right(by) => self.shift(*from, *to, *length, *by, false),
            },
            Expression::ByteOrder { from, to, length, size } => {
                let source = self.registers;
                if cfg!(target_endian = "big") {
                    self.registers.copy(*to, &source, *from, *length);
                } else {
                    for index in 0..*length {
                        let swapped = index - index % size + (size - 1 - index % size);
                        self.registers.copy(to + index, &source, from + swapped, 1);
                    }
                }
            }
            Expression::Immediate { to, data } => self.registers.set(*to, data),
            Expression::Verdict(verdict) => return Next::Verdict(verdict.clone()),
            Expression::Lookup { set, from, to, verdict, inverted } => {
                return self.look_up(table, set, *from, *to, *verdict, *inverted, packet);
            }
            Expression::Connection { key, reply, to } => {
                return self.load_connection(*key, *reply, *to, packet);
            }
            Expression::SetConnection { key, from } => {
                if *key == super::meta::CONNECTION_MARK && self.tracked(packet).is_some() {
                    self.connection.mark = self.registers.word(*from);
                }
            }
            Expression::Fib { to, result, flags } => self.load_fib(*to, *result, *flags, packet),
            Expression::Nat { .. } | Expression::Redirect(_) | Expression::Masquerade(_) => {
                return self.translate(expression, packet);
            }
            Expression::Reject(how) => return Next::Reject(*how),
            Expression::NoTrack => super::meta::do_not_track(packet),
            Expression::Limit { budget, inverted } => {
                self.assumes.insert(budget.assumption());
                return Next::when(!inverted);
            }
            Expression::Object { kind, name } => {
                // Quotas, limits of rates and of connections decide; synproxy answers itself.
                return match table.limits.get(&(name.clone(), *kind)) {
                    Some(limit) => self.expression(table, limit, packet),
                    None if matches!(kind, 2 | 4 | 5 | 10) => Next::Uncertain,
                    None => Next::Continue,
                };
            }
            Expression::ObjectMap { set, from } => return self.object_map(table, set, *from, packet),
            Expression::Dynamic { limited, adds, .. } => {
                if !adds {
                    return self.when(Answer::Unknown);
                }
                return self.all(table, limited, packet);
            }
            Expression::Neutral { .. } => {}
            Expression::Opaque { to, .. } => {
                if let Some(to) = to {
                    let length = 16.min(super::expression::REGISTERS - to);
                    self.registers.forget(*to, length);
                }
                // Some of them end the rule where there is nothing to load.
                return self.when(Answer::Unknown);
            }
            Expression::Match(one) => {
                let answer = self.matches(one, packet);
                return self.when(answer);
            }
            Expression::Target(target) => return self.target(target, packet),
            Expression::Unknown { .. } => return Next::Uncertain,
        }
        Next::Continue
    }

    /// Runs expressions until one does not match.
    fn all(&mut self, table: &Table, expressions: &[Expression], packet: &mut Packet) -> Next {
        for expression in expressions {
            let next = self.expression(table, expression, packet);
            if !matches!(next, Next::Continue) {
                return next;
            }
        }
        Next::Continue
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one expression")]
    fn look_up(
        &mut self,
        table: &Table,
        name: &str,
        from: usize,
        to: Option<usize>,
        verdict: bool,
        inverted: bool,
        packet: &mut Packet,
    ) -> Next {
        let Some(set) = table.sets.get(name) else { return Next::Uncertain };
        let element: Option<&Element> = match set.find(&self.registers, from) {
            Found::Element(element) => Some(element),
            Found::Nothing => None,
            Found::Unknown if !verdict && to.is_none() => {
                return self.when(Answer::Unknown);
            }
            Found::Unknown => {
                let Some(some) = set.candidates(&self.registers, from, MOST_ELEMENTS) else {
                    return Next::Uncertain;
                };
                let choice = self.choices.choose(some.len() + 1, Because::Rule(self.place));
                some.get(choice).copied()
            }
        };
        if element.is_some() == inverted {
            return Next::Break;
        }
        let Some(element) = element else { return Next::Continue };
        let next = self.all(table, &element.limited, packet);
        if !matches!(next, Next::Continue) {
            return next;
        }
        match (&element.mapped, to) {
            (Mapped::Verdict(found), _) if verdict => Next::Verdict(found.clone()),
            (Mapped::Value(value), Some(to)) => {
                self.registers.set(to, value);
                Next::Continue
            }
            _ => Next::Continue,
        }
    }

    fn object_map(&mut self, table: &Table, name: &str, from: usize, packet: &mut Packet) -> Next {
        let Some(set) = table.sets.get(name) else { return Next::Uncertain };
        let element = match set.find(&self.registers, from) {
            Found::Element(element) => element,
            Found::Nothing => return Next::Break,
            Found::Unknown => return self.when(Answer::Unknown),
        };
        let Mapped::Object(object) = &element.mapped else { return Next::Continue };
        let limits = [2, 4, 5].into_iter().filter_map(|kind| table.limits.get(&(object.clone(), kind)));
        let limits: Vec<Expression> = limits.cloned().collect();
        self.all(table, &limits, packet)
    }

    /// Shifts by words of four bytes, the first one the highest; both are in the byte order of the machine.
    fn shift(&mut self, from: usize, to: usize, length: usize, by: u32, left: bool) {
        let words = length.div_ceil(4);
        let source: Vec<Word> = (0..words).map(|index| self.registers.word(from + 4 * index)).collect();
        if !(1..32).contains(&by) {
            self.registers.forget(to, length);
            return;
        }
        let moved = |word: Word, by: u32, left: bool| {
            let mask = if left { u32::MAX << by } else { u32::MAX >> by };
            let turn = |bits: u32| if left { bits << by } else { bits >> by };
            Word { value: turn(word.value), known: turn(word.known) | !mask }
        };
        for index in 0..words {
            let near = moved(source[index], by, left);
            let other =
                if left { source.get(index + 1) } else { index.checked_sub(1).and_then(|at| source.get(at)) };
            let far = moved(other.copied().unwrap_or(Word::new(0)), 32 - by, !left);
            let word = Word { value: near.value | far.value, known: near.known & far.known };
            self.registers.set_word(to + 4 * index, word);
        }
    }
}
