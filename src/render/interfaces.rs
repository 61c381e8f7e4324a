//! Interfaces and what bind forms cover, as text and as CSV.

use std::fmt::Write as _;
use std::io;

use anstyle::{AnsiColor, Style};

use super::row::Row;
use crate::model::coverage::{Coverage, Reach};
use crate::model::{AddrState, Exposure, Interface, InterfaceAddress, Snapshot};
use crate::text::{csv_escaped, csv_field, escape};

const BOLD: Style = Style::new().bold();
const WIDE: Style = AnsiColor::Yellow.on_default().bold();
const NARROW: Style = AnsiColor::Green.on_default();

/// `text` padded to `width`, then painted, so that colours do not disturb the columns.
fn cell(text: &str, width: usize, style: Style, color: bool) -> String {
    let padded = format!("{text:<width$}");
    if color { format!("{style}{padded}{style:#}") } else { padded }
}

/// How an exposure is painted; its word says the same without colour.
fn exposure_style(exposure: Exposure) -> Style {
    match exposure {
        Exposure::Global | Exposure::Private => WIDE,
        Exposure::Link => Style::new(),
        Exposure::None | Exposure::Loopback => NARROW,
    }
}

/// `up, running, loopback`.
fn flags(interface: &Interface) -> String {
    let flags = [
        (interface.up, "up"),
        (!interface.up, "down"),
        (interface.up && !interface.running, "no carrier"),
        (interface.loopback, "loopback"),
        (interface.point_to_point, "point-to-point"),
        (interface.multicast, "multicast"),
    ];
    flags.into_iter().filter(|flag| flag.0).map(|flag| flag.1).collect::<Vec<_>>().join(", ")
}

/// `permanent, tentative`; empty when the system does not say.
fn states(address: &InterfaceAddress) -> String {
    let mut out = Vec::new();
    join(&mut out, &address.state, ", ");
    String::from_utf8(out).unwrap_or_default()
}

fn join(out: &mut Vec<u8>, states: &[AddrState], between: &str) {
    for (number, state) in states.iter().enumerate() {
        if number > 0 {
            out.extend_from_slice(between.as_bytes());
        }
        let word = match state {
            AddrState::Permanent => "permanent",
            AddrState::Dynamic => "dynamic",
            AddrState::Tentative => "tentative",
            AddrState::Dadfailed => "dadfailed",
            AddrState::Optimistic => "optimistic",
            AddrState::Deprecated => "deprecated",
            AddrState::Temporary => "temporary",
            AddrState::Secondary => "secondary",
            AddrState::Nodad => "nodad",
        };
        out.extend_from_slice(word.as_bytes());
    }
}

/// The whole report for a person: interfaces with their addresses, then the bind forms.
#[must_use]
pub fn human(snapshot: &Snapshot, coverage: &[Coverage], width: usize, color: bool) -> String {
    let mut out = String::new();
    for interface in &snapshot.interfaces {
        let name = cell(&interface.name.to_string(), 0, BOLD, color);
        let _ = write!(out, "{}: {name}  {}", interface.index, flags(interface));
        if let Some(kind) = &interface.kind {
            let _ = write!(out, "  {}", escape(kind));
        }
        if let Some(mtu) = interface.mtu {
            let _ = write!(out, "  mtu {mtu}");
        }
        if let Some(mac) = &interface.mac {
            let _ = write!(out, "  {}", escape(mac));
        }
        if let Some(master) = interface.master {
            let name = snapshot.interface(master).map_or_else(|| master.to_string(), |i| i.name.to_string());
            let _ = write!(out, "  master {name}");
        }
        out.push('\n');
        if interface.addresses.is_empty() {
            out.push_str("    no address\n");
        }
        let texts: Vec<String> = interface
            .addresses
            .iter()
            .map(|address| format!("{}/{}", address.address, address.prefix))
            .collect();
        let column = texts.iter().map(String::len).max().unwrap_or(0);
        for (address, text) in interface.addresses.iter().zip(&texts) {
            let class =
                cell(&address.class.to_string(), 8, exposure_style(Exposure::of(address.class)), color);
            let mut line = format!("    {text:<column$}  {class}");
            let mut more = vec![states(address)];
            more.extend(address.scope_id.map(|id| format!("scope id {id}")));
            more.extend(address.peer.map(|peer| format!("peer {peer}")));
            let label = address.label.as_ref().filter(|label| **label != interface.name);
            more.extend(label.map(|label| format!("label {label}")));
            more.retain(|part| !part.is_empty());
            let _ = write!(line, "  {}", more.join("  "));
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    out.push('\n');
    forms(&mut out, coverage, width, color);
    out
}

/// The table of bind forms.
fn forms(out: &mut String, coverage: &[Coverage], width: usize, color: bool) {
    let names: Vec<String> = coverage
        .iter()
        .map(|form| match form.v6only {
            Some(false) => format!("{} dual-stack", form.bind),
            Some(true) if form.bind == "::" => format!("{} v6only", form.bind),
            _ => form.bind.clone(),
        })
        .collect();
    let column = names.iter().map(String::len).max().unwrap_or(0).max("IF YOU BIND".len());
    let _ = writeln!(out, "{:<column$}  {:<8}  {:<8}  YOU ARE REACHED AT", "IF YOU BIND", "IPv4", "IPv6");
    for (form, name) in coverage.iter().zip(&names) {
        let ipv4 = cell(&form.exposure.ipv4.to_string(), 8, exposure_style(form.exposure.ipv4), color);
        let ipv6 = cell(&form.exposure.ipv6.to_string(), 8, exposure_style(form.exposure.ipv6), color);
        let room = width.saturating_sub(column + 22).max(20);
        let _ = writeln!(out, "{name:<column$}  {ipv4}  {ipv6}  {}", reach_text(form, room));
    }
}

fn reach_text(form: &Coverage, room: usize) -> String {
    let through = match form.reach {
        Reach::AnyInterface => "through any interface".to_owned(),
        Reach::ThisHost => "from this host only".to_owned(),
        Reach::Nobody => {
            return "nothing: ".to_owned() + form.because.last().map_or("no such address", String::as_str);
        }
        Reach::Link => {
            let names: Vec<String> = form.interfaces.iter().map(ToString::to_string).collect();
            format!("from the link of {} only", names.join(", "))
        }
    };
    let count = form.addresses.len();
    match form.addresses.as_slice() {
        [only] if *only == form.bind => through,
        all => {
            // All addresses where they fit, else how many: an address is never cut.
            let list = all.join(" ");
            let addresses =
                if list.len() + through.len() + 2 <= room { list } else { format!("all {count} addresses") };
            format!("{addresses}, {through}")
        }
    }
}

/// One row for each address, and one for each interface that has none.
///
/// # Errors
/// When the writer fails.
pub fn csv(snapshot: &Snapshot, mut out: impl io::Write) -> io::Result<()> {
    out.write_all(
        b"index,name,up,running,loopback,point_to_point,multicast,kind,mtu,mac,master,address,prefix,family,class,scope_id,label,peer,broadcast,state\r\n",
    )?;
    fn text<T: ToString>(value: Option<T>) -> String {
        value.map_or_else(String::new, |value| csv_field(&value.to_string()))
    }
    // Display of a name is escaped already.
    fn name(value: &crate::model::IfName) -> String {
        csv_escaped(value.to_string())
    }
    let mut row = Row::default();
    for interface in &snapshot.interfaces {
        let its_name = name(&interface.name);
        let head = format!(
            "{},{its_name},{},{},{},{},{},{},{},{},{}",
            interface.index,
            interface.up,
            interface.running,
            interface.loopback,
            interface.point_to_point,
            interface.multicast,
            text(interface.kind.as_ref()),
            text(interface.mtu),
            text(interface.mac.as_ref()),
            text(interface.master),
        );
        if interface.addresses.is_empty() {
            row.text(&head);
            row.text(",,,,,,,,");
            row.end(&mut out)?;
        }
        for address in &interface.addresses {
            row.text(&head);
            row.address(Some(address.address.to_canonical()));
            row.number(Some(address.prefix));
            row.family(address.family);
            row.text(address.class.as_str());
            row.number(address.scope_id);
            match &address.label {
                Some(label) if *label == interface.name => row.text(&its_name),
                label => row.text(&label.as_ref().map_or_else(String::new, name)),
            }
            row.address(address.peer);
            row.address(address.broadcast);
            row.field(|out| join(out, &address.state, " "));
            row.end(&mut out)?;
        }
    }
    Ok(())
}
