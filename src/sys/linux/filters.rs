//! The packet filters of this network namespace: their tables, and their rules. Nothing is loaded to read them: a question to a
//! netfilter service that is not there would make the kernel load its module.

use std::io;
use std::path::Path;

use super::netlink::{Netlink, Service, attributes, until_nul};
use super::nftables::read::Unread;
pub use super::nftables::trace::Trace;
use super::nftables::{read, replay};
use crate::model::filters::PacketFilters;
use crate::model::ruleset::Ruleset;
use crate::sys::filter_types::Replayed;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE` of `linux/netfilter/nfnetlink.h` and `nf_tables.h`.
const GET_TABLE: u16 = 10 << 8 | 1;
/// `NFTA_TABLE_NAME`.
const TABLE_NAME: u16 = 1;
/// Length of `struct nfgenmsg`.
const HEADER: usize = 4;

/// The tables of nftables and of the older iptables, without their rules.
#[must_use]
pub fn packet_filters() -> PacketFilters {
    tables().0
}

/// The tables of nftables and of the older iptables, and all their rules. Without the rules, `unknown_because` says why.
#[must_use]
pub fn packet_filters_with_rules() -> PacketFilters {
    let (mut filters, legacy) = tables();
    if filters.unknown_because.is_some() {
        return filters;
    }
    let read = if may_be_asked() { read::ruleset() } else { Err(Unread::Absent) };
    match read {
        Ok(ruleset) => filters.ruleset = Some(ruleset),
        Err(Unread::Absent) => {
            filters.ruleset = Some(Ruleset { consistent: true, ..Ruleset::default() });
        }
        Err(why) => filters.unknown_because = Some(format!("nftables: {why}")),
    }
    if legacy {
        filters.ruleset = None;
        filters.unknown_because = Some("the rules of iptables-legacy are not read".to_owned());
    }
    filters
}

/// Replays the rules of a snapshot into the calling thread's network namespace, which is one of a lab and has no rules yet.
#[must_use]
pub fn replay_rules(ruleset: &Ruleset) -> Replayed {
    replay::replay(ruleset)
}

/// The tables, and whether some are of the older iptables.
fn tables() -> (PacketFilters, bool) {
    let mut filters = PacketFilters::default();
    let mut unknown_because = Vec::new();
    for (file, name) in [
        ("/proc/net/ip_tables_names", "iptables"),
        ("/proc/net/ip6_tables_names", "ip6tables"),
        ("/proc/net/arp_tables_names", "arptables"),
    ] {
        // `/proc/net` is the process's own namespace; a thread may be in another one.
        match std::fs::read_to_string(file.replace("/proc/net", "/proc/thread-self/net")) {
            Ok(text) => filters.tables.extend(text.lines().map(|table| format!("{name} {table}"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => unknown_because.push(format!("{name}: {error}")),
        }
    }
    let legacy = !filters.tables.is_empty();
    if may_be_asked() {
        match nftables() {
            Ok(tables) => filters.tables.extend(tables),
            Err(error) => unknown_because.push(format!("nftables: {error}")),
        }
    }
    filters.tables.sort();
    filters.unknown_because = (!unknown_because.is_empty()).then(|| unknown_because.join("; "));
    (filters, legacy)
}

/// Whether asking nftables cannot load a module: it is there already, or this kernel loads none.
fn may_be_asked() -> bool {
    let built_in = || {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let list = std::fs::read_to_string(format!("/lib/modules/{}/modules.builtin", release.trim()));
        list.is_ok_and(|list| list.lines().any(|line| line.ends_with("/nf_tables.ko")))
    };
    Path::new("/sys/module/nf_tables").exists() || !Path::new("/proc/modules").exists() || built_in()
}

fn nftables() -> Result<Vec<String>, String> {
    let mut kernel = Netlink::open(Service::Netfilter).map_err(|error| error.to_string())?;
    let dump = kernel.dump(GET_TABLE, &[0; HEADER]).map_err(|refusal| refusal.to_string())?;
    Ok(dump
        .messages()
        .filter_map(|(_, message)| {
            // Families are numbered as protocols are: `NFPROTO_*` of `linux/netfilter.h`.
            let family = match message.first()? {
                1 => "inet",
                2 => "ip",
                3 => "arp",
                5 => "netdev",
                7 => "bridge",
                10 => "ip6",
                _ => "other",
            };
            let name = attributes(message.get(HEADER..)?).find(|(kind, _)| *kind == TABLE_NAME)?.1;
            Some(format!("nftables {family} {}", String::from_utf8_lossy(until_nul(name))))
        })
        .collect())
}
