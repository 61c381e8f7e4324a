//! Where namespaces are refused: the error and `doctor` name the switch, nothing is half built, and what only looks like a refusal
//! is none.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::program::{self, toml_file};
use crate::support::tool;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bindscope");

/// How an ordinary user starts a program.
const ORDINARY: &str = "setpriv --inh-caps=-all --ambient-caps=-all";

/// `unshare(2)` fails for the program that follows, as Docker's filter makes it.
const FILTERED: &str = r#"python3 -c '
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
number = int(sys.argv[1])
# Load the number of the call; is it this one? EPERM; all others pass.
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
filter = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, filter, 0, 0) == 0
os.execv(sys.argv[2], sys.argv[2:])
' "#;

fn filtered() -> String {
    format!("{FILTERED} {}", nix::libc::SYS_unshare)
}

/// Runs `script` in a user namespace of its own, in which its rights last until it gives them up.
fn within(script: &str) -> Output {
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-user=1000",
        "--map-group=1000",
        "--keep-caps",
        "--mount",
        "sh",
        "-ec",
        script,
    ]);
    program::finish(
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(),
    )
}

/// After `setup`, the program behind the words of `start` can build no lab, and says so with all of `said`.
fn is_refused(name: &str, setup: &str, start: &str, said: &[&str]) {
    let output = within(&format!("{setup}\nexec {start} {PROGRAM} lab run loopback"));
    let (stdout, stderr) = program::text(&output);
    assert_eq!((output.status.code(), stdout.as_str()), (Some(4), ""), "{name}: {stderr}");
    assert!(stderr.contains("error[BS4020]"), "{name}: {stderr}");
    let doctor = program::text(&within(&format!("{setup}\nexec {start} {PROGRAM} doctor"))).0;
    for word in said {
        assert!(stderr.contains(word), "{name}: {word}: {stderr}");
        assert!(words(&doctor).contains(word), "{name}: {word}: {doctor}");
    }
}

/// A text without its line breaks.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub fn a_refusal_names_the_switch() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().display();
    let chroot = format!("mount --rbind / {root}");
    let chrooted = format!("chroot {root} {ORDINARY}");
    let limit = |name: &str| format!("echo 0 > /proc/sys/user/{name}");
    is_refused(
        "no user namespaces",
        &limit("max_user_namespaces"),
        ORDINARY,
        &["unshare(CLONE_NEWUSER)", "sysctl user.max_user_namespaces="],
    );
    is_refused(
        "no network namespaces",
        &limit("max_net_namespaces"),
        ORDINARY,
        &["unshare(CLONE_NEWNET)", "sysctl user.max_net_namespaces="],
    );
    is_refused("chroot", &chroot, &chrooted, &["unshare(CLONE_NEWUSER)", "chroot"]);
    let kernel = |setting: &str| {
        format!(
            "mount -t tmpfs none /proc/sys/kernel; echo {} > /proc/sys/kernel/{}",
            &setting[..1],
            &setting[2..]
        )
    };
    is_refused(
        "AppArmor, as Ubuntu has it",
        &format!("{}; {chroot}", kernel("1 apparmor_restrict_unprivileged_userns")),
        &chrooted,
        &["kernel.apparmor_restrict_unprivileged_userns=1", "userns,", "/etc/apparmor.d/"],
    );
    if !tool("python3") {
        return;
    }
    let filtered = format!("{ORDINARY} {}", filtered());
    is_refused("seccomp", ":", &filtered, &["unshare(CLONE_NEWUSER)", "--security-opt seccomp=unconfined"]);
    is_refused(
        "the old switch of Debian",
        &kernel("0 unprivileged_userns_clone"),
        &filtered,
        &["sysctl kernel.unprivileged_userns_clone=1"],
    );
}

pub fn a_user_without_a_number_is_told_so() {
    let mut command = Command::new("unshare");
    let output = command.args(["--user", PROGRAM, "lab", "run", "loopback"]).output().unwrap();
    let stderr = program::text(&output).1;
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("/proc/self/uid_map"), "{stderr}");
}

/// Root needs no user namespace.
pub fn root_needs_no_user_namespace() {
    let script =
        format!("echo 0 > /proc/sys/user/max_user_namespaces; exec {PROGRAM} lab run loopback --format csv");
    let output =
        Command::new("unshare").args(["--user", "--map-root-user", "sh", "-ec", &script]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", program::text(&output).1);
}

/// A program that its user cannot read, or that has rights of its own, may not write its maps at first (proc(5)).
pub fn a_program_that_cannot_be_read_builds_a_lab() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("bindscope");
    let run = |start: &str| {
        let output = within(&format!("exec {start} {} lab run loopback --format csv", copy.display()));
        assert_eq!(output.status.code(), Some(0), "{start}: {}", program::text(&output).1);
    };
    program::copy_program(PROGRAM, &copy);
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o111)).unwrap();
    run(ORDINARY);
}

fn settings_are_written_protected(path: &Path) -> Output {
    let protect = "mount --rbind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys";
    within(&format!(
        "{protect}; exec {ORDINARY} {PROGRAM} lab run loopback --format json --topology {}",
        path.display()
    ))
}

/// Containers have a read-only /proc/sys. What must be set cannot be, and that is said with the switch; the rest is a gap.
pub fn settings_that_cannot_be_written_are_told() {
    let network = bindscope::lab::builtin::get("two-sided").unwrap();
    let output = settings_are_written_protected(toml_file(network).path());
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {:?}", program::text(&output)));
    assert_eq!(document["complete"], false);
    let gaps = document["incomplete_because"].to_string();
    assert!(gaps.contains("net.ipv4.icmp_ratelimit could not be set to 0: Read-only file system"), "{gaps}");
    assert!(gaps.contains("--security-opt systempaths=unconfined"), "{gaps}");
    assert_eq!(document["summary"]["disagree"], 0, "{document}");
    let needed = format!(
        "{network}\n[[lab.node]]\nname = 'host'\nsysctl = {{ 'net.ipv4.ip_nonlocal_bind' = '1' }}\n[[lab.node]]\nname = 'lan'\n[[lab.node]]\nname = 'wan'\n"
    );
    let output = settings_are_written_protected(toml_file(&needed).path());
    let (stdout, stderr) = program::text(&output);
    assert_eq!((output.status.code(), stdout.as_str()), (Some(4), ""), "{stderr}");
    assert!(
        stderr.contains("net.ipv4.ip_nonlocal_bind") && stderr.contains("systempaths=unconfined"),
        "{stderr}"
    );
}
