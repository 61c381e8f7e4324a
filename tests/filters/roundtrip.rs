//! Rules are read, written as JSON, read back and replayed: the copy has the same rules in words of nft(8).

use bindscope::model::filters::PacketFilters;
use bindscope::model::ruleset::{NftKind, Ruleset};
use bindscope::sys::{self, Replayed};

use crate::corpus::{self, listing, nft};
use crate::support::netns::Netns;
use crate::support::program;
use crate::support::random::Random;
use crate::support::tool;

/// The rules of a namespace, as a snapshot carries them.
pub fn read(ns: &Netns) -> Ruleset {
    let filters = ns.run(sys::packet_filters_with_rules);
    let json = serde_json::to_string(&filters).unwrap();
    let filters: PacketFilters = serde_json::from_str(&json).unwrap();
    filters.ruleset.clone().unwrap_or_else(|| panic!("not read: {filters:?}"))
}

fn replay(rules: &Ruleset) -> (Netns, Replayed) {
    let copy = Netns::new();
    let replayed = copy.run(|| sys::replay_rules(rules));
    (copy, replayed)
}

/// Replays the rules of a namespace and compares both in words.
fn same(name: &str, original: &Netns) -> Replayed {
    let rules = read(original);
    assert!(rules.consistent && !rules.nftables.is_empty(), "{name}");
    let (copy, replayed) = replay(&rules);
    assert_eq!(replayed.missing, Vec::<String>::new(), "{name}");
    assert_eq!(unbound(&listing(original)), unbound(&listing(&copy)), "{name}");
    for ((family, table, chain), places) in &replayed.rules {
        let there = |place: &usize| &rules.nftables[*place];
        assert!(places.iter().all(|(_, place)| there(place).table == *table
            && there(place).family == *family
            && there(place).chain.as_deref() == Some(chain)));
    }
    let all = rules.nftables.iter().filter(|object| object.kind == NftKind::Rule).count();
    assert_eq!(replayed.rules.values().map(Vec::len).sum::<usize>(), all, "{name}: each rule has its handle");
    replayed
}

/// A chain that only a rule knows is a chain of its own in a copy: both are left out of the comparison in words.
fn unbound(listing: &str) -> String {
    let mut depth = 0;
    let mut out = String::new();
    for line in listing.lines() {
        let begins = line.trim_start().starts_with("chain __chain") || line.ends_with("jump {");
        if depth > 0 || begins {
            depth += line.matches('{').count();
            depth -= line.matches('}').count();
        } else if !line.contains("jump __chain") && !line.trim().is_empty() {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

pub fn of_real_programs() {
    if !tool("nft") {
        return;
    }
    for (name, rules) in corpus::NATIVE {
        let original = Netns::new();
        nft(&original, rules).unwrap_or_else(|said| panic!("{name}: {said}"));
        same(name, &original);
    }
    let original = Netns::new();
    if corpus::iptables_nft(&original) {
        same("iptables-nft", &original);
    }
    let original = Netns::new();
    let commands =
        ["allow 22/tcp", "reject 25/tcp", "allow from 10.0.0.0/8 to any port 80 proto tcp", "limit 2222/tcp"];
    if corpus::ufw(&original, &commands).is_some() {
        let replayed = same("ufw", &original);
        assert!(!replayed.limited.is_empty());
    }
}

pub fn of_the_examples_of_nftables() {
    let Ok(directory) = std::fs::read_dir("/usr/share/doc/nftables/examples") else {
        eprintln!("not tested: there are no examples of nftables here");
        return;
    };
    let mut loaded = 0;
    for file in directory.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some()) {
        let original = Netns::new();
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        // Some are for other kernels or other versions of nft.
        if text.is_empty() || nft(&original, &text).is_err() || listing(&original).is_empty() {
            continue;
        }
        loaded += 1;
        same(&file.display().to_string(), &original);
    }
    assert!(loaded >= 8, "only {loaded} examples were loaded");
}

pub fn of_many_rules() {
    if !tool("nft") {
        return;
    }
    let original = Netns::new();
    nft(&original, "table inet many { chain input { type filter hook input priority 0; }; }").unwrap();
    // In a user namespace nft itself cannot send more than fits one message.
    for part in 0..10 {
        let rules = (0..300).map(|number| {
            let port = part * 300 + number;
            let (high, low) = (port / 250, port % 250);
            format!(
                "add rule inet many input ip saddr {{ 10.{high}.{low}.1, 10.{high}.{low}.9 }} tcp dport {port} accept\n"
            )
        });
        nft(&original, &rules.collect::<String>()).unwrap();
    }
    same("many rules", &original);
}

pub fn reading_changes_nothing() {
    if !tool("nft") {
        return;
    }
    let ns = Netns::new();
    nft(&ns, corpus::NATIVE[0].1).unwrap();
    let (before, generation) = (listing(&ns), read(&ns).generation);
    let commands: [&[&str]; 4] = [
        &["interfaces", "--format", "json"],
        &["lab", "run", "--twin", "--bind", "127.0.0.1:8081", "--format", "json"],
        &["plan", "--bind", "127.0.0.1:8081"],
        &["audit", "--rehearse"],
    ];
    for command in commands {
        let output = ns.run(|| program::run(command));
        assert!(output.status.code().is_some(), "{command:?}");
        assert_eq!((listing(&ns), read(&ns).generation), (before.clone(), generation), "{command:?}");
    }
    let document = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_slice(&ns.run(|| program::run(arguments)).stdout).unwrap()
    };
    let rules = &document(&["interfaces", "--format", "json"])["packet_filters"]["ruleset"];
    assert_eq!(rules["generation"], generation);
    let without = &document(&["interfaces", "--format", "json", "--no-filters"])["packet_filters"];
    assert_eq!(
        (&without["ruleset"], &without["tables"][0]),
        (&serde_json::Value::Null, &"nftables inet filter".into())
    );
}

/// A snapshot with a rule of a newer kernel.
pub fn what_is_not_known_is_left_out_and_named() {
    if !tool("nft") {
        return;
    }
    let original = Netns::new();
    nft(
        &original,
        "table ip t { chain c { tcp dport 80 accept; tcp dport 81 drop; tcp dport 82 accept; }; }",
    )
    .unwrap();
    let mut rules = read(&original);
    let second = rules.nftables.iter().position(|object| object.kind == NftKind::Rule).unwrap() + 1;
    let bytes = &mut rules.nftables[second].attributes;
    let at = bytes.windows(4).position(|window| window == *b"cmp\0").unwrap();
    bytes[at..at + 3].copy_from_slice(b"\x1b[m");
    let (copy, replayed) = replay(&rules);
    assert_eq!(
        replayed.missing,
        ["rule 2 of chain ip t c is not copied: the expression \\x1b[m is not known"]
    );
    assert_eq!(listing(&copy), listing(&original).replace("\t\ttcp dport 81 drop\n", ""));
    let places: Vec<usize> = replayed.rules.values().flatten().map(|(_, place)| *place).collect();
    assert_eq!(places, [second - 1, second + 1]);
    // What the kernel refuses is named with its reason, and everything that needs it.
    let mut rules = read(&original);
    rules.nftables.retain(|object| object.kind != NftKind::Chain);
    let (copy, replayed) = replay(&rules);
    assert!(replayed.missing[0].contains("rule 1 of chain ip t c") && replayed.missing.len() == 1);
    assert!(replayed.missing[0].contains("No such file"), "{:?}", replayed.missing);
    assert!(!listing(&copy).contains("dport"));
}

/// Bytes changed, cut and repeated at random: no panic, and rules that can be read.
pub fn damaged_messages_are_left_out() {
    if !tool("nft") {
        return;
    }
    let original = Netns::new();
    nft(&original, corpus::NATIVE[0].1).unwrap();
    let rules = read(&original);
    let mut random = Random::seeded("damaged_messages_are_left_out");
    for _ in 0..150 {
        let mut damaged = rules.clone();
        let at = random.below(damaged.nftables.len());
        let bytes = &mut damaged.nftables[at].attributes;
        match random.below(3) {
            0 => bytes.truncate(random.below(bytes.len())),
            1 => {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
            _ => bytes.extend_from_within(..),
        }
        let (copy, _) = replay(&damaged);
        // The kernel's own list is readable: the copy is still a ruleset.
        let _ = read(&copy);
    }
}

pub fn a_rate_limit_is_taken_out() {
    if !tool("nft") {
        return;
    }
    let original = Netns::new();
    let rules = "table ip t { limit slow { rate 1/minute; }; chain c {
        tcp dport 80 limit rate 1/minute accept
        tcp dport 81 limit rate over 1/minute drop
        tcp dport 82 limit name \"slow\" accept
        tcp dport 83 accept; }; }";
    nft(&original, rules).unwrap();
    let (copy, replayed) = replay(&read(&original));
    assert_eq!(replayed.missing, Vec::<String>::new());
    assert_eq!(replayed.limited.len(), 3);
    let listed = listing(&copy);
    for (rule, there) in [
        ("tcp dport 80 accept", true),
        ("tcp dport 81", false),
        ("tcp dport 82 accept", true),
        ("tcp dport 83 accept", true),
    ] {
        assert_eq!(listed.contains(rule), there, "{rule}: {listed}");
    }
}

/// What a program says of a namespace, without comments and counters.
fn saved(ns: &Netns, program: &str, words: &[&str]) -> Vec<String> {
    let output = ns.output(std::process::Command::new(program).args(words));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(" [").next().unwrap().split(" initval").next().unwrap().to_owned())
        .collect();
    if program == "ipset" {
        lines.sort();
    }
    lines
}

pub fn of_legacy_tables_and_sets() {
    if !tool("iptables-legacy") || !tool("ipset") {
        return;
    }
    let original = Netns::new();
    for words in [
        "create gone hash:ip",
        "create nets hash:net",
        "create pairs hash:ip,port timeout 600",
        "create six hash:net family inet6",
        "create ports bitmap:port range 1-1024",
        "destroy gone",
        "add nets 10.0.0.0/8",
        "add nets 192.0.2.0/25",
        "add pairs 10.1.2.3,tcp:443",
        "add six 2001:db8::/32",
        "add ports 22",
    ] {
        corpus::run(&original, "ipset", words);
    }
    for rule in corpus::IPTABLES {
        corpus::run(&original, "iptables-legacy", rule);
    }
    corpus::run(&original, "iptables-legacy", "-I INPUT 1 -m set --match-set nets src -j DROP");
    corpus::run(
        &original,
        "ip6tables-legacy",
        "-A INPUT -p tcp --dport 80 -j REJECT --reject-with tcp-reset",
    );
    corpus::run(&original, "iptables-nft", "-A INPUT -m set --match-set pairs src,dst -j DROP");
    let filters = original.run(sys::packet_filters_with_rules);
    if filters.ruleset.is_none() {
        // The list of tables belongs to the real root, who is not in this user namespace.
        eprintln!("not tested: {:?}", filters.unknown_because);
        return;
    }
    let rules = read(&original);
    assert_eq!(rules.legacy.len(), 5, "filter, nat, mangle, raw; filter of IPv6");
    assert_eq!(rules.ipset.iter().map(|set| set.index).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let (copy, replayed) = replay(&rules);
    assert_eq!(replayed.missing, Vec::<String>::new());
    for (program, words) in [
        ("iptables-legacy-save", &[][..]),
        ("ip6tables-legacy-save", &[]),
        ("iptables-nft-save", &[]),
        ("ipset", &["save"]),
    ] {
        // The remaining time of an element is the whole time in a copy.
        let plain = |ns: &Netns| -> Vec<String> {
            let lines = saved(ns, program, words).into_iter();
            lines
                .map(|line| {
                    if line.starts_with("add pairs") {
                        line.split(" timeout").next().unwrap().to_owned()
                    } else {
                        line
                    }
                })
                .collect()
        };
        assert_eq!(plain(&original), plain(&copy), "{program}");
    }
    // A table with an extension that is not known is left out and named.
    let mut strange = rules.clone();
    let blob = &mut strange.legacy[0].blob;
    if let Some(at) = blob.windows(9).position(|window| window == *b"multiport") {
        blob[at] = b'M';
        let (_, replayed) = replay(&strange);
        assert!(replayed.missing[0].contains("the match Multiport is not known"), "{:?}", replayed.missing);
    }
    let mut random = Random::seeded("of_legacy_tables_and_sets");
    for _ in 0..100 {
        let mut damaged = rules.clone();
        damaged.nftables.clear();
        let number = random.below(damaged.legacy.len());
        let blob = &mut damaged.legacy[number].blob;
        let at = random.below(blob.len());
        if random.once_in(4) {
            blob.truncate(at);
        } else {
            blob[at] ^= 1 << random.below(8);
        }
        let (copy, _) = replay(&damaged);
        let _ = saved(&copy, "ipset", &["save"]);
    }
}

/// Replaces bytes by as many others, in every attribute of every object.
fn patched(rules: &Ruleset, from: &[u8], to: &[u8]) -> Ruleset {
    let mut rules = rules.clone();
    for object in &mut rules.nftables {
        let found: Vec<usize> =
            (0..object.attributes.len()).filter(|at| object.attributes[*at..].starts_with(from)).collect();
        for at in found {
            object.attributes[at..at + to.len()].copy_from_slice(to);
        }
    }
    rules
}

pub fn hostile_snapshots_are_refused_or_bounded() {
    if !tool("nft") {
        return;
    }
    let original = Netns::new();
    let text = "table ip t {
        set big { type ipv4_addr; size 65535; }
        chain last { tcp dport 80 accept; }
        chain more { tcp dport 81 jump last; }
        chain input { type filter hook input priority 0; jump more; tcp dport 82 drop; }
    }";
    nft(&original, text).unwrap();
    let rules = read(&original);
    let begun = std::time::Instant::now();
    // Jumps in a circle: the kernel refuses them.
    let (copy, replayed) = replay(&patched(&rules, b"last\0", b"more\0"));
    assert!(!replayed.missing.is_empty());
    let listed = listing(&copy);
    assert!(!listed.split("chain input").nth(1).unwrap().contains("jump"), "no packet gets there: {listed}");
    // A set for which the kernel would make a table of a billion entries at once.
    let (copy, replayed) = replay(&patched(&rules, &65535u32.to_be_bytes(), &(1u32 << 30).to_be_bytes()));
    assert!(replayed.missing.iter().any(|one| one.contains("announces more than")), "{:?}", replayed.missing);
    assert!(listing(&copy).contains("dport 82") && !listing(&copy).contains("set big"));
    // Control characters in names are names, and reach no terminal.
    let mut strange = patched(&rules, b"input\0", b"\x1b[2J\n\0");
    for object in &mut strange.nftables {
        for name in [&mut object.chain, &mut object.name].into_iter().flatten() {
            *name = name.replace("input", "\x1b[2J\n");
        }
    }
    strange.nftables.iter_mut().for_each(|object| {
        if object.kind == NftKind::Rule {
            object.attributes.truncate(object.attributes.len() - 1);
        }
    });
    let (_, replayed) = replay(&strange);
    assert!(!replayed.missing.is_empty());
    assert!(
        replayed.missing.iter().all(|one| !one.contains(|c: char| c.is_control())),
        "{:?}",
        replayed.missing
    );
    // The same object a thousand times, and one in a table that is not there.
    let mut many = rules.clone();
    let chain = many.nftables.iter().find(|object| object.kind == NftKind::Chain).unwrap().clone();
    many.nftables.extend(std::iter::repeat_n(chain, 1000));
    many.nftables.retain(|object| object.kind != NftKind::Table);
    let (copy, replayed) = replay(&many);
    assert!(listing(&copy).is_empty() && !replayed.missing.is_empty());
    assert!(replayed.missing.iter().all(|one| one.len() < 2000), "not every object is named");
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
    // A document whose bytes are not bytes.
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let written = original.run(|| program::run(&["interfaces", "--json", "--output", path]));
    assert!(written.status.success(), "{:?}", program::text(&written));
    let text = std::fs::read_to_string(path).unwrap();
    let (before, after) = text.split_once("\"attributes\":").unwrap();
    let broken = format!("{before}\"attributes\":\"*\",\"x\":{after}");
    std::fs::write(path, broken).unwrap();
    let output = program::run(&["lab", "run", "--twin", path, "--bind", "127.0.0.1:8081"]);
    assert_eq!(output.status.code(), Some(2), "{:?}", program::text(&output));
}

pub fn a_trace_leaves_nothing_behind() {
    if !tool("nft") {
        return;
    }
    let ns = Netns::new();
    nft(&ns, corpus::NATIVE[0].1).unwrap();
    let before = listing(&ns);
    let (first, second) = ns.run(|| (sys::Trace::here(&[53]).unwrap(), sys::Trace::here(&[]).unwrap()));
    assert!(listing(&ns).contains("bindscope-trace-1"), "two at once have two tables");
    // This thread is in another namespace.
    drop((first, second));
    assert_eq!(listing(&ns), before);
}
