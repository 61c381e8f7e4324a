//! Rulesets, made in a namespace by the programs that make them on real hosts.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::netns::Netns;
use crate::support::tool;

/// Rules in the language of nft(8), as programs and manuals have them.
pub const NATIVE: &[(&str, &str)] = &[
    (
        "a small server",
        r#"table inet filter {
            set trusted { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.0.2.128/25 }; }
            set seen { type ipv4_addr; flags dynamic, timeout; timeout 1m; }
            map ports { type inet_service : verdict; elements = { 22 : accept, 25 : jump mail }; }
            counter web { }
            chain mail { reject with icmpx type admin-prohibited; }
            chain input {
                type filter hook input priority filter; policy drop;
                ct state vmap { established : accept, related : accept, invalid : drop }
                iifname "lo" accept
                meta l4proto { icmp, ipv6-icmp } accept
                tcp dport vmap @ports
                ip saddr @trusted tcp dport { 80, 443, 8000-8100 } counter name "web" accept
                tcp dport 9000 add @seen { ip saddr } accept
                tcp dport 81 jump { ip saddr 10.1.2.3 accept; drop; }
                udp dport 53 reject
                tcp dport 26 reject with tcp reset
            }
            chain output { type filter hook output priority 0; policy accept; meta skuid 12 drop; }
        }"#,
    ),
    (
        "nat",
        r#"table ip nat {
            chain prerouting {
                type nat hook prerouting priority dstnat;
                tcp dport 8080 redirect to :80
                tcp dport 5432 dnat to 172.17.0.2:5432
                dnat to tcp dport map { 1000 : 10.0.0.1, 1001 : 10.0.0.2 }
            }
            chain postrouting { type nat hook postrouting priority srcnat; oifname != "lo" masquerade; }
        }
        table ip6 nat {
            chain prerouting { type nat hook prerouting priority -100; tcp dport 80 dnat to [2001:db8::7]:8080; }
        }"#,
    ),
    (
        "concatenations and marks",
        r#"table inet mangle {
            set pairs { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0-10.0.0.9 . 80-90, 10.1.0.1 . 443 }; }
            chain prerouting {
                type filter hook prerouting priority mangle;
                ip saddr . tcp dport @pairs meta mark set 0x10
                ip6 saddr fd00::/8 meta mark set mark and 0xff
                fib saddr . iif oif missing drop
                tcp flags & (syn | ack) == syn tcp option maxseg size set 1200
                ct mark set meta mark
                numgen inc mod 3 vmap { 0 : accept, 1 : accept, 2 : accept }
            }
            chain raw { type filter hook prerouting priority raw; udp dport 53 notrack; log prefix "dns " group 2; }
        }
        table arp filter { chain input { type filter hook input priority 0; arp operation request accept; }; }"#,
    ),
    (
        "two chains of one priority and a dormant table",
        r#"table ip first { chain a { type filter hook input priority 0; tcp dport 80 drop; }; }
        table ip second { chain b { type filter hook input priority 0; tcp dport 80 reject; }; }
        table ip sleeping { flags dormant; chain c { type filter hook input priority 0; policy drop; }; }"#,
    ),
    (
        "a mark that lets the repeated packet pass",
        r#"table ip marks {
            chain pre { type filter hook prerouting priority 110; policy drop;
                ct mark and 0x6 != 0 accept
                tcp dport { 22, 8080 } ct mark set 0x2
            }
        }
        table ip6 marks {
            chain pre { type filter hook prerouting priority -150; policy accept;
                ct mark and 0x6 != 0 accept
                ct state established ct mark set 0x2
                ct state established drop
            }
        }"#,
    ),
    (
        "an ACK after an answer that was not tracked",
        r#"table ip6 untracked {
            chain early { type filter hook input priority -300; policy accept;
                ct state established reject with icmpv6 type port-unreachable
            }
            chain late { type filter hook input priority -150; policy accept; ct state invalid drop; }
            chain out { type filter hook output priority -300; policy accept; iifname != "lo" notrack; }
        }"#,
    ),
];

/// Rules as `iptables` is called by Docker and by people.
pub const IPTABLES: &[&str] = &[
    "-P INPUT DROP",
    "-P FORWARD DROP",
    "-A INPUT -i lo -j ACCEPT",
    "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A INPUT -p tcp -m multiport --dports 22,80,443 -m comment --comment services -j ACCEPT",
    "-A INPUT -p tcp --dport 25 -j REJECT --reject-with tcp-reset",
    "-A INPUT -p icmp --icmp-type echo-request -j ACCEPT",
    "-A INPUT -p udp -m udp --dport 5353 -m addrtype --dst-type MULTICAST -j ACCEPT",
    "-A INPUT -s 10.0.0.0/8 -p tcp -m tcp ! --dport 1:1023 -j ACCEPT",
    "-A INPUT -m iprange --src-range 10.9.0.1-10.9.0.9 -j REJECT",
    "-A INPUT ! -p tcp -j LOG --log-prefix other",
    "-N DOCKER",
    "-A FORWARD -o docker0 -j DOCKER",
    "-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 5432 -j ACCEPT",
    "-t nat -N DOCKER",
    "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
    "-t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER",
    "-t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
    "-t nat -A DOCKER -i docker0 -j RETURN",
    "-t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 5432 -j DNAT --to-destination 172.17.0.2:5432",
    "-t mangle -A PREROUTING -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x1/0xff",
    "-t mangle -A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
    "-t raw -A PREROUTING -p udp --dport 53 -j CT --notrack",
];

/// Loads rules by nft(8), as it reads a file. Returns what it said against them.
pub fn nft(ns: &Netns, rules: &str) -> Result<(), String> {
    ns.run(|| {
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    })
}

/// Runs a command line, which must succeed.
pub fn run(ns: &Netns, program: &str, words: &str) {
    let output = ns.output(Command::new(program).args(words.split_whitespace()));
    assert!(output.status.success(), "{program} {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// ufw(8) with a configuration of its own in the directory that is returned, switched on; `None` where there is no ufw.
pub fn ufw(ns: &Netns, commands: &[&str]) -> Option<tempfile::TempDir> {
    if !tool("ufw") || !Path::new("/usr/share/ufw/iptables/before.rules").exists() {
        return None;
    }
    let root = tempfile::tempdir().unwrap();
    let there = |path: &str| root.path().join(path);
    for directory in ["etc/default", "lib", "usr/share"] {
        std::fs::create_dir_all(there(directory)).unwrap();
    }
    // Not every file of /etc/ufw may be read; the rules are those that ufw begins with.
    for (from, to) in [
        ("/etc/ufw", "etc"),
        ("/etc/default/ufw", "etc/default"),
        ("/usr/share/ufw", "usr/share"),
        ("/lib/ufw", "lib"),
        ("/usr/share/ufw/iptables/.", "etc/ufw"),
    ] {
        let _ = Command::new("cp").arg("-rf").arg(from).arg(there(to)).output().unwrap();
    }
    // Both, or ufw writes to the rules of this machine.
    let options = ["rootdir", "datadir"].map(|option| format!("--{option}={}", root.path().display()));
    for command in ["--force enable"].iter().chain(commands) {
        let output = ns.output(Command::new("ufw").args(&options).args(command.split_whitespace()));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.contains("You need to be root") {
            return None;
        }
        assert!(output.status.success(), "ufw {command}: {said}");
    }
    Some(root)
}

/// `iptables` of nftables with the rules of [`IPTABLES`].
pub fn iptables_nft(ns: &Netns) -> bool {
    if !tool("iptables-nft") {
        return false;
    }
    IPTABLES.iter().for_each(|rule| run(ns, "iptables-nft", rule));
    for rule in [
        "-A INPUT -p icmpv6 --icmpv6-type neighbour-solicitation -j ACCEPT",
        "-A INPUT -p tcp --dport 80 -j REJECT --reject-with icmp6-adm-prohibited",
        "-A INPUT -m hl --hl-eq 255 -j ACCEPT",
        "-P INPUT DROP",
    ] {
        run(ns, "ip6tables-nft", rule);
    }
    true
}

/// The rules of a namespace in words of nft(8), without what changes by itself.
pub fn listing(ns: &Netns) -> String {
    let output = ns.output(Command::new("nft").args(["-s", "list", "ruleset"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| sorted(&without_limit(line)) + "\n")
        .collect()
}

/// A line without its rate limit, which a copy does not have.
fn without_limit(line: &str) -> String {
    let Some((before, after)) = line.split_once("limit rate ") else { return line.to_owned() };
    let mut words: Vec<&str> = after.split(' ').collect();
    let burst = words.get(1) == Some(&"burst");
    words.drain(..if burst { 4 } else { 1 });
    format!("{before}{}", words.join(" "))
}

/// Elements of a hashed set have no order.
fn sorted(line: &str) -> String {
    let Some((before, list)) = line.split_once("elements = { ") else { return line.to_owned() };
    let mut list: Vec<&str> = list.trim_end_matches(" }").split(", ").collect();
    list.sort_unstable();
    format!("{before}elements = {{ {} }}", list.join(", "))
}
