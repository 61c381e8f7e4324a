//! What is compared of two experiments: what decides each result, and the verdict of each combination.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::escape::{escape, printable};
use crate::report::experiment::{CellOutcome, CellSubject, Effect, Values};

/// The lists of an experiment.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Experiment {
    #[serde(default)]
    effects: Vec<Effect<CellSubject, CellOutcome>>,
    #[serde(default)]
    runs: Vec<Run>,
}

#[derive(Debug, Clone, Deserialize)]
struct Run {
    values: Values,
    invalid_because: Option<String>,
    verdict: Option<String>,
}

impl Experiment {
    /// Kind, key and value of each entry.
    pub(super) fn entries(&self) -> Vec<(&'static str, String, String)> {
        let effects = self.effects.iter().map(|effect| {
            let cell = &effect.subject.cell;
            let key = format!(
                "{} to {} {} port {}",
                cell.source,
                cell.protocol,
                printable(&cell.destination),
                cell.port
            );
            let outcomes: Vec<String> =
                effect.outcomes.iter().map(|row| format!("{}{}", with(&row.values), row.outcome)).collect();
            ("effect", key, outcomes.join("; "))
        });
        let runs = self.runs.iter().map(|run| {
            let value = match (&run.invalid_because, &run.verdict) {
                (Some(_), _) => "not possible".to_owned(),
                (None, Some(verdict)) => escape(verdict),
                (None, None) => "run".to_owned(),
            };
            ("combination", words(&run.values), value)
        });
        effects.chain(runs).collect()
    }
}

fn words(values: &BTreeMap<String, String>) -> String {
    let words: Vec<String> = values.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    printable(&words.join(", "))
}

fn with(values: &Values) -> String {
    if values.is_empty() { String::new() } else { format!("{}: ", words(values)) }
}
