//! Row 78: what `listen` gives up once its sockets are open, as the kernel sees it.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::netns::Netns;
use crate::support::program::{Listening, bindscope};
use crate::support::tool;
use crate::{address, behind, connect, injected, profile};

const ONE: &str = "[[listener]]\nname = 'one'\nbind = '127.0.0.1'\nport = 80\n";
const NDJSON: [&str; 3] = ["listen", "--format", "ndjson"];

/// The fields of proc_pid_status(5) that tell of rights, of every thread of the process.
fn rights(listening: &Listening) -> Vec<[String; 6]> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", listening.pid())).unwrap();
    tasks
        .map(|task| {
            let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:"].map(|name| {
                status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
            })
        })
        .collect()
}

fn confinement(listening: &Listening) -> &Value {
    &listening.beginning.last().unwrap()["confinement"]
}

/// A client is answered, and the summary has it.
fn still_serves(ns: &Netns, listening: Listening, to: SocketAddr) -> String {
    let mut client = ns.run(|| connect(to));
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut client, &mut answer).unwrap();
    assert!(answer.starts_with("bindscope: "), "{answer}");
    let (events, status, stderr) = listening.end();
    assert_eq!(status.code(), Some(0), "{stderr}");
    let accepted = events.iter().find(|event| event["event"] == "accepted").unwrap();
    assert_eq!(accepted["ingress"]["name"], "lo", "{accepted}");
    assert_eq!(events.last().unwrap()["accepted"], 1);
    stderr
}

/// Every thread, whether there is one that writes to a pipe or none since the log is a file; and a privileged port was bound
/// before.
pub fn are_given_up_by_every_thread() {
    let ns = Netns::new();
    let (_directory, path) = profile(ONE);
    let mut listening = ns.run(|| Listening::start(&mut bindscope(&[&NDJSON[..], &[&path]].concat())));
    let none = "0000000000000000";
    let threads = rights(&listening);
    assert!(threads.len() > 1, "the one that writes to the pipe is a thread of its own");
    for thread in &threads {
        assert_eq!(thread[..3], [none; 3], "{threads:?}");
        assert_eq!(thread[4..], [none, "1"], "{threads:?}");
        // Who has no CAP_SETPCAP cannot; within a user namespace of their own everybody has it.
        assert_eq!(thread[3], none, "{threads:?}");
    }
    let told = confinement(&listening).clone();
    assert_eq!((&told["capabilities"], &told["no_new_privileges"]), (&json!([]), &true.into()), "{told}");
    assert_eq!(told["weaker_because"] == json!([]), told["landlock"] == 7, "{told}");
    assert!(listening.try_wait().is_none());
    let to = address(&listening.beginning, 0);
    still_serves(&ns, listening, to);
}

pub fn are_kept_when_asked_for() {
    let ns = Netns::new();
    let (_directory, path) = profile(ONE);
    let arguments = [&NDJSON[..], &["--keep-privileges", &path]].concat();
    let listening = ns.run(|| Listening::start(&mut bindscope(&arguments)));
    let own = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    assert!(rights(&listening).iter().all(|thread| thread[2] == own && thread[5] == "0"));
    assert_eq!(confinement(&listening), &Value::Null);
}

/// A level that is weaker than it could be is told, in the stream and to people, and the clients are served.
pub fn that_cannot_be_given_up_are_told() {
    if !tool("strace") {
        return;
    }
    let (_directory, path) = profile(ONE);
    for (fault, because, field) in [
        ("capset:error=EPERM", "capabilities cannot be dropped", "capabilities"),
        ("prctl:error=EINVAL:when=1+", "", "no_new_privileges"),
        ("landlock_create_ruleset:error=EOPNOTSUPP", "it is off in this kernel", "landlock"),
        ("landlock_create_ruleset:error=ENOSYS", "this kernel has none", "landlock"),
        ("landlock_create_ruleset:retval=3:when=1", "this kernel's Landlock is old", "landlock"),
        ("landlock_restrict_self:error=E2BIG", "Landlock was refused", "landlock"),
    ] {
        let ns = Netns::new();
        let fault = format!("inject={fault}");
        let mut command = injected(&[&fault], &[&NDJSON[..], &[&path]].concat());
        let listening = ns.run(|| Listening::start(&mut command));
        let told = confinement(&listening);
        let notice = listening.beginning.iter().find(|event| event["code"] == "BS4007");
        let notice = notice.unwrap_or_else(|| panic!("{fault}: {:?}", listening.beginning));
        assert!(notice["message"].as_str().unwrap().contains(because), "{fault}: {notice}");
        match field {
            "capabilities" => assert_ne!(told[field], json!([]), "{fault}: {told}"),
            "no_new_privileges" => assert_eq!(told[field], false, "{fault}: {told}"),
            _ => assert_ne!(told[field], 7, "{fault}: {told}"),
        }
        let to = address(&listening.beginning, 0);
        still_serves(&ns, listening, to);
    }
    // For a person it is a note.
    let ns = Netns::new();
    let mut command =
        injected(&["inject=landlock_create_ruleset:error=EOPNOTSUPP"], &["listen", "--for", "50ms", &path]);
    let output = ns.output(&mut command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("BS4007") && stderr.contains("Landlock is not there"), "{stderr}");
}

/// `follow` binds later: a low port is bound all the same, since that one capability is kept for it; nothing else is.
pub fn that_are_needed_later_are_kept() {
    let (host, peer) = (Netns::new(), Netns::new());
    host.wire("eth0", &peer, "far");
    peer.address("far", "192.0.2.2/24");
    let (_directory, path) = profile(
        "[[listener]]\nname = 'later'\nbind = { interface = 'eth0', family = 'ipv4' }\nport = [80, 8080]\n\
         when_missing = 'skip'\nfollow = true\nreply = 'none'\n",
    );
    let mut listening = host.run(|| Listening::start(&mut bindscope(&[&NDJSON[..], &[&path]].concat())));
    assert_eq!(listening.bound().count(), 0);
    assert_eq!(confinement(&listening)["capabilities"], json!(["CAP_NET_BIND_SERVICE"]));
    let bit = format!("{:016x}", 1 << 10);
    let threads = rights(&listening);
    assert!(threads.iter().all(|thread| thread[2] == bit || thread[2] == "0".repeat(16)), "{threads:?}");
    host.address("eth0", "192.0.2.1/24");
    let mut bound = 0;
    while bound < 2 {
        let event = listening.next();
        assert_ne!(event["event"], "bind_failed", "{event}");
        bound += usize::from(event["event"] == "bound");
    }
    for port in [80, 8080] {
        let to = SocketAddr::from(([192, 0, 2, 1], port));
        peer.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(20))).unwrap();
        let accepted = loop {
            let event = listening.next();
            if event["event"] == "accepted" {
                break event;
            }
        };
        assert_eq!(accepted["ingress"]["name"], "eth0", "{accepted}");
    }
    let (_, status, stderr) = listening.end();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

/// Started with CAP_NET_BIND_SERVICE alone, as the packaged service would be: it binds, and then has nothing left.
pub fn of_a_service_are_given_up_too() {
    if !tool("setpriv") {
        return;
    }
    let ns = Netns::new();
    let (_directory, path) = profile(ONE);
    let one = [
        "setpriv",
        "--inh-caps=-all,+net_bind_service",
        "--ambient-caps=-all,+net_bind_service",
        "--bounding-set=-all,+net_bind_service",
    ];
    let as_user = [&one[..], &["--reuid=65534", "--regid=65534", "--clear-groups"]].concat();
    // One user is all that a user namespace of our own has.
    let root = std::env::var_os("BINDSCOPE_TEST_ROOTLESS").is_none() && unmapped_users_exist();
    let wrapper = if root { as_user } else { one.to_vec() };
    let readable = std::path::Path::new(&path).parent().unwrap();
    Command::new("chmod").args(["-R", "a+rX"]).arg(readable).status().unwrap();
    let mut command = behind(&wrapper, &[&NDJSON[..], &[&path]].concat());
    let listening = ns.run(|| Listening::start(&mut command));
    assert_eq!(listening.bound().count(), 1);
    let threads = rights(&listening);
    let none = "0".repeat(16);
    assert!(threads.iter().all(|thread| [0, 1, 2, 4].iter().all(|set| thread[*set] == none)), "{threads:?}");
    assert_eq!(confinement(&listening)["capabilities"], json!([]));
    let to = address(&listening.beginning, 0);
    still_serves(&ns, listening, to);
}

/// Whether more users than one are known here.
fn unmapped_users_exist() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().nth(2).and_then(|count| count.parse().ok()) > Some(65_534u32))
}

/// `doctor` tries it and says which level would be reached.
pub fn are_what_doctor_says() {
    let output = crate::support::program::run(&["doctor", "--format", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lines = report["lines"].as_array().unwrap();
    let line = lines.iter().find(|line| line["name"] == "privileges").unwrap();
    let ns = Netns::new();
    let (_directory, path) = profile(ONE);
    let listening = ns.run(|| Listening::start(&mut bindscope(&[&NDJSON[..], &[&path]].concat())));
    let told = confinement(&listening);
    assert_eq!(line["state"] == "yes", told["weaker_because"] == json!([]), "{line} {told}");
    if let Some(version) = told["landlock"].as_u64() {
        assert!(line["detail"].as_str().unwrap().contains(&format!("Landlock {version}")), "{line}");
    }
}
