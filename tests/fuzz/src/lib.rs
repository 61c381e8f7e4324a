//! What is fuzzed: each function takes any bytes, and panics when something is wrong with what the program makes of them.
//! `targets/` hands them to the engine, `tests/seeds.rs` replays the seeds without one.

mod host;
mod pages;
mod predictor;
mod ruleset;
mod shell;

use std::net::SocketAddr;
use std::sync::Arc;

use bindscope::audit::{self, Site};
use bindscope::diag::{self, Diagnostic};
use bindscope::model::{
    Arrival, ClientPorts, Document, Evidence, Family, HostReport, IfName, Ingress, ListeningSocket, Owner,
    Protocol, Schema, Snapshot,
};
use bindscope::plan::bind_check::Rights;
use bindscope::plan::bind_forms::each_form;
use bindscope::plan::expand::expand;
use bindscope::plan::exposure::{Exposer, Facts};
use bindscope::profile::{self, Profile, flag, policy};
use bindscope::record::event::Event;
use bindscope::reply::Answer;
use bindscope::report::document;
use bindscope::report::matrix::{self, BindReport, Plan, Reachability, SocketReport};
use bindscope::report::{expectations, report_diff};
use bindscope::{escape, lab, render, reply};

pub use pages::pages;
pub use predictor::predictor;
pub use ruleset::ruleset;
pub use shell::shell;

/// Every target by its name.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("escape", escape),
    ("events", events),
    ("flag", flag),
    ("http", http),
    ("lab", lab),
    ("netlink", netlink),
    ("pages", pages),
    ("policy", policy),
    ("predictor", predictor),
    ("proc", proc),
    ("profile", profile),
    ("reports", reports),
    ("ruleset", ruleset),
    ("shell", shell),
    ("snapshot", snapshot),
    ("sock_diag", sock_diag),
];

/// Sockets and cells grow with each other; above so many a plan takes longer than an engine waits.
const FEW: usize = 40;

/// Holds that a terminal is steered by none of this.
fn assert_plain(text: &str) {
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(!text.contains(steers), "{text:?}");
}

/// Every problem can be shown, and its place is a place in its text.
fn assert_shown<'p>(problems: impl IntoIterator<Item = &'p Diagnostic>) {
    let mut any = false;
    for problem in problems {
        any = true;
        if let Some(place) = &problem.place {
            assert!(place.text.get(place.span.clone()).is_some(), "{:?} of {:?}", place.span, place.text);
            let (line, column) = place.line_column();
            assert!(line >= 1 && column >= 1);
        }
        assert_plain(&diag::render(problem, false));
    }
    assert!(any, "refused without a reason");
}

/// Everything that `plan` writes of a profile on a host.
fn assert_planned(profile: &Profile, host: &Snapshot) {
    let expansion = expand(profile, host);
    if expansion.sockets.len() > FEW || host.interfaces.len() > FEW {
        return;
    }
    let rights = Rights { uid: 0, privileged_ports: true, transparent: true };
    let plan = Plan::new(expansion.sockets, host, rights, Vec::new(), &[]);
    let exposer = Exposer::new(host);
    let sockets: Vec<SocketReport> = plan
        .sockets
        .iter()
        .enumerate()
        .map(|(index, spec)| SocketReport {
            socket: matrix::view(spec, exposer.exposure(&Facts::of_spec(spec, host)), host),
            bind: BindReport { predicted: matrix::bind_report(&plan, index, host), observed: None },
            exposure_because: Vec::new(),
        })
        .collect();
    let cells = matrix::cells(&plan, host, &[]);
    let expectations = expectations::judge(&profile.expectations, &sockets, &cells, Default::default());
    let missing = expansion.missing.iter().map(|missing| missing.message.clone()).collect();
    let body = Reachability {
        profile: profile.name.clone(),
        summary: matrix::summary(&cells),
        sockets,
        cells,
        expectations,
        requested: Default::default(),
        time: None,
        interfaces: Vec::new(),
        sources: Vec::new(),
        events: Vec::new(),
        notes: expansion.notes.iter().map(|note| note.message.clone()).collect(),
    };
    let report = Document::new(Schema::Plan, HostReport::new(host.host.clone(), missing, body));
    for (width, verbose) in [(1, true), (80, false), (80, true)] {
        assert_plain(&render::plan::human(&report, Some("default"), false, width, verbose));
    }
    assert_plain(&render::plan::csv(&report).replace("\r\n", "\n"));
    assert_plain(&render::plan::markdown(&report));
    assert_plain(&render::plan::junit(&report));
    assert_plain(&render::plan::github(&report));
    let json = serde_json::to_vec(&report).unwrap();
    let (_, lists) = report_diff::read(&json).unwrap();
    let again = report_diff::compare(("a", &lists), ("b", &lists));
    assert!(again.differences.is_empty(), "a report differs from itself");
}

/// Names and bytes of others on their way to a person.
pub fn escape(data: &[u8]) {
    let hidden = |c: char| {
        matches!(c, '\u{ad}' | '\u{34f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            | '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{fffe}' | '\u{ffff}' | '\u{e0000}'..='\u{10ffff}')
    };
    let escaped = escape::escape_bytes(data);
    assert!(!escaped.contains(|c: char| c.is_control() || hidden(c)), "{escaped:?}");
    if let Ok(valid) = std::str::from_utf8(data) {
        assert_eq!(escape::escape(valid), escaped);
        let html = escape::escape_html(valid);
        assert!(!html.contains(['<', '>', '"', '\'']), "{html:?}");
    }
    assert_eq!(escaped.is_empty(), data.is_empty());
    let name = IfName::from_bytes(data);
    assert_plain(&name.to_string());
    let back: IfName = serde_json::from_slice(&serde_json::to_vec(&name).unwrap()).unwrap();
    assert_eq!(back, name, "a name does not read back");
}

/// A profile, and all that is planned of it.
pub fn profile(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = (profile::extends(text), profile::kind_of(text));
    match profile::parse("fuzz", text) {
        Err(problems) => assert_shown(&problems),
        Ok(profile) => {
            let _ = profile::without_reason(&profile);
            assert_planned(&profile, &host::example());
        }
    }
}

/// The grammar of `--bind`: addresses with zones and ports, devices, options.
pub fn flag(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match flag::parse("bind1", text) {
        Err(problem) => assert_shown([&problem]),
        Ok(listener) => {
            let mut profile = Profile::named("--bind");
            profile.listeners.push(listener);
            assert_planned(&profile, &host::example());
        }
    }
}

/// A policy, and its judgement of a host.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let policy = match policy::parse("fuzz", text) {
        Err(problems) => return assert_shown(&problems),
        Ok(policy) => policy,
    };
    let host = host::example();
    let client_ports = ClientPorts::parse("32768 60999", "");
    let site = Site { host: host.clone(), sockets: audited(), client_ports, ..Site::default() };
    let mut report = audit::report(&mut [site], Vec::new(), "2026-01-01T00:00:00Z".to_owned(), false);
    let judge = audit::judge::Judge {
        policy: &policy,
        text: Arc::from(text),
        today: jiff::civil::date(2026, 1, 1),
        hosts: vec![&host],
        all_sockets: true,
    };
    judge.judge(&mut report);
    assert_eq!(report.policy.as_ref(), Some(&policy.name));
    for finding in &report.findings {
        assert!(finding.socket.is_none_or(|socket| socket < report.sockets.len()));
    }
}

/// Sockets of every kind that a policy tells apart.
fn audited() -> Vec<ListeningSocket> {
    let owner = Owner {
        pid: 7,
        command: "sshd\n[ok]".to_owned(),
        exe: Some("/usr/sbin/sshd".to_owned()),
        exe_deleted: true,
        exe_visible: Some(false),
        user: Some("root".to_owned()),
        uid: Some(0),
        unit: Some("ssh.service".to_owned()),
        container: None,
    };
    let socket = |protocol, address: &str, port, owners| ListeningSocket {
        netns: Some(1),
        uid: Some(0),
        inode: Some(9),
        device_known: true,
        owners,
        ..ListeningSocket::of(host::view(protocol, address.parse().unwrap(), port))
    };
    vec![
        socket(Protocol::Tcp, "0.0.0.0", 22, Some(Arc::from([owner]))),
        socket(Protocol::Tcp, "::", 22, None),
        socket(Protocol::Tcp, "127.0.0.1", 5432, Some(Arc::from([]))),
        socket(Protocol::Udp, "192.0.2.1", 53, None),
    ]
}

/// A lab's network, and the commands that would build it.
pub fn lab(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match profile::lab::parse("fuzz", text) {
        Err(problems) => assert_shown(&problems),
        Ok(lab) => {
            let plan = lab::ops::plan(&lab.topology);
            let _ = lab::ops::wiring(&plan);
            for operation in &plan.operations {
                plan.commands(operation).iter().for_each(|command| assert_plain(command));
            }
        }
    }
}

/// A snapshot from a file, as `plan --host` reads it.
pub fn snapshot(data: &[u8]) {
    let host = match document::read_snapshot(data) {
        Err(error) => return assert_plain(&escape::escape(&error.to_string())),
        Ok(host) => host,
    };
    if host.interfaces.iter().map(|interface| interface.addresses.len()).sum::<usize>() > 4 * FEW {
        return;
    }
    let mut binds = Vec::new();
    let Ok(()) = each_form(&host, true, |form| {
        binds.push(form.bind.to_owned());
        Ok::<(), std::convert::Infallible>(())
    });
    let mut json = Vec::new();
    bindscope::report::json::write(&mut json, &document::of_snapshot(&host, false, &binds), 4).unwrap();
    assert_eq!(document::read_snapshot(&json[..]).unwrap(), host, "it does not read back equal");
    let mut text = Vec::new();
    render::interfaces::human(&host, 80, false, &mut text).unwrap();
    assert_plain(&String::from_utf8(text).unwrap());
    let default = profile::builtin::get("loopback-vs-all").unwrap();
    assert_planned(&profile::parse("built-in", default).unwrap(), &host);
}

/// The lines of `listen --format ndjson`, read back and shown to a person.
pub fn events(data: &[u8]) {
    let mut live = render::listen::Live::new(false, 80);
    for line in data.split(|byte| *byte == b'\n') {
        let Ok(event) = serde_json::from_slice::<Event>(line) else { continue };
        let written = serde_json::to_vec(&event).unwrap();
        assert!(!written.contains(&b'\n'));
        assert_eq!(serde_json::from_slice::<Event>(&written).unwrap(), event, "it does not read back equal");
        assert_plain(&live.event(&event));
    }
}

/// Two reports, one a line, compared as `diff` does.
pub fn reports(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let mut next = || {
        report_diff::read(lines.next().unwrap_or_default())
            .inspect_err(|error| assert_plain(&error.to_string()))
    };
    let (Ok((one, a)), Ok((two, b))) = (next(), next()) else { return };
    let _ = report_diff::comparable(one, two);
    for (left, right) in [(&a, &b), (&a, &a)] {
        let comparison = report_diff::compare(("a.json", left), ("b.json", right));
        assert_plain(&render::diff::human(&comparison, false, 80));
        assert_plain(&render::diff::csv(&comparison).replace("\r\n", "\n"));
        assert_plain(&render::diff::markdown(&comparison));
        assert!(!std::ptr::eq(left, right) || comparison.differences.is_empty());
    }
}

/// What a client sends first, at once and in two pieces.
pub fn http(data: &[u8]) {
    let data = data.get(..reply::READ_LIMIT).unwrap_or(data);
    let peer: SocketAddr = "192.0.2.7:50000".parse().unwrap();
    let local: SocketAddr = "192.0.2.1:8081".parse().unwrap();
    let arrival = Arrival {
        listener: "web\u{1b}[2J<script>".to_owned(),
        protocol: Protocol::Tcp,
        family: Family::Ipv4,
        v4_mapped: false,
        peer: peer.into(),
        local: local.into(),
        ingress: Ingress {
            index: Some(2),
            name: Some(IfName::from_bytes(b"\x1b]0;\xff")),
            evidence: Evidence::Kernel,
        },
        address_owner: None,
        peer_is_local: Some(false),
    };
    for length in [data.len() / 2, data.len()] {
        match reply::describe(&data[..length], &arrival, &reply::OwnNames::new(Some("host"))) {
            Answer::Wait => {}
            Answer::Http(bytes) | Answer::Line(bytes) => {
                let answer = std::str::from_utf8(&bytes).unwrap();
                assert_plain(&answer.replace("\r\n", "\n"));
                let html = answer.contains("Content-Type: text/html");
                assert!(!html || !answer.contains("<script>"));
                if let Some((head, body)) = answer.split_once("\r\n\r\n") {
                    let told = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                    let told: usize = told.unwrap().parse().unwrap();
                    assert!(body.is_empty() || body.len() == told, "{told} is not {}", body.len());
                }
            }
        }
    }
}

/// Replies of rtnetlink.
pub fn netlink(data: &[u8]) {
    assert!(bindscope::sys::fuzzing::netlink(data) <= data.len());
}

/// Answers of sock_diag.
pub fn sock_diag(data: &[u8]) {
    assert!(bindscope::sys::fuzzing::sock_diag(data) <= data.len());
}

/// The texts of `/proc`.
pub fn proc(data: &[u8]) {
    let _ = bindscope::sys::fuzzing::proc_net(data) + bindscope::sys::fuzzing::process(data);
}
