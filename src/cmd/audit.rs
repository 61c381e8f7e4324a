//! `bindscope audit`.

use std::path::PathBuf;
use std::time::SystemTime;

use super::{Context, Exit, Failure};
use crate::audit::baseline::Baseline;
use crate::audit::{self, Namespace, Report, Site};
use crate::code::Code;
use crate::diag::{Problem, Severity};
use crate::model::ListeningSocket;
use crate::record::time::Time;
use crate::render;
use crate::sys::{self, InventoryOptions};

mod watch;

/// Arguments of `bindscope audit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to write the report
    #[arg(long, value_enum, default_value_t = Format::Human, value_name = "FORMAT")]
    format: Format,
    /// Write the report to this file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Look into every network namespace that can be found
    #[arg(long)]
    all_namespaces: bool,
    /// Read SO_REUSEADDR and SO_REUSEPORT from the sockets themselves (needs the right to trace their processes)
    #[arg(long)]
    socket_options: bool,
    /// Count only what this earlier JSON report has not
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    baseline: Option<PathBuf>,
    /// After the first report write changes only, looking anew every so many seconds and whenever the network changes
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", require_equals = true,
          value_parser = clap::value_parser!(u32).range(1..=86_400), conflicts_with = "output")]
    watch: Option<u32>,
    /// End --watch after so many seconds
    #[arg(long = "for", value_name = "SECONDS", requires = "watch", value_parser = clap::value_parser!(u32).range(1..))]
    duration: Option<u32>,
    /// Read /proc/net instead of asking sock_diag, as where it is refused
    #[arg(long, hide = true)]
    proc_net: bool,
}

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For a person
    Human,
    /// One JSON document
    Json,
    /// With --watch: one JSON object a line
    Ndjson,
    /// One row for each socket
    Csv,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// JUnit XML, for CI
    Junit,
    /// Workflow commands of GitHub Actions
    Github,
    /// Markdown tables
    Markdown,
}

/// Runs it.
///
/// # Errors
/// Bad usage, a bad policy or baseline, output that cannot be written.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let line_by_line = args.format == Format::Ndjson;
    if line_by_line != args.watch.is_some() && (line_by_line || args.format != Format::Human) {
        let problem = Problem::error(
            Code::COMMAND_LINE,
            "--format ndjson and --watch go together; --watch also has --format human",
        );
        return Err(Failure::usage(vec![problem]));
    }
    let baseline = args.baseline.as_deref().map(read_baseline).transpose()?;
    if args.watch.is_some() {
        return watch::run(args, context);
    }
    let gathered = gather(args);
    let mut report = audit::report(gathered.sites, gathered.because, now());
    if let Some(baseline) = &baseline {
        baseline.apply(&mut report);
    }
    context.emit(&write(&report, args, context)?, args.output.as_deref())?;
    Ok(verdict(&report, gathered.all_sockets))
}

fn now() -> String {
    Time::new(SystemTime::now()).to_string()
}

/// How a report ends the program.
fn verdict(report: &Report, all_sockets: bool) -> Exit {
    if report
        .findings
        .iter()
        .any(|finding| finding.counts() && !finding.undecided && finding.severity == Severity::Error)
    {
        Exit::Finding
    } else if !all_sockets {
        Exit::Undecided
    } else {
        Exit::Success
    }
}

/// What the system told.
struct Gathered {
    sites: Vec<Site>,
    because: Vec<String>,
    all_sockets: bool,
}

/// Looks at this network namespace, or at all of them.
fn gather(args: &Args) -> Gathered {
    let options = InventoryOptions { owners: false, socket_options: false, proc_net_only: args.proc_net };
    let mut gathered = Gathered { sites: Vec::new(), because: Vec::new(), all_sockets: true };
    if args.all_namespaces {
        let (namespaces, because) = sys::namespaces();
        gathered.all_sockets = because.is_empty();
        gathered.because = because;
        for namespace in &namespaces {
            let found = sys::in_namespace(namespace, || look(&options));
            let name = Namespace {
                inode: Some(namespace.inode),
                name: namespace.name.clone(),
                own: namespace.own,
                complete: true,
            };
            match found {
                Ok(look) => gathered.add(name, look),
                Err(error) => {
                    gathered.because.push(error.to_string());
                    let outside = sys::inventory_from_outside(namespace);
                    let seen = outside.as_ref().is_some_and(|inventory| inventory.all_sockets);
                    gathered.all_sockets &= seen;
                    let sockets = outside.map(|inventory| inventory.sockets).unwrap_or_default();
                    let namespace = Namespace { complete: false, ..name };
                    gathered.sites.push(Site { namespace, sockets, ..Site::default() });
                }
            }
        }
    } else {
        let look = look(&options);
        let inode = look.host.host.netns.or_else(|| look.sockets.first().and_then(|socket| socket.netns));
        gathered.add(Namespace { inode, name: None, own: true, complete: true }, look);
    }
    let mut all: Vec<ListeningSocket> =
        gathered.sites.iter_mut().flat_map(|site| site.sockets.drain(..)).collect();
    let counts: Vec<Option<u64>> = gathered.sites.iter().map(|site| site.namespace.inode).collect();
    gathered.because.extend(sys::attach_owners(&mut all, args.socket_options));
    for socket in all {
        let place = counts.iter().position(|inode| *inode == socket.netns).unwrap_or(0);
        if let Some(site) = gathered.sites.get_mut(place) {
            site.sockets.push(socket);
        }
    }
    gathered
}

/// One namespace.
struct Look {
    host: crate::model::Snapshot,
    sockets: Vec<ListeningSocket>,
    because: Vec<String>,
    all_sockets: bool,
}

fn look(options: &InventoryOptions) -> Look {
    let inventory = sys::inventory(options);
    let mut because = inventory.incomplete_because;
    let host = sys::snapshot().unwrap_or_else(|error| {
        because.push(error.to_string());
        crate::model::Snapshot::default()
    });
    Look { host, sockets: inventory.sockets, because, all_sockets: inventory.all_sockets }
}

impl Gathered {
    fn add(&mut self, namespace: Namespace, look: Look) {
        let namespace = Namespace { complete: look.all_sockets && look.because.is_empty(), ..namespace };
        self.all_sockets &= look.all_sockets;
        self.because.extend(look.because);
        self.sites.push(Site { namespace, host: look.host, sockets: look.sockets });
    }
}

fn write(report: &Report, args: &Args, context: &Context) -> Result<Vec<u8>, Failure> {
    let written = match args.format {
        Format::Human | Format::Ndjson => Ok(render::audit::human(report, style(args, context)).into_bytes()),
        Format::Json => render::audit::json(report),
        Format::Csv => Ok(render::audit::csv(report).into_bytes()),
        Format::Sarif => render::audit::sarif(report),
        Format::Junit => Ok(render::audit::junit(report).into_bytes()),
        Format::Github => Ok(render::audit::github(report).into_bytes()),
        Format::Markdown => Ok(render::audit::markdown(report).into_bytes()),
    };
    written.map_err(|error| Failure::new(Exit::Internal, Problem::error(Code::INTERNAL, error.to_string())))
}

fn style(args: &Args, context: &Context) -> render::audit::Style {
    // Files and pipes get a hundred columns: what reads them has no terminal.
    let width = if context.terminal && args.output.is_none() { context.width.max(60) } else { 100 };
    render::audit::Style {
        color: context.color && args.output.is_none(),
        width,
        verbose: context.verbose > 0,
    }
}

fn read_baseline(path: &std::path::Path) -> Result<Baseline, Failure> {
    let problem = |message: String| {
        Failure::usage(vec![
            Problem::error(Code::BASELINE, message)
                .help("make one with `bindscope audit --format json -o FILE`"),
        ])
    };
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| problem(format!("cannot read the baseline {name}: {error}")))?;
    Baseline::parse(&text)
        .map_err(|because| problem(format!("the baseline {name} cannot be used: {because}")))
}
