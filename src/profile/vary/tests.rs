//! Tests of the module.

use super::*;
use crate::model::V6Only;
use crate::profile;

fn web() -> Profile {
    let text = "schema = 1\nname = 'p'\n[[listener]]\nname = 'web'\nbind = '::'\nport = 80\n[[listener]]\nname = 'api'\nprotocol = 'udp'\nport = 81\n";
    profile::parse("p.toml", text).unwrap()
}

fn vary(text: &str) -> Result<Factor, String> {
    parse(text, Some(&web().listeners)).map_err(|problems| {
        problems
            .iter()
            .map(|problem| format!("{} {}", problem.message, problem.help.join(" ")))
            .collect::<Vec<_>>()
            .join("\n")
    })
}

#[test]
fn values_are_separated_by_commas_outside_of_brackets() {
    let factor = vary(
        "web.bind=0.0.0.0, ::,[\"127.0.0.1\", \"::1\"],{ interface = \"eth0\", family = \"ipv4\" },loopback",
    )
    .unwrap();
    assert_eq!(factor.values.len(), 5);
    let factor = vary("web.port=80,8000-8002,[1,2]").unwrap();
    let ports: Vec<Vec<u16>> = (0..3)
        .map(|index| {
            let mut profile = web();
            apply(&mut profile, std::slice::from_ref(&factor), &[index]).unwrap();
            profile.listeners[0].ports.clone()
        })
        .collect();
    assert_eq!(ports, [vec![80], vec![8000, 8001, 8002], vec![1, 2]]);
}

#[test]
fn every_key_of_a_listener_can_be_varied_except_its_name() {
    for key in LISTENER.keys.iter().filter(|key| key.name != "name") {
        let value = match key.kind {
            Kind::Bool | Kind::BoolOr(_) | Kind::BoolOrTable(_) => "true",
            Kind::Choice(words) => words[0],
            Kind::Duration => "5s",
            Kind::Integer(..) | Kind::Ports => "7",
            Kind::Bind(_) => "127.0.0.1",
            _ => "lo",
        };
        vary(&format!("web.{}={value}", key.name)).unwrap_or_else(|error| panic!("{}: {error}", key.name));
    }
    assert!(vary("web.name=a,b").is_err());
}

#[test]
fn defaults_follow_the_protocol() {
    let factor = vary("*.protocol=tcp,udp").unwrap();
    for (index, reuse) in [(0, true), (1, false)] {
        let mut profile = web();
        apply(&mut profile, std::slice::from_ref(&factor), &[index]).unwrap();
        assert!(profile.listeners.iter().all(|one| one.reuse_address == reuse));
    }
    let explicit = vary("web.reuse_address=true").unwrap();
    let mut profile = web();
    apply(&mut profile, &[factor, explicit], &[1, 0]).unwrap();
    assert!(profile.listeners[0].reuse_address && !profile.listeners[1].reuse_address);
}

#[test]
fn a_combination_that_contradicts_itself_says_why() {
    let factors = [vary("web.bind=0.0.0.0,::").unwrap(), vary("web.v6only=false").unwrap()];
    assert!(apply(&mut web(), &factors, &[0, 0]).unwrap_err().contains("v6only"));
    let mut profile = web();
    apply(&mut profile, &factors, &[1, 0]).unwrap();
    assert_eq!(profile.listeners[0].v6only, V6Only::Off);
}

#[test]
fn an_error_names_the_spelling_that_works() {
    for (text, expected) in [
        ("web.v6onyl=true", "did you mean `web.v6only`?"),
        ("wbe.v6only=true", "did you mean `web.v6only`?"),
        ("v6only=true", "write `web.v6only`"),
        ("v6onli=true", "did you mean `web.v6only`"),
        ("ordr=reverse", "did you mean `order`?"),
        ("order=apo web", "did you mean api?"),
        ("web.v6only=yes", "true, false or \"system\""),
        ("web.port=70000", "65535"),
        ("web.port=80,80", "already"),
        ("web.port=80,", "empty"),
        ("web.port", "KEY=VALUE"),
        ("web.bind=1.2.3", "too few numbers"),
        ("net.ipv6.bindv6only=on", "integer"),
        ("net.ipv6.bindv6onyl=0", "did you mean `net.ipv6.bindv6only`?"),
        ("net.ipv4.conf.eth0.rp_filtre=0", "did you mean `net.ipv4.conf.eth0.rp_filter`?"),
        ("kernel.x=1", "unknown key"),
    ] {
        let error = vary(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn order_and_device_can_be_left_out() {
    let factors = [vary("order=profile,reverse,api web").unwrap(), vary("*.device=none,eth0").unwrap()];
    for (choice, first, device) in [([0, 0], "web", false), ([1, 1], "api", true), ([2, 0], "api", false)] {
        let mut profile = web();
        apply(&mut profile, &factors, &choice).unwrap();
        assert_eq!(profile.listeners[0].name, first);
        assert_eq!(profile.listeners[0].device.is_some(), device);
    }
    let twice = [vary("*.port=1,2").unwrap(), vary("web.port=3").unwrap()];
    assert!(overlap(&twice, &web().listeners).is_some());
    assert!(overlap(&factors, &web().listeners).is_none());
}
