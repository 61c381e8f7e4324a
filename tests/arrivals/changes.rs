//! The network changes while `listen` runs.

use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::netns::Netns;
use crate::support::program::{Listening, bindscope};

/// The next event about the network that has this change.
fn change(listening: &mut Listening, wanted: &str) -> Value {
    loop {
        let event = listening.next();
        assert_eq!(event["event"], "network", "{event}");
        // A link-local address may be told late; it is not what is waited for.
        let link_local = event["address"].as_str().is_some_and(|address| address.starts_with("fe80"));
        if event["change"] == wanted && !link_local {
            return event;
        }
    }
}

/// The next event of a kind.
fn next(listening: &mut Listening, kind: &str) -> Value {
    loop {
        let event = listening.next();
        if event["event"] == kind {
            return event;
        }
    }
}

fn names(sockets: &Value) -> Vec<&str> {
    sockets.as_array().unwrap().iter().map(|socket| socket["listener"].as_str().unwrap()).collect()
}

/// An address goes and comes back, an interface gets another name, and is removed: each is told with the listeners that it
/// concerns, and arrivals carry the name that holds.
pub fn are_told_with_the_listeners_they_concern() {
    ["1", "2"].into_iter().for_each(are_told);
}

fn are_told(threads: &str) {
    let (host, peer) = (Netns::new(), Netns::new());
    host.wire("eth0", &peer, "far");
    host.address("eth0", "192.0.2.1/24");
    host.address("eth0", "2001:db8::1/64");
    peer.address("far", "192.0.2.2/24");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profile.toml");
    let profile = "schema = 1\nname = 'changes'\n\
         [[listener]]\nname = 'all'\nbind = '0.0.0.0'\nport = 8081\nreply = 'none'\n\
         [[listener]]\nname = 'one'\nbind = '192.0.2.1'\nport = 8082\nreply = 'none'\n\
         [[listener]]\nname = 'device'\nbind = '0.0.0.0'\ndevice = 'eth0'\nport = 8083\nreply = 'none'\n";
    std::fs::write(&path, profile).unwrap();
    let mut command =
        bindscope(&["listen", "--threads", threads, "--format", "ndjson", path.to_str().unwrap()]);
    let mut listening = host.run(|| Listening::start(&mut command));
    let connect = |port: u16| {
        let to = std::net::SocketAddr::from(([192, 0, 2, 1], port));
        peer.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(10))).map(drop)
    };

    host.ip("address del 192.0.2.1/24 dev eth0");
    let removed = change(&mut listening, "address_removed");
    assert_eq!(
        (&removed["address"], &removed["interface"]),
        (&"192.0.2.1".into(), &"eth0".into()),
        "{removed}"
    );
    assert_eq!((names(&removed["lost"]), names(&removed["found"])), (vec!["one"], vec![]), "{removed}");

    host.ip("address add 192.0.2.1/24 dev eth0");
    let added = change(&mut listening, "address_added");
    assert_eq!((names(&added["lost"]), names(&added["found"])), (vec![], vec!["one"]), "{added}");
    connect(8082).unwrap();
    assert_eq!(listening.next_arrival()["listener"], "one");

    host.ip("link set eth0 down");
    change(&mut listening, "interface_down");
    host.ip("link set eth0 name lan");
    let renamed = change(&mut listening, "interface_renamed");
    assert_eq!((&renamed["before"], &renamed["interface"]), (&"eth0".into(), &"lan".into()), "{renamed}");
    host.ip("link set lan up");
    change(&mut listening, "interface_up");
    connect(8081).unwrap();
    let arrival = loop {
        let event = listening.next();
        if event["event"] != "network" {
            break event;
        }
    };
    assert_eq!(
        (&arrival["event"], &arrival["ingress"]["name"]),
        (&"accepted".into(), &"lan".into()),
        "{arrival}"
    );

    host.ip("link del lan");
    let removed = change(&mut listening, "interface_removed");
    assert_eq!(names(&removed["lost"]), ["device"], "it is bound to the same one by its new name: {removed}");
    assert_eq!(removed["lost"][0]["device"], "lan", "{removed}");
    let gone = loop {
        let event = change(&mut listening, "address_removed");
        if event["address"] == "192.0.2.1" {
            break event;
        }
    };
    assert_eq!(names(&gone["lost"]), ["one"], "{gone}");
    let (_, status, stderr) = listening.end();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

/// `follow = true`: a socket for each matching address, opened and closed as they come and go, interfaces too.
pub fn are_followed_when_asked_for() {
    ["1", "2"].into_iter().for_each(are_followed);
}

fn are_followed(threads: &str) {
    let (host, peer) = (Netns::new(), Netns::new());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profile.toml");
    let profile = "schema = 1\nname = 'follow'\n[[listener]]\nname = 'lan'\n\
         bind = { interface = 'eth*', family = 'both', scope = 'global' }\nport = 9000\n\
         when_missing = 'skip'\nfollow = true\nreply = 'none'\n";
    std::fs::write(&path, profile).unwrap();
    let mut command =
        bindscope(&["listen", "--threads", threads, "--format", "ndjson", path.to_str().unwrap()]);
    let mut listening = host.run(|| Listening::start(&mut command));
    assert_eq!(listening.bound().count(), 0, "there is nothing yet");
    let next = |listening: &mut Listening, wanted: &str| loop {
        let event = listening.next();
        if event["event"] == wanted {
            return event;
        }
        assert!(event["event"] == "network" || event["event"] == "notice", "{event}");
    };

    host.wire("eth0", &peer, "far");
    host.address("eth0", "192.0.2.1/24");
    peer.address("far", "192.0.2.2/24");
    assert_eq!(next(&mut listening, "bound")["socket"]["address"], "192.0.2.1");
    let to = std::net::SocketAddr::from(([192, 0, 2, 1], 9000));
    let connect = || peer.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(10)));
    connect().unwrap();
    assert_eq!(next(&mut listening, "accepted")["ingress"]["name"], "eth0");
    host.address("eth0", "2001:db8::1/64");
    assert_eq!(next(&mut listening, "bound")["socket"]["address"], "2001:db8::1");
    host.ip("address add 192.0.2.7/24 dev eth0");
    assert_eq!(next(&mut listening, "bound")["socket"]["address"], "192.0.2.7");
    host.ip("address del 192.0.2.7/24 dev eth0");
    assert_eq!(next(&mut listening, "closed")["socket"]["address"], "192.0.2.7");
    // It is closed indeed: another one may have the port now.
    connect().unwrap();
    assert_eq!(next(&mut listening, "accepted")["local"]["address"], "192.0.2.1");
    host.ip("link del eth0");
    let mut closed = [next(&mut listening, "closed"), next(&mut listening, "closed")]
        .map(|event| event["socket"]["address"].as_str().unwrap().to_owned());
    closed.sort();
    assert_eq!(closed, ["192.0.2.1", "2001:db8::1"]);
    let (events, status, stderr) = listening.end();
    assert_eq!((status.code(), &events.last().unwrap()["accepted"]), (Some(0), &2.into()), "{stderr}");
}

/// An address that is still checked for duplicates is waited for, and then named as what it is: open to others.
pub fn an_address_that_is_waited_for_is_told_as_open() {
    let (host, peer) = (Netns::new(), Netns::new());
    host.wire("eth0", &peer, "far");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profile.toml");
    let profile = "schema = 1\nname = 'dad'\n\
         [[listener]]\nname = 'new'\nbind = '2001:db8::7'\nport = 8081\nwait_dad = true\n";
    std::fs::write(&path, profile).unwrap();
    let mut command = bindscope(&["listen", "--format", "ndjson", path.to_str().unwrap()]);
    host.sysctl("net.ipv6.conf.all.accept_dad", "1");
    host.sysctl("net.ipv6.conf.eth0.accept_dad", "1");
    // Without `nodad`: the kernel asks around for a second or more before it can be bound.
    host.ip("address add 2001:db8::7/64 dev eth0");
    let mut listening = host.run(|| Listening::start(&mut command));
    assert_eq!(listening.beginning.last().unwrap()["waiting"], 1);
    let bound = next(&mut listening, "bound");
    assert_eq!(bound["socket"]["exposure"]["ipv6"], "global", "{bound}");
    assert_eq!(next(&mut listening, "notice")["code"], "BS2021");
}

/// One listener whose interface is missing, and one whose address is still checked for duplicates: the third is served at once, by the
/// name that its interface has then; both are open when they can be, and given up when their time is over.
pub fn listeners_wait_for_themselves_alone() {
    let (host, peer) = (Netns::new(), Netns::new());
    host.wire("eth0", &peer, "far");
    host.address("eth0", "192.0.2.1/24");
    peer.address("far", "192.0.2.2/24");
    host.sysctl("net.ipv6.conf.all.accept_dad", "1");
    host.sysctl("net.ipv6.conf.eth0.accept_dad", "1");
    host.sysctl("net.ipv6.conf.eth0.dad_transmits", "3");
    host.ip("address add 2001:db8::7/64 dev eth0");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profile.toml");
    let profile = "schema = 1\nname = 'waits'\n\
         [[listener]]\nname = 'late'\nbind = { interface = 'later0', family = 'ipv4' }\nport = 8081\n\
         when_missing = 'wait'\nwait_timeout = '50s'\nreply = 'none'\n\
         [[listener]]\nname = 'never'\nbind = '203.0.113.9'\nport = 8082\nwhen_missing = 'wait'\nwait_timeout = '2s'\n\
         [[listener]]\nname = 'dad'\nbind = '2001:db8::7'\nport = 8083\nwait_dad = true\nreply = 'none'\n\
         [[listener]]\nname = 'web'\nbind = '0.0.0.0'\nport = 8084\nreply = 'none'\n";
    std::fs::write(&path, profile).unwrap();
    for threads in ["1", "2"] {
        let begun = Instant::now();
        let mut command =
            bindscope(&["listen", "--threads", threads, "--format", "ndjson", path.to_str().unwrap()]);
        let mut listening = host.run(|| Listening::start(&mut command));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        let open: Vec<_> =
            listening.bound().map(|socket| socket["listener"].as_str().unwrap().to_owned()).collect();
        let open: Vec<_> = open.iter().map(String::as_str).collect();
        assert!(open.contains(&"web") && !open.contains(&"late"), "{open:?}");
        let connect = |port: u16| {
            let to = std::net::SocketAddr::from(([192, 0, 2, 1], port));
            peer.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(10))).unwrap();
        };
        connect(8084);
        // In whatever order, on a machine of whatever load.
        let (mut accepted, mut failed, mut dad) = (false, false, open.contains(&"dad"));
        while !(accepted && failed && dad) {
            let event = listening.next();
            let listener = &event["socket"]["listener"];
            match event["event"].as_str().unwrap() {
                "accepted" => {
                    assert_eq!(event["ingress"]["name"], "eth0");
                    accepted = true;
                }
                "bind_failed" => {
                    assert_eq!((listener, &event["code"]), (&"never".into(), &"BS2002".into()));
                    failed = true;
                }
                "bound" => {
                    assert_eq!(listener, "dad");
                    dad = true;
                }
                _ => {}
            }
        }
        host.ip("link add later0 type veth peer name later1");
        host.address("later0", "198.51.100.1/24");
        let bound = next(&mut listening, "bound");
        assert_eq!(bound["socket"]["address"], "198.51.100.1");
        connect(8084);
        next(&mut listening, "accepted");
        let (events, status, stderr) = listening.end();
        assert_eq!((status.code(), &events.last().unwrap()["accepted"]), (Some(0), &2.into()), "{stderr}");
        host.ip("link del later0");
    }
}

/// `--for` counts from the first open socket, though another one is waited for.
pub fn the_time_runs_from_the_first_open_socket() {
    let host = Netns::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profile.toml");
    let profile = "schema = 1\nname = 'time'\n[[listener]]\nname = 'web'\nbind = '127.0.0.1'\nport = 8081\n\
         [[listener]]\nname = 'late'\nbind = '203.0.113.9'\nport = 8082\nwhen_missing = 'wait'\nwait_timeout = '50s'\n";
    std::fs::write(&path, profile).unwrap();
    let begun = Instant::now();
    let output = host.output(&mut bindscope(&["listen", "--for", "1s", path.to_str().unwrap()]));
    assert_eq!(output.status.code(), Some(0));
    assert!((1..15).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

/// A wildcard before the network is up, and an address whose interface is down: when others can reach them, that is told.
pub fn more_exposure_is_told() {
    let host = Netns::new();
    host.ip("link add eth0 type veth peer name far");
    host.ip("address add 192.0.2.1/24 dev eth0");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profile.toml");
    let profile = "schema = 1\nname = 'exposure'\n\
         [[listener]]\nname = 'all'\nbind = '0.0.0.0'\nport = 8081\n\
         [[listener]]\nname = 'one'\nbind = '192.0.2.1'\nport = 8082\n\
         [[listener]]\nname = 'lo'\nbind = '127.0.0.1'\nport = 8083\n";
    std::fs::write(&path, profile).unwrap();
    let mut command = bindscope(&["listen", "--format", "ndjson", path.to_str().unwrap()]);
    let mut listening = host.run(|| Listening::start(&mut command));
    assert!(
        listening.bound().all(|socket| socket["exposure"]["ipv4"] == "loopback"),
        "{:?}",
        listening.beginning
    );
    let mut people = host.run(|| {
        let mut command = bindscope(&["listen", "--bind", "0.0.0.0:8085", "--for", "4s"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    std::thread::sleep(Duration::from_secs(1));
    host.ip("link set far up");
    host.ip("link set eth0 up");
    let mut grown = Vec::new();
    while grown.len() < 2 {
        let event = next(&mut listening, "exposure");
        assert_eq!(
            (&event["before"]["ipv4"], &event["socket"]["exposure"]["ipv4"]),
            (&"loopback".into(), &"global".into())
        );
        grown.push(event["socket"]["listener"].as_str().unwrap().to_owned());
        assert_eq!(next(&mut listening, "notice")["code"], "BS2021");
    }
    assert_eq!(grown, ["all", "one"]);
    // Down and up again is no news.
    host.ip("link set eth0 down");
    host.ip("link set eth0 up");
    let (events, _, stderr) = listening.end();
    assert!(!events.iter().any(|event| event["event"] == "exposure"), "{events:?} {stderr}");
    let status = crate::support::program::wait(&mut people);
    let output = crate::support::program::finish(people);
    let (told, said) = crate::support::program::text(&output);
    assert!(told.contains("this host only now") && told.contains("is now IPv4 anywhere"), "{status} {told}");
    assert!(said.contains("warning[BS2021]: other hosts can now reach"), "{said}");
}

/// Deleted and made again under its name, with the notifications of both at once: `follow` opens sockets on the new one, with a device
/// and without; a listener that does not follow is told as lost, and never as found.
pub fn a_device_that_is_made_again_gets_new_sockets() {
    for threads in ["1", "3"] {
        let (host, peer) = (Netns::new(), Netns::new());
        let make = || {
            host.wire("eth0", &peer, "far");
            host.address("eth0", "192.0.2.1/24");
            peer.address("far", "192.0.2.2/24");
        };
        make();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("profile.toml");
        let profile = "schema = 1\nname = 'device'\n\
             [[listener]]\nname = 'wild'\nbind = '0.0.0.0'\ndevice = 'eth0'\nport = 8081\nfollow = true\nreply = 'none'\n\
             [[listener]]\nname = 'own'\nbind = { interface = 'eth0', family = 'ipv4' }\ndevice = 'eth0'\nport = 8082\nfollow = true\nreply = 'none'\n\
             [[listener]]\nname = 'many'\nbind = { interface = 'eth0', family = 'ipv4' }\nreuse_port = { group = 3 }\nport = 8083\nfollow = true\nreply = 'none'\n\
             [[listener]]\nname = 'still'\nbind = '0.0.0.0'\ndevice = 'eth0'\nport = 8084\nreply = 'none'\n";
        std::fs::write(&path, profile).unwrap();
        let mut command =
            bindscope(&["listen", "--threads", threads, "--format", "ndjson", path.to_str().unwrap()]);
        let listening = host.run(|| Listening::start(&mut command));
        let connect = |port: u16| {
            let to = std::net::SocketAddr::from(([192, 0, 2, 1], port));
            peer.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(300))).is_ok()
        };
        for _ in 0..3 {
            nix::sys::signal::kill(listening.pid(), nix::sys::signal::Signal::SIGSTOP).unwrap();
            host.ip("link del eth0");
            make();
            nix::sys::signal::kill(listening.pid(), nix::sys::signal::Signal::SIGCONT).unwrap();
            let begun = Instant::now();
            while !(connect(8081) && connect(8082) && connect(8083)) {
                assert!(begun.elapsed() < Duration::from_secs(30), "the new interface is not served");
            }
            assert!(!connect(8084), "it stays on the old one");
        }
        let (events, status, stderr) = listening.end();
        assert_eq!(status.code(), Some(0), "{stderr}");
        for event in events.iter().filter(|event| event["event"] == "network") {
            assert!(!names(&event["found"]).contains(&"still"), "{event}");
        }
        assert!(
            events
                .iter()
                .any(|event| event["event"] == "network" && names(&event["lost"]).contains(&"still"))
        );
    }
}

/// More addresses than `max_sockets`: that is told, nothing that serves is closed, and what goes makes room.
pub fn follow_keeps_to_the_limit_and_says_so() {
    let host = Netns::new();
    host.ip("link add eth0 type veth peer name far");
    host.ip("link set far up");
    host.ip("link set eth0 up");
    for last in 11..=13 {
        host.ip(&format!("address add 192.0.2.{last}/24 dev eth0"));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profile.toml");
    let profile = "schema = 1\nname = 'limit'\n[limits]\nmax_sockets = 4\n[[listener]]\nname = 'lan'\n\
         bind = { interface = 'eth0', family = 'ipv4' }\nport = 9000\nfollow = true\nreply = 'none'\n";
    std::fs::write(&path, profile).unwrap();
    let mut command = bindscope(&["listen", "--format", "ndjson", path.to_str().unwrap()]);
    let mut listening = host.run(|| Listening::start(&mut command));
    assert_eq!(listening.bound().count(), 3);
    host.ip("address add 192.0.2.14/24 dev eth0");
    assert_eq!(next(&mut listening, "bound")["socket"]["address"], "192.0.2.14");
    // One that the kernel lists before the others, since its network is another one.
    host.ip("address add 10.0.0.1/8 dev eth0");
    host.ip("address add 192.0.2.15/24 dev eth0");
    let failed = next(&mut listening, "bind_failed");
    assert_eq!((&failed["code"], &failed["errno"]), (&"BS0013".into(), &"EMFILE".into()), "{failed}");
    for last in 11..=14 {
        host.run(|| TcpStream::connect(("192.0.2.".to_owned() + &last.to_string(), 9000))).unwrap();
        assert_eq!(next(&mut listening, "accepted")["local"]["address"], format!("192.0.2.{last}"));
    }
    host.ip("address del 192.0.2.12/24 dev eth0");
    assert_eq!(next(&mut listening, "closed")["socket"]["address"], "192.0.2.12");
    let bound = next(&mut listening, "bound");
    assert!(["10.0.0.1", "192.0.2.15"].contains(&bound["socket"]["address"].as_str().unwrap()), "{bound}");
    let (events, status, stderr) = listening.end();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(!events.iter().any(|event| event["event"] == "closed"), "{events:?}");
}
