//! The commands. Only this module uses the clock, the terminal, output files and exit codes.

mod context;
mod exit;
mod format_args;
mod guesses;
#[cfg(test)]
mod help_tests;
mod import;
mod input;
mod lazy_args;
mod spelling;
mod targets;

pub mod audit;
pub mod check;
pub mod completions;
pub mod connections;
pub mod diff;
pub mod doctor;
pub mod experiment;
pub mod explain;
pub mod init;
pub mod interfaces;
pub mod lab;
pub mod listen;
#[cfg(feature = "tui")]
pub mod live;
pub mod man;
pub mod overview;
pub mod plan;
pub mod probe;
pub mod profile_args;
mod progress;
pub mod report;
pub mod result_limit;
pub mod schema;
pub mod steps;
pub mod target_host;
pub mod tutorial;
pub mod why;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use context::{Color, Context};
pub use exit::{Exit, Failure};
use lazy_args::Deferred;

use crate::record::time::Time;

/// Text below the help.
const EXIT_CODES: &str = "Exit codes: 0 every check passed, 1 a finding, 2 wrong usage or invalid profile, 3 undecided (evidence is missing, or nothing was \
     checked), 4 the environment refused, 5 output not written; see `bindscope explain exit-codes`";

/// Shows which network interface every accepted connection really arrived on, and who can reach a port.
///
/// Without a command it prints this host's interfaces and what listens here. It never binds unless you request it.
#[derive(Debug, Parser)]
#[command(name = "bindscope", version, max_term_width = 110, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Options that every command has.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// When to use colour: auto (on a terminal), always, never
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN", global = true, hide_possible_values = true, hide_default_value = true, hide_short_help = true)]
    color: Color,
    /// Print less on standard error
    #[arg(short, long, global = true, conflicts_with = "verbose", hide_short_help = true)]
    quiet: bool,
    /// Show details; repeat for more
    #[arg(short, long, global = true, help_heading = "Output", action = clap::ArgAction::Count)]
    verbose: u8,
    /// As root, also read files that other users can change
    #[arg(long, global = true, hide_short_help = true)]
    trust: bool,
    /// Identifies this host in documents, in place of its name
    #[arg(long, value_name = "NAME", global = true, value_parser = clap::builder::NonEmptyStringValueParser::new(), hide_short_help = true)]
    host_id: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show interfaces, addresses and their states, and what a bind covers
    Interfaces(Deferred<interfaces::Args>),
    /// Bind, accept, and report the ingress interface of every arrival
    Listen(Deferred<listen::Args>),
    /// Show what answers at an address of this host, and why not
    Why(Deferred<why::Args>),
    /// Three claims about bind, tried in a lab without root
    Tutorial(Deferred<tutorial::Args>),
    /// Show what listens here, who can reach it, and what a policy says
    Audit(Deferred<audit::Args>),
    /// Show established connections with their ingress interface
    Connections(Deferred<connections::Args>),
    /// Predict binds, conflicts and reachability; open no socket
    Plan(Deferred<plan::Args>),
    /// Bind, connect from this host, and compare with the prediction
    Probe(Deferred<probe::Args>),
    /// Test listeners from the hosts of a temporary network; no root
    Lab(Deferred<lab::Args>),
    /// Compare two reports, or two profiles planned here
    Diff(Deferred<diff::Args>),
    /// Make one page, without scripts, from saved documents
    Report(Deferred<report::Args>),
    /// Show what this user can and cannot see here, and what changes it
    Doctor(Deferred<doctor::Args>),
    /// Check profiles, policies and lab files; bind nothing
    Check(Deferred<check::Args>),
    /// Write a commented profile as a starting point
    Init(Deferred<init::Args>),
    /// Print the JSON Schema of profiles, policies or lab files
    Schema(Deferred<schema::Args>),
    /// Explain a code or topic, how to see it, and how to fix it
    Explain(Deferred<explain::Args>),
    /// Print a completion script for a shell
    Completions(Deferred<completions::Args>),
    /// Print the manual page of the program or of a command
    Man(Deferred<man::Args>),
}

/// The time now, for a document.
fn now() -> Time {
    Time::new(std::time::SystemTime::now())
}

/// Runs the program with these arguments and returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    crate::sys::survive_file_size_limit();
    exit::guard(move || {
        if let Some(exit) = completions::answer(&arguments) {
            return exit;
        }
        let mut cli = match Cli::try_parse_from(&arguments) {
            Ok(cli) => cli,
            Err(error) => return exit::report_usage(&error, &arguments),
        };
        if cli.global.trust {
            input::trust_everyone();
        }
        if let Some(id) = cli.global.host_id.take() {
            crate::sys::set_host_id(id);
        }
        let context = Context::new(cli.global.color, cli.global.quiet, cli.global.verbose);
        let result = match &cli.command {
            None => overview::run(&context),
            Some(Command::Interfaces(Deferred(args))) => interfaces::run(args, &context),
            Some(Command::Listen(Deferred(args))) => listen::run(args, &context),
            Some(Command::Tutorial(Deferred(args))) => tutorial::run(args, &context),
            Some(Command::Why(Deferred(args))) => why::run(args, &context),
            Some(Command::Audit(Deferred(args))) => audit::run(args, &context),
            Some(Command::Connections(Deferred(args))) => connections::run(args, &context),
            Some(Command::Plan(Deferred(args))) => plan::run(args, &context),
            Some(Command::Probe(Deferred(args))) => probe::run(args, &context),
            Some(Command::Lab(Deferred(args))) => lab::run(args, &context),
            Some(Command::Diff(Deferred(args))) => diff::run(args, &context),
            Some(Command::Report(Deferred(args))) => report::run(args, &context),
            Some(Command::Doctor(Deferred(args))) => doctor::run(args, &context),
            Some(Command::Check(Deferred(args))) => check::run(args, &context),
            Some(Command::Init(Deferred(args))) => init::run(args, &context),
            Some(Command::Schema(Deferred(args))) => schema::run(args, &context),
            Some(Command::Explain(Deferred(args))) => explain::run(args, &context),
            Some(Command::Completions(Deferred(args))) => completions::run(args, &context),
            Some(Command::Man(Deferred(args))) => man::run(args, &context),
        };
        result.unwrap_or_else(|failure| context.report(&failure))
    })
}
