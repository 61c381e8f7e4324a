//! What a person sees: the one-screen output at several widths.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a test")]

#[path = "support/mod.rs"]
mod support;

use support::program::{bindscope, text};
use tempfile::TempDir;
use unicode_width::UnicodeWidthStr as _;

/// A host with two links, as `interfaces --json` of it reads, so that the screens are the same on every machine.
fn host(dir: &TempDir) -> String {
    let interface = |index: u32, name: &str, addresses: &[(&str, u8, &str, &str)]| {
        let addresses: Vec<serde_json::Value> = addresses
            .iter()
            .map(|(address, prefix, family, class)| {
                serde_json::json!({"address": address, "prefix": prefix, "family": family, "class": class,
                    "scope_id": if *class == "link" { Some(index) } else { None }, "label": null, "peer": null,
                    "broadcast": null, "state": ["permanent"]})
            })
            .collect();
        serde_json::json!({"index": index, "name": name, "up": true, "running": true, "loopback": name == "lo",
            "point_to_point": false, "multicast": name != "lo", "kind": if name == "lo" { "loopback" } else { "veth" },
            "mtu": 1500, "mac": null, "master": null, "addresses": addresses, "settings": {}})
    };
    let route = |destination: &str, interface: u32| {
        serde_json::json!({"table": 254, "kind": "unicast", "destination": destination, "interface": interface,
            "gateway": null, "source": null, "metric": if destination.contains(':') { Some(256) } else { None }})
    };
    let routes = [
        route("192.168.1.0/24", 2),
        route("10.20.0.0/16", 3),
        route("2001:db8:1::/64", 2),
        route("fd20::/64", 3),
        route("fe80::/64", 2),
        route("fe80::/64", 3),
    ];
    let snapshot = serde_json::json!({
        "schema": "bindscope.interfaces/1", "version": "0.1.0", "complete": true, "incomplete_because": [],
        "host": {"name": "box", "system": "linux", "release": "6.18.0", "netns": 1},
        "interfaces": [
            interface(1, "lo", &[("127.0.0.1", 8, "ipv4", "loopback"), ("::1", 128, "ipv6", "loopback")]),
            interface(2, "eth0", &[("192.168.1.10", 24, "ipv4", "private"), ("2001:db8:1::10", 64, "ipv6", "global"), ("fe80::1", 64, "ipv6", "link")]),
            interface(3, "eth1", &[("10.20.0.10", 16, "ipv4", "private"), ("fd20::10", 64, "ipv6", "private"), ("fe80::2", 64, "ipv6", "link")]),
        ],
        "routes": routes, "rules": [], "settings": {}, "ipv6_available": true, "disagreements": [],
    });
    let path = dir.path().join("host.json");
    std::fs::write(&path, snapshot.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn plan(host: &str, columns: usize, more: &[&str]) -> String {
    let arguments = [&["plan", "--host", host][..], more].concat();
    text(&bindscope(&arguments).env("COLUMNS", columns.to_string()).output().unwrap()).0
}

#[test]
fn a_plan_fits_every_width_and_one_screen() {
    let dir = TempDir::new().unwrap();
    let host = host(&dir);
    let forty: Vec<String> =
        (0..40).map(|index| format!("0.0.0.0:{},name=listener-{index}-名前", 8100 + 2 * index)).collect();
    let forty: Vec<&str> = forty.iter().flat_map(|bind| ["-b", bind]).collect();
    for columns in [60, 80, 120, 200] {
        for more in [&["default"][..], &["tutorial"], &["0.0.0.0:8080", "eth0:8081"], &forty, &["8000-8019"]]
        {
            let screen = plan(&host, columns, more);
            let wide = screen.lines().find(|line| line.width() > columns);
            assert_eq!(wide, None, "{columns} {more:?}:\n{screen}");
            let most = if columns < 80 { 45 } else { 30 };
            assert!(screen.lines().count() <= most, "{columns} {more:?}:\n{screen}");
        }
    }
    let screen = plan(&host, 80, &["default"]);
    assert!(screen.lines().count() <= 25, "{screen}");
    assert!(screen.starts_with("All 13 sockets will open. "), "{screen}");
    for row in [
        "PORT  LISTENER                THIS HOST        LINK eth0        LINK eth1",
        "8081  all4   0.0.0.0          v4 3/3   v6 -    v4 2/3*  v6 -    v4 2/3*  v6 -",
        "8082  lo4    127.0.0.1        v4 1/3   v6 -    -                -",
        "8087  dual   [::] dual-stack  v4 3/3   v6 5/5  v4 2/3*  v6 3/5*  v4 2/3*  v6 3/5*",
    ] {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(screen.lines().any(|line| squeezed(line) == squeezed(row)), "{row}\n{screen}");
    }
    assert!(plan(&host, 80, &["default", "-v"]).contains("BS3003"), "-v shows the rule of each result");
}

#[test]
fn the_tutorial_tries_its_claims_in_both_languages() {
    if cfg!(any(bindscope_portable, not(target_os = "linux"))) {
        eprintln!("skipped: labs are for Linux");
        return;
    }
    for (arguments, words) in [
        (&["tutorial"][..], ["Three claims", "TRUE", "FALSE", "accepted on eth1", "17/17"]),
        (
            &["tutorial", "--lang", "es"],
            ["Tres afirmaciones", "VERDADERO", "FALSO", "aceptada en eth1", "17/17"],
        ),
    ] {
        let output = bindscope(arguments).env("COLUMNS", "80").output().unwrap();
        let (stdout, stderr) = text(&output);
        if output.status.code() == Some(4) && std::env::var_os("BINDSCOPE_REQUIRE_NETNS").is_none() {
            eprintln!("skipped: no namespaces here: {stderr}");
            return;
        }
        assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
        for word in words {
            assert!(stdout.contains(word), "{word}: {stdout}");
        }
        assert!(stdout.lines().all(|line| line.width() <= 80), "{stdout}");
    }
}
