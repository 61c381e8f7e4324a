//! How long planning takes, and how it grows: `cargo bench --bench plan`.
//!
//! Two shapes: N listeners on one port, each on an address of its own, so that the answer has N cells for each source; and N listeners
//! on ports of their own on a host with 100 addresses, so that it has 100 N. The last column is time by cell; it should stay.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use bindscope::model::{IfName, Interface, InterfaceAddress, Protocol, Snapshot, SocketSpec};
use bindscope::plan::bind_check::Rights;
use bindscope::report::matrix::{Plan, cells};

fn address(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a00_0001 + u32::try_from(number).unwrap()))
}

/// A host with `lo`, one wire, and so many addresses on it.
fn host(addresses: usize) -> Snapshot {
    let interface = |index, name: &str, addresses: Vec<IpAddr>| Interface {
        up: true,
        running: true,
        loopback: index == 1,
        multicast: true,
        addresses: addresses.into_iter().map(|address| InterfaceAddress::new(address, 8)).collect(),
        ..Interface::new(index, IfName::from(name))
    };
    Snapshot {
        complete: true,
        interfaces: vec![
            interface(1, "lo", vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]),
            interface(2, "eth0", (0..addresses).map(address).collect()),
        ],
        ..Snapshot::default()
    }
}

fn socket(number: usize, address: IpAddr, port: u16) -> SocketSpec {
    SocketSpec {
        listener: format!("listener{number}"),
        reuse_address: true,
        backlog: 128,
        ..SocketSpec::plain(Protocol::Tcp, address, port)
    }
}

fn measure(name: &str, sockets: &[SocketSpec], snapshot: &Snapshot) {
    let rights = Rights { uid: 0, privileged_ports: true, transparent: true };
    let mut best = Duration::MAX;
    let mut count = 0;
    for _ in 0..5 {
        let begun = Instant::now();
        let plan = Plan::new(sockets.to_vec(), snapshot, rights, Vec::new(), &[]);
        let cells = black_box(cells(&plan, snapshot, &[]));
        best = best.min(begun.elapsed());
        count = cells.len();
    }
    let each = best.as_nanos() / count.max(1) as u128;
    println!(
        "{name} {:>5} {count:>9} cells {:>9.2} ms {each:>6} ns a cell",
        sockets.len(),
        best.as_secs_f64() * 1e3
    );
}

fn main() {
    for n in [125, 250, 500, 1000, 2000] {
        let sockets: Vec<_> = (0..n).map(|number| socket(number, address(number), 8080)).collect();
        measure("one port, N addresses ", &sockets, &host(n));
    }
    let small = host(100);
    for n in [125, 250, 500, 1000, 2000] {
        let port = |number: usize| 10_000 + u16::try_from(number).unwrap();
        let sockets: Vec<_> =
            (0..n).map(|number| socket(number, IpAddr::V4(Ipv4Addr::UNSPECIFIED), port(number))).collect();
        measure("N ports, 100 addresses", &sockets, &small);
    }
}
