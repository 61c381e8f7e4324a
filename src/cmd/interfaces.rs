//! `bindscope interfaces`.

use std::collections::{HashMap, hash_map};
use std::path::PathBuf;

use serde::ser::SerializeSeq as _;

use super::format_args::{FormatArgs, Formats};
use super::{Context, Exit, Failure};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::model::{IfName, Snapshot, crosscheck};
use crate::plan::bind_forms::each_form;
use crate::render;
use crate::report::{bind_forms, document, json};
use crate::sys;

/// Arguments of `bindscope interfaces`.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:",
    "\n  bindscope interfaces                      addresses, and what each form of bind covers",
    "\n  bindscope interfaces --json -o host.json  a snapshot for plan --host and lab run --twin",
))]
pub struct Args {
    #[command(flatten)]
    format: FormatArgs<Format>,
    /// Also compare with getifaddrs(3); costs three system calls per address
    #[arg(long)]
    cross_check: bool,
    /// Omit the rules of packet filters, which the JSON document contains if they can be read
    #[arg(long)]
    no_filters: bool,
    /// Write to FILE instead of standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
}

/// Formats of `bindscope interfaces`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Tables for people
    Human,
    /// One document, schema bindscope.interfaces/1; `plan --host` reads it
    Json,
    /// One row for each address
    Csv,
}

impl Formats for Format {
    const DEFAULT: Format = Format::Human;
    const JSON: Format = Format::Json;
}

/// The bind forms of a host, generated while they are written.
struct Forms<'a>(&'a Snapshot);

impl serde::Serialize for Forms<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        // For the document and for the list.
        let mut forms = bind_forms::Forms::new(LEVELS, 2);
        each_form(self.0, true, |form| match forms.text(form) {
            Some(text) => list.serialize_element(&text),
            None => list.serialize_element(form),
        })?;
        list.end()
    }
}

/// Levels of the document that are indented: down to the addresses of an interface.
const LEVELS: usize = 4;

/// Entry point of `bindscope interfaces`.
///
/// # Errors
/// Exit code 4 if the system does not list its interfaces, 5 if the report cannot be written.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let more = match args.format.get() {
        Format::Csv => More::Nothing,
        Format::Json if !args.no_filters => More::Rules,
        Format::Json | Format::Human => More::Tables,
    };
    let (snapshot, cross_checked) = checked_snapshot(args.cross_check, more)?;
    let output = args.output.as_deref();
    match args.format.get() {
        Format::Human => {
            let color = context.color && args.output.is_none();
            let mut page = Vec::new();
            // A vector takes everything.
            let _ = render::interfaces::human(&snapshot, context.width, color, &mut page);
            context.show(&String::from_utf8_lossy(&page), output)?;
        }
        Format::Csv => context.emit_with(output, |out| render::interfaces::csv(&snapshot, out))?,
        Format::Json => {
            let document = document::of_snapshot(&snapshot, cross_checked, Forms(&snapshot));
            context.emit_with(output, |out| json::write(out, &document, LEVELS))?;
        }
    }
    for problem in problems(&snapshot) {
        context.say(&problem);
    }
    Ok(super::plan::evidence(&snapshot))
}

/// Parts of a snapshot in addition to interfaces and addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    /// Nothing.
    Nothing,
    /// Routes, rules, settings, and the tables of packet filters.
    Tables,
    /// All of that, and the rules of packet filters.
    Rules,
}

/// The host's snapshot with its disagreements, and whether these include a comparison with the C library's list.
///
/// # Errors
/// Exit code 4 if the system does not list its interfaces.
pub(super) fn checked_snapshot(cross_check: bool, more: More) -> Result<(Snapshot, bool), Failure> {
    let take = || {
        let taken = if more == More::Nothing { sys::addresses() } else { sys::snapshot() };
        taken.map_err(|error| {
            Failure::new(Exit::Environment, Diagnostic::error(Code::HOST_UNREADABLE, error.to_string()))
        })
    };
    let mut snapshot = take()?;
    if cross_check {
        let first = second_opinion(&snapshot);
        if !first.is_empty() {
            // The two lists are read one after the other. A difference that appears twice is not a change in between.
            snapshot = take()?;
            snapshot.disagreements = second_opinion(&snapshot);
            snapshot.disagreements.retain(|sentence| first.contains(sentence));
        }
    } else {
        snapshot.disagreements = crosscheck::labels(&snapshot);
    }
    snapshot.packet_filters = match more {
        More::Nothing => None,
        More::Tables => Some(sys::packet_filters()),
        More::Rules => Some(sys::packet_filters_with_rules()),
    };
    Ok((snapshot, cross_check))
}

/// Misleading labels, and differences between the C library's list and the kernel's.
pub(super) fn second_opinion(snapshot: &Snapshot) -> Vec<String> {
    match sys::listed_addresses() {
        Ok(listed) => crosscheck::disagreements(snapshot, &listed),
        Err(error) => vec![format!("the addresses could not be compared with the C library's list: {error}")],
    }
}

/// Notes for readers of the snapshot.
pub(super) fn problems(snapshot: &Snapshot) -> Vec<Diagnostic> {
    let gaps =
        snapshot.incomplete_because.iter().map(|gap| Diagnostic::warning(Code::HOST_INCOMPLETE, gap.clone()));
    let labels = crosscheck::labels(snapshot);
    let disagreements = snapshot.disagreements.iter().map(|sentence| {
        let (code, help) = if labels.binary_search(sentence).is_ok() {
            (
                Code::LABEL_MASKS_INTERFACE,
                "`ip -d address` shows interface and label; bindscope goes by the interface",
            )
        } else {
            (Code::SOURCES_DISAGREE, "`ip address` shows what the kernel has; bindscope goes by that")
        };
        Diagnostic::warning(code, sentence.clone()).help(help)
    });
    let alike = alike(snapshot).into_iter().map(|(one, other)| {
        Diagnostic::note(Code::NAMES_ALIKE, format!("the names {one} and {other} look alike"))
            .help("bindscope shows both as they are; `ip link` shows their numbers")
    });
    gaps.chain(disagreements).chain(alike).collect()
}

/// Pairs of interfaces whose names look alike: each with the first of its kind.
fn alike(snapshot: &Snapshot) -> Vec<(String, String)> {
    let mut first: HashMap<String, &IfName> = HashMap::new();
    let mut pairs = Vec::new();
    for interface in &snapshot.interfaces {
        let name = &interface.name;
        let skeleton: String = unicode_security::skeleton(&name.shown()).collect();
        match first.entry(skeleton) {
            hash_map::Entry::Vacant(free) => {
                free.insert(name);
            }
            hash_map::Entry::Occupied(known) if *known.get() != name => {
                pairs.push((known.get().to_string(), name.to_string()));
            }
            hash_map::Entry::Occupied(_) => {}
        }
    }
    pairs
}
