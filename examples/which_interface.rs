//! A TCP server that tells every client on which interface it arrived, and how that is known.
//!
//! `cargo run --example which_interface -- '[::]:8080'`, then `nc localhost 8080`.
#![allow(clippy::print_stdout, reason = "an example")]

use std::io::{self, Write as _};
use std::net::TcpListener;

use bindscope::ingress;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (mut stream, peer) = listener.accept()?;
        let line = match ingress::of(&stream)? {
            Some(ingress) if ingress.evidence.is_observed() => format!("{peer} arrived on {ingress}"),
            Some(ingress) => format!("{peer} probably arrived on {ingress}"),
            None => format!("{peer} arrived on an unknown interface"),
        };
        println!("{line}");
        // A client that has closed the connection is not an error of the server.
        let _ = writeln!(stream, "{line}");
    }
}
