//! What this user can see of the machine: a test of each method of observation.

use std::io;

use caps::{CapSet, Capability};
use rustc_hash::FxHashSet;

use super::sock_diag::{self, DumpError, Query, SockDiag, state};
use super::{netns, pidfd, processes};
use crate::sys::Visibility;

/// Tests every method. Changes and binds nothing.
#[must_use]
pub fn visibility() -> Visibility {
    let seen = processes::holders(&FxHashSet::default(), |_, _, _| {});
    let namespaces = super::namespaces::namespaces().0;
    let closed = namespaces.iter().filter(|one| super::namespaces::in_namespace(one, || ()).is_err()).count();
    let setting = |name: &str| netns::read_setting(name).ok().and_then(|text| text.trim().parse().ok());
    Visibility {
        uid: nix::unistd::geteuid().as_raw(),
        capabilities: capabilities(),
        sock_diag: [("TCP", sock_diag::TCP), ("UDP", sock_diag::UDP), ("MPTCP", sock_diag::MPTCP)]
            .map(|(name, protocol)| (name, dump(protocol)))
            .into(),
        processes: seen.seen,
        processes_unreadable: seen.unreadable,
        processes_hidden_because: seen.unseen_because,
        borrow: borrow_own(),
        namespaces: namespaces.len(),
        namespaces_closed: closed,
        ipv6_sockets: socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None)
            .map(|_| ())
            .err(),
        settings: [
            "kernel/yama/ptrace_scope",
            "kernel/unprivileged_userns_clone",
            "kernel/apparmor_restrict_unprivileged_userns",
            "user/max_user_namespaces",
            "user/max_net_namespaces",
            "net/mptcp/enabled",
            "net/ipv6/bindv6only",
            "net/ipv6/conf/all/disable_ipv6",
            "net/ipv6/conf/lo/disable_ipv6",
            "net/ipv4/ip_unprivileged_port_start",
            "net/ipv4/conf/all/route_localnet",
            "net/core/somaxconn",
        ]
        .into_iter()
        .filter_map(|name| Some((name.replace('/', "."), setting(name)?)))
        .collect(),
        descriptors: nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
            .ok()
            .map(|(soft, _)| soft),
    }
}

fn dump(protocol: u32) -> Option<io::Error> {
    let mut kernel = match SockDiag::open() {
        Ok(kernel) => kernel,
        Err(error) => return Some(error),
    };
    // A port that is rarely in use keeps the answer short.
    let query = Query {
        family: libc::AF_INET as u8,
        protocol,
        states: 1 << state::LISTEN | 1 << state::CLOSE,
        port: 1,
    };
    match kernel.dump(query, || {}, |_, _| {}) {
        Ok(()) | Err(DumpError::Interrupted) => None,
        Err(DumpError::Refused(error)) => Some(error),
    }
}

/// Duplicates a socket of this process, which only a missing system call or a filter can refuse.
fn borrow_own() -> Option<io::Error> {
    use std::os::fd::AsRawFd as _;
    let tried = || -> io::Result<()> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
        let inode = nix::sys::stat::fstat(&socket)?.st_ino;
        let process = processes::Process::open(std::process::id())?;
        pidfd::socket(&process, socket.as_raw_fd(), inode).map(|_| ())
    };
    tried().err()
}

/// Names of the relevant effective capabilities (capabilities(7)). Queried from the kernel, because `/proc` may be
/// invisible.
fn capabilities() -> Vec<&'static str> {
    const NAMES: [(Capability, &str); 6] = [
        (Capability::CAP_DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
        (Capability::CAP_NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE"),
        (Capability::CAP_NET_ADMIN, "CAP_NET_ADMIN"),
        (Capability::CAP_NET_RAW, "CAP_NET_RAW"),
        (Capability::CAP_SYS_PTRACE, "CAP_SYS_PTRACE"),
        (Capability::CAP_SYS_ADMIN, "CAP_SYS_ADMIN"),
    ];
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    NAMES.into_iter().filter(|(capability, _)| effective.contains(capability)).map(|(_, name)| name).collect()
}
