//! Names that would break a page, in every text of every document.

use serde_json::Value;

use super::*;

/// Texts that end or begin something in HTML, XML, CSS, Mermaid, a terminal or the reader's mind.
const HOSTILE: [&str; 12] = [
    "<svg onload=alert(1)>",
    "]]>",
    "\u{1b}[2J\u{1b}]0;x\u{7}",
    "\u{202e}gnp.exe",
    "\"><script>alert(1)</script>",
    "' onmouseover='alert(1)",
    "</style><style>*{display:none}</style>",
    "--><!--",
    "&#60;script&#62;",
    "</title></desc></svg><img src=x onerror=alert(1)>",
    "`${alert(1)}`\u{0}\u{fffe}",
    "\"]; click l0 href \"javascript:alert(1)\"",
];

/// The keys whose values are free texts.
const FREE: [&str; 22] = [
    "listener",
    "description",
    "message",
    "hint",
    "because",
    "profile",
    "text",
    "table",
    "chain",
    "command",
    "exe",
    "user",
    "unit",
    "container",
    "help",
    "policy",
    "rule",
    "key",
    "a",
    "b",
    "device",
    "reason",
];

/// Puts hostile texts before every free text. Equal texts stay equal, and different ones different.
fn poison(value: &mut Value, key: &str) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                poison(value, key);
            }
        }
        Value::Array(list) => {
            let texts = [
                "candidates",
                "notes",
                "incomplete_because",
                "exposure_because",
                "conflicts_with",
                "commands",
            ];
            for value in list.iter_mut() {
                poison(value, if texts.contains(&key) { "text" } else { key });
            }
        }
        // The command of an experiment is one of three words.
        Value::String(text) if key == "command" && ["plan", "probe", "lab"].contains(&text.as_str()) => {}
        Value::String(text) if FREE.contains(&key) => {
            let number = text.bytes().map(usize::from).sum::<usize>();
            *text = format!("{}{text}", HOSTILE[number % HOSTILE.len()]);
        }
        _ => {}
    }
}

fn poisoned(document: &Value) -> Value {
    let mut document = document.clone();
    poison(&mut document, "");
    // Interfaces are named in many places; one name for all.
    let text = serde_json::to_string(&document).unwrap().replace("eth1", "<b>&1");
    serde_json::from_str(&text).unwrap()
}

/// Documents of every kind.
pub fn documents() -> Vec<(&'static str, Value)> {
    let host = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/html/host.json");
    let json = |arguments: &[&str]| -> Value { serde_json::from_slice(&run(arguments).stdout).unwrap() };
    let _server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    vec![
        ("lab", tutorial()),
        ("plan", json(&["plan", "v6only-matrix", "--host", host, "--json"])),
        ("audit", json(&["audit", "--json"])),
        (
            "experiment",
            json(&["plan", "v6only-matrix", "--host", host, "--vary", "net.ipv6.bindv6only=0,1", "--json"]),
        ),
        ("diff", json(&["diff", "loopback", "all-interfaces", "--host", host, "--json"])),
    ]
}

/// Pages of harmless and of hostile documents, by name.
pub fn pages() -> Vec<(&'static str, String, String)> {
    documents()
        .into_iter()
        .map(|(name, document)| (name, page_of(&document), page_of(&poisoned(&document))))
        .collect()
}

#[test]
fn hostile_texts_change_no_element_of_a_page() {
    for (name, good, bad) in pages() {
        assert_inert(&bad);
        assert!(bad.len() > good.len(), "{name}: nothing was poisoned");
        assert!(bad.contains("&lt;"), "{name}");
        let rows = |page: &str| page.matches("<tr").count();
        assert_eq!(rows(&good), rows(&bad), "{name}");
        let names = |page: &str| -> Vec<String> {
            elements(page).map(|element| element.split(' ').next().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&good), names(&bad), "{name}");
        let control = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202e}' | '\u{fffe}');
        assert!(!bad.contains(control), "{name}");
    }
}

#[test]
fn hostile_texts_leave_the_picture_xml_and_the_flowchart_whole() {
    for (name, document) in documents().into_iter().filter(|(name, _)| matches!(*name, "lab" | "plan")) {
        let (good, bad) = (reach(&document), reach(&poisoned(&document)));
        let elements = |report: &Report| {
            let svg = html::svg(report);
            let tree = roxmltree::Document::parse(&svg).unwrap();
            tree.descendants().filter(|one| one.is_element()).count()
        };
        assert_eq!(elements(&good), elements(&bad), "{name}");
        let lines = |report: &Report| html::mermaid(report).lines().count();
        assert_eq!(lines(&good), lines(&bad), "{name}");
        let flowchart = html::mermaid(&bad);
        let node = |line: &str| line.matches('"').count() <= 2;
        assert!(flowchart.lines().all(|line| node(line) && !line.contains('`')), "{flowchart}");
    }
}
