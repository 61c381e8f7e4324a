//! Nothing counted is lost: connections in bursts from several sources, against the clients' own count.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::netns::Netns;
use crate::support::program::{bindscope, wait};

const SOURCES: u32 = 4;
const PER_SOURCE: u32 = 25_000;

/// 100,000 connections: the clients' count, the lines and the summary are equal, by interface.
pub fn a_hundred_thousand_connections_are_all_counted() {
    let (host, first, second) = (Netns::new(), Netns::new(), Netns::new());
    for (peer, wire, net) in [(&first, "eth0", "192.0.2"), (&second, "eth1", "198.51.100")] {
        host.wire(wire, peer, "far");
        host.address(wire, &format!("{net}.1/24"));
        peer.address("far", &format!("{net}.2/24"));
        peer.sysctl("net.ipv4.ip_local_port_range", "1024 65535");
    }
    host.sysctl("net.ipv4.ip_local_port_range", "1024 65535");
    let directory = tempfile::tempdir().unwrap();
    let (profile, log) = (directory.path().join("burst.toml"), directory.path().join("burst.ndjson"));
    std::fs::write(
        &profile,
        "schema = 1\nname = 'burst'\n[[listener]]\nname = 'all'\nbind = '::'\nv6only = false\nport = 900\nreply = 'none'\n",
    )
    .unwrap();
    let mut command = bindscope(&["listen", "--format", "ndjson", "-o"]);
    command.args([&log, &profile]).stderr(std::process::Stdio::piped());
    let mut child = host.run(|| command.spawn()).unwrap();
    let told = || std::fs::read_to_string(&log).unwrap_or_default();
    while !told().contains("\"event\":\"listening\"") {
        std::thread::sleep(Duration::from_millis(5));
        assert!(child.try_wait().unwrap().is_none(), "it ended before it listened");
    }
    let sources =
        [(&host, "127.0.0.1"), (&host, "192.0.2.1"), (&first, "192.0.2.1"), (&second, "198.51.100.1")];
    let connected: Vec<u32> = std::thread::scope(|scope| {
        let clients = sources
            .map(|(ns, to)| scope.spawn(move || ns.run(|| burst(SocketAddr::new(to.parse().unwrap(), 900)))));
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(connected, [PER_SOURCE; SOURCES as usize]);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    let status = wait(&mut child);
    let mut stderr = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut stderr).unwrap();
    assert!(status.success(), "{status} {stderr}");
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    let mut summary = None;
    for line in told().lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        match event["event"].as_str() {
            Some("accepted") => {
                *lines.entry(event["ingress"]["name"].as_str().unwrap().to_owned()).or_default() += 1
            }
            Some("summary") => summary = Some(event),
            Some("started" | "bound" | "notice" | "listening" | "network" | "queue") => {}
            _ => panic!("{line}"),
        }
    }
    let summary = summary.unwrap();
    let total = u64::from(SOURCES * PER_SOURCE);
    assert_eq!(lines.values().sum::<u64>(), total);
    let each = u64::from(PER_SOURCE);
    // This machine's own 192.0.2.1 is told as eth0, beside the peer's.
    let by_ingress =
        BTreeMap::from([("lo".to_owned(), each), ("eth0".to_owned(), 2 * each), ("eth1".to_owned(), each)]);
    assert_eq!(lines, by_ingress);
    assert_eq!(summary["accepted"], total);
    assert_eq!(summary["dropped"], 0);
    let told: BTreeMap<String, u64> =
        serde_json::from_value(summary["by_listener"][0]["by_ingress"].clone()).unwrap();
    assert_eq!(told, by_ingress);
}

/// Connects in bursts of a few hundred; closing with a reset leaves no port in TIME_WAIT.
fn burst(to: SocketAddr) -> u32 {
    let mut connected = 0;
    while connected < PER_SOURCE {
        let burst: Vec<TcpStream> = (0..250.min(PER_SOURCE - connected))
            .map(|_| TcpStream::connect_timeout(&to, Duration::from_secs(20)).unwrap())
            .collect();
        connected += u32::try_from(burst.len()).unwrap();
        for stream in burst {
            let socket = socket2::Socket::from(stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
    connected
}
