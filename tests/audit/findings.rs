//! Each finding on a host that has what it is about, and on none that has not.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use super::*;

/// Codes with the port of the socket they are about, 0 for the host and the policy.
fn codes(document: &Value) -> BTreeSet<(String, u64)> {
    let port = |finding: &Value| {
        let place = usize::try_from(finding["socket"].as_u64()?).ok()?;
        document["sockets"][place]["socket"]["port"].as_u64()
    };
    let findings = document["findings"].as_array().unwrap().iter();
    findings.map(|one| (one["code"].as_str().unwrap().to_owned(), port(one).unwrap_or(0))).collect()
}

fn v6only(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    socket.set_only_v6(true).unwrap();
    socket.bind(&format!("[::]:{port}").parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.listen(16).unwrap();
    socket
}

pub fn who_shares_a_port_and_what_is_wide_is_found() {
    let host = Netns::new();
    let other = Netns::new();
    host.wire("eth0", &other, "far");
    host.address("eth0", "10.7.0.1/24");
    host.address("eth0", "2001:db8::1/64");
    // Over IPv4 the port is this program's, over IPv6 another's; and on loopback another's again.
    let _ours = host.run(|| {
        (TcpListener::bind("0.0.0.0:80").unwrap(), TcpListener::bind("127.0.0.1:81").unwrap(), dual(82))
    });
    let _theirs = holder(b"theirs", host.run(|| v6only(80)).into());
    let _local = holder(b"local", host.run(|| TcpListener::bind("[::1]:81")).unwrap().into());
    // One program in both families, and one of another user's port: no socket is shadowed.
    let _both = host.run(|| (TcpListener::bind("0.0.0.0:83").unwrap(), v6only(83)));
    let replaced = holder(b"replaced", host.run(|| TcpListener::bind("127.0.0.1:84")).unwrap().into());
    std::fs::remove_file(replaced.path()).unwrap();
    let document = json_in(&host, &["audit", "--format", "json"]);
    let found = codes(&document);
    for (code, port) in [
        ("BS1028", 80),
        ("BS1028", 81),
        ("BS1031", 82),
        ("BS1020", 80),
        ("BS1020", 82),
        ("BS1020", 83),
        ("BS1030", 84),
    ] {
        assert!(found.contains(&(code.to_owned(), port)), "{code} {port}: {found:?}");
    }
    for (code, port) in
        [("BS1028", 82), ("BS1028", 83), ("BS1031", 80), ("BS1020", 81), ("BS1030", 80), ("BS1021", 83)]
    {
        assert!(!found.contains(&(code.to_owned(), port)), "{code} {port}: {found:?}");
    }
    let sockets = document["sockets"].as_array().unwrap();
    let owner = &sockets.iter().find(|one| one["socket"]["port"] == 84).unwrap()["owners"][0];
    assert_eq!(
        (&owner["exe_deleted"], &owner["exe"]),
        (&true.into(), &replaced.path().to_str().unwrap().into())
    );
}

pub fn what_a_policy_says_of_itself_is_found() {
    let host = Netns::new();
    let _held = host
        .run(|| (TcpListener::bind("127.0.0.1:80").unwrap(), UdpSocket::bind("127.0.0.1:40000").unwrap()));
    let rule = |port: u16| format!("[[allow]]\nid = \"r{port}\"\nport = {port}\nexposure = \"loopback\"\n");
    let waive = |port: u16, more: &str| {
        format!("[[waive]]\ncode = \"BS1001\"\nmatch = {{ port = {port} }}\nreason = \"r\"\n{more}\n")
    };
    for (text, code, expected) in [
        (rule(80), 0, &[][..]),
        // A client's socket is left out, and counts where that is not wanted.
        (rule(80) + "[[allow]]\nid = \"x\"\nport = 81\nexposure = \"loopback\"\n", 0, &[("BS1009", 0)]),
        (waive(80, ""), 0, &[("BS1001", 80)]),
        (waive(80, "expires = 2020-01-01"), 1, &[("BS1001", 80), ("BS1008", 0)]),
        (waive(80, "expires = 2999-01-01"), 0, &[("BS1001", 80)]),
        (rule(80) + &waive(99, ""), 0, &[("BS1007", 0)]),
        (rule(80) + &waive(99, "unmatched = \"error\""), 1, &[("BS1007", 0)]),
        (rule(80) + &waive(99, "unmatched = \"ignore\""), 0, &[]),
    ] {
        let (_directory, path) = policy(&text);
        let output = run_in(&host, &["audit", "--format", "json", "--policy", &path]);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut found = codes(&document);
        found.retain(|(code, _)| code.as_str() < "BS1020");
        let expected: BTreeSet<(String, u64)> =
            expected.iter().map(|(code, port)| ((*code).to_owned(), *port)).collect();
        assert_eq!((output.status.code(), found), (Some(code), expected), "{text}");
    }
    // A waiver is told with its reason, and what it covers does not count.
    let (_directory, path) = policy(&waive(80, ""));
    let document = json_in(&host, &["audit", "--format", "json", "--policy", &path]);
    assert_eq!(
        (&document["findings"][0]["waived"], &document["summary"]["waived"]),
        (&"r".into(), &1.into())
    );
    // What would judge nothing, or not what was meant, is refused with its place.
    for (text, word) in [
        (waive(80, "").replace("BS1001", "BS9998"), "explain --list"),
        (waive(80, "").replace("BS1001", "bs1001"), "not the code"),
        (waive(80, "").replace("{ port = 80 }", "{}"), "match"),
        (rule(80) + "process = {}\n", "names no process"),
        (rule(80) + "process = { name = \"sshd\" }\n", "known are exe, user, unit, container"),
        (rule(80) + "families = []\n", "empty list"),
        (rule(80) + &rule(80), "another rule"),
        (rule(80).replace("loopback", "global"), "reason"),
        (waive(80, "expires = \"2999-01-01\""), "date"),
        ("[[listener]]\nname = \"a\"\nport = 80\n".to_owned(), "unknown key"),
    ] {
        let (_directory, path) = policy(&text);
        let output = run_in(&host, &["audit", "--policy", &path]);
        let (stdout, stderr) = super::text(&output);
        assert_eq!((output.status.code(), stdout.as_str()), (Some(2), ""), "{text}");
        assert!(stderr.contains(word) && stderr.contains(&format!("--> {path}:")), "{text}: {stderr}");
    }
    let empty = Netns::new();
    let (_directory, path) = policy("");
    let document = json_in(&empty, &["audit", "--format", "json", "--policy", &path]);
    assert_eq!(codes(&document), BTreeSet::from([("BS1010".to_owned(), 0)]));
}

/// What was written of a host is held to be right there, whatever is wrong with it, and wrong when something is added.
pub fn a_written_policy_covers_what_is_wrong() {
    let (here, _there) = two_hosts();
    here.address("eth0", "198.51.100.7/24");
    here.sysctl("net.ipv4.conf.eth0.route_localnet", "1");
    let _held = here.run(|| {
        (TcpListener::bind("127.0.0.1:80").unwrap(), TcpListener::bind("198.51.100.7:81").unwrap(), dual(82))
    });
    here.ip("address del 198.51.100.7/24 dev eth0");
    let _odd =
        holder(b"a \"quoted\\ name*?\xff", here.run(|| TcpListener::bind("0.0.0.0:83")).unwrap().into());
    let plain = run_in(&here, &["audit"]);
    assert_eq!(plain.status.code(), Some(1), "route_localnet is an error: {:?}", text(&plain));
    let written = run_in(&here, &["audit", "--write-policy", "-"]);
    let (written, stderr) = text(&written);
    assert!(stderr.is_empty() && written.contains("[[waive]]\ncode = \"BS1025\""), "{stderr}{written}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("written.toml");
    std::fs::write(&path, &written).unwrap();
    let path = path.to_str().unwrap();
    let judged = run_in(&here, &["audit", "--policy", path]);
    assert_eq!(judged.status.code(), Some(0), "{written}\n{:?}", text(&judged));
    let checked = run_in(&here, &["check", path]);
    assert_eq!(checked.status.code(), Some(0), "{:?}", text(&checked));
    let _new = here.run(|| TcpListener::bind("127.0.0.1:84")).unwrap();
    assert_eq!(run_in(&here, &["audit", "--policy", path]).status.code(), Some(1));
    let all = run_in(&here, &["audit", "--all-namespaces", "--write-policy", "-"]);
    assert!(text(&all).0.contains("namespaces = [\"all\"]"), "{:?}", text(&all));
    for (arguments, words) in [
        (&["audit", "--write-policy", "/nonexistent/x"][..], "choose another file"),
        (&["audit", "--write-policy", path], "not written over"),
    ] {
        let output = run_in(&here, arguments);
        assert_eq!(output.status.code(), Some(5));
        assert!(text(&output).1.contains(words), "{:?}", text(&output));
    }
}

/// A baseline that was made with more rights or more knowledge than the look that is compared with it.
pub fn a_baseline_knows_what_it_cannot_compare() {
    let (here, _there) = two_hosts();
    let _held = here.run(|| (dual(80), TcpListener::bind("0.0.0.0:81").unwrap()));
    let (_directory, path) = policy("");
    let path = path.replace("policy.toml", "baseline.json");
    let made = run_in(&here, &["audit", "--format", "json"]);
    std::fs::write(&path, &made.stdout).unwrap();
    for arguments in [&["--no-owners"][..], &["--proc-net"], &["--all-namespaces"], &["--socket-options"]] {
        let output =
            run_in(&here, &[&["audit", "--baseline", &path, "--format", "json"], arguments].concat());
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let here_inode = document["host"]["netns"].as_u64();
        let new = document["findings"].as_array().unwrap().iter().filter(|one| {
            let place = one["socket"].as_u64().map(|place| usize::try_from(place).unwrap());
            one["code"] == "BS1011"
                && place.is_some_and(|place| document["sockets"][place]["netns"].as_u64() == here_inode)
        });
        assert_eq!(new.count(), 0, "{arguments:?}: {document:#}");
    }
    // The same program, address and port in a container is not the host's.
    let container = Netns::new();
    let _theirs = container.run(|| (dual(80), TcpListener::bind("0.0.0.0:81").unwrap()));
    let document = json_in(&here, &["audit", "--baseline", &path, "--format", "json", "--all-namespaces"]);
    let new = codes(&document).into_iter().filter(|(code, _)| code == "BS1011").map(|(_, port)| port);
    let new: BTreeSet<u64> = new.collect();
    assert!(new.contains(&80) && new.contains(&81), "{new:?}");
}

/// Names that processes, files and cgroups are chosen by the user who runs them.
pub fn every_name_is_escaped_once() {
    let host = Netns::new();
    let odd = holder(b"x\x1b[2Jy (deleted)", host.run(|| TcpListener::bind("127.0.0.1:80")).unwrap().into());
    let gone = holder(b"z\x1b[2J", host.run(|| TcpListener::bind("127.0.0.1:81")).unwrap().into());
    std::fs::remove_file(gone.path()).unwrap();
    let document = json_in(&host, &["audit", "--format", "json"]);
    let owner = |place: usize| document["sockets"][place]["owners"][0].clone();
    assert_eq!(
        (&owner(0)["exe_deleted"], &owner(0)["exe"]),
        (&false.into(), &odd.path().to_str().unwrap().into())
    );
    assert_eq!(
        (&owner(1)["exe_deleted"], &owner(1)["exe"]),
        (&true.into(), &gone.path().to_str().unwrap().into())
    );
    let (human, _) = text(&run_in(&host, &["audit"]));
    assert!(human.contains("x\\x1b[2Jy") && human.contains("BS1030") && !human.contains('\u{1b}'), "{human}");
    let (explained, _) = text(&run_in(&host, &["audit", "--format", "csv"]));
    assert!(explained.contains("x\\x1b[2Jy (deleted)") && !explained.contains('\u{1b}'), "{explained}");
    let Some(cgroup) = Cgroup::new("bindscope\u{1b}[31m=1|<b>.service") else { return };
    std::fs::write(cgroup.0.join("cgroup.procs"), odd.child.id().to_string()).unwrap();
    let document = json_in(&host, &["audit", "--format", "json"]);
    assert_eq!(document["sockets"][0]["owners"][0]["unit"], "bindscope\u{1b}[31m=1|<b>.service");
    for format in ["human", "csv", "markdown", "junit", "github", "sarif"] {
        let (stdout, _) = text(&run_in(&host, &["audit", "--format", format]));
        assert!(!stdout.contains('\u{1b}'), "{format}: {stdout}");
        assert!(!matches!(format, "markdown" | "junit") || !stdout.contains("<b>"), "{format}: {stdout}");
    }
    let root = cgroup.0.parent().unwrap().to_owned();
    drop(odd);
    // The kernel takes no newline in the name of a cgroup, which would make a line of its own in /proc/PID/cgroup.
    let refused = std::fs::create_dir(root.join("bindscope\nx.service")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EINVAL), "{refused}");
}

/// Broadcast addresses and groups are none of the host's, and yet heard: a peer sends to each, and the exposure says what comes.
/// As who waits for DHCP: there is no IPv4 address on the wire, and yet what is sent to everybody arrives.
pub fn a_udp_wildcard_is_open_to_the_link_without_an_address() {
    let (here, there) = two_hosts();
    here.ip("address flush dev eth0");
    let udp = |address: &str, device: Option<&str>| -> UdpSocket {
        here.run(|| {
            let address: std::net::SocketAddr = address.parse().unwrap();
            let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
            let socket = Socket::new(domain, Type::DGRAM, None).unwrap();
            if address.is_ipv6() {
                socket.set_only_v6(false).unwrap();
            }
            socket.bind_device(device.map(str::as_bytes)).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            socket.into()
        })
    };
    let cases = [
        ("0.0.0.0:67", None, "link"),
        ("0.0.0.0:68", Some("eth0"), "link"),
        ("0.0.0.0:69", Some("lo"), "loopback"),
        ("[::]:70", None, "link"),
    ];
    let sockets = cases.map(|(address, device, _)| udp(address, device));
    let far = there.run(|| UdpSocket::bind("192.0.2.2:0").unwrap());
    far.set_broadcast(true).unwrap();
    let document = json_in(&here, &["audit", "--format", "json"]);
    for ((address, _, expected), socket) in cases.iter().zip(&sockets) {
        let port = socket.local_addr().unwrap().port();
        far.send_to(b"to everybody", ("255.255.255.255", port)).unwrap();
        let heard = socket.recv(&mut [0; 16]).is_ok();
        assert_eq!(heard, *expected == "link", "the kernel, at {address}");
        let mut found = document["sockets"].as_array().unwrap().iter().map(|one| &one["socket"]);
        let found = found.find(|socket| socket["port"] == port).unwrap();
        assert_eq!(found["exposure"]["ipv4"], *expected, "{address}: {found:#}");
    }
}

pub fn what_is_sent_to_many_is_heard_as_the_exposure_says() {
    let (here, there) = two_hosts();
    let (far_index, index) = (there.index("far"), here.index("eth0"));
    let group = |text: &str| text.parse::<IpAddr>().unwrap();
    // The host receives the group, whichever socket joins.
    let joiner = here.run(|| {
        let (v4, v6) = (UdpSocket::bind("0.0.0.0:0").unwrap(), UdpSocket::bind("[::]:0").unwrap());
        v4.join_multicast_v4(&"224.0.0.251".parse().unwrap(), &"192.0.2.1".parse().unwrap()).unwrap();
        v6.join_multicast_v6(&"ff02::fb".parse().unwrap(), index).unwrap();
        v6.join_multicast_v6(&"ff0e::fb".parse().unwrap(), index).unwrap();
        (v4, v6)
    });
    let cases = [
        ("192.0.2.255", "", "link"),
        ("192.0.2.255", "lo", "none"),
        ("192.0.2.255", "eth0", "link"),
        ("255.255.255.255", "", "link"),
        ("255.255.255.255", "lo", "loopback"),
        ("127.255.255.255", "", "loopback"),
        ("224.0.0.1", "", "link"),
        ("224.0.0.251", "", "link"),
        ("224.0.0.251", "lo", "none"),
        ("224.0.0.252", "", "none"),
        ("ff02::1", "eth0", "link"),
        ("ff02::fb", "eth0", "link"),
        ("ff02::fc", "eth0", "none"),
        ("ff0e::fb", "", "global"),
        ("ff0e::fc", "", "none"),
    ];
    let sockets: Vec<UdpSocket> = (0u16..)
        .zip(cases)
        .map(|(number, (address, device, _))| {
            here.run(|| {
                let address = group(address);
                let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
                let socket = Socket::new(domain, Type::DGRAM, None).unwrap();
                if !device.is_empty() {
                    socket.bind_device(Some(device.as_bytes())).unwrap();
                }
                socket.bind(&std::net::SocketAddr::new(address, 7000 + number).into()).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                socket.into()
            })
        })
        .collect();
    let (v4, v6) = there.run(|| {
        let (v4, v6) = (UdpSocket::bind("192.0.2.2:0").unwrap(), UdpSocket::bind("[2001:db8::2]:0").unwrap());
        v4.set_broadcast(true).unwrap();
        socket2::SockRef::from(&v4).set_multicast_if_v4(&"192.0.2.2".parse().unwrap()).unwrap();
        socket2::SockRef::from(&v6).set_multicast_if_v6(far_index).unwrap();
        (v4, v6)
    });
    let document = json_in(&here, &["audit", "--format", "json"]);
    for (number, (address, device, exposure)) in (0u16..).zip(cases) {
        let to = std::net::SocketAddr::new(group(address), 7000 + number);
        // To 127.255.255.255 nothing leaves the peer.
        let _ = if to.is_ipv4() { v4.send_to(b"x", to) } else { v6.send_to(b"x", to) };
        let heard = sockets[usize::from(number)].recv(&mut [0; 8]).is_ok();
        assert_eq!(heard, !matches!(exposure, "none" | "loopback"), "the kernel: {address}%{device}");
        let list = document["sockets"].as_array().unwrap();
        let place = list.iter().position(|socket| socket["socket"]["port"] == to.port()).unwrap();
        let told = &list[place]["socket"]["exposure"][if to.is_ipv4() { "ipv4" } else { "ipv6" }];
        assert_eq!(told, exposure, "{address}%{device}");
        let findings = document["findings"].as_array().unwrap().iter();
        let codes: Vec<_> = findings.filter(|f| f["socket"] == place).map(|f| &f["code"]).collect();
        assert!(
            codes.contains(&&"BS1032".into()) && !codes.contains(&&"BS1022".into()),
            "{address}: {codes:?}"
        );
    }
    // TCP goes to one host: no client connects.
    let _tcp = here.run(|| TcpListener::bind("192.0.2.255:80")).unwrap();
    let document = json_in(&here, &["audit", "--format", "json"]);
    assert!(codes(&document).contains(&("BS1032".to_owned(), 80)), "{document:#}");
    assert_eq!(document["sockets"][0]["socket"]["exposure"]["ipv4"], "none");
    let human = text(&run_in(&here, &["audit", "-v"])).0.replace("\n    ", " ");
    assert!(human.contains("hosts on the link send to it, through eth0"), "{human}");
    drop(joiner);
}

/// A cgroup of the unified hierarchy, removed at the end.
struct Cgroup(std::path::PathBuf);

impl Cgroup {
    fn new(name: &str) -> Option<Cgroup> {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let unified = text.lines().find(|line| line.contains(" - cgroup2 "));
        let made =
            unified.and_then(|line| line.split(' ').nth(4)).map(|root| std::path::Path::new(root).join(name));
        match made.as_deref().map(std::fs::create_dir) {
            Some(Ok(())) => made.map(Cgroup),
            other => {
                eprintln!("not tested: no cgroup can be made here ({other:?})");
                None
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            // A process that has just ended is still in it.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

pub fn a_watch_ends_with_its_reader_and_tells_of_interfaces() {
    let (here, _there) = two_hosts();
    let _held = here.run(|| dual(80));
    // Nothing changes, so nothing is written that could fail: the end of the pipe is noticed all the same.
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = bindscope(&["audit", "--watch=200ms", "--for", "50s"]);
    command.stdout(writer).stderr(Stdio::piped());
    let child = here.run(|| command.spawn()).unwrap();
    drop(command);
    let mut lines = BufReader::new(reader).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("ADDRESS "));
    drop(lines);
    let begun = std::time::Instant::now();
    let output = finish(child);
    assert_eq!((output.status.code(), text(&output).1.as_str()), (Some(0), ""));
    assert!(begun.elapsed() < std::time::Duration::from_secs(40), "it went on without a reader");
    let mut command = bindscope(&["audit", "--watch=1s", "--for=50s", "--format", "ndjson"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = here.run(|| command.spawn()).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut until = |kind: &str| -> Value {
        loop {
            let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            if event["event"] == kind || event["change"] == kind {
                return event;
            }
        }
    };
    until("report");
    here.ip("link set eth0 down");
    assert_eq!(until("interface_changed")["up"], false);
    // An interface that is down has no IPv6 addresses.
    let changed = until("socket_changed");
    let exposure = |when: &str| changed[when]["socket"]["exposure"]["ipv6"].clone();
    assert_eq!(exposure("before"), "global", "{changed:#}");
    assert_ne!(exposure("after"), "global", "{changed:#}");
    here.ip("link add d0 type veth peer name d1");
    let new = [until("interface_new"), until("interface_new")].map(|event| event["interface"].clone());
    assert!(new.contains(&"d0".into()) && new.contains(&"d1".into()), "{new:?}");
    here.ip("link del d0");
    until("interface_gone");
    let _ = child.kill();
    let _ = child.wait();
    for (arguments, word) in [
        (&["--watch=0s"][..], "no time"),
        (&["--watch=50ms"], "shortest"),
        (&["--watch", "--for", "soon"], "unit"),
        (&["--watch", "--format", "json"], "or write --format ndjson"),
        (&["--format", "ndjson"], "add --watch for the changes"),
        (&["--format", "ndjson", "--rehearse"], "help: write the report with --format json"),
        (&["--for", "3s"], "--watch"),
        (&["--write-policy", "-", "--format", "json"], "cannot be used with"),
    ] {
        let output = run_in(&here, &[&["audit"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output).1.contains(word), "{arguments:?}: {:?}", text(&output));
    }
}

/// A policy rule for a mark diverts the answers of the one socket that has it (SO_MARK): a client tries both.
pub fn a_mark_of_a_socket_diverts_its_answers() {
    let (here, there) = two_hosts();
    here.ip("rule add fwmark 7 table 77");
    here.ip("route add blackhole default table 77");
    let _sockets: Vec<Socket> = [(8081, 0), (8082, 7)]
        .into_iter()
        .map(|(port, mark)| {
            here.run(|| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_mark(mark).unwrap();
                socket.bind(&std::net::SocketAddr::from(([0, 0, 0, 0], port)).into()).unwrap();
                socket.listen(4).unwrap();
                socket
            })
        })
        .collect();
    let reached = |port| {
        let to = std::net::SocketAddr::from(([192, 0, 2, 1], port));
        there.run(|| std::net::TcpStream::connect_timeout(&to, Duration::from_millis(700))).is_ok()
    };
    assert_eq!((reached(8081), reached(8082)), (true, false));
    let document = json_in(&here, &["audit", "--format", "json"]);
    let marks: Vec<&Value> =
        document["sockets"].as_array().unwrap().iter().map(|socket| &socket["mark"]).collect();
    assert_eq!(marks, [&Value::from(0), &Value::from(7)]);
    let lost: Vec<&str> = document["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["code"] == "BS1046")
        .map(|finding| finding["message"].as_str().unwrap())
        .collect();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0].contains("port 8082") && lost[0].contains("table 77"), "{lost:?}");
}
