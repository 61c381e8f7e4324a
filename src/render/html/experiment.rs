//! The section of an experiment: what decides each result.

use maud::{Markup, html};

use super::words::counted;
use super::{Mark, Section, Verdict, evidence_words, host_words};
use crate::escape::{escape, printable};
use crate::model::{HostReport, Verdict as Judged};
use crate::render::experiment::{bind_text, change_text, conditions, groups, pair_lines, result_text};
use crate::report::experiment::{Command, Effect, Experiment, FactorReport, VerdictOutcome};

/// Groups of results that are shown.
const MOST_GROUPS: usize = 500;

/// The section of an experiment. `id` begins the names of its anchors.
pub(super) fn section(experiment: &HostReport<Experiment>, id: &str) -> Section {
    let summary = experiment.summary;
    let (mark, headline) = match (summary.pass, summary.fail, summary.undecided) {
        (0, 0, 0) => {
            (Mark::None, format!("{} of {} pairs depend on a factor", summary.changing, summary.cells))
        }
        (pass, fail, _) => {
            let mark = if fail > 0 {
                Mark::Fails
            } else if pass + summary.invalid == summary.runs {
                Mark::Holds
            } else {
                Mark::Undecided
            };
            (mark, format!("All expectations hold in {pass} of {} combinations", summary.runs))
        }
    };
    let all = experiment.factors.as_slice();
    let word = |outcome: &VerdictOutcome| outcome.verdict.to_string();
    let pass = |outcome: &VerdictOutcome| outcome.verdict == Judged::Pass;
    let mut lead = vec![html! {
        (summary.changing) " of " (summary.cells) " source-destination pairs depend on a factor."
    }];
    if let Some(verdict) = experiment.verdict.as_ref().filter(|verdict| !verdict.decided_by.is_empty()) {
        for condition in conditions(all, verdict, &pass) {
            lead.push(html! { "They hold with " b { (condition) } "." });
        }
        for change in verdict.changes.iter().filter(|change| pass(&change.from) != pass(&change.to)) {
            lead.push(html! { (change_text(change, &word)) });
        }
    }
    let verb = match experiment.command {
        Command::Plan => "plan",
        Command::Probe => "probe",
        Command::Lab => "lab run",
    };
    Section {
        command: format!("bindscope {verb} {} --vary", escape(&experiment.profile)),
        verdict: Verdict { mark, headline, lead },
        facts: vec![
            ("host", host_words(&experiment.host)),
            ("combinations", format!("{}, {} not possible", summary.runs, summary.invalid)),
            ("not as predicted", counted(summary.disagree, "result")),
            ("evidence", evidence_words(experiment.complete, &experiment.incomplete_because)),
        ],
        contents: vec![
            (format!("{id}factors"), "Factors"),
            (format!("{id}results"), "What decides the results"),
            (format!("{id}binds"), "Binds and expectations"),
        ],
        body: html! { (factors(experiment, id)) (results(experiment, id)) (others(experiment, id)) },
        notes: experiment.notes.clone(),
        incomplete: experiment.incomplete_because.clone(),
        codes: std::collections::BTreeSet::new(),
    }
}

fn factors(experiment: &Experiment, id: &str) -> Markup {
    fn count<S, O>(effects: &[Effect<S, O>], factor: &FactorReport) -> usize {
        effects.iter().filter(|effect| effect.decided_by.contains(&factor.key)).count()
    }
    html! {
        section id=(format!("{id}factors")) {
            h2 { "Factors" }
            table {
                caption { "How many properties each factor decides" }
                thead { tr {
                    th scope="col" { "factor" } th scope="col" { "values" } th scope="col" { "pairs" }
                    th scope="col" { "listeners whose binds" } th scope="col" { "expectations" }
                } }
                tbody {
                    @for factor in &experiment.factors {
                        tr {
                            th scope="row" { (printable(&factor.key)) }
                            td { (printable(&factor.values.join(", "))) }
                            td { (count(&experiment.effects, factor)) }
                            td { (count(&experiment.bind_effects, factor)) }
                            td { (count(&experiment.expectation_effects, factor)) }
                        }
                    }
                }
            }
        }
    }
}

/// The outcomes of an effect with their conditions.
fn outcomes<S, O>(all: &[FactorReport], effect: &Effect<S, O>, text: &dyn Fn(&O) -> String) -> Markup {
    let mut names: Vec<String> = Vec::new();
    for row in &effect.outcomes {
        let name = text(&row.outcome);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    html! {
        ul {
            @for name in &names {
                li { b { (name) } ": " (conditions(all, effect, &|outcome| text(outcome) == *name).join("; or ")) }
            }
            @if effect.decided_by.len() > 1 {
                @for change in &effect.changes { li { (change_text(change, text)) } }
            }
        }
    }
}

fn results(experiment: &Experiment, id: &str) -> Markup {
    let groups = groups(experiment);
    html! {
        section id=(format!("{id}results")) {
            h2 { "What decides the results" }
            @if groups.is_empty() { p { "No result depends on a factor." } }
            @for group in groups.iter().take(MOST_GROUPS) {
                @if let Some(first) = group.first() {
                    h3 { (counted(group.len(), "pair")) " decided by " (printable(&first.decided_by.join(", "))) }
                    ul { @for line in pair_lines(group) { li { (line) } } }
                    (outcomes(&experiment.factors, first, &result_text(first)))
                }
            }
            @if groups.len() > MOST_GROUPS { p { "And " (groups.len() - MOST_GROUPS) " more groups." } }
        }
    }
}

fn others(experiment: &Experiment, id: &str) -> Markup {
    let word = |outcome: &VerdictOutcome| outcome.verdict.to_string();
    let all = experiment.factors.as_slice();
    html! {
        section id=(format!("{id}binds")) {
            h2 { "Binds and expectations" }
            @for effect in &experiment.bind_effects {
                h3 { "Binds of " (escape(&effect.subject.listener)) }
                (outcomes(all, effect, &bind_text))
            }
            @for effect in &experiment.expectation_effects {
                h3 { (escape(&effect.subject.listener)) " " (printable(&effect.subject.rule)) }
                (outcomes(all, effect, &word))
            }
        }
    }
}
