//! `bindscope connections`.

use super::format_args::{FormatArgs, Formats};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::SystemTime;

use super::{Context, Exit, Failure};
use crate::attribute::{AddressBook, KernelIngress, Raw, attribute};
use crate::audit::served::{Connection, Connections, listener_of};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::model::{Document, Evidence, HostReport, IfName, Protocol, Schema, SocketState};
use crate::record::event::ingress_key;
use crate::record::time::Time;
use crate::render;
use crate::sys::{self, InventoryOptions};

/// Arguments of `bindscope connections`.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!(
    "Examples:",
    "\n  bindscope connections             every connection of the servers here",
    "\n  bindscope connections --port 443  of one port",
    "\n  bindscope connections --json      for programs",
))]
pub struct Args {
    #[command(flatten)]
    format: FormatArgs<Format>,
    /// Write them to this file
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
    /// Only connections to this local port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Do not set options on sockets of other programs, not even temporarily. Interfaces that need such an option stay
    /// unknown
    #[arg(long)]
    no_touch: bool,
}

/// Format of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text for people
    Human,
    /// One JSON document
    Json,
    /// One row for each connection
    Csv,
}

impl Formats for Format {
    const DEFAULT: Format = Format::Human;
    const JSON: Format = Format::Json;
}

/// Entry point of `bindscope connections`.
///
/// # Errors
/// If the output cannot be written.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let mut inventory = sys::inventory(&InventoryOptions { owners: false, ..InventoryOptions::default() });
    let mut because = inventory.incomplete_because;
    let listening: BTreeSet<u16> = inventory
        .sockets
        .iter()
        .filter(|socket| socket.view.protocol == Protocol::Tcp && socket.state == SocketState::Listen)
        .map(|socket| socket.view.port)
        .collect();
    let wanted = |port: u16| listening.contains(&port) && args.port.is_none_or(|only| only == port);
    let found = sys::connections(&wanted, !args.no_touch);
    because.extend(found.incomplete_because);
    let snapshot = sys::snapshot();
    let book = snapshot.as_ref().ok().map(AddressBook::new);
    if let Ok(snapshot) = &snapshot {
        super::overview::expose(&mut inventory.sockets, snapshot);
    }
    let mut by_ingress: BTreeMap<IfName, usize> = BTreeMap::new();
    let mut connections = Vec::new();
    for one in found.list {
        let listener = listener_of(one.local.ip(), one.local.port(), one.device_index, &inventory.sockets);
        let name = listener.map(|listener| listener.view.to_string()).unwrap_or_default();
        let (kernel, unknown) = match &one.ingress {
            Ok((index, name)) => (Some(KernelIngress { index: *index, name: name.as_ref() }), None),
            Err(reason) => (None, Some((*reason).to_owned())),
        };
        let raw = Raw { listener: &name, protocol: Protocol::Tcp, peer: one.peer, local: one.local, kernel };
        let arrival = attribute(&raw, book.as_ref());
        let key = match (&arrival.ingress, arrival.ingress.evidence) {
            (ingress, Evidence::Kernel | Evidence::ScopeId) => {
                ingress_key(ingress.name.as_ref(), ingress.index)
            }
            _ => ingress_key(None, None),
        };
        *by_ingress.entry(key).or_default() += 1;
        connections.push(Connection {
            socket: listener.map(|listener| listener.view.clone()),
            arrival,
            ingress_unknown_because: unknown,
            inode: one.inode,
            owners: one.owners,
        });
    }
    let host = match snapshot {
        Ok(snapshot) => snapshot.host,
        Err(error) => {
            because.push(error.to_string());
            crate::model::Host::default()
        }
    };
    let time = Time::new(SystemTime::now()).to_string();
    let report = HostReport::new(host, because, Connections { time, connections, by_ingress });
    let document = Document::new(Schema::Connections, report);
    let bytes = match args.format.get() {
        Format::Human => {
            context.show(&render::connections::human(&document), args.output.as_deref())?;
            Vec::new()
        }
        Format::Csv => render::connections::csv(&document).into_bytes(),
        Format::Json => render::connections::json(&document).map_err(|error| {
            Failure::new(Exit::Internal, Diagnostic::error(Code::INTERNAL, error.to_string()))
        })?,
    };
    if args.format.get() != Format::Human {
        context.emit(&bytes, args.output.as_deref())?;
    }
    // A part that cannot be read makes the result undecided; a connection without an interface states that itself.
    Ok(if inventory.all_sockets && found.all { Exit::Success } else { Exit::Undecided })
}
