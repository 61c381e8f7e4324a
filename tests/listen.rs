//! `bindscope listen` as a user runs it: ends, exit codes, outputs, failures. Everything stays on loopback.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a test")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use support::program::{Listening, bindscope, copy_program, finish, run, text, wait};

/// Whether the program is built with the Linux side of `sys`.
const LINUX: bool = cfg!(all(target_os = "linux", not(bindscope_portable)));

const ONE: [&str; 3] = ["listen", "--bind", "127.0.0.1:0"];

fn ndjson(arguments: &[&str]) -> Command {
    bindscope(&[&["listen", "--format", "ndjson"], arguments].concat())
}

/// Where the first socket listens.
fn address(listening: &Listening) -> SocketAddr {
    let socket = listening.bound().next().unwrap();
    format!("{}:{}", socket["address"].as_str().unwrap(), socket["port"]).parse().unwrap()
}

fn events(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_signal_ends_in_order() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut listening = Listening::start(&mut ndjson(&["--bind", "127.0.0.1:0"]));
        let client = TcpStream::connect(address(&listening)).unwrap();
        let arrival = listening.next();
        assert_eq!(arrival["event"], "accepted");
        // Where the kernel does not tell, the address is a guess, and is called one.
        assert_eq!(arrival["ingress"]["evidence"], if LINUX { "kernel" } else { "address" }, "{arrival}");
        kill(listening.pid(), signal).unwrap();
        drop(client);
        let summary = listening.next();
        assert_eq!((&summary["event"], &summary["accepted"]), (&"summary".into(), &1.into()), "{summary}");
        assert_eq!(listening.wait().code(), Some(0));
    }
}

#[test]
fn count_and_time_end_it() {
    let mut listening = Listening::start(&mut ndjson(&["--bind", "127.0.0.1:0", "--count", "2"]));
    let to = address(&listening);
    let _clients: Vec<_> = (0..5).map(|_| TcpStream::connect(to)).collect();
    let kinds: Vec<_> = (0..3).map(|_| listening.next()["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["accepted", "accepted", "summary"]);
    assert_eq!(listening.wait().code(), Some(0));
    let output = run(&[&ONE[..], &["--for", "50ms", "--format", "ndjson"]].concat());
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(events(&text(&output).0).last().unwrap()["event"], "summary");
}

#[test]
fn usage_errors_exit_2_and_name_what_is_allowed() {
    for (arguments, says) in [
        (&["listen", "--format", "xml"][..], "[possible values: human, ndjson, html]"),
        (&["listen", "--for", "30"], "500ms, 30s, 5m"),
        (&["listen", "--for", "0s"], "no time at all"),
        (&["listen", "--count", "0"], "0"),
        (&["listen", "--no-such-option"], "--no-such-option"),
        (&["listne"], "listen"),
    ] {
        let output = run(arguments);
        let (stdout, stderr) = text(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {stderr}");
        assert!(stderr.contains(says) && stdout.is_empty(), "{arguments:?}: {stderr}");
    }
}

#[test]
fn arguments_that_are_no_text_are_refused_or_taken_as_paths() {
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"/nonexistent/\xff.toml");
    let output = bindscope(&["listen"]).arg(name).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).1.contains("/nonexistent/"), "{:?}", text(&output));
    let output = bindscope(&["listen", "--bind"]).arg(name).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_taken_port_names_its_holder_and_the_others_go_on() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let output = run(&[&ONE[..], &["--bind", &taken, "--format", "ndjson", "--for", "50ms"]].concat());
    let (stdout, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(0), "the other one was served: {stderr}");
    let failed = events(&stdout).into_iter().find(|event| event["event"] == "bind_failed").unwrap();
    assert_eq!(failed["errno"], "EADDRINUSE");
    assert_eq!(failed["code"], "BS2001");
    if LINUX {
        let pid = format!("pid {}", std::process::id());
        assert!(failed["message"].as_str().unwrap().contains(&pid), "{failed}");
    }
    assert!(stderr.contains("BS2001") && stderr.contains("help:"), "{stderr}");
    let all = run(&["listen", "--bind", &taken, "--for", "50ms"]);
    assert_eq!(all.status.code(), Some(4), "nothing could be bound");
    let strict = run(&[&ONE[..], &["--bind", &taken, "--require-all", "--for", "50ms"]].concat());
    assert_eq!(strict.status.code(), Some(4));
}

#[test]
fn failures_say_what_is_wrong_and_the_way_out() {
    let device = if LINUX {
        ("127.0.0.1:0,device=nosuch0", "ENODEV", "BS2007", "interfaces here: lo")
    } else {
        ("127.0.0.1:0,device=nosuch0", "ENOPROTOOPT", "BS2012", "remove the key")
    };
    for (bind, errno, code, says) in [
        device,
        ("203.0.113.7:0", "EADDRNOTAVAIL", "BS2002", "freebind"),
        ("[2001:db8::dead]:0", "EADDRNOTAVAIL", "BS2002", "no interface of this host"),
        ("[fe80::1%nosuch0]:80", "ENODEV", "BS2007", "nosuch0"),
        ("udp:[ff02::1]:0", "EINVAL", "BS2006", "ff02::1%INTERFACE"),
    ] {
        let output = run(&["listen", "--bind", bind, "--format", "ndjson", "--for", "50ms"]);
        let (stdout, stderr) = text(&output);
        assert_eq!(output.status.code(), Some(4), "{bind}: {stderr}");
        let events = events(&stdout);
        let failed = events.iter().find(|event| event["event"] == "bind_failed").unwrap();
        assert_eq!(
            (failed["errno"].as_str(), failed["code"].as_str()),
            (Some(errno), Some(code)),
            "{failed}"
        );
        assert!(stderr.contains(says), "{bind}: {stderr}");
        assert_eq!(events.last().unwrap()["event"], "summary", "an orderly end");
    }
}

#[test]
fn a_privileged_port_is_explained_to_a_user() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not tested: only root can become another user");
        return;
    }
    // A copy, for the build directory may be closed to others.
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let program = directory.path().join("bindscope");
    copy_program(env!("CARGO_BIN_EXE_bindscope"), &program);
    let mut command = Command::new(&program);
    command.args(["listen", "--bind", "127.0.0.1:80", "--for", "50ms"]).uid(65534).gid(65534);
    let child = command.current_dir("/").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = finish(child);
    let stderr = text(&output).1;
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    for says in ["EACCES", "ip_unprivileged_port_start", "cap_net_bind_service", "BS2005"] {
        assert!(stderr.contains(says), "{says}: {stderr}");
    }
}

#[test]
fn people_get_aligned_lines_and_a_matrix() {
    let mut child = bindscope(&[&ONE[..], &["--count", "1"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let bound = lines.by_ref().find(|line| line.contains("tcp 127.0.0.1:")).unwrap();
    assert!(bound.contains("this host only") && !bound.contains("now"), "{bound}");
    let to = bound.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap().to_owned();
    let head = lines.by_ref().find(|line| line.starts_with("TIME")).unwrap();
    let _client = TcpStream::connect(&to).unwrap();
    let arrival = lines.next().unwrap();
    assert_eq!(head.find("LOCAL"), arrival.find(&to), "{head}\n{arrival}");
    let rest: Vec<_> = lines.collect();
    assert!(rest.iter().any(|line| line == "1 accepted"), "{rest:?}");
    if LINUX {
        assert_eq!(head.find("INGRESS"), arrival.find("lo "), "{head}\n{arrival}");
    }
    assert!(wait(&mut child).success());
}

#[test]
fn nothing_is_coloured_but_on_a_terminal() {
    let plain = run(&[&ONE[..], &["--for", "50ms"]].concat());
    assert!(!text(&plain).0.contains('\x1b'));
    let forced = run(&[&ONE[..], &["--for", "50ms", "--color", "always"]].concat());
    assert!(text(&forced).0.contains('\x1b'));
}

#[test]
fn output_that_cannot_be_written_is_exit_5() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for arguments in [&[&ONE[..], &["--for", "50ms"]].concat()[..], &["--help"], &["--version"]] {
        let child =
            bindscope(arguments).stdout(full.try_clone().unwrap()).stderr(Stdio::piped()).spawn().unwrap();
        let output = finish(child);
        let stderr = text(&output).1;
        assert_eq!(output.status.code(), Some(5), "{arguments:?} {stderr}");
        assert!(stderr.contains("BS4005") || stderr.contains("cannot write"), "{stderr}");
    }
}

#[test]
fn a_fifo_without_a_reader_is_an_error_instead_of_a_wait() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let output = run(&[&ONE[..], &["--for", "50ms", "-o", fifo.to_str().unwrap()]].concat());
    let stderr = text(&output).1;
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("start the reader first"), "{stderr}");
}

#[test]
fn a_reader_that_goes_away_ends_it_and_the_arrivals_without_a_line_are_told() {
    let mut child = bindscope(&[&["listen", "--format", "ndjson"], &ONE[1..]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut to = None;
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0);
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] == "bound" {
            to = Some(format!("127.0.0.1:{}", event["socket"]["port"]));
        }
        if event["event"] == "listening" {
            break;
        }
    }
    drop(lines);
    let to: SocketAddr = to.unwrap().parse().unwrap();
    while child.try_wait().unwrap().is_none() {
        let _ = TcpStream::connect_timeout(&to, Duration::from_secs(1));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(wait(&mut child).code(), Some(0));
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(stderr.starts_with("warning[BS4005]: the reader of the output went away: "), "{stderr}");
    assert_eq!(stderr.matches("BS4005").count(), 1, "{stderr}");
}

#[test]
fn a_reader_that_does_not_read_costs_lines_but_no_connection() {
    let mut listening = Listening::start(&mut ndjson(&["--bind", "127.0.0.1:0"]));
    let to = address(&listening);
    // The pipe takes 64 KiB; it is not read while far more is written.
    let total = 2000;
    for _ in 0..total {
        let client = TcpStream::connect_timeout(&to, Duration::from_secs(20)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut answer = String::new();
        (&client).write_all(b"x\n").unwrap();
        BufReader::new(client).read_line(&mut answer).unwrap();
        assert!(answer.contains("bindscope"), "it answers although its output is not read: {answer}");
    }
    let mut accepted = 0;
    while accepted < total {
        let event = listening.next();
        accepted += match event["event"].as_str().unwrap() {
            "accepted" => 1,
            "dropped" => event["count"].as_u64().unwrap(),
            _ => 0,
        };
    }
    let (events, status, _) = listening.end();
    assert_eq!(events.last().unwrap()["accepted"], total);
    assert_eq!(status.code(), Some(0));
}

/// `listen 2>&1 | less`, stopped: the pipe is full, and what goes wrong is told into the same pipe.
#[test]
fn a_reader_of_both_streams_that_does_not_read_does_not_keep_it_alive() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut child = ndjson(&["--bind", "127.0.0.1:0"])
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(&mut reader).lines();
    let to = loop {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if event["event"] == "bound" {
            break SocketAddr::from(([127, 0, 0, 1], event["socket"]["port"].as_u64().unwrap() as u16));
        }
    };
    // Far more than the 64 KiB that the pipe takes.
    for _ in 0..1000 {
        TcpStream::connect_timeout(&to, Duration::from_secs(20)).unwrap();
    }
    kill(nix::unistd::Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(wait(&mut child).code(), Some(5), "it ends by itself, without the last lines");
}

#[test]
fn a_second_signal_ends_at_once() {
    // A reader that reads nothing keeps the orderly end waiting.
    let mut listening = Listening::start(&mut ndjson(&["--bind", "127.0.0.1:0"]));
    let to = address(&listening);
    let _silent: Vec<_> = (0..3).map(|_| TcpStream::connect(to).unwrap()).collect();
    listening.next();
    kill(listening.pid(), Signal::SIGINT).unwrap();
    // Sent until it is gone: the second one may come when the first was not yet seen, never when it has ended.
    let status = loop {
        let _ = kill(listening.pid(), Signal::SIGINT);
        if let Some(status) = listening.try_wait() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(status.code(), Some(130));
}

/// What is lost behind the last datagram that found room is counted too.
#[cfg(all(target_os = "linux", not(bindscope_portable)))]
#[test]
fn every_datagram_is_received_or_counted_as_lost() {
    let listening = Listening::start(&mut ndjson(&["--bind", "udp:127.0.0.1:0"]));
    let to = address(&listening);
    kill(listening.pid(), Signal::SIGSTOP).unwrap();
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let total = 5000;
    for _ in 0..total {
        sender.send_to(&[0; 1000], to).unwrap();
    }
    kill(listening.pid(), Signal::SIGCONT).unwrap();
    let (events, _, stderr) = listening.end();
    let summary = events.last().unwrap();
    let lost = summary["errors"]["datagrams lost in a full receive queue"].as_u64().unwrap_or(0);
    assert!(lost > 0, "the queue takes a few hundred: {summary} {stderr}");
    assert_eq!(summary["datagrams"].as_u64().unwrap() + lost, total, "{summary}");
}

#[test]
fn what_is_waited_for_is_named_at_once() {
    let mut profile = tempfile::NamedTempFile::new().unwrap();
    let text = "schema = 1\nname = 'w'\n[[listener]]\nname = 'a'\nbind = '203.0.113.7'\nport = 0\n\
         when_missing = 'wait'\nwait_timeout = '200ms'\n";
    profile.write_all(text.as_bytes()).unwrap();
    let output = run(&["listen", "--format", "ndjson", "--for", "20ms", profile.path().to_str().unwrap()]);
    let events = events(&support::program::text(&output).0);
    let notice = events.iter().find(|event| event["event"] == "notice").unwrap();
    assert_eq!((&notice["code"], &notice["listener"]), (&"BS2002".into(), &"a".into()), "{notice}");
    assert!(notice["message"].as_str().unwrap().ends_with("it is waited for, at most 200ms"), "{notice}");
    assert_eq!(output.status.code(), Some(4));
}

/// `::ffff:0.0.0.0` is a wildcard too: what was connected to is not what was bound.
#[cfg(all(target_os = "linux", not(bindscope_portable)))]
#[test]
fn a_v4_mapped_wildcard_tells_the_address_that_was_connected_to() {
    let mut listening = Listening::start(&mut ndjson(&["--bind", "[::ffff:0.0.0.0]:0,v6only=false"]));
    let port = listening.bound().next().unwrap()["port"].as_u64().unwrap() as u16;
    let _client = TcpStream::connect(("127.0.0.9", port)).unwrap();
    let arrival = listening.next();
    assert_eq!(arrival["local"]["address"], "127.0.0.9", "{arrival}");
    assert_eq!(arrival["address_owner"], "lo", "{arrival}");
}

#[test]
fn the_log_is_added_to_and_private() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log.ndjson");
    for _ in 0..2 {
        let arguments =
            [&ONE[..], &["--format", "ndjson", "--for", "20ms", "-o", log.to_str().unwrap()]].concat();
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(text(&output).0, "");
    }
    let events = events(&std::fs::read_to_string(&log).unwrap());
    let starts = events.iter().filter(|event| event["event"] == "started").count();
    assert_eq!((starts, &events.last().unwrap()["event"]), (2, &"summary".into()));
    let mode = std::os::unix::fs::PermissionsExt::mode(&log.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[cfg(all(target_os = "linux", not(bindscope_portable)))]
#[test]
fn inherited_sockets_are_served_and_named() {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd as _;
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (to_tcp, to_udp) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
    // One waits in the queue before the program could ask for its ingress interface.
    let early = TcpStream::connect(to_tcp).unwrap();
    // The shell moves the descriptors to 3 and 4 and becomes the program, so that LISTEN_PID is right.
    let script = format!(
        "exec 3<&{} 4<&{}; LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:dns exec \"$0\" listen --inherited --format ndjson",
        tcp.as_raw_fd(),
        udp.as_raw_fd()
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_bindscope")]).stdin(Stdio::null());
    for socket in [std::os::fd::AsFd::as_fd(&tcp), std::os::fd::AsFd::as_fd(&udp)] {
        nix::fcntl::fcntl(socket, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    }
    let mut listening = Listening::start(&mut command);
    let names: Vec<_> =
        listening.bound().map(|socket| socket["listener"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["web", "dns"]);
    let first = listening.next();
    assert_eq!(first["peer"]["port"], early.local_addr().unwrap().port());
    assert_eq!(
        (&first["ingress"]["name"], &first["ingress"]["evidence"]),
        (&"lo".into(), &"kernel".into()),
        "{first}"
    );
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"hello", to_udp).unwrap();
    let datagram = listening.next();
    assert_eq!(
        (&datagram["listener"], &datagram["ingress"]["name"]),
        (&"dns".into(), &"lo".into()),
        "{datagram}"
    );
    assert_eq!(listening.end().1.code(), Some(0));
    for (pid, says) in [(None, "no program handed sockets over"), (Some("1"), "another process")] {
        let mut command = bindscope(&["listen", "--inherited"]);
        if let Some(pid) = pid {
            command.env("LISTEN_PID", pid).env("LISTEN_FDS", "1");
        }
        let output = finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        assert_eq!(output.status.code(), Some(4));
        assert!(text(&output).1.contains(says), "{:?}", text(&output));
    }
}

/// Who ends it while it waits for an address has seen no failure.
#[cfg(all(target_os = "linux", not(bindscope_portable)))]
#[test]
fn a_signal_while_waiting_for_an_address_is_an_orderly_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wait.toml");
    let profile = "schema = 1\nname = \"wait\"\n[[listener]]\nname = \"later\"\nbind = { interface = \"nosuch0\" }\n\
                   port = 0\nwhen_missing = \"wait\"\nwait_timeout = \"50s\"\n";
    std::fs::write(&path, profile).unwrap();
    let mut child = bindscope(&["listen", path.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut begun = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    begun.read_line(&mut line).unwrap();
    assert!(line.contains("with profile wait"), "{line}");
    kill(nix::unistd::Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(wait(&mut child).code(), Some(0));
    let mut rest = String::new();
    begun.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("LISTENER"), "an empty table: {rest}");
}
