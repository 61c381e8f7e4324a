//! Tests of the module.

use std::collections::BTreeMap;

use super::*;
use crate::model::{Endpoint, FamilyExposure, Ingress};

fn accepted(owner: &str) -> Event {
    Event::Accepted(Accepted {
        time: Time::new(std::time::UNIX_EPOCH),
        arrival: Arrival {
            listener: "all\x1b4".into(),
            protocol: Protocol::Tcp,
            family: Family::Ipv4,
            v4_mapped: true,
            peer: Endpoint { address: [192, 0, 2, 9].into(), port: 40312, scope_id: None },
            local: Endpoint { address: [192, 0, 2, 2].into(), port: 8081, scope_id: None },
            ingress: Ingress { index: Some(4), name: Some("eth1".into()), evidence: Evidence::Kernel },
            address_owner: Some(owner.into()),
            peer_is_local: Some(false),
        },
        over_limit: false,
    })
}

#[test]
fn a_line_says_what_one_would_not_guess() {
    let mut live = Live::new(false, usize::MAX);
    assert_eq!(
        live.event(&accepted("eth0")),
        "00:00:00.000Z  all\\x1b4  eth1     192.0.2.9:40312        192.0.2.2:8081         address of eth0; IPv4 on an IPv6 socket\n"
    );
    assert!(!live.event(&accepted("eth1")).contains("address of"));
}

#[test]
fn who_can_reach_a_socket_is_said_of_groups_and_of_both_families() {
    let mut socket = SocketView::of(Protocol::Udp, [224, 0, 0, 1].into(), 1);
    assert!(reach_of(&socket, " now").1.starts_with("senders to this group"));
    socket.address = [192, 0, 2, 1].into();
    assert_eq!(reach_of(&socket, " now").1, "not reachable now");
    socket.exposure = FamilyExposure { ipv4: Exposure::Private, ipv6: Exposure::Private };
    assert_eq!(reach_of(&socket, " now").1, "private networks");
    socket.exposure.ipv6 = Exposure::Global;
    assert_eq!(reach_of(&socket, " now").1, "IPv4 private networks, IPv6 anywhere");
}

#[test]
fn every_line_fits_the_terminal_and_ranges_are_folded() {
    for columns in [60, 80, 120, 200] {
        let mut live = Live::new(false, columns);
        live.try_at(Some([192, 168, 1, 10].into()));
        let bound = |listener: &str, address: std::net::IpAddr, port| {
            Event::Bound(BoundSocket {
                socket: SocketView {
                    listener: Some(listener.into()),
                    exposure: FamilyExposure { ipv4: Exposure::Private, ipv6: Exposure::Global },
                    ..SocketView::of(Protocol::Tcp, address, port)
                },
                backlog: None,
                inherited: false,
                packet_info_errno: None,
            })
        };
        for port in 7000..=7020 {
            live.event(&bound("range", [0, 0, 0, 0].into(), port));
        }
        live.event(&bound("six", "2001:db8:1:2:3:4:5:6".parse().unwrap(), 80));
        let mut shown = live.listening();
        assert!(shown.contains("0.0.0.0:7000-7020  ") || shown.contains("0.0.0.0:7000-7020"), "{shown}");
        assert!(
            shown.contains("Ctrl-C ends") && shown.contains("curl http://127.0.0.1:7000/ here"),
            "{shown}"
        );
        let flat = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains("curl http://192.168.1.10:7000/ elsewhere"), "{shown}");
        let Event::Accepted(mut one) = accepted("eth0") else { panic!("an arrival") };
        for (peer, port) in [("192.0.2.9", 1), ("2001:db8:1:2:3:4:5:6", 65_535), ("127.0.0.1", 9)] {
            one.arrival.peer = Endpoint { address: peer.parse().unwrap(), port, scope_id: None };
            shown += &live.event(&Event::Accepted(one.clone()));
        }
        let wide = shown.lines().find(|line| width(line) > columns);
        assert_eq!(wide, None, "{columns}:\n{shown}");
    }
}

#[test]
fn the_matrix_adds_up() {
    let row = |listener: &str, counts: &[(&str, u64)]| ListenerSummary {
        listener: listener.into(),
        accepted: counts.iter().map(|(_, count)| count).sum(),
        datagrams: 0,
        over_limit: 0,
        by_ingress: counts.iter().map(|(name, count)| ((*name).into(), *count)).collect(),
    };
    let summary = Summary {
        accepted: 3,
        datagrams: 0,
        dropped: 0,
        by_listener: vec![row("all4", &[("eth0", 2), ("lo", 1)]), row("lo4", &[])],
        errors: BTreeMap::from([("accept EMFILE".to_owned(), 2)]),
    };
    let shown = Live::new(false, usize::MAX).event(&Event::Summary(summary));
    assert_eq!(
        shown,
        "\nLISTENER     eth0       lo    TOTAL\nall4            2        1        3\nlo4             -        -        0\n\n3 accepted\n2 x accept EMFILE\n"
    );
}
