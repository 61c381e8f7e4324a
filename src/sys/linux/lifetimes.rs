//! How long addresses are valid, by rtnetlink(7).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::netlink::{Netlink, Service, attributes, read};
use crate::model::{Lifetime, ListeningSocket};

/// `RTM_GETADDR` of `linux/rtnetlink.h`.
const RTM_GETADDR: u16 = 22;
/// Length of `struct ifaddrmsg`.
const HEADER: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
/// The kernel's lifetime without an end.
const FOREVER: u32 = u32::MAX;

/// Lifetimes of the addresses that these sockets are bound to, without those that stay. Nothing is asked when all are wildcards or
/// loopback.
pub(super) fn of_bound(sockets: &[ListeningSocket]) -> BTreeMap<IpAddr, Lifetime> {
    let wanted: BTreeSet<IpAddr> = sockets
        .iter()
        .map(|socket| socket.view.address.to_canonical())
        .filter(|address| !address.is_unspecified() && !address.is_loopback())
        .collect();
    if wanted.is_empty() {
        return BTreeMap::new();
    }
    // A refusal costs a note only.
    let dump = Netlink::open(Service::Route)
        .map_err(Into::into)
        .and_then(|mut kernel| kernel.dump(RTM_GETADDR, &[0; HEADER]));
    let Ok(dump) = dump else { return BTreeMap::new() };
    dump.messages()
        .filter_map(|(_, message)| lifetime(message))
        .filter(|(address, _)| wanted.contains(address))
        .collect()
}

/// An address and its lifetime, when that has an end or its preferred lifetime is over.
fn lifetime(message: &[u8]) -> Option<(IpAddr, Lifetime)> {
    let (mut address, mut local, mut times) = (None, None, None);
    for (kind, value) in attributes(message.get(HEADER..)?) {
        let bytes = || match value.len() {
            4 => read::<4>(value, 0).map(IpAddr::from),
            _ => read::<16>(value, 0).map(IpAddr::from),
        };
        match kind {
            IFA_ADDRESS => address = bytes(),
            IFA_LOCAL => local = bytes(),
            // `struct ifa_cacheinfo`: seconds it is preferred, seconds it is valid.
            IFA_CACHEINFO => times = read(value, 0).zip(read(value, 4)),
            _ => {}
        }
    }
    let (preferred, valid) =
        times.map(|(preferred, valid)| (u32::from_ne_bytes(preferred), u32::from_ne_bytes(valid)))?;
    let lifetime = Lifetime { deprecated: preferred == 0, valid: (valid != FOREVER).then_some(valid) };
    // Of a link with a peer the own address is the local one.
    let address = local.or(address)?;
    (lifetime.deprecated || lifetime.valid.is_some()).then_some((address, lifetime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_end_is_told() {
        let message = |preferred: u32, valid: u32| {
            let mut bytes = vec![0; HEADER];
            bytes.extend([8, 0, 1, 0, 10, 0, 0, 9]);
            bytes.extend([8, 0, 2, 0, 10, 0, 0, 5]);
            bytes.extend([20, 0, 6, 0]);
            bytes.extend([preferred, valid, 0, 0].map(u32::to_ne_bytes).concat());
            bytes
        };
        let found = |preferred, valid| lifetime(&message(preferred, valid));
        let at = |deprecated, valid| Some((IpAddr::from([10, 0, 0, 5]), Lifetime { deprecated, valid }));
        if cfg!(target_endian = "little") {
            assert_eq!(found(FOREVER, FOREVER), None);
            assert_eq!(found(200, 300), at(false, Some(300)));
            assert_eq!(found(0, 300), at(true, Some(300)));
            assert_eq!(found(0, FOREVER), at(true, None));
        }
        assert_eq!(lifetime(&[]), None);
    }
}
