//! Opens every socket of a profile, in order, and tells how each fared.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::cmd::{Exit, Failure};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::model::SocketState;
use crate::model::addr::overlap;
use crate::model::socket::Reply;
use crate::model::{
    AddrClass, Errno, Exposure, FamilyExposure, Phase, Protocol, Snapshot, SocketSpec, SocketView, V6Only,
};
use crate::plan::bind_error::{self, InTheWay};
use crate::plan::expand;
use crate::plan::exposure::{Exposer, Facts, exposure_of_view};
use crate::plan::local_table::{Ipv4Kind, LocalAddresses};
use crate::plan::predict::Foreign;
use crate::profile::{Listener, Profile};
use crate::record::event::{Backlog, BoundSocket, Event, FailedSocket, Notice};
use crate::serve::Endpoint;
use crate::serve::bind::{self, BindFailure, Bound};
use crate::sys::{self, Inherited, options, packet_info};

use super::messages::{self, failed_socket};
use super::reporter::Reporter;

/// What became of the profile.
#[derive(Default)]
pub(super) struct Opened {
    pub(super) endpoints: Vec<Endpoint>,
    /// What was tried and did not become a socket.
    pub(super) tried: Vec<SocketSpec>,
    pub(super) failed: usize,
    /// How many more are waited for.
    pub(super) waiting: usize,
    /// What is waited for while the others are served.
    pub(super) awaited: Vec<Awaited>,
    /// Listeners of which not all sockets could be opened, since there would be too many.
    pub(super) beyond_limit: BTreeSet<String>,
}

/// Something that may become a socket later.
#[derive(Clone)]
pub(super) enum Awaited {
    /// Addresses or interfaces that a listener with `when_missing = "wait"` names are not here.
    Listener { listener: Box<Listener>, until: Instant },
    /// The address of a socket is not usable yet (`wait_dad`).
    Address { spec: Box<SocketSpec>, until: Instant },
}

impl Awaited {
    /// An address that is waited for from now on.
    pub(super) fn address(spec: &SocketSpec) -> Awaited {
        Awaited::Address { spec: Box::new(spec.clone()), until: Instant::now() + spec.wait_for_address }
    }

    pub(super) fn until(&self) -> Instant {
        match self {
            Awaited::Listener { until, .. } | Awaited::Address { until, .. } => *until,
        }
    }

    pub(super) fn listener(&self) -> &str {
        match self {
            Awaited::Listener { listener, .. } => &listener.name,
            Awaited::Address { spec, .. } => &spec.listener,
        }
    }

    fn is_listener(&self, name: &str) -> bool {
        matches!(self, Awaited::Listener { listener, .. } if listener.name == name)
    }

    /// Whether the address of this socket is waited for.
    pub(super) fn is_for(&self, wanted: &SocketSpec) -> bool {
        matches!(self, Awaited::Address { spec, .. } if **spec == *wanted)
    }
}

/// An address that is not usable yet is waited for while other sockets are served.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaitsElsewhere;

/// The host as it was read, indexed once for all sockets.
pub(super) struct HostContext<'a> {
    host: &'a Snapshot,
    exposer: Exposer<'a>,
    local: LocalAddresses,
    /// The last socket that was asked about: its neighbours in a range of ports are exposed alike.
    last: RefCell<Option<(SocketSpec, FamilyExposure)>>,
}

impl<'a> HostContext<'a> {
    pub(super) fn new(host: &'a Snapshot) -> HostContext<'a> {
        HostContext {
            host,
            exposer: Exposer::new(host),
            local: LocalAddresses::new(host),
            last: RefCell::new(None),
        }
    }

    fn exposure(&self, spec: &SocketSpec) -> FamilyExposure {
        let facts = Facts::of_spec(spec, self.host);
        if let Some((last, exposure)) = &*self.last.borrow()
            && Facts::of_spec(last, self.host) == facts
        {
            return *exposure;
        }
        let exposure = self.exposer.exposure(&facts);
        *self.last.borrow_mut() = Some((spec.clone(), exposure));
        exposure
    }

    /// What kind of address it is here: which addresses are broadcast ones depends on the host's networks.
    fn class(&self, address: IpAddr) -> AddrClass {
        match address {
            IpAddr::V4(v4) if !v4.is_unspecified() && self.local.ipv4(v4, None) == Ipv4Kind::Broadcast => {
                AddrClass::Broadcast
            }
            _ => AddrClass::of(address),
        }
    }
}

/// What became of one socket.
pub(super) enum OpenResult {
    Open(Box<Bound>),
    LeftOut,
    /// Its address is not usable yet.
    Awaited,
    Failed,
}

/// The sockets that another program passed. Sockets that cannot be served are an error, because that program relies on
/// them.
pub(super) fn inherited() -> Result<Vec<Inherited>, Failure> {
    let problem = |message: String| {
        Diagnostic::error(Code::NOT_INHERITED, message)
            .help("start it by systemd (Sockets=), or by `systemd-socket-activate -l 8081 bindscope listen --inherited`")
    };
    let all = sys::inherited().map_err(|reason| Failure::new(Exit::Environment, problem(reason)))?;
    let (mut sockets, mut problems) = (Vec::new(), Vec::new());
    for one in all {
        match one {
            Ok(socket) => sockets.push(socket),
            Err(reason) => problems.push(problem(reason)),
        }
    }
    if problems.is_empty() { Ok(sockets) } else { Err(Failure { exit: Exit::Environment, problems }) }
}

/// Opens all sockets that can be opened now. Failures are events; the others go on. A socket that has to wait is reported and listed.
pub(super) fn all(
    profile: &Profile,
    host: &Snapshot,
    inherited: Vec<Inherited>,
    reporter: &mut Reporter<'_>,
) -> Result<Opened, Failure> {
    let mut expansion = expand::expand(profile, host);
    bind::choose_ports(&mut expansion.sockets);
    for note in &expansion.notes {
        reporter.event(&Event::Notice(Notice {
            code: Code::LEFT_OUT,
            listener: Some(note.listener.clone()),
            message: note.message.clone(),
        }));
    }
    let mut opened = Opened::default();
    let now = Instant::now();
    for missing in &expansion.missing {
        let waits = profile.listeners.iter().find(|one| one.name == missing.spec.listener);
        if let Some(listener) = waits.filter(|_| !missing.wait.is_zero()) {
            reporter.event(&Event::Notice(Notice {
                code: missing.code,
                listener: Some(listener.name.clone()),
                message: format!("{}; it is waited for, at most {:?}", missing.message, missing.wait),
            }));
            opened.waiting += 1;
            if !opened.awaited.iter().any(|awaited| awaited.is_listener(&listener.name)) {
                let until = now + missing.wait;
                opened.awaited.push(Awaited::Listener { listener: Box::new(listener.clone()), until });
            }
            continue;
        }
        opened.failed += 1;
        if missing.code == Code::TOO_MANY_SOCKETS {
            opened.beyond_limit.insert(missing.spec.listener.clone());
        }
        reporter.event(&failed_socket(missing));
    }
    let ground = HostContext::new(host);
    for socket in inherited {
        let name = socket.name.clone();
        match adopt(socket, &ground) {
            Ok(bound) => {
                tell(&bound, true, &ground, reporter);
                opened.endpoints.push(Endpoint { bound, inherited: true });
            }
            Err(error) => {
                return Err(super::environment(format!(
                    "inherited socket {name}: cannot read its options: {error}"
                )));
            }
        }
    }
    opened.endpoints.reserve_exact(expansion.sockets.len());
    for spec in &expansion.sockets {
        match one(spec, &opened.endpoints, &ground, Some(WaitsElsewhere), reporter) {
            OpenResult::Open(bound) => opened.endpoints.push(Endpoint { bound: *bound, inherited: false }),
            OpenResult::Awaited => {
                opened.waiting += 1;
                opened.awaited.push(Awaited::address(spec));
            }
            OpenResult::LeftOut => opened.tried.push(spec.clone()),
            OpenResult::Failed => {
                opened.failed += 1;
                opened.tried.push(spec.clone());
            }
        }
    }
    Ok(opened)
}

/// Opens one socket and tells how it fared; `open` are those before it. Where an address is to be waited for that is not usable yet,
/// nothing is reported while another caller waits for it.
pub(super) fn one(
    spec: &SocketSpec,
    open: &[Endpoint],
    ground: &HostContext<'_>,
    waits: Option<WaitsElsewhere>,
    reporter: &mut Reporter<'_>,
) -> OpenResult {
    let exposure = ground.exposure(spec);
    let before = open.last().filter(|last| !last.inherited).map(|last| &last.bound);
    let failure = match bind::open_now(spec, exposure, before) {
        Ok(mut bound) => {
            // An address that was waited for was not usable when the host was read: who can reach it is known only now.
            if !spec.wait_for_address.is_zero()
                && exposure.widest() == Exposure::None
                && let Ok(now) = super::look()
            {
                bound.view.exposure = exposure_of_view(&bound.view, &now);
            }
            tell(&bound, false, ground, reporter);
            return OpenResult::Open(Box::new(bound));
        }
        Err(failure) => failure,
    };
    if waits.is_some()
        && !spec.wait_for_address.is_zero()
        && (failure.phase, failure.errno) == (Phase::Bind, Errno::EADDRNOTAVAIL)
    {
        return OpenResult::Awaited;
    }
    let explanation = explained(spec, &failure, open, ground.host);
    if spec.skip_when_missing && failure.errno == Errno::EADDRNOTAVAIL {
        reporter.event(&Event::Notice(Notice {
            code: Code::LEFT_OUT,
            listener: Some(spec.listener.clone()),
            message: explanation.message,
        }));
        return OpenResult::LeftOut;
    }
    reporter.event(&Event::BindFailed(FailedSocket {
        socket: spec.view(exposure),
        phase: failure.phase,
        errno: failure.errno,
        code: explanation.code,
        message: explanation.message,
        hint: explanation.hint,
    }));
    OpenResult::Failed
}

fn explained(
    spec: &SocketSpec,
    failure: &BindFailure,
    open: &[Endpoint],
    host: &Snapshot,
) -> bind_error::Explanation {
    let mut own: Vec<String> = Vec::new();
    let mut foreign: Vec<Foreign> = Vec::new();
    if failure.errno == Errno::EADDRINUSE {
        own = open
            .iter()
            .filter(|other| other.bound.view.port == spec.port && other.bound.spec.protocol == spec.protocol)
            .filter(|other| {
                let view = &other.bound.view;
                overlap((view.address, view.v6only), (spec.address, spec.v6only.as_set()))
            })
            .map(|other| {
                format!("listener {} of this profile ({})", other.bound.spec.listener, other.bound.view)
            })
            .collect();
        if own.is_empty() {
            foreign = holders_of(spec);
        }
    }
    let own = own.iter().map(|name| InTheWay { name, socket: None });
    let holders: Vec<InTheWay<'_>> = own
        .chain(foreign.iter().map(|socket| InTheWay { name: &socket.name, socket: Some(socket) }))
        .collect();
    bind_error::explain(spec, failure.phase, failure.errno, &failure.object, &holders, host)
}

/// Sockets of other programs that prevent the bind: those that serve first, at most four.
fn holders_of(spec: &SocketSpec) -> Vec<Foreign> {
    let serving = sys::port_holder(spec.protocol, spec.address, spec.port);
    let serving = serving
        .iter()
        .filter(|socket| matches!(socket.state, SocketState::Listen | SocketState::Unconnected));
    let mut found: Vec<Foreign> = serving.map(|socket| Foreign::of(socket, socket.summary())).collect();
    if found.is_empty() {
        let holders = sys::port_holders(&[(spec.protocol, spec.port)].into());
        let overlapping = holders.iter().filter(|holder| {
            let view = &holder.socket.view;
            overlap((view.address, view.v6only), (spec.address, spec.v6only.as_set()))
        });
        found = overlapping.map(|holder| Foreign::of(&holder.socket, holder.summary())).collect();
    }
    // The sockets of a SO_REUSEPORT group look alike.
    found.dedup_by(|a, b| a.name == b.name);
    found.truncate(4);
    found
}

/// Takes over an inherited socket: asks for the ingress interface (later than one would like, so that connections already
/// in the queue are asked one by one) and reads what it is.
fn adopt(inherited: Inherited, ground: &HostContext<'_>) -> std::io::Result<Bound> {
    let Inherited { name, socket, protocol } = inherited;
    let view = bind::read_back(&socket, Some(&name), protocol, FamilyExposure::default())?;
    let packet_info =
        packet_info::request(&socket, view.family, protocol).map_err(|error| sys::errno_of(&error));
    let exposure = ground.exposer.exposure(&Facts::of_view(&view));
    let view = SocketView { exposure, ..view };
    let backlog = bind::accept_queue_limit(&socket, protocol);
    let v6only = match view.v6only {
        Some(false) => V6Only::Off,
        _ => V6Only::On,
    };
    let spec = SocketSpec {
        listener: name,
        protocol,
        address: view.address,
        port: view.port,
        scope_id: view.scope_id.unwrap_or(0),
        v6only,
        device: options::bound_device(&socket).unwrap_or(None),
        reuse_address: view.reuse_address.unwrap_or(false),
        reuse_port: view.reuse_port.unwrap_or(false),
        freebind: false,
        transparent: false,
        backlog: backlog.unwrap_or(0),
        reply: if protocol == Protocol::Tcp { Reply::Describe } else { Reply::None },
        idle_timeout: Duration::from_secs(10),
        max_connections: 256,
        wait_for_address: Duration::ZERO,
        skip_when_missing: false,
        port_per_socket: false,
    };
    let device_index = bind::device_index_of(&socket, &view);
    Ok(Bound { socket, spec, view, device_index, backlog, packet_info })
}

/// Tells of an open socket, and what is remarkable about it.
fn tell(bound: &Bound, inherited: bool, ground: &HostContext<'_>, reporter: &mut Reporter<'_>) {
    let backlog = (bound.spec.protocol == Protocol::Tcp)
        .then(|| Backlog { requested: (!inherited).then_some(bound.spec.backlog), effective: bound.backlog });
    reporter.event(&Event::Bound(BoundSocket {
        socket: bound.view.clone(),
        backlog,
        packet_info_errno: bound.packet_info.err(),
        inherited,
    }));
    if let Some(notice) = messages::wide_open(&bound.view) {
        reporter.event(&Event::Notice(notice));
    }
    let mut notice = |code, message| {
        reporter.event(&Event::Notice(Notice { code, listener: Some(bound.spec.listener.clone()), message }));
    };
    if let Some(Backlog { requested: Some(requested), effective: Some(effective) }) = backlog
        && effective < requested
    {
        notice(
            Code::BACKLOG_CAPPED,
            format!(
                "the accept queue takes {effective} connections instead of {requested} (net.core.somaxconn)"
            ),
        );
    }
    if let Err(errno) = bound.packet_info {
        notice(
            Code::NO_PACKET_INFO,
            format!("{}: the kernel does not keep the ingress interface ({errno})", bound.view),
        );
    }
    let class = ground.class(bound.view.address);
    let never = match bound.spec.protocol {
        Protocol::Tcp => matches!(class, AddrClass::Multicast | AddrClass::Broadcast | AddrClass::Reserved),
        Protocol::Udp => class == AddrClass::Reserved,
    };
    if never {
        notice(
            Code::NEVER_REACHED,
            format!("{} is bound, but no connection can ever arrive at a {class} address", bound.view),
        );
    }
}
