//! Rulesets of packet filters: whatever bytes a snapshot has, they are refused with a name, or connections are predicted.

use bindscope::model::filters::PacketFilters;
use bindscope::model::ruleset::{LegacyTable, NftFamily, NftKind, NftObject, Ruleset};
use bindscope::model::{Protocol, Snapshot, Source};
use bindscope::plan::bind_check::Rights;
use bindscope::plan::filter::Filters;
use bindscope::plan::filter::published::published;
use bindscope::plan::filter::sources::{Compared, MOST};
use bindscope::plan::local_table::LocalAddresses;
use bindscope::plan::predict::predict_binds;
use bindscope::plan::reach::{self, steps::steps};

const KINDS: [NftKind; 7] = [
    NftKind::Table,
    NftKind::Chain,
    NftKind::Set,
    NftKind::Element,
    NftKind::Rule,
    NftKind::Object,
    NftKind::Flowtable,
];

/// Objects are `kind family length length attributes`; a kind from 8 on is a legacy table: its hooks, ten words for them, its blob.
pub fn ruleset(data: &[u8]) {
    let ruleset = read(data);
    let decoded = Filters::decode(&ruleset);
    match &decoded {
        Err(error) => super::assert_plain(&bindscope::escape::printable(&error.to_string())),
        Ok(filters) => {
            let compared = Compared::collect(filters);
            assert!(compared.prefixes.len() <= MOST);
            for one in published(filters) {
                let _ = one.by(filters).to_string();
            }
            for (index, chain) in filters.chains.iter().enumerate() {
                for rule in 0..chain.rules.len().min(16) {
                    super::assert_plain(&filters.decider(index, Some(rule)).to_string());
                }
            }
        }
    }
    let snapshot = host(ruleset);
    let local = LocalAddresses::new(&snapshot);
    let rights = Rights { uid: 1, privileged_ports: true, transparent: false };
    let binds = predict_binds(&[], &snapshot, rights, &[]);
    let destinations = reach::destinations(&snapshot, &local);
    let services = vec![(Protocol::Tcp, 22), (Protocol::Udp, 53)];
    let matrix = reach::predict_reach(
        &binds,
        &snapshot,
        &local,
        reach::sources(&snapshot),
        destinations.clone(),
        services,
    );
    for cell in &matrix.cells {
        let unknown = cell.predicted.outcome.is_none();
        // A result under rules that cannot be decoded is never certain.
        let filtered = cell.predicted.filtered.as_ref();
        assert!(decoded.is_ok() || unknown || filtered.is_none(), "{cell:?}");
    }
    if let Some(to) = destinations.first() {
        let _ =
            steps(&binds, &snapshot, &local, (&Source::Host, *to), (Protocol::Tcp, 22), &|_| String::new());
    }
}

fn read(mut data: &[u8]) -> Ruleset {
    let mut ruleset = Ruleset { consistent: true, ..Ruleset::default() };
    while let [kind, family, high, low, rest @ ..] = data {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (bytes, others) = rest.split_at(length);
        data = others;
        let family = NftFamily::ALL[usize::from(*family) % NftFamily::ALL.len()];
        match KINDS.get(usize::from(*kind)) {
            Some(kind) => ruleset.nftables.push(NftObject {
                kind: *kind,
                family,
                table: String::new(),
                chain: None,
                name: None,
                handle: None,
                text: None,
                attributes: bytes.to_vec(),
            }),
            None => {
                let word = |at: usize| {
                    bytes
                        .get(4 * at..4 * at + 4)
                        .map_or(0, |word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
                };
                ruleset.legacy.push(LegacyTable {
                    family,
                    table: ["filter", "nat", "mangle", "raw"][usize::from(*kind) % 4].to_owned(),
                    valid_hooks: word(0),
                    hook_entry: (1..6).map(word).collect(),
                    underflow: (6..11).map(word).collect(),
                    entries: 1,
                    blob: bytes.get(44..).unwrap_or_default().to_vec(),
                });
            }
        }
    }
    ruleset
}

fn host(ruleset: Ruleset) -> Snapshot {
    let filters =
        PacketFilters { tables: vec!["x".to_owned()], unknown_because: None, ruleset: Some(ruleset) };
    Snapshot { packet_filters: Some(filters), ..super::host::example() }
}
