//! Properties of predictions, on hosts and with sockets that are generated.

use std::net::IpAddr;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use bindscope::model::socket::Reply;
use bindscope::model::{AddrState, Errno, IfName, Interface, Protocol, Snapshot, SocketSpec, V6Only};
use bindscope::plan::bind_check::Rights;
use bindscope::plan::predict::BindOutcome;
use bindscope::report::matrix::{self, Plan};

use crate::host;

/// A random host with random sockets: nothing panics, who takes a connection is bound, and pairs collide whichever
/// comes first.
pub fn predictor(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let Ok(host) = host(&mut bytes) else { return };
    let mut sockets = Vec::new();
    for number in 0..6 {
        match socket(&mut bytes, number) {
            Ok(socket) => sockets.push(socket),
            Err(_) => break,
        }
    }
    let plan = plan(&sockets, &host);
    for cell in matrix::cells(&plan, &host, &[]) {
        let Some(taker) = cell.predicted.listener.as_deref().and_then(|name| name.strip_prefix('l')) else {
            continue;
        };
        let taker: usize = taker.parse().unwrap();
        let bound = plan.binds.predictions[taker].outcome != BindOutcome::Error;
        assert!(bound, "a socket that cannot be opened takes {cell:?}");
        assert_eq!((sockets[taker].protocol, sockets[taker].port), (cell.protocol, cell.port));
    }
    for pair in sockets.windows(2) {
        symmetric(&pair[0], &pair[1], &host);
    }
}

fn plan(sockets: &[SocketSpec], host: &Snapshot) -> Plan {
    let rights = Rights { uid: 0, privileged_ports: true, transparent: true };
    Plan::new(sockets.to_vec(), host, rights, Vec::new(), &[])
}

/// Of two sockets that can each be opened alone, the second one is in the way of the first exactly when it is the other way
/// round.
fn symmetric(a: &SocketSpec, b: &SocketSpec, host: &Snapshot) {
    let alone = |socket: &SocketSpec| {
        plan(std::slice::from_ref(socket), host).binds.predictions[0].outcome == BindOutcome::Ok
    };
    if a.port == 0 || b.port == 0 || !alone(a) || !alone(b) {
        return;
    }
    let second = |first: &SocketSpec, then: &SocketSpec| {
        let plan = plan(&[first.clone(), then.clone()], host);
        let prediction = &plan.binds.predictions[1];
        assert!(prediction.outcome != BindOutcome::Error || prediction.errno == Some(Errno::EADDRINUSE));
        prediction.outcome
    };
    assert_eq!(second(a, b), second(b, a), "{a:?}\n{b:?}");
}

fn ip(bytes: &mut Unstructured<'_>) -> Result<IpAddr> {
    const KNOWN: [&str; 16] = [
        "127.0.0.1",
        "127.0.0.2",
        "::1",
        "0.0.0.0",
        "::",
        "192.0.2.1",
        "192.0.2.255",
        "10.0.0.1",
        "169.254.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "2001:db8::1",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::ffff:192.0.2.1",
    ];
    if bytes.ratio(7, 8)? {
        return Ok(bytes.choose(&KNOWN)?.parse().unwrap());
    }
    Ok(if bytes.arbitrary()? {
        IpAddr::from(bytes.arbitrary::<[u8; 4]>()?)
    } else {
        IpAddr::from(bytes.arbitrary::<[u8; 16]>()?)
    })
}

fn an_interface(bytes: &mut Unstructured<'_>, index: u32) -> Result<Interface> {
    const NAMES: [&[u8]; 5] = [b"lo", b"eth0", b"eth1", b"\xff\x1b", b"vrf"];
    let mut interface = host::interface(index, NAMES[index as usize % NAMES.len()], index == 1);
    interface.up = bytes.ratio(7, 8)?;
    interface.running = bytes.ratio(7, 8)?;
    interface.point_to_point = bytes.ratio(1, 8)?;
    interface.master = if bytes.ratio(1, 8)? { Some(bytes.int_in_range(1..=6)?) } else { None };
    if bytes.ratio(1, 8)? {
        interface.kind = Some(bytes.choose(&["vrf", "bridge", "veth", "loopback"])?.to_owned().into());
    }
    for name in ["ipv4.route_localnet", "ipv6.disable_ipv6", "ipv4.rp_filter", "ipv4.arp_ignore"] {
        if bytes.ratio(1, 8)? {
            interface.settings.insert(name.to_owned(), i64::from(bytes.int_in_range(-1..=2)?));
        }
    }
    for _ in 0..bytes.int_in_range(0..=3)? {
        let state = if bytes.ratio(7, 8)? {
            AddrState::Permanent
        } else {
            *bytes.choose(&[
                AddrState::Tentative,
                AddrState::Dadfailed,
                AddrState::Optimistic,
                AddrState::Deprecated,
            ])?
        };
        let address = ip(bytes)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = bytes.int_in_range(0..=longest)?;
        interface.addresses.push(host::address(index, address, prefix, vec![state]));
    }
    Ok(interface)
}

fn host(bytes: &mut Unstructured<'_>) -> Result<Snapshot> {
    let mut host = Snapshot { complete: true, ipv6_available: bytes.ratio(7, 8)?, ..Snapshot::default() };
    for index in 1..=bytes.int_in_range(0..=4)? {
        host.interfaces.push(an_interface(bytes, index)?);
    }
    for name in [
        "net.ipv6.bindv6only",
        "net.ipv4.ip_nonlocal_bind",
        "net.ipv4.conf.all.route_localnet",
        "net.ipv6.conf.all.disable_ipv6",
        "net.ipv4.tcp_l3mdev_accept",
        "net.ipv4.udp_l3mdev_accept",
        "net.ipv4.ip_unprivileged_port_start",
    ] {
        if bytes.ratio(1, 4)? {
            host.settings.insert(name.to_owned(), i64::from(bytes.int_in_range(-1..=2)?));
        }
    }
    Ok(host)
}

fn socket(bytes: &mut Unstructured<'_>, number: usize) -> Result<SocketSpec> {
    if bytes.is_empty() {
        return Err(arbitrary::Error::NotEnoughData);
    }
    let address = ip(bytes)?;
    Ok(SocketSpec {
        listener: format!("l{number}"),
        protocol: if bytes.ratio(2, 3)? { Protocol::Tcp } else { Protocol::Udp },
        address,
        port: *bytes.choose(&[80, 8081, 0])?,
        scope_id: if bytes.ratio(1, 4)? { bytes.int_in_range(0..=5)? } else { 0 },
        v6only: *bytes.choose(&[V6Only::On, V6Only::Off, V6Only::System])?,
        device: if bytes.ratio(1, 4)? {
            Some(IfName::from_bytes(bytes.choose(&[&b"eth0"[..], b"lo", b"\xff\x1b", b"none", b"vrf"])?))
        } else {
            None
        },
        reuse_address: bytes.arbitrary()?,
        reuse_port: bytes.ratio(1, 3)?,
        freebind: bytes.ratio(1, 8)?,
        transparent: bytes.ratio(1, 8)?,
        backlog: bytes.arbitrary()?,
        reply: Reply::None,
        idle_timeout: Duration::from_secs(1),
        max_connections: 1,
        wait_for_address: Duration::ZERO,
        skip_when_missing: false,
        port_per_socket: false,
    })
}
