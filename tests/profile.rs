//! The profile language: what it reads, and what it says about what it cannot read.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test")]

use bindscope::diag::{self, Diagnostic};
use bindscope::model::{Family, V6Only};
use bindscope::profile::{self, Bind, FileKind, Profile, Selector, builtin, flag, lab, policy, schema};
use proptest::prelude::*;

fn example(name: &str) -> String {
    std::fs::read_to_string(format!("tests/data/examples/{name}.toml")).unwrap()
}

fn rendered(problems: &[Diagnostic]) -> String {
    problems.iter().map(|problem| diag::render(problem, false)).collect()
}

fn parsed(name: &str) -> Profile {
    profile::parse(name, &example(name)).unwrap_or_else(|problems| panic!("{name}:\n{}", rendered(&problems)))
}

#[test]
fn the_examples_of_the_language_parse() {
    let listeners: Vec<usize> =
        ["a", "c", "d", "e", "f", "g"].map(|name| parsed(name).listeners.len()).into();
    assert_eq!(listeners, [4, 1, 2, 3, 3, 1]);
    let a = parsed("a");
    assert_eq!(a.listeners[3].v6only, V6Only::Off);
    assert_eq!(a.listeners[0].backlog, 128);
    let c = parsed("c");
    let Bind::Interface(Selector { interfaces, family: None, .. }) = &c.listeners[0].bind else { panic!() };
    assert_eq!(interfaces, &["eth0"]);
    assert_eq!(parsed("f").listeners[0].ports, [9200, 9201, 9202, 9203, 9210]);
    assert_eq!(parsed("f").listeners[1].reuse_port, Some(4));
    assert_eq!(parsed("g").listeners[0].bind, Bind::Loopback);
    assert_eq!(parsed("g").expectations[0].families, Family::BOTH);
}

#[test]
fn the_policy_that_is_explained_parses() {
    let page = include_str!("../src/explain/topics/policy.md");
    let text = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let policy = bindscope::profile::policy::parse("policy.md", text).unwrap();
    assert_eq!((policy.allow.len(), policy.waive.len()), (3, 1));
}

#[test]
fn policies_and_labs_parse() {
    let policy =
        policy::parse("b.toml", &example("b")).unwrap_or_else(|problems| panic!("{}", rendered(&problems)));
    assert_eq!((policy.allow.len(), policy.waive.len()), (3, 1));
    assert_eq!(policy.allow[1].matches.ports, [80..=80, 443..=443]);
    assert_eq!(policy.waive[0].expires.unwrap().to_string(), "2027-01-31");
    let lab =
        lab::parse("h.toml", &example("h")).unwrap_or_else(|problems| panic!("{}", rendered(&problems)));
    assert_eq!(lab.topology.host.as_deref(), Some("box"));
    assert_eq!((lab.topology.nodes.len(), lab.topology.links.len()), (3, 2));
    assert!(lab.topology.problems().is_empty());
}

#[test]
fn every_kind_of_mistake_is_told_at_its_place_and_all_at_once() {
    for name in ["profile", "policy", "lab"] {
        let text = std::fs::read_to_string(format!("tests/data/mistakes/{name}.toml")).unwrap();
        let problems = match name {
            "profile" => profile::parse("profile.toml", &text).unwrap_err(),
            "policy" => policy::parse("policy.toml", &text).unwrap_err(),
            _ => lab::parse("lab.toml", &text).unwrap_err(),
        };
        golden(&format!("tests/data/mistakes/{name}.txt"), &rendered(&problems));
    }
}

/// A default in the schema is the value that the parser takes: a profile that repeats all of them is the same profile.
#[test]
fn the_defaults_of_the_schema_are_those_of_the_parser() {
    let schema = schema::schema(FileKind::Profile);
    let mut text = "schema = 1\n".to_owned();
    let mut count = 0;
    let mut repeat = |text: &mut String, keys: &serde_json::Value| {
        for (name, key) in keys["properties"].as_object().unwrap() {
            if let Some(default) = key.get("default") {
                text.push_str(&format!("{name} = {default}\n"));
                count += 1;
            }
        }
    };
    repeat(&mut text, &schema);
    for (heading, key) in [("[limits]", "limits"), ("[lab]", "lab")] {
        text.push_str(&format!("{heading}\n"));
        repeat(&mut text, &schema["properties"][key]);
    }
    const NODE: &str = "[[lab.node]]\nname = \"h\"\n";
    text.push_str(NODE);
    text.push_str("[[listener]]\nname = \"a\"\nport = 1\n");
    let listener = &schema["properties"]["listener"]["items"];
    repeat(&mut text, listener);
    assert!(count >= 15, "{count}: {text}");
    let plain = format!("schema = 1\n[lab]\n{NODE}[[listener]]\nname = \"a\"\nport = 1\n");
    let (plain, repeated) = (profile::parse("x", &plain), profile::parse("x", &text));
    assert!(plain.is_ok(), "{plain:?}");
    let lines = |mut profile: Profile| {
        profile.listeners.iter_mut().for_each(|listener| listener.line = 0);
        profile
    };
    assert_eq!(repeated.map(lines), plain.map(lines), "{text}");
    // Keys of a selector by interface.
    let selected = |keys: &str| {
        let text = format!(
            "schema = 1\n[[listener]]\nname = \"a\"\nport = 1\nbind = {{ interface = \"eth0\"{keys} }}\n"
        );
        profile::parse("x", &text).unwrap()
    };
    assert_eq!(selected(", family = \"both\", scope = \"any\""), selected(""));
}

#[test]
fn the_schemas_that_are_published_are_those_of_the_parser() {
    for (kind, name) in [(FileKind::Profile, "profile"), (FileKind::Policy, "policy"), (FileKind::Lab, "lab")]
    {
        golden(&format!("tests/data/schema/{name}.json"), &format!("{:#}\n", schema::schema(kind)));
    }
}

/// Compares with a file; `BINDSCOPE_BLESS=1` writes it.
fn golden(path: &str, found: &str) {
    if std::env::var_os("BINDSCOPE_BLESS").is_some() {
        std::fs::write(path, found).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap();
    assert!(expected == found, "{path} differs; look, then run with BINDSCOPE_BLESS=1:\n{found}");
}

#[test]
fn a_profile_takes_over_what_it_extends() {
    let base = "schema = 1\nname = \"base\"\n[defaults]\nbacklog = 7\n[[listener]]\nname = \"a\"\nport = 1\n";
    let upper = "schema = 1\nextends = \"base.toml\"\n[[listener]]\nname = \"a\"\nport = 2\n[[listener]]\nname = \"b\"\nport = 3\n";
    let both = profile::parse_on("upper.toml", upper, Some(("base.toml", base))).unwrap();
    let found: Vec<_> =
        both.listeners.iter().map(|one| (one.name.as_str(), one.ports[0], one.backlog)).collect();
    assert_eq!(found, [("a", 2, 7), ("b", 3, 7)]);
    assert!(profile::parse("upper.toml", upper).is_err());
    assert!(profile::parse_on("upper.toml", upper, Some(("x.toml", upper))).is_err());
}

#[test]
fn what_a_text_may_hold_besides_is_no_danger() {
    let good = example("a");
    assert!(profile::parse("bom", &format!("\u{feff}{good}")).is_ok(), "BOM");
    assert!(profile::parse("crlf", &good.replace('\n', "\r\n")).is_ok(), "CRLF");
    assert!(profile::parse("nul", &format!("{good}\0")).is_err(), "NUL");
    let deep = format!("schema = 1\nx = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(profile::parse("deep", &deep).is_err());
    let dotted = format!("schema = 1\n{} = 1", vec!["a"; 100_000].join("."));
    assert!(profile::parse("dotted", &dotted).is_err());
    let tables = format!("schema = 1\nx = {}", "{a=".repeat(100_000));
    assert!(profile::parse("tables", &tables).is_err());
    // As long as a file may be, and wrong all over: quick, and the list ends.
    for line in
        ["a=1\n", "[[listener]]\n", "[[expect]]\nx=1\n", "[[lab.node]]\nname='a'\n", "[[lab.link]]\na={}\n"]
    {
        let many = format!("schema = 1\n{}", line.repeat(1_000_000 / line.len()));
        let problems = profile::parse("many", &many).unwrap_err();
        assert!((1..=101).contains(&problems.len()), "{line}: {}", problems.len());
        let _ = rendered(&problems);
    }
}

/// Every span lies within its text, on the boundaries of characters, and can be shown.
fn sound(problems: &[Diagnostic]) {
    assert!(!problems.is_empty());
    for problem in problems {
        if let Some(place) = &problem.place {
            assert!(place.text.get(place.span.clone()).is_some(), "{problem:?}");
        }
        assert!(!diag::render(problem, false).is_empty());
    }
}

fn corpus() -> Vec<String> {
    let mut all: Vec<String> = ["a", "b", "c", "d", "e", "f", "g", "h"].map(example).into();
    all.extend(builtin::names().map(|name| builtin::get(name).unwrap().to_owned()));
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_mutation_of_a_file_upsets_the_parsers(
        which in 0..1000usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4usize, 0..5u8, any::<char>(), 0..24usize), 1..6),
    ) {
        const WORDS: [&str; 24] = [
            "\"", "[", "]", "{", "}", "=", "-1", "70000", "\"80-70\"", "[[listener]]", "\n", "0x50", "true", "[]", "{}",
            "\"\"", "fe80::1", "%", "'", "#", "1979-05-27", "\"é\u{0}\"", "[lab]", "99999999999999999999",
        ];
        let corpus = corpus();
        let mut text = corpus[which % corpus.len()].clone();
        for (at, length, kind, character, word) in edits {
            let boundaries: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            if boundaries.is_empty() { break; }
            let from = at.index(boundaries.len());
            let to = (from + length).min(boundaries.len() - 1);
            let range = boundaries[from]..boundaries[to];
            match kind {
                0 => text.replace_range(range, ""),
                1 => text.insert(range.start, character),
                2 => text.insert_str(range.start, WORDS[word]),
                3 => text.replace_range(range, WORDS[word]),
                _ => text.truncate(range.start),
            }
        }
        if let Err(problems) = profile::parse("p", &text) { sound(&problems); }
        if let Err(problems) = policy::parse("p", &text) { sound(&problems); }
        if let Err(problems) = lab::parse("p", &text) { sound(&problems); }
    }

    #[test]
    fn no_text_of_a_bind_upsets_its_parser(text in "(tcp:|udp:)?[\\[\\]a-f0-9:.*%,=é]{0,24}(,v6only=false|,device=e|,x)?") {
        if let Err(problem) = flag::parse("b", &text) { sound(&[problem]); }
    }
}

#[test]
fn every_built_in_profile_parses() {
    for name in builtin::names() {
        let parsed = profile::parse(name, builtin::get(name).unwrap());
        let parsed = parsed.unwrap_or_else(|problems| panic!("{name}:\n{}", rendered(&problems)));
        assert_eq!(parsed.name, name);
        assert!(parsed.description.is_some());
        for expectation in &parsed.expectations {
            assert!(parsed.listeners.iter().any(|listener| expectation.names(&listener.name)), "{name}");
        }
    }
}

/// `packaging/check` compares the list with a package that it builds, which takes too long for every run.
#[test]
fn the_packages_list_every_built_in_profile() {
    let contents = include_str!("../packaging/contents.txt");
    let files = std::fs::read_dir("profiles").unwrap();
    let names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.len(), builtin::names().count(), "{names:?}");
    for name in names {
        assert!(contents.contains(&format!("/profiles/{name}\n")), "packaging/contents.txt lacks {name}");
    }
}

#[test]
fn the_command_line_takes_one_reading_or_names_two() {
    for (text, expected) in [
        ("127.0.0.1:8081", "ok"),
        ("[::]:8082,v6only=false", "ok"),
        ("udp:eth0:5353", "ok"),
        ("[fe80::1%eth0]:80", "ok"),
        ("[fe80::1%99]:80", "ok"),
        ("loopback:8000-8009", "ok"),
        ("0.0.0.0:80,device=eth0", "ok"),
        ("eth*:80,family=ipv4,scope=global", "ok"),
        ("tcp:[::1]:0,reuse_port=4", "ok"),
        ("[::ffff:127.0.0.1]:80,v6only=false", "ok"),
        ("[fe80::1]:80%eth0", "BS0008: [fe80::1%eth0]:80"),
        ("[fe80::1]:80", "BS0008: [fe80::1%eth0]:80"),
        ("fe80::1%99", "BS0007: [fe80::1%99]:PORT"),
        ("::1:80", "BS0019: [::1]:80"),
        ("0127.0.0.1:80", "BS0019: leading zeros"),
        ("127.1:80", "BS0019: 127.0.0.1"),
        (":80", "BS0019: 0.0.0.0:80"),
        ("0.0.0.0", "BS0007: 0.0.0.0:8080"),
        ("tcp://0.0.0.0:80", "BS0007: 0.0.0.0:80"),
        ("udp://[::]:53/x", "BS0007: udp:[::]:53"),
        ("256.0.0.1:80", "BS0007: "),
        ("127.0.0.1", "BS0007: "),
        ("127.0.0.1:70000", "BS0009: "),
        ("127.0.0.1:0x50", "BS0009: "),
        ("127.0.0.1:80-70", "BS0009: 70-80"),
        ("127.0.0.1:80,v6only=false", "BS0015: "),
        ("[::ffff:127.0.0.1]:80", "BS0011: 127.0.0.1:80"),
        ("127.0.0.1:80,devise=eth0", "BS0002: device"),
        ("127.0.0.1:80,device=0123456789abcdef", "BS0012: "),
        ("127.0.0.1:80,family=ipv4", "BS0015: "),
        ("127.0.0.1:80,backlog=2147483648", "BS0004: "),
        ("this.name.is.too.long:80", "BS0007: "),
        ("[::1:80", "BS0007: bracket"),
        ("", "BS0007: "),
    ] {
        match (flag::parse("bind1", text), expected.split_once(": ")) {
            (Ok(_), None) => {}
            (Err(problem), Some((code, word))) => {
                let shown = rendered(std::slice::from_ref(&problem));
                assert_eq!(problem.code.to_string(), code, "{text}:\n{shown}");
                assert!(shown.contains(word), "{text}: no {word:?} in\n{shown}");
            }
            (result, _) => panic!("{text}: {result:?}"),
        }
    }
}
