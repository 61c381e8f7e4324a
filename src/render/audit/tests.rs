//! Hostile names in every format, and the shapes that other programs read.

use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::audit::tests::{host, report_of, socket};
use crate::audit::{Check, Verdict};
use crate::diag::Place;
use crate::model::IfName;

/// A report in which every text from outside is hostile.
fn hostile() -> Report {
    let mut host = host();
    host.interfaces[1].name = IfName::from("\u{1b}[31m|X,");
    let mut one = socket("tcp [::]:80 dual");
    one.view.device = Some(IfName::from("\u{1b}[31m|X,"));
    one.device_index = Some(2);
    let owner = &mut Arc::make_mut(one.owners.as_mut().unwrap())[0];
    owner.command = "sshd\n[ok]\u{1b}[0m".to_owned();
    owner.exe = Some("=cmd|'/C x'!A0\u{202e}\u{1b}]0;x\u{7}".to_owned());
    owner.exe_deleted = true;
    owner.user = Some("::error::<script>alert(1)</script>".to_owned());
    owner.unit = Some("a|b`c*d&\u{ffff}".to_owned());
    let mut report = report_of(vec![one], host);
    report.body.policy = Some("p\n::error::x".to_owned());
    report.body.namespaces[0].name = Some("\u{1b}[2J".to_owned());
    report.incomplete_because.push("no \u{1b}[2J\n::warning::x".to_owned());
    report.body.findings[0].waived = None;
    report.body.findings[0].location =
        Some(Place { file: "a b\u{1b},:é.toml".to_owned(), text: "x\ny".into(), span: 2..3 }.into());
    report.body.checks.push(Check {
        name: "tcp <a>\n".to_owned(),
        socket: Some(0),
        required_by: None,
        verdict: Verdict::Fail,
        because: "\u{1b}]]>".to_owned(),
        location: None,
    });
    report.settle();
    report
}

/// The output of a format.
fn written(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn csv(report: &Report) -> String {
    written(|out| super::csv(report, out))
}

fn style(color: bool) -> Style {
    Style { color, width: 100, verbose: true, all_protocols: true }
}

#[test]
fn no_format_lets_a_control_character_through() {
    let report = hostile();
    let texts = [
        ("human", human(&report, style(false))),
        ("csv", csv(&report).replace("\r\n", "\n")),
        ("markdown", markdown(&report)),
        ("junit", junit(&report)),
        ("github", github(&report)),
        ("sarif", String::from_utf8(sarif(&report).unwrap()).unwrap()),
        ("json", written(|out| json(&report, out))),
    ];
    for (format, text) in texts {
        let bad = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(bad, None, "{format}: {text}");
        assert!(format == "json" || !text.contains('\u{202e}'), "{format}: {text}");
        assert!(format != "junit" || !text.contains('\u{ffff}'), "XML 1.0 forbids it: {text}");
    }
}

#[test]
fn a_line_is_one_fact_and_no_name_begins_one() {
    let report = hostile();
    for line in github(&report).lines() {
        assert!(
            line.starts_with("::warning ") || line.starts_with("::notice ") || line.starts_with("::error "),
            "{line}"
        );
        assert_eq!(line.matches("::error").count(), line.matches("(80, ::error").count(), "{line}");
    }
    assert_eq!(csv(&report).lines().count(), 1 + report.sockets.len());
    assert!(csv(&report).contains(",'=cmd"), "{}", csv(&report));
    for line in human(&report, style(false)).lines() {
        assert!(!line.starts_with("[ok]") && line.chars().count() <= 130, "{line}");
    }
    let table = markdown(&report);
    let row = table.lines().nth(2).unwrap();
    assert_eq!(row.matches('|').count(), 4, "{row}");
    assert!(!table.contains("<script") && !table.contains("c*d"), "{table}");
}

#[test]
fn github_places_its_annotations() {
    let text = github(&hostile());
    assert!(text.contains("file=a b\\x1b%2C%3Aé.toml,line=2,col=1,title="), "{text}");
}

#[test]
fn junit_counts_what_it_says() {
    let text = junit(&hostile());
    assert!(text.contains("tests=\"1\" failures=\"1\" errors=\"0\""), "{text}");
    assert_eq!(text.matches("<testcase").count(), 1);
    let open = text.matches('<').count();
    assert_eq!(open, text.matches('>').count(), "{text}");
    let mut without = hostile();
    without.body.policy = None;
    without.body.checks.clear();
    assert!(junit(&without).contains("tests=\"1\" failures=\"0\""), "{}", junit(&without));
}

#[test]
fn sarif_has_what_the_standard_requires() {
    let mut report = hostile();
    report.body.findings[0].undecided = true;
    report.body.findings[1].waived = Some("because".to_owned());
    let log: Value = serde_json::from_slice(&sarif(&report).unwrap()).unwrap();
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), report.findings.len());
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
        let level = result["level"].as_str().unwrap();
        assert_eq!(result["kind"] == "fail", level != "none", "{result}");
        assert!(result["message"]["text"].as_str().is_some_and(|text| !text.is_empty()));
    }
    let placed = &results[0]["locations"][0]["physicalLocation"];
    assert_eq!(placed["artifactLocation"]["uri"], "a%20b%1B%2C%3A%C3%A9.toml");
    assert_eq!(placed["region"]["startLine"], 2);
    assert_eq!(results[1]["suppressions"][0]["justification"], "because");
}

#[test]
fn colour_changes_nothing_but_colour() {
    let report = hostile();
    let colored = human(&report, style(true));
    let stripped = anstream::adapter::strip_str(&colored).to_string();
    assert_eq!(stripped, human(&report, style(false)));
}

#[test]
fn wide_things_come_first() {
    let report = report_of(
        vec![socket("tcp 127.0.0.1:1"), socket("tcp 0.0.0.0:2"), socket("tcp [::]:3 dual")],
        host(),
    );
    let text = human(&report, style(false));
    let at = |needle: &str| text.find(needle).unwrap_or_else(|| panic!("{needle} in {text}"));
    assert!(at("*:3 ") < at("0.0.0.0:2") && at("0.0.0.0:2") < at("127.0.0.1:1"));
    assert!(text.contains("*:3 dual-stack"), "{text}");
    assert!(text.contains("private networks  anywhere"), "{text}");
}

/// The sockets of the README's example, and some that are hard to lay out.
fn many() -> Report {
    let mut sockets: Vec<_> = [
        "tcp [::]:8443 dual",
        "tcp [::]:8081 v6only",
        "tcp 0.0.0.0:22",
        "tcp 127.0.0.1:3000",
        "tcp [::1]:5432",
        "udp 0.0.0.0:8472",
        "udp 10.0.0.5:53",
        "tcp 10.0.0.5:80 device 2",
        "tcp [2001:db8::5]:9000",
        "tcp [::ffff:10.0.0.5]:9001",
        "tcp [::]:81 ?",
        "tcp 10.9.9.9:82",
        "tcp 0.0.0.0:9090",
    ]
    .map(socket)
    .into();
    let owner = |socket: &mut crate::model::ListeningSocket, command: &str| {
        Arc::make_mut(socket.owners.as_mut().unwrap())[0].command = command.to_owned();
    };
    owner(&mut sockets[0], "\u{540d}\u{524d}\u{306e}\u{9577}\u{3044}\u{30d7}\u{30ed}\u{30bb}\u{30b9}");
    sockets[5].owners = Some([].into());
    sockets[5].kernel =
        Some(crate::model::KernelHolder { kind: "vxlan".into(), name: Some("flannel.1".into()) });
    sockets[2].owners = None;
    report_of(sockets, host())
}

#[test]
fn the_table_fits_every_terminal_and_a_screen() {
    let report = many();
    for width in [60, 72, 80, 100, 120, 200] {
        for verbose in [false, true] {
            let text = human(&report, Style { color: false, width, verbose, all_protocols: false });
            for line in text.lines() {
                assert!(crate::render::table::width(line) <= width, "{width}: {line}");
                assert_eq!(line, line.trim_end(), "{width}");
            }
            for word in
                ["*:8443 dual-stack", "[::]:8081 v6only", "0.0.0.0:8472 udp", "private networks", "anywhere"]
            {
                assert!(text.contains(word), "{width}: {word} in {text}");
            }
            assert!(text.contains("Next: bindscope explain "), "{text}");
        }
    }
    let usual = report.sockets.iter().filter(|one| one.view.v6only.is_some() || one.view.address.is_ipv4());
    let usual = usual.filter(|one| one.view.port != 82).cloned().collect();
    let report = report_of(usual, host());
    let text = human(&report, Style { color: false, width: 80, verbose: false, all_protocols: false });
    assert!(text.lines().count() <= 30, "{}: {text}", text.lines().count());
    assert!(text.contains("kernel: vxlan"), "{text}");
}

#[test]
fn a_footnote_stands_once_however_many_rows_refer_to_it() {
    let sockets = (1..=9u16).map(|port| socket(&format!("tcp 0.0.0.0:{port}"))).collect();
    let text = human(&report_of(sockets, host()), Style { verbose: false, ..style(false) });
    assert_eq!(text.matches("[BS1020]").count(), 1, "{text}");
    let row = text.lines().find(|line| line.starts_with("0.0.0.0:9 ")).unwrap();
    assert!(row.ends_with("  1 2"), "{row}");
}

#[test]
fn what_is_not_examined_and_left_out_is_stated_once() {
    use crate::model::{AttachedProgram, NotExamined, OtherKind, OtherSocket};
    let mut report = report_of(vec![socket("tcp 127.0.0.1:1")], host());
    let other = |kind, local: Option<&str>| OtherSocket {
        kind,
        local: local.map(str::to_owned),
        uid: None,
        inode: None,
        netns: None,
        owners: None,
    };
    report.body.not_examined = NotExamined {
        sockets: vec![other(OtherKind::Raw, Some("0.0.0.0 protocol 1")), other(OtherKind::Vsock, None)],
        programs: vec![AttachedProgram { cgroup: "/a".into(), attach: "cgroup_inet4_bind".into(), id: 7 }],
        unknown_because: vec!["x".into()],
    };
    let filters =
        crate::model::filters::PacketFilters { tables: vec!["nftables ip nat".into()], ..Default::default() };
    report.body.filters = vec![filters];
    report.body.skipped = vec![crate::audit::Skipped {
        socket: socket("udp 0.0.0.0:40000"),
        because: "the UDP socket of a client",
    }];
    report.settle();
    let short = human(&report, Style { verbose: false, all_protocols: false, ..style(false) });
    let flat = short.replace("\n  ", " ");
    assert!(
        flat.contains(
            "Not examined: packet filters and address translation (nftables ip nat), 1 raw socket, \
             1 vsock listener (--all-protocols), 1 program attached to a cgroup (cgroup_inet4_bind)."
        ),
        "{short}"
    );
    assert!(flat.contains("Left out: 1 UDP socket of a client (-v lists them)."), "{short}");
    let long = human(&report, Style { width: 120, ..style(false) });
    assert!(long.contains("raw  0.0.0.0 protocol 1") && long.contains("cgroup_inet4_bind"), "{long}");
}

#[test]
fn every_result_of_sarif_has_a_place() {
    let mut report = many();
    report.body.sockets[3].owners = Some([].into());
    for policy_file in [None, Some("p.toml".to_owned())] {
        report.body.policy_file = policy_file;
        let log: Value = serde_json::from_slice(&sarif(&report).unwrap()).unwrap();
        for result in log["runs"][0]["results"].as_array().unwrap() {
            let place = &result["locations"][0]["physicalLocation"];
            assert!(place["artifactLocation"]["uri"].as_str().is_some_and(|uri| !uri.is_empty()), "{result}");
            assert!(place["region"]["startLine"].as_u64().is_some_and(|line| line > 0), "{result}");
        }
    }
}

#[test]
fn names_of_junit_cases_hold_no_pid_and_no_chosen_port() {
    let names = |port: u16, pid: u32| {
        let mut one = socket(&format!("tcp 0.0.0.0:{port}"));
        Arc::make_mut(one.owners.as_mut().unwrap())[0].pid = pid;
        let text = junit(&report_of(vec![one, socket("tcp 127.0.0.1:22")], host()));
        let names: Vec<String> =
            text.lines().filter(|line| line.contains("<testcase")).map(str::to_owned).collect();
        assert_eq!(names.len(), 2, "{text}");
        names
    };
    assert_eq!(names(40000, 7), names(41000, 9));
    assert_ne!(names(40000, 7), names(8080, 7));
}
