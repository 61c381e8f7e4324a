//! The rules of bind against the kernel that they describe: live sockets in namespaces of the tests' own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a test")]

mod forms;
mod oracle;
#[path = "../support/mod.rs"]
mod support;
mod wildcard;

use std::process::ExitCode;

use bindscope::model::Protocol;
use support::netns::{harness, trial};
use support::random::{self, Random};

use forms::{Form, Reuse};
use oracle::{Host, Mode};

fn main() -> ExitCode {
    harness(vec![
        trial("every_ordered_pair_of_tcp_sockets", || every_pair(Protocol::Tcp)),
        trial("every_ordered_pair_of_udp_sockets", || every_pair(Protocol::Udp)),
        trial("random_sets", random_sets),
        trial("random_crowds_on_one_udp_port", random_crowds),
        trial("the_kernels_own_table", wildcard::replay),
        trial("the_table_of_gos_net_package", wildcard::replay_go),
        trial("both_tables_as_the_doctor_replays_them", wildcard::replay_as_the_doctor),
        trial("sockets_that_cannot_be", forms::refused),
    ])
}

/// All ordered pairs of 11 address forms, 4 devices and 4 reuse settings.
fn every_pair(protocol: Protocol) {
    let host = Host::new();
    let specs: Vec<_> = Form::ALL
        .iter()
        .flat_map(|&form| forms::DEVICES.iter().map(move |&device| (form, device)))
        .flat_map(|(form, device)| Reuse::ALL.iter().map(move |&reuse| (form, device, reuse)))
        .map(|(form, device, reuse)| forms::spec(protocol, form, device, reuse))
        .collect();
    assert_eq!(specs.len(), 11 * 4 * 4);
    let modes = if protocol == Protocol::Tcp {
        &[Mode::ListenEach, Mode::ListenLast][..]
    } else {
        &[Mode::ListenEach]
    };
    let mut trials = 0;
    let mut wrong = Vec::new();
    host.run(|session| {
        for (number, first) in specs.iter().enumerate() {
            // The part must not always be the same columns of the square.
            for second in specs.iter().skip(number % random::portions()).step_by(random::portions()) {
                for &mode in modes {
                    trials += 1;
                    let set = [(first.clone(), 0), (second.clone(), 0)];
                    wrong.extend(session.compare(&set, mode));
                }
            }
        }
    });
    eprintln!("{trials} ordered pairs of {protocol} sockets");
    oracle::assert_none(&wrong, trials);
}

/// Sets of 1 to 6 sockets.
fn random_sets() {
    const SETS: usize = 24_000;
    let mut random = Random::seeded("random_sets");
    let host = Host::new();
    let mut wrong = Vec::new();
    host.run(|session| {
        for _ in 0..random::portion(SETS) {
            let protocol = *random.pick(&[Protocol::Tcp, Protocol::Udp]);
            let count = 1 + random.below(6);
            let set = forms::random_set(&mut random, protocol, count, session.other_users);
            let mode = *random.pick(&[Mode::ListenEach, Mode::ListenLast]);
            wrong.extend(session.compare(&set, mode));
        }
    });
    oracle::assert_none(&wrong, SETS);
}

/// Above ten sockets on a port, UDP looks elsewhere.
fn random_crowds() {
    const SETS: usize = 2_000;
    let mut random = Random::seeded("random_crowds_on_one_udp_port");
    let host = Host::new();
    let mut wrong = Vec::new();
    host.run(|session| {
        for _ in 0..random::portion(SETS) {
            let mut set = forms::random_set(&mut random, Protocol::Udp, 18, session.other_users);
            // Most must get in, or it never becomes a crowd.
            for (spec, uid) in &mut set {
                if !random.once_in(6) {
                    (spec.reuse_address, spec.reuse_port) = (true, true);
                    *uid = 0;
                }
            }
            wrong.extend(session.compare(&set, Mode::ListenEach));
        }
    });
    oracle::assert_none(&wrong, SETS);
}
