//! Changes to a network: links, addresses, routes, rules. Each is an acknowledged request of rtnetlink(7).
//!
//! Encoded manually like the decoders of [`super::rtnetlink`], because interface names are bytes.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::netlink::{Netlink, Refusal, Service, attribute, attributes, read};
use super::netns::Namespace;
use super::rtnetlink as decode;
use crate::model::{AddrState, Family, IfName, RouteKind, Scope};
use crate::sys::{Error, LinkSpec, NewAddress};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWNEIGH: u16 = 28;
const NLM_F_CREATE_REPLACE: u16 = 0x500;
pub(super) const NLM_F_CREATE_EXCL: u16 = 0x600;
pub(super) const NESTED: u16 = 0x8000;
/// `linux/neighbour.h`
const NDA_DST: u16 = 1;

// `linux/if_link.h`
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_MACVLAN_MODE: u16 = 1;
const MACVLAN_MODE_BRIDGE: u32 = 4;
const IFF_UP: u32 = 1;
// `linux/if_addr.h`
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_OPTIMISTIC: u32 = 0x04;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

/// A connection for changes to the network of one namespace. It stays in that namespace, whichever thread uses it.
/// Interface names are looked up in the namespace of the calling thread.
pub struct Network {
    netlink: Netlink,
}

impl Network {
    /// Opens a connection in the calling thread's namespace.
    ///
    /// # Errors
    /// Those of [`netns::require_own`](super::netns::require_own) and of `socket(2)`.
    pub fn here() -> Result<Network, Error> {
        super::netns::require_own()
            .map_err(|error| Error::call("change", "the network of this namespace", error))?;
        let netlink =
            Netlink::open(Service::Route).map_err(|error| Error::call("open", "a netlink socket", error))?;
        Ok(Network { netlink })
    }

    pub(super) fn ask(
        &mut self,
        operation: &'static str,
        object: &IfName,
        (kind, flags): (u16, u16),
        payload: &[u8],
    ) -> Result<(), Error> {
        self.netlink.request(kind, flags, payload).map_err(|refusal| failed(operation, object, refusal))
    }

    /// Adds a link: a veth pair with `here` in this namespace and `there` in the other. One message places both ends;
    /// moving an end afterwards would take tens of milliseconds.
    ///
    /// # Errors
    /// The kernel's refusal; EOPNOTSUPP if it has no veth.
    pub fn add_veth(&mut self, here: &LinkSpec, there: &LinkSpec, other: &Namespace) -> Result<(), Error> {
        let mut peer = link_message(there.index.unwrap_or(0), 0, 0);
        peer.extend(link_attributes(there));
        peer.extend(attribute(IFLA_NET_NS_FD, &other.as_fd().as_raw_fd().to_ne_bytes()));
        let data = attribute(VETH_INFO_PEER | NESTED, &peer);
        self.add_link(here, b"veth", &[], &data)
    }

    /// Adds a bridge.
    ///
    /// # Errors
    /// Those of [`Network::add_veth`].
    pub fn add_bridge(&mut self, link: &LinkSpec) -> Result<(), Error> {
        self.add_link(link, b"bridge", &[], &[])
    }

    /// Adds a VRF whose routes are in `table`.
    ///
    /// # Errors
    /// Those of [`Network::add_veth`].
    pub fn add_vrf(&mut self, link: &LinkSpec, table: u32) -> Result<(), Error> {
        const IFLA_VRF_TABLE: u16 = 1;
        self.add_link(link, b"vrf", &[], &attribute(IFLA_VRF_TABLE, &table.to_ne_bytes()))
    }

    /// Adds a macvlan interface in mode `bridge` on `parent`, in this namespace or in the other.
    ///
    /// # Errors
    /// Those of [`Network::add_veth`].
    pub fn add_macvlan(
        &mut self,
        link: &LinkSpec,
        parent: &IfName,
        other: Option<&Namespace>,
    ) -> Result<(), Error> {
        let mut more = attribute(IFLA_LINK, &index(parent)?.to_ne_bytes());
        if let Some(other) = other {
            more.extend(attribute(IFLA_NET_NS_FD, &other.as_fd().as_raw_fd().to_ne_bytes()));
        }
        let data = attribute(IFLA_MACVLAN_MODE, &MACVLAN_MODE_BRIDGE.to_ne_bytes());
        self.add_link(link, b"macvlan", &more, &data)
    }

    /// `more` has attributes in addition to the `data` of the kind.
    fn add_link(&mut self, link: &LinkSpec, kind: &[u8], more: &[u8], data: &[u8]) -> Result<(), Error> {
        let mut message = link_message(link.index.unwrap_or(0), 0, 0);
        message.extend(link_attributes(link));
        message.extend(more);
        let mut info = attribute(IFLA_INFO_KIND, kind);
        if !data.is_empty() {
            info.extend(attribute(IFLA_INFO_DATA | NESTED, data));
        }
        message.extend(attribute(IFLA_LINKINFO | NESTED, &info));
        self.ask("create", &link.name, (RTM_NEWLINK, NLM_F_CREATE_EXCL), &message)
    }

    /// Removes an interface.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn delete_link(&mut self, name: &IfName) -> Result<(), Error> {
        let message = link_message(index(name)?, 0, 0);
        self.ask("delete", name, (RTM_DELLINK, 0), &message)
    }

    /// Sets an interface up or down.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set_up(&mut self, name: &IfName, up: bool) -> Result<(), Error> {
        let message = link_message(index(name)?, if up { IFF_UP } else { 0 }, IFF_UP);
        self.ask(if up { "put up" } else { "put down" }, name, (RTM_NEWLINK, 0), &message)
    }

    /// Attaches an interface to a bridge or a VRF, or detaches it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set_master(&mut self, name: &IfName, master: Option<&IfName>) -> Result<(), Error> {
        let master = master.map(index).transpose()?.unwrap_or(0);
        let mut message = link_message(index(name)?, 0, 0);
        message.extend(attribute(IFLA_MASTER, &master.to_ne_bytes()));
        self.ask("set the master of", name, (RTM_NEWLINK, 0), &message)
    }

    /// Renames an interface.
    ///
    /// # Errors
    /// The kernel's refusal; EBUSY before Linux 6.2 if it is up.
    pub fn rename(&mut self, name: &IfName, to: &IfName) -> Result<(), Error> {
        let mut message = link_message(index(name)?, 0, 0);
        message.extend(attribute(IFLA_IFNAME, &terminated(to)));
        self.ask("rename", name, (RTM_NEWLINK, 0), &message)
    }

    /// Gives an interface an alternative name.
    ///
    /// # Errors
    /// The kernel's refusal; EOPNOTSUPP before Linux 5.5.
    pub fn add_altname(&mut self, name: &IfName, altname: &IfName) -> Result<(), Error> {
        const RTM_NEWLINKPROP: u16 = 108;
        const IFLA_PROP_LIST: u16 = 52;
        const IFLA_ALT_IFNAME: u16 = 53;
        let mut message = link_message(index(name)?, 0, 0);
        let names = attribute(IFLA_ALT_IFNAME, &terminated(altname));
        message.extend(attribute(IFLA_PROP_LIST | NESTED, &names));
        self.ask("add an alternative name to", name, (RTM_NEWLINKPROP, NLM_F_CREATE_EXCL), &message)
    }

    /// Makes the kernel notice immediately that an interface has a carrier. Otherwise it takes up to a second
    /// (`linkwatch`), in which the interface joins no multicast group and answers no neighbour discovery. A query for
    /// the single link has this effect.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn settle(&mut self, name: &IfName) -> Result<(), Error> {
        let message = link_message(index(name)?, 0, 0);
        self.ask("look at", name, (RTM_GETLINK, 0), &message)
    }

    /// Removes every neighbour entry that ARP or neighbour discovery created.
    ///
    /// # Errors
    /// If the list cannot be read. An entry that disappeared in the meantime is not an error.
    pub fn forget_neighbours(&mut self) -> Result<(), Error> {
        const RTM_DELNEIGH: u16 = 29;
        const RTM_GETNEIGH: u16 = 30;
        const NUD_PERMANENT: u16 = 0x80;
        /// `struct ndmsg`.
        const LENGTH: usize = 12;
        let dump = self
            .netlink
            .dump(RTM_GETNEIGH, &[0; LENGTH])
            .map_err(|refusal| failed("list", &IfName::from("the neighbours"), refusal))?;
        for (_, payload) in dump.messages().filter(|(kind, _)| *kind == RTM_NEWNEIGH) {
            let Some((head, rest)) = payload.split_at_checked(LENGTH) else { continue };
            // Manually added entries stay.
            if read(head, 8).map(u16::from_ne_bytes).is_some_and(|state| state & NUD_PERMANENT != 0) {
                continue;
            }
            if let Some((_, address)) = attributes(rest).find(|(kind, _)| *kind == NDA_DST) {
                let mut message = head.to_vec();
                message.extend(attribute(NDA_DST, address));
                let _ = self.netlink.request(RTM_DELNEIGH, 0, &message);
            }
        }
        Ok(())
    }

    /// Sets the link-layer address of a neighbour permanently.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn add_neighbour(&mut self, name: &IfName, address: IpAddr, mac: [u8; 6]) -> Result<(), Error> {
        const NUD_PERMANENT: u16 = 0x80;
        const NDA_LLADDR: u16 = 2;
        // `struct ndmsg`: family, padding, index, state, flags, type.
        let mut message = vec![af(Family::of(address)), 0, 0, 0];
        message.extend(index(name)?.to_ne_bytes());
        message.extend(NUD_PERMANENT.to_ne_bytes());
        message.extend([0, 0]);
        message.extend(attribute(NDA_DST, &octets(address)));
        message.extend(attribute(NDA_LLADDR, &mac));
        self.ask("add a neighbour on", name, (RTM_NEWNEIGH, NLM_F_CREATE_REPLACE), &message)
    }

    /// Waits until every IPv6 address of an interface that is up can be used. The kernel joins its multicast group and
    /// adds its local route from a work queue (`addrconf_dad_begin()`), even without duplicate address detection. Until
    /// then the address is listed but not reachable, not even from this host. Returns false after `most`.
    ///
    /// # Errors
    /// If the lists cannot be read.
    pub fn wait_for_addresses(&mut self, most: Duration) -> Result<bool, Error> {
        let begun = Instant::now();
        loop {
            let ready = self
                .addresses_are_ready()
                .map_err(|refusal| failed("look at", &IfName::from("the addresses"), refusal))?;
            if ready || begun.elapsed() >= most {
                return Ok(ready);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn addresses_are_ready(&mut self) -> Result<bool, Refusal> {
        const RTM_GETROUTE: u16 = 26;
        // A change of the other end may not have been noticed yet. A query for each interface alone makes newer kernels
        // check (see `settle`). Older kernels check within a second; until then an interface with a carrier is not
        // running.
        let links = self.netlink.dump(RTM_GETLINK, &decode::link_request())?;
        for link in links.messages().filter_map(|(_, payload)| decode::link(payload)) {
            self.netlink.request(RTM_GETLINK, 0, &link_message(link.index, 0, 0))?;
        }
        let links = self.netlink.dump(RTM_GETLINK, &decode::link_request())?;
        let mut up = Vec::new();
        for (_, payload) in links.messages() {
            let Some(link) = decode::link(payload).filter(|link| link.up) else { continue };
            if decode::has_carrier(payload) != Some(link.running) {
                return Ok(false);
            }
            if link.running {
                up.push(link.index);
            }
        }
        let addresses = self.netlink.dump(RTM_GETADDR, &decode::address_request())?;
        let routes = self.netlink.dump(RTM_GETROUTE, &decode::route_request(Family::Ipv6))?;
        let local: Vec<IpAddr> = routes
            .messages()
            .flat_map(|(_, payload)| decode::route(payload))
            .filter(|route| route.kind == RouteKind::Local)
            .map(|route| route.destination.addr())
            .collect();
        Ok(addresses.messages().filter_map(|(_, payload)| decode::address(payload)).all(
            |(index, address)| {
                let usable = !address.is(AddrState::Tentative) && !address.is(AddrState::Dadfailed);
                address.family == Family::Ipv4
                    || !usable
                    || !up.contains(&index)
                    || local.contains(&address.address)
            },
        ))
    }

    /// Adds an address to an interface.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn add_address(&mut self, name: &IfName, new: &NewAddress) -> Result<(), Error> {
        let mut message = address_message(index(name)?, new);
        if new.net.addr().is_ipv4() {
            if let Some(broadcast) = new.broadcast {
                message.extend(attribute(IFA_BROADCAST, &octets(broadcast)));
            }
            if let Some(label) = &new.label {
                message.extend(attribute(IFA_LABEL, &terminated(label)));
            }
        }
        let mut flags = match (new.optimistic, new.duplicate_detection) {
            (true, _) => IFA_F_OPTIMISTIC,
            (false, true) => 0,
            (false, false) => IFA_F_NODAD,
        };
        if !new.prefix_route {
            flags |= IFA_F_NOPREFIXROUTE;
        }
        message.extend(attribute(IFA_FLAGS, &flags.to_ne_bytes()));
        if new.deprecated {
            // `struct ifa_cacheinfo`: preferred lifetime zero, valid forever.
            let mut lifetimes = 0u32.to_ne_bytes().to_vec();
            lifetimes.extend(u32::MAX.to_ne_bytes());
            lifetimes.extend([0; 8]);
            message.extend(attribute(IFA_CACHEINFO, &lifetimes));
        }
        self.ask("add an address to", name, (RTM_NEWADDR, NLM_F_CREATE_EXCL), &message)
    }

    /// Removes an address.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn delete_address(&mut self, name: &IfName, net: IpNet) -> Result<(), Error> {
        let message = address_message(index(name)?, &NewAddress::of(net));
        self.ask("remove an address from", name, (RTM_DELADDR, 0), &message)
    }
}

pub(super) fn failed(operation: &'static str, object: &IfName, refusal: Refusal) -> Error {
    let source = match (&refusal.explanation, refusal.source.raw_os_error()) {
        // The errno must stay readable if the kernel adds no message.
        (Some(_), _) => io::Error::new(refusal.source.kind(), refusal.to_string()),
        (None, _) => refusal.source,
    };
    Error::Call { operation, object: object.to_string(), source }
}

/// The index of an interface of the calling thread's namespace.
pub(super) fn index(name: &IfName) -> Result<u32, Error> {
    nix::net::if_::if_nametoindex(name.as_bytes())
        .map_err(|errno| Error::call("find", name.to_string(), errno.into()))
}

/// `struct ifinfomsg`.
fn link_message(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut message = vec![0; 4];
    message.extend(index.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(change.to_ne_bytes());
    message
}

fn link_attributes(link: &LinkSpec) -> Vec<u8> {
    let mut out = attribute(IFLA_IFNAME, &terminated(&link.name));
    if let Some(mac) = link.mac {
        out.extend(attribute(IFLA_ADDRESS, &mac));
    }
    if let Some(mtu) = link.mtu {
        out.extend(attribute(IFLA_MTU, &mtu.to_ne_bytes()));
    }
    out
}

/// `struct ifaddrmsg` with the address and the peer, which is the address itself if there is none. An IPv4 loopback
/// address has host scope, as with `ip`: the kernel refuses other scopes in addition to 127.0.0.1.
fn address_message(index: u32, new: &NewAddress) -> Vec<u8> {
    let NewAddress { net, peer, .. } = *new;
    let host = net.addr().is_ipv4() && net.addr().is_loopback();
    let scope = new.scope.unwrap_or(if host { Scope::Host } else { Scope::Global }).number();
    let mut message = vec![af(Family::of(net.addr())), net.prefix_len(), 0, scope];
    message.extend(index.to_ne_bytes());
    message.extend(attribute(IFA_LOCAL, &octets(net.addr())));
    message.extend(attribute(IFA_ADDRESS, &octets(peer.unwrap_or(net.addr()))));
    message
}

pub(super) fn terminated(name: &IfName) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// `AF_INET` and `AF_INET6`.
pub(super) fn af(family: Family) -> u8 {
    match family {
        Family::Ipv4 => 2,
        Family::Ipv6 => 10,
    }
}
