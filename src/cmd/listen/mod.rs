//! `bindscope listen`: profile -> plan -> bind -> accept -> attribute -> record -> render, top to bottom.

mod accept_queue;
mod messages;
mod output;
mod reconcile;
mod reporter;
mod sandbox;
mod sockets;
#[cfg(feature = "tui")]
pub(super) mod view;
mod view_handle;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::cmd::format_args::FormatArgs;
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::model::confinement::{Confinement, Needs};
use crate::model::{AddrClass, Snapshot};
use crate::profile::{Profile, duration};
use crate::record::event::{Event, Listening, SCHEMA, Started};
use crate::record::time::Time;
use crate::serve::{Acceptor, End, InitialNetwork};
use crate::sys::{self, Monitor, Signals};

use super::profile_args::ProfileArgs;
use super::{Context, Exit, Failure};
use output::Format;
use reconcile::Reconciler;
use reporter::Reporter;
use view_handle::ViewHandle;
pub(super) use view_handle::prepare as prepare_view;

/// How long the last lines may take to reach a slow reader.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How much longer than `--for` a run lasts at most while sockets are waited for.
const LAST_CHANCE: Duration = Duration::from_secs(2);

/// Arguments of `bindscope listen`.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:",
    "\n  bindscope listen 8080                         port 8080, for this host only",
    "\n  bindscope listen 0.0.0.0:8080                 every IPv4 address",
    "\n  bindscope listen '*:8080' udp:5353 --for 30s  dual-stack and UDP, for 30 seconds",
    "\n  bindscope listen default --json               events as NDJSON",
))]
pub struct Args {
    #[command(flatten)]
    source: ProfileArgs,
    #[command(flatten)]
    format: FormatArgs<Format>,
    /// Add the lines to FILE instead of writing them to standard output; a page replaces FILE
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
    /// End so long after the first socket is open, such as 30s or 5m; at most 2s later while an address is waited for
    #[arg(long = "for", value_name = "TIME", value_parser = duration::argument, help_heading = "Limits")]
    time: Option<Duration>,
    /// End after this many connections and datagrams
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Limits")]
    count: Option<u64>,
    /// Take connections with this many threads; lines of two threads may be out of order by a moment
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64), help_heading = "Limits", hide_short_help = true)]
    threads: u8,
    /// Serve the sockets that another program hands over (LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES), as systemd does
    #[arg(long, hide_short_help = true)]
    inherited: bool,
    /// End with exit code 4 unless every socket could be opened
    #[arg(long, help_heading = "Checks")]
    require_all: bool,
    /// Show a live view: who arrives where, the last arrivals, and the reason for each value; q ends it
    #[arg(long)]
    tui: bool,
    /// Keep all rights after binding, instead of giving up those that are not needed any more
    #[arg(long, hide_short_help = true)]
    keep_privileges: bool,
}

/// Runs it.
///
/// # Errors
/// What could not be done.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    // First of all, while the descriptors that were handed over are the only ones.
    let inherited = if args.inherited { Some(sockets::inherited()?) } else { None };
    let profile = match &inherited {
        Some(_) if !args.source.is_given() => Profile::named("inherited"),
        _ => args.source.load("default", context)?,
    };
    if !profile.vary.is_empty() {
        let note = "listen opens the profile as it is written and varies no factor";
        context.say(
            &Diagnostic::note(Code::BAD_FACTOR, note)
                .help("`plan`, `probe` and `lab run` run the experiment"),
        );
    }
    // Before the signals: a second one ends the program at once, and the terminal must be restored before that.
    let _restored = args.tui.then_some(RestoredAtEnd);
    let terminal = if args.tui { Some(view_handle::prepare()?) } else { None };
    let signals =
        Signals::with_reopen().map_err(|error| environment(format!("cannot take signals: {error}")))?;
    sys::raise_file_limit();
    // Before the network is read, so that no change after that is missed.
    let monitor = Monitor::new().ok();
    let host = look().map_err(|error| environment(error.to_string()))?;
    let path = args.output.as_deref();
    let is_page = args.format.get() == Format::Html;
    let (sink, of_sink, page) = if is_page {
        output::open_page(path, args.keep_privileges)?
    } else {
        output::open(path, args.keep_privileges).map(|(sink, of_sink)| (sink, of_sink, None))?
    };
    let mut reporter = Reporter::new(args.format.get(), sink, context);
    if let Some(log) = path.filter(|_| !is_page) {
        reporter.reopens(log);
    }
    let others_reach = |address: &std::net::IpAddr| {
        matches!(AddrClass::of(*address), AddrClass::Private | AddrClass::Global)
    };
    reporter.try_at(host.addresses().map(|(_, one)| one.address).find(others_reach));
    reporter.event(&Event::Started(Started {
        schema: SCHEMA.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        time: Time::new(SystemTime::now()),
        host: host.host.clone(),
        profile: profile.name.clone(),
    }));
    let mut of_view = None;
    if let Some(terminal) = terminal {
        // Before the confinement, after which the terminal could not be opened.
        let summary = match args.output {
            Some(_) => Some(output::open(None, args.keep_privileges)?.0),
            None => None,
        };
        let (view, confinement) =
            ViewHandle::start(terminal, &profile.name, &host, !args.keep_privileges, context)?;
        of_view = confinement;
        reporter.shows_in(view, summary);
    }
    let opened = sockets::all(&profile, &host, inherited.unwrap_or_default(), &mut reporter)?;
    let (sockets, failed, waiting) = (opened.endpoints.len(), opened.failed, opened.waiting);
    let reconciler = Reconciler::new(&profile, &opened);
    let idle = sockets == 0 && reconciler.is_done();
    let log_directory = path.filter(|log| !is_page && log.is_file()).map(directory_of);
    let page_directory = path.filter(|_| page.is_some()).map(directory_of);
    let needs = |reconciler: &Reconciler| Needs {
        log_directory: log_directory.clone(),
        page_directory: page_directory.clone(),
        ..sandbox::needs(&profile, &host, |listener| reconciler.may_open(listener))
    };
    // Before any other thread is started: those inherit it.
    let confinement = (!args.keep_privileges).then(|| {
        let others = [of_sink, of_view].into_iter().flatten().reduce(Confinement::weaker);
        sandbox::process(&needs(&reconciler), others, &mut reporter)
    });
    // After `listening`, changes of the network are reported; earlier ones are only taken into account.
    let read = Some(InitialNetwork { monitor, snapshot: host.clone() });
    let acceptor = (!idle).then(|| Acceptor::new(opened.endpoints, args.threads.into(), args.count, read));
    reporter.event(&Event::Listening(Listening { sockets, failed, waiting, confinement }));
    let served = match acceptor {
        Some(acceptor) => acceptor.map_err(cannot_wait).and_then(|acceptor| {
            let confine = |reconciler: &Reconciler| {
                if !args.keep_privileges {
                    // Its extent was reported; a privilege that could not be dropped then cannot be dropped now.
                    let _ = sys::confine(&needs(reconciler));
                }
            };
            serve(args, (acceptor, sockets), reconciler, (&signals, &confine), &mut reporter)
        }),
        None => Ok(Served { end: End::NothingLeft, unaccepted: Vec::new(), opened: 0, failed: 0 }),
    };
    // Also after a failure: what was counted so far is reported.
    let output = reporter.finish(LAST_LINES).and_then(|()| match page {
        Some(page) => page.publish().map_err(|error| {
            let message = format!("the page cannot be written: {error}");
            Diagnostic::error(Code::OUTPUT_FAILED, message).help("choose another file with -o FILE")
        }),
        None => Ok(()),
    });
    let Served { end, unaccepted, opened, failed: failed_later } = match served {
        Ok(served) => served,
        Err(mut failure) => {
            if let Err(problem) = output {
                failure.exit = failure.exit.worse(Exit::Output);
                failure.problems.push(problem);
            }
            return Err(failure);
        }
    };
    // Who ends it while it still waits for an address has seen no failure.
    let idle = opened == 0 && end == End::NothingLeft && !signals.asked();
    let failed = failed + failed_later;
    if idle {
        let problem = Diagnostic::error(
            Code::BIND_FAILED,
            "no socket could be opened, so there is nothing to listen on",
        );
        let _ = context.say_within(&problem, LAST_LINES);
    }
    if !unaccepted.is_empty() {
        let _ = context.say_within(
            &Diagnostic::warning(
                Code::ARRIVAL_TROUBLE,
                format!(
                    "who waited at the end could not be accepted and is not counted: {}",
                    unaccepted.join(", ")
                ),
            )
            .help("the summary's errors tell why; for EMFILE raise the limit of open files (ulimit -n)"),
            LAST_LINES,
        );
    }
    let incomplete = idle || (args.require_all && failed > 0);
    let result = match end {
        _ if incomplete => Exit::Environment,
        End::NothingLeft if signals.asked() => Exit::Success,
        End::NothingLeft => Exit::Undecided,
        _ if !unaccepted.is_empty() => Exit::Undecided,
        End::Signal | End::Deadline | End::Count | End::Observer | End::Changed | End::Stopped => {
            Exit::Success
        }
    };
    match output {
        Err(problem) => {
            // Often the reader that did not take the lines is the one of standard error too.
            let _ = context.say_within(&problem, LAST_LINES);
            Ok(result.worse(Exit::Output))
        }
        Ok(()) => Ok(result),
    }
}

/// Restores the terminal of a view when a command returns, also with a failure.
pub(super) struct RestoredAtEnd;

impl Drop for RestoredAtEnd {
    fn drop(&mut self) {
        sys::restore_terminal();
    }
}

/// How serving went.
struct Served {
    end: End,
    unaccepted: Vec<String>,
    /// How many sockets were opened in all.
    opened: usize,
    /// How many were waited for in vain.
    failed: usize,
}

/// Serves the sockets that are open, and opens those that are waited for. `confine` gives up what only those needed.
fn serve(
    args: &Args,
    (mut acceptor, mut opened): (Acceptor, usize),
    mut reconciler: Reconciler,
    (signals, confine): (&Signals, &dyn Fn(&Reconciler)),
    reporter: &mut Reporter<'_>,
) -> Result<Served, Failure> {
    let mut others: Vec<_> = (1..args.threads).map(|_| reporter.clone_for_thread()).collect();
    // The time runs from the first open socket on.
    let ends_at = || args.time.and_then(|time| Instant::now().checked_add(time));
    let mut deadline = if opened > 0 { ends_at() } else { None };
    if !reconciler.is_done() {
        acceptor.stop_on_change(true);
        // What changed between the first look and now was not heard of.
        opened += reconciler.fit(&mut acceptor, reporter).map_err(cannot_wait)?;
    }
    let mut waited = !reconciler.is_done();
    let end = loop {
        if opened > 0 && deadline.is_none() {
            deadline = ends_at();
        }
        if waited && !reconciler.waits() {
            waited = false;
            confine(&reconciler);
            acceptor.stop_on_change(!reconciler.is_done());
        }
        // What is waited for is not cut off a moment before it comes.
        let ends =
            deadline.map(|deadline| if reconciler.waits() { deadline + LAST_CHANCE } else { deadline });
        let until = [ends, reconciler.next_try()].into_iter().flatten().min();
        let end = acceptor.run(reporter, &mut others, signals, until);
        let is_over = ends.is_some_and(|ends| ends <= Instant::now());
        match end {
            Ok(End::Changed) => {}
            Ok(End::Deadline) if !is_over => {}
            end => break end,
        }
        match reconciler.fit(&mut acceptor, reporter) {
            Ok(more) => opened += more,
            Err(error) => break Err(error),
        }
    };
    for other in others {
        reporter.merge(other);
    }
    let end = end.map_err(cannot_wait)?;
    acceptor.close(reporter, !matches!(end, End::Count | End::Observer)).map_err(cannot_wait)?;
    Ok(Served { end, unaccepted: acceptor.unaccepted().to_vec(), opened, failed: reconciler.failed() })
}

fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// This host, with the groups that its interfaces have joined.
fn look() -> Result<Snapshot, sys::Error> {
    Ok(Snapshot { groups: sys::groups(), ..sys::snapshot()? })
}

fn cannot_wait(error: std::io::Error) -> Failure {
    environment(format!("cannot wait for connections: {error}"))
}

fn environment(message: String) -> Failure {
    Failure::new(Exit::Environment, Diagnostic::error(Code::BIND_FAILED, message))
}
