//! What a person sees: the screens of commands that do not depend on the machine, each compared with a file in
//! `tests/golden`. `INSTA_UPDATE=always` writes the files.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a test")]

#[path = "support/mod.rs"]
mod support;

use std::path::Path;

use support::program::{bindscope, text};
use tempfile::TempDir;
use unicode_width::UnicodeWidthStr as _;

/// A host with two links, as `interfaces --json` of it reads, so that the screens are the same on every machine.
fn host(dir: &TempDir) {
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
    std::fs::write(dir.path().join("host.json"), snapshot.to_string()).unwrap();
}

/// The widths of the screens.
const WIDTHS: [usize; 4] = [60, 80, 120, 200];

/// Standard output and standard error of one command in a directory.
fn shown(directory: &Path, columns: usize, arguments: &[&str]) -> (String, String) {
    let mut command = bindscope(arguments);
    command.current_dir(directory).env("COLUMNS", columns.to_string()).env("HOME", directory);
    text(&command.output().unwrap())
}

/// Compares a text with `tests/golden/NAME.snap`.
fn golden(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// One file for each width, with several command lines of one command. No line is wider than the screen.
fn screens(name: &str, directory: &Path, lines: &[&[&str]]) {
    for columns in WIDTHS {
        let mut all = String::new();
        for arguments in lines {
            let (screen, problems) = shown(directory, columns, arguments);
            let (colored, _) = shown(directory, columns, &[arguments, &["--color", "always"][..]].concat());
            let colored = anstream::adapter::strip_str(&colored).to_string();
            for screen in [&screen, &colored] {
                let wide = screen.lines().find(|line| line.width() > columns);
                assert_eq!(wide, None, "{columns} {arguments:?}:\n{screen}");
            }
            // `explain` leaves out the marks of Markdown when it has colours.
            assert!(colored == screen || arguments[0] == "explain", "{columns} {arguments:?}:\n{colored}");
            all += &format!("$ bindscope {}\n{screen}{problems}\n", arguments.join(" "));
        }
        golden(&format!("{name}-{columns}"), &all);
    }
}

#[test]
fn plans() {
    let dir = TempDir::new().unwrap();
    host(&dir);
    let forty: String = (0..40)
        .map(|index| {
            let port = 8100 + 2 * index;
            format!("[[listener]]\nname = \"listener-{index}-名前\"\nbind = \"0.0.0.0\"\nport = {port}\n\n")
        })
        .collect();
    std::fs::write(dir.path().join("forty.toml"), format!("schema = 1\n\n{forty}")).unwrap();
    let of = |more: &[&'static str]| [&["plan", "--host", "host.json"][..], more].concat();
    screens(
        "plan",
        dir.path(),
        &[
            &of(&["default"]),
            &of(&["tutorial"]),
            &of(&["0.0.0.0:8080", "eth0:8081"]),
            &of(&["8000-8019"]),
            &of(&["forty.toml"]),
            &of(&["127.0.0.1:8080", "0.0.0.0:8080", "192.0.2.7:8081", "nothing0:8082"]),
            &of(&["[::]:8080", "--vary", "bind1.v6only=true,false"]),
        ],
    );
    for columns in WIDTHS {
        for arguments in [of(&["default"]), of(&["tutorial"]), of(&["8000-8019"]), of(&["forty.toml"])] {
            let lines = shown(dir.path(), columns, &arguments).0.lines().count();
            assert!(lines <= if columns < 80 { 45 } else { 30 }, "{columns} {arguments:?}: {lines} lines");
        }
    }
    let lines = shown(dir.path(), 80, &of(&["default"])).0.lines().count();
    assert!(lines <= 25, "{lines} lines");
    // Terminals draw colours; the file shows the sequences as text.
    let colored = shown(dir.path(), 80, &of(&["default", "--color", "always"])).0;
    golden("plan-color-80", &colored.replace('\u{1b}', "\\e"));
    golden("plan-verbose-80", &shown(dir.path(), 80, &of(&["0.0.0.0:8080", "eth0:8081", "-v"])).0);
}

#[test]
fn plans_in_other_formats() {
    let dir = TempDir::new().unwrap();
    host(&dir);
    for format in ["csv", "markdown", "mermaid", "svg", "html", "junit", "github"] {
        let arguments = ["plan", "--host", "host.json", "0.0.0.0:8080", "127.0.0.1:8081", "--format", format];
        let (text, _) = shown(dir.path(), 80, &arguments);
        let text = match format {
            "html" => without_time(&text),
            _ => text,
        };
        golden(&format!("plan-{format}"), &text.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
    }
}

/// The page with `TIME` in place of the time at which it was made.
fn without_time(page: &str) -> String {
    let mut parts = page.split("<dt>time</dt><dd>");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |out, part| {
        let (_, rest) = part.split_once("</dd>").unwrap();
        format!("{out}<dt>time</dt><dd>TIME</dd>{rest}")
    })
}

#[test]
fn checks_and_differences() {
    let dir = TempDir::new().unwrap();
    host(&dir);
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("before.toml", "schema = 1\n\n[[listener]]\nname = \"web\"\nbind = \"127.0.0.1\"\nport = 8080\n");
    write(
        "after.toml",
        "schema = 1\n\n[[listener]]\nname = \"web\"\nbind = \"0.0.0.0\"\nport = 8080\n\n\
         [[listener]]\nname = \"metrics\"\nbind = \"::1\"\nport = 9100\n",
    );
    write("mistakes.toml", "schema = 1\n\n[[listener]]\nname = \"web\"\nbnd = \"0.0.0.0\"\nport = 80800\n");
    screens(
        "check",
        dir.path(),
        &[&["check", "before.toml", "after.toml"], &["check", "mistakes.toml"], &["check", "missing.toml"]],
    );
    screens("diff", dir.path(), &[&["diff", "before.toml", "after.toml", "--host", "host.json"]]);
}

#[test]
fn pages_of_explain() {
    let dir = TempDir::new().unwrap();
    screens(
        "explain",
        dir.path(),
        &[
            &["explain"],
            &["explain", "weak-host"],
            &["explain", "BS3003"],
            &["explain", "--search", "rp_filter"],
            &["explain", "nothing-of-this-name"],
        ],
    );
}

#[test]
fn help_of_every_command() {
    let dir = TempDir::new().unwrap();
    let commands: &[&[&str]] = &[
        &[],
        &["audit"],
        &["check"],
        &["completions"],
        &["connections"],
        &["diff"],
        &["doctor"],
        &["explain"],
        &["init"],
        &["interfaces"],
        &["lab"],
        &["lab", "run"],
        &["listen"],
        &["man"],
        &["plan"],
        &["probe"],
        &["report"],
        &["schema"],
        &["tutorial"],
        &["why"],
    ];
    let lines: Vec<Vec<&str>> = commands.iter().map(|command| [command, &["-h"][..]].concat()).collect();
    let lines: Vec<&[&str]> = lines.iter().map(Vec::as_slice).collect();
    screens("help", dir.path(), &lines);
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
