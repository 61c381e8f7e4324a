//! `--vary`: the factors of an experiment, its combinations, and what `plan`, `probe` and `lab run` share in running them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;

use super::plan::{self, Format};
use super::profile_args::ProfileArgs;
use super::progress::Progress;
use super::target_host::{self, HostArgs};
use super::{Context, Exit, Failure};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::library::add_port_holders;
use crate::model::{Document, HostReport, Protocol, Snapshot};
use crate::plan::expand::expand;
use crate::profile::vary::{self, Factor, FactorValue, Target};
use crate::profile::{Listener, Profile};
use crate::render;
use crate::report::experiment::analysis::Grid;
use crate::report::experiment::{Collector, Command, Experiment, FactorReport};
use crate::report::extent::Extent;
use crate::report::matrix::{Asked, Report};
use crate::report::plan::{TargetHost, assemble_asked};

/// Arguments of an experiment.
#[derive(Debug, Clone, clap::Args)]
pub struct VaryArgs {
    /// Run every combination of values, and show what decides each result: a key of a listener (web.v6only=true,false), a setting
    /// (net.ipv6.bindv6only=0,1), order=profile,reverse, profile=A,B, or topology=A,B (lab run); repeatable
    #[arg(long, value_name = "KEY=A,B,...", help_heading = "Experiments", hide_short_help = true)]
    vary: Vec<String>,
    /// Refuse an experiment with more combinations
    #[arg(
        long,
        value_name = "N",
        default_value_t = 256,
        help_heading = "Experiments",
        hide_short_help = true
    )]
    max_runs: usize,
}

/// The factors of an experiment, and the profiles that they change.
pub(super) struct Design {
    pub(super) factors: Vec<Factor>,
    pub(super) grid: Grid,
    command: Command,
    /// One for each value of the factor `profile`; otherwise one.
    profiles: Vec<Profile>,
}

/// The index of the factor with this target, if there is one.
fn position(factors: &[Factor], target: &Target) -> Option<usize> {
    factors.iter().position(|factor| factor.target == *target)
}

impl VaryArgs {
    /// The experiment of the command line and of the profile; `None` without factors. A factor of the command line replaces that of
    /// the profile with the same key. `fixed_network` says that the lab copies a host.
    ///
    /// # Errors
    /// Exit code 2 with every problem.
    pub(super) fn design(
        &self,
        source: &ProfileArgs,
        profile: &Profile,
        command: Command,
        fixed_network: bool,
        context: &Context,
    ) -> Result<Option<Design>, Failure> {
        let mut problems = Vec::new();
        let mut profiles = vec![profile.clone()];
        let mut factors: Vec<Factor> = Vec::new();
        let is_profile = |text: &&String| text.split('=').next().map(str::trim) == Some("profile");
        let of_profiles = self.vary.iter().filter(is_profile).map(|text| vary::parse(text, None));
        let of_profiles: Vec<Factor> = of_profiles.filter_map(Result::ok).collect();
        let own = profile.vary.iter().find(|factor| factor.target == Target::Profile);
        if let Some(factor) = of_profiles.first().or(own) {
            profiles.clear();
            for value in &factor.values {
                match source.in_place_of_profile(OsStr::new(&value.text)).load("default", context) {
                    Ok(profile) => profiles.push(profile),
                    Err(failure) => problems.extend(failure.problems),
                }
            }
        }
        let listeners: Vec<Listener> =
            profiles.iter().flat_map(|profile| profile.listeners.iter().cloned()).collect();
        for text in &self.vary {
            match vary::parse(text, problems.is_empty().then_some(&listeners)) {
                Ok(factor) if factors.iter().any(|other| other.key == factor.key) => {
                    let mut problem =
                        Diagnostic::error(Code::DUPLICATE_NAME, format!("`{}` is varied twice", factor.key));
                    problem.place = factor.place;
                    problems.push(problem.help("write one --vary with all its values"));
                }
                Ok(factor) => factors.push(factor),
                Err(wrong) => problems.extend(wrong),
            }
        }
        let given = factors.len();
        let inherited = profile.vary.iter().filter(|factor| !self.replaces(factor));
        let mut all: Vec<Factor> = inherited.cloned().collect();
        all.append(&mut factors);
        let first_given = all.len() - given;
        let mut kept = Vec::new();
        for (index, factor) in all.into_iter().enumerate() {
            match unsupported(&factor, command, fixed_network) {
                None => kept.push(factor),
                Some((message, help)) if index >= first_given => {
                    let mut problem = Diagnostic::error(Code::BAD_FACTOR, message);
                    problem.place.clone_from(&factor.place);
                    problems.push(problem.help(help));
                }
                Some((message, help)) => context.say(
                    &Diagnostic::note(Code::BAD_FACTOR, format!("the factor is left out: {message}"))
                        .help(help),
                ),
            }
        }
        problems.extend(vary::overlap(&kept, &listeners));
        if !problems.is_empty() {
            return Err(Failure::usage(problems));
        }
        if kept.is_empty() {
            return Ok(None);
        }
        let grid = Grid::new(kept.iter().map(|factor| factor.values.len()).collect());
        if grid.size() > self.max_runs {
            return Err(Failure::usage(vec![too_many(&kept, &grid, self.max_runs)]));
        }
        Ok(Some(Design { factors: kept, grid, command, profiles }))
    }

    /// Whether the command line has a factor with the same key.
    fn replaces(&self, factor: &Factor) -> bool {
        self.vary.iter().any(|text| text.split('=').next().map(str::trim) == Some(factor.key.as_str()))
    }
}

fn too_many(factors: &[Factor], grid: &Grid, most: usize) -> Diagnostic {
    let counts: Vec<String> =
        factors.iter().map(|factor| format!("{} of {}", factor.values.len(), factor.key)).collect();
    let size = grid.size();
    let message =
        format!("the experiment has {size} combinations, and the limit is {most}: {}", counts.join(" x "));
    Diagnostic::error(Code::TOO_MANY_RUNS, message)
        .help(format!("remove values, or allow them with --max-runs {size}"))
}

/// Why a command cannot change a factor, and what can.
fn unsupported(factor: &Factor, command: Command, fixed_network: bool) -> Option<(String, String)> {
    let key = &factor.key;
    match (&factor.target, command) {
        (Target::Setting(_), Command::Probe) => Some((
            format!("probe does not change settings of this host such as `{key}`"),
            format!("`plan --vary {key}=...` predicts the results, `lab run --vary {key}=...` tries them"),
        )),
        (Target::Topology, Command::Plan | Command::Probe) => Some((
            "`topology` is a factor of labs".to_owned(),
            "`lab run --vary topology=A,B` builds each network; `bindscope lab list` names the built-in ones"
                .to_owned(),
        )),
        (Target::Topology, Command::Lab) if fixed_network => Some((
            "`topology` cannot be varied together with --twin".to_owned(),
            "leave --twin out".to_owned(),
        )),
        _ => None,
    }
}

/// An experiment is written in these formats.
pub(super) fn check_format(format: Format) -> Result<(), Failure> {
    match format {
        Format::Human | Format::Json | Format::Csv | Format::Html => Ok(()),
        _ => {
            let problem =
                Diagnostic::error(Code::COMMAND_LINE, "an experiment is written as human, json, csv or html");
            Err(Failure::usage(vec![problem.help("choose one of them with --format")]))
        }
    }
}

impl Design {
    /// The value of each factor in a combination.
    pub(super) fn values(&self, run: usize) -> impl Iterator<Item = (&Factor, &FactorValue)> {
        let values = self.grid.values(run);
        self.factors
            .iter()
            .zip(values)
            .filter_map(|(factor, value)| Some((factor, factor.values.get(value)?)))
    }

    /// The profile of a combination.
    ///
    /// # Errors
    /// Why the combination contradicts itself.
    pub(super) fn profile(&self, run: usize) -> Result<Profile, String> {
        let values = self.grid.values(run);
        let index = position(&self.factors, &Target::Profile).and_then(|index| values.get(index).copied());
        let mut profile = self
            .profiles
            .get(index.unwrap_or(0))
            .cloned()
            .ok_or_else(|| "the combination has no profile".to_owned())?;
        vary::apply(&mut profile, &self.factors, &values)?;
        Ok(profile)
    }

    /// The settings of a combination, by name.
    pub(super) fn settings(&self, run: usize) -> BTreeMap<String, String> {
        let settings = self.values(run).filter_map(|(factor, value)| match &factor.target {
            Target::Setting(name) => Some((name.clone(), value.text.clone())),
            _ => None,
        });
        settings.collect()
    }

    /// The topology of a combination.
    pub(super) fn topology(&self, run: usize) -> Option<&FactorValue> {
        self.values(run).find(|(factor, _)| factor.target == Target::Topology).map(|(_, value)| value)
    }

    /// A collector of the reports.
    pub(super) fn collector(&self) -> Collector {
        let factor = |factor: &Factor| FactorReport {
            key: factor.key.clone(),
            values: factor.values.iter().map(|value| value.text.clone()).collect(),
        };
        Collector::new(self.factors.iter().map(factor).collect())
    }

    /// Writes the document. An experiment in which every combination contradicts itself has checked nothing.
    pub(super) fn finish(
        &self,
        collector: Collector,
        notes: Vec<String>,
        (format, output): (Format, Option<&Path>),
        context: &Context,
    ) -> Result<Exit, Failure> {
        let profile = self.profiles.first().map_or("", |profile| profile.name.as_str());
        let document = collector.finish(self.command, profile, notes);
        let text = written(&document, format, context, output.is_some());
        context.emit(text.as_bytes(), output)?;
        let summary = document.summary;
        Ok(if summary.invalid == summary.runs { Exit::Undecided } else { Exit::Success })
    }
}

fn written(
    document: &Document<HostReport<Experiment>>,
    format: Format,
    context: &Context,
    to_file: bool,
) -> String {
    match format {
        Format::Json => {
            let mut json = Vec::new();
            let _ = crate::report::json::write(&mut json, document, 4);
            String::from_utf8(json).unwrap_or_default()
        }
        Format::Csv => render::experiment::csv(document),
        Format::Html => render::html::page(&[render::html::Part::Experiment(&document.body)]),
        _ => {
            render::experiment::human(document, context.color && !to_file, context.width, context.verbose > 0)
        }
    }
}

/// The services of profiles. Every combination is asked for the services of all.
pub(super) fn services<'a>(profiles: impl Iterator<Item = &'a Profile>) -> Vec<(Protocol, u16)> {
    let mut services = BTreeSet::new();
    for listener in profiles.flat_map(|profile| &profile.listeners) {
        services
            .extend(listener.ports.iter().filter(|port| **port != 0).map(|port| (listener.protocol, *port)));
    }
    services.into_iter().collect()
}

/// How many results all combinations together may have, as a multiple of the limit of one plan: each takes four bytes.
const MANY_RUNS: usize = 32;

/// Plans every combination.
///
/// # Errors
/// A host that cannot be read, a setting that no prediction depends on, or too many results.
pub(super) fn plan(
    design: &Design,
    host: &HostArgs,
    (format, output): (Format, Option<&Path>),
    judge: &mut dyn FnMut(&Report) -> Exit,
    context: &Context,
) -> Result<Exit, Failure> {
    check_format(format)?;
    let mut subject = host.subject()?;
    let mut exit = plan::evidence(&subject.snapshot);
    check_settings(design, &subject.snapshot)?;
    let mut collector = design.collector();
    let mut planned = Vec::new();
    let mut snapshots: BTreeMap<BTreeMap<String, String>, Snapshot> = BTreeMap::new();
    for run in 0..design.grid.size() {
        match design.profile(run) {
            Err(because) => collector.add_invalid(run, because),
            Ok(profile) => {
                let settings = design.settings(run);
                let snapshot = snapshots
                    .entry(settings.clone())
                    .or_insert_with(|| changed(&subject.snapshot, &settings));
                let expansion = expand(&profile, snapshot);
                planned.push((run, profile, settings, expansion));
            }
        }
    }
    let services = services(planned.iter().map(|(_, profile, ..)| profile));
    let mut total = 0_usize;
    for (_, _, settings, expansion) in &planned {
        let Some(snapshot) = snapshots.get(settings) else { continue };
        let count = Extent::default().results(&expansion.sockets, snapshot);
        host.limit.check(count)?;
        total = total.saturating_add(count);
    }
    host.limit.check_total(total, MANY_RUNS)?;
    let sockets: Vec<_> =
        planned.iter().flat_map(|(.., expansion)| expansion.sockets.iter().cloned()).collect();
    add_port_holders(&mut subject, &sockets);
    let mut progress = Progress::new("combinations", planned.len(), context);
    for (done, (run, profile, settings, expansion)) in planned.into_iter().enumerate() {
        let Some(snapshot) = snapshots.get(&settings) else { continue };
        let target = TargetHost {
            snapshot: snapshot.clone(),
            foreign: subject.foreign.clone(),
            rights: subject.rights,
            client_ports: None,
            notes: subject.notes.clone(),
            incomplete_because: subject.incomplete_because.clone(),
        };
        let asked = Asked { services: &services, ..Asked::default() };
        let report = assemble_asked(&profile, &expansion, target, asked);
        exit = exit.worse(plan::verdict(&report)).worse(judge(&report));
        collector.add(run, report);
        progress.show(done + 1);
    }
    progress.end();
    Ok(exit.worse(design.finish(collector, Vec::new(), (format, output), context)?))
}

/// The snapshot with these settings. [`check_settings`] has tried each.
fn changed(snapshot: &Snapshot, settings: &BTreeMap<String, String>) -> Snapshot {
    let mut snapshot = snapshot.clone();
    for (name, value) in settings {
        if let Ok(value) = value.parse() {
            let _ = target_host::change(&mut snapshot, name, value);
        }
    }
    snapshot
}

/// Checks that predictions depend on the settings that are varied.
fn check_settings(design: &Design, snapshot: &Snapshot) -> Result<(), Failure> {
    let mut problems = Vec::new();
    for factor in &design.factors {
        let (Target::Setting(name), Some(value)) = (&factor.target, factor.values.first()) else { continue };
        let value = value.text.parse().unwrap_or_default();
        if let Err(mut problem) = target_host::change(&mut snapshot.clone(), name, value) {
            problem.place.clone_from(&factor.place);
            problems.push(problem);
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure::usage(problems)) }
}

/// A problem with the value of a factor, at its position.
pub(super) fn at_value(failure: Failure, value: &FactorValue) -> Failure {
    let place = |mut problem: Diagnostic| {
        if problem.place.is_none() {
            problem.place.clone_from(&value.place);
        }
        problem
    };
    Failure { problems: failure.problems.into_iter().map(place).collect(), ..failure }
}
