//! Whether there are tables of packet filters in this network namespace. Nothing is loaded to find out: a question to a
//! netfilter service that is not there would make the kernel load its module.

use std::io;
use std::path::Path;

use super::netlink::{Netlink, Service, attributes, until_nul};
use crate::model::filters::PacketFilters;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE` of `linux/netfilter/nfnetlink.h` and `nf_tables.h`.
const GET_TABLE: u16 = 10 << 8 | 1;
/// `NFTA_TABLE_NAME`.
const TABLE_NAME: u16 = 1;
/// Length of `struct nfgenmsg`.
const HEADER: usize = 4;

/// The tables of nftables and of the older iptables.
#[must_use]
pub fn packet_filters() -> PacketFilters {
    let mut filters = PacketFilters::default();
    let mut unseen = Vec::new();
    for (file, name) in [
        ("/proc/net/ip_tables_names", "iptables"),
        ("/proc/net/ip6_tables_names", "ip6tables"),
        ("/proc/net/arp_tables_names", "arptables"),
    ] {
        // `/proc/net` is the process's own namespace; a thread may be in another one.
        match std::fs::read_to_string(file.replace("/proc/net", "/proc/thread-self/net")) {
            Ok(text) => filters.tables.extend(text.lines().map(|table| format!("{name} {table}"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => unseen.push(format!("{name}: {error}")),
        }
    }
    if may_be_asked() {
        match nftables() {
            Ok(tables) => filters.tables.extend(tables),
            Err(error) => unseen.push(format!("nftables: {error}")),
        }
    }
    filters.tables.sort();
    filters.unknown_because = (!unseen.is_empty()).then(|| unseen.join("; "));
    filters
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
