//! Shared parts of the integration tests: a harness for tests in network namespaces, and a runner of the program.
#![allow(dead_code, reason = "each test crate uses a part")]

pub mod drained;
pub mod large_report;
pub mod netns;
pub mod program;
pub mod random;
#[cfg(target_os = "linux")]
pub mod seccomp;
pub mod snapshot;
pub mod witness;

/// Whether a program that a test needs is installed. Otherwise prints that; with `BINDSCOPE_REQUIRE_TOOLS` the test
/// fails.
#[must_use]
pub fn tool(name: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(name).is_file()));
    if !found {
        eprintln!("not tested: {name} is not installed");
        assert!(std::env::var_os("BINDSCOPE_REQUIRE_TOOLS").is_none(), "{name} is required and missing");
    }
    found
}
