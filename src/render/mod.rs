//! Values to text: what people see. Pure; colour and width are given.

pub mod audit;
pub mod connections;
pub mod diff;
pub mod interfaces;
pub mod live;
pub mod markdown;
mod paint;
pub mod plan;
mod row;
mod runs;
pub mod summary;
