//! What is built is what the topology says, and nothing is left of it.

use std::collections::BTreeSet;

use bindscope::lab::build::Lab;
use bindscope::lab::{builtin, ops};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("every_built_in_topology_is_built_as_written", || {
            every_built_in_topology_is_built_as_written();
            Ok(())
        }),
        Trial::test("labs_leave_nothing_behind", || {
            labs_leave_nothing_behind();
            Ok(())
        }),
    ]
}

fn every_built_in_topology_is_built_as_written() {
    for (name, _) in builtin::ALL {
        let topology = builtin::topology(name).unwrap();
        let lab = Lab::build(ops::plan(&topology)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(lab.gaps, Vec::<String>::new(), "{name}");
        for (index, node) in lab.plan.nodes.iter().enumerate() {
            let snapshot = lab.snapshot(index).unwrap();
            let is: BTreeSet<String> = snapshot
                .addresses()
                .filter(|(interface, address)| {
                    !interface.loopback && !bindscope::model::addr::needs_zone(address.address)
                })
                .map(|(interface, address)| {
                    format!("{} {}/{}", interface.name, address.address, address.prefix)
                })
                .collect();
            let ends = topology.links.iter().flat_map(|link| [&link.a, &link.b]);
            let ends = ends.map(|end| (&end.node, &end.interface, &end.addresses));
            let bridges =
                topology.bridges.iter().map(|bridge| (&bridge.node, &bridge.interface, &bridge.addresses));
            let asked: BTreeSet<String> = ends
                .chain(bridges)
                .filter(|(owner, ..)| *owner == node)
                .flat_map(|(_, interface, addresses)| {
                    addresses.iter().map(move |address| format!("{interface} {}", address.net))
                })
                .collect();
            assert_eq!(is, asked, "{name}: {node}");
            for interface in &snapshot.interfaces {
                assert!(interface.up && interface.running, "{name}: {node}: {interface:?}");
            }
        }
    }
}

/// Descriptors and threads of this process, and network namespaces that any process of ours holds.
fn held() -> (usize, usize, usize) {
    let descriptors: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .collect();
    let namespaces = descriptors.iter().filter(|link| link.to_string_lossy().starts_with("net:")).count();
    (descriptors.len(), std::fs::read_dir("/proc/self/task").unwrap().count(), namespaces)
}

fn labs_leave_nothing_behind() {
    let topology = builtin::topology("two-sided").unwrap();
    let plan = ops::plan(&topology);
    drop(Lab::build(plan.clone()).unwrap());
    let before = held();
    for _ in 0..100 {
        drop(Lab::build(plan.clone()).unwrap());
    }
    let after = held();
    // Trials that run beside this one hold some of their own.
    assert!(
        after.0 <= before.0 + 40 && after.1 <= before.1 + 8 && after.2 <= before.2 + 12,
        "{before:?} {after:?}"
    );
}
