//! Established connections of this machine's servers, with their ingress interface if their sockets can be duplicated.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::sock_diag::{self, DiagSocket, DumpError, Peer, Query, SockDiag, state};
use super::{packet_info, pidfd, proc_net, processes};
use crate::model::addr::{needs_zone, socket_addr};
use crate::model::{IfName, Owners};
use crate::sys::{ServerConnection, ServerConnections};

const FAMILIES: [u8; 2] = [libc::AF_INET as u8, libc::AF_INET6 as u8];

/// Reason for an unknown interface.
const NO_RIGHT: &str = "its process may not be traced by this user";
const NO_OWNER: &str = "no process that could be read owns it";
const MPTCP: &str = "MPTCP keeps no ingress interface";
const SILENT: &str = "the kernel does not say";
const NOT_TOUCHED: &str = "its server has not set the option that is needed, and --no-touch sets none";
const GONE: &str = "it ended during the check";

/// The established TCP connections of the calling thread's network namespace whose local port satisfies `serves`.
///
/// The sockets are duplicated with pidfd_getfd(2). An option that must be set for the query is reset afterwards. It is set only
/// with `may_set`.
#[must_use]
pub fn connections(serves: &dyn Fn(u16) -> bool, may_set: bool) -> ServerConnections {
    let mut connections = ServerConnections { all: true, ..ServerConnections::default() };
    let found = match dump(serves, &mut connections) {
        Ok(found) => found,
        Err(refusal) => read_tables(serves, &refusal, &mut connections),
    };
    let because = &mut connections.incomplete_because;
    let native: HashMap<u64, bool> = found
        .iter()
        .map(|(socket, peer)| (u64::from(socket.inode), !peer.0.to_canonical().is_ipv4()))
        .collect();
    let mut read: HashMap<u64, Result<(u32, Option<IfName>), &'static str>> = HashMap::new();
    let holders = processes::holders(
        &native.keys().copied().filter(|inode| *inode != 0).collect(),
        |process, number, inode| {
            if !matches!(read.get(&inode), Some(Ok(_))) {
                let native = native.get(&inode).copied().unwrap_or(false);
                read.insert(inode, ingress(process, number, inode, native, may_set));
            }
        },
    );
    let incomplete = holders.incomplete_because();
    let mut list: Vec<ServerConnection> = found
        .into_iter()
        .map(|(socket, peer)| {
            let inode = (socket.inode != 0).then_some(u64::from(socket.inode));
            let owners = inode.and_then(|inode| holders.owners.get(&inode).cloned());
            let owners =
                owners.or_else(|| (inode.is_none() || incomplete.is_none()).then(|| Owners::from([])));
            let ingress = inode.and_then(|inode| read.get(&inode).cloned()).unwrap_or(Err(NO_OWNER));
            ServerConnection {
                local: address(socket.local, socket.local_port, socket.device),
                peer: address(peer.0, peer.1, socket.device),
                device_index: (socket.device != 0).then_some(socket.device),
                inode,
                uid: socket.uid,
                owners,
                ingress,
            }
        })
        .collect();
    list.sort_by_key(|connection| (connection.local, connection.peer));
    let unknown = list.iter().filter(|connection| connection.owners.is_none()).count();
    if let Some(reason) = incomplete
        && unknown > 0
    {
        because.push(format!("the owners of {unknown} of {} connections are unknown: {reason}", list.len()));
    }
    connections.list = list;
    connections
}

/// How many handshakes are under way to local ports that satisfy `serves`, in the calling thread's network namespace: the client may be
/// connected already. `None` when the kernel does not say.
#[must_use]
pub fn handshakes(serves: &dyn Fn(u16) -> bool) -> Option<usize> {
    /// TCP_SYN_RECV of `net/tcp_states.h`.
    const SYN_RECEIVED: u32 = 3;
    let mut kernel = SockDiag::open().ok()?;
    let mut all = 0;
    for family in FAMILIES {
        let count = std::cell::Cell::new(0);
        let query = Query { family, protocol: sock_diag::TCP, states: 1 << SYN_RECEIVED, port: 0 };
        let answer = kernel.dump(
            query,
            || count.set(0),
            |socket, _| count.set(count.get() + usize::from(serves(socket.local_port))),
        );
        match answer {
            // A list that changes all the time has something in it.
            Err(DumpError::Interrupted) => all += 1,
            Err(DumpError::Refused(_)) => return None,
            Ok(()) => all += count.get(),
        }
    }
    Some(all)
}

/// What sock_diag tells.
fn dump(
    serves: &dyn Fn(u16) -> bool,
    connections: &mut ServerConnections,
) -> io::Result<Vec<(DiagSocket, Peer)>> {
    let mut kernel = SockDiag::open()?;
    let mut found = Vec::new();
    let states = 1 << state::ESTABLISHED | 1 << state::CLOSE_WAIT;
    for family in FAMILIES {
        let part = std::cell::RefCell::new(Vec::new());
        let answer = kernel.dump(
            Query { family, protocol: sock_diag::TCP, states, port: 0 },
            || part.borrow_mut().clear(),
            |socket, peer| {
                if serves(socket.local_port) {
                    part.borrow_mut().push((socket, peer));
                }
            },
        );
        match answer {
            Ok(()) => found.append(&mut part.into_inner()),
            Err(DumpError::Interrupted) => {
                connections.all = false;
                let because = "the list of connections changed faster than it could be read";
                connections.incomplete_because.push(because.to_owned());
            }
            Err(DumpError::Refused(error)) => return Err(error),
        }
    }
    Ok(found)
}

/// Data from `/proc/net` if sock_diag is refused: the same connections, without their devices.
fn read_tables(
    serves: &dyn Fn(u16) -> bool,
    refusal: &io::Error,
    connections: &mut ServerConnections,
) -> Vec<(DiagSocket, Peer)> {
    connections.incomplete_because.push(format!(
        "sock_diag does not tell the connections ({refusal}); /proc/net/tcp and /proc/net/tcp6 are read instead, which do not \
         tell the device a socket is bound to"
    ));
    let mut found = Vec::new();
    for (file, family) in ["tcp", "tcp6"].into_iter().zip(FAMILIES) {
        let path = format!("/proc/thread-self/net/{file}");
        match proc_net::connections(&path) {
            Ok(rows) => {
                for row in rows.into_iter().filter(|row| serves(row.local.port())) {
                    let socket = DiagSocket {
                        family,
                        state: state::ESTABLISHED,
                        local: row.local.ip(),
                        local_port: row.local.port(),
                        device: 0,
                        receive_queue: 0,
                        send_queue: 0,
                        uid: row.uid,
                        inode: u32::try_from(row.inode).unwrap_or(0),
                        cookie: 0,
                        v6only: None,
                        cgroup: None,
                        transparent: None,
                        mark: None,
                        expires_ms: 0,
                    };
                    found.push((socket, (row.peer.ip(), row.peer.port())));
                }
            }
            // A kernel without IPv6 has no such file, and no such connections.
            Err(error) if error.kind() == io::ErrorKind::NotFound && file == "tcp6" => {}
            Err(error) => {
                connections.all = false;
                connections.incomplete_because.push(format!("{path} could not be read: {error}"));
            }
        }
    }
    found
}

/// The address; a link-local one gets the bound device as its zone.
fn address(ip: IpAddr, port: u16, device: u32) -> SocketAddr {
    socket_addr(ip, port, if needs_zone(ip) { device } else { 0 })
}

fn ingress(
    process: &processes::Process,
    number: i32,
    inode: u64,
    native_ipv6: bool,
    may_set: bool,
) -> Result<(u32, Option<IfName>), &'static str> {
    let socket = pidfd::socket(process, number, inode).map_err(|error| match error.raw_os_error() {
        Some(libc::ESRCH | libc::EBADF) => GONE,
        _ => NO_RIGHT,
    })?;
    if socket
        .protocol()
        .ok()
        .flatten()
        .is_some_and(|protocol| i32::from(protocol) == sock_diag::MPTCP.cast_signed())
    {
        return Err(MPTCP);
    }
    match packet_info::ingress_of_foreign_connection(&socket, native_ipv6, may_set) {
        Ok(Some(index)) => Ok((index, packet_info::interface_name(&socket, index))),
        Ok(None) => Err(SILENT),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(NOT_TOUCHED),
        Err(_) => Err(GONE),
    }
}
