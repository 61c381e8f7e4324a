//! What is told where the system refuses to tell: filters, hidden processes, other users, lists that change while they are read.

use std::os::unix::process::CommandExt as _;

use serde_json::Value;

use super::*;
use crate::support::seccomp::{Denied, filter};

/// Runs `program` in `host` under a seccomp filter (seccomp(2)): filters are a thread's, and its children have them too.
fn denied(host: &Netns, denied: Denied, arguments: &[&str]) -> Output {
    let mut command = bindscope(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = host.run(|| {
        filter(denied);
        command.spawn()
    });
    finish(child.unwrap())
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {:?}", text(output)))
}

/// What every way of looking tells of a socket.
fn rows(document: &Value) -> Vec<Value> {
    let row = |one: &Value| {
        let socket = &one["socket"];
        serde_json::json!([
            socket["protocol"],
            socket["address"],
            socket["port"],
            one["inode"],
            one["owners"]
        ])
    };
    document["sockets"].as_array().unwrap().iter().map(row).collect()
}

pub fn without_sock_diag_proc_net_is_named() {
    let (here, there) = two_hosts();
    let _server = server(&here, &["[::]:81,v6only=false", "127.0.0.1:80", "udp:[::1]:53"]);
    let output = denied(&here, Denied::SockDiag, &["audit", "--format", "json"]);
    assert_eq!(output.status.code(), Some(3), "whether IPv4 reaches port 81 is unknown");
    let (blind, seeing) = (json_of(&output), json_in(&here, &["audit", "--format", "json"]));
    assert_eq!(rows(&blind), rows(&seeing));
    assert_eq!(blind["complete"], false);
    assert!(blind["incomplete_because"].to_string().contains("/proc/net/tcp6"), "{blind:#}");
    let v6only = |document: &Value| -> Vec<Value> {
        let sockets = document["sockets"].as_array().unwrap().iter();
        sockets.map(|one| one["socket"]["v6only"].clone()).collect()
    };
    let (yes, unknown) = (Value::Bool(true), Value::Null);
    assert_eq!(v6only(&blind), [yes.clone(), unknown.clone(), unknown.clone()], "{blind:#}");
    assert_eq!(v6only(&seeing), [yes, unknown, Value::Bool(false)]);
    let (_directory, path) = policy(
        "[[allow]]\nid = \"a\"\nport = [53, 80]\nexposure = \"loopback\"\n\
         [[allow]]\nid = \"b\"\nport = 81\nexposure = \"global\"\nreason = \"r\"\nfamilies = [\"ipv6\"]\n",
    );
    let judged = |denial: Option<Denied>| {
        let arguments = ["audit", "--policy", path.as_str(), "--format", "json"];
        let output = match denial {
            Some(denial) => denied(&here, denial, &arguments),
            None => run_in(&here, &arguments),
        };
        (output.status.code(), json_of(&output)["summary"]["undecided"].clone())
    };
    assert_eq!(judged(None), (Some(1), 0.into()), "it is known that IPv4 is served");
    assert_eq!(judged(Some(Denied::SockDiag)), (Some(3), 1.into()));
    // Connections are told all the same, and so is their interface.
    let listener = here.run(|| TcpListener::from(dual(82)));
    let client = there.run(|| TcpStream::connect("192.0.2.1:82")).unwrap();
    let _accepted = listener.accept().unwrap();
    let output = denied(&here, Denied::SockDiag, &["connections", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let document = json_of(&output);
    let one = &document["connections"][0];
    assert_eq!(one["peer"]["port"], client.local_addr().unwrap().port(), "{document:#}");
    assert_eq!((&one["ingress"]["name"], &one["ingress"]["evidence"]), (&"eth0".into(), &"kernel".into()));
    assert!(document["incomplete_because"].to_string().contains("/proc/net/tcp"), "{document:#}");
    assert_eq!(denied(&here, Denied::Borrowing, &["connections"]).status.code(), Some(0));
    let (human, _) = text(&denied(&here, Denied::Borrowing, &["connections"]));
    assert!(human.contains("eth0? (address)") && human.contains("may not be traced"), "{human}");
}

pub fn without_interfaces_no_client_is_reported_as_kept_out() {
    let (here, _there) = two_hosts();
    let _held = here.run(|| (TcpListener::bind("0.0.0.0:80").unwrap(), dual(81)));
    let output = denied(&here, Denied::Netlink, &["audit", "--format", "json"]);
    assert_eq!(output.status.code(), Some(3), "{:?}", text(&output));
    let document = json_of(&output);
    assert_eq!(document["namespaces"][0]["exposure_known"], false);
    assert_eq!(
        (&document["summary"]["by_exposure"]["unknown"], document["sockets"].as_array().unwrap().len()),
        (&2.into(), 2)
    );
    assert_eq!(document["summary"]["by_exposure"]["none"], 0);
    for format in ["human", "csv", "markdown"] {
        let (stdout, _) = text(&denied(&here, Denied::Netlink, &["audit", "--format", format]));
        assert!(
            stdout.contains("unknown") && !stdout.contains("nobody") && !stdout.contains("none"),
            "{format}: {stdout}"
        );
    }
    let summary = denied(&here, Denied::Netlink, &[]);
    assert_eq!(summary.status.code(), Some(4), "{:?}", text(&summary));
}

/// One line of `doctor` as this user in these circumstances: its state and its way out.
fn line(output: &Output, name: &str) -> (String, String) {
    let document = json_of(output);
    let lines = document["lines"].as_array().unwrap();
    let line =
        lines.iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("{name}: {document:#}"));
    let word = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    (word("state"), format!("{} | {}", word("detail"), word("remedy")))
}

pub fn the_doctor_names_each_switch() {
    let (here, _there) = two_hosts();
    let doctor = ["doctor", "--format", "json"];
    for (denial, name, state, words) in [
        (Denied::SockDiag, "sockets", "partly", &["/proc/net", "AF_NETLINK"][..]),
        (Denied::SockDiag, "interfaces", "yes", &["routes"]),
        (Denied::Netlink, "interfaces", "no", &["unknown", "AF_NETLINK"]),
        (Denied::Netlink, "ipv6", "partly", &["unknown"]),
        (Denied::Ipv6, "ipv6", "no", &["RestrictAddressFamilies"]),
        (Denied::Borrowing, "connections", "no", &["pidfd_getfd", "seccomp"]),
    ] {
        let (told, text) = line(&denied(&here, denial, &doctor), name);
        assert_eq!(told, state, "{name}: {text}");
        assert!(words.iter().all(|word| text.contains(word)), "{name}: {text}");
    }
    if !other_users() {
        return;
    }
    // In a user namespace of its own root is root of nothing that was there before.
    let own = ["unshare", "--user", "--map-root-user"];
    for (wrap, name, words) in [
        (&own[..], "low ports", &["CAP_NET_BIND_SERVICE"][..]),
        (&own, "connections", &["user namespace"]),
        (&own, "owners", &["user namespace"]),
        (&own, "namespaces", &["user namespace"]),
        (&[], "owners", &["CAP_SYS_PTRACE"]),
        (&[], "connections", &["root"]),
        (&[], "namespaces", &["root"]),
        (&[], "low ports", &["ip_unprivileged_port_start"]),
    ] {
        let (told, text) = line(&as_nobody(&here, "", wrap, &doctor), name);
        assert_eq!(told, "partly", "{wrap:?} {name}: {text}");
        assert!(words.iter().all(|word| text.contains(word)), "{wrap:?} {name}: {text}");
    }
    let hidden = as_nobody(&here, "mount -t proc -o hidepid=2 none /proc && ", &[], &doctor);
    let (told, text) = line(&hidden, "owners");
    assert!(told == "partly" && text.contains("hidepid") && text.contains("hides nothing"), "{text}");
    let bare = as_root(&here, "mount -t tmpfs none /proc && ", &doctor);
    for name in ["owners", "connections", "namespaces", "interfaces"] {
        let (told, text) = line(&bare, name);
        assert!(told != "yes" && text.contains("mount /proc"), "{name}: {told} {text}");
    }
    let capabilities = json_of(&bare)["capabilities"].to_string();
    assert!(capabilities.contains("CAP_SYS_PTRACE"), "{capabilities}");
}

/// Whether other users can be tried here: as root, outside a user namespace with one user.
fn other_users() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let several = map.split_whitespace().nth(2).is_some_and(|count| count != "1");
    if !several {
        eprintln!("not tested: there is one user only in this user namespace");
    }
    several && super::support::tool("unshare") && super::support::tool("setpriv")
}

/// The program as root after `before` was done in a mount namespace of its own.
fn as_root(host: &Netns, before: &str, arguments: &[&str]) -> Output {
    within(host, before, &[], arguments)
}

/// The same as a user without rights, through the program `wrap`.
fn as_nobody(host: &Netns, before: &str, wrap: &[&str], arguments: &[&str]) -> Output {
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    within(host, before, &[&nobody, wrap].concat(), arguments)
}

fn within(host: &Netns, before: &str, through: &[&str], arguments: &[&str]) -> Output {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", &format!("{before}exec \"$@\""), "sh"])
        .args(through)
        .arg(env!("CARGO_BIN_EXE_bindscope"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    finish(host.run(|| command.spawn()).unwrap())
}

pub fn hidden_processes_are_no_reason_to_hide_sockets() {
    if !other_users() {
        return;
    }
    let (here, _there) = two_hosts();
    let _held = here.run(|| (TcpListener::bind("0.0.0.0:80").unwrap(), dual(81)));
    let exe = std::env::current_exe().unwrap();
    let (_directory, path) = policy(&format!(
        "[[allow]]\nid = \"a\"\nport = [80, 81]\nexposure = \"global\"\nreason = \"r\"\nprocess = {{ exe = \"{}\" }}\n",
        exe.display()
    ));
    let root = json_in(&here, &["audit", "--format", "json", "--policy", &path]);
    assert_eq!(root["summary"]["failed"], 0, "{root:#}");
    let sockets = |document: &Value| -> Vec<Value> {
        document["sockets"].as_array().unwrap().iter().map(|one| one["socket"].clone()).collect()
    };
    for hidepid in ["1", "2"] {
        let before = format!("mount -t proc -o hidepid={hidepid} none /proc && ");
        let output = as_nobody(&here, &before, &[], &["audit", "--format", "json", "--policy", &path]);
        let document = json_of(&output);
        assert_eq!(sockets(&document), sockets(&root));
        assert_eq!(output.status.code(), Some(3), "{document:#}");
        assert!(document["sockets"].as_array().unwrap().iter().all(|one| one["owners"].is_null()));
        assert_eq!(document["summary"]["undecided"], 2, "{document:#}");
        assert!(document["incomplete_because"].to_string().contains("owners of 2 of 2"), "{document:#}");
    }
    // No /proc at all: sock_diag tells the sockets, and what the settings would change is said to be unknown.
    let output = as_root(&here, "mount -t tmpfs none /proc && ", &["audit", "--format", "json"]);
    let document = json_of(&output);
    assert_eq!((output.status.code(), sockets(&document)), (Some(3), sockets(&root)), "{document:#}");
    assert!(document["incomplete_because"].to_string().contains("/proc/sys/net"), "{document:#}");
}

/// Addresses that come and go while their list is read: pieces of two lists are never shown as one. The program is made slow
/// between the pieces, so that it is so on any machine.
pub fn a_list_that_changes_underneath_is_said_to() {
    if !super::support::tool("strace") {
        return;
    }
    let host = Netns::new();
    host.ip("link add va type veth peer name vb");
    host.ip("link set va up");
    let _held = host.run(|| TcpListener::bind("0.0.0.0:80")).unwrap();
    let batch = |verb: &str, numbers: std::ops::Range<usize>| -> String {
        numbers.map(|n| format!("address {verb} 10.{}.{}.1/24 dev va\n", n / 250, n % 250)).collect()
    };
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    host.ip(&format!("-batch {}", write("many", batch("add", 0..2000))));
    // One process that goes on longer than the program takes, and is ended then.
    let once = batch("add", 4000..4020) + &batch("del", 4000..4020);
    let churn = write("churn", once.repeat(4000));
    let looks = |slow: bool| {
        let mut command = bindscope(&["audit", "--format", "json"]);
        if slow {
            command = Command::new("strace");
            command
                .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=recvfrom"])
                .args(["-e", "inject=recvfrom:delay_exit=15000"])
                .arg(env!("CARGO_BIN_EXE_bindscope"))
                .args(["audit", "--format", "json"]);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(host.run(|| command.spawn()).unwrap())
    };
    let mut command = Command::new("ip");
    command.args(["-batch", &churn]).stdin(Stdio::null());
    let mut churn = host.run(|| command.spawn()).unwrap();
    // It may not have begun yet, or wait for a processor.
    let seen = (0..20).find_map(|_| {
        let output = looks(true);
        let document = json_of(&output);
        let because = document["incomplete_because"].to_string();
        because.contains("addresses kept changing while they were read").then_some((output, document))
    });
    let ended = churn.try_wait().unwrap();
    let _ = churn.kill();
    let _ = churn.wait();
    let (output, document) = seen.unwrap_or_else(|| panic!("no list was interrupted ten times; {ended:?}"));
    assert_eq!((output.status.code(), &document["complete"]), (Some(3), &false.into()));
    let quiet = looks(false);
    assert_eq!(quiet.status.code(), Some(0), "when it is quiet the list is whole: {:?}", text(&quiet));
}

/// A user that may not read others sees its own: the same sockets, and the owners of those that are its own.
pub fn what_is_ones_own_is_seen() {
    if !other_users() {
        return;
    }
    let host = Netns::new();
    let _roots = host.run(|| TcpListener::bind("127.0.0.1:80")).unwrap();
    let socket = host.run(|| TcpListener::bind("127.0.0.1:8080")).unwrap();
    let mut sleeper = Command::new("sleep");
    sleeper.arg("60").uid(65534).gid(65534).stdin(Stdio::from(OwnedFd::from(socket)));
    let mut sleeper = sleeper.spawn().unwrap();
    let output = as_nobody(&host, "", &[], &["audit", "--format", "json"]);
    let document = json_of(&output);
    let owners: Vec<&Value> =
        document["sockets"].as_array().unwrap().iter().map(|one| &one["owners"]).collect();
    let _ = sleeper.kill();
    let _ = sleeper.wait();
    assert_eq!(owners.len(), 2);
    assert!(owners[0].is_null(), "{document:#}");
    assert_eq!(owners[1][0]["pid"], sleeper.id(), "{document:#}");
}
