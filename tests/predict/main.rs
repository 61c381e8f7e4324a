//! `plan`, `probe` and `diff` as a user runs them, in namespaces of the tests' own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    unsafe_code,
    reason = "a test"
)]

mod experiments;
mod foreign;
mod formats;
mod held;
mod names;
mod standard_input;
#[path = "../support/mod.rs"]
mod support;
mod sweep;

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Output, Stdio};

use experiments::{
    a_probe_varies_what_it_may_and_agrees, an_experiment_is_shown_in_every_format,
    binds_that_fail_and_contradictions_are_results, deciding_factors_are_those_of_all_pairs,
    experiments_that_cannot_be_run_are_refused, profiles_can_be_a_factor_and_experiments_compared,
};
use foreign::{
    a_server_that_resets_is_no_refusal, a_socket_that_is_there_already_takes_part,
    without_descriptors_nothing_is_decided,
};
use formats::{
    connections_spread_over_a_group, names_are_escaped_in_every_format, ten_thousand_cells_take_seconds,
};
use held::{ports_held_without_listening_are_planned, time_wait_of_a_client_is_uncertain};
use libtest_mimic::Trial;
use names::interfaces_are_found_by_every_name;
use serde_json::Value;
use standard_input::one_side_is_read_from_standard_input;
use support::netns::{Netns, harness};
use support::program::{bindscope, finish, flat, text};
use sweep::{
    a_source_that_goes_away_is_no_verdict, a_sweep_comes_from_where_the_kernel_chooses,
    a_sweep_does_not_meet_itself, every_port_is_swept, foreign_servers_see_an_orderly_end,
    others_addresses_are_refused, silence_costs_one_timeout,
};

fn main() -> ExitCode {
    macro_rules! trials {
        ($($name:ident,)*) => {
            vec![$(Trial::test(stringify!($name), || { $name(); Ok(()) }),)*]
        };
    }
    harness(trials![
        a_plan_opens_no_socket_of_the_internet,
        a_probe_agrees_with_its_plan,
        every_address_of_this_host_is_tried_as_a_source,
        a_socket_that_is_there_already_takes_part,
        ports_held_without_listening_are_planned,
        time_wait_of_a_client_is_uncertain,
        interfaces_are_found_by_every_name,
        a_server_that_resets_is_no_refusal,
        without_descriptors_nothing_is_decided,
        a_firewall_shows_as_a_disagreement,
        a_firewall_is_named_where_it_can_be_seen,
        what_if_questions_are_answered,
        another_hosts_snapshot_is_planned_for,
        bad_snapshots_and_settings_are_refused,
        expectations_pass_fail_and_stay_undecided,
        what_is_not_open_is_not_looked_at,
        short_queues_and_meeting_oneself_are_no_findings,
        a_server_behind_wg_quick_is_not_reached_from_the_internet,
        the_binds_of_a_host_in_disorder_are_predicted,
        nothing_bound_is_the_environments_fault,
        two_profiles_and_two_reports_are_compared,
        one_side_is_read_from_standard_input,
        reports_without_common_questions_are_refused,
        names_are_escaped_in_every_format,
        connections_spread_over_a_group,
        ten_thousand_cells_take_seconds,
        every_port_is_swept,
        a_sweep_does_not_meet_itself,
        foreign_servers_see_an_orderly_end,
        a_sweep_comes_from_where_the_kernel_chooses,
        a_source_that_goes_away_is_no_verdict,
        others_addresses_are_refused,
        silence_costs_one_timeout,
        an_experiment_is_shown_in_every_format,
        deciding_factors_are_those_of_all_pairs,
        binds_that_fail_and_contradictions_are_results,
        experiments_that_cannot_be_run_are_refused,
        a_probe_varies_what_it_may_and_agrees,
        profiles_can_be_a_factor_and_experiments_compared,
    ])
}

/// A host with two wires.
fn host() -> (Netns, Netns) {
    let (ns, far) = (Netns::new(), Netns::new());
    // Link-local addresses of the kernel's own would come some time after the wires are up.
    ns.sysctl("net.ipv6.conf.default.addr_gen_mode", "1");
    // Each wire has a subnet of its own, or the answers to one would leave by the other.
    for (wire, other, number, ipv4) in
        [("eth0", "f0", 1, "192.0.2.1/25"), ("eth1", "f1", 2, "192.0.2.130/25")]
    {
        ns.wire(wire, &far, other);
        ns.address(wire, ipv4);
        ns.address(wire, &format!("2001:db8:{number}::1/64"));
        ns.address(wire, &format!("fe80::{number}:1/64"));
    }
    support::snapshot::settle(&ns);
    (ns, far)
}

fn run(ns: &Netns, words: &[&str]) -> Output {
    run_command(ns, &mut bindscope(words))
}

fn run_command(ns: &Netns, command: &mut Command) -> Output {
    finish(ns.run(|| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()).unwrap())
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {:?}", text(output)))
}

#[track_caller]
fn exits(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{:?}", text(output));
}

/// A file that goes away with what is returned.
fn file(name: &str, content: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join(name);
    std::fs::File::create(&path).unwrap().write_all(content.as_bytes()).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

fn profile(content: &str) -> (tempfile::TempDir, String) {
    file("test.toml", &format!("schema = 1\nname = \"test\"\n{content}"))
}

/// Kills the program when it makes a socket of AF_INET or AF_INET6.
fn without_internet(command: &mut Command) -> &mut Command {
    let load = |offset| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: offset };
    let equal = |value: u32, jt, jf| libc::sock_filter { code: 0x15, jt, jf, k: value };
    let answer = |value| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: value };
    // seccomp_data: the number of the call at 0, its first argument at 16.
    let filter = [
        load(0),
        equal(u32::try_from(libc::SYS_socket).unwrap(), 0, 4),
        load(16),
        equal(2, 1, 0),
        equal(10, 0, 1),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    // SAFETY: between fork and exec only prctl is called, with a filter that the closure owns.
    unsafe {
        command.pre_exec(move || {
            let mut filter = filter;
            let program = libc::sock_fprog { len: 7, filter: filter.as_mut_ptr() };
            let done = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0;
            if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        })
    }
}

fn a_plan_opens_no_socket_of_the_internet() {
    let (ns, _far) = host();
    for words in [&["plan"][..], &["plan", "--format", "json"], &["diff", "loopback", "all-interfaces"]] {
        let output = run_command(&ns, without_internet(&mut bindscope(words)));
        exits(&output, i32::from(words[0] == "diff"));
        assert!(!output.stdout.is_empty());
    }
    // The filter does what it is for.
    let output = run_command(&ns, without_internet(&mut bindscope(&["probe"])));
    assert_eq!(output.status.code(), None, "{:?}", text(&output));
}

fn a_probe_agrees_with_its_plan() {
    let (ns, _far) = host();
    let report = json(&run(&ns, &["probe", "--format", "json"]));
    assert_eq!(report["schema"], "bindscope.probe/1");
    assert_eq!(report["summary"]["disagree"], 0, "{:#}", report["cells"]);
    // Linux reports the interface of every arrival.
    assert_eq!(report["summary"]["ingress_not_observed"], 0, "{:#}", report["cells"]);
    let cells = report["cells"].as_array().unwrap();
    let seen: Vec<_> = cells.iter().filter(|cell| !cell["observed"].is_null()).collect();
    assert_eq!(seen.len(), report["summary"]["agree"]);
    assert!(seen.iter().all(|cell| cell["source"] == "host" && cell["agrees"] == true));
    assert!(seen.len() > 80, "{}", seen.len());
    let find = |destination: &str, port: u16| {
        seen.iter().find(|cell| cell["destination"] == destination && cell["port"] == port).unwrap()
    };
    // Local traffic to a wire's address counts as arrived on the wire; the wildcard address means loopback.
    assert_eq!(find("192.0.2.1", 8081)["observed"]["ingress"], "eth0");
    assert_eq!(find("0.0.0.0", 8081)["observed"]["ingress"], "lo");
    assert_eq!(find("::ffff:192.0.2.1", 8087)["observed"]["v4_mapped"], true);
    assert_eq!(find("::1", 8081)["observed"]["errno"], "ECONNREFUSED");
    // The weak host model, predicted for a client on the other wire.
    let weak = cells
        .iter()
        .find(|cell| {
            cell["source"] == "link:eth1" && cell["destination"] == "192.0.2.1" && cell["port"] == 8081
        })
        .unwrap();
    assert_eq!(weak["predicted"]["why"], "BS3003");
    assert_eq!(weak["predicted"]["ingress"], "eth1");
    assert!(weak["observed"].is_null() && weak["agrees"].is_null());
    // The plan is the same, but for what was seen.
    let plan = json(&run(&ns, &["plan", "--format", "json"]));
    for cell in plan["cells"].as_array().unwrap() {
        let same = |other: &&Value| {
            ["source", "protocol", "destination", "port"].iter().all(|key| other[*key] == cell[*key])
        };
        assert_eq!(cells.iter().find(same).unwrap()["predicted"], cell["predicted"]);
    }
    let timeless = |mut report: Value| {
        assert!(report.as_object_mut().unwrap().remove("time").is_some_and(|time| time.is_string()));
        report
    };
    assert_eq!(timeless(plan), timeless(json(&run(&ns, &["plan", "--format", "json"]))));
    exits(&run(&ns, &["probe", "--localhost"]), 0);
}

fn every_address_of_this_host_is_tried_as_a_source() {
    let (ns, _far) = host();
    let binds =
        ["0.0.0.0:8105", "[::]:8106", "udp:[::]:8107", "0.0.0.0:8108,device=lo", "[::]:8109,device=eth0"];
    let mut words = vec!["probe", "--connect-timeout", "300ms"];
    words.extend(binds.iter().flat_map(|bind| ["--bind", bind]));
    words.push("--format");
    let cells = |sources: &str| {
        let output = run(&ns, &[&words[..], &["json", "--sources", sources]].concat());
        exits(&output, 0);
        json(&output)["cells"].as_array().unwrap().clone()
    };
    let (plain, all) = (cells("default"), cells("all"));
    assert!(plain.iter().all(|cell| cell.get("source_address") == Some(&Value::Null)));
    let chosen: Vec<&Value> = all.iter().filter(|cell| cell["source_address"].is_null()).collect();
    let place = |cell: &Value| (cell["source"].clone(), cell["destination"].clone());
    assert!(chosen.iter().map(|cell| place(cell)).eq(plain.iter().map(place)), "the others stay as they are");
    let bound: Vec<&Value> = all.iter().filter(|cell| cell["source_address"].is_string()).collect();
    let from_loopback = bound.iter().filter(|cell| cell["source_address"] == "127.0.0.1");
    for cell in from_loopback {
        let destination = cell["destination"].as_str().unwrap();
        assert!(["0.0.0.0", "127.0.0.2", "::ffff:127.0.0.1"].contains(&destination), "{cell:#}");
    }
    let accepted: Vec<&&Value> =
        bound.iter().filter(|cell| cell["observed"]["outcome"] == "accepted").collect();
    assert!(accepted.len() > 2, "{bound:#?}");
    for cell in accepted {
        assert_eq!(cell["observed"]["peer"], cell["source_address"], "{cell:#}");
        assert_eq!(cell["agrees"], true, "{cell:#}");
    }
    let human = run(&ns, &[&words[..], &["human", "--sources", "all", "-v"]].concat());
    assert!(String::from_utf8_lossy(&human.stdout).contains("from this host as 127.0.0.1\n"));
}

fn a_firewall_shows_as_a_disagreement() {
    let (ns, _far) = host();
    // A policy of IPsec stands in for a packet filter: no plan looks at it.
    ns.sysctl("net.ipv4.conf.lo.disable_xfrm", "0");
    ns.ip("xfrm policy add src 192.0.2.1 dst 192.0.2.1 dir out action block");
    let output = run(&ns, &["probe", "--bind", "0.0.0.0:8096", "--connect-timeout", "200ms"]);
    exits(&output, 1);
    assert!(text(&output).0.contains(" NOT."), "{:?}", text(&output));
}

fn what_if_questions_are_answered() {
    let (ns, _far) = host();
    let outcome = |words: &[&str]| {
        let output = run(&ns, &[&["plan", "--format", "json"], words].concat());
        json(&output)["sockets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|socket| socket["bind"]["predicted"]["errno"].as_str().unwrap_or("ok").to_owned())
            .collect::<Vec<_>>()
    };
    let (_directory, system) = profile(
        "[[listener]]\nname = \"a\"\nbind = \"0.0.0.0\"\nport = 8097\n[[listener]]\nname = \"b\"\nbind = \"::\"\nv6only = \"system\"\nport = 8097\n",
    );
    assert_eq!(outcome(&[&system]), ["ok", "EADDRINUSE"]);
    assert_eq!(outcome(&[&system, "--set", "net.ipv6.bindv6only=1"]), ["ok", "ok"]);
    assert_eq!(outcome(&[&system, "--without-ipv6"]), ["ok", "EAFNOSUPPORT"]);
    let low = "--bind=203.0.113.9:8097";
    assert_eq!(outcome(&[low]), ["EADDRNOTAVAIL"]);
    assert_eq!(outcome(&[low, "--set", "net.ipv4.ip_nonlocal_bind=1"]), ["ok"]);
    let plan = json(&run(
        &ns,
        &[
            "plan",
            "--format",
            "json",
            "--bind",
            "127.0.0.1:8097",
            "--set",
            "net.ipv4.conf.eth1.route_localnet=1",
        ],
    ));
    let from = |wire: &str| {
        let cells = plan["cells"].as_array().unwrap();
        let cell =
            cells.iter().find(|cell| cell["source"] == wire && cell["destination"] == "127.0.0.1").unwrap();
        (cell["predicted"]["outcome"].clone(), cell["predicted"]["why"].clone())
    };
    assert_eq!(from("link:eth0"), ("timeout".into(), "BS3014".into()));
    assert_eq!(from("link:eth1"), ("accepted".into(), "BS3015".into()));
}

fn another_hosts_snapshot_is_planned_for() {
    let (ns, _far) = host();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("host.json");
    let path = path.to_str().unwrap();
    exits(&run(&ns, &["interfaces", "--format", "json", "-o", path]), 0);
    let elsewhere = Netns::new();
    let words = ["plan", "--bind", "192.0.2.1:8098", "--format", "json"];
    let here = json(&run(&ns, &words));
    let there = json(&run(&elsewhere, &[&words[..], &["--host", path]].concat()));
    assert_eq!(here["cells"], there["cells"]);
    assert_eq!(there["sockets"][0]["bind"]["predicted"]["outcome"], "ok");
    // That nothing is in the way there is an assumption, and said to be one.
    assert_eq!(there["complete"], false);
    assert!(there["incomplete_because"].to_string().contains("what listens on its host"), "{there}");
    let told = run(&elsewhere, &["plan", "--bind", "192.0.2.1:8098", "--host", path]);
    assert!(text(&told).0.contains("\nIncomplete: a snapshot does not tell"), "{:?}", text(&told));
    // That is so of every snapshot. One that was not whole when it was taken is no evidence.
    exits(&told, 0);
    let whole = std::fs::read_to_string(path).unwrap();
    let cut = whole.replacen("\"complete\": true", "\"complete\": false", 1);
    let (_directory, cut) = file("cut.json", &cut.replacen("[]", "[\"the routes changed\"]", 1));
    exits(&run(&elsewhere, &["plan", "--bind", "192.0.2.1:8098", "--host", &cut]), 3);
    // Who binds there is taken for an ordinary user.
    let low = json(&run(&elsewhere, &["plan", "--bind", "192.0.2.1:80", "--format", "json", "--host", path]));
    assert_eq!(low["sockets"][0]["bind"]["predicted"]["errno"], "EACCES");
}

fn bad_snapshots_and_settings_are_refused() {
    let ns = Netns::new();
    let refused = |words: &[&str], said: &str| {
        let output = run(&ns, &[&["plan"], words].concat());
        exits(&output, 2);
        assert!(text(&output).1.contains(said), "{:?}", text(&output));
        assert!(output.stdout.is_empty());
    };
    refused(&["--host", "/nowhere.json"], "BS0091");
    for (content, said) in [
        ("not json", "not JSON"),
        ("{}", "no `schema`"),
        (r#"{"schema":"bindscope.plan/1"}"#, "not a snapshot of a host"),
        (r#"{"schema":"bindscope.interfaces/2"}"#, "bindscope.interfaces/2"),
        (r#"{"schema":"bindscope.interfaces/1","interfaces":7}"#, "not a snapshot"),
    ] {
        let (_directory, path) = file("h.json", content);
        refused(&["--host", &path], said);
    }
    refused(&["--set", "net.ipv4.tcp_rmem=1"], "BS0092");
    refused(&["--set", "net.ipv4.conf.nope.route_localnet=1"], "no interface is called nope");
    refused(&["--set", "net.ipv4.conf.lo.log_martians=1"], "no prediction depends on");
    refused(&["--set", "bindv6only"], "NAME=VALUE");
    refused(&["--set", "net.ipv6.bindv6only=yes"], "whole number");
    // A setting of one interface takes its addresses away, as the kernel does.
    let (ns, _far) = host();
    let without = ["plan", "--bind", "[2001:db8:1::1]:8000", "--set", "net.ipv6.conf.eth0.disable_ipv6=1"];
    let output = run(&ns, &[&without[..], &["--format", "json"]].concat());
    assert_eq!(json(&output)["sockets"][0]["bind"]["predicted"]["errno"], "EADDRNOTAVAIL");
    let output = run(&ns, &["probe", "--deadline", "9223372036854775807s"]);
    exits(&output, 2);
}

fn expectations_pass_fail_and_stay_undecided() {
    let (ns, _far) = host();
    let listener = "[[listener]]\nname = \"a\"\nbind = \"127.0.0.1\"\nport = 8099\n";
    let verdict = |command: &str, expectation: &str| {
        let (_directory, path) = profile(&format!("{listener}[[expect]]\n{expectation}\n"));
        let output = run(&ns, &[command, &path, "--format", "json"]);
        let report = json(&output);
        let expectations = report["expectations"].as_array().unwrap();
        let verdict = expectations[0]["verdict"].as_str().unwrap().to_owned();
        assert!(!expectations[0]["because"].as_str().unwrap().is_empty());
        (verdict, output.status.code().unwrap())
    };
    let (pass, fail, undecided) =
        (("pass".to_owned(), 0), ("fail".to_owned(), 1), ("undecided".to_owned(), 3));
    for command in ["plan", "probe"] {
        for (expectation, expected) in [
            ("listener = \"a\"\nreachable_from = [\"loopback\"]", &pass),
            ("listener = \"a\"\nreachable_from = [\"self\"]", &fail),
            ("listener = \"a\"\nnot_reachable_from = [\"self\"]", &pass),
            ("listener = \"a\"\nnot_reachable_from = [\"loopback\"]", &fail),
            ("listener = \"a\"\nonly_from = \"loopback\"", &pass),
            ("listener = \"a\"\nonly_from = \"loopback\"\nhow_refused = [\"unreachable\"]", &fail),
            ("listener = \"a\"\nonly_from = \"loopback\"\nmin_sources = 9", &undecided),
            ("listener = \"a\"\narrives_on = [\"lo\"]", &pass),
            ("listener = \"a\"\narrives_on = [\"eth*\"]", &fail),
            ("listener = \"a\"\nbind = \"ok\"", &pass),
            ("listener = \"a\"\nbind = \"EADDRINUSE\"", &fail),
            ("listener = \"a\"\nreachable_from = [\"node:lan\"]", &undecided),
            ("listener = \"a\"\nnot_reachable_from = [\"link:nope\"]", &undecided),
            ("listener = \"a\"\nfamily = \"ipv6\"\nreachable_from = [\"loopback\"]", &fail),
        ] {
            assert_eq!(&verdict(command, expectation), expected, "{command} {expectation}");
        }
    }
    // A wire can be reasoned about, but not be looked from here.
    let wire = "listener = \"a\"\nnot_reachable_from = [\"link:eth*\"]";
    assert_eq!(verdict("plan", wire), pass);
    assert_eq!(verdict("probe", wire), undecided);
    // The conflict of profile E.
    let (_directory, path) = profile(
        "[[listener]]\nname = \"v4\"\nbind = \"0.0.0.0\"\nport = 9100\n[[listener]]\nname = \"six\"\nbind = \"::\"\nport = 9100\n[[listener]]\nname = \"dual\"\nbind = \"::\"\nv6only = false\nport = 9100\n[[expect]]\nlistener = \"dual\"\nbind = \"EADDRINUSE\"\nconflicts_with = [\"v4\", \"six\"]\n",
    );
    for command in ["plan", "probe"] {
        let output = run(&ns, &[command, &path]);
        exits(&output, 0);
        assert!(text(&output).0.contains("\nAll 2 expectations hold.\n"), "{:?}", text(&output));
    }
    for (format, said) in
        [("junit", "<failure type="), ("github", "::error title="), ("markdown", "| fail |")]
    {
        let (_directory, path) =
            profile(&format!("{listener}[[expect]]\nlistener = \"a\"\nreachable_from = [\"self\"]\n"));
        let output = run(&ns, &["probe", &path, "--format", format]);
        exits(&output, 1);
        assert!(text(&output).0.contains(said), "{:?}", text(&output));
    }
}

fn what_is_not_open_is_not_looked_at() {
    let (ns, _far) = host();
    let _server = ns.run(|| TcpListener::bind("127.0.0.1:8102")).unwrap();
    let (_directory, path) = profile(
        "[[listener]]\nname = \"a\"\nbind = \"127.0.0.1\"\nport = [8101, 8102]\n\
         [[listener]]\nname = \"b\"\nbind = \"203.0.113.9\"\nport = 8103\n\
         [[expect]]\nlistener = \"a\"\nreachable_from = [\"loopback\"]\n\
         [[expect]]\nlistener = \"b\"\nnot_reachable_from = [\"host\"]\n\
         [[expect]]\nlistener = \"b\"\nnot_reachable_from = [\"host\"]\nbind = \"EADDRNOTAVAIL\"\n",
    );
    for command in ["plan", "probe"] {
        let output = run(&ns, &[command, &path, "--format", "json"]);
        exits(&output, 1);
        let report = json(&output);
        let verdicts: Vec<&str> = report["expectations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["verdict"].as_str().unwrap())
            .collect();
        // One port of two is not enough; no client reaches what is not open, and that proves nothing unless it is expected.
        assert_eq!(verdicts, ["fail", "undecided", "pass", "pass"], "{command} {:?}", text(&output));
    }
}

fn short_queues_and_meeting_oneself_are_no_findings() {
    let (ns, _far) = host();
    for last in 10..60 {
        ns.address("eth0", &format!("192.0.2.{last}/25"));
    }
    // No listener holds 40000, so a client may get it for its own and connect to itself.
    ns.sysctl("net.ipv4.ip_local_port_range", "40000 40001");
    for (protocol, parallel) in [("tcp", "256"), ("udp", "1")] {
        let (_directory, path) = profile(&format!(
            "[[listener]]\nname = \"short\"\nbind = \"0.0.0.0\"\nport = 8101\nbacklog = 1\n\
             [[listener]]\nname = \"gone\"\nprotocol = \"{protocol}\"\nbind = \"203.0.113.9\"\nport = [40000, 40001]\n",
        ));
        let output = run(&ns, &["probe", &path, "--parallel", parallel, "--format", "json"]);
        exits(&output, 0);
        assert_eq!(json(&output)["summary"]["disagree"], 0);
    }
}

/// wg-quick with `AllowedIPs = 0.0.0.0/0` on a server: clients beyond the router get no answer, and both the plan and the audit name
/// the rule that takes it away.
fn a_server_behind_wg_quick_is_not_reached_from_the_internet() {
    let (ns, router, tunnel) = (Netns::new(), Netns::new(), Netns::new());
    ns.sysctl("net.ipv6.conf.default.addr_gen_mode", "1");
    ns.wire("eth0", &router, "r0");
    ns.wire("wg0", &tunnel, "t0");
    ns.address("eth0", "192.0.2.10/24");
    ns.address("wg0", "10.66.0.2/32");
    ns.ip("route add default via 192.0.2.1");
    ns.ip("route add default dev wg0 table 51820");
    ns.ip("rule add not fwmark 51820 table 51820 priority 32765");
    ns.ip("rule add table main suppress_prefixlength 0 priority 32764");
    let plan = json(&run(&ns, &["plan", "--bind", "0.0.0.0:8022", "--format", "json"]));
    let cell = |source: &str| {
        let cells = plan["cells"].as_array().unwrap();
        let found = cells.iter().find(|cell| cell["source"] == source && cell["destination"] == "192.0.2.10");
        found.unwrap_or_else(|| panic!("{source}: {plan:#}"))["predicted"].clone()
    };
    assert_eq!(cell("link:eth0")["outcome"], "accepted");
    let beyond = cell("link:eth0 beyond");
    assert_eq!((&beyond["outcome"], &beyond["why"]), (&"timeout".into(), &"BS3040".into()));
    let path = &beyond["return_path"];
    assert_eq!(
        (&path["rule"], &path["table"], &path["interface"]),
        (&32765.into(), &51820.into(), &"wg0".into())
    );
    let shown = flat(&text(&run(&ns, &["plan", "--bind", "0.0.0.0:8022"])).0);
    let lost = "RETURN PATH a policy rule sends the answer another way: ip rule 32765: the answer leaves by wg0 (route to \
                0.0.0.0/0 in table 51820) link:eth0 beyond: tcp port 8022";
    assert!(shown.contains(lost), "{shown}");
    let _ssh = ns.run(|| std::net::TcpListener::bind("0.0.0.0:8022").unwrap());
    let audit = flat(&text(&run(&ns, &["audit"])).0);
    assert!(audit.contains("clients of link:eth0 beyond get no answer"), "{audit}");
    assert!(audit.contains("ip rule 32765: the answer leaves by wg0"), "{audit}");
    let why = flat(&text(&run(&ns, &["why", "192.0.2.10:8022"])).0);
    let lost = "But clients of link:eth0 beyond get no answer from 10.66.0.2, 192.0.2.10 port 8022: a policy rule sends the answer \
                another way: ip rule 32765: the answer leaves by wg0";
    assert!(why.contains(lost), "{why}");
    // A setting is tried on the plan.
    let strict =
        ["plan", "--bind", "0.0.0.0:8024", "--set", "net.ipv4.conf.eth0.rp_filter=1", "--format", "json"];
    let strict = json(&run(&ns, &strict));
    let cells = strict["cells"].as_array().unwrap();
    let beyond = cells.iter().find(|cell| cell["source"] == "link:eth0 beyond").unwrap();
    assert_eq!(beyond["predicted"]["why"], "BS3042", "{beyond:#}");
}

fn the_binds_of_a_host_in_disorder_are_predicted() {
    let (ns, _far) = host();
    let agrees = |state: &str| {
        let words =
            ["probe", "--bind", "0.0.0.0:8101", "--bind", "eth0:8102", "--bind", "0.0.0.0:8103,device=eth0"];
        let output = run(&ns, &[&words[..], &["--format", "json", "--connect-timeout", "300ms"]].concat());
        let report = json(&output);
        let wrong = report["cells"].as_array().unwrap().iter().find(|cell| cell["agrees"] == false);
        assert_eq!(wrong, None, "{state}");
    };
    // A client of a v4-mapped address needs a socket for both families.
    ns.sysctl("net.ipv6.bindv6only", "1");
    agrees("bindv6only");
    // `::` means `::1`, which is not there any more: first another address is, then none.
    ns.sysctl("net.ipv6.conf.lo.disable_ipv6", "1");
    agrees("no ::1");
    ns.sysctl("net.ipv6.conf.all.disable_ipv6", "1");
    agrees("no IPv6 address");
    ns.sysctl("net.ipv6.conf.all.disable_ipv6", "0");
    // Its IPv4 address stays, but who is bound to it cannot answer.
    ns.ip("link set eth0 down");
    agrees("eth0 down");
    ns.ip("link set lo down");
    agrees("lo down");
    ns.ip("route add default via 192.0.2.200 dev eth1");
    agrees("lo down, default route");
}

fn nothing_bound_is_the_environments_fault() {
    let ns = Netns::new();
    let _server = ns.run(|| TcpListener::bind("127.0.0.1:8100")).unwrap();
    let output = run(&ns, &["probe", "--bind", "127.0.0.1:8100", "--connect-timeout", "200ms"]);
    exits(&output, 4);
    assert!(text(&output).1.contains("BS2015"));
    assert!(text(&output).0.contains("EADDRINUSE"));
}

fn two_profiles_and_two_reports_are_compared() {
    let (ns, _far) = host();
    let output = run(&ns, &["diff", "loopback", "all-interfaces", "--format", "json"]);
    exits(&output, 1);
    let found = json(&output);
    assert_eq!(found["schema"], "bindscope.diff/1");
    let of = |key: &str| {
        let list = found["differences"].as_array().unwrap();
        list.iter().find(|difference| difference["key"] == key).unwrap_or_else(|| panic!("{found:#}")).clone()
    };
    let wire = of("link:eth0 to tcp 192.0.2.1 port 8091");
    assert_eq!((&wire["a"], &wire["b"]), (&"refused".into(), &"accepted by server on eth0".into()));
    let cell = &wire["cell"];
    assert_eq!((&cell["source"], &cell["destination"]), (&"link:eth0".into(), &"192.0.2.1".into()));
    assert_eq!((&cell["protocol"], &cell["port"]), (&"tcp".into(), &8091.into()));
    let said = |side: &str| {
        let text = |name: &str| cell[side][name].as_str().map(str::to_owned);
        (
            text("outcome"),
            text("listener"),
            text("ingress"),
            text("why").is_some_and(|why| why.starts_with("BS3")),
        )
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(said("a"), (some("refused"), None, None, true));
    assert_eq!(said("b"), (some("accepted"), some("server"), some("eth0"), true));
    assert!(of("tcp 127.0.0.1 port 8091")["cell"].is_null());
    assert!(of("tcp 127.0.0.1 port 8091")["b"].is_null());
    let human = text(&run(&ns, &["diff", "loopback", "all-interfaces"])).0;
    assert!(human.lines().last().unwrap().starts_with("loopback and all-interfaces: "), "{human}");
    exits(&run(&ns, &["diff", "loopback", "loopback"]), 0);
    // A plan and a probe of the same profile ask the same questions of this host, but a probe has more destinations.
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (first, second) = (path("a.json"), path("b.json"));
    for to in [&first, &second] {
        exits(&run(&ns, &["probe", "--format", "json", "-o", to]), 0);
    }
    exits(&run(&ns, &["diff", &first, &second]), 0);
    // A server that was there already, and says nothing.
    let _other = ns.run(|| TcpListener::bind("127.0.0.1:8093")).unwrap();
    let plan = path("plan.json");
    for to in [&plan, &second] {
        let command = if to == &plan { "plan" } else { "probe" };
        let words = ["--bind", "0.0.0.0:8081", "--bind", "[::1]:8093", "--format", "json", "-o", to];
        exits(
            &run(
                &ns,
                &[&[command][..], &words, if to == &plan { &[] } else { &["--connect-timeout", "200ms"] }]
                    .concat(),
            ),
            0,
        );
    }
    let output = run(&ns, &["diff", &plan, &second]);
    exits(&output, 0);
    assert!(
        text(&output).0.contains("only one report has these results, so they are not compared: "),
        "{:?}",
        text(&output)
    );
    exits(
        &run(
            &ns,
            &[
                "probe",
                "--bind",
                "0.0.0.0:8081",
                "--bind",
                "[::1]:8093",
                "--ports",
                "9",
                "--connect-timeout",
                "200ms",
                "--format",
                "json",
                "-o",
                &plan,
            ],
        ),
        0,
    );
    exits(&run(&ns, &["diff", &plan, &second]), 0);
    exits(&run(&ns, &["probe", "--format", "json", "-o", &second]), 0);
    exits(&run(&ns, &["diff", &first, &second]), 0);
    ns.ip("address add 198.51.100.1/24 dev eth1");
    exits(&run(&ns, &["probe", "--format", "json", "-o", &second]), 0);
    let output = run(&ns, &["diff", &first, &second, "--format", "csv"]);
    exits(&output, 1);
    assert!(text(&output).0.contains("host to tcp 198.51.100.1 port 8081,,accepted by all4 on eth1"));
}

/// Standard input has either a report or a profile, and one of the two sides alone.
fn reports_without_common_questions_are_refused() {
    let ns = Netns::new();
    let (_a, plan) = file("plan.json", r#"{"schema":"bindscope.plan/1","cells":[]}"#);
    let (_b, audit) = file("audit.json", r#"{"schema":"bindscope.audit/1","sockets":[]}"#);
    let (_c, newer) = file("newer.json", r#"{"schema":"bindscope.plan/7"}"#);
    for (a, b, said) in [
        (&plan, &audit, "nothing in common"),
        (&plan, &newer, "newer than this version"),
        (&plan, &"/nowhere.json".to_owned(), "BS0093"),
        (&plan, &"no-such-profile".to_owned(), "BS0018"),
    ] {
        let output = run(&ns, &["diff", a, b]);
        exits(&output, 2);
        assert!(text(&output).1.contains(said), "{:?}", text(&output));
    }
    // Nothing to compare is no agreement.
    exits(&run(&ns, &["diff", &plan, &plan]), 3);
}

/// How many backslashes stand before each `x1b` and `xff`, which are parts of names.
fn backslashes(shown: &str) -> Vec<usize> {
    let names = shown.match_indices("x1b").chain(shown.match_indices("xff"));
    names.map(|(at, _)| shown[..at].bytes().rev().take_while(|&byte| byte == b'\\').count()).collect()
}

/// That there are packet filters is said, and that there are none.
fn a_firewall_is_named_where_it_can_be_seen() {
    if !support::tool("nft") {
        return;
    }
    let ns = Netns::new();
    let plan = || flat(&text(&ns.output(&mut bindscope(&["plan", "loopback"]))).0);
    let before = plan();
    assert!(before.contains("there is no table of a packet filter here"), "{before}");
    assert!(ns.output(Command::new("nft").args(["add", "table", "inet", "guard"])).status.success());
    let after = plan();
    assert!(after.contains("packet filters and address translation (nftables inet guard)"), "{after}");
}
