//! Listeners that the configuration of another program will open, as a profile: nginx, sshd, systemd sockets, Compose. Pure:
//! the caller reads files. What a file contains and this module does not predict is listed with its position.

mod compose;
mod nginx;
mod sshd;
mod systemd;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::Arc;

use crate::code::Code;
use crate::diag::{Diagnostic, Place};
use crate::model::{Family, Protocol};
use crate::profile::{Bind, Listener, Profile};

/// Kinds of configuration files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `nginx.conf`.
    Nginx,
    /// A unit `NAME.socket` of systemd.
    Systemd,
    /// `compose.yaml` of Docker Compose.
    Compose,
    /// `sshd_config` of OpenSSH.
    Sshd,
}

impl Kind {
    /// The kind by its word, as before a colon in `--from nginx:FILE`.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Kind> {
        Some(match word {
            "nginx" => Kind::Nginx,
            "systemd" | "socket" => Kind::Systemd,
            "compose" | "docker" => Kind::Compose,
            "sshd" | "ssh" => Kind::Sshd,
            _ => return None,
        })
    }

    /// The kind by the name of the file.
    #[must_use]
    pub fn of_name(path: &str) -> Option<Kind> {
        let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
        let ends = |suffix: &str| name.ends_with(suffix);
        if ends(".socket") {
            Some(Kind::Systemd)
        } else if ends(".yml") || ends(".yaml") {
            Some(Kind::Compose)
        } else if name.starts_with("sshd_config") || path.contains("sshd_config.d/") {
            Some(Kind::Sshd)
        } else if ends(".conf") || path.contains("sites-enabled/") || path.contains("sites-available/") {
            Some(Kind::Nginx)
        } else {
            None
        }
    }
}

/// A file with its name in messages.
#[derive(Debug, Clone)]
pub struct File {
    /// Name.
    pub name: String,
    /// Content.
    pub text: Arc<str>,
}

/// Reads the files that an `include` with this pattern names. The second argument is the file that includes them.
pub type Include<'a> = dyn FnMut(&str, &File) -> Result<Vec<File>, Diagnostic> + 'a;

/// The listeners of a configuration.
#[derive(Debug)]
pub struct Imported {
    /// The profile with the listeners.
    pub profile: Profile,
    /// What is not predicted, with positions.
    pub notes: Vec<Diagnostic>,
}

/// Reads a configuration.
///
/// # Errors
/// Every problem of a text that the program itself would refuse.
pub fn import(kind: Kind, file: &File, include: &mut Include<'_>) -> Result<Imported, Vec<Diagnostic>> {
    let mut import = Import { listeners: Vec::new(), notes: Vec::new(), problems: Vec::new() };
    match kind {
        Kind::Nginx => nginx::read(file, include, &mut import),
        Kind::Systemd => systemd::read(file, &mut import),
        Kind::Compose => compose::read(file, &mut import),
        Kind::Sshd => sshd::read(file, include, &mut import),
    }
    if !import.problems.is_empty() {
        return Err(import.problems);
    }
    let stem = file.name.rsplit('/').next().unwrap_or(&file.name);
    let mut profile = Profile::named(stem);
    profile.origin.clone_from(&file.name);
    let mut names = std::collections::BTreeSet::new();
    for mut listener in import.listeners {
        let base = listener.name.clone();
        let mut number = 1;
        while !names.insert(listener.name.clone()) {
            number += 1;
            listener.name = format!("{base}-{number}");
        }
        profile.listeners.push(listener);
    }
    Ok(Imported { profile, notes: import.notes })
}

/// The state of an import.
struct Import {
    listeners: Vec<Listener>,
    notes: Vec<Diagnostic>,
    problems: Vec<Diagnostic>,
}

impl Import {
    /// Notes a part that is not predicted.
    fn skip(&mut self, file: &File, line: usize, message: impl Into<String>) {
        let note = Diagnostic::note(Code::IMPORT_SKIPPED, message).at(place(file, line));
        self.notes.push(note);
    }

    /// A text that the program refuses.
    fn wrong(&mut self, file: &File, line: usize, message: impl Into<String>, help: &str) {
        let problem = Diagnostic::error(Code::IMPORT_FAILED, message).at(place(file, line));
        self.problems.push(problem.help(help));
    }
}

/// A line of a file.
fn place(file: &File, line: usize) -> Place {
    Place { file: file.name.clone(), text: Arc::clone(&file.text), span: line_span(&file.text, line) }
}

/// The bytes of a line, counted from 1, without blanks at its start.
fn line_span(text: &str, line: usize) -> Range<usize> {
    let mut start = 0;
    for (index, one) in text.split_inclusive('\n').enumerate() {
        if index + 1 == line {
            let blank = one.len() - one.trim_start().len();
            return start + blank..start + one.trim_end().len().max(blank);
        }
        start += one.len();
    }
    text.len()..text.len()
}

/// A listener of a server.
fn listener(name: &str, address: IpAddr, port: u16, protocol: Protocol) -> Listener {
    let mut listener = Listener::new(name, Bind::Address { address, zone: None }, vec![port], protocol);
    listener.exposure_reason = None;
    listener
}

/// The wildcard address of a family.
fn any(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}
