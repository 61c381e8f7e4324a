//! `bindscope interfaces`.

use std::path::PathBuf;

use super::{Context, Exit, Failure};
use crate::code::Code;
use crate::diag::Problem;
use crate::model::{Snapshot, crosscheck};
use crate::plan::cover::coverage;
use crate::record::document;
use crate::render;
use crate::sys;

/// Arguments of `bindscope interfaces`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to show it
    #[arg(short, long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Write to FILE instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Formats of `bindscope interfaces`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Tables for a person
    Human,
    /// One document, schema bindscope.interfaces/1; `plan --host` reads it
    Json,
    /// One row for each address
    Csv,
}

/// Runs it.
///
/// # Errors
/// Exit 4 when the system does not list its interfaces, 5 when the report cannot be written.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let snapshot = checked_snapshot()?;
    let covered = || coverage(&snapshot);
    let report = match args.format {
        Format::Human => {
            let color = context.color && args.output.is_none();
            render::interfaces::human(&snapshot, &covered(), context.width, color).into_bytes()
        }
        Format::Csv => render::interfaces::csv(&snapshot).into_bytes(),
        Format::Json => document::of_snapshot(snapshot.clone(), covered()).to_json().map_err(|error| {
            Failure::new(
                Exit::Internal,
                Problem::error(Code::INTERNAL, format!("cannot form the document: {error}")),
            )
        })?,
    };
    context.emit(&report, args.output.as_deref())?;
    for problem in problems(&snapshot) {
        context.say(&problem);
    }
    // Where there are network namespaces the whole of one can be read, so a gap is a failure; elsewhere there is always one.
    let gap = !snapshot.complete && snapshot.host.netns.is_some();
    Ok(if gap { Exit::Undecided } else { Exit::Success })
}

/// The host's snapshot with the C library's second opinion about its addresses, and whether there are packet filters.
///
/// # Errors
/// Exit 4 when the system does not list its interfaces.
pub(super) fn checked_snapshot() -> Result<Snapshot, Failure> {
    let take = || {
        sys::snapshot().map_err(|error| {
            Failure::new(Exit::Environment, Problem::error(Code::HOST_UNREADABLE, error.to_string()))
        })
    };
    let compare = |snapshot: &Snapshot| match sys::listed_addresses() {
        Ok(listed) => crosscheck::disagreements(snapshot, &listed),
        Err(error) => vec![format!("there is no second opinion about the addresses: {error}")],
    };
    let mut snapshot = take()?;
    let first = compare(&snapshot);
    if !first.is_empty() {
        // The two lists are read one after the other. What differs twice is no change in between.
        snapshot = take()?;
        snapshot.disagreements = compare(&snapshot);
        snapshot.disagreements.retain(|sentence| first.contains(sentence));
    }
    snapshot.packet_filters = Some(sys::packet_filters());
    Ok(snapshot)
}

/// What a reader of the snapshot must know of it.
pub(super) fn problems(snapshot: &Snapshot) -> Vec<Problem> {
    let gaps =
        snapshot.incomplete_because.iter().map(|gap| Problem::warning(Code::HOST_INCOMPLETE, gap.clone()));
    let disagreements = snapshot.disagreements.iter().map(|sentence| {
        // The sentences are the document's; a label is told from the rest by its word.
        let (code, help) = if sentence.contains(" its label is ") {
            (
                Code::LABEL_MASKS_INTERFACE,
                "`ip -d address` shows interface and label; bindscope goes by the interface",
            )
        } else {
            (Code::SOURCES_DISAGREE, "`ip address` shows what the kernel has; bindscope goes by that")
        };
        Problem::warning(code, sentence.clone()).help(help)
    });
    gaps.chain(disagreements).collect()
}
