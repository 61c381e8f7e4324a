//! Values to text: what people see. Pure; colour and width are given.

pub mod audit;
pub mod connections;
mod csv;
pub mod diff;
pub mod interfaces;
pub mod listen;
pub mod markdown;
pub mod plan;
mod ranges;
mod style;
pub mod summary;
