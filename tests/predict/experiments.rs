//! Experiments: the factors that are named, every format, and what is refused.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::program::text;
use crate::support::random::{Random, portion};
use crate::support::{netns::Netns, program};
use crate::{exits, host, json, profile, run};

/// The snapshot of a host with two links.
const HOST: &str = "tests/data/experiment/host.json";

fn planned(words: &[&str], columns: &str) -> std::process::Output {
    let mut command = program::bindscope(&[&["plan"], words, &["--host", HOST]].concat());
    command.env("COLUMNS", columns);
    program::finish(
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap(),
    )
}

/// Compares with a file; `BINDSCOPE_BLESS=1` writes it.
fn golden(name: &str, found: &str) {
    let path = format!("tests/data/experiment/{name}");
    let found = found.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    if std::env::var_os("BINDSCOPE_BLESS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), found, "{path}: look, then set BINDSCOPE_BLESS=1");
}

pub fn an_experiment_is_shown_in_every_format() {
    for columns in [60, 80, 120, 200] {
        let output = planned(&["v6only-experiment"], &columns.to_string());
        exits(&output, 1);
        let shown = text(&output).0;
        assert!(shown.lines().all(|line| line.chars().count() <= columns), "{columns}: {shown}");
        golden(&format!("v6only-{columns}.txt"), &shown);
    }
    let csv = text(&planned(&["v6only-experiment", "--format", "csv"], "80")).0;
    golden("v6only.csv", &csv);
    let document = planned(&["v6only-experiment", "--json"], "80");
    golden("v6only.json", &text(&document).0);
    let document = json(&document);
    assert_eq!(document["schema"], "bindscope.experiment/1");
    // One row for each combination and pair, and the heading.
    let pairs = document["effects"].as_array().unwrap().len();
    assert_eq!(csv.lines().count(), 1 + 12 * pairs);
    let page = text(&planned(&["v6only-experiment", "--format", "html"], "80")).0;
    assert!(page.contains("What decides the results") && !page.contains("<script"), "{page}");
    for format in ["markdown", "junit", "github"] {
        exits(&planned(&["v6only-experiment", "--format", format], "80"), 2);
    }
}

/// Outcome, listener and ingress interface of each pair, from a plan of one combination.
fn results(words: &[&str]) -> BTreeMap<String, String> {
    let document = json(&planned(&[words, &["--json"]].concat(), "80"));
    let effects = document["effects"].as_array().unwrap();
    let result = |effect: &Value| {
        let outcome = &effect["outcomes"][0];
        let parts =
            ["present", "outcome", "listener", "candidates", "ingress"].map(|key| outcome[key].to_string());
        (effect["cell"].to_string(), parts.join(" "))
    };
    effects.iter().map(result).collect()
}

/// Factors for the profile `v6only-experiment`, each with two or three values.
const FACTORS: [(&str, &[&str]); 9] = [
    ("v6.v6only", &["true", "false", "\"system\""]),
    ("net.ipv6.bindv6only", &["0", "1"]),
    ("order", &["profile", "reverse"]),
    ("v4.device", &["none", "eth0", "eth1"]),
    ("v6.device", &["none", "eth1"]),
    ("*.reuse_port", &["false", "true"]),
    ("v4.bind", &["0.0.0.0", "127.0.0.1", "::"]),
    ("v6.port", &["9110", "9111"]),
    ("*.reuse_address", &["true", "false"]),
];

/// The factors that an experiment names are those of comparing all pairs of combinations, each planned alone.
pub fn deciding_factors_are_those_of_all_pairs() {
    let mut random = Random::seeded("deciding factors");
    for _ in 0..portion(6) {
        let mut factors: Vec<(&str, &[&str])> = Vec::new();
        while factors.len() < 3 {
            let one = *random.pick(&FACTORS);
            if !factors.iter().any(|other| other.0 == one.0) {
                factors.push(one);
            }
        }
        let words = |values: &[&[&str]]| -> Vec<String> {
            // The factors of the profile that are not among them have one value.
            let fixed = [("v6.v6only", "true"), ("net.ipv6.bindv6only", "0"), ("order", "profile")];
            let fixed = fixed.iter().filter(|(key, _)| !factors.iter().any(|(other, _)| other == key));
            let fixed = fixed.map(|(key, value)| format!("--vary={key}={value}"));
            let varied = factors.iter().zip(values);
            let varied = varied.map(|((key, _), values)| format!("--vary={key}={}", values.join(",")));
            std::iter::once("v6only-experiment".to_owned()).chain(fixed).chain(varied).collect()
        };
        let all: Vec<&[&str]> = factors.iter().map(|(_, values)| *values).collect();
        let all_words = words(&all);
        let all_words: Vec<&str> = all_words.iter().map(String::as_str).collect();
        let output = planned(&[&all_words[..], &["--json"]].concat(), "80");
        let document = json(&output);
        // Each combination alone.
        let mut alone: Vec<(Vec<usize>, BTreeMap<String, String>)> = Vec::new();
        for a in 0..all[0].len() {
            for b in 0..all[1].len() {
                for c in 0..all[2].len() {
                    let one = words(&[&all[0][a..=a], &all[1][b..=b], &all[2][c..=c]]);
                    let one: Vec<&str> = one.iter().map(String::as_str).collect();
                    alone.push((vec![a, b, c], results(&one)));
                }
            }
        }
        // A combination alone is not asked for the ports of the others.
        let mut compared = 0;
        for effect in document["effects"].as_array().unwrap() {
            let cell = effect["cell"].to_string();
            if alone.iter().any(|(_, one)| !one.is_empty() && !one.contains_key(&cell)) {
                continue;
            }
            compared += 1;
            let mut sets: BTreeSet<Vec<usize>> = BTreeSet::new();
            for (a, one) in &alone {
                for (b, other) in &alone {
                    // A contradiction has no results at all.
                    if one.is_empty() || other.is_empty() {
                        continue;
                    }
                    if one.get(&cell) != other.get(&cell) {
                        sets.insert((0..3).filter(|&factor| a[factor] != b[factor]).collect());
                    }
                }
            }
            let minimal = |set: &&Vec<usize>| {
                !sets.iter().any(|other| other != *set && other.iter().all(|factor| set.contains(factor)))
            };
            let expected: BTreeSet<&str> =
                sets.iter().filter(minimal).flatten().map(|&factor| factors[factor].0).collect();
            let named: BTreeSet<&str> =
                effect["decided_by"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
            assert_eq!(named, expected, "{cell} of {all_words:?}");
        }
        assert!(compared > 0);
    }
}

pub fn binds_that_fail_and_contradictions_are_results() {
    let both = ["v6only-experiment", "--vary=v4.bind=0.0.0.0,::", "--vary=v4.v6only=true", "--json"];
    let document = json(&planned(&both, "80"));
    assert_eq!(
        (document["summary"]["runs"].as_u64(), document["summary"]["invalid"].as_u64()),
        (Some(24), Some(12))
    );
    let invalid = document["runs"].as_array().unwrap().iter().filter(|run| !run["invalid_because"].is_null());
    assert!(invalid.clone().all(|run| run["values"]["v4.bind"] == "0.0.0.0" && run["summary"].is_null()));
    assert_eq!(invalid.count(), 12);
    let in_use = document["bind_effects"].to_string();
    assert!(in_use.contains("EADDRINUSE"), "{in_use}");
    // Nothing was checked where no combination is possible.
    exits(&planned(&["v6only-experiment", "--vary=v4.v6only=true,false"], "80"), 3);
}

pub fn experiments_that_cannot_be_run_are_refused() {
    for (words, wanted) in [
        (&["--vary=v6.v6onyl=true"][..], "did you mean `v6.v6only`?"),
        (&["--vary=v6.v6only=true", "--vary=v6.v6only=false"], "varied twice"),
        (&["--vary=*.device=none", "--vary=v4.device=eth0"], "both change v4.device"),
        (&["--vary=topology=two-sided"], "lab run"),
        (&["--vary=profile=defualt,loopback"], "did you mean the built-in profile default?"),
        (&["--vary=net.core.somaxconn=1,2"], "no prediction depends"),
        (&["--vary=v6.port=1,2,3,4,5,6,7,8,9,10", "--vary=v4.port=1,2,3,4,5,6,7,8,9,10"], "--max-runs 1200"),
    ] {
        let output = planned(&[&["v6only-experiment"], words].concat(), "80");
        exits(&output, 2);
        assert!(text(&output).1.contains(wanted), "{words:?}: {}", text(&output).1);
    }
    // In a profile the problem has its position.
    let (_directory, path) = profile(
        "[[listener]]\nname = 'web'\nport = 80\n[[vary]]\nkey = 'web.backlgo'\nvalues = [1]\n[[vary]]\nkey = 'web.port'\nvalues = [80, 'x']\n[[vary]]\nkey = 'web.follow'\nvalues = []\n",
    );
    let output = planned(&[&path], "80");
    exits(&output, 2);
    let shown = text(&output).1;
    for wanted in ["did you mean `web.backlog`?", ":7:", "not a valid port", ":11:", "empty list"] {
        assert!(shown.contains(wanted), "{wanted}: {shown}");
    }
}

pub fn a_probe_varies_what_it_may_and_agrees() {
    let (ns, _far) = host();
    let output = run(&ns, &["probe", "v6only-experiment", "--vary=*.reuse_address=true,false", "--json"]);
    exits(&output, 1);
    assert!(text(&output).1.contains("probe does not change settings"), "{}", text(&output).1);
    let document = json(&output);
    assert_eq!(document["command"], "probe");
    assert_eq!(
        (document["summary"]["runs"].as_u64(), document["summary"]["disagree"].as_u64()),
        (Some(12), Some(0))
    );
    exits(&run(&ns, &["probe", "v6only-experiment", "--vary=net.ipv6.bindv6only=0,1"]), 2);
}

pub fn profiles_can_be_a_factor_and_experiments_compared() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (a, b) = (path("a.json"), path("b.json"));
    for (to, values) in [(&a, "loopback,all-interfaces"), (&b, "loopback,default")] {
        exits(&planned(&["--vary", &format!("profile={values}"), "--json", "-o", to], "80"), 0);
    }
    let ns = Netns::new();
    exits(&run(&ns, &["diff", &a, &a]), 0);
    let output = run(&ns, &["diff", &a, &b, "--format", "json"]);
    exits(&output, 1);
    let kinds: BTreeSet<String> = json(&output)["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["kind"].as_str().unwrap().to_owned())
        .collect();
    assert!(kinds.contains("effect") && kinds.contains("combination"), "{kinds:?}");
}
