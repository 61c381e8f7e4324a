//! Limits that hold before the program acts, and documents of every kind that are made to use up time or memory.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::netns::Netns;
use crate::support::program::{bindscope, text};
use crate::support::tool;
use crate::{run_in, shell};

/// Address space that the program may use, in KiB: for a file of at most 1 MiB, and for one of at most 64 MiB.
const ROOM_FOR_TOML: u64 = 256 << 10;
const ROOM_FOR_JSON: u64 = 1 << 20;

/// A tenth of `count`; with `BINDSCOPE_LONG=1` all of it.
fn scaled(count: usize) -> usize {
    if std::env::var("BINDSCOPE_LONG").is_ok_and(|value| value == "1") { count } else { count / 10 }
}

/// Runs a command line within a limit of memory. The program ends with a documented exit code, in time, and says little.
fn bounded(place: &Path, what: &str, room: u64, arguments: &str) -> (i32, String) {
    let begun = Instant::now();
    let output = shell(place, &format!("ulimit -v {room}; $B {arguments} > out"));
    let said = text(&output).1;
    eprintln!("{what}: {arguments}: {:?}", begun.elapsed());
    let shown: String = said.chars().take(400).collect();
    assert_eq!(output.status.signal(), None, "{what}: {arguments}: {shown}");
    let code = output.status.code().unwrap();
    assert!((0..=4).contains(&code), "{what}: {arguments}: {code} {shown}");
    assert!(said.len() < 200_000, "{what}: {arguments}: {} bytes", said.len());
    assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {arguments}: {:?}", begun.elapsed());
    (code, said)
}

/// Every command that makes results refuses too many, before it binds a socket or builds a network.
#[test]
fn too_many_results_are_refused_before_anything_is_done() {
    let place = tempfile::tempdir().unwrap();
    let host = run_in(place.path(), &["interfaces", "--format", "json"]).stdout;
    fs::write(place.path().join("host.json"), host).unwrap();
    let traced = tool("strace");
    for arguments in [
        "plan --max-results 1 127.0.0.1:8099",
        "probe --max-results 1 127.0.0.1:8099",
        "probe --max-results 1 127.0.0.1:0",
        "probe --max-results 1000 --ports 1-65535",
        "probe --max-results 40 --sources all 127.0.0.1:8099 --destinations 127.0.0.1,127.0.0.2",
        "lab run --max-results 1 127.0.0.1:8099",
        "lab run --max-results 1 --topology three-links '*:8099'",
        "lab run --max-results 1 127.0.0.1:8099 --twin host.json",
        "lab run --max-results 1 127.0.0.1:8099 --twin",
    ] {
        let before = if traced { "strace -f -qq -e trace=bind,listen,unshare,setns -o log" } else { "" };
        let output = shell(place.path(), &format!("{before} $B {arguments}"));
        let said = text(&output).1;
        if arguments.contains("--sources all") && output.status.code() == Some(0) {
            // A host with a single address has few results.
            continue;
        }
        assert_eq!(output.status.code(), Some(2), "{arguments}: {said}");
        assert!(said.contains("BS0095") && said.contains("--max-results"), "{arguments}: {said}");
        if traced {
            let log = fs::read_to_string(place.path().join("log")).unwrap();
            let acts = log.lines().find(|line| !line.contains("AF_NETLINK") && !line.contains("exited with"));
            assert_eq!(acts, None, "{arguments}");
        }
    }
    // The number that the help names is accepted.
    let output = shell(place.path(), "$B probe --max-results 1 127.0.0.1:8099");
    let said = text(&output).1;
    let number = said.split("--max-results ").last().unwrap().split('`').next().unwrap();
    let output = shell(place.path(), &format!("$B probe --max-results {number} 127.0.0.1:8099 -q"));
    assert_eq!(output.status.code(), Some(0), "{number} {:?}", text(&output));
}

/// Profiles, policies and networks in TOML: nesting, length, number, repetition.
#[test]
fn hostile_toml_is_bounded() {
    const HEAD: &str = "schema = 1\nname = 'x'\n";
    const POLICY: &str = "schema = 1\nkind = 'policy'\n";
    let place = tempfile::tempdir().unwrap();
    let many = |count: usize, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<String>();
    let listener = "[[listener]]\nname = 'a'\nbind = '127.0.0.1'\nport = 80\n";
    let documents = [
        ("arrays", format!("{HEAD}x = {}", "[".repeat(scaled(500_000)))),
        ("tables", format!("{HEAD}x = {}", "{a=".repeat(scaled(300_000)))),
        ("dotted key", format!("{HEAD}{} = 1\n", vec!["a"; scaled(500_000)].join("."))),
        ("dotted head", format!("{HEAD}[{}]\n", vec!["a"; scaled(500_000)].join("."))),
        ("long text", format!("schema = 1\nname = '{}'\n", "x".repeat(1_000_000))),
        ("long key", format!("{HEAD}{} = 1\n", "k".repeat(1_000_000))),
        ("many keys", format!("{HEAD}{}", many(scaled(90_000), &|n| format!("k{n}=1\n")))),
        ("long number", format!("{HEAD}[[listener]]\nname='a'\nport={}\n", "9".repeat(900_000))),
        ("long exponent", format!("{HEAD}[[listener]]\nname='a'\nport=1e{}\n", "9".repeat(900_000))),
        ("empty listeners", format!("{HEAD}{}", "[[listener]]\n".repeat(scaled(70_000)))),
        ("one listener, many times", format!("{HEAD}{}", listener.repeat(scaled(15_000)))),
        (
            "all ports, many times",
            format!(
                "{HEAD}[limits]\nmax_sockets=65536\n{}",
                many(3_000, &|n| format!("[[listener]]\nname='a{n}'\nbind='*'\nport='1-65535'\n"))
            ),
        ),
        (
            "a long default, many times",
            format!(
                "{HEAD}[limits]\nmax_sockets=65536\n[defaults]\nexposure_reason='{}'\n{}",
                "x".repeat(400_000),
                many(2_000, &|n| format!("[[listener]]\nname='a{n}'\nport=0\n"))
            ),
        ),
        (
            "expectations",
            format!(
                "{HEAD}{listener}{}",
                "[[expect]]\nlisteners=['*']\nonly_from=['host']\n".repeat(scaled(15_000))
            ),
        ),
        (
            "patterns",
            format!(
                "{HEAD}{listener}{}",
                format!("[[expect]]\nlisteners=['{}b']\nonly_from=['host']\n", "*a".repeat(scaled(5000)))
                    .repeat(80)
            ),
        ),
        (
            "nodes",
            format!("{HEAD}[lab]\n{}", many(scaled(28_000), &|n| format!("[[lab.node]]\nname='n{n}'\n"))),
        ),
        (
            "links",
            format!(
                "{HEAD}[lab]\n[[lab.node]]\nname='h'\nhost=true\n[[lab.node]]\nname='c'\n{}",
                many(scaled(20_000), &|n| format!("[[lab.link]]\na='h:e{n}'\nb='c:e{n}'\n"))
            ),
        ),
        (
            "rules",
            format!("{POLICY}{}", many(scaled(30_000), &|n| format!("[[allow]]\nport={}\n", n % 65535))),
        ),
        (
            "all ports in every rule",
            format!("{POLICY}{}", many(20_000, &|n| format!("[[allow]]\nid='{n}'\nport='1-65535'\n"))),
        ),
        (
            "waivers of all ports",
            format!(
                "{POLICY}{}{}",
                many(scaled(8_000), &|n| format!("[[allow]]\nid='{n}'\nport='1-65535'\nrequire='always'\n")),
                many(scaled(6_000), &|_| "[[waive]]\ncode='BS1004'\nport='1-65535'\nreason='x'\n".to_owned())
            ),
        ),
        ("too large", "#".repeat((1 << 20) + 1)),
    ];
    for (what, document) in documents {
        fs::write(place.path().join("evil.toml"), document).unwrap();
        for arguments in [
            "check evil.toml",
            "plan evil.toml",
            "audit --policy evil.toml",
            "lab plan 127.0.0.1:8099 --topology evil.toml",
            "lab plan evil.toml",
        ] {
            bounded(place.path(), what, ROOM_FOR_TOML, arguments);
        }
    }
}

/// Changes a snapshot with packet filters.
type Change<'a> = Box<dyn Fn(&mut Value) + 'a>;

/// The attribute `kind`, nested as deep as its 16-bit length allows, in Base64.
fn nested(kind: u16) -> String {
    let mut bytes: Vec<u8> = Vec::new();
    while let Ok(length) = u16::try_from(bytes.len() + 4) {
        let mut outer = length.to_ne_bytes().to_vec();
        outer.extend_from_slice(&(kind | 0x8000).to_ne_bytes());
        outer.append(&mut bytes);
        bytes = outer;
        if bytes.len() > 60_000 {
            break;
        }
    }
    base64(&bytes)
}

/// Base64 with padding (RFC 4648, 4).
fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Snapshots whose ruleset, routes or interfaces are made to use up time or memory, or refer to themselves.
#[test]
fn hostile_snapshots_are_bounded() {
    let place = tempfile::tempdir().unwrap();
    let good = run_in(place.path(), &["interfaces", "--format", "json"]).stdout;
    let mut good: Value = serde_json::from_slice(&good).unwrap();
    let object = |kind: &str, chain: Value, name: Value| {
        json!({"kind": kind, "family": "inet", "table": "t", "chain": chain, "name": name, "handle": 1, "text": null,
            "attributes": "CAABAHQAAAA="})
    };
    let rule = object("rule", "c".into(), Value::Null);
    good["packet_filters"] = json!({"tables": ["inet t"], "unknown_because": null, "ruleset": {"generation": 1, "consistent": true,
        "nftables": [object("table", Value::Null, "t".into()), object("chain", Value::Null, "c".into()), rule.clone()],
        "legacy": [], "ipset": [], "order": null}});
    let interface = |number: usize, key: &str, other: usize| {
        json!({"index": 1000 + number, "name": format!("m{number}"), "up": true, "running": true, "loopback": false, "mtu": 1500,
            "mac": null, "kind": "vlan", "addresses": [], key: 1000 + other})
    };
    let nftables = |host: &mut Value, objects: Vec<Value>| {
        host["packet_filters"]["ruleset"]["nftables"].as_array_mut().unwrap().extend(objects);
    };
    let attributes = |host: &mut Value, text: &str| {
        for one in host["packet_filters"]["ruleset"]["nftables"].as_array_mut().unwrap() {
            one["attributes"] = text.into();
        }
    };
    let changes: Vec<(&str, Change<'_>)> = vec![
        ("rules", Box::new(|host| nftables(host, vec![rule.clone(); scaled(80_000)]))),
        (
            "chains",
            Box::new(|host| {
                let chain = |n: usize| object("chain", Value::Null, format!("c{n}").into());
                nftables(host, (0..scaled(60_000)).map(chain).collect());
            }),
        ),
        (
            "equal chains",
            Box::new(|host| nftables(host, vec![object("chain", Value::Null, "c".into()); scaled(40_000)])),
        ),
        (
            "elements",
            Box::new(|host| nftables(host, vec![object("element", Value::Null, "s".into()); scaled(60_000)])),
        ),
        ("nested attributes", Box::new(|host| attributes(host, &nested(1)))),
        ("nested expressions", Box::new(|host| attributes(host, &nested(4)))),
        ("zeros", Box::new(|host| attributes(host, &base64(&vec![0; 2_000_000])))),
        ("ones", Box::new(|host| attributes(host, &base64(&vec![255; 2_000_000])))),
        (
            "long tables",
            Box::new(|host| {
                for one in host["packet_filters"]["ruleset"]["nftables"].as_array_mut().unwrap() {
                    one["table"] = "t".repeat(2_000_000).into();
                    one["text"] = "\u{1b}\u{202e}".repeat(100_000).into();
                }
            }),
        ),
        (
            "sets and tables",
            Box::new(|host| {
                let rules = &mut host["packet_filters"]["ruleset"];
                rules["ipset"] = vec![json!({}); scaled(100_000)].into();
                rules["legacy"] = vec![json!({}); scaled(100_000)].into();
            }),
        ),
        (
            "routes",
            Box::new(|host| {
                let one = host["routes"].get(0).cloned().unwrap_or(json!({}));
                host["routes"] = vec![one; scaled(100_000)].into();
            }),
        ),
        (
            "addresses",
            Box::new(|host| {
                let one = host["interfaces"][0]["addresses"][0].clone();
                host["interfaces"][0]["addresses"] = vec![one; scaled(50_000)].into();
            }),
        ),
        (
            "equal interfaces",
            Box::new(|host| {
                let one = host["interfaces"][0].clone();
                host["interfaces"].as_array_mut().unwrap().extend(vec![one; scaled(5000)]);
            }),
        ),
        (
            "masters in a circle",
            Box::new(|host| {
                let all = (0..900).map(|n| interface(n, "master", (n + 1) % 900));
                host["interfaces"].as_array_mut().unwrap().extend(all);
            }),
        ),
        (
            "parents in a circle",
            Box::new(|host| {
                let all = (0..900).map(|n| interface(n, "parent", (n + 1) % 900));
                host["interfaces"].as_array_mut().unwrap().extend(all);
            }),
        ),
        ("an index", Box::new(|host| host["interfaces"][0]["index"] = u32::MAX.into())),
        ("a long name", Box::new(|host| host["interfaces"][0]["name"] = "n".repeat(2_000_000).into())),
        ("reasons", Box::new(|host| host["incomplete_because"] = vec!["\u{2028}x"; scaled(300_000)].into())),
    ];
    for (what, change) in &changes {
        let mut host = good.clone();
        change(&mut host);
        fs::write(place.path().join("evil.json"), host.to_string()).unwrap();
        for arguments in [
            "plan 0.0.0.0:80 --host evil.json",
            "plan all-interfaces --host evil.json --format json",
            "lab plan 127.0.0.1:8099 --twin evil.json",
            "diff evil.json evil.json",
        ] {
            bounded(place.path(), what, ROOM_FOR_JSON, arguments);
        }
    }
}

/// A copy of a host with as many interfaces as a copy may have is planned within bounds; one more is refused with a code.
#[test]
fn a_copy_has_a_limit_of_interfaces() {
    let place = tempfile::tempdir().unwrap();
    let good = run_in(place.path(), &["interfaces", "--format", "json"]).stdout;
    let good: Value = serde_json::from_slice(&good).unwrap();
    for (count, wanted) in [(1000, 0), (1001, 2)] {
        let mut host = good.clone();
        let list = host["interfaces"].as_array_mut().unwrap();
        let base = list[0].clone();
        for number in list.len()..count {
            let mut one = base.clone();
            (one["name"], one["index"]) = (format!("x{number}").into(), (1000 + number).into());
            one["loopback"] = false.into();
            one["addresses"] = json!([{"address": format!("10.{}.{}.1", number / 250, number % 250), "prefix": 24, "family": "ipv4",
                "class": "private", "scope_id": null, "label": null, "peer": null, "broadcast": null, "state": ["permanent"]}]);
            list.push(one);
        }
        fs::write(place.path().join("many.json"), host.to_string()).unwrap();
        let (code, said) =
            bounded(place.path(), "a copy", ROOM_FOR_JSON, "lab plan 127.0.0.1:8099 --twin many.json");
        assert_eq!(code, wanted, "{count}: {said}");
        if code == 0 {
            let script = fs::read_to_string(place.path().join("out")).unwrap();
            assert!(script.lines().filter(|line| line.starts_with("ip netns add")).count() >= count - 1);
        } else {
            assert!(said.contains("BS0091") && said.contains("1000"), "{said}");
        }
    }
}

/// `lab plan` of a snapshot does not print commands that read the rules of the machine on which they are run.
#[test]
fn the_plan_of_a_copy_does_not_load_the_rules_of_this_machine() {
    let place = tempfile::tempdir().unwrap();
    let good = run_in(place.path(), &["interfaces", "--format", "json"]).stdout;
    let mut host: Value = serde_json::from_slice(&good).unwrap();
    let object = |kind: &str| json!({"kind": kind, "family": "inet", "table": "t", "chain": "c", "name": "t", "handle": 1, "text": null, "attributes": ""});
    host["packet_filters"] = json!({"tables": ["inet t"], "unknown_because": null, "ruleset": {"generation": 1, "consistent": true,
        "nftables": [object("table"), object("chain"), object("rule"), object("rule")], "legacy": [], "ipset": [], "order": null}});
    fs::write(place.path().join("host.json"), host.to_string()).unwrap();
    for format in ["human", "json"] {
        let output = run_in(
            place.path(),
            &["lab", "plan", "127.0.0.1:8099", "--twin", "host.json", "--format", format],
        );
        let script = text(&output).0;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output).1);
        assert!(!script.contains("list ruleset"), "{script}");
        assert!(
            script.contains("# no command loads the packet filters of the snapshot (2 rules)"),
            "{script}"
        );
    }
}

/// The comparison of two audits costs little more than reading them: with `BINDSCOPE_LONG=1` two of 100,000 sockets, else two of
/// 10,000. In a release build `diff` takes at most three times the time of reading, which `audit --baseline` measures for each of the
/// two.
#[test]
fn a_comparison_costs_little_more_than_reading() {
    let place = tempfile::tempdir().unwrap();
    let (code, _) = bounded(place.path(), "an audit", ROOM_FOR_JSON, "audit --format json");
    assert!(matches!(code, 0..=3), "{code}");
    let audit = fs::read(place.path().join("out")).unwrap();
    let mut audit: Value = serde_json::from_slice(&audit).unwrap();
    let sockets = scaled(100_000);
    let socket = |number: usize, command: &str| {
        let (port, address) = (1 + number % 60_000, format!("127.{}.0.1", number / 60_000));
        json!({"socket": {"listener": null, "protocol": "tcp", "family": "ipv4", "address": address, "port": port,
            "scope_id": null, "device": null, "v6only": null, "reuse_address": false, "reuse_port": false,
            "exposure": {"ipv4": "loopback", "ipv6": "none"}},
            "state": "listen", "netns": 1, "uid": 0, "inode": number, "queue": {"length": 0, "limit": 128},
            "owners": [{"pid": number, "command": command, "exe": "/usr/bin/server", "user": "root", "unit": null}]})
    };
    audit["findings"] = json!([]);
    let mut write = |name: &str, list: Vec<Value>| {
        audit["sockets"] = list.into();
        fs::write(place.path().join(name), audit.to_string()).unwrap();
    };
    write("a.json", (0..sockets).map(|number| socket(number, "one")).collect());
    let other = |number: usize| if number.is_multiple_of(10) { "two" } else { "one" };
    write("b.json", (0..sockets).map(|number| socket(number, other(number))).collect());
    let compare = || {
        let begun = Instant::now();
        let (code, said) = bounded(place.path(), "a comparison", ROOM_FOR_JSON, "diff a.json b.json");
        assert_eq!(code, 1, "{said}");
        begun.elapsed()
    };
    // A baseline is read whole, and compared with the few sockets of this host.
    let read = |name: &str| {
        let begun = Instant::now();
        let (_, _) = bounded(place.path(), "reading", ROOM_FOR_JSON, &format!("audit -q --baseline {name}"));
        begun.elapsed()
    };
    let reading = (0..3).map(|_| read("a.json") + read("b.json")).min().unwrap();
    let comparing = (0..3).map(|_| compare()).min().unwrap();
    let ratio = comparing.as_secs_f64() / reading.as_secs_f64();
    eprintln!("{sockets} sockets: reading both {reading:?}, diff {comparing:?}: {ratio:.2} times");
    assert!(ratio <= if cfg!(debug_assertions) { 6.0 } else { 3.0 }, "{ratio}");
}

/// What `--write-policy` writes, `--policy` reads; a policy that is too long to be read is not written.
#[test]
fn a_policy_that_could_not_be_read_is_not_written() {
    let place = tempfile::tempdir().unwrap();
    let host = Netns::new();
    let listeners = |ports: std::ops::Range<u16>| -> Vec<TcpListener> {
        host.run(|| ports.map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap()).collect())
    };
    let path = place.path().join("policy.toml");
    let write =
        || host.run(|| bindscope(&["audit", "--write-policy", path.to_str().unwrap()]).output().unwrap());
    let mut open = listeners(10_000..11_000);
    assert_eq!(write().status.code(), Some(0));
    let check = host.run(|| bindscope(&["audit", "--policy", path.to_str().unwrap()]).output().unwrap());
    assert_eq!(check.status.code(), Some(0), "{}", text(&check).1);
    fs::remove_file(&path).unwrap();
    open.extend(listeners(11_000..20_000));
    let output = write();
    assert_eq!(output.status.code(), Some(5));
    assert!(text(&output).1.contains("reads at most 1 MiB"), "{}", text(&output).1);
    assert!(!path.exists());
}
