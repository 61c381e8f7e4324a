//! What the integration tests share: a harness for tests that need network namespaces, and a runner of the program.
#![allow(dead_code, reason = "each test crate uses a part")]

pub mod drained;
pub mod netns;
pub mod program;
pub mod random;
pub mod snapshot;
pub mod witness;

/// Whether a program that a test needs is here. When it is not, that is said; with `BINDSCOPE_REQUIRE_TOOLS` set it fails the test.
#[must_use]
pub fn tool(name: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(name).is_file()));
    if !found {
        eprintln!("not tested: there is no {name} here");
        assert!(std::env::var_os("BINDSCOPE_REQUIRE_TOOLS").is_none(), "{name} is required and missing");
    }
    found
}
