//! Hosts with interfaces and servers, in network namespaces.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use socket2::{Domain, Protocol, Socket, Type};

use crate::support::netns::Netns;

/// A host with two links: eth0 (192.168.1.10, 2001:db8:1::10) and eth1 (10.20.0.10, fd20::10).
pub fn host() -> (Netns, Vec<Netns>) {
    let host = Netns::new();
    let mut peers = Vec::new();
    for (name, addresses) in [
        ("eth0", ["192.168.1.10/24", "2001:db8:1::10/64", "fe80::1/64"]),
        ("eth1", ["10.20.0.10/16", "fd20::10/64", "fe80::2/64"]),
    ] {
        let peer = Netns::new();
        host.wire(name, &peer, "far");
        for address in addresses {
            host.address(name, address);
        }
        peers.push(peer);
    }
    crate::support::snapshot::settle(&host);
    (host, peers)
}

/// A socket that listens in a namespace.
pub fn tcp(ns: &Netns, address: &str) -> TcpListener {
    let address: std::net::SocketAddr = address.parse().unwrap();
    ns.run(|| TcpListener::bind(address)).unwrap_or_else(|error| panic!("{address}: {error}"))
}

/// The same with options that are set before the bind.
pub fn tcp_with(ns: &Netns, address: &str, options: impl FnOnce(&Socket) + Send) -> Socket {
    let address: std::net::SocketAddr = address.parse().unwrap();
    ns.run(|| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).unwrap();
        options(&socket);
        socket.bind(&address.into()).unwrap_or_else(|error| panic!("{address}: {error}"));
        socket.listen(16).unwrap();
        socket
    })
}

/// A UDP socket in a namespace.
pub fn udp(ns: &Netns, address: &str) -> UdpSocket {
    let address: std::net::SocketAddr = address.parse().unwrap();
    ns.run(|| UdpSocket::bind(address)).unwrap()
}

/// What programs here find in `/etc/hosts`.
pub const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n";

/// A shell command in a namespace, in which `/etc/hosts` has this text and names are looked up nowhere else. The files of
/// this machine stay as they are: the command has its own mount namespace.
pub fn shell(directory: &Path, hosts: &str, script: &str) -> Command {
    shell_with(directory, hosts, SOURCES, script)
}

/// Where names are looked up.
pub const SOURCES: &str = "hosts: files\n";

/// The same with a text of `/etc/nsswitch.conf`.
pub fn shell_with(directory: &Path, hosts: &str, sources: &str, script: &str) -> Command {
    std::fs::write(directory.join(".hosts"), hosts).unwrap();
    std::fs::write(directory.join(".nsswitch"), sources).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_bindscope"));
    let search =
        format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c"]).arg(
        "mount --bind .hosts /etc/hosts && mount --bind .nsswitch /etc/nsswitch.conf && exec sh -c \"$0\"",
    );
    command.arg(script).current_dir(directory).env("PATH", &search).env("HOME", directory);
    command.env("COLUMNS", "80").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["NO_COLOR", "CLICOLOR_FORCE", "CLICOLOR"] {
        command.env_remove(name);
    }
    command
}
