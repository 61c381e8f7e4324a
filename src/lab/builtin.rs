//! The built-in topologies.

use crate::model::topology::Topology;
use crate::profile::lab;

/// Name and text of each; the first is the default.
pub const ALL: &[(&str, &str)] = &[
    ("two-sided", include_str!("topologies/two-sided.toml")),
    ("three-links", include_str!("topologies/three-links.toml")),
    ("router", include_str!("topologies/router.toml")),
    ("bridge", include_str!("topologies/bridge.toml")),
    ("v4-only", include_str!("topologies/v4-only.toml")),
    ("v6-only", include_str!("topologies/v6-only.toml")),
    ("link-local-only", include_str!("topologies/link-local-only.toml")),
    ("asymmetric", include_str!("topologies/asymmetric.toml")),
];

/// The text of the topology of this name.
#[must_use]
pub fn get(name: &str) -> Option<&'static str> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The topology of this name.
#[must_use]
pub fn topology(name: &str) -> Option<Topology> {
    lab::parse(name, get(name)?).ok().map(|lab| lab.topology)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_topology_is_good_and_described() {
        for (name, text) in ALL {
            let lab = lab::parse(name, text).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
            assert_eq!(lab.name, *name);
            assert!(lab.topology.description.is_some(), "{name}");
            assert_eq!(lab.topology.problems(), Vec::<String>::new(), "{name}");
        }
    }
}
