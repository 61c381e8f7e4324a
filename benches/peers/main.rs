//! The program beside bare loops and beside other programs: `cargo bench --bench peers [-- WORD...]` runs the works whose name
//! contains a word. All sides of a work take turns in one run, round by round, since machines drift; what counts is the ratio
//! within a round, and of those the median. CPU is that of the serving process, user and system. `BINDSCOPE_ROUNDS` (7) sets
//! the rounds. Needs network namespaces; programs that are not installed are named as absent.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a benchmark"
)]

mod bare;
mod enumerate;
mod lab;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/support/netns.rs"]
mod netns;
mod probe;
mod serve;
mod start;

use std::time::Duration;

use serde_json::json;

/// What one side did in one round.
#[derive(Clone, Copy)]
pub struct Cost {
    /// CPU time of the process, by unit of work.
    pub cpu: Duration,
    /// Wall time by unit of work.
    pub wall: Duration,
}

/// A side of a work: does it once.
pub struct Side<'a> {
    pub name: &'static str,
    pub run: Box<dyn FnMut() -> Cost + 'a>,
}

pub struct Bench {
    words: Vec<String>,
    rounds: usize,
    rows: Vec<serde_json::Value>,
}

impl Bench {
    pub fn wants(&self, work: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| work.contains(word.as_str()))
    }

    /// Runs all sides in turn and prints their medians; the first one is what the others are compared with. `goal` is the highest
    /// ratio of CPU time that the side `bindscope` may have.
    pub fn work(&mut self, work: &str, goal: Option<f64>, sides: Vec<Side<'_>>) {
        self.compare(work, goal, |cost| cost.cpu, sides);
    }

    /// As [`Bench::work`], where waiting is what costs: by wall time.
    pub fn work_by_wall(&mut self, work: &str, goal: Option<f64>, sides: Vec<Side<'_>>) {
        self.compare(&format!("{work} (ratio of wall time)"), goal, |cost| cost.wall, sides);
    }

    fn compare(
        &mut self,
        work: &str,
        goal: Option<f64>,
        measure: fn(&Cost) -> Duration,
        mut sides: Vec<Side<'_>>,
    ) {
        let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); sides.len()];
        // The first round warms up and is not counted.
        for round in 0..=self.rounds {
            for (side, costs) in sides.iter_mut().zip(&mut costs) {
                let cost = (side.run)();
                if round > 0 {
                    costs.push(cost);
                }
            }
        }
        println!("\n{work}");
        println!(
            "  {:<28} {:>12} {:>12} {:>8} {:>15} {:>6}",
            "", "CPU us", "wall us", "ratio", "quartiles", "goal"
        );
        let base = costs[0].clone();
        for (side, costs) in sides.iter().zip(&costs) {
            let micros =
                |of: fn(&Cost) -> Duration| quartiles(costs.iter().map(|cost| of(cost).as_secs_f64() * 1e6));
            let (cpu, wall) = (micros(|cost| cost.cpu), micros(|cost| cost.wall));
            let by = |of: fn(&Cost) -> Duration| {
                quartiles(
                    costs
                        .iter()
                        .zip(&base)
                        .map(|(cost, base)| of(cost).as_secs_f64() / of(base).as_secs_f64()),
                )
            };
            let (ratio, cpu_ratio, wall_ratio) = (by(measure), by(|cost| cost.cpu), by(|cost| cost.wall));
            let goal = goal.filter(|_| side.name.starts_with("bindscope"));
            let told = goal.map_or(String::new(), |goal| {
                format!("{goal:.2}{}", if ratio[1] <= goal { "" } else { " !" })
            });
            println!(
                "  {:<28} {:>12.2} {:>12.2} {:>8.3} {:>7.3}-{:<7.3} {told:>6}",
                side.name, cpu[1], wall[1], ratio[1], ratio[0], ratio[2]
            );
            self.rows.push(json!({
                "work": work, "side": side.name, "rounds": costs.len(), "goal": goal,
                "cpu_us": cpu, "wall_us": wall, "cpu_ratio": cpu_ratio, "wall_ratio": wall_ratio,
            }));
        }
    }
}

/// First quartile, median, third quartile.
fn quartiles(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

/// Whether a program is here; says so when it is not.
pub fn installed(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()));
    if !found {
        println!("absent: {program}");
    }
    found
}

/// Both ends of many connections are open at once.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let Some(role) = arguments.first().and_then(|first| first.strip_prefix("--bare=")) {
        if enumerate::helper(role, &arguments[1..]) {
            return;
        }
        bare::run(role, arguments.get(1).and_then(|number| number.parse().ok()).unwrap());
        return;
    }
    raise_file_limit();
    let rounds = std::env::var("BINDSCOPE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(7);
    let mut bench = Bench { words: arguments, rounds, rows: Vec::new() };
    if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
        println!(
            "not measured: {error} when making a network namespace (run it as root, or within `unshare -Ur`)"
        );
        return;
    }
    serve::all(&mut bench);
    enumerate::all(&mut bench);
    start::all(&mut bench);
    probe::all(&mut bench);
    lab::all(&mut bench);
    let path = concat!(env!("CARGO_TARGET_TMPDIR"), "/peers.json");
    std::fs::write(path, serde_json::to_string_pretty(&bench.rows).unwrap()).unwrap();
    println!("\nwritten to {path}; `!` marks a goal that is missed");
}
