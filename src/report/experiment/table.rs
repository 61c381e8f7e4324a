//! Outcomes of many runs, each kept once.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use rustc_hash::FxHashMap;

/// Numbers for equal values.
pub(super) struct Interner<T> {
    pub(super) numbers: FxHashMap<T, u32>,
    pub(super) values: Vec<T>,
}

impl<T: Clone + Eq + Hash> Interner<T> {
    pub(super) fn new() -> Interner<T> {
        Interner { numbers: HashMap::default(), values: Vec::new() }
    }

    pub(super) fn number(&mut self, value: T) -> u32 {
        if let Some(&number) = self.numbers.get(&value) {
            return number;
        }
        let number = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.values.get(usize::try_from(number).ok()?)
    }
}

/// The outcome of each property in each combination.
pub(super) struct Table<S, O> {
    pub(super) outcomes: Interner<O>,
    pub(super) patterns: BTreeMap<S, Vec<Option<u32>>>,
}

impl<S: Clone + Ord, O: Clone + Eq + Hash> Table<S, O> {
    pub(super) fn new() -> Table<S, O> {
        Table { outcomes: Interner::new(), patterns: BTreeMap::new() }
    }

    pub(super) fn put(&mut self, subject: S, run: usize, runs: usize, outcome: O) {
        let number = self.outcomes.number(outcome);
        let pattern = self.patterns.entry(subject).or_insert_with(|| vec![None; runs]);
        if let Some(place) = pattern.get_mut(run) {
            *place = Some(number);
        }
    }

    /// Sets the outcome of combinations that were run and lack the property.
    pub(super) fn fill(&mut self, valid: &[bool], absent: O) {
        let number = self.outcomes.number(absent);
        for pattern in self.patterns.values_mut() {
            for (place, _) in pattern.iter_mut().zip(valid).filter(|(_, valid)| **valid) {
                *place = place.or(Some(number));
            }
        }
    }
}
