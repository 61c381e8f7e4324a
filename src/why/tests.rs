use super::*;
use crate::model::{Owner, Queue, SocketView};

fn socket(address: &str, port: u16, command: &str) -> ListeningSocket {
    let address: IpAddr = address.parse().unwrap();
    ListeningSocket {
        uid: Some(0),
        queue: Some(Queue { length: 0, limit: Some(128) }),
        device_known: true,
        owners: Some(vec![Owner::of(42, command)].into()),
        ..ListeningSocket::of(SocketView {
            v6only: address.is_ipv6().then_some(true),
            ..SocketView::of(Protocol::Tcp, address, port)
        })
    }
}

/// An address of this host: accepted by the socket with the index, or refused.
fn tried(address: &str, socket: Option<usize>) -> Tried {
    let outcome = if socket.is_some() { Outcome::Accepted } else { Outcome::Refused };
    Tried {
        address: address.parse().unwrap(),
        zone: None,
        place: Place::Here,
        owner: None,
        predicted: Some(outcome),
        because: Code::NO_LISTENER,
        rule: None,
        translated: None,
        socket,
        observed: Some(Observed { outcome, errno: None, connect_us: 100 }),
    }
}

fn facts(name: &str, addresses: Vec<Tried>, sockets: Vec<ListeningSocket>) -> Facts {
    Facts {
        target: format!("{name}:3000"),
        name: name.to_owned(),
        port: 3000,
        protocol: Protocol::Tcp,
        resolved_by: ResolvedBy::HostsFile,
        addresses,
        sockets,
        elsewhere: Vec::new(),
        ipv6: Ipv6::Available,
        ipv6_off: Vec::new(),
        host_name: Some("box".to_owned()),
        loopback_up: true,
        filters: Vec::new(),
        filters_unknown: None,
        lost_answers: Vec::new(),
        expected: None,
    }
}

fn first(facts: &Facts) -> Diagnosis {
    diagnose(facts).into_iter().next().expect("a cause")
}

fn observed(outcome: Outcome) -> Option<Observed> {
    Some(Observed { outcome, errno: None, connect_us: 1_000_000 })
}

#[test]
fn an_answer_everywhere_is_no_finding() {
    let both = facts(
        "localhost",
        vec![tried("127.0.0.1", Some(0)), tried("::1", Some(1))],
        vec![socket("127.0.0.1", 3000, "node"), socket("::1", 3000, "node")],
    );
    assert_eq!(diagnose(&both), []);
    assert_eq!(headline(&both, &[]), "localhost:3000 answers: node (42).");
}

#[test]
fn each_cause_is_found_from_its_facts() {
    let local4 = || tried("127.0.0.1", None);
    let node = |address: &str| vec![socket(address, 3000, "node")];
    let mut cases: Vec<(Code, Facts)> = vec![
        (Code::WHY_UNRESOLVED, facts("box", Vec::new(), Vec::new())),
        (Code::WHY_LOCALHOST, facts("localhost", vec![tried("192.0.2.1", None)], Vec::new())),
        (
            Code::WHY_ONE_FAMILY,
            facts("localhost", vec![tried("::1", None), tried("127.0.0.1", Some(0))], node("127.0.0.1")),
        ),
        (Code::WHY_ONE_FAMILY, facts("localhost", vec![tried("::1", Some(0)), local4()], node("::1"))),
        (Code::WHY_V6ONLY, facts("localhost", vec![tried("::1", Some(0)), local4()], node("::"))),
        (Code::WHY_LOOPBACK_ONLY, facts("192.0.2.1", vec![tried("192.0.2.1", None)], node("127.0.0.1"))),
        (Code::WHY_OTHER_ADDRESS, facts("127.0.0.1", vec![local4()], node("192.0.2.1"))),
        (Code::NO_LISTENER, facts("localhost", vec![local4()], Vec::new())),
    ];
    let mut other = facts("192.0.2.9", vec![tried("192.0.2.9", None)], Vec::new());
    other.addresses[0].place = Place::Elsewhere;
    cases.push((Code::WHY_OTHER_HOST, other));
    let mut standby = facts("192.0.2.9", vec![tried("192.0.2.9", None)], node("192.0.2.9"));
    standby.addresses[0].place = Place::Elsewhere;
    cases.push((Code::STALE_ADDRESS, standby));
    let mut device = facts("192.0.2.1", vec![tried("192.0.2.1", None)], node("0.0.0.0"));
    device.sockets[0].view.device = Some(IfName::from("eth0"));
    cases.push((Code::OTHER_DEVICE, device));
    let mut full = facts("127.0.0.1", vec![tried("127.0.0.1", Some(0))], node("127.0.0.1"));
    full.addresses[0].observed = observed(Outcome::Timeout);
    let mut dropped = full.clone();
    full.sockets[0].queue = Some(Queue { length: 129, limit: Some(128) });
    cases.push((Code::QUEUE_FULL, full));
    dropped.filters = vec!["nftables inet f".to_owned()];
    cases.push((Code::WHY_BLOCKED, dropped));
    let mut published = facts("127.0.0.1", vec![local4()], Vec::new());
    published.addresses[0].observed = observed(Outcome::Accepted);
    cases.push((Code::WHY_TRANSLATED, published));
    for (state, code) in
        [(SocketState::Bound, Code::WHY_NOT_LISTENING), (SocketState::TimeWait, Code::WHY_TIME_WAIT)]
    {
        let mut left = facts("127.0.0.1", vec![local4()], node("127.0.0.1"));
        left.sockets[0].state = state;
        cases.push((code, left));
    }
    let mut contained = facts("127.0.0.1", vec![local4()], Vec::new());
    contained.elsewhere = vec![Elsewhere {
        namespace: "the container docker:1".to_owned(),
        socket: socket("0.0.0.0", 3000, "node"),
    }];
    cases.push((Code::WHY_NAMESPACE, contained));
    let mut udp = facts("127.0.0.1", vec![local4()], node("127.0.0.1"));
    udp.sockets[0].view.protocol = Protocol::Udp;
    udp.sockets[0].state = SocketState::Unconnected;
    cases.push((Code::WHY_OTHER_PROTOCOL, udp));
    for ipv6 in
        [Ipv6::NoKernelSupport, Ipv6::DisabledEverywhere, Ipv6::DisabledOnLoopback, Ipv6::NoLoopbackAddress]
    {
        let mut without =
            facts("localhost", vec![tried("::1", None), tried("127.0.0.1", Some(0))], node("127.0.0.1"));
        without.ipv6 = ipv6;
        cases.push((Code::WHY_NO_IPV6, without));
    }
    let mut down = facts("127.0.0.1", vec![local4()], node("127.0.0.1"));
    down.loopback_up = false;
    cases.push((Code::LOOPBACK_DOWN, down));
    cases.push((
        Code::SHADOWED,
        facts(
            "localhost",
            vec![tried("127.0.0.1", Some(0)), tried("::1", Some(1))],
            vec![socket("127.0.0.1", 3000, "node"), socket("::1", 3000, "java")],
        ),
    ));
    let mut expected = facts("127.0.0.1", vec![tried("127.0.0.1", Some(0))], node("127.0.0.1"));
    expected.expected = Some("nginx".to_owned());
    cases.push((Code::WHY_UNEXPECTED, expected));
    for (code, facts) in &cases {
        let diagnosis = first(facts);
        assert_eq!(diagnosis.code, *code, "{diagnosis:?}");
        assert_eq!(diagnosis.severity, Severity::Error);
        assert!(diagnosis.message.ends_with('.') && !diagnosis.help.is_empty(), "{diagnosis:?}");
        assert!(crate::explain::find(diagnosis.page).is_ok(), "no page {}", diagnosis.page);
    }
}

#[test]
fn the_nearest_port_is_named() {
    let near = facts(
        "localhost",
        vec![tried("127.0.0.1", None)],
        vec![socket("127.0.0.1", 3001, "node"), socket("127.0.0.1", 3900, "java")],
    );
    assert!(first(&near).help.contains("is it port 3001? node (42)"), "{:?}", first(&near));
}

#[test]
fn a_connection_that_fails_is_never_without_a_diagnosis() {
    for outcome in [Outcome::Refused, Outcome::Timeout, Outcome::Unreachable, Outcome::Error] {
        for predicted in [None, Some(Outcome::Accepted), Some(Outcome::Refused), Some(Outcome::Timeout)] {
            for bound in ["127.0.0.1", "0.0.0.0", "::", "192.0.2.1"] {
                let mut facts =
                    facts("127.0.0.1", vec![tried("127.0.0.1", None)], vec![socket(bound, 3000, "node")]);
                facts.addresses[0].observed = observed(outcome);
                facts.addresses[0].predicted = predicted;
                facts.addresses[0].socket = (predicted == Some(Outcome::Accepted)).then_some(0);
                assert!(!diagnose(&facts).is_empty(), "{facts:?}");
            }
        }
    }
}
