//! `bindscope completions`: scripts for shells, and the answers to what they ask.
//!
//! A script asks this program for each word (`COMPLETE=bash bindscope ...`), so it also knows the interfaces of this host, profiles in
//! this directory, topics and codes.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap_complete::engine::CompletionCandidate;
use clap_complete::env::{CompleteEnv, Shells};

use super::{Cli, Context, Exit, Failure};
use crate::profile::builtin;
use crate::{explain, lab, sys};

/// The variable with which a script asks.
const ASKS: &str = "COMPLETE";

/// Arguments of `bindscope completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:",
    "\n  bindscope completions bash > bindscope.bash  then load the file in ~/.bashrc",
    "\n  bindscope completions zsh                    for zsh",
    "\n  bindscope completions fish                   for fish",
))]
pub struct Args {
    /// The shell for which to write the script
    shell: clap_complete::Shell,
    /// A script that knows commands and options only, and does not call bindscope
    #[arg(long = "static")]
    fixed: bool,
}

/// Writes a completion script.
///
/// # Errors
/// Output that cannot be written (exit 5).
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    let name = args.shell.to_string();
    let shells = Shells::builtins();
    match shells.completer(&name).filter(|_| !args.fixed) {
        Some(shell) => {
            // A vector takes everything.
            let _ = shell.write_registration(ASKS, "bindscope", "bindscope", "bindscope", &mut script);
        }
        None => clap_complete::generate(args.shell, &mut command(), "bindscope", &mut script),
    }
    context.emit(&script, None)?;
    Ok(Exit::Success)
}

/// The command line with names and global options set for every command.
pub(super) fn command() -> clap::Command {
    let mut command = <Cli as clap::CommandFactory>::command();
    command.build();
    command
}

/// Answers the script of a shell; `None` if no script asks.
pub(super) fn answer(arguments: &[OsString]) -> Option<Exit> {
    std::env::var_os(ASKS)?;
    let engine = CompleteEnv::with_factory(command).var(ASKS).bin("bindscope");
    match engine.try_complete(arguments.iter().cloned(), None) {
        Ok(true) => Some(Exit::Success),
        Ok(false) => None,
        Err(_) => Some(Exit::Usage),
    }
}

/// Candidates that begin with what is typed.
fn candidates<'a>(
    typed: &OsStr,
    all: impl IntoIterator<Item = (String, &'a str)>,
) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    all.into_iter()
        .filter(|(value, _)| value.starts_with(typed.as_ref()))
        .map(|(value, help)| CompletionCandidate::new(value).help(Some(help.to_owned().into())))
        .collect()
}

/// Files of this directory whose names end so.
fn files(ends: &[&str]) -> Vec<(String, &'static str)> {
    let names = sys::entries(Path::new(".")).into_iter().flatten();
    let mut found: Vec<_> = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| ends.iter().any(|end| name.ends_with(end)))
        .map(|name| (name, "file"))
        .collect();
    found.sort();
    found
}

/// TARGETs: built-in profiles, files, and the interfaces of this host with a port.
pub(super) fn targets(typed: &OsStr) -> Vec<CompletionCandidate> {
    let profiles = builtin::names().map(|name| (name.to_owned(), "profile"));
    let interfaces = sys::snapshot().map(|host| host.interfaces).unwrap_or_default();
    let interfaces =
        interfaces.iter().filter_map(|one| Some((format!("{}:8080", one.name.as_str()?), "interface")));
    let forms = [
        ("0.0.0.0:8080", "every IPv4 address"),
        ("[::]:8080", "every IPv6 address"),
        ("*:8080", "both families"),
    ];
    let forms = forms.map(|(form, about)| (form.to_owned(), about));
    candidates(typed, profiles.chain(files(&[".toml"])).chain(interfaces).chain(forms).collect::<Vec<_>>())
}

/// Topics and codes.
pub(super) fn pages(typed: &OsStr) -> Vec<CompletionCandidate> {
    let all = explain::TOPICS.iter().chain(explain::CODES.iter());
    candidates(typed, all.map(|page| (page.name.to_owned(), page.title())).collect::<Vec<_>>())
}

/// Built-in networks and files.
pub(super) fn topologies(typed: &OsStr) -> Vec<CompletionCandidate> {
    let builtin = lab::builtin::ALL.iter().map(|(name, _)| ((*name).to_owned(), "network"));
    candidates(typed, builtin.chain(files(&[".toml"])).collect::<Vec<_>>())
}

/// Files that are checked, and built-in profiles.
pub(super) fn profiles(typed: &OsStr) -> Vec<CompletionCandidate> {
    let builtin = builtin::names().map(|name| (name.to_owned(), "profile"));
    candidates(typed, files(&[".toml"]).into_iter().chain(builtin).collect::<Vec<_>>())
}
