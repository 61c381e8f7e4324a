//! A host with two links and a container behind it, and what its kernel does with each connection.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bindscope::model::{Family, Protocol};
use bindscope::plan::filter::packet::{Device, Packet};
use bindscope::plan::filter::{Delivery, ETHERNET, Facts, Incoming, LOOPBACK, address_type};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::netns::Netns;

/// What a client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// The listener with this number has it.
    Taken(u32),
    /// The client is connected, and no listener has it.
    HalfOpen,
    /// The client is connected, and then gets this error.
    Broken(i32),
    /// The error.
    Error(i32),
    /// Nothing.
    Silence,
}

/// A connection to make.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub place: Place,
    pub protocol: Protocol,
    pub source: Option<IpAddr>,
    pub to: SocketAddr,
    pub patience: Duration,
}

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Host,
    Left,
    Right,
}

/// Which listener has what: connections by the client's port, datagrams by their content.
type Table = Mutex<BTreeMap<u32, u32>>;

pub struct Network {
    pub host: Netns,
    pub left: Netns,
    pub right: Netns,
    _container: Netns,
    pub devices: BTreeMap<&'static str, Device>,
    listeners: Vec<Listener>,
}

struct Listener {
    socket: Socket,
    protocol: Protocol,
    address: SocketAddr,
    in_container: bool,
}

pub const TCP_PORTS: &[u16] = &[22, 80, 443, 8080];
pub const UDP_PORTS: &[u16] = &[53, 5353];
pub const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);

/// Addresses of the host: interface, address, length of the prefix.
const ADDRESSES: &[(&str, &str, u8)] = &[
    ("lo", "127.0.0.1", 8),
    ("lo", "::1", 128),
    ("eth0", "192.0.2.1", 24),
    ("eth0", "2001:db8::1", 64),
    ("eth1", "198.51.100.1", 24),
    ("eth1", "2001:db8:1::1", 64),
    ("docker0", "172.17.0.1", 16),
];

impl Network {
    pub fn new() -> Network {
        let [host, left, right, container] = std::array::from_fn(|_| Netns::new());
        for ns in [&host, &left, &right, &container] {
            for (name, value) in [
                ("net.ipv4.icmp_ratelimit", "0"),
                ("net.ipv6.icmp.ratelimit", "0"),
                ("net.ipv4.icmp_msgs_per_sec", "1000000"),
                ("net.ipv4.icmp_msgs_burst", "1000000"),
                ("net.ipv4.conf.all.rp_filter", "0"),
                ("net.ipv4.conf.default.rp_filter", "0"),
                ("net.ipv4.ip_forward", "1"),
                // What is left of one set of connections does not speak during the next.
                ("net.ipv4.tcp_synack_retries", "0"),
            ] {
                ns.sysctl(name, value);
            }
        }
        host.wire("eth0", &left, "far");
        host.wire("eth1", &right, "far");
        host.wire("docker0", &container, "far");
        for (interface, address, bits) in ADDRESSES.iter().filter(|(interface, ..)| *interface != "lo") {
            host.address(interface, &format!("{address}/{bits}"));
        }
        for address in ["192.0.2.2/24", "192.0.2.130/24", "2001:db8::2/64", "2001:db8::82/64"] {
            left.address("far", address);
        }
        for address in ["198.51.100.2/24", "2001:db8:1::2/64"] {
            right.address("far", address);
        }
        container.address("far", "172.17.0.2/16");
        for (ns, v4, v6) in [(&left, "192.0.2.1", "2001:db8::1"), (&right, "198.51.100.1", "2001:db8:1::1")] {
            ns.ip(&format!("route add default via {v4}"));
            ns.ip(&format!("-6 route add default via {v6}"));
        }
        container.ip("route add default via 172.17.0.1");
        let mut devices = BTreeMap::new();
        for name in ["lo", "eth0", "eth1", "docker0"] {
            let hardware = Some(if name == "lo" { LOOPBACK } else { ETHERNET });
            devices.insert(name, Device { index: host.index(name), name: name.to_owned(), hardware });
        }
        let mut listeners = Vec::new();
        for in_container in [false, true] {
            for (protocol, ports) in [(Protocol::Tcp, TCP_PORTS), (Protocol::Udp, UDP_PORTS)] {
                for port in ports {
                    for any in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
                        let ns = if in_container { &container } else { &host };
                        let port = if in_container && *port == 8080 { 5432 } else { *port };
                        let address = SocketAddr::new(any, port);
                        let socket = ns.run(|| listen(protocol, address));
                        listeners.push(Listener { socket, protocol, address, in_container });
                    }
                }
            }
        }
        crate::support::snapshot::settle(&host);
        crate::support::snapshot::settle(&left);
        crate::support::snapshot::settle(&right);
        Network { host, left, right, _container: container, devices, listeners }
    }

    /// The listener for a destination, on the host or in the container.
    pub fn listener(&self, protocol: Protocol, to: IpAddr, port: u16, in_container: bool) -> Option<u32> {
        let found = self.listeners.iter().position(|one| {
            one.protocol == protocol
                && one.address.port() == port
                && one.address.is_ipv4() == to.is_ipv4()
                && one.in_container == in_container
        });
        found.map(|index| u32::try_from(index).unwrap())
    }

    pub fn owner(&self, address: IpAddr) -> Option<&'static str> {
        let loopback = matches!(address, IpAddr::V4(v4) if v4.is_loopback());
        if loopback {
            return Some("lo");
        }
        ADDRESSES.iter().find(|(_, one, _)| one.parse::<IpAddr>().unwrap() == address).map(|(name, ..)| *name)
    }

    /// The interface of the network that an address is in.
    pub fn connected(&self, address: IpAddr) -> Option<&'static str> {
        let inside = |(_, net, bits): &&(&str, &str, u8)| {
            let net = ipnet::IpNet::new(net.parse().unwrap(), *bits).unwrap();
            net.contains(&address)
        };
        ADDRESSES.iter().find(inside).map(|(name, ..)| *name)
    }

    fn device(&self, name: &str) -> Device {
        self.devices[name].clone()
    }

    /// Makes all attempts at once.
    pub fn ask(&self, attempts: &[Attempt]) -> Vec<Seen> {
        for ns in [&self.host, &self.left, &self.right] {
            ns.ip("neigh flush all");
            ns.ip("-6 neigh flush all");
        }
        let done = AtomicBool::new(false);
        let (accepted, received): (Table, Table) = Default::default();
        std::thread::scope(|scope| {
            scope.spawn(|| serve(&self.listeners, &accepted, &received, &done));
            let asked: Vec<_> =
                [(Place::Host, &self.host), (Place::Left, &self.left), (Place::Right, &self.right)]
                    .into_iter()
                    .map(|(place, ns)| {
                        let (accepted, received) = (&accepted, &received);
                        scope.spawn(move || {
                            let mine: Vec<(u32, &Attempt)> =
                                (0..).zip(attempts).filter(|(_, one)| one.place == place).collect();
                            ns.run(|| clients(&mine, accepted, received))
                        })
                    })
                    .collect();
            let mut seen = vec![Seen::Silence; attempts.len()];
            for one in asked {
                for (index, what) in one.join().unwrap() {
                    seen[index as usize] = what;
                }
            }
            done.store(true, Ordering::Relaxed);
            seen
        })
    }
}

fn listen(protocol: Protocol, address: SocketAddr) -> Socket {
    let kind = if protocol == Protocol::Tcp { Type::STREAM } else { Type::DGRAM };
    let socket = Socket::new(Domain::for_address(address), kind, None).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    socket.set_nonblocking(true).unwrap();
    socket.bind(&SockAddr::from(address)).unwrap();
    if protocol == Protocol::Tcp {
        socket.listen(1024).unwrap();
    }
    socket
}

/// Tells each client of TCP which listener has it, and notes which datagram came where.
fn serve(listeners: &[Listener], accepted: &Table, received: &Table, done: &AtomicBool) {
    let mut kept = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let mut fds: Vec<PollFd<'_>> =
            listeners.iter().map(|one| PollFd::new(one.socket.as_fd(), PollFlags::POLLIN)).collect();
        let _ = poll(&mut fds, PollTimeout::from(50u8));
        for (number, one) in (0u32..).zip(listeners) {
            if one.protocol == Protocol::Tcp {
                while let Ok((mut stream, peer)) = one.socket.accept() {
                    let port = peer.as_socket().map_or(0, |peer| peer.port());
                    accepted.lock().unwrap().insert(u32::from(port), number);
                    let _ = stream.set_linger(Some(Duration::ZERO));
                    let _ = stream.write_all(&number.to_be_bytes());
                    kept.push(stream);
                }
            } else {
                let mut bytes = [0; 4];
                while let Ok(4) = (&one.socket).read(&mut bytes) {
                    received.lock().unwrap().insert(u32::from_be_bytes(bytes), number);
                }
            }
        }
    }
}

struct Client {
    index: u32,
    socket: Socket,
    connected: bool,
    udp: bool,
    until: Instant,
}

fn clients(attempts: &[(u32, &Attempt)], accepted: &Table, received: &Table) -> Vec<(u32, Seen)> {
    let mut seen = Vec::new();
    let mut open = Vec::new();
    let code = |error: &std::io::Error| error.raw_os_error().unwrap_or(0);
    for (index, attempt) in attempts {
        let udp = attempt.protocol == Protocol::Udp;
        let kind = if udp { Type::DGRAM } else { Type::STREAM };
        let socket = Socket::new(Domain::for_address(attempt.to), kind, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        // Errors of ICMP come at once, and to datagrams those too that may pass.
        if attempt.to.is_ipv4() {
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv4RecvErr, &true).unwrap();
        } else {
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv6RecvErr, &true).unwrap();
        }
        if let Some(source) = attempt.source {
            let zone = 0;
            let address = match source {
                IpAddr::V4(_) => SocketAddr::new(source, 0),
                IpAddr::V6(v6) => SocketAddr::V6(SocketAddrV6::new(v6, 0, 0, zone)),
            };
            socket.bind(&SockAddr::from(address)).unwrap();
        }
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        let until = Instant::now() + attempt.patience;
        let connected = socket.connect(&SockAddr::from(attempt.to));
        match connected {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
            Err(error) => {
                seen.push((*index, Seen::Error(code(&error))));
                continue;
            }
        }
        if udp && let Err(error) = (&socket).write(&index.to_be_bytes()) {
            seen.push((*index, Seen::Error(code(&error))));
            continue;
        }
        open.push(Client { index: *index, socket, connected: false, udp, until });
    }
    while !open.is_empty() {
        let wanted = |client: &Client| {
            if client.connected || client.udp { PollFlags::POLLIN } else { PollFlags::POLLOUT }
        };
        let ready: Vec<bool> = {
            let mut fds: Vec<PollFd<'_>> =
                open.iter().map(|one| PollFd::new(one.socket.as_fd(), wanted(one))).collect();
            let _ = poll(&mut fds, PollTimeout::from(20u8));
            fds.iter().map(|fd| fd.any().unwrap_or(false)).collect()
        };
        let mut ready = ready.into_iter();
        open.retain_mut(|client| {
            let is_ready = ready.next().unwrap();
            let result = step(client, is_ready, accepted, received);
            seen.extend(result.map(|result| (client.index, result)));
            result.is_none()
        });
    }
    seen
}

fn step(client: &mut Client, ready: bool, accepted: &Table, received: &Table) -> Option<Seen> {
    if client.udp
        && let Some(number) = received.lock().unwrap().get(&client.index)
    {
        return Some(Seen::Taken(*number));
    }
    if ready {
        if !client.connected && !client.udp {
            match client.socket.take_error().unwrap() {
                Some(error) => return Some(Seen::Error(error.raw_os_error().unwrap_or(0))),
                None => client.connected = true,
            }
        }
        let mut bytes = [0; 4];
        match (&client.socket).read(&mut bytes) {
            Ok(4) => return Some(Seen::Taken(u32::from_be_bytes(bytes))),
            Ok(_) => return Some(Seen::HalfOpen),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                let code = error.raw_os_error().unwrap_or(0);
                return Some(if client.udp { Seen::Error(code) } else { Seen::Broken(code) });
            }
        }
    }
    if Instant::now() < client.until {
        return None;
    }
    if !client.connected {
        return Some(Seen::Silence);
    }
    // The listener may have it, and what it sends be dropped.
    let port = client.socket.local_addr().unwrap().as_socket().unwrap().port();
    let taken = accepted.lock().unwrap().get(&u32::from(port)).copied();
    Some(taken.map_or(Seen::HalfOpen, Seen::Taken))
}

impl Facts for Network {
    fn routes_by_mark(&self, _: Family) -> bool {
        false
    }

    fn address_type(&self, address: IpAddr, device: Option<&Device>) -> Option<u32> {
        if address.is_multicast() {
            return Some(address_type::MULTICAST);
        }
        Some(match self.owner(address) {
            Some(owner) if device.is_none_or(|device| device.name == owner) => address_type::LOCAL,
            _ if matches!(address, IpAddr::V4(v4) if v4.is_broadcast()) => address_type::BROADCAST,
            _ => address_type::UNICAST,
        })
    }

    fn route(&self, to: IpAddr, _mark: Option<u32>, device: Option<&Device>) -> Option<Option<Device>> {
        if self.owner(to).is_some() {
            return None;
        }
        let found = self.connected(to).map(|name| self.device(name));
        Some(found.filter(|found| device.is_none_or(|device| device.index == found.index)))
    }

    fn incoming(&self, packet: &Packet) -> Incoming {
        let Some(to) = packet.destination.address else { return Incoming::Unknown };
        let looped = packet.input.as_ref().is_some_and(|input| input.name == "lo");
        if to.is_loopback() && !looped {
            return Incoming::Lost;
        }
        if self.owner(to).is_some() {
            return Incoming::Local;
        }
        match self.connected(to) {
            Some(name) if to.is_ipv4() => Incoming::Forward(self.device(name)),
            _ => Incoming::Lost,
        }
    }

    fn outgoing(&self, packet: &Packet) -> Option<Option<Device>> {
        let to = packet.destination.address?;
        if self.owner(to).is_some() {
            return Some(Some(self.device("lo")));
        }
        Some(self.connected(to).map(|name| self.device(name)))
    }

    fn redirect(&self, device: &Device, family: Family) -> Vec<IpAddr> {
        let mine = ADDRESSES.iter().filter(|(name, ..)| *name == device.name);
        let mine = mine.map(|(_, address, _)| address.parse::<IpAddr>().unwrap());
        mine.filter(|address| Family::of(*address) == family).collect()
    }

    fn masquerade(&self, device: &Device, packet: &Packet) -> Option<IpAddr> {
        if device.name == "lo" {
            return None;
        }
        self.redirect(device, packet.family).first().copied()
    }

    fn deliver(&self, protocol: Protocol, destination: IpAddr, port: u16, _packet: &Packet) -> Delivery {
        match self.listener(protocol, destination, port, false) {
            Some(number) => Delivery::Accepted(number),
            None => Delivery::Refused,
        }
    }

    fn reflects_mark(&self, _family: Family) -> bool {
        false
    }

    fn accepts_mark(&self) -> bool {
        false
    }
}
