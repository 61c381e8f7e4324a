//! `--steps` and `--ruleset`: the path of one connection, and rules that are not loaded yet.

use serde_json::Value;

use crate::corpus::nft;
use crate::support::netns::{Netns, two_hosts};
use crate::support::program;
use crate::support::tool;

fn run(ns: &Netns, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = ns.run(|| program::run(arguments));
    let (stdout, stderr) = program::text(&output);
    (output.status.code(), stdout, stderr)
}

fn json(ns: &Netns, arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = run(ns, &[arguments, &["--format", "json"]].concat());
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {code:?} {stdout} {stderr}"))
}

/// Stage and place of each step, such as `input inet t user rule 1`.
fn stages(document: &Value) -> Vec<String> {
    let steps = document["steps"].as_array().unwrap().iter();
    let of = |step: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let by = &step["by"];
        let rule = match (by.is_null(), by["rule"].as_u64()) {
            (true, _) => String::new(),
            (false, Some(rule)) => format!(" {} rule {rule}", text(&by["chain"])),
            (false, None) => format!(" {} policy", text(&by["chain"])),
        };
        format!("{} {}{rule}", text(&step["packet"]), text(&step["stage"]))
    };
    steps.map(of).collect()
}

const RULES: &str = r#"table inet t {
    chain user { ip saddr 10.0.0.0/8 tcp dport 22 accept; tcp dport 25 reject with tcp reset; }
    chain input { type filter hook input priority 0; policy drop;
        iif lo accept
        ct state established,related accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        jump user
    }
}
table ip nat {
    chain pre { type nat hook prerouting priority -100; tcp dport 8022 redirect to :22; }
}"#;

pub fn a_path_is_followed_step_by_step() {
    if !tool("nft") {
        return;
    }
    let (ns, _far) = two_hosts();
    ns.ip("route add default via 192.0.2.2");
    nft(&ns, RULES).unwrap();
    let steps = |source: &str, port: &str| {
        json(&ns, &["plan", "--steps", source, "192.0.2.1", port, "0.0.0.0:22", "[::]:22"])
    };
    let accepted = steps("link:eth0 from 10.0.0.0/8", "22");
    assert_eq!(accepted["schema"], "bindscope.steps/1");
    assert_eq!(accepted["outcome"], "accepted", "{accepted:#}");
    assert_eq!(
        stages(&accepted),
        [
            "syn ingress",
            "syn prerouting",
            "syn prerouting pre policy",
            "syn routing",
            "syn input",
            "syn input input rule 4",
            "syn input user rule 1",
            "syn socket_lookup",
            "answer routing",
            "ack input",
            "ack input input rule 2",
            "ack result",
        ],
        "{accepted:#}"
    );
    let lookup =
        accepted["steps"].as_array().unwrap().iter().find(|step| step["stage"] == "socket_lookup").unwrap();
    let wins: Vec<(bool, Option<bool>)> = lookup["candidates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["wins"].as_bool().unwrap(), one["matches"].as_bool()))
        .collect();
    assert_eq!(wins, [(true, Some(true)), (false, Some(false))], "{lookup:#}");
    // Others are dropped by the policy, and no socket is looked up.
    let dropped = steps("link:eth0", "22");
    assert_eq!(dropped["outcome"], "timeout");
    let all = stages(&dropped);
    assert!(all.contains(&"syn input input policy".to_owned()), "{all:?}");
    assert!(!all.iter().any(|stage| stage.contains("socket_lookup")), "{all:?}");
    let last = dropped["steps"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["code"], "BS3050", "{last:#}");
    // A redirect is a translation before the route.
    let moved = steps("link:eth0 from 10.0.0.0/8", "8022");
    let all = stages(&moved);
    let at =
        |what: &str| all.iter().position(|stage| stage == what).unwrap_or_else(|| panic!("{what}: {all:?}"));
    assert!(
        at("syn prerouting pre rule 1") < at("syn translation") && at("syn translation") < at("syn routing"),
        "{all:?}"
    );
    assert_eq!(moved["outcome"], "accepted");
    // Every assumption has a code.
    for document in [&accepted, &dropped, &moved] {
        let steps = document["steps"].as_array().unwrap();
        assert!(
            steps.iter().filter(|step| step["stage"] == "assumption").all(|step| step["code"].is_string())
        );
    }
    let (code, human, _) = run(&ns, &["plan", "--steps", "link:eth0", "192.0.2.1", "25", "0.0.0.0:22"]);
    assert_eq!(code, Some(0));
    let human = program::flat(&human);
    assert!(human.contains("link:eth0 -> tcp 192.0.2.1:25: refused"), "{human}");
    assert!(human.contains("inet t user rule 2: "), "{human}");
    // The deciding rule of the path is that of the plan.
    for wrong in [
        ["eth0", "192.0.2.1", "22"],
        ["link:eth9", "x", "22"],
        ["host", "192.0.2.1", "0"],
        ["link:eth0 beyond", "127.0.0.1", "22"],
    ] {
        let words = [&["plan", "--steps"], &wrong[..], &["0.0.0.0:22"]].concat();
        assert_eq!(run(&ns, &words).0, Some(2), "{wrong:?}");
    }
}

pub fn why_follows_the_path_of_a_client_on_this_host() {
    if !tool("nft") {
        return;
    }
    let (ns, _far) = two_hosts();
    nft(
        &ns,
        "table ip t { chain o { type filter hook output priority 0; tcp dport 80 reject with tcp reset; }; }",
    )
    .unwrap();
    let listener = ns.run(|| std::net::TcpListener::bind("127.0.0.1:80")).unwrap();
    let document = json(&ns, &["why", "127.0.0.1:80", "--steps"]);
    let path = &document["steps"][0];
    assert_eq!(path["outcome"], "refused", "{document:#}");
    assert!(stages(path).contains(&"syn output o rule 1".to_owned()), "{path:#}");
    assert_eq!(json(&ns, &["why", "127.0.0.1:80"])["steps"], Value::Null);
    let (_, human, _) = run(&ns, &["why", "127.0.0.1:80", "--steps"]);
    assert!(
        program::flat(&human).contains("A packet filter rejects the connection to 127.0.0.1: ip t o rule 1:"),
        "{human}"
    );
    drop(listener);
}

pub fn rules_of_a_file_are_read_back_and_compared() {
    if !tool("nft") {
        return;
    }
    let (ns, _far) = two_hosts();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let open = file(
        "open.nft",
        "table inet t { chain i { type filter hook input priority 0; iif eth0 tcp dport 25 drop; }; }",
    );
    let closed = file(
        "closed.nft",
        "table inet t { chain i { type filter hook input priority 0; iif eth0 tcp dport { 22, 25 } drop; }; }",
    );
    let outcome = |rules: &str, port: u16| {
        let document = json(&ns, &["plan", "--ruleset", rules, "0.0.0.0:22", "0.0.0.0:25"]);
        let cells = document["cells"].as_array().unwrap().iter();
        let mut found = cells.filter(|cell| {
            cell["source"] == "link:eth0" && cell["destination"] == "192.0.2.1" && cell["port"] == port
        });
        found.next().unwrap()["predicted"]["outcome"].clone()
    };
    assert_eq!((outcome(&open, 22), outcome(&open, 25)), ("accepted".into(), "timeout".into()));
    assert_eq!(outcome(&closed, 22), "timeout");
    // The namespace itself has no rules, before and after.
    let here = json(&ns, &["interfaces"]);
    assert_eq!(here["packet_filters"]["tables"], serde_json::json!([]), "{here:#}");
    let (code, text, error) =
        run(&ns, &["diff", &open, &closed, "--target", "0.0.0.0:22", "--target", "0.0.0.0:25"]);
    assert_eq!(code, Some(1), "{text} {error}");
    assert!(text.contains("22") && text.contains("accepted") && text.contains("timeout"), "{text}");
    assert_eq!(run(&ns, &["diff", &open, &open, "--target", "0.0.0.0:22"]).0, Some(0));
    // Two snapshots are compared in the same way.
    let before = directory.path().join("before.json");
    let after = directory.path().join("after.json");
    assert_eq!(run(&ns, &["interfaces", "--json", "-o", before.to_str().unwrap()]).0, Some(0));
    nft(&ns, "table ip t { chain i { type filter hook input priority 0; tcp dport 22 drop; }; }").unwrap();
    assert_eq!(run(&ns, &["interfaces", "--json", "-o", after.to_str().unwrap()]).0, Some(0));
    let files = [before.to_str().unwrap(), after.to_str().unwrap()];
    assert_eq!(run(&ns, &["diff", files[0], files[1], "--target", "0.0.0.0:22"]).0, Some(1));
    assert_eq!(run(&ns, &["diff", files[0], files[1], "--target", "0.0.0.0:80"]).0, Some(0));
    if tool("iptables-nft-restore") {
        let saved = file(
            "saved.rules",
            "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n",
        );
        assert_eq!((outcome(&saved, 22), outcome(&saved, 25)), ("accepted".into(), "timeout".into()));
    }
    let document = json(&ns, &["audit", "--ruleset", &closed]);
    assert_eq!(document["exposure_filtered_because"], Value::Null, "{document:#}");
    let document = json(&ns, &["lab", "run", "--twin", "--ruleset", &closed, "0.0.0.0:22"]);
    assert!(
        document["cells"]
            .as_array()
            .unwrap()
            .iter()
            .any(|cell| cell["observed"]["filter"]["by"]["table"] == "t"),
        "{document:#}"
    );
    let bad = file("bad.nft", "table ip t { chain x { nonsense; }; }");
    let (code, _, error) = run(&ns, &["plan", "--ruleset", &bad, "0.0.0.0:22"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("refuses the rules"), "{error}");
    let (code, _, _) = run(&ns, &["plan", "--ruleset", "/nonexistent/rules.nft", "0.0.0.0:22"]);
    assert_eq!(code, Some(2));
}
