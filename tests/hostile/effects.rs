//! What a document from another machine can cause: nothing on this one.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::program::{finish, text};
use crate::{as_root, run_in, shell};

fn snapshot(directory: &Path) -> Value {
    serde_json::from_slice(&run_in(directory, &["interfaces", "--format", "json"]).stdout).unwrap()
}

/// Settings of the machine, for which stand-ins are mounted: whatever writes them writes a file of the test.
const OF_THE_MACHINE: &[&str] = &[
    "kernel/randomize_va_space",
    "kernel/printk_ratelimit_burst",
    "vm/swappiness",
    "fs/protected_symlinks",
    "net/core/netdev_max_backlog",
];

#[test]
fn a_snapshot_sets_nothing_outside_its_copy() {
    if !as_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let mut evil = snapshot(place.path());
    for name in OF_THE_MACHINE {
        evil["settings"][name.replace('/', ".")] = json!(4711);
    }
    for name in [
        "net.ipv4.conf.../../../kernel/randomize_va_space",
        "net/ipv4/conf/../../../kernel/randomize_va_space",
        "net.ipv4.conf.a.b.rp_filter",
        "net.ipv4.ip_forward\n",
        "kernel.core_pattern\u{1b}[2J",
        "net.netfilter.nf_conntrack_max",
        "",
        ".",
        "..",
    ] {
        evil["settings"][name] = json!(4711);
    }
    for interface in evil["interfaces"].as_array_mut().unwrap() {
        interface["settings"]["ipv4.../../../../kernel/randomize_va_space"] = json!(4711);
    }
    fs::write(place.path().join("evil.json"), evil.to_string()).unwrap();
    // A topology that names them, as a file from elsewhere.
    let topology = |name: &str| {
        format!(
            "schema = 1\nname = 't'\n[lab]\nhost = 'h'\n[[lab.node]]\nname = 'h'\nsysctl = {{ '{name}' = '4711' }}\n[[lab.node]]\nname = 'p'\n"
        )
    };
    for (number, name) in [
        "kernel.randomize_va_space",
        "net/ipv4/conf/../../../kernel/randomize_va_space",
        "net.core.netdev_max_backlog",
    ]
    .iter()
    .enumerate()
    {
        fs::write(place.path().join(format!("{number}.toml")), topology(name)).unwrap();
    }
    let mut script = String::from("mount --make-rprivate /\nmkdir before\n");
    for (number, path) in OF_THE_MACHINE.iter().enumerate() {
        script.push_str(&format!(
            "echo 17 > stand-in{number}; mount --bind stand-in{number} /proc/sys/{path} || exit 98\n"
        ));
    }
    script.push_str("$B lab run --twin evil.json loopback > report 2> said; echo $? > code\n");
    script.push_str("for n in 0 1 2; do $B lab run loopback --topology $n.toml > topology$n 2>&1; echo $? >> codes; done\n");
    script.push_str("cat stand-in*\n");
    let output = shell(place.path(), &script);
    assert!(output.status.success(), "{:?}", text(&output));
    assert_eq!(text(&output).0, "17\n".repeat(OF_THE_MACHINE.len()), "{:?}", text(&output));
    let said = fs::read_to_string(place.path().join("said")).unwrap();
    let code = fs::read_to_string(place.path().join("code")).unwrap();
    assert!(matches!(code.trim(), "0" | "1" | "3"), "{code} {said}");
    assert!(said.contains("kernel.randomize_va_space is not copied") && !said.contains('\u{1b}'), "{said}");
    assert_eq!(fs::read_to_string(place.path().join("codes")).unwrap(), "2\n2\n2\n");
}

/// An honest copy keeps its settings: the guard refuses nothing that our own snapshots and networks have.
#[test]
fn honest_settings_are_copied() {
    if !as_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("honest.json"), snapshot(place.path()).to_string()).unwrap();
    for arguments in [&["lab", "run", "loopback", "--twin", "honest.json"][..], &["lab", "run", "loopback"]] {
        let output = run_in(place.path(), arguments);
        let said = text(&output).1;
        assert!(!said.contains("refused") && !said.contains("that a lab may change"), "{arguments:?} {said}");
    }
}

/// What is pasted from `lab plan` runs the commands of the plan, with the names as they are, and nothing else.
#[test]
fn printed_commands_are_quoted() {
    let place = tempfile::tempdir().unwrap();
    let mut evil = snapshot(place.path());
    let names = [
        "e$(>IFNAME)",
        "e`>IFNAME`",
        "a;>IFNAME;",
        "a'>IFNAME'",
        "a\">IFNAME\"",
        "a|>IFNAME",
        "a&>IFNAME",
        "#x",
        "~",
        "*",
        "a\\\\b",
        "!x",
        "-x",
        "up",
        "type",
        "a\u{1b}b",
        "a\u{202e}b",
        "\\xff\\xfe",
        "日本",
        "a=b",
        "{a,b}",
        "$HOME",
        "<IFNAME",
        "a\u{7f}\u{1}",
    ];
    let base = evil["interfaces"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] != "lo")
        .unwrap_or(&evil["interfaces"][0])
        .clone();
    let list = evil["interfaces"].as_array_mut().unwrap();
    for (number, name) in names.iter().enumerate() {
        let mut one = base.clone();
        one["name"] = json!(name);
        one["index"] = json!(5000 + number);
        one["loopback"] = json!(false);
        one["up"] = json!(true);
        one["kind"] = json!("dummy");
        one["addresses"] = json!([{"address": format!("10.9.{number}.1"), "prefix": 24, "family": "ipv4", "class": "private",
            "scope_id": null, "label": name, "peer": null, "broadcast": null, "state": ["permanent"]}]);
        list.push(one);
    }
    evil["settings"]["net.x; >SETTING; :"] = json!(1);
    evil["settings"]["net.ipv4.conf.$(>SETTING).rp_filter"] = json!(1);
    evil["host"]["name"] = json!("h\n>HOST\n$(>HOST)");
    fs::write(place.path().join("evil.json"), evil.to_string()).unwrap();
    let plan = run_in(place.path(), &["lab", "plan", "--twin", "evil.json", "loopback"]);
    assert!(plan.status.success(), "{:?}", text(&plan));
    let script = String::from_utf8(plan.stdout).unwrap();
    assert!(!script.chars().any(|c| c.is_control() && c != '\n' || c == '\u{202e}'));
    fs::write(place.path().join("plan.sh"), &script).unwrap();
    // The commands are programs that write their arguments down, each with a byte 0 after it.
    let bin = place.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["ip", "sysctl", "nft"] {
        let stub = "#!/bin/sh\nfor a in \"$@\"; do printf '%s\\0' \"$a\"; done >> \"$LOG\"\n";
        fs::write(bin.join(name), stub).unwrap();
        fs::set_permissions(bin.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    for program in ["dash", "bash", "ksh"] {
        if !["/bin", "/usr/bin"].iter().any(|directory| Path::new(directory).join(program).exists()) {
            continue;
        }
        let log = place.path().join(format!("log-{program}"));
        let mut command = Command::new(program);
        command
            .arg("plan.sh")
            .current_dir(place.path())
            .env_clear()
            .env("LOG", &log)
            .env("HOME", "/home-of-the-test");
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = finish(child);
        for made in ["IFNAME", "SETTING", "HOST"] {
            assert!(!place.path().join(made).exists(), "{program} made {made}");
        }
        let log = fs::read(&log).unwrap();
        let arguments: Vec<&[u8]> = log.split(|byte| *byte == 0).collect();
        for name in names {
            let bytes = bindscope::model::IfName::from_escaped(name);
            assert!(arguments.contains(&bytes.as_bytes()), "{program} {name:?} {:?}", text(&output));
        }
    }
}

/// A snapshot with more interfaces than a machine can copy is refused before anything is built.
#[test]
fn a_copy_of_too_many_interfaces_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let mut large = snapshot(place.path());
    let base = large["interfaces"][0].clone();
    let list = large["interfaces"].as_array_mut().unwrap();
    for number in 0..1_001 {
        let mut one = base.clone();
        (one["name"], one["index"], one["addresses"]) =
            (json!(format!("x{number}")), json!(9000 + number), json!([]));
        list.push(one);
    }
    fs::write(place.path().join("large.json"), large.to_string()).unwrap();
    for command in ["run", "plan"] {
        let output = run_in(place.path(), &["lab", command, "loopback", "--twin", "large.json"]);
        assert_eq!(output.status.code(), Some(2), "{:?}", text(&output));
        assert!(text(&output).1.contains("at most 1000"), "{:?}", text(&output));
    }
}

/// The page that the message of a refused setting names lists them all.
#[test]
fn the_page_of_labs_lists_the_settings() {
    let page = bindscope::explain::find("lab").unwrap().markdown;
    for path in bindscope::model::setting::CHANGEABLE {
        let (group, name) = path.rsplit_once('/').unwrap();
        assert!(
            page.contains(&format!("`{name}`")) && page.contains(&format!("`{}`", group.replace('/', "."))),
            "{path}"
        );
    }
}
