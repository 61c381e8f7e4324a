//! What must be told of each server, known from its own documentation.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bindscope::model::ListeningSocket;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::clients::{dials, from_here, from_there, say};
use crate::start::{PATIENCE, Server, Site, program, several_users, user};
use crate::support::netns::Netns;
use crate::support::program::{bindscope, finish, text};
use crate::support::witness::{spelled, ss};

/// Runs `bindscope` in `host` to its end; its exit code and what it wrote.
pub fn told(host: &Netns, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = bindscope(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = finish(host.run(|| command.spawn()).unwrap());
    let (stdout, stderr) = text(&output);
    assert_eq!(stderr, "", "{arguments:?}");
    (output.status.code(), stdout)
}

pub fn json(host: &Netns, arguments: &[&str]) -> Value {
    let (_, stdout) = told(host, arguments);
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

/// A socket with its exposure and the number of its owners, in one line.
fn line(socket: &ListeningSocket) -> String {
    let view = &socket.view;
    let address =
        if view.address.is_ipv6() { format!("[{}]", view.address) } else { view.address.to_string() };
    let stack = match (view.address.is_ipv6(), view.v6only) {
        (false, _) => "",
        (true, Some(true)) => " v6only",
        (true, Some(false)) => " dual",
        (true, None) => " v6only?",
    };
    let owners = socket.owners.as_ref().map_or_else(|| "?".to_owned(), |owners| owners.len().to_string());
    let (v4, v6) = (view.exposure.ipv4, view.exposure.ipv6);
    format!("{} {address}:{}{stack}, ipv4 {v4}, ipv6 {v6}, owners {owners}", view.protocol, view.port)
}

/// Waits until the host has just these sockets, held by these users' processes of this program, as `audit` and `ss` see it.
/// Returns the report.
fn settles(site: &Site, server: &mut Server, expected: &[&str], exe: &Path, users: &[&str]) -> Value {
    let mut expected: Vec<String> = expected.iter().map(|line| (*line).to_owned()).collect();
    expected.sort();
    let began = Instant::now();
    loop {
        server.must_run();
        let report = json(&site.here, &["audit", "--format", "json"]);
        let sockets: Vec<ListeningSocket> = serde_json::from_value(report["sockets"].clone()).unwrap();
        let mut lines: Vec<String> = sockets.iter().map(line).collect();
        lines.sort();
        let witness = site.here.run(ss);
        let readable = sockets.iter().all(|socket| socket.owners.is_some() && socket.inode.is_some());
        let owners = || sockets.iter().flat_map(|socket| socket.known_owners());
        let found: BTreeSet<Option<&str>> = owners().map(|owner| owner.user.as_deref()).collect();
        // A worker is root's until it has changed its user.
        let theirs = found == users.iter().map(|user| Some(*user)).collect();
        let same = lines == expected && readable && theirs && spelled(&sockets) == witness;
        if !same && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        assert_eq!(lines, expected, "{}", server.said());
        assert_eq!(spelled(&sockets), witness);
        for owner in owners() {
            assert_eq!(owner.exe.as_deref(), exe.to_str(), "{owner:?}");
            assert_eq!((owner.exe_deleted, owner.exe_visible), (false, Some(true)), "{owner:?}");
        }
        assert!(theirs, "{users:?}: {sockets:#?}");
        a_written_policy_holds(site);
        return report;
    }
}

/// What `--write-policy` makes of the server holds for it, and not for the host without it.
fn a_written_policy_holds(site: &Site) {
    let (code, policy) = told(&site.here, &["audit", "--write-policy", "-"]);
    assert_eq!(code, Some(0), "{policy}");
    let path = site.file("policy.toml", &policy);
    let (code, report) = told(&site.here, &["audit", "--policy", path.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{policy}\n{report}");
}

/// The codes of the findings about the sockets of this port.
fn codes(report: &Value, port: u16) -> BTreeSet<&str> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .filter(|finding| {
            finding["socket"].as_u64().is_some_and(|place| {
                report["sockets"][usize::try_from(place).unwrap()]["socket"]["port"] == port
            })
        })
        .map(|finding| finding["code"].as_str().unwrap())
        .collect()
}

pub fn nginx() {
    let Some(exe) = program(&["/usr/sbin/nginx"]) else { return };
    if !several_users() {
        return;
    }
    let site = Site::new();
    let worker = user(&["www-data", "nobody"]).name;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {}/{what};", site.path().display()))
        .concat();
    let config = site.file(
        "nginx.conf",
        &format!(
            "user {worker}; worker_processes 2; pid nginx.pid; daemon off; error_log stderr;\n\
             events {{}}\n\
             http {{ access_log off; {temporary}\n\
               server {{ listen [::]:80; return 204; }}\n\
               server {{ listen [::]:81 ipv6only=on; return 204; }}\n\
               server {{ listen [::]:82 ipv6only=off; return 204; }}\n\
               server {{ listen 83; return 204; }}\n\
               server {{ listen 127.0.0.1:84; listen [::1]:84; return 204; }}\n\
               server {{ listen 85 reuseport; return 204; }}\n\
             }}\n"
        ),
    );
    let mut command = Command::new(&exe);
    command.args(["-e", "stderr", "-p"]).arg(site.path()).arg("-c").arg(config);
    let mut server = site.start(&mut command);
    // The master holds every socket, and so does each worker.
    let report = settles(
        &site,
        &mut server,
        &[
            "tcp [::]:80 v6only, ipv4 none, ipv6 global, owners 3",
            "tcp [::]:81 v6only, ipv4 none, ipv6 global, owners 3",
            "tcp [::]:82 dual, ipv4 global, ipv6 global, owners 3",
            "tcp 0.0.0.0:83, ipv4 global, ipv6 none, owners 3",
            "tcp 127.0.0.1:84, ipv4 loopback, ipv6 none, owners 3",
            "tcp [::1]:84 v6only, ipv4 none, ipv6 loopback, owners 3",
            "tcp 0.0.0.0:85, ipv4 global, ipv6 none, owners 3",
            "tcp 0.0.0.0:85, ipv4 global, ipv6 none, owners 3",
        ],
        &exe,
        &["root", &worker],
    );
    for (port, expected) in [(80, true), (82, false), (83, true), (84, false)] {
        assert_eq!(codes(&report, port).contains("BS1021"), expected, "port {port}: one family only?");
    }
    assert!(
        !codes(&report, 85).contains("BS1028"),
        "a program that shares its port with itself shadows no other program"
    );
    policy_by_process(&site, &exe, &["root", &worker]);
    let request = say("GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 204");
    dials(
        &site,
        &exe,
        &[
            from_there("[2001:db8::1]:80", "[::]:80"),
            from_there("192.0.2.1:82", "[::]:82"),
            from_there("[2001:db8::1]:82", "[::]:82"),
            from_here("127.0.0.1:82", "[::]:82"),
            from_here("[::1]:82", "[::]:82"),
            from_there("192.0.2.1:83", "0.0.0.0:83"),
            from_here("127.0.0.1:84", "127.0.0.1:84"),
            from_here("[::1]:84", "[::1]:84"),
            from_there("192.0.2.1:85", "0.0.0.0:85"),
        ],
        &request,
    );
}

/// A rule that names executable and users is met by the server, and by no other program of the same name.
fn policy_by_process(site: &Site, exe: &Path, users: &[&str]) {
    let policy = |exe: &str, users: &[&str]| {
        let text = format!(
            "schema = 1\nkind = \"policy\"\n[[allow]]\nid = \"web\"\nprotocol = \"tcp\"\nport = \"80-85\"\n\
             exposure = \"global\"\nreason = \"test\"\nprocess = {{ exe = \"{exe}\", user = {users:?} }}\n"
        );
        let path = site.file("process.toml", &text);
        told(&site.here, &["audit", "--policy", path.to_str().unwrap()])
    };
    let exe = exe.to_str().unwrap();
    assert_eq!(policy(exe, users).0, Some(0));
    for (exe, users) in [(exe, &users[..1]), ("/opt/nginx", users)] {
        let (code, report) = policy(exe, users);
        assert!(code == Some(1) && report.contains("BS1005"), "{exe} {users:?}: {report}");
    }
}

pub fn sshd() {
    let Some(exe) = program(&["/usr/sbin/sshd"]) else { return };
    if !several_users() || !crate::support::tool("ssh-keygen") || !crate::support::tool("unshare") {
        return;
    }
    let site = Site::new();
    let key = site.path().join("key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
    assert!(made.unwrap().success());
    // Its directory under /run is made by the init system, and here in a mount namespace of the server's own.
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", "mount -t tmpfs none /run && mkdir /run/sshd && exec \"$0\" \"$@\""])
        .arg(&exe)
        .args(["-D", "-e", "-f", "/dev/null", "-o", "PidFile=none", "-h"])
        .arg(&key);
    let mut server = site.start(&mut command);
    settles(
        &site,
        &mut server,
        &[
            "tcp 0.0.0.0:22, ipv4 global, ipv6 none, owners 1",
            "tcp [::]:22 v6only, ipv4 none, ipv6 global, owners 1",
        ],
        &exe,
        &["root"],
    );
    dials(
        &site,
        &exe,
        &[
            from_there("192.0.2.1:22", "0.0.0.0:22"),
            from_there("[2001:db8::1]:22", "[::]:22"),
            from_here("192.0.2.1:22", "0.0.0.0:22"),
            from_here("127.0.0.1:22", "0.0.0.0:22"),
            from_here("[::1]:22", "[::]:22"),
        ],
        &say("SSH-2.0-test\r\n", "SSH-2.0-"),
    );
}

pub fn postgresql() {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|entry| entry.path().join("bin/postgres")).find(|path| path.is_file());
    let name = found.as_deref().and_then(Path::to_str).unwrap_or("/usr/lib/postgresql/*/bin/postgres");
    let Some(exe) = program(&[name]) else { return };
    if !several_users() {
        return;
    }
    use std::os::unix::process::CommandExt as _;
    let site = Site::new();
    let postgres = user(&["postgres"]);
    let data = site.path().join("data");
    std::fs::create_dir(&data).unwrap();
    nix::unistd::chown(&data, Some(postgres.uid), Some(postgres.gid)).unwrap();
    let as_postgres = |program: &Path| {
        let mut command = Command::new(program);
        command.uid(postgres.uid.as_raw()).gid(postgres.gid.as_raw()).current_dir(&data);
        command
    };
    let made = as_postgres(&exe.with_file_name("initdb"))
        .args(["--no-sync", "--no-locale", "-E", "UTF8", "-A", "trust", "-D"])
        .arg(&data)
        .output()
        .unwrap();
    assert!(made.status.success(), "{:?}", text(&made));
    let start = |listen: &[&str]| {
        let mut command = as_postgres(&exe);
        command.arg("-D").arg(&data).arg("-k").arg(&data).args(["-c", "fsync=off"]).args(listen);
        let mut server = site.start(&mut command);
        // Its children begin groups of their own; this is how it ends them at once.
        server.stop = Signal::SIGQUIT;
        server
    };
    {
        // The default is the name localhost, which is what /etc/hosts says.
        let mut server = start(&[]);
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let both = hosts.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some("::1") && words.any(|word| word == "localhost")
        });
        let v4 = "tcp 127.0.0.1:5432, ipv4 loopback, ipv6 none, owners 1";
        let v6 = "tcp [::1]:5432 v6only, ipv4 none, ipv6 loopback, owners 1";
        let expected: &[&str] = if both { &[v4, v6] } else { &[v4] };
        settles(&site, &mut server, expected, &exe, &["postgres"]);
    }
    let mut server = start(&["-c", "listen_addresses=*"]);
    settles(
        &site,
        &mut server,
        &[
            "tcp 0.0.0.0:5432, ipv4 global, ipv6 none, owners 1",
            "tcp [::]:5432 v6only, ipv4 none, ipv6 global, owners 1",
        ],
        &exe,
        &["postgres"],
    );
    dials(
        &site,
        &exe,
        &[
            from_there("192.0.2.1:5432", "0.0.0.0:5432"),
            from_there("[2001:db8::1]:5432", "[::]:5432"),
            from_here("[::1]:5432", "[::]:5432"),
        ],
        // SSLRequest of its protocol, which a server without TLS answers with one letter.
        &say("\0\0\0\x08\x04\u{d2}\x16\x2f", "N"),
    );
}

pub fn redis() {
    let Some(exe) = program(&["/usr/bin/redis-server"]) else { return };
    // The file that Debian calls redis-server is redis-check-rdb or the server, as it is called.
    let site = Site::new();
    let start = |port: &str, bind: &[&str]| {
        let mut command = Command::new("/usr/bin/redis-server");
        command.args(["--port", port, "--save", "", "--dir"]).arg(site.path()).args(bind);
        site.start(&mut command)
    };
    let root = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    {
        // As Debian's configuration has it.
        let mut server = start("6379", &["--bind", "127.0.0.1", "-::1"]);
        settles(
            &site,
            &mut server,
            &[
                "tcp 127.0.0.1:6379, ipv4 loopback, ipv6 none, owners 1",
                "tcp [::1]:6379 v6only, ipv4 none, ipv6 loopback, owners 1",
            ],
            &exe,
            &[&root],
        );
    }
    // Without any configuration.
    let mut server = start("6380", &["--protected-mode", "no"]);
    settles(
        &site,
        &mut server,
        &[
            "tcp 0.0.0.0:6380, ipv4 global, ipv6 none, owners 1",
            "tcp [::]:6380 v6only, ipv4 none, ipv6 global, owners 1",
        ],
        &exe,
        &[&root],
    );
    dials(
        &site,
        &exe,
        &[
            from_there("192.0.2.1:6380", "0.0.0.0:6380"),
            from_there("[2001:db8::1]:6380", "[::]:6380"),
            from_here("127.0.0.1:6380", "0.0.0.0:6380"),
        ],
        &say("PING\r\n", "+PONG"),
    );
}

pub fn dnsmasq() {
    let Some(exe) = program(&["/usr/sbin/dnsmasq"]) else { return };
    if !several_users() {
        return;
    }
    let site = Site::new();
    let start = |more: &[&str]| {
        let mut command = Command::new(&exe);
        command
            .args([
                "-k",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
                "--user=nobody",
                "--pid-file=",
            ])
            .args(more);
        site.start(&mut command)
    };
    {
        let mut server = start(&[]);
        settles(
            &site,
            &mut server,
            &[
                "tcp 0.0.0.0:53, ipv4 global, ipv6 none, owners 1",
                "tcp [::]:53 v6only, ipv4 none, ipv6 global, owners 1",
                "udp 0.0.0.0:53, ipv4 global, ipv6 none, owners 1",
                "udp [::]:53 v6only, ipv4 none, ipv6 global, owners 1",
            ],
            &exe,
            &["nobody"],
        );
        dials(
            &site,
            &exe,
            &[
                from_there("192.0.2.1:53", "0.0.0.0:53"),
                from_there("[2001:db8::1]:53", "[::]:53"),
                from_here("[::1]:53", "[::]:53"),
            ],
            &say("", ""),
        );
    }
    // "On this interface only" is said with addresses, and says nothing of where packets come in.
    site.here.wire("eth1", &site.there, "far1");
    site.here.address("eth1", "10.9.0.1/24");
    let mut server = start(&["--bind-interfaces", "--interface=eth0", "--except-interface=lo"]);
    let link_local = link_local(&site.here, "eth0");
    let link =
        |protocol: &str| format!("{protocol} [{link_local}]:53 v6only, ipv4 none, ipv6 link, owners 1");
    let report = settles(
        &site,
        &mut server,
        &[
            "tcp 192.0.2.1:53, ipv4 global, ipv6 none, owners 1",
            "udp 192.0.2.1:53, ipv4 global, ipv6 none, owners 1",
            "tcp [2001:db8::1]:53 v6only, ipv4 none, ipv6 global, owners 1",
            "udp [2001:db8::1]:53 v6only, ipv4 none, ipv6 global, owners 1",
            &link("tcp"),
            &link("udp"),
        ],
        &exe,
        &["nobody"],
    );
    let mistaken: Vec<&Value> =
        report["findings"].as_array().unwrap().iter().filter(|finding| finding["code"] == "BS1023").collect();
    assert_eq!(mistaken.len(), 4, "{report:#}");
    assert!(
        mistaken.iter().all(|one| one["message"].as_str().unwrap().contains("from eth1 too")),
        "{mistaken:?}"
    );
}

/// The link-local address that the kernel gave an interface.
fn link_local(host: &Netns, interface: &str) -> String {
    let output = host
        .output(Command::new("ip").args(["-o", "-6", "address", "show", "dev", interface, "scope", "link"]));
    let (stdout, _) = text(&output);
    stdout.split_whitespace().nth(3).unwrap().split('/').next().unwrap().to_owned()
}

pub fn unbound() {
    let Some(exe) = program(&["/usr/sbin/unbound"]) else { return };
    if !several_users() {
        return;
    }
    let site = Site::new();
    let config = site.file(
        "unbound.conf",
        &format!(
            "server:\n chroot: \"\"\n directory: \"{}\"\n pidfile: \"\"\n use-syslog: no\n logfile: \"\"\n \
             module-config: \"iterator\"\nremote-control:\n control-enable: no\n",
            site.path().display()
        ),
    );
    let mut command = Command::new(&exe);
    command.arg("-d").arg("-c").arg(config);
    let mut server = site.start(&mut command);
    let user = user(&["unbound"]).name;
    settles(
        &site,
        &mut server,
        &[
            "tcp 127.0.0.1:53, ipv4 loopback, ipv6 none, owners 1",
            "tcp [::1]:53 v6only, ipv4 none, ipv6 loopback, owners 1",
            "udp 127.0.0.1:53, ipv4 loopback, ipv6 none, owners 1",
            "udp [::1]:53 v6only, ipv4 none, ipv6 loopback, owners 1",
        ],
        &exe,
        &[&user],
    );
    dials(
        &site,
        &exe,
        &[from_here("127.0.0.1:53", "127.0.0.1:53"), from_here("[::1]:53", "[::1]:53")],
        &say("", ""),
    );
}

pub fn node() {
    let Some(exe) = program(&["/usr/bin/node", "/usr/bin/nodejs"]) else { return };
    let site = Site::new();
    let script = site.file(
        "server.js",
        "const http = require('http'), serve = (_, answer) => answer.end('hello');\n\
         http.createServer(serve).listen(3000);\n\
         http.createServer(serve).listen(3001, '127.0.0.1');\n\
         http.createServer(serve).listen({port: 3002, host: '::', ipv6Only: true});\n",
    );
    let mut server = site.start(Command::new(&exe).arg(script));
    let root = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    settles(
        &site,
        &mut server,
        &[
            "tcp [::]:3000 dual, ipv4 global, ipv6 global, owners 1",
            "tcp 127.0.0.1:3001, ipv4 loopback, ipv6 none, owners 1",
            "tcp [::]:3002 v6only, ipv4 none, ipv6 global, owners 1",
        ],
        &exe,
        &[&root],
    );
    dials(
        &site,
        &exe,
        &[
            from_there("192.0.2.1:3000", "[::]:3000"),
            from_there("[2001:db8::1]:3000", "[::]:3000"),
            from_here("127.0.0.1:3000", "[::]:3000"),
            from_here("127.0.0.1:3001", "127.0.0.1:3001"),
            from_here("[::1]:3002", "[::]:3002"),
        ],
        &say("GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200"),
    );
}

pub fn python() {
    let Some(exe) = program(&["/usr/bin/python3"]) else { return };
    let site = Site::new();
    let script = site.file(
        "server.py",
        "import asyncio, http.server\n\
         from threading import Thread\n\
         H = http.server.SimpleHTTPRequestHandler\n\
         def threaded(*address):\n    \
             Thread(target=http.server.ThreadingHTTPServer(address, H).serve_forever).start()\n\
         threaded('', 8000)\n\
         threaded('127.0.0.1', 8001)\n\
         async def echo(reader, writer):\n    \
             await reader.read(1); writer.write(b'HTTP/1.0 200'); writer.close()\n\
         async def main():\n    \
             await (await asyncio.start_server(echo, None, 8002)).serve_forever()\n\
         asyncio.run(main())\n",
    );
    let mut server = site.start(Command::new(&exe).arg(script));
    let root = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    settles(
        &site,
        &mut server,
        &[
            "tcp 0.0.0.0:8000, ipv4 global, ipv6 none, owners 1",
            "tcp 127.0.0.1:8001, ipv4 loopback, ipv6 none, owners 1",
            // asyncio opens one socket for each family.
            "tcp 0.0.0.0:8002, ipv4 global, ipv6 none, owners 1",
            "tcp [::]:8002 v6only, ipv4 none, ipv6 global, owners 1",
        ],
        &exe,
        &[&root],
    );
    dials(
        &site,
        &exe,
        &[
            from_there("192.0.2.1:8000", "0.0.0.0:8000"),
            from_here("127.0.0.1:8001", "127.0.0.1:8001"),
            from_there("[2001:db8::1]:8002", "[::]:8002"),
            from_here("192.0.2.1:8002", "0.0.0.0:8002"),
        ],
        &say("GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 200"),
    );
}
