//! `bindscope lab`: temporary networks for tests.

mod experiment;
mod plan;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::profile_args::{self, ProfileArgs};
use super::{Context, Exit, Failure, interfaces, target_host};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::escape::escape;
use crate::lab::build::{BuildError, Lab};
use crate::lab::run::names_of_oneself;
use crate::lab::twin::{self, Twin};
use crate::lab::{builtin, ops};
use crate::model::topology::{Node, Topology};
use crate::model::{Errno, Snapshot};
use crate::plan::expand::expand;
use crate::plan::reach;
use crate::profile::lab::Teardown;
use crate::profile::{self, Profile};
use crate::report::extent::Extent;
use crate::report::matrix::Asked;
use crate::sys::{self, netns};

/// Arguments of `bindscope lab`.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:",
    "\n  bindscope lab run tutorial             three claims, tried from other hosts",
    "\n  bindscope lab run 0.0.0.0:8080 --twin  in a copy of this host's network",
    "\n  bindscope lab list                     the built-in networks",
))]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Build a network of namespaces, bind the profile's listeners in it, connect from every node, and compare
    /// predicted with observed
    Run(run::Args),
    /// Show the operations that would build the network, as equivalent commands; build nothing
    Plan(plan::Args),
    /// List the built-in networks
    List(plan::ListArgs),
    /// Build a network with the profile's listeners, and open a shell in one of its nodes
    Shell(run::ShellArgs),
}

/// Selection of the network.
#[derive(Debug, clap::Args)]
struct NetworkArgs {
    #[command(flatten)]
    source: ProfileArgs,
    /// The network: the name of a built-in one (see `lab list`) or a file with a [lab] [default: that of the profile, else
    /// two-sided]
    #[arg(long, value_name = "NAME|FILE", add = clap_complete::engine::ArgValueCompleter::new(crate::cmd::completions::topologies))]
    topology: Option<OsString>,
    #[command(flatten)]
    twin: TwinArgs,
}

/// A copy instead of a separate network.
#[derive(Debug, Clone, clap::Args)]
struct TwinArgs {
    /// The network: a copy of this host's, or of the host in SNAPSHOT, written there by
    /// `bindscope interfaces --format json`. There is a client on every link, and one beyond the default route
    #[arg(long, value_name = "SNAPSHOT", num_args = 0..=1, conflicts_with = "topology")]
    #[expect(clippy::option_option, reason = "absent, without a file, with one")]
    twin: Option<Option<PathBuf>>,
    /// What if the packet filters of the host were those of FILE: rules for `nft -f`, or the output of iptables-save or ip6tables-save
    #[arg(long, value_name = "FILE", requires = "twin", hide_short_help = true)]
    ruleset: Option<PathBuf>,
}

/// A profile and the network for it.
#[derive(Clone)]
struct Chosen {
    profile: Profile,
    name: String,
    description: String,
    plan: ops::Plan,
    teardown: Teardown,
    /// The host that the network is a copy of, and the copy.
    original: Option<(Snapshot, Twin)>,
}

impl Chosen {
    /// The number of results that a run keeps in memory: sources, destinations and services multiplied.
    fn results(&self) -> usize {
        if let Some((snapshot, twin)) = &self.original {
            let more = names_of_oneself(snapshot);
            let asked = Asked { more: &more, ..Asked::default() };
            let extent = Extent { asked, opened: true, from_addresses: false };
            let sockets = expand(&self.profile, snapshot).sockets;
            // The client beyond the default route is one more source; its results are those of a link.
            let beyond = usize::from(twin.beyond.is_some());
            let count = extent.results(&sockets, snapshot);
            return count.saturating_add(count / reach::sources(snapshot).len().max(1) * beyond);
        }
        let services: BTreeSet<_> = (self.profile.listeners.iter())
            .flat_map(|listener| listener.ports.iter().map(|port| (listener.protocol, *port)))
            .collect();
        let sources = self.plan.nodes.len();
        sources.saturating_mul(self.plan.addresses_of_host()).saturating_mul(services.len())
    }
}

impl NetworkArgs {
    fn choose(&self, context: &Context) -> Result<Chosen, Failure> {
        self.network(self.source().load("default", context)?, None, &BTreeMap::new())
    }

    /// The arguments of the profile: what follows `--twin` may be a target.
    fn source(&self) -> ProfileArgs {
        match &self.twin.twin {
            Some(Some(name)) if is_target(name) => self.source.with(name.as_os_str()),
            _ => self.source.clone(),
        }
    }

    /// The network for a profile, with `topology` in place of the usual one, and with these settings of its host.
    fn network(
        &self,
        mut profile: Profile,
        topology: Option<&OsStr>,
        settings: &BTreeMap<String, String>,
    ) -> Result<Chosen, Failure> {
        let own = profile.lab.take();
        if let Some(file) = &self.twin.twin {
            let file = file.as_deref().filter(|name| !is_target(name));
            let mut all = own.map(|lab| settings_of_host(&lab.topology)).unwrap_or_default();
            all.extend(settings.clone());
            return copied(profile, file, self.twin.ruleset.as_deref(), &all);
        }
        let mut lab = match (topology.or(self.topology.as_deref()), own) {
            (Some(name), _) => named(name).map_err(Failure::usage)?,
            (None, Some(lab)) => lab,
            (None, None) => named(OsStr::new(builtin::ALL[0].0)).map_err(Failure::usage)?,
        };
        set_on_host(&mut lab.topology, settings);
        let description = lab.topology.description.clone().unwrap_or_else(|| "a lab".to_owned());
        let nodes = lab.topology.all_nodes().len();
        if nodes > MOST_NODES {
            let message = format!("the network has {nodes} nodes, and a lab has at most {MOST_NODES}");
            let problem = Diagnostic::error(Code::BAD_NETWORK, message);
            return Err(Failure::usage(vec![problem.help("each gets a network namespace of its own")]));
        }
        let plan = ops::plan(&lab.topology);
        let teardown = lab.teardown;
        Ok(Chosen { profile, name: lab.name, description, plan, teardown, original: None })
    }
}

/// Whether the text behind `--twin` is a target and not a snapshot: a TOML file, a built-in profile, or a listener.
fn is_target(name: &Path) -> bool {
    let listener = |name: &str| {
        !name.contains('/') && (name.contains(':') || name.bytes().all(|byte| byte.is_ascii_digit()))
    };
    if name.to_str().is_some_and(listener) && !name.exists() {
        return true;
    }
    let built_in = name.to_str().is_some_and(|name| profile::builtin::get(name).is_some());
    name.extension().is_some_and(|ending| ending == "toml") || (built_in && !name.exists())
}

/// Maximum number of nodes of a network.
const MOST_NODES: usize = 2_000;

/// Maximum number of interfaces of a copy. Each becomes a network namespace with a host behind it.
const MOST_COPIED: usize = 1_000;

/// A copy of this host, or of the host in a file.
fn copied(
    profile: Profile,
    file: Option<&Path>,
    rules: Option<&Path>,
    settings: &BTreeMap<String, String>,
) -> Result<Chosen, Failure> {
    let mut snapshot = match file {
        Some(path) => target_host::elsewhere(path)?.snapshot,
        None => interfaces::checked_snapshot(false, interfaces::More::Rules)?.0,
    };
    if snapshot.interfaces.len() > MOST_COPIED {
        let count = snapshot.interfaces.len();
        let message = format!("the host has {count} interfaces, and a copy has at most {MOST_COPIED}");
        let problem = Diagnostic::error(Code::BAD_SNAPSHOT, message);
        let help = "each gets a network namespace of its own; `plan --host FILE` predicts without one";
        return Err(Failure::usage(vec![problem.help(help)]));
    }
    if let Some(rules) = rules {
        target_host::replace_rules(&mut snapshot, rules)?;
    }
    // Settings that predictions depend on change the host that is copied, as `--set` does; others the copy alone.
    let mut others = Vec::new();
    for (name, value) in settings {
        let known = value.parse().ok().map(|number| target_host::change(&mut snapshot, name, number));
        if known.is_none_or(|result| result.is_err()) {
            others.push((name, value));
        }
    }
    let mut twin = twin::of(&snapshot);
    twin.plan.of_this_machine = file.is_none();
    for (name, value) in others {
        twin.plan.set_on_host(name, value);
    }
    let named = |(name, value): (&String, &String)| format!("{name} = {value}");
    if !settings.is_empty() {
        let list: Vec<String> = settings.iter().map(named).collect();
        twin.notes.push(escape(&format!("the profile sets on the copy: {}", list.join(", "))));
    }
    let whose = match (file, &snapshot.host.name) {
        (None, _) => "this host".to_owned(),
        (Some(_), Some(name)) => escape(name),
        (Some(path), None) => format!("the host of {}", escape(&path.display().to_string())),
    };
    Ok(Chosen {
        profile,
        name: "twin".to_owned(),
        description: format!("a copy of {whose}"),
        plan: twin.plan.clone(),
        teardown: Teardown::default(),
        original: Some((snapshot, twin)),
    })
}

/// The settings that the `[[lab.node]]` of the host has in a profile.
fn settings_of_host(topology: &Topology) -> BTreeMap<String, String> {
    let host = topology.host_node();
    let node = topology.nodes.iter().find(|node| Some(&node.name) == host.as_ref());
    node.map(|node| node.sysctl.clone()).unwrap_or_default()
}

/// Sets these settings on the host of a topology.
fn set_on_host(topology: &mut Topology, settings: &BTreeMap<String, String>) {
    let Some(host) = topology.host_node().filter(|_| !settings.is_empty()) else { return };
    match topology.nodes.iter_mut().find(|node| node.name == host) {
        Some(node) => node.sysctl.extend(settings.clone()),
        None => {
            let node = Node { name: host, sysctl: settings.clone(), ..Node::default() };
            topology.nodes.push(node);
        }
    }
}

/// A network by the name that the user gave; a built-in one goes first, as with profiles.
fn named(name: &OsStr) -> Result<profile::lab::Lab, Vec<Diagnostic>> {
    if let Some(name) = name.to_str()
        && let Some(text) = builtin::get(name)
    {
        return profile::lab::parse(name, text);
    }
    let file = profile_args::read(name).map_err(|problem| {
        let names: Vec<&str> = builtin::ALL.iter().map(|(name, _)| *name).collect();
        vec![problem.help(format!("built-in networks are {}", names.join(", ")))]
    })?;
    profile::lab::parse(&file.origin, &file.text)
}

/// Enables the process to build labs. Must be called before it starts other threads.
pub(super) fn prepare() -> Result<(), Failure> {
    sys::raise_file_limit();
    netns::prepare().map_err(|refusal| refused(&refusal))
}

fn refused(refusal: &sys::NamespaceRefusal) -> Failure {
    let problem = Diagnostic::error(Code::LAB_REFUSED, format!("a lab cannot be built here: {refusal}"));
    Failure::new(Exit::Environment, problem.help(refusal.remedy.clone()))
}

/// Builds the copy of a host. What it leaves out is a gap as is what could not be done.
pub(super) fn copy(snapshot: &Snapshot, twin: &Twin) -> Result<Lab, Failure> {
    let mut lab = Lab::build(twin.plan.clone()).map_err(failed)?;
    let copy = lab.snapshot(lab.plan.host).map_err(|error| environment(&error))?;
    lab.gaps.splice(0..0, twin.skipped.iter().cloned());
    lab.gaps.extend(twin::differences(snapshot, &copy));
    Ok(lab)
}

/// Builds the network; its gaps are not reported here.
fn build_quietly(chosen: &Chosen) -> Result<Lab, Failure> {
    match &chosen.original {
        Some((snapshot, twin)) => copy(snapshot, twin),
        None => Lab::build(chosen.plan.clone()).map_err(failed),
    }
}

fn build(chosen: &Chosen, context: &Context) -> Result<Lab, Failure> {
    let lab = build_quietly(chosen)?;
    for gap in &lab.gaps {
        context.say(&Diagnostic::warning(Code::LAB_GAP, gap.clone()));
    }
    Ok(lab)
}

fn failed(error: BuildError) -> Failure {
    failed_at("the lab could not be built", error)
}

pub(super) fn failed_at(what: &str, error: BuildError) -> Failure {
    match error {
        BuildError::Refused(refusal) => refused(&refusal),
        BuildError::Operation { command, source } => {
            let problem = Diagnostic::error(Code::LAB_FAILED, format!("{what}: {source}"));
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

pub(super) fn environment(error: &sys::Error) -> Failure {
    Failure::new(
        Exit::Environment,
        Diagnostic::error(Code::LAB_FAILED, format!("the lab does not work: {error}")),
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
