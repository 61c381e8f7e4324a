//! Why the system refuses a namespace, and the setting that would permit it.

use std::io;

use nix::errno::Errno;

use crate::sys::NamespaceRefusal;

/// The cause of a refused `unshare(CLONE_NEWUSER)`.
pub(super) fn user_namespace(step: &'static str, errno: Errno) -> NamespaceRefusal {
    let remedy = match errno {
        Errno::EPERM | Errno::EACCES if setting("kernel/unprivileged_userns_clone") == Some(0) => {
            "run `sysctl kernel.unprivileged_userns_clone=1` as root, or run the lab as root".to_owned()
        }
        Errno::EACCES => apparmor().unwrap_or_else(as_root),
        Errno::EPERM | Errno::ENOSYS if filtered() => seccomp(),
        Errno::EPERM if unmapped() => {
            "this user has no number in the user namespace (see /proc/self/uid_map): run as a user that has one".to_owned()
        }
        Errno::EPERM => apparmor().unwrap_or_else(|| {
            "a process in a chroot may not make user namespaces; run it outside, or run the lab as root".to_owned()
        }),
        Errno::ENOSPC => "run `sysctl user.max_user_namespaces=10000` as root: the limit is used up or 0".to_owned(),
        Errno::EINVAL => "this kernel was built without CONFIG_USER_NS; run the lab as root".to_owned(),
        _ => as_root(),
    };
    refusal(step, errno.into(), remedy)
}

/// The cause of a refused map of a new user namespace.
pub(super) fn map(path: &'static str, error: &io::Error) -> NamespaceRefusal {
    let remedy = apparmor().unwrap_or_else(as_root);
    refusal(path, copy(error), remedy)
}

/// The cause of a refused `unshare(CLONE_NEWNET)`.
pub(super) fn net_namespace(step: &'static str, errno: Errno) -> NamespaceRefusal {
    let remedy = match errno {
        Errno::ENOSPC => {
            "run `sysctl user.max_net_namespaces=10000` as root: the limit is used up or 0".to_owned()
        }
        Errno::EINVAL => "this kernel was built without CONFIG_NET_NS: no lab can be built on it".to_owned(),
        Errno::EPERM | Errno::ENOSYS if filtered() && apparmor().is_none() => seccomp(),
        _ => apparmor().unwrap_or_else(as_root),
    };
    refusal(step, errno.into(), remedy)
}

fn refusal(step: &'static str, source: io::Error, remedy: String) -> NamespaceRefusal {
    NamespaceRefusal { step, source, remedy }
}

fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

fn as_root() -> String {
    "run the lab as root".to_owned()
}

fn seccomp() -> String {
    "a seccomp filter forbids it: start the container with `--security-opt seccomp=unconfined`".to_owned()
}

/// Ubuntu since 23.10 removes the privileges of user namespaces for programs without an AppArmor profile.
fn apparmor() -> Option<String> {
    (setting("kernel/apparmor_restrict_unprivileged_userns") == Some(1)).then(|| {
        let program = std::env::current_exe().map_or("/path/to/bindscope".into(), |path| path.display().to_string());
        format!(
            "AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns=1): put `abi <abi/4.0>, profile bindscope {program} flags=(unconfined) {{ userns, }}` into /etc/apparmor.d/bindscope and load it with `apparmor_parser -r`, or run the lab as root"
        )
    })
}

fn setting(name: &str) -> Option<i64> {
    super::settings::read_setting(name).ok()?.parse().ok()
}

/// Whether a seccomp filter is active (`Seccomp: 2` of proc_pid_status(5)).
fn filtered() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
    })
}

/// Whether this namespace maps no user.
fn unmapped() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.trim().is_empty())
}
