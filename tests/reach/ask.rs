//! Every cell of a matrix, connected for real in namespaces of the tests' own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bindscope::model::{Outcome, Source};
use bindscope::plan::predict::Holder;
use bindscope::plan::reach::{Cell, Destination, Matrix};
use bindscope::probe::attempt::{self, Attempt, Limits, Observation};
use bindscope::probe::run;
use bindscope::serve::bind::Bound;

use crate::support::netns::Netns;

/// Namespaces by the link that they are on or beyond.
pub type Ends<'a> = &'a [(String, Netns)];

/// Connects every cell from where its source is: the host, or the far end of a wire; `None` where there is neither. `answers`
/// says of which cells an answer is expected.
pub fn observe(
    ns: &Netns,
    (far, beyond): (Ends<'_>, Ends<'_>),
    matrix: &Matrix,
    bound: &[Bound],
    answers: &dyn Fn(usize) -> bool,
) -> Vec<Option<Observation>> {
    let place = |cell: &Cell| match &matrix.sources[cell.source] {
        Source::Link(name) => {
            far.iter().find(|(wire, _)| name.as_bytes() == wire.as_bytes()).map(|(_, far)| far)
        }
        Source::Host => Some(ns),
        Source::Beyond(name) => {
            beyond.iter().find(|(wire, _)| name.as_bytes() == wire.as_bytes()).map(|(_, beyond)| beyond)
        }
        Source::From(..) | Source::Node(_) => None,
    };
    let mut cells = Vec::new();
    let mut attempts = Vec::new();
    for (index, cell) in matrix.cells.iter().enumerate() {
        let Some(place) = place(cell) else { continue };
        let (protocol, port) = matrix.services[cell.service];
        let destination = matrix.destinations[cell.destination];
        let remote = !std::ptr::eq(place, ns);
        let to = address(destination, port, remote.then(|| place.index("far")));
        // Silence is waited for longer where an answer is expected: a busy machine proves nothing.
        let patience = Duration::from_millis(if answers(index) { 8_000 } else { 400 });
        cells.push(index);
        attempts.push(Attempt { protocol, to, patience });
    }
    let open = |number: usize| {
        let place = place(&matrix.cells[cells[number]]).unwrap();
        let attempt = &attempts[number];
        let source = matrix.cells[cells[number]].source_address;
        place.run(|| attempt::client(attempt, source.map(|source| (source.address, source.zone))))
    };
    let mut seen: Vec<Option<Observation>> = vec![None; matrix.cells.len()];
    let mut numbers: Vec<usize> = (0..attempts.len()).collect();
    // A client that could not even send (its kernel answers EINVAL once in a thousand hosts, and not the next moment) has not
    // asked the host anything, so it asks again. Whatever the host answered stands.
    for _ in 0..5 {
        let limits =
            Limits { in_flight: 400, deadline: Instant::now() + Duration::from_secs(40), ends: false };
        let round: Vec<Attempt> = numbers.iter().map(|&number| attempts[number]).collect();
        let mut open = |index: usize| open(numbers[index]);
        let observed = run::run(bound, &round, limits, &mut open, &mut |_| {}).unwrap();
        for (&number, observation) in numbers.iter().zip(observed) {
            assert!(observation.is_some(), "the deadline is far away");
            seen[cells[number]] = observation;
        }
        let failed = |number: &usize| {
            let cell = cells[*number];
            let seen = seen[cell].as_ref();
            // A connection that was made and that no process of this test saw says nothing, where no other program listens.
            let unseen = seen.is_some_and(|seen| seen.outcome == Outcome::Accepted && seen.taker.is_none())
                && matrix.cells[cell].predicted.takers.iter().all(|taker| matches!(taker, Holder::Own(_)));
            unseen
                || matrix.cells[cell].source != 0 && seen.is_some_and(|seen| seen.outcome == Outcome::Error)
        };
        numbers.retain(failed);
        if numbers.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    seen
}

/// A destination as a client has it: a zone is the client's own interface.
fn address(destination: Destination, port: u16, far: Option<u32>) -> SocketAddr {
    match SocketAddr::new(destination.address, port) {
        SocketAddr::V6(mut v6) if destination.zone != 0 => {
            v6.set_scope_id(far.unwrap_or(destination.zone));
            SocketAddr::V6(v6)
        }
        other => other,
    }
}
