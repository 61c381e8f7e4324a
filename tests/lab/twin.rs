//! Twins of hosts against the hosts themselves: every cell of the copy connected for real, and the same cell in the original.

mod kinds;

use std::fmt::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bindscope::lab::build::Lab;
use bindscope::lab::run::{Looked, Opened, Patience};
use bindscope::lab::twin::{self, Twin};
use bindscope::model::{FamilyExposure, Outcome, Snapshot, SocketSpec};
use bindscope::plan::expand::Expansion;
use bindscope::probe::{self, attempt::Observation};
use bindscope::serve::bind;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::agree::{differing, lab};
use crate::ask;
use crate::host::RandomHost;
use crate::support::netns::Netns;
use crate::support::program::{self, bindscope};
use crate::support::random::Random;

/// Hosts for each of the trials below.
const HOSTS: usize = 10;

macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        pub fn trials() -> Vec<Trial> {
            let random = (0..4).map(|part| {
                Trial::test(format!("twins_of_random_hosts_{part}"), move || { random_hosts(part); Ok(()) })
            });
            let own = [$(Trial::test(stringify!($name), || { $name(); Ok(()) })),*];
            random.chain(own).chain(kinds::trials()).collect()
        }
    };
}

trials! {
    a_twin_has_all_that_its_host_has,
    what_is_not_copied_is_told,
    an_ordinary_user_has_the_same_twin,
    the_twin_of_this_machine_is_asked_what_its_plan_is,
    a_snapshot_of_an_earlier_version_has_a_twin,
    neighbours_find_what_the_host_answers_for,
}

fn random_hosts(part: usize) {
    let mut random = Random::seeded(&format!("twins_of_random_hosts_{part}"));
    let (mut cells, mut accepted) = (0, 0);
    for number in 0..HOSTS {
        let host = RandomHost::new(&mut random);
        let more = complicate(&host, &mut random);
        let specs = host.sockets(&mut random);
        let compared = compare(&host.ns, &host.far, &specs);
        assert!(
            compared.wrong.is_empty(),
            "host {number}: {} of {} cells differ from their original\n{}{more}\n{specs:#?}\n{}",
            compared.wrong.len(),
            compared.cells,
            host.describe(),
            compared.wrong.iter().take(12).cloned().collect::<String>(),
        );
        cells += compared.cells;
        accepted += compared.accepted;
    }
    assert!(accepted * 10 > cells, "too few of the {cells} cells are accepted to prove anything: {accepted}");
    eprintln!("{HOSTS} hosts, {cells} cells, {accepted} accepted");
}

/// What a plan does not look at and a copy must have: labels, states, settings, rules and tables.
fn complicate(host: &RandomHost, random: &mut Random) -> String {
    let ns = &host.ns;
    let mut said = String::new();
    let mut ip = |words: &str| {
        ns.ip(words);
        let _ = writeln!(said, "{words}");
    };
    if random.once_in(2) {
        ip("address add 10.0.0.33/24 dev w0 label w0:label");
    }
    // IPv6 without a link-local address resolves neighbours by luck.
    if random.once_in(2) && host.describe().contains("fe80::0:1/64") {
        ip("-6 address add fd0a::1/64 dev w0 nodad preferred_lft 0");
        host.far[0].1.ip("-6 address add fd0a::2/64 dev far nodad");
    }
    if random.once_in(2) {
        ns.sysctl("net.ipv6.conf.w0.accept_dad", "1");
        ns.sysctl("net.ipv6.conf.w0.dad_transmits", "1000");
        ip("-6 address add fd0b::1/64 dev w0");
    }
    // Rules and filters at once make the answer to ARP depend on who asked first.
    let rules = random.once_in(2);
    if rules && random.once_in(2) {
        // The answer from one address takes another way than those from others.
        ip("rule add from 10.0.0.1 table 100 priority 1000");
        match random.below(3) {
            0 => ip("route add unreachable default table 100"),
            1 => ip("route add default dev w1 table 100"),
            _ => ip("route add default dev w0 table 100"),
        }
    }
    if rules && random.once_in(3) {
        ip("rule add not fwmark 7 to 10.1.0.0/24 prohibit priority 900");
    }
    if random.once_in(3) {
        ip("-6 rule add from fd00::1 blackhole priority 900");
    }
    if random.once_in(4) {
        ip("route add blackhole 10.1.0.128/25");
    }
    for (setting, most) in [("rp_filter", 3), ("accept_local", 2), ("src_valid_mark", 2)] {
        if !rules && random.once_in(3) {
            let which = if random.once_in(2) { "all" } else { "w1" };
            let value = random.below(most);
            ns.sysctl(&format!("net.ipv4.conf.{which}.{setting}"), &value.to_string());
            let _ = writeln!(said, "{which} {setting} {value}");
        }
    }
    for (number, (wire, far)) in host.far.iter().enumerate() {
        // An ordinary neighbour is in every network of its wire.
        if host.describe().contains(&format!("10.{number}.9.1/24")) {
            far.ip(&format!("address add 10.{number}.9.2/24 dev far"));
        }
        let link = ns.output(Command::new("ip").args(["-o", "link", "show", wire]));
        let link = String::from_utf8(link.stdout).unwrap();
        let mac = link.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
        // Whatever there is on the host, packets to it go there.
        for (hop, default) in [("169.254.0.1", "-4"), ("fe80::ffff", "-6")] {
            far.ip(&format!("neighbour replace {hop} lladdr {mac} dev far nud permanent"));
            far.ip(&format!("{default} route add default via {hop} dev far onlink"));
        }
    }
    said
}

struct Compared {
    cells: usize,
    accepted: usize,
    wrong: Vec<String>,
}

struct Copy {
    snapshot: Snapshot,
    twin: Twin,
    lab: Lab,
    opened: Opened,
}

impl Copy {
    fn of(ns: &Netns, specs: &[SocketSpec]) -> Copy {
        let snapshot = ns.run(bindscope::sys::snapshot).unwrap();
        let twin = twin::of(&snapshot);
        let lab = Lab::build(twin.plan.clone()).unwrap();
        assert_eq!(lab.gaps, Vec::<String>::new(), "{snapshot:#?}");
        let copy = lab.snapshot(lab.plan.host).unwrap();
        assert_eq!(twin::differences(&snapshot, &copy), Vec::<String>::new(), "{snapshot:#?}");
        let namespace = &lab.namespaces()[lab.plan.host];
        let sockets = namespace.run(|| probe::listeners::Opened::all(specs, &snapshot)).unwrap();
        let opened = Opened {
            sockets,
            expansion: Expansion::default(),
            snapshot: snapshot.clone(),
            services: Vec::new(),
        };
        Copy { snapshot, twin, lab, opened }
    }

    fn look(&self, patience: Duration) -> Looked {
        let patience = Patience { connect: patience, all: Duration::from_secs(40) };
        twin::run::look(&self.lab, &self.twin, &self.opened, patience, &mut |_, _| {}).unwrap()
    }
}

/// Binds the sockets in `ns` and in its twin, asks every cell in both, and tells what differs.
fn compare(ns: &Netns, far: &[(String, Netns)], specs: &[SocketSpec]) -> Compared {
    let copy = Copy::of(ns, specs);
    let mut wrong = Vec::new();
    let (mut bound, mut own) = (Vec::new(), Vec::new());
    ns.run(|| {
        for (index, spec) in specs.iter().enumerate() {
            if let Ok(socket) = bind::open(spec, FamilyExposure::default()) {
                bound.push(socket);
                own.push(index);
            }
        }
    });
    if own != copy.opened.sockets.owners {
        wrong.push(format!("  binds: {own:?} in the host, {:?} in the twin\n", copy.opened.sockets.owners));
        return Compared { cells: 0, accepted: 0, wrong };
    }
    let looked = copy.look(Duration::from_millis(400));
    let seen = ask::observe(ns, (far, &[]), &looked.plan.matrix, &bound, &|cell| {
        let is = looked.cells[cell].observed.as_ref().map(|seen| seen.outcome);
        matches!(is, Some(Outcome::Accepted | Outcome::Refused))
    });
    let differences = |looked: &Looked| -> Vec<String> {
        let cells = looked.cells.iter().zip(&seen);
        cells
            .filter_map(|(cell, seen)| {
                let (is, was) = (cell.observed.as_ref()?, seen.as_ref()?);
                let name = |index: Option<u32>| {
                    index.and_then(|index| copy.snapshot.interface(index)).map(|one| one.name.clone())
                };
                let taker = was.taker.map(|taker| specs[own[taker]].listener.clone());
                let remote = cell.source != bindscope::model::Source::Host;
                // Of sockets that share, the hash of the ports chooses one.
                let shared = |taker: &Option<String>| match taker {
                    Some(taker) if cell.predicted.candidates.contains(taker) => Some(cell.predicted.candidates[0].clone()),
                    taker => taker.clone(),
                };
                let original = (loss(was.outcome, remote), shared(&taker), name(was.ingress));
                let copied = (loss(is.outcome, remote), shared(&is.listener), is.ingress.clone());
                (original != copied).then(|| {
                    format!(
                        "  {} {} {} {}: {original:?} {:?} in the host, {copied:?} {:?} in the twin, predicted {:?}\n",
                        cell.source, cell.protocol, cell.destination, cell.port, was.errno, is.errno, cell.predicted
                    )
                })
            })
            .collect()
    };
    wrong = differences(&looked);
    if !wrong.is_empty() {
        // A busy machine is late with its answers.
        wrong = differences(&copy.look(Duration::from_secs(6)));
    }
    let seen: Vec<&Observation> = seen.iter().flatten().collect();
    let accepted = seen.iter().filter(|seen| seen.outcome == Outcome::Accepted).count();
    Compared { cells: seen.len(), accepted, wrong }
}

/// Who connects over a wire cannot tell a lost packet from a router's word.
fn loss(outcome: Outcome, remote: bool) -> Outcome {
    if remote && outcome == Outcome::Unreachable { Outcome::Timeout } else { outcome }
}

/// A host with something of everything, and the snapshot that the program writes of it.
struct Crowded {
    _ns: Netns,
    /// The other ends of its wires: they keep the carrier.
    _far: Netns,
    snapshot: tempfile::NamedTempFile,
}

impl Crowded {
    fn new() -> Crowded {
        let (ns, far) = (Netns::new(), Netns::new());
        // Link-local addresses come when the kernel has noticed a carrier; these are there at once.
        ns.sysctl("net.ipv6.conf.default.addr_gen_mode", "1");
        for name in ["eth0", "eth1", "port0"] {
            ns.wire(name, &far, name);
        }
        ns.sysctl("net.ipv6.conf.eth0.accept_dad", "1");
        ns.sysctl("net.ipv4.conf.all.rp_filter", "2");
        ns.sysctl("net.ipv4.conf.eth1.route_localnet", "1");
        ns.sysctl("net.ipv4.ip_unprivileged_port_start", "80");
        ns.sysctl("net.ipv6.bindv6only", "1");
        ns.sysctl("net.ipv6.conf.eth1.disable_ipv6", "1");
        far.ip("-6 address add 2001:db8:1::bad/64 dev eth0 nodad");
        for words in [
            "address add 192.0.2.1/24 dev eth0 label eth0:web",
            "address add 192.0.2.7/24 dev eth0",
            "address add 10.98.0.1/24 dev eth0 scope link",
            "address add 10.97.0.1/32 dev eth0 scope host",
            "address add 10.96.0.1/32 dev lo scope 77",
            "address add 10.9.0.1 peer 10.9.0.2/32 dev eth1",
            "-6 address add 2001:db8:1::1/64 dev eth0 nodad",
            "-6 address add 2001:db8:1::2/64 dev eth0 nodad preferred_lft 0",
            "-6 address add 2001:db8:1::bad/64 dev eth0",
            "address add 127.0.0.2/8 dev lo",
            "address add 10.77.0.1/32 dev lo",
            "link add br0 type bridge",
            "link set port0 master br0",
            "link set br0 up",
            "address add 10.88.0.1/24 dev br0",
            "link add mac0 link eth0 type macvlan mode bridge",
            "link set mac0 up",
            "address add 10.99.0.1/24 dev mac0",
            "-6 address add fe80::a/64 dev eth0 nodad",
            "-6 address add fe80::b/64 dev mac0 nodad",
            "-6 address add fe80::c/64 dev br0 nodad",
            "link add br1 type bridge",
            "link add p0 type veth peer name p1",
            "link set p0 master br1",
            "link set br1 up",
            "link del p0",
            "link add br2 type bridge",
            "link set br2 up",
            "link add down0 type veth peer name down1",
            "address add 10.66.0.1/24 dev down0",
            "route add default via 192.0.2.254 dev eth0",
            "-6 route add default via fe80::254 dev eth0",
            "route add 10.200.0.0/16 nexthop via 192.0.2.10 nexthop via 192.0.2.11",
            "route add 10.202.0.0/16 nexthop via 192.0.2.10 weight 5 nexthop via 192.0.2.11 weight 255",
            "-6 route add 2001:db8:202::/48 nexthop via 2001:db8:1::10 weight 3 nexthop via 2001:db8:1::11",
            "route append 10.203.0.0/16 via 192.0.2.12",
            "route append 10.203.0.0/16 via 192.0.2.10",
            "route add 10.204.0.0/16 via 192.0.2.12 src 192.0.2.7 mtu 1400 advmss 1200 metric 70",
            "route add 10.205.0.0/16 via 172.31.1.1 dev eth0 onlink",
            "route add 10.206.0.0/16 via inet6 fe80::254 dev eth0",
            "nexthop add id 7 via 192.0.2.13 dev eth0",
            "route add 10.207.0.0/16 nhid 7",
            "route add prohibit 10.208.0.0/16 metric 9",
            "route add broadcast 10.209.0.9 dev eth0 table local",
            "-6 route add unreachable 2001:db8:208::/48",
            "route add blackhole 10.201.0.0/16",
            "route add local 198.51.100.0/24 dev lo",
            "route add default via 10.9.0.2 dev eth1 table 500",
            "rule add from 10.9.0.1 table 500 priority 100",
            "rule add iif eth1 oif eth0 to 10.210.0.0/16 fwmark 0/0xf prohibit priority 300",
            "-6 rule add not fwmark 1/0xff table 600 suppress_prefixlength 0 priority 200",
        ] {
            ns.ip(words);
        }
        let begun = Instant::now();
        loop {
            let shown = ns.output(Command::new("ip").args(["-6", "address", "show", "dadfailed"])).stdout;
            if !shown.is_empty() {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "no address was found to be a duplicate");
            std::thread::sleep(Duration::from_millis(20));
        }
        far.ip("-6 address del 2001:db8:1::bad/64 dev eth0");
        crate::support::snapshot::settle_usable(&ns);
        let output = ns.output(&mut bindscope(&["interfaces", "--format", "json"]));
        assert!(output.status.success());
        let snapshot = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(snapshot.path(), &output.stdout).unwrap();
        Crowded { _ns: ns, _far: far, snapshot }
    }

    fn path(&self) -> &str {
        self.snapshot.path().to_str().unwrap()
    }

    fn document(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.snapshot.path()).unwrap()).unwrap()
    }
}

fn a_twin_has_all_that_its_host_has() {
    let host = Crowded::new();
    let own = env!("CARGO_BIN_EXE_bindscope");
    let output =
        program::run(&["lab", "shell", "--twin", host.path(), "--", own, "interfaces", "--format", "json"]);
    let (stdout, stderr) = program::text(&output);
    assert!(output.status.success(), "{stderr}");
    // Without a node it is the first one on a wire.
    let peer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(peer["interfaces"][1]["name"], "eth0");
    let output = program::run(&[
        "lab",
        "shell",
        "host",
        "--twin",
        host.path(),
        "--",
        own,
        "interfaces",
        "--format",
        "json",
    ]);
    let copy: Value = serde_json::from_slice(&output.stdout).unwrap();
    let original = host.document();
    let addresses = |document: &Value| -> Vec<String> {
        let interfaces = document["interfaces"].as_array().unwrap();
        let of = |interface: &Value| {
            let (name, index) = (interface["name"].clone(), interface["index"].clone());
            let up = (interface["up"].clone(), interface["running"].clone(), interface["mac"].clone());
            let addresses = interface["addresses"].as_array().unwrap().clone();
            addresses.into_iter().map(move |mut address| {
                // Whether it was checked for duplicates once does not matter any more.
                address["state"].as_array_mut().unwrap().retain(|state| state != "nodad");
                format!("{name} {index} {up:?} {address}")
            })
        };
        interfaces.iter().flat_map(of).collect()
    };
    assert_eq!(addresses(&original), addresses(&copy));
    assert!(addresses(&copy).iter().any(|address| address.contains("dadfailed")), "{:?}", addresses(&copy));
    // A next hop object is copied as the next hops that it stands for.
    let routes = |document: &serde_json::Value| -> Vec<serde_json::Value> {
        let mut routes = document["routes"].as_array().unwrap().clone();
        routes.iter_mut().for_each(|route| route["nexthop"] = serde_json::Value::Null);
        routes
    };
    assert_eq!(routes(&original), routes(&copy));
    for part in ["rules", "settings", "unsupported"] {
        assert_eq!(original[part], copy[part], "{part}");
    }
    assert_eq!(original["unsupported"], serde_json::json!([]));
    let running = |name: &str| {
        let mut interfaces = original["interfaces"].as_array().unwrap().iter();
        interfaces.find(|one| one["name"] == name).unwrap()["running"].clone()
    };
    assert_eq!((running("br1"), running("br2")), (false.into(), true.into()), "a port that went, and none");
}

/// What a copy has no place for, each with its own word.
fn what_is_not_copied_is_told() {
    let (ns, far) = (Netns::new(), Netns::new());
    for name in ["eth0", "eth1", "port0"] {
        ns.wire(name, &far, name);
    }
    ns.address("eth0", "10.1.0.1/24");
    ns.address("eth1", "10.2.0.1/24");
    for words in [
        "route add 10.3.0.0/16 tos 0x10 dev eth0",
        "-6 route add 2001:db8:3::/64 from 2001:db8:4::/64 dev eth0",
        "-6 route add 2001:db8:5::/64 dev eth0 pref high",
        "rule add ipproto tcp dport 80-90 uidrange 5-6 table 9 priority 50",
        "rule add goto 32766 priority 51",
        "rule add to 10.9.0.0/16 nop priority 52",
        "rule add tun_id 7 table 9 priority 53",
        "route del local 10.2.0.1 dev eth1 table local",
        "link add br0 type bridge stp_state 1",
        "link add mac0 link eth0 type macvlan mode private",
        "link set eth1 arp off",
        "link set eth1 multicast off",
    ] {
        ns.ip(words);
    }
    let copy = ns.run(bindscope::sys::snapshot).unwrap();
    let twin = twin::of(&copy);
    for told in [
        "the IPv4 rule with priority 53",
        "10.2.0.1 on eth1 has no local route",
        "the bridge br0 speaks the spanning tree protocol",
        "mac0 is a macvlan interface of the mode private",
        "eth1 answers no ARP",
    ] {
        assert!(twin.skipped.iter().any(|one| one.contains(told)), "{told}: {:#?}", twin.skipped);
    }
    let lab = Lab::build(twin.plan).unwrap();
    let differences = twin::differences(&copy, &lab.snapshot(lab.plan.host).unwrap());
    assert_eq!(differences, ["multicast of eth1 is true in the twin and not false"]);
}

/// What was seen in each cell.
fn seen(document: &Value) -> Vec<Value> {
    let cells = document["cells"].as_array().unwrap().iter();
    cells
        .map(|cell| {
            let observed = &cell["observed"];
            serde_json::json!([
                cell["source"],
                cell["destination"],
                cell["port"],
                observed["outcome"],
                observed["listener"],
                observed["ingress"]
            ])
        })
        .collect()
}

const SOCKETS: [&str; 6] = ["--bind", "0.0.0.0:81", "--bind", "[::]:8082", "--bind", "10.9.0.1:8083"];

fn an_ordinary_user_has_the_same_twin() {
    let host = Crowded::new();
    let mut arguments = vec!["lab", "run", "--format", "json", "--twin", host.path()];
    arguments.extend(SOCKETS);
    let (root, mut nobody) = (bindscope(&arguments), bindscope(&arguments));
    if std::fs::read_to_string("/proc/self/uid_map").unwrap().split_whitespace().nth(2) != Some("1") {
        std::fs::set_permissions(host.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        nobody.uid(65534).gid(65534);
    }
    let run = |mut command: Command| -> (Value, i32) {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = program::finish(child);
        let document = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {:?}", program::text(&output)));
        (document, output.status.code().unwrap())
    };
    let (document, exit) = run(root);
    let (unprivileged, _) = run(nobody);
    let (one, other) = (seen(&document), seen(&unprivileged));
    let unequal: Vec<_> = one.iter().zip(&other).filter(|(one, other)| one != other).collect();
    assert!(unequal.is_empty() && one.len() == other.len(), "{unequal:?}");
    assert_eq!(document["incomplete_because"], unprivileged["incomplete_because"]);
    // The settings of the host decide, not those of this machine.
    assert_eq!(document["sockets"][0]["bind"]["observed"]["outcome"], "ok");
    let cell = |source: &str, to: &str, port: u16| {
        let cells = document["cells"].as_array().unwrap().iter();
        let mut found = cells
            .filter(|cell| cell["source"] == source && cell["destination"] == to && cell["port"] == port);
        let cell = found.next().unwrap_or_else(|| panic!("{source} {to} {port}"));
        let observed = &cell["observed"];
        (
            observed["outcome"].as_str().unwrap_or("-").to_owned(),
            observed["ingress"].as_str().unwrap_or("-").to_owned(),
        )
    };
    let taken = |ingress: &str| ("accepted".to_owned(), ingress.to_owned());
    let nothing = |outcome: &str| (outcome.to_owned(), "-".to_owned());
    assert_eq!(cell("link:eth0", "192.0.2.1", 81), taken("eth0"));
    assert_eq!(cell("link:eth1", "127.0.0.1", 81), taken("eth1"), "route_localnet");
    assert_eq!(cell("link:br0", "10.66.0.1", 81), taken("br0"), "the address of an interface that is down");
    assert_eq!(cell("link:mac0", "10.99.0.1", 81), taken("mac0"));
    assert_eq!(cell("node:beyond", "198.51.100.1", 81), taken("eth0"), "an address of a local route");
    assert_eq!(cell("node:beyond", "2001:db8:1::2", 8082), taken("eth0"));
    // The rule sends answers of this address out by eth1, and a client at eth0 waits in vain.
    assert_eq!(cell("link:eth1", "10.9.0.1", 8083), taken("eth1"));
    assert_eq!(cell("link:eth0", "10.9.0.1", 8083), nothing("timeout"));
    let wrong = differing(&document).0;
    let against: Vec<_> = wrong.iter().filter(|cell| cell["agrees"] == false).collect();
    assert!(against.is_empty() && exit == 0, "{against:#?}");
    let notes = document["notes"].to_string();
    assert!(!notes.contains("link:down0"), "what is down is no source: {notes}");
}

fn the_twin_of_this_machine_is_asked_what_its_plan_is() {
    let sockets =
        ["--bind", "0.0.0.0:48101", "--bind", "[::]:48102,v6only=false", "--bind", "127.0.0.1:48103"];
    let mut arguments = vec!["--twin"];
    arguments.extend(sockets);
    let (document, exit) = lab(&arguments);
    assert!(matches!(exit, 0 | 1), "{document}");
    assert_eq!(document["schema"], "bindscope.lab/1");
    let because = document["incomplete_because"].as_array().unwrap();
    assert_eq!(document["complete"], because.is_empty());
    assert!(because.iter().all(|one| !one.as_str().unwrap().contains("in the twin and not")), "{because:?}");
    let mut arguments = vec!["plan", "--format", "json"];
    arguments.extend(sockets);
    let plan: Value = serde_json::from_slice(&program::run(&arguments).stdout).unwrap();
    let cells = document["cells"].as_array().unwrap();
    let key = |cell: &Value| {
        let key = ["source", "destination", "protocol", "port", "predicted"].map(|key| cell[key].to_string());
        key.join(" ")
    };
    let copied: Vec<String> = cells.iter().map(key).collect();
    for cell in plan["cells"].as_array().unwrap() {
        assert!(copied.contains(&key(cell)), "{cell}");
    }
    let host = cells.iter().filter(|cell| cell["source"] == "host");
    assert!(host.clone().count() > 0 && host.clone().all(|cell| cell["agrees"] == true), "{cells:#?}");
    // What stands behind --twin may be the profile.
    let (document, _) = lab(&["--twin", "loopback"]);
    assert_eq!((&document["profile"], &document["schema"]), (&"loopback".into(), &"bindscope.lab/1".into()));
    let (wrong, exit) = program::text(&program::run(&["lab", "run", "--twin", "missing.toml"]));
    assert!(exit.contains("BS0018") || exit.contains("BS0016"), "{wrong}{exit}");
}

fn a_snapshot_of_an_earlier_version_has_a_twin() {
    let host = Crowded::new();
    let mut document = host.document();
    for interface in document["interfaces"].as_array_mut().unwrap() {
        interface.as_object_mut().unwrap().remove("link");
        interface["settings"].as_object_mut().unwrap().remove("ipv4.src_valid_mark");
    }
    for rule in document["rules"].as_array_mut().unwrap() {
        for key in ["fwmask", "inverted", "suppress_prefix"] {
            rule.as_object_mut().unwrap().remove(key);
        }
    }
    for key in ["missing_default_rules", "packet_filters"] {
        document.as_object_mut().unwrap().remove(key);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), document.to_string()).unwrap();
    let mut arguments = vec!["--twin", file.path().to_str().unwrap()];
    arguments.extend(SOCKETS);
    let (document, _) = lab(&arguments);
    let because = document["incomplete_because"].to_string();
    assert!(because.contains("whether the host has any is not known"), "{because}");
    assert!(because.contains("mac0 (macvlan) is one end of a veth pair"), "{because}");
    assert_eq!(document["complete"], false);
    let cells = document["cells"].as_array().unwrap();
    let reached = cells.iter().filter(|cell| cell["observed"]["ingress"] == "mac0").count();
    assert!(reached > 0, "{cells:#?}");
    let output = program::run(&["lab", "run", "--twin", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(2), "{:?}", program::text(&output));
}

/// `arp_ignore`, which plans do not look at, since their sources are any clients whose packets arrive.
fn neighbours_find_what_the_host_answers_for() {
    let (ns, far) = (Netns::new(), Netns::new());
    ns.wire("eth0", &far, "eth0");
    ns.wire("eth1", &far, "eth1");
    ns.address("eth0", "10.1.0.1/24");
    ns.address("eth1", "10.1.0.9/32");
    ns.ip("route add 10.2.0.0/24 dev eth1");
    ns.sysctl("net.ipv4.conf.eth0.arp_ignore", "1");
    let specs = [crate::host::spec(bindscope::model::Protocol::Tcp, "0.0.0.0", 4000)];
    let copy = Copy::of(&ns, &specs);
    let looked = copy.look(Duration::from_secs(3));
    let outcome = |source: &str, to: &str| {
        let cell =
            looked.cells.iter().find(|cell| cell.source.to_string() == source && *cell.destination == *to);
        cell.unwrap().observed.as_ref().unwrap().outcome
    };
    assert_eq!(outcome("link:eth0", "10.1.0.1"), Outcome::Accepted);
    assert_eq!(outcome("link:eth0", "10.1.0.9"), Outcome::Unreachable, "on its network, and unanswered for");
    assert_eq!(outcome("link:eth1", "10.1.0.1"), Outcome::Accepted, "routed");
}
