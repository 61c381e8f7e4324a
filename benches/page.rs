//! What a page costs beside its JSON: `cargo bench --bench page`. Fails above three times the processor time.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    missing_docs,
    dead_code,
    reason = "a benchmark"
)]

#[path = "../tests/support/large_report.rs"]
mod large_report;

use std::hint::black_box;
use std::time::Duration;

use bindscope::render::html::{self, Part};
use nix::sys::resource::{UsageWho, getrusage};

/// A page may cost so many times its JSON.
const MOST: f64 = 3.0;

/// Processor time of this process.
fn used() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let time = usage.user_time();
    Duration::from_secs(time.tv_sec().try_into().unwrap())
        + Duration::from_micros(time.tv_usec().try_into().unwrap())
}

/// The shortest of some runs, and the length of the text.
fn best(run: &dyn Fn() -> String) -> (Duration, usize) {
    let runs = (0..15).map(|_| {
        let begun = used();
        let text = black_box(run());
        (used() - begun, text.len())
    });
    runs.min().unwrap()
}

fn main() {
    let mut worst: f64 = 0.0;
    for (listeners, interfaces, results) in [(4, 2, 108), (20, 8, 2_000), (100, 60, 20_000)] {
        let report = large_report::report(listeners, interfaces, results);
        // Small reports are repeated until the clock can tell them apart.
        let times = (20_000 / results).max(1);
        let repeated = |run: &dyn Fn() -> String| {
            best(&|| (1..times).map(|_| black_box(run())).last().unwrap_or_else(run))
        };
        let (json, json_size) = repeated(&|| serde_json::to_string_pretty(&report).unwrap());
        let (page, page_size) = repeated(&|| html::page(&[Part::Reach(&report)]));
        let ratio = page.as_secs_f64() / json.as_secs_f64();
        worst = worst.max(ratio);
        println!(
            "{results:>6} results  JSON {:>8.2} ms {json_size:>9} bytes  page {:>8.2} ms {page_size:>9} bytes  ratio {ratio:.2}",
            json.as_secs_f64() * 1000.0 / times as f64,
            page.as_secs_f64() * 1000.0 / times as f64,
        );
    }
    assert!(worst <= MOST, "a page costs {worst:.2} times its JSON, and {MOST} are allowed");
}
