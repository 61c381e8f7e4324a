//! Whether the process that holds a socket is the one that a rule names.

use crate::model::{ListeningSocket, Owner};
use crate::profile::bind::glob;
use crate::profile::policy::{Holder, Match, User};

/// Whether the process is the one that is named.
pub(super) enum Process {
    Yes,
    No(String),
    Unknown(String),
}

/// Whether every process that holds the socket is one that the rule names.
///
/// A socket that the first process of the system holds is one listener, whether or not the service that it is for has been started:
/// the rule is satisfied by the first process itself, by the service that holds the socket in addition, or, while no service does,
/// by the service that the socket unit activates.
pub(super) fn process(matches: &Match, socket: &ListeningSocket) -> Process {
    let wanted = &matches.holder;
    if wanted.is_any() {
        return Process::Yes;
    }
    let Some(owners) = &socket.owners else {
        return Process::Unknown("the process that holds it could not be read".to_owned());
    };
    if owners.is_empty() {
        return match (wanted.kernel, &socket.kernel) {
            (true, _) => Process::Yes,
            (false, Some(holder)) => {
                let name = holder.name.as_deref().unwrap_or_default();
                Process::No(format!("the kernel holds it: {} {name}", holder.kind).trim_end().to_owned())
            }
            (false, None) => Process::No("no process holds it".to_owned()),
        };
    }
    if wanted.kernel {
        return Process::No(format!(
            "{} (pid {}) holds it, not the kernel",
            owners[0].command, owners[0].pid
        ));
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

/// Whether the service for which the first process alone holds a socket is the one that is named. Without a socket unit that says
/// which service that is, the program that the rule names is taken to be the one ([`assumed`]).
fn activated(wanted: &Holder, socket: &ListeningSocket, first: &Owner) -> Process {
    let Some(activation) = &socket.activation else {
        // What starts it is not known; what can be compared, its container, is.
        return match &wanted.container[..] {
            [] => Process::Yes,
            _ => Process::No(format!("{} (pid 1) holds it outside of a container", first.command)),
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

/// The assumption under which a rule is satisfied, if any: the first process alone holds the socket, and no socket unit says for which
/// service.
pub(super) fn assumed(matches: &Match, socket: &ListeningSocket) -> Option<String> {
    let wanted = &matches.holder;
    match socket.known_owners() {
        [first] if first.pid == 1 && socket.activation.is_none() && !wanted.is_any() => {
            let matches_itself = matches!(one_process(wanted, first), Process::Yes);
            (!matches_itself).then(|| {
                format!("{} (pid 1) holds the socket for a program that is not started yet", first.command)
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
        // A deleted file cannot be compared any more; the kernel reports its path.
        (Some(_), Some(true)) => Process::Yes,
        (Some(_), _) if owner.exe_deleted => Process::Yes,
        (Some(exe), Some(false)) => Process::No(format!(
            "{who} runs another file than the {exe} that is seen from here, as in a container"
        )),
        (Some(exe), None) => {
            Process::Unknown(format!("whether {who} runs the {exe} that is seen from here is not known"))
        }
    }
}
