//! Which systemd socket unit opened a socket that the first process holds, from the unit files (systemd.socket(5)).
//!
//! The files are read only when the first process holds a socket. A unit is the one that opened a socket when it listens on the
//! socket's protocol, address and port. Settings that need systemd to be resolved, such as specifiers, are not known.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::model::{Activation, ListeningSocket, Protocol};
use crate::unit_file;

/// Directories of unit files, the first of which wins (systemd.unit(5)).
const DIRECTORIES: [&str; 6] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// A longer file is not a unit.
const LONGEST: u64 = 1 << 20;

/// Fills in [`ListeningSocket::activation`] of the sockets that the first process holds.
pub(super) fn name<'a>(sockets: impl Iterator<Item = &'a mut ListeningSocket>) {
    let mut units = None;
    for socket in sockets {
        let first = socket.known_owners().iter().find(|owner| owner.pid == 1);
        // Unit files mean nothing to another first process, as in a container.
        let Some(first) = first.filter(|first| is_systemd(first.exe.as_deref())) else { continue };
        let directories = || DIRECTORIES.map(PathBuf::from);
        let units = units.get_or_insert_with(|| Units::read(&directories()));
        let found = units.of(socket).filter(|unit| unit.exe.is_none() || unit.exe != first.exe);
        socket.activation = found;
    }
}

/// Whether a program is systemd.
fn is_systemd(exe: Option<&str>) -> bool {
    exe.and_then(|exe| exe.rsplit('/').next()) == Some("systemd")
}

/// The socket units of a system.
struct Units {
    directories: Vec<PathBuf>,
    sockets: Vec<SocketUnit>,
}

/// One socket unit.
struct SocketUnit {
    name: String,
    service: String,
    listens: Vec<(Protocol, Option<IpAddr>, u16)>,
}

impl Units {
    fn read(directories: &[PathBuf]) -> Units {
        let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
        for directory in directories {
            for name in crate::sys::entries(directory).into_iter().flatten() {
                let name = name.to_string_lossy().into_owned();
                if name.ends_with(".socket") && !name.ends_with("@.socket") {
                    files.entry(name).or_insert_with_key(|name| directory.join(name));
                }
            }
        }
        let directories = directories.to_vec();
        let read = |(name, path): (String, PathBuf)| {
            let settings = settings(&directories, &name, &path);
            let last = |key: &str| {
                settings.iter().rev().find(|(one, _)| one == key).map(|(_, value)| value.as_str())
            };
            let stem = name.strip_suffix(".socket").unwrap_or(&name);
            let accept =
                last("Socket.Accept").is_some_and(|value| matches!(value, "yes" | "true" | "on" | "1"));
            let service = match last("Socket.Service") {
                Some(service) if !service.is_empty() => service.to_owned(),
                _ if accept => format!("{stem}@.service"),
                _ => format!("{stem}.service"),
            };
            SocketUnit { service, listens: listens(&settings), name }
        };
        let sockets = files.into_iter().map(read).collect();
        Units { directories, sockets }
    }

    fn of(&self, socket: &ListeningSocket) -> Option<Activation> {
        let view = &socket.view;
        let bound = view.address.to_canonical();
        let unit = self.sockets.iter().find(|unit| {
            unit.listens.iter().any(|(protocol, address, port)| {
                *protocol == view.protocol
                    && *port == view.port
                    && address.map_or(bound.is_unspecified(), |address| address == bound)
            })
        })?;
        let file =
            self.directories.iter().map(|directory| directory.join(&unit.service)).find(|path| path.exists());
        let settings = file.map(|path| settings(&self.directories, &unit.service, &path)).unwrap_or_default();
        let last =
            |key: &str| settings.iter().rev().find(|(one, _)| one == key).map(|(_, value)| value.clone());
        Some(Activation {
            socket_unit: unit.name.clone(),
            service: unit.service.clone(),
            exe: last("Service.ExecStart").and_then(|line| program(&line)),
            user: last("Service.User").filter(|user| !user.is_empty() && !user.contains('%')),
            started: socket.known_owners().len() > 1,
        })
    }
}

/// The settings of a unit and of the files that extend it, as `Section.Key` and value, in their order.
fn settings(directories: &[PathBuf], name: &str, path: &Path) -> Vec<(String, String)> {
    let mut found = parse(&text(path));
    let mut extensions: BTreeMap<String, PathBuf> = BTreeMap::new();
    for directory in directories.iter().map(|directory| directory.join(format!("{name}.d"))) {
        for file in crate::sys::entries(&directory).into_iter().flatten() {
            let file = file.to_string_lossy().into_owned();
            if file.ends_with(".conf") {
                extensions.entry(file).or_insert_with_key(|file| directory.join(file));
            }
        }
    }
    extensions.values().for_each(|path| found.extend(parse(&text(path))));
    found
}

/// The text of a unit file; empty for what is not a regular file, as a masked unit.
fn text(path: &Path) -> String {
    let small = std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() <= LONGEST);
    if small { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() }
}

/// Sections, keys and values.
fn parse(text: &str) -> Vec<(String, String)> {
    unit_file::settings(text).into_iter().map(|setting| (setting.key, setting.value)).collect()
}

/// The addresses of the internet that a socket unit listens on. An empty value takes those before it back.
fn listens(settings: &[(String, String)]) -> Vec<(Protocol, Option<IpAddr>, u16)> {
    let mut list = Vec::new();
    for (key, value) in settings {
        let protocol = match key.as_str() {
            "Socket.ListenStream" => Protocol::Tcp,
            "Socket.ListenDatagram" => Protocol::Udp,
            _ => continue,
        };
        if value.is_empty() {
            list.clear();
        } else if let Ok(port) = value.parse() {
            list.push((protocol, None, port));
        } else if let Ok(at) = value.parse::<SocketAddr>() {
            list.push((protocol, Some(at.ip().to_canonical()), at.port()));
        }
    }
    list
}

/// The program of a command line of a service (systemd.service(5)), without the signs in front of it.
fn program(line: &str) -> Option<String> {
    let line = line.trim_start_matches(['-', '@', ':', '+', '!', '|']);
    let path = match line.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => line.split_whitespace().next()?,
    };
    (path.starts_with('/') && !path.contains('%')).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Owner, SocketView};

    fn socket(address: &str, port: u16, pids: &[u32]) -> ListeningSocket {
        let address: IpAddr = address.parse().unwrap();
        let owner = |pid: &u32| Owner {
            exe: Some("/sbin/init".to_owned()),
            exe_visible: Some(true),
            user: Some("root".to_owned()),
            uid: Some(0),
            ..Owner::of(*pid, "init")
        };
        ListeningSocket {
            uid: Some(0),
            inode: Some(1),
            device_known: true,
            owners: Some(pids.iter().map(owner).collect::<Vec<_>>().into()),
            ..ListeningSocket::of(SocketView::of(Protocol::Tcp, address, port))
        }
    }

    #[test]
    fn a_socket_unit_is_found_by_what_it_listens_on() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("etc"), directory.path().join("lib"));
        let write = |path: PathBuf, text: &str| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(second.join("ssh.socket"), "[Socket]\nListenStream=22\nAccept=no\n[Install]\nListenStream=7\n");
        write(second.join("ssh.service"), "[Service]\nUser=sshd\nExecStart=-/usr/sbin/sshd -D \\\n  $OPTS\n");
        write(
            second.join("cups.socket"),
            "[Socket]\nListenStream=/run/cups.sock\nListenStream=127.0.0.1:631\n",
        );
        write(second.join("web.socket"), "[Socket]\nListenStream=[::1]:80\nAccept=yes\n");
        write(second.join("old.socket"), "[Socket]\nListenStream=81\n");
        write(first.join("old.socket"), "");
        write(
            first.join("ssh.socket.d/port.conf"),
            "[Socket]\n# moved\nListenStream=\nListenStream=0.0.0.0:2222\n",
        );
        let units = Units::read(&[first, second]);
        let of = |address: &str, port, pids: &[u32]| {
            units.of(&socket(address, port, pids)).map(|one| one.to_string())
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(of("0.0.0.0", 2222, &[1]), text("ssh.socket -> ssh.service (not started)"));
        assert_eq!(of("0.0.0.0", 2222, &[1, 9]), text("ssh.socket -> ssh.service"));
        assert_eq!(of("0.0.0.0", 22, &[1]), None);
        assert_eq!(of("0.0.0.0", 7, &[1]), None);
        assert_eq!(of("127.0.0.1", 631, &[1]), text("cups.socket -> cups.service (not started)"));
        assert_eq!(of("0.0.0.0", 631, &[1]), None);
        assert_eq!(of("::1", 80, &[1]), text("web.socket -> web@.service (not started)"));
        assert_eq!(of("0.0.0.0", 81, &[1]), None, "a masked unit");
        let ssh = units.of(&socket("0.0.0.0", 2222, &[1])).unwrap();
        assert_eq!((ssh.exe.as_deref(), ssh.user.as_deref()), (Some("/usr/sbin/sshd"), Some("sshd")));
    }

    #[test]
    fn only_systemd_reads_units() {
        assert!(is_systemd(Some("/usr/lib/systemd/systemd")));
        assert!(!is_systemd(Some("/usr/bin/python3")) && !is_systemd(None));
    }

    #[test]
    fn programs_are_read_with_their_signs() {
        assert_eq!(program("/usr/sbin/sshd -D").as_deref(), Some("/usr/sbin/sshd"));
        assert_eq!(program("!!/bin/x").as_deref(), Some("/bin/x"));
        assert_eq!(program("\"/opt/a b\" c").as_deref(), Some("/opt/a b"));
        assert_eq!(program("%h/x"), None);
        assert_eq!(program("sleep 1"), None);
        assert_eq!(program(""), None);
    }
}
