//! The profile language: what it reads, and what it says about what it cannot read.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test")]

use bindscope::diag::{self, Problem};
use bindscope::model::{Family, V6Only};
use bindscope::profile::{self, Bind, Profile, Selector, builtin, flag};

fn example(name: &str) -> String {
    std::fs::read_to_string(format!("tests/data/examples/{name}.toml")).unwrap()
}

fn rendered(problems: &[Problem]) -> String {
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
        ("*:80", "BS0019: 0.0.0.0:80"),
        (":80", "BS0019: 0.0.0.0:80"),
        ("80", "BS0019: loopback:80"),
        ("udp:80", "BS0019: udp:127.0.0.1:80"),
        ("localhost:80", "BS0019: loopback:80"),
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
