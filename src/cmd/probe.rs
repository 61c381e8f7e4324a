//! `bindscope probe`: bind, connect from this host to every address and port, and compare predicted with observed.

use super::experiment::{self, Design, VaryArgs};
use super::format_args::FormatArgs;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::plan::{self, Format};
use super::profile_args::ProfileArgs;
use super::progress::Progress;
use super::result_limit::ResultLimit;
use super::target_host;
use super::{Context, Exit, Failure, now};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::library::add_port_holders;
use crate::model::addr::socket_addr;
use crate::model::{AddrClass, Outcome, Protocol, Schema, Snapshot, Source};
use crate::plan::destinations;
use crate::plan::expand::expand;
use crate::plan::predict::{BindOutcome, Holder};
use crate::plan::reach::Destination;
use crate::probe::attempt::{self, Attempt, Attempts, Limits, Observation};
use crate::probe::listeners::{Opened, in_names};
use crate::probe::run as probe_run;
use crate::profile::expect::{Expectation, Spread};
use crate::profile::{self, Profile, duration};
use crate::report::expectations::{self, Evidence, Judged, judge_shares};
use crate::report::experiment::Command;
use crate::report::extent::Extent;
use crate::report::matrix::{self, Asked, CellReport, ObservationMerger, Plan, Questions, Report};
use crate::report::plan::{self as assembly, Parts};
use crate::serve::bind::Bound;
use crate::sys;

/// Arguments of `bindscope probe`.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:",
    "\n  bindscope probe 0.0.0.0:8080    bind, connect, compare",
    "\n  bindscope probe --ports 1-1024  test the ports of this host",
    "\n  bindscope probe default --json  for programs",
))]
pub struct Args {
    #[command(flatten)]
    source: ProfileArgs,
    #[command(flatten)]
    vary: VaryArgs,
    #[command(flatten)]
    format: FormatArgs<Format>,
    /// Write to FILE instead of standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
    /// Timeout of one connection
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::argument, help_heading = "Limits")]
    connect_timeout: Duration,
    /// Timeout of everything
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::argument, help_heading = "Limits", hide_short_help = true)]
    deadline: Duration,
    /// Maximum number of connections that wait for an answer at the same time
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u16).range(1..), hide_short_help = true)]
    parallel: u16,
    /// Source addresses of the connections
    #[arg(long, value_enum, default_value_t = Sources::Default, value_name = "WHICH", hide_short_help = true)]
    sources: Sources,
    /// Also connect to these TCP ports, whichever program listens there, such as 22,8000-8099 or 1-65535
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = port_range, conflicts_with = "sources")]
    ports: Vec<RangeInclusive<u16>>,
    /// Connect only to these addresses of this host: an address, a network, or an interface name
    #[arg(long, value_name = "WHERE", value_delimiter = ',', conflicts_with = "localhost")]
    destinations: Vec<String>,
    /// Also connect to every address of the name localhost in the file /etc/hosts
    #[arg(long)]
    localhost: bool,
    #[command(flatten)]
    limit: ResultLimit,
}

/// What clients bind before they connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sources {
    /// Nothing: the kernel chooses
    Default,
    /// Also each other address of this host that can reach the destination
    All,
}

/// Reads `22` or `8000-8099`.
fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    match profile::ports::parse(text.trim())? {
        range if *range.start() == 0 => {
            Err("lets the kernel choose a port for a bind; it is not a destination".to_owned())
        }
        range => Ok(range),
    }
}

/// The ports of some ranges, sorted.
fn ports_of(ranges: &[RangeInclusive<u16>]) -> Vec<u16> {
    let mut ports: Vec<u16> = ranges.iter().cloned().flatten().collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// How many connections may be under way: each to a listener of ours takes two descriptors.
fn in_flight(parallel: u16, files: Option<u64>, sockets: usize) -> usize {
    /// Standard streams, the poller, files being read.
    const OTHERS: usize = 32;
    let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    usize::from(parallel).min(files.saturating_sub(sockets + OTHERS) / 2).max(1)
}

/// Runs it.
///
/// # Errors
/// A profile that cannot be used, a host that cannot be read, or no socket that could be bound (exit 4).
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let profile = if args.ports.is_empty() || args.source.is_given() {
        args.source.load("default", context)?
    } else {
        Profile::named("--ports")
    };
    if let Some(design) = args.vary.design(&args.source, &profile, Command::Probe, false, context)? {
        return experiment(&design, args, context);
    }
    let Probed { report, unseen, bound } = probe(&profile, args, &[], true, context)?;
    let text =
        plan::written(&report, Some(&args.source.shown()), args.format.get(), context, args.output.is_some());
    context.emit(text.as_bytes(), args.output.as_deref())?;
    if bound == 0 && (args.ports.is_empty() || args.source.is_given()) {
        return Err(nothing_bound());
    }
    Ok(verdict(&report, unseen).worse(evidence(&report)))
}

/// The exit code of a host that was not read completely.
fn evidence(report: &Report) -> Exit {
    if report.complete || report.host.netns.is_none() { Exit::Success } else { Exit::Undecided }
}

fn nothing_bound() -> Failure {
    let problem = Diagnostic::error(Code::NOTHING_BOUND, "no socket of the profile could be bound");
    Failure::new(Exit::Environment, problem.help("`bindscope plan` says why"))
}

/// Probes every combination, one after the other.
fn experiment(design: &Design, args: &Args, context: &Context) -> Result<Exit, Failure> {
    experiment::check_format(args.format.get())?;
    let mut collector = design.collector();
    let profiles: Vec<Result<Profile, String>> =
        (0..design.grid.size()).map(|run| design.profile(run)).collect();
    let services = experiment::services(profiles.iter().flatten());
    let (mut exit, mut bound) = (Exit::Success, 0);
    let mut progress = Progress::new("combinations", profiles.len(), context);
    for (run, profile) in profiles.into_iter().enumerate() {
        match profile {
            Err(because) => collector.add_invalid(run, because),
            Ok(profile) => {
                let probed = probe(&profile, args, &services, false, context)?;
                bound += probed.bound;
                exit = exit.worse(verdict(&probed.report, probed.unseen)).worse(evidence(&probed.report));
                collector.add(run, probed.report);
            }
        }
        progress.show(run + 1);
    }
    progress.end();
    let output = (args.format.get(), args.output.as_deref());
    exit = exit.worse(design.finish(collector, Vec::new(), output, context)?);
    if bound == 0 { Err(nothing_bound()) } else { Ok(exit) }
}

/// A probe.
struct Probed {
    report: Report,
    /// Number of connections that the deadline cut off.
    unseen: usize,
    /// Number of open sockets.
    bound: usize,
}

/// Binds the listeners of a profile, and connects to their services and to `services`.
fn probe(
    profile: &Profile,
    args: &Args,
    services: &[(Protocol, u16)],
    show: bool,
    context: &Context,
) -> Result<Probed, Failure> {
    let files = sys::raise_file_limit();
    // The host as it is before our own sockets are there.
    let mut subject = target_host::here()?;
    let chosen = match args.destinations.as_slice() {
        [] => None,
        texts => Some(destinations::chosen(texts, &subject.snapshot).map_err(Failure::usage)?),
    };
    let ports = ports_of(&args.ports);
    let expansion = expand(profile, &subject.snapshot);
    let localhost = if args.localhost { hosts_addresses("localhost", &subject.snapshot) } else { Vec::new() };
    let more = more_destinations(&subject.snapshot, &localhost);
    let asked = Asked { more: &more, only: chosen.as_deref(), ports: &ports, services };
    let extent = Extent { asked, opened: true, from_addresses: args.sources == Sources::All };
    args.limit.check(extent.results(&expansion.sockets, &subject.snapshot))?;
    add_port_holders(&mut subject, &expansion.sockets);
    let mut opened = Opened::all(&expansion.sockets, &subject.snapshot);
    let questions = Questions::of(asked, &subject.snapshot);
    let mut plan = Plan::of(
        std::mem::take(&mut opened.specs),
        &subject.snapshot,
        subject.rights,
        subject.foreign,
        asked,
    );
    if args.sources == Sources::All {
        plan.add_source_addresses(&subject.snapshot);
    }
    let limits = Limits {
        in_flight: in_flight(args.parallel, files, opened.bound.len()),
        deadline: Instant::now() + args.deadline,
        ends: false,
    };
    let mut cells = matrix::predicted_cells(&plan, &subject.snapshot);
    let unseen =
        observe(&plan, &mut cells, &opened, args, limits, &subject.snapshot, show.then_some(context))?;
    let mut sockets = assembly::sockets_of(&plan, &subject.snapshot);
    for (socket, observed) in sockets.iter_mut().zip(&opened.outcomes) {
        socket.bind.observed = Some(*observed);
    }
    for (bound, &owner) in opened.bound.iter().zip(&opened.owners) {
        let exposure = sockets[owner].socket.exposure;
        sockets[owner].socket = bound.view.clone();
        sockets[owner].socket.exposure = exposure;
    }
    sockets.extend(assembly::missing_of(&expansion, &subject.snapshot));
    let expectations = expectations::judge_with(
        &profile.expectations,
        &sockets,
        &cells,
        Evidence { observed_only: true, without_client: &[], interfaces: &subject.snapshot.interfaces },
        &mut |expectation, wanted| spread(expectation, wanted, &opened.bound, args, limits),
    );
    let mut notes = assembly::notes_of(&expansion, subject.snapshot.packet_filters.as_ref());
    notes.append(&mut subject.notes);
    notes.extend(localhost_notes(&localhost, &cells));
    let mut incomplete = subject.incomplete_because;
    if unseen > 0 {
        incomplete.push(attempt::why_unseen(unseen));
    }
    let mut report = assembly::finish(
        Schema::Probe,
        profile,
        &subject.snapshot,
        incomplete,
        Parts {
            requested: questions,
            sockets,
            cells,
            expectations,
            events: Vec::new(),
            notes,
            node_interfaces: BTreeMap::new(),
        },
    );
    report.time = Some(now());
    Ok(Probed { report, unseen, bound: opened.bound.len() })
}

/// Prediction and observation that differ, and failed expectations, are findings.
pub(super) fn verdict(report: &Report, unseen: usize) -> Exit {
    let bind_differs = report.sockets.iter().any(|socket| {
        let predicted = &socket.bind.predicted;
        predicted.outcome != BindOutcome::Uncertain
            && socket
                .bind
                .observed
                .is_some_and(|seen| (seen.outcome, seen.errno) != (predicted.outcome, predicted.errno))
    });
    let mut exit = plan::verdict(report);
    if report.summary.disagree > 0 || bind_differs {
        exit = exit.worse(Exit::Finding);
    }
    if unseen > 0 || report.summary.agree + report.summary.disagree == 0 {
        exit = exit.worse(Exit::Undecided);
    }
    exit
}

/// Ways to name this host that only a client on it has.
fn more_destinations(snapshot: &Snapshot, localhost: &[IpAddr]) -> Vec<Destination> {
    let mut more: Vec<IpAddr> =
        vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))];
    if snapshot.ipv6_available {
        let wire = snapshot.addresses().find_map(|(_, address)| match address.address {
            IpAddr::V4(v4) if !v4.is_loopback() => Some(v4),
            _ => None,
        });
        more.push(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        more.extend(
            [Some(Ipv4Addr::LOCALHOST), wire].into_iter().flatten().map(|v4| IpAddr::V6(v4.to_ipv6_mapped())),
        );
    }
    let own: Vec<IpAddr> = snapshot.addresses().map(|(_, address)| address.address).collect();
    more.extend(localhost.iter().filter(|address| !own.contains(address)));
    more.into_iter().map(|address| Destination { address, zone: 0 }).collect()
}

/// The addresses of `name` in the file that resolvers read first (hosts(5)), in its order.
pub(super) fn hosts_addresses(name: &str, snapshot: &Snapshot) -> Vec<IpAddr> {
    let text = target_host::read_text(std::path::Path::new("/etc/hosts"), 1 << 20).unwrap_or_default();
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        if let Some(address) = address.filter(|_| words.any(|alias| alias.eq_ignore_ascii_case(name)))
            && !found.contains(&address)
            && (address.is_ipv4() || snapshot.ipv6_available)
            // A link-local address needs a zone that the file does not have.
            && AddrClass::of(address) != AddrClass::Link
        {
            found.push(address);
        }
    }
    found
}

/// What answers under the name localhost, by port.
fn localhost_notes(addresses: &[IpAddr], cells: &[CellReport]) -> Vec<String> {
    if addresses.is_empty() {
        return Vec::new();
    }
    let names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let mut notes = vec![format!(
        "localhost is {}, as /etc/hosts has it; clients try them in an order of their own",
        names.join(" and ")
    )];
    let mut services: Vec<(Protocol, u16)> = cells.iter().map(|cell| (cell.protocol, cell.port)).collect();
    services.sort_unstable();
    services.dedup();
    let mut by_place: HashMap<(Protocol, u16, &str), &CellReport> = HashMap::new();
    for cell in cells.iter().filter(|cell| cell.source == Source::Host && cell.source_address.is_none()) {
        by_place.insert((cell.protocol, cell.port, &cell.destination), cell);
    }
    for (protocol, port) in services {
        let answers: Vec<(&str, String)> = names
            .iter()
            .filter_map(|name| {
                let seen = by_place.get(&(protocol, port, name.as_str()))?.observed.as_ref()?;
                let answer = match (&seen.listener, seen.outcome) {
                    (Some(listener), _) => listener.clone(),
                    (None, Outcome::Accepted) => "another program".to_owned(),
                    (None, outcome) => outcome.to_string(),
                };
                Some((name.as_str(), answer))
            })
            .collect();
        let all: Vec<String> = answers.iter().map(|(name, answer)| format!("{name} {answer}")).collect();
        let differ = answers.iter().any(|(_, answer)| *answer != answers[0].1);
        let end = if differ { "; they differ, so what a client meets depends on its resolver" } else { "" };
        notes.push(format!("localhost {protocol} port {port}: {}{end}", all.join(", ")));
    }
    notes
}

/// Connects to every destination of the matrix from here. Returns how many the deadline left untried.
fn observe(
    plan: &Plan,
    cells: &mut [CellReport],
    opened: &Opened,
    args: &Args,
    limits: Limits,
    snapshot: &Snapshot,
    shown: Option<&Context>,
) -> Result<usize, Failure> {
    let mut indices = Vec::new();
    for (index, cell) in plan.matrix.cells.iter().enumerate() {
        let (protocol, _) = plan.matrix.services[cell.service];
        // A datagram to another program's socket could cause an action there.
        let ours = cell.predicted.takers.iter().all(|holder| matches!(holder, Holder::Own(_)));
        if plan.matrix.sources[cell.source] != Source::Host || (protocol == Protocol::Udp && !ours) {
            continue;
        }
        indices.push(index);
    }
    let attempt = |index: usize| {
        let cell = &plan.matrix.cells[indices[index]];
        let (protocol, port) = plan.matrix.services[cell.service];
        let to = plan.matrix.destinations[cell.destination];
        let to = socket_addr(to.address, port, to.zone);
        Attempt { protocol, to, patience: args.connect_timeout }
    };
    let attempts = Attempts { count: indices.len(), of: &attempt };
    let source = |index: usize| {
        let source = plan.matrix.cells[indices[index]].source_address;
        source.map(|source| (source.address, source.zone))
    };
    let mut progress = shown.map(|context| Progress::new("connecting", attempts.count, context));
    let mut beside = ObservationMerger::new(plan);
    let mut made = 0;
    let mut tell = |index: usize, observation: Observation| {
        beside.put(cells, indices[index], &in_names(&observation, &opened.owners, snapshot));
        made += 1;
    };
    let mut show = |done| {
        if let Some(progress) = &mut progress {
            progress.show(done);
        }
    };
    let result = probe_run::run_from_here(&opened.bound, attempts, limits, &source, &mut tell, &mut show);
    if let Some(progress) = &progress {
        progress.end();
    }
    result.map_err(|error| {
        let problem = Diagnostic::error(Code::BIND_FAILED, format!("cannot wait for connections: {error}"));
        Failure::new(Exit::Environment, problem)
    })?;
    Ok(attempts.count - made)
}

/// Makes the connections that a `spread` wants to the first matching socket's address, and counts who takes them.
fn spread(
    expectation: &Expectation,
    wanted: Spread,
    bound: &[Bound],
    args: &Args,
    limits: Limits,
) -> Option<Judged> {
    let group: Vec<usize> = bound
        .iter()
        .enumerate()
        .filter(|(_, bound)| expectation.names(&bound.spec.listener))
        .map(|(index, _)| index)
        .collect();
    let view = &bound[*group.first()?].view;
    let address = match view.address {
        IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        address => address,
    };
    let to = socket_addr(address, view.port, view.scope_id.unwrap_or(0));
    let attempt = Attempt { protocol: view.protocol, to, patience: args.connect_timeout };
    let attempts = Attempts { count: usize::try_from(wanted.connections).ok()?, of: &|_| attempt };
    let limits = Limits { deadline: Instant::now() + args.deadline, ..limits };
    let mut counts = vec![0; group.len()];
    let (mut lost, mut made) = (0, 0);
    let mut tell = |_, observation: Observation| {
        made += 1;
        match observation.taker.and_then(|taker| group.iter().position(|&member| member == taker)) {
            Some(member) => counts[member] += 1,
            None => lost += 1,
        }
    };
    probe_run::run_from_here(bound, attempts, limits, &|_| None, &mut tell, &mut |_| {}).ok()?;
    (made == attempts.count).then_some(())?;
    Some(judge_shares(wanted, &counts, lost))
}
