//! The summary that `bindscope` prints without a command. It fits on one screen.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::model::{Exposure, Interface, Inventory, NotExamined, Protocol, Snapshot, addr, filters};
use crate::render::style::BOLD;
use crate::render::table;

/// Maximum number of interfaces, and of addresses per interface.
const MOST_INTERFACES: usize = 8;
const MOST_ADDRESSES: usize = 4;
/// Maximum number of ports per exposure.
const MOST_PORTS: usize = 8;

/// The page.
#[must_use]
pub fn page(snapshot: &Snapshot, inventory: &Inventory, not_examined: &NotExamined, color: bool) -> String {
    let title = |text: &str| if color { format!("{BOLD}{text}{BOLD:#}\n") } else { format!("{text}\n") };
    let mut out = title("Interfaces of this host");
    let shown = || snapshot.interfaces.iter().take(MOST_INTERFACES);
    let column = shown().map(|interface| table::width(&interface.name.to_string())).max().unwrap_or(0);
    for interface in shown() {
        let state = if interface.up { "up  " } else { "down" };
        let name = table::padded(&interface.name.to_string(), column);
        let _ = writeln!(out, "  {name}  {state}  {}", addresses(interface));
    }
    more(&mut out, snapshot.interfaces.len(), MOST_INTERFACES, "bindscope interfaces");
    out.push('\n');
    out.push_str(&title("What listens here, by exposure"));
    for exposure in [Exposure::Global, Exposure::Private, Exposure::Link, Exposure::Loopback, Exposure::None]
    {
        // The families in which a port has its widest exposure.
        let mut ports: BTreeMap<(Protocol, u16), [bool; 2]> = BTreeMap::new();
        for socket in inventory.sockets.iter().filter(|one| one.view.exposure.widest() == exposure) {
            let families = ports.entry((socket.view.protocol, socket.view.port)).or_default();
            families[0] |= socket.view.exposure.ipv4 == exposure;
            families[1] |= socket.view.exposure.ipv6 == exposure;
        }
        if ports.is_empty() {
            continue;
        }
        let list: Vec<String> = ports
            .iter()
            .take(MOST_PORTS)
            .map(|((protocol, port), families)| match families {
                [true, false] => format!("{protocol}/{port} (IPv4)"),
                [false, true] => format!("{protocol}/{port} (IPv6)"),
                _ => format!("{protocol}/{port}"),
            })
            .collect();
        let rest = ports.len().saturating_sub(MOST_PORTS);
        let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        let _ = writeln!(out, "  {:<16}  {}{rest}", exposure.words(), list.join(" "));
    }
    if inventory.sockets.is_empty() {
        out.push_str(if inventory.complete { "  nothing\n" } else { "  not known\n" });
    }
    if !inventory.complete {
        out.push_str("  some sockets could not be read; `bindscope audit` says why\n");
    }
    let mut parts: Vec<String> = snapshot.packet_filters.iter().filter_map(filters::seen).collect();
    parts.extend(not_examined.counts());
    parts.extend(not_examined.program_count());
    if !parts.is_empty() {
        let _ = writeln!(out, "  Not examined: {}.", parts.join(", "));
    }
    out.push('\n');
    out.push_str(&title("Next"));
    out.push_str("  bindscope interfaces   every address, and what binding each would cover\n");
    out.push_str(
        "  bindscope listen       open a few ports and show the ingress interface of each connection\n",
    );
    out.push_str("  bindscope audit        judge what listens here already\n");
    out
}

fn addresses(interface: &Interface) -> String {
    let mut texts: Vec<String> = interface
        .addresses
        .iter()
        .take(MOST_ADDRESSES)
        .map(|address| addr::text(address.address, Some(&interface.name)))
        .collect();
    let rest = interface.addresses.len().saturating_sub(MOST_ADDRESSES);
    if rest > 0 {
        texts.push(format!("and {rest} more"));
    }
    if texts.is_empty() { "no address".to_owned() } else { texts.join("  ") }
}

fn more(out: &mut String, count: usize, most: usize, command: &str) {
    if let Some(rest) = count.checked_sub(most).filter(|rest| *rest > 0) {
        let _ = writeln!(out, "  and {rest} more: {command}");
    }
}
