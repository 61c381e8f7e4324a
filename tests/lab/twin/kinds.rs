//! Kinds of interfaces in twins: pairs of the host's own, and where the kernel has them VRFs, dummies and VLANs.

use std::process::Command;
use std::time::{Duration, Instant};

use bindscope::model::Outcome;
use libtest_mimic::Trial;
use serde_json::Value;

use super::Copy;
use crate::support::netns::{Netns, trial};
use crate::support::program::bindscope;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("both_ends_of_a_pair_have_a_client", both_ends_of_a_pair_have_a_client),
        trial("vrfs_are_copied", vrfs_are_copied),
        trial("alternative_names_are_copied", alternative_names_are_copied),
        trial("dummies_and_vlans_are_wires", dummies_and_vlans_are_wires),
    ]
}

/// Where both ends of a veth pair are on the host, alone or in a bridge, a client connects all the same, and what is expected is decided.
fn both_ends_of_a_pair_have_a_client() {
    let (ns, far) = (Netns::new(), Netns::new());
    ns.sysctl("net.ipv6.conf.default.addr_gen_mode", "1");
    ns.wire("eth0", &far, "eth0");
    for words in [
        "link add a0 type veth peer name a1",
        "link add b0 type veth peer name b1",
        "link add br0 type bridge",
        "link set b1 master br0",
        "link set eth0 master br0",
        "address add 10.5.5.1/24 dev a0",
        "address add 10.8.8.1/24 dev a1",
        "address add 10.6.6.1/24 dev b0",
        "address add 10.7.7.1/24 dev br0",
        "-6 address add fd05::1/64 dev a0 nodad",
        "-6 address add fe80::5/64 dev a0 nodad",
        "link set a0 up",
        "link set a1 up",
        "link set b0 up",
        "link set b1 up",
        "link set br0 up",
    ] {
        ns.ip(words);
    }
    crate::support::snapshot::settle_usable(&ns);
    let begun = Instant::now();
    let runs = || {
        let now = ns.run(bindscope::sys::snapshot).unwrap();
        now.interfaces.iter().all(|one| one.loopback || one.running)
    };
    while !runs() {
        assert!(begun.elapsed() < Duration::from_secs(30), "a carrier is not noticed");
        std::thread::sleep(Duration::from_millis(20));
    }
    let specs = [
        crate::host::spec(bindscope::model::Protocol::Tcp, "0.0.0.0", 4000),
        crate::host::spec(bindscope::model::Protocol::Tcp, "::", 4001),
    ];
    let copy = Copy::of(&ns, &specs);
    assert_eq!(copy.twin.notes, Vec::<String>::new());
    let looked = copy.look(Duration::from_secs(3));
    let wrong: Vec<_> = looked.cells.iter().filter(|cell| cell.agrees != Some(true)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    for name in ["a0", "a1", "b0", "br0"] {
        let source = format!("link:{name}");
        let taken = looked.cells.iter().filter(|cell| {
            let seen = cell.observed.as_ref();
            cell.source.to_string() == source && seen.is_some_and(|seen| seen.ingress == Some(name.into()))
        });
        assert!(taken.count() >= 3, "{name}");
    }
    let profile = "schema = 1\n[[listener]]\nname = 'own'\nbind = '127.0.0.1'\nport = 4000\n[[listener]]\nname = 'all'\nbind = '0.0.0.0'\nport = 4001\n\
         [[expect]]\nlistener = 'own'\nonly_from = ['host']\n[[expect]]\nlistener = 'all'\nreachable_from = ['link:a0']\n";
    let profile = crate::support::program::toml_file(profile);
    let judged = || {
        let arguments = ["lab", "run", "--format", "json", "--twin", profile.path().to_str().unwrap()];
        let output = ns.output(&mut bindscope(&arguments));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        document["expectations"].clone()
    };
    let now = judged();
    assert_eq!((&now[0]["verdict"], &now[1]["verdict"]), (&"pass".into(), &"pass".into()), "{now}");
    // Of a wire without a carrier it is said why.
    ns.ip("link add c0 type veth peer name c1");
    ns.ip("link set c0 up");
    // A kernel may notice the other end a second late (docs/second-kernel.md).
    for _ in 0..500 {
        let shown = ns.output(Command::new("ip").args(["link", "show", "c0"]));
        if String::from_utf8_lossy(&shown.stdout).contains("NO-CARRIER") {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let now = judged();
    assert_eq!((&now[0]["verdict"], &now[1]["verdict"]), (&"undecided".into(), &"pass".into()), "{now}");
    let because = now[0]["because"].as_str().unwrap();
    assert!(
        because.ends_with(
            "link:c0 reaches it is not known: no client connects from there, because it has no carrier"
        ),
        "{because}"
    );
}

/// Whether this kernel has links of a kind. Where it has not, that is said, and fails the test where all are there.
fn has(kind: &str) -> bool {
    let made = Netns::new().output(Command::new("ip").args(format!("link add some type {kind}").split(' ')));
    if !made.status.success() {
        eprintln!(
            "not tested: this kernel makes no {kind}: {}",
            String::from_utf8_lossy(&made.stderr).trim()
        );
        assert!(std::env::var_os("BINDSCOPE_REQUIRE_VRF").is_none(), "they are required");
    }
    made.status.success()
}

/// A listener may name its device by an alternative name, also in a twin.
fn alternative_names_are_copied() {
    let (ns, far) = (Netns::new(), Netns::new());
    ns.sysctl("net.ipv6.conf.default.addr_gen_mode", "1");
    ns.wire("w0", &far, "far");
    for words in [
        "link property add dev w0 altname first-link altname a-name-with-more-than-fifteen-bytes",
        "address add 10.0.0.1/24 dev w0",
    ] {
        ns.ip(words);
    }
    crate::support::snapshot::settle_usable(&ns);
    let spec = bindscope::model::SocketSpec {
        device: Some("first-link".into()),
        ..crate::host::spec(bindscope::model::Protocol::Tcp, "0.0.0.0", 4000)
    };
    let copy = Copy::of(&ns, &[spec]);
    assert_eq!(copy.opened.sockets.bound.len(), 1);
    let names = &copy.opened.snapshot.interface_named(&"first-link".into()).unwrap().altnames;
    assert_eq!(names.len(), 2, "{names:?}");
    let looked = copy.look(Duration::from_secs(3));
    let wrong: Vec<_> = looked.cells.iter().filter(|cell| cell.agrees != Some(true)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let reached = |cell: &&bindscope::report::matrix::CellReport| {
        cell.source.to_string() == "link:w0" && cell.observed.as_ref().unwrap().outcome == Outcome::Accepted
    };
    assert_eq!(looked.cells.iter().filter(reached).count(), 1);
}

fn vrfs_are_copied() {
    if !has("vrf table 10") {
        return;
    }
    let ns = Netns::new();
    let far: Vec<Netns> = (0..3).map(|_| Netns::new()).collect();
    ns.sysctl("net.ipv6.conf.default.addr_gen_mode", "1");
    for (number, far) in far.iter().enumerate() {
        ns.wire(&format!("w{number}"), far, "far");
    }
    for words in [
        "link add blue type vrf table 10",
        "link add red type vrf table 2000",
        "link set blue up",
        "link set red up",
        "link set w1 master blue",
        "link set w2 master red",
        "address add 10.0.0.1/24 dev w0",
        "address add 10.1.0.1/24 dev w1",
        "-6 address add fd01::1/64 dev w1 nodad",
        "-6 address add fe80::1/64 dev w1 nodad",
        // The same network twice is what VRFs are for.
        "address add 10.1.0.1/24 dev w2",
        "address add 10.77.0.1/32 dev blue",
        "route add table 10 unreachable default metric 4278198272",
        "route add 10.9.0.0/16 via 10.1.0.9 vrf red",
        "-6 rule del priority 1000",
        "-6 rule add l3mdev priority 900",
    ] {
        ns.ip(words);
    }
    crate::support::snapshot::settle_usable(&ns);
    let spec = |address: &str, device: Option<&str>, port: u16| bindscope::model::SocketSpec {
        device: device.map(bindscope::model::IfName::from),
        listener: port.to_string(),
        ..crate::host::spec(bindscope::model::Protocol::Tcp, address, port)
    };
    let specs = [
        spec("0.0.0.0", None, 4000),
        spec("0.0.0.0", Some("blue"), 4001),
        spec("10.1.0.1", Some("red"), 4002),
        spec("10.0.0.1", None, 4003),
        spec("::", Some("blue"), 4004),
    ];
    let copy = Copy::of(&ns, &specs);
    assert!(!copy.twin.skipped.iter().any(|one| one.contains("vrf")), "{:?}", copy.twin.skipped);
    assert_eq!(copy.opened.sockets.bound.len(), specs.len());
    let looked = copy.look(Duration::from_secs(3));
    let wrong: Vec<_> = looked.cells.iter().filter(|cell| cell.agrees != Some(true)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let taken = |source: &str, to: &str, port: u16| {
        let mut cells = looked.cells.iter();
        let cell = cells
            .find(|cell| cell.source.to_string() == source && *cell.destination == *to && cell.port == port)
            .unwrap_or_else(|| panic!("{source} {to} {port}"));
        cell.observed.as_ref().unwrap().outcome == Outcome::Accepted
    };
    for (source, to, port, wanted) in [
        ("link:w0", "10.0.0.1", 4000, true),
        ("link:w1", "10.1.0.1", 4000, false),
        ("link:w1", "10.1.0.1", 4001, true),
        ("link:w1", "10.77.0.1", 4001, true),
        ("link:w2", "10.1.0.1", 4001, false),
        ("link:w2", "10.1.0.1", 4002, true),
        ("link:w1", "fd01::1", 4004, true),
    ] {
        assert_eq!(taken(source, to, port), wanted, "{source} {to} {port}");
    }
}

fn dummies_and_vlans_are_wires() {
    if !has("dummy") {
        return;
    }
    let (ns, far) = (Netns::new(), Netns::new());
    ns.sysctl("net.ipv6.conf.default.addr_gen_mode", "1");
    ns.wire("eth0", &far, "eth0");
    for words in [
        "link add dummy0 type dummy",
        "link set dummy0 up",
        "address add 10.3.0.1/32 dev dummy0",
        "address add 10.4.0.1/24 dev eth0",
        "link add link eth0 name eth0.7 type vlan id 7",
        "link set eth0.7 up",
        "address add 10.5.0.1/24 dev eth0.7",
    ] {
        ns.ip(words);
    }
    crate::support::snapshot::settle_usable(&ns);
    let specs = [
        crate::host::spec(bindscope::model::Protocol::Tcp, "0.0.0.0", 4000),
        crate::host::spec(bindscope::model::Protocol::Tcp, "10.3.0.1", 4001),
    ];
    let copy = Copy::of(&ns, &specs);
    for said in ["dummy0 (dummy) is one end of a veth pair", "eth0.7 (vlan) is one end of a veth pair"] {
        assert!(copy.twin.skipped.iter().any(|one| one.contains(said)), "{:?}", copy.twin.skipped);
    }
    let looked = copy.look(Duration::from_secs(3));
    let wrong: Vec<_> = looked.cells.iter().filter(|cell| cell.agrees != Some(true)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(!looked.cells.iter().any(|cell| cell.source.to_string() == "link:dummy0"), "no client is there");
    for (source, to) in [("link:eth0", "10.3.0.1"), ("link:eth0.7", "10.5.0.1"), ("link:eth0.7", "10.3.0.1")]
    {
        let mut cells = looked.cells.iter();
        let found = cells.find(|cell| cell.source.to_string() == source && *cell.destination == *to);
        assert_eq!(found.unwrap().observed.as_ref().unwrap().outcome, Outcome::Accepted, "{source} {to}");
    }
}
