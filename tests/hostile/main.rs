//! Files and names that another user controls: what the program reads, where it writes, and what a document can cause.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a test")]

#[path = "../support/mod.rs"]
mod support;

mod documents;
mod effects;
mod input;
mod limits;
mod output;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use support::program::{bindscope, finish};

/// The number of the user `nobody`, who stands for a less privileged user.
const NOBODY: u32 = 65534;

/// Whether the test may act as root on files of other users. If not, the reason is printed; with `BINDSCOPE_REQUIRE_NETNS` set it
/// fails.
fn as_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("not tested: only root can own files of two users");
        assert!(std::env::var_os("BINDSCOPE_REQUIRE_NETNS").is_none(), "root is required");
    }
    root
}

/// Runs a shell script with the program as `$B`, in `directory`. As root in a mount namespace of its own with a copy of `/dev`, so
/// that a fault of the program does not change this machine's.
fn shell(directory: &Path, script: &str) -> Output {
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("unshare");
        let prepare = "mkdir -p dev.copy && cp -a /dev/null /dev/zero /dev/full /dev/stdin /dev/stdout /dev/stderr /dev/fd dev.copy/ \
            && mount --bind dev.copy /dev || exit 99\n";
        command.args(["-m", "sh", "-c", &format!("{prepare}{script}")]);
        command
    } else {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    };
    command.current_dir(directory).env("B", env!("CARGO_BIN_EXE_bindscope"));
    finish(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// Runs the program in `directory`.
fn run_in(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = bindscope(arguments);
    command.current_dir(directory).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().unwrap())
}

/// A directory that the user `nobody` owns, inside one that every user can enter.
fn directory_of_nobody() -> (tempfile::TempDir, std::path::PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    std::fs::set_permissions(outer.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let theirs = outer.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    give_to_nobody(&theirs);
    (outer, theirs)
}

fn give_to_nobody(path: &Path) {
    std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
}
