//! The commands. This is the only place that knows the clock, the terminal, files to write, and exit codes.

mod context;
mod exit;
mod format_args;
mod guesses;
mod input;
mod lazy_args;
mod targets;

pub mod audit;
pub mod check;
pub mod completions;
pub mod connections;
pub mod diff;
pub mod doctor;
pub mod explain;
pub mod init;
pub mod interfaces;
pub mod lab;
pub mod listen;
pub mod overview;
pub mod plan;
pub mod probe;
pub mod profile_args;
pub mod schema;
pub mod target_host;
pub mod why;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use context::{Color, Context};
pub use exit::{Exit, Failure};
use lazy_args::Deferred;

/// What stands below the help.
const EXIT_CODES: &str = "Exit codes: 0 done and held, 1 a finding, 2 bad usage or profile, 3 undecided (evidence is missing, or nothing was \
     checked), 4 the environment refused, 5 output lost; more in `bindscope explain exit-codes`";

/// Shows which network interface every accepted connection really arrived on, and who can reach what you bind.
///
/// Without a command it prints this host's interfaces and what listens here. It never binds unless you say so.
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
struct Global {
    /// When to use colour
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN", global = true)]
    color: Color,
    /// Say less on standard error
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more on standard error; repeat for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// As root, also read files that other users can change
    #[arg(long, global = true)]
    trust: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Interfaces, addresses and their states, and what each bind form would cover
    Interfaces(Deferred<interfaces::Args>),
    /// Bind, accept, and report every arrival with its ingress interface
    Listen(Deferred<listen::Args>),
    /// What answers at an address of this host, such as localhost:3000, and why not
    Why(Deferred<why::Args>),
    /// What already listens here, who can reach it, and whether a policy allows it
    Audit(Deferred<audit::Args>),
    /// Established connections of this machine's servers, with their ingress interface where rights allow
    Connections(Deferred<connections::Args>),
    /// Foretell binds, conflicts and who reaches what; open no socket
    Plan(Deferred<plan::Args>),
    /// Bind, connect from this host to every address and port, and show prediction beside observation
    Probe(Deferred<probe::Args>),
    /// Make hosts out of thin air, and connect from them to the listeners, without root
    Lab(Deferred<lab::Args>),
    /// Two reports, or two profiles planned here, side by side
    Diff(Deferred<diff::Args>),
    /// What this user can and cannot see of this machine, and which switch would change it
    Doctor(Deferred<doctor::Args>),
    /// Check profiles, policies and lab files; bind nothing
    Check(Deferred<check::Args>),
    /// Write a commented profile to begin with
    Init(Deferred<init::Args>),
    /// The JSON Schema of profiles, policies or lab files
    Schema(Deferred<schema::Args>),
    /// What a code or a topic means, how to see it with ss and ip, and how to fix it
    Explain(Deferred<explain::Args>),
    /// A completion script for a shell
    Completions(Deferred<completions::Args>),
    /// The manual page, or that of a command
    Man(Deferred<completions::ManArgs>),
}

/// Runs the program with these arguments and says how it ended.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    crate::sys::survive_file_size_limit();
    exit::guard(move || {
        let cli = match Cli::try_parse_from(&arguments) {
            Ok(cli) => cli,
            Err(error) => return exit::report_usage(&error, &arguments),
        };
        if cli.global.trust {
            input::trust_everyone();
        }
        let context = Context::new(cli.global.color, cli.global.quiet, cli.global.verbose);
        let result = match &cli.command {
            None => overview::run(&context),
            Some(Command::Interfaces(Deferred(args))) => interfaces::run(args, &context),
            Some(Command::Listen(Deferred(args))) => listen::run(args, &context),
            Some(Command::Why(Deferred(args))) => why::run(args, &context),
            Some(Command::Audit(Deferred(args))) => audit::run(args, &context),
            Some(Command::Connections(Deferred(args))) => connections::run(args, &context),
            Some(Command::Plan(Deferred(args))) => plan::run(args, &context),
            Some(Command::Probe(Deferred(args))) => probe::run(args, &context),
            Some(Command::Lab(Deferred(args))) => lab::run(args, &context),
            Some(Command::Diff(Deferred(args))) => diff::run(args, &context),
            Some(Command::Doctor(Deferred(args))) => doctor::run(args, &context),
            Some(Command::Check(Deferred(args))) => check::run(args, &context),
            Some(Command::Init(Deferred(args))) => init::run(args, &context),
            Some(Command::Schema(Deferred(args))) => schema::run(args, &context),
            Some(Command::Explain(Deferred(args))) => explain::run(args, &context),
            Some(Command::Completions(Deferred(args))) => completions::run(args, &context),
            Some(Command::Man(Deferred(args))) => completions::man(args, &context),
        };
        result.unwrap_or_else(|failure| context.report(&failure))
    })
}
