//! Real clients: what a user would point at a listener.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::netns::{Netns, two_hosts};
use crate::support::program::{Listening, bindscope, finish, text};
use crate::support::tool;

/// A host with `lo` and one wire of its own, and a listener of each kind.
fn listening(profile: &str) -> (Netns, Netns, Listening) {
    let (host, peer) = two_hosts();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profile.toml");
    std::fs::write(&path, format!("schema = 1\nname = 'clients'\n{profile}")).unwrap();
    let listening = host
        .run(|| Listening::start(&mut bindscope(&["listen", "--format", "ndjson", path.to_str().unwrap()])));
    (host, peer, listening)
}

const DUAL: &str = "[[listener]]\nname = 'dual'\nbind = '::'\nv6only = false\nport = 8081\n";

fn output(ns: &Netns, program: &str, arguments: &[&str], input: &str) -> String {
    let child = ns.run(|| {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        child
    });
    let output = finish(child);
    assert!(output.status.success(), "{program} {arguments:?}: {:?}", text(&output));
    text(&output).0
}

fn assert_arrival(event: &Value, kind: &str, ingress: &str, family: &str, local: bool) {
    assert_eq!(event["event"], kind, "{event}");
    assert_eq!(event["ingress"]["name"], ingress, "{event}");
    assert_eq!(event["ingress"]["evidence"], "kernel", "{event}");
    assert_eq!(event["family"], family, "{event}");
    assert_eq!(event["peer_is_local"], local, "{event}");
}

/// curl in both families, from here and from the wire; text for curl, JSON for who asks for it.
pub fn curl() {
    if !tool("curl") {
        return;
    }
    let (host, peer, mut listening) = listening(DUAL);
    for (ns, url, ingress, family, local) in [
        (&host, "http://127.0.0.1:8081/", "lo", "ipv4", true),
        (&host, "http://[::1]:8081/", "lo", "ipv6", true),
        (&host, "http://192.0.2.1:8081/", "eth0", "ipv4", true),
        (&peer, "http://192.0.2.1:8081/", "eth0", "ipv4", false),
        (&peer, "http://[2001:db8::1]:8081/", "eth0", "ipv6", false),
    ] {
        let version = if family == "ipv4" { "-4" } else { "-6" };
        let shown = output(ns, "curl", &["-sS", version, "--max-time", "20", url], "");
        assert!(shown.contains(&format!("arrived on     {ingress} (reported by the kernel)")), "{shown}");
        assert_arrival(&listening.next_arrival(), "accepted", ingress, family, local);
        let json =
            output(ns, "curl", &["-sS", "-H", "Accept: application/json", "--max-time", "20", url], "");
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["ingress"]["name"], ingress);
        assert_eq!(json["v4_mapped"], family == "ipv4");
        assert_arrival(&listening.next_arrival(), "accepted", ingress, family, local);
    }
    // A page never trusts what a client claims.
    let page = output(
        &peer,
        "curl",
        &[
            "-sSi",
            "-H",
            "X: <script>alert(1)</script>",
            "-H",
            "Accept: text/html",
            "http://192.0.2.1:8081/<script>",
        ],
        "",
    );
    assert!(page.starts_with("HTTP/1.1 200") && !page.contains("<script"), "{page}");
    let refused = output(&peer, "curl", &["-sSi", "-X", "POST", "-d", "x", "http://192.0.2.1:8081/"], "");
    assert!(refused.starts_with("HTTP/1.1 405"), "{refused}");
}

/// A client that speaks no HTTP, and one that says nothing at all.
pub fn ncat() {
    if !tool("ncat") {
        return;
    }
    let (host, peer, mut listening) = listening(DUAL);
    let spoke = output(&peer, "ncat", &["192.0.2.1", "8081"], "hello\n");
    assert!(spoke.contains("arrived on eth0 (reported by the kernel)"), "{spoke}");
    assert_eq!(spoke.lines().count(), 1);
    assert_arrival(&listening.next_arrival(), "accepted", "eth0", "ipv4", false);
    let silent = output(&host, "ncat", &["--recv-only", "::1", "8081"], "");
    assert!(silent.contains("arrived on lo"), "{silent}");
    assert_arrival(&listening.next_arrival(), "accepted", "lo", "ipv6", true);
}

/// UDP: recorded always, answered only when the profile says so.
pub fn socat() {
    if !tool("socat") {
        return;
    }
    let (_host, peer, mut listening) = listening(
        "[[listener]]\nname = 'mute'\nprotocol = 'udp'\nbind = '0.0.0.0'\nport = 8081\n\
         [[listener]]\nname = 'talks'\nprotocol = 'udp'\nbind = '::'\nv6only = false\nport = 8082\nreply = 'describe'\n\
         [[listener]]\nname = 'echo'\nprotocol = 'udp'\nbind = '::'\nport = 8083\nreply = 'echo'\n",
    );
    let udp = |to: &str| output(&peer, "socat", &["-t1", "-", to], "hello");
    // A reply is never longer than the request.
    let padded = format!("hello{}", " ".repeat(195));
    assert_eq!(udp("UDP4:192.0.2.1:8081"), "", "no answer was requested");
    assert_arrival(&listening.next_arrival(), "datagram", "eth0", "ipv4", false);
    let described = output(&peer, "socat", &["-t1", "-", "UDP4:192.0.2.1:8082"], &padded);
    assert!(described.contains("arrived on eth0 (reported by the kernel)"), "{described}");
    let event = listening.next_arrival();
    assert_arrival(&event, "datagram", "eth0", "ipv4", false);
    assert_eq!((&event["v4_mapped"], &event["bytes"]), (&Value::Bool(true), &Value::from(200)));
    assert_eq!(udp("UDP6:[2001:db8::1]:8083"), "hello");
    assert_arrival(&listening.next_arrival(), "datagram", "eth0", "ipv6", false);
}

/// A browser shows the page.
pub fn browser() {
    if !tool("chromium") {
        return;
    }
    let (host, _peer, mut listening) = listening(DUAL);
    let home = tempfile::tempdir().unwrap();
    let profile = format!("--user-data-dir={}", home.path().display());
    let arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--timeout=20000",
        &profile,
        "--dump-dom",
        "http://127.0.0.1:8081/",
    ];
    let page = output(&host, "chromium", &arguments, "");
    assert!(page.contains("<html") && page.contains("reported by the kernel"), "{page}");
    assert_arrival(&listening.next_arrival(), "accepted", "lo", "ipv4", true);
}
