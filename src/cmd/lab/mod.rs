//! `bindscope lab`: hosts out of thin air, to connect from.

mod plan;
mod run;

use std::ffi::{OsStr, OsString};

use super::source::{self, ProfileArgs};
use super::{Context, Exit, Failure};
use crate::code::Code;
use crate::diag::Problem;
use crate::lab::build::{BuildError, Lab};
use crate::lab::{builtin, ops};
use crate::model::Errno;
use crate::model::topology::Topology;
use crate::profile::lab::Teardown;
use crate::profile::{self, Profile};
use crate::sys::{self, netns};
use crate::text::escape;

/// Arguments of `bindscope lab`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Build a network of namespaces, bind the profile's listeners in it, connect from every node, and show what was foretold
    /// beside what came of it
    Run(run::Args),
    /// Show the operations that would build the network, as commands that do the same; build nothing
    Plan(plan::Args),
    /// List the built-in networks
    List(plan::ListArgs),
    /// Build a network with the profile's listeners, and open a shell in one of its nodes
    Shell(run::ShellArgs),
}

/// Which network.
#[derive(Debug, clap::Args)]
struct NetworkArgs {
    #[command(flatten)]
    source: ProfileArgs,
    /// The network: the name of a built-in one (see `lab list`) or a file with a [lab] [default: that of the profile, else
    /// two-sided]
    #[arg(long, value_name = "NAME|FILE")]
    topology: Option<OsString>,
}

/// A profile and the network to try it in.
struct Chosen {
    profile: Profile,
    name: String,
    topology: Topology,
    teardown: Teardown,
}

impl NetworkArgs {
    fn choose(&self) -> Result<Chosen, Failure> {
        let mut profile = self.source.load("default")?;
        let own = profile.lab.take();
        let lab = match (&self.topology, own) {
            (Some(name), _) => named(name).map_err(Failure::usage)?,
            (None, Some(lab)) => lab,
            (None, None) => named(OsStr::new(builtin::ALL[0].0)).map_err(Failure::usage)?,
        };
        Ok(Chosen { profile, name: lab.name, topology: lab.topology, teardown: lab.teardown })
    }
}

/// A network by the name that the user gave; a built-in one goes first, as with profiles.
fn named(name: &OsStr) -> Result<profile::lab::Lab, Vec<Problem>> {
    if let Some(name) = name.to_str()
        && let Some(text) = builtin::get(name)
    {
        return profile::lab::parse(name, text);
    }
    let file = source::read(name).map_err(|problem| {
        let names: Vec<&str> = builtin::ALL.iter().map(|(name, _)| *name).collect();
        vec![problem.help(format!("built-in networks are {}", names.join(", ")))]
    })?;
    profile::lab::parse(&file.origin, &file.text)
}

/// Makes the process able to build labs. To be called before any other thread is there.
fn prepare() -> Result<(), Failure> {
    sys::raise_file_limit();
    netns::prepare().map_err(|refusal| refused(&refusal))
}

fn refused(refusal: &sys::NamespaceRefusal) -> Failure {
    let problem = Problem::error(Code::LAB_REFUSED, format!("a lab cannot be built here: {refusal}"));
    Failure::new(Exit::Environment, problem.help(refusal.way_out.clone()))
}

fn build(topology: &Topology, context: &Context) -> Result<Lab, Failure> {
    let lab = Lab::build(ops::plan(topology)).map_err(failed)?;
    for gap in &lab.gaps {
        context.say(&Problem::warning(Code::LAB_GAP, gap.clone()));
    }
    Ok(lab)
}

fn failed(error: BuildError) -> Failure {
    failed_at("the lab could not be built", error)
}

fn failed_at(what: &str, error: BuildError) -> Failure {
    match error {
        BuildError::Refused(refusal) => refused(&refusal),
        BuildError::Operation { command, source } => {
            let problem = Problem::error(Code::LAB_FAILED, format!("{what}: {source}"));
            let mut help = format!("the operation was: {}", escape(&command));
            if let sys::Error::Call { operation: "rename", source, .. } = &source
                && sys::errno_of(source) == Errno::EBUSY
            {
                help.push_str("; before Linux 6.2 an interface that is up cannot be renamed: let an event put its link down first");
            }
            Failure::new(Exit::Environment, problem.help(help))
        }
    }
}

fn environment(error: &sys::Error) -> Failure {
    Failure::new(
        Exit::Environment,
        Problem::error(Code::LAB_FAILED, format!("the lab does not work: {error}")),
    )
}

/// Runs it.
///
/// # Errors
/// What could not be done.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    match &args.command {
        Command::Run(args) => run::run(args, context),
        Command::Plan(args) => plan::run(args, context),
        Command::List(args) => plan::list(args, context),
        Command::Shell(args) => run::shell(args, context),
    }
}
