//! `bindscope lab run` and `bindscope lab shell`.

use crate::cmd::experiment::VaryArgs;
use crate::cmd::format_args::FormatArgs;
use crate::cmd::progress::Progress;
use crate::profile::duration;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::{Chosen, NetworkArgs, TwinArgs, build, environment, failed_at, plan as steps, prepare};
use crate::cmd::plan::{self, Format};
use crate::cmd::result_limit::ResultLimit;
use crate::cmd::{Context, Exit, Failure, now, probe};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::escape::escape;
use crate::lab::build::Lab;
use crate::lab::ops::Action;
use crate::lab::run::{self as stage, Looked, Opened, Patience};
use crate::lab::twin;
use crate::model::{Arrival, Change, Outcome, Schema, SocketView};
use crate::profile::lab::Teardown;
use crate::report::expectations::{self, Evidence};
use crate::report::experiment::Command;
use crate::report::matrix::{CellReport, ChangedCell, EventReport, Questions, Report, SocketReport};
use crate::report::plan::{self as assembly, Parts};
use crate::serve::{Acceptor, Endpoint, Observer, ServeError};
use crate::sys::{Replayed, Signals, netns};

/// Arguments of `bindscope lab run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(super) network: NetworkArgs,
    #[command(flatten)]
    vary: VaryArgs,
    /// Show the operations that would build the network, as `lab plan` does, and build nothing
    #[arg(long, conflicts_with = "keep")]
    dry_run: bool,
    /// Keep the lab running, with its listeners, until a signal (Ctrl-C)
    #[arg(long, conflicts_with = "vary")]
    keep: bool,
    #[command(flatten)]
    pub(super) format: FormatArgs<Format>,
    /// Write to FILE instead of standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub(super) output: Option<PathBuf>,
    /// Timeout of one connection
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::argument, help_heading = "Limits")]
    pub(super) connect_timeout: Duration,
    /// Timeout of everything
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::argument, help_heading = "Limits", hide_short_help = true)]
    pub(super) deadline: Duration,
    #[command(flatten)]
    pub(super) limit: ResultLimit,
}

/// Entry point of `bindscope lab run`.
///
/// # Errors
/// An invalid profile or network, a lab that cannot be built, or no socket that could be bound (exit code 4).
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let chosen = args.network.choose(context)?;
    if args.dry_run {
        let format = match args.format.get() {
            Format::Human => steps::Format::Human,
            Format::Json => steps::Format::Json,
            _ => {
                let problem =
                    Diagnostic::error(Code::COMMAND_LINE, "operations are written as human or json");
                return Err(Failure::usage(vec![problem]));
            }
        };
        return steps::show(&chosen, format, args.output.as_deref(), context);
    }
    let fixed = chosen.original.is_some();
    let source = args.network.source();
    if let Some(design) = args.vary.design(&source, &chosen.profile, Command::Lab, fixed, context)? {
        return super::experiment::run(&design, args, context);
    }
    args.limit.check(chosen.results())?;
    prepare()?;
    let lab = build(&chosen, context)?;
    let opened = open(&lab, &chosen)?;
    let patience = Patience { connect: args.connect_timeout, all: args.deadline };
    let look = || look(&lab, &chosen, &opened, patience, context);
    let looked = look()?;
    let mut notes = vec![format!("the network is {}: {}", chosen.name, about(&chosen, &lab))];
    notes.extend(chosen.original.iter().flat_map(|(_, twin)| twin.notes.iter().cloned()));
    let mut missed = looked.unseen;
    let mut contradicted = 0;
    let mut uncaptured: Vec<String> = looked.uncaptured.iter().chain(&looked.untraced).cloned().collect();
    let mut before = looked.cells.clone();
    let mut events = Vec::new();
    for (number, operations) in lab.plan.events.iter().enumerate() {
        let gaps = lab
            .perform(operations)
            .map_err(|error| failed_at(&format!("event {} could not be done", number + 1), error))?;
        // What is done for the sake of the measurement alone is no part of the event.
        let own = operations.iter().filter(|operation| {
            !matches!(operation.action, Action::ForgetNeighbours | Action::Settle(_) | Action::Checked(..))
        });
        let commands: Vec<String> = own.flat_map(|operation| lab.plan.commands(operation)).collect();
        let after = look()?;
        missed += after.unseen;
        uncaptured.extend(after.uncaptured.into_iter().chain(after.untraced));
        let wrong: Vec<&CellReport> =
            after.cells.iter().filter(|cell| cell.agrees == Some(false) || elsewhere(cell)).collect();
        contradicted += wrong.len();
        notes.extend(gaps);
        let changed = changes(&before, &after.cells);
        let event = EventReport { commands, cells: after.cells.len(), disagree: wrong.len(), changed };
        notes.extend(in_words(number + 1, &event, before.len()));
        events.push(event);
        notes.extend(
            wrong
                .into_iter()
                .map(|cell| format!("after event {}, not as predicted: {}", number + 1, question(cell))),
        );
        before = after.cells;
    }
    uncaptured.sort();
    uncaptured.dedup();
    let mut report = report(&chosen, &lab, &opened, looked, events, (notes, uncaptured), missed);
    report.time = Some(now());
    let text = plan::written(&report, None, args.format.get(), context, args.output.is_some());
    context.emit(text.as_bytes(), args.output.as_deref())?;
    if opened.sockets.bound.is_empty() {
        let problem = Diagnostic::error(Code::NOTHING_BOUND, "no socket of the profile could be bound");
        return Err(Failure::new(
            Exit::Environment,
            problem.help("`bindscope lab run --format json` says why"),
        ));
    }
    let mut exit = probe::verdict(&report, missed);
    if contradicted > 0 || report.cells.iter().any(elsewhere) {
        exit = exit.worse(Exit::Finding);
    }
    let keep = match chosen.teardown {
        _ if args.keep => true,
        Teardown::Always => false,
        Teardown::OnSuccess => exit != Exit::Success,
        Teardown::Never => true,
    };
    if keep {
        // Before a message says that a signal ends it.
        let signals = signals()?;
        tell_ways_in(&lab, context);
        serve(&lab, opened, None, &signals)?;
    }
    Ok(exit)
}

pub(super) fn about(chosen: &Chosen, lab: &Lab) -> String {
    let host = lab.plan.nodes.get(lab.plan.host).map_or_else(String::new, |name| escape(name));
    let description = escape(&chosen.description);
    format!("{description}; listeners are bound in the node {host}")
}

/// What a reader must know of rules of packet filters in a copy.
fn about_rules(rules: &Replayed, legacy: usize) -> String {
    let count = rules.rules.values().map(Vec::len).sum::<usize>();
    let mut note = format!("the copy has the host's packet filters: {count} rules");
    if !rules.limited.is_empty() {
        note.push_str("; rate limits are taken out, so results hold as long as no limit is reached");
    }
    if legacy > 0 {
        let _ = write!(note, "; and {legacy} tables of iptables-legacy, whose deciding rule is not reported");
    }
    note.push_str(
        "; programs attached to the kernel (BPF), IPVS and filters beyond the host are not looked at",
    );
    note
}

pub(super) fn open(lab: &Lab, chosen: &Chosen) -> Result<Opened, Failure> {
    match &chosen.original {
        Some((snapshot, _)) => stage::open_as(lab, &chosen.profile, snapshot.clone()),
        None => stage::open(lab, &chosen.profile),
    }
    .map_err(|error| environment(&error))
}

fn look(
    lab: &Lab,
    chosen: &Chosen,
    opened: &Opened,
    patience: Patience,
    context: &Context,
) -> Result<Looked, Failure> {
    let mut line = None;
    let mut progress = |done: usize, total: usize| {
        line.get_or_insert_with(|| Progress::new("connecting", total, context)).show(done);
    };
    let result = look_quietly(lab, chosen, opened, patience, &mut progress);
    if let Some(line) = line {
        line.end();
    }
    result
}

pub(super) fn look_quietly(
    lab: &Lab,
    chosen: &Chosen,
    opened: &Opened,
    patience: Patience,
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<Looked, Failure> {
    match &chosen.original {
        Some((_, twin)) => twin::run::look(lab, twin, opened, patience, progress),
        None => stage::look(lab, opened, patience, progress),
    }
    .map_err(|error| environment(&error))
}

pub(super) fn report(
    chosen: &Chosen,
    lab: &Lab,
    opened: &Opened,
    looked: Looked,
    events: Vec<EventReport>,
    (more_notes, uncaptured): (Vec<String>, Vec<String>),
    unseen: usize,
) -> Report {
    let Looked { plan: predicted, cells, node_interfaces, .. } = looked;
    // Binds are shown as predicted for the host before any event.
    let snapshot = &opened.snapshot;
    let mut sockets = assembly::sockets_of(&predicted, snapshot);
    for (socket, observed) in sockets.iter_mut().zip(&opened.sockets.outcomes) {
        socket.bind.observed = Some(*observed);
    }
    for (bound, &owner) in opened.sockets.bound.iter().zip(&opened.sockets.owners) {
        if let Some(socket) = sockets.get_mut(owner) {
            let exposure = socket.socket.exposure;
            socket.socket = bound.view.clone();
            socket.socket.exposure = exposure;
        }
    }
    sockets.extend(assembly::missing_of(&opened.expansion, snapshot));
    let judged = unseen_as_unknown(&cells, &sockets);
    let without_client = chosen.original.as_ref().map_or(&[][..], |(_, twin)| &twin.without_client);
    let evidence = Evidence { observed_only: false, without_client, interfaces: &snapshot.interfaces };
    let expectations = expectations::judge(&chosen.profile.expectations, &sockets, &judged, evidence);
    let mut notes = assembly::notes_of(&opened.expansion, None);
    if let Some(rules) = lab.rules() {
        // In place of the sentence that they are not looked at.
        notes.pop();
        notes.push(about_rules(rules, lab.ruleset().map_or(0, |ruleset| ruleset.legacy.len())));
    }
    notes.extend(more_notes);
    let mut incomplete = lab.gaps.clone();
    incomplete.extend(uncaptured);
    if unseen > 0 {
        incomplete.push(crate::probe::attempt::why_unseen(unseen));
    }
    assembly::finish(
        Schema::Lab,
        &chosen.profile,
        snapshot,
        incomplete,
        Parts {
            requested: Questions::default(),
            sockets,
            cells,
            expectations,
            events,
            notes,
            node_interfaces,
        },
    )
}

/// The cells for expectations. A cell that was not observed, or that depends on a rule whose answer differs on the host, may have
/// any outcome; all others were observed, so nothing is judged by a prediction.
fn unseen_as_unknown(cells: &[CellReport], sockets: &[SocketReport]) -> Vec<CellReport> {
    let names: Vec<String> = sockets.iter().filter_map(|socket| socket.socket.listener.clone()).collect();
    let mut cells = cells.to_vec();
    let open = |cell: &CellReport| {
        let Some(observed) = &cell.observed else { return true };
        observed.filter.as_ref().is_some_and(|filter| !filter.depends_on.is_empty())
    };
    for cell in cells.iter_mut().filter(|cell| open(cell)) {
        cell.observed = None;
        let predicted = Arc::make_mut(&mut cell.predicted);
        predicted.outcome = None;
        predicted.listener = None;
        predicted.candidates.clone_from(&names);
    }
    cells
}

/// Whether the packets came in elsewhere than the kernel reports.
pub(super) fn elsewhere(cell: &CellReport) -> bool {
    let packets = cell.observed.as_ref().and_then(|seen| seen.packets.as_ref());
    packets.is_some_and(|packets| packets.confirms == Some(false))
}

/// A question with its answer in a few words.
fn question(cell: &CellReport) -> String {
    format!("{} {} {} port {} is {}", cell.source, cell.protocol, cell.destination, cell.port, answer(cell))
}

fn answer(cell: &CellReport) -> String {
    let Some(seen) = &cell.observed else { return "not looked at".to_owned() };
    match (&seen.listener, &seen.ingress) {
        (Some(listener), Some(ingress)) => format!("taken by {} over {ingress}", escape(listener)),
        (Some(listener), None) => format!("taken by {}", escape(listener)),
        (None, _) if seen.outcome == Outcome::Accepted => "taken by a stranger".to_owned(),
        (None, _) => seen.outcome.to_string(),
    }
}

/// What an event changed.
fn changes(before: &[CellReport], after: &[CellReport]) -> Vec<ChangedCell> {
    type Key<'a> = (&'a crate::model::Source, crate::model::Protocol, &'a str, u16);
    fn by_key(cells: &[CellReport]) -> BTreeMap<Key<'_>, &CellReport> {
        cells
            .iter()
            .map(|cell| ((&cell.source, cell.protocol, &*cell.destination, cell.port), cell))
            .collect()
    }
    let (old, new) = (by_key(before), by_key(after));
    let gone_or_there = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
    gone_or_there
        .map(|key| (old.get(key).copied(), new.get(key).copied()))
        .filter(|(was, is)| was.map(answer) != is.map(answer))
        .map(|(was, is)| ChangedCell { before: was.cloned(), after: is.cloned() })
        .collect()
}

/// The same in words, a line for each cell.
fn in_words(number: usize, event: &EventReport, before: usize) -> Vec<String> {
    let head = format!(
        "event {number} ({}): {} of {} results changed",
        event.commands.join("; "),
        event.changed.len(),
        before.max(event.cells)
    );
    let line = |ChangedCell { before, after }: &ChangedCell| {
        let cell = before.as_ref().or(after.as_ref())?;
        let was = before.as_ref().map_or_else(|| "not an address of the host".to_owned(), answer);
        let is = after.as_ref().map_or_else(|| "no longer an address of the host".to_owned(), answer);
        let CellReport { source, protocol, destination, port, .. } = cell;
        Some(format!("  {source} {protocol} {destination} port {port}: {was} -> {is}"))
    };
    std::iter::once(head).chain(event.changed.iter().filter_map(line)).collect()
}

/// How to get into the nodes of a lab that stands.
fn tell_ways_in(lab: &Lab, context: &Context) {
    if context.quiet {
        return;
    }
    use std::io::Write as _;
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "The lab stands until Ctrl-C. To get into a node:");
    for (name, namespace) in lab.plan.nodes.iter().zip(lab.namespaces()) {
        let _ = writeln!(stderr, "  {:<12} {}", escape(name), namespace.way_in());
    }
}

/// What a shell in a node can connect to, and what could not be opened.
fn tell_what_listens(lab: &Lab, opened: &Opened, node: usize, interactive: bool, context: &Context) {
    for (spec, seen) in opened.sockets.specs.iter().zip(&opened.sockets.outcomes) {
        if let Some(errno) = seen.errno {
            let what = format!("{} is not open: {errno}", spec.view(crate::model::FamilyExposure::default()));
            let problem = Diagnostic::warning(
                Code::BIND_FAILED,
                format!("listener {}: {what}", escape(&spec.listener)),
            );
            context.say(&problem.help("`bindscope lab run` with this profile says why"));
        }
    }
    if !interactive || context.quiet {
        return;
    }
    use std::io::Write as _;
    let name = |index: usize| lab.plan.nodes.get(index).map_or_else(String::new, |name| escape(name));
    let mut stderr = std::io::stderr().lock();
    let (node, host, count) = (name(node), name(lab.plan.host), opened.sockets.bound.len());
    let _ = writeln!(
        stderr,
        "A shell in the node {node}; its end takes the lab down. {count} sockets are open in {host}:"
    );
    for bound in &opened.sockets.bound {
        let _ = writeln!(stderr, "  {}  {}", escape(&bound.spec.listener), bound.view);
    }
    let addresses: Vec<String> = opened
        .snapshot
        .addresses()
        .filter(|(interface, address)| !interface.loopback && address.class != crate::model::AddrClass::Link)
        .map(|(interface, address)| format!("{} ({})", address.address, interface.name))
        .collect();
    let _ = writeln!(stderr, "{host} has {}", addresses.join(", "));
}

/// Arguments of `bindscope lab shell`.
#[derive(Debug, clap::Args)]
pub struct ShellArgs {
    /// The node [default: the first one that is not the host]
    #[arg(value_name = "NODE")]
    node: Option<String>,
    /// A profile whose listeners are bound: a file, - for standard input, or the name of a built-in one
    #[arg(long, value_name = "PROFILE", default_value = "default")]
    profile: std::ffi::OsString,
    /// The network: the name of a built-in one (see `lab list`) or a file with a [lab]
    #[arg(long, value_name = "NAME|FILE")]
    topology: Option<std::ffi::OsString>,
    #[command(flatten)]
    twin: TwinArgs,
    /// A command to run there instead of a shell; its exit code is that of `lab shell` (128 and the signal if one killed it, 127 without such a program)
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<std::ffi::OsString>,
}

/// Runs `lab shell`. Ends as the shell or the command ends: with its code, 128 and the number of the signal that killed it, 127
/// when there is no such program and 126 when it cannot be run.
///
/// # Errors
/// As [`run`]; a node that is not there.
pub fn shell(args: &ShellArgs, context: &Context) -> Result<Exit, Failure> {
    let source = crate::cmd::profile_args::ProfileArgs::of(&args.profile);
    let chosen =
        NetworkArgs { source, topology: args.topology.clone(), twin: args.twin.clone() }.choose(context)?;
    prepare()?;
    let lab = build(&chosen, context)?;
    let node = match &args.node {
        Some(name) => lab.plan.index(name).ok_or_else(|| {
            let names: Vec<String> = lab.plan.nodes.iter().map(|name| escape(name)).collect();
            let problem =
                Diagnostic::error(Code::UNKNOWN_NAME, format!("the lab has no node {:?}", escape(name)));
            Failure::usage(vec![problem.help(format!("its nodes are {}", names.join(", ")))])
        })?,
        None => (0..lab.plan.nodes.len()).find(|node| *node != lab.plan.host).unwrap_or(lab.plan.host),
    };
    let opened = open(&lab, &chosen)?;
    let signals = Signals::for_a_program().map_err(does_not_work)?;
    tell_what_listens(&lab, &opened, node, args.command.is_empty(), context);
    let status = serve(&lab, opened, Some((node, &args.command)), &signals)?;
    Ok(match status {
        Some(code) if code != 0 => Exit::Program(code),
        _ => Exit::Success,
    })
}

fn does_not_work(error: std::io::Error) -> Failure {
    let problem = Diagnostic::error(Code::LAB_FAILED, format!("the lab does not work: {error}"));
    Failure::new(Exit::Environment, problem)
}

fn signals() -> Result<Signals, Failure> {
    Signals::new().map_err(does_not_work)
}

/// Answers connections to the listeners until a signal, or until the program in a node ends. Tells the code with which that ended.
fn serve(
    lab: &Lab,
    opened: Opened,
    program: Option<(usize, &[std::ffi::OsString])>,
    signals: &Signals,
) -> Result<Option<u8>, Failure> {
    let failed = does_not_work;
    let (Some(host), over) = (lab.namespaces().get(lab.plan.host), AtomicBool::new(false)) else {
        return Ok(None);
    };
    let program = program.and_then(|(node, words)| Some((lab.namespaces().get(node)?, words)));
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (over, ended) = (&over, &ended);
        let worker = program.map(|(namespace, words)| {
            scope.spawn(move || {
                let result = start(namespace, words, ended);
                over.store(true, Ordering::Release);
                result
            })
        });
        let endpoints = opened
            .sockets
            .bound
            .into_iter()
            .map(|bound| Endpoint { bound, inherited: false })
            .collect::<Vec<_>>();
        let served = host.run(move || {
            let mut acceptor = Acceptor::new(endpoints, 1, None, None)?;
            let ends_with_program = Quiet { over };
            let mut observer = ends_with_program;
            loop {
                let until = Instant::now().checked_add(Duration::from_millis(100));
                // Without a socket the loop has nothing to wait for.
                match acceptor.run(&mut observer, &mut [], signals, until)? {
                    crate::serve::End::Deadline => {}
                    crate::serve::End::NothingLeft if !over.load(Ordering::Acquire) && !signals.asked() => {
                        std::thread::sleep(Duration::from_millis(100));
                    }
                    _ => return std::io::Result::Ok(()),
                }
            }
        });
        // When it was a signal that ended it, the program is not waited for.
        ended.store(true, Ordering::Release);
        served.and_then(|result| result).map_err(failed)?;
        match worker.map(std::thread::ScopedJoinHandle::join) {
            Some(Ok(result)) => result.map(Some).map_err(failed),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(None),
        }
    })
}

/// Runs a command, or the user's shell, in a namespace, with the rights over its network.
/// When `ended` becomes true it is killed. With it end all processes that it has started.
fn start(
    namespace: &netns::Namespace,
    words: &[std::ffi::OsString],
    ended: &AtomicBool,
) -> std::io::Result<u8> {
    namespace.enter()?;
    // Before the rights of the programs are set, and dropped when the first of them has ended: whatever it has started ends too.
    let processes = netns::Processes::new();
    if let Err(error) = &processes {
        use std::io::Write as _;
        let _ = writeln!(
            std::io::stderr(),
            "warning[{}]: processes that the program starts may outlive the lab: a process-id namespace cannot be created: {error}",
            Code::LAB_FAILED
        );
    }
    netns::keep_network_rights()?;
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let (program, arguments) = words.split_first().map_or((&shell, &[][..]), |(first, rest)| (first, rest));
    let mut command = std::process::Command::new(program);
    netns::end_with_us(command.args(arguments));
    // A command without job control stays in the process group of this process, so that Ctrl-Z stops both.
    let gave_terminal = words.is_empty() && processes.is_ok() && netns::give_terminal(&mut command);
    let child = command.spawn();
    let result = wait_for(child, program, ended);
    drop(processes);
    if gave_terminal {
        netns::take_terminal();
    }
    result
}

/// Waits until a program that was started ends, and kills it when `ended` becomes true.
fn wait_for(
    child: std::io::Result<std::process::Child>,
    program: &std::ffi::OsStr,
    ended: &AtomicBool,
) -> std::io::Result<u8> {
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            use std::io::Write as _;
            let program = escape(&program.to_string_lossy());
            let _ = writeln!(
                std::io::stderr(),
                "error[{}]: {program} cannot be run there: {error}",
                Code::LAB_FAILED
            );
            return Ok(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 });
        }
    };
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(code_of(status));
        }
        if ended.load(Ordering::Acquire) {
            child.kill()?;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The code that shells give for the end of a program: its own, or 128 and the signal.
fn code_of(status: std::process::ExitStatus) -> u8 {
    let signal = crate::sys::signal_of(status).map(|signal| 128 + signal);
    status.code().or(signal).and_then(|code| u8::try_from(code).ok()).unwrap_or(255)
}

/// Hears of arrivals and says nothing: the terminal belongs to the shell.
struct Quiet<'a> {
    over: &'a AtomicBool,
}

impl Observer for Quiet<'_> {
    fn arrived(&mut self, _: &Arrival, _: Option<(usize, bool)>, _: Option<SystemTime>) {}

    fn over_limit(&mut self, _: &Arrival, _: Option<SystemTime>) {}

    fn error(&mut self, _error: &ServeError, _count: u64) {}

    fn network_changed(&mut self, _change: &Change, _lost: &[&SocketView], _found: &[&SocketView]) {}

    fn idle(&mut self, _now: Instant) -> ControlFlow<(), Option<Instant>> {
        if self.over.load(Ordering::Acquire) { ControlFlow::Break(()) } else { ControlFlow::Continue(None) }
    }
}
