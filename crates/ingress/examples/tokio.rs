//! A TCP and UDP server with tokio.
//!
//! `cargo run --example tokio -- '[::]:8080'`, then `nc localhost 8080` or `nc -u localhost 8080`.
#![allow(clippy::print_stdout, reason = "an example")]

use std::io;

use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::{TcpListener, UdpSocket};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address).await?;
    let socket = UdpSocket::bind(listener.local_addr()?).await?;
    // The interface of a datagram that arrives before this call is unknown.
    ingress_interface::record(&socket)?;
    println!("listening on {}", listener.local_addr()?);
    tokio::try_join!(connections(listener), datagrams(socket))?;
    Ok(())
}

async fn connections(listener: TcpListener) -> io::Result<()> {
    loop {
        let (mut stream, peer) = listener.accept().await?;
        // Read before the first await: later data of an IPv6 connection overwrites what the kernel recorded.
        let line = match ingress_interface::of(&stream) {
            Ok(Some(ingress)) => format!("{peer} arrived on {ingress}\n"),
            Ok(None) => format!("{peer} arrived on an unknown interface\n"),
            Err(error) => format!("{peer}: {error}\n"),
        };
        tokio::spawn(async move { stream.write_all(line.as_bytes()).await });
    }
}

async fn datagrams(socket: UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        let receive = || ingress_interface::recv_with_ingress(&socket, &mut buffer);
        let datagram = socket.async_io(Interest::READABLE, receive).await?;
        let line = match datagram.ingress {
            Some(ingress) => format!("{} arrived on {ingress}\n", datagram.peer),
            None => format!("{} arrived on an unknown interface\n", datagram.peer),
        };
        let send =
            || ingress_interface::send_from(&socket, line.as_bytes(), datagram.peer, datagram.reply_from);
        let _ = socket.async_io(Interest::WRITABLE, send).await;
    }
}
