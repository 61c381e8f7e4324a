//! Sockets of other protocols and programs attached to cgroups: counted, so that a report can state what it does not judge.
//!
//! Nothing is loaded to find out. Lists are those of `/proc/net`; what has no list there is counted by `/proc/net/protocols`.
//! vsock has neither: its list is asked of sock_diag, and only where the module that answers is there.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustc_hash::FxHashSet;

use super::sock_diag::vsock_listeners;
use super::{cgroup, processes};
use crate::model::{AttachedProgram, ListeningSocket, NotExamined, OtherKind, OtherSocket};

/// What is not judged in the calling thread's network namespace. `sockets` are those that are judged: the cgroups in which they
/// were made are searched for programs.
#[must_use]
pub fn not_examined(sockets: &[ListeningSocket]) -> NotExamined {
    let netns = super::namespaces::current();
    let mut seen = NotExamined::default();
    for (file, kind) in [
        ("raw", OtherKind::Raw),
        ("raw6", OtherKind::Raw),
        ("icmp", OtherKind::Ping),
        ("icmp6", OtherKind::Ping),
        ("udplite", OtherKind::UdpLite),
        ("udplite6", OtherKind::UdpLite),
        ("packet", OtherKind::Packet),
        ("sctp/eps", OtherKind::Sctp),
    ] {
        match std::fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
            Ok(text) => seen.sockets.extend(text.lines().skip(1).filter_map(|line| row(kind, line))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => seen.unknown_because.push(format!("/proc/net/{file} could not be read: {error}")),
        }
    }
    let protocols = std::fs::read_to_string("/proc/thread-self/net/protocols").unwrap_or_default();
    for (kind, names) in [(OtherKind::Dccp, &["DCCP", "DCCPv6"][..]), (OtherKind::Xdp, &["XDP"])] {
        let count = counted(&protocols, names);
        seen.sockets.extend((0..count).map(|_| unlisted(kind)));
    }
    seen.sockets.iter_mut().for_each(|socket| socket.netns = netns);
    if protocols.lines().any(|line| line.starts_with("AF_VSOCK ")) {
        match vsock_listeners() {
            Ok(listeners) => {
                seen.sockets.extend(listeners.into_iter().map(|(cid, port, inode)| OtherSocket {
                    local: Some(match cid {
                        u32::MAX => format!("any CID port {port}"),
                        cid => format!("CID {cid} port {port}"),
                    }),
                    inode: (inode != 0).then_some(inode.into()),
                    ..unlisted(OtherKind::Vsock)
                }))
            }
            Err(error) => {
                seen.unknown_because
                    .push(format!("vsock listeners could not be listed (sock_diag: {error})"));
            }
        }
    }
    attach_owners(&mut seen.sockets);
    match programs(sockets) {
        Ok(programs) => seen.programs = programs,
        Err(error) => seen
            .unknown_because
            .push(format!("whether programs are attached to cgroups could not be read (bpf(2): {error})")),
    }
    seen
}

fn unlisted(kind: OtherKind) -> OtherSocket {
    OtherSocket { kind, local: None, uid: None, inode: None, netns: None, owners: None }
}

/// One line of a list of `/proc/net`.
fn row(kind: OtherKind, line: &str) -> Option<OtherSocket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let field = |place: usize| fields.get(place).copied();
    let (local, uid, inode) = match kind {
        // sk RefCnt Type Proto Iface R Rmem User Inode
        OtherKind::Packet => {
            let protocol = u16::from_str_radix(field(3)?, 16).ok()?;
            let index: u32 = field(4)?.parse().ok()?;
            let on = match nix::net::if_::if_indextoname(index) {
                _ if index == 0 => "every interface".to_owned(),
                Ok(name) => name.to_string_lossy().into_owned(),
                Err(_) => format!("interface {index}"),
            };
            (format!("EtherType 0x{protocol:04x} on {on}"), field(7)?, field(8)?)
        }
        // ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS
        OtherKind::Sctp => {
            let addresses = fields.get(8..).unwrap_or_default().join(" ");
            (format!("port {} at {addresses}", field(5)?), field(6)?, field(7)?)
        }
        // sl local_address rem_address st queues tr:when retrnsmt uid timeout inode
        _ => {
            let (address, number) = field(1)?.split_once(':')?;
            let number = u16::from_str_radix(number, 16).ok()?;
            let address = address_of(address)?;
            let local = match kind {
                OtherKind::Raw => format!("{address} protocol {number}"),
                OtherKind::Ping => format!("{address} identifier {number}"),
                _ if address.is_ipv6() => format!("[{address}]:{number}"),
                _ => format!("{address}:{number}"),
            };
            (local, field(7)?, field(9)?)
        }
    };
    let inode = inode.parse().ok().filter(|inode| *inode != 0);
    Some(OtherSocket { local: Some(local), uid: uid.parse().ok(), inode, ..unlisted(kind) })
}

/// An address of `/proc/net`: words of the machine's own byte order, in hexadecimal.
fn address_of(text: &str) -> Option<std::net::IpAddr> {
    let words = (0..text.len() / 8).map(|word| text.get(word * 8..word * 8 + 8));
    let bytes: Vec<u8> = words
        .map(|word| Some(u32::from_str_radix(word?, 16).ok()?.to_ne_bytes()))
        .collect::<Option<Vec<[u8; 4]>>>()?
        .concat();
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(Into::into),
        16 => <[u8; 16]>::try_from(bytes).ok().map(Into::into),
        _ => None,
    }
}

/// How many sockets `/proc/net/protocols` counts under these names.
fn counted(text: &str, names: &[&str]) -> usize {
    let count = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        fields.next().filter(|name| names.contains(name))?;
        fields.nth(1)?.parse::<usize>().ok()
    };
    text.lines().filter_map(count).sum()
}

fn attach_owners(sockets: &mut [OtherSocket]) {
    let wanted: FxHashSet<u64> = sockets.iter().filter_map(|socket| socket.inode).collect();
    if wanted.is_empty() {
        return;
    }
    let holders = processes::holders(&wanted, |_, _, _| {});
    let complete = holders.incomplete_because().is_none();
    for socket in sockets {
        let found = socket.inode.and_then(|inode| holders.owners.get(&inode).cloned());
        socket.owners = found.or_else(|| (complete && socket.inode.is_some()).then(|| [].into()));
    }
}

/// Attach types that decide about addresses, ports or packets of a cgroup's sockets (`enum bpf_attach_type` of `linux/bpf.h`),
/// in the words of bpftool-cgroup(8).
const ATTACH_TYPES: [(u32, &str); 12] = [
    (0, "cgroup_inet_ingress"),
    (1, "cgroup_inet_egress"),
    (2, "cgroup_inet_sock_create"),
    (3, "cgroup_sock_ops"),
    (8, "cgroup_inet4_bind"),
    (9, "cgroup_inet6_bind"),
    (10, "cgroup_inet4_connect"),
    (11, "cgroup_inet6_connect"),
    (12, "cgroup_inet4_post_bind"),
    (13, "cgroup_inet6_post_bind"),
    (19, "cgroup_udp4_recvmsg"),
    (20, "cgroup_udp6_recvmsg"),
];

/// The programs attached to the cgroups of these sockets and to those above them.
fn programs(sockets: &[ListeningSocket]) -> io::Result<Vec<AttachedProgram>> {
    let Some(mount) = cgroup::mount_point() else { return Ok(Vec::new()) };
    let mut paths: BTreeSet<PathBuf> = BTreeSet::from([PathBuf::from("/")]);
    for path in sockets.iter().filter_map(|socket| socket.cgroup.as_deref()) {
        paths.extend(Path::new(path).ancestors().map(Path::to_path_buf));
    }
    let mut found = Vec::new();
    for path in paths {
        let relative = path.strip_prefix("/").unwrap_or(&path);
        let Ok(directory) = std::fs::File::open(mount.join(relative)) else { continue };
        for (number, name) in ATTACH_TYPES {
            match attached(&directory, number) {
                Ok(ids) => found.extend(ids.into_iter().map(|id| AttachedProgram {
                    cgroup: path.to_string_lossy().into_owned(),
                    attach: name.to_owned(),
                    id,
                })),
                // An attach type that this kernel does not have.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                Err(error) => return Err(error),
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Numbers of the programs attached to a cgroup itself, by BPF_PROG_QUERY of bpf(2).
#[expect(unsafe_code, reason = "no crate in use wraps bpf(2)")]
fn attached(cgroup: &std::fs::File, attach_type: u32) -> io::Result<Vec<u32>> {
    const BPF_PROG_QUERY: libc::c_int = 16;
    const MOST: u32 = 64;
    /// The member `query` of `union bpf_attr`.
    #[repr(C)]
    struct Query {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        padding: u32,
        rest: [u64; 4],
    }
    let mut ids = [0u32; MOST as usize];
    let target = u32::try_from(cgroup.as_raw_fd()).map_err(io::Error::other)?;
    let mut query = Query {
        target,
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr().expose_provenance() as u64,
        count: MOST,
        padding: 0,
        rest: [0; 4],
    };
    // SAFETY: the kernel reads and writes the structure within its size, and at most `count` numbers behind `ids`, which both
    // outlive the call.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, std::mem::size_of::<Query>()) };
    // With ENOSPC there are more than fit; those that fit are enough to state that there are some.
    let error = io::Error::last_os_error();
    if answer < 0 && error.raw_os_error() != Some(libc::ENOSPC) {
        return Err(error);
    }
    let count = usize::try_from(query.count).unwrap_or(0).min(ids.len());
    Ok(ids.get(..count).unwrap_or_default().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_each_list_are_read() {
        let local =
            |kind, line| row(kind, line).and_then(|socket| Some((socket.local?, socket.uid?, socket.inode?)));
        let found = |text: &str, uid, inode| Some((text.to_owned(), uid, inode));
        if cfg!(target_endian = "little") {
            assert_eq!(
                local(
                    OtherKind::Raw,
                    " 147: 0100007F:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000     5        0 61438 2 0 0"
                ),
                found("127.0.0.1 protocol 1", 5, 61438)
            );
            assert_eq!(
                local(
                    OtherKind::UdpLite,
                    " 1: 00000000000000000000000001000000:1388 00000000000000000000000000000000:0000 07 0:0 00:0 0 0 0 7 2 0 0"
                ),
                found("[::1]:5000", 0, 7)
            );
        }
        assert_eq!(
            local(OtherKind::Packet, "00000000fbc70b02 3      3    0003   0     1 0      0      61439"),
            found("EtherType 0x0003 on every interface", 0, 61439)
        );
        assert_eq!(
            local(OtherKind::Sctp, "0 0 2 10 29 9899 0 5 0.0.0.0"),
            found("port 9899 at 0.0.0.0", 0, 5)
        );
        for kind in OtherKind::ALL {
            assert_eq!(row(kind, ""), None, "{kind}");
            assert_eq!(row(kind, "a b:c"), None, "{kind}");
        }
    }

    #[test]
    fn protocols_without_a_list_are_counted() {
        let text = "protocol  size sockets\nDCCP 1 2 -1\nDCCPv6 1 3 -1\nXDP 1 0 -1\n";
        assert_eq!(counted(text, &["DCCP", "DCCPv6"]), 5);
        assert_eq!(counted(text, &["XDP"]), 0);
    }
}
