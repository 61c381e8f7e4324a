//! A UDP server that answers from the address it was sent to, with the interface on which the datagram arrived.
//!
//! `cargo run --example udp -- '[::]:8080'`, then `nc -u localhost 8080`.
#![allow(clippy::print_stdout, reason = "an example")]

use std::io;
use std::net::UdpSocket;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let socket = UdpSocket::bind(address)?;
    // The interface of a datagram that arrives before this call is unknown.
    ingress_interface::record(&socket)?;
    println!("listening on {}", socket.local_addr()?);
    let mut buffer = [0; 2048];
    loop {
        let datagram = ingress_interface::recv_with_ingress(&socket, &mut buffer)?;
        let answer = match datagram.ingress {
            Some(ingress) => format!("{} arrived on {ingress}\n", datagram.peer),
            None => format!("{} arrived on an unknown interface\n", datagram.peer),
        };
        print!("{answer}");
        let _ = ingress_interface::send_from(&socket, answer.as_bytes(), datagram.peer, datagram.reply_from);
    }
}
