//! What labs leave: nothing, however they end and however many there are.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::support::program::{self, bindscope};
use crate::support::random::Random;

/// Runs `script` in a user namespace of its own, as its root, where at most `most` network namespaces may be at once.
fn confined(most: usize, script: &str) -> Command {
    let mut command = Command::new("unshare");
    let limit = format!("echo {most} > /proc/sys/user/max_net_namespaces && {script}");
    command.args(["--user", "--map-root-user", "sh", "-c", &limit]);
    command
}

/// A lab has three nodes, and before it is tried whether a namespace can be made. Where any of them stayed behind, the limit would
/// stop the next labs soon; the kernel takes a moment to remove those that are gone.
pub fn labs_in_a_row_leave_no_namespace() {
    let count: u32 =
        std::env::var("BINDSCOPE_TEST_LABS").ok().and_then(|count| count.parse().ok()).unwrap_or(40);
    let program = env!("CARGO_BIN_EXE_bindscope");
    let script = format!(
        "i=0; missed=0
        while [ $i -lt {count} ]; do
            {program} lab run loopback --connect-timeout 50ms --format csv -o /dev/null 2>/tmp/none.$$ || [ $? = 3 ] || {{
                missed=$((missed + 1)); [ $missed -lt 200 ] || {{ cat /tmp/none.$$; rm /tmp/none.$$; exit 1; }}
                sleep 0.1; continue
            }}
            i=$((i + 1))
        done; rm -f /tmp/none.$$; echo $i labs, $missed times too early"
    );
    let child = confined(16, &script).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    let (stdout, stderr) = program::text(&output);
    assert!(output.status.success() && stdout.starts_with(&format!("{count} labs")), "{stdout}{stderr}");
}

/// Processes whose environment holds `mark`.
fn marked(mark: &str) -> BTreeSet<u32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environment| environment.windows(mark.len()).any(|part| part == mark.as_bytes()))
        })
        .collect()
}

/// Killed while it is built, while it connects and while it stands: no process, no mount, no file. With them go the namespaces,
/// which nothing else holds.
pub fn labs_killed_at_random_moments_leave_nothing() {
    let mut random = Random::seeded("labs_killed_at_random_moments_leave_nothing");
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let mark = format!("BINDSCOPE_MARK={}-{:x}", std::process::id(), random.next());
    let (key, value) = mark.split_once('=').unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    for _ in 0..25 {
        let mut command = bindscope(&["lab", "run", "tutorial", "--keep"]);
        command.env(key, value).env("TMPDIR", directory.path()).current_dir(directory.path());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(random.below(400) as u64));
        kill(nix::unistd::Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        assert_eq!(marked(&mark), BTreeSet::new());
    }
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// Labs beside each other have the same ports and addresses, and none hears of another.
pub fn labs_beside_each_other_do_not_meet() {
    let begun = Instant::now();
    let run = || {
        bindscope(&["lab", "run", "all-interfaces", "--format", "csv"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..4).map(|_| run()).collect();
    let answers: Vec<Vec<String>> = children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(0));
            // All but the time that it took.
            let lines = String::from_utf8(output.stdout).unwrap();
            lines
                .lines()
                .map(|line| line.split(',').enumerate().filter(|(n, _)| *n != 12).map(|(_, f)| f).collect())
                .collect()
        })
        .collect();
    assert!(answers[0].len() > 20);
    assert!(answers.iter().all(|other| *other == answers[0]), "{answers:?}");
    assert!(begun.elapsed() < Duration::from_secs(60));
}
