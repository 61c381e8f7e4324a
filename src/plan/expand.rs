//! From the listeners of a profile to sockets on this host: interfaces become their addresses, zones become indices.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use super::bind_check::{Availability, Refusal, Rights, availability};
use super::local_table::LocalAddresses;
use crate::code::Code;
use crate::model::addr::text;
use crate::model::{AddrClass, Errno, Family, IfName, Interface, LinkKind, Snapshot, SocketSpec, V6Only};
use crate::profile::bind::glob;
use crate::profile::{Bind, Listener, Profile, Scope, Selector, WhenMissing};

/// What a profile comes to on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The sockets, in the order of the profile.
    pub sockets: Vec<SocketSpec>,
    /// What was left out because the profile says so.
    pub notes: Vec<Note>,
    /// What is not here and should be.
    pub missing: Vec<Missing>,
}

/// Something that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The listener.
    pub listener: String,
    /// What and why.
    pub message: String,
}

/// A socket that cannot be opened because its address or interface is not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What would have been opened. Its address is the family's wildcard where the address is what is missing.
    pub spec: SocketSpec,
    /// What bind would answer.
    pub errno: Errno,
    /// The code of its page.
    pub code: Code,
    /// What is missing.
    pub message: String,
    /// The way out.
    pub hint: Option<String>,
    /// How long it is to be waited for; zero when it is not.
    pub wait: Duration,
}

/// All privileges: only presence counts here; a missing privilege shows at the bind.
const ALL_RIGHTS: Rights = Rights { uid: 0, privileged_ports: true, transparent: true };

/// The sockets of a profile on a host.
#[must_use]
pub fn expand(profile: &Profile, snapshot: &Snapshot) -> Expansion {
    let local = LocalAddresses::new(snapshot);
    let mut expander = Expander {
        snapshot,
        local,
        open: HashMap::new(),
        room: profile.limits.max_sockets,
        out: Expansion::default(),
    };
    for listener in &profile.listeners {
        expander.listener(listener, profile.limits.max_sockets);
    }
    expander.out
}

/// What a profile comes to where some of its sockets are open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beside {
    /// Whether each of the open sockets is still one of the profile's. Those count first towards `max_sockets`.
    pub stays: Vec<bool>,
    /// What is not open yet.
    pub new: Expansion,
}

/// The sockets of a profile on a host, beside those that are `open`.
#[must_use]
pub fn expand_beside(profile: &Profile, snapshot: &Snapshot, open: &[SocketSpec]) -> Beside {
    let limit = profile.limits.max_sockets;
    let local = LocalAddresses::new(snapshot);
    let mut expander = Expander { snapshot, local, open: HashMap::new(), room: 0, out: Expansion::default() };
    let wanted: HashMap<&str, Wanted<'_>> =
        profile.listeners.iter().map(|one| (one.name.as_str(), expander.wanted(one))).collect();
    let mut stays = Vec::with_capacity(open.len());
    for spec in open {
        let copies = expander.open.get(spec).copied().unwrap_or(0);
        let stay = wanted.get(spec.listener.as_str()).is_some_and(|wanted| {
            copies < copies_of(wanted.listener)
                && wanted.targets.contains(&(spec.address, spec.scope_id))
                && wanted.ports.contains(&spec.port)
                && socket(wanted.listener, spec.address, spec.scope_id, spec.port) == *spec
                && expander.not_here(wanted.listener, spec).is_none()
        });
        if stay {
            expander.open.insert(spec.clone(), copies + 1);
        }
        stays.push(stay);
    }
    expander.room = limit.saturating_sub(stays.iter().filter(|stays| **stays).count());
    for listener in &profile.listeners {
        expander.listener(listener, limit);
    }
    Beside { stays, new: expander.out }
}

/// What a listener selects on a host.
struct Wanted<'a> {
    listener: &'a Listener,
    targets: HashSet<(IpAddr, u32)>,
    ports: HashSet<u16>,
}

/// How many sockets a listener has for each address and port.
fn copies_of(listener: &Listener) -> u16 {
    listener.reuse_port.unwrap_or(1).max(1)
}

struct Expander<'a> {
    snapshot: &'a Snapshot,
    local: LocalAddresses,
    /// Sockets that are open already, and how many of each.
    open: HashMap<SocketSpec, u16>,
    /// How many more sockets there may be.
    room: usize,
    out: Expansion,
}

/// Why something is not here.
struct Reason {
    errno: Errno,
    code: Code,
    message: String,
    hint: Option<String>,
}

impl Expander<'_> {
    fn wanted<'b>(&self, listener: &'b Listener) -> Wanted<'b> {
        let parts = listener.bind.parts();
        let targets = parts.iter().filter_map(|part| self.targets(part).ok()).flatten().collect();
        Wanted { listener, targets, ports: listener.ports.iter().copied().collect() }
    }

    fn listener(&mut self, listener: &Listener, limit: usize) {
        let mut targets: Vec<(IpAddr, u32)> = Vec::new();
        for part in listener.bind.parts() {
            match self.targets(part) {
                Ok(found) => targets.extend(found),
                Err((placeholder, reason)) => {
                    self.absent(listener, socket(listener, placeholder, 0, 0), reason)
                }
            }
        }
        let device = listener.device.as_ref().map(|name| match self.snapshot.interface_named(name) {
            Some(interface) => {
                self.note_master(listener, interface);
                interface.name.clone()
            }
            None => name.clone(),
        });
        let mut resolved = listener.clone();
        resolved.device = device;
        let listener = &resolved;
        let mut seen = HashSet::new();
        targets.retain(|target| seen.insert(*target));
        for (address, scope_id) in targets {
            for &port in &listener.ports {
                let spec = socket(listener, address, scope_id, port);
                if let Some(reason) = self.not_here(listener, &spec) {
                    self.absent(listener, spec, reason);
                    // The other ports of an address that is not here are no news.
                    break;
                }
                let open = if self.open.is_empty() { 0 } else { self.open.get(&spec).copied().unwrap_or(0) };
                for _ in open..copies_of(listener) {
                    if self.room == 0 {
                        self.over_limit(spec, limit);
                        return;
                    }
                    self.room -= 1;
                    self.out.sockets.push(spec.clone());
                }
            }
        }
    }

    /// Packets that arrive on a port of a bridge or bond count as arrived on the master.
    fn note_master(&mut self, listener: &Listener, device: &Interface) {
        let master = device.master.and_then(|index| self.snapshot.interface(index));
        let Some(master) = master.filter(|master| master.kind != Some(LinkKind::Vrf)) else { return };
        let kind = master.kind.as_ref().map_or("master", LinkKind::as_str);
        let message = format!(
            "{} is a port of the {kind} {master}: packets arrive on {master}, and a listener with the device {} receives none; use device = \"{master}\"",
            device.name,
            device.name,
            master = master.name,
        );
        self.out.notes.push(Note { listener: listener.name.clone(), message });
    }

    /// The addresses and scope ids that a bind stands for; else an address to show in their place and what is missing.
    fn targets(&self, bind: &Bind) -> Result<Vec<(IpAddr, u32)>, (IpAddr, Reason)> {
        match bind {
            Bind::Loopback => Ok(Bind::LOOPBACK.map(|address| (address, 0)).to_vec()),
            Bind::Address { address, zone: None } => Ok(vec![(*address, 0)]),
            Bind::Address { address, zone: Some(zone) } => match self.zone(zone) {
                Some(index) => Ok(vec![(*address, index)]),
                None => Err((
                    *address,
                    Reason {
                        errno: Errno::ENODEV,
                        code: Code::NO_SUCH_DEVICE,
                        message: format!(
                            "{} cannot be bound: there is no interface {zone}",
                            text(*address, Some(zone))
                        ),
                        hint: Some(self.interfaces_here()),
                    },
                )),
            },
            Bind::Interface(selector) => self.selected(selector),
            // Lists do not nest.
            Bind::Each(_) => Ok(Vec::new()),
        }
    }

    /// The index of a zone: an interface's name goes before an index.
    fn zone(&self, zone: &IfName) -> Option<u32> {
        let named = self.snapshot.interface_named(zone);
        let index = || self.snapshot.interface(zone.as_str()?.parse().ok()?);
        named.or_else(index).map(|interface| interface.index)
    }

    fn selected(&self, selector: &Selector) -> Result<Vec<(IpAddr, u32)>, (IpAddr, Reason)> {
        let patterns: Vec<IfName> =
            selector.interfaces.iter().map(|text| IfName::from_escaped(text)).collect();
        let matches = |interface: &&Interface| {
            let mut names = std::iter::once(&interface.name).chain(&interface.altnames);
            names.any(|name| patterns.iter().any(|pattern| glob(pattern.as_bytes(), name.as_bytes())))
        };
        let mut interfaces: Vec<&Interface> = self.snapshot.interfaces.iter().filter(matches).collect();
        interfaces.sort_by_key(|interface| interface.index);
        let found: Vec<(IpAddr, u32)> = interfaces
            .iter()
            .flat_map(|interface| interface.addresses.iter().map(move |address| (interface, address.address)))
            .filter(|(_, address)| selector.family.is_none_or(|family| Family::of(*address) == family))
            .filter(|(_, address)| selector.scope.has(AddrClass::of(*address)))
            .map(|(interface, address)| {
                let zoned = address.is_ipv6() && AddrClass::of(address) == AddrClass::Link;
                (address, if zoned { interface.index } else { 0 })
            })
            .collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let names = selector.interfaces.join(", ");
        let family = selector.family.map_or_else(String::new, |family| format!("{family} "));
        let scope = match selector.scope {
            Scope::Any => "",
            Scope::Global => "global ",
            Scope::Private => "private ",
            Scope::Link => "link-local ",
            Scope::Loopback => "loopback ",
        };
        let placeholder = selector.family.unwrap_or(Family::Ipv4).wildcard();
        let wanted = format!("{scope}{family}address");
        let article = if wanted.starts_with(['a', 'I']) { "an" } else { "a" };
        let label = patterns.iter().find_map(|pattern| self.snapshot.labelled(pattern));
        let reason = if let (true, Some((owner, labelled))) = (interfaces.is_empty(), label) {
            Reason {
                errno: Errno::ENODEV,
                code: Code::NO_SUCH_DEVICE,
                message: format!(
                    "{names} is a label of {} on {}, and not an interface",
                    labelled.address, owner.name
                ),
                hint: Some(format!("bind the address {}", labelled.address)),
            }
        } else if interfaces.is_empty() {
            Reason {
                errno: Errno::ENODEV,
                code: Code::NO_SUCH_DEVICE,
                message: format!("there is no interface {names}"),
                hint: Some(self.interfaces_here()),
            }
        } else {
            Reason {
                errno: Errno::EADDRNOTAVAIL,
                code: Code::ADDRESS_NOT_HERE,
                message: format!("no interface called {names} has {article} {wanted}"),
                hint: Some(
                    "`bindscope interfaces` shows the addresses; `scope` and `family` widen the choice"
                        .to_owned(),
                ),
            }
        };
        Err((placeholder, reason))
    }

    fn interfaces_here(&self) -> String {
        const SHOWN: usize = 8;
        let mut names: Vec<String> =
            self.snapshot.interfaces.iter().take(SHOWN).map(|interface| interface.name.to_string()).collect();
        if self.snapshot.interfaces.len() > SHOWN {
            names.push("...".to_owned());
        }
        format!("here are {}", names.join(", "))
    }

    /// Why the socket's address, device or family is not here. `None` also where the bind itself is to say so.
    fn not_here(&self, listener: &Listener, spec: &SocketSpec) -> Option<Reason> {
        if !matches!(listener.when_missing, WhenMissing::Wait | WhenMissing::Skip) {
            return None;
        }
        let Availability::Refused(Refusal { errno, code, .. }) =
            availability(spec, self.snapshot, &self.local, ALL_RIGHTS)
        else {
            return None;
        };
        let zone = self.snapshot.interface(spec.scope_id).map(|interface| &interface.name);
        let shown = text(spec.address, zone);
        let message = match (errno, code) {
            // A wait before bind takes care of it.
            (_, Code::ADDRESS_TENTATIVE) if listener.wait_dad => return None,
            (_, Code::ADDRESS_TENTATIVE) => format!("{shown} is still checked for duplicates"),
            (_, Code::ADDRESS_DUPLICATE) => format!("another host on the link has {shown} too"),
            (Errno::EAFNOSUPPORT, _) => {
                format!("{shown} cannot be bound: this host has no {}", spec.domain())
            }
            (Errno::ENODEV, _) => {
                let device = spec.device.as_ref().map(ToString::to_string).unwrap_or_default();
                format!("there is no interface {device}")
            }
            (Errno::EADDRNOTAVAIL, _) => format!("{shown} is not an address of this host"),
            _ => return None,
        };
        Some(Reason {
            errno,
            code,
            message,
            hint: Some("`bindscope interfaces` shows what is here".to_owned()),
        })
    }

    fn absent(&mut self, listener: &Listener, spec: SocketSpec, reason: Reason) {
        let Reason { errno, code, message, hint } = reason;
        let wait = match listener.when_missing {
            WhenMissing::Skip => {
                self.out.notes.push(Note { listener: listener.name.clone(), message });
                return;
            }
            WhenMissing::Wait => listener.wait_timeout,
            WhenMissing::Fail | WhenMissing::Freebind => Duration::ZERO,
        };
        let port = listener.ports.first().copied().unwrap_or(0);
        let spec = SocketSpec { port, ..spec };
        self.out.missing.push(Missing { spec, errno, code, message, hint, wait });
    }

    /// Tells that this and the further sockets of a listener are too many.
    fn over_limit(&mut self, spec: SocketSpec, limit: usize) {
        self.out.missing.push(Missing {
            message: format!(
                "on this host the profile comes to more than {limit} sockets; not all of them are opened"
            ),
            spec,
            errno: Errno::EMFILE,
            code: Code::TOO_MANY_SOCKETS,
            hint: Some("choose fewer interfaces or ports, or raise max_sockets in [limits]".to_owned()),
            wait: Duration::ZERO,
        });
    }
}

fn socket(listener: &Listener, address: IpAddr, scope_id: u32, port: u16) -> SocketSpec {
    SocketSpec {
        listener: listener.name.clone(),
        protocol: listener.protocol,
        address,
        port,
        scope_id,
        v6only: if address.is_ipv4() { V6Only::On } else { listener.v6only },
        device: listener.device.clone(),
        reuse_address: listener.reuse_address,
        reuse_port: listener.reuse_port.is_some(),
        freebind: listener.freebind || listener.when_missing == WhenMissing::Freebind,
        transparent: listener.transparent,
        backlog: listener.backlog,
        reply: listener.reply,
        idle_timeout: listener.idle_timeout,
        max_connections: listener.max_connections,
        wait_for_address: if listener.wait_dad { listener.wait_timeout } else { Duration::ZERO },
        skip_when_missing: listener.when_missing == WhenMissing::Skip,
        port_per_socket: listener.port_per_socket,
    }
}
