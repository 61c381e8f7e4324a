//! What packet filters cost, as ratios of one run: `cargo bench --bench filters`. Reading 300 objects against `nft list ruleset`,
//! replaying 20,000 rules against `nft -f`, and one predicted result, with some 200 rules and with none. Ends with 1 when a goal is
//! missed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a benchmark"
)]

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/support/netns.rs"]
mod netns;

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use bindscope::model::{Protocol, Snapshot, SocketSpec};
use bindscope::plan::bind_check::Rights;
use bindscope::report::matrix::Plan;
use bindscope::sys;
use netns::Netns;
use nix::sys::resource::{UsageWho, getrusage};

/// CPU time of this process or of its children, user and system.
fn cpu(who: UsageWho) -> Duration {
    let usage = getrusage(who).unwrap();
    let part = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec().try_into().unwrap(), u32::try_from(time.tv_usec()).unwrap() * 1000)
    };
    part(usage.user_time()) + part(usage.system_time())
}

/// The least CPU time of several runs.
fn least(who: UsageWho, runs: usize, mut body: impl FnMut()) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..runs {
        let before = cpu(who);
        body();
        best = best.min(cpu(who) - before);
    }
    best
}

fn nft(ns: &Netns, arguments: &[&str], input: &str) {
    let mut command = Command::new("nft");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = ns.run(|| command.spawn()).unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "nft {arguments:?}");
}

/// Zones as firewalld makes them: chains for each, with some 200 rules in all.
fn zones() -> String {
    let mut text = String::from("table inet firewalld {\n");
    for zone in 0..16 {
        let _ = writeln!(
            text,
            "chain zone{zone} {{ jump log{zone}; jump deny{zone}; jump allow{zone}; meta l4proto icmp accept; }}"
        );
        let _ = writeln!(text, "chain log{zone} {{ }}\nchain deny{zone} {{ }}");
        let _ = writeln!(text, "chain allow{zone} {{");
        for port in 0..8 {
            let _ = writeln!(text, "tcp dport {} ct state new accept", 20_000 + zone * 100 + port);
        }
        text.push_str("}\n");
    }
    text.push_str("chain zones {\n");
    for zone in 0..15 {
        let _ = writeln!(text, "iifname \"other{zone}\" goto zone{zone}");
    }
    text.push_str("goto zone15\n}\nchain input { type filter hook input priority 10; policy accept;\nct state established,related accept\niifname lo accept\nicmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\njump zones\nct state invalid drop\nreject with icmpx admin-prohibited\n}\n}\n");
    text
}

fn many(rules: usize) -> String {
    let mut text = String::from("table inet many { chain input { type filter hook input priority 0;\n");
    for number in 0..rules {
        let (a, b) = (number / 250, number % 250);
        let _ = writeln!(text, "ip saddr 10.{}.{}.{b} tcp dport 22 accept", a / 200, a % 200);
    }
    text.push_str("}\n}\n");
    text
}

/// Time of one result of a plan.
fn each(snapshot: &Snapshot) -> Duration {
    let sockets: Vec<SocketSpec> = (0..64)
        .map(|number| SocketSpec {
            listener: format!("l{number}"),
            ..SocketSpec::plain(Protocol::Tcp, "0.0.0.0".parse().unwrap(), 20_000 + number * 25)
        })
        .collect();
    let rights = Rights { uid: 0, privileged_ports: true, transparent: true };
    let mut best = Duration::MAX;
    let mut cells = 1;
    for _ in 0..5 {
        let begun = Instant::now();
        let plan = black_box(Plan::new(sockets.clone(), snapshot, rights, Vec::new(), &[]));
        best = best.min(begun.elapsed());
        cells = plan.matrix.cells.len().max(1);
    }
    best / u32::try_from(cells).unwrap()
}

fn main() -> ExitCode {
    if Command::new("nft").arg("--version").output().is_err() {
        println!("not measured: there is no nft here");
        return ExitCode::from(u8::from(std::env::var_os("BINDSCOPE_REQUIRE_TOOLS").is_some()));
    }
    if let Err(reason) = netns::prepare() {
        println!("not measured: {reason}");
        return ExitCode::from(u8::from(std::env::var_os("BINDSCOPE_REQUIRE_NETNS").is_some()));
    }
    let ratio = |what: &str, own: Duration, other: Duration, goal: f64| {
        let ratio = own.as_secs_f64() / other.as_secs_f64().max(1e-6);
        println!("{what}: {own:?} of CPU time, nft {other:?}, ratio {ratio:.2}, goal {goal}");
        ratio > goal
    };
    let ns = Netns::new();
    nft(&ns, &["-f", "-"], &zones());
    let own = least(UsageWho::RUSAGE_SELF, 20, || {
        black_box(ns.run(sys::packet_filters_with_rules));
    });
    let other = least(UsageWho::RUSAGE_CHILDREN, 20, || nft(&ns, &["list", "ruleset"], ""));
    let mut missed = ratio("reading zones", own, other, 2.0);
    let mut snapshot = ns.run(sys::snapshot).unwrap();
    let link = Netns::new();
    ns.wire("eth0", &link, "far");
    ns.address("eth0", "192.0.2.1/24");
    snapshot = Snapshot { packet_filters: None, ..ns.run(sys::snapshot).unwrap_or(snapshot) };
    let none = each(&snapshot);
    snapshot.packet_filters = Some(Netns::new().run(sys::packet_filters_with_rules));
    let empty = each(&snapshot);
    snapshot.packet_filters = Some(ns.run(sys::packet_filters_with_rules));
    let zones = each(&snapshot);
    println!(
        "a result without rules {none:?}, with an empty ruleset {empty:?}, with zones {zones:?}, goal 50 µs"
    );
    missed |= zones > Duration::from_micros(50) || empty > none * 2 + Duration::from_micros(1);
    let large = Netns::new();
    let rules = many(20_000);
    let other = least(UsageWho::RUSAGE_CHILDREN, 3, || {
        nft(&large, &["flush", "ruleset"], "");
        nft(&large, &["-f", "-"], &rules);
    });
    let read = large.run(sys::packet_filters_with_rules).ruleset.unwrap();
    let own = least(UsageWho::RUSAGE_SELF, 3, || {
        let copy = Netns::new();
        assert!(copy.run(|| sys::replay_rules(&read)).missing.is_empty());
    });
    missed |= ratio("replaying 20,000 rules", own, other, 1.0);
    ExitCode::from(u8::from(missed))
}
