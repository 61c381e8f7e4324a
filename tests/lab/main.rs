//! Labs: what is built, what is left of it, and whether plan and lab agree.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a test"
)]

#[path = "../support/mod.rs"]
mod support;

mod agree;
mod build;
mod program;

use std::process::ExitCode;

fn main() -> ExitCode {
    support::netns::harness(
        build::trials().into_iter().chain(agree::trials()).chain(program::trials()).collect(),
    )
}
