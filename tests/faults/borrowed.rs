//! `connections` looks at sockets of other programs, and leaves them as they were, whatever happens to it.

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use nix::sys::socket::{getsockopt, sockopt};

use crate::behind;
use crate::support::netns::Netns;
use crate::support::program::{finish, text};
use crate::support::tool;

/// The options that unlock the ingress interface, as this process, which owns the socket, has them.
fn options(stream: &TcpStream) -> (bool, bool) {
    let v4 = getsockopt(stream, sockopt::Ipv4PacketInfo).unwrap();
    let v6 = stream.local_addr().unwrap().is_ipv6();
    (v4, v6 && getsockopt(stream, sockopt::Ipv6RecvPacketInfo).unwrap())
}

/// A signal at each of its system calls: wherever it ends, the options of the connections are off again.
pub fn options_are_restored_on_a_signal() {
    if !tool("strace") {
        return;
    }
    let host = Netns::new();
    let pairs: Vec<(TcpStream, TcpStream)> = ["127.0.0.1:8081", "[::1]:8081"]
        .map(|address| {
            let listener = host.run(|| TcpListener::bind(address)).unwrap();
            let client = host.run(|| TcpStream::connect(address)).unwrap();
            let served = listener.accept().unwrap().0;
            // The listener must live, or its port is not one of a server.
            std::mem::forget(listener);
            (client, served)
        })
        .into();
    let mut ended = 0;
    for signal in ["TERM", "INT", "HUP"] {
        for call in ["setsockopt", "getsockopt"] {
            for number in 1..=8 {
                let inject = format!("inject={call}:signal={signal}:when={number}");
                let wrapper = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &inject];
                let mut command = behind(&wrapper, &["connections", "--format", "json"]);
                let output = finish(host.run(|| command.stdout(Stdio::piped()).spawn()).unwrap());
                ended += usize::from(output.status.code().is_none());
                for (_, served) in &pairs {
                    assert_eq!(options(served), (false, false), "{inject}: {:?}", output.status);
                }
            }
        }
    }
    assert!(ended > 6, "the signals must have come in between: {ended}");
}

/// With `--no-touch` no option is set, and what that costs is told.
pub fn no_touch_sets_nothing() {
    if !tool("strace") {
        return;
    }
    let host = Netns::new();
    let listener = host.run(|| TcpListener::bind("127.0.0.1:8081")).unwrap();
    let _client = host.run(|| TcpStream::connect("127.0.0.1:8081")).unwrap();
    let _served = listener.accept().unwrap();
    let trace = tempfile::NamedTempFile::new().unwrap();
    let traced = |arguments: &[&str]| {
        let path = trace.path().to_str().unwrap();
        let wrapper = ["strace", "-f", "-qq", "-o", path, "-e", "trace=setsockopt"];
        let mut command: Command = behind(&wrapper, arguments);
        let output = finish(host.run(|| command.stdout(Stdio::piped()).spawn()).unwrap());
        let calls = std::fs::read_to_string(trace.path()).unwrap();
        (text(&output).0, calls.lines().filter(|line| line.contains("PKTINFO")).count())
    };
    let (told, calls) = traced(&["connections", "--format", "json"]);
    assert!(calls >= 2 && told.contains("\"name\": \"lo\""), "{calls}: {told}");
    let (told, calls) = traced(&["connections", "--no-touch", "--format", "json"]);
    assert!(calls == 0 && told.contains("--no-touch sets none"), "{calls}: {told}");
}
