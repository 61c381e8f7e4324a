//! What a plan says of packet filters: the rule that the kernel's own trace names, and unknown where a rule cannot be predicted.

use serde_json::Value;

use crate::corpus::nft;
use crate::support::netns::{Netns, two_hosts};
use crate::support::program;
use crate::support::tool;
use crate::twin::{RULES, TCP, UDP, twin};

/// `plan` in a namespace, as a document.
fn plan(ns: &Netns, arguments: &[&str]) -> Value {
    let mut all = vec!["plan", "--format", "json"];
    all.extend(arguments);
    let output = ns.run(|| program::run(&all));
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {:?}", program::text(&output)))
}

fn predicted(document: &Value, source: &str, to: &str, port: u16) -> Value {
    let cells = document["cells"].as_array().unwrap().iter();
    let mut found =
        cells.filter(|cell| cell["source"] == source && cell["destination"] == to && cell["port"] == port);
    found.next().unwrap_or_else(|| panic!("{source} {to} {port}"))["predicted"].clone()
}

pub fn a_plan_names_the_rule_that_a_trace_names() {
    if !tool("nft") {
        return;
    }
    let (ns, _far) = two_hosts();
    nft(&ns, RULES).unwrap();
    let document = twin(&ns, &TCP, &UDP);
    let (mut compared, mut decided) = (0, 0);
    for cell in document["cells"].as_array().unwrap() {
        let (predicted, observed) = (&cell["predicted"], &cell["observed"]);
        if observed.is_null() || predicted["outcome"].is_null() {
            assert!(observed.is_null(), "{cell:#}");
            continue;
        }
        compared += 1;
        assert_eq!(cell["agrees"], true, "{cell:#}");
        assert_eq!(
            predicted["answer"]["kind"].is_null(),
            observed["answer"]["kind"].is_null() || predicted["filter"]["verdict"] != "reject",
            "{cell:#}"
        );
        if observed["filter"]["verdict"] != "accept" && !observed["filter"].is_null() {
            decided += 1;
            for key in ["verdict", "packet"] {
                assert_eq!(predicted["filter"][key], observed["filter"][key], "{cell:#}");
            }
            for key in ["family", "table", "chain", "rule", "handle"] {
                assert_eq!(predicted["filter"]["by"][key], observed["filter"]["by"][key], "{cell:#}");
            }
        }
        for key in ["address", "port"] {
            assert_eq!(predicted["translated"][key], observed["translated"][key], "{cell:#}");
        }
    }
    assert!(compared > 20 && decided > 10, "{compared} {decided}");
}

pub fn a_published_port_passes_by_the_rules_of_input() {
    if !tool("nft") {
        return;
    }
    let (ns, _far) = two_hosts();
    let container = Netns::new();
    ns.wire("docker0", &container, "far");
    ns.address("docker0", "172.17.0.1/16");
    ns.sysctl("net.ipv4.ip_forward", "1");
    nft(
        &ns,
        r#"table inet filter { chain input { type filter hook input priority 0; policy drop;
            ct state established,related accept
            icmpv6 type nd-neighbor-solicit accept
            tcp dport 5432 drop
        }; }
        table ip nat { chain prerouting { type nat hook prerouting priority -100;
            iifname != "docker0" tcp dport 5432 dnat to 172.17.0.2:5432
        }; }"#,
    )
    .unwrap();
    let document = plan(&ns, &["[::]:5432,v6only=false"]);
    let v4 = predicted(&document, "link:eth0", "192.0.2.1", 5432);
    assert_eq!((&v4["outcome"], &v4["why"]), (&Value::Null, &"BS3054".into()), "{v4:#}");
    assert_eq!(v4["translated"]["address"], "172.17.0.2");
    assert_eq!(v4["translated"]["by"]["chain"], "prerouting");
    let v6 = predicted(&document, "link:eth0", "2001:db8::1", 5432);
    assert_eq!((&v6["outcome"], &v6["why"]), (&"timeout".into(), &"BS3050".into()), "{v6:#}");
    assert_eq!((&v6["filter"]["by"]["chain"], &v6["filter"]["by"]["rule"]), (&"input".into(), &3.into()));
    let output = ns.run(|| program::run(&["plan", "-v", "[::]:5432,v6only=false"]));
    let (human, _) = program::text(&output);
    let human = program::flat(&human);
    assert!(human.contains("dropped: inet filter input rule 3: "), "{human}");
    assert!(human.contains("forwarded to 172.17.0.2:5432 by ip nat prerouting rule 1"), "{human}");
    // Only clients of the container's own network are told apart by the interface.
    assert!(human.contains("the results include packet filters"), "{human}");
}

pub fn what_a_rule_about_users_decides_is_not_known() {
    if !tool("nft") {
        return;
    }
    let (ns, _far) = two_hosts();
    let rules = |verdict: &str| {
        format!(
            "flush ruleset; table inet t {{ chain o {{ type filter hook output priority 0; meta skuid 12 {verdict}; }}; }}"
        )
    };
    nft(&ns, &rules("drop")).unwrap();
    let cell = predicted(&plan(&ns, &["0.0.0.0:80"]), "link:eth0", "192.0.2.1", 80);
    assert_eq!(
        (&cell["outcome"], &cell["why"], &cell["filter"]),
        (&Value::Null, &"BS3057".into(), &Value::Null)
    );
    assert_eq!(cell["unknown_because"], "inet t o rule 1: meta skuid 12 drop");
    // Where both possibilities end alike, nothing depends on it.
    nft(&ns, &rules("accept")).unwrap();
    let cell = predicted(&plan(&ns, &["0.0.0.0:80"]), "link:eth0", "192.0.2.1", 80);
    assert_eq!((&cell["outcome"], &cell["unknown_because"]), (&"accepted".into(), &Value::Null));
}

pub fn clients_that_rules_tell_apart_are_named() {
    if !tool("nft") {
        return;
    }
    let (ns, _far) = two_hosts();
    nft(
        &ns,
        "table ip t { chain i { type filter hook input priority 0; policy drop; ip saddr 192.0.2.128/25 accept; }; }",
    )
    .unwrap();
    let cell = predicted(&plan(&ns, &["0.0.0.0:80"]), "link:eth0", "192.0.2.1", 80);
    assert_eq!(cell["outcome"], "timeout", "{cell:#}");
    let assumes = &cell["filter"]["assumes"];
    assert_eq!(
        assumes,
        &serde_json::json!(["the client's address is not in 192.0.2.128/25, from which it is accepted"])
    );
    // They are a source of their own, and its results are certain.
    let document = plan(&ns, &["0.0.0.0:80"]);
    let cell = predicted(&document, "link:eth0 from 192.0.2.128/25", "192.0.2.1", 80);
    assert_eq!(
        (&cell["outcome"], &cell["filter"]["by"]["rule"]),
        (&"accepted".into(), &1.into()),
        "{cell:#}"
    );
    assert_eq!(cell["filter"]["assumes"], serde_json::json!([]));
    // Clients that rules name and treat like the others are no source of their own.
    nft(&ns, "flush ruleset; table ip t { chain i { type filter hook input priority 0; ip saddr 192.0.2.128/25 accept; }; }")
        .unwrap();
    let document = plan(&ns, &["0.0.0.0:80"]);
    assert!(!document.to_string().contains("192.0.2.128/25 "), "{document:#}");
    let sources: Vec<&str> =
        document["cells"].as_array().unwrap().iter().filter_map(|cell| cell["source"].as_str()).collect();
    assert!(!sources.iter().any(|source| source.contains(" from ")), "{sources:?}");
    // Clients beyond the routers of a link, in the narrowest network that names them.
    ns.ip("route add default via 192.0.2.2");
    nft(
        &ns,
        "flush ruleset; table ip t { chain i { type filter hook input priority 0; policy drop;
            ip saddr 10.1.0.0/16 reject with tcp reset; ip saddr 10.0.0.0/8 accept; }; }",
    )
    .unwrap();
    let document = plan(&ns, &["0.0.0.0:80"]);
    let outcome = |from: &str| {
        predicted(&document, &format!("link:eth0 from {from}"), "192.0.2.1", 80)["outcome"].clone()
    };
    assert_eq!((outcome("10.0.0.0/8"), outcome("10.1.0.0/16")), ("accepted".into(), "refused".into()));
}

pub fn without_rules_nothing_changes() {
    let (ns, _far) = two_hosts();
    let document = plan(&ns, &["0.0.0.0:80"]);
    let cell = predicted(&document, "link:eth0", "192.0.2.1", 80);
    assert_eq!((&cell["outcome"], &cell["filter"]), (&"accepted".into(), &Value::Null));
    if !tool("nft") {
        return;
    }
    // A snapshot without rules says that filters are not looked at.
    nft(&ns, RULES).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let snapshot = |more: &[&str]| {
        let arguments = [&["interfaces", "--format", "json", "--output", path], more].concat();
        assert!(ns.run(|| program::run(&arguments)).status.success());
        let output = program::run(&["plan", "--format", "json", "--host", path, "0.0.0.0:2205"]);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let outcome = predicted(&document, "link:eth0", "192.0.2.1", 2205)["outcome"].clone();
        (outcome, document["notes"].to_string())
    };
    let (outcome, notes) = snapshot(&["--no-filters"]);
    assert_eq!(outcome, "accepted");
    assert!(notes.contains("are not looked at"), "{notes}");
    let (outcome, notes) = snapshot(&[]);
    assert_eq!(outcome, "timeout");
    assert!(notes.contains("the results include packet filters"), "{notes}");
    // Rules that changed while they were read are not known, whatever was read of them.
    let torn =
        std::fs::read_to_string(path).unwrap().replace("\"consistent\": true", "\"consistent\": false");
    std::fs::write(path, torn).unwrap();
    let output = program::run(&["plan", "--format", "json", "--host", path, "0.0.0.0:2205"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cell = predicted(&document, "link:eth0", "192.0.2.1", 2205);
    assert_eq!((&cell["outcome"], &cell["why"]), (&Value::Null, &"BS3057".into()), "{cell:#}");
    assert!(cell["unknown_because"].to_string().contains("kept changing"), "{cell:#}");
    assert!(!document["notes"].to_string().contains("the results include"), "{}", document["notes"]);
}
