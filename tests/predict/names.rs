//! Alternative names, labels and zones of interfaces, against the kernel's own look-up.

use crate::support::netns::Netns;
use crate::support::program::text;
use crate::{json, run};

pub fn interfaces_are_found_by_every_name() {
    let (ns, far) = (Netns::new(), Netns::new());
    ns.wire("eth0", &far, "p0");
    ns.address("eth0", "192.0.2.1/24");
    ns.ip("addr add 192.0.2.77/24 dev eth0 label eth0:1");
    ns.ip("link property add dev eth0 altname enp7s0 altname lan");
    ns.ip("-6 addr add fe80::77/64 dev eth0 nodad");
    let interfaces = json(&run(&ns, &["interfaces", "--json"]));
    let eth0 = interfaces["interfaces"].as_array().unwrap().iter().find(|one| one["name"] == "eth0").unwrap();
    assert_eq!(eth0["altnames"], serde_json::json!(["enp7s0", "lan"]));
    for (bind, address, zone) in [
        ("0.0.0.0:8080,device=enp7s0", "0.0.0.0", false),
        ("enp7s0:8080,family=ipv4", "192.0.2.1", false),
        ("la*:8080,family=ipv4", "192.0.2.1", false),
        ("[fe80::77%lan]:8080", "fe80::77", true),
        ("[fe80::77]:8080,device=eth0", "fe80::77", true),
        ("[fe80::77]:8080,device=enp7s0", "fe80::77", true),
    ] {
        let probe = json(&run(&ns, &["probe", "--json", "-b", bind]));
        let socket = &probe["sockets"][0];
        assert_eq!(
            socket["socket"]["address"].as_str().unwrap().split('%').next(),
            Some(address),
            "{bind}: {socket:#}"
        );
        assert_eq!(socket["bind"]["observed"]["outcome"], "ok", "{bind}: {socket:#}");
        assert_eq!(socket["bind"]["predicted"]["outcome"], "ok", "{bind}: {socket:#}");
        assert_eq!(socket["socket"]["scope_id"].is_null(), !zone, "{bind}: {socket:#}");
        assert_eq!(probe["summary"]["disagree"], 0, "{bind}: {probe:#}");
    }
    expectations_and_steps_know_alternative_names(&ns);
    for bind in ["eth0:1:8080", "0.0.0.0:8080,device=eth0:1"] {
        let (stdout, stderr) = text(&run(&ns, &["plan", "-b", bind]));
        let said = format!("{stdout}{stderr}");
        assert!(said.contains("192.0.2.77") && said.contains("label"), "{bind}: {said}");
    }
    let output = run(&ns, &["plan", "-b", "[fe80::77%eth0]:8080,device=lo"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).1.contains("BS0015"), "{:?}", text(&output));
    // A port of a bridge as the device.
    ns.ip("link add br0 type bridge");
    ns.ip("link set eth0 master br0");
    let (stdout, _) = text(&run(&ns, &["plan", "-b", "0.0.0.0:8080,device=eth0"]));
    assert!(stdout.contains("device = \"br0\""), "{stdout}");
}

/// Results have the name of an interface; profiles and command lines may have another one.
fn expectations_and_steps_know_alternative_names(ns: &Netns) {
    let profile = |from: &str, not: &str| {
        format!(
            "schema = 1\nname = \"p\"\n[[listener]]\nname = \"web\"\nbind = \"192.0.2.1\"\nport = 8080\n\
             [[expect]]\nlistener = \"web\"\n{from} = [\"{not}\"]\n"
        )
    };
    for (rule, source, exit) in [
        ("reachable_from", "link:lan", 0),
        ("reachable_from", "link:la*", 0),
        ("not_reachable_from", "link:lan", 1),
        ("reachable_from", "link:wan", 3),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), profile(rule, source)).unwrap();
        let output = run(ns, &["plan", file.path().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(exit), "{rule} {source}: {:?}", text(&output));
    }
    let steps = |from: &str| {
        let output = run(ns, &["plan", "-b", "192.0.2.1:8080", "--steps", from, "192.0.2.1", "8080"]);
        (output.status.code(), text(&output).0)
    };
    assert_eq!(steps("link:lan"), steps("link:eth0"));
    assert!(steps("link:lan").1.contains("accepted"), "{:?}", steps("link:lan"));
}
