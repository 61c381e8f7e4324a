//! Escapes of GitHub Actions' workflow commands.

/// Escapes in a message, which the runner decodes.
pub(super) fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Escapes in a property, which the runner decodes.
pub(super) fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
