//! Network namespaces: the list, and queries inside one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{FsType, fstatfs};

use super::{proc_net, processes};
use crate::model::{Family, Inventory, ListeningSocket, Protocol};
use crate::sys::{Error, entries};

/// NSFS_MAGIC of `linux/magic.h`.
const NSFS: FsType = FsType(0x6e73_6673);

/// An existing network namespace.
#[derive(Debug)]
pub struct NetNamespace {
    /// Inode, which identifies the namespace during its lifetime.
    pub inode: u64,
    /// Name below `/run/netns`, or one of its processes as `pid 12 (nginx)`. Unescaped.
    pub name: Option<String>,
    /// Whether the calling thread was in it.
    pub current: bool,
    /// A descriptor to enter it; `None` if it is visible but cannot be opened.
    handle: Option<OwnedFd>,
    /// A process in it.
    process: Option<u32>,
}

/// Inode of the calling thread's network namespace.
pub(super) fn current() -> Option<u64> {
    inode_of_link(Path::new("/proc/thread-self/ns/net"))
}

/// The number in `net:[4026531840]`, the target of the link.
fn inode_of_link(path: &Path) -> Option<u64> {
    inode_in(std::fs::read_link(path).ok()?.as_os_str().as_bytes())
}

fn inode_in(link: &[u8]) -> Option<u64> {
    let digits = link.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Every network namespace that has a name below `/run/netns`, a process, or a visible open descriptor; the calling
/// thread's first. Also one sentence for each part that could not be read.
#[must_use]
pub fn namespaces() -> (Vec<NetNamespace>, Vec<String>) {
    let mut because = Vec::new();
    let mut found: BTreeMap<u64, NetNamespace> = BTreeMap::new();
    let own = current();
    if let Some(inode) = own {
        let handle = File::open("/proc/thread-self/ns/net").ok().map(OwnedFd::from);
        found.insert(inode, NetNamespace { inode, name: None, current: true, handle, process: None });
    }
    let names = Path::new("/run/netns");
    match entries(names) {
        Ok(entries) => {
            for entry in entries {
                let path = names.join(&entry);
                let Ok(file) = File::open(&path) else {
                    because.push(format!("{} could not be opened", path.display()));
                    continue;
                };
                // After its mount is removed, a name is an ordinary empty file.
                let (true, Ok(metadata)) = (is_namespace(&file), file.metadata()) else { continue };
                let name = entry.to_string_lossy().into_owned();
                let known = found.entry(metadata.ino()).or_insert_with(|| NetNamespace {
                    inode: metadata.ino(),
                    name: None,
                    current: false,
                    handle: None,
                    process: None,
                });
                known.name.get_or_insert(name);
                known.handle.get_or_insert(file.into());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => because.push(format!("/run/netns could not be read: {error}")),
    }
    let unread = by_process(&mut found);
    if unread > 0 {
        because.push(format!("the network namespaces of {unread} processes could not be read"));
    }
    let mut list: Vec<NetNamespace> = found.into_values().collect();
    list.sort_by_key(|namespace| (!namespace.current, namespace.inode));
    (list, because)
}

fn is_namespace(file: &File) -> bool {
    fstatfs(file.as_fd()).is_ok_and(|stat| stat.filesystem_type() == NSFS)
}

/// Adds the namespaces that processes are in or have open. Returns the number of processes whose namespace could not be
/// read.
fn by_process(found: &mut BTreeMap<u64, NetNamespace>) -> usize {
    let mut unread = 0;
    let pids = processes::pids();
    for &pid in &pids {
        let path = format!("/proc/{pid}/ns/net");
        let inode = match std::fs::read_link(&path) {
            Ok(link) => inode_in(link.as_os_str().as_bytes()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                unread += 1;
                None
            }
            Err(_) => None,
        };
        let Some(inode) = inode else { continue };
        let known = found.entry(inode).or_insert_with(|| NetNamespace {
            inode,
            name: None,
            current: false,
            handle: None,
            process: None,
        });
        known.process.get_or_insert(pid);
        if known.handle.is_none() {
            known.handle = File::open(&path)
                .ok()
                .filter(|file| file.metadata().is_ok_and(|metadata| metadata.ino() == inode))
                .map(OwnedFd::from);
        }
        if known.name.is_none() && !known.current {
            let command = processes::command(pid).unwrap_or_default();
            known.name = Some(format!("pid {pid} ({command})"));
        }
    }
    // A namespace without a process exists as long as a descriptor refers to it: of a container engine, of `ip netns`,
    // of a test.
    for &pid in &pids {
        let directory = Path::new("/proc").join(pid.to_string()).join("fd");
        for name in entries(&directory).into_iter().flatten() {
            let path = directory.join(name);
            let Some(inode) = inode_of_link(&path) else { continue };
            found.entry(inode).or_insert_with(|| NetNamespace {
                inode,
                name: Some(format!("open in pid {pid} ({})", processes::command(pid).unwrap_or_default())),
                current: false,
                handle: File::open(&path).ok().map(OwnedFd::from),
                process: None,
            });
        }
    }
    unread
}

/// Runs `body` on a thread of `namespace`.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN in the user namespace that owns it (setns(2)).
pub fn in_namespace<T: Send>(namespace: &NetNamespace, body: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let failed =
        |source: io::Error| Error::call("enter", format!("network namespace {}", namespace.inode), source);
    if namespace.current {
        return Ok(body());
    }
    let Some(handle) = &namespace.handle else {
        return Err(failed(io::ErrorKind::PermissionDenied.into()));
    };
    // The thread ends in the other namespace, so no other thread is affected.
    let outcome = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                setns(handle.as_fd(), CloneFlags::CLONE_NEWNET)?;
                Ok::<T, io::Error>(body())
            })
            .join()
    });
    match outcome {
        Ok(result) => result.map_err(failed),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// The sockets of a namespace that cannot be entered, from `/proc/PID/net` of a process in it: without IPV6_V6ONLY,
/// devices and owners. `None` if there is no such process.
#[must_use]
pub fn inventory_from_outside(namespace: &NetNamespace) -> Option<Inventory> {
    let pid = namespace.process?;
    let mut inventory = Inventory::default();
    let mut listed = true;
    for (file, protocol, family) in [
        ("tcp", Protocol::Tcp, Family::Ipv4),
        ("tcp6", Protocol::Tcp, Family::Ipv6),
        ("udp", Protocol::Udp, Family::Ipv4),
        ("udp6", Protocol::Udp, Family::Ipv6),
    ] {
        let path = format!("/proc/{pid}/net/{file}");
        match proc_net::read(&path, protocol, family, Some(namespace.inode)) {
            Ok(sockets) => inventory.sockets.extend(sockets),
            Err(error) if error.kind() == io::ErrorKind::NotFound && family == Family::Ipv6 => {}
            Err(error) => {
                listed = false;
                inventory.incomplete_because.push(format!("{path} could not be read: {error}"));
            }
        }
    }
    // Whether the process stayed in the same namespace.
    if inode_of_link(Path::new(&format!("/proc/{pid}/ns/net"))) != Some(namespace.inode) {
        return None;
    }
    inventory.all_sockets = listed;
    inventory.sockets.sort_by_cached_key(ListeningSocket::order);
    Some(inventory)
}
