//! A first policy, which allows the current state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{Published, Report, clients, plain};
use crate::code::Code;
use crate::diag::Severity;
use crate::escape::escape;
use crate::model::{Exposure, Family, ListeningSocket, Protocol};

/// Owners that a rule covers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Program {
    /// Executable and user.
    Process(String, String),
    Kernel,
    /// Any process: the owner is unknown.
    Any,
}

/// Sockets that share one rule.
#[derive(Default)]
struct Group {
    exposure: Exposure,
    ipv4: bool,
    ipv6: bool,
    /// Whether packet filters certainly keep out clients that no rule names, in every family in which other hosts reach it.
    filtered: Option<bool>,
    /// Ports, if the kernel may have chosen them.
    chosen: BTreeSet<u16>,
    /// Devices that the sockets are bound to; `None` for a socket without a device.
    devices: BTreeSet<Option<String>>,
    /// Interfaces of the bound addresses; `None` for a wildcard or loopback.
    interfaces: BTreeSet<Option<String>>,
}

impl Group {
    fn add(&mut self, socket: &ListeningSocket) {
        let exposure = socket.view.exposure;
        self.exposure = self.exposure.max(exposure.widest());
        let outside = [(Family::Ipv4, exposure.ipv4), (Family::Ipv6, exposure.ipv6)];
        for (family, _) in outside.into_iter().filter(|(_, exposure)| *exposure > Exposure::Loopback) {
            let left = socket.exposure_filtered.as_ref();
            let narrow =
                left.is_some_and(|left| left.of(family).is_some() && left.narrowed.contains(&family));
            self.filtered = Some(self.filtered.unwrap_or(true) && narrow);
        }
        self.ipv4 |= exposure.ipv4 > Exposure::None;
        self.ipv6 |= exposure.ipv6 > Exposure::None;
        self.devices
            .insert(socket.view.device.as_ref().filter(|_| socket.view.scope_id.is_none()).map(plain));
        let narrow = exposure.widest() > Exposure::Loopback && !socket.view.address.is_multicast();
        self.interfaces.insert(socket.address_owner.as_ref().filter(|_| narrow).map(plain));
        if socket.port_chosen == Some(true) {
            self.chosen.insert(socket.view.port);
        }
    }

    /// A limit that is narrower than the exposure class of the sockets: their device, or the interfaces of their
    /// addresses.
    fn narrower(&self) -> Option<(&'static str, Vec<&str>)> {
        let all = |set: &'_ BTreeSet<Option<String>>| set.iter().all(Option::is_some) && !set.is_empty();
        let (key, set) = match () {
            () if all(&self.devices) => ("device", &self.devices),
            () if all(&self.interfaces) => ("interface", &self.interfaces),
            () => return None,
        };
        Some((key, set.iter().flatten().map(String::as_str).collect()))
    }
}

/// Sort key: protocol, port unless the kernel may have chosen it, and program. Rules that name a program come first.
type Key = (Protocol, Option<u16>, Program);

/// The text of a policy under which `report` has no error. It contains `day`. Client sockets are left out, as in the
/// policy check itself.
#[must_use]
pub fn policy(report: &Report, name: &str, day: &str) -> String {
    let mut out = format!(
        "# What listened when this was written, on {day}. Read every rule: it allows what was there, not what should be.\n\
         schema = 1\nkind = \"policy\"\nname = {}\n\n[policy]\ndefault = \"deny\"\n\
         unknown_owner = \"undecided\"\nfail_on = \"error\"\n",
        quoted(name)
    );
    if report.namespaces.len() > 1 {
        out.push_str("namespaces = [\"all\"]\n");
    }
    let mut groups: BTreeMap<Key, Group> = BTreeMap::new();
    for socket in report.sockets.iter().filter(|socket| !clients::is_client(socket)) {
        let program = program(socket);
        let by_program = socket.port_chosen == Some(true) && program != Program::Any;
        let port = (!by_program).then_some(socket.view.port);
        groups.entry((socket.view.protocol, port, program)).or_default().add(socket);
    }
    let mut ids = BTreeSet::new();
    for (key, group) in &groups {
        rule(&mut out, key, group, &mut ids);
    }
    for one in &report.published {
        published(&mut out, one, &mut ids);
    }
    waivers(&mut out, report);
    out
}

/// A rule for a port that address translation publishes.
fn published(out: &mut String, one: &Published, ids: &mut BTreeSet<String>) {
    let first = match one.ports {
        Some((first, _)) => format!("published-{first}"),
        None => "published".to_owned(),
    };
    let mut id = first.clone();
    for number in 2.. {
        if ids.insert(id.clone()) {
            break;
        }
        id = format!("{first}-{number}");
    }
    let _ = write!(
        out,
        "\n# Published by address translation: {}\n[[allow]]\nid = {}\n",
        escape(&one.summary()),
        quoted(&id)
    );
    if let Some(protocol) = one.protocol {
        let _ = writeln!(out, "protocol = \"{protocol}\"");
    }
    let _ = match one.ports {
        Some((first, last)) if first == last => writeln!(out, "port = {first}"),
        Some((first, last)) => writeln!(out, "port = \"{first}-{last}\""),
        None => Ok(()),
    };
    let _ = writeln!(out, "exposure = \"{}\"", one.exposure.widest());
    if one.exposure.widest() == Exposure::Global {
        out.push_str("reason = \"existed before this policy; write why every host may reach it\"\n");
    }
}

fn rule(out: &mut String, (protocol, port, program): &Key, group: &Group, ids: &mut BTreeSet<String>) {
    let file = |exe: &str| {
        let name = exe.rsplit('/').next().unwrap_or_default();
        name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect::<String>()
    };
    let first = match (port, program) {
        (Some(port), _) => format!("{protocol}-{port}"),
        (None, Program::Process(exe, _)) => format!("{protocol}-{}", file(exe)),
        (None, _) => format!("{protocol}-chosen"),
    };
    let mut id = first.clone();
    for number in 2.. {
        if ids.insert(id.clone()) {
            break;
        }
        id = format!("{first}-{number}");
    }
    out.push('\n');
    let ports: Vec<String> = group.chosen.iter().take(4).map(u16::to_string).collect();
    let more = if group.chosen.len() > 4 { ", ..." } else { "" };
    match port {
        None => {
            let _ = writeln!(
                out,
                "# The port may be chosen by the kernel ({}{more} when this was written) and changes with a restart: the rule names the program.",
                ports.join(", ")
            );
        }
        Some(port) if group.chosen.contains(port) => out.push_str(
            "# The port may be chosen by the kernel and changes with a restart; the program could not be read.\n",
        ),
        Some(_) => {}
    }
    let _ = write!(out, "[[allow]]\nid = {}\nprotocol = \"{protocol}\"\n", quoted(&id));
    if let Some(port) = port {
        let _ = writeln!(out, "port = {port}");
    }
    if group.filtered == Some(true) {
        out.push_str("# Its addresses are wider: packet filters keep out all clients but those that their rules name.\n");
        out.push_str("exposure = \"filtered\"\n");
    } else {
        let _ = writeln!(out, "exposure = \"{}\"", group.exposure);
    }
    if let Some((key, names)) = group.narrower() {
        let names: Vec<String> = names.into_iter().map(quoted).collect();
        let _ = match &names[..] {
            [name] => writeln!(out, "{key} = {name}"),
            names => writeln!(out, "{key} = [{}]", names.join(", ")),
        };
    }
    let families: Vec<&str> = [(group.ipv4, "\"ipv4\""), (group.ipv6, "\"ipv6\"")]
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, name)| *name)
        .collect();
    if !families.is_empty() {
        let _ = writeln!(out, "families = [{}]", families.join(", "));
    }
    match program {
        Program::Process(exe, user) => {
            let _ = writeln!(out, "process = {{ exe = {}, user = {} }}", quoted(exe), quoted(user));
        }
        Program::Kernel => out.push_str("process = \"kernel\"\n"),
        Program::Any => {}
    }
    if group.exposure == Exposure::Global && group.filtered != Some(true) {
        out.push_str("reason = \"existed before this policy; write why every host may reach it\"\n");
    }
}

/// One waiver for each error that does not come from a policy, such as a loopback listener that other hosts can reach.
/// The policy starts from the current state.
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

/// The owner of a socket: executable and user, if all owners share them and the file is the reader's own. Pattern
/// characters are replaced by a pattern for one character.
fn program(socket: &ListeningSocket) -> Program {
    let Some(owners) = socket.owners.as_ref() else { return Program::Any };
    if owners.is_empty() {
        return if socket.kernel.is_some() { Program::Kernel } else { Program::Any };
    }
    let mut of: BTreeSet<(&str, &str)> = BTreeSet::new();
    for owner in owners.iter().filter(|owner| owner.pid != 1 || owners.len() == 1) {
        let exe = owner.exe.as_deref().filter(|_| owner.exe_visible == Some(true) || owner.exe_deleted);
        let (Some(exe), Some(user)) = (exe, owner.user.as_deref()) else { return Program::Any };
        of.insert((exe, user));
    }
    match of.into_iter().collect::<Vec<_>>().as_slice() {
        [(exe, user)] => Program::Process(exe.replace('*', "?"), (*user).to_owned()),
        _ => Program::Any,
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
