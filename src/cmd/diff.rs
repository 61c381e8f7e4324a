//! `bindscope diff`: two reports, or two profiles planned here, side by side.

use super::format_args::{FormatArgs, Formats};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::target_host::{self, HostArgs};
use super::{Context, Exit, Failure, plan, profile_args};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::profile::Profile;
use crate::render;
use crate::report::report_diff::{comparable, compare, kind_of};

/// The largest report that is read, in bytes: some half a million cells.
const LARGEST_REPORT: u64 = 256 << 20;

/// Arguments of `bindscope diff`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A report written with --format json, or a profile; - for standard input
    a: String,
    /// Another one
    b: String,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    format: FormatArgs<Format>,
    /// Write it to FILE instead of standard output
    #[arg(short, long, value_name = "FILE")]
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
    let (a, b) = match (document(&args.a, args), document(&args.b, args)) {
        (Ok(a), Ok(b)) => (a, b),
        (a, b) => {
            // Both are looked at, so that all problems are told at once.
            let failures: Vec<Failure> = [a.err(), b.err()].into_iter().flatten().collect();
            let exit = failures.iter().fold(Exit::Success, |exit, failure| exit.worse(failure.exit));
            let problems = failures.into_iter().flat_map(|failure| failure.problems).collect();
            return Err(Failure { exit, problems });
        }
    };
    let (first, second) = (kind_of(&a).unwrap_or_default(), kind_of(&b).unwrap_or_default());
    if !comparable(first, second) {
        let problem = Diagnostic::error(
            Code::BAD_REPORT,
            format!("a {first} report and a {second} report have nothing in common"),
        );
        return Err(Failure::usage(vec![
            problem.help("compare two plans, probes or lab runs, or two audits"),
        ]));
    }
    let comparison = compare((&args.a, &a), (&args.b, &b));
    let text = match args.format.get() {
        Format::Human => render::diff::human(&comparison, context.color && args.output.is_none()),
        Format::Json => serde_json::to_string_pretty(&comparison).unwrap_or_default() + "\n",
        Format::Csv => render::diff::csv(&comparison),
        Format::Markdown => render::diff::markdown(&comparison),
    };
    context.emit(text.as_bytes(), args.output.as_deref())?;
    Ok(match (comparison.compared, comparison.differences.len()) {
        (0, _) => Exit::Undecided,
        (_, 0) => Exit::Success,
        _ => Exit::Finding,
    })
}

/// A report from a file or from standard input, or the plan of a profile here.
fn document(name: &str, args: &Args) -> Result<Value, Failure> {
    let planned = |profile: Profile| -> Result<Value, Failure> {
        let report = plan::of_profile(&profile, args.host.subject()?);
        Ok(serde_json::to_value(report).unwrap_or_default())
    };
    let bad = |message: String| {
        let problem = Diagnostic::error(Code::BAD_REPORT, format!("{name}: {message}"));
        Failure::usage(vec![problem.help("reports are written with --format json")])
    };
    let path = Path::new(name);
    let text = if name == "-" {
        let mut input = io::stdin().lock();
        let mut start = Vec::new();
        let read = input.by_ref().take(profile_args::LONGEST + 1).read_to_end(&mut start);
        read.map_err(|error| bad(error.to_string()))?;
        // JSON begins with a brace here, and no TOML does; some shells put a mark before whatever they pass on.
        let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&start).trim_ascii_start();
        if text.first() != Some(&b'{') {
            let file = profile_args::file_of("<stdin>".to_owned(), None, start)?;
            return planned(profile_args::parse(&file).map_err(Failure::usage)?);
        }
        target_host::text_of(text.chain(input), LARGEST_REPORT).map_err(bad)?
    } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
        target_host::read_text(path, LARGEST_REPORT).map_err(bad)?
    } else {
        return planned(profile_args::load_named(name.as_ref())?);
    };
    let document: Value = serde_json::from_str(&text).map_err(|error| bad(format!("not JSON: {error}")))?;
    match document["schema"].as_str() {
        Some(schema) if !schema.starts_with("bindscope.") => {
            Err(bad(format!("{schema} is no schema of bindscope")))
        }
        Some(schema) if !schema.ends_with("/1") => {
            Err(bad(format!("its schema {schema} is newer than this version, which reads /1")))
        }
        Some(_) => Ok(document),
        None => Err(bad("it has no `schema`, so it is no report of bindscope".to_owned())),
    }
}
