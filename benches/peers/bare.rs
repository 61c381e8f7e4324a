//! The limits: loops that do nothing but the system calls that cannot be left out.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

/// Where the bare loops and the programs listen.
pub const PORT: u16 = 900;

/// Runs as the server `role` of this benchmark.
pub fn run(role: &str, number: usize) {
    match role {
        "accept" => {
            let listener = listener();
            loop {
                drop(listener.accept().unwrap());
            }
        }
        "answer" => {
            let listener = listener();
            let mut buffer = [0; 4096];
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {number}\r\nConnection: close\r\n\r\n{}",
                "x".repeat(number)
            );
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut buffer);
                let _ = stream.write_all(answer.as_bytes());
            }
        }
        "bind" => {
            let poller = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
            let mut listeners = Vec::new();
            for number in 0..number {
                let listener =
                    TcpListener::bind(("127.0.0.1", u16::try_from(1_025 + number).unwrap())).unwrap();
                poller.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, number as u64)).unwrap();
                listeners.push(listener);
            }
        }
        // The two ends of one connection between namespaces.
        "serve" => {
            let listener = TcpListener::bind(("0.0.0.0", u16::try_from(number).unwrap())).unwrap();
            drop(listener.accept().unwrap());
        }
        "connect" => {
            let port = u16::try_from(number).unwrap();
            while std::net::TcpStream::connect(("192.0.2.1", port)).is_err() {
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            println!("connected {}", now.as_nanos());
        }
        _ => panic!("{role}"),
    }
}

fn listener() -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], PORT)).into()).unwrap();
    socket.listen(16_384).unwrap();
    socket.into()
}
