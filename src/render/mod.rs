//! Stage `render`.

pub mod audit;
pub mod interfaces;
pub mod markdown;
pub mod summary;
