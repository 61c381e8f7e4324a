//! From nothing to the first connection between four nodes: a lab beside shell scripts that build the same with `ip netns`.

use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::enumerate::used_by_children;
use crate::{Bench, Cost, Side, installed};

const OURS: &str = env!("CARGO_BIN_EXE_bindscope");
const PORT: u16 = 8091;

/// As a person would write it: what the network needs, and nothing besides.
const BY_HAND: &str = "
wire() { # interface, node, IPv4 prefix, IPv6 prefix
    ip -n host link add $1 type veth peer name eth0 netns $2
    ip -n host address add $3.1/24 dev $1
    ip -n host address add $4::1/64 dev $1 nodad
    ip -n $2 address add $3.10/24 dev eth0
    ip -n $2 address add $4::10/64 dev eth0 nodad
    ip -n host link set $1 up
    ip -n $2 link set eth0 up
    ip -n $2 route add default via $3.1
    ip -n $2 route add default via $4::1
}
for node in host lan wan vpn; do
    ip netns add $node
    ip -n $node link set lo up
done
wire eth0 lan 192.0.2 2001:db8:1
wire eth1 wan 198.51.100 2001:db8:2
wire tun0 vpn 10.8.0 fd00:8
";

/// The same, with one process for each namespace's commands.
const BATCH: &str = "
for node in host lan wan vpn; do ip netns add $node; done
ip -n host -batch - <<END
link set lo up
link add eth0 type veth peer name eth0 netns lan
link add eth1 type veth peer name eth0 netns wan
link add tun0 type veth peer name eth0 netns vpn
address add 192.0.2.1/24 dev eth0
address add 2001:db8:1::1/64 dev eth0 nodad
address add 198.51.100.1/24 dev eth1
address add 2001:db8:2::1/64 dev eth1 nodad
address add 10.8.0.1/24 dev tun0
address add fd00:8::1/64 dev tun0 nodad
link set eth0 up
link set eth1 up
link set tun0 up
END
peer() {
    ip -n $1 -batch - <<END
link set lo up
address add $2.10/24 dev eth0
address add $3::10/64 dev eth0 nodad
link set eth0 up
route add default via $2.1
route add default via $3::1
END
}
peer lan 192.0.2 2001:db8:1
peer wan 198.51.100 2001:db8:2
peer vpn 10.8.0 fd00:8
";

const AWAY: &str = "for node in host lan wan vpn; do ip netns del $node; done";

/// Runs a command whose client, at its end, says when it was connected.
fn until_connected(command: &mut Command, after: &str) -> Cost {
    let used = used_by_children();
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    let cpu = used_by_children() - used;
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{command:?}: {said}");
    let connected = said.lines().find_map(|line| line.strip_prefix("connected ")?.parse().ok()).unwrap();
    if !after.is_empty() {
        assert!(Command::new("sh").args(["-ec", after]).status().unwrap().success());
    }
    Cost { cpu, wall: Duration::from_nanos(connected) - begun }
}

fn script(name: &'static str, build: String) -> Side<'static> {
    let bare = std::env::current_exe().unwrap().display().to_string();
    let text = format!(
        "{build}\nip netns exec host {bare} --bare=serve {PORT} &\nip netns exec lan {bare} --bare=connect {PORT}\nwait\n"
    );
    Side { name, run: Box::new(move || until_connected(Command::new("sh").args(["-ec", &text]), AWAY)) }
}

pub fn all(bench: &mut Bench) {
    let work = "lab of four nodes to its first connection";
    if !bench.wants(work) || !installed("ip") {
        return;
    }
    // `ip netns` gives names to namespaces by mounts; no other process sees them.
    let body = || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        mount(Some("none"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        let bare = std::env::current_exe().unwrap();
        let typed = Command::new(OURS).args(["lab", "plan", "--topology", "three-links"]).output().unwrap();
        let typed = String::from_utf8(typed.stdout).unwrap();
        let ours = move || {
            let mut command = Command::new(OURS);
            command.args([
                "lab",
                "shell",
                "--topology",
                "three-links",
                "--profile",
                "all-interfaces",
                "lan",
                "--",
            ]);
            until_connected(command.arg(&bare).args(["--bare=connect", &PORT.to_string()]), "")
        };
        let sides = vec![
            script("ip netns, by hand", BY_HAND.to_owned()),
            script("ip -batch", BATCH.to_owned()),
            script("all commands of lab plan", typed),
            Side { name: "bindscope lab", run: Box::new(ours) },
        ];
        bench.work_by_wall(work, Some(0.2), sides);
        nix::Result::Ok(())
    };
    if let Err(error) = std::thread::scope(|scope| scope.spawn(body).join()).unwrap() {
        println!("not measured: {error} when mounting a place for names of namespaces");
    }
}
