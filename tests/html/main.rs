//! Pages and pictures: bytes, limits, hostile names, and what a browser makes of them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a test")]

#[path = "../support/mod.rs"]
mod support;

mod browser;
mod hostile;

use base64::Engine as _;
use bindscope::render::html::{self, Part};
use bindscope::report::document::{self, Shown};
use bindscope::report::matrix::Report;
use serde_json::Value;
use sha2::Digest as _;
use support::large_report;
use support::program::{run, text, toml_file};

/// A lab run of the tutorial, with the time and the host of another one.
fn tutorial() -> Value {
    let output = run(&["lab", "run", "tutorial", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{:?}", text(&output));
    let mut document: Value = serde_json::from_slice(&output.stdout).unwrap();
    document["time"] = "2026-11-30T16:30:21.000000Z".into();
    document["host"] = serde_json::json!({"name": "web", "system": "linux", "release": "6.18", "build": null, "netns": null});
    document
}

/// A document as the program reads it.
fn read(document: &Value) -> Shown {
    document::read_shown(&serde_json::to_vec(document).unwrap()).unwrap()
}

fn reach(document: &Value) -> Report {
    match read(document) {
        Shown::Reach(report) => *report,
        other => panic!("{other:?}"),
    }
}

fn page_of(document: &Value) -> String {
    let shown = read(document);
    let part = match &shown {
        Shown::Reach(report) => Part::Reach(report),
        Shown::Audit(sheet) => Part::Audit(sheet),
        Shown::Diff(comparison) => Part::Diff(comparison),
        Shown::Listen(history) => Part::Listen(history),
        Shown::Experiment(experiment) => Part::Experiment(experiment),
    };
    html::page(&[part])
}

/// The elements of a page without their contents. Texts and values hold no `<`, so each one begins an element.
fn elements(page: &str) -> impl Iterator<Item = &str> {
    let body = page.split_once("</style>").unwrap().1;
    body.match_indices('<').map(move |(at, _)| body[at + 1..].split('>').next().unwrap())
}

/// No page has anything that runs, loads, or restyles.
fn assert_inert(page: &str) {
    let head = page.split_once("<style>").unwrap().0;
    let of_head = head.split('<').skip(1).map(|element| element.split('>').next().unwrap());
    for element in of_head.chain(elements(page)) {
        let name = element.split([' ', '>']).next().unwrap().to_lowercase();
        let forbidden = [
            "script",
            "link",
            "base",
            "iframe",
            "object",
            "embed",
            "form",
            "img",
            "image",
            "use",
            "foreignobject",
        ];
        assert!(!forbidden.contains(&name.as_str()), "<{element}>");
        for attribute in [" style=", " src=", " on", " xlink:", " srcset=", " action="] {
            // Values hold no quotation mark, so this is outside of values where an even number stands before it.
            for (at, _) in element.to_lowercase().match_indices(attribute) {
                assert!(element[..at].matches('"').count() % 2 == 1, "<{element}>");
            }
        }
        for (at, _) in element.match_indices("href=\"") {
            assert!(element[at..].starts_with("href=\"#"), "<{element}>");
        }
    }
    let style = page.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
    assert!(!style.contains("url(") && !style.contains("@import"));
    let digest = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(style));
    assert!(page.contains(&format!("content=\"default-src 'none'; style-src 'sha256-{digest}';")));
}

#[test]
fn a_page_is_the_same_bytes_twice_and_small() {
    let pages: Vec<String> = (0..2).map(|_| page_of(&tutorial())).collect();
    assert_eq!(pages[0], pages[1]);
    let page = &pages[0];
    assert!(page.len() < 200_000, "{} bytes", page.len());
    assert_inert(page);
    for forbidden in ["<script", "url(", "style=\"", "src="] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    for (at, _) in page.match_indices("http") {
        let before = &page[..at];
        assert!(before.ends_with("xmlns=\"") || before.ends_with("<meta "), "{}", &page[at..at + 40]);
    }
    for listener in
        ["claim1-all-interfaces", "claim2-loopback", "claim3-address-of-eth0", "claim3-device-eth0"]
    {
        assert!(page.contains(listener), "{listener}");
    }
    for words in [
        "1 of 4 expectations failed",
        "OPEN, NOT EXPECTED",
        "NOT AS EXPECTED",
        "weak host model",
        "2026-11-30 16:30:21 UTC",
    ] {
        assert!(page.contains(words), "{words}");
    }
    let rows = page.matches("<tr><td>").count();
    assert!(rows >= 108, "{rows} rows for 108 results");
}

/// The golden page: a plan of the tutorial's profile on the host of a snapshot, so that no kernel changes it.
#[test]
fn the_page_of_a_fixed_document_is_the_golden_one() {
    let profile = bindscope::parse_profile("tutorial", include_str!("../../profiles/tutorial.toml")).unwrap();
    let host = bindscope::report::document::read_snapshot(include_bytes!("../data/html/host.json")).unwrap();
    let report = bindscope::predict(&profile, bindscope::TargetHost::of_snapshot(host));
    let golden = |name: &str, text: String| {
        let path = format!("{}/tests/data/html/{name}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("BINDSCOPE_BLESS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            text == expected,
            "{name} differs; look at it, then BINDSCOPE_BLESS=1 cargo test --test html"
        );
    };
    golden("plan.html", html::page(&[Part::Reach(&report)]));
    golden("plan.svg", html::svg(&report));
    golden("plan.mmd", html::mermaid(&report));
}

#[test]
fn the_picture_alone_is_the_one_of_the_page_and_is_xml() {
    let document = tutorial();
    let report = reach(&document);
    let svg = html::svg(&report);
    assert!(page_of(&document).contains(&svg));
    let tree = roxmltree::Document::parse(&svg).unwrap();
    let root = tree.root_element();
    assert_eq!(root.tag_name().namespace(), Some("http://www.w3.org/2000/svg"));
    let child = |name: &str| {
        root.children().find(|one| one.has_tag_name(("http://www.w3.org/2000/svg", name))).unwrap()
    };
    let description = child("desc").text().unwrap();
    assert!(child("title").text().is_some_and(|title| !title.is_empty()));
    assert!(description.contains("claim3-address-of-eth0 accepts this host over lo and lan over eth0; it accepts, although an expectation forbids it, wan over eth1."), "{description}");
    let bad = root.descendants().filter(|one| {
        one.attribute("class").is_some_and(|class| class.split(' ').any(|word| word == "bad"))
            && one.has_tag_name(("http://www.w3.org/2000/svg", "path"))
    });
    assert_eq!(
        bad.filter(|path| path.attribute("stroke-dasharray") == Some("11 5")
            && path.attribute("d").is_some_and(|line| line.contains('C')))
            .count(),
        1
    );
}

#[test]
fn every_command_writes_pages_and_report_writes_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let host = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/html/host.json");
    let plan = |more: &[&str]| run(&[&["plan", "tutorial", "--host", host], more].concat());
    let (json, html) = (path("plan.json"), path("plan.html"));
    let _ = plan(&["--json", "-o", &json]);
    let _ = plan(&["--format", "html", "-o", &html]);
    let again = run(&["report", &json]);
    assert_eq!(again.status.code(), Some(0), "{:?}", text(&again));
    // Only the time differs.
    let without_time = |page: &str| -> String {
        let (before, rest) = page.split_once("<dt>time</dt>").unwrap();
        before.to_owned() + rest.split_once("</dd>").unwrap().1
    };
    assert_eq!(without_time(&text(&again).0), without_time(&std::fs::read_to_string(&html).unwrap()));
    let svg = text(&run(&["report", &json, "-f", "svg"])).0;
    assert_eq!(svg, text(&plan(&["--format", "svg"])).0);
    assert!(text(&plan(&["--format", "mermaid"])).0.starts_with("flowchart LR\n"));
    // Several documents on one page.
    let (audit, diff, listen) = (path("audit.json"), path("diff.json"), path("listen.ndjson"));
    let _ = run(&["audit", "--json", "-o", &audit]);
    let _ = run(&["diff", "loopback", "all-interfaces", "--host", host, "--json", "-o", &diff]);
    let bind = ["--bind", "127.0.0.1:0", "--for", "100ms"];
    let _ = run(&[&["listen", "--format", "ndjson", "-o", &listen], &bind[..]].concat());
    let page = text(&run(&["report", &json, &audit, &diff, &listen])).0;
    assert_inert(&page);
    for words in [
        "1 of 4 documents failed",
        "bindscope audit",
        "bindscope diff",
        "bindscope listen",
        "OPENS",
        "What listens here",
    ] {
        assert!(page.contains(words), "{words}");
    }
    let ids: Vec<&str> =
        page.match_indices(" id=\"").map(|(at, _)| page[at + 5..].split('"').next().unwrap()).collect();
    let distinct: std::collections::BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids.len(), distinct.len(), "anchors are unique");
    for (at, _) in page.match_indices("href=\"#") {
        let anchor = page[at + 7..].split('"').next().unwrap();
        assert!(distinct.contains(anchor), "{anchor} leads nowhere");
    }
    let page = path("listen.html");
    let output = run(&[&["listen", "--format", "html", "-o", &page], &bind[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{:?}", text(&output));
    assert!(std::fs::read_to_string(&page).unwrap().contains("0 arrivals at 1 listener"));
}

#[test]
fn files_that_are_no_documents_are_all_named_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let files = [
        file("a.json", "{}"),
        file("b.json", r#"{"schema":"bindscope.doctor/1"}"#),
        file("c.json", r#"{"schema":"bindscope.plan/9"}"#),
        file("d.ndjson", "{\"event\":\"started\",\"schema\":\"bindscope.listen/1\"}\nx\n"),
        directory.path().join("missing").to_str().unwrap().to_owned(),
    ];
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let output = run(&[&["report"], &files[..]].concat());
    assert_eq!(output.status.code(), Some(2));
    let (stdout, stderr) = text(&output);
    assert!(stdout.is_empty());
    for words in [
        "not a document of bindscope",
        "bindscope.doctor/1 document",
        "newer than this version",
        "line 1",
        "there is no file",
    ] {
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
    let (audit, _) = text(&run(&["audit", "--json"]));
    let audit = file("audit.json", &audit);
    let output = run(&["report", &audit, "-f", "svg"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).1.contains("one plan, probe or lab run"));
}

#[test]
fn a_picture_is_bounded_and_says_what_it_leaves_out() {
    let report = large_report::report(13, 9, 1_000);
    let svg = html::svg(&report);
    assert!(
        svg.contains("The picture leaves out 1 listener, 1 interface and 1 source; the table has all."),
        "{svg}"
    );
    let page = html::page(&[Part::Reach(&report)]);
    assert_eq!(page.matches("<th scope=\"row\"><span class=\"name\">listener-").count(), 13);
    let (at_limit, above) = (large_report::report(100, 60, 20_000), large_report::report(100, 60, 20_001));
    let page = html::page(&[Part::Reach(&at_limit)]);
    assert_eq!(page.matches("<tr><td>").count(), 20_000);
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    let page = html::page(&[Part::Reach(&above)]);
    assert_eq!(page.matches("<tr><td>").count(), 0);
    assert!(page.contains("leaves out the list of all 20001 results"));
}

#[test]
fn ports_of_a_listener_with_equal_results_share_a_row() {
    let profile = toml_file(
        "schema = 1\nname = \"many\"\n[[listener]]\nname = \"range\"\nbind = \"0.0.0.0\"\nport = \"8200-8299\"\nexposure_reason = \"a test\"\n",
    );
    let host = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/html/host.json");
    let page = text(&run(&["plan", profile.path().to_str().unwrap(), "--host", host, "--format", "html"])).0;
    assert_eq!(page.matches("<span class=\"name\">range</span>").count(), 1);
    assert!(page.contains("ports 8200-8299"));
}

#[test]
fn filters_are_gates_with_their_rule() {
    let mut document: Value = serde_json::to_value(large_report::report(2, 2, 40)).unwrap();
    let rule = serde_json::json!({"verdict": "drop", "by": {"family": "inet", "table": "filter", "chain": "input", "rule": 3, "handle": 7,
        "text": "tcp dport 8001 drop"}, "packet": "syn", "assumes": [], "depends_on": []});
    let mut blocked = 0;
    for cell in document["cells"].as_array_mut().unwrap() {
        if cell["port"] == 8001 && cell["source"] == "link:eth0" {
            let predicted = &mut cell["predicted"];
            predicted["outcome"] = "timeout".into();
            predicted["listener"] = Value::Null;
            predicted["ingress"] = Value::Null;
            predicted["filter"] = rule.clone();
            predicted["why"] = "BS3050".into();
            blocked += 1;
        }
    }
    assert!(blocked > 0);
    let report = reach(&document);
    let svg = html::svg(&report);
    assert!(svg.contains("class=\"gate shut\""), "{svg}");
    assert!(svg.contains("dropped: inet filter input rule 3: tcp dport 8001 drop"));
    assert!(svg.contains("a packet filter stops link:eth0 over eth0"));
    let mermaid = html::mermaid(&report);
    assert!(mermaid.contains("--x|\"link:eth0, gate 1\"|"), "{mermaid}");
    assert!(html::page(&[Part::Reach(&report)]).contains("gate shut: dropped"));
}
