//! Operations as commands of iproute2, sysctl(8) and nft(8), quoted for a POSIX shell.

use std::fmt::Write as _;

use super::ops::{Action, Operation, Plan, mac_text};
use crate::escape::{shell, shell_bytes};
use crate::model::ruleset::NftKind;
use crate::model::{Family, IfName, RouteKind, Rule};
use crate::sys::{LinkSpec, NewRoute};

impl Plan {
    /// The equivalent commands of iproute2, sysctl(8) and nft(8) for one operation. Empty if it only waits.
    #[must_use]
    pub fn commands(&self, operation: &Operation) -> Vec<String> {
        let name = |node: usize| self.nodes.get(node).map_or_else(String::new, |name| shell(name));
        let node = name(operation.node);
        match &operation.action {
            Action::Namespace => vec![format!("ip netns add {node}")],
            Action::Setting { path, value, .. } => {
                vec![setting(&node, path, value)]
            }
            Action::Wire { here, there, other } => {
                let other = name(*other);
                vec![format!(
                    "ip -n {node} link add {} type veth peer {} netns {other}",
                    link_words(here, ""),
                    link_words(there, "name ")
                )]
            }
            Action::Bridge(link) => {
                vec![format!("ip -n {node} link add {} type bridge", link_words(link, ""))]
            }
            Action::Vrf(link, table) => {
                vec![format!("ip -n {node} link add {} type vrf table {table}", link_words(link, ""))]
            }
            Action::Macvlan { link, parent, other } => {
                let there = other.map_or_else(String::new, |other| format!(" netns {}", name(other)));
                let words = link_words(link, "name ");
                let parent = word(parent);
                vec![format!("ip -n {node} link add link {parent} {words}{there} type macvlan mode bridge")]
            }
            Action::Port(port, bridge) => {
                vec![format!("ip -n {node} link set {} master {}", device(port), word(bridge))]
            }
            Action::Delete(interface) => vec![format!("ip -n {node} link del {}", device(interface))],
            Action::Address(interface, address) => {
                let net = address.net;
                let shown = match address.peer {
                    Some(peer) => format!("{} peer {peer}/{}", net.addr(), net.prefix_len()),
                    None => net.to_string(),
                };
                let mut command = format!("ip -n {node} address add {shown} dev {}", word(interface));
                if let Some(label) = address.label.as_ref().filter(|label| *label != interface) {
                    let _ = write!(command, " label {}", word(label));
                }
                if let Some(broadcast) = address.broadcast {
                    let _ = write!(command, " broadcast {broadcast}");
                }
                if address.optimistic {
                    command.push_str(" optimistic");
                } else if address.net.addr().is_ipv6() && !address.duplicate_detection {
                    command.push_str(" nodad");
                }
                if !address.prefix_route {
                    command.push_str(" noprefixroute");
                }
                if let Some(scope) = address.scope.filter(|_| net.addr().is_ipv4()) {
                    let _ = write!(command, " scope {scope}");
                }
                if address.deprecated {
                    command.push_str(" preferred_lft 0");
                }
                vec![command]
            }
            Action::RemoveAddress(interface, net) => {
                vec![format!("ip -n {node} address del {net} dev {}", word(interface))]
            }
            Action::Up(interface, up) => {
                vec![format!(
                    "ip -n {node} link set {} {}",
                    device(interface),
                    if *up { "up" } else { "down" }
                )]
            }
            Action::AltName(interface, altname) => vec![format!(
                "ip -n {node} link property add dev {} altname {}",
                word(interface),
                word(altname)
            )],
            Action::Rename(interface, to) => {
                vec![format!("ip -n {node} link set {} name {}", device(interface), word(to))]
            }
            Action::Route(route) => vec![format!("ip -n {node} {}", route_words(route))],
            Action::Rule(rule) => vec![format!("ip -n {node} {}", rule_words(rule, "add"))],
            Action::RemoveRule(rule) => vec![format!("ip -n {node} {}", rule_words(rule, "del"))],
            Action::Neighbour(interface, address, mac) => {
                let mac: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
                let mac = mac.join(":");
                vec![format!(
                    "ip -n {node} neighbour replace {address} lladdr {mac} dev {} nud permanent",
                    word(interface)
                )]
            }
            Action::Checked(interface, address) => vec![format!(
                "while ip -n {node} -o address show dev {} tentative -dadfailed to {address} | grep -q .; do sleep 0.1; done",
                word(interface)
            )],
            Action::Settle(interface) => {
                vec![format!("ip -n {node} link show dev {} > /dev/null", word(interface))]
            }
            Action::Ready => Vec::new(),
            Action::ForgetNeighbours => vec![format!("ip -n {node} neighbour flush all")],
            Action::Filter(rule) => {
                let add = |what: &str| format!("ip netns exec {node} nft {}", shell(&format!("add {what}")));
                vec![
                    add("table inet bindscope"),
                    add("chain inet bindscope input { type filter hook input priority 0; policy accept; }"),
                    add(&format!("rule inet bindscope input {rule}")),
                ]
            }
            Action::Ruleset(_) if self.of_this_machine => {
                vec![format!("nft -s list ruleset | ip netns exec {node} nft -f -")]
            }
            // The snapshot has the kernel's messages, which nft(8) does not read.
            Action::Ruleset(rules) => {
                let count = rules.nftables.iter().filter(|object| object.kind == NftKind::Rule).count();
                vec![format!(
                    "# no command loads the packet filters of the snapshot ({count} rules) into {node}; `bindscope lab run --twin` loads them"
                )]
            }
        }
    }
}

/// An interface name as a word of a shell.
fn word(name: &IfName) -> String {
    shell_bytes(name.as_bytes())
}

/// An interface for ip(8), or after a keyword if needed: an interface may be called `up`.
fn device(name: &IfName) -> String {
    let before = if is_misread(name) { "dev " } else { "" };
    format!("{before}{}", word(name))
}

/// Keywords of `ip link` (ip-link(8)), which also accepts abbreviations.
const WORDS: &[&str] = &[
    "addrgenmode",
    "address",
    "alias",
    "allmulticast",
    "arp",
    "broadcast",
    "carrier",
    "dev",
    "down",
    "dynamic",
    "group",
    "gso_max_size",
    "help",
    "index",
    "link",
    "link-netns",
    "link-netnsid",
    "master",
    "mtu",
    "multicast",
    "name",
    "netns",
    "nomaster",
    "numrxqueues",
    "numtxqueues",
    "parentdev",
    "peer",
    "promisc",
    "protodown",
    "qlen",
    "state",
    "trailers",
    "txqlen",
    "txqueuelen",
    "type",
    "up",
    "vf",
    "vrf",
    "xdp",
];

/// Whether ip(8) could take the name for an option or a keyword.
fn is_misread(name: &IfName) -> bool {
    let bytes = name.as_bytes();
    bytes.starts_with(b"-") || WORDS.iter().any(|word| word.as_bytes().starts_with(bytes))
}

/// Sets a value. sysctl(8) interprets patterns and dots in a name, so it receives only simple names.
fn setting(node: &str, path: &str, value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_/.-".contains(&byte);
    if path.bytes().all(plain) {
        let shown = if path.contains('.') { path.to_owned() } else { path.replace('/', ".") };
        return format!("ip netns exec {node} sysctl -qw {shown}={}", quoted(value));
    }
    let file = shell(&format!("/proc/sys/{path}"));
    format!("ip netns exec {node} sh -c 'printf %s \"$1\" > \"$2\"' - {} {file}", shell(value))
}

/// A value in quotes.
fn quoted(value: &str) -> String {
    let word = shell(value);
    if word.starts_with(['\'', '"']) { word } else { format!("'{word}'") }
}

fn link_words(link: &LinkSpec, before_name: &str) -> String {
    let name = word(&link.name);
    // Without a keyword before it, a name like `type` would be taken for a keyword.
    let before_name = if before_name.is_empty() && is_misread(&link.name) { "name " } else { before_name };
    let mut out = format!("{before_name}{name}");
    if let Some(mac) = mac_text(link) {
        let _ = write!(out, " address {mac}");
    }
    if let Some(mtu) = link.mtu {
        let _ = write!(out, " mtu {mtu}");
    }
    if let Some(index) = link.index {
        let _ = write!(out, " index {index}");
    }
    out
}

fn route_words(route: &NewRoute) -> String {
    let mut out = format!("route {} ", if route.copied { "append" } else { "add" });
    let kind = match route.kind {
        RouteKind::Unicast | RouteKind::Other => "",
        RouteKind::Local => "local ",
        RouteKind::Broadcast => "broadcast ",
        RouteKind::Anycast => "anycast ",
        RouteKind::Multicast => "multicast ",
        RouteKind::Blackhole => "blackhole ",
        RouteKind::Unreachable => "unreachable ",
        RouteKind::Prohibit => "prohibit ",
        RouteKind::Throw => "throw ",
    };
    let _ = write!(out, "{kind}{}", route.to);
    let first = (route.via, route.interface.clone(), route.weight);
    for (via, interface, weight) in std::iter::once(&first).chain(&route.more) {
        if !route.more.is_empty() {
            out.push_str(" nexthop");
        }
        if let Some(via) = via {
            let other = Family::of(*via) != Family::of(route.to.addr());
            let _ = write!(out, " via {}{via}", if other { "inet6 " } else { "" });
        }
        if let Some(interface) = interface {
            let _ = write!(out, " dev {}", word(interface));
        }
        if route.copied && via.is_some() && interface.is_some() {
            out.push_str(" onlink");
        }
        if *weight > 1 {
            let _ = write!(out, " weight {weight}");
        }
    }
    if let Some(source) = route.source {
        let _ = write!(out, " src {source}");
    }
    if let Some(metric) = route.metric {
        let _ = write!(out, " metric {metric}");
    }
    for (name, value) in &route.metrics {
        let _ = write!(out, " {} {value}", shell(name));
    }
    if route.table != 254 && route.table != 255 {
        let _ = write!(out, " table {}", route.table);
    }
    out
}

fn rule_words(rule: &Rule, what: &str) -> String {
    let family = if rule.family == Family::Ipv6 { "-6 " } else { "" };
    let mut out = format!("{family}rule {what}");
    if rule.inverted {
        out.push_str(" not");
    }
    let _ = write!(out, " priority {}", rule.priority);
    for (word, net) in [("from", rule.from), ("to", rule.to)] {
        if let Some(net) = net {
            let _ = write!(out, " {word} {net}");
        }
    }
    for (keyword, name) in [("iif", &rule.iif), ("oif", &rule.oif)] {
        if let Some(name) = name {
            let _ = write!(out, " {keyword} {}", word(name));
        }
    }
    if rule.fwmark.is_some() || rule.fwmask.is_some() {
        let _ = write!(out, " fwmark {:#x}", rule.fwmark.unwrap_or(0));
        if let Some(mask) = rule.fwmask {
            let _ = write!(out, "/{mask:#x}");
        }
    }
    for (word, value) in [("tos", rule.tos), ("dscp", rule.dscp), ("ipproto", rule.ip_protocol)] {
        if let Some(value) = value {
            let _ = write!(out, " {word} {value}");
        }
    }
    for (word, ports) in [("sport", rule.source_ports), ("dport", rule.destination_ports)] {
        if let Some((first, last)) = ports {
            let _ = write!(out, " {word} {first}-{last}");
        }
    }
    if let Some((first, last)) = rule.users {
        let _ = write!(out, " uidrange {first}-{last}");
    }
    match (rule.table, rule.goto) {
        (Some(table), _) => {
            let _ = write!(out, " table {table}");
        }
        (None, Some(priority)) => {
            let _ = write!(out, " goto {priority}");
        }
        (None, None) => {
            let _ = write!(out, " {}", shell(&rule.action.to_string()));
        }
    }
    if let Some(length) = rule.suppress_prefix {
        let _ = write!(out, " suppress_prefixlength {length}");
    }
    if let Some(group) = rule.suppress_group {
        let _ = write!(out, " suppress_ifgroup {group}");
    }
    out
}
