//! `check`, `init` and `schema` as a user calls them: files of every sort, and what the program says and returns.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a test")]

#[path = "support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::process::Stdio;

use support::program::{bindscope, finish, run, text};
use tempfile::TempDir;

fn file(dir: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Exit code, standard output, standard error.
fn check(files: &[&str]) -> (Option<i32>, String, String) {
    let output = run(&[&["check"], files].concat());
    let (stdout, stderr) = text(&output);
    (output.status.code(), stdout, stderr)
}

const GOOD: &str = "schema = 1\nname = \"good\"\n[[listener]]\nname = \"a\"\nport = 8081\n";

#[test]
fn good_files_of_every_kind_are_ok() {
    let (code, stdout, stderr) =
        check(&["profiles/default.toml", "tests/data/examples/b.toml", "tests/data/examples/h.toml"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let expected = "profiles/default.toml: ok (7 listeners, 2 expectations)\n\
                    tests/data/examples/b.toml: ok (policy, 3 rules, 1 waiver)\n\
                    tests/data/examples/h.toml: ok (lab, 3 nodes)\n";
    assert_eq!(stdout, expected);
}

#[test]
fn all_files_are_read_and_all_problems_told() {
    let dir = TempDir::new().unwrap();
    let good = file(&dir, "good.toml", GOOD);
    let bad = file(&dir, "bad.toml", GOOD.replace("8081", "70000").replace("name = \"a\"", "nmae = \"a\""));
    let (code, stdout, stderr) = check(&[&bad, &good, "/nowhere/at/all"]);
    assert_eq!(code, Some(2));
    assert_eq!(stdout, format!("{good}: ok (1 listener)\n"));
    for part in
        ["did you mean `name`?", "bad.toml:5:8", "70000 is not from 0 to 65535", "/nowhere/at/all", "^^^^^"]
    {
        assert!(stderr.contains(part), "no {part:?} in\n{stderr}");
    }
}

#[test]
fn a_file_that_is_no_text_is_named_and_never_waited_for() {
    let dir = TempDir::new().unwrap();
    let long = file(&dir, "long.toml", GOOD.to_owned() + &"#".repeat(1024 * 1024));
    let sparse = file(&dir, "sparse.toml", "");
    std::fs::File::options().write(true).open(&sparse).unwrap().set_len(100 * 1024 * 1024).unwrap();
    let latin = file(&dir, "latin.toml", b"schema = 1\nname = \"caf\xe9\"\n");
    let nul = file(&dir, "nul.toml", GOOD.to_owned() + "\0");
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let directory = dir.path().to_str().unwrap();
    for (name, word) in [
        (long.as_str(), "longer than 1 MiB"),
        (&sparse, "longer than 1 MiB"),
        (&latin, "not UTF-8 (line 2"),
        (&nul, "BS0001"),
        (fifo.to_str().unwrap(), "FIFO"),
        (directory, "directory"),
        ("/dev/zero", "device"),
    ] {
        let (code, stdout, stderr) = check(&[name]);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{name}: {stderr}");
        assert!(stderr.contains(word), "{name}: no {word:?} in\n{stderr}");
    }
    let bom = file(&dir, "bom.toml", format!("\u{feff}{}", GOOD.replace('\n', "\r\n")));
    assert_eq!(check(&[&bom]).0, Some(0));
}

#[test]
fn standard_input_is_a_file_too() {
    use std::io::Write as _;
    for (content, expected, word) in [(GOOD, 0, "<stdin>: ok"), ("schema = 2\n", 2, "<stdin>:1:10")] {
        let mut child = bindscope(&["check", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(content.as_bytes()).unwrap();
        let output = finish(child);
        let (stdout, stderr) = text(&output);
        assert_eq!(output.status.code(), Some(expected));
        assert!(format!("{stdout}{stderr}").contains(word), "{stdout}{stderr}");
    }
}

#[test]
fn a_file_beside_it_is_taken_over_but_none_elsewhere() {
    let dir = TempDir::new().unwrap();
    file(&dir, "base.toml", GOOD);
    let upper = |base: &str| {
        let text = format!("schema = 1\nextends = \"{base}\"\n[[listener]]\nname = \"b\"\nport = 8082\n");
        check(&[&file(&dir, "upper.toml", text)])
    };
    let (code, stdout, stderr) = upper("base.toml");
    assert!(code == Some(0) && stdout.ends_with("ok (2 listeners)\n"), "{stdout}{stderr}");
    for base in ["../base.toml", "/etc/hostname", "missing.toml", "upper.toml"] {
        let (code, _, stderr) = upper(base);
        assert!(code == Some(2) && stderr.contains("upper.toml:2:"), "{base}: {stderr}");
    }
}

#[test]
fn root_reads_no_file_that_every_user_can_change() {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let dir = TempDir::new().unwrap();
    let name = file(&dir, "theirs.toml", GOOD);
    std::fs::set_permissions(&name, std::fs::Permissions::from_mode(0o666)).unwrap();
    if !nix::unistd::geteuid().is_root() || chown(&name, Some(65534), None).is_err() {
        eprintln!("not checked: only root can give a file away");
        assert_eq!(check(&[&name]).0, Some(0));
        return;
    }
    let mode = |mode| std::fs::set_permissions(&name, std::fs::Permissions::from_mode(mode)).unwrap();
    for owner in [65534, 0] {
        chown(&name, Some(owner), None).unwrap();
        mode(0o666);
        let (code, stdout, stderr) = check(&[&name]);
        assert!(code == Some(2) && stdout.is_empty() && stderr.contains("BS0017"), "{stdout}{stderr}");
        // Its owner can change a file whatever the bits are.
        mode(0o644);
        let (code, _, stderr) = check(&[&name]);
        let expected = if owner == 0 { (Some(0), false) } else { (Some(2), true) };
        assert_eq!((code, stderr.contains("BS0017")), expected, "{stderr}");
    }
    chown(&name, Some(65534), None).unwrap();
    let by_sudo = bindscope(&["check", &name]).env("SUDO_UID", "65534").output().unwrap();
    assert_eq!(text(&by_sudo).1, "", "who gave the command knows it");
    // Whatever a file is called that lies about, a name alone means what is built in.
    let built_in = file(&dir, "loopback", "schema = 1\nname = 'theirs'\n");
    chown(&built_in, Some(65534), None).unwrap();
    let output = bindscope(&["plan", "loopback"]).current_dir(dir.path()).output().unwrap();
    assert!(!text(&output).0.contains("theirs") && !text(&output).1.contains("BS0017"), "{output:?}");
    let output = bindscope(&["plan"]).current_dir(dir.path()).output().unwrap();
    assert!(!text(&output).1.contains("BS0017"), "{output:?}");
}

#[test]
fn init_writes_a_profile_that_is_right_and_never_over_another() {
    let dir = TempDir::new().unwrap();
    let path: PathBuf = dir.path().join("new.toml");
    let name = path.to_str().unwrap();
    assert_eq!(run(&["init", name]).status.code(), Some(0));
    let (code, stdout, stderr) = check(&[name]);
    assert!(code == Some(0) && stdout.contains("2 listeners, 1 expectation"), "{stdout}{stderr}");
    std::fs::write(&path, "mine").unwrap();
    let refused = run(&["init", name]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused).1.contains("--force"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    assert_eq!(run(&["init", "--force", name]).status.code(), Some(0));
    assert_eq!(text(&run(&["init", "-"])).0, std::fs::read_to_string(&path).unwrap());
    assert_eq!(run(&["init", "/nowhere/at/all.toml"]).status.code(), Some(5));
}

#[test]
fn schema_prints_what_is_published() {
    for kind in ["profile", "policy", "lab"] {
        let output = run(&["schema", kind]);
        let expected = std::fs::read_to_string(format!("tests/data/schema/{kind}.json")).unwrap();
        assert_eq!((output.status.code(), text(&output).0), (Some(0), expected));
    }
    assert_eq!(run(&["schema", "profil"]).status.code(), Some(2));
    assert_eq!(run(&["check"]).status.code(), Some(2));
}

#[test]
fn listeners_that_cannot_be_meant_are_refused_before_anything_is_bound() {
    let dir = TempDir::new().unwrap();
    let many = file(&dir, "many.toml", GOOD.replace("8081", "\"1-65535\""));
    for (arguments, words) in [
        (vec!["listen", "--bind", "127.0.0.1:1-65535"], vec!["BS0013", "at most 1024"]),
        (vec!["listen", &many], vec!["BS0013", "many.toml:5:8"]),
        (vec!["listen", "defualt"], vec!["BS0018", "did you mean the built-in profile default?"]),
        (
            vec!["listen", "--bind", "::1:80", "--bind", ":80", "nowhere"],
            vec!["BS0018", "[::1]:80", "0.0.0.0:80"],
        ),
        (
            vec!["listen", "--bind", "127.0.0.1:80,name=a", "--bind", "127.0.0.1:81,name=a"],
            vec!["BS0006", "called \"a\""],
        ),
        (vec!["listen", "tests/data/examples/b.toml"], vec!["BS0022", "policy file"]),
    ] {
        let output = run(&arguments);
        let (stdout, stderr) = text(&output);
        assert_eq!((output.status.code(), stdout.as_str()), (Some(2), ""), "{arguments:?}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{arguments:?}: no {word:?} in\n{stderr}");
        }
    }
}

/// A profile that is open to others must say why, when that is asked for; what is on loopback need not.
#[test]
fn strict_asks_for_reasons() {
    let dir = TempDir::new().unwrap();
    let open = format!("{GOOD}[[listener]]\nname = \"b\"\nbind = \"0.0.0.0\"\nport = 8082\n");
    let silent = file(&dir, "silent.toml", &open);
    let spoken = file(&dir, "spoken.toml", format!("{open}exposure_reason = \"a demo\"\n"));
    assert_eq!(check(&[&silent]).0, Some(0));
    assert_eq!(check(&["--strict", &spoken]).0, Some(0));
    let (code, _, stderr) = check(&["--strict", &silent]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("listener \"b\" (line 6)") && stderr.contains("BS0025"), "{stderr}");
    assert!(!stderr.contains("listener \"a\""), "{stderr}");
    let output = run(&["listen", "--strict", "--for", "50ms", &silent]);
    assert_eq!(output.status.code(), Some(2), "nothing is bound: {:?}", text(&output));
    assert!(
        profiles().all(|profile| check(&["--strict", profile.to_str().unwrap()]).0 == Some(0)),
        "shipped ones do"
    );
}

fn profiles() -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir("profiles").unwrap().map(|entry| entry.unwrap().path())
}

/// `listen default` works, so `check default` must not say that there is no such thing.
#[test]
fn built_in_profiles_can_be_checked_by_name() {
    let (code, stdout, _) = check(&["default"]);
    assert_eq!((code, stdout.as_str()), (Some(0), "built-in default: ok (7 listeners, 2 expectations)\n"));
    let (code, _, stderr) = check(&["defualt"]);
    assert!(code == Some(2) && stderr.contains("did you mean the built-in profile default?"), "{stderr}");
}

#[test]
fn the_profile_of_the_directory_is_used_and_named_first() {
    let dir = TempDir::new().unwrap();
    file(&dir, "bindscope.toml", GOOD);
    for (arguments, used) in [
        (&["plan", "--json"][..], true),
        (&["check"], true),
        (&["plan", "--json", "--no-config"], false),
        (&["plan", "--json", "loopback"], false),
        (&["plan", "--json", "8081"], false),
    ] {
        let output = bindscope(arguments).current_dir(&dir).output().unwrap();
        let (stdout, stderr) = text(&output);
        if arguments[0] == "check" {
            assert!(stdout.starts_with("bindscope.toml: ok"), "{stdout}{stderr}");
        } else {
            assert_eq!(
                stderr.contains("note[BS0026]: using ./bindscope.toml"),
                used,
                "{arguments:?}: {stderr}"
            );
        }
    }
}

#[test]
fn targets_and_formats_are_read_as_people_write_them() {
    for (arguments, sockets) in [
        (&["plan", "--json", "8081"][..], &["127.0.0.1:8081", "[::1]:8081"][..]),
        (&["plan", "-f", "json", "localhost:8081"], &["127.0.0.1:8081", "[::1]:8081"]),
        (
            &["plan", "--json", "-b", "127.0.0.1:8081", "udp:8082"],
            &["127.0.0.1:8082", "[::1]:8082", "127.0.0.1:8081"],
        ),
        (&["plan", "--json", "*:8081"], &["[::]:8081"]),
    ] {
        let output = run(arguments);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let found: Vec<String> = report["sockets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|socket| {
                let (address, port) =
                    (socket["socket"]["address"].as_str().unwrap(), &socket["socket"]["port"]);
                if address.contains(':') {
                    format!("[{address}]:{port}")
                } else {
                    format!("{address}:{port}")
                }
            })
            .collect();
        assert_eq!(found, sockets, "{arguments:?}");
    }
}

/// Command lines that people try first. Each works, or one of the first three lines of the error names the right spelling.
#[test]
fn wrong_guesses_are_answered_with_the_right_spelling() {
    for (line, spelling) in [
        ("listen :8080", "0.0.0.0:8080"),
        ("listen 0.0.0.0 8080", "0.0.0.0:8080"),
        ("listen -p 8080", "listen 0.0.0.0:8080"),
        ("listen --port 8080", "listen 0.0.0.0:8080"),
        ("listen --port=8080", "listen 0.0.0.0:8080"),
        ("listen -i eth0", "listen eth0:8080"),
        ("listen --interface eth0 --port 99", "listen eth0:99"),
        ("listen --host :: --port 99", "listen '[::]:99'"),
        ("listen eth0", "eth0:8080"),
        ("listen --udp 53", "udp:"),
        ("plan 0.0.0.0", "0.0.0.0:8080"),
        ("plan ::", "[::]:8080"),
        ("probe localhost", "localhost:8080"),
        ("0.0.0.0:8080", "bindscope listen 0.0.0.0:8080"),
        ("serve 0.0.0.0:99", "bindscope listen 0.0.0.0:99"),
        ("server", "bindscope listen"),
        ("start", "bindscope listen"),
        ("run default", "bindscope listen default"),
        ("scan", "bindscope probe --ports"),
        ("monitor", "bindscope audit --watch"),
        ("netstat -tlnp", "bindscope audit"),
        ("profiles", "bindscope explain"),
        ("bs2001", "bindscope explain BS2001"),
        ("listen tcp://0.0.0.0:8080", "0.0.0.0:8080"),
        ("listen --config a.toml", "bindscope listen a.toml"),
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let output = run(&arguments);
        let stderr = text(&output).1;
        let start: Vec<&str> = stderr
            .lines()
            .filter(|line| !line.trim_start().starts_with('|') && !line.contains("-->"))
            .take(5)
            .collect();
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
        assert!(start.iter().any(|line| line.contains(spelling)), "{line}: {stderr}");
    }
}

/// What is allowed and dangerous is a warning: the file is good.
#[test]
fn udp_replies_to_other_hosts_are_warned_of() {
    let dir = TempDir::new().unwrap();
    let listener = |name: &str, bind: &str, more: &str| {
        format!("[[listener]]\nname = '{name}'\nbind = {bind}\nport = 7001\nprotocol = 'udp'\n{more}\n")
    };
    let head = "schema = 1\nname = 'u'\n";
    for (listeners, warned) in [
        (listener("a", "'0.0.0.0'", "reply = 'describe'"), true),
        (listener("a", "'192.0.2.1'", "reply = 'echo'"), true),
        (listener("a", "{ interface = '*' }", "reply = 'echo'"), true),
        (listener("a", "['127.0.0.1', '2001:db8::1']", "reply = 'echo'"), true),
        (listener("a", "'0.0.0.0'", ""), false),
        (listener("a", "'0.0.0.0'", "reply = 'none'"), false),
        (listener("a", "'127.0.0.1'", "reply = 'describe'"), false),
        (listener("a", "'0.0.0.0'", "device = 'lo'\nreply = 'echo'"), false),
        (listener("a", "'0.0.0.0'", "reply = 'echo'").replace("udp", "tcp"), false),
    ] {
        let (code, stdout, stderr) = check(&[&file(&dir, "u.toml", format!("{head}{listeners}"))]);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.contains("ok (1 listener)"));
        assert_eq!(stderr.contains("warning[BS0028]"), warned, "{listeners}: {stderr}");
    }
}
