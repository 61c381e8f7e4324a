//! Stage `render`.

pub mod markdown;
