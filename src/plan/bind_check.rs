//! Checks of a single socket, without other sockets: everything that `socket(2)`, `setsockopt(2)` and `bind(2)` check
//! before the port.
//!
//! Sources: `__inet_bind()` of `net/ipv4/af_inet.c`, `__inet6_bind()` of `net/ipv6/af_inet6.c`, ip(7), ipv6(7),
//! socket(7). The checks are in the kernel's order, because a program sees the first one that fails.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::local_table::{Ipv4Kind, LocalAddresses};
use super::socket_table::{Entry, Local};
use crate::code::Code;
use crate::model::{
    AddrState, Errno, Family, IfName, Interface, Phase, Protocol, Snapshot, SocketSpec, V6Only,
};

/// Privileges of the binding process. They depend on the caller and are therefore a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Effective user.
    pub uid: u32,
    /// CAP_NET_BIND_SERVICE over the network namespace: ports below `net.ipv4.ip_unprivileged_port_start`.
    pub privileged_ports: bool,
    /// CAP_NET_ADMIN or CAP_NET_RAW over it: IP_TRANSPARENT.
    pub transparent: bool,
}

/// Why a socket cannot be opened, other sockets aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The system call that fails.
    pub phase: Phase,
    /// Its errno.
    pub errno: Errno,
    /// Code of the rule.
    pub code: Code,
}

/// Result of the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// The socket can have its address. The value is its form for comparisons with other sockets.
    Available(Entry),
    /// The socket cannot have its address.
    Refused(Refusal),
    /// The result depends on a fact that the snapshot does not contain. The second value is its form if it succeeds.
    Unknown(Code, Entry),
}

/// Maximum length of a device name; the kernel cuts off the rest (`IFNAMSIZ` less its NUL).
const DEVICE_NAME_MAX: usize = crate::model::IfName::MAX_LEN;

/// Checks everything that the kernel checks before the port.
#[must_use]
pub fn availability(
    spec: &SocketSpec,
    snapshot: &Snapshot,
    local: &LocalAddresses,
    rights: Rights,
) -> Availability {
    match examine(spec, snapshot, local, rights) {
        Ok((entry, None)) => Availability::Available(entry),
        Ok((entry, Some(code))) => Availability::Unknown(code, entry),
        Err(refusal) => Availability::Refused(refusal),
    }
}

fn examine(
    spec: &SocketSpec,
    snapshot: &Snapshot,
    local: &LocalAddresses,
    rights: Rights,
) -> Result<(Entry, Option<Code>), Refusal> {
    let refuse = |phase, errno, code| Err(Refusal { phase, errno, code });
    let inet6 = spec.domain() == Family::Ipv6;
    if inet6 && !snapshot.ipv6_available {
        return refuse(Phase::Socket, Errno::EAFNOSUPPORT, Code::FAMILY_UNAVAILABLE);
    }
    if spec.transparent && !rights.transparent {
        return refuse(Phase::Setsockopt, Errno::EPERM, Code::NOT_PERMITTED);
    }
    let mut device = None;
    if let Some(name) = spec.device.as_ref().filter(|name| !name.as_bytes().is_empty()) {
        let bytes = &name.as_bytes()[..name.as_bytes().len().min(DEVICE_NAME_MAX)];
        device = snapshot.interface_named(&IfName::from_bytes(bytes));
        if device.is_none() {
            return refuse(Phase::Setsockopt, Errno::ENODEV, Code::NO_SUCH_DEVICE);
        }
    }
    let v6only = match spec.v6only {
        V6Only::On => true,
        V6Only::Off => false,
        V6Only::System => snapshot.setting("net.ipv6.bindv6only").unwrap_or(0) != 0,
    };
    let place = Place { spec, snapshot, local, rights, v6only };
    let (device, doubt) = match spec.address {
        IpAddr::V4(v4) => (device, place.bind4(v4, device)?),
        IpAddr::V6(v6) => place.bind6(v6, device)?,
    };
    let address = Local::of(spec.address);
    let entry = Entry {
        protocol: spec.protocol,
        port: spec.port,
        inet6,
        local: address,
        v6only: Some(match address {
            Local::V4(_) => false,
            Local::V6(v6) => v6only || !v6.is_unspecified(),
        }),
        device: device.map_or(0, |device| device.index),
        vrf: device.map_or(0, |device| snapshot.vrf_of(device)),
        reuse_address: Some(spec.reuse_address),
        reuse_port: Some(spec.reuse_port),
        uid: Some(rights.uid),
        mark: Some(0),
        certain: doubt.is_none(),
        ordered: true,
    };
    Ok((entry, doubt))
}

struct Place<'a> {
    spec: &'a SocketSpec,
    snapshot: &'a Snapshot,
    local: &'a LocalAddresses,
    rights: Rights,
    v6only: bool,
}

impl<'a> Place<'a> {
    fn refused(errno: Errno, code: Code) -> Refusal {
        Refusal { phase: Phase::Bind, errno, code }
    }

    /// Whether any address can be bound (`inet_can_nonlocal_bind()`, `ipv6_can_nonlocal_bind()`).
    fn nonlocal(&self, setting: &str) -> bool {
        self.spec.freebind || self.spec.transparent || self.snapshot.setting(setting).unwrap_or(0) != 0
    }

    /// EACCES for a privileged port.
    fn port(&self) -> Result<(), Refusal> {
        let first_free = self.snapshot.setting("net.ipv4.ip_unprivileged_port_start").unwrap_or(1024);
        if self.spec.port != 0 && i64::from(self.spec.port) < first_free && !self.rights.privileged_ports {
            return Err(Place::refused(Errno::EACCES, Code::PRIVILEGED_PORT));
        }
        Ok(())
    }

    /// An AF_INET socket: first the address, then the port. The device does not matter, except for its VRF.
    fn bind4(&self, address: Ipv4Addr, device: Option<&Interface>) -> Result<Option<Code>, Refusal> {
        let doubt = self.own4(address, device)?;
        self.port()?;
        Ok(doubt)
    }

    /// Whether an IPv4 address can be bound (`inet_addr_valid_or_nonlocal()`). A broadcast address or a group can,
    /// although no connection can arrive there.
    fn own4(&self, address: Ipv4Addr, device: Option<&Interface>) -> Result<Option<Code>, Refusal> {
        if self.nonlocal("net.ipv4.ip_nonlocal_bind") {
            return Ok(None);
        }
        match self.local.ipv4(address, device.map(|device| device.index)) {
            Ipv4Kind::Local(_) | Ipv4Kind::Broadcast | Ipv4Kind::Multicast => Ok(None),
            Ipv4Kind::Foreign => {
                let elsewhere = self.local.has_address(IpAddr::V4(address));
                let code = if elsewhere { Code::ADDRESS_NOT_ON_DEVICE } else { Code::ADDRESS_NOT_HERE };
                Err(Place::refused(Errno::EADDRNOTAVAIL, code))
            }
            Ipv4Kind::Unknown => Ok(Some(Code::ADDRESS_NOT_HERE)),
        }
    }

    /// An AF_INET6 socket: first the port, then the address. A zone binds the socket to its interface and overrides
    /// SO_BINDTODEVICE.
    fn bind6(
        &self,
        address: Ipv6Addr,
        device: Option<&'a Interface>,
    ) -> Result<(Option<&'a Interface>, Option<Code>), Refusal> {
        let multicast = address.is_multicast();
        if multicast && self.spec.protocol == Protocol::Tcp {
            return Err(Place::refused(Errno::EINVAL, Code::INVALID_BIND));
        }
        self.port()?;
        if let Some(v4) = address.to_ipv4_mapped() {
            if self.v6only {
                return Err(Place::refused(Errno::EINVAL, Code::INVALID_BIND));
            }
            return Ok((device, self.own4(v4, device)?));
        }
        if address.is_unspecified() {
            return Ok((device, None));
        }
        let mut device = device;
        if has_zone(address) {
            if self.spec.scope_id != 0 {
                let zone = self.snapshot.interface(self.spec.scope_id);
                device = Some(zone.ok_or(Place::refused(Errno::ENODEV, Code::NO_SUCH_DEVICE))?);
            }
            if device.is_none() {
                return Err(Place::refused(Errno::EINVAL, Code::ZONE_NEEDED));
            }
        }
        if !multicast && !self.nonlocal("net.ipv6.ip_nonlocal_bind") {
            self.own6(address, device)?;
        }
        Ok((device, None))
    }

    /// Whether an IPv6 address can be bound (`ipv6_chk_addr()`): link-local and loopback addresses only on their own
    /// device.
    fn own6(&self, address: Ipv6Addr, device: Option<&Interface>) -> Result<(), Refusal> {
        let owners = self.local.ipv6_owners(address);
        let narrow = has_zone(address) || address.is_loopback();
        let here = |index: u32| device.is_none_or(|device| !narrow || device.index == index);
        let vrf = |interface: Option<&Interface>| interface.map_or(0, |i| self.snapshot.vrf_of(i));
        let reachable = |index: u32| here(index) && vrf(self.snapshot.interface(index)) == vrf(device);
        if owners.iter().any(|owner| owner.unusable.is_none() && reachable(owner.interface)) {
            return Ok(());
        }
        let state = owners.iter().find(|owner| here(owner.interface)).and_then(|owner| owner.unusable);
        let code = match state {
            Some(AddrState::Dadfailed) => Code::ADDRESS_DUPLICATE,
            Some(_) => Code::ADDRESS_TENTATIVE,
            None if has_zone(address) => Code::ZONE_NEEDED,
            None if !owners.is_empty() => Code::ADDRESS_NOT_ON_DEVICE,
            None if self.ipv6_is_off(address) => Code::FAMILY_UNAVAILABLE,
            None => Code::ADDRESS_NOT_HERE,
        };
        Err(Place::refused(Errno::EADDRNOTAVAIL, code))
    }

    /// Whether `disable_ipv6` explains a missing address.
    fn ipv6_is_off(&self, address: Ipv6Addr) -> bool {
        let off =
            |interface: &Interface| interface.settings.get("ipv6.disable_ipv6").is_some_and(|&v| v != 0);
        let mut concerned =
            self.snapshot.interfaces.iter().filter(|i| i.loopback || !address.is_loopback()).peekable();
        self.snapshot.setting("net.ipv6.conf.all.disable_ipv6").is_some_and(|v| v != 0)
            || (concerned.peek().is_some() && concerned.all(off))
    }
}

/// Whether an address needs a zone (`__ipv6_addr_needs_scope_id()` of `include/net/ipv6.h`): link-local addresses, and
/// groups of interface-local and link-local scope (RFC 4291, 2.7).
fn has_zone(address: Ipv6Addr) -> bool {
    address.is_unicast_link_local()
        || (address.is_multicast() && matches!(address.segments()[0] & 0xf, 1 | 2))
}
