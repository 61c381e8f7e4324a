//! The program's labs from outside: events, the dry run, what a killed one leaves, as root and as an ordinary user.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::tool;
use bindscope::lab::builtin;
use bindscope::model::kernel_release::{KernelRelease, KnownDifference};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::agree::{differing, lab};
use crate::support::program::{self, bindscope, toml_file as file};
use crate::support::snapshot::kernel;

macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        pub fn trials() -> Vec<Trial> {
            vec![$(Trial::test(stringify!($name), || { $name(); Ok(()) })),*]
        }
    };
}

trials! {
    the_tutorials_claims_are_two_true_and_one_false,
    a_report_has_what_a_picture_of_it_needs,
    a_node_behind_a_router_comes_over_the_interface_of_the_router,
    events_change_what_they_should,
    the_dry_run_builds_the_same_network,
    a_killed_lab_leaves_nothing,
    an_ordinary_user_has_the_same_lab,
    privileged_ports_are_as_outside,
    fifty_nodes_are_no_trouble,
    a_filter_drops_what_it_says,
    the_dry_run_has_the_filters_too,
    a_duplicate_address_is_made_on_purpose,
    a_kept_lab_is_kept_by_its_file,
    a_second_interface_on_a_wire_and_states_of_addresses,
}

fn the_tutorials_claims_are_two_true_and_one_false() {
    let (document, exit) = lab(&["tutorial"]);
    assert_eq!(exit, 1);
    let verdicts: Vec<(&str, &str)> = document["expectations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["listener"].as_str().unwrap(), one["verdict"].as_str().unwrap()))
        .collect();
    assert_eq!(
        verdicts,
        [
            ("claim1-*", "pass"),
            ("claim2-*", "pass"),
            ("claim3-address-*", "fail"),
            ("claim3-device-*", "pass")
        ]
    );
    let because = document["expectations"][2]["because"].as_str().unwrap();
    assert_eq!(because, "node:wan to 192.0.2.1 port 8183 arrives on eth1");
    let against = document["expectations"][2]["cells"].as_array().unwrap();
    let against: Vec<(&str, &str, &str)> = against
        .iter()
        .map(|index| &document["cells"][usize::try_from(index.as_u64().unwrap()).unwrap()])
        .map(|cell| {
            let text = |value: &Value| -> &str { value.as_str().unwrap().to_owned().leak() };
            (text(&cell["source"]), text(&cell["destination"]), text(&cell["observed"]["ingress"]))
        })
        .collect();
    assert!(against.contains(&("node:wan", "192.0.2.1", "eth1")), "{against:?}");
    assert!(against.iter().all(|(source, _, ingress)| *source != "node:lan" && *ingress != "eth0"));
    assert!(document["expectations"][0]["cells"].as_array().unwrap().is_empty());
    assert_eq!(document["expectations"][3]["sockets"], serde_json::json!([3]));
}

fn a_report_has_what_a_picture_of_it_needs() {
    let (document, _) = lab(&["tutorial"]);
    let time: jiff::Timestamp = document["time"].as_str().unwrap().parse().unwrap();
    assert!(time.duration_until(jiff::Timestamp::now()).abs() < jiff::SignedDuration::from_mins(5));
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&document["interfaces"]), ["lo", "eth0", "eth1"]);
    let eth1 = &document["interfaces"][2];
    let address = &eth1["addresses"][0];
    assert_eq!((&address["address"], &address["prefix"]), (&"198.51.100.1".into(), &24.into()));
    let sources: Vec<(&Value, &Value)> = document["sources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (&one["source"], &one["interfaces"]))
        .collect();
    let expected = [("host", "lo"), ("node:lan", "eth0"), ("node:wan", "eth1")];
    assert_eq!(sources.len(), expected.len());
    for ((source, interfaces), (name, interface)) in sources.into_iter().zip(expected) {
        assert_eq!((source, interfaces), (&name.into(), &serde_json::json!([interface])));
    }
}

fn a_node_behind_a_router_comes_over_the_interface_of_the_router() {
    let (document, _) = lab(&["loopback", "--topology", "router"]);
    let host: Vec<&str> =
        document["interfaces"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    for source in document["sources"].as_array().unwrap() {
        let interfaces = source["interfaces"].as_array().unwrap();
        assert!(!interfaces.is_empty(), "{source}");
        assert!(interfaces.iter().all(|name| host.contains(&name.as_str().unwrap())), "{source}");
    }
}

fn events_change_what_they_should() {
    let mut text = builtin::get("two-sided").unwrap().to_owned();
    text.push_str(
        r#"
[[lab.event]]
interface = "eth1"
link = "down"

[[lab.event]]
interface = "eth1"
link = "up"

[[lab.event]]
interface = "eth0"
remove = "192.0.2.1/24"

[[lab.event]]
interface = "eth0"
add = "192.0.2.1/24"

[[lab.event]]
node = "lan"
sysctl = { "net.ipv6.conf.eth0.disable_ipv6" = "1" }
"#,
    );
    let file = file(&text);
    let path = file.path().to_str().unwrap();
    let (document, _) = lab(&["--bind", "0.0.0.0:7001", "--bind", "[::]:7002", "--topology", path]);
    assert_eq!(differing(&document).0, Vec::<&Value>::new());
    let notes: Vec<&str> =
        document["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect();
    let all = notes.join("\n");
    assert!(!all.contains("not as predicted"), "{all}");
    let event = |number: usize| {
        let start = notes.iter().position(|note| note.starts_with(&format!("event {number} "))).unwrap();
        let end = notes
            .iter()
            .skip(start + 1)
            .position(|note| note.starts_with("event "))
            .map_or(notes.len(), |n| start + 1 + n);
        notes[start..end].join("\n")
    };
    // The same for programs.
    let events = document["events"].as_array().unwrap();
    assert_eq!(events.len(), 5);
    assert_eq!(events[2]["commands"], serde_json::json!(["ip -n host address del 192.0.2.1/24 dev eth0"]));
    for (number, told) in events.iter().enumerate() {
        assert_eq!(told["disagree"], 0);
        let changed = told["changed"].as_array().unwrap();
        assert_eq!(changed.len(), event(number + 1).lines().count() - 1, "{told}");
        for cell in changed {
            let outcome = |when: &str| {
                (cell[when]["observed"]["outcome"].clone(), cell[when]["observed"]["ingress"].clone())
            };
            assert_ne!(outcome("before"), outcome("after"), "{cell}");
        }
    }
    let back = |cell: &Value| cell["before"].is_null() && cell["after"]["destination"] == "192.0.2.1";
    assert!(events[3]["changed"].as_array().unwrap().iter().any(back), "{}", events[3]);
    // The IPv4 address of a link that is down stays the host's, reachable over the other one.
    let down = event(1);
    assert!(down.contains("node:wan tcp 198.51.100.1 port 7001: taken by bind1 over eth1 -> "), "{down}");
    assert!(!down.contains("node:lan tcp 198.51.100.1 port 7001"), "{down}");
    assert!(
        down.contains("host tcp 2001:db8:2::1 port 7002: taken by bind2 over eth1 -> no longer an address"),
        "{down}"
    );
    let removed = event(3);
    assert!(
        removed.contains("host tcp 192.0.2.1 port 7001: taken by bind1 over eth0 -> no longer an address"),
        "{removed}"
    );
    let added = event(4);
    assert!(
        added
            .contains("host tcp 192.0.2.1 port 7001: not an address of the host -> taken by bind1 over eth0"),
        "{added}"
    );
    let off = event(5);
    assert!(off.contains("node:lan tcp 2001:db8:1::1 port 7002: taken by bind2 over eth0 -> "), "{off}");
}

/// A host's network as the program describes it, without what is of this moment.
fn network(text: &[u8]) -> Value {
    let mut document: Value = serde_json::from_slice(text)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(text)));
    document.as_object_mut().unwrap().remove("host");
    document
}

fn the_dry_run_builds_the_same_network() {
    let program = env!("CARGO_BIN_EXE_bindscope");
    for (name, nodes) in [
        ("router", ["host", "router", "far"]),
        ("bridge", ["host", "web", "lan"]),
        ("asymmetric", ["host", "peer", "peer"]),
    ] {
        let script = program::run(&["lab", "plan", "--topology", name]).stdout;
        for node in nodes {
            let done = program::run(&[
                "lab",
                "shell",
                "--topology",
                name,
                node,
                "--",
                program,
                "interfaces",
                "--format",
                "json",
            ]);
            assert!(done.status.success(), "{:?}", program::text(&done));
            // An older kernel notices within a second that a wire is up.
            let old = KernelRelease::of(&kernel()).is_some_and(|release| release.series < (6, 12));
            let wait: &[u8] = if old { b"sleep 3\n" } else { b"" };
            let typed = typed_in(
                &[&script[..], wait].concat(),
                &format!("ip netns exec {node} {program} interfaces --format json"),
            );
            let (typed, done) = (network(&typed.stdout), network(&done.stdout));
            assert_eq!(typed, done, "{name}: {node}");
        }
    }
}

/// Inodes of network namespaces that a process holds or is in.
fn namespaces_of(pid: u32) -> BTreeSet<String> {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let own = tasks.map(|entry| entry.path().join("ns/net"));
    fds.chain(own)
        .filter_map(|path| std::fs::read_link(path).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .filter(|link| link.starts_with("net:"))
        .collect()
}

fn a_killed_lab_leaves_nothing() {
    let mut child = bindscope(&["lab", "run", "loopback", "--keep"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let mut said = String::new();
    while !said.contains("nsenter") {
        let mut bytes = [0; 512];
        let count = stderr.read(&mut bytes).unwrap();
        assert!(count > 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    let outside = std::fs::read_link("/proc/self/ns/net").unwrap().to_string_lossy().into_owned();
    let mut held = namespaces_of(child.id());
    held.remove(&outside);
    assert_eq!(held.len(), 3, "{held:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    let others = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let left: Vec<u32> = others.filter(|pid| !namespaces_of(*pid).is_disjoint(&held)).collect();
    assert_eq!(left, Vec::<u32>::new());
}

fn an_ordinary_user_has_the_same_lab() {
    let root = bindscope(&["lab", "run", "loopback-vs-all", "--format", "json"]);
    let mut unprivileged = bindscope(&["lab", "run", "loopback-vs-all", "--format", "json"]);
    if std::fs::read_to_string("/proc/self/uid_map").unwrap().split_whitespace().nth(2) != Some("1") {
        unprivileged.uid(65534).gid(65534);
    }
    let run = |mut command: Command| {
        let output = program::finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        let document: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {:?}", program::text(&output)));
        assert!(differing(&document).0.is_empty());
        document["cells"]
            .as_array()
            .unwrap()
            .iter()
            .map(|cell| {
                (
                    cell["source"].clone(),
                    cell["destination"].clone(),
                    cell["port"].clone(),
                    cell["observed"]["outcome"].clone(),
                    cell["observed"]["ingress"].clone(),
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(run(root), run(unprivileged));
}

fn privileged_ports_are_as_outside() {
    let run = |user: Option<u32>| -> Value {
        let mut command = bindscope(&[
            "lab",
            "run",
            "--format",
            "json",
            "--bind",
            "0.0.0.0:81",
            "--bind",
            "127.0.0.1:8090",
        ]);
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let output = program::finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {:?}", program::text(&output)))
    };
    let errno = |document: &Value| {
        assert!(differing(document).0.is_empty());
        let bind = &document["sockets"][0]["bind"];
        assert_eq!(bind["predicted"]["errno"], bind["observed"]["errno"]);
        bind["observed"]["errno"].clone()
    };
    // Root binds there as it does on its own host, and an ordinary user does not.
    if std::fs::read_to_string("/proc/self/uid_map").unwrap().split_whitespace().nth(2) != Some("1") {
        assert_eq!(errno(&run(None)), Value::Null);
        assert_eq!(errno(&run(Some(65534))), "EACCES");
    } else {
        assert_eq!(errno(&run(None)), "EACCES");
    }
    let topology = format!(
        "{}\n[[lab.node]]\nname = \"host\"\nsysctl = {{ \"net.ipv4.ip_unprivileged_port_start\" = \"80\" }}\n[[lab.node]]\nname = \"lan\"\n[[lab.node]]\nname = \"wan\"\n",
        builtin::get("two-sided").unwrap()
    );
    let file = file(&topology);
    let (document, _) = lab(&["--bind", "0.0.0.0:81", "--topology", file.path().to_str().unwrap()]);
    assert_eq!(document["sockets"][0]["bind"]["observed"]["outcome"], "ok");
    assert!(differing(&document).0.is_empty());
}

fn fifty_nodes_are_no_trouble() {
    let mut text = "schema = 1\nkind = \"lab\"\nname = \"fifty\"\n[lab]\nhost = \"host\"\n".to_owned();
    for node in 1..=49 {
        let _ = write!(
            text,
            "[[lab.link]]\na = {{ node = \"host\", interface = \"w{node}\", addresses = [\"10.0.{node}.1/24\"] }}\nb = {{ node = \"n{node}\", interface = \"eth0\", addresses = [\"10.0.{node}.2/24\"] }}\n[[lab.route]]\nnode = \"n{node}\"\nto = \"default\"\nvia = \"10.0.{node}.1\"\n"
        );
    }
    let file = file(&text);
    let begun = Instant::now();
    let (document, exit) = lab(&["--bind", "0.0.0.0:7100", "--topology", file.path().to_str().unwrap()]);
    let (differing, all) = differing(&document);
    assert!(differing.is_empty(), "{:#?}", &differing[..differing.len().min(3)]);
    assert_eq!(exit, 0);
    assert!(all > 49 * 49, "{all}");
    assert!(begun.elapsed() < Duration::from_secs(50));
}

fn a_filter_drops_what_it_says() {
    let text = format!(
        "{}\n[[lab.filter]]\nnode = \"host\"\nrule = \"iifname eth1 tcp dport 7200 drop\"\n",
        builtin::get("two-sided").unwrap()
    );
    let file = file(&text);
    let (document, exit) = lab(&["--bind", "0.0.0.0:7200", "--topology", file.path().to_str().unwrap()]);
    if !tool("nft") {
        let gaps = document["incomplete_because"].to_string();
        assert!(gaps.contains("the command nft is not installed"), "{gaps}");
        assert_eq!(document["complete"], false);
        return;
    }
    // Packet filters are not predicted here, so the lab shows them as a difference.
    assert_eq!(exit, 1);
    assert!(
        differing(&document)
            .0
            .iter()
            .all(|cell| cell["source"] == "node:wan" && cell["observed"]["outcome"] == "timeout")
    );
}

fn the_dry_run_has_the_filters_too() {
    if !tool("nft") {
        return;
    }
    let text = format!(
        "{}\n[[lab.filter]]\nnode = \"host\"\nrule = \"iifname eth1 tcp dport 7200 drop comment \\\"it's closed\\\"\"\n",
        builtin::get("two-sided").unwrap()
    );
    let file = file(&text);
    let path = file.path().to_str().unwrap();
    let done = program::run(&["lab", "shell", "--topology", path, "host", "--", "nft", "list", "ruleset"]);
    assert!(done.status.success(), "{:?}", program::text(&done));
    let script = program::run(&["lab", "run", "--dry-run", "--topology", path]).stdout;
    let typed = typed_in(&script, "ip netns exec host nft list ruleset");
    let (typed, done) = (program::text(&typed).0, program::text(&done).0);
    assert!(done.contains("7200 drop"), "{done}");
    assert_eq!(typed, done);
}

/// Runs a script of `lab plan` in namespaces of its own, and a command afterwards.
fn typed_in(script: &[u8], then: &str) -> std::process::Output {
    let shell =
        format!("mount -t tmpfs none /run && cat > /run/script && sh -e /run/script >&2 && exec {then}");
    // `ip netns add` goes back to where it was, which without root must be a namespace of our own.
    let mut child = Command::new("unshare")
        .args(["-m", "-n", "sh", "-c", &shell])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), script).unwrap();
    let typed = program::finish(child);
    assert!(typed.status.success(), "{}", program::text(&typed).1);
    typed
}

fn a_duplicate_address_is_made_on_purpose() {
    let text = r#"
schema = 1
kind = "lab"
name = "duplicate"

[lab]
host = "host"

[[lab.link]]
a = { node = "host", interface = "eth0", addresses = ["2001:db8:1::1/64 dad", "2001:db8:1::66/64 dad"] }
b = { node = "lan", interface = "eth0", addresses = ["2001:db8:1::10/64", "2001:db8:1::66/64 nodad"] }

[[lab.event]]
interface = "eth0"
add = "2001:db8:1::10/64 dad"
"#;
    let file = file(text);
    let path = file.path().to_str().unwrap();
    let (document, _) =
        lab(&["--bind", "[2001:db8:1::66]:7301", "--bind", "[2001:db8:1::1]:7302", "--topology", path]);
    let wrong = differing(&document).0;
    assert!(wrong.is_empty(), "{}", Value::from_iter(wrong.into_iter().cloned()));
    let bind = |number: usize| &document["sockets"][number]["bind"];
    assert_eq!(bind(0)["predicted"]["code"], "BS2004");
    assert_eq!(
        (&bind(0)["predicted"]["errno"], &bind(0)["observed"]["errno"]),
        (&"EADDRNOTAVAIL".into(), &"EADDRNOTAVAIL".into())
    );
    // The other one was checked too, and no process had it.
    assert_eq!(bind(1)["observed"]["outcome"], "ok");
    let destinations: BTreeSet<&str> = document["cells"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cell| cell["destination"].as_str().unwrap())
        .collect();
    assert!(
        destinations.contains("2001:db8:1::1") && !destinations.contains("2001:db8:1::66"),
        "{destinations:?}"
    );
    assert_eq!(document["notes"].to_string().matches("results changed").count(), 1);
    assert!(document["notes"].to_string().contains("0 of "), "{}", document["notes"]);
}

/// `teardown` says whether a lab is left standing.
fn a_kept_lab_is_kept_by_its_file() {
    for (profile, teardown, stays) in [
        ("loopback", "always", false),
        ("tutorial", "always", false),
        ("loopback", "on-success", false),
        ("tutorial", "on-success", true),
        ("loopback", "never", true),
    ] {
        let text = builtin::get("two-sided")
            .unwrap()
            .replace("[lab]\n", &format!("[lab]\nteardown = '{teardown}'\n"));
        let file = file(&text);
        let mut child = bindscope(&["lab", "run", profile, "--topology", file.path().to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
        while !said.contains("nsenter") && std::io::BufRead::read_line(&mut stderr, &mut said).unwrap() > 0 {}
        assert_eq!(said.contains("nsenter"), stays, "{profile} {teardown}: {said}");
        if stays {
            child.kill().unwrap();
        }
        program::wait(&mut child);
    }
}

fn a_second_interface_on_a_wire_and_states_of_addresses() {
    let text = r#"
schema = 1
kind = "lab"
name = "odd"

[lab]
host = "host"

[[lab.link]]
a = { node = "host", interface = "eth0", addresses = ["192.0.2.1/24", "2001:db8:1::1/64 deprecated", "2001:db8:1::5/64 tentative"] }
b = { node = "lan", interface = "eth0", addresses = ["192.0.2.10/24", "2001:db8:1::10/64"] }

[[lab.link]]
a = { node = "host", interface = "eth1", addresses = ["198.51.100.1/24"] }
b = { node = "wan", interface = "eth0", addresses = ["198.51.100.10/24"] }

[[lab.macvlan]]
node = "lan"
interface = "mv0"
parent = "eth0"
addresses = ["10.7.0.10/24"]

[[lab.route]]
node = "host"
to = "203.0.113.0/28"
local = true

[[lab.route]]
node = "wan"
to = "203.0.113.0/28"
via = "198.51.100.1"

[[lab.event]]
interface = "eth1"
rename = "wan0"

[[lab.event]]
sysctl = { "net.ipv4.conf.eth0.arp_ignore" = "1" }
"#;
    let mut text = text.to_owned();
    if KnownDifference::NoRenameWhileUp.applies_to(&kernel()) == Some(true) {
        // The refusal names the way out, and that way is taken.
        let refused = file(&text);
        let path = refused.path().to_str().unwrap();
        let output = program::run(&["lab", "run", "--bind", "0.0.0.0:7300", "--topology", path]);
        let (_, stderr) = program::text(&output);
        assert!(
            output.status.code() == Some(4) && stderr.contains("let an event put its link down first"),
            "{stderr}"
        );
        let event = |link: &str| format!("[[lab.event]]\ninterface = \"eth1\"\nlink = \"{link}\"\n\n");
        let rename = "[[lab.event]]\ninterface = \"eth1\"\nrename";
        let up = event("up").replace("eth1", "wan0");
        text = text.replace(rename, &format!("{}{rename}", event("down")));
        text = text.replace("[[lab.event]]\nsysctl", &format!("{up}[[lab.event]]\nsysctl"));
    }
    let file = file(&text);
    let path = file.path().to_str().unwrap();
    let (document, _) =
        lab(&["--bind", "0.0.0.0:7300", "--bind", "[2001:db8:1::5]:7301", "--topology", path]);
    let wrong = differing(&document).0;
    assert!(wrong.is_empty(), "{}", Value::from_iter(wrong.into_iter().cloned()));
    let bind = &document["sockets"][1]["bind"];
    let tentative = Value::from("EADDRNOTAVAIL");
    assert_eq!((&bind["predicted"]["errno"], &bind["observed"]["errno"]), (&tentative, &tentative));
    let any_ip = document["cells"]
        .as_array()
        .unwrap()
        .iter()
        .find(|cell| {
            cell["source"] == "node:wan" && cell["destination"] == "203.0.113.1" && cell["port"] == 7300
        })
        .unwrap();
    assert_eq!(any_ip["observed"]["ingress"], "eth1");
    let notes = document["notes"].to_string();
    assert!(!notes.contains("not as predicted"), "{notes}");
    assert!(notes.contains("taken by bind1 over eth1 -> taken by bind1 over wan0"), "{notes}");
}
