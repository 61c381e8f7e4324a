//! Which part of the kernel holds a socket that no process has: tunnels by the port of their interface (rtnetlink), WireGuard and
//! MPTCP endpoints by generic netlink, the NFS server by its own list.
//!
//! No module is loaded to read the kernel's lists: families of generic netlink are looked up in the list of those that exist.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::netlink::{Netlink, Service, attributes, read, until_nul};
use crate::escape::escape_bytes;
use crate::model::{KernelHolder, ListeningSocket, Protocol};

/// `RTM_GETLINK` of `linux/rtnetlink.h`.
const RTM_GETLINK: u16 = 18;
/// Length of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
/// `IFF_UP` of `linux/if.h`: a tunnel opens its socket when it comes up.
const IFF_UP: u32 = 1;
/// Kinds of tunnels over UDP, and the attribute that holds the port in network byte order (`linux/if_link.h`).
const TUNNELS: [(&str, u16); 3] = [("vxlan", 15), ("geneve", 5), ("bareudp", 1)];

/// Length of `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;
/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY` and its attributes (`linux/genetlink.h`).
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// The ports that parts of the kernel have opened in one network namespace.
#[derive(Default)]
struct Holders {
    /// UDP ports of tunnels.
    udp: BTreeMap<u16, KernelHolder>,
    /// Addresses and ports of MPTCP endpoints.
    mptcp: BTreeMap<(IpAddr, u16), KernelHolder>,
    /// Protocols and ports of the NFS server.
    nfsd: Vec<(Protocol, u16)>,
}

/// Names the part of the kernel that has the port of each socket. Whether a process holds the socket instead is looked up later.
/// The sockets are those of the calling thread's network namespace.
pub(super) fn name(sockets: &mut [ListeningSocket]) {
    let mut holders = Holders::default();
    // A refusal leaves a socket unnamed; that its holder is unknown is stated where owners are.
    if sockets.iter().any(|socket| socket.view.protocol == Protocol::Udp) {
        let _ = tunnels(&mut holders);
    }
    if !sockets.is_empty() {
        let _ = generic(&mut holders);
        nfsd(&mut holders);
    }
    for socket in sockets {
        socket.kernel = holders.of(socket);
    }
}

impl Holders {
    fn of(&self, socket: &ListeningSocket) -> Option<KernelHolder> {
        let view = &socket.view;
        let nfsd = || {
            self.nfsd
                .contains(&(view.protocol, view.port))
                .then(|| KernelHolder { kind: "nfsd".to_owned(), name: None })
        };
        match view.protocol {
            Protocol::Udp => self.udp.get(&view.port).cloned().or_else(nfsd),
            Protocol::Tcp => self.mptcp.get(&(view.address.to_canonical(), view.port)).cloned().or_else(nfsd),
        }
    }
}

fn holder(kind: &str, name: &[u8]) -> KernelHolder {
    let name = until_nul(name);
    let name = std::str::from_utf8(name).map_or_else(|_| escape_bytes(name), str::to_owned);
    KernelHolder { kind: kind.to_owned(), name: Some(name) }
}

fn tunnels(holders: &mut Holders) -> Result<(), super::netlink::Refusal> {
    let mut kernel = Netlink::open(Service::Route)?;
    let dump = kernel.dump(RTM_GETLINK, &[0; LINK_HEADER])?;
    for (_, message) in dump.messages() {
        if let Some((port, holder)) = tunnel(message) {
            holders.udp.insert(port, holder);
        }
    }
    Ok(())
}

/// Port and name of a tunnel that is up.
fn tunnel(message: &[u8]) -> Option<(u16, KernelHolder)> {
    let flags = read(message, 8).map(u32::from_ne_bytes)?;
    let of = |wanted: u16, bytes| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let link = message.get(LINK_HEADER..)?;
    let info = of(IFLA_LINKINFO, link)?;
    let kind = until_nul(of(IFLA_INFO_KIND, info)?);
    let (kind, attribute) = TUNNELS.iter().find(|(name, _)| name.as_bytes() == kind)?;
    let port = read(of(*attribute, of(IFLA_INFO_DATA, info)?)?, 0).map(u16::from_be_bytes)?;
    (flags & IFF_UP != 0).then(|| (port, holder(kind, of(IFLA_IFNAME, link).unwrap_or_default())))
}

fn generic(holders: &mut Holders) -> Result<(), super::netlink::Refusal> {
    let mut kernel = Netlink::open(Service::Generic)?;
    let families = kernel.dump(CONTROLLER, &[GET_FAMILY, 1, 0, 0])?;
    let family = |name: &str| {
        families.messages().find_map(|(_, message)| {
            let message = message.get(GENERIC_HEADER..)?;
            let of = |wanted: u16| attributes(message).find(|(kind, _)| *kind == wanted);
            (until_nul(of(FAMILY_NAME)?.1) == name.as_bytes()).then_some(())?;
            read(of(FAMILY_ID)?.1, 0).map(u16::from_ne_bytes)
        })
    };
    /// `MPTCP_PM_CMD_GET_ADDR` of `linux/mptcp_pm.h`.
    const GET_ADDR: u8 = 3;
    if let Some(dump) = family("mptcp_pm").and_then(|id| kernel.dump(id, &[GET_ADDR, 1, 0, 0]).ok()) {
        let endpoints = dump.messages().filter_map(|(_, message)| endpoint(message.get(GENERIC_HEADER..)?));
        let named = |at| (at, KernelHolder { kind: "mptcp endpoint".to_owned(), name: None });
        holders.mptcp.extend(endpoints.map(named));
    }
    if let Some(id) = family("wireguard") {
        wireguard(&mut kernel, id, holders)?;
    }
    Ok(())
}

/// Address and port of an MPTCP endpoint that has a port.
fn endpoint(bytes: &[u8]) -> Option<(IpAddr, u16)> {
    /// Attributes of `linux/mptcp_pm.h`.
    const ADDR: u16 = 1;
    const ADDR4: u16 = 3;
    const ADDR6: u16 = 4;
    const PORT: u16 = 5;
    let nested = attributes(bytes).find(|(kind, _)| *kind == ADDR)?.1;
    let (mut address, mut port) = (None, None);
    for (kind, value) in attributes(nested) {
        match kind {
            ADDR4 => address = read::<4>(value, 0).map(IpAddr::from),
            ADDR6 => address = read::<16>(value, 0).map(IpAddr::from),
            PORT => port = read(value, 0).map(u16::from_ne_bytes),
            _ => {}
        }
    }
    Some((address?, port.filter(|port| *port != 0)?))
}

/// Ports of the WireGuard interfaces. The kernel tells them to who may configure the network, one interface at a time.
fn wireguard(
    kernel: &mut Netlink,
    family: u16,
    holders: &mut Holders,
) -> Result<(), super::netlink::Refusal> {
    /// `WG_CMD_GET_DEVICE` and attributes of `linux/wireguard.h`.
    const GET_DEVICE: u8 = 0;
    const IFNAME: u16 = 2;
    const LISTEN_PORT: u16 = 6;
    let links = Netlink::open(Service::Route)?.dump(RTM_GETLINK, &[0; LINK_HEADER])?;
    for (_, message) in links.messages() {
        let Some(link) = message.get(LINK_HEADER..) else { continue };
        let of =
            |wanted: u16, bytes| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let kind = of(IFLA_LINKINFO, link).and_then(|info| of(IFLA_INFO_KIND, info)).map(until_nul);
        let Some(name) = of(IFLA_IFNAME, link).filter(|_| kind == Some(b"wireguard")) else { continue };
        let mut request = vec![GET_DEVICE, 1, 0, 0];
        let length = u16::try_from(4 + name.len()).unwrap_or(0);
        request.extend(length.to_ne_bytes());
        request.extend(IFNAME.to_ne_bytes());
        request.extend(name);
        request.resize(request.len().next_multiple_of(4), 0);
        // The answer holds the private key as well; only the port is taken out of it.
        let device = kernel.dump(family, &request)?;
        let port = device.messages().find_map(|(_, message)| {
            read(of(LISTEN_PORT, message.get(GENERIC_HEADER..)?)?, 0).map(u16::from_ne_bytes)
        });
        if let Some(port) = port.filter(|port| *port != 0) {
            holders.udp.insert(port, holder("wireguard", name));
        }
    }
    Ok(())
}

/// The ports of the NFS server, where its file system is mounted: lines such as `tcp 2049`.
fn nfsd(holders: &mut Holders) {
    let text = std::fs::read_to_string("/proc/fs/nfsd/portlist").unwrap_or_default();
    holders.nfsd = text.lines().filter_map(nfsd_port).collect();
}

fn nfsd_port(line: &str) -> Option<(Protocol, u16)> {
    let (protocol, port) = line.split_once(' ')?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    Some((protocol, port.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_tunnel_is_named_by_its_interface_while_it_is_up() {
        for (up, kind, attribute_of_port, expected) in [
            (1u32, "vxlan", 15, Some("kernel: vxlan flannel.1")),
            (1, "geneve", 5, Some("kernel: geneve flannel.1")),
            (0, "vxlan", 15, None),
            (1, "veth", 15, None),
            (1, "vxlan", 14, None),
        ] {
            let data = attribute(attribute_of_port, &8472u16.to_be_bytes());
            let info =
                [attribute(IFLA_INFO_KIND, kind.as_bytes()), attribute(IFLA_INFO_DATA, &data)].concat();
            let mut message = vec![0; LINK_HEADER];
            message[8..12].copy_from_slice(&up.to_ne_bytes());
            message.extend(attribute(IFLA_IFNAME, b"flannel.1\0"));
            message.extend(attribute(IFLA_LINKINFO, &info));
            let found = tunnel(&message).map(|(port, holder)| (port, holder.to_string()));
            assert_eq!(found, expected.map(|text| (8472, text.to_owned())), "{kind} {up}");
        }
        assert_eq!(tunnel(&[]), None);
    }

    #[test]
    fn an_endpoint_without_a_port_has_no_socket() {
        let endpoint_of = |port: &[u8]| {
            let parts = [attribute(3, &[10, 0, 0, 1]), port.to_vec()].concat();
            endpoint(&attribute(1, &parts))
        };
        let at = |port| Some((IpAddr::from([10, 0, 0, 1]), port));
        assert_eq!(endpoint_of(&attribute(5, &10123u16.to_ne_bytes())), at(10123));
        assert_eq!(endpoint_of(&attribute(5, &[0, 0])), None);
        assert_eq!(endpoint_of(&[]), None);
    }

    #[test]
    fn lines_of_the_nfs_server_are_read() {
        assert_eq!(nfsd_port("tcp 2049"), Some((Protocol::Tcp, 2049)));
        assert_eq!(nfsd_port("rdma 20049"), None);
        assert_eq!(nfsd_port(""), None);
    }
}
