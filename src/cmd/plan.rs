//! `bindscope plan`: what will happen, before a socket is opened.

use super::format_args::{FormatArgs, Formats};
use std::path::PathBuf;

use super::profile_args::ProfileArgs;
use super::target_host::{HostArgs, TargetHost};
use super::{Context, Exit, Failure};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::model::filters::{self, PacketFilters};
use crate::model::{FamilyExposure, Phase, Snapshot};
use crate::plan::expand::{Expansion, expand};
use crate::plan::exposure::{Exposer, Facts};
use crate::plan::predict::BindOutcome;
use crate::profile::Profile;
use crate::render;
use crate::report::expectations::{self, Verdict};
use crate::report::matrix::{
    self, BindReport, PLAN_SCHEMA, Plan, PredictedBind, Questions, Report, SocketReport, Summary,
};

/// Arguments of `bindscope plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: ProfileArgs,
    #[command(flatten)]
    host: HostArgs,
    /// End with exit code 4 when a bind is predicted to fail
    #[arg(long, help_heading = "Checks")]
    require_all: bool,
    #[command(flatten)]
    format: FormatArgs<Format>,
    /// Write it to FILE instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Formats of a plan or a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text for a person
    Human,
    /// The document of schema bindscope.plan/1
    Json,
    /// One line for each source, destination and port
    Csv,
    /// Tables for a pull request or a ticket
    Markdown,
    /// JUnit XML
    Junit,
    /// Workflow commands of GitHub Actions
    Github,
}

impl Formats for Format {
    const DEFAULT: Format = Format::Human;
    const JSON: Format = Format::Json;
}

/// Runs it.
///
/// # Errors
/// A profile or a host that cannot be used.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let profile = args.source.load("default", context)?;
    let subject = args.host.subject()?;
    let evidence = evidence(&subject.snapshot);
    let report = of_profile(&profile, subject, &args.host)?;
    context.emit(
        written(&report, args.format.get(), context, args.output.is_some()).as_bytes(),
        args.output.as_deref(),
    )?;
    let all = if args.require_all { all_bind(&report, context) } else { Exit::Success };
    Ok(verdict(&report).worse(evidence).worse(all))
}

/// Whether every bind of the plan is predicted to succeed, for `--require-all`.
fn all_bind(report: &Report, context: &Context) -> Exit {
    let failing: Vec<String> = report
        .sockets
        .iter()
        .filter(|socket| socket.bind.predicted.outcome == BindOutcome::Error)
        .map(|socket| socket.socket.to_string())
        .collect();
    if failing.is_empty() {
        let uncertain =
            report.sockets.iter().any(|socket| socket.bind.predicted.outcome == BindOutcome::Uncertain);
        return if uncertain { Exit::Undecided } else { Exit::Success };
    }
    context.say(&Diagnostic::error(
        Code::BIND_FAILED,
        format!(
            "--require-all: {} of {} sockets will not open: {}",
            failing.len(),
            report.sockets.len(),
            failing.join(", ")
        ),
    ));
    Exit::Environment
}

/// A host that could have been read whole and was not leaves everything undecided. Where there are no network namespaces there is
/// always a gap.
pub(super) fn evidence(host: &Snapshot) -> Exit {
    if host.complete || host.host.netns.is_none() { Exit::Success } else { Exit::Undecided }
}

/// The plan of a profile on a host.
///
/// # Errors
/// Exit 2 for a plan that is larger than `limits` allow.
pub(super) fn of_profile(
    profile: &Profile,
    mut subject: TargetHost,
    limits: &HostArgs,
) -> Result<Report, Failure> {
    let expansion = expand(profile, &subject.snapshot);
    subject.add_port_holders(&expansion.sockets);
    let Expansion { sockets, .. } = &expansion;
    limits.check_size(sockets, &subject.snapshot)?;
    let plan = Plan::new(sockets.clone(), &subject.snapshot, subject.rights, subject.foreign, &[]);
    let cells = matrix::cells(&plan, &subject.snapshot, &[]);
    let mut sockets = sockets_of(&plan, &subject.snapshot);
    sockets.extend(missing_of(&expansion, &subject.snapshot));
    let expectations = expectations::judge(&profile.expectations, &sockets, &cells, false);
    Ok(finish(
        PLAN_SCHEMA,
        profile,
        &subject.snapshot,
        subject.incomplete_because,
        Parts {
            requested: Questions::default(),
            sockets,
            cells,
            expectations,
            notes: [notes_of(&expansion, subject.filters.as_ref()), subject.notes].concat(),
        },
    ))
}

/// What a profile asks for that this host cannot give, and what no plan can know.
pub(super) fn notes_of(expansion: &Expansion, filters: Option<&PacketFilters>) -> Vec<String> {
    let mut notes: Vec<String> =
        expansion.notes.iter().map(|note| format!("{}: {}", note.listener, note.message)).collect();
    notes.extend(
        expansion.missing.iter().map(|missing| format!("{}: {}", missing.spec.listener, missing.message)),
    );
    notes.push(filters::note(filters));
    notes
}

/// Sockets with what is foretold of their binds and their exposure.
pub(super) fn sockets_of(plan: &Plan, snapshot: &Snapshot) -> Vec<SocketReport> {
    let exposer = Exposer::new(snapshot);
    plan.sockets
        .iter()
        .enumerate()
        .map(|(index, spec)| {
            let (exposure, reasons) = exposer.explain(&Facts::of_spec(spec, snapshot));
            SocketReport {
                socket: matrix::view(spec, exposure, snapshot),
                bind: BindReport { predicted: matrix::bind_report(plan, index, snapshot), observed: None },
                exposure_because: reasons
                    .into_iter()
                    .map(|reason| format!("{}: {}", reason.family, reason.text))
                    .collect(),
            }
        })
        .collect()
}

/// Sockets that cannot even be asked for, because what they name is not here.
pub(super) fn missing_of<'a>(
    expansion: &'a Expansion,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = SocketReport> + 'a {
    expansion.missing.iter().map(|missing| SocketReport {
        socket: matrix::view(&missing.spec, FamilyExposure::default(), snapshot),
        bind: BindReport {
            predicted: PredictedBind {
                outcome: BindOutcome::Error,
                phase: Some(Phase::Bind),
                errno: Some(missing.errno),
                conflicts_with: Vec::new(),
                code: Some(missing.code),
                message: Some(missing.message.clone()),
                hint: missing.hint.clone(),
            },
            observed: None,
        },
        exposure_because: Vec::new(),
    })
}

/// The lists of a report.
pub(super) struct Parts {
    pub(super) requested: Questions,
    pub(super) sockets: Vec<SocketReport>,
    pub(super) cells: Vec<matrix::CellReport>,
    pub(super) expectations: Vec<expectations::ExpectationReport>,
    pub(super) notes: Vec<String>,
}

/// Puts a report together.
pub(super) fn finish(
    schema: &str,
    profile: &Profile,
    snapshot: &Snapshot,
    more_incomplete: Vec<String>,
    parts: Parts,
) -> Report {
    let mut incomplete_because = snapshot.incomplete_because.clone();
    incomplete_because.extend(more_incomplete);
    let summary: Summary = matrix::summary(&parts.cells);
    Report {
        schema: schema.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        complete: incomplete_because.is_empty() && snapshot.complete,
        incomplete_because,
        host: snapshot.host.clone(),
        profile: profile.name.clone(),
        requested: parts.requested,
        sockets: parts.sockets,
        cells: parts.cells,
        expectations: parts.expectations,
        events: Vec::new(),
        notes: parts.notes,
        summary,
    }
}

/// A report in a format.
pub(super) fn written(report: &Report, format: Format, context: &Context, to_file: bool) -> String {
    match format {
        Format::Human => {
            render::plan::human(report, context.color && !to_file, context.width, context.verbose > 0)
        }
        Format::Json => serde_json::to_string_pretty(report).unwrap_or_default() + "\n",
        Format::Csv => render::plan::csv(report),
        Format::Markdown => render::plan::markdown(report),
        Format::Junit => render::plan::junit(report),
        Format::Github => render::plan::github(report),
    }
}

/// How a plan ends: a failed expectation is a finding; an undecided one, and nothing to look at, are undecided.
pub(super) fn verdict(report: &Report) -> Exit {
    let any = |verdict| report.expectations.iter().any(|expectation| expectation.verdict == verdict);
    if any(Verdict::Fail) {
        return Exit::Finding;
    }
    let nothing = report.sockets.is_empty() && report.cells.is_empty();
    let uncertain =
        report.sockets.iter().any(|socket| socket.bind.predicted.outcome == BindOutcome::Uncertain);
    if any(Verdict::Undecided) || nothing || (uncertain && !report.expectations.is_empty()) {
        return Exit::Undecided;
    }
    Exit::Success
}
