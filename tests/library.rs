//! The library as another program uses it: the functions at the root of the crate, and the examples.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a test")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use bindscope::{BindOutcome, Exposure, Outcome, Snapshot, Source, TargetHost, Verdict};

/// A program of `examples`, which cargo builds before the tests, beside the directory of the test programs.
fn example(name: &str) -> Command {
    let programs: PathBuf = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().into();
    Command::new(programs.join("examples").join(name))
}

fn profile(listeners: &str) -> bindscope::Profile {
    let text = format!("schema = 1\nname = 'test'\n{listeners}");
    bindscope::parse_profile("the test", &text).unwrap()
}

#[test]
fn a_profile_with_a_mistake_is_refused_with_its_position() {
    let problems =
        bindscope::parse_profile("web.toml", "schema = 1\nname = 'x'\nlistner = []\n").unwrap_err();
    let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(text.contains("web.toml:3"), "{text}");
}

#[test]
fn a_plan_names_the_open_socket_that_is_in_conflict() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let profile = profile(&format!("[[listener]]\nname = 'web'\nbind = '127.0.0.1'\nport = {port}\n"));
    let report = bindscope::predict(&profile, bindscope::this_host().unwrap());
    let predicted = &report.sockets[0].bind.predicted;
    assert_eq!(predicted.outcome, BindOutcome::Error);
    assert_eq!(predicted.errno.unwrap().to_string(), "EADDRINUSE");
    assert!(!predicted.conflicts_with.is_empty());
}

#[test]
fn a_plan_for_another_host_needs_its_snapshot_only() {
    let here = bindscope::snapshot().unwrap();
    let json = serde_json::to_string(&here).unwrap();
    let snapshot: Snapshot = serde_json::from_str(&json).unwrap();
    let profile = profile("[[listener]]\nname = 'web'\nbind = '127.0.0.1'\nport = 8080\n");
    let report = bindscope::predict(&profile, TargetHost::of_snapshot(snapshot));
    assert_eq!(report.sockets[0].bind.predicted.outcome, BindOutcome::Ok);
    assert!(!report.complete, "what listens there is unknown");
    let accepted: Vec<&Source> = report
        .cells
        .iter()
        .filter(|cell| cell.predicted.outcome == Some(Outcome::Accepted))
        .map(|cell| &cell.source)
        .collect();
    assert!(!accepted.is_empty() && accepted.iter().all(|source| **source == Source::Host), "{accepted:?}");
}

#[test]
fn an_audit_is_judged_by_the_policy() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let policy = "schema = 1\nkind = 'policy'\nname = 'nothing'\n";
    let report = bindscope::audit(Some(policy)).unwrap();
    let position = report.sockets.iter().position(|socket| socket.view.port == port).unwrap();
    assert_eq!(report.sockets[position].view.exposure.widest(), Exposure::Loopback);
    let check = report.checks.iter().find(|check| check.socket == Some(position)).unwrap();
    assert_eq!(check.verdict, Verdict::Fail, "{check:?}");
    assert!(bindscope::audit(Some("schema = 1\nkind = 'policy'\nalow = []\n")).is_err(), "a misspelt key");
}

#[test]
fn the_example_predict_runs() {
    let output = example("predict").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("tcp [::]:8080 dual-stack: "), "{text}");
}

#[test]
fn the_example_which_interface_runs() {
    struct Stopped(Child);
    impl Drop for Stopped {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let mut child =
        Stopped(example("which_interface").arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(child.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address: SocketAddr = line.trim_end().strip_prefix("listening on ").unwrap().parse().unwrap();
    let mut answer = String::new();
    TcpStream::connect(address).unwrap().read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("arrived on lo (kernel)\n"), "{answer}");
}

#[test]
fn the_example_lab_runs() {
    let output = example("lab").output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() && errors.contains("Refused") {
        assert!(std::env::var_os("BINDSCOPE_REQUIRE_NETNS").is_none(), "{errors}");
        return eprintln!("this test needs network namespaces: {errors}");
    }
    assert!(output.status.success(), "{errors}");
    let weak_host = "node:wan connected to 192.0.2.1, an address of eth0, and arrived on eth1";
    assert!(text.contains(weak_host), "{text}");
}
