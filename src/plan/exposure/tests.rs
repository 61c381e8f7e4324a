use super::*;
use crate::model::Protocol;

pub(super) fn interface(index: u32, name: &str, addresses: &[&str]) -> Interface {
    let addresses = addresses.iter().map(|text| {
        let (net, states) = text.split_once(' ').unwrap_or((text, ""));
        let net: IpNet = net.parse().unwrap();
        let address = net.addr();
        InterfaceAddress {
            scope_id: needs_zone(address).then_some(index),
            state: states.split_whitespace().map(|s| serde_json::from_value(s.into()).unwrap()).collect(),
            ..InterfaceAddress::new(address, net.prefix_len())
        }
    });
    Interface {
        up: true,
        running: true,
        loopback: name == "lo",
        multicast: true,
        addresses: addresses.collect(),
        ..Interface::new(index, IfName::from(name))
    }
}

pub(super) fn host(interfaces: Vec<Interface>) -> Snapshot {
    Snapshot { interfaces, ipv6_available: true, complete: true, ..Snapshot::default() }
}

pub(super) fn usual() -> Snapshot {
    host(vec![
        interface(1, "lo", &["127.0.0.1/8", "::1/128"]),
        interface(2, "eth0", &["192.168.1.5/24", "fe80::1/64"]),
        interface(3, "eth1", &["192.0.2.7/24", "fd00::7/64", "fe80::2/64"]),
    ])
}

/// `ADDRESS[%DEVICE][ v6only|dual|?]` to `ipv4/ipv6`.
fn exposure(snapshot: &Snapshot, form: &str) -> String {
    let (address, rest) = form.split_once(' ').unwrap_or((form, "v6only"));
    let (address, device) =
        address.split_once('%').map_or((address, None), |(a, d)| (a, Some(IfName::from(d))));
    let facts = Facts {
        address: address.parse().unwrap(),
        scope_id: None,
        device: device.as_ref(),
        v6only: match rest {
            "dual" => Some(false),
            "?" => None,
            _ => Some(true),
        },
        protocol: Protocol::Tcp,
    };
    let (found, reasons) = explain(&facts, snapshot);
    assert!(found == FamilyExposure::default() || !reasons.is_empty(), "{form} has no reason");
    format!("{}/{}", found.ipv4, found.ipv6)
}

#[test]
fn each_form_of_bind() {
    let host = usual();
    for (form, expected) in [
        ("0.0.0.0", "global/none"),
        ("127.0.0.1", "loopback/none"),
        ("127.0.0.2", "loopback/none"),
        ("192.168.1.5", "private/none"),
        ("192.168.1.6", "none/none"),
        ("224.0.0.1", "none/none"),
        ("192.0.2.255", "none/none"),
        (":: v6only", "none/private"),
        (":: dual", "global/private"),
        (":: ?", "global/private"),
        ("::1", "none/loopback"),
        ("fe80::1%eth0", "none/link"),
        ("fe80::1%eth1", "none/none"),
        ("::ffff:0.0.0.0 dual", "global/none"),
        ("::ffff:127.0.0.1 dual", "loopback/none"),
        ("::ffff:127.0.0.1 v6only", "none/none"),
        ("0.0.0.0%lo", "loopback/none"),
        ("::%lo dual", "loopback/loopback"),
        // Weak host model: over eth0 all addresses are reachable, except link-local addresses of other interfaces.
        ("0.0.0.0%eth0", "global/none"),
        ("::%eth0 dual", "global/private"),
        ("192.0.2.7%eth0", "global/none"),
        ("192.0.2.7%lo", "none/none"),
        ("0.0.0.0%gone", "none/none"),
    ] {
        assert_eq!(exposure(&host, form), expected, "{form}");
    }
}

#[test]
fn link_local_counts_through_its_own_device_only() {
    let host = host(vec![
        interface(1, "lo", &["127.0.0.1/8", "::1/128"]),
        interface(2, "eth0", &[]),
        interface(3, "eth1", &["fe80::2/64"]),
    ]);
    assert_eq!(exposure(&host, "::%eth0"), "none/none");
    assert_eq!(exposure(&host, "::%eth1"), "none/link");
    assert_eq!(exposure(&host, "::"), "none/link");
}

#[test]
fn state_decides() {
    let mut down = host(vec![
        interface(1, "lo", &["127.0.0.1/8", "::1/128"]),
        interface(2, "eth0", &["192.0.2.7/24", "2001:db8::7/64"]),
    ]);
    down.interfaces[1].up = false;
    for form in [":: dual", "::1", "2001:db8::7", "192.0.2.7", "0.0.0.0", "0.0.0.0%eth0", "192.0.2.7%eth0"] {
        let alone = if form.contains(":: ") {
            "loopback/loopback"
        } else if form == "::1" {
            "none/loopback"
        } else if form == "2001:db8::7" {
            "none/none"
        } else {
            "loopback/none"
        };
        assert_eq!(exposure(&down, form), alone, "{form}: no client can connect over a link that is down");
    }
    down.interfaces.push(interface(3, "eth1", &[]));
    assert_eq!(exposure(&down, ":: dual"), "global/loopback", "IPv4 stays on an interface that is down");
    assert_eq!(exposure(&down, "2001:db8::7"), "none/none");
    assert_eq!(exposure(&down, "192.0.2.7"), "global/none");
    assert_eq!(exposure(&down, "0.0.0.0%eth0"), "loopback/none");
    for (states, expected) in [
        ("tentative", "none/none"),
        ("dadfailed", "none/none"),
        ("tentative optimistic", "none/global"),
        ("deprecated", "none/global"),
    ] {
        let host = host(vec![interface(2, "eth0", &[&format!("2001:db8::7/64 {states}")])]);
        assert_eq!(exposure(&host, "::"), expected, "{states}");
        assert_eq!(exposure(&host, "2001:db8::7"), expected, "{states}");
    }
    let mut disabled = usual();
    disabled.interfaces[2].settings.insert("ipv6.disable_ipv6".into(), 1);
    assert_eq!(exposure(&disabled, "::"), "none/link");
    let mut absent = usual();
    absent.ipv6_available = false;
    assert_eq!(exposure(&absent, ":: dual"), "none/none");
}

#[test]
fn local_routes_count() {
    let lo = interface(1, "lo", &["127.0.0.1/8", "::1/128"]);
    let mut host = host(vec![lo, interface(2, "eth0", &[])]);
    assert_eq!(exposure(&host, "0.0.0.0"), "loopback/none");
    host.routes.push(crate::model::Route {
        interface: Some(1),
        ..crate::model::Route::new(255, RouteKind::Local, "198.51.100.0/24".parse().unwrap())
    });
    assert_eq!(exposure(&host, "0.0.0.0"), "global/none");
    assert_eq!(exposure(&host, "198.51.100.77"), "global/none");
    for (network, expected) in [
        ("0.0.0.0/0", Exposure::Global),
        ("10.0.0.0/7", Exposure::Global),
        ("10.1.0.0/16", Exposure::Private),
        ("127.0.0.0/8", Exposure::Loopback),
        ("::/0", Exposure::Global),
    ] {
        assert_eq!(network_exposure(network.parse().unwrap()), expected, "{network}");
    }
}

#[test]
fn route_localnet_opens_loopback_to_the_link() {
    let mut host = host(vec![interface(1, "lo", &["127.0.0.1/8", "::1/128"]), interface(2, "eth0", &[])]);
    host.interfaces[1].settings.insert("ipv4.route_localnet".into(), 1);
    assert_eq!(exposure(&host, "127.0.0.1"), "link/none");
    assert_eq!(exposure(&host, "0.0.0.0"), "link/none");
    assert_eq!(exposure(&host, "127.0.0.1%eth0"), "link/none");
    assert_eq!(exposure(&host, "0.0.0.0%lo"), "loopback/none");
    assert_eq!(exposure(&host, "::1"), "none/loopback");
}

/// A wildcard hears whatever one of its addresses does.
#[test]
fn no_address_is_wider_than_the_wildcard() {
    for state in 0..64u32 {
        let bit = |place: u32| state >> place & 1 == 1;
        let mut vrf = interface(9, "blue", &[]);
        vrf.kind = Some("vrf".into());
        let lo = if bit(0) { "10.0.0.1/32" } else { "127.0.0.2/32" };
        let mut host = host(vec![
            interface(1, "lo", &["127.0.0.1/8", lo, "::1/128"]),
            interface(2, "eth0", &["10.0.0.2/24", "fd00::2/64", "fe80::2/64"]),
            interface(3, "eth1", &["192.0.2.3/24", "2001:db8::3/64"]),
            vrf,
        ]);
        (host.interfaces[1].up, host.interfaces[2].up) = (bit(1), bit(2));
        host.interfaces[2].master = bit(3).then_some(9);
        host.settings.insert("net.ipv4.tcp_l3mdev_accept".into(), i64::from(bit(4)));
        if bit(5) {
            host.interfaces[1].settings.insert("ipv6.disable_ipv6".into(), 1);
        }
        let of = |address: IpAddr, device: Option<&IfName>| {
            let protocol = Protocol::Tcp;
            let facts = Facts { address, scope_id: None, device, v6only: Some(true), protocol };
            explain(&facts, &host).0
        };
        let devices = ["lo", "eth0", "eth1", "blue"].map(IfName::from);
        for device in std::iter::once(None).chain(devices.iter().map(Some)) {
            let all4 = of(IpAddr::V4(Ipv4Addr::UNSPECIFIED), device).ipv4;
            let all6 = of("::".parse().unwrap(), device).ipv6;
            for (_, own) in host.addresses() {
                let one = of(own.address, device);
                let wider = one.ipv4 > all4 || one.ipv6 > all6;
                assert!(!wider, "{state:#b} {device:?} {}: {one:?}, {all4} and {all6}", own.address);
            }
        }
    }
}

#[test]
fn a_vrf_is_a_world_of_its_own() {
    let mut host = usual();
    let mut vrf = interface(9, "blue", &[]);
    vrf.kind = Some("vrf".into());
    host.interfaces.push(vrf);
    host.interfaces[2].master = Some(9);
    assert_eq!(exposure(&host, "0.0.0.0"), "private/none");
    assert_eq!(exposure(&host, "192.0.2.7"), "none/none");
    assert_eq!(exposure(&host, "0.0.0.0%blue"), "global/none");
    assert_eq!(exposure(&host, "0.0.0.0%eth0"), "private/none");
    host.settings.insert("net.ipv4.tcp_l3mdev_accept".into(), 1);
    assert_eq!(exposure(&host, "0.0.0.0"), "global/none");
}
