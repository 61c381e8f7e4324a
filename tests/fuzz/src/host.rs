//! Hosts to plan on.

use std::net::IpAddr;

use bindscope::model::addr::needs_zone;
use bindscope::model::{AddrState, IfName, Interface, InterfaceAddress, Protocol, Snapshot, SocketView};

/// An interface without addresses.
pub fn interface(index: u32, name: &[u8], loopback: bool) -> Interface {
    Interface {
        up: true,
        running: true,
        loopback,
        multicast: !loopback,
        mtu: Some(1500),
        ..Interface::new(index, IfName::from_bytes(name))
    }
}

/// An address as the kernel would tell it.
pub fn address(index: u32, address: IpAddr, prefix: u8, state: Vec<AddrState>) -> InterfaceAddress {
    InterfaceAddress {
        scope_id: needs_zone(address).then_some(index),
        state,
        ..InterfaceAddress::new(address, prefix)
    }
}

/// A host with loopback, a wire in both families, and an interface whose name is no text.
pub fn example() -> Snapshot {
    let mut interfaces =
        vec![interface(1, b"lo", true), interface(2, b"eth0", false), interface(3, b"\xff\x1b[", false)];
    for (index, text, prefix) in [
        (1, "127.0.0.1", 8),
        (1, "::1", 128),
        (2, "192.0.2.1", 24),
        (2, "2001:db8::1", 64),
        (2, "fe80::1", 64),
        (3, "10.0.0.1", 8),
    ] {
        let address = address(index, text.parse().unwrap(), prefix, vec![AddrState::Permanent]);
        interfaces[index as usize - 1].addresses.push(address);
    }
    Snapshot { complete: true, interfaces, ipv6_available: true, ..Snapshot::default() }
}

/// An open socket without options.
pub fn view(protocol: Protocol, address: IpAddr, port: u16) -> SocketView {
    SocketView { v6only: address.is_ipv6().then_some(false), ..SocketView::of(protocol, address, port) }
}
