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
    report.policy = Some("p\n::error::x".to_owned());
    report.namespaces[0].name = Some("\u{1b}[2J".to_owned());
    report.incomplete_because.push("no \u{1b}[2J\n::warning::x".to_owned());
    report.findings[0].waived = None;
    report.findings[0].location =
        Some(Place { file: "a b\u{1b},:é.toml".to_owned(), text: "x\ny".into(), span: 2..3 }.into());
    report.checks.push(Check {
        name: "tcp <a>\n".to_owned(),
        socket: Some(0),
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
    Style { color, width: 100, verbose: true }
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
    without.policy = None;
    without.checks.clear();
    assert!(junit(&without).contains("tests=\"1\" failures=\"0\""), "{}", junit(&without));
}

#[test]
fn sarif_has_what_the_standard_requires() {
    let mut report = hostile();
    report.findings[0].undecided = true;
    report.findings[1].waived = Some("because".to_owned());
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
    assert!(at("[::]:3") < at("0.0.0.0:2") && at("0.0.0.0:2") < at("127.0.0.1:1"));
    assert!(text.contains("IPv4 private, IPv6 global"), "{text}");
}
