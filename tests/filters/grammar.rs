//! Random rulesets, in the language of nft(8) and as iptables is called.

use std::fmt::{self, Write as _};
use std::process::Command;

use bindscope::model::ruleset::{HookEntry, NftFamily, NftKind, Ruleset};

use crate::support::netns::Netns;
use crate::support::random::Random;
use crate::support::tool;

pub enum Rules {
    Nft(String),
    Iptables(Vec<String>),
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rules::Nft(text) => f.write_str(text),
            Rules::Iptables(lines) => f.write_str(&lines.join("\n")),
        }
    }
}

pub fn rules(random: &mut Random) -> Rules {
    if random.once_in(3) && tool("iptables-nft") {
        Rules::Iptables(iptables(random))
    } else {
        Rules::Nft(nft(random))
    }
}

fn pick<'a>(random: &mut Random, items: &[&'a str]) -> &'a str {
    items[random.below(items.len())]
}

// ---------------------------------------------------------------------------------------------------- nft

fn nft(random: &mut Random) -> String {
    let mut text = String::new();
    for number in 0..1 + random.below(3) {
        let family = pick(random, &["ip", "ip6", "inet", "inet"]);
        let _ = writeln!(text, "table {family} t{number} {{");
        if family != "ip6" {
            text.push_str(
                " set nets { type ipv4_addr; flags interval; elements = { 192.0.2.128/25, 10.0.0.0/8 }; }\n",
            );
            text.push_str(
                " set pairs { type ipv4_addr . inet_service; flags interval; elements = { 192.0.2.0/25 . 80-90, 198.51.100.2 . 22 }; }\n",
            );
        }
        text.push_str(" set ports { type inet_service; elements = { 22, 80, 5432 }; }\n");
        text.push_str(" map verdicts { type inet_service : verdict; elements = { 22 : accept, 25 : drop, 53 : return }; }\n");
        let helpers = random.below(3);
        for helper in 0..helpers {
            let _ = writeln!(text, " chain h{helper} {{");
            for _ in 0..1 + random.below(4) {
                // Only to chains that come before it, so that there are no loops.
                let rule = rule(random, family, "any", helper);
                let _ = writeln!(text, "  {rule}");
            }
            text.push_str(" }\n");
        }
        for number in 0..1 + random.below(4) {
            let nat = random.once_in(3);
            let hook = pick(
                random,
                if nat {
                    &["prerouting", "prerouting", "output", "postrouting", "input"]
                } else {
                    &["input", "input", "input", "output", "prerouting", "postrouting", "forward"]
                },
            );
            let kind = if nat { "nat" } else { "filter" };
            let priority = if nat {
                let usual = if matches!(hook, "prerouting" | "output") { -100 } else { 100 };
                if random.once_in(4) { usual + 5 } else { usual }
            } else {
                *random.pick(&[-300, -150, -150, 0, 0, 0, 10, 50, -90, 110])
            };
            let policy = if !nat && random.once_in(4) { "drop" } else { "accept" };
            let _ = writeln!(
                text,
                " chain c{number} {{ type {kind} hook {hook} priority {priority}; policy {policy};"
            );
            if policy == "drop" {
                text.push_str("  icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n");
                if random.once_in(2) {
                    text.push_str("  ct state established,related accept\n");
                }
                if random.once_in(2) {
                    text.push_str("  iifname \"lo\" accept\n");
                }
            }
            for _ in 0..1 + random.below(6) {
                let rule = if nat && !random.once_in(3) {
                    translation(random, family, hook)
                } else {
                    rule(random, family, hook, helpers)
                };
                let _ = writeln!(text, "  {rule}");
            }
            text.push_str(" }\n");
        }
        text.push_str("}\n");
    }
    text
}

fn port(random: &mut Random) -> &'static str {
    pick(
        random,
        &["22", "80", "8080", "25", "5432", "20-30", "{ 22, 80 }", "{ 1-24, 5000-6000 }", "@ports", "!= 80"],
    )
}

fn one_match(random: &mut Random, family: &str) -> String {
    let v4 = family != "ip6" && (family == "ip" || random.once_in(2));
    let text = match random.below(26) {
        0..=4 => return format!("tcp dport {}", port(random)),
        5 => return format!("udp dport {}", pick(random, &["53", "54", "50-60", "!= 53"])),
        6 => return format!("meta l4proto {{ tcp, udp }} th dport {}", port(random)),
        7 | 8 if v4 => {
            return format!(
                "ip saddr {}",
                pick(
                    random,
                    &[
                        "192.0.2.0/24",
                        "192.0.2.2",
                        "192.0.2.128/25",
                        "198.51.100.0/24",
                        "@nets",
                        "!= 192.0.2.2"
                    ]
                )
            );
        }
        7 | 8 => {
            return format!(
                "ip6 saddr {}",
                pick(
                    random,
                    &[
                        "2001:db8::/64",
                        "2001:db8::2",
                        "!= 2001:db8::82",
                        "{ 2001:db8::80/121, 2001:db8:1::2 }"
                    ]
                )
            );
        }
        9 if v4 => {
            return format!(
                "ip daddr {}",
                pick(random, &["192.0.2.1", "198.51.100.0/24", "127.0.0.0/8", "!= 192.0.2.1"])
            );
        }
        9 => return format!("ip6 daddr {}", pick(random, &["2001:db8::1", "2001:db8:1::/64", "::1"])),
        10 | 11 => "ct state",
        12 => {
            return format!(
                "iifname {}",
                pick(
                    random,
                    &["\"eth0\"", "\"eth1\"", "\"lo\"", "\"eth*\"", "!= \"lo\"", "{ \"eth0\", \"lo\" }"]
                )
            );
        }
        13 => {
            return format!(
                "oifname {}",
                pick(random, &["\"eth0\"", "\"docker0\"", "\"lo\"", "!= \"docker0\""])
            );
        }
        14 => {
            return format!(
                "meta l4proto {}",
                pick(random, &["tcp", "udp", "{ tcp, udp }", "!= tcp", "icmp"])
            );
        }
        15 => return format!("meta mark {}", pick(random, &["0x1", "!= 0x1", "and 0x3 == 0x1", "1-5", "0"])),
        16 => return format!("ct mark {}", pick(random, &["0x2", "!= 0x2", "and 0x6 != 0"])),
        17 => return format!("ct status {}", pick(random, &["dnat", "snat", "seen-reply"])),
        18 => return format!("ct direction {}", pick(random, &["original", "reply"])),
        19 => return format!("fib daddr type {}", pick(random, &["local", "unicast", "!= local"])),
        20 => {
            return pick(
                random,
                &[
                    "tcp flags & (syn | ack) == syn",
                    "tcp flags & (fin | syn | rst | ack) == (syn | ack)",
                    "tcp flags ack",
                    "tcp flags & (fin|syn|rst|ack) == ack",
                    "tcp flags rst",
                ],
            )
            .to_owned();
        }
        21 if v4 => return "ip saddr . tcp dport @pairs".to_owned(),
        21 => return "ip6 nexthdr tcp".to_owned(),
        22 => return format!("meta l4proto tcp ct original proto-dst {}", pick(random, &["80", "5432"])),
        23 => return format!("meta nfproto {}", pick(random, &["ipv4", "ipv6"])),
        24 => return "icmpv6 type nd-neighbor-solicit".to_owned(),
        _ => return "limit rate 100000/second burst 10000 packets".to_owned(),
    };
    format!(
        "{text} {}",
        pick(
            random,
            &["new", "established", "related", "established,related", "invalid", "untracked", "!= new"]
        )
    )
}

fn rule(random: &mut Random, family: &str, hook: &str, helpers: usize) -> String {
    if random.once_in(12) {
        return pick(
            random,
            &[
                "tcp dport vmap @verdicts",
                "ct state vmap { established : accept, related : accept, invalid : drop }",
                "iifname vmap { \"lo\" : accept, \"eth1\" : drop }",
                "meta mark set tcp dport map { 22 : 1, 80 : 2, 5432 : 1 }",
            ],
        )
        .to_owned();
    }
    let mut words: Vec<String> = (0..random.below(3) + usize::from(!random.once_in(4)))
        .map(|_| one_match(random, family))
        .filter(|text| fits(text, family))
        .collect();
    // What contradicts itself is refused by nft.
    let transports = ["tcp ", "udp ", "th ", "icmpv6 ", "meta l4proto", "ip6 nexthdr", ". tcp"];
    let mut one = false;
    words.retain(|text| {
        let transport = transports.iter().any(|start| text.starts_with(start) || text.contains(". tcp"));
        !(transport && std::mem::replace(&mut one, true))
    });
    let networks = ["ip ", "ip6 ", "meta nfproto", "icmpv6"];
    let mut one = false;
    words.retain(|text| {
        let network = networks.iter().any(|start| text.starts_with(start));
        !(network && std::mem::replace(&mut one, true))
    });
    if random.once_in(4) {
        words.push("counter".to_owned());
    }
    let tcp = words.iter().any(|text| text.starts_with("tcp "));
    let verdict = match random.below(16) {
        0..=4 => "accept".to_owned(),
        5..=7 => "drop".to_owned(),
        8 | 9 if matches!(hook, "input" | "output" | "forward" | "prerouting") => reject(random, family, tcp),
        10 if helpers > 0 => {
            format!("{} h{}", pick(random, &["jump", "jump", "goto"]), random.below(helpers))
        }
        11 => "return".to_owned(),
        12 => format!("meta mark set {}", pick(random, &["0x1", "0x2", "mark or 0x4", "ct mark"])),
        13 => format!("ct mark set {}", pick(random, &["0x2", "mark"])),
        14 if hook == "prerouting" || hook == "output" => "notrack".to_owned(),
        _ => "accept".to_owned(),
    };
    words.push(verdict);
    words.join(" ")
}

fn reject(random: &mut Random, family: &str, tcp: bool) -> String {
    let with = match (random.below(3), family) {
        (0, _) if tcp => "tcp reset",
        (_, "ip") => pick(
            random,
            &["icmp type port-unreachable", "icmp type admin-prohibited", "icmp type net-unreachable"],
        ),
        (_, "ip6") => pick(
            random,
            &["icmpv6 type port-unreachable", "icmpv6 type admin-prohibited", "icmpv6 type addr-unreachable"],
        ),
        _ => pick(
            random,
            &[
                "icmpx type port-unreachable",
                "icmpx type admin-prohibited",
                "icmpx type no-route",
                "icmpx type host-unreachable",
            ],
        ),
    };
    format!("reject with {with}")
}

/// Whether a match belongs in a table of this family.
fn fits(text: &str, family: &str) -> bool {
    match family {
        "ip" => !text.starts_with("ip6") && !text.starts_with("icmpv6") && !text.starts_with("meta nfproto"),
        "ip6" => !text.starts_with("ip ") && !text.starts_with("meta nfproto"),
        _ => true,
    }
}

fn translation(random: &mut Random, family: &str, hook: &str) -> String {
    let port = pick(random, &["80", "5432", "8080", "25"]);
    let mut words = vec![format!("tcp dport {port}")];
    if random.once_in(3) {
        words.push(
            pick(
                random,
                &["iifname != \"docker0\"", "iifname \"eth0\"", "fib daddr type local", "oifname \"lo\""],
            )
            .to_owned(),
        );
    }
    let v4 = family == "ip" || family == "inet" && !random.once_in(3);
    let of = if family == "inet" { if v4 { "ip " } else { "ip6 " } } else { "" };
    let what = match (hook, random.below(4)) {
        ("prerouting" | "output", 0) => {
            format!("redirect to :{}", pick(random, &["80", "22", "25", "8080"]))
        }
        ("prerouting" | "output", _) if v4 => {
            format!(
                "dnat {of}to {}",
                pick(
                    random,
                    &["172.17.0.2:5432", "172.17.0.2", "198.51.100.1:80", "192.0.2.1", "172.17.0.2:81"]
                )
            )
        }
        ("prerouting" | "output", _) => {
            format!(
                "dnat {of}to {}",
                pick(random, &["[2001:db8:1::1]:80", "2001:db8::1", "[2001:db8::1]:25"])
            )
        }
        ("postrouting", _) => {
            if random.once_in(2) {
                words.push("oifname != \"lo\"".to_owned());
            }
            "masquerade".to_owned()
        }
        _ => "accept".to_owned(),
    };
    words.push(what);
    words.join(" ")
}

// ----------------------------------------------------------------------------------------------- iptables

fn iptables(random: &mut Random) -> Vec<String> {
    let mut lines = Vec::new();
    for program in ["iptables-nft", "ip6tables-nft"] {
        let v6 = program.starts_with("ip6");
        for chain in ["INPUT", "INPUT", "OUTPUT"] {
            if random.once_in(5) {
                if v6 {
                    for kind in ["neighbour-solicitation", "neighbour-advertisement"] {
                        lines.push(format!("{program} -I {chain} -p icmpv6 --icmpv6-type {kind} -j ACCEPT"));
                    }
                }
                lines.push(format!("{program} -P {chain} DROP"));
            }
        }
        lines.push(format!("{program} -N user"));
        for _ in 0..1 + random.below(3) {
            let rule = iptables_rule(random, v6, "user", "");
            lines.push(format!("{program} -A user {rule}"));
        }
        for _ in 0..2 + random.below(7) {
            let chain = pick(random, &["INPUT", "INPUT", "INPUT", "OUTPUT", "FORWARD"]);
            let rule = iptables_rule(random, v6, chain, "filter");
            lines.push(format!("{program} -A {chain} {rule}"));
        }
        for _ in 0..random.below(3) {
            let chain = pick(random, &["PREROUTING", "OUTPUT", "POSTROUTING", "PREROUTING"]);
            let rule = iptables_nat(random, v6, chain);
            lines.push(format!("{program} -t nat -A {chain} {rule}"));
        }
        for _ in 0..random.below(3) {
            let matching = iptables_match(random, v6);
            let target = pick(
                random,
                &[
                    "MARK --set-mark 1",
                    "MARK --or-mark 4",
                    "CONNMARK --save-mark",
                    "CONNMARK --restore-mark",
                    "DROP",
                ],
            );
            let chain = pick(random, &["PREROUTING", "INPUT", "OUTPUT"]);
            lines.push(format!("{program} -t mangle -A {chain} {matching} -j {target}"));
        }
        if random.once_in(3) {
            lines.push(format!("{program} -t raw -A PREROUTING -p tcp --dport 22 -j CT --notrack"));
        }
    }
    lines
}

fn iptables_match(random: &mut Random, v6: bool) -> String {
    match random.below(15) {
        0..=3 => format!("-p tcp --dport {}", pick(random, &["22", "80", "20:30", "5432", "25"])),
        4 => "-p tcp ! --dport 80".to_owned(),
        5 => "-p udp --dport 53".to_owned(),
        6 => format!("-p tcp -m multiport --dports {}", pick(random, &["22,80", "20:30,5432", "80"])),
        7 => format!(
            "-m conntrack --ctstate {}",
            pick(random, &["NEW", "RELATED,ESTABLISHED", "INVALID", "DNAT", "UNTRACKED"])
        ),
        8 => format!("-i {}", pick(random, &["eth0", "lo", "eth+"])),
        9 if v6 => format!("-s {}", pick(random, &["2001:db8::/64", "2001:db8::82", "2001:db8:1::/48"])),
        9 => format!("-s {}", pick(random, &["192.0.2.0/24", "192.0.2.128/25", "198.51.100.2"])),
        10 if !v6 => "-m iprange --src-range 192.0.2.100-192.0.2.200".to_owned(),
        10 => "-m iprange --src-range 2001:db8::2-2001:db8::7".to_owned(),
        11 => "-m addrtype --dst-type LOCAL".to_owned(),
        12 => "-m mark --mark 1/1".to_owned(),
        13 => format!("-p tcp {}", pick(random, &["--syn", "! --syn", "--tcp-flags SYN,ACK SYN,ACK"])),
        _ => "-m limit --limit 10000/second --limit-burst 10000".to_owned(),
    }
}

fn iptables_rule(random: &mut Random, v6: bool, chain: &str, table: &str) -> String {
    let mut matching = iptables_match(random, v6);
    if matching.starts_with("-i") && chain == "OUTPUT" {
        matching = "-o lo".to_owned();
    }
    let target = match random.below(9) {
        0..=2 => "ACCEPT".to_owned(),
        3 | 4 => "DROP".to_owned(),
        5 if v6 => format!(
            "REJECT --reject-with {}",
            pick(random, &["icmp6-port-unreachable", "icmp6-adm-prohibited"])
        ),
        5 => format!(
            "REJECT --reject-with {}",
            pick(random, &["icmp-port-unreachable", "icmp-admin-prohibited", "icmp-host-prohibited"])
        ),
        6 if matching.starts_with("-p tcp") => "REJECT --reject-with tcp-reset".to_owned(),
        7 if table == "filter" => "user".to_owned(),
        8 => "RETURN".to_owned(),
        _ => "ACCEPT".to_owned(),
    };
    format!("{matching} -m comment --comment x -j {target}")
}

fn iptables_nat(random: &mut Random, v6: bool, chain: &str) -> String {
    let port = pick(random, &["80", "5432", "8080"]);
    match chain {
        "POSTROUTING" => {
            format!("-p tcp --dport {port} {} -j MASQUERADE", if random.once_in(2) { "! -o lo" } else { "" })
        }
        _ if random.once_in(3) => format!("-p tcp --dport {port} -j REDIRECT --to-ports 22"),
        _ if v6 => format!("-p tcp --dport {port} -j DNAT --to-destination [2001:db8:1::1]:80"),
        _ => format!(
            "-p tcp --dport {port} -m addrtype --dst-type LOCAL -j DNAT --to-destination {}",
            pick(random, &["172.17.0.2:5432", "192.0.2.1:22", "172.17.0.2"])
        ),
    }
}

pub fn load_iptables(ns: &Netns, lines: &[String]) -> bool {
    lines.iter().all(|line| {
        let mut words = line.split_whitespace();
        let output = ns.output(Command::new(words.next().unwrap()).args(words));
        if !output.status.success() {
            eprintln!("{line}: {}", String::from_utf8_lossy(&output.stderr));
        }
        output.status.success()
    })
}

/// Random rules for legacy iptables.
pub fn legacy(random: &mut Random) -> Vec<String> {
    let lines = iptables(random);
    lines.into_iter().map(|line| line.replacen("tables-nft", "tables-legacy", 1)).collect()
}

/// The order in which the kernel runs base chains of one priority: the one registered last runs first. The tables were made in the
/// order of the dump.
pub fn order(ruleset: &Ruleset) -> Vec<HookEntry> {
    let mut all = Vec::new();
    for object in ruleset.nftables.iter().rev().filter(|object| object.kind == NftKind::Chain) {
        let families = match object.family {
            NftFamily::Inet => vec![NftFamily::Ip, NftFamily::Ip6],
            other => vec![other],
        };
        for family in families {
            for hook in 0..5 {
                all.push(HookEntry {
                    family,
                    hook,
                    priority: 0,
                    table: object.table.clone(),
                    chain: object.name.clone().unwrap_or_default(),
                });
            }
        }
    }
    all
}
