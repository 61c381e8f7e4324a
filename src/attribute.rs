//! Stage `attribute`.
