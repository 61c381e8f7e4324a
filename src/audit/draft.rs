//! A policy that allows what is there, to begin with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::Report;
use crate::code::Code;
use crate::diag::Severity;
use crate::model::{Exposure, ListeningSocket, Protocol};

/// Executable and user.
type Program = (String, String);

/// Sockets that one rule is made of.
#[derive(Default)]
struct Group {
    exposure: Exposure,
    ipv4: bool,
    ipv6: bool,
}

/// The text of a policy under which `report` has no error. `day` is written into it. UDP sockets on the ports `ephemeral` are
/// left out, as the policy itself does.
#[must_use]
pub fn policy(report: &Report, name: &str, day: &str, ephemeral: Option<(u16, u16)>) -> String {
    let mut out = format!(
        "# What listened when this was written, on {day}. Read every rule: it allows what was there, not what should be.\n\
         schema = 1\nkind = \"policy\"\nname = {}\n\n[policy]\ndefault = \"deny\"\n\
         unknown_owner = \"undecided\"\nfail_on = \"error\"\n",
        quoted(name)
    );
    if report.namespaces.len() > 1 {
        out.push_str("namespaces = [\"all\"]\n");
    }
    // Rules that name a process come first: the first rule that allows a socket is the one that is told.
    let mut groups: BTreeMap<(Protocol, u16, bool, Option<Program>), Group> = BTreeMap::new();
    for socket in &report.sockets {
        let client = socket.view.protocol == Protocol::Udp
            && ephemeral.is_some_and(|(low, high)| (low..=high).contains(&socket.view.port));
        if client {
            continue;
        }
        let exposure = socket.view.exposure;
        let process = process(socket);
        let key = (socket.view.protocol, socket.view.port, process.is_none(), process);
        let group = groups.entry(key).or_default();
        group.exposure = group.exposure.max(exposure.widest());
        group.ipv4 |= exposure.ipv4 > Exposure::None;
        group.ipv6 |= exposure.ipv6 > Exposure::None;
    }
    let mut ids = BTreeSet::new();
    for ((protocol, port, _, process), group) in &groups {
        let mut id = format!("{protocol}-{port}");
        for number in 2.. {
            if ids.insert(id.clone()) {
                break;
            }
            id = format!("{protocol}-{port}-{number}");
        }
        let _ = write!(out, "\n[[allow]]\nid = {}\nprotocol = \"{protocol}\"\nport = {port}\n", quoted(&id));
        let _ = writeln!(out, "exposure = \"{}\"", group.exposure);
        let families: Vec<&str> = [(group.ipv4, "\"ipv4\""), (group.ipv6, "\"ipv6\"")]
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, name)| *name)
            .collect();
        if !families.is_empty() {
            let _ = writeln!(out, "families = [{}]", families.join(", "));
        }
        if let Some((exe, user)) = process {
            let _ = writeln!(out, "process = {{ exe = {}, user = {} }}", quoted(exe), quoted(user));
        }
        if group.exposure == Exposure::Global {
            out.push_str("reason = \"it was there; say why anybody may reach it\"\n");
        }
    }
    waivers(&mut out, report);
    out
}

/// One waiver for each error that no policy made, such as a loopback listener that is open to the wire: the policy begins with
/// what is there.
fn waivers(out: &mut String, report: &Report) {
    let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error);
    let found: BTreeSet<(Code, Protocol, u16)> = errors
        .filter_map(|finding| {
            let view = &report.sockets.get(finding.socket?)?.view;
            Some((finding.code, view.protocol, view.port))
        })
        .collect();
    for (code, protocol, port) in found {
        let _ = write!(
            out,
            "\n[[waive]]\ncode = \"{code}\"\nmatch = {{ protocol = \"{protocol}\", port = {port} }}\n\
             reason = \"it was there, and is wrong: {}\"\n",
            code.title()
        );
    }
}

/// Executable and user, where all that hold the socket share them and the file is the reader's own. The characters that a
/// pattern would take for more stand for any one character.
fn process(socket: &ListeningSocket) -> Option<Program> {
    let owners = socket.owners.as_ref()?;
    let mut of: BTreeSet<(&str, &str)> = BTreeSet::new();
    for owner in owners.iter().filter(|owner| owner.pid != 1 || owners.len() == 1) {
        let exe = owner.exe.as_deref().filter(|_| owner.exe_visible == Some(true) || owner.exe_deleted)?;
        of.insert((exe, owner.user.as_deref()?));
    }
    match of.into_iter().collect::<Vec<_>>().as_slice() {
        [(exe, user)] => Some((exe.replace('*', "?"), (*user).to_owned())),
        _ => None,
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() || crate::escape::escape(c.encode_utf8(&mut [0; 4])).len() > c.len_utf8() => {
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
