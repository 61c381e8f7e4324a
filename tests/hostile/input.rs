//! Files that influence a decision: who may change them, and what they must be.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Output;

use crate::support::program::{bindscope, finish, text};
use crate::{NOBODY, as_root, directory_of_nobody, run_in, shell};

const PROFILE: &str = "schema = 1\nname = 'p'\n[[listener]]\nname = 'web'\nbind = '127.0.0.1'\nport = 8081\n";
const POLICY: &str = "schema = 1\nkind = 'policy'\nname = 'p'\n";

/// A file of each kind in `directory`, with the arguments that make the program read it.
fn inputs(directory: &Path) -> Vec<(&'static str, Vec<&'static str>)> {
    let write = |name: &str, bytes: &[u8]| fs::write(directory.join(name), bytes).unwrap();
    write("profile.toml", PROFILE.as_bytes());
    write("base.toml", PROFILE.as_bytes());
    write("above.toml", b"schema = 1\nextends = 'base.toml'\n");
    write("topology.toml", &run_in(directory, &["schema", "lab"]).stdout);
    write("policy.toml", POLICY.as_bytes());
    for (name, arguments) in [
        ("snapshot.json", &["interfaces", "--format", "json"][..]),
        ("plan.json", &["plan", "loopback", "--format", "json"]),
        ("audit.json", &["audit", "--format", "json"]),
    ] {
        write(name, &run_in(directory, arguments).stdout);
    }
    vec![
        ("profile.toml", vec!["check", "profile.toml"]),
        ("profile.toml", vec!["plan", "profile.toml"]),
        ("base.toml", vec!["plan", "above.toml"]),
        ("policy.toml", vec!["audit", "--policy", "policy.toml"]),
        ("audit.json", vec!["audit", "--baseline", "audit.json"]),
        ("snapshot.json", vec!["plan", "loopback", "--host", "snapshot.json"]),
        ("snapshot.json", vec!["lab", "plan", "loopback", "--twin", "snapshot.json"]),
        ("plan.json", vec!["diff", "plan.json", "plan.json"]),
        ("profile.toml", vec!["diff", "plan.json", "profile.toml"]),
        ("topology.toml", vec!["lab", "plan", "loopback", "--topology", "topology.toml"]),
    ]
}

fn is_refused(output: &Output) -> bool {
    output.status.code() == Some(2) && text(output).1.contains("BS0017")
}

/// As root: what another user can write to, or whose directory another user can write to, is read only with --trust.
#[test]
fn root_reads_nothing_that_another_user_can_change() {
    if !as_root() {
        return;
    }
    let (_outer, theirs) = directory_of_nobody();
    let ours = tempfile::tempdir().unwrap();
    let list = inputs(ours.path());
    for (name, arguments) in &list {
        let path = ours.path().join(name);
        assert!(!is_refused(&run_in(ours.path(), arguments)), "{arguments:?}");
        for (owner, group, mode) in
            [(0, 0, 0o666), (0, 0, 0o602), (0, NOBODY, 0o664), (NOBODY, 0, 0o644), (NOBODY, NOBODY, 0o600)]
        {
            chown(&path, Some(owner), Some(group)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let output = run_in(ours.path(), arguments);
            assert!(is_refused(&output), "{arguments:?} {owner} {group} {mode:o} {:?}", text(&output));
            let trusted = run_in(ours.path(), &[&arguments[..], &["--trust"]].concat());
            assert!(!text(&trusted).1.contains("BS0017"), "{arguments:?} {:?}", text(&trusted));
        }
        let mut sudo = bindscope(arguments);
        sudo.current_dir(ours.path()).env("SUDO_UID", NOBODY.to_string()).env("SUDO_GID", NOBODY.to_string());
        sudo.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let by_sudo = finish(sudo.spawn().unwrap());
        assert!(!is_refused(&by_sudo), "who gave the command may write its files: {arguments:?}");
        chown(&path, Some(0), Some(0)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    }
    // Root's own file, in a directory where another user can put another file in its place.
    for (_, arguments) in inputs(&theirs) {
        let output = run_in(&theirs, &arguments);
        assert!(is_refused(&output), "{arguments:?} {:?}", text(&output));
    }
    // A link of theirs to a file of root's: they choose which of root's files is read.
    symlink(ours.path().join("snapshot.json"), theirs.join("link.json")).unwrap();
    let output = run_in(&theirs, &["plan", "loopback", "--host", "link.json"]);
    assert_eq!(output.status.code(), Some(2), "{:?}", text(&output));
    symlink(ours.path().join("snapshot.json"), ours.path().join("link.json")).unwrap();
    assert!(!is_refused(&run_in(ours.path(), &["plan", "loopback", "--host", "link.json"])));
}

/// A FIFO is never waited for, devices and directories are refused, and sizes are limited; pipes are read where they are named.
#[test]
fn only_regular_files_and_named_pipes_are_read() {
    let place = tempfile::tempdir().unwrap();
    inputs(place.path());
    nix::unistd::mkfifo(&place.path().join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    nix::unistd::mkfifo(&place.path().join("fifo.json"), nix::sys::stat::Mode::from_bits_truncate(0o600))
        .unwrap();
    for special in ["fifo", "fifo.json", "/dev/zero", "/dev/full", "."] {
        for arguments in [
            &["check"][..],
            &["plan", "--host", "plan.json", "--host"],
            &["plan", "loopback", "--host"],
            &["lab", "plan", "loopback", "--twin"],
            &["lab", "plan", "loopback", "--topology"],
            &["audit", "--policy"],
            &["audit", "--baseline"],
            &["diff", "plan.json"],
        ] {
            let output = run_in(place.path(), &[arguments, &[special]].concat());
            assert_eq!(output.status.code(), Some(2), "{arguments:?} {special} {:?}", text(&output));
        }
    }
    for script in [
        "cat snapshot.json | $B plan loopback --host -",
        "cat snapshot.json | $B plan loopback --host /dev/stdin",
        "$B plan loopback --host /dev/fd/4 4< snapshot.json",
        "cat audit.json | $B audit --baseline -",
        "cat policy.toml | $B audit --policy /dev/fd/0",
        "cat plan.json | $B diff /dev/stdin plan.json",
        "cat profile.toml | $B diff - plan.json --format json",
        "cat profile.toml | $B check -",
    ] {
        let output = shell(place.path(), script);
        assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{script}: {:?}", text(&output));
    }
    let output = shell(place.path(), "cat profile.toml | $B diff - plan.json --format json");
    assert!(text(&output).0.contains("bindscope.diff/1"));
    // Larger than what is read.
    for (name, size, arguments) in [
        ("large.toml", 2 << 20, &["check", "large.toml"][..]),
        ("large.json", 65 << 20, &["plan", "loopback", "--host", "large.json"]),
        ("large.json", 257 << 20, &["audit", "--baseline", "large.json"]),
        ("large.json", 257 << 20, &["diff", "plan.json", "large.json"]),
    ] {
        fs::File::create(place.path().join(name)).unwrap().set_len(size).unwrap();
        let output = run_in(place.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {:?}", text(&output));
        assert!(text(&output).1.contains("longer than"), "{:?}", text(&output));
    }
}
