//! The examples run and report the interface.
#![allow(clippy::unwrap_used, reason = "a test")]
#![cfg(all(target_os = "linux", not(bindscope_portable)))]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running example, stopped at the end of the test.
struct Example {
    child: Child,
    address: SocketAddr,
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cargo builds examples before tests, beside the directory of the test programs.
fn start(name: &str, arguments: &[&str]) -> Example {
    let programs: PathBuf = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().into();
    let mut command = Command::new(programs.join("examples").join(name));
    let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim_end().strip_prefix("listening on ").unwrap().parse().unwrap();
    Example { child, address }
}

fn over_tcp(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn over_udp(address: SocketAddr) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.send_to(b"hello", address).unwrap();
    let mut answer = [0; 100];
    let length = socket.recv(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[test]
fn std_reports_the_interface() {
    let example = start("std", &["127.0.0.1:0"]);
    assert!(over_tcp(example.address, "").ends_with("arrived on lo (kernel)\n"));
}

#[test]
fn udp_reports_the_interface() {
    let example = start("udp", &["127.0.0.1:0"]);
    assert!(over_udp(example.address).ends_with("arrived on lo (kernel)\n"));
}

#[test]
fn tokio_reports_the_interface() {
    let example = start("tokio", &["127.0.0.1:0"]);
    assert!(over_tcp(example.address, "").ends_with("arrived on lo (kernel)\n"));
    assert!(over_udp(example.address).ends_with("arrived on lo (kernel)\n"));
}

#[test]
fn axum_reports_the_interface_and_closes_a_route_to_others() {
    let ask = |example: &Example, path: &str| {
        over_tcp(example.address, &format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"))
    };
    let example = start("axum", &["127.0.0.1:0", "lo"]);
    assert!(ask(&example, "/").ends_with("\r\n\r\nlo (kernel)\n"));
    assert!(ask(&example, "/admin").starts_with("HTTP/1.0 200"));
    let example = start("axum", &["127.0.0.1:0", "eth0"]);
    assert!(ask(&example, "/admin").starts_with("HTTP/1.0 403"));
}
