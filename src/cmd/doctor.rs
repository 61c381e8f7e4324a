//! `bindscope doctor`.

use super::format_args::{FormatArgs, Formats};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::Serialize;

use super::{Context, Exit, Failure, interfaces};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::escape::printable;
use crate::model;
use crate::model::confinement::{Confinement, Needs};
use crate::model::kernel_release::KnownDifference;
use crate::model::{Document, IfName, Schema, Snapshot};
use crate::plan::bind_check::Rights;
use crate::probe::kernel_check::{self, Place};
use crate::record::time::Time;
use crate::sys::{self, Visibility, netns};

mod not_examined;

/// Arguments of `bindscope doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:",
    "\n  bindscope doctor           what this user can see",
    "\n  bindscope doctor --kernel  compare the model of binds with this kernel",
    "\n  bindscope doctor --json    for programs",
))]
pub struct Args {
    /// Bind the sockets of two known tables, in a namespace if possible, and compare with the predictions of `plan`
    #[arg(long)]
    kernel: bool,
    #[command(flatten)]
    format: FormatArgs<Format>,
    /// Write the report to this file
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
}

/// Format of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text for people
    Human,
    /// One JSON document
    Json,
}

impl Formats for Format {
    const DEFAULT: Format = Format::Human;
    const JSON: Format = Format::Json;
}

/// State of a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Yes,
    Partly,
    No,
}

/// One line of the report. Unescaped.
#[derive(Debug, Clone, Serialize)]
struct Line {
    name: &'static str,
    state: State,
    detail: String,
    /// The setting that would change it.
    remedy: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    time: String,
    host: model::Host,
    uid: u32,
    capabilities: Vec<&'static str>,
    lines: Vec<Line>,
    kernel: Option<Kernel>,
}

/// Results of the binds.
#[derive(Debug, Serialize)]
struct Kernel {
    /// `namespace` or `loopback`.
    location: &'static str,
    sequences: usize,
    agree: usize,
    /// Sequences of wildcards, which are not bound together with other programs' sockets.
    skipped: usize,
    /// Known differences of kernels of this release.
    known: Vec<String>,
    differences: Vec<String>,
}

impl Kernel {
    fn new(location: &'static str, replay: kernel_check::Replay, host: &model::Host) -> Kernel {
        let kernel_check::Replay { sequences, agree, skipped, differences } = replay;
        let known = KnownDifference::ALL.into_iter().filter_map(|difference| {
            let sentence = difference.sentence();
            match difference.applies_to(host) {
                Some(true) => Some(sentence.to_owned()),
                Some(false) => None,
                None => Some(format!("{sentence}; not certain, because the release does not determine it")),
            }
        });
        Kernel { location, sequences, agree, skipped, known: known.collect(), differences }
    }
}

/// Entry point of `bindscope doctor`.
///
/// # Errors
/// Exit code 4 if `--kernel` cannot bind anything; output that cannot be written.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let sight = sys::visibility();
    let snapshot = sys::snapshot();
    let mut lines = sockets(&sight);
    lines.extend(interfaces(&sight, snapshot.as_ref()));
    lines.extend(snapshot.as_ref().ok().map(|snapshot| agreement(&interfaces::second_opinion(snapshot))));
    lines.extend(addresses(&sight, snapshot.as_ref().ok(), sys::rights().privileged_ports));
    let bound = sys::inventory(&sys::InventoryOptions::default()).sockets;
    lines.extend(not_examined::lines(&sys::not_examined(&bound), &sys::packet_filters()));
    lines.push(privileges(&would_be_confined()));
    let host = snapshot.map(|snapshot| snapshot.host).unwrap_or_default();
    // Last, because it changes the process.
    let lab = netns::prepare().and_then(|()| netns::Namespace::new());
    lines.push(match &lab {
        Ok(_) => line("lab", State::Yes, "network namespaces of our own can be made", None),
        Err(refusal) => line("lab", State::No, &refusal.to_string(), Some(refusal.remedy.clone())),
    });
    let kernel = match (args.kernel, lab) {
        (false, _) => None,
        // The rules are those of Linux, where sockets of other programs are visible.
        (true, Err(refusal)) if sight.sock_diag.is_empty() => {
            let problem = Diagnostic::error(Code::CANNOT_SEE, format!("no namespace to bind in: {refusal}"));
            return Err(Failure::new(Exit::Environment, problem.help(refusal.remedy)));
        }
        (true, lab) => Some(replay(lab.as_ref().ok(), sight.uid).map_err(|because| {
            Failure::new(
                Exit::Environment,
                Diagnostic::error(Code::KERNEL_DIFFERS, format!("the binds cannot be tried: {because}")),
            )
        })?),
    };
    let report = Report {
        time: Time::new(SystemTime::now()).to_string(),
        host,
        uid: sight.uid,
        capabilities: sight.capabilities,
        lines,
        kernel,
    };
    let bytes = match args.format.get() {
        Format::Human => human(&report).into_bytes(),
        Format::Json => {
            let mut bytes =
                serde_json::to_vec_pretty(&Document::new(Schema::Doctor, &report)).map_err(|error| {
                    Failure::new(Exit::Internal, Diagnostic::error(Code::INTERNAL, error.to_string()))
                })?;
            bytes.push(b'\n');
            bytes
        }
    };
    context.emit(&bytes, args.output.as_deref())?;
    let differs = report.kernel.as_ref().is_some_and(|kernel| !kernel.differences.is_empty());
    Ok(if differs { Exit::Finding } else { Exit::Success })
}

fn line(name: &'static str, state: State, detail: &str, remedy: Option<String>) -> Line {
    Line { name, state, detail: detail.to_owned(), remedy }
}

/// Visibility of other programs' sockets.
fn sockets(sight: &Visibility) -> Vec<Line> {
    let mut lines = Vec::new();
    let mptcp = sight.settings.get("net.mptcp.enabled").is_some_and(|on| *on != 0);
    let refused: Vec<String> = sight
        .sock_diag
        .iter()
        .filter(|(name, _)| *name != "MPTCP" || mptcp)
        .filter_map(|(name, error)| error.as_ref().map(|error| format!("{name}: {error}")))
        .collect();
    lines.push(if sight.sock_diag.is_empty() {
        line("sockets", State::No, "the sockets of other programs are not read on this system", None)
    } else if refused.is_empty() {
        line("sockets", State::Yes, "sock_diag reports every socket of this network namespace", None)
    } else {
        let remedy = "allow AF_NETLINK sockets (seccomp filter, RestrictAddressFamilies=), or load the modules tcp_diag, udp_diag and mptcp_diag";
        line(
            "sockets",
            State::Partly,
            &format!("sock_diag is refused ({}); /proc/net is read instead", refused.join("; ")),
            Some(remedy.to_owned()),
        )
    });
    let rights = ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"];
    let as_root = if rights.iter().all(|right| sight.capabilities.contains(right)) {
        "see what protects the others: a user namespace above this one, or a security module (dmesg, ausearch)"
    } else {
        "run as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
    };
    let readable = sight.processes - sight.processes_unreadable.min(sight.processes);
    let detail = format!("{readable} of {} processes can be read", sight.processes);
    lines.push(match (sight.processes_unreadable, sight.processes_hidden_because) {
        _ if sight.sock_diag.is_empty() => line("owners", State::No, "no processes are visible", None),
        _ if sight.processes == 0 => line("owners", State::No, "/proc shows no processes", no_proc()),
        (0, None) => {
            line("owners", State::Yes, &format!("all {} processes can be read", sight.processes), None)
        }
        (_, Some(hidden)) => line(
            "owners",
            State::Partly,
            &format!("{detail}; {hidden}"),
            Some(format!("{as_root}, in the host's pid namespace and with a /proc that hides nothing")),
        ),
        (_, None) => line(
            "owners",
            State::Partly,
            &format!("{detail}; the owners of the others' sockets are unknown"),
            Some(as_root.to_owned()),
        ),
    });
    let traces = sight.capabilities.contains(&"CAP_SYS_PTRACE");
    let yama = sight.settings.get("kernel.yama.ptrace_scope").copied().unwrap_or(0);
    lines.push(match &sight.borrow {
        _ if sight.sock_diag.is_empty() => {
            line("connections", State::No, "sockets cannot be borrowed on this system", None)
        }
        Some(_) if sight.processes == 0 => line(
            "connections",
            State::No,
            "sockets cannot be borrowed from processes that /proc does not show",
            no_proc(),
        ),
        Some(error) => line(
            "connections",
            State::No,
            &format!("sockets cannot be borrowed: pidfd_getfd: {error}"),
            Some("use Linux 5.6 or newer, without a seccomp filter against pidfd_getfd".to_owned()),
        ),
        // A capability has no effect on processes outside its user namespace.
        None if traces && sight.processes_unreadable > 0 => line(
            "connections",
            State::Partly,
            &format!("sockets of {readable} of {} processes can be queried", sight.processes),
            Some(as_root.to_owned()),
        ),
        None if traces => line("connections", State::Yes, "sockets of every process that can be traced can be queried for their options and ingress interface", None),
        None if yama > 0 => line(
            "connections",
            State::Partly,
            &format!("only this program's own descendants may be traced (kernel.yama.ptrace_scope={yama})"),
            Some("run as root, or with CAP_SYS_PTRACE".to_owned()),
        ),
        None => line("connections", State::Partly, "sockets of this user's processes can be queried", Some("run as root, or with CAP_SYS_PTRACE".to_owned())),
    });
    let (seen, closed) = (sight.namespaces, sight.namespaces_closed);
    if !sight.sock_diag.is_empty() {
        let others_hidden = sight.processes_unreadable > 0 || sight.processes_hidden_because.is_some();
        let detail = format!("{seen} network namespaces are visible");
        lines.push(match (seen, closed) {
            (0, _) => line("namespaces", State::No, "no network namespace is visible in /proc", no_proc()),
            _ if sight.processes == 0 => {
                let detail = format!("{detail}, by their names; those of processes are not");
                line("namespaces", State::Partly, &detail, no_proc())
            }
            (_, 0) if !others_hidden => {
                line("namespaces", State::Yes, &format!("{detail} and may be entered"), None)
            }
            (_, 0) => {
                let detail = format!("{detail} and can be entered; those of processes that cannot be read are not visible");
                line("namespaces", State::Partly, &detail, Some(as_root.to_owned()))
            }
            _ => {
                let detail = format!("{detail}; {closed} of them cannot be entered and are visible only from outside");
                let remedy = if sight.capabilities.contains(&"CAP_SYS_ADMIN") {
                    "run outside this user namespace: CAP_SYS_ADMIN counts in the one that owns the network namespace"
                } else {
                    "run as root, or with CAP_SYS_ADMIN"
                };
                line("namespaces", State::Partly, &detail, Some(remedy.to_owned()))
            }
        });
    }
    lines
}

fn no_proc() -> Option<String> {
    Some("mount /proc: `mount -t proc proc /proc`".to_owned())
}

/// Whether the interfaces are visible. Otherwise the reachability of sockets is unknown.
fn interfaces(sight: &Visibility, snapshot: Result<&Snapshot, &sys::Error>) -> Option<Line> {
    let remedy = || {
        let netlink = "allow AF_NETLINK sockets (seccomp filter, RestrictAddressFamilies=)";
        (!sight.sock_diag.is_empty()).then(|| netlink.to_owned())
    };
    match snapshot {
        Err(error) => {
            let detail = format!("{error}: who can reach a socket is unknown");
            Some(line("interfaces", State::No, &detail, remedy()))
        }
        Ok(snapshot) if !snapshot.complete => {
            let no_processes = sight.processes == 0 && !sight.sock_diag.is_empty();
            let remedy = if no_processes { no_proc() } else { remedy() };
            Some(line("interfaces", State::Partly, &snapshot.incomplete_because.join("; "), remedy))
        }
        Ok(snapshot) => {
            let detail =
                format!("{} are visible, with their addresses and routes", snapshot.interfaces.len());
            Some(line("interfaces", State::Yes, &detail, None))
        }
    }
}

/// Whether the C library and the kernel list the same addresses.
fn agreement(disagreements: &[String]) -> Line {
    match disagreements {
        [] => line(
            "addresses",
            State::Yes,
            "the kernel and the C library list the same interfaces and addresses",
            None,
        ),
        [first, rest @ ..] => line(
            "addresses",
            State::Partly,
            &format!(
                "{first}{}",
                if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) }
            ),
            Some(
                "bindscope goes by the kernel; `bindscope interfaces --cross-check` lists every difference"
                    .to_owned(),
            ),
        ),
    }
}

/// Facts that decide binds here. `low_ports` is the privilege to bind low ports.
fn addresses(sight: &Visibility, snapshot: Option<&Snapshot>, low_ports: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    let on = |name: &str| sight.settings.get(name).is_some_and(|value| *value != 0);
    let lo6 = snapshot.map(|snapshot| {
        snapshot.addresses().any(|(_, address)| address.address == IpAddr::V6(std::net::Ipv6Addr::LOCALHOST))
    });
    lines.push(match (&sight.ipv6_sockets, lo6) {
        (Some(error), _) => line(
            "ipv6",
            State::No,
            &format!("no IPv6 socket can be made: {error}; even `::` cannot be bound"),
            Some("start the kernel without ipv6.disable=1, or lift the filter (RestrictAddressFamilies=)".to_owned()),
        ),
        (None, _) if on("net.ipv6.conf.all.disable_ipv6") => line(
            "ipv6",
            State::Partly,
            "net.ipv6.conf.all.disable_ipv6 is 1: `::` can be bound and serves IPv4 alone, IPv6 addresses cannot",
            Some("sysctl net.ipv6.conf.all.disable_ipv6=0".to_owned()),
        ),
        (None, Some(false)) => line(
            "ipv6",
            State::Partly,
            "::1 is on no interface: programs that bind it fail, and localhost is IPv4 alone",
            Some("sysctl net.ipv6.conf.lo.disable_ipv6=0, and `ip link set lo up`".to_owned()),
        ),
        (None, None) => line("ipv6", State::Partly, "IPv6 sockets can be made; whether ::1 is there is unknown", None),
        (None, _) => line("ipv6", State::Yes, "IPv6 sockets can be made and ::1 is there", None),
    });
    if on("net.ipv6.bindv6only") {
        lines.push(line(
            "dual-stack",
            State::Partly,
            "net.ipv6.bindv6only is 1: `::` is IPv6 alone for programs that do not say otherwise",
            None,
        ));
    }
    if let Some(start) = sight.settings.get("net.ipv4.ip_unprivileged_port_start") {
        let may = *start == 0 || low_ports;
        let remedy = (!may).then(|| {
            "run with CAP_NET_BIND_SERVICE in the user namespace that owns this network namespace, or lower net.ipv4.ip_unprivileged_port_start".to_owned()
        });
        let detail = if may {
            "every port may be bound".to_owned()
        } else {
            format!("ports below {start} may not be bound")
        };
        lines.push(line("low ports", if may { State::Yes } else { State::Partly }, &detail, remedy));
    }
    if let Some(limit) = sight.descriptors {
        let state = if limit < 1024 { State::Partly } else { State::Yes };
        lines.push(line(
            "descriptors",
            state,
            &format!("{limit} may be open at once"),
            (limit < 1024).then(|| "raise it with ulimit -n".to_owned()),
        ));
    }
    lines
}

/// What `listen` would drop after binding: tested on a separate thread.
fn would_be_confined() -> Confinement {
    let tried = std::thread::Builder::new().spawn(|| sys::confine(&Needs::default()));
    tried.ok().and_then(|thread| thread.join().ok()).unwrap_or_else(|| Confinement {
        weaker_because: vec!["no thread could be started to try it".to_owned()],
        ..Confinement::default()
    })
}

/// The confinement that `listen` would reach.
fn privileges(confinement: &Confinement) -> Line {
    let mut held = Vec::new();
    if confinement.capabilities.as_ref().is_some_and(Vec::is_empty) {
        held.push("no capabilities".to_owned());
    }
    if confinement.no_new_privileges {
        held.push("no new privileges".to_owned());
    }
    if let Some(version) = confinement.landlock {
        held.push(format!("Landlock {version}"));
    }
    let state = match (confinement.weaker_because.is_empty(), held.is_empty()) {
        (true, _) => State::Yes,
        (false, false) => State::Partly,
        (false, true) => State::No,
    };
    let mut detail = if held.is_empty() {
        "listen drops no privileges after binding".to_owned()
    } else {
        format!("after binding, listen goes on with {}", held.join(", "))
    };
    for reason in &confinement.weaker_because {
        detail.push_str("; ");
        detail.push_str(reason);
    }
    let remedy = (state != State::Yes).then(|| "see `bindscope explain BS4007`".to_owned());
    line("privileges", state, &detail, remedy)
}

/// Replays the tables in `namespace`, or on loopback if there is none.
fn replay(namespace: Option<&netns::Namespace>, uid: u32) -> Result<Kernel, String> {
    let Some(namespace) = namespace else {
        let snapshot = sys::snapshot().map_err(|error| error.to_string())?;
        let rights = Rights { uid, privileged_ports: false, transparent: false };
        let replay =
            kernel_check::replay(Place::Loopback, &snapshot, rights).map_err(|error| error.to_string())?;
        return Ok(Kernel::new("loopback", replay, &snapshot.host));
    };
    let rights = Rights { uid: 0, privileged_ports: true, transparent: true };
    let in_there = || -> Result<Kernel, String> {
        sys::Network::here()
            .and_then(|mut network| network.set_up(&IfName::from("lo"), true))
            .map_err(|error| error.to_string())?;
        let snapshot = sys::snapshot().map_err(|error| error.to_string())?;
        let replay =
            kernel_check::replay(Place::Namespace, &snapshot, rights).map_err(|error| error.to_string())?;
        Ok(Kernel::new("namespace", replay, &snapshot.host))
    };
    namespace.run(in_there).map_err(|error| error.to_string())?
}

fn human(report: &Report) -> String {
    let mut out = String::new();
    let rights = if report.capabilities.is_empty() {
        "no capabilities".to_owned()
    } else {
        report.capabilities.join(", ")
    };
    out.push_str(&format!("uid {}, {rights}\n\n", report.uid));
    for line in &report.lines {
        let state = match line.state {
            State::Yes => "yes",
            State::Partly => "partly",
            State::No => "NO",
        };
        out.push_str(&format!("{:<12} {state:<7} {}\n", line.name, printable(&line.detail)));
        if let Some(remedy) = &line.remedy {
            out.push_str(&format!("{:<20} change it: {}\n", "", printable(remedy)));
        }
    }
    if let Some(kernel) = &report.kernel {
        out.push_str(&format!(
            "\n{} of {} bind sequences match the prediction\n",
            kernel.agree, kernel.sequences
        ));
        if kernel.skipped > 0 {
            out.push_str(&format!(
                "{} more bind wildcards, which is done in a namespace only, and none can be made here\n",
                kernel.skipped
            ));
        }
        for known in &kernel.known {
            out.push_str(&format!("known of this kernel: {known}\n"));
        }
        for difference in &kernel.differences {
            out.push_str(&format!("BS4071 {}\n", printable(difference)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeing() -> Visibility {
        Visibility {
            capabilities: vec!["CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_NET_BIND_SERVICE"],
            sock_diag: vec![("TCP", None), ("UDP", None)],
            processes: 9,
            namespaces: 2,
            ..Visibility::default()
        }
    }

    fn state(lines: &[Line], name: &str) -> State {
        lines.iter().find(|line| line.name == name).unwrap().state
    }

    #[test]
    fn each_thing_that_cannot_be_seen_names_its_switch() {
        assert!(sockets(&seeing()).iter().all(|line| line.state == State::Yes));
        let denied = || Some(std::io::Error::from_raw_os_error(1));
        let cases: [(&[&str], Visibility); 8] = [
            (&["sockets"], Visibility { sock_diag: vec![("TCP", denied()), ("UDP", None)], ..seeing() }),
            (&["owners", "connections", "namespaces"], Visibility { processes_unreadable: 4, ..seeing() }),
            (&["owners", "namespaces"], Visibility { processes_hidden_because: Some("hidepid"), ..seeing() }),
            (&["owners", "namespaces"], Visibility { processes: 0, ..seeing() }),
            (&["connections"], Visibility { borrow: denied(), ..seeing() }),
            (&["connections"], Visibility { capabilities: vec!["CAP_SYS_ADMIN"], ..seeing() }),
            (&["namespaces"], Visibility { namespaces_closed: 1, ..seeing() }),
            (&["namespaces"], Visibility { namespaces: 0, ..seeing() }),
        ];
        for (names, sight) in cases {
            let lines = sockets(&sight);
            let lacking: Vec<&Line> = lines.iter().filter(|line| line.state != State::Yes).collect();
            assert!(lacking.iter().all(|line| line.remedy.is_some()), "{lacking:?}");
            assert_eq!(lacking.iter().map(|line| line.name).collect::<Vec<_>>(), names);
        }
        let unknown =
            Visibility { sock_diag: vec![("TCP", None), ("UDP", None), ("MPTCP", denied())], ..seeing() };
        assert_eq!(state(&sockets(&unknown), "sockets"), State::Yes, "there is no MPTCP socket to report");
        assert!(sockets(&Visibility::default()).iter().all(|line| line.state == State::No));
    }

    #[test]
    fn a_weaker_level_is_never_a_yes() {
        let full = Confinement {
            capabilities: Some(Vec::new()),
            no_new_privileges: true,
            landlock: Some(7),
            weaker_because: Vec::new(),
        };
        let yes = privileges(&full);
        assert_eq!(
            (yes.state, yes.detail.as_str()),
            (State::Yes, "after binding, listen goes on with no capabilities, no new privileges, Landlock 7")
        );
        let weaker_because = vec!["Landlock is not there: why".to_owned()];
        let partly =
            privileges(&Confinement { landlock: None, weaker_because: weaker_because.clone(), ..full });
        assert!(partly.state == State::Partly && partly.detail.ends_with("; Landlock is not there: why"));
        let no = privileges(&Confinement { weaker_because, ..Confinement::default() });
        assert!(no.state == State::No && no.remedy.is_some());
    }

    #[test]
    fn two_lists_that_differ_are_reported() {
        assert_eq!(agreement(&[]).state, State::Yes);
        let two = agreement(&["one".to_owned(), "two".to_owned()]);
        assert_eq!((two.state, two.detail.as_str()), (State::Partly, "one (and 1 more)"));
    }

    #[test]
    fn the_states_of_ipv6_differ() {
        let with = |sight: Visibility| addresses(&sight, Some(&Snapshot::default()), true)[0].detail.clone();
        let mut all = vec![
            with(Visibility { ipv6_sockets: Some(std::io::Error::from_raw_os_error(97)), ..seeing() }),
            with(seeing()),
            addresses(&seeing(), None, true)[0].detail.clone(),
        ];
        let mut disabled = seeing();
        disabled.settings.insert("net.ipv6.conf.all.disable_ipv6".to_owned(), 1);
        all.push(with(disabled));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4, "{all:?}");
    }
}
