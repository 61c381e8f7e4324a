//! Text output from values. Pure: colour and width are parameters.

pub mod audit;
mod causes;
pub mod connections;
mod csv;
pub mod diff;
pub mod experiment;
mod filter;
pub mod html;
pub mod interfaces;
mod junit;
pub mod listen;
pub mod markdown;
mod matrix;
pub mod plan;
mod ranges;
pub mod steps;
mod style;
pub mod summary;
pub mod table;
pub mod tutorial;
pub mod why;
mod workflow;
