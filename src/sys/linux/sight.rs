//! What this user can see of the machine: each way of looking, tried.

use std::io;

use rustc_hash::FxHashSet;

use super::sock_diag::{self, DumpError, Query, SockDiag, state};
use super::{borrow, netns, processes};
use crate::sys::Sight;

/// Tries every way of looking. Nothing is changed and nothing is bound.
#[must_use]
pub fn sight() -> Sight {
    let seen = processes::holders(&FxHashSet::default(), |_, _, _| {});
    let namespaces = super::namespaces::namespaces().0;
    let closed = namespaces.iter().filter(|one| super::namespaces::in_namespace(one, || ()).is_err()).count();
    let setting = |name: &str| netns::read_setting(name).ok().and_then(|text| text.trim().parse().ok());
    Sight {
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
    // A port that hardly anybody has keeps the answer short.
    let query = Query {
        family: libc::AF_INET as u8,
        protocol,
        states: 1 << state::LISTEN | 1 << state::CLOSE,
        port: 1,
    };
    match kernel.dump(query, || {}, |_| {}) {
        Ok(()) | Err(DumpError::Interrupted) => None,
        Err(DumpError::Refused(error)) => Some(error),
    }
}

/// Borrows a socket of this very process, which only a missing system call or a filter can refuse.
fn borrow_own() -> Option<io::Error> {
    use std::os::fd::AsRawFd as _;
    let tried = || -> io::Result<()> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
        let inode = nix::sys::stat::fstat(&socket)?.st_ino;
        let process = processes::Process::open(std::process::id())?;
        borrow::socket(&process, socket.as_raw_fd(), inode).map(|_| ())
    };
    tried().err()
}

/// Names of the effective capabilities that matter here (capabilities(7)).
fn capabilities() -> Vec<&'static str> {
    const NAMES: [(u32, &str); 6] = [
        (2, "CAP_DAC_READ_SEARCH"),
        (10, "CAP_NET_BIND_SERVICE"),
        (12, "CAP_NET_ADMIN"),
        (13, "CAP_NET_RAW"),
        (19, "CAP_SYS_PTRACE"),
        (21, "CAP_SYS_ADMIN"),
    ];
    let mask = effective_capabilities();
    NAMES.into_iter().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, name)| name).collect()
}

/// Asked of the kernel, since `/proc` may be what cannot be seen.
#[expect(unsafe_code, reason = "no crate in use wraps capget(2)")]
fn effective_capabilities() -> u64 {
    /// `_LINUX_CAPABILITY_VERSION_3` of `linux/capability.h`: two sets of 32 bits.
    const VERSION: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let mut header = Header { version: VERSION, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: capget(2) writes into the header and two structures of this version, which outlive the call.
    let answer = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    let [low, high] = data.map(|part| u64::from(part.effective));
    if answer == 0 { low | high << 32 } else { 0 }
}
