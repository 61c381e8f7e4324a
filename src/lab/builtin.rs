//! The topologies that the program brings along.

use std::ops::Range;

use serde::Deserialize;

use crate::model::topology::Topology;

/// Name and text of each, the default one first.
pub const ALL: &[(&str, &str)] = &[
    ("two-sided", include_str!("topologies/two-sided.toml")),
    ("three-wires", include_str!("topologies/three-wires.toml")),
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

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// A sentence.
    pub message: String,
    /// Bytes of the text; `None` when it is about the whole.
    pub span: Option<Range<usize>>,
}

/// The `[lab]` part of a file, whatever else the file holds; `None` when it has none.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str) -> Result<Option<Topology>, Vec<Fault>> {
    #[derive(Deserialize)]
    struct Outer {
        lab: Option<Topology>,
    }
    let outer: Outer = toml::from_str(text)
        .map_err(|error| vec![Fault { message: error.message().to_owned(), span: error.span() }])?;
    let Some(topology) = outer.lab else { return Ok(None) };
    let problems: Vec<Fault> =
        topology.problems().into_iter().map(|message| Fault { message, span: None }).collect();
    if problems.is_empty() { Ok(Some(topology)) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_topology_is_good_and_described() {
        for (name, text) in ALL {
            let topology = parse(text).unwrap_or_else(|faults| panic!("{name}: {faults:?}")).unwrap();
            assert!(topology.description.is_some(), "{name}");
            assert!(topology.links.len() + topology.bridges.len() > 0, "{name}");
        }
    }
}
