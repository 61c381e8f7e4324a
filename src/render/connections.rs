//! Established connections for people and as CSV.

use std::fmt::Write as _;

use crate::audit::served::{Connection, Connections};
use crate::escape::{csv_escaped, escape, printable};
use crate::model::addr;
use crate::model::{Document, Endpoint, Evidence, HostReport};
use crate::render::table;

/// JSON with a final newline.
///
/// # Errors
/// None that can occur: every key is a string.
pub fn json(connections: &Document<HostReport<Connections>>) -> serde_json::Result<Vec<u8>> {
    let mut out = serde_json::to_vec_pretty(connections)?;
    out.push(b'\n');
    Ok(out)
}

fn endpoint(end: &Endpoint, connection: &Connection) -> String {
    let zone = connection.arrival.ingress.name.as_ref().filter(|_| end.scope_id.is_some());
    addr::text_with_port(end.address, zone, end.port)
}

fn ingress(connection: &Connection) -> String {
    let ingress = &connection.arrival.ingress;
    let name = match (&ingress.name, ingress.index) {
        (Some(name), _) => name.to_string(),
        (None, Some(index)) => format!("#{index}"),
        (None, None) => "unknown".to_owned(),
    };
    match ingress.evidence {
        Evidence::Kernel | Evidence::Unknown => name,
        weaker => format!("{name}? ({weaker})"),
    }
}

fn owners(connection: &Connection) -> String {
    match connection.owners.as_deref() {
        None => "owner unknown".to_owned(),
        Some([]) if connection.inode.is_none() => "not accepted yet".to_owned(),
        Some([]) => "no process".to_owned(),
        Some([one]) => one.to_string(),
        Some([one, rest @ ..]) => format!("{one} + {} more", rest.len()),
    }
}

/// One line for each connection, and why interfaces are unknown.
#[must_use]
pub fn human(connections: &Document<HostReport<Connections>>) -> String {
    let rows: Vec<[String; 5]> = connections
        .connections
        .iter()
        .map(|connection| {
            let arrival = &connection.arrival;
            [
                endpoint(&arrival.peer, connection),
                endpoint(&arrival.local, connection),
                arrival.family.to_string() + if arrival.v4_mapped { " (mapped)" } else { "" },
                ingress(connection),
                owners(connection),
            ]
        })
        .collect();
    let mut out = String::new();
    let head = ["from", "to", "family", "ingress", "server"].map(str::to_owned);
    let width =
        |column: usize| rows.iter().chain([&head]).map(|row| table::width(&row[column])).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    if !rows.is_empty() {
        for row in [&head].into_iter().chain(&rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                let _ = write!(line, "{}  ", table::padded(cell, width));
            }
            line.push_str(&row[4]);
            let _ = writeln!(out, "{}", line.trim_end());
        }
        out.push('\n');
    }
    let counts: Vec<String> =
        connections.by_ingress.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let noun = if rows.len() == 1 { "connection" } else { "connections" };
    let _ = writeln!(
        out,
        "{} {noun}{}{}",
        rows.len(),
        if counts.is_empty() { "" } else { ": " },
        counts.join(", ")
    );
    let mut reasons: Vec<&str> =
        connections.connections.iter().filter_map(|one| one.ingress_unknown_because.as_deref()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    for reason in reasons {
        let count = connections
            .connections
            .iter()
            .filter(|connection| connection.ingress_unknown_because.as_deref() == Some(reason))
            .count();
        let _ = writeln!(out, "interface not known for {count}: {}", printable(reason));
    }
    for because in &connections.incomplete_because {
        let _ = writeln!(out, "not complete: {}", printable(because));
    }
    out
}

/// One row for each connection, after a header.
#[must_use]
pub fn csv(connections: &Document<HostReport<Connections>>) -> String {
    let mut out = String::from(
        "peer,peer_port,local,local_port,family,v4_mapped,ingress,ingress_index,evidence,address_owner,peer_is_local,pids,commands\r\n",
    );
    for connection in &connections.connections {
        let arrival = &connection.arrival;
        let name =
            |name: &Option<crate::model::IfName>| name.as_ref().map(ToString::to_string).unwrap_or_default();
        let owners = connection.owners.as_deref().unwrap_or_default();
        let fields = [
            arrival.peer.address.to_string(),
            arrival.peer.port.to_string(),
            arrival.local.address.to_string(),
            arrival.local.port.to_string(),
            arrival.family.to_string().to_lowercase(),
            arrival.v4_mapped.to_string(),
            name(&arrival.ingress.name),
            arrival.ingress.index.map(|index| index.to_string()).unwrap_or_default(),
            arrival.ingress.evidence.to_string(),
            name(&arrival.address_owner),
            arrival.peer_is_local.map(|local| local.to_string()).unwrap_or_default(),
            owners.iter().map(|owner| owner.pid.to_string()).collect::<Vec<_>>().join(";"),
            owners.iter().map(|owner| escape(&owner.command)).collect::<Vec<_>>().join(";"),
        ];
        let row: Vec<String> = fields.into_iter().map(csv_escaped).collect();
        out.push_str(&row.join(","));
        out.push_str("\r\n");
    }
    out
}
