//! `bindscope why`: what answers at an address of this host, and why not.

mod target;

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use self::target::Target;
use super::format_args::{FormatArgs, Formats};
use super::steps::Question;
use super::{Context, Exit, Failure, target_host};
use crate::audit::answers;
use crate::code::Code;
use crate::model::addr::{needs_zone, socket_addr};
use crate::model::{
    AddrState, Document, HostReport, IfName, Interface, ListeningSocket, Outcome, Owners, Protocol, Schema,
    Snapshot, SocketView, Source,
};
use crate::plan::local_table::{Ipv4Kind, LocalAddresses};
use crate::plan::predict::{Foreign, Holder, predict_binds};
use crate::plan::reach::{Destination, Reach, predict_reach};
use crate::probe::attempt::{self, Attempt};
use crate::probe::classify::outcome_of;
use crate::profile::duration;
use crate::report::steps::PathReport;
use crate::why::{self, Diagnosis, Elsewhere, Facts, Ipv6, Observed, Place, ResolvedBy, Tried};
use crate::{render, sys};

/// Arguments of `bindscope why`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bindscope why localhost:3000        why a client on this host cannot connect\n  \
    bindscope why 5432                  what answers on the port, at localhost\n  bindscope why 192.168.1.10:8080     an \
    address of this host\n  bindscope why http://localhost:3000 --json"
)]
pub struct Args {
    /// A port, a name or an address of this host with a port, or a URL. A name is looked up as programs here do
    #[arg(value_name = "TARGET")]
    target: String,
    /// The program that is expected to answer, such as nginx
    #[arg(long, value_name = "NAME")]
    process: Option<String>,
    /// Follow the connection of a client on this host to each address, step by step
    #[arg(long, hide_short_help = true)]
    steps: bool,
    /// Look only; make no connection
    #[arg(long)]
    no_connect: bool,
    #[command(flatten)]
    format: FormatArgs<Format>,
    /// Write to FILE in place of standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
    /// Time limit of a connection
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::argument, help_heading = "Limits")]
    connect_timeout: Duration,
}

/// Formats of a diagnosis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text for people
    Human,
    /// The document of schema bindscope.why/1
    Json,
}

impl Formats for Format {
    const DEFAULT: Format = Format::Human;
    const JSON: Format = Format::Json;
}

/// The body of the document.
#[derive(Serialize)]
struct Body<'a> {
    target: &'a str,
    resolved_by: ResolvedBy,
    addresses: Vec<Entry<'a>>,
    /// Clients of other hosts that get no answer, and why.
    lost_answers: &'a [String],
    diagnosis: &'a [Diagnosis],
    /// The path to each address of this host; null unless asked for.
    steps: Option<&'a [PathReport]>,
}

#[derive(Serialize)]
struct Entry<'a> {
    address: String,
    port: u16,
    protocol: Protocol,
    local: bool,
    socket: Option<&'a SocketView>,
    owners: Option<&'a Owners>,
    predicted: Predicted,
    observed: Option<Observed>,
}

#[derive(Serialize)]
struct Predicted {
    outcome: Option<Outcome>,
    why: Code,
}

/// Runs `bindscope why`.
///
/// # Errors
/// Exit 2 for a target that cannot be read, 4 when this host's network cannot be read, 5 when the output fails.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let target = target::parse(&args.target)?;
    let host = target_host::here()?;
    let options = sys::InventoryOptions { socket_options: true, ..sys::InventoryOptions::default() };
    let mut inventory = super::progress::waiting("reading sockets", context, || sys::inventory(&options));
    super::overview::expose(&mut inventory.sockets, &host.snapshot);
    let (resolved_by, addresses) = target::resolve(&target, &host.snapshot)?;
    let filters = host.snapshot.packet_filters.clone().unwrap_or_default();
    let mut facts = Facts {
        target: args.target.trim().to_owned(),
        name: target.name.clone(),
        port: target.port,
        protocol: target.protocol,
        resolved_by,
        addresses: Vec::new(),
        sockets: std::mem::take(&mut inventory.sockets),
        elsewhere: Vec::new(),
        ipv6: ipv6(&host.snapshot),
        ipv6_off: without_ipv6(&host.snapshot),
        host_name: host.snapshot.host.name.clone(),
        loopback_up: host.snapshot.interfaces.iter().all(|interface| !interface.loopback || interface.up),
        filters: filters.tables,
        filters_unknown: filters.unknown_because,
        lost_answers: Vec::new(),
        expected: args.process.clone(),
    };
    let local = LocalAddresses::new(&host.snapshot);
    let serving = facts.serving().map(|(_, socket)| socket);
    facts.lost_answers =
        answers::lost(&host.snapshot, serving, &local).into_iter().map(|one| one.message).collect();
    facts.addresses = predict(&facts, &addresses, &host.snapshot, &local);
    facts.sockets.extend(others_on_port(&facts));
    if !args.no_connect {
        connect(&mut facts.addresses, &target, args.connect_timeout, &host.snapshot);
    }
    if facts.serving().next().is_none() && facts.addresses.iter().any(|one| one.local()) {
        facts.elsewhere =
            super::progress::waiting("reading other network namespaces", context, || elsewhere(&target));
    }
    let diagnosis = why::diagnose(&facts);
    let paths = if args.steps { paths(&facts, &host.snapshot)? } else { Vec::new() };
    let text = match args.format.get() {
        Format::Human => {
            let color = context.color && args.output.is_none();
            let mut page = render::why::page(&facts, &diagnosis, color, context.width, context.verbose > 0);
            for path in &paths {
                page.push('\n');
                page.push_str(&render::steps::human(path, color, context.width));
            }
            page
        }
        Format::Json => {
            let body = Body {
                target: &facts.target,
                resolved_by,
                addresses: facts.addresses.iter().map(|one| entry(&facts, one)).collect(),
                lost_answers: &facts.lost_answers,
                diagnosis: &diagnosis,
                steps: args.steps.then_some(paths.as_slice()),
            };
            let report = HostReport {
                complete: inventory.complete,
                incomplete_because: inventory.incomplete_because,
                host: host.snapshot.host,
                body,
            };
            serde_json::to_string_pretty(&Document::new(Schema::Why, report)).unwrap_or_default() + "\n"
        }
    };
    match args.format.get() {
        Format::Human => context.show(&text, args.output.as_deref())?,
        Format::Json => context.emit(text.as_bytes(), args.output.as_deref())?,
    }
    Ok(match (why::decided(&facts), diagnosis.is_empty()) {
        (false, _) => Exit::Undecided,
        (true, true) => Exit::Success,
        (true, false) => Exit::Finding,
    })
}

fn entry<'a>(facts: &'a Facts, tried: &'a Tried) -> Entry<'a> {
    let socket = facts.socket_of(tried);
    Entry {
        address: tried.text(),
        port: facts.port,
        protocol: facts.protocol,
        local: tried.local(),
        socket: socket.map(|socket| &socket.view),
        owners: socket.and_then(|socket| socket.owners.as_ref()),
        predicted: Predicted { outcome: tried.predicted, why: tried.because },
        observed: tried.observed,
    }
}

/// The path of a connection from this host to each of its addresses.
fn paths(facts: &Facts, snapshot: &Snapshot) -> Result<Vec<PathReport>, Failure> {
    let foreign: Vec<Foreign> = facts
        .serving()
        .map(|(_, socket)| Foreign::of(socket, format!("{} ({})", why::program(socket), socket.view)))
        .collect();
    let rights =
        crate::plan::bind_check::Rights { uid: u32::MAX, privileged_ports: false, transparent: false };
    let local = facts.addresses.iter().filter(|tried| tried.local());
    let of = |tried: &Tried| {
        let zone = tried.zone.as_ref().and_then(|name| snapshot.interface_named(name));
        let to = Destination { address: tried.address, zone: zone.map_or(0, |interface| interface.index) };
        let question = Question {
            source: Source::Host,
            to,
            destination: tried.text(),
            service: (facts.protocol, facts.port),
        };
        question.follow(snapshot, &[], &foreign, rights)
    };
    local.map(of).collect()
}

/// What the plan predicts for a client on this host at each address.
fn predict(
    facts: &Facts,
    addresses: &[Destination],
    snapshot: &Snapshot,
    local: &LocalAddresses,
) -> Vec<Tried> {
    let serving: Vec<usize> = facts.serving().map(|(index, _)| index).collect();
    let foreign: Vec<Foreign> = serving
        .iter()
        .filter_map(|index| facts.sockets.get(*index))
        .map(|socket| Foreign::of(socket, why::program(socket)))
        .collect();
    let rights =
        crate::plan::bind_check::Rights { uid: u32::MAX, privileged_ports: false, transparent: false };
    let binds = predict_binds(&[], snapshot, rights, &foreign);
    let matrix = predict_reach(
        &binds,
        snapshot,
        local,
        vec![Source::Host],
        addresses.to_vec(),
        vec![(facts.protocol, facts.port)],
    );
    addresses
        .iter()
        .enumerate()
        .map(|(index, to)| {
            let cell = matrix.cells.iter().find(|cell| cell.destination == index);
            let taker = cell.and_then(|cell| cell.predicted.takers.first()).and_then(|taker| match taker {
                Holder::Foreign(index) => serving.get(*index).copied(),
                Holder::Own(_) => None,
            });
            let zone = snapshot.interface(to.zone).map(|interface| interface.name.clone());
            Tried {
                address: to.address,
                zone: zone.filter(|_| needs_zone(to.address)),
                place: place(to, snapshot, local),
                owner: owner(to, snapshot),
                predicted: cell.and_then(|cell| cell.predicted.outcome),
                because: cell.map_or(Code::REACH_UNKNOWN, |cell| cell.predicted.why),
                rule: cell.and_then(|cell| rule_of(&cell.predicted)),
                translated: cell.and_then(|cell| translated(&cell.predicted)),
                socket: taker,
                observed: None,
            }
        })
        .collect()
}

/// The rule that decides about a connection, or translates its destination.
fn rule_of(predicted: &Reach) -> Option<String> {
    let filtered = predicted.filtered.as_deref()?;
    let decided = filtered.decision.as_ref().map(|decision| decision.by.to_string());
    decided.or_else(|| filtered.translated.as_ref()?.by.as_ref().map(ToString::to_string))
}

/// Where a rule sends the connection.
fn translated(predicted: &Reach) -> Option<String> {
    let to = predicted.filtered.as_deref()?.translated.as_ref()?;
    Some(SocketAddr::new(to.address, to.port).to_string())
}

/// Where an address belongs.
fn place(to: &Destination, snapshot: &Snapshot, local: &LocalAddresses) -> Place {
    if is_local(to, local) {
        return Place::Here;
    }
    let address = to.address.to_canonical();
    if address.is_multicast() {
        return Place::Multicast;
    }
    if let IpAddr::V4(v4) = address
        && local.ipv4(v4, None) == Ipv4Kind::Broadcast
    {
        return Place::Broadcast;
    }
    let Some((interface, found)) = snapshot.addresses().find(|(_, one)| one.address == address) else {
        return Place::Elsewhere;
    };
    if needs_zone(address) && to.zone != interface.index {
        Place::OtherLink(interface.name.clone())
    } else if found.is(AddrState::Tentative) && !found.is(AddrState::Optimistic) {
        Place::Tentative(interface.name.clone())
    } else {
        Place::Elsewhere
    }
}

/// Whether an address is one of this host. The unspecified address stands for loopback in connect(2).
fn is_local(to: &Destination, local: &LocalAddresses) -> bool {
    match to.address.to_canonical() {
        IpAddr::V4(v4) => v4.is_unspecified() || matches!(local.ipv4(v4, None), Ipv4Kind::Local(_)),
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6 == Ipv6Addr::LOCALHOST
                || local.owner(v6.into(), (to.zone > 0).then_some(to.zone)).is_some()
        }
    }
}

fn owner(to: &Destination, snapshot: &Snapshot) -> Option<IfName> {
    let address = to.address.to_canonical();
    let found = snapshot
        .addresses()
        .find(|(_, one)| one.address == address)
        .map(|(interface, _)| interface.name.clone());
    found.or_else(|| {
        let loopback = address.is_loopback() || address.is_unspecified();
        snapshot
            .interfaces
            .iter()
            .find(|interface| interface.loopback && loopback)
            .map(|interface| interface.name.clone())
    })
}

/// Sockets on the port that do not serve: bound, connected, in TIME-WAIT.
fn others_on_port(facts: &Facts) -> Vec<ListeningSocket> {
    let wanted = [(Protocol::Tcp, facts.port), (Protocol::Udp, facts.port)].into();
    sys::port_holders(&wanted).into_iter().map(|holder| holder.socket).collect()
}

/// Connects to each address of this host, once.
fn connect(addresses: &mut [Tried], target: &Target, patience: Duration, snapshot: &Snapshot) {
    if target.protocol != Protocol::Tcp {
        return;
    }
    let index_of = |zone: &Option<IfName>| {
        let found = zone
            .as_ref()
            .and_then(|zone| snapshot.interfaces.iter().find(|interface| interface.name == *zone));
        found.map_or(0, |interface| interface.index)
    };
    let local: Vec<usize> =
        addresses.iter().enumerate().filter(|(_, one)| one.local()).map(|(index, _)| index).collect();
    for index in local {
        let Some(tried) = addresses.get_mut(index) else { continue };
        let to = socket_addr(tried.address, target.port, index_of(&tried.zone));
        let attempt = Attempt { protocol: Protocol::Tcp, to, patience };
        let begun = Instant::now();
        // Closed in an orderly way: a reset would be an error that some servers do not survive.
        let result =
            attempt::client(&attempt, None).and_then(|client| client.connect_timeout(&to.into(), patience));
        let took = begun.elapsed();
        let (outcome, errno) = match result {
            Ok(()) => (Outcome::Accepted, None),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => (Outcome::Timeout, None),
            Err(error) => {
                let errno = sys::errno_of(&error);
                (outcome_of(errno), Some(errno))
            }
        };
        let connect_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        tried.observed = Some(Observed { outcome, errno, connect_us });
    }
}

/// Sockets that serve the port in other network namespaces, as far as they can be read.
fn elsewhere(target: &Target) -> Vec<Elsewhere> {
    let (namespaces, _) = sys::namespaces();
    namespaces
        .iter()
        .filter(|namespace| !namespace.current)
        .filter_map(|namespace| {
            let options = sys::InventoryOptions::default();
            let inventory = sys::in_namespace(namespace, || sys::inventory(&options))
                .ok()
                .or_else(|| sys::inventory_from_outside(namespace))?;
            let socket = inventory.sockets.into_iter().find(|socket| {
                socket.view.port == target.port
                    && socket.view.protocol == target.protocol
                    && why::serves(socket)
            })?;
            let container = socket.known_owners().iter().find_map(|owner| owner.container.clone());
            let name = match (container, &namespace.name) {
                (Some(container), _) => format!("the container {}", crate::escape::escape(&container)),
                (None, Some(name)) => format!("the network namespace {}", crate::escape::escape(name)),
                (None, None) => format!("the network namespace {}", namespace.inode),
            };
            Some(Elsewhere { namespace: name, socket })
        })
        .collect()
}

/// Whether IPv6 can be used, and which of its switches is off.
fn ipv6(snapshot: &Snapshot) -> Ipv6 {
    let all_off = snapshot.settings.get("net.ipv6.conf.all.disable_ipv6") == Some(&1);
    let loopback = snapshot.interfaces.iter().find(|interface| interface.loopback);
    let loopback_off = loopback.is_some_and(ipv6_is_off);
    if !snapshot.ipv6_available {
        Ipv6::NoKernelSupport
    } else if snapshot.addresses().any(|(_, one)| one.address == IpAddr::from(Ipv6Addr::LOCALHOST)) {
        Ipv6::Available
    } else if all_off && snapshot.addresses().all(|(_, one)| one.address.is_ipv4()) {
        Ipv6::DisabledEverywhere
    } else if loopback_off {
        Ipv6::DisabledOnLoopback
    } else {
        Ipv6::NoLoopbackAddress
    }
}

fn ipv6_is_off(interface: &Interface) -> bool {
    interface.settings.get("ipv6.disable_ipv6") == Some(&1)
}

/// Interfaces of the network that have no IPv6 because a setting turns it off.
fn without_ipv6(snapshot: &Snapshot) -> Vec<IfName> {
    let off = |interface: &&Interface| interface.up && !interface.loopback && ipv6_is_off(interface);
    snapshot.interfaces.iter().filter(off).map(|interface| interface.name.clone()).collect()
}
