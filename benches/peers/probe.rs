//! Sweeps of ports and addresses of this host where no socket listens, beside nmap's, each on one processor.

use crate::enumerate::{OURS, side, words};
use crate::netns::Netns;
use crate::{Bench, installed};

/// Holds a program to one processor.
const ONE: &str = "taskset";

pub fn all(bench: &mut Bench) {
    let directory = tempfile::tempdir().unwrap();
    let works = [
        ("probe 65,535 ports of 127.0.0.1", 0, "1-65535", "127.0.0.1"),
        ("probe 10 ports of 1,000 addresses", 1_000, "9000-9009", "10.0.0.0/16"),
    ];
    for (work, addresses, ports, to) in works {
        if !bench.wants(work) || !installed("nmap") || !installed(ONE) {
            continue;
        }
        let ns = Netns::new();
        ns.sysctl("net.ipv4.ip_local_port_range", "1024 65535");
        let list: Vec<String> = (0..addresses).map(|n| format!("10.0.{}.{}", n >> 8, n & 255)).collect();
        let (batch, targets) = (directory.path().join("batch"), directory.path().join("targets"));
        let lines: String = list.iter().map(|address| format!("address add {address}/32 dev lo\n")).collect();
        std::fs::write(&batch, lines).unwrap();
        ns.ip(&format!("-batch {}", batch.display()));
        std::fs::write(&targets, list.join("\n")).unwrap();
        let targets = if list.is_empty() { to.to_owned() } else { format!("-iL {}", targets.display()) };
        bench.work(
            work,
            Some(0.45),
            vec![
                side(
                    &ns,
                    "nmap -sT -Pn -n",
                    words(ONE, &format!("-c 0 nmap -sT -Pn -n -p {ports} {targets}")),
                ),
                side(
                    &ns,
                    "bindscope probe",
                    words(ONE, &format!("-c 0 {OURS} probe --ports {ports} --destinations {to}")),
                ),
            ],
        );
    }
}
