//! What looking costs in system calls: repeatable, so it can be held. A hundred times as much to see must not be a hundred times
//! as many calls.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::behind;
use crate::support::netns::Netns;
use crate::support::program::{PATIENCE, bindscope, finish, text};
use crate::support::tool;

/// All calls of a run in `ns`; its output is thrown away.
fn calls(ns: &Netns, arguments: &[&str]) -> u32 {
    let directory = tempfile::tempdir().unwrap();
    let table = directory.path().join("table");
    let wrapper = ["strace", "-f", "-qq", "-c", "-o", table.to_str().unwrap()];
    let mut command = behind(&wrapper, arguments);
    let status = ns.run(|| command.stdout(Stdio::null()).stderr(Stdio::null()).status()).unwrap();
    assert_eq!(status.code(), Some(0), "{arguments:?}");
    let text = std::fs::read_to_string(table).unwrap();
    // Columns: % time, seconds, usecs/call, calls, errors if any, name. A debug build looks at a descriptor with fcntl before it
    // closes it.
    let rows = text.lines().filter(|line| !line.ends_with(" total") && !line.ends_with(" fcntl"));
    rows.filter_map(|row| row.split_whitespace().nth(3)?.parse::<u32>().ok()).sum()
}

/// The further calls for each of the second thousand of what `more` brings, at best: others come and go on the machine meanwhile.
fn further(arguments: &[&str], bound: f64, mut more: impl FnMut(&Netns)) {
    let ns = Netns::new();
    more(&ns);
    let few: Vec<u32> = (0..3).map(|_| calls(&ns, arguments)).collect();
    more(&ns);
    let many: Vec<u32> = (0..3).map(|_| calls(&ns, arguments)).collect();
    let each = few.iter().zip(&many).map(|(few, many)| (f64::from(*many) - f64::from(*few)) / 1_000.0);
    let each = each.fold(f64::INFINITY, f64::min);
    eprintln!("{arguments:?}: {few:?}, then {many:?} calls, {each:.3} for each");
    assert!(each <= bound, "{arguments:?}: {each} system calls for each further one");
}

pub fn addresses_are_read_in_bulk() {
    if !tool("strace") {
        return;
    }
    for format in ["json", "csv", "human"] {
        let mut part = 0;
        further(&["interfaces", "--format", format], 0.05, |ns| {
            part += 1;
            let mut batch = String::new();
            for number in 0..1_000 {
                let _ = writeln!(batch, "address add 10.{part}.{}.{}/32 dev lo", number >> 8, number & 255);
            }
            let mut child =
                ns.run(|| Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn()).unwrap();
            child.stdin.take().unwrap().write_all(batch.as_bytes()).unwrap();
            assert!(child.wait().unwrap().success());
        });
    }
}

/// One readlinkat for each descriptor is what the kernel asks for its owner.
pub fn sockets_are_read_in_bulk_and_owners_one_by_one() {
    if !tool("strace") {
        return;
    }
    bindscope::sys::raise_file_limit();
    for (arguments, bound) in [
        (&["audit", "--no-owners", "--format", "json"][..], 0.05),
        (&["audit", "--no-owners", "--format", "csv"], 0.05),
        (&["audit", "--format", "csv"], 1.1),
    ] {
        let mut held = Vec::new();
        further(arguments, bound, |ns| {
            let first = 10_000 + u16::try_from(held.len()).unwrap();
            let bind = |port| TcpListener::bind(("127.0.0.1", port)).unwrap();
            ns.run(|| held.extend((first..first + 1_000).map(bind)));
        });
    }
}

/// Row 46: sockets and processes by the thousand are all told, with who holds them, within 100 MiB. `BINDSCOPE_LONG=inventory`
/// makes it 50,000 sockets and 5,000 processes.
pub fn many_sockets_and_processes_fit() {
    const EACH: usize = 1_000;
    let long = std::env::var("BINDSCOPE_LONG").is_ok_and(|long| long == "inventory");
    let (holders, listeners, others) = if long { (5, 10, 5_000) } else { (2, 2, 200) };
    let ns = Netns::new();
    let mut held = Vec::new();
    for holder in 1..=holders {
        let listener = |number: usize| {
            let first = 2_000 + number * EACH;
            let last = first + EACH - 1;
            format!(
                "[[listener]]\nname = 'many{number}'\nbind = '127.0.0.{holder}'\nport = '{first}-{last}'\nreply = 'none'\n"
            )
        };
        let listeners: String = (0..listeners).map(listener).collect();
        let (directory, path) = crate::profile(&format!("[limits]\nmax_sockets = 65536\n{listeners}"));
        let log = directory.path().join("log");
        let mut command = bindscope(&["listen", "--format", "ndjson", "-o", log.to_str().unwrap(), &path]);
        let child = ns.run(|| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()).unwrap();
        held.push((child, log, directory));
    }
    for (_, log, _) in &held {
        let begun = Instant::now();
        while !std::fs::read_to_string(log).is_ok_and(|told| told.contains("\"event\":\"listening\"")) {
            assert!(begun.elapsed() < PATIENCE, "it does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let mut sleepers: Vec<_> =
        (0..others).map(|_| Command::new("sleep").arg("600").spawn().unwrap()).collect();
    // The peak of the audit alone: this process has waited for larger children.
    const PEAK: &str = "import resource, subprocess, sys\nsubprocess.run(sys.argv[2:])\n\
                        open(sys.argv[1], 'w').write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))";
    let directory = tempfile::tempdir().unwrap();
    let peak = directory.path().join("peak");
    let mut audit = Command::new("python3");
    audit
        .args(["-c", PEAK])
        .arg(&peak)
        .arg(env!("CARGO_BIN_EXE_bindscope"))
        .args(["audit", "--format", "csv"]);
    let output = ns.run(|| finish(audit.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()));
    for child in sleepers.iter_mut().chain(held.iter_mut().map(|(child, ..)| child)) {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (stdout, stderr) = text(&output);
    let owned =
        stdout.lines().filter(|line| line.contains(",127.0.0.") && line.contains("bindscope")).count();
    assert_eq!(owned, holders * listeners * EACH, "{stderr}");
    let peak: u64 = std::fs::read_to_string(&peak).unwrap().parse().unwrap();
    eprintln!("{owned} sockets, {others} further processes, {peak} KiB at the most");
    assert!(peak < 100 << 10, "{peak} KiB");
}
