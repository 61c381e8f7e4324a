//! An arrival is reported by the name that its interface had when it arrived, whatever happens to the interface before the
//! connection is accepted.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;
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

/// Stops the program while it waits for events and does nothing else. A program that is stopped at work may have seen only one of
/// two events.
fn stop_while_waiting(run: &Run) {
    /// `epoll_wait`, `epoll_pwait` and `epoll_pwait2`, as proc_pid_syscall(5) shows them.
    const WAITS: &[i64] = &[libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, EPOLL_WAIT];
    #[cfg(target_arch = "x86_64")]
    const EPOLL_WAIT: i64 = libc::SYS_epoll_wait;
    #[cfg(not(target_arch = "x86_64"))]
    const EPOLL_WAIT: i64 = libc::SYS_epoll_pwait;
    let waits = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(path.join("syscall")).unwrap();
        let number = text.split(' ').next().and_then(|word| word.parse().ok());
        number.is_some_and(|number: i64| WAITS.contains(&number))
    };
    let begun = Instant::now();
    loop {
        kill(pid(&run.0), Signal::SIGSTOP).unwrap();
        let tasks = || std::fs::read_dir(format!("/proc/{}/task", run.0.id())).unwrap();
        let stopped = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap().contains(") T ")
        };
        while !tasks().all(stopped) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if tasks().all(|task| waits(task.unwrap().path())) {
            return;
        }
        kill(pid(&run.0), Signal::SIGCONT).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(30), "the program never only waits");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// While the program is stopped: arrivals before and after a rename, a swap, a deletion, and another interface with the same index.
///
/// With one thread, the poller lists events in their order. So each arrival before the changes has a known name, and each arrival
/// after one single change. An arrival after several changes may be unknown: the poller lists the notifications once, with the
/// first one. With several threads every arrival may be unknown: each thread has its own list, and the thread that accepts need
/// not be the one whose list has the arrival first. No name is ever wrong.
pub fn what_waited_has_the_name_of_its_time() {
    let to: SocketAddr = ([192, 0, 2, 1], 9000).into();
    let case = |threads: &str, changes: &[&str], now: &str, again: bool| {
        let (host, there) = two_hosts();
        let index = host.index("eth0");
        host.ip("link add other type veth peer name unused");
        let listening = listen(&host, threads);
        // The kernel has reported all of the new interfaces by then.
        std::thread::sleep(Duration::from_millis(1500));
        stop_while_waiting(&listening);
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
        let reported = arrivals(listening);
        let of = |port: u16| reported.iter().find(|event| event["peer"]["port"] == port).unwrap();
        let second = second.map(|second| (second.local_addr().unwrap().port(), now));
        let datagram = (datagram.local_addr().unwrap().port(), "eth0");
        for (port, name) in [Some((port, "eth0")), Some(datagram), second].into_iter().flatten() {
            let event = of(port);
            let ingress = &event["ingress"];
            assert_eq!(ingress["index"], index, "{changes:?} {event}");
            let must_be_known = threads == "1" && (name == "eth0" || changes.len() == 1);
            if must_be_known || ingress["evidence"] != "unknown" {
                let is = (&ingress["name"], &ingress["evidence"]);
                assert_eq!(is, (&name.into(), &"kernel".into()), "{threads} {changes:?} {event}");
            }
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
}

/// What follows the log of a run.
struct Follower(std::fs::File, Vec<u8>);

impl Follower {
    fn of(run: &Run) -> Follower {
        Follower(std::fs::File::open(run.1.path().join("log")).unwrap(), Vec::new())
    }

    /// Passes over what is in the log already.
    fn skip(&mut self) {
        self.0.read_to_end(&mut self.1).unwrap();
        let line = self.1.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.1.drain(..line);
    }

    /// Waits until the log reports that interfaces got these names.
    fn await_names(&mut self, names: &[&str]) {
        let (begun, mut missing) = (Instant::now(), names.iter().copied().collect::<HashSet<_>>());
        while !missing.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{missing:?}");
            self.0.read_to_end(&mut self.1).unwrap();
            let whole = self.1.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            for line in self.1[..whole].split(|byte| *byte == b'\n') {
                if line.windows(19).any(|part| part == b"\"interface_renamed\"") {
                    let event: Value = serde_json::from_slice(line).unwrap();
                    missing.remove(event["interface"].as_str().unwrap());
                }
            }
            self.1.drain(..whole);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// How a client knows that the name it expects is the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// The rename has returned. The program need not have noticed it, and the kernel keeps no order between a connection and a
    /// notification: the name may be unknown, and is not wrong.
    Rename,
    /// The program has reported the rename. With one thread the name is known; with several, a thread that was not scheduled
    /// since then has not noticed the rename.
    Report,
}

/// Renames and swaps under load: an arrival after a rename is never reported by another name with evidence `kernel`. With
/// `BINDSCOPE_LONG=1` there are more than 10,000 arrivals right after a rename, and as many after the report of one.
pub fn a_rename_under_load_is_known() {
    let long = std::env::var("BINDSCOPE_LONG").is_ok_and(|value| value == "1");
    let (rounds, each) = if long { (220u16, 8) } else { (15, 1) };
    for threads in ["1", "2", "4"] {
        let (host, there) = two_hosts();
        host.wire("eth1", &there, "far1");
        host.address("eth1", "198.51.100.1/24");
        there.address("far1", "198.51.100.2/24");
        let (first, second) = (host.index("eth0"), host.index("eth1"));
        let listening = listen(&host, threads);
        let mut log = Follower::of(&listening);
        let over = AtomicBool::new(false);
        let truth = std::thread::scope(|scope| {
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
            let mut truth = HashMap::new();
            let mut names = ["eth0".to_owned(), "eth1".to_owned()];
            for round in 0..rounds {
                log.skip();
                let renamed = if round % 3 == 0 {
                    // The names are exchanged.
                    host.ip(&format!("link set {} name tmp", names[0]));
                    host.ip(&format!("link set {} name {}", names[1], names[0]));
                    host.ip(&format!("link set tmp name {}", names[1]));
                    names.swap(0, 1);
                    names.iter().map(String::as_str).collect::<Vec<_>>()
                } else {
                    let new = format!("n{round}");
                    host.ip(&format!("link set {} name {new}", names[0]));
                    names[0] = new;
                    vec![&*names[0]]
                };
                for after in [After::Rename, After::Report] {
                    if after == After::Report {
                        log.await_names(&renamed);
                    }
                    let places = [(&names[0], [192, 0, 2], first), (&names[1], [198, 51, 100], second)];
                    for (name, network, index) in places.into_iter().cycle().take(2 * each) {
                        let [a, b, c] = network;
                        let to = SocketAddr::from(([a, b, c, 1], 9000 + round % PORTS));
                        let stream = there.run(|| connect(to));
                        let port = stream.local_addr().unwrap().port();
                        truth.insert((to, port), (name.clone(), index, after));
                        // It was accepted before the next change.
                        let _ = std::io::copy(&mut &stream, &mut std::io::sink());
                    }
                }
            }
            over.store(true, Ordering::Relaxed);
            truth
        });
        let mut reported: HashMap<_, Vec<Value>> = HashMap::new();
        for event in arrivals(listening) {
            let address = event["local"]["address"].as_str().unwrap();
            let to: SocketAddr = format!("{address}:{}", event["local"]["port"]).parse().unwrap();
            let peer = u16::try_from(event["peer"]["port"].as_u64().unwrap()).unwrap();
            reported.entry((to, peer)).or_default().push(event);
        }
        // Known and all, by when they came.
        let mut counts = HashMap::from([(true, (0, 0)), (false, (0, 0))]);
        for (key, (name, index, after)) in &truth {
            let events = reported.get(key).unwrap_or_else(|| panic!("{key:?} is not reported"));
            // Clients of the load may have had the same port before.
            let is = |event: &&Value| {
                event["ingress"]["index"] == *index && event["ingress"]["name"] == name.as_str()
            };
            let known = |event: &&Value| event["ingress"]["evidence"] == "kernel";
            let (sure, all) = counts.get_mut(&(*after == After::Report)).unwrap();
            *all += 1;
            if events.iter().filter(is).any(|event| known(&event)) {
                *sure += 1;
            } else {
                assert!(!events.iter().all(|event| known(&event)), "{after:?} {name}: {events:?}");
            }
        }
        for (after_report, (sure, all)) in counts {
            let after = if after_report { "the report of a rename" } else { "a rename" };
            eprintln!(
                "{threads} threads: {sure} of {all} arrivals after {after} have a known name, none a wrong one"
            );
            if after_report {
                let least = if threads == "1" { all } else { all * 9 / 10 };
                assert!(sure >= least, "{threads} threads: {sure} of {all}");
            }
        }
    }
}
