//! The ports of clients: which of them rules tell apart.
//!
//! A client's system chooses its port, from 32768 on or higher (Linux 32768 to 60999, RFC 6335 49152 to 65535). Most rulesets treat all
//! of these alike, and then one of them stands for all.

use std::collections::BTreeSet;

use super::decode::{Chain, Table};
use super::expression::Expression;
use super::sets::{Elements, Set};
use super::xt::Match;

/// The lowest port that a client's system chooses.
const LOWEST: u16 = 32_768;
/// Classes of ports that are followed; with more of them the port counts as unknown.
const MOST: usize = 16;

/// One port of each class that rules treat alike; empty where there are too many classes.
#[must_use]
pub fn classes(tables: &[Table], chains: &[Chain]) -> Vec<u16> {
    let mut starts = BTreeSet::from([LOWEST]);
    for expression in chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.expressions) {
        match expression {
            Expression::Compare { with, .. } => ends(&mut starts, with),
            Expression::Range { low, high, .. } => {
                ends(&mut starts, low);
                ends(&mut starts, high);
            }
            Expression::Match(Match::Ports { source, destination, .. }) => {
                for port in [source.low, source.high, destination.low, destination.high] {
                    both_sides(&mut starts, port);
                }
            }
            Expression::Match(Match::Multiport { ranges, .. }) => {
                ranges.iter().for_each(|(low, high)| {
                    both_sides(&mut starts, *low);
                    both_sides(&mut starts, *high);
                });
            }
            Expression::Match(Match::Conntrack(conntrack)) => {
                conntrack.ports.iter().flatten().for_each(|(low, high, _)| {
                    both_sides(&mut starts, *low);
                    both_sides(&mut starts, *high);
                });
            }
            _ => {}
        }
        if starts.len() > MOST {
            return Vec::new();
        }
    }
    for set in tables.iter().flat_map(|table| table.sets.values()) {
        keys(&mut starts, set);
        if starts.len() > MOST {
            return Vec::new();
        }
    }
    starts.into_iter().collect()
}

/// A class begins at a port that a rule names, and another one behind it.
fn both_sides(starts: &mut BTreeSet<u16>, port: u16) {
    starts.extend([Some(port), port.checked_add(1)].into_iter().flatten().filter(|port| *port > LOWEST));
}

/// Every field of a value that may be a port: two bytes, or the first two of each word of a concatenation.
fn ends(starts: &mut BTreeSet<u16>, value: &[u8]) {
    // Values of one byte, and those of 4 and 16 that are addresses or marks, are not ports.
    if let [high, low] = *value {
        both_sides(starts, u16::from_be_bytes([high, low]));
    }
}

fn keys(starts: &mut BTreeSet<u16>, set: &Set) {
    let mut key = |key: &[u8]| {
        if starts.len() > MOST {
            return;
        }
        if set.key_length == 2 {
            ends(starts, key);
        } else if set.key_length > 4 && set.key_length != 16 {
            // The other two bytes of a word that holds a port are zero.
            for word in key.chunks(4).filter(|word| word.len() == 4 && word[2..] == [0, 0]) {
                ends(starts, &word[..2]);
            }
        }
    };
    match &set.elements {
        Elements::Exact(all) => all.keys().for_each(|one| key(one)),
        Elements::Ranges(all) => all.iter().for_each(|(low, end, _)| {
            key(low);
            end.iter().for_each(|end| key(end));
        }),
        Elements::Fields(all, _) => all.iter().for_each(|(low, high, _)| {
            key(low);
            key(high);
        }),
    }
}
