//! Formats of audit reports. External text is escaped for each format.

mod changes;
mod ci;
mod human;
mod junit;
mod layout;
mod notes;
mod rows;
mod sarif;
mod table;

use std::io;
use std::net::IpAddr;

pub use changes::change as human_change;
pub use ci::github;
pub use human::human;
pub use junit::junit;
pub use layout::Style;
pub use sarif::sarif;
pub use table::{csv, markdown};

use crate::audit::{Finding, Report, filtered};
use crate::diag::Severity;
use crate::escape::{escape, printable};
use crate::model::{Document, Schema, addr};
use crate::model::{Exposure, Family, ListeningSocket, Owner};

/// JSON with one line for each socket and finding, and a final newline.
///
/// # Errors
/// If the writer fails.
pub fn json(report: &Report, out: impl io::Write) -> io::Result<()> {
    crate::report::json::write(out, &Document::new(Schema::Audit, report), 2)
}

/// Protocol and address, who can reach it, and its owners. Escaped.
#[must_use]
pub fn words_of(socket: &ListeningSocket) -> [String; 3] {
    [format!("{} {}", socket.view.protocol, address(socket)), families(socket), owners(socket)]
}

/// Address and port with device or zone: `0.0.0.0:80`, `[::]:80%eth0`, `[fe80::1%eth0]:80`. Escaped.
fn address(socket: &ListeningSocket) -> String {
    let view = &socket.view;
    let zone = view.device.as_ref().filter(|_| view.scope_id.is_some());
    let mut text = match view.address {
        // An IPv4-mapped address keeps its spelling, because the kind of socket matters here.
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => format!("[{v6}]:{}", view.port),
        address => addr::text_with_port(address, zone, view.port),
    };
    if let (None, Some(device)) = (zone, &view.device) {
        text.push_str(&format!("%{device}"));
    }
    text
}

/// The families in which clients reach the socket, with how widely: `IPv4 private networks, IPv6 anywhere`.
fn families(socket: &ListeningSocket) -> String {
    let exposure = socket.view.exposure;
    let part = |family: Family, exposure: Exposure| {
        let filtered = filtered::left(socket, family)
            .map_or_else(String::new, |what| format!("; filtered: {}", printable(&what.to_string())));
        (exposure != Exposure::None).then(|| format!("{family} {}{filtered}", exposure.words()))
    };
    let mut ipv4 = part(Family::Ipv4, exposure.ipv4);
    if socket.view.address.is_ipv6() && socket.view.address.is_unspecified() && socket.view.v6only.is_none() {
        ipv4 = ipv4.map(|text| text + "?");
    }
    let parts: Vec<String> = [ipv4, part(Family::Ipv6, exposure.ipv6)].into_iter().flatten().collect();
    if parts.is_empty() { "not reachable".to_owned() } else { parts.join(", ") }
}

/// An owner in short: `nginx (12, root, nginx.service)`. Escaped.
fn owner(owner: &Owner) -> String {
    let mut parts = vec![owner.pid.to_string()];
    parts.extend(owner.user.as_deref().map(escape));
    parts.extend(owner.container.as_deref().or(owner.unit.as_deref()).map(escape));
    format!("{} ({})", escape(&owner.command), parts.join(", "))
}

/// The owners in short. Escaped.
fn owners(socket: &ListeningSocket) -> String {
    match socket.owners.as_deref() {
        None => {
            let unit = socket
                .cgroup
                .as_deref()
                .and_then(|path| path.rsplit('/').next())
                .filter(|unit| !unit.is_empty());
            let uid = socket.uid.map_or_else(String::new, |uid| format!(", uid {uid}"));
            let unit = unit.map_or_else(String::new, |unit| format!(", {}", escape(unit)));
            format!("owner unknown{uid}{unit}")
        }
        Some([]) => socket.kernel.as_ref().map_or_else(|| "no process".to_owned(), ToString::to_string),
        Some(_) if socket.activation.is_some() => {
            socket.activation.as_ref().map(ToString::to_string).unwrap_or_default()
        }
        Some([one]) => owner(one),
        Some([one, rest @ ..]) => format!("{} + {} more", owner(one), rest.len()),
    }
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

/// The socket of a finding as text; empty for a finding about the host. Escaped.
fn subject(report: &Report, finding: &Finding) -> String {
    let published = finding.published.and_then(|place| report.published.get(place));
    if let Some(published) = published {
        return printable(&published.words());
    }
    finding.socket.and_then(|place| report.sockets.get(place)).map_or_else(String::new, |socket| {
        format!("{} {}, {}", socket.view.protocol, address(socket), owners(socket))
    })
}

#[cfg(test)]
mod tests;
