//! `bindscope diff`: two reports, or two profiles planned here, side by side.

use super::format_args::{FormatArgs, Formats};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::input::{self, Kind};
use super::profile_args::ProfileArgs;
use super::target_host::HostArgs;
use super::{Context, Exit, Failure, plan, profile_args};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::model::{Document, Schema};
use crate::profile::Profile;
use crate::render;
use crate::report::document;
use crate::report::report_diff::{self, Lists, comparable, compare};

/// Arguments of `bindscope diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:",
    "\n  bindscope diff loopback all-interfaces       two built-in profiles, planned here",
    "\n  bindscope diff before.json after.json        two saved reports",
    "\n  bindscope diff web.toml default -f markdown  for a pull request",
))]
pub struct Args {
    /// A report written with --format json, or a profile; - for standard input. With --target also a snapshot of a host, or a file
    /// with packet filters (.nft, .rules, .v4, .v6): what they let in and keep out is compared
    a: String,
    /// Another one
    b: String,
    /// The listeners for which snapshots and packet filters are compared: a profile, or such as 0.0.0.0:22
    #[arg(long, value_name = "TARGET")]
    target: Vec<OsString>,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    format: FormatArgs<Format>,
    /// Write it to FILE instead of standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
}

/// Formats of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Text for a person
    Human,
    /// The document of schema bindscope.diff/1
    Json,
    /// One line for each difference
    Csv,
    /// A table for a pull request or a ticket
    Markdown,
    /// A page with what opens, shuts and moves: one file, without scripts
    Html,
}

impl Formats for Format {
    const DEFAULT: Format = Format::Human;
    const JSON: Format = Format::Json;
}

/// Runs it.
///
/// # Errors
/// Exit 2 for what is no report and no profile, and for two reports of kinds that have nothing in common.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    if args.a == "-" && args.b == "-" {
        let problem = Diagnostic::error(Code::COMMAND_LINE, "standard input can be read only once");
        return Err(Failure::usage(vec![problem.help("name a file for one of the two")]));
    }
    let target = match &args.target[..] {
        [] => None,
        targets => Some(ProfileArgs::of_all(targets).load("default", context)?),
    };
    let target = target.as_ref();
    let (a, b) = match (side(&args.a, args, target), side(&args.b, args, target)) {
        (Ok(a), Ok(b)) => (a, b),
        (a, b) => {
            // Both are read, so that all problems are reported at once.
            let failures: Vec<Failure> = [a.err(), b.err()].into_iter().flatten().collect();
            let exit = failures.iter().fold(Exit::Success, |exit, failure| exit.worse(failure.exit));
            let problems = failures.into_iter().flat_map(|failure| failure.problems).collect();
            return Err(Failure { exit, problems });
        }
    };
    if !comparable(a.schema, b.schema) {
        let problem = Diagnostic::error(
            Code::BAD_REPORT,
            format!("a {} report and a {} report have nothing in common", a.schema.name(), b.schema.name()),
        );
        return Err(Failure::usage(vec![
            problem.help("compare two plans, probes or lab runs, or two audits"),
        ]));
    }
    let comparison = compare((&args.a, &a.lists), (&args.b, &b.lists));
    let text = match args.format.get() {
        Format::Human => {
            let limit = context.columns().filter(|_| args.output.is_none()).unwrap_or(usize::MAX);
            render::diff::human(&comparison, context.color && args.output.is_none(), limit)
        }
        Format::Json => {
            serde_json::to_string_pretty(&Document::new(Schema::Diff, &comparison)).unwrap_or_default() + "\n"
        }
        Format::Csv => render::diff::csv(&comparison),
        Format::Markdown => render::diff::markdown(&comparison),
        Format::Html => render::html::page(&[render::html::Part::Diff(&comparison)]),
    };
    match args.format.get() {
        Format::Human => context.show(&text, args.output.as_deref())?,
        _ => context.emit(text.as_bytes(), args.output.as_deref())?,
    }
    Ok(match (comparison.compared, comparison.differences.len()) {
        (0, _) => Exit::Undecided,
        (_, 0) => Exit::Success,
        _ => Exit::Finding,
    })
}

/// One side of the comparison.
struct Side {
    schema: Schema,
    lists: Lists,
}

/// A report from a file or from standard input, or the plan of a profile here.
fn side(name: &str, args: &Args, target: Option<&Profile>) -> Result<Side, Failure> {
    const HELP: &str = "reports are written with --format json";
    const REPORT: Kind = Kind { code: Code::BAD_REPORT, missing: Code::BAD_REPORT, help: HELP };
    let path = Path::new(name);
    let of_unknown_kind = input::is_descriptor(path);
    if let Some(target) = target.filter(|_| !of_unknown_kind) {
        let mut host = args.host.clone();
        let ending =
            path.extension().and_then(std::ffi::OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
        match ending.as_str() {
            "nft" | "rules" | "v4" | "v6" => {
                host.with_ruleset(path);
                return planned(target, &host);
            }
            "json" => {
                let bytes = input::read(name.as_ref(), document::LARGEST_SNAPSHOT, &REPORT)?;
                if document::read_snapshot(&bytes).is_ok() {
                    host.with_host(path);
                    return planned(target, &host);
                }
            }
            _ => {}
        }
    }
    if !of_unknown_kind && !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
        return planned(&profile_args::load_named(name.as_ref())?, &args.host);
    }
    let bytes = input::read(name.as_ref(), document::LARGEST_REPORT, &REPORT)?;
    // A report begins with a brace, and no TOML does; some shells put a mark before whatever they pass on.
    let start = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes).trim_ascii_start();
    if of_unknown_kind && start.first() != Some(&b'{') {
        let file = profile_args::file_of(input::origin(name.as_ref()), None, bytes)?;
        return planned(&profile_args::parse(&file).map_err(Failure::usage)?, &args.host);
    }
    read(&bytes).map_err(|error| {
        let name = input::origin(name.as_ref());
        Failure::usage(vec![Diagnostic::error(Code::BAD_REPORT, format!("{name}: {error}")).help(HELP)])
    })
}

fn planned(profile: &Profile, host: &HostArgs) -> Result<Side, Failure> {
    let report = plan::of_profile(profile, host.subject()?, host)?;
    // The plan is compared as it would be read from a file.
    let json = serde_json::to_vec(&report).unwrap_or_default();
    read(&json).map_err(|error| {
        let problem = Diagnostic::error(Code::INTERNAL, format!("the plan does not read back: {error}"));
        Failure::new(Exit::Internal, problem)
    })
}

fn read(bytes: &[u8]) -> Result<Side, document::ReadError> {
    report_diff::read(bytes).map(|(schema, lists)| Side { schema, lists })
}
