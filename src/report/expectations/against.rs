//! The results against a failed rule.

use std::collections::BTreeSet;

use super::{Case, covers, family_of};
use crate::model::IfName;
use crate::profile::bind;
use crate::profile::expect::ExpectedSource;
use crate::report::matrix::CellReport;

impl Case<'_> {
    /// The results that the rule is about in which one of these listeners is reached, or in which the refusal is not the required one.
    pub(super) fn forbidden(&self, concerns: &dyn Fn(&CellReport) -> bool) -> Vec<usize> {
        let names = self.names();
        let against = |cell: &CellReport| match self.takes(cell, &names) {
            Some(taken) => taken || !self.refuses_as_wanted(cell.outcome()),
            None => false,
        };
        let cells = self.numbered().filter(|(_, cell)| concerns(cell) && against(cell));
        cells.map(|(index, _)| index).collect()
    }

    /// The results of the sources that do not reach a listener over a required family.
    pub(super) fn missing(&self, from: &[ExpectedSource]) -> Vec<usize> {
        let combinations = self.required().into_iter().flat_map(|((name, service), families)| {
            let each = from.iter().flat_map(move |source| {
                families.clone().into_iter().map(move |family| (name, service, source, family))
            });
            each.collect::<Vec<_>>()
        });
        let mut missing = BTreeSet::new();
        for (name, service, source, family) in combinations {
            let only = BTreeSet::from([name]);
            let looks = || {
                self.at(service)
                    .filter(|(_, cell)| covers(source, cell) && family_of(&cell.destination) == family)
            };
            if looks().all(|(_, cell)| self.takes(cell, &only) == Some(false)) {
                missing.extend(looks().map(|(index, _)| index));
            }
        }
        missing.into_iter().collect()
    }

    /// The accepted results that arrive on another interface.
    pub(super) fn arrives_elsewhere(&self, globs: &[String]) -> Vec<usize> {
        let names = self.names();
        let elsewhere = |cell: &CellReport| {
            let name = cell.ingress().and_then(IfName::as_str);
            name.is_some_and(|name| !globs.iter().any(|glob| bind::glob(glob.as_bytes(), name.as_bytes())))
        };
        let cells = self.numbered();
        let against = cells.filter(|(_, cell)| self.takes(cell, &names) == Some(true) && elsewhere(cell));
        against.map(|(index, _)| index).collect()
    }
}
