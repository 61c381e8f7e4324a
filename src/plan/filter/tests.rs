//! The facts that carry a prediction, each with a test of its own name; the oracle in `tests/filters` asks the kernel.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::decode::{Base, Chain, Filters, Rule, Table};
use super::expression::{Budget, Comparison, Expression, NatRegisters, Reject, Verdict};
use super::facts::{Delivery, Facts, Incoming, address_type};
use super::flow::{Fate, Neighbour, Origin, Question, Reply, follow};
use super::hooks::Hooks;
use super::packet::{Device, Packet};
use super::sets::{Element, Elements, Mapped, Set};
use super::xt::{Match, Target};
use crate::model::ruleset::{NftFamily, Ruleset};
use crate::model::{Family, FilteredPacket as Role, Protocol};

/// A host with 192.0.2.1 and 2001:db8::1 on `eth0`, where port 80 is served.
struct Host;

fn device(name: &str) -> Device {
    let (index, hardware) = if name == "lo" { (1, 772) } else { (2, 1) };
    Device { index, name: name.to_owned(), hardware: Some(hardware) }
}

impl Facts for Host {
    fn address_type(&self, address: IpAddr, _: Option<&Device>) -> Option<u32> {
        let local = ["192.0.2.1", "2001:db8::1", "127.0.0.1"].iter().any(|one| address.to_string() == **one);
        Some(if local { address_type::LOCAL } else { address_type::UNICAST })
    }

    fn route(&self, _: IpAddr, _: Option<u32>, _: Option<&Device>) -> Option<Option<Device>> {
        Some(Some(device("eth0")))
    }

    fn incoming(&self, packet: &Packet) -> Incoming {
        match packet.destination.address.and_then(|address| self.address_type(address, None)) {
            Some(address_type::LOCAL) => Incoming::Local,
            Some(_) => Incoming::Forward(device("eth0")),
            None => Incoming::Unknown,
        }
    }

    fn outgoing(&self, _: &Packet) -> Option<Option<Device>> {
        Some(Some(device("lo")))
    }

    fn redirect(&self, _: &Device, _: Family) -> Vec<IpAddr> {
        vec!["192.0.2.1".parse().unwrap()]
    }

    fn masquerade(&self, _: &Device, _: &Packet) -> Option<IpAddr> {
        None
    }

    fn deliver(&self, _: Protocol, _: IpAddr, port: u16, _: &Packet) -> Delivery {
        if port == 80 { Delivery::Accepted(7) } else { Delivery::Refused }
    }

    fn reflects_mark(&self, _: Family) -> bool {
        false
    }

    fn routes_by_mark(&self, _: Family) -> bool {
        false
    }

    fn accepts_mark(&self) -> bool {
        false
    }
}

const INPUT: u32 = 1;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
const PREROUTING: u32 = 0;

/// A base chain: table, hook, priority, whether it drops, rules.
struct Given(usize, &'static str, u32, i32, bool, Vec<Vec<Expression>>);

fn chain(hook: u32, priority: i32, rules: Vec<Vec<Expression>>) -> Given {
    Given(0, "filter", hook, priority, false, rules)
}

fn filters(given: Vec<Given>) -> Filters {
    filters_with(given, Vec::new())
}

fn filters_with(given: Vec<Given>, sets: Vec<Set>) -> Filters {
    let sets: HashMap<String, Set> = sets.into_iter().map(|set| (set.name.clone(), set)).collect();
    let mut tables: Vec<Table> = Vec::new();
    let mut chains = Vec::new();
    for (number, Given(table, kind, hook, priority, drops, rules)) in given.into_iter().enumerate() {
        while tables.len() <= table {
            tables.push(Table {
                family: NftFamily::Inet,
                name: format!("t{}", tables.len()),
                dormant: false,
                chains: HashMap::new(),
                sets: sets.clone(),
                limits: HashMap::new(),
            });
        }
        let name = format!("c{number}");
        tables[table].chains.insert(name.clone(), chains.len());
        let base = Base { kind: kind.to_owned(), hook, priority, drops, devices: Vec::new() };
        let rules = rules.into_iter().map(|expressions| Rule { handle: None, expressions });
        chains.push(Chain { table, name, base: Some(base), rules: rules.collect() });
    }
    let hooks = Hooks::new(&tables, &chains, tables.len(), None);
    Filters {
        tables,
        chains,
        hooks,
        client_ports: vec![40_000],
        reads_marks: false,
        not_interpreted: Vec::new(),
    }
}

fn question(source: &str, destination: &str, port: u16) -> Question {
    let (source, destination): (IpAddr, IpAddr) = (source.parse().unwrap(), destination.parse().unwrap());
    let neighbour = match (source, destination) {
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            Some(Neighbour { source: Some(source), target: Some(target) })
        }
        _ => None,
    };
    Question {
        protocol: Protocol::Tcp,
        source: Some(source),
        source_port: None,
        destination,
        port,
        origin: Origin::Link { input: device("eth0"), output: Some(device("eth0")), neighbour },
    }
}

fn from_peer(filters: &Filters) -> Fate {
    follow(filters, &Host, &question("192.0.2.2", "192.0.2.1", 80)).fate
}

fn from_host(filters: &Filters) -> Fate {
    let question = Question { origin: Origin::Host(device("lo")), ..question("192.0.2.1", "192.0.2.1", 80) };
    follow(filters, &Host, &question).fate
}

fn accept() -> Expression {
    Expression::Verdict(Verdict::Accept)
}

fn discard() -> Expression {
    Expression::Verdict(Verdict::Drop)
}

/// `ct state` with one of these bits.
fn state(bits: u32) -> [Expression; 3] {
    let bits = bits.to_ne_bytes().to_vec();
    [
        Expression::Connection { key: 0, reply: None, to: 0 },
        Expression::Bitwise {
            from: 0,
            to: 0,
            length: 4,
            bits: super::expression::Bits::Mask(bits, vec![0; 4]),
        },
        Expression::Compare { from: 0, how: Comparison::NotEqual, with: vec![0; 4] },
    ]
}

/// `iifname NAME`.
fn input(name: &str) -> [Expression; 2] {
    [
        Expression::Meta { key: 6, to: 0 },
        Expression::Compare { from: 0, how: Comparison::Equal, with: padded(name) },
    ]
}

fn padded(name: &str) -> Vec<u8> {
    let mut name = name.as_bytes().to_vec();
    name.resize(16, 0);
    name
}

/// `tcp flags & (syn | ack) == FLAGS`.
fn flags(flags: u8) -> [Expression; 3] {
    [
        Expression::Payload { base: 2, offset: 13, length: 1, to: 0 },
        Expression::Bitwise {
            from: 0,
            to: 0,
            length: 1,
            bits: super::expression::Bits::Mask(vec![0x12], vec![0]),
        },
        Expression::Compare { from: 0, how: Comparison::Equal, with: vec![flags] },
    ]
}

/// `dnat to ADDRESS`, or to a port of it.
fn dnat(address: &str, port: Option<u16>) -> Vec<Expression> {
    let (bytes, family) = match address.parse::<IpAddr>().unwrap() {
        IpAddr::V4(v4) => (v4.octets().to_vec(), 2),
        IpAddr::V6(v6) => (v6.octets().to_vec(), 10),
    };
    let registers =
        NatRegisters { address: Some((0, 0)), port: port.map(|_| (32, 32)), ..NatRegisters::default() };
    let mut all = vec![Expression::Immediate { to: 0, data: bytes }];
    all.extend(port.map(|port| Expression::Immediate { to: 32, data: port.to_be_bytes().to_vec() }));
    all.push(Expression::Nat { source: false, family, registers });
    all
}

fn with<const N: usize>(matches: [Expression; N], end: Expression) -> Vec<Expression> {
    matches.into_iter().chain([end]).collect()
}

const SERVED: Fate = Fate::Delivered(Delivery::Accepted(7));

#[test]
fn without_rules_the_sockets_decide() {
    assert_eq!(from_peer(&filters(vec![])), SERVED);
    let empty = Ruleset { consistent: true, ..Ruleset::default() };
    assert!(Filters::decode(&empty).unwrap().is_empty());
    let torn = Ruleset { consistent: false, ..empty };
    assert!(Filters::decode(&torn).unwrap_err().to_string().contains("kept changing"));
}

#[test]
fn of_equal_priority_the_last_registered_runs_first() {
    let reject = vec![Expression::Reject(Reject::Reset)];
    let one = |rules: Vec<Expression>| chain(INPUT, 0, vec![rules]);
    assert_eq!(
        from_peer(&filters(vec![one(vec![discard()]), one(reject.clone())])),
        Fate::Rejected(Reply::Reset)
    );
    assert_eq!(from_peer(&filters(vec![one(reject), one(vec![discard()])])), Fate::Dropped);
}

#[test]
fn between_tables_the_order_of_equal_priorities_is_not_known() {
    let reject = vec![Expression::Reject(Reject::Reset)];
    let given = |first: Vec<Expression>, second: Vec<Expression>| {
        vec![
            Given(0, "filter", INPUT, 0, false, vec![first]),
            Given(1, "filter", INPUT, 0, false, vec![second]),
        ]
    };
    let prediction = follow(
        &filters(given(reject.clone(), vec![discard()])),
        &Host,
        &question("192.0.2.2", "192.0.2.1", 80),
    );
    assert_eq!(prediction.fate, Fate::Uncertain);
    assert!(prediction.depends_on[0].starts_with("the order of inet t"), "{prediction:?}");
    // Where both do the same, it makes no difference.
    assert_eq!(from_peer(&filters(given(reject.clone(), reject))), Fate::Rejected(Reply::Reset));
}

#[test]
fn chains_of_type_nat_run_at_the_priority_of_translation_until_one_translates() {
    let nat = |priority, rules| Given(0, "nat", PREROUTING, priority, false, vec![rules]);
    // By its own priority the chain would run after the filter, which sees the translated port nevertheless.
    let port_25 = vec![
        Expression::Payload { base: 2, offset: 2, length: 2, to: 0 },
        Expression::Compare { from: 0, how: Comparison::Equal, with: 25u16.to_be_bytes().to_vec() },
        discard(),
    ];
    let filter = || chain(PREROUTING, -90, vec![port_25.clone()]);
    assert_eq!(from_peer(&filters(vec![nat(50, dnat("192.0.2.1", Some(25))), filter()])), Fate::Dropped);
    let both = vec![nat(0, dnat("192.0.2.1", Some(25))), nat(-200, dnat("192.0.2.1", Some(26))), filter()];
    assert_eq!(from_peer(&filters(both)), Fate::Delivered(Delivery::Refused));
}

#[test]
fn a_translation_of_the_other_family_is_no_verdict() {
    let mut rule = dnat("2001:db8::9", None);
    rule.push(discard());
    let tracking = chain(INPUT, 0, vec![with(state(1), accept())]);
    let nat = Given(0, "nat", PREROUTING, -100, false, vec![rule]);
    assert_eq!(from_peer(&filters(vec![nat, tracking])), Fate::Dropped);
}

#[test]
fn without_connection_tracking_chains_of_type_nat_are_not_run() {
    let nat = |rule| Given(0, "nat", PREROUTING, -100, false, vec![rule]);
    assert_eq!(from_peer(&filters(vec![nat(vec![discard()])])), SERVED);
    let tracking = chain(OUTPUT, 0, vec![with(state(1), accept())]);
    assert_eq!(from_peer(&filters(vec![nat(vec![discard()]), tracking])), Fate::Dropped);
    // A translation of IPv4 does not make the kernel track IPv6.
    let both = filters(vec![nat(dnat("192.0.2.1", Some(80))), nat(vec![discard()])]);
    assert_eq!(follow(&both, &Host, &question("2001:db8::2", "2001:db8::1", 80)).fate, SERVED);
}

#[test]
fn a_translation_to_the_same_address_sets_no_status() {
    let status = |to: &str| {
        filters(vec![
            Given(0, "nat", PREROUTING, -100, false, vec![dnat(to, Some(80))]),
            chain(
                INPUT,
                0,
                vec![vec![
                    Expression::Connection { key: 2, reply: None, to: 0 },
                    Expression::Bitwise {
                        from: 0,
                        to: 0,
                        length: 4,
                        bits: super::expression::Bits::Mask(32u32.to_ne_bytes().to_vec(), vec![0; 4]),
                    },
                    Expression::Compare { from: 0, how: Comparison::NotEqual, with: vec![0; 4] },
                    discard(),
                ]],
            ),
        ])
    };
    assert_eq!(from_peer(&status("192.0.2.1")), SERVED);
    assert_eq!(from_peer(&status("127.0.0.1")), Fate::Dropped);
}

#[test]
fn before_tracking_the_state_is_invalid_and_other_keys_end_the_rule() {
    let raw = |rule: Vec<Expression>| filters(vec![chain(PREROUTING, -300, vec![rule])]);
    assert_eq!(from_peer(&raw(with(state(1), discard()))), Fate::Dropped);
    assert_eq!(
        from_peer(&raw(vec![Expression::Connection { key: 3, reply: None, to: 0 }, discard()])),
        SERVED
    );
    let later = filters(vec![chain(PREROUTING, -150, vec![with(state(8), discard())])]);
    assert_eq!(from_peer(&later), Fate::Dropped);
}

#[test]
fn neighbour_discovery_is_untracked_and_other_keys_end_the_rule() {
    let ask = question("2001:db8::2", "2001:db8::1", 80);
    let fate = |rule: Vec<Expression>| follow(&filters(vec![chain(INPUT, 0, vec![rule])]), &Host, &ask).fate;
    assert_eq!(fate(with(state(64), discard())), Fate::NoNeighbour);
    assert_eq!(fate(vec![Expression::Connection { key: 3, reply: None, to: 0 }, discard()]), Fate::Dropped);
    // A policy that forgets it cuts IPv6 off, open ports too.
    let policy = filters(vec![Given(0, "filter", INPUT, 0, true, vec![with(state(8 | 2), accept())])]);
    let prediction = follow(&policy, &Host, &ask);
    assert_eq!((prediction.fate, prediction.packet), (Fate::NoNeighbour, Role::Neighbour));
    assert_eq!(from_peer(&policy), SERVED);
}

#[test]
fn an_advertisement_has_its_output_interface_as_input_in_postrouting() {
    let rule = with(input("eth0"), discard());
    let filters = filters(vec![chain(POSTROUTING, 0, vec![rule])]);
    assert_eq!(follow(&filters, &Host, &question("2001:db8::2", "2001:db8::1", 80)).fate, Fate::NoNeighbour);
    assert_eq!(from_peer(&filters), SERVED);
}

fn ports_map(name: &str, mapped: Mapped) -> Set {
    let element = Element { mapped, limited: Vec::new() };
    Set {
        name: name.to_owned(),
        key_length: 2,
        key_type: 13,
        dynamic: false,
        anonymous: false,
        elements: Elements::Exact(BTreeMap::from([(25u16.to_be_bytes().to_vec(), element)])),
        catch_all: None,
        objects: false,
    }
}

#[test]
fn a_map_without_a_hit_ends_the_rule() {
    let rule = |offset| {
        vec![
            Expression::Payload { base: 2, offset, length: 2, to: 0 },
            Expression::Lookup { set: "m".into(), from: 0, to: Some(16), verdict: false, inverted: false },
            discard(),
        ]
    };
    let set = || vec![ports_map("m", Mapped::Value(vec![1, 0, 0, 0]))];
    assert_eq!(from_peer(&filters_with(vec![chain(INPUT, 0, vec![rule(2)])], set())), SERVED);
    let hit = follow(
        &filters_with(vec![chain(INPUT, 0, vec![rule(2)])], set()),
        &Host,
        &question("192.0.2.2", "192.0.2.1", 25),
    );
    assert_eq!(hit.fate, Fate::Dropped);
}

#[test]
fn answers_of_the_host_to_itself_cross_input_on_lo() {
    let rules = filters(vec![chain(INPUT, 0, vec![with(flags(0x12), discard())])]);
    assert_eq!(from_host(&rules), Fate::AnswerDropped(Delivery::Accepted(7)));
    assert_eq!(from_peer(&rules), SERVED);
}

#[test]
fn a_dropped_ack_leaves_the_client_half_open() {
    let rule = |end| filters(vec![chain(INPUT, 0, vec![with(flags(0x10), end)])]);
    assert_eq!(from_peer(&rule(discard())), Fate::HalfOpen(Delivery::Accepted(7)));
    assert_eq!(
        from_peer(&rule(Expression::Reject(Reject::Reset))),
        Fate::Broken(Delivery::Accepted(7), Reply::Reset)
    );
}

#[test]
fn a_dropped_answer_is_not_a_dropped_request() {
    let rules = filters(vec![chain(OUTPUT, 0, vec![with(flags(0x12), discard())])]);
    let prediction = follow(&rules, &Host, &question("192.0.2.2", "192.0.2.1", 80));
    assert_eq!(prediction.fate, Fate::AnswerDropped(Delivery::Accepted(7)));
    assert_eq!(prediction.packet, Role::Answer);
    assert_eq!(prediction.by.unwrap().to_string(), "inet t0 c0 rule 1: tcp flags & 0x12 == 0x12 drop");
}

#[test]
fn the_answer_of_a_rule_is_related_and_can_be_dropped() {
    let rules = |bits| {
        filters(vec![
            chain(INPUT, 0, vec![vec![Expression::Reject(Reject::Unreachable(3))]]),
            chain(OUTPUT, 0, vec![with(state(bits), discard())]),
        ])
    };
    assert_eq!(from_peer(&rules(4)), Fate::Dropped);
    assert_eq!(from_peer(&rules(2 | 8)), Fate::Rejected(Reply::Icmp { kind: 3, code: 3 }));
}

#[test]
fn what_only_the_running_kernel_knows_is_never_certain() {
    let opaque = |name: &str| Expression::Opaque { name: name.into(), to: Some(0) };
    let equal = || Expression::Compare { from: 0, how: Comparison::Equal, with: vec![0, 0, 0, 0] };
    let loads = [
        Expression::Meta { key: 10, to: 0 },                          // skuid
        Expression::Meta { key: 23, to: 0 },                          // cgroup
        Expression::Meta { key: 32, to: 0 },                          // hour
        Expression::Payload { base: 0, offset: 6, length: 4, to: 0 }, // MAC address
        opaque("numgen"),
        opaque("socket"),
        opaque("osf"),
    ];
    for load in loads {
        let rules = |end| filters(vec![chain(INPUT, 0, vec![vec![load.clone(), equal(), end]])]);
        let prediction = follow(&rules(discard()), &Host, &question("192.0.2.2", "192.0.2.1", 80));
        assert_eq!(prediction.fate, Fate::Uncertain, "{load:?}");
        assert!(prediction.depends_on[0].starts_with("inet t0 c0 rule 1"), "{prediction:?}");
        // Where both possibilities end alike, nothing depends on it.
        assert_eq!(from_peer(&rules(accept())), SERVED, "{load:?}");
    }
    let ends = [
        Expression::Verdict(Verdict::Queue),
        Expression::Unknown { name: "new".into() },
        Expression::Target(Target::Opaque { name: "TPROXY".into() }),
    ];
    for end in ends {
        let rules = filters(vec![chain(INPUT, 0, vec![vec![end.clone()]])]);
        assert_eq!(from_peer(&rules), Fate::Uncertain, "{end:?}");
    }
    let unknown = Expression::Match(Match::Opaque { name: "statistic".into() });
    assert_eq!(from_peer(&filters(vec![chain(INPUT, 0, vec![vec![unknown, discard()]])])), Fate::Uncertain);
}

#[test]
fn a_budget_is_an_assumption() {
    let limit = Expression::Limit { budget: Budget::Rate, inverted: false };
    let rules = filters(vec![Given(0, "filter", INPUT, 0, true, vec![vec![limit, accept()]])]);
    let prediction = follow(&rules, &Host, &question("192.0.2.2", "192.0.2.1", 80));
    assert_eq!(prediction.fate, SERVED);
    assert_eq!(prediction.assumes, ["the rate limit is not reached"]);
}

#[test]
fn a_published_port_is_forwarded_and_input_is_not_asked() {
    let rules = filters(vec![
        Given(0, "nat", PREROUTING, -100, false, vec![dnat("172.17.0.2", Some(5432))]),
        Given(0, "filter", INPUT, 0, true, vec![]),
    ]);
    let prediction = follow(&rules, &Host, &question("192.0.2.2", "192.0.2.1", 5432));
    let end = match prediction.fate {
        Fate::Forwarded { to, .. } => (to.address, to.port),
        _ => (None, None),
    };
    assert_eq!(end, ("172.17.0.2".parse().ok(), Some(5432)));
    let by = prediction.translated.unwrap().by;
    assert_eq!(by.to_string(), "inet t0 c0 rule 1: dnat to 172.17.0.2:5432");
}

#[test]
fn loops_of_jumps_and_deep_jumps_end() {
    let jump = |name: &str| vec![Expression::Verdict(Verdict::Jump(name.into()))];
    assert_eq!(from_peer(&filters(vec![chain(INPUT, 0, vec![jump("c0")])])), Fate::Uncertain);
    let goto = vec![Expression::Verdict(Verdict::Goto("c0".into()))];
    assert_eq!(from_peer(&filters(vec![chain(INPUT, 0, vec![goto])])), Fate::Uncertain);
}

#[test]
fn many_unknown_rules_end_in_bounded_time() {
    let rule = |mark: u32| {
        vec![
            Expression::Opaque { name: "numgen".into(), to: Some(0) },
            Expression::Immediate { to: 16, data: mark.to_ne_bytes().to_vec() },
            Expression::SetMeta { key: 3, from: 16 },
        ]
    };
    let rules = filters(vec![chain(INPUT, 0, (0..5_000).map(rule).collect())]);
    assert_eq!(from_peer(&rules), Fate::Uncertain);
}
