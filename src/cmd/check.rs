//! `bindscope check`: reads profiles, policies and lab files, and reports every problem. Binds nothing.

use std::ffi::OsString;
use std::fmt::Write as _;

use super::{Context, Exit, Failure, profile_args};
use crate::diag::Diagnostic;
use crate::escape::escape;
use crate::profile::{self, FileKind, lab, policy};

/// Arguments of `bindscope check`.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:",
    "\n  bindscope check                                ./bindscope.toml",
    "\n  bindscope check tutorial                       a built-in profile",
    "\n  bindscope check --strict web.toml policy.toml  several files",
))]
pub struct Args {
    /// Profiles, policies and lab files, or names of built-in profiles; - for standard input [default: ./bindscope.toml]
    #[arg(value_name = "FILE", add = clap_complete::engine::ArgValueCompleter::new(super::completions::profiles), required = !std::path::Path::new(profile_args::FOUND_HERE).is_file())]
    files: Vec<OsString>,
    /// Refuse listeners that other hosts may reach and that have no exposure_reason
    #[arg(long, help_heading = "Checks", hide_short_help = true)]
    strict: bool,
}

/// Reads every file and then reports all problems.
///
/// # Errors
/// Exit code 2 with the problems of all files.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let mut good = String::new();
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let here = [OsString::from(profile_args::FOUND_HERE)];
    let files = if args.files.is_empty() { here.as_slice() } else { args.files.as_slice() };
    for name in files {
        match profile_args::read_or_builtin(name)
            .map_err(|problem| vec![problem])
            .and_then(|file| Ok((holds(&file, args.strict, &mut warnings)?, file)))
        {
            Ok((what, file)) => {
                let _ = writeln!(good, "{}: ok ({what})", escape(&file.origin));
            }
            Err(wrong) => problems.extend(wrong),
        }
    }
    context.emit(good.as_bytes(), None)?;
    for warning in &warnings {
        context.say(warning);
    }
    if problems.is_empty() { Ok(Exit::Success) } else { Err(Failure::usage(problems)) }
}

/// The content of a file, in short. Adds allowed but dangerous settings to `warnings`.
fn holds(
    file: &profile_args::SourceFile,
    strict: bool,
    warnings: &mut Vec<Diagnostic>,
) -> Result<String, Vec<Diagnostic>> {
    Ok(match profile::kind_of(&file.text) {
        FileKind::Profile => {
            let profile = profile_args::parse(file)?;
            let open = if strict { profile::without_reason(&profile) } else { Vec::new() };
            if !open.is_empty() {
                return Err(open);
            }
            warnings.extend(profile::udp_replies(&profile));
            let mut what = count(profile.listeners.len(), "listener");
            if !profile.expectations.is_empty() {
                let _ = write!(what, ", {}", count(profile.expectations.len(), "expectation"));
            }
            if profile.lab.is_some() {
                what.push_str(", a lab");
            }
            what
        }
        FileKind::Policy => {
            let policy = policy::parse(&file.origin, &file.text)?;
            format!("policy, {}, {}", count(policy.allow.len(), "rule"), count(policy.waive.len(), "waiver"))
        }
        FileKind::Lab => {
            let lab = lab::parse(&file.origin, &file.text)?;
            format!("lab, {}", count(lab.topology.all_nodes().len(), "node"))
        }
    })
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
