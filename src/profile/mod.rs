//! Stage `profile`.
