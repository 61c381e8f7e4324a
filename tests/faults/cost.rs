//! What a connection costs in system calls: repeatable, so it can be held.

use std::time::Instant;

use crate::support::drained::drained;
use crate::support::program::PATIENCE;
use crate::support::tool;

/// All calls of a run that takes `clients` connections, which wait in the queue when it looks.
fn calls(clients: usize, reply: &str, request: &[u8]) -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let table = directory.path().join("table");
    drained(&["strace", "-D", "-f", "-qq", "-c", "-o", table.to_str().unwrap()], clients, reply, request);
    // The tracer writes its table when the program has ended.
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(&table).unwrap_or_default();
        if text.contains(" total") {
            // Columns: % time, seconds, usecs/call, calls, errors if any, name. A debug build looks at a descriptor with fcntl
            // before it closes it.
            let rows = text.lines().filter(|line| !line.ends_with(" total") && !line.ends_with(" fcntl"));
            return rows.filter_map(|row| row.split_whitespace().nth(3)?.parse::<f64>().ok()).sum();
        }
        assert!(begun.elapsed() < PATIENCE, "{text}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
/// accept4, getsockopt, close; with an answer recv and send too. The twentieth part above it is what a batch of them shares.
pub fn a_connection_costs_three_calls_and_an_answer_two_more() {
    if !tool("strace") {
        return;
    }
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (reply, request, goal) in [("none", &b""[..], 3.1), ("describe", request, 5.1)] {
        let (few, many) = (calls(64, reply, request), calls(1344, reply, request));
        let each = (many - few) / 1280.0;
        eprintln!("{reply}: {each:.3} system calls for a connection");
        assert!(each >= 3.0 && each <= goal * 1.05, "{reply}: {each} system calls for a connection");
    }
}
