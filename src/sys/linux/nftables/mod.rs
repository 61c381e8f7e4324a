//! nf_tables: read the rules of a network namespace, replay them into another one, and trace packets through them.

pub mod read;
pub mod replay;
mod strict;
pub mod trace;

pub use strict::{MATCHES, TARGETS};

use crate::model::ruleset::{NftFamily, NftKind, NftObject};

/// `NFNL_SUBSYS_NFTABLES` of `linux/netfilter/nfnetlink.h`.
const SUBSYSTEM: u8 = 10;
/// Length of `struct nfgenmsg`.
const HEADER: usize = 4;

/// The type of an nf_tables message (`enum nf_tables_msg_types` of `linux/netfilter/nf_tables.h`).
const fn message(number: u16) -> u16 {
    (SUBSYSTEM as u16) << 8 | number
}

/// A `struct nfgenmsg` with this family.
const fn header(family: u8) -> [u8; HEADER] {
    [family, 0, 0, 0]
}

/// The numbers of a kind's messages that make one and that list all.
const fn numbers(kind: NftKind) -> (u16, u16) {
    match kind {
        NftKind::Table => (0, 1),
        NftKind::Chain => (3, 4),
        NftKind::Rule => (6, 7),
        NftKind::Set => (9, 10),
        NftKind::Element => (12, 13),
        NftKind::Object => (18, 19),
        NftKind::Flowtable => (22, 23),
    }
}

/// An object in words, for a sentence: `table ip nat`, `rule 3 of chain ip nat DOCKER`.
fn words(object: &NftObject, place: Option<usize>) -> String {
    let escape = crate::escape::escape;
    let (family, table) = (object.family.name(), escape(&object.table));
    let name = object.name.as_deref().map(escape).unwrap_or_default();
    match object.kind {
        NftKind::Table => format!("table {family} {table}"),
        NftKind::Chain => format!("chain {family} {table} {name}"),
        NftKind::Set => format!("set {family} {table} {name}"),
        NftKind::Element => format!("elements of set {family} {table} {name}"),
        NftKind::Object => format!("object {family} {table} {name}"),
        NftKind::Flowtable => format!("flow table {family} {table} {name}"),
        NftKind::Rule => {
            let chain = object.chain.as_deref().map(escape).unwrap_or_default();
            let place = place.map_or_else(String::new, |place| format!(" {place}"));
            format!("rule{place} of chain {family} {table} {chain}")
        }
    }
}

/// The family of a message, by its `nfgen_family`.
fn family(payload: &[u8]) -> Option<NftFamily> {
    NftFamily::from_number(*payload.first()?)
}
