//! Report documents: their reader, and the reports of `plan`, `probe`, `lab run` and `diff`.

pub mod bind_forms;
pub mod document;
pub mod expectations;
pub mod experiment;
pub mod extent;
pub mod json;
pub mod matrix;
pub mod network;
pub mod plan;
pub mod report_diff;
mod result;
pub mod results;
pub mod steps;
