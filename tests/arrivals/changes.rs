//! The network changes while `listen` runs.

use std::net::TcpStream;
use std::time::Duration;

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
    let listening = host.run(|| Listening::start(&mut command));
    let socket = listening.bound().next().unwrap();
    assert_eq!(socket["exposure"]["ipv6"], "global", "{socket}");
    let wide_open = listening.beginning.iter().any(|event| event["code"] == "BS2021");
    assert!(wide_open, "{:?}", listening.beginning);
}
