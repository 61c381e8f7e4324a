//! Which sockets are there, and who holds them.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::sock_diag::{self, DiagSocket, DumpError, Query, SockDiag, state};
use super::{cgroup, hugepages, kernel_sockets, lifetimes, pidfd, processes, socket_units};
use crate::model::addr::{needs_zone, overlap};
use crate::model::kernel_release::KernelRelease;
use crate::model::{
    ClientPorts, Family, FamilyExposure, IfName, Inventory, ListeningSocket, Owners, PortHolder, Protocol,
    Queue, SocketState, SocketView,
};
use crate::sys::InventoryOptions;

/// The listening TCP and unconnected UDP sockets of the calling thread's network namespace.
#[must_use]
pub fn inventory(options: &InventoryOptions) -> Inventory {
    let mut inventory = Inventory { all_sockets: true, ..Inventory::default() };
    let netns = super::namespaces::current();
    if netns.is_none() {
        inventory
            .incomplete_because
            .push("the network namespace could not be read from /proc/thread-self/ns/net".to_owned());
    }
    read_sockets(options, netns, &mut inventory);
    kernel_sockets::name(&mut inventory.sockets);
    inventory.client_ports = client_ports();
    inventory.lifetimes = lifetimes::of_bound(&inventory.sockets);
    if options.owners {
        let because = attach_owners(&mut inventory.sockets, options.socket_options);
        inventory.incomplete_because.extend(because);
    }
    inventory.complete = inventory.incomplete_because.is_empty();
    inventory
}

/// The ports that the kernel of the calling thread's network namespace chooses from.
fn client_ports() -> Option<ClientPorts> {
    let setting = |name: &str| super::netns::read_setting(&format!("net/ipv4/{name}"));
    let reserved = match setting("ip_local_reserved_ports") {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(_) => return None,
    };
    ClientPorts::parse(&setting("ip_local_port_range").ok()?, &reserved)
}

const FAMILIES: [u8; 2] = [libc::AF_INET as u8, libc::AF_INET6 as u8];

fn read_sockets(options: &InventoryOptions, netns: Option<u64>, inventory: &mut Inventory) {
    let opened =
        if options.proc_net_only { Err(io::Error::other("it was not asked")) } else { SockDiag::open() };
    let mut kernel = match opened {
        Ok(kernel) => kernel,
        Err(error) => {
            fall_back(Protocol::Tcp, &error, netns, inventory);
            fall_back(Protocol::Udp, &error, netns, inventory);
            inventory.sockets.sort_by_cached_key(ListeningSocket::order);
            return;
        }
    };
    // So many at once lie in a mapping of their own, which grows without being copied; what is not used of it is never there.
    let mut dumped = Vec::with_capacity(8192);
    for (protocol, number, states) in [
        (Protocol::Tcp, sock_diag::TCP, 1 << state::LISTEN),
        (Protocol::Udp, sock_diag::UDP, 1 << state::CLOSE),
    ] {
        let start = dumped.len();
        let query = |family| Query { family, protocol: number, states, port: 0 };
        if protocol == Protocol::Tcp {
            // One walk through the kernel's table instead of two.
            if dump(&mut kernel, query(libc::AF_UNSPEC as u8), protocol, &mut dumped).is_ok() {
                continue;
            }
            dumped.truncate(start);
        }
        for family in FAMILIES {
            match dump(&mut kernel, query(family), protocol, &mut dumped) {
                Ok(()) => {}
                Err(DumpError::Interrupted) => {
                    inventory.all_sockets = false;
                    inventory
                        .incomplete_because
                        .push(format!("the list of {protocol} sockets changed faster than it could be read"));
                }
                Err(DumpError::Refused(error)) => {
                    dumped.truncate(start);
                    fall_back(protocol, &error, netns, inventory);
                    break;
                }
            }
        }
    }
    let mptcp = read_mptcp(&mut kernel, inventory);
    let all = dumped.iter().map(|(_, socket)| socket).chain(&mptcp);
    let mut names = Names { cgroups: cgroups_of(all), ..Names::default() };
    let mut sockets = ordered(&dumped, netns, &mut names);
    drop(dumped);
    let added = add_mptcp(mptcp, netns, &mut names, &mut sockets);
    let in_order = inventory.sockets.is_empty() && !added;
    // What /proc/net had of a refused dump.
    sockets.append(&mut inventory.sockets);
    if !in_order {
        sockets.sort_by_cached_key(ListeningSocket::order);
    }
    inventory.sockets = sockets;
}

/// Adds what a dump tells to `dumped`.
fn dump(
    kernel: &mut SockDiag,
    query: Query,
    protocol: Protocol,
    dumped: &mut Vec<(Protocol, DiagSocket)>,
) -> Result<(), DumpError> {
    let from = dumped.len();
    let sockets = std::cell::RefCell::new(dumped);
    let restart = || sockets.borrow_mut().truncate(from);
    kernel.dump(query, restart, |socket, _| {
        let mut list = sockets.borrow_mut();
        if list.len() == list.capacity() {
            let more = list.len();
            list.reserve(more);
            hugepages::in_large_pages(&list);
        }
        list.push((protocol, socket));
    })
}

/// The sockets of dumps of one namespace, each once, as [`ListeningSocket::order`] sorts them. Port, protocol, family and the most of
/// an address fit into one number, which decides between nearly all of them.
fn ordered(dumped: &[(Protocol, DiagSocket)], netns: Option<u64>, names: &mut Names) -> Vec<ListeningSocket> {
    let key = |(protocol, socket): &(Protocol, DiagSocket)| {
        let (family, address) = match socket.local {
            IpAddr::V4(v4) => (0, u64::from(u32::from(v4))),
            IpAddr::V6(v6) => (1, u64::try_from(u128::from(v6) >> 82).unwrap_or(0)),
        };
        u64::from(socket.local_port) << 48
            | u64::from(*protocol != Protocol::Tcp) << 47
            | family << 46
            | address
    };
    let mut places: Vec<(u64, usize)> = dumped.iter().map(key).zip(0..).collect();
    places.sort_unstable_by_key(|(key, _)| *key);
    let mut sockets = Vec::with_capacity(places.len());
    hugepages::in_large_pages(&sockets);
    let mut alike = Vec::new();
    for run in places.chunk_by(|(one, _), (two, _)| one == two) {
        let start = sockets.len();
        if let [(_, place)] = run {
            let (protocol, socket) = &dumped[*place];
            sockets.push(listening(socket, *protocol, netns, names));
            continue;
        }
        alike.clear();
        alike.extend(run.iter().map(|(_, place)| &dumped[*place]));
        alike.sort_unstable_by_key(|(_, socket)| socket.cookie);
        // A socket that moved in the table during the dump may come twice. A cookie of ones is INET_DIAG_NOCOOKIE: none was made.
        alike.dedup_by(|(_, one), (_, two)| one.cookie == two.cookie && !matches!(one.cookie, 0 | u64::MAX));
        sockets.extend(alike.iter().map(|(protocol, socket)| listening(socket, *protocol, netns, names)));
        sockets[start..].sort_by_cached_key(ListeningSocket::order);
    }
    sockets
}

/// Whether the calling thread's namespace certainly has no MPTCP socket. The dump of MPTCP listeners walks all of TCP's, so who has
/// a hundred thousand of those asks first. /proc/net/protocols counts MPTCP sockets since Linux 6.3 (`net/mptcp/protocol.c`,
/// `sock_prot_inuse_add`); before it says 0 of everybody.
fn has_no_mptcp() -> bool {
    if KernelRelease::of(&super::snapshot::host()).is_none_or(|release| release.series < (6, 3)) {
        return false;
    }
    let text = std::fs::read_to_string("/proc/thread-self/net/protocols").unwrap_or_default();
    mptcp_sockets(&text) == Some(0)
}

/// How many MPTCP sockets of both families `/proc/net/protocols` counts; `None` where it does not name them.
fn mptcp_sockets(text: &str) -> Option<u32> {
    let count = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        fields.next().filter(|name| matches!(*name, "MPTCP" | "MPTCPv6"))?;
        fields.nth(1)?.parse::<u32>().ok()
    };
    text.lines().filter_map(count).reduce(u32::saturating_add)
}

/// MPTCP listeners.
fn read_mptcp(kernel: &mut SockDiag, inventory: &mut Inventory) -> Vec<DiagSocket> {
    let mut all = Vec::new();
    let enabled = std::fs::read_to_string("/proc/sys/net/mptcp/enabled").is_ok_and(|text| text.trim() != "0");
    if !enabled || has_no_mptcp() {
        return all;
    }
    for family in FAMILIES {
        let found = std::cell::RefCell::new(Vec::new());
        let query = Query { family, protocol: sock_diag::MPTCP, states: 1 << state::LISTEN, port: 0 };
        let answer = kernel.dump(
            query,
            || found.borrow_mut().clear(),
            |socket: DiagSocket, _| {
                // The kernel binds the first subflow of an endpoint's own listener and leaves the MPTCP socket without a port
                // (`mptcp_pm_nl_create_listen_socket()` of `net/mptcp/pm_kernel.c`): the subflow is in the list of TCP.
                if socket.local_port != 0 {
                    found.borrow_mut().push(socket);
                }
            },
        );
        match answer {
            Ok(()) => {}
            Err(DumpError::Interrupted) => inventory
                .incomplete_because
                .push("the list of MPTCP sockets changed faster than it could be read".to_owned()),
            Err(DumpError::Refused(error)) => {
                inventory
                    .incomplete_because
                    .push(format!("which listeners speak MPTCP could not be asked of sock_diag: {error}"));
                return all;
            }
        }
        all.append(&mut found.into_inner());
    }
    all
}

/// Marks the listeners that are MPTCP's first subflow, a TCP listener with the same inode; those that are not there are added at the
/// end. Returns whether any was.
fn add_mptcp(
    found: Vec<DiagSocket>,
    netns: Option<u64>,
    names: &mut Names,
    sockets: &mut Vec<ListeningSocket>,
) -> bool {
    let mut twins: HashMap<(u16, IpAddr), Vec<usize>> = HashMap::new();
    if !found.is_empty() {
        for (place, other) in sockets.iter().enumerate() {
            if other.view.protocol == Protocol::Tcp {
                twins.entry((other.view.port, other.view.address)).or_default().push(place);
            }
        }
    }
    let before = sockets.len();
    for socket in found {
        let places = twins.get(&(socket.local_port, socket.local)).map_or(&[][..], Vec::as_slice);
        let same = |place: &&usize| {
            let other = &sockets[**place];
            other.inode == inode(&socket) || other.inode.is_none()
        };
        let twin = places.iter().find(same).copied().and_then(|place| sockets.get_mut(place));
        if let Some(twin) = twin {
            twin.mptcp = true;
            twin.inode = twin.inode.or(inode(&socket));
            twin.uid = Some(socket.uid);
        } else {
            let mut added = listening(&socket, Protocol::Tcp, netns, names);
            added.mptcp = true;
            sockets.push(added);
        }
    }
    sockets.len() > before
}

/// Names of devices by index, each asked for once, and paths of cgroups by id.
#[derive(Default)]
struct Names {
    devices: HashMap<u32, IfName>,
    cgroups: FxHashMap<u64, Arc<str>>,
}

impl Names {
    fn device(&mut self, index: u32) -> Option<IfName> {
        if index == 0 {
            return None;
        }
        let name = self.devices.entry(index).or_insert_with(|| match nix::net::if_::if_indextoname(index) {
            Ok(name) if !name.is_empty() => IfName::from_bytes(name.to_bytes()),
            _ => IfName::from(format!("#{index}").as_str()),
        });
        Some(name.clone())
    }
}

/// Paths of the cgroups in which these were made, by id.
fn cgroups_of<'a>(sockets: impl Iterator<Item = &'a DiagSocket>) -> FxHashMap<u64, Arc<str>> {
    let mut wanted = FxHashSet::default();
    let mut last = None;
    for socket in sockets {
        // Sockets of one program come one after the other.
        if socket.cgroup != last {
            last = socket.cgroup;
            wanted.extend(last.map(u64::from));
        }
    }
    if wanted.is_empty() {
        return FxHashMap::default();
    }
    cgroup::paths(wanted).into_iter().map(|(id, path)| (id, path.into())).collect()
}

fn inode(socket: &DiagSocket) -> Option<u64> {
    (socket.inode != 0).then_some(u64::from(socket.inode))
}

fn listening(
    socket: &DiagSocket,
    protocol: Protocol,
    netns: Option<u64>,
    names: &mut Names,
) -> ListeningSocket {
    let family = if i32::from(socket.family) == libc::AF_INET { Family::Ipv4 } else { Family::Ipv6 };
    let socket_state = match (protocol, socket.state) {
        (Protocol::Tcp, state::LISTEN) => SocketState::Listen,
        (Protocol::Udp, state::CLOSE) => SocketState::Unconnected,
        (_, state::CLOSE | state::BOUND_INACTIVE) => SocketState::Bound,
        (_, state::TIME_WAIT) => SocketState::TimeWait,
        _ => SocketState::Connected,
    };
    let queue = match socket_state {
        SocketState::Listen => Some(Queue { length: socket.receive_queue, limit: Some(socket.send_queue) }),
        SocketState::Unconnected => Some(Queue { length: socket.receive_queue, limit: None }),
        _ => None,
    };
    let mut v6only = socket.v6only;
    let has_peer = matches!(socket_state, SocketState::Connected | SocketState::TimeWait);
    if family == Family::Ipv6 && !socket.local.is_unspecified() && v6only.is_none() && !has_peer {
        // A specific address leaves no choice: v4-mapped is IPv4, everything else IPv6 only (`net/ipv6/af_inet6.c`). A connection of a
        // dual-stack socket keeps the option.
        v6only = Some(!socket.local.to_canonical().is_ipv4());
    }
    let device = names.device(socket.device);
    ListeningSocket {
        view: SocketView {
            listener: None,
            protocol,
            family,
            address: socket.local,
            port: socket.local_port,
            // The kernel ties a socket to its zone's device.
            scope_id: (needs_zone(socket.local) && socket.device != 0).then_some(socket.device),
            device,
            v6only,
            reuse_address: None,
            reuse_port: None,
            exposure: FamilyExposure::default(),
        },
        state: socket_state,
        mptcp: false,
        netns,
        uid: Some(socket.uid),
        inode: inode(socket),
        queue,
        device_known: true,
        device_index: (socket.device != 0).then_some(socket.device),
        cgroup: socket.cgroup.and_then(|id| names.cgroups.get(&id.get())).cloned(),
        owners: None,
        kernel: None,
        transparent: socket.transparent,
        mark: socket.mark,
        activation: None,
        address_owner: None,
        port_chosen: None,
        exposure_filtered: None,
        reached_from: None,
    }
}

/// Reads `/proc/net` where sock_diag is refused: neither IPV6_V6ONLY nor devices nor queue limits stand there.
fn fall_back(protocol: Protocol, refusal: &io::Error, netns: Option<u64>, inventory: &mut Inventory) {
    inventory.incomplete_because.push(format!(
        "sock_diag does not tell the {protocol} sockets ({refusal}); /proc/net/{protocol} and /proc/net/{protocol}6 are read instead, \
         which tell neither IPV6_V6ONLY nor the device a socket is bound to"
    ));
    for (file, family) in [(protocol.to_string(), Family::Ipv4), (format!("{protocol}6"), Family::Ipv6)] {
        let path = format!("/proc/thread-self/net/{file}");
        match super::proc_net::read(&path, protocol, family, netns) {
            Ok(sockets) => inventory.sockets.extend(sockets),
            // A kernel without IPv6 has no such file, and no such sockets.
            Err(error) if error.kind() == io::ErrorKind::NotFound && family == Family::Ipv6 => {}
            Err(error) => {
                inventory.all_sockets = false;
                inventory.incomplete_because.push(format!("{path} could not be read: {error}"));
            }
        }
    }
}

/// Fills in who holds each socket, and with `socket_options` the options that only the sockets themselves tell. Returns one
/// sentence for each thing that could not be read. Sockets of several namespaces may come at once: inodes are unique.
pub fn attach_owners<'a>(
    sockets: impl IntoIterator<Item = &'a mut ListeningSocket>,
    socket_options: bool,
) -> Vec<String> {
    let mut sockets: Vec<&mut ListeningSocket> = sockets.into_iter().collect();
    let wanted: FxHashSet<u64> = sockets.iter().filter_map(|socket| socket.inode).collect();
    let mut borrowed: FxHashMap<u64, Result<pidfd::Options, io::Error>> = FxHashMap::default();
    let look = |process: &processes::Process, number, inode| {
        if socket_options && !matches!(borrowed.get(&inode), Some(Ok(_))) {
            let options = pidfd::socket(process, number, inode).map(|socket| {
                let ipv6 = socket.domain().is_ok_and(|domain| domain == socket2::Domain::IPV6);
                pidfd::options(&socket, ipv6)
            });
            borrowed.insert(inode, options);
        }
    };
    let holders =
        if wanted.is_empty() { processes::Holders::default() } else { processes::holders(&wanted, look) };
    let incomplete = holders.incomplete_because();
    let no_owner = Owners::from([]);
    let mut unknown = 0usize;
    let mut unread = 0usize;
    for socket in &mut sockets {
        let found = socket.inode.and_then(|inode| holders.owners.get(&inode));
        socket.owners = match (found, socket.inode, &incomplete) {
            (Some(owners), ..) => Some(Arc::clone(owners)),
            // Without an inode it has no file: no process can hold it.
            (None, None, _) | (None, Some(_), None) => Some(Arc::clone(&no_owner)),
            (None, Some(_), Some(_)) if socket.kernel.is_some() => Some(Arc::clone(&no_owner)),
            (None, Some(_), Some(_)) => {
                unknown += 1;
                None
            }
        };
        if found.is_some() {
            socket.kernel = None;
        }
        if socket_options {
            match socket.inode.and_then(|inode| borrowed.get(&inode)) {
                Some(Ok(options)) => {
                    socket.view.reuse_address = options.reuse_address;
                    socket.view.reuse_port = options.reuse_port;
                    // Last, since an MPTCP socket answers with its own flag, which its subflow need not share.
                    socket.view.v6only = socket.view.v6only.or(options.v6only);
                }
                _ => unread += 1,
            }
        }
    }
    socket_units::name(sockets.iter_mut().map(|socket| &mut **socket));
    let mut because = Vec::new();
    if let Some(reason) = incomplete
        && unknown > 0
    {
        because.push(format!("the owners of {unknown} of {} sockets are unknown: {reason}", sockets.len()));
    }
    if unread > 0 {
        because.push(format!(
            "the reuse options of {unread} sockets could not be read: pidfd_getfd(2) needs the right to trace their processes"
        ));
    }
    because
}

/// Processes that hold the sockets with these inodes. An inode that is absent from the answer has no owner that could be read;
/// the sentence says why there may be one all the same.
#[must_use]
pub fn owners(inodes: &[u64]) -> (HashMap<u64, Owners>, Option<String>) {
    let holders = processes::holders(&inodes.iter().copied().collect(), |_, _, _| {});
    let because = holders.incomplete_because();
    (holders.owners.into_iter().collect(), because)
}

/// The sockets that hold one of these ports and serve no client: bound, connected or in TIME-WAIT, with their owners and, where
/// they can be read, their options. At most 64 for each port. Bound sockets are seen from Linux 6.8 on.
#[must_use]
pub fn port_holders(ports: &std::collections::BTreeSet<(Protocol, u16)>) -> Vec<PortHolder> {
    const MOST: usize = 64;
    /// Above so many ports one walk over all sockets costs less than a question for each.
    const SINGLE: usize = 16;
    let Ok(mut kernel) = SockDiag::open() else { return Vec::new() };
    let netns = super::namespaces::current();
    let mut names = Names::default();
    let mut found: Vec<PortHolder> = Vec::new();
    for (protocol, number) in [(Protocol::Tcp, sock_diag::TCP), (Protocol::Udp, sock_diag::UDP)] {
        let wanted: Vec<u16> = ports.iter().filter(|one| one.0 == protocol).map(|one| one.1).collect();
        // 0 asks for every port.
        let questions: Vec<u16> = match wanted.len() {
            0 => continue,
            1..=SINGLE => wanted.clone(),
            _ => vec![0],
        };
        for (family, port) in
            FAMILIES.iter().flat_map(|family| questions.iter().map(move |port| (*family, *port)))
        {
            let part = std::cell::RefCell::new(Vec::new());
            let states = match protocol {
                Protocol::Tcp => !(1 << state::LISTEN),
                Protocol::Udp => 1 << state::ESTABLISHED,
            };
            let query = Query { family, protocol: number, states, port };
            let answer = kernel.dump(
                query,
                || part.borrow_mut().clear(),
                |socket, peer| {
                    if wanted.binary_search(&socket.local_port).is_ok() {
                        let one = listening(&socket, protocol, netns, &mut names);
                        let ends = [SocketState::Connected, SocketState::TimeWait];
                        let connected = ends.contains(&one.state) && peer.1 != 0;
                        part.borrow_mut().push(PortHolder {
                            peer: connected.then_some(peer.into()),
                            expires_ms: (one.state == SocketState::TimeWait).then_some(socket.expires_ms),
                            socket: one,
                        });
                    }
                },
            );
            if answer.is_ok() {
                found.append(&mut part.into_inner());
            }
        }
    }
    found.retain(|one| !matches!(one.socket.state, SocketState::Listen | SocketState::Unconnected));
    found.sort_by_cached_key(|one| {
        (one.socket.view.protocol, one.socket.view.port, one.socket.state, one.socket.order())
    });
    let mut last = (None, 0);
    found.retain(|one| {
        let port = Some((one.socket.view.protocol, one.socket.view.port));
        last = if last.0 == port { (port, last.1 + 1) } else { (port, 1) };
        last.1 <= MOST
    });
    attach_owners(found.iter_mut().map(|one| &mut one.socket), true);
    found
}

/// The sockets that have `port` at an address that competes with `address`, in whatever state, with their owners: what stands
/// in the way of a bind that failed with EADDRINUSE. Those that listen come first; at most 64.
#[must_use]
pub fn port_holder(protocol: Protocol, address: IpAddr, port: u16) -> Vec<ListeningSocket> {
    const MOST: usize = 64;
    let Ok(mut kernel) = SockDiag::open() else { return Vec::new() };
    let netns = super::namespaces::current();
    let mut names = Names::default();
    let number = match protocol {
        Protocol::Tcp => sock_diag::TCP,
        Protocol::Udp => sock_diag::UDP,
    };
    let mut found = Vec::new();
    for family in FAMILIES {
        let part = std::cell::RefCell::new(Vec::new());
        let query = Query { family, protocol: number, states: u32::MAX, port };
        let answer = kernel.dump(
            query,
            || part.borrow_mut().clear(),
            |socket, _| {
                if socket.local_port == port && overlap((address, None), (socket.local, socket.v6only)) {
                    part.borrow_mut().push(listening(&socket, protocol, netns, &mut names));
                }
            },
        );
        if answer.is_ok() {
            found.append(&mut part.into_inner());
        }
    }
    found.sort_by_cached_key(|socket| (socket.state, socket.order()));
    found.truncate(MOST);
    attach_owners(&mut found, false);
    found
}

#[cfg(test)]
mod tests;
