//! Works that end by themselves: reading addresses and sockets from the kernel.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
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
    for count in [1, 1_000, 10_000, 50_000] {
        let work = format!("interfaces with {count} addresses");
        if !bench.wants(&work) || !installed("ip") {
            continue;
        }
        let ns = Netns::new();
        let batch = directory.path().join("batch");
        std::fs::write(&batch, addresses(count)).unwrap();
        ns.ip(&format!("-batch {}", batch.display()));
        let sides = [
            ("ip -j addr", words("ip", "-j addr")),
            ("bindscope interfaces csv", words(OURS, "interfaces --format csv")),
            ("bindscope interfaces json", words(OURS, "interfaces --format json")),
            ("bindscope interfaces", words(OURS, "interfaces")),
            ("with --cross-check", words(OURS, "interfaces --format csv --cross-check")),
        ];
        compare(bench, &ns, &work, 0.5, &sides);
    }
    // The program of packages, as packaging/static leaves it.
    let packaged = format!("target/static/{}/bindscope", std::env::consts::ARCH);
    let work = "start of the packaged program, with one address";
    if bench.wants(work) && installed("ip") {
        if std::path::Path::new(&packaged).exists() {
            let ns = Netns::new();
            let batch = directory.path().join("batch");
            std::fs::write(&batch, addresses(1)).unwrap();
            ns.ip(&format!("-batch {}", batch.display()));
            let sides = [
                ("ip -j addr", words("ip", "-j addr")),
                ("bindscope --version", words(&packaged, "--version")),
            ];
            compare(bench, &ns, work, 0.6, &sides);
        } else {
            println!("absent: {packaged} (packaging/static)");
        }
    }
    for count in [1_000, 10_000, 100_000] {
        let inventory = format!("audit of {count} listening sockets, without owners");
        let owners = format!("audit of {count} listening sockets, with owners");
        if !(bench.wants(&inventory) || bench.wants(&owners)) || !installed("ss") {
            continue;
        }
        let ns = Netns::new();
        let _holders = Holders::of(&ns, count);
        if bench.wants(&inventory) {
            let sides = [
                ("ss -Htln", words("ss", "-Htln")),
                ("bindscope audit csv", words(OURS, "audit --no-owners --format csv")),
                ("bindscope audit json", words(OURS, "audit --no-owners --format json")),
            ];
            compare(bench, &ns, &inventory, 0.6, &sides);
        }
        if bench.wants(&owners) {
            let sides = [
                ("ss -Htlnp", words("ss", "-Htlnp")),
                ("bindscope audit csv", words(OURS, "audit --format csv")),
                ("bindscope audit json", words(OURS, "audit --format json")),
            ];
            compare(bench, &ns, &owners, if count > 10_000 { 0.1 } else { 0.6 }, &sides);
        }
    }
}

/// A batch for `ip` that gives the namespace `count` addresses, at most a thousand to an interface: the kernel looks through all of
/// an interface's addresses when one is added.
fn addresses(count: usize) -> String {
    let mut batch = String::new();
    for pair in 0..count.div_ceil(2_000) {
        batch += &format!(
            "link add v{pair} type veth peer name w{pair}\nlink set v{pair} up\nlink set w{pair} up\n"
        );
    }
    for number in 0..count {
        let end = if number / 1_000 % 2 == 0 { 'v' } else { 'w' };
        let (pair, [_, b, c, d]) = (number / 2_000, u32::try_from(number).unwrap().to_be_bytes());
        batch += &format!("address add 10.{b}.{c}.{d}/32 dev {end}{pair}\n");
    }
    batch
}

/// Times the sides, and then looks at the most memory that each one takes.
fn compare(bench: &mut Bench, ns: &Netns, work: &str, goal: f64, sides: &[(&'static str, Vec<String>)]) {
    let timed = sides.iter().map(|(name, words)| side(ns, name, words.clone())).collect();
    bench.work(work, Some(goal), timed);
    let ourselves = std::env::current_exe().unwrap();
    for (name, words) in sides {
        let output = ns.output(Command::new(&ourselves).arg("--bare=peak").args(words));
        let kibibytes: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        println!("  {name:<28} {:>12.1} MiB at most", kibibytes as f64 / 1024.0);
        bench.rows.push(serde_json::json!({ "work": work, "side": name, "peak_kib": kibibytes }));
    }
}

/// Processes that hold listening sockets, as many as their limit of open files makes it.
struct Holders(Vec<Child>);

impl Holders {
    const EACH: usize = 15_000;

    fn of(ns: &Netns, count: usize) -> Holders {
        let ourselves = std::env::current_exe().unwrap();
        let mut holders = Holders(Vec::new());
        for (number, first) in (0..count).step_by(Self::EACH).enumerate() {
            let address = format!("127.0.1.{number}");
            let size = Self::EACH.min(count - first).to_string();
            let mut command = Command::new(&ourselves);
            command.args(["--bare=hold", &size, &address]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = ns.run(|| command.spawn()).unwrap();
            let mut ready = String::new();
            BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
            assert_eq!(ready.trim(), size, "a holder of {size} sockets");
            holders.0.push(child);
        }
        holders
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // They end with their input.
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

/// Plays a part that needs a process of its own. Returns whether there is such a part.
pub fn helper(role: &str, arguments: &[String]) -> bool {
    match role {
        "hold" => {
            let count: usize = arguments[0].parse().unwrap();
            let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
            let bind = |number: usize| {
                let port = u16::try_from(10_000 + number).unwrap();
                TcpListener::bind((arguments[1].as_str(), port)).unwrap()
            };
            let held: Vec<TcpListener> = (0..count).map(bind).collect();
            println!("{}", held.len());
            let _ = std::io::stdin().read_line(&mut String::new());
        }
        "peak" => {
            whole(Command::new(&arguments[0]).args(&arguments[1..]));
            println!("{}", getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss());
        }
        _ => return false,
    }
    true
}
