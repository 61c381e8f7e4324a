//! `[lab]`: the network that a lab builds.

use toml::de::DeTable;

use super::keys::Keys;
use super::value::Problems;

/// The network that a lab builds.
#[derive(Debug, Clone, PartialEq)]
pub struct Lab {}

/// The keys of `[lab]`.
pub(super) static LAB: Keys = Keys { what: "[lab]", keys: &[] };

pub(super) fn read(_table: &DeTable<'_>, _problems: &mut Problems) -> Option<Lab> {
    None
}
