//! Port conflicts on systems other than Linux, as far as their documentation is clear. What it leaves open is unknown.

use super::conflict::{Verdict, overlap};
use super::socket_table::{Entry, Local, Tables};
use crate::model::{Host, Protocol};

/// A system with rules of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elsewhere {
    /// "Using SO_REUSEADDR and SO_EXCLUSIVEADDRUSE" of the Winsock documentation. bindscope sets neither option there.
    Windows,
    /// bind(2) and setsockopt(2) of macOS and FreeBSD.
    Bsd,
}

impl Elsewhere {
    /// The system of a host; `None` for Linux, and for a host that does not name its system.
    #[must_use]
    pub fn of(host: &Host) -> Option<Elsewhere> {
        match host.system.as_str() {
            "windows" => Some(Elsewhere::Windows),
            "macos" | "freebsd" => Some(Elsewhere::Bsd),
            _ => None,
        }
    }

    /// Whether two sockets of one port conflict; `None` where the documentation does not decide.
    fn collides(self, new: &Entry, old: &Entry) -> Option<bool> {
        match overlap(new, old) {
            Some(false) => return Some(false),
            Some(true) if old.certain => {}
            _ => return None,
        }
        let same = new.local == old.local && new.inet6 == old.inet6 && new.v6only == old.v6only;
        // The scope ids of link-local addresses are not compared here.
        let zoned = matches!(new.local, Local::V6(v6) if v6.is_unicast_link_local());
        match self {
            // Whatever the first socket has set, a second one without options cannot have the same address.
            Elsewhere::Windows if same && !zoned => Some(true),
            // Of two sockets without options, one may have the wildcard and the other a single address. The options of other
            // programs' sockets are not known, and SO_EXCLUSIVEADDRUSE would refuse it.
            Elsewhere::Windows if !same && old.ordered && one_family(new, old) => Some(false),
            // Only SO_REUSEPORT on both permits a second socket with the address of one that listens.
            Elsewhere::Bsd
                if same
                    && !zoned
                    && new.protocol == Protocol::Tcp
                    && (new.reuse_port == Some(false) || old.reuse_port == Some(false)) =>
            {
                Some(true)
            }
            _ => None,
        }
    }
}

/// Whether both serve the same family and no other.
fn one_family(a: &Entry, b: &Entry) -> bool {
    a.inet6 == b.inet6 && (!a.inet6 || (a.v6only == Some(true) && b.v6only == Some(true)))
}

impl Tables {
    /// The result of `bind(2)` for `new` on this other system.
    pub(super) fn verdict_elsewhere(&self, system: Elsewhere, new: &Entry) -> Verdict {
        let Some(bucket) = self.buckets.get(&self.bucket_key(new)) else { return Verdict::Free };
        let (mut sure, mut perhaps) = (Vec::new(), Vec::new());
        for id in bucket.near(new.local) {
            match system.collides(new, &self.entries[id]) {
                Some(true) => sure.push(id),
                None => perhaps.push(id),
                Some(false) => {}
            }
        }
        match (sure.is_empty(), perhaps.is_empty()) {
            (true, true) => Verdict::Free,
            (false, _) => Verdict::InUse(sure),
            (true, false) => Verdict::Unknown(perhaps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(protocol: Protocol, address: &str, v6only: bool) -> Entry {
        Entry {
            protocol,
            port: 80,
            inet6: address.contains(':'),
            local: Local::of(address.parse().unwrap()),
            v6only: Some(v6only),
            device: 0,
            vrf: 0,
            reuse_address: Some(protocol == Protocol::Tcp),
            reuse_port: Some(false),
            uid: None,
            mark: None,
            certain: true,
            ordered: true,
        }
    }

    fn verdict(system: &str, old: Entry, new: &Entry) -> Verdict {
        let host = Host { system: system.to_owned(), ..Host::default() };
        let mut tables = Tables { elsewhere: Elsewhere::of(&host), ..Tables::default() };
        tables.insert(old, old.protocol == Protocol::Tcp);
        tables.bind_verdict(new)
    }

    #[test]
    fn windows_lets_a_wildcard_and_an_address_share_a_port() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let (any, one) = (entry(protocol, "0.0.0.0", false), entry(protocol, "127.0.0.1", false));
            assert_eq!(verdict("windows", any, &any), Verdict::InUse(vec![0]));
            assert_eq!(verdict("windows", any, &one), Verdict::Free);
            assert_eq!(verdict("windows", one, &any), Verdict::Free);
            // Another program's socket may be exclusive.
            let foreign = Entry { ordered: false, ..any };
            assert_eq!(verdict("windows", foreign, &one), Verdict::Unknown(vec![0]));
            assert_eq!(verdict("windows", foreign, &any), Verdict::InUse(vec![0]));
            let (six, dual) = (entry(protocol, "::", true), entry(protocol, "::", false));
            assert_eq!(verdict("windows", six, &any), Verdict::Free);
            assert_eq!(verdict("windows", dual, &any), Verdict::Unknown(vec![0]));
        }
    }

    #[test]
    fn other_systems_are_certain_of_equal_addresses_only() {
        let (any, one) = (entry(Protocol::Tcp, "0.0.0.0", false), entry(Protocol::Tcp, "127.0.0.1", false));
        for system in ["macos", "freebsd"] {
            assert_eq!(verdict(system, any, &any), Verdict::InUse(vec![0]));
            assert_eq!(verdict(system, any, &one), Verdict::Unknown(vec![0]));
            let shared = Entry { reuse_port: Some(true), ..any };
            assert_eq!(verdict(system, shared, &shared), Verdict::Unknown(vec![0]));
            let two = entry(Protocol::Tcp, "127.0.0.2", false);
            assert_eq!(verdict(system, one, &two), Verdict::Free);
        }
        assert_eq!(verdict("linux", any, &one), Verdict::InUse(vec![0]));
    }
}
