//! Stage `render`.

pub mod interfaces;
pub mod markdown;
pub mod summary;
