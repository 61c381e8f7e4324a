//! `audit` and `connections` as a user runs them, in namespaces with sockets and programs of every kind.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a test")]

#[path = "../support/mod.rs"]
mod support;

mod blind;
mod filtered;
mod findings;
mod published;
mod rehearse;

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Output, Stdio};

use nix::sys::socket::{getsockopt, sockopt};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use support::netns::{Netns, harness, trial, two_hosts};
use support::program::{Listening, bindscope, copy_program, finish, text};

fn main() -> ExitCode {
    harness(vec![
        trial("connections_show_where_they_came_in_and_are_left_alone", connections_show_where_they_came_in),
        trial("mptcp_connections_say_why_they_show_none", mptcp_connections_say_why_they_show_none),
        trial("what_goss_misread_is_read_right", what_goss_misread_is_read_right),
        trial("an_ordinary_user_sees_the_same_sockets", an_ordinary_user_sees_the_same_sockets),
        trial("hostile_names_are_harmless_in_every_format", hostile_names_are_harmless_in_every_format),
        trial("other_namespaces_are_looked_into", other_namespaces_are_looked_into),
        trial("a_watch_tells_changes_once", a_watch_tells_changes_once),
        trial("two_runs_over_one_state_are_equal", two_runs_over_one_state_are_equal),
        trial("a_baseline_lets_only_what_is_new_count", a_baseline_lets_only_what_is_new_count),
        trial("a_policy_decides_the_exit_code", a_policy_decides_the_exit_code),
        trial("a_policy_that_needs_owners_is_undecided_without_them", a_policy_that_needs_owners),
        trial("a_written_policy_holds_until_something_changes", a_written_policy_holds),
        trial(
            "the_doctor_names_switches_and_tries_the_kernel",
            the_doctor_names_switches_and_tries_the_kernel,
        ),
        trial("what_is_wrong_with_a_host_is_found", what_is_wrong_with_a_host_is_found),
        trial("a_closed_pipe_changes_nothing", a_closed_pipe_changes_nothing),
        trial("a_list_that_changes_underneath", blind::a_list_that_changes_underneath_is_said_to),
        trial("without_sock_diag", blind::without_sock_diag_proc_net_is_named),
        trial("without_interfaces", blind::without_interfaces_no_client_is_reported_as_kept_out),
        trial("hidden_processes", blind::hidden_processes_are_no_reason_to_hide_sockets),
        trial("the_doctor_names_each_switch", blind::the_doctor_names_each_switch),
        trial("what_is_ones_own_is_seen", blind::what_is_ones_own_is_seen),
        trial("what_is_seen_in_a_twin", rehearse::what_is_seen_in_a_twin_is_held_against_the_exposure),
        trial("who_shares_a_port", findings::who_shares_a_port_and_what_is_wide_is_found),
        trial("what_a_policy_says_of_itself", findings::what_a_policy_says_of_itself_is_found),
        trial("a_written_policy_covers_what_is_wrong", findings::a_written_policy_covers_what_is_wrong),
        trial("a_baseline_knows_its_limits", findings::a_baseline_knows_what_it_cannot_compare),
        trial("every_name_is_escaped_once", findings::every_name_is_escaped_once),
        trial(
            "udp_wildcards_without_an_address",
            findings::a_udp_wildcard_is_open_to_the_link_without_an_address,
        ),
        trial("a_mark_of_a_socket", findings::a_mark_of_a_socket_diverts_its_answers),
        trial("what_is_sent_to_many", findings::what_is_sent_to_many_is_heard_as_the_exposure_says),
        trial("filters_narrow", filtered::filters_narrow_the_exposure_of_a_listener),
        trial("a_policy_requires_a_filter", filtered::a_policy_requires_a_filter),
        trial("a_rule_about_users", filtered::what_a_rule_about_users_leaves_is_not_known),
        trial("a_published_port_that_ipv6_filters", filtered::a_published_port_that_ipv6_filters_is_found),
        trial("a_published_port", published::a_published_port_is_listed_and_judged),
        trial("what_is_not_judged", published::what_is_not_judged_is_named_everywhere),
        trial("a_selection", published::a_selection_narrows_and_fail_on_decides),
        trial("a_watch_ends_with_its_reader", findings::a_watch_ends_with_its_reader_and_tells_of_interfaces),
    ])
}

/// Runs the program in `host` to its end.
fn run_in(host: &Netns, arguments: &[&str]) -> Output {
    let mut command = bindscope(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(host.run(|| command.spawn()).unwrap())
}

fn json_in(host: &Netns, arguments: &[&str]) -> Value {
    let output = run_in(host, arguments);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {:?}", text(&output)))
}

/// A program of its own that has these sockets. A child that another test starts holds those of this process until it executes its
/// own program, and would be an owner too.
fn server(host: &Netns, binds: &[&str]) -> Listening {
    let binds = binds.iter().flat_map(|bind| ["--bind", bind]);
    let words: Vec<&str> = ["listen", "--format", "ndjson"].into_iter().chain(binds).collect();
    host.run(|| Listening::start(&mut bindscope(&words)))
}

fn dual(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    socket.set_only_v6(false).unwrap();
    socket.bind(&format!("[::]:{port}").parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.listen(16).unwrap();
    socket
}

fn connections_show_where_they_came_in() {
    let (here, there) = two_hosts();
    let v4 = here.run(|| TcpListener::bind("0.0.0.0:80")).unwrap();
    let both = here.run(|| TcpListener::from(dual(81)));
    let connect = |from: &Netns, to: &str| from.run(|| TcpStream::connect(to)).unwrap();
    let mut held = Vec::new();
    let mut expected = Vec::new();
    for (from, to, listener, ingress, mapped, local_peer) in [
        (&there, "192.0.2.1:80", &v4, "eth0", false, false),
        (&there, "192.0.2.1:81", &both, "eth0", true, false),
        (&there, "[2001:db8::1]:81", &both, "eth0", false, false),
        (&here, "127.0.0.1:80", &v4, "lo", false, true),
        (&here, "127.0.0.1:81", &both, "lo", true, true),
        (&here, "[::1]:81", &both, "lo", false, true),
        (&here, "192.0.2.1:80", &v4, "eth0", false, true),
    ] {
        let client = connect(from, to);
        let server = listener.accept().unwrap().0;
        expected.push((client.local_addr().unwrap().port(), ingress, mapped, local_peer));
        held.push((client, server));
    }
    let before: Vec<_> = held.iter().map(|(_, server)| options(server)).collect();
    let document = json_in(&here, &["connections", "--format", "json"]);
    let after: Vec<_> = held.iter().map(|(_, server)| options(server)).collect();
    assert_eq!(before, after, "a socket was left changed");
    assert!(after.iter().all(|on| on == &(false, false)), "the servers never asked for it");
    let told = document["connections"].as_array().unwrap();
    assert_eq!(told.len(), expected.len(), "{document:#}");
    for (port, ingress, mapped, local_peer) in expected {
        let one = told.iter().find(|one| one["peer"]["port"] == port).unwrap();
        assert_eq!(one["ingress"]["name"], ingress, "{one:#}");
        assert_eq!(one["ingress"]["evidence"], "kernel", "{one:#}");
        assert_eq!(
            (&one["v4_mapped"], &one["peer_is_local"]),
            (&mapped.into(), &local_peer.into()),
            "{one:#}"
        );
        assert_eq!(one["owners"][0]["pid"], std::process::id());
        assert_eq!(one["socket"]["port"], one["local"]["port"]);
    }
    assert_eq!(document["by_ingress"], serde_json::json!({"eth0": 4, "lo": 3}));
    let (human, _) = text(&run_in(&here, &["connections", "--port", "80"]));
    assert!(human.contains("3 connections: eth0 2, lo 1"), "{human}");
}

fn options(socket: &TcpStream) -> (bool, bool) {
    let v6 = getsockopt(socket, sockopt::Ipv6RecvPacketInfo).unwrap_or(false);
    (getsockopt(socket, sockopt::Ipv4PacketInfo).unwrap(), v6)
}

fn mptcp_connections_say_why_they_show_none() {
    let host = Netns::new();
    let open = || Socket::new(Domain::IPV4, Type::STREAM, Some(262.into()));
    let Ok(listener) = host.run(open) else {
        eprintln!("not tested: this kernel has no MPTCP");
        return;
    };
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    listener.bind(&any.into()).unwrap();
    listener.listen(4).unwrap();
    let client = host.run(open).unwrap();
    client.connect(&listener.local_addr().unwrap()).unwrap();
    let _server = listener.accept().unwrap();
    let document = json_in(&host, &["connections", "--format", "json"]);
    let one = &document["connections"][0];
    assert!(one["ingress_unknown_because"].as_str().unwrap().contains("MPTCP"), "{document:#}");
    assert_ne!(one["ingress"]["evidence"], "kernel");
}

/// The sockets of goss-org/goss#149, #215, #309, #506, #804 and #1006, which it reads from `/proc/net/tcp{,6}` by file name.
fn what_goss_misread_is_read_right() {
    let (here, _there) = two_hosts();
    let exposure = |document: &Value, port: u16| {
        let sockets = document["sockets"].as_array().unwrap();
        let one = sockets.iter().find(|one| one["socket"]["port"] == port).unwrap();
        let exposure = &one["socket"]["exposure"];
        (exposure["ipv4"].as_str().unwrap().to_owned(), exposure["ipv6"].as_str().unwrap().to_owned())
    };
    let v6only = |port: u16| {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        socket.set_only_v6(true).unwrap();
        socket.bind(&format!("[::]:{port}").parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        socket.listen(16).unwrap();
        socket
    };
    let _held = here.run(|| {
        (
            // #149, #215: listening on `::` without V6ONLY serves IPv4; a test for `tcp:22` failed.
            dual(22),
            // #309: the same port in two sockets, one of each family.
            (TcpListener::bind("0.0.0.0:80").unwrap(), v6only(80)),
            // #506: a Java-like server on ::ffff:0.0.0.0, which stands in tcp6 and serves IPv4 alone.
            Socket::new(Domain::IPV6, Type::STREAM, None).inspect(|socket| {
                socket.set_only_v6(false).unwrap();
                let mapped: std::net::SocketAddr = "[::ffff:0.0.0.0]:8080".parse().unwrap();
                socket.bind(&mapped.into()).unwrap();
                socket.listen(1).unwrap();
            }),
            // #804: IPv6 only; a test for IPv4 must not pass.
            v6only(443),
            // #1006: IPv4 only; nothing of IPv6 may be asked of it.
            TcpListener::bind("0.0.0.0:8443").unwrap(),
        )
    });
    let document = json_in(&here, &["audit", "--format", "json"]);
    let pair = |ipv4: &str, ipv6: &str| (ipv4.to_owned(), ipv6.to_owned());
    for (port, expected) in [
        (22, pair("global", "global")),
        (8080, pair("global", "none")),
        (443, pair("none", "global")),
        (8443, pair("global", "none")),
    ] {
        assert_eq!(exposure(&document, port), expected, "port {port}");
    }
    let eighty: Vec<&Value> =
        document["sockets"].as_array().unwrap().iter().filter(|one| one["socket"]["port"] == 80).collect();
    assert_eq!(eighty.len(), 2);
    let one_family = |port: u16| {
        document["findings"].as_array().unwrap().iter().any(|finding| {
            let place = usize::try_from(finding["socket"].as_u64().unwrap_or(u64::MAX)).unwrap();
            finding["code"] == "BS1021" && document["sockets"][place]["socket"]["port"] == port
        })
    };
    assert_eq!([22, 80, 443, 8443, 8080].map(one_family), [false, false, true, true, true]);
}

fn an_ordinary_user_sees_the_same_sockets() {
    let (here, _there) = two_hosts();
    let _held = here.run(|| {
        (TcpListener::bind("0.0.0.0:80").unwrap(), dual(81), UdpSocket::bind("127.0.0.1:53").unwrap())
    });
    let mut command = bindscope(&["audit", "--format", "json", "--socket-options"]);
    command.uid(65534).gid(65534).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = match here.run(|| command.spawn()) {
        Ok(child) => child,
        Err(error) => {
            eprintln!("not tested: no second user here ({error})");
            return;
        }
    };
    let output = finish(child);
    let nobody: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {:?}", text(&output)));
    let root = json_in(&here, &["audit", "--format", "json"]);
    let rows = |document: &Value| -> Vec<(Value, Value, Value)> {
        let sockets = document["sockets"].as_array().unwrap();
        sockets.iter().map(|one| (one["socket"].clone(), one["inode"].clone(), one["uid"].clone())).collect()
    };
    assert_eq!(rows(&nobody), rows(&root));
    assert_eq!(nobody["sockets"].as_array().unwrap().len(), 3);
    assert!(nobody["sockets"].as_array().unwrap().iter().all(|one| one["owners"].is_null()));
    assert_eq!(nobody["complete"], false);
    let because = nobody["incomplete_because"].to_string();
    assert!(because.contains("owners of 3 of 3") && because.contains("pidfd_getfd"), "{because}");
    assert_eq!(output.status.code(), Some(0), "without a policy no owner is requested");
}

/// A program that holds a socket under names that its maker chose.
struct Holder {
    child: Child,
    path: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

impl Holder {
    /// Its executable.
    fn path(&self) -> &std::path::Path {
        &self.path
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn holder(name: &[u8], socket: OwnedFd) -> Holder {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(OsString::from_vec(name.to_vec()));
    copy_program("/bin/sleep", &path);
    let child = Command::new(&path).arg("60").stdin(Stdio::from(socket)).spawn().unwrap();
    Holder { child, path, _directory: directory }
}

fn hostile_names_are_harmless_in_every_format() {
    let host = Netns::new();
    let name = OsString::from_vec(b"\x1b[31mX\xff".to_vec());
    let words = ["link", "add"].map(OsString::from);
    let rest = ["type", "veth", "peer", "name", "vb"].map(OsString::from);
    host.ip_args(&[&words[..], std::slice::from_ref(&name), &rest[..]].concat());
    host.ip_args(&[OsString::from("link"), "set".into(), name.clone(), "up".into()]);
    host.ip("link set vb up");
    host.ip_args(
        &["addr", "add", "192.0.2.1/24", "dev"]
            .map(OsString::from)
            .into_iter()
            .chain([name])
            .collect::<Vec<_>>(),
    );
    let socket = host.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind_device(Some(b"\x1b[31mX\xff")).unwrap();
        socket.bind(&std::net::SocketAddr::from(([0, 0, 0, 0], 80)).into()).unwrap();
        socket.listen(1).unwrap();
        socket
    });
    let open = host.run(|| TcpListener::bind("0.0.0.0:81")).unwrap();
    let _one = holder(b"sshd\n[ok]", socket.into());
    let _two = holder(b"=1+1;\x1b]0;x\x07,\"::error::<script>|", open.into());
    for format in ["human", "json", "csv", "sarif", "junit", "github", "markdown"] {
        let output = run_in(&host, &["audit", "--format", format]);
        let (stdout, stderr) = text(&output);
        assert_eq!(stderr, "", "{format}");
        assert_eq!(output.status.code(), Some(0), "{format}");
        let bad = stdout.replace("\r\n", "\n").chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(bad, None, "{format}: {stdout}");
        assert!(stdout.contains("sshd"), "{format}: {stdout}");
        assert!(!stdout.lines().any(|line| line.starts_with("[ok]")), "{format}: {stdout}");
        if matches!(format, "junit" | "markdown") {
            assert!(!stdout.contains("<script"), "{format}: {stdout}");
        }
    }
    let document = json_in(&host, &["audit", "--format", "json"]);
    let sockets = document["sockets"].as_array().unwrap();
    assert_eq!(sockets[0]["owners"][0]["command"], "sshd\n[ok]");
    assert_eq!(sockets[0]["socket"]["device"], "\\x1b[31mX\\xff");
    assert!(sockets[0]["owners"][0]["exe"].as_str().unwrap().ends_with("/sshd\n[ok]"));
}

fn other_namespaces_are_looked_into() {
    let (here, other) = (Netns::new(), Netns::new());
    let _mine = here.run(|| TcpListener::bind("0.0.0.0:80")).unwrap();
    // No process is in that namespace; only our descriptor keeps it.
    let _theirs = other.run(|| TcpListener::bind("0.0.0.0:4711")).unwrap();
    let one = json_in(&here, &["audit", "--format", "json"]);
    assert_eq!(one["namespaces"].as_array().unwrap().len(), 1);
    assert_eq!(one["sockets"].as_array().unwrap().len(), 1, "a container's 0.0.0.0 is not the host's");
    let all = json_in(&here, &["audit", "--format", "json", "--all-namespaces"]);
    let sockets = all["sockets"].as_array().unwrap();
    let theirs = sockets.iter().find(|one| one["socket"]["port"] == 4711).unwrap();
    let own = &all["namespaces"][0]["inode"];
    let mine = sockets.iter().find(|one| one["netns"] == *own && one["socket"]["port"] == 80).unwrap();
    assert_ne!(theirs["netns"], mine["netns"]);
    assert_eq!(theirs["owners"][0]["pid"], std::process::id());
    let names = all["namespaces"].as_array().unwrap();
    assert_eq!(names[0]["current"], true);
    let their_name = names.iter().find(|name| name["inode"] == theirs["netns"]).unwrap();
    assert!(their_name["name"].as_str().unwrap().contains(&std::process::id().to_string()), "{their_name}");
}

fn a_watch_tells_changes_once() {
    let (here, _there) = two_hosts();
    let _old = here.run(|| TcpListener::bind("0.0.0.0:80")).unwrap();
    let mut command = bindscope(&["audit", "--watch=1", "--for", "50", "--format", "ndjson"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = here.run(|| command.spawn()).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let first = next();
    assert_eq!((&first["event"], &first["schema"]), (&"report".into(), &"bindscope.audit/1".into()));
    assert_eq!(first["sockets"].as_array().unwrap().len(), 1);
    // Changes are looked for by kind: an address change may bring a finding with it.
    let mut until = |kind: &str| loop {
        let event = next();
        assert_eq!(event["event"], "change", "{event}");
        if event["change"] == kind {
            return event;
        }
    };
    let new = here.run(|| TcpListener::bind("127.0.0.1:4712")).unwrap();
    let event = until("socket_new");
    assert_eq!(event["socket"]["socket"]["port"], 4712, "{event}");
    drop(new);
    assert_eq!(until("socket_gone")["socket"]["socket"]["port"], 4712);
    here.ip("address add 198.51.100.7/24 dev eth0");
    let event = until("address_new");
    assert_eq!((&event["interface"], &event["address"]), (&"eth0".into(), &"198.51.100.7/24".into()));
    here.ip("address del 198.51.100.7/24 dev eth0");
    assert_eq!(until("address_gone")["address"], "198.51.100.7/24");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let last: Vec<Value> = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert_eq!(last.last().unwrap()["event"], "summary", "{last:?}");
    assert_eq!(finish(child).status.code(), Some(0));
}

fn two_runs_over_one_state_are_equal() {
    let (here, _there) = two_hosts();
    let _server = server(&here, &["udp:0.0.0.0:5000-5039", "[::]:80,v6only=false", "192.0.2.1:0"]);
    let document = || {
        let mut document = json_in(&here, &["audit", "--format", "json"]);
        document["time"] = Value::Null;
        // Other tests come and go meanwhile.
        document["incomplete_because"] = Value::Null;
        document
    };
    assert_eq!(document(), document());
}

fn a_baseline_lets_only_what_is_new_count() {
    let host = Netns::new();
    let _old = server(&host, &["127.0.0.1:80"]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("baseline.json");
    let path = path.to_str().unwrap();
    let output = run_in(&host, &["audit", "--format", "json", "-o", path]);
    assert_eq!(output.status.code(), Some(0), "{:?}", text(&output));
    let again = run_in(&host, &["audit", "--baseline", path]);
    assert_eq!(again.status.code(), Some(0), "{:?}", text(&again));
    let _new = server(&host, &["127.0.0.1:81"]);
    let now = run_in(&host, &["audit", "--baseline", path]);
    assert_eq!(now.status.code(), Some(1));
    let (stdout, _) = text(&now);
    assert_eq!(stdout.matches("[BS1011]").count(), 1, "{stdout}");
    let shown = |text: &str| [text.contains("127.0.0.1:80"), text.contains("127.0.0.1:81")];
    assert_eq!(shown(&stdout), [false, true], "only what is new is shown: {stdout}");
    assert!(stdout.contains("1 socket in "), "{stdout}");
    let (table, _) = text(&run_in(&host, &["audit", "--baseline", path, "--format", "markdown"]));
    assert_eq!(shown(&table), [false, true], "{table}");
    let document = json_in(&host, &["audit", "--baseline", path, "--format", "json"]);
    assert_eq!((&document["baseline"], document["sockets"].as_array().unwrap().len()), (&path.into(), 2));
    // A policy that comes later makes nothing new of what was there.
    let wide = server(&host, &["0.0.0.0:82"]);
    run_in(&host, &["audit", "--format", "json", "-o", path]);
    let policy = directory.path().join("policy.toml");
    let policy = policy.to_str().unwrap();
    assert!(run_in(&host, &["audit", "--write-policy", policy]).status.success());
    let document = json_in(&host, &["audit", "--baseline", path, "--policy", policy, "--format", "json"]);
    let findings = document["findings"].as_array().unwrap();
    assert!(findings.iter().any(|finding| finding["rule"].is_string()), "{document:#}");
    assert!(findings.iter().all(|finding| finding["known"] == true), "{document:#}");
    drop(wide);
    std::fs::write(path, "{}").unwrap();
    let (_, stderr) = text(&run_in(&host, &["audit", "--baseline", path]));
    assert!(stderr.contains("BS0080") && stderr.contains("help:"), "{stderr}");
}

fn a_closed_pipe_changes_nothing() {
    let host = Netns::new();
    let _old = host.run(|| TcpListener::bind("127.0.0.1:80")).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = bindscope(&["audit"]);
    command.stdout(writer).stderr(Stdio::piped());
    let output = finish(host.run(|| command.spawn()).unwrap());
    assert_eq!((output.status.code(), text(&output).1.as_str()), (Some(0), ""));
}

const HEAD: &str = "schema = 1\nkind = \"policy\"\nname = \"p\"\n[policy]\ndefault = \"deny\"\n";

/// A policy in a file that another user may read.
fn policy(text: &str) -> (tempfile::TempDir, String) {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = directory.path().join("policy.toml");
    std::fs::write(&path, format!("{HEAD}{text}")).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

fn a_policy_decides_the_exit_code() {
    let (here, _there) = two_hosts();
    let _held =
        here.run(|| (TcpListener::bind("0.0.0.0:80").unwrap(), TcpListener::bind("127.0.0.1:81").unwrap()));
    let rules = |exposure: &str, more: &str| {
        format!(
            "[[allow]]\nid = \"web\"\nport = 80\nexposure = \"{exposure}\"\nreason = \"r\"\n{more}\n[[allow]]\nid = \"local\"\nport = 81\nexposure = \"loopback\"\n"
        )
    };
    for (rules, code, finding) in [
        (rules("global", ""), 0, None),
        (rules("private", ""), 1, Some("BS1002")),
        (rules("global", "families = [\"ipv6\"]"), 1, Some("BS1003")),
        (rules("global", "process = { exe = \"/usr/sbin/nginx\" }"), 1, Some("BS1005")),
        (
            rules("global", "")
                + "[[allow]]\nid = \"db\"\nport = 5432\nexposure = \"loopback\"\nrequire = true\n",
            1,
            Some("BS1004"),
        ),
        (String::new(), 1, Some("BS1001")),
    ] {
        let (_directory, path) = policy(&rules);
        let output = run_in(&here, &["audit", "--policy", &path, "--format", "json"]);
        assert_eq!(output.status.code(), Some(code), "{rules}: {:?}", text(&output));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = document["findings"].as_array().unwrap().iter().find(|one| one["severity"] == "error");
        assert_eq!(found.map(|one| one["code"].as_str().unwrap()), finding, "{document:#}");
        if let Some(found) = found {
            assert_eq!(found["location"]["file"], path, "{found:#}");
            let line = usize::try_from(found["location"]["line"].as_u64().unwrap()).unwrap();
            let full = format!("{HEAD}{rules}");
            let pointed = full.lines().nth(line - 1).unwrap();
            let key = pointed.split(' ').next().unwrap();
            assert!(["exposure", "families", "process", "require", "default"].contains(&key), "{pointed}");
        }
        for format in ["human", "sarif", "junit", "github", "markdown", "csv"] {
            let again = run_in(&here, &["audit", "--policy", &path, "--format", format]);
            assert_eq!(again.status.code(), Some(code), "{format}");
        }
    }
    let (_directory, path) = policy("[[allow]]\nid = 3\nport = 70000\n");
    let output = run_in(&here, &["audit", "--policy", &path]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).1.matches("error").count() >= 2, "{}", text(&output).1);
    let empty = Netns::new();
    let (_directory, path) = policy("");
    assert_eq!(
        run_in(&empty, &["audit", "--policy", &path]).status.code(),
        Some(3),
        "an empty check is no pass"
    );
}

fn a_policy_that_needs_owners() {
    let host = Netns::new();
    let _held = host.run(|| TcpListener::bind("127.0.0.1:80")).unwrap();
    let exe = std::env::current_exe().unwrap();
    let (_directory, path) = policy(&format!(
        "[[allow]]\nid = \"web\"\nport = 80\nexposure = \"loopback\"\nprocess = {{ exe = \"{}\" }}\n",
        exe.display()
    ));
    assert_eq!(run_in(&host, &["audit", "--policy", &path]).status.code(), Some(0));
    let mut command = bindscope(&["audit", "--policy", &path]);
    command.uid(65534).gid(65534).stdout(Stdio::piped()).stderr(Stdio::piped());
    match host.run(|| command.spawn()) {
        Ok(child) => {
            let output = finish(child);
            assert_eq!(output.status.code(), Some(3), "{:?}", text(&output));
            assert!(text(&output).0.contains("undecided[BS1006]"), "{:?}", text(&output));
        }
        Err(error) => eprintln!("not tested: no second user here ({error})"),
    }
}

fn a_written_policy_holds() {
    let (here, _there) = two_hosts();
    let _held = here.run(|| {
        (dual(80), TcpListener::bind("127.0.0.1:81").unwrap(), UdpSocket::bind("0.0.0.0:53").unwrap())
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("written.toml");
    let path = path.to_str().unwrap();
    let written = run_in(&here, &["audit", "--write-policy", path]);
    assert_eq!(written.status.code(), Some(0), "{:?}", text(&written));
    let holds = run_in(&here, &["audit", "--policy", path]);
    assert_eq!(
        holds.status.code(),
        Some(0),
        "{:?}\n{}",
        text(&holds),
        std::fs::read_to_string(path).unwrap()
    );
    assert_eq!(run_in(&here, &["audit", "--write-policy", path]).status.code(), Some(5), "what exists stays");
    let new = here.run(|| TcpListener::bind("127.0.0.1:82")).unwrap();
    assert_eq!(run_in(&here, &["audit", "--policy", path]).status.code(), Some(1));
    drop(new);
    here.ip("address add 198.51.100.7/24 dev eth0");
    assert_eq!(run_in(&here, &["audit", "--policy", path]).status.code(), Some(0));
}

fn the_doctor_names_switches_and_tries_the_kernel() {
    let host = Netns::new();
    let root = json_in(&host, &["doctor", "--kernel", "--format", "json"]);
    assert_eq!(root["kernel"]["differences"], serde_json::json!([]), "{root:#}");
    assert_eq!((&root["kernel"]["sequences"], &root["kernel"]["agree"]), (&430.into(), &430.into()));
    assert_eq!((&root["kernel"]["location"], &root["kernel"]["skipped"]), (&"namespace".into(), &0.into()));
    let mut command = bindscope(&["doctor", "--format", "json"]);
    command.uid(65534).gid(65534).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(child) = host.run(|| command.spawn()) else {
        eprintln!("not tested: no second user here");
        return;
    };
    let output = finish(child);
    assert_eq!(output.status.code(), Some(0), "{:?}", text(&output));
    let nobody: Value = serde_json::from_slice(&output.stdout).unwrap();
    let line = |name: &str| {
        let lines = nobody["lines"].as_array().unwrap();
        lines.iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("{name}: {nobody:#}")).clone()
    };
    assert_eq!(line("sockets")["state"], "yes");
    for name in ["owners", "connections", "namespaces"] {
        assert_eq!(line(name)["state"], "partly", "{name}");
        assert!(line(name)["remedy"].as_str().unwrap().contains("root"), "{name}");
    }
}

fn what_is_wrong_with_a_host_is_found() {
    let (here, _there) = two_hosts();
    here.ip("link add gone type veth peer name other");
    here.ip("link set gone up");
    let codes = || -> Vec<(String, u64)> {
        let document = json_in(&here, &["audit", "--format", "json", "--socket-options"]);
        let sockets = document["sockets"].as_array().unwrap();
        let findings = document["findings"].as_array().unwrap().iter();
        findings
            .map(|one| {
                let place = one["socket"].as_u64().map(|place| usize::try_from(place).unwrap());
                let port = place.map_or(0, |place| sockets[place]["socket"]["port"].as_u64().unwrap());
                (one["code"].as_str().unwrap().to_owned(), port)
            })
            .collect()
    };
    let _held = here.run(|| {
        here.address("eth0", "198.51.100.7/24");
        let device = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        device.bind_device(Some(b"gone")).unwrap();
        device.bind(&std::net::SocketAddr::from(([0, 0, 0, 0], 82)).into()).unwrap();
        device.listen(1).unwrap();
        let shared = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        shared.set_reuse_address(true).unwrap();
        shared.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 83)).into()).unwrap();
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        full.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 84)).into()).unwrap();
        full.listen(1).unwrap();
        let clients: Vec<_> = (0..2).map(|_| TcpStream::connect("127.0.0.1:84").unwrap()).collect();
        (
            TcpListener::bind("198.51.100.7:81").unwrap(),
            TcpListener::bind("127.0.0.1:80").unwrap(),
            (device, shared, full, clients),
        )
    });
    let before = codes();
    for code in ["BS1022", "BS1025", "BS1026", "BS1029", "BS4001"] {
        assert!(!before.iter().any(|(found, _)| found == code), "{code}: {before:?}");
    }
    here.ip("address del 198.51.100.7/24 dev eth0");
    here.ip("link del gone");
    here.sysctl("net.ipv4.conf.eth0.route_localnet", "1");
    here.ip("route add local 203.0.113.0/24 dev lo");
    here.ip("address add 198.18.0.1/24 dev eth0 label lo");
    let _wildcard = here.run(|| UdpSocket::bind("0.0.0.0:85")).unwrap();
    let after = codes();
    for (code, port) in [
        ("BS1022", 81),
        ("BS1025", 80),
        ("BS1029", 82),
        ("BS1024", 83),
        ("BS1027", 84),
        ("BS1026", 0),
        ("BS4001", 0),
    ] {
        assert!(after.contains(&(code.to_owned(), port)), "{code} {port}: {after:?}");
    }
}
