//! Experiments as text and CSV: first what changes the result.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use super::style::{Paint, Tone};
use super::table::{wrap, wrap_from};
use crate::escape::{csv_escaped, escape, printable};
use crate::model::Verdict;
use crate::model::{Document, HostReport, IfName, Outcome};
use crate::report::experiment::analysis::{self, Grid};
use crate::report::experiment::{
    BindsOutcome, CellOutcome, CellSubject, Command, Effect, Experiment, FactorReport, OutcomeRow,
    SmallestChange, Values, VerdictOutcome,
};

/// Maximum number of groups of results and of differing results that are shown without `-v`.
const MOST_GROUPS: usize = 16;

/// Maximum number of smallest changes of one group that are shown without `-v`.
const MOST_CHANGES: usize = 3;

/// The experiment as text for a person, at most `width` columns wide.
#[must_use]
pub fn human(
    document: &Document<HostReport<Experiment>>,
    color: bool,
    width: usize,
    verbose: bool,
) -> String {
    let text = Text { paint: Paint::new(color), width: width.max(40), verbose, all: &document.factors };
    let body = &document.body.body;
    let mut out = String::new();
    text.answer(&mut out, body);
    text.factors(&mut out, body);
    text.effects(&mut out, body);
    text.binds(&mut out, body);
    text.expectations(&mut out, body);
    text.invalid(&mut out, body);
    text.differing(&mut out, body);
    for reason in &document.incomplete_because {
        text.line(&mut out, &format!("Incomplete: {}", printable(reason)));
    }
    for note in &body.notes {
        text.line(&mut out, &format!("Note: {}", printable(note)));
    }
    text.line(&mut out, "Every combination: --format csv or --json");
    out
}

/// Pairs whose result depends on a factor, grouped by equal outcomes: the largest groups first.
pub(super) fn groups(body: &Experiment) -> Vec<Vec<&Effect<CellSubject, CellOutcome>>> {
    type Key<'a> = (&'a [String], Vec<(&'a Values, CellOutcome)>);
    let mut groups: Vec<Vec<&Effect<CellSubject, CellOutcome>>> = Vec::new();
    let mut known: HashMap<Key<'_>, usize> = HashMap::new();
    for effect in body.effects.iter().filter(|effect| !effect.decided_by.is_empty()) {
        let ingress = only_ingress(effect);
        let rows = effect.outcomes.iter().map(|row| {
            let mut outcome = CellOutcome { why: None, ..row.outcome.clone() };
            // An interface that no factor changes is shown with the pair.
            outcome.ingress = outcome.ingress.filter(|_| ingress.is_none());
            (&row.values, outcome)
        });
        let key = (effect.decided_by.as_slice(), rows.collect());
        let next = groups.len();
        let group = *known.entry(key).or_insert(next);
        match groups.get_mut(group) {
            Some(group) => group.push(effect),
            None => groups.push(vec![effect]),
        }
    }
    // The most pairs first; then in the order of the pairs.
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    groups
}

struct Text<'a> {
    paint: Paint,
    width: usize,
    verbose: bool,
    all: &'a [FactorReport],
}

impl Text<'_> {
    fn line(&self, out: &mut String, text: &str) {
        let _ = writeln!(out, "{}", wrap(text, self.width, "  "));
    }

    fn under(&self, out: &mut String, indent: usize, text: &str) {
        let first = " ".repeat(indent);
        let _ = writeln!(out, "{}", wrap_from(&first, text, self.width, &" ".repeat(indent + 4)));
    }

    fn heading(&self, out: &mut String, text: &str) {
        let _ = writeln!(out, "\n{}", self.paint.tone(Tone::Strong, text));
    }

    /// How many combinations meet the expectations, and which.
    fn answer(&self, out: &mut String, body: &Experiment) {
        let summary = body.summary;
        let verb = match body.command {
            Command::Plan => "predicted",
            Command::Probe => "tried from this host",
            Command::Lab => "tried in labs",
        };
        let factors = match self.all.len() {
            1 => "1 factor".to_owned(),
            count => format!("{count} factors"),
        };
        self.line(
            out,
            &format!(
                "{} combinations of {factors} {verb}. {} of {} source-destination pairs depend on a factor.",
                summary.runs, summary.changing, summary.cells
            ),
        );
        if body.command != Command::Plan {
            let differ = match summary.disagree {
                0 => "Every observed result is as predicted.".to_owned(),
                count => format!("{count} observed results are NOT as predicted."),
            };
            self.line(out, &differ);
        }
        let Some(verdict) = &body.verdict else {
            self.line(out, "The profile has no expectations, so no combination passes or fails.");
            return;
        };
        let mut sentence =
            format!("All expectations hold in {} of {} combinations", summary.pass, summary.runs);
        for (count, word) in [
            (summary.fail, "fail"),
            (summary.undecided, "are undecided"),
            (summary.invalid, "are not possible"),
        ] {
            if count > 0 {
                let _ = write!(sentence, ", {count} {word}");
            }
        }
        let tone = if summary.pass == summary.runs { Tone::Good } else { Tone::Bad };
        let sentence = wrap(&format!("{sentence}."), self.width, "  ");
        let _ = writeln!(out, "{}", self.paint.tone(tone, &sentence));
        if verdict.decided_by.is_empty() {
            return;
        }
        let pass = |outcome: &VerdictOutcome| outcome.verdict == Verdict::Pass;
        for condition in conditions(self.all, verdict, &pass) {
            self.under(out, 2, &format!("they hold with {condition}"));
        }
        for change in verdict.changes.iter().filter(|change| pass(&change.from) != pass(&change.to)) {
            let word = |outcome: &VerdictOutcome| outcome.verdict.to_string();
            self.under(out, 2, &change_text(change, &word));
        }
    }

    fn factors(&self, out: &mut String, body: &Experiment) {
        self.heading(out, "FACTORS");
        for factor in self.all {
            let values: Vec<String> = factor.values.iter().map(|value| printable(value)).collect();
            let decides = |lists: [usize; 3]| -> String {
                let [cells, binds, expectations] = lists;
                if lists == [0, 0, 0] {
                    return "decides nothing".to_owned();
                }
                let mut parts = vec![format!("{cells} of {} pairs", body.effects.len())];
                if binds > 0 {
                    parts.push(format!("binds of {binds} of {} listeners", body.bind_effects.len()));
                }
                if expectations > 0 {
                    parts.push(format!("{expectations} of {} expectations", body.expectation_effects.len()));
                }
                format!("decides {}", parts.join(", "))
            };
            fn count<S, O>(effects: &[Effect<S, O>], key: &str) -> usize {
                effects.iter().filter(|effect| effect.decided_by.iter().any(|one| one == key)).count()
            }
            let key = &factor.key;
            let counts = [
                count(&body.effects, key),
                count(&body.bind_effects, key),
                count(&body.expectation_effects, key),
            ];
            let text = format!("{} = {}: {}", printable(key), values.join(", "), decides(counts));
            self.under(out, 0, &text);
        }
    }

    /// Pairs whose result depends on a factor; those with the same outcomes share one entry.
    fn effects(&self, out: &mut String, body: &Experiment) {
        let groups = groups(body);
        if groups.is_empty() {
            return;
        }
        self.heading(out, "WHAT DECIDES THE RESULTS");
        let most = if self.verbose { groups.len() } else { MOST_GROUPS };
        for group in groups.iter().take(most) {
            let Some(first) = group.first() else { continue };
            let decided: Vec<String> = first.decided_by.iter().map(|key| printable(key)).collect();
            let pairs = if group.len() == 1 { "1 pair".to_owned() } else { format!("{} pairs", group.len()) };
            self.under(out, 0, &format!("{pairs} decided by {}", decided.join(", ")));
            for line in pair_lines(group) {
                self.under(out, 2, &line);
            }
            self.outcomes(out, first, &result_text(first));
        }
        let left: usize = groups.iter().skip(most).map(Vec::len).sum();
        if left > 0 {
            self.line(out, &format!("and {left} more pairs; -v shows all"));
        }
    }

    /// The outcomes of an effect with their conditions, and the smallest changes where more than one factor decides.
    fn outcomes<S, O: Clone + PartialEq>(
        &self,
        out: &mut String,
        effect: &Effect<S, O>,
        text: &dyn Fn(&O) -> String,
    ) {
        let mut shown: Vec<String> = Vec::new();
        for row in &effect.outcomes {
            let name = text(&row.outcome);
            if shown.contains(&name) {
                continue;
            }
            let same = |outcome: &O| text(outcome) == name;
            let conditions = conditions(self.all, effect, &same);
            self.under(out, 4, &format!("{name}: {}", conditions.join("; or ")));
            shown.push(name);
        }
        if effect.decided_by.len() < 2 {
            return;
        }
        let most = if self.verbose { effect.changes.len() } else { MOST_CHANGES };
        for change in effect.changes.iter().take(most) {
            self.under(out, 4, &change_text(change, text));
        }
        match effect.changes.len().saturating_sub(most) {
            0 => {}
            more => self.under(out, 4, &format!("and {more} more changes; -v shows all")),
        }
    }

    fn binds(&self, out: &mut String, body: &Experiment) {
        let deciding: Vec<_> =
            body.bind_effects.iter().filter(|effect| !effect.decided_by.is_empty()).collect();
        if deciding.is_empty() {
            return;
        }
        self.heading(out, "WHAT DECIDES THE BINDS");
        for effect in deciding {
            self.under(out, 0, &escape(&effect.subject.listener));
            self.outcomes(out, effect, &bind_text);
        }
    }

    fn expectations(&self, out: &mut String, body: &Experiment) {
        if body.expectation_effects.is_empty() {
            return;
        }
        self.heading(out, "WHAT DECIDES THE EXPECTATIONS");
        let word = |outcome: &VerdictOutcome| outcome.verdict.to_string();
        for effect in &body.expectation_effects {
            let name = format!("{} {}", escape(&effect.subject.listener), effect.subject.rule);
            match (effect.decided_by.is_empty(), effect.outcomes.first()) {
                (true, Some(row)) => {
                    self.under(out, 0, &format!("{name}: {} in every combination", word(&row.outcome)));
                }
                _ => {
                    self.under(out, 0, &name);
                    self.outcomes(out, effect, &word);
                }
            }
        }
    }

    /// Combinations that were not run, by reason.
    fn invalid(&self, out: &mut String, body: &Experiment) {
        let mut reasons: BTreeMap<&str, (usize, &Values)> = BTreeMap::new();
        for run in &body.runs {
            if let Some(reason) = &run.invalid_because {
                reasons.entry(reason).or_insert((0, &run.values)).0 += 1;
            }
        }
        if reasons.is_empty() {
            return;
        }
        self.heading(out, "COMBINATIONS THAT ARE NOT POSSIBLE");
        for (reason, (count, values)) in reasons {
            let example = self.values_text(values);
            self.under(out, 0, &format!("{count}: {} (such as {example})", printable(reason)));
        }
    }

    /// Results that differ from the prediction.
    fn differing(&self, out: &mut String, body: &Experiment) {
        let all = body.runs.iter().flat_map(|run| run.differing.iter().map(move |cell| (run, cell)));
        let most = if self.verbose { usize::MAX } else { MOST_GROUPS };
        let mut count = 0;
        for (index, (run, cell)) in all.enumerate() {
            count = index + 1;
            if index == 0 {
                self.heading(out, "NOT AS PREDICTED");
            }
            if index < most {
                let result = |outcome: Option<Outcome>, listener: Option<&str>| match listener {
                    Some(listener) => format!("accepted by {}", escape(listener)),
                    None => outcome.map_or_else(|| "unknown".to_owned(), |outcome| outcome.to_string()),
                };
                let predicted = result(cell.predicted.outcome, cell.predicted.listener.as_deref());
                let seen = result(cell.outcome(), cell.listener());
                let text = format!(
                    "{} to {} {} port {}: {seen}, predicted {predicted}, with {}",
                    cell.source,
                    cell.protocol,
                    printable(&cell.destination),
                    cell.port,
                    self.values_text(&run.values)
                );
                self.under(out, 0, &text);
            }
        }
        if count > most {
            self.line(out, &format!("and {} more; -v shows all", count - most));
        }
    }

    fn values_text(&self, values: &Values) -> String {
        let factors = self.all.iter().filter_map(|factor| Some((&factor.key, values.get(&factor.key)?)));
        let words: Vec<String> = factors.map(|(key, value)| printable(&format!("{key} = {value}"))).collect();
        words.join(", ")
    }
}

/// The values of the deciding factors that lead to an outcome; one text for each part of the combinations.
pub(super) fn conditions<S, O>(
    all: &[FactorReport],
    effect: &Effect<S, O>,
    wanted: &dyn Fn(&O) -> bool,
) -> Vec<String> {
    let factors: Vec<&FactorReport> =
        all.iter().filter(|factor| effect.decided_by.contains(&factor.key)).collect();
    let grid = Grid::new(factors.iter().map(|factor| factor.values.len()).collect());
    let mut pattern = vec![None; grid.size()];
    for row in &effect.outcomes {
        let place = |factor: &&FactorReport| {
            let value = row.values.get(&factor.key)?;
            factor.values.iter().position(|other| other == value)
        };
        let Some(values) = factors.iter().map(place).collect::<Option<Vec<usize>>>() else { continue };
        if let Some(place) = pattern.get_mut(grid.run(&values)) {
            *place = Some(u32::from(wanted(&row.outcome)));
        }
    }
    let parts = analysis::parts(&grid, &pattern, 1);
    parts
        .into_iter()
        .map(|part| {
            let words = factors.iter().zip(part).filter_map(|(factor, values)| {
                if values.len() == factor.values.len() {
                    return None;
                }
                let names: Vec<&str> =
                    values.iter().filter_map(|&value| factor.values.get(value)).map(String::as_str).collect();
                let names =
                    if names.len() == 1 { names.concat() } else { format!("({})", names.join(" or ")) };
                Some(printable(&format!("{} = {names}", factor.key)))
            });
            let words: Vec<String> = words.collect();
            if words.is_empty() { "always".to_owned() } else { words.join(" and ") }
        })
        .collect()
}

/// The fewest values that turn one outcome into another.
pub(super) fn change_text<O>(change: &SmallestChange<O>, text: &dyn Fn(&O) -> String) -> String {
    let changed: Vec<String> = change
        .changed
        .iter()
        .map(|one| printable(&format!("{} from {} to {}", one.key, one.from, one.to)))
        .collect();
    let mut sentence = format!(
        "smallest change from \"{}\" to \"{}\": {}",
        text(&change.from),
        text(&change.to),
        changed.join(" and ")
    );
    if !change.values.is_empty() {
        let others: Vec<String> =
            change.values.iter().map(|(key, value)| printable(&format!("{key} = {value}"))).collect();
        let _ = write!(sentence, " (with {})", others.join(", "));
    }
    sentence
}

/// The ingress interface of every accepted outcome, if it is one and the same.
fn only_ingress(effect: &Effect<CellSubject, CellOutcome>) -> Option<&IfName> {
    let mut all = effect.outcomes.iter().filter_map(|row| row.outcome.ingress.as_ref());
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

/// The results of an effect in words; an interface that is the same in all of them is shown with the pairs.
pub(super) fn result_text(effect: &Effect<CellSubject, CellOutcome>) -> impl Fn(&CellOutcome) -> String {
    let fixed = only_ingress(effect).is_some();
    move |outcome: &CellOutcome| {
        let ingress = outcome.ingress.clone().filter(|_| !fixed);
        CellOutcome { ingress, ..outcome.clone() }.to_string()
    }
}

/// The pairs of a group: a line for each source, protocol, port and ingress interface.
pub(super) fn pair_lines(group: &[&Effect<CellSubject, CellOutcome>]) -> Vec<String> {
    let mut lines: Vec<(String, Option<&IfName>, Vec<String>)> = Vec::new();
    for effect in group {
        let cell = &effect.subject.cell;
        let ingress = only_ingress(effect);
        let start = format!("{} to {} port {}", cell.source, cell.protocol, cell.port);
        let destination = printable(&cell.destination);
        match lines.iter_mut().find(|(other, on, _)| *other == start && *on == ingress) {
            Some((.., destinations)) => destinations.push(destination),
            None => lines.push((start, ingress, vec![destination])),
        }
    }
    let line = |(start, ingress, destinations): (String, Option<&IfName>, Vec<String>)| {
        let on = ingress.map(|ingress| format!(" (arrives on {ingress})")).unwrap_or_default();
        format!("{start} at {}{on}", destinations.join(", "))
    };
    lines.into_iter().map(line).collect()
}

pub(super) fn bind_text(outcome: &BindsOutcome) -> String {
    let mut text = match (outcome.open, outcome.sockets) {
        (_, 0) => return "no socket".to_owned(),
        (open, all) if open == all => "open".to_owned(),
        (0, _) => String::new(),
        (open, all) => format!("{open} of {all} open"),
    };
    if !outcome.errors.is_empty() {
        let errors: Vec<String> = outcome.errors.iter().map(ToString::to_string).collect();
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&errors.join(", "));
    } else if text.is_empty() {
        "uncertain".clone_into(&mut text);
    }
    text
}

/// One row for each combination and source-destination pair: the values of the factors, the pair, and its result.
#[must_use]
pub fn csv(body: &Experiment) -> String {
    let mut out = String::from("run");
    let field = |text: &str| csv_escaped(printable(text));
    for factor in &body.factors {
        let _ = write!(out, ",{}", field(&factor.key));
    }
    out.push_str(
        ",verdict,invalid_because,source,protocol,destination,port,present,outcome,listener,ingress,why,agrees,decided_by\r\n",
    );
    // The row of an effect by the values of its deciding factors.
    let rows: Vec<HashMap<Vec<&str>, &OutcomeRow<CellOutcome>>> = body
        .effects
        .iter()
        .map(|effect| {
            effect.outcomes.iter().map(|row| (chosen(&effect.decided_by, &row.values), row)).collect()
        })
        .collect();
    for (number, run) in body.runs.iter().enumerate() {
        let mut start = (number + 1).to_string();
        for factor in &body.factors {
            let _ = write!(start, ",{}", field(run.values.get(&factor.key).map_or("", String::as_str)));
        }
        let verdict = run.verdict.map(|verdict| verdict.to_string()).unwrap_or_default();
        let _ = write!(start, ",{verdict},{}", field(run.invalid_because.as_deref().unwrap_or_default()));
        if run.invalid_because.is_some() {
            let _ = write!(out, "{start},,,,,,,,,,,\r\n");
            continue;
        }
        for (effect, rows) in body.effects.iter().zip(&rows) {
            let Some(row) = rows.get(&chosen(&effect.decided_by, &run.values)) else { continue };
            let CellSubject { cell } = &effect.subject;
            let outcome = &row.outcome;
            let listener = match &outcome.listener {
                Some(listener) => listener.clone(),
                None => outcome.candidates.join(" or "),
            };
            let differs = run.differing.iter().any(|other| {
                (&other.source, other.protocol, &other.destination, other.port)
                    == (&cell.source, cell.protocol, &cell.destination, cell.port)
            });
            let agrees = match body.command {
                Command::Plan => "",
                _ if differs => "false",
                _ => "true",
            };
            let _ = write!(
                out,
                "{start},{},{},{},{},{},{},{},{},{},{agrees},{}\r\n",
                field(&cell.source.to_string()),
                cell.protocol,
                field(&cell.destination),
                cell.port,
                outcome.present,
                outcome.outcome.map(|outcome| outcome.to_string()).unwrap_or_default(),
                field(&listener),
                field(&outcome.ingress.as_ref().map(ToString::to_string).unwrap_or_default()),
                outcome.why.map(|code| code.to_string()).unwrap_or_default(),
                field(&effect.decided_by.join(" "))
            );
        }
    }
    out
}

/// The values of some factors.
fn chosen<'a>(keys: &[String], values: &'a Values) -> Vec<&'a str> {
    keys.iter().filter_map(|key| values.get(key)).map(String::as_str).collect()
}
