//! Plan and lab agree: every built-in network with every shipped profile, in every cell.

use bindscope::lab::builtin;
use bindscope::profile;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::program;

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (topology, _) in builtin::ALL {
        for profile in profile::builtin::names() {
            trials.push(Trial::test(format!("agrees_{topology}_{profile}"), move || {
                agrees(topology, profile);
                Ok(())
            }));
        }
    }
    trials.push(Trial::test("refusals_name_the_thing", || {
        refusals_name_the_thing();
        Ok(())
    }));
    trials
}

/// Runs a lab and returns its document with the exit code.
pub fn lab(arguments: &[&str]) -> (Value, i32) {
    let patience = std::env::var("BINDSCOPE_CONNECT_TIMEOUT").unwrap_or_else(|_| "1s".to_owned());
    let mut all = vec!["lab", "run", "--format", "json", "--connect-timeout", &patience];
    all.extend(arguments);
    let output = program::run(&all);
    let (stdout, stderr) = program::text(&output);
    let document = serde_json::from_str(&stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stdout}{stderr}"));
    (document, output.status.code().unwrap())
}

/// The cells in which prediction and observation are not the same, and how many there are at all.
pub fn differing(document: &Value) -> (Vec<&Value>, usize) {
    let cells = document["cells"].as_array().unwrap();
    (cells.iter().filter(|cell| cell["agrees"] != true).collect(), cells.len())
}

fn agrees(topology: &str, profile: &str) {
    let (document, _) = lab(&[profile, "--topology", topology]);
    if document["schema"] == "bindscope.experiment/1" {
        assert_eq!(document["summary"]["disagree"], 0, "{document}");
        assert_eq!(document["incomplete_because"], serde_json::json!([]), "{document}");
        return;
    }
    let (differing, all) = differing(&document);
    assert!(differing.is_empty(), "{}", Value::from_iter(differing.into_iter().cloned()));
    assert_eq!(document["schema"], "bindscope.lab/1");
    assert_eq!(document["incomplete_because"], serde_json::json!([]), "{document}");
    // Every arrival is borne out by the packets.
    let summary = &document["summary"];
    let confirmed = if summary["accepted"] == 0 { Value::Null } else { summary["accepted"].clone() };
    assert_eq!(summary["confirmed"], confirmed, "{document}");
    for cell in document["cells"].as_array().unwrap() {
        packets_are_of_their_kind(cell);
    }
    for socket in document["sockets"].as_array().unwrap() {
        let (predicted, observed) = (&socket["bind"]["predicted"], &socket["bind"]["observed"]);
        if observed.is_object() {
            assert_eq!(
                (&predicted["outcome"], &predicted["errno"]),
                (&observed["outcome"], &observed["errno"]),
                "{socket}"
            );
        }
    }
    // A network without any IPv6, or a profile for link-local addresses only, may leave nothing to connect to.
    let bound = document["sockets"]
        .as_array()
        .unwrap()
        .iter()
        .any(|socket| socket["bind"]["observed"]["outcome"] == "ok");
    assert_eq!(bound, all > 0, "{document}");
}

/// What this host sends to itself crosses `lo`, all else does not, and every packet of an arrival was seen.
fn packets_are_of_their_kind(cell: &Value) {
    let seen = &cell["observed"];
    let packets = &seen["packets"];
    assert_eq!(packets.is_null(), seen["listener"].is_null(), "{cell}");
    if packets.is_null() {
        return;
    }
    let lists = if cell["protocol"] == "udp" { &["data"][..] } else { &["syn", "ack", "data"][..] };
    for list in lists {
        let last = packets[*list].as_array().unwrap().last();
        let wanted = if cell["source"] == "host" { &Value::from("lo") } else { &seen["ingress"] };
        assert_eq!(last, Some(wanted), "{cell}");
    }
    assert_eq!(packets["via_lo"], cell["source"] == "host" && seen["ingress"] != "lo", "{cell}");
}

fn refusals_name_the_thing() {
    let output = program::run(&["lab", "run", "--topology", "no-such"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(program::text(&output).1.contains("two-sided"));
    let output = program::run(&["lab", "shell", "nowhere", "--", "true"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        program::text(&output).1.contains("its nodes are host, lan, wan"),
        "{:?}",
        program::text(&output)
    );
}
