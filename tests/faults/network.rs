//! Rows 8 and 36 to 43: the network changes under a program that listens, or cannot be read.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::netns::Netns;
use crate::support::program::{Listening, PATIENCE, bindscope, finish, text};
use crate::support::tool;
use crate::{behind, connect, profile};

const NDJSON: [&str; 3] = ["listen", "--format", "ndjson"];

/// A host with a wire to a peer, and `listen` with these listeners on it.
fn wired(listeners: &str) -> (Netns, Netns, Listening) {
    let (host, peer) = (Netns::new(), Netns::new());
    host.wire("eth0", &peer, "far");
    host.address("eth0", "192.0.2.1/24");
    peer.address("far", "192.0.2.2/24");
    let (_directory, path) = profile(listeners);
    let listening = host.run(|| Listening::start(&mut bindscope(&[&NDJSON[..], &[&path]].concat())));
    (host, peer, listening)
}

/// The next event of this kind, or change of the network.
fn until(listening: &mut Listening, mut wanted: impl FnMut(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let event = listening.next();
        if wanted(&event) {
            return event;
        }
        assert!(begun.elapsed() < PATIENCE, "{event}");
    }
}

fn reach(from: &Netns, port: u16) -> std::io::Result<TcpStream> {
    let to = SocketAddr::from(([192, 0, 2, 1], port));
    from.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(10)))
}

/// Rows 37 and 39: an interface goes, and another one gets its number. What was bound to the first one is lost; arrivals of the
/// second one carry the second one's name.
pub fn a_number_that_is_used_again_names_the_new_interface() {
    let (host, peer, mut listening) = wired(
        "[[listener]]\nname = 'all'\nbind = '0.0.0.0'\nport = 8081\nreply = 'none'\n\
         [[listener]]\nname = 'device'\nbind = '0.0.0.0'\ndevice = 'eth0'\nport = 8082\nreply = 'none'\n",
    );
    let index = host.index("eth0");
    drop(reach(&peer, 8081).unwrap());
    let first = until(&mut listening, |event| event["event"] == "accepted");
    assert_eq!(first["ingress"], json!({ "index": index, "name": "eth0", "evidence": "kernel" }));
    host.ip("link del eth0");
    let removed = until(&mut listening, |event| event["change"] == "interface_removed");
    assert_eq!(removed["lost"][0]["listener"], "device", "{removed}");
    // The same number, another name.
    let index_text = index.to_string();
    host.ip_args(&[
        "link",
        "add",
        "lan",
        "index",
        &index_text,
        "type",
        "veth",
        "peer",
        "name",
        "far",
        "netns",
        &peer.path(),
    ]);
    host.ip("link set lan up");
    peer.ip("link set far up");
    host.address("lan", "192.0.2.1/24");
    peer.address("far", "192.0.2.2/24");
    assert_eq!(host.index("lan"), index);
    // While the network changes it is read a fifth of the time at the most.
    until(&mut listening, |event| event["change"] == "address_added" && event["address"] == "192.0.2.1");
    drop(reach(&peer, 8081).unwrap());
    let second = until(&mut listening, |event| event["event"] == "accepted");
    assert_eq!(second["ingress"], json!({ "index": index, "name": "lan", "evidence": "kernel" }));
    assert_eq!(second["address_owner"], "lan");
    assert_eq!(listening.end().1.code(), Some(0));
}

/// Row 38: an interface that is moved to another namespace was removed from this one; its address with it.
pub fn an_interface_that_moves_away_is_gone() {
    let (host, peer, mut listening) =
        wired("[[listener]]\nname = 'one'\nbind = '192.0.2.1'\nport = 8081\nreply = 'none'\n");
    let elsewhere = Netns::new();
    host.ip_args(&["link", "set", "eth0", "netns", &elsewhere.path()]);
    let (mut interface, mut address) = (false, false);
    until(&mut listening, |event| {
        interface |= event["change"] == "interface_removed" && event["interface"] == "eth0";
        address |= event["change"] == "address_removed" && event["lost"][0]["listener"] == "one";
        interface && address
    });
    drop(peer);
    assert_eq!(listening.end().1.code(), Some(0));
}

/// Row 36: the address is removed; no client reaches the socket, which stays open, and the program goes on.
pub fn a_socket_without_its_address_stays_open_and_is_told() {
    let (host, peer, mut listening) =
        wired("[[listener]]\nname = 'one'\nbind = '192.0.2.1'\nport = 8081\nreply = 'none'\n");
    host.ip("address del 192.0.2.1/24 dev eth0");
    let removed = until(&mut listening, |event| event["change"] == "address_removed");
    assert_eq!(removed["lost"][0]["listener"], "one", "{removed}");
    assert!(
        peer.run(|| TcpStream::connect_timeout(
            &SocketAddr::from(([192, 0, 2, 1], 8081)),
            Duration::from_millis(200)
        ))
        .is_err()
    );
    let listens = host.output(Command::new("ss").args(["-Hltn", "sport = :8081"]));
    assert!(String::from_utf8_lossy(&listens.stdout).contains("192.0.2.1:8081"));
    assert_eq!(listening.end().1.code(), Some(0));
}

/// Rows 40 and 41: a label is no interface, and a name may hold anything: neither fools the attribution or a terminal.
pub fn labels_and_hostile_names_attribute_nothing_wrong() {
    let (host, peer) = (Netns::new(), Netns::new());
    let name = std::ffi::OsStr::new("\u{1b}[31mX\u{85}");
    host.wire("eth0", &peer, "far");
    host.ip("link set eth0 down");
    host.ip_args(&[std::ffi::OsStr::new("link"), "set".as_ref(), "eth0".as_ref(), "name".as_ref(), name]);
    host.ip_args(&["link".as_ref(), "set".as_ref(), name, "up".as_ref()]);
    host.ip_args(&[
        "address".as_ref(),
        "add".as_ref(),
        "192.0.2.1/24".as_ref(),
        "dev".as_ref(),
        name,
        "label".as_ref(),
        "lo".as_ref(),
    ]);
    peer.address("far", "192.0.2.2/24");
    let listeners = "[[listener]]\nname = 'all'\nbind = '0.0.0.0'\nport = 8081\nreply = 'none'\n\
         [[listener]]\nname = 'device'\nbind = '0.0.0.0'\ndevice = '\\x1b[31mX\\u{85}'\nport = 8082\nreply = 'none'\n\
         [[listener]]\nname = 'selected'\nbind = { interface = '\\x1b*' }\nport = 8083\nreply = 'none'\n";
    let (_directory, path) = profile(listeners);
    let mut listening = host.run(|| Listening::start(&mut bindscope(&[&NDJSON[..], &[&path]].concat())));
    for port in [8081, 8082, 8083] {
        drop(reach(&peer, port).unwrap());
        let accepted = until(&mut listening, |event| event["event"] == "accepted");
        assert_eq!(accepted["ingress"]["name"].as_str(), name.to_str(), "{accepted}");
        assert_eq!(accepted["address_owner"].as_str(), name.to_str(), "the label says lo: {accepted}");
    }
    assert_eq!(listening.end().1.code(), Some(0));
    // To a person, and by both streams: no byte that steers a terminal.
    let mut command = bindscope(&["listen", "--count", "1", "--for", "20s", &path]);
    let child = host.run(|| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()).unwrap();
    let begun = Instant::now();
    while reach(&peer, 8081).is_err() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    let (stdout, stderr) = text(&finish(child));
    assert!(stdout.contains("\\x1b[31mX\\u{85}"), "{stdout}");
    assert!((stdout + &stderr).chars().all(|c| c == '\n' || !c.is_control()));
}

/// Adds and removes addresses as fast as `ip` can, `times` times two.
fn churn(ns: &Netns, times: usize) {
    let mut batch = String::new();
    for number in 0..times {
        let (third, fourth) = (number / 250 % 250, number % 250 + 1);
        for verb in ["add", "del"] {
            batch.push_str(&format!("address {verb} 10.1.{third}.{fourth}/32 dev eth0\n"));
        }
    }
    ns.run(|| {
        let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        ip.stdin.take().unwrap().write_all(batch.as_bytes()).unwrap();
        assert!(ip.wait().unwrap().success());
    });
}

/// Row 42: more changes than the monitor's queue holds. The kernel drops some (ENOBUFS); since every look is at the whole state,
/// nothing is missed in the end, so this is no error. Clients are served meanwhile.
pub fn a_storm_of_changes_loses_no_client_and_no_final_state() {
    const CLIENTS: u64 = 200;
    let (host, _peer, mut listening) =
        wired("[[listener]]\nname = 'all'\nbind = '127.0.0.1'\nport = 8081\nreply = 'none'\n");
    std::thread::scope(|scope| {
        scope.spawn(|| churn(&host, 5000));
        for _ in 0..CLIENTS {
            drop(host.run(|| connect(([127, 0, 0, 1], 8081).into())));
        }
    });
    host.ip("address add 198.51.100.7/24 dev eth0");
    let mut accepted = 0;
    until(&mut listening, |event| {
        accepted += u64::from(event["event"] == "accepted");
        event["change"] == "address_added" && event["address"] == "198.51.100.7"
    });
    let (events, status, stderr) = listening.end();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    assert_eq!(events.last().unwrap()["accepted"], CLIENTS);
    assert!(accepted <= CLIENTS);
}

/// Row 43: the list changes while it is read. Either it was read whole in one of ten tries, or the document says that it is not
/// complete, and so does the exit code. What was there all the time is in it.
pub fn lists_that_change_while_they_are_read_are_whole_or_say_so() {
    let (host, peer) = (Netns::new(), Netns::new());
    host.wire("eth0", &peer, "far");
    // So many that a dump takes several replies, between which it can change.
    let mut batch = String::new();
    for number in 0..4000 {
        batch.push_str(&format!("address add 10.9.{}.{}/32 dev eth0\n", number / 250, number % 250 + 1));
    }
    host.run(|| {
        let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        ip.stdin.take().unwrap().write_all(batch.as_bytes()).unwrap();
        assert!(ip.wait().unwrap().success());
    });
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                churn(&host, 200);
            }
        });
        for _ in 0..10 {
            let mut command = bindscope(&["interfaces", "--format", "json"]);
            let child = host.run(|| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()).unwrap();
            let output = finish(child);
            let document: Value = serde_json::from_slice(&output.stdout).unwrap();
            let complete = document["complete"] == true;
            assert_eq!(output.status.code(), Some(if complete { 0 } else { 3 }), "{:?}", text(&output).1);
            assert_eq!(document["incomplete_because"] == json!([]), complete);
            let interfaces = document["interfaces"].as_array().unwrap();
            assert!(interfaces.iter().any(|interface| interface["name"] == "lo"));
            if complete {
                let wire = interfaces.iter().find(|interface| interface["name"] == "eth0").unwrap();
                let stable = wire["addresses"].as_array().unwrap().iter();
                let stable =
                    stable.filter(|address| address["address"].as_str().unwrap().starts_with("10.9."));
                assert_eq!(stable.count(), 4000);
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// Row 8, with what this program keeps instead of a spare descriptor: nothing is shed. While clients hold all descriptors, a
/// change of the network cannot be read; that is said once, at no cost in CPU time, and made up for when they leave.
pub fn a_change_without_a_descriptor_to_read_it_is_made_up_for() {
    let (host, peer) = (Netns::new(), Netns::new());
    host.wire("eth0", &peer, "far");
    let (_directory, path) = profile(
        "[[listener]]\nname = 'held'\nbind = '127.0.0.1'\nport = 8081\nreply = 'echo'\nidle_timeout = '5m'\nmax_connections = 1000\n",
    );
    let mut command = behind(&["prlimit", "--nofile=32:32"], &[&NDJSON[..], &[&path]].concat());
    let mut listening = host.run(|| Listening::start(&mut command));
    let clients: Vec<TcpStream> =
        (0..60).map(|_| host.run(|| connect(([127, 0, 0, 1], 8081).into()))).collect();
    until(&mut listening, |event| event["event"] == "accepted");
    std::thread::sleep(Duration::from_millis(300));
    host.ip("address add 192.0.2.1/24 dev eth0");
    std::thread::sleep(Duration::from_millis(700));
    let before = crate::accept::ticks(listening.pid());
    std::thread::sleep(Duration::from_secs(1));
    assert!(crate::accept::ticks(listening.pid()) - before <= 10, "a tenth of a core");
    drop(clients);
    let mut accepted = 1;
    until(&mut listening, |event| {
        accepted += usize::from(event["event"] == "accepted");
        event["change"] == "address_added" && event["address"] == "192.0.2.1"
    });
    while accepted < 60 {
        accepted += usize::from(listening.next()["event"] == "accepted");
    }
    let (events, status, stderr) = listening.end();
    let summary = events.last().unwrap();
    assert_eq!((status.code(), &summary["accepted"]), (Some(0), &60.into()), "{stderr}");
    assert_eq!(stderr.matches("the network cannot be read").count(), 1, "{stderr}");
    let told = summary["errors"]
        .as_object()
        .unwrap()
        .keys()
        .any(|kind| kind.starts_with("the network cannot be read"));
    assert!(told, "{summary}");
    let _ = tool("prlimit");
}
