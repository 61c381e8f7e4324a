//! `bindscope lab run --vary`: every combination of an experiment in a lab. Combinations with the same topology and settings use the
//! same network, and several networks are used at the same time, because most of a run is waiting.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::run::{self, Args};
use super::{Chosen, build_quietly, failed_at, prepare};
use crate::cmd::experiment::{self, Design};
use crate::cmd::probe;
use crate::cmd::progress::Progress;
use crate::cmd::{Context, Exit, Failure};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::lab::build::Lab;
use crate::lab::ops::{Action, Operation};
use crate::lab::run::Patience;
use crate::model::Protocol;
use crate::profile::Profile;
use crate::report::matrix::Report;
use crate::sys;

/// Maximum number of networks at the same time.
const MOST_NETWORKS: usize = 8;

/// Descriptors that a network and its connections may need.
const DESCRIPTORS: usize = 1024;

/// Protocols and ports that clients try.
type Services = Vec<(Protocol, u16)>;

/// Combinations that one network runs, one after the other.
struct Batch {
    chosen: Chosen,
    runs: Vec<(usize, Profile)>,
}

/// The result of a combination.
struct Done {
    run: usize,
    report: Report,
    unseen: usize,
    bound: usize,
}

/// Runs every combination.
///
/// # Errors
/// A topology that cannot be used, a lab that cannot be built, or no socket that could be bound (exit code 4).
pub(super) fn run(design: &Design, args: &Args, context: &Context) -> Result<Exit, Failure> {
    experiment::check_format(args.format.get())?;
    let mut collector = design.collector();
    let (batches, services) = batches(design, args, &mut collector)?;
    for batch in &batches {
        args.limit.check(batch.chosen.results())?;
    }
    prepare()?;
    let networks = batches.len();
    let events = batches.iter().any(|batch| !batch.chosen.plan.events.is_empty());
    let total: usize = batches.iter().map(|batch| batch.runs.len()).sum();
    let mut done = in_networks(batches, &services, args, Progress::new("combinations", total, context))?;
    done.sort_by_key(|one| one.run);
    let (mut exit, mut bound) = (Exit::Success, 0);
    for Done { run, report, unseen, bound: open } in done {
        bound += open;
        exit = exit.worse(probe::verdict(&report, unseen));
        if report.cells.iter().any(run::elsewhere) {
            exit = exit.worse(Exit::Finding);
        }
        collector.add(run, report);
    }
    let mut notes = vec![format!("{total} combinations ran in {networks} networks")];
    if events {
        notes.push("the events of the network are not performed in an experiment".to_owned());
    }
    let output = (args.format.get(), args.output.as_deref());
    exit = exit.worse(design.finish(collector, notes, output, context)?);
    if bound == 0 && total > 0 {
        let problem = Diagnostic::error(Code::NOTHING_BOUND, "no socket of any combination could be bound");
        return Err(Failure::new(
            Exit::Environment,
            problem.help("`bindscope plan` with the same --vary says why"),
        ));
    }
    Ok(exit)
}

/// The combinations by network, and the services of all. Combinations of one network are divided where there would be few batches.
fn batches(
    design: &Design,
    args: &Args,
    collector: &mut crate::report::experiment::Collector,
) -> Result<(Vec<Batch>, Services), Failure> {
    type Key = (Option<String>, BTreeMap<String, String>, Option<crate::profile::Lab>);
    let mut groups: Vec<(Key, Batch)> = Vec::new();
    let mut problems = Vec::new();
    for run in 0..design.grid.size() {
        let profile = match design.profile(run) {
            Ok(profile) => profile,
            Err(because) => {
                collector.add_invalid(run, because);
                continue;
            }
        };
        let topology = design.topology(run);
        let settings = design.settings(run);
        let key = (topology.map(|value| value.text.clone()), settings, profile.lab.clone());
        if let Some((_, batch)) = groups.iter_mut().find(|(other, _)| *other == key) {
            batch.runs.push((run, profile));
            continue;
        }
        let name = topology.map(|value| OsStr::new(value.text.as_str()));
        match args.network.network(profile.clone(), name, &key.1) {
            Ok(chosen) => groups.push((key, Batch { chosen, runs: vec![(run, profile)] })),
            Err(failure) => {
                let failure = match topology {
                    Some(value) => experiment::at_value(failure, value),
                    None => failure,
                };
                for problem in failure.problems {
                    if !problems.contains(&problem) {
                        problems.push(problem);
                    }
                }
            }
        }
    }
    if !problems.is_empty() {
        return Err(Failure::usage(problems));
    }
    let profiles = groups.iter().flat_map(|(_, batch)| batch.runs.iter().map(|(_, profile)| profile));
    let services = experiment::services(profiles);
    let pieces = MOST_NETWORKS.div_ceil(groups.len().max(1));
    let mut batches = Vec::new();
    for (_, Batch { chosen, runs }) in groups {
        let length = runs.len().div_ceil(pieces).max(1);
        let mut runs = VecDeque::from(runs);
        while !runs.is_empty() {
            let part = runs.drain(..length.min(runs.len())).collect();
            batches.push(Batch { chosen: chosen.clone(), runs: part });
        }
    }
    Ok((batches, services))
}

/// Works through all batches, several at the same time. The first failure ends it.
fn in_networks(
    batches: Vec<Batch>,
    services: &[(Protocol, u16)],
    args: &Args,
    mut progress: Progress,
) -> Result<Vec<Done>, Failure> {
    let spare = sys::spare_descriptors().unwrap_or(usize::MAX);
    let workers = MOST_NETWORKS.min(spare / DESCRIPTORS).min(batches.len()).max(1);
    let queue = Mutex::new(VecDeque::from(batches));
    let results: Mutex<Vec<Done>> = Mutex::new(Vec::new());
    let failure: Mutex<Option<Failure>> = Mutex::new(None);
    let work = || {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(batch) = next else { break };
            let each = |done| results.lock().unwrap_or_else(PoisonError::into_inner).push(done);
            if let Err(problem) = one_network(batch, services, args, &each) {
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(problem);
                queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        while !threads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(20));
            progress.show(results.lock().unwrap_or_else(PoisonError::into_inner).len());
        }
    });
    progress.end();
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(failure) => Err(failure),
        None => Ok(results.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// Builds a network and runs the combinations of a batch in it.
fn one_network(
    batch: Batch,
    services: &[(Protocol, u16)],
    args: &Args,
    each: &dyn Fn(Done),
) -> Result<(), Failure> {
    let Batch { mut chosen, runs } = batch;
    let lab = build_quietly(&chosen)?;
    let patience = Patience { connect: args.connect_timeout, all: args.deadline };
    for (number, (run, profile)) in runs.into_iter().enumerate() {
        if number > 0 {
            forget_neighbours(&lab)?;
        }
        chosen.profile = profile;
        let mut opened = run::open(&lab, &chosen)?;
        opened.services = services.to_vec();
        let looked = run::look_quietly(&lab, &chosen, &opened, patience, &mut |_, _| {})?;
        let unseen = looked.unseen;
        let uncaptured = looked.uncaptured.iter().chain(&looked.untraced).cloned().collect();
        let mut notes = vec![format!("the network is {}: {}", chosen.name, run::about(&chosen, &lab))];
        notes.extend(chosen.original.iter().flat_map(|(_, twin)| twin.notes.iter().cloned()));
        let report = run::report(&chosen, &lab, &opened, looked, Vec::new(), (notes, uncaptured), unseen);
        each(Done { run, report, unseen, bound: opened.sockets.bound.len() });
    }
    Ok(())
}

/// Removes what earlier connections have left in a network, so that results do not depend on the order of the combinations.
fn forget_neighbours(lab: &Lab) -> Result<(), Failure> {
    let nodes = 0..lab.plan.nodes.len();
    let operations: Vec<Operation> =
        nodes.map(|node| Operation { node, action: Action::ForgetNeighbours }).collect();
    lab.perform(&operations).map_err(|error| failed_at("neighbours could not be removed", error))?;
    Ok(())
}
