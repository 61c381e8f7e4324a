//! `bindscope report`: one page from saved documents.

use std::ffi::OsString;
use std::path::PathBuf;

use super::input::{self, Kind};
use super::{Context, Exit, Failure};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::render::html::{self, Part};
use crate::report::document::{self, Shown};

/// Arguments of `bindscope report`.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:",
    "\n  bindscope report plan.json -o plan.html              one page from a saved plan",
    "\n  bindscope report audit.json lab.json -o host.html    several documents in one page",
))]
pub struct Args {
    /// Documents that plan, probe, lab run, audit or diff wrote with --format json, or listen with --format ndjson; - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<OsString>,
    /// Output format [default: html]
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Html, hide_default_value = true, help_heading = "Output")]
    format: Format,
    /// Write to FILE instead of standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
}

/// Formats of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A page of all documents: one file, without scripts
    Html,
    /// The picture of a plan, a probe or a lab run
    Svg,
    /// The picture of a plan, a probe or a lab run as a Mermaid flowchart
    Mermaid,
}

const HELP: &str = "documents are written with --format json, and those of listen with --format ndjson";

/// Runs it.
///
/// # Errors
/// Exit 2 for files that are not documents, all of them at once; exit 5 if the page cannot be written.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    if args.files.iter().filter(|name| *name == "-").count() > 1 {
        problems.push(Diagnostic::error(Code::COMMAND_LINE, "standard input can be read only once"));
    }
    for name in &args.files {
        match read(name) {
            Ok(document) => documents.push(document),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(Failure::usage(problems));
    }
    let text = match (args.format, documents.as_slice()) {
        (Format::Html, documents) => {
            let parts: Vec<Part<'_>> = documents.iter().map(part).collect();
            html::page(&parts)
        }
        (Format::Svg, [Shown::Reach(report)]) => html::svg(report),
        (Format::Mermaid, [Shown::Reach(report)]) => html::mermaid(report),
        (Format::Svg | Format::Mermaid, _) => {
            let message = "a picture is made of one plan, probe or lab run";
            let problem = Diagnostic::error(Code::COMMAND_LINE, message);
            return Err(Failure::usage(vec![problem.help("give one such document, or write --format html")]));
        }
    };
    context.emit(text.as_bytes(), args.output.as_deref())?;
    Ok(Exit::Success)
}

fn part(document: &Shown) -> Part<'_> {
    match document {
        Shown::Reach(report) => Part::Reach(report),
        Shown::Audit(sheet) => Part::Audit(sheet),
        Shown::Diff(comparison) => Part::Diff(comparison),
        Shown::Listen(history) => Part::Listen(history),
        Shown::Experiment(experiment) => Part::Experiment(experiment),
    }
}

fn read(name: &OsString) -> Result<Shown, Diagnostic> {
    const DOCUMENT: Kind = Kind { code: Code::BAD_REPORT, missing: Code::BAD_REPORT, help: HELP };
    let bytes = input::read(name, document::LARGEST_REPORT, &DOCUMENT)?;
    document::read_shown(&bytes).map_err(|error| {
        let name = input::origin(name);
        Diagnostic::error(Code::BAD_REPORT, format!("{name}: {error}")).help(HELP)
    })
}
