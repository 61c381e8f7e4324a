//! Real connections and datagrams in namespaces: every arrival must be reported as it really came.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a test")]

#[path = "../support/mod.rs"]
mod support;

use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

use libtest_mimic::Trial;
use support::netns::{Netns, harness};

fn main() -> ExitCode {
    harness(vec![Trial::test("a_wire_carries_connections", || {
        a_wire_carries_connections();
        Ok(())
    })])
}

/// Without this the other tests would prove nothing.
fn a_wire_carries_connections() {
    let (here, there) = (Netns::new(), Netns::new());
    here.wire("eth0", &there, "far");
    here.address("eth0", "192.0.2.1/24");
    there.address("far", "192.0.2.2/24");
    let listener = here.run(|| TcpListener::bind("192.0.2.1:80")).unwrap();
    let client = there.run(|| TcpStream::connect("192.0.2.1:80")).unwrap();
    assert_eq!(client.local_addr().unwrap(), listener.accept().unwrap().1);
    assert!(Netns::new().run(|| TcpStream::connect("192.0.2.1:80")).is_err());
}
