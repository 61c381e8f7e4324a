//! `probe --ports`: this host's own ports and addresses, with any listener.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support;
use crate::support::netns::Netns;
use crate::support::program::{bindscope, finish, text};
use crate::{exits, json, run};

/// Ports whose outcome is this, in order.
fn ports(report: &Value, outcome: &str) -> Vec<u64> {
    let cells = report["cells"].as_array().unwrap().iter();
    cells
        .filter(|cell| cell["observed"]["outcome"] == outcome)
        .map(|cell| cell["port"].as_u64().unwrap())
        .collect()
}

/// Of all ports exactly those answer that have a listener, ours and another program's, and all of it was predicted. A person
/// gets a page of it.
pub fn every_port_is_swept() {
    let ns = Netns::new();
    ns.sysctl("net.ipv4.ip_local_port_range", "1024 65535");
    let _other = ns.run(|| TcpListener::bind("127.0.0.1:8100")).unwrap();
    let sweep = ["probe", "--bind", "127.0.0.1:8101", "--ports", "1-65535", "--destinations", "127.0.0.1"];
    let wait = ["--connect-timeout", "300ms", "--format"];
    let output = run(&ns, &[&sweep[..], &wait, &["json"]].concat());
    exits(&output, 0);
    let report = json(&output);
    assert_eq!(report["cells"].as_array().unwrap().len(), 65_535);
    assert_eq!(ports(&report, "accepted"), [8100, 8101]);
    assert_eq!(ports(&report, "refused").len(), 65_533);
    assert_eq!((&report["summary"]["agree"], &report["summary"]["disagree"]), (&65_535.into(), &0.into()));
    let cell = |port: usize| &report["cells"][port - 1];
    assert_eq!(cell(8101)["observed"]["listener"], "bind1");
    assert_eq!((&cell(8100)["predicted"]["why"], &cell(8100)["agrees"]), (&"BS3024".into(), &true.into()));
    let short = text(&run(&ns, &[&sweep[..], &wait, &["human"]].concat())).0;
    assert!(short.lines().count() < 15, "{short}");
    let human = text(&run(&ns, &[&sweep[..], &wait, &["human", "-v"]].concat())).0;
    assert!(human.lines().count() < 40, "{human}");
    assert!(human.contains("tcp ports 1-8099, 8102-65535\n"), "{human}");
    assert!(human.contains("tcp port 8100\n"), "{human}");
    // Without a profile nothing is bound.
    let output = run(&ns, &[&["probe"], &sweep[3..], &wait, &["csv"]].concat());
    exits(&output, 0);
    let csv = text(&output).0;
    assert_eq!(csv.lines().count(), 65_536);
    assert_eq!(csv.lines().filter(|line| line.contains(",accepted,")).count(), 1);
}

/// Where the kernel has no other ports to choose from than those that are asked for, clients meet themselves.
pub fn a_sweep_does_not_meet_itself() {
    let ns = Netns::new();
    ns.sysctl("net.ipv4.ip_local_port_range", "20000 20007");
    let words = ["probe", "--ports", "20000-20007", "--destinations", "lo", "--format", "json"];
    for _ in 0..20 {
        let output = run(&ns, &words);
        exits(&output, 0);
        // 127.0.0.1 and ::1.
        assert_eq!(ports(&json(&output), "refused").len(), 16);
    }
}

/// Sockets that are used for many ports keep an address, and it is the one that the kernel chooses for each destination.
pub fn a_sweep_comes_from_where_the_kernel_chooses() {
    let ns = Netns::new();
    ns.ip("address add 192.0.2.1/24 dev lo");
    let places = ["127.0.0.1", "127.0.0.2", "192.0.2.1", "::1"];
    let bound =
        places.map(|place| if place == "::1" { "[::1]:9100".to_owned() } else { format!("{place}:9100") });
    let binds: Vec<&str> = bound.iter().flat_map(|bound| ["--bind", bound]).collect();
    let sweep = ["probe", "--ports", "9000-9199", "--destinations", &places.join(","), "--format", "json"];
    let output = run(&ns, &[&sweep[..], &binds].concat());
    exits(&output, 0);
    let report = json(&output);
    assert_eq!((ports(&report, "refused").len(), ports(&report, "accepted").len()), (4 * 199, 4));
    for place in places {
        let cell = report["cells"].as_array().unwrap().iter();
        let cell = cell.clone().find(|cell| cell["destination"] == place && cell["port"] == 9100).unwrap();
        let chosen = ns.run(|| {
            let listener = TcpListener::bind((place, 0))?;
            std::net::TcpStream::connect(listener.local_addr()?)?.local_addr()
        });
        assert_eq!(cell["observed"]["peer"], chosen.unwrap().ip().to_string(), "{place}");
    }
}

/// The address that a socket has kept for the sweep goes away meanwhile: that is no word on the ports that are left.
pub fn a_source_that_goes_away_is_no_verdict() {
    let (ns, far) = (Netns::new(), Netns::new());
    ns.wire("eth0", &far, "f0");
    ns.ip("address add 10.70.0.1/32 dev eth0");
    ns.ip("route add local 10.200.0.0/16 dev lo src 10.70.0.1");
    let sweep = ["probe", "--ports", "1-65535", "--destinations", "10.200.5.5", "--format", "json"];
    let mut command = bindscope(&sweep);
    let child = ns.run(|| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(150));
    ns.ip("route replace local 10.200.0.0/16 dev lo");
    ns.ip("address del 10.70.0.1/32 dev eth0");
    let output = finish(child);
    // An attempt that was under way when the address went away is not observed. All others are refused.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{:?}", output.status);
    let report = json(&output);
    let refused = ports(&report, "refused").len();
    assert!(refused >= 65_530, "{refused}");
    assert_eq!(report["summary"]["disagree"], 0);
    assert_eq!(report["summary"]["agree"], refused);
}

/// Only this host is connected to.
pub fn others_addresses_are_refused() {
    let (ns, far) = (Netns::new(), Netns::new());
    ns.wire("eth0", &far, "f0");
    for address in ["192.0.2.1/24", "192.0.2.2/24", "192.0.2.3/24", "2001:db8::1/64", "fe80::1/64"] {
        ns.address("eth0", address);
    }
    support::snapshot::settle(&ns);
    for (destination, code) in [
        ("192.0.2.9", "BS3022"),
        ("192.0.2.255", "BS3022"),
        ("198.51.100.0/24", "BS3022"),
        ("fe80::1%lo", "BS3022"),
        ("eth9", "BS2007"),
        ("example.org", "BS2007"),
        ("10.0.0.0/99", "BS3022"),
        ("1.2.3", "BS3022"),
        ("::g", "BS3022"),
        ("", "BS3022"),
        ("fe80::1%eth9", "BS2007"),
    ] {
        let output = run(&ns, &["probe", "--ports", "9", "--destinations", destination]);
        exits(&output, 2);
        assert!(text(&output).1.contains(code), "{destination}: {:?}", text(&output));
        let malformed = ["10.0.0.0/99", "1.2.3", "::g", ""].contains(&destination);
        assert!(!malformed || text(&output).1.contains("is neither an address"), "{:?}", text(&output));
    }
    for (destinations, count) in
        [("192.0.2.0/24", 3), ("127.0.0.2,192.0.2.1", 2), ("fe80::1", 1), ("fe80::1%eth0", 1), ("0.0.0.0", 1)]
    {
        let words = ["probe", "--ports", "9,11", "--destinations", destinations, "--format", "json"];
        let report = json(&run(&ns, &words));
        assert_eq!(report["summary"]["agree"], 2 * count, "{destinations}: {report:#}");
    }
    let output = run(&ns, &["probe", "--ports", "0"]);
    exits(&output, 2);
    let human = text(&run(&ns, &["probe", "-v", "--ports", "9", "--destinations", "192.0.2.0/30"])).0;
    assert!(human.contains("192.0.2.1, 192.0.2.2, 192.0.2.3"), "{human}");
}

/// A filter that drops is found on all ports at once: one after the other, or few at a time, would pass the deadline.
pub fn silence_costs_one_timeout() {
    if !support::tool("nft") {
        return;
    }
    let ns = Netns::new();
    let rules = "add table inet guard; add chain inet guard in { type filter hook input priority 0 ; }; \
                 add rule inet guard in tcp dport 1000-2999 drop";
    let output = ns.output(Command::new("nft").arg(rules));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let words = ["probe", "--ports", "1-3500", "--destinations", "127.0.0.1", "--deadline", "6s"];
    let output = run(&ns, &[&words[..], &["--connect-timeout", "2s", "--format", "json"]].concat());
    // The rule is read and predicted.
    exits(&output, 0);
    let report = json(&output);
    assert_eq!(ports(&report, "timeout"), (1000..3000).collect::<Vec<_>>());
    assert_eq!(ports(&report, "refused").len(), 1500);
    assert_eq!(report["summary"]["disagree"], 0);
    let dropped = report["cells"].as_array().unwrap().iter().find(|cell| cell["port"] == 1000).unwrap();
    assert_eq!(dropped["predicted"]["filter"]["verdict"], "drop", "{dropped:#}");
}

/// A foreign server sees an orderly end of the connection, not a reset: one that says nothing, one that greets, and one whose
/// greeting is longer than what is read at once.
pub fn foreign_servers_see_an_orderly_end() {
    let ns = Netns::new();
    let servers: Vec<_> = (9300..9303u16)
        .map(|port| ns.run(|| TcpListener::bind(("127.0.0.1", port))).unwrap())
        .zip([0, 12, 20_000])
        .map(|(listener, greeting)| {
            std::thread::spawn(move || {
                let (mut client, _) = listener.accept().unwrap();
                client.write_all(&vec![b'x'; greeting]).unwrap();
                client.read(&mut [0; 16]).map_err(|error| error.kind())
            })
        })
        .collect();
    let sweep = ["probe", "--ports", "9300-9302", "--destinations", "127.0.0.1", "--format", "json"];
    let output = run(&ns, &sweep);
    exits(&output, 0);
    assert_eq!(ports(&json(&output), "accepted"), [9300, 9301, 9302]);
    for server in servers {
        assert_eq!(server.join().unwrap(), Ok(0));
    }
}
