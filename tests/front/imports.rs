//! `plan --from`: what is predicted from a configuration is what the program opens when it is started with that file.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bindscope::import::{self, File, Imported, Kind};
use bindscope::model::{Protocol, V6Only};
use bindscope::profile::{self, Bind, writer};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::stage;
use crate::support::netns::Netns;
use crate::support::tool;

/// Reads a text without includes.
fn read(kind: Kind, text: &str) -> Imported {
    let file = File { name: "FILE".to_owned(), text: Arc::from(text) };
    import::import(kind, &file, &mut |pattern, _| panic!("include {pattern}"))
        .unwrap_or_else(|problems| panic!("{text}: {problems:?}"))
}

/// The listeners as `tcp 0.0.0.0:80`, `tcp [::]:80 v6only`, `tcp *:80` as `ss` writes them.
fn spelled(imported: &Imported) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for listener in &imported.profile.listeners {
        for port in &listener.ports {
            let Bind::Address { address, zone } = &listener.bind else { panic!("{listener:?}") };
            let zone = zone.as_ref().map_or_else(String::new, |zone| format!("%{zone}"));
            let device = listener.device.as_ref().map_or_else(String::new, |device| format!("%{device}"));
            let protocol = if listener.protocol == Protocol::Tcp { "tcp" } else { "udp" };
            let only = listener.v6only == V6Only::On;
            all.insert(match address {
                std::net::IpAddr::V4(v4) => format!("{protocol} {v4}{device}:{port}"),
                std::net::IpAddr::V6(v6) if v6.is_unspecified() && !only => {
                    format!("{protocol} *{device}:{port}")
                }
                std::net::IpAddr::V6(v6) => format!("{protocol} [{v6}]{zone}{device}:{port} v6only"),
            });
        }
    }
    all
}

/// What is read, and the lines that are not predicted.
fn check(kind: Kind, text: &str, listeners: &[&str], skipped: &[usize]) {
    let imported = read(kind, text);
    let expected: BTreeSet<String> = listeners.iter().map(|text| (*text).to_owned()).collect();
    assert_eq!(spelled(&imported), expected, "{text}");
    let lines: Vec<usize> =
        imported.notes.iter().map(|note| note.place.as_ref().unwrap().line_column().0).collect();
    assert_eq!(lines, skipped, "{text}: {:?}", imported.notes);
    // The profile that is printed opens the same sockets.
    let text = writer::text(&imported.profile);
    let again = profile::parse("again", &text).unwrap_or_else(|problems| panic!("{text}: {problems:?}"));
    // All settings, but not the lines and which keys were written.
    let without_lines = |listeners: &[profile::Listener]| -> Vec<String> {
        let plain = |one: &profile::Listener| {
            format!(
                "{} {:?} {:?} {} {:?} {:?} {} {} {:?} {} {}",
                one.name,
                one.bind,
                one.ports,
                one.protocol,
                one.v6only,
                one.device,
                one.backlog,
                one.reuse_address,
                one.reuse_port,
                one.freebind,
                one.transparent
            )
        };
        listeners.iter().map(plain).collect()
    };
    let (again, imported) = (without_lines(&again.listeners), without_lines(&imported.profile.listeners));
    assert!(again == imported, "{text}\n{again:?}\n{imported:?}");
}

/// What the program refuses, refused at this line.
fn refused(kind: Kind, text: &str, line: usize) {
    let file = File { name: "FILE".to_owned(), text: Arc::from(text) };
    let problems = import::import(kind, &file, &mut |_, _| Ok(Vec::new())).unwrap_err();
    assert_eq!(problems[0].place.as_ref().unwrap().line_column().0, line, "{text}: {problems:?}");
}

pub fn nginx_files_are_read() {
    let http = |inside: &str| format!("events {{}}\nhttp {{\n{inside}\n}}\n");
    check(Kind::Nginx, &http("server { listen 80; }"), &["tcp 0.0.0.0:80"], &[]);
    check(
        Kind::Nginx,
        &http("server { listen *:81; listen [::]:81; }"),
        &["tcp 0.0.0.0:81", "tcp [::]:81 v6only"],
        &[],
    );
    check(Kind::Nginx, &http("server { listen [::]:82 ipv6only=off; }"), &["tcp *:82"], &[]);
    check(
        Kind::Nginx,
        &http("server { listen 127.0.0.1; listen [::1]; }"),
        &["tcp 127.0.0.1:80", "tcp [::1]:80 v6only"],
        &[],
    );
    check(
        Kind::Nginx,
        &http("server { listen 443 ssl; listen 443 quic reuseport; }"),
        &["tcp 0.0.0.0:443", "udp 0.0.0.0:443"],
        &[],
    );
    check(
        Kind::Nginx,
        &http("server { listen 80; } server { listen 80; server_name 'a;b{'; } # listen 81;"),
        &["tcp 0.0.0.0:80"],
        &[],
    );
    check(
        Kind::Nginx,
        &http("server { listen 80; } server { listen 127.0.0.1:80; }"),
        &["tcp 0.0.0.0:80"],
        &[],
    );
    check(
        Kind::Nginx,
        &http("server { listen 80; } server { listen 127.0.0.1:80 bind; }"),
        &["tcp 0.0.0.0:80", "tcp 127.0.0.1:80"],
        &[],
    );
    check(Kind::Nginx, &http("server { server_name a; }"), &["tcp 0.0.0.0:80"], &[3]);
    check(
        Kind::Nginx,
        &http("server {\nlisten unix:/run/a.sock;\nlisten localhost:81;\nlisten 8000-8002; }"),
        &["tcp 0.0.0.0:8000", "tcp 0.0.0.0:8001", "tcp 0.0.0.0:8002"],
        &[4, 5],
    );
    check(
        Kind::Nginx,
        "server { listen 80; location / { return 200 \"${host}\"; } }",
        &["tcp 0.0.0.0:80"],
        &[],
    );
    check(
        Kind::Nginx,
        "stream { server { listen 53 udp; proxy_pass 127.0.0.1:5353; } }",
        &["udp 0.0.0.0:53"],
        &[],
    );
    refused(Kind::Nginx, "http {\n server { listen 80;\n", 2);
    refused(Kind::Nginx, "http { } }\n", 1);
    refused(Kind::Nginx, "http {\nserver { listen 80 }\n}", 2);
    refused(Kind::Nginx, &http("server { listen 127.0.0.1:99999; }"), 3);
}

pub fn socket_units_are_read() {
    let unit = |inside: &str| {
        format!("[Unit]\nDescription=x\n[Socket]\n{inside}\n[Install]\nWantedBy=sockets.target\n")
    };
    check(Kind::Systemd, &unit("ListenStream=80\nBindIPv6Only=both"), &["tcp *:80"], &[]);
    check(Kind::Systemd, &unit("ListenStream=80\nBindIPv6Only=ipv6-only"), &["tcp [::]:80 v6only"], &[]);
    check(
        Kind::Systemd,
        &unit("ListenStream=127.0.0.1:80\nListenDatagram=[::1]:53\nBindIPv6Only=ipv6-only"),
        &["tcp 127.0.0.1:80", "udp [::1]:53 v6only"],
        &[],
    );
    check(
        Kind::Systemd,
        &unit("ListenStream=1\nListenStream=\nListenStream=0.0.0.0:2\nBindToDevice=eth0"),
        &["tcp 0.0.0.0%eth0:2"],
        &[],
    );
    check(
        Kind::Systemd,
        &unit("ListenStream=/run/a.sock\nListenFIFO=/run/b\nListenStream=0.0.0.0:3"),
        &["tcp 0.0.0.0:3"],
        &[4, 5],
    );
    check(
        Kind::Systemd,
        &unit("ListenStream=[fe80::1]:80%eth0\nBindIPv6Only=ipv6-only"),
        &["tcp [fe80::1]%eth0:80 v6only"],
        &[],
    );
    let system = read(Kind::Systemd, &unit("ListenStream=80"));
    assert_eq!(system.profile.listeners[0].v6only, V6Only::System);
}

pub fn compose_files_are_read() {
    let service = |ports: &str| format!("services:\n  web:\n    image: nginx\n    ports:\n{ports}");
    check(
        Kind::Compose,
        &service("      - \"8080:80\"\n"),
        &["tcp 0.0.0.0:8080", "tcp [::]:8080 v6only"],
        &[],
    );
    check(
        Kind::Compose,
        &service("      - 127.0.0.1:8080:80\n      - \"[::1]:8081:80\"\n"),
        &["tcp 127.0.0.1:8080", "tcp [::1]:8081 v6only"],
        &[],
    );
    check(
        Kind::Compose,
        &service("      - 6060:6060/udp\n      - 3000\n"),
        &["udp 0.0.0.0:6060", "udp [::]:6060 v6only", "tcp 0.0.0.0:0", "tcp [::]:0 v6only"],
        &[],
    );
    check(
        Kind::Compose,
        &service("      - \"127.0.0.1:9090-9091:80-81\"\n"),
        &["tcp 127.0.0.1:9090", "tcp 127.0.0.1:9091"],
        &[],
    );
    check(
        Kind::Compose,
        &service(
            "      - target: 80\n        published: \"8080\"\n        host_ip: 127.0.0.1\n        protocol: tcp\n",
        ),
        &["tcp 127.0.0.1:8080"],
        &[],
    );
    check(
        Kind::Compose,
        &service("      - \"127.0.0.1:${WEB_PORT:-8080}:80\"\n      - \"${OTHER}:80\"\n"),
        &["tcp 127.0.0.1:8080"],
        &[5, 6],
    );
    check(
        Kind::Compose,
        "services:\n  a:\n    network_mode: host\n  b:\n    ports: [\"127.0.0.1:1:1\"]\n",
        &["tcp 127.0.0.1:1"],
        &[3],
    );
    refused(Kind::Compose, "services:\n  web:\n    ports:\n      - \"80:http\"\n", 4);
    refused(Kind::Compose, "a: [1\n", 2);
    refused(Kind::Compose, "version: 3\n", 1);
}

pub fn sshd_files_are_read() {
    check(Kind::Sshd, "", &["tcp 0.0.0.0:22", "tcp [::]:22 v6only"], &[]);
    check(
        Kind::Sshd,
        "Port 22\nPort 2222\nAddressFamily inet\n",
        &["tcp 0.0.0.0:22", "tcp 0.0.0.0:2222"],
        &[],
    );
    check(
        Kind::Sshd,
        "ListenAddress 127.0.0.1\nport=2200\nListenAddress [::1]:22 # local\n",
        &["tcp 127.0.0.1:2200", "tcp [::1]:22 v6only"],
        &[],
    );
    check(Kind::Sshd, "ListenAddress ::\nAddressFamily inet6\n", &["tcp [::]:22 v6only"], &[]);
    check(
        Kind::Sshd,
        "Port 1\nListenAddress example.com\nListenAddress 10.0.0.1\nMatch User a\nPort 9\n",
        &["tcp 10.0.0.1:1"],
        &[2],
    );
    refused(Kind::Sshd, "Port 22\nPort ssh\n", 2);
}

/// A program of a test, with the processes that it starts.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.0.id().try_into().unwrap());
        let _ = killpg(group, Signal::SIGTERM);
        let _ = self.0.wait();
        let _ = killpg(group, Signal::SIGKILL);
    }
}

/// What listens in a namespace, as `ss` shows it.
fn listening(ns: &Netns) -> BTreeSet<String> {
    let output = ns.output(Command::new("ss").arg("-Htulne"));
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let only = if words.contains(&"v6only:1") { " v6only" } else { "" };
            format!("{} {}{only}", words[0], words[4])
        })
        .collect()
}

/// Starts the program, and compares what it opens with what the plan predicts from its file.
fn compare(start: &str, from: &str, directory: &Path) {
    let (host, _peers) = stage::host();
    let mut command = Command::new("unshare");
    // Its own /run, and directories below /var that it may write to.
    command.args(["--mount", "sh", "-c"]);
    command.arg(format!("mount -t tmpfs none /run && mkdir /run/sshd && exec {start}"));
    command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    command.stderr(std::fs::File::create(directory.join("said")).unwrap());
    let mut plan =
        stage::shell(directory, stage::HOSTS, &format!("exec bindscope plan --json --from {from}"));
    let output = host.output(&mut plan);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let plan: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    let predicted: BTreeSet<String> = plan["sockets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let socket = &one["socket"];
            let address = socket["address"].as_str().unwrap();
            let protocol = socket["protocol"].as_str().unwrap();
            // The kernel turns V6ONLY on when a socket binds an IPv6 address other than the wildcard.
            let only = if address != "::" && address.contains(':') {
                Some(true)
            } else {
                socket["v6only"].as_bool()
            };
            let shown = match (address, only) {
                ("::", Some(false)) => "*".to_owned(),
                (address, _) if address.contains(':') => format!("[{address}]"),
                (address, _) => address.to_owned(),
            };
            format!(
                "{protocol} {shown}:{}{}",
                socket["port"],
                if only == Some(true) { " v6only" } else { "" }
            )
        })
        .collect();
    assert!(!predicted.is_empty(), "{said}");
    let server = Running(host.run(|| command.spawn()).unwrap());
    let fails =
        plan["sockets"].as_array().unwrap().iter().any(|one| one["bind"]["predicted"]["outcome"] == "error");
    let begun = Instant::now();
    let ended_as_predicted = || {
        let said = std::fs::read_to_string(directory.join("said")).unwrap_or_default();
        if fails { said.contains("Address already in use") } else { listening(&host) == predicted }
    };
    while !ended_as_predicted() {
        let said = std::fs::read_to_string(directory.join("said")).unwrap_or_default();
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{from}: predicted {predicted:?}{}, opened {:?}\n{said}",
            if fails { " and a failure" } else { "" },
            listening(&host)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(server);
}

/// Real nginx with servers, includes, defaults and shared addresses.
pub fn nginx_opens_what_is_predicted() {
    if !Path::new("/usr/sbin/nginx").exists() {
        assert!(!tool("nginx"));
        return;
    }
    for servers in [
        "server { listen 8080; }",
        "server { }",
        "server { listen 8080; listen [::]:8080; } server { listen 8080; listen 127.0.0.1:8081; }",
        "server { listen [::]:8080 ipv6only=off; }",
        "server { listen 8080; } server { listen 127.0.0.1:8080; listen 192.168.1.10:8080; }",
        "server { listen 8080; } server { listen 127.0.0.1:8080 bind; }",
        "server { listen 127.0.0.1; listen [::1]; listen 10.20.0.10:8000-8003; }",
        "server { listen 8080 backlog=7 reuseport; listen [2001:db8:1::10]:8080; }",
        "include sites/*;",
        "include sites/a; include none/*; server { listen 8090; }",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        std::fs::create_dir(directory.path().join("sites")).unwrap();
        file("sites/a", "server {\n  listen 8080 default_server;\n  server_name \"a\";\n}\n");
        file("sites/b", "# listen 1;\nserver { listen [::]:8081; }");
        file("sites/.hidden", "server { listen 8099; }");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|name| format!("{name}_temp_path {name};\n"))
            .collect();
        let user = if nix::unistd::geteuid().is_root() { "user root;\n" } else { "" };
        file(
            "nginx.conf",
            &format!(
                "{user}daemon off;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{servers}\n}}\n"
            ),
        );
        let path = directory.path().display().to_string();
        compare(
            &format!("/usr/sbin/nginx -p {path} -c {path}/nginx.conf -e stderr"),
            "nginx.conf",
            directory.path(),
        );
    }
}

/// Real sshd.
pub fn sshd_opens_what_is_predicted() {
    if !Path::new("/usr/sbin/sshd").exists() {
        assert!(!tool("sshd"));
        return;
    }
    for text in [
        "Port 2222\n",
        "Port 2222\nPort 2223\nAddressFamily inet6\n",
        "ListenAddress 127.0.0.1\nPort 2200\nListenAddress [2001:db8:1::10]:2201\n",
        "Include more.d/*.conf\nPort 2222\n",
        "",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display().to_string();
        let key = directory.path().join("key");
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
        assert!(made.unwrap().success());
        std::fs::create_dir(directory.path().join("more.d")).unwrap();
        std::fs::write(directory.path().join("more.d/a.conf"), "Port 2224\n").unwrap();
        // sshd reads relative includes from /etc/ssh.
        let text = text.replace("more.d", &format!("{path}/more.d"));
        std::fs::write(
            directory.path().join("sshd_config"),
            format!("HostKey {path}/key\nPidFile none\n{text}"),
        )
        .unwrap();
        compare(&format!("/usr/sbin/sshd -D -e -f {path}/sshd_config"), "sshd_config", directory.path());
    }
}

/// systemd's own code for sockets, without systemd as the first process.
pub fn a_stand_in_for_systemd_opens_what_is_predicted() {
    if !tool("systemd-socket-activate") {
        return;
    }
    for (listen, unit) in [
        ("-l 8080", "ListenStream=8080"),
        (
            "-l 127.0.0.1:8080 -l [::1]:8081",
            "ListenStream=127.0.0.1:8080\nListenStream=[::1]:8081\nBindIPv6Only=default",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("web.socket"), format!("[Socket]\n{unit}\n")).unwrap();
        compare(&format!("systemd-socket-activate {listen} sleep 60"), "web.socket", directory.path());
    }
}
