//! Interfaces and the coverage of bind forms, as text and as CSV.

use std::borrow::Cow;
use std::io::{self, Write as _};

use anstyle::Style;

use super::csv::Row;
use crate::escape::{csv_escaped, csv_field, escape, push_bytes};
use crate::model::bind_forms::{Coverage, Reach};
use crate::model::{AddrState, Exposure, Interface, InterfaceAddress, Snapshot, addr, known_index};
use crate::plan::bind_forms;
use crate::render::style::{BOLD, GREEN, YELLOW};

const WIDE: Style = YELLOW.bold();
const NARROW: Style = GREEN;

/// Appends what `text` writes, padded to `width` characters and then coloured, so that escape sequences do not disturb
/// the columns.
fn cell(out: &mut Vec<u8>, width: usize, style: Style, color: bool, text: impl FnOnce(&mut Vec<u8>)) {
    if color {
        let _ = write!(out, "{style}");
    }
    let start = out.len();
    text(out);
    let written = out[start..].iter().filter(|byte| !matches!(byte, 0x80..=0xbf)).count();
    out.resize(out.len() + width.saturating_sub(written), b' ');
    if color {
        let _ = write!(out, "{style:#}");
    }
}

/// [`cell`] of the name of an exposure or class, in its colour.
fn word(out: &mut Vec<u8>, word: &str, exposure: Exposure, color: bool) {
    cell(out, 8, exposure_style(exposure), color, |out| out.extend_from_slice(word.as_bytes()));
}

/// Writes a line without trailing blanks, and starts the next one.
fn end_line(line: &mut Vec<u8>, out: &mut impl io::Write) -> io::Result<()> {
    let length = std::str::from_utf8(line).map_or(line.len(), |text| text.trim_end().len());
    line.truncate(length);
    line.push(b'\n');
    out.write_all(line)?;
    line.clear();
    Ok(())
}

/// Colour of an exposure; its name has the same information.
fn exposure_style(exposure: Exposure) -> Style {
    match exposure {
        Exposure::Global | Exposure::Private => WIDE,
        Exposure::Link => Style::new(),
        Exposure::None | Exposure::Loopback => NARROW,
    }
}

/// Format `up, running, loopback`.
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

/// The whole report for people: interfaces with their addresses, then the bind forms. It is written incrementally,
/// because there may be ten thousand addresses.
///
/// # Errors
/// If the writer fails.
pub fn human(snapshot: &Snapshot, width: usize, color: bool, mut out: impl io::Write) -> io::Result<()> {
    let mut line = Vec::new();
    for interface in &snapshot.interfaces {
        match known_index(interface.index) {
            Some(index) => drop(write!(line, "{index}: ")),
            None => line.extend_from_slice(b"?: "),
        }
        cell(&mut line, 0, BOLD, color, |out| push_bytes(out, interface.name.as_bytes()));
        let _ = write!(line, "  {}", flags(interface));
        if let Some(kind) = &interface.kind {
            let _ = write!(line, "  {}", escape(kind.as_str()));
        }
        if let Some(mtu) = interface.mtu {
            let _ = write!(line, "  mtu {mtu}");
        }
        if let Some(mac) = &interface.mac {
            let _ = write!(line, "  {}", escape(mac));
        }
        if let Some(master) = interface.master {
            let name = snapshot.interface(master).map_or_else(|| master.to_string(), |i| i.name.to_string());
            let _ = write!(line, "  master {name}");
        }
        for altname in &interface.altnames {
            let _ = write!(line, "  altname {altname}");
        }
        line.push(b'\n');
        if interface.addresses.is_empty() {
            line.extend_from_slice(b"    no address\n");
        }
        out.write_all(&line)?;
        line.clear();
        let mut column = 0;
        for address in &interface.addresses {
            network(&mut line, address);
            column = column.max(line.len());
            line.clear();
        }
        for address in &interface.addresses {
            line.extend_from_slice(b"    ");
            cell(&mut line, column, Style::new(), false, |out| network(out, address));
            line.extend_from_slice(b"  ");
            word(&mut line, address.class.as_str(), Exposure::of(address.class), color);
            line.extend_from_slice(b"  ");
            details(&mut line, interface, address);
            end_line(&mut line, &mut out)?;
        }
    }
    out.write_all(b"\n")?;
    forms(snapshot, width, color, out)
}

/// Format `192.0.2.1/24`.
fn network(out: &mut Vec<u8>, address: &InterfaceAddress) {
    addr::push(out, address.address);
    out.push(b'/');
    out.extend_from_slice(itoa::Buffer::new().format(address.prefix).as_bytes());
}

/// The text after an address and its class: states and rare properties, separated by two blanks.
fn details(line: &mut Vec<u8>, interface: &Interface, address: &InterfaceAddress) {
    join(line, &address.state, ", ");
    let mut blanks = if address.state.is_empty() { "" } else { "  " };
    let mut blanks = || std::mem::replace(&mut blanks, "  ");
    if let Some(id) = address.scope_id {
        let _ = write!(line, "{}scope id {id}", blanks());
    }
    if let Some(peer) = address.peer {
        let _ = write!(line, "{}peer {peer}", blanks());
    }
    if let Some(label) = address.label.as_ref().filter(|label| **label != interface.name) {
        let _ = write!(line, "{}label {label}", blanks());
    }
}

/// Appends the name of a form in the table.
fn called(out: &mut Vec<u8>, bind: &str, v6only: Option<bool>) {
    out.extend_from_slice(bind.as_bytes());
    match v6only {
        Some(false) => out.extend_from_slice(b" dual-stack"),
        Some(true) if bind == "::" => out.extend_from_slice(b" v6only"),
        _ => {}
    }
}

/// The table of bind forms.
fn forms(snapshot: &Snapshot, width: usize, color: bool, mut out: impl io::Write) -> io::Result<()> {
    let mut line = Vec::new();
    let mut column = "IF YOU BIND".len();
    bind_forms::each_bind(snapshot, |bind, v6only| {
        called(&mut line, bind, v6only);
        column = column.max(line.len());
        line.clear();
    });
    writeln!(out, "{:<column$}  {:<8}  {:<8}  YOU ARE REACHED AT", "IF YOU BIND", "IPv4", "IPv6")?;
    let room = width.saturating_sub(column + 22).max(20);
    bind_forms::each_form(snapshot, false, |form| {
        cell(&mut line, column, Style::new(), false, |out| called(out, form.bind, form.v6only));
        for exposure in [form.exposure.ipv4, form.exposure.ipv6] {
            line.extend_from_slice(b"  ");
            word(&mut line, exposure.as_str(), exposure, color);
        }
        line.extend_from_slice(b"  ");
        line.extend_from_slice(reach_text(form, room).as_bytes());
        line.push(b'\n');
        out.write_all(&line)?;
        line.clear();
        Ok(())
    })
}

fn reach_text(form: &Coverage<'_>, room: usize) -> Cow<'static, str> {
    let through = match form.reach {
        Reach::AnyInterface => Cow::Borrowed("through any interface"),
        Reach::ThisHost => Cow::Borrowed("from this host only"),
        Reach::NoClient => {
            return ("nothing: ".to_owned() + form.because.last().map_or("no such address", String::as_str))
                .into();
        }
        Reach::Link => {
            let names: Vec<String> = form.interfaces.iter().map(ToString::to_string).collect();
            format!("from the link of {} only", names.join(", ")).into()
        }
    };
    let count = form.addresses.len();
    match form.addresses {
        [only] if *only == form.bind => through,
        all => {
            // All addresses if they fit, otherwise their number: an address is never truncated.
            let length = all.iter().map(|address| address.len() + 1).sum::<usize>().saturating_sub(1);
            let addresses = if length + through.len() + 2 <= room {
                all.join(" ")
            } else {
                format!("all {count} addresses")
            };
            format!("{addresses}, {through}").into()
        }
    }
}

/// One row for each address, and one for each interface without an address.
///
/// # Errors
/// If the writer fails.
pub fn csv(snapshot: &Snapshot, mut out: impl io::Write) -> io::Result<()> {
    out.write_all(
        b"index,name,up,running,loopback,point_to_point,multicast,kind,mtu,mac,master,address,prefix,family,class,scope_id,label,peer,broadcast,state\r\n",
    )?;
    fn text<T: ToString>(value: Option<T>) -> String {
        value.map_or_else(String::new, |value| csv_field(&value.to_string()))
    }
    // Display of a name is already escaped.
    fn name(value: &crate::model::IfName) -> String {
        csv_escaped(value.to_string())
    }
    let mut row = Row::default();
    for interface in &snapshot.interfaces {
        let its_name = name(&interface.name);
        let head = format!(
            "{},{its_name},{},{},{},{},{},{},{},{},{}",
            known_index(interface.index).map_or_else(String::new, |index| index.to_string()),
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
