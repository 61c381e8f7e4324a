//! The inventory on random hosts: what it tells is what was opened, and what `ss` tells.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a test")]

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Command, ExitCode, Stdio};

use bindscope::audit::{self, Site};
use bindscope::model::{Family, IfName, Inventory, ListeningSocket, Protocol, SocketState};
use bindscope::sys::{self, InventoryOptions};
use libtest_mimic::Trial;
use socket2::{Domain, Socket, Type};
use support::netns::{Netns, harness, trial};
use support::random::Random;
use support::witness::{spelled, ss};

fn main() -> ExitCode {
    let mut trials: Vec<Trial> = (0..4)
        .map(|part| {
            Trial::test(format!("random_hosts_{part}"), move || {
                random_hosts(&format!("random_hosts_{part}"), 50);
                Ok(())
            })
        })
        .collect();
    trials.extend([
        trial("proc_net_is_a_named_fallback", proc_net_is_a_named_fallback),
        trial("who_holds_a_port_is_told", who_holds_a_port_is_told),
        trial("a_device_that_is_gone_is_no_wildcard", a_device_that_is_gone_is_no_wildcard),
        trial("a_full_queue_is_seen", a_full_queue_is_seen),
        trial("clients_are_known_by_evidence_on_random_hosts", clients_are_known_by_evidence_on_random_hosts),
        trial("sockets_between_processes_have_no_owner", sockets_between_processes_have_no_owner),
        trial("many_sockets_are_all_told", many_sockets_are_all_told),
        trial("owners_that_come_and_go_are_never_confused", owners_that_come_and_go_are_never_confused),
    ]);
    harness(trials)
}

/// What a socket of a random host was opened as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// Its port was chosen by the kernel, in one family.
    Client,
    /// It must be judged.
    Server,
}

/// Random hosts with a range of client ports of their own, reserved ports, UDP clients and servers, sockets of several processes,
/// transparent sockets, MPTCP listeners and endpoints, VXLAN, and WireGuard where the kernel has it: who is left out, who holds a
/// socket and what is transparent is as it was opened.
fn clients_are_known_by_evidence_on_random_hosts() {
    let mut random = Random::seeded("clients_are_known_by_evidence");
    let mut clients = 0;
    for _ in 0..40 {
        clients += host_of_clients(&mut random);
    }
    assert!(clients > 40, "{clients} clients prove nothing");
}

/// Processes that end with the test.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn host_of_clients(random: &mut Random) -> usize {
    let host = Netns::new();
    host.ip("link add va type veth peer name vb");
    host.ip("link set va up");
    host.ip("link set vb up");
    host.address("va", "10.1.0.1/24");
    host.address("va", "fd01::1/64");
    let low = *random.pick(&[20_000u16, 40_000, 50_000]);
    let reserved = low + 100;
    host.sysctl("net.ipv4.ip_local_port_range", &format!("{low} {}", low + 999));
    host.sysctl("net.ipv4.ip_local_reserved_ports", &format!("{reserved}-{}", reserved + 49));
    let mut kernel_sockets: Vec<&str> = Vec::new();
    if random.once_in(2) {
        host.ip("link add vx type vxlan id 7 dstport 8472 local 10.1.0.1 dev va");
        host.ip("link set vx up");
        kernel_sockets.push("kernel: vxlan vx");
    }
    // WireGuard holds one socket for each family.
    let wireguard = ["link", "add", "wg0", "type", "wireguard"];
    if random.once_in(2) && host.output(Command::new("ip").args(wireguard)).status.success() {
        host.ip("link set wg0 up");
        kernel_sockets.extend(["kernel: wireguard wg0"; 2]);
    }
    // An endpoint with a port of its own listens in the kernel (`mptcp_pm_nl_create_listen_socket()`).
    let endpoint = ["mptcp", "endpoint", "add", "10.1.0.1", "port", "8999", "signal"];
    if random.once_in(2) && host.output(Command::new("ip").args(endpoint)).status.success() {
        kernel_sockets.push("kernel: mptcp endpoint");
    }
    kernel_sockets.sort_unstable();
    host.run(|| {
        let mut expected: BTreeMap<u64, (Opening, bool)> = BTreeMap::new();
        let mut held = Vec::new();
        let mut owners: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        let mut children = Children(Vec::new());
        for number in 0..random.below(12) + 4 {
            let number = u16::try_from(number).unwrap();
            let kind = random.below(8);
            let (address, port, opening) = match kind {
                0 => ("0.0.0.0", 0, Opening::Client),
                1 => ("10.1.0.1", 0, Opening::Client),
                2 => ("fd01::1", 0, Opening::Client),
                // A reserved port and one beyond the range are never chosen.
                3 => ("0.0.0.0", reserved + number, Opening::Server),
                4 => ("10.1.0.1", low + 2000 + number, Opening::Server),
                // The same port in both families is a server's, and so is a dual-stack socket.
                5 => ("0.0.0.0", low + 200 + number, Opening::Server),
                6 => ("::", 0, Opening::Server),
                _ => ("127.0.0.1", 0, Opening::Client),
            };
            let ip: IpAddr = address.parse().unwrap();
            let domain = if ip.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
            let socket = Socket::new(domain, Type::DGRAM, None).unwrap();
            if ip.is_ipv6() {
                socket.set_only_v6(kind != 6).unwrap();
            }
            let transparent = random.once_in(4) && ip.is_ipv4() && socket.set_ip_transparent_v4(true).is_ok();
            if socket.bind(&SocketAddr::new(ip, port).into()).is_err() {
                continue;
            }
            if kind == 5 {
                let other = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
                other.set_only_v6(true).unwrap();
                if other.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port).into()).is_err() {
                    continue;
                }
                expected.insert(inode(&other), (Opening::Server, false));
                held.push(other);
            }
            expected.insert(inode(&socket), (opening, transparent));
            let mut pids = vec![std::process::id()];
            if random.once_in(4) {
                let inherited = Stdio::from(OwnedFd::from(socket.try_clone().unwrap()));
                children.0.push(Command::new("sleep").arg("60").stdin(inherited).spawn().unwrap());
                pids.extend(children.0.last().map(Child::id));
                pids.sort_unstable();
            }
            owners.insert(inode(&socket), pids);
            held.push(socket);
        }
        if random.once_in(2)
            && let Ok(listener) = Socket::new(Domain::IPV4, Type::STREAM, Some(262.into()))
        {
            listener.bind(&SocketAddr::from(([10, 1, 0, 1], 8443)).into()).unwrap();
            listener.listen(1).unwrap();
            expected.insert(inode(&listener), (Opening::Server, false));
            owners.insert(inode(&listener), vec![std::process::id()]);
            held.push(listener);
        }
        // Ports that chance gave to both families are no evidence for a client.
        let port = |socket: &Socket| socket.local_addr().unwrap().as_socket().unwrap();
        for one in &held {
            let (at, family) = (port(one).port(), port(one).is_ipv4());
            if held.iter().any(|other| port(other).port() == at && port(other).is_ipv4() != family) {
                expected.get_mut(&inode(one)).unwrap().0 = Opening::Server;
            }
        }
        for attempts_left in ATTEMPTS.rev() {
            let inventory = sys::inventory(&InventoryOptions::default());
            let unread = inventory.sockets.iter().any(|socket| socket.owners.is_none());
            if attempts_left > 0 && unread {
                continue;
            }
            let mut held_by_kernel: Vec<String> = inventory
                .sockets
                .iter()
                .filter_map(|socket| Some(socket.kernel.as_ref()?.to_string()))
                .collect();
            held_by_kernel.sort_unstable();
            assert_eq!(held_by_kernel, kernel_sockets);
            let pids = |inode: u64| -> Vec<u32> {
                let mut sockets = inventory.sockets.iter();
                let socket = sockets.find(|socket| socket.inode == Some(inode)).unwrap();
                socket.known_owners().iter().map(|owner| owner.pid).collect()
            };
            let found: BTreeMap<u64, Vec<u32>> = owners.keys().map(|&inode| (inode, pids(inode))).collect();
            if attempts_left > 0 && found != owners {
                continue;
            }
            assert_eq!(found, owners);
            let site = Site {
                host: sys::snapshot().unwrap(),
                sockets: inventory.sockets,
                client_ports: inventory.client_ports,
                ..Site::default()
            };
            let report = audit::report(&mut [site], Vec::new(), String::new(), true);
            let found = |sockets: Vec<&ListeningSocket>, opening| -> Vec<(u64, (Opening, bool))> {
                let of = |socket: &&ListeningSocket| socket.kernel.is_none();
                let tell = |socket: &ListeningSocket| {
                    (socket.inode.unwrap(), (opening, socket.transparent.unwrap()))
                };
                sockets.into_iter().filter(of).map(tell).collect()
            };
            let mut all = found(report.skipped.iter().map(|one| &one.socket).collect(), Opening::Client);
            all.extend(found(report.sockets.iter().collect(), Opening::Server));
            let all: BTreeMap<u64, (Opening, bool)> = all.into_iter().collect();
            assert_eq!(all, expected, "range {low}, reserved {reserved}");
            return report.skipped.len();
        }
        0
    })
}

/// A socket of ours, and what must be told of it.
struct Opened {
    _socket: Socket,
    child: Option<Child>,
    expected: Option<Expected>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Expected {
    protocol: Protocol,
    address: IpAddr,
    port: u16,
    family: Family,
    v6only: Option<bool>,
    device: Option<IfName>,
    mptcp: bool,
    reuse: (Option<bool>, Option<bool>),
    limit: Option<u32>,
    pids: Vec<u32>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn inode(socket: &Socket) -> u64 {
    File::from(OwnedFd::from(socket.try_clone().unwrap())).metadata().unwrap().ino()
}

fn random_hosts(name: &str, hosts: usize) {
    let mut random = Random::seeded(name);
    let mut told = 0;
    for _ in 0..hosts {
        told += random_host(&mut random);
    }
    assert!(told > hosts, "{told} sockets on {hosts} hosts prove nothing");
}

/// Another thread of this test may be between fork and exec: then its child holds our sockets too, for a moment, and cannot be
/// read for another.
const ATTEMPTS: std::ops::Range<u32> = 0..10;

fn random_host(random: &mut Random) -> usize {
    let host = Netns::new();
    host.ip("link add va type veth peer name vb");
    for (device, number) in [("va", 1), ("vb", 2)] {
        host.ip(&format!("link set {device} up"));
        host.address(device, &format!("10.{number}.0.1/24"));
        host.address(device, &format!("fd0{number}::1/64"));
        host.address(device, &format!("fe80::{number}/64"));
    }
    host.run(|| {
        let count = random.below(12);
        let opened: Vec<Opened> = (0..count).filter_map(|_| open(random)).collect();
        let options = InventoryOptions { socket_options: true, ..InventoryOptions::default() };
        let expected: BTreeMap<u64, Expected> = opened
            .iter()
            .filter_map(|opened| Some((inode(&opened._socket), opened.expected.clone()?)))
            .collect();
        for attempts_left in ATTEMPTS.rev() {
            let inventory = sys::inventory(&options);
            if attempts_left > 0 && inventory.sockets.iter().any(|socket| socket.owners.is_none()) {
                continue;
            }
            let (told, spelled, witness) = (by_inode(&inventory), spelled(&inventory.sockets), ss());
            if attempts_left > 0 && (told != expected || spelled != witness) {
                continue;
            }
            assert_eq!(told, expected);
            assert_eq!(inventory.sockets.len(), expected.len(), "{inventory:#?}");
            assert_eq!(spelled, witness);
            break;
        }
        expected.len()
    })
}

fn by_inode(inventory: &Inventory) -> BTreeMap<u64, Expected> {
    inventory
        .sockets
        .iter()
        .map(|socket| {
            let view = &socket.view;
            let owners =
                socket.owners.as_ref().unwrap_or_else(|| panic!("{:?}", inventory.incomplete_because));
            let expected = Expected {
                protocol: view.protocol,
                address: view.address,
                port: view.port,
                family: view.family,
                v6only: view.v6only,
                device: view.device.clone(),
                mptcp: socket.mptcp,
                reuse: (view.reuse_address, view.reuse_port),
                limit: socket.queue.unwrap().limit,
                pids: owners.iter().map(|owner| owner.pid).collect(),
            };
            (socket.inode.unwrap(), expected)
        })
        .collect()
}

/// Opens a random socket; `None` when the kernel does not allow what chance asked for.
fn open(random: &mut Random) -> Option<Opened> {
    let protocol = *random.pick(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp]);
    let (text, scope) = *random.pick(&[
        ("0.0.0.0", ""),
        ("127.0.0.1", ""),
        ("127.0.0.2", ""),
        ("10.1.0.1", ""),
        ("::", ""),
        ("::", ""),
        ("::1", ""),
        ("fd01::1", ""),
        ("fe80::1", "va"),
        ("fe80::2", "vb"),
        ("::ffff:127.0.0.1", ""),
        ("::ffff:0.0.0.0", ""),
    ]);
    let address: IpAddr = text.parse().unwrap();
    let mptcp = protocol == Protocol::Tcp && random.once_in(4);
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let (kind, number) = match protocol {
        Protocol::Tcp if mptcp => (Type::STREAM, 262),
        Protocol::Tcp => (Type::STREAM, 6),
        Protocol::Udp => (Type::DGRAM, 17),
    };
    let socket = Socket::new(domain, kind, Some(number.into())).ok()?;
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let mut v6only = None;
    if domain == Domain::IPV6 {
        let only = !mapped && random.once_in(2);
        socket.set_only_v6(only).unwrap();
        v6only = Some(only || !(address.is_unspecified() || mapped));
    }
    let reuse_address = random.once_in(2);
    let reuse_port = random.once_in(3);
    socket.set_reuse_address(reuse_address).unwrap();
    socket.set_reuse_port(reuse_port).unwrap();
    let mut device = None;
    if random.once_in(4) && scope.is_empty() {
        let name = *random.pick(&["va", "vb", "lo"]);
        socket.bind_device(Some(name.as_bytes())).ok()?;
        device = Some(IfName::from(name));
    }
    let scope_id = if scope.is_empty() { 0 } else { nix::net::if_::if_nametoindex(scope).unwrap() };
    if scope_id != 0 {
        device = Some(IfName::from(scope));
    }
    let to_bind = match address {
        IpAddr::V4(_) => SocketAddr::new(address, 0),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, 0, 0, scope_id).into(),
    };
    socket.bind(&to_bind.into()).ok()?;
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let mut shown = true;
    let mut limit = None;
    if protocol == Protocol::Tcp {
        shown = !random.once_in(6);
        if shown {
            let backlog = random.below(200) as i32;
            socket.listen(backlog).ok()?;
            limit = Some(u32::try_from(backlog).unwrap());
        }
    } else if random.once_in(6)
        && (address == IpAddr::V4(Ipv4Addr::LOCALHOST) || address == IpAddr::V6(Ipv6Addr::LOCALHOST))
    {
        socket.connect(&SocketAddr::new(address, 9).into()).ok()?;
        shown = false;
    }
    let mut pids = vec![std::process::id()];
    let mut child = None;
    if random.once_in(8) {
        let inherited = OwnedFd::from(socket.try_clone().unwrap());
        let sleeper = Command::new("sleep").arg("60").stdin(Stdio::from(inherited)).spawn().unwrap();
        pids.push(sleeper.id());
        child = Some(sleeper);
    }
    pids.sort_unstable();
    let expected = Expected {
        protocol,
        address,
        port,
        family: if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 },
        v6only,
        device,
        mptcp,
        reuse: (Some(reuse_address), Some(reuse_port)),
        limit,
        pids,
    };
    Some(Opened { _socket: socket, child, expected: shown.then_some(expected) })
}

fn proc_net_is_a_named_fallback() {
    let mut random = Random::seeded("proc_net");
    let host = Netns::new();
    host.ip("link add va type veth peer name vb");
    host.ip("link set va up");
    host.ip("link set vb up");
    host.run(|| {
        let opened: Vec<Opened> = (0..30).filter_map(|_| open(&mut random)).collect();
        assert!(!opened.is_empty());
        for attempts_left in ATTEMPTS.rev() {
            let asked = sys::inventory(&InventoryOptions::default());
            if attempts_left > 0 && !asked.complete {
                continue;
            }
            assert!(asked.complete, "{:?}", asked.incomplete_because);
            let read =
                sys::inventory(&InventoryOptions { proc_net_only: true, ..InventoryOptions::default() });
            assert!(!read.complete);
            assert!(read.incomplete_because.iter().any(|because| because.contains("/proc/net/udp")));
            let mut blinded = asked.sockets.clone();
            for socket in &mut blinded {
                if socket.view.address.is_unspecified() {
                    socket.view.v6only = None;
                }
                socket.view.device = None;
                socket.view.scope_id = None;
                socket.device_index = None;
                socket.device_known = false;
                socket.mptcp = false;
                socket.cgroup = None;
                socket.transparent = None;
                socket.mark = None;
                if let Some(queue) = &mut socket.queue {
                    queue.limit = None;
                }
            }
            blinded.sort_by_cached_key(ListeningSocket::order);
            if attempts_left > 0 && read.sockets != blinded {
                continue;
            }
            assert_eq!(read.sockets, blinded);
            break;
        }
    });
}

fn who_holds_a_port_is_told() {
    let host = Netns::new();
    host.run(|| {
        let holder = |address: &str, port| sys::port_holder(Protocol::Tcp, address.parse().unwrap(), port);
        let dual = std::net::TcpListener::bind("[::]:0").unwrap();
        let port = dual.local_addr().unwrap().port();
        for address in ["127.0.0.1", "::1", "0.0.0.0", "::"] {
            for attempts_left in ATTEMPTS.rev() {
                let found = holder(address, port);
                assert_eq!(found.len(), 1, "{address}");
                assert_eq!(found[0].state, SocketState::Listen);
                let owners = found[0].owners.as_ref();
                if attempts_left > 0 && owners.is_none_or(|owners| owners.len() != 1) {
                    continue;
                }
                assert_eq!(owners.unwrap()[0].pid, std::process::id());
                break;
            }
        }
        assert_eq!(holder("127.0.0.1", port.wrapping_add(1).max(1)), []);
        assert_eq!(sys::port_holder(Protocol::Udp, "127.0.0.1".parse().unwrap(), port), []);
        let one = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = one.local_addr().unwrap().port();
        assert_eq!(holder("127.0.0.2", port), []);
        assert_eq!(holder("::1", port), []);
        assert_eq!(holder("::", port).len(), 1, "a dual-stack wildcard wants its packets");
        // Bound and silent: nothing listens, and bind fails all the same.
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        bound.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let port = bound.local_addr().unwrap().as_socket().unwrap().port();
        let found = holder("0.0.0.0", port);
        assert_eq!((found.len(), found[0].state), (1, SocketState::Bound));
    });
}

fn a_device_that_is_gone_is_no_wildcard() {
    let host = Netns::new();
    host.ip("link add va type veth peer name vb");
    let index = host.index("va");
    host.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.bind_device(Some(b"va")).unwrap();
        socket.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).unwrap();
        assert!(Command::new("ip").args(["link", "del", "va"]).status().unwrap().success());
        let inventory = sys::inventory(&InventoryOptions::default());
        assert_eq!(inventory.sockets.len(), 1);
        assert_eq!(inventory.sockets[0].device_index, Some(index));
        assert_eq!(inventory.sockets[0].view.device, Some(IfName::from(format!("#{index}").as_str())));
    });
}

fn a_full_queue_is_seen() {
    Netns::new().run(|| {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(3).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let clients: Vec<_> = (0..2).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let inventory = sys::inventory(&InventoryOptions::default());
        let queue = inventory.sockets[0].queue.unwrap();
        assert_eq!((queue.length as usize, queue.limit), (clients.len(), Some(3)));
    });
}

/// A descriptor that lies in the queue of a Unix socket has no owner, and must not get one by accident.
fn sockets_between_processes_have_no_owner() {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::os::fd::AsRawFd as _;
    Netns::new().run(|| {
        let (here, there) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let number = [listener.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&number)];
        let parts = [std::io::IoSlice::new(b"x")];
        sendmsg::<()>(here.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
        drop(listener);
        let inventory = sys::inventory(&InventoryOptions::default());
        assert_eq!(inventory.sockets.len(), 1, "it still listens");
        // Where a process cannot be read, it might be that one's.
        let expected = inventory.complete.then(|| bindscope::model::Owners::from([]));
        assert_eq!(inventory.sockets[0].owners, expected, "{:?}", inventory.incomplete_because);
        drop(there);
    });
}

fn many_sockets_are_all_told() {
    const MANY: usize = 600;
    Netns::new().run(|| {
        let sockets: Vec<_> = (0..MANY).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let mut ports: Vec<u16> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        ports.sort_unstable();
        let inventory = sys::inventory(&InventoryOptions::default());
        let told: Vec<u16> = inventory.sockets.iter().map(|socket| socket.view.port).collect();
        assert_eq!(told, ports);
    });
}

/// Processes that hold a socket and end at once, while owners are looked for: who is named held it.
fn owners_that_come_and_go_are_never_confused() {
    let host = Netns::new();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                host.run(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                        let mut child = Command::new("sleep")
                            .arg("0.01")
                            .stdin(Stdio::from(OwnedFd::from(listener)))
                            .spawn()
                            .unwrap();
                        child.wait().unwrap();
                    }
                });
            });
        }
        let ours = std::env::current_exe().unwrap();
        let mut named = 0;
        let began = std::time::Instant::now();
        for look in 0.. {
            // Looks may be over before the first socket has an owner.
            if look >= 60 && (named > 0 || began.elapsed() > std::time::Duration::from_secs(20)) {
                break;
            }
            let inventory = host.run(|| sys::inventory(&InventoryOptions::default()));
            for owner in inventory.sockets.iter().flat_map(|socket| socket.known_owners()) {
                let exe = owner.exe.as_deref().unwrap_or("/sleep");
                // Between fork and exec, a child is this very program.
                assert!(
                    exe.ends_with("/sleep") || exe == ours.to_str().unwrap() || exe.contains("coreutils"),
                    "{owner:?}"
                );
                named += 1;
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(named > 0);
    });
}
