//! Experiments in labs: every combination is tried, and the results decide.

use std::time::Instant;

use libtest_mimic::Trial;

use crate::agree::lab;

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("an_experiment_agrees_with_its_predictions", || {
            an_experiment_agrees_with_its_predictions();
            Ok(())
        }),
        Trial::test("topologies_can_be_a_factor", || {
            topologies_can_be_a_factor();
            Ok(())
        }),
    ]
}

fn an_experiment_agrees_with_its_predictions() {
    let begun = Instant::now();
    let (_, _) = lab(&["v6only-matrix"]);
    let one = begun.elapsed();
    let begun = Instant::now();
    let (document, exit) = lab(&["v6only-experiment", "--vary=*.reuse_address=true,false"]);
    assert_eq!(exit, 1);
    assert!(begun.elapsed() < 20 * one, "24 combinations took {:?}, one run {one:?}", begun.elapsed());
    assert_eq!(document["schema"], "bindscope.experiment/1");
    let summary = &document["summary"];
    assert_eq!((summary["runs"].as_u64(), summary["disagree"].as_u64()), (Some(24), Some(0)), "{summary}");
    let effect = |source: &str, destination: &str| {
        let effects = document["effects"].as_array().unwrap();
        effects
            .iter()
            .find(|one| one["cell"]["source"] == source && one["cell"]["destination"] == destination)
            .unwrap_or_else(|| panic!("{source} to {destination}"))
    };
    let ipv4 = effect("node:lan", "192.0.2.1");
    let factors = serde_json::json!(["v6.v6only", "net.ipv6.bindv6only", "order"]);
    assert_eq!(ipv4["decided_by"], factors, "{ipv4:#}");
    // The first socket keeps the port where both cover IPv4.
    for row in ipv4["outcomes"].as_array().unwrap() {
        let values = &row["values"];
        let covers = match values["v6.v6only"].as_str().unwrap() {
            "false" => true,
            "system" => values["net.ipv6.bindv6only"] == "0",
            _ => false,
        };
        let expected = if covers && values["order"] == "v6 v4" { "v6" } else { "v4" };
        assert_eq!(row["listener"], expected, "{row}");
    }
}

fn topologies_can_be_a_factor() {
    let (document, _) =
        lab(&["loopback", "--vary=topology=two-sided,v4-only", "--vary=*.bind=0.0.0.0,127.0.0.1"]);
    assert_eq!(document["summary"]["disagree"], 0, "{}", document["summary"]);
    let absent = |row: &serde_json::Value| row["values"]["topology"] == "v4-only" && row["present"] == false;
    let effects = document["effects"].as_array().unwrap();
    let of_ipv6 =
        effects.iter().filter(|one| one["cell"]["destination"].as_str().unwrap().starts_with("2001:db8:"));
    let mut count = 0;
    for effect in of_ipv6 {
        count += 1;
        assert!(effect["decided_by"].as_array().unwrap().contains(&"topology".into()), "{effect:#}");
        assert!(effect["outcomes"].as_array().unwrap().iter().any(absent), "{effect:#}");
    }
    assert!(count > 0);
}
