//! Networks written to do harm, or by mistake: each is refused with its location, and nothing of it is built.

use std::process::{Command, Stdio};

use crate::support::program::{self, bindscope, toml_file};

/// A network of two nodes with these words at an end, and these tables behind.
fn network(end: &str, more: &str) -> String {
    format!(
        "schema = 1\nkind = 'lab'\nname = 'hostile'\n[lab]\nhost = 'h'\n[[lab.link]]\na = {{ node = 'h', interface = 'eth0', {end} }}\nb = {{ node = 'p', interface = 'eth0' }}\n{more}"
    )
}

const PLAIN: &str = "addresses = ['192.0.2.1/24']";

pub fn hostile_networks_are_refused_with_their_place() {
    let bridge = |node: &str| format!("[[lab.bridge]]\nnode = '{node}'\ninterface = 'br0'\n");
    let ports = |name: &str| {
        format!(
            "[[lab.link]]\na = {{ node = 'h', interface = '{name}', bridge = 'br0' }}\nb = {{ node = 'p', interface = '{name}', bridge = 'br0' }}\n"
        )
    };
    let node = |name: &str| format!("[[lab.node]]\nname = {name}\n");
    let event = |words: &str| format!("[[lab.event]]\n{words}\n");
    let filter = |rule: &str| format!("[[lab.filter]]\nnode = 'h'\nrule = {rule}\n");
    let sysctl = |words: &str| format!("{}{}sysctl = {{ {words} }}\n", node("'p'"), node("'h'"));
    for (end, more, said) in [
        // What a shell would obey, were it written into the script of `lab plan`.
        (PLAIN, node("'$(touch x)'"), "the name of a node begins with"),
        (PLAIN, node("'a b'"), "letters, digits"),
        (PLAIN, node("\"a\\nb\""), "letters, digits"),
        (PLAIN, node("'-h'"), "begins with something else"),
        (PLAIN, node("'../h'"), "begins with something else"),
        (PLAIN, node(&format!("'{}'", "n".repeat(65))), "more than 64"),
        (PLAIN, event("interface = 'eth0'\nrename = '`id`'"), "not allowed in a lab's interface"),
        (PLAIN, sysctl("'net.ipv4.ip_forward' = \"1'; id\""), "must not contain quotes"),
        (PLAIN, sysctl("'net.ipv4.ip_forward' = \"1\\n2\""), "control characters"),
        (PLAIN, sysctl("'kernel.hostname' = 'x'"), "not a network setting that a lab may change"),
        (
            PLAIN,
            sysctl("'net.ipv4.../../kernel.hostname' = 'x'"),
            "not a network setting that a lab may change",
        ),
        // What would begin another command of nft.
        (PLAIN, filter("\"accept\\ninclude '/etc/shadow'\""), "one line"),
        (PLAIN, filter("'accept; flush ruleset'"), "one line"),
        // What the kernel would refuse, or would not survive.
        ("mtu = 1279, addresses = ['2001:db8::1/64']", String::new(), "MTU of 1280"),
        ("addresses = ['::1/128']", String::new(), "no interface can be given"),
        ("addresses = ['ff02::1/64']", String::new(), "no interface can be given"),
        ("addresses = ['::ffff:192.0.2.1/120']", String::new(), "no interface can be given"),
        ("addresses = ['192.0.2.1/24 dad']", String::new(), "not checked for duplicates"),
        ("addresses = ['2001:db8::1/64 tentative nodad']", String::new(), "cannot be tentative"),
        ("bridge = 'br0'", bridge("h") + &bridge("p") + &ports("x0") + &ports("x1"), "form a loop"),
        (PLAIN, "[[lab.macvlan]]\nnode = 'h'\ninterface = 'm'\nparent = 'm'\n".into(), "its own parent"),
        (PLAIN, event("interface = 'eth7'\nlink = 'down'"), "no interface \"eth7\" by then"),
        (
            PLAIN,
            event("interface = 'eth0'\nrename = 'a'") + &event("interface = 'eth0'\nlink = 'up'"),
            "no interface \"eth0\" by then",
        ),
        (PLAIN, event("node = 'q'\ninterface = 'eth0'\nlink = 'up'"), "q"),
        // A circle of one.
        (
            "bridge = 'br0'",
            bridge("h")
                + "[[lab.link]]\na = { node = 'h', interface = 'x', bridge = 'br0' }\nb = { node = 'h', interface = 'y', bridge = 'br0' }\n",
            "form a loop",
        ),
    ] {
        let file = toml_file(&network(end, &more));
        for command in ["plan", "run"] {
            let output =
                program::run(&["lab", command, "loopback", "--topology", file.path().to_str().unwrap()]);
            let (stdout, stderr) = program::text(&output);
            assert_eq!((output.status.code(), stdout.as_str()), (Some(2), ""), "{end} {more}: {stderr}");
            assert!(stderr.contains(said) && stderr.contains("-->"), "{said}: {stderr}");
        }
    }
}

/// A reader that goes away takes nothing from the verdict, and a full disk is told.
pub fn outputs_that_end_early_are_borne() {
    for (into, wanted) in [("| head -c 1 >&2", "1"), ("> /dev/full", "5")] {
        let program = env!("CARGO_BIN_EXE_bindscope");
        let script = format!("{{ {program} lab run tutorial --format json; echo $? >&3; }} {into}");
        let output =
            Command::new("sh").args(["-c", &format!("exec 3>&1 >/dev/null; {script}")]).output().unwrap();
        assert_eq!(program::text(&output).0.trim(), wanted, "{into}");
    }
}

/// A shell with a terminal of its own, in a node.
pub fn a_shell_has_its_terminal_and_its_node() {
    let line = format!("{} lab shell lan", env!("CARGO_BIN_EXE_bindscope"));
    let mut child = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let commands = b"stty -echo\ntty\nip -br addr show eth0\nexit 3\n";
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), commands).unwrap();
    let output = program::finish(child);
    let text = program::text(&output).0;
    assert!(text.contains("/dev/pts/"), "{text}");
    assert!(text.contains("192.0.2.10/24"), "{text}");
    // What there is to try.
    assert!(text.contains("A shell in the node lan") && text.contains("192.0.2.1 (eth0)"), "{text}");
    assert!(text.contains("tcp 0.0.0.0:8081"), "{text}");
    assert_eq!(output.status.code(), Some(3), "{text}");
}

/// A program in a node ends with the lab, whatever ends it, and so does what the program has started. An interrupt is the program's own.
pub fn a_program_in_a_node_does_not_outlive_the_lab() {
    use nix::sys::signal::{Signal, kill};
    // Numbers by which the processes are found; in the lab they have other process ids than here.
    let number = 100_000 + std::process::id();
    for (signal, ends) in [(Signal::SIGINT, false), (Signal::SIGTERM, true), (Signal::SIGKILL, true)] {
        let (own, started) = (format!("{number}.{}1", signal as i32), format!("{number}.{}2", signal as i32));
        let script = format!("(trap '' HUP TERM; setsid sleep {started}) & exec sleep {own}");
        let mut child = bindscope(&["lab", "shell", "lan", "--", "sh", "-c", &script])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let running = |seconds: &str| {
            let wanted = format!("sleep\0{seconds}\0");
            let processes = std::fs::read_dir("/proc").unwrap().flatten();
            processes
                .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
                .any(|line| line == wanted.as_bytes())
        };
        let begun = std::time::Instant::now();
        while !running(&own) || !running(&started) {
            assert!(begun.elapsed() < program::PATIENCE);
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let send = |signal| kill(nix::unistd::Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        send(signal);
        if !ends {
            std::thread::sleep(std::time::Duration::from_millis(300));
            assert!(running(&own) && running(&started));
            send(Signal::SIGTERM);
        }
        program::wait(&mut child);
        while running(&own) || running(&started) {
            assert!(begun.elapsed() < program::PATIENCE, "{signal}");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
    // What a program leaves behind when it ends by itself ends, too.
    let left = format!("{number}.3");
    let output = program::run(&[
        "lab",
        "shell",
        "lan",
        "--",
        "sh",
        "-c",
        &format!("sleep {left} >/dev/null 2>&1 & exit 5"),
    ]);
    assert_eq!(output.status.code(), Some(5), "{:?}", program::text(&output));
    let wanted = format!("sleep\0{left}\0");
    let mut lines = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    assert!(!lines.any(|line| line == wanted.as_bytes()));
}

/// The commands that lead into the nodes of a lab that stands lead there.
pub fn the_ways_into_a_lab_that_stands_lead_there() {
    let mut child = bindscope(&["lab", "run", "loopback", "--keep"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let ways =
        std::io::BufRead::lines(stderr).map(Result::unwrap).filter(|line| line.contains("nsenter")).take(3);
    for way in ways {
        let (node, command) = way.trim().split_once(' ').unwrap();
        let output =
            Command::new("sh").args(["-c", &format!("{command} ip -br addr show")]).output().unwrap();
        let (stdout, stderr) = program::text(&output);
        let address = match node {
            "host" => "198.51.100.1/24",
            "lan" => "192.0.2.10/24",
            _ => "198.51.100.10/24",
        };
        assert!(stdout.contains(address), "{way}: {stdout}{stderr}");
    }
    child.kill().unwrap();
    program::wait(&mut child);
}

pub fn what_cannot_be_run_in_a_node_is_named() {
    let output = program::run(&["lab", "shell", "lan", "--", "no-such-program"]);
    assert_eq!(output.status.code(), Some(127));
    let stderr = program::text(&output).1;
    assert!(stderr.contains("no-such-program cannot be run there: No such file"), "{stderr}");
}

/// As `env` and `ip netns exec` do.
pub fn a_command_in_a_node_ends_with_its_own_code() {
    for (script, code) in
        [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
    {
        let output =
            program::run(&["lab", "shell", "lan", "--profile", "loopback", "--", "sh", "-c", script]);
        assert_eq!(output.status.code(), Some(code), "{script}: {:?}", program::text(&output));
    }
    let output = program::run(&["lab", "shell", "lan", "--profile", "loopback", "--", "/dev/null"]);
    assert_eq!(output.status.code(), Some(126), "{:?}", program::text(&output));
}

/// `kill` ends a lab that stands, in an orderly way.
pub fn a_lab_that_stands_ends_at_a_signal() {
    for signal in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGINT] {
        let mut child = bindscope(&["lab", "run", "loopback", "--keep"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = std::io::BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("nsenter") {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut said, &mut line).unwrap() > 0);
        }
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        assert_eq!(program::wait(&mut child).code(), Some(0));
    }
}

/// With few descriptors a lab takes longer, and with little time it sees less. Neither makes it see what is not so.
pub fn a_lab_without_room_or_time_claims_nothing_false() {
    let document = |script: &str| -> (serde_json::Value, Option<i32>) {
        let output = Command::new("sh").args(["-c", script]).output().unwrap();
        let document = serde_json::from_slice(&output.stdout);
        (
            document.unwrap_or_else(|error| panic!("{error}: {:?}", program::text(&output))),
            output.status.code(),
        )
    };
    let program = env!("CARGO_BIN_EXE_bindscope");
    let (few, exit) = document(&format!(
        "ulimit -n 40; exec {program} lab run all-interfaces --topology three-links --format json"
    ));
    assert_eq!((exit, &few["summary"]["disagree"]), (Some(0), &0.into()), "{}", few["summary"]);
    let (cut, exit) = document(&format!("exec {program} lab run loopback --deadline 1ms --format json"));
    assert_eq!((exit, &cut["summary"]["disagree"]), (Some(3), &0.into()), "{}", cut["summary"]);
    assert!(cut["incomplete_because"].to_string().contains("the deadline came first"), "{cut}");
    let (cut, exit) = document(&format!("exec {program} lab run tutorial --deadline 40ms --format json"));
    assert_eq!(cut["summary"]["disagree"], 0, "{}", cut["summary"]);
    assert!(matches!(exit, Some(1 | 3)) && cut["complete"] == false, "{cut}");
}
