//! The profiles of `profiles/`, compiled in.

/// Name and text of every one, the default first.
const ALL: &[(&str, &str)] = &[("default", include_str!("../../profiles/default.toml"))];

/// Their names.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}

/// The text of the profile of this name.
#[must_use]
pub fn get(name: &str) -> Option<&'static str> {
    ALL.iter().find(|(other, _)| *other == name).map(|(_, text)| *text)
}
