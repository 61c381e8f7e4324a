//! `bindscope audit`.

use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::format_args::{FormatArgs, Formats};
use super::input::{self, Kind};
use super::{Context, Exit, Failure, profile_args};
use crate::audit::baseline::Baseline;
use crate::audit::judge::Judge;
use crate::audit::select::Selection;
use crate::audit::{self, Namespace, Report, Site, Verdict, draft};
use crate::code::Code;
use crate::diag::{Diagnostic, Severity};
use crate::library::{Seen, look};
use crate::model::{Exposure, Family, Protocol, Schema, Snapshot};
use crate::profile::policy::{self, Policy};
use crate::profile::{duration, ports};
use crate::render;
use crate::report::document;
use crate::sys::{self, InventoryOptions};

mod rehearse;
#[cfg(feature = "tui")]
mod view;
mod view_handle;
mod watch;

/// A shorter interval or time of watching makes no sense: a look takes some of it.
const SHORTEST: Duration = Duration::from_millis(100);

/// Arguments of `bindscope audit`.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:",
    "\n  bindscope audit                                   every socket, its exposure and its process",
    "\n  bindscope audit --port 80,443 --exposure private  a selection",
    "\n  bindscope audit --write-policy policy.toml        a policy from the current state",
    "\n  bindscope audit --policy policy.toml -f github    a check in CI",
))]
pub struct Args {
    /// Judge by this policy; - reads standard input
    #[arg(long, value_name = "FILE", help_heading = "Checks")]
    policy: Option<OsString>,
    #[command(flatten)]
    format: FormatArgs<Format>,
    /// Write the report to this file
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
    #[command(flatten)]
    selection: SelectionArgs,
    /// Fail on a finding of this severity or worse
    ///
    /// The default is the policy's fail_on, else error.
    #[arg(long, value_enum, value_name = "SEVERITY", help_heading = "Checks")]
    fail_on: Option<FailOn>,
    /// List raw, packet, vsock, SCTP, DCCP and UDP-Lite sockets and programs attached to cgroups, which are only counted otherwise
    #[arg(long, help_heading = "Output", hide_short_help = true)]
    all_protocols: bool,
    /// Look into every network namespace that can be found
    #[arg(long, hide_short_help = true)]
    all_namespaces: bool,
    /// Read SO_REUSEADDR and SO_REUSEPORT from the sockets themselves (needs permission to trace their processes)
    #[arg(long, hide_short_help = true)]
    socket_options: bool,
    /// Write a policy that allows what is there now, and judge nothing
    ///
    /// The file - is standard output.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["policy", "watch", "baseline", "output", "format", "json"], hide_short_help = true)]
    write_policy: Option<PathBuf>,
    /// Do not look for the processes that hold the sockets: many times faster with thousands of processes or sockets
    #[arg(long, conflicts_with_all = ["policy", "socket_options", "write_policy"], hide_short_help = true)]
    no_owners: bool,
    /// Show and count only what this earlier JSON report has not
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "watch",
        help_heading = "Checks",
        hide_short_help = true
    )]
    baseline: Option<PathBuf>,
    /// After the first report write changes only
    ///
    /// Reads the sockets again after each interval and whenever the network changes.
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "2s", require_equals = true,
          value_parser = time, conflicts_with = "output")]
    watch: Option<Duration>,
    /// With --watch: a live view; q ends it
    #[arg(long, requires = "watch", conflicts_with_all = ["format", "json"])]
    tui: bool,
    /// End --watch after this time, such as 30s or 5m
    #[arg(long = "for", value_name = "TIME", requires = "watch", value_parser = time, help_heading = "Selection")]
    duration: Option<Duration>,
    /// Bind sockets like those that are found in a copy of this host's network, connect to them from the copy itself, every
    /// wire and beyond the default route, and find where that differs (see `explain twin`)
    #[arg(long, conflicts_with_all = ["watch", "write_policy"], hide_short_help = true)]
    rehearse: bool,
    /// Take the network and the packet filters of this host from FILE, written there by `sudo bindscope interfaces --json`: only
    /// a privileged user can read the rules
    #[arg(long, value_name = "FILE", conflicts_with_all = ["all_namespaces", "watch"], hide_short_help = true)]
    host: Option<PathBuf>,
    /// What if the packet filters were those of FILE: rules for `nft -f`, or the output of iptables-save or ip6tables-save
    #[arg(long, value_name = "FILE", conflicts_with_all = ["all_namespaces", "watch", "rehearse"], hide_short_help = true)]
    ruleset: Option<PathBuf>,
    /// Read /proc/net instead of asking sock_diag, as where it is refused
    #[arg(long, hide = true)]
    proc_net: bool,
}

/// Which sockets are shown and counted.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Selection")]
struct SelectionArgs {
    /// Only these ports, such as 22,80,8000-8010
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = ports::parse)]
    port: Vec<RangeInclusive<u16>>,
    /// Only this protocol
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    protocol: Option<ProtocolName>,
    /// Only sockets that serve IPv4
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Only sockets that serve IPv6
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Only sockets of this process: name, file, unit, or a pattern
    ///
    /// The file is the one that the process runs; the unit is that of systemd.
    #[arg(long, value_name = "NAME")]
    process: Vec<String>,
    /// Only this exposure or wider
    #[arg(long, value_enum, value_name = "CLASS")]
    exposure: Option<ExposureName>,
}

impl SelectionArgs {
    fn get(&self) -> Selection {
        Selection {
            ports: self.port.clone(),
            protocol: self.protocol.map(|protocol| match protocol {
                ProtocolName::Tcp => Protocol::Tcp,
                ProtocolName::Udp => Protocol::Udp,
            }),
            family: match (self.ipv4, self.ipv6) {
                (true, _) => Some(Family::Ipv4),
                (_, true) => Some(Family::Ipv6),
                _ => None,
            },
            process: self.process.clone(),
            exposure: self.exposure.map(|exposure| match exposure {
                ExposureName::None => Exposure::None,
                ExposureName::Loopback => Exposure::Loopback,
                ExposureName::Link => Exposure::Link,
                ExposureName::Private => Exposure::Private,
                ExposureName::Global => Exposure::Global,
            }),
        }
    }
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ProtocolName {
    Tcp,
    Udp,
}

/// Classes of exposure from narrow to wide, with the words of the table as other names.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ExposureName {
    /// Not reachable
    #[value(alias = "not reachable")]
    None,
    /// This host only
    #[value(aliases = ["host", "this host only"])]
    Loopback,
    /// Same link
    #[value(alias = "same link")]
    Link,
    /// Private networks
    #[value(aliases = ["lan", "private networks"])]
    Private,
    /// Anywhere
    #[value(alias = "anywhere")]
    Global,
}

/// Severities, the mildest first.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum FailOn {
    Note,
    Warning,
    Error,
}

impl Args {
    /// The mildest finding that makes the audit fail.
    fn fail_on(&self, policy: Option<&Read>) -> Severity {
        match self.fail_on {
            Some(FailOn::Note) => Severity::Note,
            Some(FailOn::Warning) => Severity::Warning,
            Some(FailOn::Error) => Severity::Error,
            None => policy.map_or(Severity::Error, |read| read.policy.fail_on),
        }
    }
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
    /// A page with who can reach what, and the findings: one file, without scripts
    Html,
}

impl Formats for Format {
    const DEFAULT: Format = Format::Human;
    const JSON: Format = Format::Json;
}

/// A duration as everywhere; a number alone counts seconds.
fn time(text: &str) -> Result<Duration, String> {
    let seconds = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| format!("{text}s"));
    let time = duration::argument(seconds.as_deref().unwrap_or(text))?;
    if time < SHORTEST {
        return Err(format!("{} ms is the shortest", SHORTEST.as_millis()));
    }
    Ok(time)
}

/// Runs it.
///
/// # Errors
/// Bad usage, a bad policy or baseline, output that cannot be written.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let format = args.format.get();
    let line_by_line = format == Format::Ndjson;
    if line_by_line != args.watch.is_some() && (line_by_line || format != Format::Human) {
        let (message, help) = match (line_by_line, args.rehearse) {
            (true, true) => (
                "--format ndjson tells changes as they come, and --rehearse tries one report",
                "write the report with --format json",
            ),
            (true, false) => (
                "--format ndjson tells changes as they come, and there is one report",
                "add --watch for the changes, or write the report with --format json",
            ),
            (false, _) => (
                "--watch tells changes as they come, which this format has no place for",
                "leave --format out, or write --format ndjson",
            ),
        };
        return Err(Failure::usage(vec![Diagnostic::error(Code::COMMAND_LINE, message).help(help)]));
    }
    let baseline = args.baseline.as_deref().map(read_baseline).transpose()?;
    let policy = args.policy.as_deref().map(read_policy).transpose()?;
    if args.watch.is_some() {
        return watch::run(args, policy.as_ref(), context);
    }
    let mut host = args.host.as_deref().map(host_of).transpose()?;
    if let Some(path) = &args.ruleset {
        let mut here = match host {
            Some(host) => host,
            None => super::target_host::here()?.snapshot,
        };
        super::target_host::replace_rules(&mut here, path)?;
        host = Some(here);
    }
    let mut look =
        super::progress::waiting("reading sockets", context, || Look::new(args, policy.as_ref(), host));
    if let Some(path) = &args.write_policy {
        return write_policy(&look, path, context);
    }
    if let (true, Some(host)) = (args.rehearse, look.hosts.first()) {
        rehearse::add(&mut look.report, host)?;
    }
    if let (Some(baseline), Some(path)) = (&baseline, &args.baseline) {
        baseline.apply(&path.to_string_lossy(), &mut look.report);
    }
    write(&look.report, args, context)?;
    let exit = look.exit(args.fail_on(policy.as_ref()));
    // The program ends here, and the kernel takes back all memory at once.
    std::mem::forget(look);
    Ok(exit)
}

/// The network of this host, from a file.
fn host_of(path: &Path) -> Result<Snapshot, Failure> {
    let snapshot = super::target_host::elsewhere(path)?.snapshot;
    let here = sys::snapshot().map(|here| here.host).unwrap_or_default();
    if here.name.is_some() && snapshot.host.name != here.name {
        let name = |host: &crate::model::Host| {
            host.name.as_deref().map_or_else(|| "unknown".to_owned(), crate::escape::escape)
        };
        let message = format!(
            "{} is of the host {}, and the sockets of an audit are those of this one, {}",
            input::origin(path.as_os_str()),
            name(&snapshot.host),
            name(&here)
        );
        let problem = Diagnostic::error(Code::BAD_SNAPSHOT, message);
        return Err(Failure::usage(vec![
            problem.help("write the file on this host: sudo bindscope interfaces --json > host.json"),
        ]));
    }
    Ok(snapshot)
}

/// A policy with its text.
struct Read {
    policy: Policy,
    text: Arc<str>,
}

fn read_policy(name: &OsStr) -> Result<Read, Failure> {
    let file = profile_args::read(name).map_err(|problem| Failure::usage(vec![problem]))?;
    let policy = policy::parse(&file.origin, &file.text).map_err(Failure::usage)?;
    Ok(Read { policy, text: file.text.as_str().into() })
}

/// One look at the host, judged.
struct Look {
    report: Report,
    hosts: Vec<Snapshot>,
}

impl Look {
    fn new(args: &Args, policy: Option<&Read>, host: Option<Snapshot>) -> Look {
        let mut gathered =
            gather(args, args.all_namespaces || policy.is_some_and(|read| read.policy.all_namespaces));
        if let (Some(host), Some(site)) = (host, gathered.sites.first_mut()) {
            let groups = site.host.groups.take();
            site.host = Snapshot { groups, ..host };
        }
        let leave_out = policy.is_some_and(|read| read.policy.ignore_ephemeral_udp);
        let mut look = Look {
            report: audit::report(&mut gathered.sites, gathered.because, super::now().to_string(), leave_out),
            hosts: gathered.sites.into_iter().map(|site| site.host).collect(),
        };
        look.report.body.all_sockets = gathered.all_sockets;
        if let Some(Read { policy, text }) = policy {
            Judge {
                policy,
                text: Arc::clone(text),
                today: today(),
                hosts: look.hosts.iter().collect(),
                all_sockets: look.report.all_sockets,
            }
            .judge(&mut look.report);
        }
        args.selection.get().apply(&mut look.report);
        look
    }

    fn exit(&self, fail_on: Severity) -> Exit {
        let report = &self.report;
        let fails = report
            .findings
            .iter()
            .any(|finding| finding.counts() && !finding.undecided && finding.severity <= fail_on);
        let undecided = report.checks.iter().any(|check| check.verdict == Verdict::Undecided)
            || report.findings.iter().any(|finding| finding.counts() && finding.undecided);
        // Who can reach a socket is the question, whether or not there is a policy; who holds it is one only for a policy.
        let reach_unknown = report.summary.by_exposure.unknown > 0
            || self.hosts.iter().any(|host| !host.complete && !host.interfaces.is_empty());
        if fails {
            Exit::Finding
        } else if undecided || reach_unknown || !report.all_sockets {
            Exit::Undecided
        } else {
            Exit::Success
        }
    }
}

/// The day in UTC.
fn today() -> jiff::civil::Date {
    jiff::Timestamp::try_from(SystemTime::now())
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date()
}

fn write_policy(look: &Look, path: &Path, context: &Context) -> Result<Exit, Failure> {
    let name = look.report.host.id.as_deref().unwrap_or("host");
    let text = draft::policy(&look.report, name, &today().to_string());
    if text.len() as u64 > profile_args::LONGEST {
        let message = format!(
            "the policy is not written: it has {} KiB, and `--policy` reads at most 1 MiB",
            text.len() >> 10
        );
        let problem = Diagnostic::error(Code::OUTPUT_FAILED, message);
        let help = "write a rule for each program or range of ports by hand: bindscope explain policy";
        return Err(Failure::new(Exit::Output, problem.help(help)));
    }
    if path.as_os_str() == "-" {
        context.emit(text.as_bytes(), None)?;
    } else {
        context.create(text.as_bytes(), path, sys::Readers::Owner).map_err(|failure| {
            failure.unwrap_or_else(|| {
                let message = format!("cannot write the policy {}: it exists", path.display());
                let problem = Diagnostic::error(Code::OUTPUT_FAILED, message);
                let help = "choose another name: what exists is not written over";
                Failure::new(Exit::Output, problem.help(help))
            })
        })?;
    }
    for because in &look.report.incomplete_because {
        context.say(&Diagnostic::warning(
            Code::POLICY_UNDECIDED,
            format!("the policy may lack something: {because}"),
        ));
    }
    Ok(if look.report.all_sockets { Exit::Success } else { Exit::Undecided })
}

/// What the system reported.
struct Gathered {
    sites: Vec<Site>,
    because: Vec<String>,
    all_sockets: bool,
}

/// Looks at this network namespace, or at all of them.
fn gather(args: &Args, all_namespaces: bool) -> Gathered {
    let options = InventoryOptions { owners: false, socket_options: false, proc_net_only: args.proc_net };
    let mut gathered = Gathered { sites: Vec::new(), because: Vec::new(), all_sockets: true };
    if all_namespaces {
        let (namespaces, because) = sys::namespaces();
        gathered.all_sockets = because.is_empty();
        gathered.because = because;
        for namespace in &namespaces {
            let found = sys::in_namespace(namespace, || look(&options));
            let name = Namespace {
                inode: Some(namespace.inode),
                name: namespace.name.clone(),
                current: namespace.current,
                complete: true,
                exposure_known: true,
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
        gathered
            .add(Namespace { inode, name: None, current: true, complete: true, exposure_known: true }, look);
    }
    if args.no_owners {
        gathered.because.push("owners were not looked for (--no-owners)".to_owned());
    } else {
        let all = gathered.sites.iter_mut().flat_map(|site| &mut site.sockets);
        gathered.because.extend(sys::attach_owners(all, args.socket_options || args.rehearse));
    }
    gathered
}

impl Gathered {
    fn add(&mut self, namespace: Namespace, look: Seen) {
        let namespace = Namespace { complete: look.all_sockets && look.because.is_empty(), ..namespace };
        self.all_sockets &= look.all_sockets;
        self.because.extend(look.because);
        self.sites.push(Site {
            namespace,
            host: look.host,
            sockets: look.sockets,
            client_ports: look.client_ports,
            not_examined: look.not_examined,
            lifetimes: look.lifetimes,
        });
    }
}

fn write(report: &Report, args: &Args, context: &Context) -> Result<(), Failure> {
    let output = args.output.as_deref();
    let whole = |text: String| context.emit(text.as_bytes(), output);
    match args.format.get() {
        Format::Human | Format::Ndjson => {
            context.show(&render::audit::human(report, style(args, context)), output)
        }
        Format::Json => context.emit_with(output, |out| render::audit::json(report, out)),
        Format::Csv => context.emit_with(output, |out| render::audit::csv(report, out)),
        Format::Sarif => {
            let log = render::audit::sarif(report).map_err(|error| {
                Failure::new(Exit::Internal, Diagnostic::error(Code::INTERNAL, error.to_string()))
            })?;
            context.emit(&log, output)
        }
        Format::Junit => whole(render::audit::junit(report)),
        Format::Github => whole(render::audit::github(report)),
        Format::Markdown => whole(render::audit::markdown(report)),
        Format::Html => whole(render::html::page(&[render::html::Part::Audit(&report.into())])),
    }
}

fn style(args: &Args, context: &Context) -> render::audit::Style {
    // Files and pipes get a hundred columns: what reads them has no terminal.
    let width = context.columns().filter(|_| args.output.is_none()).map_or(100, |columns| columns.max(60));
    render::audit::Style {
        color: context.color && args.output.is_none(),
        width,
        verbose: context.verbose > 0,
        all_protocols: args.all_protocols,
    }
}

fn read_baseline(path: &Path) -> Result<Baseline, Failure> {
    const HELP: &str = "make one with `bindscope audit --format json -o FILE`";
    const BASELINE: Kind = Kind { code: Code::BASELINE, missing: Code::BASELINE, help: HELP };
    let bytes = input::read(path.as_os_str(), document::LARGEST_REPORT, &BASELINE)?;
    let earlier = document::read(&[Schema::Audit], &bytes).map_err(|error| {
        let name = input::origin(path.as_os_str());
        let problem =
            Diagnostic::error(Code::BASELINE, format!("the baseline {name} cannot be used: {error}"));
        Failure::usage(vec![problem.help(HELP)])
    })?;
    Ok(Baseline::new(earlier.body.body))
}
