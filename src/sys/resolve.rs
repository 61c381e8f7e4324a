//! Path resolution by this program: component by component from an open directory, so that the checked file is the used
//! file. Root does not follow a symbolic link that a less privileged user controls.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

/// As many links as Linux follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// A directory is opened only to name what is in it. Where the system has no `O_PATH`, it must be readable.
#[cfg(target_os = "linux")]
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// The end of a path.
pub(super) enum Target {
    /// The path names an open descriptor of this process (`/dev/stdout`, `/dev/fd/3`).
    Descriptor(i32),
    /// An entry of a directory, which may not exist.
    Entry(Box<Entry>),
}

/// A name in a directory.
pub(super) struct Entry {
    pub(super) directory: OwnedFd,
    /// What `fstat(2)` reports of the directory.
    pub(super) directory_stat: Stat,
    pub(super) name: OsString,
    /// What `lstat(2)` reported of the entry; `None` when it does not exist.
    pub(super) stat: Option<Stat>,
    /// The first directory of the path whose entries a less privileged user can replace, and that user.
    pub(super) weak: Option<(PathBuf, String)>,
}

/// The users that root trusts in addition to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trust {
    /// Every user: nothing is checked.
    pub everyone: bool,
    /// This user, who gave the command (`SUDO_UID`).
    pub user: Option<u32>,
    /// This group (`SUDO_GID`).
    pub group: Option<u32>,
}

impl Entry {
    pub(super) fn kind(&self) -> Option<FileType> {
        self.stat.as_ref().map(|stat| FileType::from_raw_mode(stat.st_mode))
    }
}

/// Resolves all of `path`; the last component only with `follow_last`, so that the entry may be a link without it.
///
/// # Errors
/// As `openat(2)`, and [`io::ErrorKind::PermissionDenied`] for a link that root does not follow.
pub(super) fn resolve(path: &Path, follow_last: bool, trust: Trust) -> io::Result<Target> {
    let mut rest: VecDeque<OsString> = components(path);
    let mut at = Directory::start(path)?;
    let mut links = 0;
    let mut weak = None;
    loop {
        let directory_stat = fstat(&at.handle)?;
        if weak.is_none() && rustix::process::geteuid().is_root() {
            weak = directory_controller(&directory_stat, trust).map(|who| (at.path.clone(), who));
        }
        let Some(name) = rest.pop_front() else {
            // The path names a directory: `/`, `.`, `..`.
            let (name, stat) = (OsString::from("."), Some(directory_stat));
            let entry = Entry { directory: at.handle, directory_stat, name, stat, weak };
            return Ok(Target::Entry(Box::new(entry)));
        };
        if name == ".." {
            at = at.open(&name)?;
            continue;
        }
        if rest.is_empty()
            && let Some(number) = descriptor_of(&at.path.join(&name))
        {
            return Ok(Target::Descriptor(number));
        }
        let stat = match statat(&at.handle, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) if rest.is_empty() => None,
            Err(error) => return Err(error.into()),
        };
        let link = stat.filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
        let Some(link) = link.filter(|_| !rest.is_empty() || follow_last) else {
            if rest.is_empty() {
                let entry = Entry { directory: at.handle, directory_stat, name, stat, weak };
                return Ok(Target::Entry(Box::new(entry)));
            }
            at = at.open(&name)?;
            continue;
        };
        links += 1;
        if links > MOST_LINKS {
            return Err(Errno::LOOP.into());
        }
        may_follow(&link, &directory_stat, trust).map_err(|controller| {
            let place = at.path.join(&name);
            let sentence =
                format!("{} is a link that {controller} controls, and it is not followed", place.display());
            io::Error::new(io::ErrorKind::PermissionDenied, sentence)
        })?;
        let to = readlinkat(&at.handle, &name, Vec::new())?.into_bytes();
        let to = PathBuf::from(OsString::from_vec(to));
        if to.is_absolute() {
            at = Directory::start(&to)?;
        }
        for component in components(&to).into_iter().rev() {
            rest.push_front(component);
        }
    }
}

/// A directory on the way, with the path that leads there without links.
struct Directory {
    handle: OwnedFd,
    path: PathBuf,
}

impl Directory {
    fn start(path: &Path) -> io::Result<Directory> {
        let start = if path.is_absolute() { "/" } else { "." };
        let handle = openat(CWD, start, DIRECTORY, Mode::empty())?;
        Ok(Directory { handle, path: PathBuf::from(if path.is_absolute() { "/" } else { "" }) })
    }

    fn open(self, name: &OsStr) -> io::Result<Directory> {
        let handle = openat(&self.handle, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        let mut path = self.path;
        if name != ".." {
            path.push(name);
        } else if !path.pop() {
            path.push("..");
        }
        Ok(Directory { handle, path })
    }
}

/// The names of a path without `.`. The start is not one of them.
fn components(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    });
    names.collect()
}

/// The descriptor of this process that an absolute path names, such as 1 for `/dev/stdout` and `/proc/self/fd/1`.
fn descriptor_of(path: &Path) -> Option<i32> {
    let names = components(path);
    let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    let number = |text: &[u8]| {
        let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        std::str::from_utf8(text).ok().filter(|_| digits)?.parse::<i32>().ok()
    };
    let own = |process: &[u8]| {
        matches!(process, b"self" | b"thread-self")
            || number(process).and_then(|pid| u32::try_from(pid).ok()) == Some(std::process::id())
    };
    match names.as_slice() {
        _ if !path.is_absolute() => None,
        [b"dev", b"stdin"] => Some(0),
        [b"dev", b"stdout"] => Some(1),
        [b"dev", b"stderr"] => Some(2),
        [b"dev", b"fd", descriptor] => number(descriptor),
        [b"proc", process, b"fd", descriptor] if own(process) => number(descriptor),
        [b"proc", process, b"task", _, b"fd", descriptor] if own(process) => number(descriptor),
        _ => None,
    }
}

/// Whether a link in a directory may be followed; otherwise the user who controls it. Root follows only links
/// controlled by root or a trusted user. Other users follow every link except those that `fs.protected_symlinks` covers
/// (proc_sys_fs(5)), whether or not the setting is on.
fn may_follow(link: &Stat, directory: &Stat, trust: Trust) -> Result<(), String> {
    let user = rustix::process::geteuid().as_raw();
    let sticky = directory.st_mode & 0o1000 != 0;
    if user != 0 {
        let shared = sticky && directory.st_mode & 0o002 != 0;
        let safe = !shared || link.st_uid == user || link.st_uid == directory.st_uid;
        return if safe { Ok(()) } else { Err(format!("user {}", link.st_uid)) };
    }
    match controller(link.st_uid, None, trust).or_else(|| directory_controller(directory, trust)) {
        Some(controller) => Err(controller),
        None => Ok(()),
    }
}

/// An untrusted user who can replace the entries of a directory that root owns; `None` if there is none.
pub(super) fn directory_controller(directory: &Stat, trust: Trust) -> Option<String> {
    let sticky = directory.st_mode & 0o1000 != 0;
    #[allow(clippy::useless_conversion, reason = "16 bits wide on macOS and FreeBSD")]
    let mode = u32::from(directory.st_mode);
    controller(directory.st_uid, (!sticky).then_some((mode, directory.st_gid)), trust)
}

/// An untrusted user who can change an object with this owner and, if permission bits count, this mode and group.
pub(super) fn controller(owner: u32, permissions: Option<(u32, u32)>, trust: Trust) -> Option<String> {
    let (mode, group) = permissions.unwrap_or_default();
    if trust.everyone {
        None
    } else if !is_root(owner) && trust.user != Some(owner) {
        Some(format!("user {owner}"))
    } else if mode & 0o002 != 0 {
        Some("every user".to_owned())
    } else if mode & 0o020 != 0 && group != 0 && trust.group != Some(group) {
        Some(format!("group {group}"))
    } else {
        None
    }
}

/// Whether an owner is root as this process sees it. In a user namespace the machine's root is shown as the overflow number,
/// which means that user only where the number is not mapped (user_namespaces(7)).
fn is_root(owner: u32) -> bool {
    /// `/proc/sys/kernel/overflowuid` with its default value.
    const OVERFLOW: u32 = 65534;
    owner == 0 || owner == OVERFLOW && !is_mapped(OVERFLOW)
}

fn is_mapped(user: u32) -> bool {
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else { return true };
    map.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
        let (first, _, count) = (numbers.next(), numbers.next(), numbers.next());
        let (first, count) = (first.unwrap_or(0), count.unwrap_or(0));
        (first..first.saturating_add(count)).contains(&u64::from(user))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_known_by_every_name() {
        let own = std::process::id();
        for (path, number) in [
            ("/dev/stdin".to_owned(), Some(0)),
            ("/dev/stdout".to_owned(), Some(1)),
            ("//dev/./stdout".to_owned(), Some(1)),
            ("/dev/fd/17".to_owned(), Some(17)),
            (format!("/proc/{own}/fd/3"), Some(3)),
            (format!("/proc/{own}/task/1/fd/3"), Some(3)),
            ("/proc/self/fd/2".to_owned(), Some(2)),
            ("/proc/1/fd/2".to_owned(), None),
            ("/dev/fd/-1".to_owned(), None),
            ("/dev/fd/+1".to_owned(), None),
            ("/dev/fd/".to_owned(), None),
            ("dev/stdout".to_owned(), None),
            ("/tmp/dev/stdout".to_owned(), None),
        ] {
            assert_eq!(descriptor_of(Path::new(&path)), number, "{path}");
        }
    }

    #[test]
    fn links_lead_to_descriptors_and_entries() {
        let place = tempfile::tempdir().unwrap();
        let link = |name: &str, to: &str| std::os::unix::fs::symlink(to, place.path().join(name)).unwrap();
        std::fs::create_dir(place.path().join("d")).unwrap();
        link("out", "/dev/stdout");
        link("chain", "d/../out");
        link("new", "d/file");
        link("a", "b");
        link("b", "a");
        let resolve_at = |name: &str, follow| resolve(&place.path().join(name), follow, Trust::default());
        for name in ["out", "chain"] {
            assert!(matches!(resolve_at(name, true).unwrap(), Target::Descriptor(1)), "{name}");
            let Target::Entry(entry) = resolve_at(name, false).unwrap() else { panic!("{name}") };
            assert_eq!(entry.kind(), Some(FileType::Symlink));
        }
        let Target::Entry(entry) = resolve_at("new", true).unwrap() else { panic!("an entry") };
        assert!(entry.stat.is_none() && entry.name == "file");
        assert_eq!(resolve_at("a", true).err().unwrap().raw_os_error(), Some(libc::ELOOP));
        assert_eq!(
            resolve_at("missing/x", true).err().map(|error| error.kind()),
            Some(io::ErrorKind::NotFound)
        );
        assert!(matches!(
            resolve(Path::new("/dev/../dev/fd/1"), true, Trust::default()).unwrap(),
            Target::Descriptor(1)
        ));
    }

    #[test]
    fn those_who_can_change_a_thing_are_named() {
        let no_user = Trust::default();
        assert_eq!(controller(0, None, no_user), None);
        assert_eq!(controller(7, None, no_user).as_deref(), Some("user 7"));
        assert_eq!(controller(0, Some((0o755, 50)), no_user), None);
        assert_eq!(controller(0, Some((0o775, 50)), no_user).as_deref(), Some("group 50"));
        assert_eq!(controller(0, Some((0o775, 0)), no_user), None);
        assert_eq!(controller(0, Some((0o777, 0)), no_user).as_deref(), Some("every user"));
        let sudo = Trust { user: Some(7), group: Some(50), ..no_user };
        assert_eq!(controller(7, Some((0o775, 50)), sudo), None);
        assert_eq!(controller(8, Some((0o755, 50)), sudo).as_deref(), Some("user 8"));
        assert_eq!(controller(7, Some((0o777, 50)), sudo).as_deref(), Some("every user"));
        assert_eq!(controller(8, Some((0o777, 50)), Trust { everyone: true, ..no_user }), None);
    }
}
