//! The name of an interface is that at the time of an arrival, whatever happens to the interface before it is accepted.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::connect;
use crate::streams::pid;
use crate::support::netns::{Netns, two_hosts};
use crate::support::program::{bindscope, wait};

const PORTS: u16 = 20;

/// `listen` that writes to a file, which takes every line at once.
struct Run(Child, tempfile::TempDir);

fn listen(host: &Netns, threads: &str) -> Run {
    let (directory, path) = crate::profile(&format!(
        "[[listener]]\nname = 'a'\nbind = '0.0.0.0'\nport = '9000-{}'\nreply = 'none'\n\
         [[listener]]\nname = 'u'\nprotocol = 'udp'\nbind = '0.0.0.0'\nport = 9000\n",
        8999 + PORTS
    ));
    let log = directory.path().join("log");
    let arguments =
        ["listen", "--format", "ndjson", "--threads", threads, "-o", log.to_str().unwrap(), path.as_str()];
    let child = host.run(|| bindscope(&arguments).stderr(Stdio::null()).spawn()).unwrap();
    let begun = Instant::now();
    while !std::fs::read_to_string(&log).unwrap_or_default().contains("\"listening\"") {
        assert!(begun.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(5));
    }
    Run(child, directory)
}

fn arrivals(mut run: Run) -> Vec<Value> {
    kill(pid(&run.0), Signal::SIGTERM).unwrap();
    assert_eq!(wait(&mut run.0).code(), Some(0));
    let text = std::fs::read_to_string(run.1.path().join("log")).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["event"] == "accepted" || event["event"] == "datagram").collect()
}

/// While the program is stopped: arrivals before and after a rename, a swap, a deletion, and another interface with the same index.
pub fn what_waited_has_the_name_of_its_time() {
    let to: SocketAddr = ([192, 0, 2, 1], 9000).into();
    let (mut sure, mut asked) = (0, 0);
    let mut case = |threads: &str, changes: &[&str], now: &str, again: bool| {
        let (host, there) = two_hosts();
        let index = host.index("eth0");
        host.ip("link add other type veth peer name unused");
        let listening = listen(&host, threads);
        // So that it waits and is not busy, and the kernel has told all of the new wires.
        std::thread::sleep(Duration::from_millis(1500));
        kill(pid(&listening.0), Signal::SIGSTOP).unwrap();
        let first = there.run(|| connect(to));
        let datagram = there.run(|| UdpSocket::bind("192.0.2.2:0")).unwrap();
        datagram.send_to(b"x", to).unwrap();
        std::thread::sleep(Duration::from_millis(60));
        for change in changes {
            host.ip(&change.replace("INDEX", &index.to_string()));
        }
        std::thread::sleep(Duration::from_millis(60));
        let second = again.then(|| there.run(|| connect(([192, 0, 2, 1], 9001).into())));
        kill(pid(&listening.0), Signal::SIGCONT).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let port = first.local_addr().unwrap().port();
        let told = arrivals(listening);
        let of = |port: u16| told.iter().find(|event| event["peer"]["port"] == port).unwrap();
        let second = second.map(|second| (second.local_addr().unwrap().port(), now));
        let datagram = (datagram.local_addr().unwrap().port(), "eth0");
        for (port, name) in [Some((port, "eth0")), Some(datagram), second].into_iter().flatten() {
            let ingress = &of(port)["ingress"];
            // Which of several threads was woken first says nothing of the order; then the time may not suffice.
            // Nor is it known after which of several changes the second one came, nor whether the signal that stops the
            // program found it at work.
            let one = changes.len() == 1 || name == "eth0";
            let known = ingress["evidence"] != "unknown";
            if known {
                let is = (&ingress["name"], &ingress["evidence"]);
                assert_eq!(is, (&name.into(), &"kernel".into()), "{changes:?} {}", of(port));
            }
            if threads == "1" && one {
                asked += 1;
                sure += u32::from(known);
            }
            assert_eq!(ingress["index"], index);
        }
    };
    for threads in ["1", "2"] {
        case(threads, &["link set eth0 name lan"], "lan", true);
        let swap = ["link set eth0 name tmp", "link set other name eth0", "link set tmp name other"];
        case(threads, &swap, "other", true);
        case(threads, &["link del eth0"], "", false);
        let reused = ["link del eth0", "link add impostor index INDEX type veth peer name x1"];
        case(threads, &reused, "", false);
    }
    assert!(2 * sure > asked, "{sure} of {asked} names were known");
}

/// Renames and swaps under load: an arrival after a rename is never told by another name as if the kernel had said so.
pub fn a_rename_under_load_is_known() {
    let long = std::env::var("BINDSCOPE_LONG").is_ok_and(|value| value == "1");
    let (mut sure, mut all) = (0, 0);
    for threads in ["1", "2", "4"] {
        let (host, there) = two_hosts();
        host.wire("eth1", &there, "far1");
        host.address("eth1", "198.51.100.1/24");
        there.address("far1", "198.51.100.2/24");
        let (first, second) = (host.index("eth0"), host.index("eth1"));
        let listening = listen(&host, threads);
        let (over, truth) = (AtomicBool::new(false), std::sync::Mutex::new(HashMap::new()));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    there.run(|| {
                        while !over.load(Ordering::Relaxed) {
                            for port in 0..PORTS {
                                let to = SocketAddr::from(([192, 0, 2, 1], 9000 + port));
                                if let Ok(stream) = TcpStream::connect_timeout(&to, Duration::from_secs(5)) {
                                    let _ = socket2::Socket::from(stream).set_linger(Some(Duration::ZERO));
                                }
                            }
                        }
                    });
                });
            }
            let mut names = ["eth0".to_owned(), "eth1".to_owned()];
            for round in 0..if long { 3400u16 } else { 60 } {
                if round % 3 == 0 {
                    // The names are exchanged.
                    host.ip(&format!("link set {} name tmp", names[0]));
                    host.ip(&format!("link set {} name {}", names[1], names[0]));
                    host.ip(&format!("link set tmp name {}", names[1]));
                    names.swap(0, 1);
                } else {
                    let new = format!("n{}", round % 7);
                    host.ip(&format!("link set {} name {new}", names[0]));
                    names[0] = new;
                }
                for (name, network, index) in
                    [(&names[0], [192, 0, 2], first), (&names[1], [198, 51, 100], second)]
                {
                    let to =
                        SocketAddr::from(([network[0], network[1], network[2], 1], 9000 + round % PORTS));
                    let stream = there.run(|| connect(to));
                    let port = stream.local_addr().unwrap().port();
                    truth.lock().unwrap().insert((to, port), (name.clone(), index));
                    // It was accepted before the next change.
                    let _ = std::io::copy(&mut &stream, &mut std::io::sink());
                }
            }
            over.store(true, Ordering::Relaxed);
        });
        let truth = truth.into_inner().unwrap();
        let mut told: HashMap<_, Vec<Value>> = HashMap::new();
        for event in arrivals(listening) {
            let address = event["local"]["address"].as_str().unwrap();
            let to: SocketAddr = format!("{address}:{}", event["local"]["port"]).parse().unwrap();
            let peer = u16::try_from(event["peer"]["port"].as_u64().unwrap()).unwrap();
            told.entry((to, peer)).or_default().push(event);
        }
        let mut seen = 0;
        for (key, (name, index)) in &truth {
            let Some(events) = told.get(key) else { continue };
            seen += 1;
            // Clients of the load may have had the same port before.
            let is = |event: &&Value| {
                event["ingress"]["index"] == *index && event["ingress"]["name"] == name.as_str()
            };
            let known = |event: &&Value| event["ingress"]["evidence"] == "kernel";
            if events.iter().filter(is).any(|event| known(&event)) {
                sure += 1;
            } else {
                assert!(!events.iter().all(|event| known(&event)), "{name}: {events:?}");
            }
        }
        assert!(seen >= truth.len() * 9 / 10, "{seen} of {}", truth.len());
        all += seen;
    }
    eprintln!("{sure} of {all} arrivals after a rename have a name that is sure");
}
