//! What a connection costs in instructions of user space, counted by callgrind: the same on a busy machine and a quiet one, so
//! it can be held. `cargo bench --bench cost` counts a run with few clients and one with many; the difference is what the
//! clients cost, without start and end. Ends with 1 when there are more than a twentieth above the goal.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a benchmark"
)]

#[path = "../tests/support/drained.rs"]
mod drained;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/support/netns.rs"]
mod netns;

use std::process::{Command, ExitCode};

const FEW: u32 = 256;
const MANY: u32 = 1280;

/// Instructions of a whole run that takes so many connections.
fn instructions(clients: u32, reply: &str, request: &[u8]) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let profile = directory.path().join("callgrind");
    let profile = format!("--callgrind-out-file={}", profile.to_str().unwrap());
    drained::drained(
        &["valgrind", "--log-file=/dev/null", "--tool=callgrind", &profile],
        usize::try_from(clients).unwrap(),
        reply,
        request,
    );
    // `totals: N`, one for each part that is written.
    let text = std::fs::read_to_string(directory.path().join("callgrind")).unwrap();
    text.lines().filter_map(|line| line.strip_prefix("totals: ")?.trim().parse::<u64>().ok()).sum()
}

fn main() -> ExitCode {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("not counted: there is no valgrind here");
        return ExitCode::from(u8::from(std::env::var_os("BINDSCOPE_REQUIRE_TOOLS").is_some()));
    }
    if let Err(reason) = netns::prepare() {
        println!("not counted: {reason}");
        return ExitCode::from(u8::from(std::env::var_os("BINDSCOPE_REQUIRE_NETNS").is_some()));
    }
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n";
    let mut result = ExitCode::SUCCESS;
    // Names at the time of arrival cost some 100 instructions, and the check of the Host header with the limits of replies some
    // 900: docs/performance.md states the trade.
    for (what, reply, request, goal) in [
        ("recorded", "none", &b""[..], 1_650),
        ("recorded and answered over HTTP", "describe", request, 6_650),
    ] {
        let (few, many) = (instructions(FEW, reply, request), instructions(MANY, reply, request));
        let each = (many - few) / u64::from(MANY - FEW);
        println!("a connection that is {what}: {each} instructions in user space, goal {goal}");
        if each * 20 > goal * 21 {
            println!("more than a twentieth above the goal");
            result = ExitCode::FAILURE;
        }
    }
    result
}
