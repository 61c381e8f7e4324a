//! Works that end by themselves: reading addresses and sockets from the kernel.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::{Bench, Cost, Side, installed, netns::Netns};

/// CPU time of the children that have ended, user and system.
pub fn used_by_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    Duration::from_micros(
        u64::try_from((usage.user_time() + usage.system_time()).num_microseconds()).unwrap(),
    )
}

/// Runs a command to its end; its cost is CPU and wall time of the whole process.
fn whole(command: &mut Command) -> Cost {
    let (before, begun) = (used_by_children(), Instant::now());
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    let wall = begun.elapsed();
    assert!(status.code().is_some_and(|code| code < 2), "{command:?}: {status}");
    Cost { cpu: used_by_children() - before, wall }
}

pub fn side<'a>(ns: &'a Netns, name: &'static str, words: Vec<String>) -> Side<'a> {
    Side { name, run: Box::new(move || ns.run(|| whole(Command::new(&words[0]).args(&words[1..])))) }
}

pub fn words(program: &str, text: &str) -> Vec<String> {
    std::iter::once(program).chain(text.split_whitespace()).map(str::to_owned).collect()
}

pub const OURS: &str = env!("CARGO_BIN_EXE_bindscope");

pub fn all(bench: &mut Bench) {
    let directory = tempfile::tempdir().unwrap();
    for count in [1, 1_000, 10_000] {
        let work = format!("interfaces with {count} addresses");
        if !bench.wants(&work) || !installed("ip") {
            continue;
        }
        let ns = Netns::new();
        let batch = directory.path().join("batch");
        let lines: String = (0..count)
            .map(|number| {
                format!("address add 10.{}.{}.{}/32 dev lo\n", number >> 16, number >> 8 & 255, number & 255)
            })
            .collect();
        std::fs::write(&batch, lines).unwrap();
        ns.ip(&format!("-batch {}", batch.display()));
        bench.work(
            &work,
            Some(0.5),
            vec![
                side(&ns, "ip -j addr", words("ip", "-j addr")),
                side(&ns, "bindscope interfaces", words(OURS, "interfaces --format json")),
            ],
        );
    }
    for count in [1_000, 10_000] {
        let work = format!("inventory of {count} listening sockets");
        if !bench.wants(&work) || !installed("ss") {
            continue;
        }
        let ns = Netns::new();
        let _held: Vec<TcpListener> = ns.run(|| {
            (0..count).map(|number| TcpListener::bind(("127.0.0.1", 10_000 + number)).unwrap()).collect()
        });
        bench.work(
            &work,
            Some(0.6),
            vec![
                side(&ns, "ss -Htlnp", words("ss", "-Htlnp")),
                side(&ns, "ss -Htln", words("ss", "-Htln")),
                side(&ns, "bindscope audit (owners too)", words(OURS, "audit --format json")),
            ],
        );
    }
}
