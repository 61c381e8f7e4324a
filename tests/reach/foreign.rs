//! Sockets of another program on a random host: in every state, with and without options.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::support::netns::Netns;
use crate::support::random::Random;

/// The port of a server that the other program connects to.
const SERVER: u16 = 5999;
/// The number of kinds that [`Others::open`] knows.
const KINDS: usize = 13;

/// The sockets. Listeners accept and close at once, so that a client notices that they are not those of the plan.
pub struct Others {
    sockets: Vec<Socket>,
    /// What was opened, for a message.
    pub described: String,
    stop: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Drop for Others {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

fn new(address: IpAddr, udp: bool, random: &mut Random) -> Option<Socket> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let kind = if udp { Type::DGRAM } else { Type::STREAM };
    let socket = Socket::new(domain, kind, None).ok()?;
    socket.set_reuse_address(random.once_in(2)).ok()?;
    socket.set_reuse_port(random.once_in(4)).ok()?;
    if random.once_in(4) {
        // The marks that the rules of random hosts look at.
        socket.set_mark(*random.pick(&[1, 51820])).ok()?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(random.once_in(2)).ok()?;
    }
    Some(socket)
}

fn bound(address: IpAddr, port: u16, udp: bool, random: &mut Random) -> Option<Socket> {
    let socket = new(address, udp, random)?;
    socket.bind(&SocketAddr::new(address, port).into()).ok()?;
    Some(socket)
}

/// A connection from `address` and `port` to a server of the same host: the client's end and the server's.
fn connected(address: IpAddr, port: u16, random: &mut Random) -> Option<(Socket, Socket)> {
    let listener = Socket::new(Domain::for_address(SocketAddr::new(address, 0)), Type::STREAM, None).ok()?;
    listener.set_reuse_address(true).ok()?;
    let server: SockAddr = SocketAddr::new(address, SERVER).into();
    listener.bind(&server).ok()?;
    listener.listen(4).ok()?;
    let client = bound(address, port, false, random)?;
    client.connect_timeout(&server, Duration::from_millis(300)).ok()?;
    Some((client, listener.accept().ok()?.0))
}

impl Others {
    /// Opens some on the ports from `first` on, at addresses of the host.
    pub fn new(ns: &Netns, addresses: &[String], first: u16, random: &mut Random) -> Others {
        let stop = Arc::new(AtomicBool::new(false));
        let mut others =
            Others { sockets: Vec::new(), described: String::new(), stop: Arc::clone(&stop), server: None };
        let (mut held, mut listeners) = (Vec::new(), Vec::new());
        let mut described = String::new();
        ns.run(|| {
            for _ in 0..1 + random.below(3) {
                let address: IpAddr = match random.below(4) {
                    0 => "0.0.0.0".parse().unwrap(),
                    1 => "::".parse().unwrap(),
                    _ => random.pick(addresses).parse().unwrap(),
                };
                let port = first + u16::try_from(random.below(2)).unwrap();
                let kind = random.below(KINDS);
                if let Some((mut more, listener)) = Others::open(kind, address, port, random) {
                    described.push_str(&format!("  other program: kind {kind} at {address} port {port}\n"));
                    held.append(&mut more);
                    listeners.extend(listener);
                }
            }
        });
        others.sockets = held;
        others.described = described;
        others.server = (!listeners.is_empty()).then(|| std::thread::spawn(move || serve(&listeners, &stop)));
        others
    }

    /// Sockets to keep, and one that listens.
    fn open(
        kind: usize,
        address: IpAddr,
        port: u16,
        random: &mut Random,
    ) -> Option<(Vec<Socket>, Option<Socket>)> {
        let wildcard = address.is_unspecified();
        let listening = |socket: Socket| {
            socket.listen(8).ok()?;
            Some((Vec::new(), Some(socket)))
        };
        Some(match kind {
            // Bound, and neither listening nor connected.
            0 => (vec![bound(address, port, false, random)?], None),
            1 | 2 => listening(bound(address, port, false, random)?)?,
            3 => {
                let kind = Some(Protocol::from(262));
                let domain = Domain::for_address(SocketAddr::new(address, 0));
                let socket = Socket::new(domain, Type::STREAM, kind).ok()?;
                socket.bind(&SocketAddr::new(address, port).into()).ok()?;
                listening(socket)?
            }
            4 => {
                let socket = new(address, false, random)?;
                socket.bind_device(Some(b"w1")).ok()?;
                socket.bind(&SocketAddr::new(address, port).into()).ok()?;
                listening(socket)?
            }
            5 => (vec![bound(address, port, true, random)?], None),
            6 => {
                let socket = bound(address, port, true, random)?;
                let to: IpAddr = if address.is_ipv4() { [127, 0, 0, 1].into() } else { address };
                socket.connect(&SocketAddr::new(to, 9).into()).ok()?;
                (vec![socket], None)
            }
            _ if wildcard => return None,
            // An outgoing connection, and those that one end has closed (FIN-WAIT-2, CLOSE-WAIT, TIME-WAIT).
            7 => {
                let (client, server) = connected(address, port, random)?;
                (vec![client, server], None)
            }
            8 => {
                let (client, server) = connected(address, port, random)?;
                client.shutdown(std::net::Shutdown::Write).ok()?;
                (vec![client, server], None)
            }
            9 => {
                let (client, server) = connected(address, port, random)?;
                server.shutdown(std::net::Shutdown::Write).ok()?;
                (vec![client, server], None)
            }
            10 => {
                let (client, mut server) = connected(address, port, random)?;
                drop(client);
                let _ = server.read(&mut [0]);
                drop(server);
                (Vec::new(), None)
            }
            // A connection that a server has accepted that listens no more.
            11 => {
                let listener = bound(address, port, false, random)?;
                listener.listen(4).ok()?;
                let client =
                    Socket::new(Domain::for_address(SocketAddr::new(address, 0)), Type::STREAM, None);
                let client = client.ok()?;
                let to = SocketAddr::new(address, port).into();
                client.connect_timeout(&to, Duration::from_millis(300)).ok()?;
                (vec![listener.accept().ok()?.0, client], None)
            }
            // A connection that is being opened (SYN-SENT).
            _ => {
                let socket = bound(address, port, false, random)?;
                socket.set_nonblocking(true).ok()?;
                let to = if address.is_ipv4() { "203.0.113.250:9" } else { "[2001:db8:ffff::250]:9" };
                let error = socket.connect(&to.parse::<SocketAddr>().unwrap().into()).err()?;
                (error.raw_os_error() == Some(libc::EINPROGRESS)).then(|| (vec![socket], None))?
            }
        })
    }
}

fn serve(listeners: &[Socket], stop: &AtomicBool) {
    for listener in listeners {
        listener.set_nonblocking(true).unwrap();
    }
    while !stop.load(Ordering::Relaxed) {
        for listener in listeners {
            while listener.accept().is_ok() {}
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
