//! `bindscope plan`: predictions, without opening a socket.

use super::experiment::{self, VaryArgs};
use super::format_args::{FormatArgs, Formats};
use std::path::PathBuf;

use super::profile_args::ProfileArgs;
use super::steps::Question;
use super::target_host::HostArgs;
use super::{Context, Exit, Failure, now};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::library::plan_of;
use crate::model::{Snapshot, Verdict};
use crate::plan::expand::expand;
use crate::plan::predict::BindOutcome;
use crate::profile::Profile;
use crate::render;
use crate::report::experiment::Command;
use crate::report::extent::Extent;
use crate::report::matrix::Report;
use crate::report::plan::TargetHost;

/// Arguments of `bindscope plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:",
    "\n  bindscope plan 0.0.0.0:8080        who could reach this port",
    "\n  bindscope plan default -v          every result with its rule",
    "\n  bindscope plan --from nginx.conf   the listeners of nginx",
    "\n  bindscope plan 8080 --require-all  end with 4 if a bind would fail",
))]
pub struct Args {
    #[command(flatten)]
    source: ProfileArgs,
    /// Predict the listeners of another program's configuration: nginx.conf, NAME.socket, compose.yaml or sshd_config; for other
    /// names with the kind, such as nginx:FILE. May be repeated
    #[arg(long, value_name = "[KIND:]FILE", conflicts_with_all = ["targets", "bind"], help_heading = "What to bind")]
    from: Vec<std::ffi::OsString>,
    /// Print the listeners as a profile, and predict nothing
    #[arg(long, help_heading = "Output", hide_short_help = true)]
    emit_profile: bool,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    vary: VaryArgs,
    /// End with exit code 4 when a bind is predicted to fail
    #[arg(long, help_heading = "Checks")]
    require_all: bool,
    /// Follow one connection step by step: the hooks with the rules that match, translation, route, sockets, and the answer. SOURCE is
    /// host, link:eth0, "link:eth0 beyond" or "link:eth0 from 10.0.0.7"; PORT is 22, tcp:22 or udp:53
    #[arg(long, num_args = 3, value_names = ["SOURCE", "DESTINATION", "PORT"], hide_short_help = true)]
    steps: Option<Vec<String>>,
    #[command(flatten)]
    format: FormatArgs<Format>,
    /// Write to FILE instead of standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
}

/// Formats of a plan or a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text for people
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
    /// A page with a picture, tables and reasons: one file, without scripts
    Html,
    /// The picture alone
    Svg,
    /// The picture as a Mermaid flowchart, for wikis that draw it
    Mermaid,
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
    let profile = if args.from.is_empty() {
        args.source.load("default", context)?
    } else {
        super::import::load(&args.from, context)?
    };
    if args.emit_profile {
        let text = crate::profile::writer::text(&profile);
        context.emit(text.as_bytes(), args.output.as_deref())?;
        return Ok(Exit::Success);
    }
    let output = (args.format.get(), args.output.as_deref());
    if let Some(design) = args.vary.design(&args.source, &profile, Command::Plan, false, context)? {
        let mut judge =
            |report: &Report| if args.require_all { all_bind(report, context) } else { Exit::Success };
        return experiment::plan(&design, &args.host, output, &mut judge, context);
    }
    let subject = args.host.subject()?;
    let evidence = evidence(&subject.snapshot);
    if let Some(words) = &args.steps {
        return follow(args, words, &profile, &subject, context);
    }
    let report = of_profile(&profile, subject, &args.host)?;
    context.emit(
        written(&report, args.shown_targets().as_deref(), args.format.get(), context, args.output.is_some())
            .as_bytes(),
        args.output.as_deref(),
    )?;
    let all = if args.require_all { all_bind(&report, context) } else { Exit::Success };
    Ok(verdict(&report).worse(evidence).worse(all))
}

/// One connection, step by step.
fn follow(
    args: &Args,
    words: &[String],
    profile: &Profile,
    subject: &TargetHost,
    context: &Context,
) -> Result<Exit, Failure> {
    let format = args.format.get();
    if !matches!(format, Format::Human | Format::Json) {
        let problem = Diagnostic::error(Code::COMMAND_LINE, "--steps is written as text or as JSON");
        return Err(Failure::usage(vec![problem.help("leave --format out, or write --format json")]));
    }
    let question = Question::parse(words, &subject.snapshot)?;
    let expansion = expand(profile, &subject.snapshot);
    let report = question.follow(&subject.snapshot, &expansion.sockets, &subject.foreign, subject.rights)?;
    let text = match format {
        Format::Json => super::steps::json(&subject.snapshot, &report),
        _ => render::steps::human(&report, context.color && args.output.is_none(), context.width),
    };
    context.emit(text.as_bytes(), args.output.as_deref())?;
    Ok(super::steps::exit(report.outcome))
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
pub(super) fn of_profile(profile: &Profile, host: TargetHost, limits: &HostArgs) -> Result<Report, Failure> {
    let expansion = expand(profile, &host.snapshot);
    limits.limit.check(Extent::default().results(&expansion.sockets, &host.snapshot))?;
    let mut report = plan_of(profile, &expansion, host);
    report.time = Some(now());
    Ok(report)
}

impl Args {
    /// The targets, as other commands take them. They do not take configuration of other programs.
    fn shown_targets(&self) -> Option<String> {
        self.from.is_empty().then(|| self.source.shown())
    }
}

/// A report in a format.
pub(super) fn written(
    report: &Report,
    targets: Option<&str>,
    format: Format,
    context: &Context,
    to_file: bool,
) -> String {
    match format {
        Format::Human => render::plan::human(
            report,
            targets,
            context.color && !to_file,
            context.width,
            context.verbose > 0,
        ),
        Format::Json => serde_json::to_string_pretty(report).unwrap_or_default() + "\n",
        Format::Csv => render::plan::csv(report),
        Format::Markdown => render::plan::markdown(report),
        Format::Junit => render::plan::junit(report),
        Format::Github => render::plan::github(report),
        Format::Html => render::html::page(&[render::html::Part::Reach(report)]),
        Format::Svg => render::html::svg(report),
        Format::Mermaid => render::html::mermaid(report),
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
