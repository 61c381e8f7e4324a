//! Findings about sockets that do not depend on a policy. One function for each code.

mod host;
mod sharing;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustc_hash::FxHashMap;

use super::{Finding, Site, plain};
use crate::code::Code;
use crate::diag::Severity;
use crate::model::{
    AddrClass, Exposure, Family, FamilyExposure, IfName, Interface, Lifetime, ListeningSocket, Protocol,
    Snapshot, SocketState, SocketView,
};
use crate::plan::exposure::{Exposer, Facts, Reason};
use crate::plan::local_table::Ipv4Kind;

/// Sets the exposure of every socket of `site` and returns the findings. Indexes of sockets start at `first`.
#[must_use]
pub fn observe(site: &mut Site, first: usize) -> Vec<Finding> {
    let exposer = Exposer::new(&site.host);
    let known = Known::of(&site.host);
    // A host has few addresses and many sockets: most sockets are bound like another one.
    let mut bound: FxHashMap<Decisive, Bound> = FxHashMap::default();
    // Reserved space uses no memory before it is written, and the list is never copied.
    let mut findings = Vec::with_capacity(site.sockets.len());
    for (place, socket) in site.sockets.iter_mut().enumerate() {
        let bound = bound.entry(decisive(socket)).or_insert_with(|| Bound::of(socket, &exposer));
        let lifetime = site.lifetimes.get(&socket.view.address.to_canonical()).copied();
        socket.view.exposure = bound.exposure;
        let owner = bound.owner.and_then(|index| site.host.interface(index));
        socket.address_owner =
            owner.filter(|_| !socket.view.address.is_unspecified()).map(|interface| interface.name.clone());
        let about = About { socket, bound, host: &site.host, known: &known, place: first + place, lifetime };
        about.v6only_unknown(&mut findings);
        about.wildcard(&mut findings);
        about.wildcard_without_links(&mut findings);
        about.transparent(&mut findings);
        about.expiring(&mut findings);
        about.wider_in_ipv6(&mut findings);
        about.to_many(&mut findings);
        about.stale(&mut findings);
        about.device_gone(&mut findings);
        about.address_not_interface(&mut findings);
        about.others_may_join(&mut findings);
        about.loopback_from_outside(&mut findings);
        about.queue_full(&mut findings);
        about.exe_replaced(&mut findings);
    }
    let port = |place: &usize| (site.sockets[*place].view.port, site.sockets[*place].view.protocol);
    let mut places: Vec<usize> = (0..site.sockets.len()).collect();
    places.sort_by_key(port);
    for places in places.chunk_by(|one, two| port(one) == port(two)) {
        one_family(site, &known, places, first, &mut findings);
        sharing::shadowed(site, places, first, &mut findings);
    }
    host::any_ip(&site.host, &site.sockets, &mut findings);
    host::labels(&site.host, &mut findings);
    super::answers::report(&site.host, &site.sockets, exposer.local(), &mut findings);
    findings
}

/// The properties of a socket that determine [`Bound`]: [`Facts`] with owned values, and the device's index.
type Decisive = (IpAddr, Option<u32>, Option<IfName>, Option<u32>, Option<bool>, (Protocol, bool));

fn decisive(socket: &ListeningSocket) -> Decisive {
    let view = &socket.view;
    (
        view.address,
        view.scope_id,
        view.device.clone(),
        socket.device_index,
        view.v6only,
        (view.protocol, socket.transparent == Some(true)),
    )
}

/// Data that all sockets with the same bind share.
struct Bound {
    exposure: FamilyExposure,
    reasons: Vec<Reason>,
    class: AddrClass,
    /// The interface that makes the address local.
    owner: Option<u32>,
    /// Whether the address is a broadcast or multicast address.
    to_many: bool,
}

impl Bound {
    fn of(socket: &ListeningSocket, exposer: &Exposer<'_>) -> Bound {
        let view = &socket.view;
        let (mut exposure, mut reasons) = exposer.explain(&Facts::of_view(view));
        if socket.transparent == Some(true) {
            widen(&mut exposure, &mut reasons, view, exposer);
        }
        let to_many = match view.address.to_canonical() {
            IpAddr::V4(v4) if !v4.is_unspecified() => matches!(
                exposer.local().ipv4(v4, socket.device_index),
                Ipv4Kind::Broadcast | Ipv4Kind::Multicast
            ),
            address => address.is_multicast(),
        };
        Bound {
            exposure,
            reasons,
            class: AddrClass::of(view.address),
            owner: exposer.local().owner(view.address, view.scope_id),
            to_many,
        }
    }
}

/// Data of the host that every socket needs, computed once.
struct Known {
    /// Interfaces that are up and are neither loopback nor part of another one: index and name.
    up: Vec<(u32, String)>,
    /// Interfaces that accept packets to 127.0.0.0/8 from outside: index and name.
    route_localnet: Vec<(u32, String)>,
    /// By family, IPv4 first: whether an interface that is up has a private or wider address.
    wide: [bool; 2],
    /// The same for a loopback address.
    loopback: [bool; 2],
}

impl Known {
    fn of(host: &Snapshot) -> Known {
        let named = |fits: &dyn Fn(&Interface) -> bool| {
            let fitting = host.interfaces.iter().filter(|interface| fits(interface));
            fitting.map(|interface| (interface.index, plain(&interface.name))).collect()
        };
        let all = host.setting("net.ipv4.conf.all.route_localnet") == Some(1);
        let has = |fits: fn(AddrClass) -> bool| {
            Family::BOTH.map(|family| {
                host.addresses().any(|(interface, address)| {
                    interface.up && address.family == family && fits(address.class)
                })
            })
        };
        Known {
            up: named(&|interface| interface.up && !interface.loopback && interface.master.is_none()),
            route_localnet: named(&|interface| {
                interface.up && !interface.loopback && (all || is_on(interface, "ipv4.route_localnet"))
            }),
            wide: has(|class| Exposure::of(class) >= Exposure::Private),
            loopback: has(|class| class == AddrClass::Loopback),
        }
    }
}

/// A socket with all known data.
struct About<'a> {
    socket: &'a ListeningSocket,
    bound: &'a Bound,
    host: &'a Snapshot,
    known: &'a Known,
    place: usize,
    /// Remaining lifetime of its address, if limited.
    lifetime: Option<Lifetime>,
}

impl About<'_> {
    fn finding(&self, code: Code, severity: Severity, message: String) -> Finding {
        Finding::new(code, severity, Some(self.place), message)
    }

    /// Reasons for the exposure.
    fn because(&self) -> String {
        let families = Family::BOTH.into_iter().filter_map(|family| {
            let texts: Vec<&str> = self
                .bound
                .reasons
                .iter()
                .filter(|reason| reason.family == family)
                .map(|reason| reason.text.as_str())
                .collect();
            (!texts.is_empty()).then(|| format!("{family}: {}", texts.join(", ")))
        });
        families.collect::<Vec<_>>().join("; ")
    }

    fn v6only_unknown(&self, findings: &mut Vec<Finding>) {
        let view = &self.socket.view;
        if view.address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && view.v6only.is_none() {
            let mut finding = self
                .finding(
                    Code::V6ONLY_UNKNOWN,
                    Severity::Warning,
                    format!("whether {} takes IPv4 too is unknown; its IPv4 exposure is an upper bound", self.socket.view),
                )
                .help("run where sock_diag(7) is allowed, or as a user who may trace the process with --socket-options");
            finding.undecided = true;
            findings.push(finding);
        }
    }

    fn wildcard(&self, findings: &mut Vec<Finding>) {
        let view = &self.socket.view;
        let widest = view.exposure.widest();
        if !view.address.is_unspecified() && !is_mapped_wildcard(view.address) || widest <= Exposure::Loopback
        {
            return;
        }
        let from = match widest {
            Exposure::Global => "from anywhere",
            Exposure::Private => "from private networks",
            _ => "from the link",
        };
        let bound =
            if self.socket.device_known { "" } else { ", unless it is bound to a device, which is unknown" };
        let because = self.because();
        let severity = if widest == Exposure::Global { Severity::Warning } else { Severity::Note };
        findings.push(
            self.finding(Code::WILDCARD_LISTENER, severity, format!("reachable {from}: {because}{bound}")).help(
                "bind 127.0.0.1 and [::1] when only this host is meant to connect, or the one address that is meant",
            ),
        );
    }

    /// A wildcard that only this host can reach because there is no other interface. On another host its exposure is
    /// wider.
    fn wildcard_without_links(&self, findings: &mut Vec<Finding>) {
        let view = &self.socket.view;
        let whole = view.address.is_unspecified() || is_mapped_wildcard(view.address);
        let reached = view.exposure.widest() == Exposure::Loopback;
        if whole && reached && self.known.up.is_empty() && self.socket.device_index.is_none() {
            findings.push(
                self.finding(
                    Code::WILDCARD_WITHOUT_LINKS,
                    Severity::Note,
                    "a wildcard: only this host reaches it while no interface is up except lo; where one is up, it accepts at every address"
                        .to_owned(),
                )
                .help("bind 127.0.0.1 and [::1] if only this host should connect"),
            );
        }
    }

    fn transparent(&self, findings: &mut Vec<Finding>) {
        if self.socket.transparent == Some(true) {
            findings.push(
                self.finding(
                    Code::TRANSPARENT,
                    Severity::Warning,
                    "IP_TRANSPARENT is set: a TPROXY rule delivers packets from any interface and to any address to it, so its exposure is an upper bound"
                        .to_owned(),
                )
                .help("see which packets the rules send to it: nft list ruleset, iptables -t mangle -S"),
            );
        }
    }

    fn expiring(&self, findings: &mut Vec<Finding>) {
        let Some(lifetime) = self.lifetime else { return };
        let address = self.socket.view.address.to_canonical();
        let left = lifetime.valid.map(time_left);
        let message = match (lifetime.deprecated, left) {
            (true, Some(left)) => {
                format!("{address} is deprecated and is removed in {left} unless it is renewed")
            }
            (true, None) => format!("{address} is deprecated: this host does not use it for new connections"),
            (false, Some(left)) => format!(
                "{address} is removed in {left} unless it is renewed, and the listener is lost with it"
            ),
            (false, None) => return,
        };
        findings.push(
            self.finding(Code::ADDRESS_EXPIRES, Severity::Note, message).help(
                "bind a wildcard or a permanent address, or restart the program when the address changes",
            ),
        );
    }

    fn wider_in_ipv6(&self, findings: &mut Vec<Finding>) {
        let exposure = self.socket.view.exposure;
        if exposure.ipv6 == Exposure::Global && (Exposure::Link..=Exposure::Private).contains(&exposure.ipv4)
        {
            findings.push(
                self.finding(
                    Code::WIDER_IN_IPV6,
                    Severity::Warning,
                    format!("IPv4 reaches it at {} addresses only, IPv6 at a global one", exposure.ipv4),
                )
                .help("a router that translates IPv4 addresses does not shield IPv6: filter, or bind one address"),
            );
        }
    }

    fn to_many(&self, findings: &mut Vec<Finding>) {
        let view = &self.socket.view;
        if self.bound.to_many {
            let mut finding = self
                .finding(Code::SENT_TO_MANY, Severity::Note, self.because())
                .help("bind an address of the host if there should be one receiver; for a group, SO_BINDTODEVICE limits the links");
            finding.undecided = view.protocol == Protocol::Udp
                && view.address.to_canonical().is_multicast()
                && self.host.groups.is_none();
            findings.push(finding);
        }
    }

    fn stale(&self, findings: &mut Vec<Finding>) {
        let view = &self.socket.view;
        let gone = !view.address.is_unspecified()
            && !is_mapped_wildcard(view.address)
            && !self.bound.to_many
            && self.bound.owner.is_none();
        if gone {
            findings.push(
                self.finding(
                    Code::STALE_ADDRESS,
                    Severity::Warning,
                    format!(
                        "{} is not an address of this host: no client can reach the socket",
                        view.address.to_canonical()
                    ),
                )
                .help("add the address to an interface, or restart the program with one that is here; the standby of a floating address waits for it"),
            );
        }
    }

    fn device_gone(&self, findings: &mut Vec<Finding>) {
        if let Some(index) = self.socket.device_index
            && self.host.interface(index).is_none()
        {
            findings.push(
                self.finding(
                    Code::DEVICE_GONE,
                    Severity::Warning,
                    format!("the device that the socket is bound to (index {index}) no longer exists: no client can reach it"),
                )
                .help("restart the program when the device is back: a new device of the same name has another index"),
            );
        }
    }

    fn address_not_interface(&self, findings: &mut Vec<Finding>) {
        let view = &self.socket.view;
        // Link-local IPv4 addresses follow the weak host model, as all IPv4 addresses do.
        let weak = match self.bound.class {
            AddrClass::Private | AddrClass::Global => true,
            AddrClass::Link => view.address.to_canonical().is_ipv4(),
            _ => false,
        };
        let specific = weak && self.socket.device_index.is_none();
        let Some(owner) = self.bound.owner.filter(|_| specific && self.socket.device_known) else { return };
        let Some(others) = listed(&self.known.up, |index| index != owner) else { return };
        let on = self
            .host
            .interface(owner)
            .map_or_else(String::new, |owner| format!(" of {}", plain(&owner.name)));
        findings.push(
            self.finding(
                Code::ADDRESS_NOT_INTERFACE,
                Severity::Note,
                format!(
                    "the address {}{on} is bound, not the interface: packets to it are accepted from {} too",
                    view.address.to_canonical(),
                    others
                ),
            )
            .help(
                "bind the socket to the device (SO_BINDTODEVICE) or filter by interface, if that is intended",
            ),
        );
    }

    fn others_may_join(&self, findings: &mut Vec<Finding>) {
        let view = &self.socket.view;
        let multicast = self.bound.class == AddrClass::Multicast;
        if view.protocol == Protocol::Udp && view.reuse_address == Some(true) && !multicast {
            findings.push(
                self.finding(
                    Code::OTHERS_MAY_JOIN,
                    Severity::Note,
                    "SO_REUSEADDR is set: a program of any user may bind the same address and port, and then receives the unicast datagrams"
                        .to_owned(),
                )
                .help("leave SO_REUSEADDR off on UDP sockets that do not share a multicast group"),
            );
        }
    }

    fn loopback_from_outside(&self, findings: &mut Vec<Finding>) {
        let view = &self.socket.view;
        if self.bound.class != AddrClass::Loopback || Family::of(view.address) != Family::Ipv4 {
            return;
        }
        let device = self.socket.device_index;
        let open = listed(&self.known.route_localnet, |index| device.is_none_or(|device| device == index));
        if let Some(open) = open {
            findings.push(
                self.finding(
                    Code::LOOPBACK_FROM_OUTSIDE,
                    Severity::Error,
                    format!("route_localnet lets packets to {} in from {}", view.address.to_canonical(), open),
                )
                .help("set net.ipv4.conf.IF.route_localnet to 0, or drop packets to 127.0.0.0/8 that do not arrive on lo"),
            );
        }
    }

    fn queue_full(&self, findings: &mut Vec<Finding>) {
        let Some(queue) = self.socket.queue.filter(|_| self.socket.state == SocketState::Listen) else {
            return;
        };
        // One connection more than the limit may wait (`sk_acceptq_is_full()` of `net/sock.h`).
        if let Some(limit) = queue.limit
            && queue.length > limit
        {
            findings.push(
                self.finding(
                    Code::QUEUE_FULL,
                    Severity::Warning,
                    format!(
                        "{} connections wait to be accepted, and the limit is {limit}: further ones are dropped",
                        queue.length
                    ),
                )
                .help("the program accepts too slowly or hangs; a longer backlog (and net.core.somaxconn) only buys time"),
            );
        }
    }

    fn exe_replaced(&self, findings: &mut Vec<Finding>) {
        let Some(owner) = self.socket.known_owners().iter().find(|owner| owner.exe_deleted) else { return };
        findings.push(
            self.finding(
                Code::EXE_REPLACED,
                Severity::Note,
                format!(
                    "{} (pid {}) runs {}, which has been removed or replaced since",
                    owner.command,
                    owner.pid,
                    owner.exe.as_deref().unwrap_or("a file")
                ),
            )
            .help("restart it, so that it runs what is installed"),
        );
    }
}

/// A transparent socket may receive packets to any address: its exposure is that of a wildcard of its families.
fn widen(exposure: &mut FamilyExposure, reasons: &mut Vec<Reason>, view: &SocketView, exposer: &Exposer<'_>) {
    let address: IpAddr = match view.address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let v6only = if view.address.is_unspecified() { view.v6only } else { Some(true) };
    let wildcard = SocketView { address, v6only, scope_id: None, ..view.clone() };
    let whole = exposer.exposure(&Facts::of_view(&wildcard));
    for (family, own, whole) in
        [(Family::Ipv4, &mut exposure.ipv4, whole.ipv4), (Family::Ipv6, &mut exposure.ipv6, whole.ipv6)]
    {
        if whole > *own {
            *own = whole;
            let text = "it is transparent: a rule may deliver packets to any address to it".to_owned();
            reasons.push(Reason { family, text });
        }
    }
}

/// A duration for people: whole minutes, hours or days.
fn time_left(seconds: u32) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn is_on(interface: &Interface, setting: &str) -> bool {
    interface.settings.get(setting) == Some(&1)
}

fn is_mapped_wildcard(address: IpAddr) -> bool {
    address.is_ipv6() && matches!(address.to_canonical(), IpAddr::V4(v4) if v4.is_unspecified())
}

/// The interfaces whose index fits, as `a`, `a and b`, `a, b and 3 more`; `None` if none does.
fn listed(interfaces: &[(u32, String)], fits: impl Fn(u32) -> bool) -> Option<String> {
    let mut fitting = interfaces.iter().filter(|(index, _)| fits(*index)).map(|(_, name)| name);
    let one = fitting.next()?;
    let Some(two) = fitting.next() else { return Some(one.clone()) };
    Some(match fitting.count() {
        0 => format!("{one} and {two}"),
        more => format!("{one}, {two} and {more} more"),
    })
}

/// The families that a socket accepts, including IPv4 of a dual-stack wildcard.
fn takes(socket: &ListeningSocket, family: Family) -> bool {
    let view = &socket.view;
    match family {
        Family::Ipv4 => {
            view.address.to_canonical().is_ipv4()
                || view.address.is_unspecified() && view.v6only != Some(true)
        }
        Family::Ipv6 => view.address.to_canonical().is_ipv6(),
    }
}

/// A TCP port that answers in one family, though the host has both at that reach.
fn one_family(site: &Site, known: &Known, places: &[usize], first: usize, findings: &mut Vec<Finding>) {
    let here = || places.iter().map(|&place| (place, &site.sockets[place]));
    let of = |has: [bool; 2], family| has[usize::from(family == Family::Ipv6)];
    if here().any(|(_, socket)| socket.view.protocol == Protocol::Udp) {
        return;
    }
    for lack in [Family::Ipv6, Family::Ipv4] {
        if here().any(|(_, socket)| takes(socket, lack)) {
            continue;
        }
        let Some((place, socket)) = here().max_by_key(|(_, socket)| socket.view.exposure.widest()) else {
            continue;
        };
        let widest = socket.view.exposure.widest();
        let whole = socket.view.address.is_unspecified() || is_mapped_wildcard(socket.view.address);
        // One specific address is a choice, and so is 127.0.0.53; 127.0.0.1, ::1 and wildcards are how people say "here" and "everywhere".
        let everywhere = whole && of(known.wide, lack);
        let localhost = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let here_only = localhost.contains(&socket.view.address.to_canonical()) && of(known.loopback, lack);
        if socket.device_index.is_some() || widest == Exposure::None || !(everywhere || here_only) {
            continue;
        }
        // Spelt out, since every port of a host may have it.
        let (message, help) = match (lack, here_only) {
            (Family::Ipv4, true) => (
                "listens in IPv6 only: a client that uses 127.0.0.1 for localhost is refused",
                "listen on 127.0.0.1 as well, if both families are intended",
            ),
            (Family::Ipv6, true) => (
                "listens in IPv4 only: a client that uses [::1] for localhost is refused",
                "listen on [::1] as well, if both families are intended",
            ),
            (Family::Ipv4, false) => (
                "listens in IPv6 only, and the host has IPv4 addresses too: clients that try those are refused",
                "listen on 0.0.0.0 as well, if both families are intended",
            ),
            (Family::Ipv6, false) => (
                "listens in IPv4 only, and the host has IPv6 addresses too: clients that try those are refused",
                "listen on [::] as well, if both families are intended",
            ),
        };
        findings
            .push(Finding::new(Code::ONE_FAMILY, Severity::Note, Some(first + place), message).help(help));
    }
}
