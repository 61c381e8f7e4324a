//! Systemd unit and container from the path of a cgroup.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustc_hash::FxHashSet;
use rustix::fs::{Dir, FileType};

/// Unit and container of a process, from the text of `/proc/PID/cgroup` (cgroups(7)).
pub(super) fn of_process(text: &str) -> (Option<String>, Option<String>) {
    // First the unified hierarchy, then systemd's hierarchy of version 1, then any that names a unit.
    let path_of = |prefix: &str| {
        text.lines().find_map(|line| line.strip_prefix(prefix)?.split_once(':').map(|(_, path)| path))
    };
    let unified = path_of("0:").filter(|path| *path != "/");
    let named = text.lines().find_map(|line| line.split_once(":name=systemd:").map(|(_, path)| path));
    let paths: Vec<&str> = unified.into_iter().chain(named).collect();
    let unit = paths.iter().find_map(|path| unit(path));
    let container = paths
        .iter()
        .copied()
        .chain(text.lines().filter_map(|line| line.splitn(3, ':').nth(2)))
        .find_map(container);
    (unit, container)
}

/// The innermost systemd unit of a cgroup path: `nginx.service` of `/system.slice/nginx.service`.
pub(super) fn unit(path: &str) -> Option<String> {
    const KINDS: [&str; 6] = [".service", ".scope", ".socket", ".mount", ".swap", ".timer"];
    path.rsplit('/')
        .find(|part| KINDS.iter().any(|kind| part.len() > kind.len() && part.ends_with(kind)))
        .map(str::to_owned)
}

/// The container of a cgroup path, as `engine:name` with a hexadecimal name cut to twelve digits.
pub(super) fn container(path: &str) -> Option<String> {
    let mut parts = path.split('/').rev();
    parts.find_map(|part| {
        let scope = part.strip_suffix(".scope").unwrap_or(part);
        for (prefix, engine) in [
            ("docker-", "docker"),
            ("libpod-", "podman"),
            ("cri-containerd-", "containerd"),
            ("crio-", "crio"),
        ] {
            if let Some(id) = scope.strip_prefix(prefix).filter(|id| is_id(id)) {
                return Some(format!("{engine}:{}", &id[..12]));
            }
        }
        for (prefix, engine) in [("lxc.payload.", "lxc"), ("machine-", "machine")] {
            if let Some(name) = scope.strip_prefix(prefix).filter(|name| !name.is_empty()) {
                return Some(format!("{engine}:{name}"));
            }
        }
        if !is_id(part) {
            return None;
        }
        // A bare id: its parent may name the engine (`/docker/<id>`, `/kubepods/pod.../<id>`).
        let engine = if path.contains("/docker/") {
            "docker"
        } else if path.contains("kubepods") {
            "kubernetes"
        } else {
            "container"
        };
        Some(format!("{engine}:{}", &part[..12]))
    })
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Paths of the cgroups with these ids. The id of a cgroup is the inode of its directory (`kernfs_node` of
/// `linux/kernfs.h`). Ids that are not found are left out.
pub(super) fn paths(wanted: FxHashSet<u64>) -> HashMap<u64, String> {
    let mut found = HashMap::new();
    let Some(root) = mount_point() else { return found };
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        if found.len() == wanted.len() {
            break;
        }
        use std::os::unix::fs::MetadataExt as _;
        if let Ok(metadata) = std::fs::metadata(&directory)
            && wanted.contains(&metadata.ino())
        {
            let path = Path::new("/").join(directory.strip_prefix(&root).unwrap_or(&directory));
            found.insert(metadata.ino(), path.to_string_lossy().into_owned());
        }
        let entries = std::fs::File::open(&directory).ok().and_then(|opened| Dir::new(opened).ok());
        let below = entries.into_iter().flatten().map_while(Result::ok);
        directories.extend(
            below
                .filter(|entry| {
                    entry.file_type() == FileType::Directory
                        && !entry.file_name().to_bytes().starts_with(b".")
                })
                .map(|entry| directory.join(OsStr::from_bytes(entry.file_name().to_bytes()))),
        );
    }
    found
}

/// Where the unified hierarchy is mounted.
pub(super) fn mount_point() -> Option<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    text.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup2 ").then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn units_and_containers_are_read_from_cgroup_paths() {
        let some = |text: &str| Some(text.to_owned());
        for (text, unit, container) in [
            ("0::/system.slice/nginx.service\n".to_owned(), some("nginx.service"), None),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope\n".to_owned(),
                some("app-x.scope"),
                None,
            ),
            (
                format!("0::/system.slice/docker-{ID}.scope\n"),
                some(&format!("docker-{ID}.scope")),
                some("docker:0123456789ab"),
            ),
            (
                format!("12:pids:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n"),
                None,
                some("docker:0123456789ab"),
            ),
            (
                format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
                some(&format!("cri-containerd-{ID}.scope")),
                some("containerd:0123456789ab"),
            ),
            (format!("0::/kubepods/burstable/pod1/{ID}"), None, some("kubernetes:0123456789ab")),
            ("0::/lxc.payload.web/init.scope".to_owned(), some("init.scope"), some("lxc:web")),
            ("0::/\n".to_owned(), None, None),
            ("9:name=systemd:/system.slice/ssh.service\n0::/\n".to_owned(), some("ssh.service"), None),
            ("0::/system.slice/.service\n".to_owned(), None, None),
            (String::new(), None, None),
        ] {
            assert_eq!(of_process(&text), (unit, container), "{text:?}");
        }
    }
}
