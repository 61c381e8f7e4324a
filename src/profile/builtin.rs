//! The built-in profiles, from `profiles/`.

/// Name and text of each; the first is the default.
const ALL: &[(&str, &str)] = &[
    ("default", include_str!("../../profiles/default.toml")),
    ("loopback-vs-all", include_str!("../../profiles/loopback-vs-all.toml")),
    ("one-interface", include_str!("../../profiles/one-interface.toml")),
    ("link-local", include_str!("../../profiles/link-local.toml")),
    ("v6only-matrix", include_str!("../../profiles/v6only-matrix.toml")),
    ("v6only-experiment", include_str!("../../profiles/v6only-experiment.toml")),
    ("device", include_str!("../../profiles/device.toml")),
    ("udp", include_str!("../../profiles/udp.toml")),
    ("same-port", include_str!("../../profiles/same-port.toml")),
    ("loopback", include_str!("../../profiles/loopback.toml")),
    ("all-interfaces", include_str!("../../profiles/all-interfaces.toml")),
    ("tutorial", include_str!("../../profiles/tutorial.toml")),
];

/// Names of the built-in profiles.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}

/// Text of the profile with this name.
#[must_use]
pub fn get(name: &str) -> Option<&'static str> {
    ALL.iter().find(|(other, _)| *other == name).map(|(_, text)| *text)
}
