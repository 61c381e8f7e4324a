//! Owners of sockets: a scan of `/proc/PID/fd` (proc(5)).
//!
//! All data of a process is read relative to one open descriptor of its `/proc` directory. After the process ends, that
//! descriptor returns ESRCH forever, even if another process gets the same number. The data therefore belongs to one
//! process.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;
use rustc_hash::{FxHashMap, FxHashSet};
use rustix::fs::RawDir;
use rustix::io::Errno;

use super::cgroup;
use crate::escape::escape_bytes;
use crate::model::{Owner, Owners};
use crate::sys::entries;

/// One process during the scan.
pub(super) struct Process {
    pub pid: u32,
    directory: OwnedFd,
}

impl Process {
    /// The process that has this number now.
    pub fn open(pid: u32) -> nix::Result<Process> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = nix::fcntl::open(format!("/proc/{pid}").as_str(), flags, Mode::empty())?;
        Ok(Process { pid, directory })
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = openat(self.directory.as_fd(), name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut bytes = Vec::new();
        File::from(file).take(1 << 20).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The directory of its open descriptors.
    fn descriptors(&self) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        openat(self.directory.as_fd(), "fd", flags, Mode::empty())
    }

    /// Whether `path`, as seen from here, is the file that the process runs. In a container or after an update it is
    /// not.
    fn runs_file_at(&self, path: &[u8]) -> Option<bool> {
        let running =
            nix::sys::stat::fstatat(self.directory.as_fd(), "exe", nix::fcntl::AtFlags::empty()).ok()?;
        let here = nix::sys::stat::stat(path).ok();
        Some(here.is_some_and(|here| (here.st_dev, here.st_ino) == (running.st_dev, running.st_ino)))
    }

    /// Data of an owner; `None` if the process has ended.
    fn describe(&self, users: &mut Users) -> Option<Owner> {
        let comm = self.read("comm").ok()?;
        let command = text_of(comm.strip_suffix(b"\n").unwrap_or(&comm));
        let uid = self.read("status").ok().and_then(|status| effective_uid(&status));
        let (exe, exe_deleted, exe_visible) = match readlinkat(self.directory.as_fd(), "exe") {
            Ok(path) => {
                let path = path.into_vec();
                let here = self.runs_file_at(&path);
                let (exe, deleted) = executable(&path);
                (exe, deleted, here)
            }
            Err(_) => (None, false, None),
        };
        let (unit, container) =
            self.read("cgroup").map(|bytes| cgroup::of_process(&text_of(&bytes))).unwrap_or_default();
        let user = uid.map(|uid| users.name(uid));
        Some(Owner { pid: self.pid, command, exe, exe_deleted, exe_visible, user, uid, unit, container })
    }

    /// Whether it is still alive. If so, no other process has had its number since it was opened.
    pub fn lives(&self) -> bool {
        self.read("comm").is_ok()
    }
}

/// Text of the system: unchanged if it is UTF-8, otherwise with invalid bytes as `\xNN`.
fn text_of(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => escape_bytes(bytes),
    }
}

/// The kernel appends ` (deleted)` to the path of a file without a name (`d_path()` of `fs/d_path.c`). A file whose
/// real name ends like this still exists under it.
fn executable(path: &[u8]) -> (Option<String>, bool) {
    match path.strip_suffix(b" (deleted)") {
        Some(before) if !std::path::Path::new(std::ffi::OsStr::from_bytes(path)).exists() => {
            (Some(text_of(before)), true)
        }
        _ => (Some(text_of(path)), false),
    }
}

/// The second number of the line `Uid:` of `/proc/PID/status`.
fn effective_uid(status: &[u8]) -> Option<u32> {
    // The line `Name:` comes first and the process can choose it, but the kernel escapes newlines in it.
    let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_whitespace().nth(1)?.parse().ok()
}

/// Names of users, with a cache.
#[derive(Default)]
struct Users(HashMap<u32, String>);

impl Users {
    fn name(&mut self, uid: u32) -> String {
        let name = self.0.entry(uid).or_insert_with(|| {
            nix::unistd::User::from_uid(uid.into())
                .ok()
                .flatten()
                .map_or_else(|| uid.to_string(), |user| user.name)
        });
        name.clone()
    }
}

/// The numbers of the visible processes.
pub(super) fn pids() -> Vec<u32> {
    let names = entries(Path::new("/proc")).into_iter().flatten();
    names.filter_map(|name| name.to_str()?.parse().ok()).collect()
}

/// The name that a process sets itself.
pub(super) fn command(pid: u32) -> Option<String> {
    let comm = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(text_of(comm.strip_suffix(b"\n").unwrap_or(&comm)))
}

/// Result of a scan.
#[derive(Default)]
pub(super) struct Holders {
    /// Owners by the inode of the socket; a socket can have several.
    pub owners: FxHashMap<u64, Owners>,
    /// Number of processes whose descriptors could not be read.
    pub unreadable: usize,
    /// Number of visible processes.
    pub seen: usize,
    /// Why there may be invisible processes.
    pub unseen_because: Option<&'static str>,
}

impl Holders {
    /// Why a socket without an owner here may still have one; `None` if every process was read.
    pub fn incomplete_because(&self) -> Option<String> {
        let reason = if self.seen == 0 {
            "/proc shows no processes".to_owned()
        } else if self.unreadable > 0 {
            format!("the descriptors of {} of {} processes could not be read", self.unreadable, self.seen)
        } else {
            self.unseen_because?.to_owned()
        };
        Some(reason)
    }
}

/// Inode of the initial pid namespace (`PROC_PID_INIT_INO` of `linux/proc_ns.h`).
const INITIAL_PID_NAMESPACE: &[u8] = b"pid:[4026531836]";

/// Finds the owners of the sockets with the inodes `wanted`. `each` receives every descriptor.
pub(super) fn holders(wanted: &FxHashSet<u64>, mut each: impl FnMut(&Process, i32, u64)) -> Holders {
    let mut holders = Holders::default();
    holders.owners.reserve(wanted.len());
    let mut users = Users::default();
    let mut shared: FxHashMap<u64, Vec<Owner>> = FxHashMap::default();
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    for pid in pids() {
        let Ok(process) = Process::open(pid) else { continue };
        holders.seen += 1;
        let directory = match process.descriptors() {
            Ok(directory) => directory,
            // The process ended during the scan.
            Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ESRCH) => continue,
            Err(_) => {
                holders.unreadable += 1;
                continue;
            }
        };
        let mut descriptors = RawDir::new(&directory, &mut buffer);
        let mut owner: Option<Owners> = None;
        let mut denied = false;
        while let Some(Ok(entry)) = descriptors.next() {
            let name = entry.file_name();
            let inode = match socket_behind(directory.as_fd(), name) {
                Ok(inode) => inode,
                Err(Errno::ACCESS | Errno::PERM) => {
                    denied |= name.to_bytes() != b"." && name.to_bytes() != b"..";
                    continue;
                }
                Err(_) => continue,
            };
            let Some(inode) = inode.filter(|inode| wanted.contains(inode)) else { continue };
            let Some(number) = name.to_str().ok().and_then(|name| name.parse().ok()) else { continue };
            if owner.is_none() {
                owner = process.describe(&mut users).map(|owner| Owners::from([owner]));
            }
            let Some(owner) = &owner else { break };
            match holders.owners.entry(inode) {
                Entry::Vacant(entry) => {
                    entry.insert(Arc::clone(owner));
                }
                // A second descriptor of this process, or a second process.
                Entry::Occupied(entry) => {
                    let list = shared.entry(inode).or_insert_with(|| entry.get().to_vec());
                    if list.last().is_none_or(|last| last.pid != pid) {
                        list.extend_from_slice(owner);
                    }
                }
            }
            each(&process, number, inode);
        }
        holders.unreadable += usize::from(denied);
    }
    share(shared, &mut holders.owners);
    holders.unseen_because = unseen_because();
    holders
}

/// Builds lists of several owners; sockets with the same owners share one list.
fn share(lists: FxHashMap<u64, Vec<Owner>>, owners: &mut FxHashMap<u64, Owners>) {
    let mut known: FxHashMap<Vec<u32>, Owners> = FxHashMap::default();
    for (inode, mut list) in lists {
        list.sort_by_key(|owner| owner.pid);
        let pids = list.iter().map(|owner| owner.pid).collect();
        owners.insert(inode, Arc::clone(known.entry(pids).or_insert_with(|| list.into())));
    }
}

/// The inode of the socket behind the link `name` in an open directory; `None` for a link to anything else.
///
/// # Errors
/// Those of `readlinkat(2)`.
fn socket_behind(directory: BorrowedFd<'_>, name: &CStr) -> Result<Option<u64>, Errno> {
    // `socket:[` and a number; a longer target is not a socket. No allocation, because there may be a hundred thousand
    // links.
    let mut target = [0u8; 32];
    let length = rustix::fs::readlinkat_raw(directory, name, &mut target)?;
    Ok(target.get(..length).and_then(socket_inode))
}

fn unseen_because() -> Option<&'static str> {
    if !std::path::Path::new("/proc/1").exists() {
        return Some("/proc hides the processes of others (hidepid of proc(5))");
    }
    match std::fs::read_link("/proc/self/ns/pid") {
        Ok(link) if link.as_os_str().as_bytes() == INITIAL_PID_NAMESPACE => None,
        _ => Some("processes outside this pid namespace are not visible"),
    }
}

/// The number in `socket:[123]`.
fn socket_inode(target: &[u8]) -> Option<u64> {
    let digits = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Decodes bytes as the files of `/proc/PID`: name, status, program, cgroups and descriptors.
#[cfg(fuzzing)]
#[must_use]
pub fn decode(bytes: &[u8]) -> usize {
    let text = text_of(bytes);
    let (unit, container) = cgroup::of_process(&text);
    usize::from(effective_uid(bytes).is_some())
        + usize::from(executable(bytes).1)
        + usize::from(socket_inode(bytes).is_some())
        + usize::from(unit.is_some())
        + usize::from(container.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_status_are_read_strictly() {
        assert_eq!(socket_inode(b"socket:[123]"), Some(123));
        for wrong in [&b"socket:[12"[..], b"socket:[]", b"pipe:[12]", b"/tmp/socket:[12]", b"socket:[-1]"] {
            assert_eq!(socket_inode(wrong), None);
        }
        assert_eq!(
            effective_uid(b"Name:\tx\\nUid:\t0 0\nUmask:\t0022\nUid:\t1000\t1001\t1002\t1003\n"),
            Some(1001)
        );
        assert_eq!(effective_uid(b"Uid:\t\n"), None);
    }

    #[test]
    fn this_process_holds_its_sockets_and_is_named_by_its_file() {
        use std::os::unix::fs::MetadataExt as _;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = File::from(OwnedFd::from(listener.try_clone().unwrap())).metadata().unwrap().ino();
        let holders = holders(&[inode].into_iter().collect(), |_, _, _| {});
        let owner = &holders.owners[&inode][0];
        assert_eq!(owner.pid, std::process::id());
        assert_eq!(owner.exe.as_deref(), std::env::current_exe().unwrap().to_str());
        assert_eq!(owner.uid, Some(nix::unistd::geteuid().as_raw()));
        assert!(!holders.owners.contains_key(&(inode + 1_000_000)));
    }

    #[test]
    fn a_deleted_executable_differs_from_a_name_with_that_suffix() {
        assert_eq!(executable(b"/nowhere/x (deleted)"), (Some("/nowhere/x".to_owned()), true));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x (deleted)");
        std::fs::write(&path, "").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(executable(path.as_bytes()), (Some(path.to_owned()), false));
    }
}
