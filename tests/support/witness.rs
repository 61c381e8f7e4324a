//! Sockets as `ss` shows them: an independent check of an inventory.

use std::net::IpAddr;
use std::process::Command;

use bindscope::model::{Family, ListeningSocket, SocketState};

/// These sockets in the format of `ss -Htulnpe`: protocol, state, local address, inode, pids, and whether it is IPv6
/// only.
#[must_use]
pub fn spelled<'a>(sockets: impl IntoIterator<Item = &'a ListeningSocket>) -> Vec<String> {
    let mut lines: Vec<String> = sockets.into_iter().map(spelling).collect();
    lines.sort();
    lines
}

fn spelling(socket: &ListeningSocket) -> String {
    let view = &socket.view;
    let state = match socket.state {
        SocketState::Listen => "LISTEN",
        SocketState::Unconnected => "UNCONN",
        other => panic!("{other}"),
    };
    let device = view.device.as_ref().map_or_else(String::new, |device| format!("%{device}"));
    let address = match view.address {
        IpAddr::V4(v4) => format!("{v4}{device}"),
        IpAddr::V6(v6) if v6.is_unspecified() && view.v6only != Some(true) => format!("*{device}"),
        IpAddr::V6(v6) => format!("[{v6}]{device}"),
    };
    let pids: Vec<u32> = socket.owners.as_ref().unwrap().iter().map(|owner| owner.pid).collect();
    let v6only = if view.family == Family::Ipv6 && view.v6only == Some(true) { " v6only:1" } else { "" };
    format!(
        "{} {state} {address}:{} ino:{} {pids:?}{v6only}",
        view.protocol,
        view.port,
        socket.inode.unwrap()
    )
}

/// The output of `ss` for the calling thread's network namespace, in the same format.
#[must_use]
pub fn ss() -> Vec<String> {
    let output = Command::new("ss").arg("-Htulnpe").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let inode = words.iter().find(|word| word.starts_with("ino:")).unwrap();
            let mut pids: Vec<u32> = line
                .split("pid=")
                .skip(1)
                .map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap())
                .collect();
            pids.sort_unstable();
            pids.dedup();
            let v6only = if words.contains(&"v6only:1") { " v6only:1" } else { "" };
            format!("{} {} {} {inode} {pids:?}{v6only}", words[0], words[1], words[4])
        })
        .collect();
    lines.sort();
    lines
}
