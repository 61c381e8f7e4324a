//! Documents made to use up time or memory: refused, or read within bounds; never a signal.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use crate::support::program::text;
use crate::{run_in, shell};

/// Address space that the program may use, in KiB.
const ROOM: u64 = 1 << 20;

#[test]
fn hostile_documents_end_with_a_sentence() {
    let place = tempfile::tempdir().unwrap();
    let good = run_in(place.path(), &["interfaces", "--format", "json"]).stdout;
    let good = String::from_utf8(good).unwrap();
    fs::write(place.path().join("good.json"), &good).unwrap();
    let head = |kind: &str| format!("{{\"schema\":\"bindscope.{kind}/1\",");
    let many = |text: &str, count: usize| vec![text; count].join(",");
    type Make<'a> = Box<dyn Fn(&str) -> String + 'a>;
    let texts: Vec<(&str, Make<'_>)> = vec![
        ("deep", Box::new(|kind| format!("{}\"sockets\":{}", head(kind), "[".repeat(500_000)))),
        ("zeros", Box::new(|kind| format!("{}\"sockets\":[{}]}}", head(kind), many("0", 1_000_000)))),
        ("ignored zeros", Box::new(|kind| format!("{}\"x\":[{}]}}", head(kind), many("0", 1_000_000)))),
        ("objects", Box::new(|kind| format!("{}\"cells\":[{}]}}", head(kind), many("{}", 1_000_000)))),
        ("interfaces", Box::new(|kind| format!("{}\"interfaces\":[{}]}}", head(kind), many("{}", 500_000)))),
        (
            "digits",
            Box::new(|kind| {
                format!("{}\"interfaces\":[{{\"index\":{}}}]}}", head(kind), "9".repeat(1_000_000))
            }),
        ),
        ("long name", Box::new(|kind| format!("{}\"complete\":\"{}\"}}", head(kind), "x".repeat(3_000_000)))),
        (
            "keys",
            Box::new(|kind| {
                let keys: Vec<String> = (0..100_000).map(|n| format!("\"k{n}\":{n}")).collect();
                format!("{}\"settings\":{{{}}}}}", head(kind), keys.join(","))
            }),
        ),
        ("surrogate", Box::new(|kind| format!("{}\"interfaces\":\"\\ud800\"}}", head(kind)))),
    ];
    for (name, document) in texts {
        for (kind, arguments) in [
            ("interfaces", "plan loopback --host evil.json"),
            ("interfaces", "lab plan loopback --twin evil.json"),
            ("interfaces", "diff good.json evil.json"),
            ("audit", "audit --baseline evil.json"),
            ("audit", "diff evil.json evil.json"),
            ("plan", "diff evil.json evil.json"),
        ] {
            fs::write(place.path().join("evil.json"), document(kind)).unwrap();
            let begun = Instant::now();
            let output = shell(place.path(), &format!("ulimit -v {ROOM}; $B {arguments} > /dev/null"));
            let said = text(&output).1;
            assert_eq!(output.status.signal(), None, "{name}: {arguments}");
            assert!(
                matches!(output.status.code(), Some(0..=3)),
                "{name}: {arguments}: {:?} {said}",
                output.status
            );
            assert!(said.len() < 10_000, "{name}: {arguments}");
            assert!(begun.elapsed() < Duration::from_secs(30), "{name}: {arguments}: {:?}", begun.elapsed());
        }
    }
}

/// A name that is longer than any column does not pad the others, nor ends the program.
#[test]
fn a_long_name_does_not_multiply() {
    let place = tempfile::tempdir().unwrap();
    let report = |name: &str, count: usize| {
        let interface = |name: &str| serde_json::json!({"name": name, "up": true, "addresses": []});
        let mut interfaces: Vec<_> = (0..count).map(|number| interface(&format!("i{number}"))).collect();
        interfaces.push(interface(name));
        serde_json::json!({"schema": "bindscope.interfaces/1", "interfaces": interfaces}).to_string()
    };
    fs::write(place.path().join("a.json"), report(&"x".repeat(100_000), 2000)).unwrap();
    fs::write(place.path().join("b.json"), report("y", 0)).unwrap();
    for format in ["human", "csv", "markdown", "json"] {
        let output = run_in(place.path(), &["diff", "a.json", "b.json", "--format", format]);
        assert_eq!(output.status.code(), Some(1), "{format} {:?}", text(&output).1);
        assert!(output.stdout.len() < 2_000_000, "{format}: {} bytes", output.stdout.len());
    }
}

/// A plan whose results grow with the square of the interfaces is refused before they are made, unless the user says how many.
#[test]
fn a_plan_of_too_many_results_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let good = run_in(place.path(), &["interfaces", "--format", "json"]).stdout;
    let mut host: serde_json::Value = serde_json::from_slice(&good).unwrap();
    let base = host["interfaces"][0].clone();
    let list = host["interfaces"].as_array_mut().unwrap();
    for number in 0..10_000 {
        let mut one = base.clone();
        (one["name"], one["index"], one["loopback"]) =
            (format!("x{number}").into(), (1000 + number).into(), false.into());
        one["addresses"] = serde_json::json!([{"address": format!("10.{}.{}.1", number / 250, number % 250), "prefix": 24,
            "family": "ipv4", "class": "private", "scope_id": null, "label": null, "peer": null, "broadcast": null,
            "state": ["permanent"]}]);
        list.push(one);
    }
    fs::write(place.path().join("large.json"), host.to_string()).unwrap();
    for arguments in [
        "plan loopback --host large.json",
        "plan loopback --host large.json --format json",
        "diff loopback default --host large.json",
    ] {
        let output = shell(place.path(), &format!("ulimit -v {ROOM}; $B {arguments} > /dev/null"));
        let said = text(&output).1;
        assert_eq!(output.status.code(), Some(2), "{arguments}: {said}");
        assert!(said.contains("BS0095") && said.contains("--max-results"), "{arguments}: {said}");
    }
    let small = run_in(place.path(), &["plan", "loopback", "--max-results", "1"]);
    assert_eq!(small.status.code(), Some(2), "{:?}", text(&small));
}
