//! Every format of a report, with hostile names, and reports of many cells.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use crate::support::netns::Netns;
use crate::support::program::text;
use crate::{backslashes, exits, host, json, profile, run};

pub fn names_are_escaped_in_every_format() {
    let ns = Netns::new();
    ns.ip_args(&["link", "add", "\u{1b}[31m<x>|", "type", "veth", "peer", "name", "other"]);
    ns.ip_args(&["link", "set", "\u{1b}[31m<x>|", "up"]);
    ns.ip("link set other up");
    ns.ip_args(&["address", "add", "192.0.2.1/24", "dev", "\u{1b}[31m<x>|"]);
    for format in ["human", "csv", "markdown", "junit", "github"] {
        let output = run(&ns, &["plan", "--bind", "0.0.0.0:8101", "--format", format]);
        exits(&output, 0);
        let shown = text(&output).0;
        assert!(shown.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r')), "{shown:?}");
        assert!(format != "markdown" || !shown.contains("<x>"), "{shown}");
    }
    // Once: also those that a document holds escaped, since they are no text.
    let odd = OsStr::from_bytes(b"a\x1b\xff");
    ns.ip_args(&[OsStr::new("link"), OsStr::new("set"), OsStr::new("other"), OsStr::new("name"), odd]);
    ns.ip_args(
        &["address", "add", "fe80::1/64", "nodad", "dev"]
            .map(OsStr::new)
            .into_iter()
            .chain([odd])
            .collect::<Vec<_>>(),
    );
    ns.ip_args(&["link", "set", "up", "dev"].map(OsStr::new).into_iter().chain([odd]).collect::<Vec<_>>());
    crate::support::snapshot::settle(&ns);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (first, second) = (path("a.json"), path("b.json"));
    for (to, bind) in [(&first, "127.0.0.1:8101"), (&second, "[::]:8101,v6only=false")] {
        exits(&run(&ns, &["probe", "--bind", bind, "--format", "json", "-o", to]), 0);
    }
    for format in ["human", "csv", "markdown", "junit", "github"] {
        let wanted = if format == "markdown" { 2 } else { 1 };
        let mut shown = text(&run(&ns, &["probe", "--bind", "[::]:8101", "--format", format])).0;
        if !matches!(format, "junit" | "github") {
            let output = run(&ns, &["diff", &first, &second, "--format", format]);
            exits(&output, 1);
            let found = text(&output).0;
            assert!(backslashes(&found).len() > 1, "{found}");
            shown.push_str(&found);
        }
        let found = backslashes(&shown);
        assert!(format == "github" || !found.is_empty(), "{shown}");
        assert!(found.iter().all(|&count| count == wanted), "{shown}");
    }
    let plan = json(&run(&ns, &["plan", "--bind", "0.0.0.0:8101", "--format", "json"]));
    assert!(plan["cells"].as_array().unwrap().iter().any(|cell| cell["destination"] == "192.0.2.1"));
}

pub fn connections_spread_over_a_group() {
    let ns = Netns::new();
    let group = "[[listener]]\nname = \"g\"\nbind = \"127.0.0.1\"\nport = 8102\nreuse_port = { group = 4, policy = \"hash\" }\n[[expect]]\nlistener = \"g\"\nspread = { connections = 400, min_share = ";
    for (share, code) in [("0.05", 0), ("0.5", 1)] {
        let (_directory, path) = profile(&format!("{group}{share} }}\n"));
        let output = run(&ns, &["probe", &path]);
        exits(&output, code);
        assert!(text(&output).0.contains("of 400 connections the sockets took"), "{:?}", text(&output));
    }
    // No client connects in a plan.
    let (_directory, path) = profile(&format!("{group}0.05 }}\n"));
    exits(&run(&ns, &["plan", &path]), 3);
}

pub fn ten_thousand_cells_take_seconds() {
    let (ns, _far) = host();
    let output = run(&ns, &["probe", "--bind", "0.0.0.0:20000-20999", "--format", "json"]);
    exits(&output, 0);
    let summary = &json(&output)["summary"];
    assert!(summary["agree"].as_u64().unwrap() >= 10_000, "{summary}");
    assert_eq!(summary["disagree"], 0);
}
