//! The packet filters of this network namespace: their tables, and their rules. Nothing is loaded to read them: a question to a
//! netfilter service that is not there would make the kernel load its module.

use std::io;
use std::path::Path;

use super::netlink::{Netlink, Service, attributes, until_nul};
use super::nftables::read::Unread;
pub use super::nftables::trace::Trace;
use super::nftables::{read, replay};
use super::{ipset, xtables};
use crate::model::filters::PacketFilters;
use crate::model::ruleset::{NftFamily, Ruleset};
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
    if filters.unknown_because.is_none() {
        match rules(&legacy) {
            Ok(ruleset) => filters.ruleset = Some(ruleset),
            Err(why) => filters.unknown_because = Some(why),
        }
    }
    if let Some(why) = &mut filters.unknown_because {
        why.push_str("; `sudo bindscope interfaces --json > host.json` reads all rules that can be read");
    }
    filters
}

/// The rules, where `legacy` lists the tables of the older iptables.
fn rules(legacy: &[(NftFamily, String)]) -> Result<Ruleset, String> {
    let read = if may_be_asked("nf_tables") { read::ruleset() } else { Err(Unread::Absent) };
    let mut ruleset = match read {
        Ok(ruleset) => ruleset,
        Err(Unread::Absent) => Ruleset { consistent: true, ..Ruleset::default() },
        Err(why) => return Err(format!("nftables: {why}")),
    };
    for (family, name) in legacy {
        if *family == NftFamily::Arp {
            return Err(format!("the rules of arptables {} are not read", crate::escape::escape(name)));
        }
        let table = xtables::table(*family, name);
        ruleset.legacy.push(table.map_err(|error| format!("iptables-legacy: {error}"))?);
    }
    if may_be_asked("ip_set") {
        ruleset.ipset = match ipset::sets() {
            Ok(sets) => sets,
            // A kernel without ipset.
            Err(refusal) if refusal.is(libc::EINVAL) || refusal.is(libc::EOPNOTSUPP) => Vec::new(),
            Err(refusal) => return Err(format!("ipset: {refusal}")),
        };
    }
    Ok(ruleset)
}

/// Replays the rules of a snapshot into the calling thread's network namespace, which is one of a lab and has no rules yet. Sets of
/// ipset come first, since rules refer to them.
#[must_use]
pub fn replay_rules(ruleset: &Ruleset) -> Replayed {
    let mut missing = ipset::replay(&ruleset.ipset);
    let mut replayed = replay::replay(ruleset);
    missing.append(&mut replayed.missing);
    missing.extend(xtables::replay(&ruleset.legacy));
    Replayed { missing, ..replayed }
}

/// The tables, and those of the older iptables with their families.
fn tables() -> (PacketFilters, Vec<(NftFamily, String)>) {
    let mut filters = PacketFilters::default();
    let mut legacy = Vec::new();
    let mut unknown_because = Vec::new();
    for (file, name, family) in [
        ("/proc/net/ip_tables_names", "iptables", NftFamily::Ip),
        ("/proc/net/ip6_tables_names", "ip6tables", NftFamily::Ip6),
        ("/proc/net/arp_tables_names", "arptables", NftFamily::Arp),
    ] {
        // `/proc/net` is the process's own namespace; a thread may be in another one.
        match std::fs::read_to_string(file.replace("/proc/net", "/proc/thread-self/net")) {
            Ok(text) => {
                filters.tables.extend(text.lines().map(|table| format!("{name} {table}")));
                legacy.extend(text.lines().map(|table| (family, table.to_owned())));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => unknown_because.push(format!("{name}: {error}")),
        }
    }
    if may_be_asked("nf_tables") {
        match nftables() {
            Ok(tables) => filters.tables.extend(tables),
            Err(error) => unknown_because.push(format!("nftables: {error}")),
        }
    }
    filters.tables.sort();
    filters.unknown_because = (!unknown_because.is_empty()).then(|| unknown_because.join("; "));
    (filters, legacy)
}

/// Whether asking a service cannot load its module: it is there already, or this kernel loads none.
fn may_be_asked(module: &str) -> bool {
    let built_in = || {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let list = std::fs::read_to_string(format!("/lib/modules/{}/modules.builtin", release.trim()));
        list.is_ok_and(|list| list.lines().any(|line| line.ends_with(&format!("/{module}.ko"))))
    };
    Path::new("/sys/module").join(module).exists() || !Path::new("/proc/modules").exists() || built_in()
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
