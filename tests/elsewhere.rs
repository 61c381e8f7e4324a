//! Systems other than Linux, where the sockets of other programs are not read: that is said, and nothing is guessed.
#![cfg(bindscope_portable)]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test")]

#[path = "support/mod.rs"]
mod support;

use serde_json::Value;
use support::program::{run, text};

fn json(arguments: &[&str], code: i32) -> Value {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {:?}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn an_audit_is_undecided_and_says_so_in_every_format() {
    let report = json(&["audit", "--format", "json"], 3);
    assert_eq!((&report["complete"], &report["namespaces"][0]["complete"]), (&false.into(), &false.into()));
    let because = "the sockets of other programs cannot be read on this system yet";
    for format in ["human", "sarif", "junit", "github", "markdown"] {
        let output = run(&["audit", "--format", format]);
        assert_eq!(output.status.code(), Some(3), "{format}");
        let shown = text(&output).0.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(shown.contains(because), "{format}: {shown}");
        assert!(!shown.contains("nothing listens"), "{format}: {shown}");
    }
    let (human, _) = text(&run(&["audit"]));
    assert!(human.starts_with("What listens here is not known.\n"), "{human}");
    assert!(text(&run(&["audit", "--format", "junit"])).0.contains("errors=\"1\""));
    let written = run(&["audit", "--write-policy", "-"]);
    assert!(written.status.code() == Some(3) && text(&written).1.contains(because), "{:?}", text(&written));
}

#[test]
fn a_policy_passes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    for rules in ["", "[[allow]]\nid = \"a\"\nport = 22\nexposure = \"loopback\"\nrequire = true\n"] {
        std::fs::write(&path, format!("schema = 1\nkind = \"policy\"\n{rules}")).unwrap();
        let report = json(&["audit", "--format", "json", "--policy", path.to_str().unwrap()], 3);
        assert_eq!(report["summary"]["failed"], 0, "what is not seen is not absent: {report:#}");
        assert!(
            report["findings"].as_array().unwrap().iter().any(|one| one["undecided"] == true),
            "{report:#}"
        );
    }
}

#[test]
fn connections_summary_and_doctor_say_what_is_not_known() {
    let report = json(&["connections", "--format", "json"], 3);
    assert_eq!(report["complete"], false);
    let (summary, _) = text(&run(&[]));
    assert!(summary.contains("not known") && !summary.contains("nothing"), "{summary}");
    let report = json(&["doctor", "--format", "json"], 0);
    for name in ["sockets", "owners", "connections"] {
        let line = report["lines"].as_array().unwrap().iter().find(|line| line["name"] == name).unwrap();
        assert_eq!(line["state"], "no", "{line:#}");
        assert!(line["remedy"].is_null(), "no switch of this system changes it: {line:#}");
    }
}

/// The kernel does not report ingress interfaces here: the prediction of the outcome is judged without them.
#[test]
fn a_probe_agrees_without_observed_interfaces() {
    let report = json(&["probe", "--bind", "0.0.0.0:0", "--bind", "udp:127.0.0.1:0", "--format", "json"], 0);
    let summary = &report["summary"];
    assert_eq!(summary["disagree"], 0, "{report:#}");
    assert!(summary["accepted"].as_u64().unwrap() > 0, "{summary}");
    assert_eq!(summary["ingress_not_observed"], summary["accepted"], "{report:#}");
    let (shown, _) = text(&run(&["probe", "--bind", "0.0.0.0:0"]));
    assert!(shown.contains("was not observed."), "{shown}");
}

#[test]
fn interfaces_have_indexes_of_their_own() {
    let report = json(&["interfaces", "--format", "json"], 0);
    let mut indexes: Vec<_> =
        report["interfaces"].as_array().unwrap().iter().map(|one| one["index"].as_u64()).collect();
    let all = indexes.len();
    assert!(all > 0 && indexes.iter().all(Option::is_some), "{report:#}");
    indexes.sort_unstable();
    indexes.dedup();
    assert_eq!(indexes.len(), all, "{report:#}");
}
