//! Networks of labs with policy rules and routing tables: what is predicted is what is observed.

use std::fmt::Write as _;

use serde_json::Value;

use crate::agree::{differing, lab};
use crate::support::program::toml_file;
use crate::support::random::{Random, portion};

/// A host with two links, a client on each, and a client beyond a router.
const NETWORK: &str = r#"
schema = 1
name = "rules"

[[listener]]
name = "any4"
bind = "0.0.0.0"
port = [4000, 4001]

[[listener]]
name = "any6"
bind = "::"
port = 4000
v6only = true

[[listener]]
name = "datagrams"
protocol = "udp"
bind = "0.0.0.0"
port = 4000

[[listener]]
name = "device"
bind = "0.0.0.0"
port = 4002
device = "eth1"

[lab]
host = "host"

[[lab.node]]
name = "host"

[[lab.node]]
name = "router"
forwarding = true

[[lab.node]]
name = "beyond"

[[lab.node]]
name = "lan"

[[lab.link]]
a = { node = "host", interface = "eth0", addresses = ["192.0.2.1/24", "2001:db8:1::1/64"] }
b = { node = "router", interface = "eth0", addresses = ["192.0.2.254/24", "2001:db8:1::fe/64"] }

[[lab.link]]
a = { node = "router", interface = "eth1", addresses = ["198.51.100.254/24", "2001:db8:2::fe/64"] }
b = { node = "beyond", interface = "eth0", addresses = ["198.51.100.9/24", "2001:db8:2::9/64"] }

[[lab.link]]
a = { node = "host", interface = "eth1", addresses = ["10.1.0.1/24", "fd01::1/64"] }
b = { node = "lan", interface = "eth0", addresses = ["10.1.0.9/24", "fd01::9/64"] }
"#;

fn route(node: &str, to: &str, rest: &str) -> String {
    format!("\n[[lab.route]]\nnode = \"{node}\"\nto = \"{to}\"\n{rest}\n")
}

/// Default routes of every node.
fn routes() -> String {
    let defaults = [
        ("host", "192.0.2.254", "2001:db8:1::fe"),
        ("router", "192.0.2.1", "2001:db8:1::1"),
        ("beyond", "198.51.100.254", "2001:db8:2::fe"),
        ("lan", "10.1.0.1", "fd01::1"),
    ];
    let of = |(node, ipv4, ipv6): (&str, &str, &str)| {
        route(node, "default", &format!("via = \"{ipv4}\""))
            + &route(node, "default", &format!("via = \"{ipv6}\""))
    };
    defaults.into_iter().map(of).collect()
}

fn selector(random: &mut Random, ipv4: bool) -> String {
    let net = if ipv4 {
        ["192.0.2.0/24", "198.51.100.0/24", "10.1.0.1"]
    } else {
        ["2001:db8:1::/64", "2001:db8:2::9", "fd01::/64"]
    };
    let family = if ipv4 { "family = \"ipv4\"\n" } else { "family = \"ipv6\"\n" };
    let words = match random.below(11) {
        0 => format!("from = \"{}\"", random.pick(&net)),
        1 => format!("to = \"{}\"", random.pick(&net)),
        2 => "iif = \"eth0\"".to_owned(),
        3 => "oif = \"eth1\"".to_owned(),
        4 => "iif = \"lo\"".to_owned(),
        5 => "sport = 4000\nipproto = \"tcp\"".to_owned(),
        6 => "sport = \"4001-4002\"".to_owned(),
        7 => "ipproto = \"udp\"".to_owned(),
        8 => format!("uidrange = \"{}\"", random.pick(&["0", "1000-2000"])),
        9 => "fwmark = 1\nfwmask = 0xff\nnot = true".to_owned(),
        _ => format!("from = \"{}\"\nnot = true", random.pick(&net)),
    };
    format!("{family}{words}\n")
}

fn network(random: &mut Random) -> String {
    let mut text = NETWORK.to_owned() + &routes();
    text += &route("host", "0.0.0.0/0", "via = \"10.1.0.9\"\ntable = 100");
    text += &route("host", "::/0", "via = \"fd01::9\"\ntable = 100");
    text += &route("host", "198.51.100.0/24", "kind = \"blackhole\"\ntable = 200");
    text += &route("host", "::/0", "kind = \"prohibit\"\ntable = 200");
    text += &route("host", "10.1.0.0/24", "kind = \"throw\"\ntable = 100");
    for number in 0..1 + random.below(3) {
        let ipv4 = !random.once_in(3);
        let action = match random.below(8) {
            0 => "action = \"unreachable\"".to_owned(),
            1 => "action = \"prohibit\"".to_owned(),
            2 => "action = \"blackhole\"".to_owned(),
            3 => "action = \"nop\"".to_owned(),
            4 => "goto = 32766".to_owned(),
            5 => "table = 254\nsuppress_prefixlength = 0".to_owned(),
            _ => format!("table = {}", random.pick(&[100, 200])),
        };
        let node = if random.once_in(6) { "lan" } else { "host" };
        let words = selector(random, ipv4);
        let words = if node == "lan" { words.replace("eth1", "eth0") } else { words };
        let _ =
            write!(text, "\n[[lab.rule]]\nnode = \"{node}\"\npriority = {}\n{words}{action}\n", 100 + number);
    }
    text
}

/// Random rules: no observation differs from a prediction, and few are not predicted.
pub fn random_rules_are_predicted() {
    let mut random = Random::seeded("random_rules_are_predicted");
    let (mut all, mut unknown, mut silent) = (0, 0, 0);
    for number in 0..portion(12) {
        let text = network(&mut random);
        let file = toml_file(&text);
        let (document, _) = lab(&[file.path().to_str().unwrap()]);
        let (differing, count) = differing(&document);
        let is_known = |cell: &&&Value| !cell["predicted"]["outcome"].is_null();
        let wrong: Vec<&Value> = differing.iter().filter(is_known).copied().collect();
        assert!(
            wrong.is_empty(),
            "network {number}\n{text}\n{}",
            Value::from_iter(wrong.into_iter().cloned())
        );
        all += count;
        unknown += differing.len();
        let of_rules = document["cells"].as_array().unwrap().iter();
        silent += of_rules.filter(|cell| cell["predicted"]["why"] == "BS3017").count();
    }
    eprintln!("{all} results, {unknown} not predicted, {silent} without an answer");
    assert!(all > 100 && unknown * 20 <= all, "{unknown} of {all} results are not predicted");
    assert!(portion(12) < 6 || silent > 0, "no rule had an effect");
}
