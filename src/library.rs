//! The functions of the library that read this machine or build a network: the short way to what the commands do.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::audit::judge::Judge;
use crate::audit::{self, Namespace, Site};
use crate::diag::Diagnostic;
use crate::escape::escape;
use crate::lab::build::{BuildError, Lab};
use crate::lab::{builtin, ops, run};
use crate::model::{ClientPorts, Lifetime, ListeningSocket, NotExamined, Snapshot, SocketSpec};
use crate::plan::bind_check::Rights;
use crate::plan::expand::{Expansion, expand};
use crate::plan::predict::Foreign;
use crate::profile::{Profile, policy};
use crate::record::time::Time;
use crate::report::matrix::{CellReport, Report};
use crate::report::plan::{self, TargetHost};
use crate::sys::{self, InventoryOptions, NamespaceRefusal, netns};

/// Reads this machine for [`predict`](crate::predict): its network, its sockets and the privileges of this process. Opens no
/// IPv4 or IPv6 socket.
///
/// # Errors
/// The network of this machine cannot be read.
///
/// ```
/// let host = bindscope::this_host()?;
/// assert!(host.snapshot.interfaces.iter().any(|interface| interface.loopback));
/// # Ok::<(), bindscope::Error>(())
/// ```
pub fn this_host() -> Result<TargetHost, sys::Error> {
    let mut snapshot = sys::snapshot()?;
    snapshot.groups = sys::groups();
    snapshot.packet_filters = Some(sys::packet_filters_with_rules());
    let inventory = sys::inventory(&InventoryOptions { socket_options: true, ..Default::default() });
    let rights = sys::rights();
    Ok(TargetHost {
        snapshot,
        foreign: inventory.sockets.iter().map(foreign).collect(),
        rights: Rights {
            uid: rights.uid,
            privileged_ports: rights.privileged_ports,
            transparent: rights.transparent,
        },
        client_ports: inventory.client_ports,
        notes: Vec::new(),
        // Owners are not needed here, so only what hides sockets themselves counts.
        incomplete_because: Vec::new(),
    })
}

/// A socket of another program, with a name for messages.
fn foreign(socket: &ListeningSocket) -> Foreign {
    let owner = socket.owners.as_deref().and_then(<[_]>::first);
    let name = match owner {
        Some(owner) => format!("{} (pid {}, {})", escape(&owner.command), owner.pid, socket.view),
        None => format!("another program ({})", socket.view),
    };
    Foreign::of(socket, name)
}

/// Predicts every bind of a profile on a host, and which source reaches which socket. Opens no socket.
///
/// ```
/// let profile = bindscope::parse_profile(
///     "example",
///     r#"
///         schema = 1
///         name = "example"
///         [[listener]]
///         name = "web"
///         bind = "127.0.0.1"
///         port = 8080
///     "#,
/// )
/// .expect("the profile is valid");
/// let host = bindscope::TargetHost::of_snapshot(bindscope::Snapshot::default());
/// let report = bindscope::predict(&profile, host);
/// assert_eq!(report.sockets.len(), 1);
/// ```
#[must_use]
pub fn predict(profile: &Profile, host: TargetHost) -> Report {
    let expansion = expand(profile, &host.snapshot);
    plan_of(profile, &expansion, host)
}

/// As [`predict`], for an expanded profile.
pub(crate) fn plan_of(profile: &Profile, expansion: &Expansion, mut host: TargetHost) -> Report {
    add_port_holders(&mut host, &expansion.sockets);
    plan::assemble(profile, expansion, host)
}

/// Adds the sockets of this host that hold a port of `sockets` without serving it. A snapshot of another host has none.
pub(crate) fn add_port_holders(host: &mut TargetHost, sockets: &[SocketSpec]) {
    let Some(ports) = &host.client_ports else { return };
    host.notes.extend(ephemeral_notes(sockets, ports));
    let wanted =
        sockets.iter().filter(|spec| spec.port != 0).map(|spec| (spec.protocol, spec.port)).collect();
    host.foreign.extend(sys::port_holders(&wanted).into_iter().map(|holder| Foreign {
        view: holder.socket.view.clone(),
        uid: holder.socket.uid,
        mark: holder.socket.mark,
        state: holder.socket.state,
        name: holder.summary(),
        peer_port: holder.peer.map(|peer| peer.port()),
    }));
}

/// Fixed ports that the kernel may give to an outgoing connection first.
fn ephemeral_notes(sockets: &[SocketSpec], ports: &ClientPorts) -> Vec<String> {
    let mut found: Vec<(u16, &str)> = sockets
        .iter()
        .filter(|spec| spec.port != 0 && ports.contains(spec.port))
        .map(|spec| (spec.port, spec.listener.as_str()))
        .collect();
    found.sort_unstable();
    found.dedup();
    let Some((port, listener)) = found.first() else { return Vec::new() };
    let more = if found.len() > 1 { format!(" (and {} more ports)", found.len() - 1) } else { String::new() };
    vec![format!(
        "{listener}: port {port}{more} is in {}-{}, from which the kernel takes ports for outgoing connections: one of them may hold it when the listener starts; net.ipv4.ip_local_reserved_ports keeps a port free",
        ports.low, ports.high
    )]
}

/// Lists the listening sockets of this network namespace with their owners, their exposure and the findings, judged by a policy
/// (TOML) if one is given.
///
/// # Errors
/// Every problem of the policy, with its position.
///
/// ```
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let port = listener.local_addr()?.port();
/// let report = bindscope::audit(None).expect("there is no policy to be wrong");
/// let socket = report.sockets.iter().find(|socket| socket.view.port == port).expect("it listens");
/// assert_eq!(socket.view.exposure.widest(), bindscope::Exposure::Loopback);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn audit(policy_text: Option<&str>) -> Result<audit::Report, Vec<Diagnostic>> {
    let policy = policy_text.map(|text| policy::parse("the policy", text)).transpose()?;
    let Seen { host, mut sockets, mut because, all_sockets, client_ports, not_examined, lifetimes } =
        look(&InventoryOptions::default());
    because.extend(sys::attach_owners(sockets.iter_mut(), false));
    let namespace = Namespace {
        inode: host.host.netns,
        name: None,
        current: true,
        complete: all_sockets && because.is_empty(),
        exposure_known: true,
    };
    let mut sites = [Site { namespace, host, sockets, client_ports, not_examined, lifetimes }];
    let time = SystemTime::now();
    let leave_out_clients = policy.as_ref().is_some_and(|policy| policy.ignore_ephemeral_udp);
    let mut report = audit::report(&mut sites, because, Time::new(time).to_string(), leave_out_clients);
    report.body.all_sockets = all_sockets;
    if let (Some(policy), Some(text)) = (&policy, policy_text) {
        let today = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        Judge {
            policy,
            text: Arc::from(text),
            today: today.to_zoned(jiff::tz::TimeZone::UTC).date(),
            hosts: sites.iter().map(|site| &site.host).collect(),
            all_sockets: report.all_sockets,
        }
        .judge(&mut report);
    }
    Ok(report)
}

/// What an audit needs to know of one network namespace.
pub(crate) struct Seen {
    pub(crate) host: Snapshot,
    pub(crate) sockets: Vec<ListeningSocket>,
    pub(crate) because: Vec<String>,
    pub(crate) all_sockets: bool,
    pub(crate) client_ports: Option<ClientPorts>,
    pub(crate) not_examined: NotExamined,
    pub(crate) lifetimes: BTreeMap<IpAddr, Lifetime>,
}

/// Reads the network and the sockets of the calling thread's network namespace.
pub(crate) fn look(options: &InventoryOptions) -> Seen {
    let inventory = sys::inventory(options);
    let mut because = inventory.incomplete_because;
    let mut host = sys::snapshot().unwrap_or_else(|error| {
        because.push(error.to_string());
        Snapshot::default()
    });
    host.groups = groups_of(&inventory.sockets);
    host.packet_filters = Some(sys::packet_filters_with_rules());
    Seen {
        host,
        not_examined: sys::not_examined(&inventory.sockets),
        sockets: inventory.sockets,
        because,
        all_sockets: inventory.all_sockets,
        client_ports: inventory.client_ports,
        lifetimes: inventory.lifetimes,
    }
}

/// The groups that interfaces have joined, when any of these sockets is bound to one.
pub(crate) fn groups_of(sockets: &[ListeningSocket]) -> Option<BTreeMap<IpAddr, Vec<u32>>> {
    let to_group = |socket: &ListeningSocket| socket.view.address.to_canonical().is_multicast();
    if sockets.iter().any(to_group) { sys::groups() } else { None }
}

/// Why a lab could not be run.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// There is no built-in topology with this name.
    #[error("there is no built-in topology with this name: {0}")]
    UnknownTopology(String),
    /// The system does not permit network namespaces.
    #[error(transparent)]
    Refused(#[from] NamespaceRefusal),
    /// The network could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The network could not be used.
    #[error(transparent)]
    System(#[from] sys::Error),
}

/// Builds a temporary network of namespaces, binds the listeners of the profile on its host, and connects from every node to every
/// address. Returns each result with its prediction. The network of the machine stays as it is, and root is not needed.
///
/// Call this function in a process with one thread: without root the process moves into a user namespace.
///
/// # Errors
/// The system does not permit the namespaces, or an operation failed.
///
/// `examples/lab.rs` is a complete program:
///
/// ```no_run
/// let profile = bindscope::parse_profile("web", "schema = 1\nname = 'web'\nlistener = []\n").unwrap();
/// for result in bindscope::run_lab(&profile, "three-links")? {
///     println!("{} to {}: agrees {:?}", result.source, result.destination, result.agrees);
/// }
/// # Ok::<(), bindscope::LabError>(())
/// ```
pub fn run_lab(profile: &Profile, topology: &str) -> Result<Vec<CellReport>, LabError> {
    let plan = builtin::topology(topology)
        .map(|topology| ops::plan(&topology))
        .ok_or_else(|| LabError::UnknownTopology(escape(topology).to_string()))?;
    sys::raise_file_limit();
    netns::prepare()?;
    let lab = Lab::build(plan)?;
    let opened = run::open(&lab, profile)?;
    let patience = run::Patience { connect: Duration::from_secs(1), all: Duration::from_secs(60) };
    Ok(run::look(&lab, &opened, patience, &mut |_, _| {})?.cells)
}
