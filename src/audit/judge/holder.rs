//! Comparison of a socket's processes with the process in a rule.

use crate::model::{ListeningSocket, Owner};
use crate::profile::bind::glob;
use crate::profile::policy::{Holder, Match, User};

/// Result of the comparison.
pub(super) enum Process {
    Yes,
    No(String),
    Unknown(String),
}

/// Whether the rule names every process that owns the socket.
///
/// A socket of the first process of the system counts as one listener, whether or not its service has started. The rule
/// matches the first process itself, or the service that also owns the socket. While no service owns it, the rule
/// matches the service that the socket unit activates.
pub(super) fn process(matches: &Match, socket: &ListeningSocket) -> Process {
    let wanted = &matches.holder;
    if wanted.is_any() {
        return Process::Yes;
    }
    let Some(owners) = &socket.owners else {
        return Process::Unknown("the process that owns it could not be read".to_owned());
    };
    if owners.is_empty() {
        return match (wanted.kernel, &socket.kernel) {
            (true, _) => Process::Yes,
            (false, Some(holder)) => {
                let name = holder.name.as_deref().unwrap_or_default();
                Process::No(format!("it belongs to the kernel: {} {name}", holder.kind).trim_end().to_owned())
            }
            (false, None) => Process::No("no process owns it".to_owned()),
        };
    }
    if wanted.kernel {
        return Process::No(format!("{} (pid {}) owns it, not the kernel", owners[0].command, owners[0].pid));
    }
    let Some(first) = owners.iter().find(|owner| owner.pid == 1) else { return every(wanted, owners.iter()) };
    if matches!(one_process(wanted, first), Process::Yes) {
        return Process::Yes;
    }
    if owners.len() > 1 {
        return every(wanted, owners.iter().filter(|owner| owner.pid != 1));
    }
    activated(wanted, socket, first)
}

fn every<'a>(wanted: &Holder, owners: impl Iterator<Item = &'a Owner>) -> Process {
    let mut unknown = None;
    for owner in owners {
        match one_process(wanted, owner) {
            Process::Yes => {}
            Process::No(because) => return Process::No(because),
            Process::Unknown(because) => unknown = Some(because),
        }
    }
    unknown.map_or(Process::Yes, Process::Unknown)
}

fn any(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| glob(pattern.as_bytes(), text.as_bytes()))
}

/// Whether the rule names the service for which the first process alone owns a socket. Without a socket unit that names
/// the service, the program of the rule is assumed to be correct ([`assumed`]).
fn activated(wanted: &Holder, socket: &ListeningSocket, first: &Owner) -> Process {
    let Some(activation) = &socket.activation else {
        // The process that will start is unknown; its container can be compared.
        return match &wanted.container[..] {
            [] => Process::Yes,
            _ => Process::No(format!("{} (pid 1) owns it outside of a container", first.command)),
        };
    };
    let units = [&activation.socket_unit, &activation.service];
    let who = format!("{}, which {} activates,", activation.service, activation.socket_unit);
    if !wanted.unit.is_empty() && !units.iter().any(|unit| any(&wanted.unit, unit)) {
        return Process::No(format!("{who} is another unit"));
    }
    if !wanted.container.is_empty() {
        return Process::No(format!("{who} is in no container"));
    }
    let user = activation.user.as_deref().unwrap_or("root");
    let named = |one: &User| match one {
        User::One(name) => name == user || user == "root" && name == "0",
        User::Range(first, last) => user.parse().is_ok_and(|uid: u32| (*first..=*last).contains(&uid)),
    };
    if !wanted.user.is_empty() && !wanted.user.iter().any(named) {
        return Process::No(format!("{who} runs as user {user}"));
    }
    match &activation.exe {
        _ if wanted.exe.is_empty() => Process::Yes,
        Some(exe) if any(&wanted.exe, exe) => Process::Yes,
        Some(exe) => Process::No(format!("{who} runs {exe}")),
        None => Process::Unknown(format!("the program of {who} could not be read")),
    }
}

/// The assumption behind a match, if any: only the first process owns the socket, and no socket unit names the service.
pub(super) fn assumed(matches: &Match, socket: &ListeningSocket) -> Option<String> {
    let wanted = &matches.holder;
    match socket.known_owners() {
        [first] if first.pid == 1 && socket.activation.is_none() && !wanted.is_any() => {
            let matches_itself = matches!(one_process(wanted, first), Process::Yes);
            (!matches_itself).then(|| {
                format!("{} (pid 1) owns the socket for a program that has not started yet", first.command)
            })
        }
        _ => None,
    }
}

fn one_process(wanted: &Holder, owner: &Owner) -> Process {
    let who = format!("{} (pid {})", owner.command, owner.pid);
    if !wanted.user.is_empty() {
        let Some(uid) = owner.uid else {
            return Process::Unknown(format!("the user of {who} could not be read"));
        };
        if !wanted.user.iter().any(|user| user.is(uid, owner.user.as_deref())) {
            let user = owner.user.as_deref().unwrap_or("unknown");
            return Process::No(format!("{who} runs as user {user}"));
        }
    }
    if !wanted.unit.is_empty() && !owner.unit.as_deref().is_some_and(|unit| any(&wanted.unit, unit)) {
        let unit = owner.unit.as_deref().unwrap_or("none");
        return Process::No(format!("the systemd unit of {who} is {unit}"));
    }
    if !wanted.container.is_empty()
        && !owner.container.as_deref().is_some_and(|container| any(&wanted.container, container))
    {
        let container = owner.container.as_deref().unwrap_or("none");
        return Process::No(format!("the container of {who} is {container}"));
    }
    if wanted.exe.is_empty() {
        return Process::Yes;
    }
    match (owner.exe.as_deref(), owner.exe_visible) {
        (None, _) => Process::Unknown(format!("the executable of {who} could not be read")),
        (Some(exe), _) if !any(&wanted.exe, exe) => Process::No(format!("{who} runs {exe}")),
        // A deleted file can no longer be compared; the kernel reports its path.
        (Some(_), Some(true)) => Process::Yes,
        (Some(_), _) if owner.exe_deleted => Process::Yes,
        (Some(exe), Some(false)) => Process::No(format!(
            "{who} runs another file than the {exe} that is visible here, as in a container"
        )),
        (Some(exe), None) => {
            Process::Unknown(format!("whether {who} runs the {exe} that is visible here is unknown"))
        }
    }
}
