//! The identifier of this host in documents: the user's choice, or else the host's name.

use std::sync::OnceLock;

/// The user's choice, made once, before a command runs.
static CHOSEN: OnceLock<String> = OnceLock::new();

/// From now on identifies this host by `id` in documents. The first call decides.
pub fn set_host_id(id: String) {
    let _ = CHOSEN.set(id);
}

/// The chosen identifier, or else this name of the host.
pub(super) fn host_id(name: Option<&str>) -> Option<String> {
    CHOSEN.get().map(String::as_str).or(name).map(str::to_owned)
}
