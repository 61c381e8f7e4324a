//! Works that end by themselves: binding many sockets, and reading addresses and sockets from the kernel.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::{Bench, Cost, Side, installed, netns::Netns};

/// Runs a command to its end; its cost is CPU and wall time of the whole process.
fn whole(command: &mut Command) -> Cost {
    let used = || {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
        Duration::from_micros(
            u64::try_from((usage.user_time() + usage.system_time()).num_microseconds()).unwrap(),
        )
    };
    let (before, begun) = (used(), Instant::now());
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    let wall = begun.elapsed();
    assert!(status.code().is_some_and(|code| code < 2), "{command:?}: {status}");
    Cost { cpu: used() - before, wall }
}

fn side<'a>(ns: &'a Netns, name: &'static str, words: Vec<String>) -> Side<'a> {
    Side { name, run: Box::new(move || ns.run(|| whole(Command::new(&words[0]).args(&words[1..])))) }
}

fn words(program: &str, text: &str) -> Vec<String> {
    std::iter::once(program).chain(text.split_whitespace()).map(str::to_owned).collect()
}

const OURS: &str = env!("CARGO_BIN_EXE_bindscope");

pub fn all(bench: &mut Bench) {
    let directory = tempfile::tempdir().unwrap();
    for count in [10, 1_000, 10_000] {
        let work = format!("start with {count} listeners");
        if !bench.wants(&work) {
            continue;
        }
        let ns = Netns::new();
        let profile = directory.path().join(format!("{count}.toml"));
        // A listener takes so many ports at the most; more of them take more.
        let text: String = (0..count)
            .step_by(1_000)
            .map(|first| {
                let last = 9_999 + (first + 1_000).min(count);
                format!("[[listener]]\nname = 'many{first}'\nbind = '127.0.0.1'\nport = '{}-{last}'\nreply = 'none'\n", 10_000 + first)
            })
            .collect();
        let text = format!("schema = 1\nname = 'many'\n[limits]\nmax_sockets = 20000\n{text}");
        std::fs::write(&profile, text).unwrap();
        let log = directory.path().join("log");
        let ours = format!("listen --format ndjson --for 1ms -o {} {}", log.display(), profile.display());
        let bare = std::env::current_exe().unwrap();
        bench.work(
            &work,
            Some(1.3),
            vec![
                side(&ns, "bare bind loop", words(bare.to_str().unwrap(), &format!("--bare=bind {count}"))),
                side(&ns, "bindscope listen", words(OURS, &ours)),
            ],
        );
    }
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
