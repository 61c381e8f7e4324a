//! Ports held by sockets that do not listen: what the kernel says to a bind, and what the plan says.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::netns::Netns;
use crate::{json, run};

/// What holds the port; kept open while the plan is made.
struct Held {
    port: u16,
    udp: bool,
    _keep: Vec<Socket>,
}

fn address(text: &str) -> SockAddr {
    text.parse::<SocketAddr>().unwrap().into()
}

fn outgoing() -> Held {
    let server = TcpListener::bind("127.0.0.1:631").unwrap();
    let client = TcpStream::connect("127.0.0.1:631").unwrap();
    Held { port: client.local_addr().unwrap().port(), udp: false, _keep: vec![server.into(), client.into()] }
}

fn bound(reuse: bool) -> Held {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(reuse).unwrap();
    socket.bind(&address("127.0.0.1:6311")).unwrap();
    Held { port: 6311, udp: false, _keep: vec![socket] }
}

fn time_wait() -> Held {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address("127.0.0.1:6310")).unwrap();
    socket.listen(5).unwrap();
    let client = TcpStream::connect("127.0.0.1:6310").unwrap();
    // The server closes first, so that TIME-WAIT is at its end.
    drop(socket.accept().unwrap());
    let _ = std::io::Read::read(&mut &client, &mut [0]);
    Held { port: 6310, udp: false, _keep: vec![] }
}

fn connected_udp() -> Held {
    let client = UdpSocket::bind("127.0.0.1:6312").unwrap();
    client.connect("127.0.0.1:53").unwrap();
    Held { port: 6312, udp: true, _keep: vec![client.into()] }
}

/// A dual-stack socket that is bound to `::` and then connected: its address is an IPv6 one, and it still blocks 0.0.0.0.
fn dual(udp: bool) -> Held {
    let kind = if udp { Type::DGRAM } else { Type::STREAM };
    let socket = Socket::new(Domain::IPV6, kind, None).unwrap();
    socket.set_only_v6(false).unwrap();
    socket.bind(&address("[::]:6314")).unwrap();
    let server = TcpListener::bind("[::1]:631").unwrap();
    socket.connect(&address("[::1]:631")).unwrap();
    Held { port: 6314, udp, _keep: vec![socket, server.into()] }
}

/// The same for a connection that was accepted by a listener that is closed.
fn dual_child() -> Held {
    let listener = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    listener.set_only_v6(false).unwrap();
    listener.bind(&address("[::]:6315")).unwrap();
    listener.listen(1).unwrap();
    let client = TcpStream::connect("[::1]:6315").unwrap();
    Held { port: 6315, udp: false, _keep: vec![listener.accept().unwrap().0, client.into()] }
}

/// A client with a fixed port, such as one of NFS: the kernel does not report whether its socket had SO_REUSEADDR.
pub fn time_wait_of_a_client_is_uncertain() {
    for reuse in [false, true] {
        let ns = Netns::new();
        ns.run(|| {
            let server = TcpListener::bind("127.0.0.1:2049").unwrap();
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            client.set_reuse_address(reuse).unwrap();
            client.bind(&address("127.0.0.1:700")).unwrap();
            client.connect(&address("127.0.0.1:2049")).unwrap();
            let mut other = server.accept().unwrap().0;
            drop(client);
            let _ = std::io::Read::read(&mut other, &mut [0]);
        });
        let outcome = |option: &str| {
            let plan =
                json(&run(&ns, &["plan", "--json", "-b", &format!("127.0.0.1:700,reuse_address={option}")]));
            plan["sockets"][0]["bind"]["predicted"]["outcome"].as_str().unwrap().to_owned()
        };
        assert_eq!(outcome("false"), "error");
        assert_eq!(outcome("true"), "uncertain");
        let real = ns.run(|| kernel("127.0.0.1:700", true, true, false));
        assert_eq!(real, if reuse { "ok" } else { "EADDRINUSE" }, "what decides is not reported");
    }
}

/// What bind and listen answer: `ok` or `EADDRINUSE`.
fn kernel(target: &str, v6only: bool, reuse: bool, udp: bool) -> &'static str {
    let to: SocketAddr = target.parse().unwrap();
    let kind = if udp { Type::DGRAM } else { Type::STREAM };
    let socket = Socket::new(Domain::for_address(to), kind, None).unwrap();
    socket.set_reuse_address(reuse).unwrap();
    if to.is_ipv6() {
        socket.set_only_v6(v6only).unwrap();
    }
    let result = socket.bind(&to.into()).and_then(|()| if udp { Ok(()) } else { socket.listen(1) });
    match result {
        Ok(()) => "ok",
        Err(error) if error.raw_os_error() == Some(nix::libc::EADDRINUSE) => "EADDRINUSE",
        Err(error) => panic!("{target}: {error}"),
    }
}

pub fn ports_held_without_listening_are_planned() {
    type Case = (&'static str, fn() -> Held, &'static str);
    let makers: [Case; 8] = [
        ("UDP bound to :: and connected over IPv6", || dual(true), "a connection of"),
        ("TCP bound to :: and connected over IPv6", || dual(false), "a connection of"),
        ("a connection that a dual-stack listener accepted", dual_child, "a connection of"),
        ("outgoing", outgoing, "a connection of"),
        ("bound", || bound(false), "does not listen"),
        ("bound with SO_REUSEADDR", || bound(true), "does not listen"),
        ("TIME-WAIT", time_wait, "TIME-WAIT"),
        ("connected UDP", connected_udp, "a connection of"),
    ];
    for (name, make, cause) in makers {
        let ns = Netns::new();
        let held = ns.run(make);
        let mut refused = 0;
        for reuse in [false, true] {
            for (host, v6only) in [
                ("0.0.0.0", true),
                ("127.0.0.1", true),
                ("127.0.0.2", true),
                ("[::]", false),
                ("[::]", true),
                ("[::1]", true),
            ] {
                let target = format!("{host}:{}", held.port);
                let real = ns.run(|| kernel(&target, v6only, reuse, held.udp));
                let protocol = if held.udp { "udp:" } else { "" };
                let family = if host.starts_with('[') { format!(",v6only={v6only}") } else { String::new() };
                let bind = format!("{protocol}{target}{family},reuse_address={reuse}");
                let plan = json(&run(&ns, &["plan", "--json", "-b", &bind]));
                let predicted = &plan["sockets"][0]["bind"]["predicted"];
                let said = predicted["errno"].as_str().unwrap_or(predicted["outcome"].as_str().unwrap());
                assert_eq!(said, real, "{name}: {bind}: {predicted:#}");
                if real == "EADDRINUSE" {
                    refused += 1;
                    let message = predicted["message"].as_str().unwrap();
                    assert!(message.contains(cause), "{name}: {message}");
                    assert!(!predicted["hint"].as_str().unwrap().is_empty());
                }
            }
        }
        assert!(refused > 1, "{name}: the kernel refused {refused} binds");
    }
}
