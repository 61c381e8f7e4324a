//! Explanations of bind errors, with fixes. Pure: the inputs are the errno and what is known about the host.

use std::net::IpAddr;

use super::predict::{BindOutcome, BindPrediction, Foreign};
use crate::code::Code;
use crate::escape::escape;
use crate::model::addr::{needs_zone, text};
use crate::model::{
    AddrClass, AddrState, Errno, IfName, InterfaceAddress, Phase, Protocol, Snapshot, SocketSpec, SocketState,
};

/// A socket that prevents a bind.
#[derive(Debug, Clone, Copy)]
pub struct InTheWay<'a> {
    /// Its name for people.
    pub name: &'a str,
    /// The socket, when it belongs to another program.
    pub socket: Option<&'a Foreign>,
}

/// An explained failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Code of its page.
    pub code: Code,
    /// Explanation.
    pub message: String,
    /// Suggested fix; `None` if none is known.
    pub hint: Option<String>,
}

/// Explains the failure of `phase` with `errno`. `object` is the option or address of the call. `holders` are the known
/// sockets that already have the port.
#[must_use]
pub fn explain(
    spec: &SocketSpec,
    phase: Phase,
    errno: Errno,
    object: &str,
    holders: &[InTheWay<'_>],
    host: &Snapshot,
) -> Explanation {
    let (code, reason, hint) = match (phase, errno) {
        (Phase::Bind | Phase::Listen, Errno::EADDRINUSE) => in_use(spec, phase, holders, host),
        (Phase::Bind, Errno::EADDRNOTAVAIL) => not_available(spec, host),
        (Phase::Bind, Errno::EACCES) => privileged(spec, host),
        (Phase::Bind, Errno::EINVAL) => invalid(spec),
        (_, Errno::ENODEV) => no_device(spec, host),
        (Phase::Socket, Errno::EAFNOSUPPORT) => (
            Code::FAMILY_UNAVAILABLE,
            "this system makes no sockets of this family".to_owned(),
            Some("remove the listener, or start the kernel without ipv6.disable=1".to_owned()),
        ),
        (_, Errno::EMFILE | Errno::ENFILE) => (
            Code::OUT_OF_FILES,
            errno.meaning().to_owned(),
            Some(
                "raise the limit (ulimit -n, LimitNOFILE=, fs.file-max), or ask for fewer sockets".to_owned(),
            ),
        ),
        (Phase::Setsockopt, Errno::EPERM | Errno::EACCES) => not_permitted(object),
        (Phase::Setsockopt, Errno::ENOPROTOOPT) => (
            Code::OPTION_UNAVAILABLE,
            format!("this system does not have {object}"),
            Some("remove the key that asks for it".to_owned()),
        ),
        _ => (Code::BIND_FAILED, errno.meaning().to_owned(), None),
    };
    let call = match phase {
        Phase::Socket => "cannot make a socket for".to_owned(),
        Phase::Setsockopt => format!("cannot set {object} for"),
        Phase::Bind => "cannot bind".to_owned(),
        Phase::Listen => "cannot listen on".to_owned(),
    };
    let message = format!("{call} {} ({errno}): {reason}", target(spec, host));
    Explanation { code, message, hint }
}

/// Code, message and smallest fix of a predicted bind error. `None` if the bind succeeds.
pub fn of_prediction(
    spec: &SocketSpec,
    prediction: &BindPrediction,
    holders: &[InTheWay<'_>],
    snapshot: &Snapshot,
) -> Option<Explanation> {
    let (phase, errno) = (prediction.phase?, prediction.errno?);
    // The only option that is predicted to fail for lack of a capability; a missing device has its own explanation.
    let object = if spec.device.is_some() { "SO_BINDTODEVICE" } else { "IP_TRANSPARENT" };
    let mut explanation = explain(spec, phase, errno, object, holders, snapshot);
    if prediction.outcome == BindOutcome::Uncertain {
        explanation.message = format!("not certain: {}", explanation.message);
    }
    Some(explanation)
}

type Parts = (Code, String, Option<String>);

/// The socket as shown in the message.
fn target(spec: &SocketSpec, host: &Snapshot) -> String {
    let zone = zone_name(spec, host);
    let address = match spec.address {
        std::net::IpAddr::V4(v4) => v4.to_string(),
        // An IPv4-mapped address keeps its spelling, because this may be the problem.
        std::net::IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => format!("[{v6}]"),
        std::net::IpAddr::V6(_) => format!("[{}]", text(spec.address, zone.as_ref())),
    };
    format!("{} {address}:{}", spec.protocol, spec.port)
}

fn zone_name(spec: &SocketSpec, host: &Snapshot) -> Option<IfName> {
    (spec.scope_id != 0).then(|| {
        host.interface(spec.scope_id)
            .map_or_else(|| spec.scope_id.to_string().as_str().into(), |interface| interface.name.clone())
    })
}

fn in_use(spec: &SocketSpec, phase: Phase, holders: &[InTheWay<'_>], host: &Snapshot) -> Parts {
    let names: Vec<&str> = holders.iter().map(|one| one.name).collect();
    let who = match names.as_slice() {
        [] => "another socket has this port at an overlapping address".to_owned(),
        [one] => format!("the port is in use by {one}"),
        many => format!("the port is in use by {}", many.join(", and by ")),
    };
    (Code::ADDRESS_IN_USE, who, Some(way_out(spec, phase, holders, host)))
}

/// The fix that fits what holds the port.
fn way_out(spec: &SocketSpec, phase: Phase, holders: &[InTheWay<'_>], host: &Snapshot) -> String {
    let mut foreign = holders.iter().filter_map(|one| one.socket).peekable();
    let any =
        |wanted: SocketState| holders.iter().filter_map(|one| one.socket).any(|one| one.state == wanted);
    if phase == Phase::Listen {
        return "choose another port, or end the other program; SO_REUSEADDR lets both bind, but only one of them may listen".to_owned();
    }
    if any(SocketState::Connected) {
        let end = |end: &str| host.setting(&format!("net.ipv4.ip_local_port_range.{end}"));
        return match (end("low"), end("high")) {
            (Some(low), Some(high)) if (low..=high).contains(&i64::from(spec.port)) => format!(
                "choose a port outside {low}-{high}, from which the kernel takes ports for outgoing connections, or reserve it: sysctl -w net.ipv4.ip_local_reserved_ports={}",
                spec.port
            ),
            _ => "end the connection or wait until it ends, or choose another port".to_owned(),
        };
    }
    if any(SocketState::TimeWait) {
        return if spec.reuse_address {
            "wait until TIME-WAIT ends (60 s after the connection was closed), or choose another port"
                .to_owned()
        } else {
            "set reuse_address = true (SO_REUSEADDR): a connection in TIME-WAIT then does not prevent the bind, if its own socket had SO_REUSEADDR".to_owned()
        };
    }
    if any(SocketState::Bound) {
        return "end the program that bound the port, or choose another port; ss -l does not show a socket that does not listen".to_owned();
    }
    let specific = |one: &Foreign| !one.view.address.to_canonical().is_unspecified();
    if spec.address.is_unspecified() && foreign.peek().is_some() && foreign.all(specific) {
        return "bind the addresses that are needed and not the wildcard: the other socket has specific addresses only; or end the other program".to_owned();
    }
    let others = || holders.iter().filter_map(|one| one.socket);
    if spec.reuse_port && others().any(|one| one.view.reuse_port == Some(true)) {
        return "SO_REUSEPORT shares a port between sockets of one user only: run both as the same user, or choose another port".to_owned();
    }
    if spec.reuse_port
        && others().any(|one| one.view.reuse_address == Some(true) && one.view.reuse_port == Some(false))
    {
        return "the other socket has SO_REUSEADDR and not SO_REUSEPORT: both sockets need SO_REUSEPORT to share a port; or choose another port".to_owned();
    }
    if others().any(|one| one.view.reuse_port == Some(true)) {
        return "set reuse_port = true to join the sockets of the other program, if it runs as the same user; or choose another port".to_owned();
    }
    let mut hint = "choose another port, or end the other program".to_owned();
    if spec.address.is_unspecified() && spec.address.is_ipv6() && spec.v6only != crate::model::V6Only::On {
        hint.push_str("; a dual-stack :: needs the port in IPv4 too, with v6only = true it does not");
    }
    hint
}

fn not_available(spec: &SocketSpec, host: &Snapshot) -> Parts {
    let shown = text(spec.address, zone_name(spec, host).as_ref());
    let here: Vec<_> =
        host.addresses().filter(|(_, address)| address.address == spec.address.to_canonical()).collect();
    if let Some((interface, _)) = here.iter().find(|(_, address)| unusable(address, AddrState::Dadfailed)) {
        return (
            Code::ADDRESS_DUPLICATE,
            format!(
                "another host on {} has {shown} too (duplicate address detection failed)",
                interface.name
            ),
            Some("give one of the two hosts another address".to_owned()),
        );
    }
    if let Some((interface, _)) = here.iter().find(|(_, address)| unusable(address, AddrState::Tentative)) {
        return (
            Code::ADDRESS_TENTATIVE,
            format!("{shown} on {} is still checked for duplicates", interface.name),
            Some("wait_dad = true waits for the end of the check".to_owned()),
        );
    }
    if needs_zone(spec.address) && !here.is_empty() {
        let names: Vec<_> = here.iter().map(|(interface, _)| interface.name.to_string()).collect();
        return (
            Code::ZONE_NEEDED,
            format!("{} is on {}, not on the interface of this zone", spec.address, names.join(", ")),
            Some(format!("write {}%{}", spec.address, names.first().map_or("", String::as_str))),
        );
    }
    let vrf = |interface| host.interface(host.vrf_of(interface));
    if let (None, Some((owner, vrf))) =
        (&spec.device, here.iter().find_map(|(owner, _)| Some((owner, vrf(owner)?))))
    {
        return (
            Code::ADDRESS_NOT_ON_DEVICE,
            format!(
                "{shown} is on {}, in the VRF {}, and a socket without a device is in none",
                owner.name, vrf.name
            ),
            Some(format!("set device = \"{}\"", vrf.name)),
        );
    }
    if let (Some(device), Some((owner, _))) = (&spec.device, here.first()) {
        return (
            Code::ADDRESS_NOT_ON_DEVICE,
            format!("{shown} is on {}, not on the device {device}", owner.name),
            Some("bind an address of that device, or leave `device` out".to_owned()),
        );
    }
    if spec.address.is_ipv6() && !here.is_empty() {
        return (
            Code::FAMILY_UNAVAILABLE,
            format!("IPv6 is disabled where {shown} is"),
            Some("set net.ipv6.conf.*.disable_ipv6 to 0".to_owned()),
        );
    }
    if spec.address.is_loopback() && spec.address.is_ipv6() {
        return (
            Code::FAMILY_UNAVAILABLE,
            "lo has no ::1, so IPv6 is disabled there or lo is down".to_owned(),
            Some("look at net.ipv6.conf.lo.disable_ipv6 and at `ip link show lo`".to_owned()),
        );
    }
    (
        Code::ADDRESS_NOT_HERE,
        format!("no interface of this host has {shown}"),
        Some("`bindscope interfaces` lists the addresses; when_missing = \"freebind\" binds it anyway, { interface = \"NAME\" } binds the addresses of an interface".to_owned()),
    )
}

/// Whether an address is in this state and therefore cannot be bound: optimistic addresses can.
fn unusable(address: &InterfaceAddress, state: AddrState) -> bool {
    address.is(state) && (state == AddrState::Dadfailed || !address.is(AddrState::Optimistic))
}

fn privileged(spec: &SocketSpec, host: &Snapshot) -> Parts {
    const SETTING: &str = "net.ipv4.ip_unprivileged_port_start";
    let first = host.setting(SETTING);
    let reason = first.map_or_else(
        || format!("port {} needs CAP_NET_BIND_SERVICE", spec.port),
        |first| format!("ports below {first} need CAP_NET_BIND_SERVICE ({SETTING} = {first})"),
    );
    let hint = format!(
        "use a port from {} on, give the program the capability (setcap cap_net_bind_service=+ep), or lower {SETTING}",
        first.unwrap_or(1024)
    );
    (Code::PRIVILEGED_PORT, reason, Some(hint))
}

fn invalid(spec: &SocketSpec) -> Parts {
    if needs_zone(spec.address) && spec.scope_id == 0 {
        return (
            Code::ZONE_NEEDED,
            format!("{} is link-local and means nothing without its zone", spec.address),
            Some(format!("write {}%INTERFACE", spec.address)),
        );
    }
    if spec.address.is_ipv6() && spec.address.to_canonical().is_ipv4() {
        return (
            Code::INVALID_BIND,
            "a v4-mapped address cannot be bound on a socket that is v6only".to_owned(),
            Some(format!("bind {}, or set v6only = false", spec.address.to_canonical())),
        );
    }
    if let (Protocol::Udp, IpAddr::V6(group)) = (spec.protocol, spec.address)
        && group.is_multicast()
        && spec.scope_id == 0
    {
        return (
            Code::ZONE_NEEDED,
            format!("{group} is another group on each link and means nothing without its zone"),
            Some(format!("write {group}%INTERFACE")),
        );
    }
    if AddrClass::of(spec.address) == AddrClass::Multicast {
        return (
            Code::INVALID_BIND,
            "a multicast address cannot be bound like this".to_owned(),
            Some("listen on the wildcard address; a stream has one peer, so multicast is for UDP".to_owned()),
        );
    }
    (
        Code::INVALID_BIND,
        "the kernel does not accept this combination of address and options".to_owned(),
        None,
    )
}

fn no_device(spec: &SocketSpec, host: &Snapshot) -> Parts {
    let name = spec
        .device
        .as_ref()
        .map(ToString::to_string)
        .or_else(|| zone_name(spec, host).map(|name| name.to_string()))
        .unwrap_or_default();
    if let Some((owner, labelled)) = host.labelled(&IfName::from_escaped(&name)) {
        let message =
            format!("{name} is a label of {} on {}, and not an interface", labelled.address, owner.name);
        return (Code::NO_SUCH_DEVICE, message, Some(format!("bind the address {}", labelled.address)));
    }
    let names: Vec<_> = host.interfaces.iter().take(12).map(|interface| interface.name.to_string()).collect();
    let hint = (!names.is_empty()).then(|| format!("interfaces here: {}", names.join(", ")));
    (Code::NO_SUCH_DEVICE, format!("there is no interface {name}"), hint)
}

fn not_permitted(object: &str) -> Parts {
    let hint = match object {
        "IP_TRANSPARENT" => "it needs CAP_NET_ADMIN or CAP_NET_RAW; freebind binds foreign addresses without",
        "SO_BINDTODEVICE" => "before Linux 5.7 it needs CAP_NET_RAW",
        _ => "run it with the privilege that the option needs",
    };
    (Code::NOT_PERMITTED, format!("this user may not set {}", escape(object)), Some(hint.to_owned()))
}
