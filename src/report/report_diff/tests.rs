//! Tests of the module.

use serde_json::Value;

use super::*;

/// Compares documents as they are read.
fn compare(a: (&str, &Value), b: (&str, &Value)) -> Comparison {
    let lists = |document: &Value| Lists::deserialize(document).unwrap();
    super::compare((a.0, &lists(a.1)), (b.0, &lists(b.1)))
}

#[test]
fn what_is_in_one_only_is_a_difference() {
    let cell = |listener: &str| {
        serde_json::json!({"schema": "bindscope.plan/1", "cells": [{
            "source": "host", "protocol": "tcp", "destination": "127.0.0.1", "port": 80,
            "predicted": {"outcome": "accepted", "listener": listener, "ingress": "lo"}, "observed": null}]})
    };
    let (a, b) = (cell("x"), cell("y"));
    assert_eq!(compare(("a", &a), ("b", &a)).differences, []);
    let found = compare(("a", &a), ("b", &b));
    assert_eq!(found.differences.len(), 1);
    assert_eq!(found.differences[0].a.as_deref(), Some("accepted by x on lo"));
}

#[test]
fn untested_destinations_are_not_differences() {
    let report = |asked: Value, cells: &[(&str, &str, u16)]| {
        let cells = cells.iter().map(|(source, to, port)| {
            let said = serde_json::json!({"outcome": "refused", "listener": null, "ingress": null});
            serde_json::json!({"source": source, "protocol": "tcp", "destination": to, "port": port,
                               "predicted": said, "observed": null})
        });
        serde_json::json!({"schema": "bindscope.plan/1", "requested": asked, "cells": cells.collect::<Vec<_>>()})
    };
    let all = serde_json::json!({"only": null, "more": []});
    let plan = report(all.clone(), &[("host", "10.0.0.1", 80), ("link:eth0", "10.0.0.1", 80)]);
    let counts = |other: &Value| {
        let found = compare(("a", &plan), ("b", other));
        (found.compared, found.differences.len(), found.only_in_one.len())
    };
    let more = serde_json::json!({"only": null, "more": ["0.0.0.0"]});
    let same = [("host", "10.0.0.1", 80), ("link:eth0", "10.0.0.1", 80)];
    assert_eq!(counts(&report(more, &[&same[..], &[("host", "0.0.0.0", 80)]].concat())), (2, 0, 1));
    // An additional address and a missing link are differences; another port is not.
    assert_eq!(counts(&report(all.clone(), &[&same[..], &[("host", "10.0.0.2", 80)]].concat())), (3, 1, 0));
    assert_eq!(counts(&report(all.clone(), &[same[0], ("link:eth1", "10.0.0.1", 80)])), (3, 2, 0));
    assert_eq!(counts(&report(all.clone(), &[same[0], same[1], ("host", "10.0.0.1", 81)])), (2, 0, 1));
    assert_eq!(counts(&report(all, &[])), (0, 0, 2));
    let only = serde_json::json!({"only": ["10.0.0.2"], "more": []});
    assert_eq!(counts(&report(only, &[("host", "10.0.0.2", 80)])), (1, 1, 2));
}

#[test]
fn what_is_left_open_contradicts_nothing() {
    let cell = |predicted: Value, observed: Value| {
        serde_json::json!({"schema": "bindscope.plan/1", "cells": [{"source": "host", "protocol": "tcp",
            "destination": "127.0.0.1", "port": 80, "predicted": predicted, "observed": observed}]})
    };
    let said = |outcome: Value, listener: Value, candidates: Value, ingress: Value| serde_json::json!({"outcome": outcome, "listener": listener, "candidates": candidates, "ingress": ingress});
    for (predicted, seen, differ) in [
        // A foreign server does not report our ingress interface.
        (
            said("accepted".into(), Value::Null, ["nginx"].into(), "lo".into()),
            said("accepted".into(), Value::Null, Value::Null, Value::Null),
            0,
        ),
        // Some systems do not report it for the listeners of the profile either.
        (
            said("accepted".into(), "a".into(), Value::Null, "lo".into()),
            said("accepted".into(), "a".into(), Value::Null, Value::Null),
            0,
        ),
        (
            said("accepted".into(), Value::Null, vec!["a", "b"].into(), "lo".into()),
            said("accepted".into(), "b".into(), Value::Null, "lo".into()),
            0,
        ),
        (
            said(Value::Null, Value::Null, Value::Null, Value::Null),
            said("refused".into(), Value::Null, Value::Null, Value::Null),
            0,
        ),
        (
            said("accepted".into(), "a".into(), Value::Null, "lo".into()),
            said("accepted".into(), "a".into(), Value::Null, "eth0".into()),
            1,
        ),
    ] {
        let (plan, probe) = (cell(predicted.clone(), Value::Null), cell(predicted, seen));
        assert_eq!(compare(("a", &plan), ("b", &probe)).differences.len(), differ, "{probe:#}");
        assert_eq!(compare(("a", &probe), ("b", &plan)).differences.len(), differ, "{probe:#}");
    }
}

#[test]
fn names_are_escaped_once_whatever_a_document_has() {
    for (json, shown) in [("e\u{1b}", "e\\x1b"), ("\\xff", "\\xff"), ("a\\\\b", "a\\\\b")] {
        let host = serde_json::json!({"interfaces": [{"name": json, "up": true, "addresses": []}]});
        let found = compare(("a", &host), ("b", &serde_json::json!({"interfaces": []})));
        assert_eq!(found.differences[0].key, shown);
    }
}

#[test]
fn things_that_look_alike_are_numbered_in_linear_time() {
    let finding =
        |message: &str| serde_json::json!({"code": "BS1020", "message": message, "severity": "note"});
    let mut findings: Vec<Value> = (0..50_000).map(|_| finding("same")).collect();
    // Names that a number makes are taken already.
    findings.extend((2..200).map(|number| finding(&format!("same #{number}"))));
    let more = serde_json::json!({"findings": findings});
    findings.pop();
    let less = serde_json::json!({"findings": findings});
    let begun = std::time::Instant::now();
    let found = compare(("a", &more), ("b", &less));
    assert_eq!((found.compared, found.differences.len()), (50_198, 1));
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
}
