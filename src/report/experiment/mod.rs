//! The document of an experiment: every combination of the factors, and which factors decide each result.

pub mod analysis;
mod table;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::expectations::ExpectationReport;
use super::matrix::{CellReport, Report, Summary};
use crate::code::Code;
use crate::escape::{escape, printable};
use crate::model::{Document, Errno, Host, HostReport, IfName, Outcome, Protocol, Schema, Source, Verdict};
use crate::plan::predict::BindOutcome;
use analysis::{Grid, Step};
use table::{Interner, Table};

/// Values of factors, by key.
pub type Values = BTreeMap<String, String>;

/// The body of the document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    /// What was done for each combination.
    pub command: Command,
    /// Name of the profile.
    pub profile: String,
    /// The factors, in the order of the profile and of the command line.
    pub factors: Vec<FactorReport>,
    /// Counts.
    pub summary: ExperimentSummary,
    /// Whether a combination meets every expectation, and what decides that; null without expectations.
    pub verdict: Option<Effect<AllExpectations, VerdictOutcome>>,
    /// What decides each expectation, in the order of the profile.
    pub expectation_effects: Vec<Effect<ExpectationSubject, VerdictOutcome>>,
    /// What decides the binds of each listener, by name.
    pub bind_effects: Vec<Effect<BindSubject, BindsOutcome>>,
    /// What decides each result, sorted by source, protocol, destination and port.
    pub effects: Vec<Effect<CellSubject, CellOutcome>>,
    /// Every combination. The last factor changes fastest.
    pub runs: Vec<RunReport>,
    /// Further notes, one sentence each.
    pub notes: Vec<String>,
}

/// What was done for each combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Everything is predicted.
    Plan,
    /// Connections from this host were made.
    Probe,
    /// Connections in a lab were made.
    Lab,
}

/// A factor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactorReport {
    /// The key.
    pub key: String,
    /// Its values.
    pub values: Vec<String>,
}

/// Counts of an experiment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExperimentSummary {
    /// Number of combinations.
    pub runs: usize,
    /// Number of combinations that contradict themselves and were not run.
    pub invalid: usize,
    /// Number of combinations that meet every expectation.
    pub pass: usize,
    /// Number of combinations with a failed expectation.
    pub fail: usize,
    /// Number of combinations with an undecided expectation and no failed one.
    pub undecided: usize,
    /// Number of source-destination pairs.
    pub cells: usize,
    /// Number of source-destination pairs whose result depends on a factor.
    pub changing: usize,
    /// Number of results, of all combinations, that differ from the prediction.
    pub disagree: usize,
}

/// A combination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    /// The value of each factor.
    pub values: Values,
    /// Why the combination was not run; null if it was.
    pub invalid_because: Option<String>,
    /// The worst verdict of its expectations; null without expectations.
    pub verdict: Option<Verdict>,
    /// Counts; null if it was not run.
    pub summary: Option<Summary>,
    /// In the order of the profile.
    pub expectations: Vec<ExpectationReport>,
    /// Results that differ from the prediction.
    pub differing: Vec<CellReport>,
}

/// What decides one property, and its outcomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect<S, O> {
    /// The property.
    #[serde(flatten)]
    pub subject: S,
    /// The factors that decide it, in order; empty if every combination has the same outcome.
    pub decided_by: Vec<String>,
    /// The outcome for each combination of the values of these factors.
    pub outcomes: Vec<OutcomeRow<O>>,
    /// The smallest change between each two outcomes.
    pub changes: Vec<SmallestChange<O>>,
}

/// An outcome, and the values of the deciding factors that lead to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeRow<O> {
    /// Values of the deciding factors.
    pub values: Values,
    /// The outcome.
    #[serde(flatten)]
    pub outcome: O,
}

/// The fewest values that must change to turn one outcome into another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmallestChange<O> {
    /// The outcome before.
    pub from: O,
    /// The outcome after.
    pub to: O,
    /// The values that change.
    pub changed: Vec<ChangedValue>,
    /// The values of the other deciding factors.
    pub values: Values,
}

/// A value that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedValue {
    /// The factor.
    pub key: String,
    /// Before.
    pub from: String,
    /// After.
    pub to: String,
}

/// All expectations together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AllExpectations {}

/// One rule of an expectation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExpectationSubject {
    /// Patterns of the listeners.
    pub listener: String,
    /// Key in the profile.
    pub rule: String,
}

/// A verdict.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VerdictOutcome {
    /// The verdict.
    pub verdict: Verdict,
}

/// The binds of one listener.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BindSubject {
    /// The listener.
    pub listener: String,
}

/// Outcome of the binds of one listener: observed, else predicted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BindsOutcome {
    /// Number of its sockets.
    pub sockets: usize,
    /// How many of them open.
    pub open: usize,
    /// The errors of the others, without duplicates.
    pub errors: Vec<Errno>,
}

/// A source-destination pair.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CellSubject {
    /// The pair.
    pub cell: CellName,
}

/// Names of a source-destination pair.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CellName {
    /// The source.
    pub source: Source,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The destination address, with its zone if link-local.
    pub destination: Arc<str>,
    /// The port.
    pub port: u16,
}

/// Outcome of a source-destination pair: observed, else predicted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CellOutcome {
    /// False where the source or the destination does not exist in these combinations.
    pub present: bool,
    /// The outcome; null if it is not known or not present.
    pub outcome: Option<Outcome>,
    /// The listener that accepts it.
    pub listener: Option<String>,
    /// The possible sockets if there is more than one, or if they belong to other programs.
    pub candidates: Vec<String>,
    /// The ingress interface.
    pub ingress: Option<IfName>,
    /// Code of the rule that predicts it; null where combinations with this outcome have several.
    pub why: Option<Code>,
}

impl CellOutcome {
    fn of(cell: &CellReport) -> CellOutcome {
        let predicted = &cell.predicted;
        // Which of several possible sockets accepts is chance, and no effect of a factor.
        let seen =
            cell.observed.as_ref().filter(|_| predicted.candidates.is_empty() || cell.agrees != Some(true));
        let (outcome, listener, ingress) = match seen {
            Some(seen) => (Some(seen.outcome), &seen.listener, &seen.ingress),
            None => (predicted.outcome, &predicted.listener, &predicted.ingress),
        };
        CellOutcome {
            present: true,
            outcome,
            listener: listener.clone(),
            candidates: if listener.is_some() { Vec::new() } else { predicted.candidates.clone() },
            ingress: ingress.clone(),
            why: Some(predicted.why),
        }
    }

    fn absent() -> CellOutcome {
        CellOutcome {
            present: false,
            outcome: None,
            listener: None,
            candidates: Vec::new(),
            ingress: None,
            why: None,
        }
    }
}

impl fmt::Display for CellOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.present, self.outcome) {
            (false, _) => return f.write_str("no such address"),
            (true, None) => f.write_str("unknown")?,
            (true, Some(outcome)) => write!(f, "{outcome}")?,
        }
        match &self.listener {
            Some(listener) => write!(f, " by {}", escape(listener))?,
            None if !self.candidates.is_empty() => {
                let names: Vec<String> = self.candidates.iter().map(|name| printable(name)).collect();
                write!(f, " by {}", names.join(" or "))?;
            }
            None => {}
        }
        match &self.ingress {
            Some(ingress) => write!(f, " on {ingress}"),
            None => Ok(()),
        }
    }
}

/// The deciding factors of a pattern, and its smallest steps.
type Decision = (Vec<usize>, Vec<Step>);

/// Collects the reports of an experiment.
pub struct Collector {
    grid: Grid,
    factors: Vec<FactorReport>,
    runs: Vec<Option<RunReport>>,
    valid: Vec<bool>,
    cells: Table<CellSubject, CellOutcome>,
    binds: Table<BindSubject, BindsOutcome>,
    expectations: Table<(usize, ExpectationSubject), VerdictOutcome>,
    notes: Vec<String>,
    incomplete: BTreeSet<String>,
    host: Option<Host>,
}

impl Collector {
    /// For every combination of `factors`.
    #[must_use]
    pub fn new(factors: Vec<FactorReport>) -> Collector {
        let grid = Grid::new(factors.iter().map(|factor| factor.values.len()).collect());
        let runs = grid.size();
        Collector {
            grid,
            factors,
            runs: vec![None; runs],
            valid: vec![false; runs],
            cells: Table::new(),
            binds: Table::new(),
            expectations: Table::new(),
            notes: Vec::new(),
            incomplete: BTreeSet::new(),
            host: None,
        }
    }

    /// Adds a combination that contradicts itself.
    pub fn add_invalid(&mut self, run: usize, because: String) {
        let report = RunReport {
            values: self.values(run, None),
            invalid_because: Some(because),
            verdict: None,
            summary: None,
            expectations: Vec::new(),
            differing: Vec::new(),
        };
        if let Some(place) = self.runs.get_mut(run) {
            *place = Some(report);
        }
    }

    /// Adds the report of a combination.
    pub fn add(&mut self, run: usize, report: Report) {
        let HostReport { incomplete_because, host, body: report, .. } = report.body;
        let count = self.runs.len();
        for cell in report.cells.iter().filter(|cell| cell.source_address.is_none()) {
            let cell_name = CellName {
                source: cell.source.clone(),
                protocol: cell.protocol,
                destination: Arc::clone(&cell.destination),
                port: cell.port,
            };
            self.cells.put(CellSubject { cell: cell_name }, run, count, CellOutcome::of(cell));
        }
        let mut binds: BTreeMap<&str, BindsOutcome> = BTreeMap::new();
        for socket in &report.sockets {
            let Some(listener) = socket.socket.listener.as_deref() else { continue };
            let predicted = &socket.bind.predicted;
            let (outcome, errno) = match socket.bind.observed {
                Some(seen) => (seen.outcome, seen.errno),
                None => (predicted.outcome, predicted.errno),
            };
            let none = BindsOutcome { sockets: 0, open: 0, errors: Vec::new() };
            let binds = binds.entry(listener).or_insert(none);
            binds.sockets += 1;
            binds.open += usize::from(outcome == BindOutcome::Ok);
            binds.errors.extend(errno);
            binds.errors.sort_unstable();
            binds.errors.dedup();
        }
        for (listener, outcome) in binds {
            self.binds.put(BindSubject { listener: listener.to_owned() }, run, count, outcome);
        }
        for (index, one) in report.expectations.iter().enumerate() {
            let subject = ExpectationSubject { listener: one.listener.clone(), rule: one.rule.clone() };
            self.expectations.put((index, subject), run, count, VerdictOutcome { verdict: one.verdict });
        }
        let verdict = report.expectations.iter().map(|one| one.verdict).max();
        let differing =
            report.cells.into_iter().filter(|cell| cell.agrees == Some(false)).collect::<Vec<_>>();
        if let Some(valid) = self.valid.get_mut(run) {
            *valid = true;
        }
        for note in report.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        self.incomplete.extend(incomplete_because);
        self.host.get_or_insert(host);
        let report = RunReport {
            values: self.values(run, None),
            invalid_because: None,
            verdict,
            summary: Some(report.summary),
            expectations: report.expectations,
            differing,
        };
        if let Some(place) = self.runs.get_mut(run) {
            *place = Some(report);
        }
    }

    /// Values of a combination: of all factors, or of some.
    fn values(&self, run: usize, only: Option<&[usize]>) -> Values {
        let values = self.grid.values(run);
        let named = self.factors.iter().zip(values).enumerate();
        named
            .filter(|(index, _)| only.is_none_or(|only| only.contains(index)))
            .map(|(_, (factor, value))| {
                (factor.key.clone(), factor.values.get(value).cloned().unwrap_or_default())
            })
            .collect()
    }

    /// What decides each property of a table. `alike` gives equal numbers to outcomes that count as the same, and combines two of
    /// them.
    fn effects<S: Clone + Ord, O: Clone + Eq + Hash>(
        &self,
        table: Table<S, O>,
        alike: fn(&O) -> O,
    ) -> Vec<Effect<S, O>> {
        // The outcomes without what makes no difference.
        let mut reduced: Interner<O> = Interner::new();
        let numbers: Vec<u32> =
            table.outcomes.values.iter().map(|outcome| reduced.number(alike(outcome))).collect();
        let number = |full: u32| usize::try_from(full).ok().and_then(|full| numbers.get(full)).copied();
        let mut known: FxHashMap<Vec<Option<u32>>, Decision> = HashMap::default();
        let mut effects = Vec::with_capacity(table.patterns.len());
        for (subject, full) in table.patterns {
            let pattern: Vec<Option<u32>> = full.iter().map(|full| full.and_then(number)).collect();
            // Many pairs have the same pattern.
            let (deciding, steps) = known.entry(pattern.clone()).or_insert_with(|| {
                let deciding = analysis::deciding(&self.grid, &pattern);
                let steps =
                    if deciding.is_empty() { Vec::new() } else { analysis::steps(&self.grid, &pattern) };
                (deciding, steps)
            });
            effects.push(self.effect(subject, &full, &table.outcomes, (deciding, steps), alike));
        }
        effects
    }

    fn effect<S, O: Clone + Eq + Hash>(
        &self,
        subject: S,
        full: &[Option<u32>],
        outcomes: &Interner<O>,
        (deciding, steps): (&[usize], &[Step]),
        alike: fn(&O) -> O,
    ) -> Effect<S, O> {
        let outcome = |run: usize| full.get(run).copied().flatten().and_then(|number| outcomes.get(number));
        let mut rows: BTreeMap<Vec<usize>, (usize, &O, bool)> = BTreeMap::new();
        for run in 0..full.len() {
            let Some(found) = outcome(run) else { continue };
            let values = self.grid.values(run);
            let chosen = deciding.iter().filter_map(|&factor| values.get(factor).copied()).collect();
            let row = rows.entry(chosen).or_insert((run, found, true));
            row.2 &= row.1 == found;
        }
        let rows = rows
            .into_values()
            .map(|(run, found, same)| OutcomeRow {
                values: self.values(run, Some(deciding)),
                outcome: if same { found.clone() } else { alike(found) },
            })
            .collect();
        let change = |step: &Step| {
            let difference = self.grid.difference(step.from, step.to);
            let (before, after) = (self.values(step.from, None), self.values(step.to, None));
            let changed = difference.iter().filter_map(|&factor| {
                let key = &self.factors.get(factor)?.key;
                Some(ChangedValue {
                    key: key.clone(),
                    from: before.get(key)?.clone(),
                    to: after.get(key)?.clone(),
                })
            });
            let others: Vec<usize> =
                deciding.iter().copied().filter(|factor| !difference.contains(factor)).collect();
            Some(SmallestChange {
                from: alike(outcome(step.from)?),
                to: alike(outcome(step.to)?),
                changed: changed.collect(),
                values: self.values(step.from, Some(&others)),
            })
        };
        Effect {
            subject,
            decided_by: deciding
                .iter()
                .filter_map(|&index| Some(self.factors.get(index)?.key.clone()))
                .collect(),
            outcomes: rows,
            changes: steps.iter().filter_map(change).collect(),
        }
    }

    /// The document. `notes` come before those of the reports.
    #[must_use]
    pub fn finish(
        mut self,
        command: Command,
        profile: &str,
        mut notes: Vec<String>,
    ) -> Document<HostReport<Experiment>> {
        self.cells.fill(&self.valid, CellOutcome::absent());
        self.binds.fill(&self.valid, BindsOutcome { sockets: 0, open: 0, errors: Vec::new() });
        self.expectations.fill(&self.valid, VerdictOutcome { verdict: Verdict::Undecided });
        let cells = std::mem::replace(&mut self.cells, Table::new());
        let binds = std::mem::replace(&mut self.binds, Table::new());
        let expectations = std::mem::replace(&mut self.expectations, Table::new());
        let effects = self.effects(cells, |outcome| CellOutcome { why: None, ..outcome.clone() });
        let binds = self.effects(binds, Clone::clone);
        let expectations: Vec<_> = self
            .effects(expectations, Clone::clone)
            .into_iter()
            .map(|Effect { subject: (_, subject), decided_by, outcomes, changes }| Effect {
                subject,
                decided_by,
                outcomes,
                changes,
            })
            .collect();
        let runs: Vec<RunReport> = std::mem::take(&mut self.runs).into_iter().flatten().collect();
        let verdict = (!expectations.is_empty()).then(|| {
            let mut table: Table<AllExpectations, VerdictOutcome> = Table::new();
            for (run, report) in runs.iter().enumerate() {
                if let Some(verdict) = report.verdict {
                    table.put(AllExpectations {}, run, runs.len(), VerdictOutcome { verdict });
                }
            }
            self.effects(table, Clone::clone).pop()
        });
        let count = |verdict| runs.iter().filter(|run| run.verdict == Some(verdict)).count();
        let summary = ExperimentSummary {
            runs: runs.len(),
            invalid: runs.iter().filter(|run| run.invalid_because.is_some()).count(),
            pass: count(Verdict::Pass),
            fail: count(Verdict::Fail),
            undecided: count(Verdict::Undecided),
            cells: effects.len(),
            changing: effects.iter().filter(|effect| !effect.decided_by.is_empty()).count(),
            disagree: runs.iter().filter_map(|run| run.summary).map(|summary| summary.disagree).sum(),
        };
        notes.append(&mut self.notes);
        let body = Experiment {
            command,
            profile: profile.to_owned(),
            factors: self.factors,
            summary,
            verdict: verdict.flatten(),
            expectation_effects: expectations,
            bind_effects: binds,
            effects,
            runs,
            notes,
        };
        let incomplete = self.incomplete.into_iter().collect();
        let report = HostReport::new(self.host.unwrap_or_default(), incomplete, body);
        Document::new(Schema::Experiment, report)
    }
}
