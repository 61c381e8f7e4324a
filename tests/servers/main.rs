//! Real servers as their packages ship them: what `audit` tells of each, and where `connections` says their clients came in.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a test")]

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod expect;
mod start;

use std::process::ExitCode;

use support::netns::{harness, trial};

fn main() -> ExitCode {
    // The slow ones first, since several run at a time.
    harness(vec![
        trial("postgresql", expect::postgresql),
        trial("nginx", expect::nginx),
        trial("sshd", expect::sshd),
        trial("node", expect::node),
        trial("python", expect::python),
        trial("redis", expect::redis),
        trial("dnsmasq", expect::dnsmasq),
        trial("unbound", expect::unbound),
        trial("over_mptcp", clients::over_mptcp),
    ])
}
