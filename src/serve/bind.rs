//! Opens sockets in order: options first, then bind, then listen, and then reads back what took effect.
//!
//! One failure never stops the others: it is a value ([`BindFailure`]).

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::model::{Errno, Family, FamilyExposure, Phase, Protocol, SocketSpec, SocketView, V6Only};
use crate::sys::{self, options, packet_info};

/// How long to wait between two attempts to bind an address that is not usable yet.
const RETRY: Duration = Duration::from_millis(50);

/// An open socket, and what it really is.
#[derive(Debug)]
pub struct Bound {
    /// The socket itself, non-blocking.
    pub socket: Socket,
    /// What was asked for.
    pub spec: SocketSpec,
    /// What took effect, read back from the kernel.
    pub view: SocketView,
    /// The index of the device that the socket is bound to, which it keeps when an interface of the same name takes the place of that
    /// one. `None` without a device, and where the system does not say.
    pub device_index: Option<u32>,
    /// Limit of the accept queue as the kernel has it (the backlog, capped by `net.core.somaxconn`); `None` on UDP and
    /// where the system does not tell.
    pub backlog: Option<u32>,
    /// Whether the kernel was asked to keep the ingress interface; the error says why not.
    pub packet_info: Result<(), Errno>,
}

/// A socket that could not be opened.
#[derive(Debug)]
pub struct BindFailure {
    /// The call that failed.
    pub phase: Phase,
    /// What it answered.
    pub errno: Errno,
    /// The option, address or queue that the call was about.
    pub object: String,
    /// The system's own words.
    pub error: io::Error,
}

/// Opens one socket as asked. `exposure` is what the plan says of it.
///
/// An address that is not here yet is waited for as long as the spec says (duplicate address detection takes some
/// seconds).
///
/// # Errors
/// The first call that fails; the socket is closed again. It is never listened on: `listen(2)` on a socket whose bind failed
/// would bind it to a wildcard.
pub fn open(spec: &SocketSpec, exposure: FamilyExposure) -> Result<Bound, BindFailure> {
    let begun = Instant::now();
    loop {
        match open_now(spec, exposure, None) {
            Err(failure)
                if failure.errno == Errno::EADDRNOTAVAIL
                    && failure.phase == Phase::Bind
                    && begun.elapsed() < spec.wait_for_address =>
            {
                std::thread::sleep(RETRY.min(spec.wait_for_address.saturating_sub(begun.elapsed())));
            }
            result => return result,
        }
    }
}

/// How often another number is tried for the sockets of a listener that take one port.
const PORT_ATTEMPTS: usize = 64;

/// Gives the sockets of each listener with port 0 one number that is free at all their addresses. The kernel chooses for the first
/// socket, and the others must be able to take its choice; otherwise it chooses again, at most 64 times. The test sockets are closed
/// before the real ones are opened. Sockets whose address is missing keep port 0.
pub fn choose_ports(specs: &mut [SocketSpec]) {
    let shares = |spec: &SocketSpec| spec.port == 0 && !spec.port_per_socket;
    let mut listeners: Vec<(String, Protocol)> = Vec::new();
    for spec in specs.iter().filter(|spec| shares(spec)) {
        let key = (spec.listener.clone(), spec.protocol);
        if !listeners.contains(&key) {
            listeners.push(key);
        }
    }
    for (name, protocol) in listeners {
        let of_listener =
            |spec: &SocketSpec| shares(spec) && spec.listener == name && spec.protocol == protocol;
        let group: Vec<SocketSpec> = specs.iter().filter(|spec| of_listener(spec)).cloned().collect();
        if group.len() < 2 {
            continue;
        }
        if let Some((port, open)) = common_port(&group) {
            for spec in specs
                .iter_mut()
                .filter(|spec| of_listener(spec) && open.contains(&(spec.address, spec.scope_id)))
            {
                spec.port = port;
            }
        }
    }
}

/// A port that is free at every address of the group that can be opened, and these addresses.
fn common_port(group: &[SocketSpec]) -> Option<(u16, Vec<(std::net::IpAddr, u32)>)> {
    let exposure = FamilyExposure::default();
    for _ in 0..PORT_ATTEMPTS {
        let mut held: Vec<Bound> = Vec::new();
        let mut taken = false;
        for spec in group {
            let port = held.first().map_or(0, |first| first.view.port);
            match open_now(&SocketSpec { port, ..spec.clone() }, exposure, None) {
                Ok(bound) => held.push(bound),
                Err(failure) if failure.errno == Errno::EADDRINUSE => {
                    taken = true;
                    break;
                }
                Err(_) => {}
            }
        }
        let port = held.first()?.view.port;
        if !taken {
            return Some((
                port,
                held.iter().map(|bound| (bound.spec.address, bound.spec.scope_id)).collect(),
            ));
        }
    }
    None
}

/// As [`open`], without waiting for the address. The limit of the queue is that of `before`, which was opened a moment ago, where the
/// same was asked for: `listen(2)` caps all alike.
///
/// # Errors
/// As [`open`].
pub fn open_now(
    spec: &SocketSpec,
    exposure: FamilyExposure,
    before: Option<&Bound>,
) -> Result<Bound, BindFailure> {
    let fail = |phase, object: &str, error: io::Error| BindFailure {
        phase,
        errno: errno_of_option(&error),
        object: object.to_owned(),
        error,
    };
    let (domain, kind) = (
        if spec.domain() == Family::Ipv4 { Domain::IPV4 } else { Domain::IPV6 },
        if spec.protocol == Protocol::Tcp { Type::STREAM } else { Type::DGRAM },
    );
    let socket = options::non_blocking(domain, kind).map_err(|error| fail(Phase::Socket, "socket", error))?;
    let set = |name: &'static str, result: io::Result<()>| {
        result.map_err(|error| fail(Phase::Setsockopt, name, error))
    };
    if spec.domain() == Family::Ipv6 {
        match spec.v6only {
            V6Only::On => set("IPV6_V6ONLY", socket.set_only_v6(true))?,
            V6Only::Off => set("IPV6_V6ONLY", socket.set_only_v6(false))?,
            V6Only::System => {}
        }
    }
    if spec.reuse_address {
        set("SO_REUSEADDR", options::set_reuse_address(&socket))?;
    }
    if spec.reuse_port {
        set("SO_REUSEPORT", options::set_reuse_port(&socket))?;
    }
    if spec.freebind {
        set("IP_FREEBIND", options::set_freebind(&socket))?;
    }
    if spec.transparent {
        set("IP_TRANSPARENT", options::set_transparent(&socket))?;
    }
    if let Some(device) = &spec.device {
        set("SO_BINDTODEVICE", options::bind_to_device(&socket, device))?;
    }
    // Before bind and listen, so that every connection inherits it. A failure costs evidence, not the listener.
    let packet_info =
        packet_info::request(&socket, spec.domain(), spec.protocol).map_err(|error| sys::errno_of(&error));
    socket.bind(&SockAddr::from(spec.socket_addr())).map_err(|error| fail(Phase::Bind, "address", error))?;
    if spec.protocol == Protocol::Tcp {
        let backlog = i32::try_from(spec.backlog).unwrap_or(i32::MAX);
        socket.listen(backlog).map_err(|error| fail(Phase::Listen, "queue", error))?;
    }
    let (reuse_address, reuse_port) = options::reuse_as_set(&socket, spec.reuse_address, spec.reuse_port);
    let view = read_back_local(&socket, spec.v6only.as_set())
        .map_err(|error| fail(Phase::Bind, "effective options", error))
        .map(|bare| SocketView {
            listener: Some(spec.listener.clone()),
            protocol: spec.protocol,
            reuse_address,
            reuse_port,
            exposure,
            ..bare
        })?;
    let asked = |bound: &Bound| (bound.spec.protocol, bound.spec.backlog);
    let backlog = match before.filter(|before| asked(before) == (spec.protocol, spec.backlog)) {
        Some(before) => before.backlog,
        None => accept_queue_limit(&socket, spec.protocol),
    };
    let device_index = device_index_of(&socket, &view);
    // The device may be gone by now.
    let view = SocketView { device: view.device.clone().or_else(|| spec.device.clone()), ..view };
    Ok(Bound { socket, spec: spec.clone(), view, device_index, backlog, packet_info })
}

/// An option that this system does not have is reported as the kernel would: ENOPROTOOPT.
fn errno_of_option(error: &io::Error) -> Errno {
    if error.kind() == io::ErrorKind::Unsupported && error.raw_os_error().is_none() {
        Errno::ENOPROTOOPT
    } else {
        sys::errno_of(error)
    }
}

/// The index of a socket's device; asked for only where there is one.
#[must_use]
pub fn device_index_of(socket: &Socket, view: &SocketView) -> Option<u32> {
    // A device that is gone has no name any more, and keeps its index.
    let has_one = view.device.is_some() || options::bound_device(socket).is_err();
    if has_one { options::bound_device_index(socket) } else { None }
}

/// What a bound socket really is, from the kernel.
///
/// # Errors
/// As `getsockname(2)` and `getsockopt(2)`.
pub fn read_back(
    socket: &Socket,
    listener: Option<&str>,
    protocol: Protocol,
    exposure: FamilyExposure,
) -> io::Result<SocketView> {
    Ok(SocketView {
        listener: listener.map(str::to_owned),
        protocol,
        reuse_address: socket.reuse_address().ok(),
        reuse_port: options::reuse_port(socket).ok(),
        exposure,
        ..read_back_local(socket, None)?
    })
}

/// What the kernel may have made other than it was asked for: address, port, zone, device, and V6ONLY where `v6only` does not say
/// what it was set to. The rest of the view is empty.
fn read_back_local(socket: &Socket, v6only: Option<bool>) -> io::Result<SocketView> {
    let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    let (family, scope_id, v6only) = match (local, v6only) {
        (SocketAddr::V4(_), _) => (Family::Ipv4, None, None),
        (SocketAddr::V6(v6), set) => {
            let v6only = set.map_or_else(|| socket.only_v6(), Ok)?;
            (Family::Ipv6, (v6.scope_id() != 0).then(|| v6.scope_id()), Some(v6only))
        }
    };
    Ok(SocketView {
        listener: None,
        protocol: Protocol::Tcp,
        family,
        address: local.ip(),
        port: local.port(),
        scope_id,
        // A device that is gone by now is the same as none for the reader; the next arrival would tell.
        device: options::bound_device(socket).unwrap_or(None),
        v6only,
        reuse_address: None,
        reuse_port: None,
        exposure: FamilyExposure::default(),
    })
}

/// Limit of the accept queue; `None` where it is not known or there is none.
#[must_use]
pub fn accept_queue_limit(socket: &Socket, protocol: Protocol) -> Option<u32> {
    match protocol {
        Protocol::Tcp => packet_info::listen_queue(socket).ok().map(|queue| queue.limit),
        Protocol::Udp => None,
    }
}
