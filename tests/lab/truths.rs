//! The truth table of binds: each form of listener on a host with three wires, asked from the host itself and from a neighbour on
//! two of the wires. The table is written down here, and nothing of it is computed by the predictor.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::agree::{differing, lab};
use crate::support::program::toml_file;

const NETWORK: &str = r#"
schema = 1
kind = "lab"
name = "truths"

[lab]
host = "host"

[[lab.link]]
a = { node = "host", interface = "lan0", addresses = ["192.0.2.1/24", "2001:db8:1::1/64", "fe80::1:1/64"] }
b = { node = "lan", interface = "eth0", addresses = ["192.0.2.10/24", "2001:db8:1::10/64"] }

[[lab.link]]
a = { node = "host", interface = "wan0", addresses = ["198.51.100.1/24", "2001:db8:2::1/64", "fe80::2:1/64"] }
b = { node = "wan", interface = "eth0", addresses = ["198.51.100.10/24", "2001:db8:2::10/64"] }

[[lab.link]]
a = { node = "host", interface = "vpn0", addresses = ["10.8.0.1/24", "fd00:8::1/64", "fe80::8:1/64"] }
b = { node = "vpn", interface = "eth0", addresses = ["10.8.0.10/24", "fd00:8::10/64"] }
"#;

/// The node, and the gateways of its default routes.
const ROUTES: [(&str, [&str; 2]); 3] = [
    ("lan", ["192.0.2.1", "2001:db8:1::1"]),
    ("wan", ["198.51.100.1", "2001:db8:2::1"]),
    ("vpn", ["10.8.0.1", "fd00:8::1"]),
];

/// What is connected to, by a short name, with the interface that has it. No client outside asks for the first group's others.
const DESTINATIONS: [(&str, &str, &str); 14] = [
    ("lo4", "127.0.0.1", "lo"),
    ("lo4b", "127.0.0.2", "lo"),
    ("any4", "0.0.0.0", "lo"),
    ("lo6", "::1", "lo"),
    ("any6", "::", "lo"),
    ("lan4", "192.0.2.1", "lan0"),
    ("wan4", "198.51.100.1", "wan0"),
    ("vpn4", "10.8.0.1", "vpn0"),
    ("lan6", "2001:db8:1::1", "lan0"),
    ("wan6", "2001:db8:2::1", "wan0"),
    ("vpn6", "fd00:8::1", "vpn0"),
    ("lanl", "fe80::1:1%lan0", "lan0"),
    ("wanl", "fe80::2:1%wan0", "wan0"),
    ("vpnl", "fe80::8:1%vpn0", "vpn0"),
];

const HOST4: &str = "lo4 lo4b any4 lan4 wan4 vpn4";
const HOST6: &str = "lo6 any6 lan6 wan6 vpn6 lanl wanl vpnl";
const WIRE4: &str = "lan4 wan4 vpn4";
const WIRE6: &str = "lan6 wan6 vpn6";

/// A listener, and what it takes from the host, from `lan` and from `wan`.
struct Row {
    form: &'static str,
    host: String,
    lan: String,
    wan: String,
}

fn rows() -> Vec<Row> {
    let row =
        |form, [host, lan, wan]: [&str; 3]| Row { form, host: host.into(), lan: lan.into(), wan: wan.into() };
    let both = |a: &str, b: &str| format!("{a} {b}");
    vec![
        row("bind = '0.0.0.0'", [HOST4, WIRE4, WIRE4]),
        row("bind = '127.0.0.1'", ["lo4 any4", "", ""]),
        row("bind = '192.0.2.1'", ["lan4", "lan4", "lan4"]),
        Row {
            form: "bind = '::'\nv6only = false",
            host: both(HOST4, HOST6),
            lan: both(WIRE4, WIRE6) + " lanl",
            wan: both(WIRE4, WIRE6) + " wanl",
        },
        Row {
            form: "bind = '::'\nv6only = true",
            host: HOST6.into(),
            lan: both(WIRE6, "lanl"),
            wan: both(WIRE6, "wanl"),
        },
        row("bind = '::1'", ["lo6 any6", "", ""]),
        row("bind = '2001:db8:1::1'", ["lan6", "lan6", "lan6"]),
        row("bind = 'fe80::1:1%lan0'", ["lanl", "lanl", ""]),
        row("bind = '::ffff:127.0.0.1'\nv6only = false", ["lo4 any4", "", ""]),
        row("bind = '0.0.0.0'\ndevice = 'lan0'", ["lan4", WIRE4, ""]),
        row(
            "bind = '::'\nv6only = false\ndevice = 'lan0'",
            ["lan4 lan6 lanl", "lan4 wan4 vpn4 lan6 wan6 vpn6 lanl", ""],
        ),
        row("bind = '0.0.0.0'\ndevice = 'lo'", ["lo4 lo4b any4", "", ""]),
        row("bind = '::'\nv6only = false\ndevice = 'lo'", ["lo4 lo4b any4 lo6 any6", "", ""]),
        row("bind = '192.0.2.1'\ndevice = 'wan0'", ["", "", "lan4"]),
    ]
}

pub fn the_truth_table_holds_cell_by_cell() {
    let rows = rows();
    let mut profile = "schema = 1\nname = 'truths'\n".to_owned();
    for (number, Row { form, .. }) in rows.iter().enumerate() {
        for protocol in ["tcp", "udp"] {
            let _ = write!(
                profile,
                "[[listener]]\nname = '{protocol}{number}'\nprotocol = '{protocol}'\n{form}\nport = {}\nreply = 'none'\nexposure_reason = 'a test'\n",
                7400 + number
            );
        }
    }
    let routes = ROUTES.iter().flat_map(|(node, gateways)| {
        gateways.map(|via| format!("[[lab.route]]\nnode = '{node}'\nto = 'default'\nvia = '{via}'\n"))
    });
    let network = toml_file(&(NETWORK.to_owned() + &routes.collect::<String>()));
    let profile = toml_file(&profile);
    let (document, _) =
        lab(&[profile.path().to_str().unwrap(), "--topology", network.path().to_str().unwrap()]);
    let wrong = differing(&document).0;
    assert!(wrong.is_empty(), "{}", Value::from_iter(wrong.into_iter().cloned()));
    let cells: BTreeMap<(&str, &str, &str, u64), &Value> = document["cells"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cell| {
            let text = |key: &str| cell[key].as_str().unwrap();
            let key = (text("source"), text("protocol"), text("destination"), cell["port"].as_u64().unwrap());
            (key, &cell["observed"])
        })
        .collect();
    let mut accepted_over_wires = 0;
    let mut weak = 0;
    for (number, row) in rows.iter().enumerate() {
        for (source, wire, takes) in [
            ("host", None, &row.host),
            ("node:lan", Some("lan0"), &row.lan),
            ("node:wan", Some("wan0"), &row.wan),
        ] {
            for (short, destination, owner) in DESTINATIONS {
                if wire.is_some() && matches!(short, "lo4b" | "any4" | "any6") {
                    continue;
                }
                for protocol in ["tcp", "udp"] {
                    let key = (source, protocol, destination, 7400 + number as u64);
                    let seen = cells.get(&key).unwrap_or_else(|| panic!("{key:?} is missing"));
                    let what = format!("{protocol} {} from {source} to {destination}: {seen}", row.form);
                    if takes.split_whitespace().any(|taken| taken == short) {
                        assert_eq!(seen["outcome"], "accepted", "{what}");
                        assert_eq!(seen["listener"], format!("{protocol}{number}"), "{what}");
                        // What the host sends to itself is reported on the owner of the address, all else on its wire.
                        assert_eq!(seen["ingress"], wire.unwrap_or(owner), "{what}");
                        assert_eq!(seen["packets"]["confirms"], true, "{what}");
                        assert_eq!(seen["packets"]["via_lo"], wire.is_none() && owner != "lo", "{what}");
                        accepted_over_wires += usize::from(wire.is_some() && protocol == "tcp");
                        weak += usize::from(wire.is_some_and(|wire| wire != owner) && protocol == "tcp");
                    } else {
                        // A link-local address is not looked for on another link: no host answers there.
                        let elsewhere = short.ends_with('l') && wire.is_some_and(|wire| wire != owner);
                        let outcome = if elsewhere { "timeout" } else { "refused" };
                        assert_eq!(seen["outcome"], outcome, "{what}");
                    }
                }
            }
        }
    }
    // Binding an address is not binding an interface: most of what came over a wire was for an address of another one.
    assert_eq!((accepted_over_wires, weak), (44, 25));
}

/// Two interfaces of the host on one wire answer for each other's addresses, so that it is not known which one a neighbour finds; with
/// `arp_ignore` each answers for its own.
pub fn which_of_two_interfaces_on_a_wire_is_unknown_until_each_answers_for_its_own() {
    let network = |arp_ignore: &str| {
        toml_file(&format!(
            r#"
schema = 1
kind = "lab"
name = "flux"

[lab]
host = "host"

[[lab.node]]
name = "host"
sysctl = {{ "net.ipv4.conf.all.arp_ignore" = "{arp_ignore}" }}

[[lab.node]]
name = "lan"

[[lab.link]]
a = {{ node = "host", interface = "lan0", addresses = ["192.0.2.1/24"] }}
b = {{ node = "lan", interface = "eth0", addresses = ["192.0.2.10/24"] }}

[[lab.macvlan]]
node = "host"
interface = "mv0"
parent = "lan0"
addresses = ["192.0.2.2/24"]
"#
        ))
    };
    for (arp_ignore, unknown) in [("0", 2), ("1", 0)] {
        let file = network(arp_ignore);
        let (document, _) = lab(&["--bind", "0.0.0.0:7500", "--topology", file.path().to_str().unwrap()]);
        let summary = &document["summary"];
        assert_eq!((&summary["unknown"], &summary["disagree"]), (&unknown.into(), &0.into()), "{document:#}");
        let cells = document["cells"].as_array().unwrap();
        let from_lan = cells.iter().filter(|cell| {
            cell["source"] == "node:lan" && cell["destination"].as_str().unwrap().starts_with("192.0.2.")
        });
        for cell in from_lan {
            assert_eq!(cell["agrees"], if unknown > 0 { Value::Null } else { true.into() }, "{cell}");
            // Whatever it was: the packets were there.
            assert_eq!(cell["observed"]["packets"]["confirms"], true, "{cell}");
        }
    }
}

/// What a host answers depends on these settings, too, and the path of every packet is predicted with them.
pub fn settings_of_arp_and_of_reverse_paths_are_predicted() {
    for (name, setting, value) in [
        // Strict reverse paths turn no weak host into a strong one; they refuse the one whose answers take another wire.
        ("two-sided", "rp_filter", "1"),
        ("asymmetric", "rp_filter", "1"),
        ("asymmetric", "rp_filter", "2"),
        ("asymmetric", "arp_ignore", "2"),
        ("asymmetric", "arp_filter", "1"),
        ("two-sided", "arp_ignore", "8"),
        ("router", "arp_ignore", "8"),
    ] {
        let sysctl = format!("sysctl = {{ 'net.ipv4.conf.all.{setting}' = '{value}' }}\n");
        let text = bindscope::lab::builtin::get(name).unwrap();
        let host = "[[lab.node]]\nname = \"host\"\n";
        let text = if text.contains(host) {
            text.replacen(host, &format!("{host}{sysctl}"), 1)
        } else {
            format!("{text}\n{host}{sysctl}[[lab.node]]\nname = 'lan'\n[[lab.node]]\nname = 'wan'\n")
        };
        let file = toml_file(&text);
        let (document, _) = lab(&[
            "--bind",
            "0.0.0.0:7600",
            "--bind",
            "udp:0.0.0.0:7601",
            "--topology",
            file.path().to_str().unwrap(),
        ]);
        let wrong = differing(&document).0;
        assert!(
            wrong.is_empty(),
            "{name} {setting}={value}: {}",
            Value::from_iter(wrong.into_iter().cloned())
        );
        let cells = document["cells"].as_array().unwrap();
        let over_ipv4 = cells.iter().filter(|cell| {
            cell["source"] != "host"
                && cell["port"] == 7600
                && cell["destination"].as_str().unwrap().contains('.')
        });
        let reached = over_ipv4.filter(|cell| cell["observed"]["outcome"] == "accepted").count();
        let wanted = match (name, setting, value) {
            ("two-sided", "rp_filter", _) => 4,
            (_, "arp_ignore", "8") => 0,
            ("asymmetric", "rp_filter", "2") => 2,
            _ => 1,
        };
        assert_eq!(reached, wanted, "{name} {setting}={value}");
    }
}
