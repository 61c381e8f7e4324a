//! Changes for people, one line each.

use super::layout::{Style, wrapped};
use super::{address, families, level, owners};
use crate::audit::change::Change;
use crate::escape::{escape, printable};
use crate::model::ListeningSocket;
use crate::render::style::BOLD;

/// One change, in one line.
#[must_use]
pub fn change(change: &Change, style: Style) -> String {
    let mut out = String::new();
    let (word, text) = match change {
        Change::SocketNew { socket, .. } => ("new", socket_line(socket)),
        Change::SocketGone { socket } => ("gone", socket_line(socket)),
        Change::SocketChanged { before, after } => {
            ("changed", format!("{}; was {}, {}", socket_line(after), families(before), owners(before)))
        }
        Change::FindingNew { finding } => (
            "finding",
            format!("{}[{}] {}", level(finding.severity), finding.code, printable(&finding.message)),
        ),
        Change::FindingGone { finding } => {
            ("resolved", format!("[{}] {}", finding.code, printable(&finding.message)))
        }
        Change::AddressNew { interface, address } => {
            ("address", format!("{} has {address} now", escape(interface)))
        }
        Change::AddressGone { interface, address } => {
            ("address", format!("{} has lost {address}", escape(interface)))
        }
        Change::InterfaceNew { interface } => ("interface", format!("{} is new", escape(interface))),
        Change::InterfaceGone { interface } => ("interface", format!("{} is gone", escape(interface))),
        Change::InterfaceChanged { interface, up } => {
            ("interface", format!("{} is {}", escape(interface), if *up { "up" } else { "down" }))
        }
    };
    wrapped(&mut out, &format!("{word:<9} {text}"), "", "          ", style.width);
    out.replacen(word, &style.paint(BOLD, word), 1)
}

fn socket_line(socket: &ListeningSocket) -> String {
    format!("{} {}, {}, {}", socket.view.protocol, address(socket), families(socket), owners(socket))
}
