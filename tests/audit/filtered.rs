//! What an audit says that packet filters leave of the exposure of each socket.

use serde_json::{Value, json};

use super::published::nft;
use super::support::netns::{Netns, two_hosts};
use super::support::program::{flat, text};
use super::{dual, json_in, policy, run_in, server};

/// A host with a link and a router on it that lets clients of one network reach port 22, and all reach port 80.
fn filtered_host() -> Option<(Netns, Netns)> {
    let (host, there) = two_hosts();
    host.ip("route add default via 192.0.2.2");
    let rules = r#"table inet t {
        chain rules { ip saddr 10.0.0.0/8 tcp dport 22 accept; tcp dport 80 accept; }
        chain input { type filter hook input priority 0; policy drop;
            iif lo accept
            ct state established,related accept
            icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
            jump rules
        }
    }"#;
    nft(&host, &[rules]).then_some((host, there))
}

fn socket(document: &Value, port: u16) -> Value {
    let sockets = document["sockets"].as_array().unwrap().iter();
    let mut found = sockets.filter(|one| one["socket"]["port"] == port);
    found.next().unwrap_or_else(|| panic!("{port}: {document:#}")).clone()
}

fn codes(document: &Value) -> Vec<(String, String)> {
    let findings = document["findings"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    findings.map(|one| (text(&one["code"]), text(&one["message"]))).collect()
}

pub fn filters_narrow_the_exposure_of_a_listener() {
    let Some((host, _there)) = filtered_host() else { return };
    let _held = server(&host, &["0.0.0.0:22", "0.0.0.0:25", "127.0.0.1:81"]);
    let http = host.run(|| dual(80));
    let document = json_in(&host, &["audit", "--json"]);
    assert_eq!(document["exposure_filtered_because"], Value::Null);
    let ssh = socket(&document, 22);
    assert_eq!(ssh["socket"]["exposure"]["ipv4"], "global");
    assert_eq!(
        ssh["exposure_filtered"],
        json!({"ipv4": "private", "ipv6": "none", "narrowed": ["ipv4"]}),
        "{ssh:#}"
    );
    let from = &ssh["reached_from"][0];
    assert_eq!((&from["network"], &from["interface"]), (&"10.0.0.0/8".into(), &"eth0".into()), "{ssh:#}");
    assert_eq!((&from["by"]["chain"], &from["by"]["rule"]), (&"rules".into(), &1.into()), "{ssh:#}");
    assert_eq!(ssh["reached_from"].as_array().unwrap().len(), 1);
    let smtp = socket(&document, 25);
    assert_eq!(smtp["exposure_filtered"]["ipv4"], "loopback", "{smtp:#}");
    assert_eq!(smtp["reached_from"], json!([]));
    let web = socket(&document, 80);
    assert_eq!(
        web["exposure_filtered"],
        json!({"ipv4": "global", "ipv6": "global", "narrowed": []}),
        "{web:#}"
    );
    assert_eq!(socket(&document, 81)["exposure_filtered"]["ipv4"], "loopback");
    let messages: Vec<String> = codes(&document)
        .into_iter()
        .filter(|(code, _)| code == "BS1043")
        .map(|(_, message)| message)
        .collect();
    assert_eq!(
        messages,
        [
            "IPv4: anywhere; filtered: only 10.0.0.0/8 (inet t rules rule 1)",
            "IPv4: anywhere; filtered: no other host (policy of inet t input)",
        ]
    );
    assert_eq!(document["summary"]["filtered"], 2);
    let (human, _) = text(&run_in(&host, &["audit"]));
    for part in ["anywhere; filtered", "only 10.0.0.0/8 (inet t rules rule 1)", "2 sockets filtered"] {
        assert!(flat(&human).contains(part), "{part}: {human}");
    }
    let (markdown, _) = text(&run_in(&host, &["audit", "--format", "markdown"]));
    assert!(markdown.contains("IPv4 anywhere; filtered: only 10.0.0.0/8"), "{markdown}");
    // The snapshot of a privileged user serves one who may not read the rules.
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    assert!(run_in(&host, &["interfaces", "--json", "-o", path]).status.success());
    assert!(nft(&host, &["flush ruleset"]));
    let document = json_in(&host, &["audit", "--json", "--host", path]);
    assert_eq!(socket(&document, 22)["exposure_filtered"]["ipv4"], "private");
    assert_eq!(socket(&json_in(&host, &["audit", "--json"]), 22)["exposure_filtered"]["ipv4"], "global");
    drop(http);
}

pub fn a_policy_requires_a_filter() {
    let Some((host, _there)) = filtered_host() else { return };
    let _held = server(&host, &["0.0.0.0:22", "0.0.0.0:80"]);
    let exit = |rules: &str, head: &str| {
        let (_directory, path) = policy(rules);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("[policy]\n", &format!("[policy]\n{head}"), 1)).unwrap();
        run_in(&host, &["audit", "--policy", &path]).status.code()
    };
    let rule = |port: u16, exposure: &str| {
        format!("[[allow]]\nid = \"p{port}\"\nport = {port}\nexposure = \"{exposure}\"\nreason = \"r\"\n")
    };
    let by = |ssh: &str, web: &str| rule(22, ssh) + &rule(80, web);
    assert_eq!(exit(&by("filtered", "global"), ""), Some(0));
    assert_eq!(exit(&by("filtered", "filtered"), ""), Some(1), "port 80 is open to all");
    assert_eq!(exit(&by("private", "global"), ""), Some(1), "the socket's own exposure is wider");
    assert_eq!(exit(&by("private", "global"), "exposure = \"filtered\"\n"), Some(0));
    assert_eq!(exit(&by("link", "global"), "exposure = \"filtered\"\n"), Some(1));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.toml");
    let path = path.to_str().unwrap();
    assert!(run_in(&host, &["audit", "--write-policy", path]).status.success());
    let written = std::fs::read_to_string(path).unwrap();
    assert_eq!(written.matches("exposure = \"filtered\"").count(), 1, "{written}");
    assert_eq!(run_in(&host, &["audit", "--policy", path]).status.code(), Some(0));
    // Without the filter the same policy fails.
    assert!(nft(&host, &["flush ruleset"]));
    assert_eq!(run_in(&host, &["audit", "--policy", path]).status.code(), Some(1));
}

pub fn what_a_rule_about_users_leaves_is_not_known() {
    let Some((host, _there)) = filtered_host() else { return };
    let _held = server(&host, &["0.0.0.0:22", "0.0.0.0:80"]);
    let rule = "add chain inet t output { type filter hook output priority 0; }; add rule inet t output meta skuid 12 drop";
    assert!(nft(&host, &[rule]));
    let document = json_in(&host, &["audit", "--json"]);
    for port in [22, 80] {
        assert_eq!(socket(&document, port)["exposure_filtered"]["ipv4"], Value::Null, "{document:#}");
    }
    let (_directory, path) = policy("[[allow]]\nid = \"all\"\nexposure = \"filtered\"\n");
    assert_eq!(run_in(&host, &["audit", "--policy", &path]).status.code(), Some(3));
}

/// Docker publishes a port that ufw denies: IPv4 clients get through, IPv6 clients do not.
pub fn a_published_port_that_ipv6_filters_is_found() {
    let (host, _there) = two_hosts();
    let container = Netns::new();
    host.wire("docker0", &container, "far");
    host.address("docker0", "172.17.0.1/16");
    host.sysctl("net.ipv4.ip_forward", "1");
    let rules = |to: &str| {
        format!(
            r#"table inet filter {{ chain input {{ type filter hook input priority 0; policy drop;
            iif lo accept
            ct state established,related accept
            icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
        }}; }}
        table ip nat {{ chain prerouting {{ type nat hook prerouting priority -100;
            {to} iifname != "docker0" tcp dport 5432 dnat to 172.17.0.2:5432
        }}; }}"#
        )
    };
    if !nft(&host, &[&rules("")]) {
        return;
    }
    // The proxy.
    let proxy = host.run(|| dual(5432));
    let document = json_in(&host, &["audit", "--json"]);
    let found = codes(&document);
    for code in ["BS1041", "BS1042", "BS1044"] {
        assert!(found.iter().any(|(one, _)| one == code), "{code}: {found:?}");
    }
    assert_eq!(document["published"][0]["bypasses_input"], true);
    assert_eq!(document["summary"]["published"], 1);
    let (human, _) = text(&run_in(&host, &["audit"]));
    let human = flat(&human);
    let line = "5432 -> 172.17.0.2:5432, DNAT (ip nat prerouting rule 1); bypasses the INPUT rules";
    assert!(human.contains(line) && human.contains("no socket: DNAT 4 5"), "{human}");
    let waivers = ["BS1041", "BS1042"].map(|code| {
        format!(
            "[[waive]]\ncode = \"{code}\"\nmatch = {{ port = 5432 }}\nreason = \"the database is public\"\n"
        )
    });
    let allow = "[[allow]]\nid = \"all\"\nexposure = \"global\"\nreason = \"r\"\n";
    let (_directory, path) = policy(&(allow.to_owned() + &waivers.concat()));
    let document = json_in(&host, &["audit", "--json", "--policy", &path]);
    let findings = document["findings"].as_array().unwrap();
    for code in ["BS1041", "BS1042"] {
        let one = findings.iter().find(|one| one["code"] == code).unwrap();
        assert_eq!(one["waived"], "the database is public", "{one:#}");
    }
    assert!(findings.iter().all(|one| one["code"] != "BS1007"), "{findings:#?}");
    assert!(nft(&host, &["flush ruleset", &rules("ip daddr 127.0.0.1")]));
    let found = codes(&json_in(&host, &["audit", "--json"]));
    for code in ["BS1041", "BS1042", "BS1044"] {
        assert!(!found.iter().any(|(one, _)| one == code), "{code}: {found:?}");
    }
    drop(proxy);
}
