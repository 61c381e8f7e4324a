//! The tables that `doctor --kernel` replays: predicted, observed, and as their authors state them.

use bindscope::model::kernel_release::KnownDifference;
use bindscope::model::{Protocol, SocketSpec};
use bindscope::plan::bind_check::Rights;
use bindscope::probe::kernel_check::{Place, replay as replay_all};
use bindscope::probe::known_results::{Sequence, bind_wildcard, second_listen};

use crate::forms::PORT;
use crate::oracle::{Host, Mode};

const RIGHTS: Rights = Rights { uid: 0, privileged_ports: true, transparent: true };

fn set(sequence: &Sequence) -> Vec<(SocketSpec, u32)> {
    sequence.sockets.iter().map(|socket| (socket.clone(), 0)).collect()
}

pub fn replay() {
    let host = Host::new();
    let all = bind_wildcard(PORT);
    let known = KnownDifference::MappedWildcardOverlooked;
    let differs = known.applies_to(&host.snapshot().host).unwrap();
    let mut named = 0;
    host.run(|session| {
        for sequence in &all {
            let (predicted, observed) = session.bind_only(&set(sequence));
            let steps = sequence.sockets.iter().zip(observed.iter().zip(&sequence.expected));
            let odd: Vec<&SocketSpec> =
                steps.filter(|(_, (is, should))| is != should).map(|(socket, _)| socket).collect();
            named += odd.len();
            let mapped = |socket: &&SocketSpec| {
                let v4 = socket.address.to_canonical();
                socket.protocol == Protocol::Tcp
                    && socket.address.is_ipv6()
                    && v4.is_ipv4()
                    && !v4.is_unspecified()
            };
            assert!(differs && odd.iter().all(mapped) || odd.is_empty(), "{}: {observed:?}", sequence.name);
            assert_eq!(predicted, observed, "predicted and observed: {}", sequence.name);
            crate::oracle::assert_none(&session.compare(&set(sequence), Mode::ListenEach), 1);
        }
    });
    assert_eq!(differs, named > 0);
    if differs {
        eprintln!("known of this kernel, {named} times: {}", known.sentence());
    }
    assert_eq!(all.len(), 44 * 3 * 2);
}

pub fn replay_go() {
    let host = Host::new();
    let all = second_listen(PORT);
    host.run(|session| {
        for sequence in &all {
            let fates = session.predict(&set(sequence), Mode::ListenEach);
            let fine: Vec<bool> = fates.iter().map(Option::is_none).collect();
            assert_eq!(fine, sequence.expected, "{}", sequence.name);
            crate::oracle::assert_none(&session.compare(&set(sequence), Mode::ListenEach), 1);
        }
    });
    assert_eq!(all.len(), 17 * 2);
}

/// What `doctor --kernel` does with them, in both places; and with a snapshot that lies, so that a difference is seen to be told.
pub fn replay_as_the_doctor() {
    let host = Host::new();
    let here = host.snapshot();
    host.run(|_| {
        let all = replay_all(Place::Namespace, here, RIGHTS).unwrap();
        assert_eq!(all.differences, Vec::<String>::new());
        // TCP sequences of the kernel's table are opened a second time, to listen.
        assert_eq!((all.sequences, all.agree, all.skipped), (44 * 3 * 3 + 17 * 2, 44 * 3 * 3 + 17 * 2, 0));

        let loopback = replay_all(Place::Loopback, here, RIGHTS).unwrap();
        assert_eq!(loopback.differences, Vec::<String>::new());
        assert_eq!(loopback.sequences + loopback.skipped, all.sequences);
        assert!(loopback.sequences >= 6 * 3 * 3 && loopback.agree == loopback.sequences, "{loopback:?}");

        let mut lying = here.clone();
        for interface in &mut lying.interfaces {
            interface.addresses.retain(|address| address.address.is_ipv4());
        }
        let differs = replay_all(Place::Loopback, &lying, RIGHTS).unwrap();
        assert_eq!(differs.agree + differs.differences.len(), differs.sequences);
        let told = differs.differences.iter().find(|line| line.contains("::1")).unwrap();
        assert!(told.contains("predicted bind EADDRNOTAVAIL, observed success"), "{told}");
    });
}
