//! `[lab]`: the network of a lab, in a profile or in a separate file (`kind = "lab"`).

mod routing;

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::Range;

use routing::{ROUTE, RULE};
use toml::de::{DeTable, DeValue};

use super::bind::interface_name;
use super::keys::{self, Key, Keys, Kind, optional, required};
use super::value::{Problems, Value, boolean, nearest, number, one_or_many, tables, text};
use super::{syntax, version};
use crate::code::Code;
use crate::diag::Diagnostic;
use crate::model::IfName;
use crate::model::topology::{
    Bridge, End, Event, Filter, LabAddress, Link, LinkChange, Macvlan, Node, Topology, bad_node_name,
};

/// A lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lab {
    /// Name in the file, or the name of the file.
    pub name: String,
    /// The network.
    pub topology: Topology,
    /// When the lab is removed.
    pub teardown: Teardown,
}

/// When a lab is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Teardown {
    /// At the end.
    #[default]
    Always,
    /// At the end, unless a check failed.
    OnSuccess,
    /// On request of the user.
    Never,
}

/// Keys of a lab file.
pub(super) static LAB_FILE: Keys = Keys {
    what: "the lab",
    keys: &[
        required("schema", Kind::Integer(0, i64::MAX), "the version of the language: 1"),
        required("kind", Kind::Choice(&["lab"]), "that it is a lab"),
        optional("name", Kind::Text, "the name of the lab in every report"),
        optional("description", Kind::Text, "purpose"),
        required("lab", Kind::Table(&LAB), "the network"),
    ],
};

/// Keys of `[lab]`.
pub(super) static LAB: Keys = Keys {
    what: "[lab]",
    keys: &[
        optional("host", Kind::Text, "the node in which the listeners are bound (default: the first)"),
        optional("description", Kind::Text, "purpose"),
        optional(
            "teardown",
            Kind::Choice(&["always", "on-success", "never"]),
            "when the lab is removed (default always)",
        )
        .default(r#""always""#),
        optional(
            "forwarding",
            Kind::Bool,
            "whether the host forwards packets between its interfaces (default false)",
        )
        .default("false"),
        optional("node", Kind::Tables(&NODE), "hosts with a network of their own"),
        optional("link", Kind::Tables(&LINK), "links between nodes"),
        optional("bridge", Kind::Tables(&BRIDGE), "bridges inside nodes"),
        optional("macvlan", Kind::Tables(&MACVLAN), "second interfaces on the link of another"),
        optional("route", Kind::Tables(&ROUTE), "routes"),
        optional("rule", Kind::Tables(&RULE), "policy rules, with the words of ip-rule(8)"),
        optional("filter", Kind::Tables(&FILTER), "firewall rules, if nft is installed"),
        optional("event", Kind::Tables(&EVENT), "what happens while the lab runs, in this order"),
    ],
};

const NODE_KEY: Key = required("node", Kind::Text, "the node");
const INTERFACE_OUT: Key = optional("interface", Kind::Text, "outgoing interface");
const INTERFACE: Key = required("interface", Kind::Text, "name of the interface in the node");
const ADDRESSES: Key = optional(
    "addresses",
    Kind::Texts,
    "addresses with prefix length, and after a blank `deprecated`, `tentative`, `dad` or `nodad`",
);
const LINK_LOCAL: Key =
    optional("link_local", Kind::Bool, "whether there are link-local IPv6 addresses (default true)")
        .default("true");
const SYSCTL: Key =
    optional("sysctl", Kind::Map, "settings by dotted name, such as \"net.ipv6.bindv6only\" = \"1\"");

static NODE: Keys = Keys {
    what: "[[lab.node]]",
    keys: &[
        required("name", Kind::Text, "its name"),
        optional("forwarding", Kind::Bool, "whether it forwards packets (default false)"),
        SYSCTL,
        optional("loopback", Kind::Texts, "addresses on lo in addition to 127.0.0.1 and ::1"),
    ],
};
static LINK: Keys = Keys {
    what: "[[lab.link]]",
    keys: &[
        required("a", Kind::Table(&END), "one end"),
        required("b", Kind::Table(&END), "the other end"),
        optional("dad", Kind::Bool, "whether duplicate address detection runs (default false)")
            .default("false"),
        LINK_LOCAL,
        optional("loss", Kind::Choice(&["0%"]), "packets that are lost: none in this version"),
        optional("delay", Kind::Choice(&["0ms", "0s"]), "delay of packets: none in this version"),
    ],
};
static END: Keys = Keys {
    what: "an end of a link",
    keys: &[
        NODE_KEY,
        INTERFACE,
        ADDRESSES,
        optional("up", Kind::Bool, "whether it is put up (default true)").default("true"),
        optional("mtu", Kind::Integer(68, 65_535), "MTU in bytes"),
        optional("bridge", Kind::Text, "the bridge of this node whose port it is"),
    ],
};
static BRIDGE: Keys = Keys { what: "[[lab.bridge]]", keys: &[NODE_KEY, INTERFACE, ADDRESSES, LINK_LOCAL] };
static MACVLAN: Keys = Keys {
    what: "[[lab.macvlan]]",
    keys: &[
        NODE_KEY,
        INTERFACE,
        required("parent", Kind::Text, "the parent interface"),
        ADDRESSES,
        LINK_LOCAL,
    ],
};
static FILTER: Keys = Keys {
    what: "[[lab.filter]]",
    keys: &[NODE_KEY, required("rule", Kind::Text, "a rule in the syntax of nft(8)")],
};
static EVENT: Keys = Keys {
    what: "[[lab.event]]",
    keys: &[
        optional("node", Kind::Text, "the node to which it happens (default: the host)"),
        optional("interface", Kind::Text, "the interface to which it happens"),
        optional("link", Kind::Choice(&["down", "up"]), "put the interface down or up"),
        optional("add", Kind::Text, "an address that is added"),
        optional("remove", Kind::Text, "an address with prefix length to remove"),
        optional("rename", Kind::Text, "a new name for the interface"),
        SYSCTL,
    ],
};

/// Parses a lab file, or the `[lab]` of a profile. `origin` names the text in messages.
///
/// # Errors
/// Every problem, in the order of the text.
pub fn parse(origin: &str, text: &str) -> Result<Lab, Vec<Diagnostic>> {
    if super::kind_of(text) == super::FileKind::Profile {
        let profile = super::parse(origin, text)?;
        return profile.lab.ok_or_else(|| {
            let problem = Diagnostic::error(Code::WRONG_KIND, format!("{origin} has no [lab]"));
            vec![problem.help("give a file with kind = \"lab\", or a profile with a [lab]")]
        });
    }
    let mut problems = Problems::new(origin, text);
    let document = syntax(text, &mut problems);
    let table = document.get_ref();
    let mut lab = None;
    if version(table, &mut problems) {
        keys::check(table, 0..0, &LAB_FILE, &mut problems);
        lab = read(table, super::stem(origin), &mut problems);
    }
    match lab {
        Some(lab) if problems.is_empty() => Ok(lab),
        _ => Err(problems.finish()),
    }
}

/// The `[lab]` table of a document.
pub(super) fn read(document: &DeTable<'_>, stem: &str, problems: &mut Problems) -> Option<Lab> {
    let value = document.get("lab")?;
    let table = value.get_ref().as_table()?;
    let name = text(document, "name").unwrap_or(stem).to_owned();
    let teardown = match text(table, "teardown") {
        Some("on-success") => Teardown::OnSuccess,
        Some("never") => Teardown::Never,
        _ => Teardown::Always,
    };
    let mut reader = Reader { problems };
    let topology = reader.topology(document, table);
    reader.nodes_exist(table, &topology);
    reader.no_address_twice(table);
    reader.rules_name_interfaces(table, &topology);
    reader.events_happen_to_something(table, &topology);
    // Problems without a position are reported only if there are no others.
    if problems.is_empty() {
        for message in topology.problems() {
            problems.add(Code::BAD_NETWORK, value.span(), message);
        }
    }
    Some(Lab { name, topology, teardown })
}

/// Maximum number of nodes in one message.
const SHOWN: usize = 50;

struct Reader<'p> {
    problems: &'p mut Problems,
}

impl Reader<'_> {
    fn topology(&mut self, document: &DeTable<'_>, table: &DeTable<'_>) -> Topology {
        let host = text(table, "host").map(str::to_owned);
        let description = text(table, "description").or(text(document, "description")).map(str::to_owned);
        let mut nodes: Vec<Node> = Vec::new();
        for (entry, _) in tables(table, "node") {
            let name = text(entry, "name").unwrap_or_default().to_owned();
            self.node_name(entry, "name");
            if let Some(value) = entry.get("name").filter(|_| nodes.iter().any(|node| node.name == name)) {
                self.problems.add(
                    Code::DUPLICATE_NAME,
                    value.span(),
                    format!("another node is called \"{name}\""),
                );
            }
            let host_forwards = boolean(table, "forwarding").unwrap_or(false)
                && host.as_ref().map_or(nodes.is_empty(), |host| *host == name);
            nodes.push(Node {
                name,
                forwarding: boolean(entry, "forwarding").unwrap_or(host_forwards),
                sysctl: self.sysctl(entry),
                loopback: self.addresses(entry, "loopback"),
            });
        }
        let links = tables(table, "link").into_iter().filter_map(|(entry, _)| {
            let (a, b) = (self.end(entry, "a")?, self.end(entry, "b")?);
            let dad = boolean(entry, "dad").unwrap_or(false);
            Some(Link { a, b, dad, link_local: boolean(entry, "link_local").unwrap_or(true) })
        });
        let links = links.collect();
        let bridges = tables(table, "bridge").into_iter().map(|(entry, _)| Bridge {
            node: text(entry, "node").unwrap_or_default().to_owned(),
            interface: self.interface(entry, "interface").unwrap_or_else(|| "".into()),
            addresses: self.addresses(entry, "addresses"),
            link_local: boolean(entry, "link_local").unwrap_or(true),
        });
        let bridges = bridges.collect();
        let macvlans = tables(table, "macvlan").into_iter().map(|(entry, _)| Macvlan {
            node: text(entry, "node").unwrap_or_default().to_owned(),
            interface: self.interface(entry, "interface").unwrap_or_else(|| "".into()),
            parent: self.interface(entry, "parent").unwrap_or_else(|| "".into()),
            addresses: self.addresses(entry, "addresses"),
            link_local: boolean(entry, "link_local").unwrap_or(true),
        });
        let macvlans = macvlans.collect();
        let routes =
            tables(table, "route").into_iter().map(|(entry, span)| self.route(entry, &span)).collect();
        let rules =
            tables(table, "rule").into_iter().flat_map(|(entry, span)| self.policy_rule(entry, &span));
        let rules = rules.collect();
        let filters = tables(table, "filter").into_iter().map(|(entry, _)| Filter {
            node: text(entry, "node").unwrap_or_default().to_owned(),
            rule: self.rule(entry),
        });
        let filters = filters.collect();
        let events =
            tables(table, "event").into_iter().map(|(entry, span)| self.event(entry, &span)).collect();
        Topology { host, description, nodes, links, bridges, macvlans, routes, rules, filters, events }
    }

    fn end(&mut self, link: &DeTable<'_>, key: &str) -> Option<End> {
        let table = link.get(key)?.get_ref().as_table()?;
        self.node_name(table, "node");
        let end = End {
            node: text(table, "node").unwrap_or_default().to_owned(),
            interface: self.interface(table, "interface").unwrap_or_else(|| "".into()),
            addresses: self.addresses(table, "addresses"),
            up: boolean(table, "up").unwrap_or(true),
            mtu: number(table, "mtu"),
            bridge: self.interface(table, "bridge"),
        };
        if let Some(value) = table.get("mtu").filter(|_| !end.carries_ipv6())
            && end.addresses.iter().any(|address| address.net.addr().is_ipv6())
        {
            self.problems
                .add(Code::BAD_NETWORK, value.span(), "IPv6 needs an MTU of 1280 bytes at the least")
                .help("raise it, or leave out the IPv6 addresses");
        }
        Some(end)
    }

    fn node_name(&mut self, table: &DeTable<'_>, key: &str) {
        if let (Some(name), Some(value)) = (text(table, key).filter(|name| !name.is_empty()), table.get(key))
            && let Some(reason) = bad_node_name(name)
        {
            self.problems.add(Code::BAD_NETWORK, value.span(), format!("the name of a node {reason}"));
        }
    }

    /// Accepts a single rule. Characters that could end it and start another nft(8) command are refused.
    fn rule(&mut self, table: &DeTable<'_>) -> String {
        let rule = text(table, "rule").unwrap_or_default();
        if let Some(value) =
            table.get("rule").filter(|_| rule.chars().any(|c| c.is_control() || matches!(c, ';' | '\\')))
        {
            self.problems
                .add(Code::BAD_NETWORK, value.span(), "a rule is one line without \";\" and without \"\\\"")
                .help("write one [[lab.filter]] for each rule");
        }
        rule.to_owned()
    }

    /// An event refers to interfaces that exist at that time; after a rename, by the new name.
    fn events_happen_to_something(&mut self, table: &DeTable<'_>, topology: &Topology) {
        let host = topology.host_node().unwrap_or_default();
        let nodes: HashSet<String> = topology.all_nodes().into_iter().map(|node| node.name).collect();
        let mut there: HashSet<(String, IfName)> =
            topology.interfaces().map(|(node, name)| (node.to_owned(), name.clone())).collect();
        for ((entry, _), event) in tables(table, "event").into_iter().zip(&topology.events) {
            let (Some(name), Some(value)) = (&event.interface, entry.get("interface")) else { continue };
            let node = event.node.clone().unwrap_or_else(|| host.clone());
            // Another check reports missing nodes.
            if !nodes.contains(&node) {
                continue;
            }
            if !there.contains(&(node.clone(), name.clone())) {
                let mut names: Vec<String> =
                    there.iter().filter(|one| one.0 == node).map(|one| one.1.to_string()).collect();
                names.sort_unstable();
                self.problems
                    .add(
                        Code::UNKNOWN_REFERENCE,
                        value.span(),
                        format!("\"{node}\" has no interface \"{name}\" by then"),
                    )
                    .help(format!(
                        "it has {}",
                        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
                    ));
                continue;
            }
            if let (Some(to), Some(value)) = (&event.rename, entry.get("rename")) {
                there.remove(&(node.clone(), name.clone()));
                if !there.insert((node.clone(), to.clone())) {
                    self.problems.add(
                        Code::DUPLICATE_NAME,
                        value.span(),
                        format!("\"{node}\" has an interface \"{to}\" by then"),
                    );
                }
            }
        }
    }

    fn event(&mut self, table: &DeTable<'_>, span: &Range<usize>) -> Event {
        let asked = ["link", "add", "remove", "rename", "sysctl"]
            .iter()
            .filter(|key| table.contains_key(**key))
            .count();
        if asked != 1 {
            let code = if asked == 0 { Code::NOTHING_ASKED } else { Code::CONTRADICTION };
            self.problems
                .add(
                    code,
                    span.clone(),
                    "an event is exactly one of `link`, `add`, `remove`, `rename`, `sysctl`",
                )
                .help("write one [[lab.event]] for each; they happen in their order");
        } else if !table.contains_key("sysctl") && !table.contains_key("interface") {
            self.problems.add(
                Code::MISSING_KEY,
                span.clone(),
                "this event happens to an `interface`, but none is named",
            );
        }
        Event {
            node: text(table, "node").map(str::to_owned),
            interface: self.interface(table, "interface"),
            link: text(table, "link")
                .map(|word| if word == "down" { LinkChange::Down } else { LinkChange::Up }),
            add: self.addresses(table, "add").pop(),
            remove: self.parsed(table, "remove", "an address with prefix length such as 192.0.2.1/24"),
            rename: self.interface(table, "rename"),
            sysctl: self.sysctl(table),
        }
    }

    fn parsed<T: std::str::FromStr>(&mut self, table: &DeTable<'_>, key: &str, wanted: &str) -> Option<T> {
        let word = text(table, key).filter(|word| !word.is_empty())?;
        let parsed = word.parse().ok();
        if let (None, Some(value)) = (&parsed, table.get(key)) {
            self.problems.add(
                Code::BAD_ADDRESS,
                value.span(),
                format!("`{key}` is \"{word}\", but must be {wanted}"),
            );
        }
        parsed
    }

    fn interface(&mut self, table: &DeTable<'_>, key: &str) -> Option<IfName> {
        let name = text(table, key).filter(|name| !name.is_empty())?;
        let checked = match interface_name(name) {
            Ok(_) if matches!(name, "lo" | "all" | "default") => {
                Err("is the name of something that every node has".to_owned())
            }
            // The name becomes part of commands that a person may run.
            Ok(_) if !name.chars().all(|c| c.is_alphanumeric() || "._-+@=,^".contains(c)) => {
                Err("contains a character that is not allowed in a lab's interface names".to_owned())
            }
            checked => checked,
        };
        if let (Err(reason), Some(value)) = (&checked, table.get(key)) {
            self.problems.add(Code::BAD_INTERFACE, value.span(), format!("`{key}` {reason}"));
        }
        checked.ok()
    }

    fn addresses(&mut self, table: &DeTable<'_>, key: &str) -> Vec<LabAddress> {
        let mut addresses = Vec::new();
        for value in table.get(key).map(one_or_many).unwrap_or_default() {
            let Some(word) = value.get_ref().as_str().filter(|word| !word.is_empty()) else { continue };
            match word.parse() {
                Ok(address) => addresses.push(address),
                Err(reason) => {
                    self.problems.add(Code::BAD_ADDRESS, value.span(), reason);
                }
            }
        }
        addresses
    }

    fn sysctl(&mut self, table: &DeTable<'_>) -> std::collections::BTreeMap<String, String> {
        let mut settings = std::collections::BTreeMap::new();
        let Some(map) = table.get("sysctl").and_then(|map| map.get_ref().as_table()) else { return settings };
        for (name, value) in map {
            let written = match value.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                DeValue::Integer(_) => {
                    super::value::integer(value.get_ref()).map(|number| number.to_string())
                }
                _ => None,
            };
            match written {
                _ if crate::model::topology::setting_path(name.get_ref()).is_none() => {
                    self.problems
                        .add(
                            Code::BAD_NETWORK,
                            name.span(),
                            format!("\"{}\" is not a network setting that a lab may change", name.get_ref()),
                        )
                        .help("write a dotted name of net.core, net.ipv4 or net.ipv6, in quotes; `bindscope explain lab` lists them");
                }
                Some(written) if written.chars().any(|c| c.is_control() || matches!(c, '\'' | '\\')) => {
                    let message = "the value of a setting must not contain quotes or control characters";
                    self.problems.add(Code::BAD_NETWORK, value.span(), message);
                }
                Some(written) => {
                    settings.insert(name.get_ref().to_string(), written);
                }
                None => {
                    self.problems.add(Code::WRONG_TYPE, value.span(), "a setting is a string or an integer");
                }
            }
        }
        settings
    }

    /// Every named node exists. If no node is declared, the links define the nodes.
    fn nodes_exist(&mut self, table: &DeTable<'_>, topology: &Topology) {
        let known: Vec<String> = topology.all_nodes().into_iter().map(|node| node.name).collect();
        let declared: Vec<&str> = topology.nodes.iter().map(|node| node.name.as_str()).collect();
        let known: HashSet<&str> = if declared.is_empty() {
            known.iter().map(String::as_str).collect()
        } else {
            declared.into_iter().collect()
        };
        let mut shown: Vec<&str> = known.iter().copied().collect();
        shown.sort_unstable();
        shown.truncate(SHOWN);
        let mut named: Vec<&Value<'_>> = table.get("host").into_iter().collect();
        for (entry, _) in tables(table, "link") {
            let ends = ["a", "b"].iter().filter_map(|end| entry.get(*end)?.get_ref().as_table()?.get("node"));
            named.extend(ends);
        }
        for key in ["bridge", "macvlan", "route", "filter", "event"] {
            named.extend(tables(table, key).into_iter().filter_map(|(entry, _)| entry.get("node")));
        }
        for value in named {
            let Some(name) =
                value.get_ref().as_str().filter(|name| !name.is_empty() && !known.contains(name))
            else {
                continue;
            };
            let help = nearest(name, shown.iter().copied()).map_or_else(
                || format!("nodes are {}", shown.join(", ")),
                |near| format!("did you mean \"{near}\"?"),
            );
            self.problems
                .add(Code::UNKNOWN_REFERENCE, value.span(), format!("there is no node \"{name}\""))
                .help(help);
        }
    }

    /// No node has an address twice: the second could not be added.
    fn no_address_twice(&mut self, table: &DeTable<'_>) {
        let mut seen: HashSet<(String, IpAddr)> = HashSet::new();
        let ends = tables(table, "link").into_iter().flat_map(|(entry, _)| {
            ["a", "b"].into_iter().filter_map(move |end| entry.get(end)?.get_ref().as_table())
        });
        let others =
            ["bridge", "macvlan"].into_iter().flat_map(|key| tables(table, key)).map(|(entry, _)| entry);
        for entry in ends.chain(others) {
            let node = text(entry, "node").unwrap_or_default();
            for value in entry.get("addresses").map(one_or_many).unwrap_or_default() {
                let Some(address) = value.get_ref().as_str().and_then(|word| word.parse::<LabAddress>().ok())
                else {
                    continue;
                };
                let address = address.net.addr();
                let link_local = crate::model::addr::needs_zone(address);
                if !link_local && !seen.insert((node.to_owned(), address)) {
                    self.problems
                        .add(
                            Code::BAD_NETWORK,
                            value.span(),
                            format!("\"{node}\" has the address {address} already"),
                        )
                        .help("give each interface of a node its own address");
                }
            }
        }
    }
}
